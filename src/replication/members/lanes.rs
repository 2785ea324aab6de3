//! Serves the streams that other members open: each lane to the part that it is for.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::StreamExt;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use tokio::sync::mpsc;

use crate::peer::{FrameReceiver, FrameSender, IncomingStream};
use crate::replication::consensus::append_frame::{
    AppendHead, accepted_bytes, answer_bytes, take_ballot, take_transfer, verdict_bytes,
};
use crate::replication::consensus::network::{
    CALL_HEARTBEAT, CALL_PRE_VOTE, CALL_TRANSFER, CALL_VOTE, FRAME_ACCEPTED, FRAME_APPEND,
    FRAME_PAYLOAD,
};
use crate::replication::consensus::raft_types::Types;
use crate::replication::consensus::snapshot_transfer::{receive_snapshot, serve_snapshot};
use crate::replication::consensus::state_store::{Raft, StateStore};
use crate::replication::consensus::vote_gate::VoteGate;
use crate::replication::members::ask::{self, Answerer};
use crate::replication::members::peers::{Lane, Peers};
use crate::replication::proposing::proposer::Forwarded;
use crate::replication::status::NodeState;
use crate::replication::upkeep::quorum_watch::LeaderContact;
use crate::supervisor::{StopSignal, Supervisor};
use crate::telemetry::event;

/// Answers that are laid into one write.
const ANSWERS_PER_WRITE: usize = 64;

/// What the lanes lead to.
#[derive(Debug)]
pub(in crate::replication) struct Lanes {
    pub(in crate::replication) raft: Raft,
    pub(in crate::replication) store: StateStore,
    pub(in crate::replication) forwarded: Arc<Forwarded>,
    pub(in crate::replication) peers: Peers,
    pub(in crate::replication) contact: LeaderContact,
    pub(in crate::replication) gate: VoteGate,
    pub(in crate::replication) answerer: Answerer,
    pub(in crate::replication) supervisor: Supervisor,
}

impl Lanes {
    /// Serves until `stop` or the end of the mesh.
    pub(in crate::replication) async fn run(
        self: Arc<Self>,
        mut streams: mpsc::Receiver<IncomingStream>,
        mut stop: StopSignal,
    ) {
        loop {
            let stream = tokio::select! {
                () = stop.stopped() => return,
                stream = streams.recv() => stream,
            };
            let Some(stream) = stream else { return };
            let Some(lane) = self.admitted(&stream) else { continue };
            let lanes = Arc::clone(&self);
            let mut stop = self.supervisor.stop_signal();
            // One task per stream: a call ends at once, the others live as long as their lane. The
            // mesh bounds how many a peer may open.
            self.supervisor.spawn("lane", async move {
                tokio::select! {
                    () = stop.stopped() => {}
                    () = lanes.serve(lane, stream) => {}
                }
            });
        }
    }

    /// The stream's lane, if it comes from a member and is one that there is.
    fn admitted(&self, stream: &IncomingStream) -> Option<Lane> {
        let id = self.peers.roster().id(&stream.peer)?;
        self.peers.hello(id)?;
        Lane::from_number(stream.lane.0)
    }

    async fn serve(&self, lane: Lane, stream: IncomingStream) {
        match lane {
            Lane::Append => self.append(stream.sender, stream.receiver).await,
            Lane::Control => self.call(stream, Self::control).await,
            Lane::Ask => self.call(stream, Self::ask).await,
            // What a state wrote that diverged is not for others.
            Lane::Fetch if *self.answerer.state.borrow() == NodeState::Quarantined => {}
            Lane::Fetch => {
                let IncomingStream { sender, receiver, .. } = stream;
                let served = serve_snapshot(&self.raft, &self.store, sender, receiver).await;
                if let Err(fault) = served {
                    tracing::debug!(%fault, "a snapshot that was asked for was not sent");
                }
            }
            Lane::Forward => self.forwarded.serve(stream.receiver).await,
            Lane::Snapshot => {
                let IncomingStream { sender, receiver, .. } = stream;
                let received = receive_snapshot(&self.raft, &self.store, sender, receiver).await;
                if let Err(error) = received {
                    // With what is behind it: that the disk is full, for one.
                    let error: &(dyn std::error::Error + 'static) = &error;
                    tracing::warn!(
                        event = event::SNAPSHOT_REFUSED,
                        error,
                        "a snapshot was not taken"
                    );
                }
            }
        }
    }

    /// Serves one call.
    async fn call(
        &self,
        mut stream: IncomingStream,
        answer: impl AsyncFnOnce(&Self, u8, Bytes) -> Option<Bytes>,
    ) {
        let Ok(Some(mut request)) = stream.request().await else { return };
        if request.is_empty() {
            return;
        }
        let call = request.get_u8();
        if let Some(answer) = answer(self, call, request).await {
            // The peer may have given up waiting.
            let _gone = stream.reply(answer).await;
        }
    }

    async fn control(&self, call: u8, request: Bytes) -> Option<Bytes> {
        match call {
            CALL_HEARTBEAT => {
                let beat = AppendHead::take(request).ok()?.whole().ok()?;
                let commit = beat.leader_commit;
                let previous = beat.prev_log_id;
                let answer = self.raft.append_entries(beat).await.ok()?;
                let result = answer.into_stream_result(previous, previous);
                if accepted(&result) {
                    self.contact.heard();
                    self.gate.leader_commits(commit.as_ref());
                    self.gate.matches(result.as_ref().ok().and_then(Option::as_ref));
                }
                Some(accepted_bytes(&result))
            }
            CALL_VOTE => {
                let ballot = take_ballot(request).ok()?;
                if self.gate.is_closed() {
                    return Some(answer_bytes(&self.gate.refuse(&self.raft)));
                }
                self.raft.vote(ballot).await.ok().as_ref().map(answer_bytes)
            }
            CALL_PRE_VOTE => {
                let ballot = take_ballot(request).ok()?;
                if self.gate.is_closed() {
                    return Some(answer_bytes(&self.gate.refuse(&self.raft)));
                }
                self.raft.pre_vote(ballot).await.ok().as_ref().map(answer_bytes)
            }
            CALL_TRANSFER if !self.gate.is_closed() => {
                let request = take_transfer(request).ok()?;
                self.raft.handle_transfer_leader(request).await.ok().as_ref().map(verdict_bytes)
            }
            _ => None,
        }
    }

    async fn ask(&self, call: u8, request: Bytes) -> Option<Bytes> {
        ask::answer(&self.answerer, call, request).await
    }

    /// Serves an append lane: requests in, answers out, both in order.
    async fn append(&self, mut sender: FrameSender, receiver: FrameReceiver) {
        let gate = self.gate.clone();
        let requests = futures::stream::unfold(receiver, move |mut receiver| {
            let gate = gate.clone();
            async move {
                let request = next_append(&mut receiver).await?;
                gate.leader_commits(request.leader_commit.as_ref());
                Some((request, receiver))
            }
        });
        let answers = self.raft.stream_append(requests).ready_chunks(ANSWERS_PER_WRITE);
        let mut answers = std::pin::pin!(answers);
        while let Some(batch) = answers.next().await {
            for answer in batch {
                let Ok(result) = answer else { return };
                if accepted(&result) {
                    self.contact.heard();
                    self.gate.matches(result.as_ref().ok().and_then(Option::as_ref));
                }
                if sender.queue(FRAME_ACCEPTED, &accepted_bytes(&result)).is_err() {
                    return;
                }
            }
            if sender.flush().await.is_err() {
                return;
            }
        }
        // The leader reads the end of the stream as the end of its answers.
        let _gone = sender.finish().await;
    }
}

/// Whether the answer shows that the request came from a leader that this node follows.
fn accepted(result: &StreamAppendResult<Types>) -> bool {
    !matches!(result, Err(StreamAppendError::HigherVote(_)))
}

/// The next append request; none at the end of the lane or when it is garbled.
async fn next_append(receiver: &mut FrameReceiver) -> Option<AppendEntriesRequest<Types>> {
    let frame = receiver.next().await.ok()??;
    if frame.kind != FRAME_APPEND {
        return None;
    }
    let mut head = AppendHead::take(frame.body).ok()?;
    while head.missing() > 0 {
        let frame = receiver.next().await.ok()??;
        if frame.kind != FRAME_PAYLOAD {
            return None;
        }
        head.add(frame.body).ok()?;
    }
    head.whole().ok()
}
