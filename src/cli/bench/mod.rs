//! `quorate bench`: the scenarios that the server is judged by, client beside servers.
//!
//! Each scenario starts a scratch cluster of child processes and measures from outside: rates and
//! latencies as a client sees them, the servers' processor time, memory and written bytes from
//! `/proc`.

mod closed_loop;
mod fanout;
mod measure;
mod publish;
mod report;
mod restart;
mod sessions;
mod stage;
mod topics;
mod workload;

use std::time::Duration;

use clap::Subcommand;
use futures::StreamExt as _;
use serde_json::{Map, Value};

use crate::client::Client;
use crate::supervisor::ExitCode;

/// How long a load runs before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);
/// Sessions that are opened at a time.
const CONNECTING_MAX: usize = 64;
/// Sessions that are closed at a time.
const CLOSING_MAX: usize = 256;

#[derive(Debug, clap::Args)]
#[command(after_help = "With --json the last line of each scenario is {\"scenario\", \"window\", \
\"subscribers\", \"rate_per_s\", \"latency_ms\", \"server_cpu_s_per_million\", \
\"client_cpu_s_per_million\", \"server_rss_bytes\", \"disk_bytes_per_op\", \"figures\", \
\"settings\"}; what a scenario does not have is null, figures are its own.

Examples:
  quorate bench publish --window 1024
  quorate bench fanout --subscribers 1000 --rate 1000 --json")]
pub(super) struct Arguments {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Durable, replicated, acknowledged updates in a closed loop.
    Publish(publish::Arguments),
    /// One topic to many subscribers.
    Fanout(fanout::Arguments),
    /// Many topics: memory for each, and all their values to a new subscriber.
    Topics(topics::Arguments),
    /// Many idle sessions with a subscription each.
    Sessions(sessions::Arguments),
    /// All nodes killed and started again.
    Restart(restart::Arguments),
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.scenario {
        Scenario::Publish(arguments) => publish::run(arguments),
        Scenario::Fanout(arguments) => fanout::run(arguments),
        Scenario::Topics(arguments) => topics::run(arguments),
        Scenario::Sessions(arguments) => sessions::run(arguments),
        Scenario::Restart(arguments) => restart::run(arguments),
    }
}

/// The fields of a JSON object.
fn fields(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// Ends all sessions, many at a time.
async fn close_all(clients: &[Client]) {
    let closing = futures::stream::iter(clients).for_each_concurrent(CLOSING_MAX, Client::close);
    closing.await;
}
