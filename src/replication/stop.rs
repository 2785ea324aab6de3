//! The end of a node in good order.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver;

use super::core::Core;
use super::proposing::pending::Intake;
use super::status::NodeState;
use crate::telemetry::event;

/// How often the way of a stop is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long the new leader is waited for.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(1);
/// How long tasks have to end by themselves.
const TASK_PATIENCE: Duration = Duration::from_secs(5);

impl Core {
    /// See [`Replication::hand_over`](super::Replication::hand_over).
    pub(super) async fn hand_over(&self, patience: Duration) -> bool {
        if !self.is_leader() {
            return true;
        }
        let connected = self.peers.connected();
        let heir = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let matched = metrics.replication.as_ref();
            matched.and_then(|matched| {
                let near = matched.iter().filter(|(id, _)| connected.iter().any(|up| up.0 == **id));
                near.max_by_key(|(_, log)| log.as_ref().map(|id| id.index())).map(|(id, _)| *id)
            })
        };
        let Some(heir) = heir else { return false };
        if self.raft.trigger().transfer_leader(heir).await.is_err() {
            return false;
        }
        let moved = async {
            while self.is_leader() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(patience, moved).await.is_ok()
    }

    /// See [`Replication::stop`](super::Replication::stop).
    pub(super) async fn stop(&self, patience: Duration) {
        let first = self.state.send_if_modified(|state| {
            let first = !matches!(*state, NodeState::Draining | NodeState::Stopped);
            if first {
                *state = NodeState::Draining;
            }
            first
        });
        if !first {
            return;
        }
        tracing::info!(event = event::NODE_STOPPING, "replication drains");
        self.pending.set_intake(Intake::Closing);
        let answered = async {
            // Without a quorum nothing will be answered.
            while self.pending.unanswered() > 0 && self.quorum.is_quorate() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        // What is still unanswered is sent again by its clients, to another node.
        let _late = tokio::time::timeout(patience, answered).await;
        self.hand_over(HAND_OVER_PATIENCE.min(patience)).await;
        self.groups.consensus.signal_stop();
        self.pending.set_intake(Intake::Stopped);
        self.groups.consensus.stop(TASK_PATIENCE).await;
        // Fails only when the engine's task is gone already. One that waits for a full disk ends
        // when the log is closed under it.
        let _gone = tokio::time::timeout(TASK_PATIENCE, self.raft.shutdown()).await;
        self.index.close();
        self.log.close();
        self.groups.storage.stop(TASK_PATIENCE).await;
        self.peers.mesh().stop().await;
        self.groups.mesh.stop(TASK_PATIENCE).await;
        self.state.send_replace(NodeState::Stopped);
        tracing::info!(event = event::NODE_STOPPED, "replication has stopped");
    }
}
