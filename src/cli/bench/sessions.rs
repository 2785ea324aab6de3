//! `quorate bench sessions`: many idle sessions, each with one subscription of its own.

use std::path::PathBuf;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::json;

use crate::cli::output;
use crate::client::{Client, EventStream};
use crate::clock::Clock;
use crate::supervisor::ExitCode;

use super::CONNECTING_MAX;
use super::measure::Reading;
use super::report::{Column, Latency, Report, Row, column, latencies};
use super::stage::{self, Crowd, ProfileChoice, Stage, StageArguments};
use super::workload;

/// How long the sessions idle before memory is read.
const HOLD: Duration = Duration::from_secs(4);
const COLUMNS: &[Column] = &[
    ("sessions", |row| column::setting(row, "sessions")),
    ("connect + subscribe /s", column::rate),
    ("p50 / p99 / p99.9 ms", column::latency),
    ("server CPU s per 1,000", |row| column::figure(row, "server_cpu_s_per_1000", 2)),
    ("RSS KiB per session", |row| column::figure(row, "rss_kib_per_session", 1)),
    ("idle CPU, cores", |row| column::figure(row, "idle_cores", 3)),
];

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// How many sessions; 64 connect at a time.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    count: u32,
    /// Sockets that the sessions share, at most one each.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    endpoints: u32,
    /// Nodes of the scratch cluster: 1, or 3 to 7.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=7))]
    nodes: u16,
    #[command(flatten)]
    choice: ProfileChoice,
    #[command(flatten)]
    stage: StageArguments,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    stage::run(&arguments.stage, |dir| sessions(arguments, dir))
}

async fn sessions(arguments: &Arguments, dir: PathBuf) -> anyhow::Result<()> {
    let profile = arguments.choice.profile.as_deref();
    let mut stage = Stage::set(profile, &dir, arguments.nodes).await?;
    let client = stage.connect_to_leader().await?;
    let mut report = Report::new("sessions", COLUMNS, arguments.stage.json);
    report.add(measure(&mut stage, arguments).await?);
    client.close().await;
    report.finish();
    Ok(())
}

async fn measure(stage: &mut Stage, arguments: &Arguments) -> anyhow::Result<Row> {
    let clock = Clock::system();
    let servers = stage.servers();
    let count = arguments.count;
    let endpoints = arguments.endpoints.min(count);
    let crowd = Crowd::new(stage.configuration()?, endpoints)?;
    // The first check of a password at a node is slow by design; it is not what is measured.
    for node in 0..u32::from(arguments.nodes) {
        crowd.connect(node).await?.close().await;
    }
    output::note(format!("connecting {count} sessions"));
    let progress = output::progress(Some(count.into()), "sessions");
    let before = Reading::take(servers.as_ref())?;
    let started = clock.now();
    let mut latencies_us = latencies();
    let mut kept: Vec<(Client, EventStream)> = Vec::with_capacity(count as usize);
    let connect = async {
        let connecting = (0..count).map(|number| {
            let crowd = &crowd;
            async move {
                let began = clock.now();
                let client = crowd.connect(number).await?;
                let selector = format!(">{}/session/{number}", workload::ROOT);
                let events = client.subscribe(&selector).await?;
                anyhow::Ok((client, events, clock.since(began)))
            }
        });
        let mut connected = futures::stream::iter(connecting).buffer_unordered(CONNECTING_MAX);
        while let Some((client, events, took)) = connected.try_next().await? {
            let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            latencies_us.saturating_record(us.max(1));
            kept.push((client, events));
            progress.inc(1);
        }
        anyhow::Ok(())
    };
    stage.play(connect).await?;
    let seconds = clock.since(started).as_secs_f64();
    progress.finish_and_clear();
    let connected = Reading::take(servers.as_ref())?;
    let hold = async {
        tokio::time::sleep(HOLD).await;
        anyhow::Ok(())
    };
    stage.play(hold).await?;
    let idled = Reading::take(servers.as_ref())?;
    let lost = kept.iter().filter(|(_, events)| events.ended().is_some()).count();
    let (clients, streams): (Vec<Client>, Vec<EventStream>) = kept.into_iter().unzip();
    super::close_all(&clients).await;
    drop(streams);

    let per_session = |bytes: f64| bytes / 1_024.0 / f64::from(count);
    let mut cost = connected.cost_since(&before, count.into());
    cost.server_rss_bytes = idled.servers().map(|usage| usage.rss_bytes.clone());
    let figures = json!({
        "seconds": seconds,
        "sessions_lost": lost,
        "server_cpu_s_per_1000": cost.server_cpu_s_per_million.map(|seconds| seconds / 1_000.0),
        "rss_kib_per_session": idled.server_rss_growth(&before).map(per_session),
        "idle_cores": idled.server_cpu_s_since(&connected).map(|s| s / HOLD.as_secs_f64()),
    });
    let mut settings = stage.settings();
    settings.insert("sessions".into(), count.into());
    settings.insert("endpoints".into(), endpoints.into());
    settings.insert("connecting_at_a_time".into(), CONNECTING_MAX.into());
    Ok(Row {
        rate_per_s: Some(f64::from(count) / seconds.max(1e-9)),
        latency: Latency::of(&latencies_us),
        cost,
        figures: super::fields(figures),
        settings,
        ..Row::default()
    })
}
