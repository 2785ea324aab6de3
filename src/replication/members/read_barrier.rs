//! Where a linearizable read stands: a quorum confirms the leader (ReadIndex), no lease is trusted.

use std::time::Duration;

use crate::replication::core::Core;
use crate::replication::error::ReadError;
use crate::replication::members::ask;
use crate::replication::proposing::proposer::{Way, way};

/// Pause before another try, when no leader is known or it could not confirm.
const RETRY: Duration = Duration::from_millis(10);
/// What one question to the leader may take.
const ASK_PATIENCE: Duration = Duration::from_millis(500);

impl Core {
    /// See [`Replication::read_index`](crate::replication::Replication::read_index).
    pub(in crate::replication) async fn read_index(
        &self,
        patience: Duration,
    ) -> Result<u64, ReadError> {
        if !self.quorum.is_quorate() {
            return Err(ReadError::Inquorate);
        }
        let confirmed = async {
            let entry = self.confirmed().await;
            let mut applied = self.journal.applied();
            // The guard is let go before anything is awaited: it may not change threads.
            let reached = applied.wait_for(|now| *now >= entry).await.map(|now| *now);
            match reached {
                Ok(now) => now,
                // The journal lives as long as the node.
                Err(_) => std::future::pending().await,
            }
        };
        let waited = tokio::time::timeout(patience, confirmed).await;
        waited.map_err(|_| ReadError::Deadline { waited: patience })
    }

    /// Asks until a leader confirms.
    async fn confirmed(&self) -> u64 {
        loop {
            let answer = match way(&self.raft) {
                Way::Lead { .. } => self.answerer.read_index().await,
                Way::Forward { leader, .. } => {
                    ask::read_index(&self.peers, leader, ASK_PATIENCE).await.ok()
                }
                Way::Nobody => None,
            };
            if let Some(entry) = answer {
                return entry;
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}
