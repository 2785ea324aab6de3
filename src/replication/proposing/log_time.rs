//! The leader's clock for the log: milliseconds of quorate leadership since the cluster was founded.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{Clock, milliseconds};
use crate::replication::upkeep::quorum_watch::QuorumView;

/// Log time as this node gives it while it leads; clones share it.
#[derive(Debug, Clone)]
pub(in crate::replication) struct LogTime {
    term: Arc<Mutex<Term>>,
    quorum: QuorumView,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Term {
    leads: bool,
    /// The newest term that this node has led. Its clock outlives a lost entry: others of the term
    /// carry its stamps.
    clock: Option<(u64, LeaderClock)>,
}

impl LogTime {
    pub(in crate::replication) fn new(quorum: QuorumView, clock: Clock) -> Self {
        Self { term: Arc::default(), quorum, clock }
    }

    /// This node leads `term`, whose first entry has been applied; `base_ms` is the log time then.
    pub(in crate::replication) fn begin(&self, term: u64, base_ms: u64) {
        let mut current = self.lock();
        current.leads = true;
        if current.clock.as_ref().is_none_or(|(of, _)| *of != term) {
            current.clock = Some((term, LeaderClock::start(base_ms, self.clock.now())));
        }
    }

    /// This node does not lead any more.
    pub(in crate::replication) fn end(&self) {
        self.lock().leads = false;
    }

    /// The log time now; none while this node does not lead.
    pub(in crate::replication) fn now_ms(&self) -> Option<u64> {
        let quorate_until = self.quorum.quorate_until();
        let mut current = self.lock();
        let leads = current.leads;
        let (_, clock) = current.clock.as_mut().filter(|_| leads)?;
        Some(clock.stamp(self.clock.now(), quorate_until))
    }

    fn lock(&self) -> MutexGuard<'_, Term> {
        self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stamps entries during one term of leadership.
///
/// It starts at the last log time in the log when this leader won, which the machine knows once
/// the term's first entry has been applied, and then runs with the leader's monotonic clock, but
/// only while a quorum is known to follow: an outage expires nothing.
#[derive(Debug)]
pub(in crate::replication) struct LeaderClock {
    base_ms: u64,
    counted: Duration,
    last: Instant,
}

impl LeaderClock {
    /// A term whose first entry was applied at `now`; `base_ms` is the log time before it.
    pub(in crate::replication) fn start(base_ms: u64, now: Instant) -> Self {
        Self { base_ms, counted: Duration::ZERO, last: now }
    }

    /// The log time at `now`. The time since the last call counts as far as `quorate_until`, the
    /// end of the lease that the newest acknowledgement of a quorum gives.
    pub(in crate::replication) fn stamp(&mut self, now: Instant, quorate_until: Instant) -> u64 {
        let upto = now.min(quorate_until);
        self.counted += upto.saturating_duration_since(self.last);
        self.last = self.last.max(now);
        self.base_ms.saturating_add(milliseconds(self.counted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_quorate_time_counts_and_it_never_goes_back() {
        let start = Clock::system().now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut clock = LeaderClock::start(1_000, start);
        assert_eq!(clock.stamp(at(10), at(300)), 1_010);
        assert_eq!(clock.stamp(at(500), at(300)), 1_300);
        // Nothing of the outage counts, whatever is learnt afterwards.
        assert_eq!(clock.stamp(at(2_000), at(300)), 1_300);
        assert_eq!(clock.stamp(at(2_005), at(2_200)), 1_305);
        assert_eq!(clock.stamp(at(2_004), at(2_200)), 1_305);
    }
}
