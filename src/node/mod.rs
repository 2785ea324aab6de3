//! One node: builds the parts, wires them, starts and stops them in order.
//!
//! | part | tasks and threads | stands in |
//! |---|---|---|
//! | replication | log writer, mesh, lanes, proposer, watches, caretaker, snapshotter | `replication/start.rs` |
//! | gateway | listener, fan-out, janitor, one task per client and its writers | `gateway/mod.rs` |
//! | console | HTTP server, metrics tidier | `console/mod.rs` |
//! | node | `addresses`: tells the gateway where clients may go; `health`: what probes hear; `quorum duty`: `on_quorum_loss = "shutdown"`; `notes`: `pid` and `ports.json` that found no space | here and `node/directory.rs` |
//!
//! Start: directory lock, certificates, console, replication (founding waits for the other
//! founders as long as it takes), the node's own start in the log, then the door for clients.
//! Stop, the other way round: clients are sent away, leadership is handed on, what is in flight is
//! answered, the log is flushed and closed, the console goes last.

mod directory;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quorate_storage::Disk;
use quorate_storage::disk::RealDisk;
use quorate_storage::index::IndexPlace;
use tokio::sync::watch;

use self::directory::LockedDirectory;
use crate::clock::Clock;
use crate::config::settings::{NodeSettings, OnQuorumLoss};
use crate::console::{self, ConsoleError, Sources};
use crate::domain::node_address::NodeAddress;
use crate::domain::node_name::NodeName;
use crate::gateway::{self, Gateway};
use crate::protocol::handshake;
pub use crate::replication::AcceptedLoss;
use crate::replication::{
    self, AcceptLossError, FoundingSettings, NodeState, PeerSettings, Quorum, Replication,
    ReplicationSettings, Retention, StartError, Timing,
};
use crate::supervisor::{Exit, ExitCode, Supervisor};
use crate::telemetry::event;
use crate::telemetry::health::{Health, Verdict};
use crate::telemetry::recorder::Recorder;
use crate::transport::certificate;
use crate::transport::tls::{Authority, Identity, ServerTls};
use crate::transport::{BindError, Endpoint, EndpointLimits, ResetKey, TlsError};

/// How long clients have to leave, and commands in flight to be answered.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// How long a task has to end after its signal.
const TASK_PATIENCE: Duration = Duration::from_secs(2);
/// How often addresses and health are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What `/status` may take to ask the other members.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);

/// A node that runs.
#[derive(Debug)]
pub struct Node {
    replication: Replication,
    gateway: Gateway,
    supervisor: Supervisor,
    directory: LockedDirectory,
    doors: Doors,
    generated_password: Option<String>,
}

/// Where a node listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doors {
    /// For clients, UDP.
    pub client: SocketAddr,
    /// For peers, UDP.
    pub peer: SocketAddr,
    /// For HTTP, TCP.
    pub http: SocketAddr,
}

/// A node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Another process uses the directory.
    #[error("{} is in use by another process", dir.display())]
    DirectoryInUse {
        /// Which.
        dir: PathBuf,
    },
    /// A file of the node itself cannot be read or written.
    #[error("{} cannot be used", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Certificates cannot be read, made or used.
    #[error("the certificates are not usable")]
    Tls(#[from] TlsError),
    /// The cluster's part cannot start.
    #[error("the node cannot take its place in the cluster")]
    Replication(#[from] StartError),
    /// A loss cannot be accepted.
    #[error("the log cannot be repaired")]
    Loss(#[from] AcceptLossError),
    /// The HTTP port cannot be had.
    #[error("the console cannot open")]
    Console(#[from] ConsoleError),
    /// The port for clients cannot be had.
    #[error("the door for clients cannot open")]
    Client(#[from] BindError),
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness")]
    NoEntropy,
    /// The node was told to stop, or had to, before it had started.
    #[error("the node ended before it had started: {exit}")]
    Ended {
        /// Why.
        exit: Exit,
    },
}

impl NodeError {
    /// What the process exits with.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Replication(error) => error.exit_code(),
            Self::Loss(AcceptLossError::NotAMember { .. } | AcceptLossError::HasPeers { .. }) => {
                ExitCode::USAGE
            }
            Self::Loss(_) => ExitCode::DAMAGED,
            Self::Tls(_) | Self::Console(_) | Self::Client(_) => ExitCode::USAGE,
            Self::Ended { exit } => exit.code,
            Self::DirectoryInUse { .. } | Self::File { .. } | Self::NoEntropy => ExitCode::FAILED,
        }
    }
}

impl Node {
    /// Starts a node and waits until it serves clients: for the founders of its cluster, for a
    /// quorum, for its own state. The waiting has no end of its own; dropping the future gives up.
    ///
    /// # Errors
    /// [`NodeError`] with the exit code that goes with it.
    pub async fn start(
        settings: NodeSettings,
        recorder: Option<Recorder>,
    ) -> Result<Self, NodeError> {
        let clock = Clock::system();
        let supervisor = Supervisor::new("node");
        let directory = LockedDirectory::take(&settings.dir, clock).await?;
        directory.note_process(&supervisor)?;
        for warning in &settings.warnings {
            tracing::warn!(event = event::SETTING_DOUBTFUL, warning, "setting");
        }
        let started = tokio::select! {
            started = build(settings, recorder, &supervisor, directory, clock) => started,
            exit = supervisor.exit_requested() => Err(NodeError::Ended { exit }),
        };
        if started.is_err() {
            supervisor.stop(TASK_PATIENCE).await;
        }
        started
    }

    /// Where it listens.
    #[must_use]
    pub fn doors(&self) -> Doors {
        self.doors
    }

    /// The administrator's first password, if this node has just drawn it. Nobody else knows it.
    #[must_use]
    pub fn generated_password(&self) -> Option<&str> {
        self.generated_password.as_deref()
    }

    /// The cluster's part of the node.
    #[must_use]
    pub fn replication(&self) -> &Replication {
        &self.replication
    }

    /// Runs until `stop` or until a part asks for the end, then stops in good order. Says why, with
    /// the exit code.
    pub async fn run_until_stopped(self, stop: impl Future<Output = ()>) -> Exit {
        let asked = tokio::select! {
            () = stop => None,
            exit = self.supervisor.exit_requested() => Some(exit),
        };
        tracing::info!(event = event::NODE_STOPPING, "the node stops");
        self.gateway.stop(DRAIN_PATIENCE).await;
        self.replication.stop(DRAIN_PATIENCE).await;
        self.supervisor.stop(TASK_PATIENCE).await;
        self.directory.leave();
        tracing::info!(event = event::NODE_STOPPED, "the node has stopped");
        // A part may have asked on the way: a flush that failed at the end is not a good order.
        asked
            .or_else(|| self.supervisor.exit())
            .unwrap_or_else(|| Exit { code: ExitCode::DONE, reason: "stopped".to_owned() })
    }
}

/// Makes a stopped single node whose log is damaged start again at the price of what is lost; see
/// [`quorate log repair`](crate::cli). `None` when nothing is damaged. With `dry_run` nothing is
/// written.
///
/// # Errors
/// [`NodeError::DirectoryInUse`] while a process runs on it, [`NodeError::Loss`] when there is
/// nothing to go on from, or another node to repair it from.
pub async fn accept_loss(dir: &Path, dry_run: bool) -> Result<Option<AcceptedLoss>, NodeError> {
    let directory = LockedDirectory::take(dir, Clock::system()).await?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let accepted = replication::accept_loss(&disk, dir, dry_run);
    directory.leave();
    Ok(accepted?)
}

/// Builds the parts from the lowest to the highest.
async fn build(
    settings: NodeSettings,
    recorder: Option<Recorder>,
    supervisor: &Supervisor,
    directory: LockedDirectory,
    clock: Clock,
) -> Result<Node, NodeError> {
    let (identity, authority) = certificates(&settings)?;
    let health = Health::starting();
    let slot: watch::Sender<Option<Replication>> = watch::Sender::new(None);
    let sources = sources(&health, recorder, slot.subscribe());
    let http = console::start(settings.listen.http, sources, supervisor).await?;
    let replication_settings = replication_settings(&settings, identity.clone(), authority)?;
    let replication = Replication::start(replication_settings, supervisor, clock).await?;
    slot.send_replace(Some(replication.clone()));
    spawn_health(supervisor, &replication, health);
    if settings.cluster.on_quorum_loss == OnQuorumLoss::Shutdown {
        spawn_quorum_duty(supervisor, &replication);
    }
    let start_when = settings.listen.start_when;
    let waits =
        start_when.quorum || start_when.topics_restored || start_when.configuration_restored;
    // All three hold once this node's own start has come back to it through the log.
    let generated_password = if waits { replication.started().await } else { None };
    let tls = ServerTls::for_clients(&identity, None)?;
    let limits = EndpointLimits {
        connections_max: settings.limits.connections as usize,
        proxies: settings.listen.proxies.clone(),
        ..EndpointLimits::default()
    };
    let reset_key = ResetKey::from_bytes(replication.client_reset_key());
    let endpoint = Endpoint::listen(settings.listen.client, &tls, &reset_key, limits)?;
    let client = endpoint.local_address();
    let advertised = settings.listen.client_advertise.clone();
    replication.show_addresses(
        advertised.or_else(|| NodeAddress::from_socket(client)),
        NodeAddress::from_socket(http),
    );
    let addresses = spawn_addresses(supervisor, &replication);
    let gateway = Gateway::start(endpoint, replication.clone(), supervisor, clock, addresses)
        .map_err(|_| NodeError::NoEntropy)?;
    let doors = Doors { client, peer: replication.peer_address(), http };
    directory.note_doors(&doors, supervisor)?;
    tracing::info!(
        event = event::NODE_STARTED,
        name = %replication.member().name,
        client = %doors.client,
        peer = %doors.peer,
        http = %doors.http,
        "the node serves"
    );
    let supervisor = supervisor.clone();
    Ok(Node { replication, gateway, supervisor, directory, doors, generated_password })
}

/// The pages' sources: `/status` asks replication once it is there.
fn sources(
    health: &Health,
    recorder: Option<Recorder>,
    replication: watch::Receiver<Option<Replication>>,
) -> Sources {
    let status = Arc::new(move || -> console::StatusFuture {
        let replication = replication.borrow().clone();
        Box::pin(async move {
            match replication {
                Some(replication) => {
                    gateway::status_json(&replication.status(STATUS_PATIENCE).await)
                }
                None => "null".to_owned(),
            }
        })
    });
    Sources { health: health.clone(), recorder, status }
}

/// The node's certificate and the cluster's authority: from the files that the settings name, or
/// generated once into the directory.
fn certificates(settings: &NodeSettings) -> Result<(Identity, Authority), NodeError> {
    let files = match &settings.tls {
        Some(files) => files.clone(),
        None => certificate::generated(&settings.dir, &settings.name)?,
    };
    let identity = Identity::load(&files.certificate, &files.key)?;
    Ok((identity, Authority::load(&files.ca)?))
}

fn replication_settings(
    settings: &NodeSettings,
    identity: Identity,
    authority: Authority,
) -> Result<ReplicationSettings, NodeError> {
    let admin_password = settings
        .security
        .admin_password_file
        .as_ref()
        .map(|path| {
            let text = std::fs::read_to_string(path).map_err(|source| file_error(path, source))?;
            Ok::<_, NodeError>(text.trim_end_matches(['\r', '\n']).to_owned())
        })
        .transpose()?;
    let timing = settings.cluster.timing;
    Ok(ReplicationSettings {
        name: settings.name.clone(),
        dir: settings.dir.clone(),
        disk: Arc::new(RealDisk),
        index: IndexPlace::Folder(settings.dir.join("index")),
        expect: settings.cluster.expect as usize,
        peer: PeerSettings {
            listen: settings.listen.peer,
            advertise: settings.listen.peer_advertise.clone(),
            seeds: settings.cluster.seeds.clone(),
            identity,
            authority,
        },
        timing: Timing {
            heartbeat: timing.heartbeat,
            election_min: timing.election_min,
            election_max: timing.election_max,
            quorum_timeout: timing.quorum_timeout,
            node_lost_timeout: timing.node_lost_timeout,
            quorum: settings.cluster.quorum.map(|quorum| quorum as usize),
        },
        retention: Retention {
            segment_bytes: settings.log.segment_bytes,
            snapshot_every_bytes: settings.log.snapshot_bytes,
            retain_bytes: settings.log.retain_bytes,
            retain_age: settings.log.retain_age,
            journal_bytes: settings.limits.journal_bytes as usize,
        },
        founding: FoundingSettings { admin_password, anonymous: settings.security.anonymous },
        permits: settings.limits.permits as usize,
    })
}

/// Keeps telling the gateway where clients may go.
fn spawn_addresses(
    supervisor: &Supervisor,
    replication: &Replication,
) -> watch::Receiver<Vec<handshake::NodeAddress>> {
    let replication = replication.clone();
    let current = move || -> Vec<handshake::NodeAddress> {
        let one = |(name, address): (NodeName, NodeAddress)| handshake::NodeAddress {
            name: name.as_str().to_owned(),
            address: address.as_str().to_owned(),
        };
        replication.client_addresses().into_iter().map(one).collect()
    };
    let (sender, receiver) = watch::channel(current());
    let mut stop = supervisor.stop_signal();
    supervisor.spawn("addresses", async move {
        let looking = async {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let now = current();
                sender.send_if_modified(|before| {
                    let changed = *before != now;
                    *before = now;
                    changed
                });
            }
        };
        tokio::select! {
            () = stop.stopped() => {}
            () = looking => {}
        }
    });
    receiver
}

/// Keeps what probes hear up to date.
fn spawn_health(supervisor: &Supervisor, replication: &Replication, health: Health) {
    let replication = replication.clone();
    let mut stop = supervisor.stop_signal();
    supervisor.spawn("health", async move {
        let looking = async {
            loop {
                replication.publish_figures();
                let state = *replication.state().borrow();
                let is_safe = replication.is_safe_to_stop();
                health.set(|facts| {
                    facts.state = state.as_str();
                    facts.live = match state {
                        NodeState::Poisoned => Verdict::no("a flush failed"),
                        _ => Verdict::Yes,
                    };
                    facts.ready = match state {
                        NodeState::Ready => Verdict::Yes,
                        NodeState::ReadOnly => Verdict::no("read-only: the disk is full"),
                        other => Verdict::no(other.as_str()),
                    };
                    facts.safe_to_stop = if is_safe {
                        Verdict::Yes
                    } else {
                        Verdict::no("the other members in sight are no quorum")
                    };
                });
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            () = stop.stopped() => {}
            () = looking => {}
        }
    });
}

/// `on_quorum_loss = "shutdown"`: ends the node when it loses sight of the quorum; armed only once
/// it has seen one in this run.
fn spawn_quorum_duty(supervisor: &Supervisor, replication: &Replication) {
    let mut quorum = replication.quorum();
    let ending = supervisor.clone();
    let mut stop = supervisor.stop_signal();
    supervisor.spawn("quorum duty", async move {
        tokio::select! {
            () = stop.stopped() => {}
            lost = quorum.wait_for(|quorum| *quorum == Quorum::Lost) => {
                if lost.is_ok() {
                    ending.request_exit(Exit {
                        code: ExitCode::QUORUM_LOST,
                        reason: "the quorum is lost and the settings say shutdown".to_owned(),
                    });
                }
            }
        }
    });
}

fn file_error(path: &Path, source: io::Error) -> NodeError {
    NodeError::File { path: path.to_owned(), source }
}
