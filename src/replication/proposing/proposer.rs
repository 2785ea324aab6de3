//! The way of commands into the log.
//!
//! One task per node. While this node leads, it puts everything that waits, its own and what other
//! nodes forward, into one entry at a time, with a few entries in flight and no lingering: what
//! arrives meanwhile makes the next entry. While another node leads, it forwards in order on one
//! lane. When the leader changes or the lane breaks, everything unanswered goes again, in order
//! per session; request numbers keep that harmless.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use openraft::impls::OneshotResponder;
use openraft::vote::leader_id_std::CommittedLeaderId;
use tokio::sync::{Notify, watch};

use crate::clock::Clock;
use crate::domain::entry::{ORIGIN_BYTES, Payload, PayloadError, Proposal};
use crate::domain::entry::{put_proposal, take_proposal};
use crate::domain::id::NodeId;
use crate::domain::limits::{ENTRY_BYTES_SOFT, ENTRY_COMMANDS_MAX};
use crate::domain::node_name::NodeName;
use crate::peer::{FrameReceiver, FrameSender};
use crate::replication::consensus::applied::Applied;
use crate::replication::consensus::raft_types::{Commands, parts};
use crate::replication::consensus::state_store::Raft;
use crate::replication::journal::Journal;
use crate::replication::members::peers::{Lane, Peers};
use crate::replication::proposing::log_time::LogTime;
use crate::replication::proposing::pending::{Pending, take_proposals};
use crate::replication::upkeep::quorum_watch::QuorumView;
use crate::supervisor::StopSignal;
use crate::telemetry::event;

/// Entries that a leader has proposed and not yet applied.
const ENTRIES_IN_FLIGHT: usize = 3;
/// Bytes of forwarded commands that a leader holds before it stops reading from the lanes.
const FORWARDED_BYTES: usize = 16 * 1024 * 1024;
/// Commands in one forward frame.
const FORWARD_COMMANDS_MAX: usize = 8_192;
/// Pause before the way is tried again when it broke without a change of leader.
const RETRY: Duration = Duration::from_millis(20);
/// How long a lane waits for a node that has just won to begin to lead.
const LEAD_WAIT: Duration = Duration::from_secs(2);
/// Frames of a forward lane: the term that it is for, then batches of commands.
const FRAME_TERM: u8 = 1;
const FRAME_COMMANDS: u8 = 2;

/// Where commands go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::replication) enum Way {
    /// No leader is known; they wait.
    Nobody,
    /// Into this node's own entries.
    Lead {
        /// The term that this node leads.
        term: u64,
    },
    /// To the leader.
    Forward {
        /// Its node id.
        leader: u64,
        /// Its term.
        term: u64,
    },
}

/// Where commands go now, as the Raft library sees it.
pub(in crate::replication) fn way(raft: &Raft) -> Way {
    let metrics = raft.server_metrics();
    let server = metrics.borrow_watched();
    let term = server.vote.leader_id.term;
    match server.current_leader {
        Some(leader) if leader == server.id => {
            if server.state == ServerState::Leader && server.vote.committed {
                Way::Lead { term }
            } else {
                Way::Nobody
            }
        }
        Some(leader) => Way::Forward { leader, term },
        None => Way::Nobody,
    }
}

/// The task that takes commands from [`Pending`] and [`Forwarded`] and sees them into the log.
#[derive(Debug)]
pub(in crate::replication) struct Proposer {
    pub(in crate::replication) pending: Arc<Pending>,
    pub(in crate::replication) forwarded: Arc<Forwarded>,
    pub(in crate::replication) raft: Raft,
    pub(in crate::replication) applied: Applied,
    pub(in crate::replication) journal: Journal,
    pub(in crate::replication) peers: Peers,
    pub(in crate::replication) quorum: QuorumView,
    pub(in crate::replication) log_time: LogTime,
    pub(in crate::replication) clock: Clock,
}

impl Proposer {
    /// Runs until `stop`.
    pub(in crate::replication) async fn run(self, mut stop: StopSignal) {
        tokio::select! {
            () = stop.stopped() => {}
            () = self.follow_the_way() => {}
        }
        self.forwarded.close();
    }

    async fn follow_the_way(&self) {
        let mut server = self.raft.server_metrics();
        let mut told = Way::Nobody;
        loop {
            server.borrow_and_update();
            let here = way(&self.raft);
            let changed = async {
                while way(&self.raft) == here {
                    if server.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                    server.borrow_and_update();
                }
            };
            self.tell(here, &mut told);
            self.pending.requeue_all();
            let broke = tokio::select! {
                () = changed => false,
                () = async {
                    match here {
                        Way::Nobody => std::future::pending().await,
                        Way::Lead { term } => self.lead(term).await,
                        Way::Forward { leader, term } => self.forward(leader, term).await,
                    }
                } => true,
            };
            self.forwarded.close();
            self.log_time.end();
            if broke {
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Tells the log of a new leader; the way through a broken lane is no news.
    fn tell(&self, here: Way, told: &mut Way) {
        if here == *told {
            return;
        }
        *told = here;
        let (leader, term) = match here {
            Way::Nobody => (None, 0),
            Way::Lead { term } => (Some(self.peers.roster().own), term),
            Way::Forward { leader, term } => (Some(NodeId(leader)), term),
        };
        let leader = leader.and_then(|id| self.peers.roster().name(id)).map(NodeName::as_str);
        tracing::info!(
            event = event::LEADER_CHANGED,
            leader = leader.unwrap_or("none"),
            term,
            "leader"
        );
    }

    /// Leads `term` until an entry is refused or lost.
    async fn lead(&self, term: u64) {
        let mut applied = self.journal.applied();
        while self.applied.last().is_none_or(|id| parts(&id).0 < term) {
            if applied.changed().await.is_err() {
                return;
            }
        }
        let base_ms = self.applied.lock().machine.log_time_ms();
        self.log_time.begin(term, base_ms);
        self.forwarded.open(term);
        let mut quorum = self.quorum.subscribe();
        let mut in_flight = FuturesUnordered::new();
        let mut batch = Vec::new();
        let mut own_first = true;
        loop {
            while in_flight.len() < ENTRIES_IN_FLIGHT && quorum.borrow().is_quorate() {
                own_first = !own_first;
                self.gather(&mut batch, own_first);
                if batch.is_empty() {
                    break;
                }
                let Some(log_time_ms) = self.log_time.now_ms() else { return };
                let wall_time_ms = self.clock.wall_ms();
                let payload = Payload { log_time_ms, wall_time_ms, proposals: batch };
                let bytes = payload.encode();
                batch = payload.proposals;
                batch.clear();
                let (responder, answer) = OneshotResponder::new_pair();
                let write = self.raft.write(Commands(bytes)).responder(responder);
                if write.with_leader(CommittedLeaderId { term }).await.is_err() {
                    return;
                }
                in_flight.push(answer);
            }
            let room = in_flight.len() < ENTRIES_IN_FLIGHT;
            tokio::select! {
                Some(applied) = in_flight.next() => {
                    // Refused or lost: hosts send again what was in it.
                    let Ok(Ok(_)) = applied else { return };
                }
                () = self.pending.queued(), if room => {}
                () = self.forwarded.queued(), if room => {}
                changed = quorum.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Takes what makes one entry.
    fn gather(&self, batch: &mut Vec<Proposal>, own_first: bool) {
        let own = |batch: &mut Vec<Proposal>, bytes| {
            self.pending.take(bytes, ENTRY_COMMANDS_MAX, batch);
        };
        let others = |batch: &mut Vec<Proposal>, bytes| {
            self.forwarded.take(bytes, ENTRY_COMMANDS_MAX, batch);
        };
        // Each gets half of an entry for sure, and the rest if the other leaves it.
        if own_first {
            own(batch, ENTRY_BYTES_SOFT / 2);
            others(batch, ENTRY_BYTES_SOFT);
            own(batch, ENTRY_BYTES_SOFT);
        } else {
            others(batch, ENTRY_BYTES_SOFT / 2);
            own(batch, ENTRY_BYTES_SOFT);
            others(batch, ENTRY_BYTES_SOFT);
        }
    }

    /// Forwards to the leader until its lane breaks.
    async fn forward(&self, leader: u64, term: u64) {
        let Ok((mut sender, mut receiver)) = self.peers.open(leader, Lane::Forward).await else {
            return;
        };
        if sender.queue(FRAME_TERM, &term.to_le_bytes()).is_err() {
            return;
        }
        let mut batch = Vec::new();
        loop {
            if sender.queued_bytes() < ENTRY_BYTES_SOFT {
                batch.clear();
                self.pending.take(ENTRY_BYTES_SOFT, FORWARD_COMMANDS_MAX, &mut batch);
                if !batch.is_empty() && queue_commands(&mut sender, &batch).is_err() {
                    return;
                }
            }
            let idle = sender.queued_bytes() == 0;
            tokio::select! {
                // The leader never writes on this lane: whatever comes is its end.
                _ = receiver.next() => return,
                sent = sender.flush(), if !idle => {
                    if sent.is_err() {
                        return;
                    }
                }
                () = self.pending.queued(), if idle => {}
            }
        }
    }
}

fn queue_commands(
    sender: &mut FrameSender,
    batch: &[Proposal],
) -> Result<(), crate::peer::SendError> {
    sender.queue_shared(FRAME_COMMANDS, commands_bytes(batch))
}

/// `count u32 · command*`, each as in an entry's payload.
pub(in crate::replication) fn commands_bytes(batch: &[Proposal]) -> Bytes {
    let bytes: usize = batch.iter().map(|one| ORIGIN_BYTES + one.command.len()).sum();
    let mut buffer = BytesMut::with_capacity(4 + bytes);
    buffer.put_u32_le(batch.len() as u32);
    for proposal in batch {
        put_proposal(&mut buffer, proposal);
    }
    buffer.freeze()
}

pub(in crate::replication) fn take_commands(
    mut bytes: Bytes,
) -> Result<Vec<Proposal>, PayloadError> {
    if bytes.len() < 4 {
        return Err(PayloadError::Short { at: bytes.len() });
    }
    let count = bytes.get_u32_le() as usize;
    let mut proposals = Vec::with_capacity(count.min(bytes.len() / ORIGIN_BYTES));
    for _ in 0..count {
        proposals.push(take_proposal(&mut bytes)?);
    }
    if bytes.is_empty() {
        Ok(proposals)
    } else {
        Err(PayloadError::Trailing { bytes: bytes.len() })
    }
}

/// What other nodes have forwarded to this one while it leads.
#[derive(Debug)]
pub(in crate::replication) struct Forwarded {
    queue: Mutex<Queue>,
    wake: Notify,
    room: Notify,
    /// The term in which forwarded commands are taken; 0 while this node does not lead.
    term: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Queue {
    proposals: VecDeque<Proposal>,
    bytes: usize,
    term: u64,
}

impl Forwarded {
    pub(in crate::replication) fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            wake: Notify::new(),
            room: Notify::new(),
            term: watch::Sender::new(0),
        })
    }

    /// Serves the lane of one node until its end, or the end of the term that it is for.
    pub(in crate::replication) async fn serve(&self, mut receiver: FrameReceiver) {
        let Ok(Some(first)) = receiver.next().await else { return };
        let Ok(term) = <[u8; 8]>::try_from(&first.body[..]).map(u64::from_le_bytes) else { return };
        if first.kind != FRAME_TERM || term == 0 {
            return;
        }
        let mut leading = self.term.subscribe();
        let begins = leading.wait_for(|now| *now >= term);
        let begun = tokio::time::timeout(LEAD_WAIT, begins).await.is_ok();
        if !begun || *self.term.borrow() != term {
            return;
        }
        tokio::select! {
            _ = leading.wait_for(|now| *now != term) => {}
            () = self.take_from(&mut receiver, term) => {}
        }
    }

    async fn take_from(&self, receiver: &mut FrameReceiver, term: u64) {
        while let Ok(Some(frame)) = receiver.next().await {
            let commands = (frame.kind == FRAME_COMMANDS).then(|| take_commands(frame.body));
            let Some(Ok(proposals)) = commands else {
                tracing::warn!(
                    event = event::FORWARD_GARBLED,
                    "a peer forwarded what is no batch of commands"
                );
                return;
            };
            if !self.push(term, proposals).await {
                return;
            }
        }
    }

    /// Waits for room and queues; false when the term is over.
    async fn push(&self, term: u64, proposals: Vec<Proposal>) -> bool {
        loop {
            let room = self.room.notified();
            {
                let mut queue = self.lock();
                if queue.term != term {
                    return false;
                }
                if queue.bytes < FORWARDED_BYTES {
                    queue.bytes += proposals.iter().map(size).sum::<usize>();
                    queue.proposals.extend(proposals);
                    break;
                }
            }
            room.await;
        }
        self.wake.notify_one();
        true
    }

    fn take(&self, bytes_soft: usize, count_max: usize, into: &mut Vec<Proposal>) {
        let before = into.len();
        let mut queue = self.lock();
        take_proposals(&mut queue.proposals, bytes_soft, count_max, into);
        let taken: usize = into.iter().skip(before).map(size).sum();
        let was_full = queue.bytes >= FORWARDED_BYTES;
        queue.bytes = queue.bytes.saturating_sub(taken);
        let has_room = queue.bytes < FORWARDED_BYTES;
        drop(queue);
        if was_full && has_room {
            self.room.notify_waiters();
        }
    }

    async fn queued(&self) {
        self.wake.notified().await;
    }

    fn open(&self, term: u64) {
        *self.lock() = Queue { term, ..Queue::default() };
        self.term.send_replace(term);
    }

    /// Ends every lane and forgets what was forwarded: its hosts will send it again.
    fn close(&self) {
        *self.lock() = Queue::default();
        self.term.send_replace(0);
        self.room.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no code that can panic runs under the queue's lock")
    }
}

fn size(proposal: &Proposal) -> usize {
    ORIGIN_BYTES + proposal.command.len()
}
