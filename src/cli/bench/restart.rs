//! `quorate bench restart`: all nodes killed and started again, until the first acknowledged write
//! and until everything has been read.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::time::Instant;

use crate::cli::output;
use crate::client::{Client, ClientConfig, Patience, Target};
use crate::clock::Clock;
use crate::supervisor::ExitCode;

use super::closed_loop::ClosedLoop;
use super::measure::Reading;
use super::report::{Column, Report, Row, column};
use super::stage::{self, Stage, StageArguments};
use super::topics::read_all;
use super::workload::{self, Payload};

/// Bytes of each value.
const VALUE_BYTES: usize = 128;
/// Updates that are unanswered while the cluster is filled.
const WINDOW: u32 = 1_024;
/// How long the cluster may take to acknowledge a write after the start.
const RESTART_TIMEOUT: Duration = Duration::from_secs(120);
/// The pause between two tries at a write.
const TRY_INTERVAL: Duration = Duration::from_millis(10);
/// How long one try at an address, and at a write, may take.
const TRY_TIMEOUT: Duration = Duration::from_millis(500);
const COLUMNS: &[Column] = &[
    ("updates", |row| column::setting(row, "updates")),
    ("topics", |row| column::setting(row, "topics")),
    ("fill /s", column::rate),
    ("first acked write, s", |row| column::figure(row, "first_acked_write_s", 2)),
    ("full state read, s", |row| column::figure(row, "full_state_s", 2)),
    ("RSS MB", column::rss),
    ("data MB of a node", |row| column::figure(row, "data_mb_per_node", 0)),
];

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Updates before the nodes are killed.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    updates: u64,
    /// Topics that they are spread over.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    topics: u32,
    /// Nodes of the scratch cluster: 1, or 3 to 7.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=7))]
    nodes: u16,
    #[command(flatten)]
    stage: StageArguments,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    stage::run(&arguments.stage, |dir| restart(arguments, dir))
}

async fn restart(arguments: &Arguments, dir: PathBuf) -> anyhow::Result<()> {
    let mut stage = Stage::set(None, &dir, arguments.nodes).await?;
    let mut report = Report::new("restart", COLUMNS, arguments.stage.json);
    report.add(measure(&mut stage, arguments).await?);
    report.finish();
    Ok(())
}

async fn measure(stage: &mut Stage, arguments: &Arguments) -> anyhow::Result<Row> {
    let clock = Clock::system();
    let client = stage.connect_to_leader().await?;
    let topics = u64::from(arguments.topics);
    let targets = stage.play(workload::add_topics(&client, topics, VALUE_BYTES)).await?;
    let servers = stage.servers();
    output::note(format!("{} updates", arguments.updates));
    let progress = output::progress(Some(arguments.updates), "updates");
    let before = Reading::take(servers.as_ref())?;
    let started = clock.now();
    let mut updates = ClosedLoop::new(&client, &targets, WINDOW, VALUE_BYTES);
    stage.play(updates.publish(arguments.updates, &progress)).await?;
    let fill_s = clock.since(started).as_secs_f64();
    let mut cost = Reading::take(servers.as_ref())?.cost_since(&before, arguments.updates);
    progress.finish_and_clear();
    client.close().await;
    let data_bytes = stage.data_bytes()?;

    output::note("killing and starting all nodes");
    stage.kill_nodes().await?;
    let started = clock.now();
    stage.start_nodes()?;
    let config = stage.configuration()?;
    let target = targets.first().context("there are topics")?;
    let first_write = stage.play(first_acknowledged(&config, target, started)).await?;
    stage.play(read_all(config, topics, None)).await?;
    let full_state = clock.since(started);
    let servers = stage.servers();
    let after = Reading::take(servers.as_ref())?;
    cost.server_rss_bytes = after.servers().map(|usage| usage.rss_bytes.clone());

    let figures = json!({
        "fill_s": fill_s,
        "first_acked_write_s": first_write.as_secs_f64(),
        "full_state_s": full_state.as_secs_f64(),
        "data_mb_per_node": data_bytes.map(|bytes| bytes as f64 / 1e6 / f64::from(arguments.nodes)),
    });
    let mut settings = stage.settings();
    settings.insert("updates".into(), arguments.updates.into());
    settings.insert("topics".into(), topics.into());
    settings.insert("value_bytes".into(), VALUE_BYTES.into());
    Ok(Row {
        window: Some(WINDOW),
        rate_per_s: Some(arguments.updates as f64 / fill_s.max(1e-9)),
        cost,
        figures: super::fields(figures),
        settings,
        ..Row::default()
    })
}

/// Tries to write until a write is acknowledged; how long after `started` that was.
async fn first_acknowledged(
    config: &ClientConfig,
    target: &Target,
    started: Instant,
) -> anyhow::Result<Duration> {
    let clock = Clock::system();
    // Each try is one round over the addresses, so that no growing pause is part of the figure.
    let patience = Patience { connect: Duration::ZERO, attempt: TRY_TIMEOUT, ..config.patience };
    let config = config.clone().patience(patience);
    let mut payload = Payload::new(VALUE_BYTES);
    let mut tries = 0_u64;
    loop {
        tries += 1;
        let last = match try_write(config.clone(), target, &mut payload, tries).await {
            Ok(()) => return Ok(clock.since(started)),
            Err(error) => error,
        };
        let over = clock.since(started) > RESTART_TIMEOUT;
        ensure!(!over, "no write was acknowledged in {RESTART_TIMEOUT:?}: {last:#}");
        tokio::time::sleep(TRY_INTERVAL).await;
    }
}

async fn try_write(
    config: ClientConfig,
    target: &Target,
    payload: &mut Payload,
    number: u64,
) -> anyhow::Result<()> {
    let client = Client::connect(config).await?;
    let pending = client.update(target, payload.marked(number)).await?;
    let answer = pending.within(TRY_TIMEOUT).await;
    // Dropped, not closed: a node that does not answer is not waited for.
    drop(client);
    answer.map(drop).context("the write was not acknowledged")
}
