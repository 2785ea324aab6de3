//! A node's configuration as meant: every value valid, every default filled in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::error::ConfigError;
use super::file::{NodeFile, RunFlags};
use super::validate::meant;
use crate::domain::node_address::NodeAddress;
use crate::domain::node_name::NodeName;

/// What a node is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSettings {
    /// The node's name, as in its certificate.
    pub name: NodeName,
    /// The node's own directory.
    pub dir: PathBuf,
    /// The three doors.
    pub listen: ListenSettings,
    /// How the cluster is founded and when it counts as whole.
    pub cluster: ClusterSettings,
    /// Certificates; none means generated ones, on loopback only.
    pub tls: Option<TlsFiles>,
    /// How much of the log is kept.
    pub log: LogSettings,
    /// Who may come in.
    pub security: SecuritySettings,
    /// Bounds.
    pub limits: LimitSettings,
    /// What is logged and how.
    pub telemetry: TelemetrySettings,
    /// What is legal but unwise, for people; logged at the start and shown by `config check`.
    pub warnings: Vec<String>,
}

/// Where the node listens. Port 0 takes any free one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenSettings {
    /// For clients, UDP.
    pub client: SocketAddr,
    /// Where clients are told to come, if not there.
    pub client_advertise: Option<NodeAddress>,
    /// What must hold before clients are let in.
    pub start_when: StartWhen,
    /// Addresses that many clients have in common.
    pub proxies: Vec<IpNet>,
    /// For peers, UDP.
    pub peer: SocketAddr,
    /// Where peers are told to come, if not there.
    pub peer_advertise: Option<NodeAddress>,
    /// For HTTP, TCP, without authentication.
    pub http: SocketAddr,
}

/// What must hold before clients are let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartWhen {
    /// Users and permissions are as the log says.
    pub configuration_restored: bool,
    /// Topics are as the log said when the node joined.
    pub topics_restored: bool,
    /// The node sees a quorum.
    pub quorum: bool,
}

impl StartWhen {
    /// All of it.
    pub const ALL: Self =
        Self { configuration_restored: true, topics_restored: true, quorum: true };
}

/// What a node does when it loses sight of the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnQuorumLoss {
    /// Parks its sessions, refuses writes, resumes by itself.
    Suspend,
    /// Drains, flushes and exits with 75.
    Shutdown,
}

/// How the cluster is founded and when it counts as whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Where other nodes may be; the node's own address may be among them.
    pub seeds: Vec<NodeAddress>,
    /// How many nodes found the cluster: its whole initial voter set, 1 to 7.
    pub expect: u32,
    /// How many voters must be there for the cluster to serve; none is a majority.
    pub quorum: Option<u32>,
    /// What to do without a quorum.
    pub on_quorum_loss: OnQuorumLoss,
    /// Timers.
    pub timing: ClusterTiming,
}

/// The timers of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterTiming {
    /// Between two beats of a leader.
    pub heartbeat: Duration,
    /// A follower campaigns after at least this silence.
    pub election_min: Duration,
    /// A follower campaigns after at most this silence; also the leader's lease.
    pub election_max: Duration,
    /// After this silence a node counts itself as inquorate; lease and longest election by default.
    pub quorum_timeout: Duration,
    /// After this silence the sessions of a node are taken from it.
    pub node_lost_timeout: Duration,
}

/// Files with certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The cluster's authority.
    pub ca: PathBuf,
    /// The node's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How much of the log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// Log kept beyond what snapshots need, in bytes.
    pub retain_bytes: u64,
    /// Log kept beyond what snapshots need, by age.
    pub retain_age: Duration,
    /// One file of the log, in bytes.
    pub segment_bytes: u64,
    /// A snapshot is taken after four times its own size of log, after this many bytes at the most.
    pub snapshot_bytes: u64,
}

/// Who may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecuritySettings {
    /// Where the first password of `admin` is; used once, when the cluster is founded.
    pub admin_password_file: Option<PathBuf>,
    /// Whether clients without credentials are let in.
    pub anonymous: bool,
}

/// Bounds of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSettings {
    /// Connections of clients.
    pub connections: u32,
    /// Proposals under way.
    pub permits: u32,
    /// Requests under way per session.
    pub session_in_flight: u32,
    /// Events that wait for one session before it lags.
    pub session_queue_events: u32,
    /// How long a session waits for its client, unless the client says otherwise.
    pub session_reconnect_timeout: Duration,
    /// Recent events kept in memory, in bytes.
    pub journal_bytes: u64,
}

/// The shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

/// What is logged and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// The shape of log lines.
    pub log_format: LogFormat,
    /// Which lines: a level, or directives as `tracing` takes them.
    pub log_filter: String,
}

impl NodeSettings {
    /// Reads the file, if there is one, lets the flags win, and checks all of it.
    ///
    /// # Errors
    /// [`ConfigError`], exit code 2.
    pub fn load(path: Option<&Path>, flags: &RunFlags) -> Result<Self, ConfigError> {
        let file = path.map(NodeFile::load).transpose()?.unwrap_or_default();
        meant(file.with(flags))
    }

    /// The same from the text of the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`], exit code 2.
    pub fn parse(text: &str, path: &Path, flags: &RunFlags) -> Result<Self, ConfigError> {
        meant(NodeFile::parse(text, path)?.with(flags))
    }
}
