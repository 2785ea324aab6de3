//! What replication is told at its start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_storage::Disk;
use quorate_storage::index::IndexPlace;

use crate::domain::node_address::NodeAddress;
use crate::domain::node_name::NodeName;
use crate::peer::{Authority, Identity};

/// What replication is told at its start.
#[derive(Debug)]
pub struct ReplicationSettings {
    /// This node's name; its certificate carries it.
    pub name: NodeName,
    /// Where its files live; nobody else uses it.
    pub dir: PathBuf,
    /// The disk behind it.
    pub disk: Arc<dyn Disk>,
    /// Where the index of the log lives; it can be thrown away at any time.
    pub index: IndexPlace,
    /// The initial voter set's size.
    pub expect: usize,
    /// The door for peers.
    pub peer: PeerSettings,
    /// Elections and leases.
    pub timing: Timing,
    /// What is kept on disk and in memory.
    pub retention: Retention,
    /// What the founding command sets.
    pub founding: FoundingSettings,
    /// Commands unanswered on this node.
    pub permits: usize,
}

/// The door for peers.
#[derive(Debug)]
pub struct PeerSettings {
    /// The UDP address; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Where other nodes reach it, if that is not `listen`.
    pub advertise: Option<NodeAddress>,
    /// Addresses to dial from the start.
    pub seeds: Vec<NodeAddress>,
    /// The node's certificate and key.
    pub identity: Identity,
    /// The cluster's authority.
    pub authority: Authority,
}

/// Elections and leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// The shortest election timeout.
    pub election_min: Duration,
    /// The longest election timeout; also the leader's lease.
    pub election_max: Duration,
    /// Without a sign of a quorum for this long it is lost.
    pub quorum_timeout: Duration,
    /// A leader gives up the sessions of a node that it has not heard for this long.
    pub node_lost_timeout: Duration,
    /// A serving gate above the majority: live voters without which a leader proposes nothing.
    pub quorum: Option<usize>,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(300),
            quorum_timeout: Duration::from_millis(600),
            node_lost_timeout: Duration::from_secs(2),
            quorum: None,
        }
    }
}

/// What is kept on disk and in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Length of a log segment.
    pub segment_bytes: u64,
    /// A snapshot is taken at the latest when this much log has grown behind the last one; when that
    /// is small, sooner.
    pub snapshot_every_bytes: u64,
    /// Log below the newest snapshot is kept up to this length…
    pub retain_bytes: u64,
    /// … and up to this age, whichever is reached first.
    pub retain_age: Duration,
    /// Recent events kept in memory.
    pub journal_bytes: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            snapshot_every_bytes: 512 << 20,
            retain_bytes: 2 << 30,
            retain_age: Duration::from_secs(24 * 3600),
            journal_bytes: super::journal::RING_BYTES_DEFAULT,
        }
    }
}

/// What the founding command sets, if this node happens to propose it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundingSettings {
    /// The administrator's first password; none draws one.
    pub admin_password: Option<String>,
    /// Clients may connect without credentials.
    pub anonymous: bool,
}
