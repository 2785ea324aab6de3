//! The Raft library's network over the lanes between peers.
//!
//! Appends go down one stream per follower with a few requests in flight; while the window is full
//! the next request grows by itself. Heartbeats and votes are unary calls on a lane of their own,
//! so they never queue behind bulk. Snapshots have the lane of lowest priority.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use quorate_storage::snapshot::Catalogue;

use crate::clock::Clock;
use crate::peer::{FrameReceiver, FrameSender};
use crate::replication::consensus::append_frame::{
    append_head_bytes, ballot_bytes, take_accepted, take_answer, take_verdict, transfer_bytes,
};
use crate::replication::consensus::raft_codec::CodecError;
use crate::replication::consensus::raft_types::{Snapshot, Types, Vote};
use crate::replication::consensus::snapshot_transfer::{SnapshotFile, send_snapshot};
use crate::replication::members::peers::{Lane, PeerFault, Peers};
use crate::supervisor::Supervisor;

/// Append requests without an answer, per follower. More only fills the receiver with requests of
/// one entry each; fewer leave the wire idle during a flush.
const APPENDS_IN_FLIGHT: usize = 4;
/// A follower that answers nothing for this long while requests wait is given up and dialled anew.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before an unreachable peer is tried again; the connection itself is the mesh's to mend.
const RETRY: Duration = Duration::from_millis(20);
/// How long an append stream waits for its peer to be connected before it reports it unreachable
/// once more. The library waits between requests of a stream, not between streams that never
/// opened: without this wait the leader would try a dead follower thousands of times a second.
const CONNECT_WAIT: Duration = Duration::from_millis(250);

/// Frames on an append lane: a head and one payload per entry; answers come back in order.
pub(in crate::replication) const FRAME_APPEND: u8 = 1;
pub(in crate::replication) const FRAME_PAYLOAD: u8 = 2;
pub(in crate::replication) const FRAME_ACCEPTED: u8 = 3;

/// Unary calls on the control lane: the first byte of the request.
pub(in crate::replication) const CALL_HEARTBEAT: u8 = 1;
pub(in crate::replication) const CALL_VOTE: u8 = 2;
pub(in crate::replication) const CALL_PRE_VOTE: u8 = 3;
pub(in crate::replication) const CALL_TRANSFER: u8 = 4;

type AppendAnswer = Result<StreamAppendResult<Types>, RPCError<Types>>;

/// Makes clients for the Raft library.
#[derive(Debug, Clone)]
pub(in crate::replication) struct Network {
    pub(in crate::replication) peers: Peers,
    pub(in crate::replication) catalogue: Arc<Catalogue>,
    pub(in crate::replication) clock: Clock,
    pub(in crate::replication) supervisor: Supervisor,
}

/// What a client is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Entries,
    Heartbeats,
}

/// One use of the connection to one peer.
#[derive(Debug)]
pub(in crate::replication) struct PeerClient {
    peers: Peers,
    catalogue: Arc<Catalogue>,
    target: u64,
    purpose: Purpose,
    clock: Clock,
    supervisor: Supervisor,
}

impl Network {
    fn client(&self, target: u64, purpose: Purpose) -> PeerClient {
        PeerClient {
            peers: self.peers.clone(),
            catalogue: Arc::clone(&self.catalogue),
            target,
            purpose,
            clock: self.clock,
            supervisor: self.supervisor.clone(),
        }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = PeerClient;

    async fn new_client(&mut self, target: u64, _node: &()) -> PeerClient {
        self.client(target, Purpose::Entries)
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &()) -> PeerClient {
        self.client(target, Purpose::Heartbeats)
    }
}

impl RaftNetworkV2<Types> for PeerClient {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let mut answers = self.stream_append(futures::stream::iter([rpc]), option).await?;
        match answers.next().await {
            Some(answer) => Ok(AppendEntriesResponse::from(answer?)),
            None => Err(unreachable(PeerFault::Closed)),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, AppendAnswer>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            if self.purpose == Purpose::Heartbeats {
                let Some(beat) = input.next().await else {
                    return Ok(futures::stream::empty().boxed());
                };
                let answer = self.heartbeat(&beat, option.soft_ttl()).await?;
                return Ok(futures::stream::iter([Ok(answer)]).boxed());
            }
            let (sender, receiver) = match self.peers.open(self.target, Lane::Append).await {
                Ok(lane) => lane,
                Err(fault) => {
                    tokio::time::sleep(RETRY).await;
                    self.peers.wait_connected(self.target, CONNECT_WAIT).await;
                    return Err(unreachable(fault));
                }
            };
            let pipeline = Pipeline {
                input: input.boxed(),
                sender,
                receiver,
                in_flight: 0,
                state: PipelineState::Open,
                clock: self.clock,
            };
            Ok(futures::stream::unfold(pipeline, Pipeline::step).boxed())
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let answer = self.control(CALL_VOTE, &ballot_bytes(&rpc), option.soft_ttl()).await?;
        take_answer(answer).map_err(garbled)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let answer = self.control(CALL_PRE_VOTE, &ballot_bytes(&rpc), option.soft_ttl()).await?;
        take_answer(answer).map_err(garbled)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = send_snapshot(
                &self.peers, &self.catalogue, &self.supervisor, self.target, vote, snapshot
            ) => {
                sent.map_err(|fault| StreamingError::Unreachable(Unreachable::new(&fault)))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let body = transfer_bytes(&request);
        let verdict = self.control(CALL_TRANSFER, &body, option.soft_ttl()).await?;
        take_verdict(verdict).map_err(garbled)
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(RETRY)))
    }
}

impl PeerClient {
    async fn heartbeat(
        &self,
        beat: &AppendEntriesRequest<Types>,
        patience: Duration,
    ) -> Result<StreamAppendResult<Types>, RPCError<Types>> {
        let answer = self.control(CALL_HEARTBEAT, &append_head_bytes(beat), patience).await?;
        take_accepted(answer).map_err(garbled)
    }

    async fn control(
        &self,
        call: u8,
        body: &[u8],
        patience: Duration,
    ) -> Result<Bytes, RPCError<Types>> {
        let mut request = BytesMut::with_capacity(1 + body.len());
        request.put_u8(call);
        request.put_slice(body);
        let called = self.peers.call(self.target, Lane::Control, request.freeze(), patience).await;
        called.map_err(unreachable)
    }
}

/// One append stream to one follower.
struct Pipeline {
    input: BoxStream<'static, AppendEntriesRequest<Types>>,
    sender: FrameSender,
    receiver: FrameReceiver,
    in_flight: usize,
    state: PipelineState,
    clock: Clock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PipelineState {
    Open,
    /// The library has nothing more for this stream; answers are still to come.
    Finishing,
    /// An error was handed out; the stream ends.
    Broken,
}

impl Pipeline {
    /// The next answer; sends requests while it waits.
    async fn step(mut self) -> Option<(AppendAnswer, Self)> {
        if self.state == PipelineState::Broken {
            return None;
        }
        let stalled = tokio::time::sleep(PROGRESS_TIMEOUT);
        tokio::pin!(stalled);
        let fault = loop {
            let open = self.state == PipelineState::Open;
            let busy = self.sender.queued_bytes() > 0;
            let room = open && !busy && self.in_flight < APPENDS_IN_FLIGHT;
            tokio::select! {
                biased;
                frame = self.receiver.next() => match frame {
                    Ok(Some(frame)) if frame.kind == FRAME_ACCEPTED => {
                        self.in_flight = self.in_flight.saturating_sub(1);
                        match take_accepted(frame.body) {
                            Ok(answer) => return Some((Ok(answer), self)),
                            Err(error) => break garbled(error),
                        }
                    }
                    Ok(None) if self.in_flight == 0 && !open => return None,
                    _ => break unreachable(PeerFault::Closed),
                },
                sent = self.sender.flush(), if busy => {
                    if sent.is_err() {
                        break unreachable(PeerFault::Closed);
                    }
                }
                request = self.input.next(), if room => match request {
                    Some(request) => {
                        if self.in_flight == 0 {
                            // The wait for work does not count, only the wait for an answer.
                            stalled.as_mut().reset(self.clock.now() + PROGRESS_TIMEOUT);
                        }
                        if self.queue(&request).is_err() {
                            break unreachable(PeerFault::Closed);
                        }
                    }
                    None => {
                        self.state = PipelineState::Finishing;
                        if self.sender.finish().await.is_err() {
                            break unreachable(PeerFault::Closed);
                        }
                    }
                },
                () = &mut stalled, if self.in_flight > 0 => break unreachable(PeerFault::Deadline),
            }
        };
        self.state = PipelineState::Broken;
        Some((Err(fault), self))
    }

    fn queue(
        &mut self,
        request: &AppendEntriesRequest<Types>,
    ) -> Result<(), crate::peer::SendError> {
        self.in_flight += 1;
        self.sender.queue(FRAME_APPEND, &append_head_bytes(request))?;
        for entry in &request.entries {
            self.sender.queue_shared(FRAME_PAYLOAD, entry.payload().bytes().clone())?;
        }
        Ok(())
    }
}

fn unreachable(fault: PeerFault) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(&fault))
}

fn garbled(error: CodecError) -> RPCError<Types> {
    RPCError::Network(NetworkError::new(&error))
}
