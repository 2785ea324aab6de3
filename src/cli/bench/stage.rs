//! Where a scenario plays: a scratch cluster of its own, or the cluster of a profile.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use crate::cli::failure::Failure;
use crate::cli::nodes::local_cluster::{LocalCluster, Plan, free_base_port};
use crate::cli::profile::{self, ProfileArguments};
use crate::cli::{output, runtime};
use crate::client::{Client, ClientConfig, ClientEndpoint, Patience};
use crate::supervisor::ExitCode;

use super::measure::{DiskMeter, Machine, Servers, file_system};
use super::workload::EVERYTHING;

/// How long a fresh cluster may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client tries to connect, how long one attempt may take, and how long a request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a cluster may take to show a leader.
const LEADER_TIMEOUT: Duration = Duration::from_secs(20);
/// The pause between two looks at something that is awaited.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Tries at removing a directory in which a killed node's last system call may still make a file.
const REMOVALS_MAX: u32 = 40;

/// What all scenarios take.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct StageArguments {
    /// Where the scratch cluster's directory is made; its disk is what is measured. Without it the
    /// system's directory for temporary files.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The last line of each scenario is a JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

/// Which cluster a scenario that leaves the nodes alone plays on.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ProfileChoice {
    /// A running cluster's client profile, in place of a scratch cluster; the servers' own figures
    /// are then null. The topics of the benchmark are removed at the end.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["nodes", "dir"])]
    pub(super) profile: Option<PathBuf>,
}

/// The cluster under test. A scratch cluster's processes end when this value is dropped.
pub(super) struct Stage {
    profile: ProfileArguments,
    cluster: Option<LocalCluster>,
    dir: Option<PathBuf>,
}

impl Stage {
    /// Starts a cluster in `dir`, or takes the one of the profile.
    ///
    /// # Errors
    /// When the nodes cannot be started or do not become ready.
    pub(super) async fn set(
        profile: Option<&Path>,
        dir: &Path,
        nodes: u16,
    ) -> anyhow::Result<Self> {
        if let Some(profile) = profile {
            let profile = ProfileArguments::of(profile.to_owned());
            return Ok(Self { profile, cluster: None, dir: None });
        }
        let plan = Plan { nodes, base_port: free_base_port(nodes)? };
        let cluster = LocalCluster::prepare(dir, plan)?;
        let profile = ProfileArguments::of(cluster.profile());
        let mut stage = Self { profile, cluster: Some(cluster), dir: Some(dir.to_owned()) };
        stage.start_nodes()?;
        if let Some(cluster) = &mut stage.cluster {
            cluster.wait_ready(READY_TIMEOUT).await?;
        }
        Ok(stage)
    }

    /// Starts all nodes of a scratch cluster.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub(super) fn start_nodes(&mut self) -> anyhow::Result<()> {
        let Some(cluster) = &mut self.cluster else { return Ok(()) };
        (0..cluster.nodes().len()).try_for_each(|node| cluster.start(node))
    }

    /// Kills all nodes of a scratch cluster with SIGKILL.
    ///
    /// # Errors
    /// When one cannot be killed.
    pub(super) async fn kill_nodes(&mut self) -> anyhow::Result<()> {
        let Some(cluster) = &mut self.cluster else { return Ok(()) };
        for node in 0..cluster.nodes().len() {
            cluster.kill(node).await?;
        }
        Ok(())
    }

    /// Runs a future to its end while the nodes of a scratch cluster live.
    ///
    /// # Errors
    /// The future's own, or that a node has ended by itself: no figure holds then.
    pub(super) async fn play<T>(
        &mut self,
        scenario: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let Some(cluster) = &mut self.cluster else { return scenario.await };
        let death = async {
            let (node, died) = cluster.next_death().await;
            (cluster.nodes().get(node).map_or_else(String::new, |node| node.name.clone()), died)
        };
        tokio::select! {
            result = scenario => result,
            (name, died) = death => anyhow::bail!("{name} ended by itself: {died}"),
        }
    }

    /// The servers' processes, if they are children of this one.
    pub(super) fn servers(&self) -> Option<Servers> {
        let disk = self.dir.as_deref().map_or(DiskMeter::Processes, DiskMeter::of);
        self.cluster.as_ref().map(|cluster| Servers::new(cluster.pids(), disk))
    }

    /// Bytes of the files in all directories of a scratch cluster's nodes.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub(super) fn data_bytes(&self) -> anyhow::Result<Option<u64>> {
        let Some(cluster) = &self.cluster else { return Ok(None) };
        let bytes = cluster.nodes().iter().map(|node| bytes_below(&node.dir));
        bytes.sum::<std::io::Result<u64>>().map(Some).context("cannot size the nodes' directories")
    }

    /// What a client of the cluster is made with: it keeps no values, and is patient, since a
    /// busy machine shall show as a figure and not as a failure.
    ///
    /// # Errors
    /// When the profile cannot be read.
    pub(super) fn configuration(&self) -> anyhow::Result<ClientConfig> {
        let config = self.profile.configuration()?;
        let patience = Patience {
            connect: CONNECT_TIMEOUT,
            attempt: ATTEMPT_TIMEOUT,
            request: REQUEST_TIMEOUT,
            ..config.patience
        };
        Ok(ClientConfig { retain_values: false, patience, ..config })
    }

    /// A client that the leader serves.
    ///
    /// # Errors
    /// When there is no connection or no leader in time.
    pub(super) async fn connect_to_leader(&self) -> anyhow::Result<Client> {
        connect_to_leader(self.configuration()?).await
    }

    /// Removes what the scenario left in a cluster that is not a scratch one.
    ///
    /// # Errors
    /// When the topics cannot be removed.
    pub(super) async fn tidy(&self, client: &Client) -> anyhow::Result<()> {
        if self.cluster.is_none() {
            client.remove(EVERYTHING).await.context("cannot remove the benchmark's topics")?;
        }
        Ok(())
    }

    /// What every run is made with: the cluster, the machine, this program.
    pub(super) fn settings(&self) -> Map<String, Value> {
        let machine = Machine::here();
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        let fields = json!({
            "nodes": self.cluster.as_ref().map(|cluster| cluster.nodes().len()),
            "tls": true,
            "file_system": self.dir.as_deref().map(file_system),
            "disk_meter": self.dir.as_deref().map(|dir| DiskMeter::of(dir).name()),
            "cores": machine.cores,
            "processor": machine.processor,
            "kernel": machine.kernel,
            "version": env!("CARGO_PKG_VERSION"),
            "build": build,
        });
        let Value::Object(fields) = fields else { return Map::new() };
        fields
    }
}

fn bytes_below(dir: &Path) -> std::io::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        sum += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path())?,
            Ok(metadata) => metadata.len(),
            // A segment that was purged meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(sum)
}

async fn connect_to_leader(config: ClientConfig) -> anyhow::Result<Client> {
    let client = profile::connect(config.clone(), None).await?;
    let leader = async {
        loop {
            let status: Value = serde_json::from_slice(&client.cluster_status().await?)?;
            if let Some(leader) = status.get("leader").and_then(Value::as_str) {
                return anyhow::Ok(leader.to_owned());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    let leader = tokio::time::timeout(LEADER_TIMEOUT, leader).await.map_err(|_| {
        let text = format!("the cluster shows no leader after {} s", LEADER_TIMEOUT.as_secs());
        Failure::with(ExitCode::TIMED_OUT, text)
    })??;
    if *client.node() == *leader {
        return Ok(client);
    }
    client.close().await;
    profile::connect(config, Some(&leader)).await
}

/// Makes many clients that share a few sockets and are spread over the nodes.
pub(super) struct Crowd {
    config: ClientConfig,
    endpoints: Vec<ClientEndpoint>,
}

impl Crowd {
    /// Clients of this configuration over so many sockets.
    ///
    /// # Errors
    /// When a socket cannot be had.
    pub(super) fn new(config: ClientConfig, endpoints: u32) -> anyhow::Result<Self> {
        let endpoints = (0..endpoints.max(1)).map(|_| ClientEndpoint::bind(&config.addresses));
        Ok(Self { endpoints: endpoints.collect::<Result<_, _>>()?, config })
    }

    /// Connects the client with this number.
    ///
    /// # Errors
    /// When no node takes it.
    pub(super) async fn connect(&self, number: u32) -> anyhow::Result<Client> {
        let number = number as usize;
        let endpoint = self.endpoints.get(number % self.endpoints.len());
        let endpoint = endpoint.context("there is at least one socket")?;
        let mut config = self.config.clone();
        let addresses = config.addresses.len().max(1);
        config.addresses.rotate_left(number % addresses);
        let client = Client::connect_from(endpoint, config).await;
        client.with_context(|| format!("client {number} cannot connect"))
    }
}

/// Runs a scenario with a directory for its scratch cluster, which is gone at its end. After a
/// failure it is left for a look at the nodes' logs; Ctrl-C removes it.
///
/// # Errors
/// The scenario's own; exit code 1 after Ctrl-C.
pub(super) fn run<F: Future<Output = anyhow::Result<()>>>(
    arguments: &StageArguments,
    scenario: impl FnOnce(PathBuf) -> F,
) -> anyhow::Result<ExitCode> {
    let mut draw = [0_u8; 8];
    getrandom::fill(&mut draw).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    let name = format!("quorate-bench-{:016x}", u64::from_le_bytes(draw));
    let dir = arguments.dir.clone().unwrap_or_else(std::env::temp_dir).join(name);
    if cfg!(debug_assertions) {
        output::note("this is a debug build: its figures say little");
    }
    let result = runtime::block_on(async {
        tokio::select! {
            biased;
            () = runtime::stop_signal() => None,
            result = Box::pin(scenario(dir.clone())) => Some(result),
        }
    })?;
    match result {
        None => {
            remove(&dir)?;
            Err(Failure::with(ExitCode::FAILED, "interrupted; the scratch cluster is removed"))
        }
        Some(Ok(())) => remove(&dir).map(|()| ExitCode::DONE),
        Some(Err(error)) => {
            if dir.exists() {
                output::note(format!("the scratch cluster is left in {}", dir.display()));
            }
            Err(error)
        }
    }
}

/// Removes the directory that was made for this run alone.
fn remove(dir: &Path) -> anyhow::Result<()> {
    for _ in 0..REMOVALS_MAX {
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                std::thread::sleep(POLL_INTERVAL);
            }
            result => return result.with_context(|| format!("cannot remove {}", dir.display())),
        }
    }
    anyhow::bail!("cannot remove {}: something still writes there", dir.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = dir.path().join("scratch");
        remove(&scratch).unwrap();
        std::fs::create_dir_all(scratch.join("n1")).unwrap();
        std::fs::write(scratch.join("n1/log"), "x").unwrap();
        assert_eq!(bytes_below(dir.path()).unwrap(), 1);
        remove(&scratch).unwrap();
        assert_eq!(bytes_below(dir.path()).unwrap(), 0);
        assert!(!scratch.exists());
        assert!(dir.path().exists());
    }
}
