//! A cluster of child processes on loopback: its directory, its processes, their deaths.
//!
//! ```text
//! DIR/lock                held by the process that runs the nodes
//! DIR/cluster.json        how many nodes, from which port: checked when the directory continues
//! DIR/ca.pem, ca.key      the authority made for this directory
//! DIR/admin.password      the generated administrator's password
//! DIR/client.toml         a profile that lists every node
//! DIR/nK/node.toml        the node's configuration; DIR/nK/ is the node's directory
//! DIR/nK/node.log         what it wrote to standard error
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::future::Future;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::domain::node_name::NodeName;
use crate::transport::TlsError;
use crate::transport::certificate::{self, Pem};

use crate::cli::failure::Failure;
use crate::cli::output;
use crate::supervisor::ExitCode;

/// Ports per node: clients, peers, HTTP, and room to read them apart.
const PORTS_PER_NODE: u16 = 10;
/// How long a stopping node may take before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How often readiness and deaths are looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What a directory was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct Plan {
    /// How many nodes.
    pub(in crate::cli) nodes: u16,
    /// Node k listens on base + 10·k + {0, 1, 2}.
    pub(in crate::cli) base_port: u16,
}

/// Where one node lives and listens.
#[derive(Debug, Clone)]
pub(in crate::cli) struct NodePlace {
    pub(in crate::cli) name: String,
    pub(in crate::cli) dir: PathBuf,
    pub(in crate::cli) client: SocketAddr,
    pub(in crate::cli) peer: SocketAddr,
    pub(in crate::cli) http: SocketAddr,
}

impl NodePlace {
    pub(in crate::cli) fn configuration(&self) -> PathBuf {
        self.dir.join("node.toml")
    }
}

/// How a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Death(ExitStatus);

impl Death {
    /// Wrong configuration, damaged storage or a wrong cluster do not heal by starting again.
    pub(in crate::cli) fn is_worth_a_restart(self) -> bool {
        let hopeless = [ExitCode::USAGE, ExitCode::DAMAGED, ExitCode::WRONG_CLUSTER]
            .map(|code| i32::from(code.0));
        self.0.code().is_none_or(|code| !hopeless.contains(&code))
    }
}

impl fmt::Display for Death {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.code(), self.0.signal()) {
            (Some(code), _) => write!(formatter, "exited with code {code}"),
            (None, Some(signal)) => write!(formatter, "killed by signal {signal}"),
            (None, None) => formatter.write_str("ended"),
        }
    }
}

/// A cluster of child processes; they end when this value is dropped.
pub(in crate::cli) struct LocalCluster {
    dir: PathBuf,
    nodes: Vec<NodePlace>,
    children: Vec<Option<Child>>,
    /// Nodes to start again, and when; in order of time.
    restarts: VecDeque<(usize, Instant)>,
    clock: Clock,
    /// Held as long as the value lives.
    _lock: fs::File,
}

impl LocalCluster {
    /// Makes the directory, or continues one that was made for the same plan.
    ///
    /// # Errors
    /// When it was made for another plan, is in use, cannot be written, or the plan is not a legal
    /// cluster.
    pub(in crate::cli) fn prepare(dir: &Path, plan: Plan) -> anyhow::Result<Self> {
        if plan.nodes == 2 || plan.nodes > 7 {
            return Err(Failure::usage(format!(
                "--nodes {}: a cluster has 1, or 3 to 7 founders; two lose their quorum with either",
                plan.nodes
            )));
        }
        if plan.base_port.checked_add(plan.nodes * PORTS_PER_NODE).is_none() {
            return Err(Failure::usage(format!(
                "--base-port {}: {} nodes need {} ports from there on",
                plan.base_port,
                plan.nodes,
                plan.nodes * PORTS_PER_NODE
            )));
        }
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let dir = fs::canonicalize(dir)?;
        let lock = locked(&dir)?;
        let nodes: Vec<NodePlace> = (0..plan.nodes).map(|k| place(&dir, plan, k)).collect();
        let record = dir.join("cluster.json");
        match fs::read(&record) {
            Ok(bytes) => {
                let made: Plan = serde_json::from_slice(&bytes)
                    .with_context(|| format!("{} is not readable", record.display()))?;
                if made != plan {
                    return Err(Failure::usage(format!(
                        "{} was made with --nodes {} --base-port {}; give the same or another --dir",
                        dir.display(),
                        made.nodes,
                        made.base_port
                    )));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                write_files(&dir, &nodes)?;
                // Written last: a directory without it is made again from the start.
                fs::write(&record, serde_json::to_vec(&plan)?)?;
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", record.display()));
            }
        }
        let children = nodes.iter().map(|_| None).collect();
        let clock = Clock::system();
        Ok(Self { dir, nodes, children, restarts: VecDeque::new(), clock, _lock: lock })
    }

    /// Where the nodes live and listen.
    pub(in crate::cli) fn nodes(&self) -> &[NodePlace] {
        &self.nodes
    }

    /// A client profile that lists every node.
    pub(in crate::cli) fn profile(&self) -> PathBuf {
        self.dir.join("client.toml")
    }

    /// The processes of the nodes that run, in the order of the nodes.
    pub(in crate::cli) fn pids(&self) -> Vec<u32> {
        self.children.iter().flatten().filter_map(Child::id).collect()
    }

    /// Starts a node; one that runs already is left alone.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub(in crate::cli) fn start(&mut self, node: usize) -> anyhow::Result<()> {
        let (Some(place), Some(slot)) = (self.nodes.get(node), self.children.get_mut(node)) else {
            return Ok(());
        };
        if slot.is_some() {
            return Ok(());
        }
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(place.dir.join("node.log"))
            .with_context(|| format!("cannot open the log of {}", place.name))?;
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let child = Command::new(program)
            .args(["run", "--stop-with-stdin", "--config"])
            .arg(place.configuration())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", place.name))?;
        *slot = Some(child);
        Ok(())
    }

    /// Starts a node again after a delay, from within [`Self::next_death`].
    pub(in crate::cli) fn start_later(&mut self, node: usize, delay: Duration) {
        self.restarts.push_back((node, self.clock.now() + delay));
    }

    /// Kills a node with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub(in crate::cli) async fn kill(&mut self, node: usize) -> anyhow::Result<()> {
        if let Some(mut child) = self.children.get_mut(node).and_then(Option::take) {
            child.kill().await.context("cannot kill the node")?;
        }
        Ok(())
    }

    /// Waits for the next node that ends by itself, starting those whose delay is over. Cancel-safe.
    pub(in crate::cli) async fn next_death(&mut self) -> (usize, Death) {
        loop {
            for (node, slot) in self.children.iter_mut().enumerate() {
                let ended = slot.as_mut().and_then(|child| child.try_wait().ok().flatten());
                if let Some(status) = ended {
                    *slot = None;
                    return (node, Death(status));
                }
            }
            while let Some(&(node, at)) = self.restarts.front() {
                if at > self.clock.now() {
                    break;
                }
                self.restarts.pop_front();
                if let Err(error) = self.start(node) {
                    output::error(&error);
                    self.start_later(node, Duration::from_secs(2));
                    break;
                }
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Completes when every node says that it is ready.
    pub(in crate::cli) fn ready(&self) -> impl Future<Output = ()> + use<> {
        let doors: Vec<SocketAddr> = self.nodes.iter().map(|node| node.http).collect();
        async move {
            for door in doors {
                while !answers_ready(door).await {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
            }
        }
    }

    /// Waits until every node is ready.
    ///
    /// # Errors
    /// When one ends before, or the time is over.
    pub(in crate::cli) async fn wait_ready(&mut self, timeout: Duration) -> anyhow::Result<()> {
        let ready = self.ready();
        let dir = self.dir.clone();
        let waited = tokio::select! {
            ready = tokio::time::timeout(timeout, ready) => ready,
            (node, died) = self.next_death() => {
                let name = self.nodes.get(node).map_or("?", |node| node.name.as_str());
                anyhow::bail!("{name} {died}; see {}/{name}/node.log", dir.display());
            }
        };
        waited.with_context(|| {
            format!("not ready after {} s; see node.log in {}", timeout.as_secs(), dir.display())
        })
    }

    /// Ends every node: asked first, by closing its standard input, then killed.
    pub(in crate::cli) async fn stop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            drop(child.stdin.take());
        }
        for slot in &mut self.children {
            let Some(mut child) = slot.take() else { continue };
            if tokio::time::timeout(STOP_TIMEOUT, child.wait()).await.is_err() {
                // It had its time; a killed node replays its log.
                drop(child.kill().await);
            }
        }
    }
}

/// Two that start the same nodes would each take the other's for dead, and start them for ever.
fn locked(dir: &Path) -> anyhow::Result<fs::File> {
    let path = dir.join("lock");
    let lock =
        fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => anyhow::bail!(
            "another process runs the cluster in {}; end it, or give another --dir",
            dir.display()
        ),
        Err(fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

fn place(dir: &Path, plan: Plan, k: u16) -> NodePlace {
    let name = format!("n{}", k + 1);
    let at = |offset| {
        SocketAddr::from((Ipv4Addr::LOCALHOST, plan.base_port + k * PORTS_PER_NODE + offset))
    };
    NodePlace { dir: dir.join(&name), name, client: at(0), peer: at(1), http: at(2) }
}

fn write_files(dir: &Path, nodes: &[NodePlace]) -> anyhow::Result<()> {
    let authority = kept_or_made(dir, "ca", || certificate::make_ca("Quorate development CA"))?;
    let mut secret = [0_u8; 18];
    getrandom::fill(&mut secret).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    let password = base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, secret);
    write_secret(&dir.join("admin.password"), &password)?;
    let seeds: Vec<String> = nodes.iter().map(|node| node.peer.to_string()).collect();
    for node in nodes {
        fs::create_dir_all(&node.dir)?;
        let name = NodeName::parse(&node.name)?;
        kept_or_made(&node.dir, "node", || certificate::make_node(&authority, &name, &[]))?;
        fs::write(node.configuration(), node_toml(node, &seeds))?;
    }
    let addresses: Vec<String> = nodes.iter().map(|node| node.client.to_string()).collect();
    let profile = format!(
        "addresses = {addresses:?}\nca = \"ca.pem\"\nprincipal = \"admin\"\n\
         password_file = \"admin.password\"\n"
    );
    fs::write(dir.join("client.toml"), profile)?;
    Ok(())
}

fn node_toml(node: &NodePlace, seeds: &[String]) -> String {
    let NodePlace { name, client, peer, http, .. } = node;
    let cluster = match seeds {
        [_alone] => String::new(),
        seeds => format!("[cluster]\nseeds = {seeds:?}\nexpect = {}\n", seeds.len()),
    };
    format!(
        "name = \"{name}\"\ndir = \".\"\n[client]\nlisten = \"{client}\"\n[peer]\n\
         listen = \"{peer}\"\n[http]\nlisten = \"{http}\"\n{cluster}[tls]\nca = \"../ca.pem\"\n\
         certificate = \"node.pem\"\nkey = \"node.key\"\n[security]\n\
         admin_password_file = \"../admin.password\"\n"
    )
}

/// A certificate that an interrupted start left here is taken over: a key is never overwritten.
fn kept_or_made(
    dir: &Path,
    name: &str,
    make: impl FnOnce() -> Result<Pem, TlsError>,
) -> Result<Pem, TlsError> {
    let (certificate, key) = certificate::paths(dir, name);
    if certificate.exists() && key.exists() {
        return Pem::load(&certificate, &key);
    }
    let made = make()?;
    made.store(&certificate, &key)?;
    Ok(made)
}

fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
    writeln!(file, "{text}")?;
    Ok(())
}

/// Asks `/ready` and looks at the status line only.
async fn answers_ready(address: SocketAddr) -> bool {
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        stream.write_all(b"GET /ready HTTP/1.0\r\nHost: localhost\r\n\r\n").await.ok()?;
        let mut head = [0_u8; 12];
        stream.read_exact(&mut head).await.ok()?;
        Some(head.ends_with(b" 200"))
    };
    let answer = tokio::time::timeout(Duration::from_secs(1), ask).await;
    answer.ok().flatten().unwrap_or(false)
}

/// Finds ports for a scratch cluster: all of them were free a moment ago.
///
/// # Errors
/// When a hundred places were tried in vain.
pub(in crate::cli) fn free_base_port(nodes: u16) -> anyhow::Result<u16> {
    for _ in 0..100 {
        let mut draw = [0_u8; 2];
        getrandom::fill(&mut draw).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
        // Below the range that the system draws ports of its own from.
        let base = 10_000 + u16::from_le_bytes(draw) % 2_000 * PORTS_PER_NODE;
        let free = (0..nodes * PORTS_PER_NODE).filter(|offset| offset % PORTS_PER_NODE < 3).all(
            |offset| {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, base + offset));
                UdpSocket::bind(address).is_ok() && std::net::TcpListener::bind(address).is_ok()
            },
        );
        if free {
            return Ok(base);
        }
    }
    anyhow::bail!("no free ports were found on loopback for {nodes} nodes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_continues_with_the_same_plan_only() {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan { nodes: 3, base_port: 7400 };
        let cluster = LocalCluster::prepare(dir.path(), plan).unwrap();
        assert_eq!(cluster.nodes()[2].peer.to_string(), "127.0.0.1:7421");
        let password = fs::read(dir.path().join("admin.password")).unwrap();
        let second = LocalCluster::prepare(dir.path(), plan);
        assert!(second.err().unwrap().to_string().contains("another process"));
        drop(cluster);
        LocalCluster::prepare(dir.path(), plan).unwrap();
        assert_eq!(fs::read(dir.path().join("admin.password")).unwrap(), password);
        let other = LocalCluster::prepare(dir.path(), Plan { nodes: 5, ..plan });
        assert!(other.err().unwrap().to_string().contains("--nodes 3"));
    }

    #[test]
    fn plans_that_cannot_be_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for plan in [Plan { nodes: 2, base_port: 7400 }, Plan { nodes: 3, base_port: 65_530 }] {
            assert!(LocalCluster::prepare(dir.path(), plan).is_err());
        }
    }
}
