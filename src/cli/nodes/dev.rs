//! `quorate dev`: a cluster of child processes on loopback.

use std::path::PathBuf;
use std::time::Duration;

use super::local_cluster::{LocalCluster, Plan};
use crate::cli::{output, runtime};
use crate::supervisor::ExitCode;

/// How long a dead node stays dead.
const RESTART_DELAY: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  quorate dev                          three nodes in ./quorate-dev, clients at 127.0.0.1:7400
  quorate dev --nodes 5 --dir data     the same directory continues where it stopped
  quorate dev --no-restart             a dead node stays dead")]
pub(in crate::cli) struct Arguments {
    /// How many nodes: 1, or 3 to 7.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=7))]
    nodes: u16,
    /// Where the cluster lives; never deleted, and the same directory continues.
    #[arg(long, default_value = "quorate-dev")]
    dir: PathBuf,
    /// Node k listens on base + 10·k (clients), + 1 (peers) and + 2 (HTTP), counted from 0.
    #[arg(long, default_value_t = 7400)]
    base_port: u16,
    /// Do not start a dead node again; stay until Ctrl-C even when all are dead.
    #[arg(long)]
    no_restart: bool,
}

pub(in crate::cli) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    runtime::block_on(dev(arguments))?
}

async fn dev(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let plan = Plan { nodes: arguments.nodes, base_port: arguments.base_port };
    let mut cluster = LocalCluster::prepare(&arguments.dir, plan)?;
    for node in 0..cluster.nodes().len() {
        cluster.start(node)?;
    }
    for node in cluster.nodes() {
        output::line(format!(
            "{}  clients {}  peers {}  http http://{}",
            node.name, node.client, node.peer, node.http
        ));
    }
    output::line(format!("profile  {}", cluster.profile().display()));
    let mut stop = std::pin::pin!(runtime::stop_signal());
    let mut ready = std::pin::pin!(cluster.ready());
    let mut is_ready = false;
    loop {
        let (node, died) = tokio::select! {
            () = &mut ready, if !is_ready => {
                is_ready = true;
                output::line("ready");
                continue;
            }
            died = cluster.next_death() => died,
            () = &mut stop => break,
        };
        let name = cluster.nodes().get(node).map_or("?", |node| node.name.as_str());
        output::line(format!("{name}  {died}; see its node.log"));
        if !arguments.no_restart && died.is_worth_a_restart() {
            cluster.start_later(node, RESTART_DELAY);
        }
    }
    output::line("stopping");
    cluster.stop().await;
    Ok(ExitCode::DONE)
}
