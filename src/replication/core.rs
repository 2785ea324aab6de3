//! What the parts of replication share.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use openraft::async_runtime::WatchReceiver;
use quorate_storage::Log;
use tokio::sync::watch;

use super::consensus::applied::Applied;
use super::consensus::state_store::Raft;
use super::error::{ProposeError, Refusal};
use super::handle::Member;
use super::history::reader::History;
use super::journal::Journal;
use super::members::ask::{self, Answerer};
use super::members::peers::Peers;
use super::proposing::log_time::LogTime;
use super::proposing::pending::Pending;
use super::proposing::proposer::{Way, way};
use super::start::Groups;
use super::status::{ClusterStatus, ConsensusStanding, NodeState, NodeStatus};
use super::upkeep::caretaker::Progress;
use super::upkeep::quorum_watch::QuorumView;
use crate::domain::command::Command;
use crate::domain::id::{Index, NodeId};
use crate::domain::node_address::NodeAddress;
use crate::domain::node_name::NodeName;
use crate::domain::outcome::Outcome;

/// The parts that a handle reaches.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) member: Member,
    pub(super) raft: Raft,
    pub(super) applied: Applied,
    pub(super) journal: Journal,
    pub(super) history: History,
    pub(super) pending: Arc<Pending>,
    pub(super) peers: Peers,
    pub(super) quorum: QuorumView,
    pub(super) log_time: LogTime,
    pub(super) state: watch::Sender<NodeState>,
    pub(super) answerer: Answerer,
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) log: Log,
    pub(super) index: quorate_storage::index::Index,
    pub(super) groups: Groups,
    pub(super) client_reset_key: [u8; 32],
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

    pub(super) fn is_leader(&self) -> bool {
        matches!(way(&self.raft), Way::Lead { .. })
    }

    pub(super) fn leader(&self) -> Option<NodeName> {
        let leader = match way(&self.raft) {
            Way::Lead { .. } => self.member.id,
            Way::Forward { leader, .. } => NodeId(leader),
            Way::Nobody => return None,
        };
        self.peers.roster().name(leader).cloned()
    }

    pub(super) fn client_addresses(&self) -> Vec<(NodeName, NodeAddress)> {
        let own = self.peers.mesh().hello();
        let members = self.peers.roster().members();
        members
            .filter_map(|(id, name)| {
                let hello =
                    if id == self.member.id { Some(own.clone()) } else { self.peers.hello(id) };
                Some((name.clone(), hello?.client_address?))
            })
            .collect()
    }

    /// See [`Replication::standing`](super::Replication::standing).
    pub(super) fn standing(&self) -> ConsensusStanding {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        ConsensusStanding {
            term: metrics.current_term,
            leads: metrics.state.is_leader(),
            committed: metrics.local_committed.as_ref().map_or(0, |id| id.index()),
            applied: self.applied.view().applied(),
            unanswered: self.pending.unanswered(),
        }
    }

    /// See [`Replication::status`](super::Replication::status).
    pub(super) async fn status(&self, patience: Duration) -> ClusterStatus {
        let half = patience / 2;
        let ask_one = async |id: NodeId| {
            if id == self.member.id {
                return Some(self.answerer.report());
            }
            ask::report(&self.peers, id.0, half).await.ok()
        };
        let members: Vec<(NodeId, NodeName)> =
            self.peers.roster().members().map(|(id, name)| (id, name.clone())).collect();
        let reports = join_all(members.iter().map(|(id, _)| ask_one(*id))).await;
        let hash_index = reports.iter().flatten().map(|report| report.applied_index).min();
        let hash_of = async |id: NodeId| {
            let entry = hash_index?;
            if id == self.member.id {
                return self.applied.hash_at(entry);
            }
            ask::hash_at(&self.peers, id.0, entry, half).await.ok()
        };
        let live = members.iter().zip(&reports).map(async |((id, _), report)| match report {
            Some(_) => hash_of(*id).await,
            None => None,
        });
        let hashes = join_all(live).await;
        let (term, voters) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.current_term, metrics.membership_config.voter_ids().count())
        };
        let nodes: Vec<NodeStatus> = members
            .into_iter()
            .zip(reports)
            .zip(hashes)
            .map(|(((id, name), report), state_hash)| {
                let own = id == self.member.id;
                let mesh = self.peers.mesh();
                let hello = if own { Some(mesh.hello()) } else { self.peers.hello(id) };
                let hello = hello.filter(|_| report.is_some());
                let client_address = hello.as_ref().and_then(|hello| hello.client_address.clone());
                let http_address = hello.and_then(|hello| hello.http_address);
                NodeStatus { name, id, client_address, http_address, report, state_hash }
            })
            .collect();
        ClusterStatus {
            cluster_id: self.member.cluster,
            lineage: self.member.lineage,
            leader: self.leader(),
            term,
            voters,
            needed: voters / 2 + 1,
            live: nodes.iter().filter(|node| node.report.is_some()).count(),
            hash_index,
            nodes: by_name(nodes),
        }
    }
}

fn by_name(mut nodes: Vec<NodeStatus>) -> Vec<NodeStatus> {
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    nodes
}
