//! The peer's servers as child processes on loopback; all end when their owner does.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustls::{ClientConfig, RootCertStore};
use tokio::process::{Child, Command};
use tokio_rustls::TlsConnector;

use super::connection::Connection;

/// How long servers may take to answer.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause between two looks at something that is awaited.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes of a server's log that are shown when it has ended.
const LOG_BYTES_MAX: usize = 2_000;

/// An installed server.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    version: String,
}

impl Program {
    /// The named one, or the first of the PATH; none if there is none there.
    ///
    /// # Errors
    /// When what was found does not tell its version.
    pub(crate) fn find(named: Option<&Path>) -> anyhow::Result<Option<Self>> {
        let search = std::env::var_os("PATH").unwrap_or_default();
        let Some(path) = named.map(Path::to_owned).or_else(|| on_path(&search)) else {
            return Ok(None);
        };
        let output = std::process::Command::new(&path).arg("--version").output();
        let output = output.with_context(|| format!("cannot start {}", path.display()))?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        ensure!(version.starts_with("nats-server"), "{} is no nats-server", path.display());
        Ok(Some(Self { path, version }))
    }

    /// What it calls itself.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }
}

fn on_path(search: &OsStr) -> Option<PathBuf> {
    let candidates = std::env::split_paths(search).map(|folder| folder.join("nats-server"));
    candidates.into_iter().find(|candidate| candidate.is_file())
}

/// Running servers; killed when this value is dropped.
#[derive(Debug)]
pub(crate) struct Servers {
    nodes: Vec<Node>,
    dir: PathBuf,
}

#[derive(Debug)]
struct Node {
    client: SocketAddr,
    child: Child,
    log: PathBuf,
}

impl Servers {
    /// Starts a cluster of three with JetStream, which flushes every message before it answers.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub(crate) fn cluster(program: &Program, dir: &Path) -> anyhow::Result<Self> {
        let ports = free_ports(6)?;
        let (clients, peers) = ports.split_at(3);
        let routes: Vec<String> = peers.iter().map(|peer| format!("nats://{peer}")).collect();
        let mut servers = Self::in_dir(dir)?;
        for (number, (client, peer)) in (1..).zip(clients.iter().zip(peers)) {
            let configuration = format!(
                "server_name: n{number}\nlisten: \"{client}\"\n\
                 jetstream {{ store_dir: \"{}\", sync_interval: always, max_mem: 4G, max_file: 8G \
                 }}\ncluster {{ name: peers, listen: \"{peer}\", routes: [{}] }}\n",
                servers.dir.join(format!("n{number}")).display(),
                routes.join(", "),
            );
            servers.start(program, *client, &configuration)?;
        }
        Ok(servers)
    }

    /// Starts one server that speaks TLS, and what its clients need to know it.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub(crate) fn with_tls(program: &Program, dir: &Path) -> anyhow::Result<(Self, TlsConnector)> {
        let mut servers = Self::in_dir(dir)?;
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let (certificate, key) = (servers.dir.join("cert.pem"), servers.dir.join("key.pem"));
        fs::write(&certificate, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        let client = *free_ports(1)?.first().context("one port was asked for")?;
        let configuration = format!(
            "server_name: n1\nlisten: \"{client}\"\n\
             tls {{ cert_file: \"{}\", key_file: \"{}\" }}\n",
            certificate.display(),
            key.display(),
        );
        servers.start(program, client, &configuration)?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok((servers, TlsConnector::from(Arc::new(config))))
    }

    /// Servers to come in a directory that is made afresh.
    fn in_dir(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self { nodes: Vec::new(), dir: dir.to_owned() })
    }

    fn start(
        &mut self,
        program: &Program,
        client: SocketAddr,
        configuration: &str,
    ) -> anyhow::Result<()> {
        let number = self.nodes.len() + 1;
        let file = self.dir.join(format!("n{number}.conf"));
        let log = self.dir.join(format!("n{number}.log"));
        fs::write(&file, configuration)?;
        let child = Command::new(&program.path)
            .arg("-c")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start nats-server")?;
        self.nodes.push(Node { client, child, log });
        Ok(())
    }

    /// The processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| node.child.id()).collect()
    }

    /// Where clients of this node connect; nodes count from 1.
    pub(crate) fn address(&self, number: usize) -> anyhow::Result<SocketAddr> {
        let node = number.checked_sub(1).and_then(|index| self.nodes.get(index));
        Ok(node.with_context(|| format!("there is no node n{number}"))?.client)
    }

    /// Connects to the first node, which may still be starting.
    ///
    /// # Errors
    /// When it has ended, or does not answer in time.
    pub(crate) async fn first_connection(
        &mut self,
        tls: Option<&TlsConnector>,
    ) -> anyhow::Result<Connection> {
        let address = self.address(1)?;
        let connecting = async {
            loop {
                match Connection::open(address, tls).await {
                    Ok(connection) => return Ok(connection),
                    Err(_) => self.check()?,
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        tokio::time::timeout(READY_TIMEOUT, connecting).await.context("nats-server is not ready")?
    }

    /// Fails if a server has ended by itself.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            if let Some(status) = node.child.try_wait()? {
                let log = fs::read(&node.log).unwrap_or_default();
                let tail = log.get(log.len().saturating_sub(LOG_BYTES_MAX)..).unwrap_or(&[]);
                bail!("nats-server has ended, {status}: {}", String::from_utf8_lossy(tail));
            }
        }
        Ok(())
    }

    /// Kills all, waits for their ends, and removes what they wrote.
    ///
    /// # Errors
    /// When one had ended before.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.check()?;
        for node in &mut self.nodes {
            node.child.kill().await?;
        }
        fs::remove_dir_all(&self.dir).with_context(|| format!("{}", self.dir.display()))
    }
}

/// Ports that nobody listens on, all different.
fn free_ports(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let listeners = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
    Ok(listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?)
}
