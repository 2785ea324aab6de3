//! `quorate bench publish`: durable, replicated, acknowledged updates in a closed loop.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::cli::output;
use crate::client::{Client, Target};
use crate::supervisor::ExitCode;

use super::closed_loop::ClosedLoop;
use super::report::{Column, Report, Row, column};
use super::stage::{self, ProfileChoice, Stage, StageArguments};
use super::{WARM_UP, workload};

/// The windows that are measured in turn when none is named.
const WINDOWS: [u32; 3] = [1, 64, 1_024];
const COLUMNS: &[Column] = &[
    ("window", column::window),
    ("acked/s", column::rate),
    ("p50 / p99 / p99.9 ms", column::latency),
    ("server CPU s/M", column::server_cpu),
    ("client CPU s/M", column::client_cpu),
    ("RSS MB", column::rss),
    ("bytes to disk per update", column::disk),
];

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Updates that are unanswered at any time; without it 1, 64 and 1024 in turn.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    window: Option<u32>,
    /// Bytes of each value.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    value_bytes: u32,
    /// Topics that the updates are spread over.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    topics: u32,
    /// How long each window is measured, after a second to warm up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Nodes of the scratch cluster: 1, or 3 to 7.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=7))]
    nodes: u16,
    #[command(flatten)]
    choice: ProfileChoice,
    #[command(flatten)]
    stage: StageArguments,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    stage::run(&arguments.stage, |dir| publish(arguments, dir))
}

async fn publish(arguments: &Arguments, dir: PathBuf) -> anyhow::Result<()> {
    let profile = arguments.choice.profile.as_deref();
    let mut stage = Stage::set(profile, &dir, arguments.nodes).await?;
    let client = stage.connect_to_leader().await?;
    let bytes = arguments.value_bytes as usize;
    let targets = stage.play(workload::add_topics(&client, arguments.topics.into(), bytes)).await?;
    let mut report = Report::new("publish", COLUMNS, arguments.stage.json);
    let windows = arguments.window.map_or_else(|| WINDOWS.to_vec(), |window| vec![window]);
    for window in windows {
        output::note(format!("window {window}: {} s", arguments.seconds));
        report.add(measure(&mut stage, &client, &targets, window, arguments).await?);
    }
    stage.tidy(&client).await?;
    client.close().await;
    report.finish();
    Ok(())
}

async fn measure(
    stage: &mut Stage,
    client: &Client,
    targets: &[Target],
    window: u32,
    arguments: &Arguments,
) -> anyhow::Result<Row> {
    let servers = stage.servers();
    let mut settings = stage.settings();
    settings.insert("value_bytes".into(), arguments.value_bytes.into());
    settings.insert("topics".into(), arguments.topics.into());
    settings.insert("seconds".into(), arguments.seconds.into());
    let mut updates = ClosedLoop::new(client, targets, window, arguments.value_bytes as usize);
    let time = Duration::from_secs(arguments.seconds);
    let before = client.statistics();
    let measured = stage.play(updates.measure(WARM_UP, time, servers.as_ref())).await?;
    let after = client.statistics();
    let figures = json!({
        "acknowledged": measured.acknowledged,
        "seconds": measured.seconds,
        "sheds": after.sheds - before.sheds,
        "reconnects": after.reconnects - before.reconnects,
    });
    Ok(Row {
        window: Some(window),
        rate_per_s: Some(measured.acknowledged as f64 / measured.seconds.max(1e-9)),
        latency: measured.latency,
        cost: measured.cost,
        figures: super::fields(figures),
        settings,
        ..Row::default()
    })
}
