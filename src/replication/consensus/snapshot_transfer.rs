//! A snapshot's way from the leader to a follower that is behind the purge point.
//!
//! ```text
//! offer     = vote · snapshot index u64 · term u64 · content hash u64 · file bytes u64   (sender)
//! resume    = offset u64: what the receiver has of this file already                     (receiver)
//! range     = bytes of the file, in order from the offset                                (sender)
//! installed = vote                                                                       (receiver)
//! ```
//!
//! The receiver keeps what it has over breaks and restarts, and believes the file only when all of
//! it is there and every byte has been checked.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::raft::SnapshotResponse;
use quorate_storage::snapshot::{Catalogue, RANGE_BYTES_MAX, SnapshotId};

use crate::peer::{FrameReceiver, FrameSender};
use crate::replication::consensus::raft_codec::{CodecError, need, put_vote, take_vote};
use crate::replication::consensus::raft_types::{Snapshot, Types, Vote};
use crate::replication::consensus::state_store::{Raft, StateStore, snapshot_of};
use crate::replication::members::peers::{Lane, PeerFault, Peers};

const FRAME_OFFER: u8 = 1;
const FRAME_RESUME: u8 = 2;
const FRAME_RANGE: u8 = 3;
const FRAME_INSTALLED: u8 = 4;

/// A snapshot in the catalogue of the node that holds this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::replication) struct SnapshotFile {
    pub(in crate::replication) id: SnapshotId,
    pub(in crate::replication) file_bytes: u64,
}

/// Sends a snapshot to a follower and waits until it has installed it.
pub(in crate::replication) async fn send_snapshot(
    peers: &Peers,
    catalogue: &Catalogue,
    target: u64,
    vote: Vote,
    snapshot: Snapshot<SnapshotFile>,
) -> Result<SnapshotResponse<Types>, PeerFault> {
    let file = snapshot.snapshot;
    let (mut sender, mut receiver) = peers.open(target, Lane::Snapshot).await?;
    let closed = |_| PeerFault::Closed;
    sender.send(FRAME_OFFER, &offer_bytes(&vote, &file)).await.map_err(closed)?;
    let mut offset = match expect_frame(&mut receiver, FRAME_RESUME).await {
        Some(mut body) if body.len() == 8 => body.get_u64_le(),
        _ => return Err(PeerFault::Closed),
    };
    while offset < file.file_bytes {
        let range = catalogue.read_range(file.id, offset, RANGE_BYTES_MAX);
        let range = range.map_err(|_| PeerFault::Closed)?;
        if range.is_empty() {
            return Err(PeerFault::Closed);
        }
        offset += range.len() as u64;
        sender.queue_shared(FRAME_RANGE, range).map_err(closed)?;
        sender.flush().await.map_err(closed)?;
    }
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
    let known = store.catalogue.list().into_iter().find(|kept| kept.id == file.id);
    let kept = match known {
        Some(kept) => {
            // It is all here, from an earlier try that broke after the last byte.
            let offset = file.file_bytes.to_le_bytes();
            sender.send(FRAME_RESUME, &offset).await.map_err(|_| SnapshotRefused::Broken)?;
            kept
        }
        None => {
            let mut partial = store.catalogue.receive(file.id, file.file_bytes)?;
            let mut offset = partial.status().received;
            let resume = offset.to_le_bytes();
            sender.send(FRAME_RESUME, &resume).await.map_err(|_| SnapshotRefused::Broken)?;
            while !partial.is_complete() {
                let range = expect_frame(&mut receiver, FRAME_RANGE).await;
                let range = range.ok_or(SnapshotRefused::Broken)?;
                offset = partial.write(offset, &range)?.received;
            }
            let catalogue = std::sync::Arc::clone(&store.catalogue);
            let accepted = store
                .supervisor
                .blocking("snapshot check", move || catalogue.accept(partial))
                .await
                .map_err(|_| SnapshotRefused::Broken)?;
            accepted?
        }
    };
    let snapshot = snapshot_of(&kept).map_err(|_| SnapshotRefused::Broken)?;
    let installed = raft.install_full_snapshot(vote, snapshot).await;
    let response = installed.map_err(|_| SnapshotRefused::Broken)?;
    let mut body = BytesMut::with_capacity(18);
    put_vote(&mut body, &response.vote);
    sender.send(FRAME_INSTALLED, &body).await.map_err(|_| SnapshotRefused::Broken)?;
    sender.finish().await.map_err(|_| SnapshotRefused::Broken)
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
    let frame = receiver.next().await.ok()??;
    (frame.kind == kind).then_some(frame.body)
}

pub(in crate::replication) fn offer_bytes(vote: &Vote, file: &SnapshotFile) -> Bytes {
    let mut buffer = BytesMut::with_capacity(50);
    put_vote(&mut buffer, vote);
    buffer.put_u64_le(file.id.index);
    buffer.put_u64_le(file.id.term);
    buffer.put_u64_le(file.id.content_hash);
    buffer.put_u64_le(file.file_bytes);
    buffer.freeze()
}

pub(in crate::replication) fn take_offer(
    mut buffer: Bytes,
) -> Result<(Vote, SnapshotFile), CodecError> {
    let vote = take_vote(&mut buffer)?;
    need(&buffer, 32, "snapshot offer")?;
    let index = buffer.get_u64_le();
    let term = buffer.get_u64_le();
    let id = SnapshotId { index, term, content_hash: buffer.get_u64_le() };
    Ok((vote, SnapshotFile { id, file_bytes: buffer.get_u64_le() }))
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
