//! The handle that the gateway, the console and the node hold.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::core::Core;
use super::error::{ProposeError, ReadError};
use super::history::reader::JournalReader;
use super::journal::Journal;
use super::proposing::pending::SessionProposer;
use super::status::{ClusterStatus, ConsensusStanding, NodeState, Quorum};
use super::upkeep::caretaker::Progress;
use crate::domain::command::Command;
use crate::domain::id::{ClusterId, Index, Lineage, NodeId, Position, SessionId};
use crate::domain::machine::{Answered, Machine};
use crate::domain::node_address::NodeAddress;
use crate::domain::node_name::NodeName;
use crate::domain::outcome::Outcome;

/// Who this node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name: what certificates, settings and people call it.
    pub name: NodeName,
    /// Its identifier, never used again by another log.
    pub id: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The cluster's history that its log belongs to.
    pub lineage: Lineage,
    /// Rises with each start of the node.
    pub incarnation: u64,
}

/// A running member of the cluster; clones share it.
#[derive(Debug, Clone)]
pub struct Replication {
    pub(super) core: Arc<Core>,
}

impl Replication {
    /// An O(1) clone of the newest applied state.
    #[must_use]
    pub fn view(&self) -> Machine {
        self.core.applied.view()
    }

    /// The events that the applied entries caused.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.core.journal
    }

    /// A reader of the journal that goes on from disk where the ring has let go.
    #[must_use]
    pub fn journal_reader(&self) -> JournalReader {
        self.core.history.reader()
    }

    /// The index of this node's log: postings of topics, histories of sessions and configuration.
    #[must_use]
    pub fn index(&self) -> &quorate_storage::index::Index {
        &self.core.index
    }

    /// Whether all events after `position` can be read, from memory or from disk.
    #[must_use]
    pub fn remembers(&self, position: Position) -> bool {
        self.core.history.reaches(position)
    }

    /// Begins to take the commands of a session that this node hosts. Answers come on the
    /// receiver, in the order of request numbers; it closes when the session is attached anew
    /// or the node stops.
    #[must_use]
    pub fn attach(
        &self,
        session: SessionId,
        epoch: u32,
        role_version: u32,
    ) -> (SessionProposer, mpsc::Receiver<Vec<Answered>>) {
        self.core.pending.attach(session, epoch, role_version)
    }

    /// Proposes a command of the cluster's own, such as `open session`, and waits for its outcome.
    /// It may be applied more than once if the leader changes: such commands are idempotent by
    /// content.
    ///
    /// # Errors
    /// [`ProposeError::Refused`] if it was not taken, [`ProposeError::OutcomeUnknown`] when
    /// `patience` runs out first.
    pub async fn propose(
        &self,
        command: &Command,
        patience: Duration,
    ) -> Result<(Outcome, Index), ProposeError> {
        self.core.propose(command, patience).await
    }

    /// Waits until this node has applied everything that was acknowledged anywhere in the cluster
    /// before the call; gives the entry that it stands at.
    ///
    /// # Errors
    /// [`ReadError::Inquorate`] at once without a quorum, [`ReadError::Deadline`] when `patience`
    /// runs out.
    pub async fn read_index(&self, patience: Duration) -> Result<u64, ReadError> {
        self.core.read_index(patience).await
    }

    /// Waits until this node has applied `entry`; false when `patience` runs out first.
    pub async fn applied(&self, entry: u64, patience: Duration) -> bool {
        let mut applied = self.core.journal.applied();
        let reached = applied.wait_for(|now| *now >= entry);
        matches!(tokio::time::timeout(patience, reached).await, Ok(Ok(_)))
    }

    /// Whether this node sees a quorum, and every change of it.
    #[must_use]
    pub fn quorum(&self) -> watch::Receiver<Quorum> {
        self.core.quorum.subscribe()
    }

    /// The node's place in its life, and every change of it.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<NodeState> {
        self.core.state.subscribe()
    }

    /// Whether the other members in sight make a quorum without this node.
    #[must_use]
    pub fn is_safe_to_stop(&self) -> bool {
        let voters = self.core.peers.roster().members().count();
        self.core.peers.connected().len() > voters / 2
    }

    /// Whether this node leads now.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.core.is_leader()
    }

    /// The name of the leader that this node follows, or its own.
    #[must_use]
    pub fn leader(&self) -> Option<NodeName> {
        self.core.leader()
    }

    /// Who this node is.
    #[must_use]
    pub fn member(&self) -> &Member {
        &self.core.member
    }

    /// The cluster as seen from here; asks every member and takes at most `patience`.
    pub async fn status(&self, patience: Duration) -> ClusterStatus {
        self.core.status(patience).await
    }

    /// Waits until the cluster is founded and this node's start is applied here. Gives the
    /// administrator's first password, if this node has drawn it: nobody else knows it.
    pub async fn started(&self) -> Option<String> {
        let mut progress = self.core.progress.clone();
        let started = progress.wait_for(|now| matches!(now, Progress::Started { .. })).await;
        match started.as_deref() {
            Ok(Progress::Started { drawn_password }) => drawn_password.clone(),
            // The caretaker ended first: the node stops, and nothing is to be waited for.
            Ok(Progress::Waiting) | Err(_) => None,
        }
    }

    /// Shows the peers where clients and people reach this node.
    pub fn show_addresses(&self, client: Option<NodeAddress>, http: Option<NodeAddress>) {
        self.core.peers.mesh().change_hello(|hello| {
            hello.client_address = client;
            hello.http_address = http;
        });
    }

    /// Where clients reach each member that shows it, this node included, by name.
    #[must_use]
    pub fn client_addresses(&self) -> Vec<(NodeName, NodeAddress)> {
        self.core.client_addresses()
    }

    /// Where the peer port is.
    #[must_use]
    pub fn peer_address(&self) -> SocketAddr {
        self.core.peers.mesh().local_address()
    }

    /// The secret by which a restarted node resets its clients' former connections at once.
    #[must_use]
    pub fn client_reset_key(&self) -> [u8; 32] {
        self.core.client_reset_key
    }

    /// Shows where the node stands in the metrics.
    pub fn publish_figures(&self) {
        self.core.publish_figures();
    }

    /// This node's log, to be read; what a test of many nodes compares.
    #[doc(hidden)]
    #[must_use]
    pub fn log(&self) -> &quorate_storage::Log {
        &self.core.log
    }

    /// Where this node stands in consensus at this moment; what a test of many nodes compares.
    #[doc(hidden)]
    #[must_use]
    pub fn standing(&self) -> ConsensusStanding {
        self.core.standing()
    }

    /// Takes a snapshot now, rather than when enough log has grown.
    pub async fn take_snapshot(&self) {
        // Fails only when the engine has stopped.
        let _stopped = self.core.raft.trigger().snapshot().await;
    }

    /// Hands leadership on if this node leads; true when another node leads, or may.
    pub async fn hand_over(&self, patience: Duration) -> bool {
        self.core.hand_over(patience).await
    }

    /// Stops in good order: hands leadership on, takes nothing new, lets what is in flight be
    /// answered within `patience`, and flushes. All clones of the handle go dead.
    pub async fn stop(&self, patience: Duration) {
        self.core.stop(patience).await;
    }
}
