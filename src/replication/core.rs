//! What the parts of replication share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::applied::Applied;
use super::error::{ProposeError, ReadError, Refusal};
use super::handle::Member;
use super::journal::Journal;
use super::pending::Pending;
use super::status::{ClusterStatus, NodeState, Quorum};
use crate::domain::command::Command;
use crate::domain::id::Index;
use crate::domain::outcome::Outcome;

/// The parts that a handle reaches.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) member: Member,
    pub(super) applied: Applied,
    pub(super) journal: Journal,
    pub(super) pending: Arc<Pending>,
    pub(super) quorum: watch::Sender<Quorum>,
    pub(super) state: watch::Sender<NodeState>,
}

impl Core {
    /// See [`Replication::propose`](super::Replication::propose).
    pub(super) async fn propose(
        &self,
        command: &Command,
        patience: Duration,
    ) -> Result<(Outcome, Index), ProposeError> {
        let (correlation, answer) = self.pending.submit_for_cluster(command.encode())?;
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(answered)) => Ok((answered.outcome, answered.index)),
            Ok(Err(_)) => Err(ProposeError::Refused(Refusal::Stopped)),
            Err(_) => {
                self.pending.forget_for_cluster(correlation);
                Err(ProposeError::OutcomeUnknown)
            }
        }
    }

    pub(super) async fn read_index(&self, _patience: Duration) -> Result<u64, ReadError> {
        todo!()
    }

    pub(super) async fn status(&self, _patience: Duration) -> ClusterStatus {
        todo!()
    }

    pub(super) fn is_leader(&self) -> bool {
        todo!()
    }

    pub(super) fn leader(&self) -> Option<String> {
        todo!()
    }
}
