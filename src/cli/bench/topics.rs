//! `quorate bench topics`: many topics with a last value each.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::cli::output;
use crate::client::{Client, ClientConfig, Event};
use crate::clock::Clock;
use crate::supervisor::ExitCode;

use super::measure::{Reading, Servers};
use super::report::{Column, Report, Row, column};
use super::stage::{self, ProfileChoice, Stage, StageArguments};
use super::workload;

/// Bytes of each value.
const VALUE_BYTES: usize = 100;
/// How long the servers may settle before their memory is read.
const SETTLE: Duration = Duration::from_secs(2);
/// How many new subscribers ask for everything, one after the other.
const READS: usize = 2;
/// How long one of them may take.
const READ_TIMEOUT: Duration = Duration::from_secs(300);
const COLUMNS: &[Column] = &[
    ("topics", |row| column::setting(row, "topics")),
    ("load /s", column::rate),
    ("server CPU s/M", column::server_cpu),
    ("RSS per topic", |row| column::figure(row, "rss_bytes_per_topic", 0)),
    ("RSS MB", column::rss),
    ("all values to a new subscriber, s", |row| column::figure(row, "initial_values_s", 2)),
    ("first after, ms", |row| column::figure(row, "first_value_ms", 1)),
    ("server CPU of it, s", |row| column::figure(row, "initial_values_server_cpu_s", 2)),
    ("client CPU of it, s", |row| column::figure(row, "initial_values_client_cpu_s", 2)),
];

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// How many topics.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    count: u32,
    /// Nodes of the scratch cluster: 1, or 3 to 7.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=7))]
    nodes: u16,
    #[command(flatten)]
    choice: ProfileChoice,
    #[command(flatten)]
    stage: StageArguments,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    stage::run(&arguments.stage, |dir| topics(arguments, dir))
}

async fn topics(arguments: &Arguments, dir: PathBuf) -> anyhow::Result<()> {
    let profile = arguments.choice.profile.as_deref();
    let mut stage = Stage::set(profile, &dir, arguments.nodes).await?;
    let client = stage.connect_to_leader().await?;
    let mut report = Report::new("topics", COLUMNS, arguments.stage.json);
    report.add(measure(&mut stage, &client, arguments).await?);
    stage.tidy(&client).await?;
    client.close().await;
    report.finish();
    Ok(())
}

async fn measure(stage: &mut Stage, client: &Client, arguments: &Arguments) -> anyhow::Result<Row> {
    let clock = Clock::system();
    let servers = stage.servers();
    let count = u64::from(arguments.count);
    output::note(format!("adding {count} topics"));
    let before = Reading::take(servers.as_ref())?;
    let started = clock.now();
    // What updates name is of no use here; it must not count as this program's memory for long.
    drop(stage.play(workload::add_topics(client, count, VALUE_BYTES)).await?);
    let seconds = clock.since(started).as_secs_f64();
    let loaded = Reading::take(servers.as_ref())?;
    tokio::time::sleep(SETTLE).await;
    let settled = Reading::take(servers.as_ref())?;
    let mut reads = Vec::new();
    for number in 1..=READS {
        output::note(format!("new subscriber {number} of {READS}"));
        let read = read_all(stage.configuration()?, count, servers.as_ref());
        reads.push(stage.play(read).await?);
    }
    let first = reads.first().context("there is at least one")?;
    let rss_growth = settled.server_rss_growth(&before);
    let figures = json!({
        "seconds": seconds,
        "rss_bytes_per_topic": rss_growth.map(|bytes| (bytes / count as f64).round()),
        "rss_bytes_before": before.servers().map(|usage| usage.rss_bytes.clone()),
        "initial_values_s": first.seconds,
        "first_value_ms": first.first_value_s.map(|seconds| seconds * 1_000.0),
        "initial_values_server_cpu_s": first.server_cpu_s,
        "initial_values_client_cpu_s": first.client_cpu_s,
        "initial_values_again_s": reads.last().map(|read| read.seconds),
    });
    let mut settings = stage.settings();
    settings.insert("topics".into(), arguments.count.into());
    settings.insert("value_bytes".into(), VALUE_BYTES.into());
    let mut cost = loaded.cost_since(&before, count);
    cost.server_rss_bytes = settled.servers().map(|usage| usage.rss_bytes.clone());
    Ok(Row {
        rate_per_s: Some(count as f64 / seconds.max(1e-9)),
        cost,
        figures: super::fields(figures),
        settings,
        ..Row::default()
    })
}

/// What it took to tell a new subscriber everything.
#[derive(Debug)]
pub(super) struct InitialValues {
    pub(super) seconds: f64,
    first_value_s: Option<f64>,
    server_cpu_s: Option<f64>,
    client_cpu_s: f64,
}

/// Connects, subscribes to all topics of the benchmark, and waits for all their values.
///
/// # Errors
/// When there are more or fewer than `count`, or it takes too long.
pub(super) async fn read_all(
    config: ClientConfig,
    count: u64,
    servers: Option<&Servers>,
) -> anyhow::Result<InitialValues> {
    let clock = Clock::system();
    let before = Reading::take(servers)?;
    let started = clock.now();
    let client = Client::connect(config).await?;
    let mut events = client.subscribe(workload::EVERYTHING).await?;
    let mut first = None;
    let mut values = 0_u64;
    let receive = async {
        loop {
            match events.next().await.context("the subscriber's session has ended")? {
                Event::Value { .. } => {
                    if values == 0 {
                        first = Some(clock.since(started).as_secs_f64());
                    }
                    values += 1;
                }
                Event::Current { .. } => return anyhow::Ok(()),
                _ => {}
            }
        }
    };
    let received = tokio::time::timeout(READ_TIMEOUT, receive).await;
    received.with_context(|| format!("no more than {values} values in {READ_TIMEOUT:?}"))??;
    let seconds = clock.since(started).as_secs_f64();
    let after = Reading::take(servers)?;
    ensure!(values == count, "the subscriber was told {values} values of {count}");
    drop(events);
    client.close().await;
    let server_cpu_s = after.server_cpu_s_since(&before);
    let client_cpu_s = after.own_cpu_s_since(&before);
    Ok(InitialValues { seconds, first_value_s: first, server_cpu_s, client_cpu_s })
}
