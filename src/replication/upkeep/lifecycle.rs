//! The node's place in its life, from what its parts show; and who may be its peer.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use quorate_storage::append_log::LogState;
use tokio::sync::broadcast;

use crate::clock::Clock;
use crate::domain::id::NodeId;
use crate::domain::node_name::NodeName;
use crate::peer::{MeshEvent, Refusal};
use crate::protocol::peer_message::Hello;
use crate::replication::consensus::vote_gate::{VoteGate, cuts_outvote};
use crate::replication::core::Core;
use crate::replication::founding::bootstrap::{Introduction, introduce};
use crate::replication::founding::rules::Standing;
use crate::replication::members::divergence::Comparison;
use crate::replication::proposing::pending::Intake;
use crate::replication::status::{NodeState, Quorum};
use crate::replication::upkeep::caretaker::Progress;
use crate::supervisor::{Exit, ExitCode, StopSignal, Supervisor};
use crate::telemetry::event;

/// How often the parts are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// A node that another cluster has turned away, that has met no member of its own and has not been
/// quorate, is in the wrong place after this long.
const WRONG_PLACE_PATIENCE: Duration = Duration::from_secs(3);

/// How long a leader with a full disk, or with a state that diverged, waits for its heir; and how
/// long before it tries another.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(1);
const HAND_OVER_AGAIN: Duration = Duration::from_secs(5);

/// The task.
#[derive(Debug)]
pub(in crate::replication) struct Lifecycle {
    pub(in crate::replication) core: Arc<Core>,
    pub(in crate::replication) gate: VoteGate,
    pub(in crate::replication) standing: Standing,
    pub(in crate::replication) supervisor: Supervisor,
    pub(in crate::replication) clock: Clock,
}

/// What the state depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    quorum: Quorum,
    started: bool,
    diverged: bool,
    log: LogFact,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogFact {
    Writable,
    Full,
    Poisoned,
}

/// The table of states: the first that applies.
fn state_of(facts: Facts) -> NodeState {
    match facts {
        Facts { log: LogFact::Poisoned, .. } => NodeState::Poisoned,
        Facts { diverged: true, .. } => NodeState::Quarantined,
        // Before the quorum: a node that cannot store a vote loses sight of it for this reason.
        Facts { log: LogFact::Full, .. } => NodeState::ReadOnly,
        Facts { quorum: Quorum::Lost, .. } => NodeState::Inquorate,
        Facts { quorum: Quorum::NotYet, .. } => NodeState::Joining,
        Facts { started: false, .. } => NodeState::CatchingUp,
        Facts { .. } => NodeState::Ready,
    }
}

/// Whether commands are taken in this state.
fn intake_of(facts: Facts) -> Intake {
    match state_of(facts) {
        NodeState::Poisoned | NodeState::Quarantined => Intake::Stopped,
        // What cannot be flushed must not be proposed here.
        NodeState::ReadOnly => Intake::DiskFull,
        NodeState::Inquorate => Intake::Inquorate,
        _ => Intake::Open,
    }
}

impl Lifecycle {
    /// Runs until `stop`.
    pub(in crate::replication) async fn run(self, comparison: Comparison, mut stop: StopSignal) {
        let mut divergence = comparison.diverged.subscribe();
        let mut diverged = false;
        self.supervisor.spawn("comparison", comparison.run(stop.clone()));
        let gate = self.open_gate();
        let mut gate = std::pin::pin!(gate);
        let mut gate_done = false;
        let mut events = self.core.peers.mesh().events();
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let started = self.clock.now();
        let mut turned_away = false;
        let mut handed_over = None;
        self.admit_all();
        loop {
            tokio::select! {
                () = stop.stopped() => return,
                _ = tick.tick() => {
                    self.look(diverged);
                    self.hand_over_if_full(&mut handed_over);
                    let waited = self.clock.since(started) >= WRONG_PLACE_PATIENCE;
                    if turned_away && waited && self.is_out_of_place() {
                        self.supervisor.request_exit(Exit {
                            code: ExitCode::WRONG_CLUSTER,
                            reason: "this node's cluster is another one than its peers'".to_owned(),
                        });
                        turned_away = false;
                    }
                }
                changed = divergence.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    diverged = *divergence.borrow_and_update();
                    self.look(diverged);
                    // Its snapshots and its answers are wrong; its log and its vote are not. So it
                    // votes, and does not lead.
                    self.core.raft.runtime_config().elect(!diverged && !self.gate.is_closed());
                    if diverged {
                        self.core.hand_over(HAND_OVER_PATIENCE).await;
                    }
                }
                () = &mut gate, if !gate_done => gate_done = true,
                event = events.recv() => match event {
                    Ok(MeshEvent::Connected { hello, .. } | MeshEvent::HelloChanged { hello, .. }) => {
                        self.admit(&hello);
                        self.welcome(&hello).await;
                    }
                    Ok(MeshEvent::Refused { refusal, by_us: false, .. })
                    | Ok(MeshEvent::Disconnected { refusal: Some(refusal), .. })
                        if matches!(refusal, Refusal::WrongCluster | Refusal::WrongIdentity) =>
                    {
                        turned_away = true;
                    }
                    Ok(MeshEvent::Disconnected { peer, .. }) => self.expect_back(&peer).await,
                    Err(broadcast::error::RecvError::Lagged(_)) => self.admit_all(),
                    Ok(_) | Err(broadcast::error::RecvError::Closed) => {}
                }
            }
        }
    }

    fn look(&self, diverged: bool) {
        // From here on the one who stops the node sets state and door.
        if matches!(*self.core.state.borrow(), NodeState::Draining | NodeState::Stopped) {
            return;
        }
        if let Err(fault) = &self.core.raft.metrics().borrow_watched().running_state {
            // A poisoned log, a panic in apply: whoever saw it first has said more; the first
            // request stands.
            self.supervisor.request_exit(Exit {
                code: ExitCode::POISONED,
                reason: format!("consensus has stopped: {fault}"),
            });
        }
        let log = match self.core.log.state() {
            LogState::Writable => LogFact::Writable,
            LogState::DiskFull(_) => LogFact::Full,
            LogState::Poisoned(_) => LogFact::Poisoned,
        };
        let started = *self.core.progress.borrow() != Progress::Waiting;
        let quorum = *self.core.quorum.subscribe().borrow();
        let facts = Facts { quorum, started, diverged, log };
        self.core.pending.set_intake(intake_of(facts));
        let next = state_of(facts);
        self.core.state.send_if_modified(|state| {
            if *state == next || matches!(*state, NodeState::Draining | NodeState::Stopped) {
                return false;
            }
            tracing::info!(
                event = event::STATE_CHANGED,
                from = state.as_str(),
                to = next.as_str(),
                "node state"
            );
            *state = next;
            true
        });
    }

    /// A leader whose disk is full cannot lead: another member may have space. Tried again now and
    /// then, since the heir may be full as well.
    fn hand_over_if_full(&self, last: &mut Option<tokio::time::Instant>) {
        let is_full = *self.core.state.borrow() == NodeState::ReadOnly;
        let is_time = last.is_none_or(|last| self.clock.since(last) >= HAND_OVER_AGAIN);
        if is_full && is_time && self.core.is_leader() {
            *last = Some(self.clock.now());
            tracing::warn!(event = event::HANDED_OVER, "the disk is full: leadership is handed on");
            let core = Arc::clone(&self.core);
            self.supervisor.spawn("hand over", async move {
                // Whether another leads then shows in the next look.
                let _moved = core.hand_over(HAND_OVER_PATIENCE).await;
            });
        }
    }

    /// Never quorate in this run, and no member of its own cluster in sight.
    fn is_out_of_place(&self) -> bool {
        *self.core.quorum.subscribe().borrow() == Quorum::NotYet
            && self.core.peers.connected().is_empty()
    }

    fn admit_all(&self) {
        let peers = self.core.peers.mesh().peers();
        let hellos: Vec<Hello> = peers
            .borrow()
            .values()
            .filter(|info| info.connected)
            .map(|info| info.hello.clone())
            .collect();
        for hello in hellos {
            self.admit(&hello);
        }
    }

    /// Turns away who belongs to another cluster, or is not the member of its name.
    fn admit(&self, hello: &Hello) {
        let roster = self.core.peers.roster();
        let refusal = match hello.cluster {
            Some(cluster) if cluster != roster.cluster => Refusal::WrongCluster,
            Some(_) if !roster.is_member(hello) => Refusal::WrongIdentity,
            // Empty nodes may look: they see a formed cluster and leave by themselves.
            _ => return,
        };
        self.core.peers.mesh().refuse(&hello.name, refusal);
    }

    /// A member is connected: what waits for it need not wait for a back-off. One whose log was cut
    /// may lack entries that this leader has counted as its own: it may go back, once.
    async fn welcome(&self, hello: &Hello) {
        if self.core.is_leader()
            && let Some(id) = self.core.peers.roster().id(&hello.name)
        {
            let introduction = Introduction::decode(hello.extra.clone());
            let cut = introduction.is_ok_and(|introduction| introduction.cut);
            let trigger = self.core.raft.trigger();
            // Both fail only when the engine has stopped.
            let _stopped = trigger.allow_next_revert(&id.0, cut).await;
            let _stopped = trigger.reset_backoff([id.0]).await;
        }
    }

    /// A member is gone: whether its log comes back whole shows when it says hello again, and by
    /// then the first append may be under way.
    async fn expect_back(&self, name: &NodeName) {
        if self.core.is_leader()
            && let Some(id) = self.core.peers.roster().id(name)
        {
            let _stopped = self.core.raft.trigger().allow_next_revert(&id.0, true).await;
        }
    }

    /// Opens the vote gate when its conditions hold, and tells the peers.
    async fn open_gate(&self) {
        if !self.gate.is_closed() {
            return;
        }
        let mut peers = self.core.peers.mesh().peers();
        loop {
            if cuts_outvote(self.voters(), self.cut_tails()) {
                tracing::warn!(
                    event = event::LOG_TAIL_CUT,
                    "too few sound tails are left for a quorum: cuts count as tears"
                );
                self.gate.open();
            }
            tokio::select! {
                () = self.gate.opened() => break,
                changed = peers.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
        let log = self.core.log.clone();
        let settled = self.supervisor.blocking("log doubts", move || log.settle_doubts()).await;
        if let Ok(Err(error)) = settled {
            tracing::error!(event = event::DOUBTS_NOT_SETTLED, %error, "the log's doubts could not be settled");
            return;
        }
        tracing::info!(event = event::VOTES_AGAIN, "this node votes again");
        let quarantined = *self.core.state.borrow() == NodeState::Quarantined;
        self.core.raft.runtime_config().elect(!quarantined);
        let introduction = Introduction { cut: false, standing: self.standing.clone() };
        self.core.peers.mesh().change_hello(|hello| introduce(hello, &introduction));
    }

    fn voters(&self) -> usize {
        self.core.peers.roster().members().count()
    }

    /// Members that say, or are known, to have a cut tail; this node is one.
    fn cut_tails(&self) -> usize {
        let own = self.core.member.id;
        let cut = |id: NodeId| {
            let hello = self.core.peers.hello(id)?;
            Introduction::decode(hello.extra).ok().map(|introduction| introduction.cut)
        };
        let others = self.core.peers.connected();
        1 + others.into_iter().filter(|id| *id != own && cut(*id) == Some(true)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_doors_by_table() {
        use NodeState::{CatchingUp, Inquorate, Joining, Poisoned, Quarantined, ReadOnly, Ready};
        let base = Facts {
            quorum: Quorum::Quorate,
            started: true,
            diverged: false,
            log: LogFact::Writable,
        };
        for (facts, state, intake) in [
            (base, Ready, Intake::Open),
            (Facts { started: false, ..base }, CatchingUp, Intake::Open),
            (Facts { quorum: Quorum::NotYet, started: false, ..base }, Joining, Intake::Open),
            (Facts { quorum: Quorum::Lost, ..base }, Inquorate, Intake::Inquorate),
            (Facts { diverged: true, ..base }, Quarantined, Intake::Stopped),
            (Facts { log: LogFact::Poisoned, diverged: true, ..base }, Poisoned, Intake::Stopped),
            (Facts { log: LogFact::Full, ..base }, ReadOnly, Intake::DiskFull),
            (
                Facts { log: LogFact::Full, quorum: Quorum::Lost, ..base },
                ReadOnly,
                Intake::DiskFull,
            ),
        ] {
            assert_eq!((state_of(facts), intake_of(facts)), (state, intake), "{facts:?}");
        }
    }
}
