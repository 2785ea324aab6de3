//! Whether this node may vote and campaign: not while its log may lack what it once acknowledged.
//!
//! A log whose damaged end was cut stays out of elections until a leader has brought it to that
//! leader's commit index, or until the members' hellos show that too few sound tails are left to
//! make a quorum, as after a full power cut: then each counts its cut as a tear, which was never
//! acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use openraft::async_runtime::WatchReceiver;
use openraft::raft::VoteResponse;
use tokio::sync::Notify;

use crate::replication::consensus::raft_types::{LogId, Types};
use crate::replication::consensus::state_store::Raft;

/// The gate; clones share it.
#[derive(Debug, Clone, Default)]
pub(in crate::replication) struct VoteGate {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    closed: AtomicBool,
    /// The highest commit index that a leader has named in this run.
    committed: AtomicU64,
    opened: Notify,
}

impl VoteGate {
    /// A gate that begins closed when the log's end was cut.
    pub(in crate::replication) fn new(closed: bool) -> Self {
        let gate = Self::default();
        gate.inner.closed.store(closed, Ordering::Release);
        gate
    }

    pub(in crate::replication) fn is_closed(&self) -> bool {
        self.inner.closed.load(Ordering::Acquire)
    }

    /// A leader named its commit index.
    pub(in crate::replication) fn leader_commits(&self, commit: Option<&LogId>) {
        if let Some(id) = commit {
            self.inner.committed.fetch_max(id.index(), Ordering::AcqRel);
        }
    }

    /// This node's log is the leader's up to and including `matched`, flushed. Call it after
    /// [`leader_commits`](Self::leader_commits) of the same leader.
    pub(in crate::replication) fn matches(&self, matched: Option<&LogId>) {
        let committed = self.inner.committed.load(Ordering::Acquire);
        if self.is_closed() && committed > 0 && matched.is_some_and(|id| id.index() >= committed) {
            self.open();
        }
    }

    /// Lets this node vote and campaign.
    pub(in crate::replication) fn open(&self) {
        self.inner.closed.store(false, Ordering::Release);
        self.inner.opened.notify_one();
    }

    /// Returns once the gate is open. For one waiter.
    pub(in crate::replication) async fn opened(&self) {
        while self.is_closed() {
            self.inner.opened.notified().await;
        }
    }

    /// The answer to a candidate while the gate is closed.
    pub(in crate::replication) fn refuse(&self, raft: &Raft) -> VoteResponse<Types> {
        let metrics = raft.server_metrics();
        let vote = metrics.borrow_watched().vote;
        VoteResponse::new(vote, None, false)
    }
}

/// Whether so many members have cut tails that the others are fewer than a quorum.
pub(in crate::replication) fn cuts_outvote(voters: usize, cut: usize) -> bool {
    let quorum = voters / 2 + 1;
    voters.saturating_sub(cut) < quorum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::consensus::raft_types::log_id;

    #[test]
    fn it_opens_only_at_a_leaders_commit_index() {
        let gate = VoteGate::new(true);
        gate.matches(Some(&log_id(1, 50)));
        assert!(gate.is_closed(), "no leader has named a commit index yet");
        gate.leader_commits(Some(&log_id(2, 80)));
        gate.matches(Some(&log_id(2, 79)));
        gate.matches(None);
        assert!(gate.is_closed());
        gate.leader_commits(Some(&log_id(2, 70)));
        gate.matches(Some(&log_id(2, 80)));
        assert!(!gate.is_closed());
        assert!(!VoteGate::new(false).is_closed());
    }

    #[test]
    fn cuts_count_as_tears_when_no_quorum_of_sound_tails_is_left() {
        let cases = [(1, 1, true), (2, 1, true), (3, 1, false), (3, 2, true), (5, 2, false)];
        for (voters, cut, expected) in cases {
            assert_eq!(cuts_outvote(voters, cut), expected, "{cut} of {voters}");
        }
    }
}
