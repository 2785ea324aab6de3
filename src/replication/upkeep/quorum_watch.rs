//! Does this node see a quorum?
//!
//! A leader that is a quorum by itself does; any other leader by the newest acknowledgement of a
//! quorum; a follower by its last contact with a leader (that it still names one proves nothing).
//! It is lost when the newest sign is older than lease and longest election together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{Instant as _, ServerState};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::{Clock, milliseconds};
use crate::replication::consensus::state_store::Raft;
use crate::replication::status::Quorum;
use crate::supervisor::StopSignal;
use crate::telemetry::event;

/// How often the signs are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// When a leader was last heard, as the lanes note it; clones share it.
#[derive(Debug, Clone)]
pub(in crate::replication) struct LeaderContact {
    clock: Clock,
    started: Instant,
    /// Milliseconds from the start to the newest contact, plus one; zero before the first.
    heard_ms: Arc<AtomicU64>,
}

impl LeaderContact {
    pub(in crate::replication) fn new(clock: Clock) -> Self {
        Self { clock, started: clock.now(), heard_ms: Arc::default() }
    }

    /// A leader's message was accepted just now.
    pub(in crate::replication) fn heard(&self) {
        let now_ms = milliseconds(self.clock.since(self.started));
        self.heard_ms.fetch_max(now_ms + 1, Ordering::Relaxed);
    }

    fn last(&self) -> Option<Instant> {
        let heard_ms = self.heard_ms.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.started + Duration::from_millis(heard_ms))
    }
}

/// Whether a quorum is in sight; clones share it.
#[derive(Debug, Clone)]
pub(in crate::replication) struct QuorumView {
    quorum: Arc<watch::Sender<Quorum>>,
    quorate_until: Arc<Mutex<Instant>>,
}

impl QuorumView {
    pub(in crate::replication) fn new(clock: Clock) -> Self {
        Self {
            quorum: Arc::new(watch::Sender::new(Quorum::NotYet)),
            quorate_until: Arc::new(Mutex::new(clock.now())),
        }
    }

    pub(in crate::replication) fn subscribe(&self) -> watch::Receiver<Quorum> {
        self.quorum.subscribe()
    }

    pub(in crate::replication) fn is_quorate(&self) -> bool {
        self.quorum.borrow().is_quorate()
    }

    /// The end of the lease that the newest sign of a quorum gives: log time runs until then.
    pub(in crate::replication) fn quorate_until(&self) -> Instant {
        *self.quorate_until.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn set_quorate_until(&self, until: Instant) {
        *self.quorate_until.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = until;
    }
}

/// The task that looks.
#[derive(Debug)]
pub(in crate::replication) struct QuorumWatch {
    pub(in crate::replication) raft: Raft,
    pub(in crate::replication) contact: LeaderContact,
    pub(in crate::replication) view: QuorumView,
    pub(in crate::replication) clock: Clock,
    /// The leader's lease: the longest election timeout.
    pub(in crate::replication) lease: Duration,
    /// Without a sign for this long the quorum is lost.
    pub(in crate::replication) patience: Duration,
    /// Live voters without which a leader serves nothing, if more than a majority.
    pub(in crate::replication) gate: Option<usize>,
}

impl QuorumWatch {
    /// Runs until `stop`.
    pub(in crate::replication) async fn run(self, mut stop: StopSignal) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // A node that stops leading has not heard the next leader yet: what it knew goes on.
        let mut newest = None;
        loop {
            tokio::select! {
                () = stop.stopped() => return,
                _ = tick.tick() => {
                    let now = self.clock.now();
                    newest = newest.max(self.newest_sign(now));
                    self.look(now, newest);
                }
            }
        }
    }

    fn look(&self, now: Instant, sign: Option<Instant>) {
        if let Some(sign) = sign {
            self.view.set_quorate_until(sign + self.lease);
        }
        let in_sight = sign.is_some_and(|sign| now < sign + self.patience);
        self.view.quorum.send_if_modified(|quorum| {
            let next = match (*quorum, in_sight) {
                (_, true) => Quorum::Quorate,
                (Quorum::NotYet, false) => Quorum::NotYet,
                (_, false) => Quorum::Lost,
            };
            let changed = next != *quorum;
            if changed {
                match next {
                    Quorum::Lost => {
                        tracing::warn!(event = event::QUORUM_LOST, "the quorum is out of sight");
                    }
                    _ => tracing::info!(event = event::QUORUM_REGAINED, "a quorum is in sight"),
                }
            }
            *quorum = next;
            changed
        });
    }

    fn newest_sign(&self, now: Instant) -> Option<Instant> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            return self.contact.last();
        }
        let mut voters = metrics.membership_config.voter_ids();
        if voters.next() == Some(metrics.id) && voters.next().is_none() {
            return Some(now);
        }
        let majority = metrics.last_quorum_acked.map(|at| now - at.elapsed())?;
        let Some(gate) = self.gate else { return Some(majority) };
        // The gate counts this node and those that it has heard; the last of them decides.
        let heard = metrics.heartbeat.as_ref()?;
        let mut heard: Vec<Instant> = heard
            .iter()
            .filter(|(id, _)| **id != metrics.id)
            .filter_map(|(_, at)| at.as_ref().map(|at| now - at.elapsed()))
            .collect();
        heard.push(now);
        heard.sort_unstable_by(|one, other| other.cmp(one));
        heard.get(gate.saturating_sub(1)).map(|gate| majority.min(*gate))
    }
}
