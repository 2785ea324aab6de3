//! What the cluster looks like from here.

use crate::domain::id::{ClusterId, Lineage, NodeId};
use crate::domain::node_address::NodeAddress;
use crate::domain::node_name::NodeName;

/// Where a node stands in its life: the one table of states that logs, metrics, health and the
/// command line show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// Opening its storage, finding its peers.
    Starting,
    /// Applying what its own disk holds.
    Replaying,
    /// Founding a cluster or finding its members again.
    Joining,
    /// In the cluster, behind its leader.
    CatchingUp,
    /// Serves.
    Ready,
    /// Its disk is full: serves what it has applied, takes no commands until there is space.
    ReadOnly,
    /// No quorum in sight: keeps its identity and log, serves stale reads only.
    Inquorate,
    /// Its state differs from a majority's: serves nothing, goes on voting.
    Quarantined,
    /// A flush failed: acknowledges nothing any more.
    Poisoned,
    /// Stops: takes nothing new, finishes what it has.
    Draining,
    /// Has stopped.
    Stopped,
}

impl NodeState {
    /// Every state, from start to stop.
    pub const ALL: [Self; 11] = [
        Self::Starting,
        Self::Replaying,
        Self::Joining,
        Self::CatchingUp,
        Self::Ready,
        Self::ReadOnly,
        Self::Inquorate,
        Self::Quarantined,
        Self::Poisoned,
        Self::Draining,
        Self::Stopped,
    ];

    /// The word that people and tools see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Replaying => "replaying",
            Self::Joining => "joining",
            Self::CatchingUp => "catching-up",
            Self::Ready => "ready",
            Self::ReadOnly => "read-only",
            Self::Inquorate => "inquorate",
            Self::Quarantined => "quarantined",
            Self::Poisoned => "poisoned",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }

    /// The state that [`as_str`](Self::as_str) names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

impl std::fmt::Display for NodeState {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Whether this node sees a quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quorum {
    /// Not yet in this run.
    NotYet,
    /// It does.
    Quorate,
    /// It has lost sight of it.
    Lost,
}

impl Quorum {
    /// It sees one now.
    #[must_use]
    pub fn is_quorate(self) -> bool {
        self == Self::Quorate
    }
}

/// What a node does in consensus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Proposes.
    Leader,
    /// Follows a leader or looks for one.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Receives the log without a vote.
    Learner,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Leader, Self::Follower, Self::Candidate, Self::Learner];

    /// The word that people and tools see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
        }
    }
}

/// Where a node stands in consensus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsensusStanding {
    /// Its term.
    pub term: u64,
    /// It holds itself for the leader of this term.
    pub leads: bool,
    /// The newest entry that it holds and knows to be committed.
    pub committed: u64,
    /// The newest entry that it has applied.
    pub applied: u64,
    /// Commands that wait for their answer here.
    pub unanswered: usize,
}

/// The cluster as one node sees it, for `cluster status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStatus {
    /// Which cluster.
    pub cluster_id: ClusterId,
    /// Its lineage.
    pub lineage: Lineage,
    /// The leader's name, if one is known.
    pub leader: Option<NodeName>,
    /// The newest term known here.
    pub term: u64,
    /// Voters of the newest membership.
    pub voters: usize,
    /// How many of them make a quorum.
    pub needed: usize,
    /// How many of them answered.
    pub live: usize,
    /// The newest entry that all live nodes have applied; their state hashes are of this entry.
    pub hash_index: Option<u64>,
    /// All members, by name.
    pub nodes: Vec<NodeStatus>,
}

/// One member in a [`ClusterStatus`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its name.
    pub name: NodeName,
    /// Its identifier.
    pub id: NodeId,
    /// Where clients reach it, once its listener is open.
    pub client_address: Option<NodeAddress>,
    /// Where its HTTP console listens, once it is open.
    pub http_address: Option<NodeAddress>,
    /// What it said of itself; none when it could not be reached.
    pub report: Option<NodeReport>,
    /// Its state hash at [`ClusterStatus::hash_index`].
    pub state_hash: Option<u64>,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    /// Its state.
    pub state: NodeState,
    /// Its role.
    pub role: Role,
    /// The newest entry in its log.
    pub last_index: u64,
    /// The newest entry that it knows as committed.
    pub committed_index: u64,
    /// The newest entry that it has applied.
    pub applied_index: u64,
    /// Topics in its state.
    pub topics: u64,
    /// Sessions that it hosts.
    pub sessions: u64,
}
