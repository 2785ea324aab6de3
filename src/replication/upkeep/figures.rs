//! Where the node stands, in figures for the metrics.

use openraft::async_runtime::WatchReceiver;

use crate::replication::core::Core;
use crate::replication::status::{NodeState, Role};
use crate::telemetry::metrics::{self, Figures};

impl Core {
    /// Puts the figures of this moment in place of those before.
    pub(in crate::replication) fn publish_figures(&self) {
        let report = self.answerer.report();
        let term = self.raft.metrics().borrow_watched().current_term;
        let (unanswered, unanswered_bytes) = self.pending.in_flight();
        let figures = Figures {
            state: report.state.as_str(),
            role: report.role.as_str(),
            term,
            last: report.last_index,
            durable: self.log.durable().unwrap_or(0),
            committed: report.committed_index,
            applied: report.applied_index,
            log_bytes: self.log.segments().iter().map(|segment| segment.bytes).sum(),
            queue_bytes: self.log.queued_bytes() as u64,
            unanswered: (unanswered as u64, unanswered_bytes as u64),
            permits: self.pending.permits_max() as u64,
            journal_bytes: self.journal.bytes() as u64,
            topics: report.topics,
            sessions: report.sessions,
        };
        let states = NodeState::ALL.map(NodeState::as_str);
        let roles = Role::ALL.map(Role::as_str);
        metrics::node(&figures, &states, &roles);
    }
}
