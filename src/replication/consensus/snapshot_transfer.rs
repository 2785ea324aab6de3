//! A snapshot's way from the leader to a follower that is behind the purge point.
//!
//! ```text
//! offer     = vote · snapshot index u64 · term u64 · content hash u64 · file bytes u64   (sender)
//! resume    = offset u64: what the receiver has of this file already                     (receiver)
//! range     = bytes of the file, in order from the offset                                (sender)
//! installed = vote                                                                       (receiver)
//! ```
//!
//! A node that needs one asks for it instead (a hole below the purge point, a state that diverged):
//!
//! ```text
//! want      = entry u64: the lowest that the snapshot may end at                         (receiver)
//! offer     = snapshot index u64 · term u64 · content hash u64 · file bytes u64          (sender)
//! ```
//!
//! and then as above, without the last frame.
//!
//! The receiver keeps what it has over breaks and restarts, and believes the file only when all of
//! it is there and every byte has been checked.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::raft::SnapshotResponse;
use quorate_storage::snapshot::{Catalogue, Kept, RANGE_BYTES_MAX, SnapshotId};

use crate::peer::{FrameReceiver, FrameSender};
use crate::replication::consensus::raft_codec::{CodecError, need, put_vote, take_vote};
use crate::replication::consensus::raft_types::{Snapshot, Types, Vote};
use crate::replication::consensus::state_store::{Raft, StateStore, snapshot_of};
use crate::replication::members::peers::{Lane, PeerFault, Peers};
use crate::supervisor::Supervisor;
use crate::telemetry::event;

const FRAME_OFFER: u8 = 1;
const FRAME_RESUME: u8 = 2;
const FRAME_RANGE: u8 = 3;
const FRAME_INSTALLED: u8 = 4;
const FRAME_WANT: u8 = 5;

/// What a node may take to write the snapshot that another asks for.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);
/// How often it looks whether that is done.
const WRITE_POLL: Duration = Duration::from_millis(20);
/// What the next frame of a snapshot that was asked for may take.
const FRAME_PATIENCE: Duration = Duration::from_secs(75);

/// A snapshot in the catalogue of the node that holds this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::replication) struct SnapshotFile {
    pub(in crate::replication) id: SnapshotId,
    pub(in crate::replication) file_bytes: u64,
}

/// Sends a snapshot to a follower and waits until it has installed it.
pub(in crate::replication) async fn send_snapshot(
    peers: &Peers,
    catalogue: &Arc<Catalogue>,
    supervisor: &Supervisor,
    target: u64,
    vote: Vote,
    snapshot: Snapshot<SnapshotFile>,
) -> Result<SnapshotResponse<Types>, PeerFault> {
    let file = snapshot.snapshot;
    if !is_whole(catalogue, file.id, supervisor).await {
        return Err(PeerFault::Closed);
    }
    let (mut sender, mut receiver) = peers.open(target, Lane::Snapshot).await?;
    let closed = |_| PeerFault::Closed;
    sender.send(FRAME_OFFER, &offer_bytes(&vote, &file)).await.map_err(closed)?;
    let mut offset = match expect_frame(&mut receiver, FRAME_RESUME).await {
        Some(mut body) if body.len() == 8 => body.get_u64_le(),
        _ => return Err(PeerFault::Closed),
    };
    send_ranges(catalogue, &file, &mut offset, &mut sender).await?;
    sender.finish().await.map_err(closed)?;
    let mut body = expect_frame(&mut receiver, FRAME_INSTALLED).await.ok_or(PeerFault::Closed)?;
    let vote = take_vote(&mut body).map_err(|_| PeerFault::Closed)?;
    Ok(SnapshotResponse::new(vote))
}

/// Receives a snapshot and hands it to consensus. Any fault ends the stream; the leader tries
/// again and goes on where this ended.
pub(in crate::replication) async fn receive_snapshot(
    raft: &Raft,
    store: &StateStore,
    mut sender: FrameSender,
    mut receiver: FrameReceiver,
) -> Result<(), SnapshotRefused> {
    let offer = expect_frame(&mut receiver, FRAME_OFFER).await.ok_or(SnapshotRefused::Broken)?;
    let (vote, file) = take_offer(offer)?;
    let (catalogue, supervisor) = (&store.catalogue, &store.supervisor);
    let kept = receive_file(catalogue, supervisor, &file, &mut sender, &mut receiver).await?;
    let snapshot = snapshot_of(&kept).map_err(|_| SnapshotRefused::Broken)?;
    let installed = raft.install_full_snapshot(vote, snapshot).await;
    let response = installed.map_err(|_| SnapshotRefused::Broken)?;
    let mut body = BytesMut::with_capacity(18);
    put_vote(&mut body, &response.vote);
    sender.send(FRAME_INSTALLED, &body).await.map_err(|_| SnapshotRefused::Broken)?;
    sender.finish().await.map_err(|_| SnapshotRefused::Broken)
}

/// Says what is here of the file and takes the rest.
async fn receive_file(
    catalogue: &Arc<Catalogue>,
    supervisor: &Supervisor,
    file: &SnapshotFile,
    sender: &mut FrameSender,
    receiver: &mut FrameReceiver,
) -> Result<Kept, SnapshotRefused> {
    if let Some(kept) = catalogue.list().into_iter().find(|kept| kept.id == file.id) {
        // It is all here, from an earlier try that broke after the last byte.
        let offset = file.file_bytes.to_le_bytes();
        sender.send(FRAME_RESUME, &offset).await.map_err(|_| SnapshotRefused::Broken)?;
        return Ok(kept);
    }
    let mut partial = catalogue.receive(file.id, file.file_bytes)?;
    let mut offset = partial.status().received;
    let resume = offset.to_le_bytes();
    sender.send(FRAME_RESUME, &resume).await.map_err(|_| SnapshotRefused::Broken)?;
    while !partial.is_complete() {
        let range = expect_frame(receiver, FRAME_RANGE).await;
        let range = range.ok_or(SnapshotRefused::Broken)?;
        offset = partial.write(offset, &range)?.received;
    }
    let catalogue = Arc::clone(catalogue);
    let accepted = supervisor
        .blocking("snapshot check", move || catalogue.accept(partial))
        .await
        .map_err(|_| SnapshotRefused::Broken)?;
    Ok(accepted?)
}

async fn send_ranges(
    catalogue: &Catalogue,
    file: &SnapshotFile,
    offset: &mut u64,
    sender: &mut FrameSender,
) -> Result<(), PeerFault> {
    while *offset < file.file_bytes {
        let range = catalogue.read_range(file.id, *offset, RANGE_BYTES_MAX);
        let range = range.map_err(|_| PeerFault::Closed)?;
        if range.is_empty() {
            return Err(PeerFault::Closed);
        }
        *offset += range.len() as u64;
        sender.queue_shared(FRAME_RANGE, range).map_err(|_| PeerFault::Closed)?;
        sender.flush().await.map_err(|_| PeerFault::Closed)?;
    }
    Ok(())
}

/// Reads a snapshot before it is sent: a damaged one is set aside, and the next is taken when
/// there is one.
async fn is_whole(catalogue: &Arc<Catalogue>, id: SnapshotId, supervisor: &Supervisor) -> bool {
    let checking = Arc::clone(catalogue);
    let checked = supervisor.blocking("snapshot check", move || checking.check(id)).await;
    match checked {
        Ok(Ok(None)) => true,
        Ok(Ok(Some(aside))) => {
            tracing::warn!(
                event = event::SNAPSHOT_SET_ASIDE,
                file = aside.name,
                error = %aside.error,
                "a damaged snapshot was set aside"
            );
            false
        }
        Ok(Err(_)) | Err(_) => false,
    }
}

/// Asks a member for a snapshot that ends at `entry` or behind it, and keeps it.
pub(in crate::replication) async fn fetch_snapshot(
    peers: &Peers,
    catalogue: &Arc<Catalogue>,
    supervisor: &Supervisor,
    member: u64,
    entry: u64,
) -> Result<Kept, SnapshotRefused> {
    let conversation = async {
        let opened = peers.open(member, Lane::Fetch).await;
        let (mut sender, mut receiver) = opened.map_err(|_| SnapshotRefused::Broken)?;
        let want = entry.to_le_bytes();
        sender.send(FRAME_WANT, &want).await.map_err(|_| SnapshotRefused::Broken)?;
        let offer = expect_frame(&mut receiver, FRAME_OFFER).await;
        let file = take_file(&mut offer.ok_or(SnapshotRefused::Broken)?)?;
        if file.id.index < entry {
            return Err(SnapshotRefused::Broken);
        }
        receive_file(catalogue, supervisor, &file, &mut sender, &mut receiver).await
    };
    conversation.await
}

/// Serves a member that asks for a snapshot: the newest, or one that is taken now.
pub(in crate::replication) async fn serve_snapshot(
    raft: &Raft,
    store: &StateStore,
    mut sender: FrameSender,
    mut receiver: FrameReceiver,
) -> Result<(), PeerFault> {
    let closed = |_| PeerFault::Closed;
    let entry = match expect_frame(&mut receiver, FRAME_WANT).await {
        Some(mut body) if body.len() == 8 => body.get_u64_le(),
        _ => return Err(PeerFault::Closed),
    };
    let newest = || store.catalogue.newest().filter(|kept| kept.id.index >= entry);
    let kept = loop {
        let kept = match newest() {
            Some(kept) => kept,
            None => {
                if store.applied.last().is_none_or(|last| last.index() < entry) {
                    return Err(PeerFault::Closed);
                }
                raft.trigger().snapshot().await.map_err(|_| PeerFault::Closed)?;
                let written = async {
                    loop {
                        if let Some(kept) = newest() {
                            return kept;
                        }
                        tokio::time::sleep(WRITE_POLL).await;
                    }
                };
                let written = tokio::time::timeout(WRITE_PATIENCE, written).await;
                written.map_err(|_| PeerFault::Deadline)?
            }
        };
        if is_whole(&store.catalogue, kept.id, &store.supervisor).await {
            break kept;
        }
    };
    let file = SnapshotFile { id: kept.id, file_bytes: kept.file_bytes };
    let mut offer = BytesMut::with_capacity(32);
    put_file(&mut offer, &file);
    sender.send(FRAME_OFFER, &offer).await.map_err(closed)?;
    let mut offset = match expect_frame(&mut receiver, FRAME_RESUME).await {
        Some(mut body) if body.len() == 8 => body.get_u64_le(),
        _ => return Err(PeerFault::Closed),
    };
    send_ranges(&store.catalogue, &file, &mut offset, &mut sender).await?;
    sender.finish().await.map_err(closed)
}

/// Why a snapshot was not taken.
#[derive(Debug, thiserror::Error)]
pub(in crate::replication) enum SnapshotRefused {
    /// The stream or this node ended.
    #[error("the transfer broke off")]
    Broken,
    /// The peer sent what is no offer.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The file could not be kept, or is not what was offered.
    #[error(transparent)]
    Transfer(#[from] quorate_storage::snapshot::TransferError),
}

async fn expect_frame(receiver: &mut FrameReceiver, kind: u8) -> Option<Bytes> {
    let next = tokio::time::timeout(FRAME_PATIENCE, receiver.next()).await;
    let frame = next.ok()?.ok()??;
    (frame.kind == kind).then_some(frame.body)
}

pub(in crate::replication) fn offer_bytes(vote: &Vote, file: &SnapshotFile) -> Bytes {
    let mut buffer = BytesMut::with_capacity(50);
    put_vote(&mut buffer, vote);
    put_file(&mut buffer, file);
    buffer.freeze()
}

fn put_file(buffer: &mut BytesMut, file: &SnapshotFile) {
    buffer.put_u64_le(file.id.index);
    buffer.put_u64_le(file.id.term);
    buffer.put_u64_le(file.id.content_hash);
    buffer.put_u64_le(file.file_bytes);
}

fn take_file(buffer: &mut Bytes) -> Result<SnapshotFile, CodecError> {
    need(buffer, 32, "snapshot offer")?;
    let index = buffer.get_u64_le();
    let term = buffer.get_u64_le();
    let id = SnapshotId { index, term, content_hash: buffer.get_u64_le() };
    Ok(SnapshotFile { id, file_bytes: buffer.get_u64_le() })
}

pub(in crate::replication) fn take_offer(
    mut buffer: Bytes,
) -> Result<(Vote, SnapshotFile), CodecError> {
    let vote = take_vote(&mut buffer)?;
    Ok((vote, take_file(&mut buffer)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::consensus::raft_types::Leader;

    #[test]
    fn offers_come_back_and_cuts_are_errors() {
        let vote = Vote { leader_id: Leader { term: 2, voted_for: 3 }, committed: true };
        let id = SnapshotId { index: 9, term: 2, content_hash: 77 };
        let file = SnapshotFile { id, file_bytes: 1_000 };
        let bytes = offer_bytes(&vote, &file);
        assert_eq!(take_offer(bytes.clone()), Ok((vote, file)));
        for cut in 0..bytes.len() {
            assert!(take_offer(bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
    }
}
