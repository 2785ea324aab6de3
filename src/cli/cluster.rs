//! `quorate cluster`: what the cluster looks like.

use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::Value;

use crate::supervisor::ExitCode;

use super::profile::{ProfileArguments, unseen};
use super::{output, runtime};

/// How often `--watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    profile: ProfileArguments,
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Nodes, their states and roles, the leader, the quorum, and the nodes' state hashes; without a
    /// quorum too.
    Status {
        /// One JSON object.
        #[arg(long)]
        json: bool,
        /// Again every second, until Ctrl-C.
        #[arg(long)]
        watch: bool,
    },
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    runtime::block_on(async {
        let Subcommands::Status { json, watch } = arguments.command;
        let onlooker = arguments.profile.onlooker()?;
        let mut stop = std::pin::pin!(runtime::stop_signal());
        loop {
            let status = onlooker.cluster_status().await.map_err(unseen);
            let status = status.context("no node gave the cluster's status")?;
            let status: Value =
                serde_json::from_slice(&status).context("the node's status is no JSON")?;
            if json {
                output::json(&status);
            } else {
                output::lines(&render(&status));
            }
            if !watch {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(WATCH_INTERVAL) => {}
                () = &mut stop => break,
            }
        }
        Ok(ExitCode::DONE)
    })?
}

/// A status for people. What a node does not tell is a dash.
fn render(status: &Value) -> String {
    let text = |object: &Value, key: &str| match object.get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let heads = [
        "node",
        "state",
        "role",
        "address",
        "last",
        "committed",
        "applied",
        "topics",
        "sessions",
        "state hash",
    ];
    let keys = [
        "name",
        "state",
        "role",
        "address",
        "last_index",
        "committed_index",
        "applied_index",
        "topics",
        "sessions",
        "state_hash",
    ];
    let nodes =
        status.get("nodes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<Vec<String>> =
        nodes.iter().map(|node| keys.map(|key| text(node, key)).to_vec()).collect();
    let quorum = status.get("quorum").unwrap_or(&Value::Null);
    format!(
        "cluster {}  lineage {}  term {}  leader {}\nquorum {} of {}, {} live  hashes at {}\n{}",
        text(status, "cluster_id"),
        text(status, "lineage"),
        text(status, "term"),
        text(status, "leader"),
        text(quorum, "needed"),
        text(quorum, "voters"),
        text(quorum, "live"),
        text(status, "hash_index"),
        output::table(&heads, &rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_cannot_be_reached_is_dashes() {
        let status = serde_json::json!({
            "cluster_id": "00", "lineage": "01", "leader": null, "term": 3,
            "quorum": {"voters": 3, "needed": 2, "live": 1}, "hash_index": null,
            "nodes": [{"name": "n1", "state": "ready", "role": "follower", "last_index": 7},
                      {"name": "n2"}],
        });
        let text = render(&status);
        assert!(text.contains("leader -"), "{text}");
        assert!(text.contains("n2    -"), "{text}");
        assert!(text.contains("quorum 2 of 3, 1 live"), "{text}");
    }
}
