//! The other members, by node id: the mesh's connections as consensus needs them.
//!
//! A name leads to a connection; that the node at its end is the member that is meant (cluster,
//! node id, directory) is checked here, on every use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Clock;
use crate::domain::id::{ClusterId, NodeId};
use crate::domain::node_name::NodeName;
use crate::peer::{self, FrameReceiver, FrameSender, Mesh, PeerInfo, Priority};
use crate::protocol::peer_message::Hello;
use crate::replication::founding::rules::Proposal;

/// The kind of the single frame that a call sends each way.
const CALL: u8 = 1;

/// What a stream between members is for; the numbers are on the wire and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::replication) enum Lane {
    /// Log entries from the leader, in order, answered in order.
    Append = 1,
    /// Heartbeats, votes and leadership transfer: calls.
    Control = 2,
    /// Commands to the leader, in order.
    Forward = 3,
    /// A snapshot's file in ranges.
    Snapshot = 4,
    /// Questions of one member to another: calls.
    Ask = 5,
    /// A snapshot that a member asks for.
    Fetch = 6,
}

impl Lane {
    pub(in crate::replication) fn from_number(number: u8) -> Option<Self> {
        [Self::Append, Self::Control, Self::Forward, Self::Snapshot, Self::Ask, Self::Fetch]
            .into_iter()
            .find(|lane| *lane as u8 == number)
    }

    fn priority(self) -> Priority {
        match self {
            Self::Control => Priority::High,
            Self::Append | Self::Forward | Self::Ask => Priority::Normal,
            Self::Snapshot | Self::Fetch => Priority::Low,
        }
    }
}

/// Why a peer could not be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::replication) enum PeerFault {
    /// It is no member.
    #[error("no such member")]
    Unknown,
    /// There is no connection to it.
    #[error("not connected")]
    NotConnected,
    /// The node under its name is another one.
    #[error("the node under that name is not the member")]
    WrongNode,
    /// It did not answer in time.
    #[error("no answer in time")]
    Deadline,
    /// The stream broke, or the peer ended it without an answer.
    #[error("the stream broke")]
    Closed,
}

/// The members and the connections to them; clones share both.
#[derive(Debug, Clone)]
pub(in crate::replication) struct Peers {
    mesh: Mesh,
    roster: Arc<Roster>,
    clock: Clock,
}

/// Who belongs to the cluster.
#[derive(Debug)]
pub(in crate::replication) struct Roster {
    pub(in crate::replication) cluster: ClusterId,
    pub(in crate::replication) own: NodeId,
    members: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    name: NodeName,
    nonce: u64,
}

impl Roster {
    pub(in crate::replication) fn new(proposal: &Proposal, own: NodeId) -> Self {
        let members = proposal
            .founders
            .iter()
            .map(|founder| {
                let entry = Entry { name: founder.name.clone(), nonce: founder.nonce };
                (founder.id.0, entry)
            })
            .collect();
        Self { cluster: proposal.cluster, own, members }
    }

    /// All members, this node among them, by id.
    pub(in crate::replication) fn members(&self) -> impl Iterator<Item = (NodeId, &NodeName)> {
        self.members.iter().map(|(id, entry)| (NodeId(*id), &entry.name))
    }

    pub(in crate::replication) fn name(&self, id: NodeId) -> Option<&NodeName> {
        self.members.get(&id.0).map(|entry| &entry.name)
    }

    pub(in crate::replication) fn id(&self, name: &NodeName) -> Option<NodeId> {
        self.members.iter().find(|(_, entry)| entry.name == *name).map(|(id, _)| NodeId(*id))
    }

    /// Whether the node that says this hello is the member of that name.
    pub(in crate::replication) fn is_member(&self, hello: &Hello) -> bool {
        self.id(&hello.name).is_some_and(|id| {
            let nonce = self.members.get(&id.0).map(|entry| entry.nonce);
            // A founder that has not yet seen the cluster formed says no cluster and no id.
            let identity_fits = match (hello.cluster, hello.node) {
                (None, None) => true,
                (cluster, node) => cluster == Some(self.cluster) && node == Some(id),
            };
            nonce == Some(hello.directory_nonce) && identity_fits
        })
    }
}

impl Peers {
    pub(in crate::replication) fn new(mesh: Mesh, roster: Roster, clock: Clock) -> Self {
        Self { mesh, roster: Arc::new(roster), clock }
    }

    pub(in crate::replication) fn roster(&self) -> &Roster {
        &self.roster
    }

    pub(in crate::replication) fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// The other members that are connected now and are who they should be.
    pub(in crate::replication) fn connected(&self) -> Vec<NodeId> {
        let peers = self.mesh.peers();
        let peers = peers.borrow();
        let here = |info: &&PeerInfo| info.connected && self.roster.is_member(&info.hello);
        peers.values().filter(here).filter_map(|info| self.roster.id(&info.hello.name)).collect()
    }

    /// The newest hello of a member.
    pub(in crate::replication) fn hello(&self, node: NodeId) -> Option<Hello> {
        let name = self.roster.name(node)?;
        let peers = self.mesh.peers();
        let peers = peers.borrow();
        peers.get(name).map(|info| info.hello.clone()).filter(|hello| self.roster.is_member(hello))
    }

    /// Waits until a member is connected, at most for `patience`.
    pub(in crate::replication) async fn wait_connected(&self, node: u64, patience: Duration) {
        let Some(name) = self.roster.name(NodeId(node)) else {
            return tokio::time::sleep(patience).await;
        };
        let mut peers = self.mesh.peers();
        let connected = peers.wait_for(|peers| {
            peers.get(name).is_some_and(|info| info.connected && self.roster.is_member(&info.hello))
        });
        // Whether it came or not: the caller tries again.
        let _ = tokio::time::timeout_at(self.clock.now() + patience, connected).await;
    }

    /// Opens a stream to a member.
    pub(in crate::replication) async fn open(
        &self,
        node: u64,
        lane: Lane,
    ) -> Result<(FrameSender, FrameReceiver), PeerFault> {
        let name = self.roster.name(NodeId(node)).ok_or(PeerFault::Unknown)?;
        {
            let peers = self.mesh.peers();
            let peers = peers.borrow();
            let info = peers.get(name).filter(|info| info.connected);
            let info = info.ok_or(PeerFault::NotConnected)?;
            if !self.roster.is_member(&info.hello) {
                return Err(PeerFault::WrongNode);
            }
        }
        let opened = self.mesh.open(name, peer::Lane(lane as u8), lane.priority()).await;
        opened.map_err(|_| PeerFault::NotConnected)
    }

    /// Sends one frame to a member on a stream of its own and waits for the one that comes back.
    pub(in crate::replication) async fn call(
        &self,
        node: u64,
        lane: Lane,
        request: Bytes,
        patience: Duration,
    ) -> Result<Bytes, PeerFault> {
        let conversation = async {
            let (mut sender, mut receiver) = self.open(node, lane).await?;
            sender.queue_shared(CALL, request).map_err(|_| PeerFault::Closed)?;
            sender.finish().await.map_err(|_| PeerFault::Closed)?;
            match receiver.next().await {
                Ok(Some(frame)) => Ok(frame.body),
                Ok(None) | Err(_) => Err(PeerFault::Closed),
            }
        };
        let deadline = self.clock.now() + patience;
        tokio::time::timeout_at(deadline, conversation).await.unwrap_or(Err(PeerFault::Deadline))
    }
}
