//! What a setting is when nobody says anything.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The node's name.
pub const NAME: &str = "n1";
/// Below this, a directory of the node's name.
pub const DIR_PARENT: &str = "data";
/// The UDP port for clients.
pub const CLIENT_PORT: u16 = 7400;
/// The UDP port for peers.
pub const PEER_PORT: u16 = 7401;
/// The TCP port for HTTP.
pub const HTTP_PORT: u16 = 7402;

/// Between two beats of a leader.
pub const HEARTBEAT: Duration = Duration::from_millis(50);
/// A follower campaigns after at least this silence.
pub const ELECTION_MIN: Duration = Duration::from_millis(150);
/// A follower campaigns after at most this silence; also the leader's lease.
pub const ELECTION_MAX: Duration = Duration::from_millis(300);
/// After this silence the sessions of a node are taken from it.
pub const NODE_LOST_TIMEOUT: Duration = Duration::from_secs(2);

/// The log that is kept beyond what snapshots need.
pub const LOG_RETAIN_BYTES: u64 = 2 << 30;
/// The age of log that is kept beyond what snapshots need.
pub const LOG_RETAIN_AGE: Duration = Duration::from_secs(24 * 3600);
/// One file of the log.
pub const LOG_SEGMENT_BYTES: u64 = 64 << 20;
/// A snapshot is taken after this much log at the latest.
pub const LOG_SNAPSHOT_BYTES: u64 = 512 << 20;

/// Connections of clients to one node.
pub const CONNECTIONS_MAX: u32 = 20_000;
/// Proposals under way per node.
pub const PERMITS: u32 = 16_384;
/// Requests under way per session.
pub const SESSION_IN_FLIGHT: u32 = 1_024;
/// Events that wait for one session before it lags.
pub const SESSION_QUEUE_EVENTS: u32 = 4_096;
/// Recent events kept in memory.
pub const JOURNAL_BYTES: u64 = 64 << 20;
/// How long a session waits for its client.
pub const SESSION_RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// What is logged.
pub const LOG_FILTER: &str = "info";

/// A listener on loopback.
#[must_use]
pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
