//! `quorate bench fanout`: one topic to many subscribers, from the publishing call to delivery.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::cli::feed::pace::Pace;
use crate::cli::output;
use crate::client::{
    Acknowledgement, Acknowledgements, Client, Event, EventStream, Publisher, Target,
};
use crate::clock::Clock;
use crate::supervisor::{ExitCode, OwnedTask, Supervisor};

use super::closed_loop::nanoseconds;
use super::measure::Reading;
use super::report::{Column, Latency, Report, Row, column, latencies};
use super::stage::{self, Crowd, ProfileChoice, Stage, StageArguments};
use super::workload::{self, Payload, mark_of};
use super::{CONNECTING_MAX, WARM_UP};

/// The numbers of subscribers that are measured in turn when none is named.
const SUBSCRIBERS: [u32; 3] = [1, 100, 1_000];
/// Bytes of each value.
const VALUE_BYTES: usize = 100;
/// Without a rate: values that may be published and not delivered to the average subscriber.
const OUTSTANDING_MAX: u64 = 256;
/// Values that are published in one go, without a rate.
const BURST: u64 = 16;
/// Updates that may be unacknowledged.
const WINDOW: u32 = 1_024;
/// Without any delivery for so long the run has failed.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Histograms that the subscribers share, so that few wait for each other.
const SHARDS: usize = 8;
const COLUMNS: &[Column] = &[
    ("subscribers", column::subscribers),
    ("mode", mode),
    ("deliveries/s", column::rate),
    ("p50 / p99 / p99.9 ms", column::latency),
    ("server CPU s/M", column::server_cpu),
    ("client CPU s/M", column::client_cpu),
    ("RSS MB", column::rss),
];

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Subscribers of the topic, a session each; without it 1, 100 and 1000 in turn.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    subscribers: Option<u32>,
    /// Updates a second; without it as fast as possible with 256 values on their way.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Sockets that the subscribers share, at most one each.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    endpoints: u32,
    /// How long each number of subscribers is measured, after a second to warm up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Nodes of the scratch cluster: 1, or 3 to 7.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=7))]
    nodes: u16,
    #[command(flatten)]
    choice: ProfileChoice,
    #[command(flatten)]
    stage: StageArguments,
}

fn mode(row: &Row) -> String {
    match row.settings.get("rate").and_then(serde_json::Value::as_u64) {
        Some(rate) => format!("{rate}/s"),
        None => "max".to_owned(),
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    stage::run(&arguments.stage, |dir| fanout(arguments, dir))
}

async fn fanout(arguments: &Arguments, dir: PathBuf) -> anyhow::Result<()> {
    let profile = arguments.choice.profile.as_deref();
    let mut stage = Stage::set(profile, &dir, arguments.nodes).await?;
    let client = stage.connect_to_leader().await?;
    let added = stage.play(workload::add_topics(&client, 1, VALUE_BYTES)).await?;
    let target = added.first().context("the topic was added")?;
    let mut report = Report::new("fanout", COLUMNS, arguments.stage.json);
    let numbers = arguments.subscribers.map_or_else(|| SUBSCRIBERS.to_vec(), |n| vec![n]);
    for subscribers in numbers {
        output::note(format!("{subscribers} subscribers: {} s", arguments.seconds));
        report.add(measure(&mut stage, &client, target, subscribers, arguments).await?);
    }
    stage.tidy(&client).await?;
    client.close().await;
    report.finish();
    Ok(())
}

async fn measure(
    stage: &mut Stage,
    client: &Client,
    target: &Target,
    subscribers: u32,
    arguments: &Arguments,
) -> anyhow::Result<Row> {
    let endpoints = arguments.endpoints.min(subscribers);
    let crowd = Crowd::new(stage.configuration()?, endpoints)?;
    let servers = stage.servers();
    let deliveries = Arc::new(Deliveries::new(subscribers));
    let audience = stage.play(Audience::gather(&crowd, subscribers, &deliveries)).await?;
    let mut source = Source::new(client, target, arguments.rate, Arc::clone(&deliveries));
    let time = Duration::from_secs(arguments.seconds);
    let measured = stage
        .play(async {
            source.publish_for(WARM_UP).await?;
            let before = Reading::take(servers.as_ref())?;
            deliveries.start();
            let (published_before, started) = (source.published, source.clock.now());
            source.publish_for(time).await?;
            let delivered = deliveries.stop();
            let seconds = source.clock.since(started).as_secs_f64();
            let after = Reading::take(servers.as_ref())?;
            let published = source.published - published_before;
            let missing = source.finish().await?;
            Ok((delivered, seconds, after.cost_since(&before, delivered), published, missing))
        })
        .await?;
    let (delivered, seconds, cost, published, missing) = measured;
    ensure!(!audience.has_lost_one(), "the session of a subscriber has ended");
    audience.leave().await;
    let mut settings = stage.settings();
    settings.insert("value_bytes".into(), VALUE_BYTES.into());
    settings.insert("rate".into(), arguments.rate.into());
    settings.insert("endpoints".into(), endpoints.into());
    settings.insert("seconds".into(), arguments.seconds.into());
    let figures = json!({
        "delivered": delivered,
        "published_per_s": (published as f64 / seconds.max(1e-9)).round(),
        "seconds": seconds,
        "missing": missing,
    });
    Ok(Row {
        subscribers: Some(subscribers),
        rate_per_s: Some(delivered as f64 / seconds.max(1e-9)),
        latency: deliveries.latency(),
        cost,
        figures: super::fields(figures),
        settings,
        ..Row::default()
    })
}

/// What all subscribers have received, counted together.
struct Deliveries {
    clock: Clock,
    /// Marks are the nanoseconds from here to the publishing call, plus one: 0 marks no call.
    origin: Instant,
    subscribers: u64,
    total: AtomicU64,
    measured: AtomicU64,
    is_measuring: AtomicBool,
    latencies_us: [Mutex<Histogram<u64>>; SHARDS],
    /// Rung after each step of deliveries.
    progress: Notify,
    step: u64,
    ended: AtomicU64,
}

impl Deliveries {
    fn new(subscribers: u32) -> Self {
        let clock = Clock::system();
        Self {
            clock,
            origin: clock.now(),
            subscribers: u64::from(subscribers.max(1)),
            total: AtomicU64::new(0),
            measured: AtomicU64::new(0),
            is_measuring: AtomicBool::new(false),
            latencies_us: std::array::from_fn(|_| Mutex::new(latencies())),
            progress: Notify::new(),
            step: (u64::from(subscribers) * OUTSTANDING_MAX / 8).max(1),
            ended: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        nanoseconds(self.clock.since(self.origin)) + 1
    }

    /// Counts the marks that a subscriber received together.
    fn take(&self, subscriber: u32, marks: &[u64]) {
        let (now, count) = (self.now(), marks.len() as u64);
        if self.is_measuring.load(Ordering::Relaxed) {
            self.measured.fetch_add(count, Ordering::Relaxed);
            if let Some(shard) = self.latencies_us.get(subscriber as usize % SHARDS) {
                let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                for mark in marks {
                    shard.saturating_record((now.saturating_sub(*mark) / 1_000).max(1));
                }
            }
        }
        let before = self.total.fetch_add(count, Ordering::Relaxed);
        if before / self.step != (before + count) / self.step {
            self.progress.notify_one();
        }
    }

    fn start(&self) {
        self.is_measuring.store(true, Ordering::Relaxed);
    }

    /// Stops to measure; how many were delivered meanwhile.
    fn stop(&self) -> u64 {
        self.is_measuring.store(false, Ordering::Relaxed);
        self.measured.load(Ordering::Relaxed)
    }

    fn latency(&self) -> Option<Latency> {
        let mut sum = latencies();
        for shard in &self.latencies_us {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            // All have the same bounds.
            sum.add(&*shard).ok()?;
        }
        Latency::of(&sum)
    }

    /// Values that the average subscriber has received.
    fn average(&self) -> u64 {
        self.total.load(Ordering::Relaxed) / self.subscribers
    }
}

/// The subscribers, each with a session and a task of its own.
struct Audience {
    clients: Vec<Client>,
    tasks: Vec<OwnedTask>,
    deliveries: Arc<Deliveries>,
}

impl Audience {
    async fn gather(
        crowd: &Crowd,
        subscribers: u32,
        deliveries: &Arc<Deliveries>,
    ) -> anyhow::Result<Self> {
        let supervisor = Supervisor::new("bench");
        let progress = output::progress(Some(subscribers.into()), "subscribers");
        let arrivals = futures::stream::iter((0..subscribers).map(|number| async move {
            let client = crowd.connect(number).await?;
            let mut events = client.subscribe(workload::EVERYTHING).await?;
            // The value that the topic has already is no delivery.
            while !matches!(
                events.next().await.context("a session has ended")?,
                Event::Current { .. }
            ) {}
            anyhow::Ok((number, client, events))
        }));
        let mut arrivals = arrivals.buffer_unordered(CONNECTING_MAX);
        let (mut clients, mut tasks) = (Vec::new(), Vec::new());
        while let Some((number, client, events)) = arrivals.try_next().await? {
            let listening = listen(number, events, Arc::clone(deliveries));
            tasks.push(supervisor.spawn("subscriber", listening).abort_on_drop());
            clients.push(client);
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(Self { clients, tasks, deliveries: Arc::clone(deliveries) })
    }

    fn has_lost_one(&self) -> bool {
        self.deliveries.ended.load(Ordering::Relaxed) > 0
    }

    async fn leave(self) {
        drop(self.tasks);
        super::close_all(&self.clients).await;
    }
}

async fn listen(number: u32, mut events: EventStream, deliveries: Arc<Deliveries>) {
    let mut marks = Vec::new();
    while let Some(event) = events.next().await {
        let mut next = Some(event);
        while let Some(event) = next {
            if let Event::Value { value: Some(value), initial: false, .. } = &event {
                marks.extend(mark_of(value));
            }
            next = if marks.len() < 256 { events.try_next() } else { None };
        }
        if !marks.is_empty() {
            deliveries.take(number, &marks);
            marks.clear();
        }
    }
    deliveries.ended.fetch_add(1, Ordering::Relaxed);
}

/// The publisher.
struct Source<'a> {
    clock: Clock,
    target: &'a Target,
    rate: Option<u32>,
    deliveries: Arc<Deliveries>,
    publisher: Publisher,
    answers: Acknowledgements,
    taken: Vec<Acknowledgement>,
    payload: Payload,
    published: u64,
}

impl<'a> Source<'a> {
    fn new(
        client: &Client,
        target: &'a Target,
        rate: Option<u32>,
        deliveries: Arc<Deliveries>,
    ) -> Self {
        let (publisher, answers) = client.publisher(WINDOW as usize);
        Self {
            clock: deliveries.clock,
            target,
            rate,
            deliveries,
            publisher,
            answers,
            taken: Vec::new(),
            payload: Payload::new(VALUE_BYTES),
            published: 0,
        }
    }

    async fn publish_for(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = self.clock.now() + time;
        match self.rate {
            Some(rate) => self.publish_at(rate, end).await,
            None => self.publish_until(end).await,
        }
    }

    /// Publishes at a rate, whatever becomes of it.
    async fn publish_at(&mut self, rate: u32, end: Instant) -> anyhow::Result<()> {
        let mut pace = Pace::new(rate, self.clock.now());
        loop {
            let due = pace.take(self.clock.now());
            tokio::time::sleep_until(due.min(end)).await;
            if self.clock.now() >= end {
                return Ok(());
            }
            self.publish().await?;
        }
    }

    /// Publishes as fast as the subscribers receive.
    async fn publish_until(&mut self, end: Instant) -> anyhow::Result<()> {
        while self.clock.now() < end {
            if self.published < self.deliveries.average() + OUTSTANDING_MAX {
                for _ in 0..BURST {
                    self.publish().await?;
                }
            } else {
                self.wait_for_progress(end).await?;
            }
        }
        Ok(())
    }

    async fn wait_for_progress(&self, end: Instant) -> anyhow::Result<()> {
        let progress = self.deliveries.progress.notified();
        let left = end.saturating_duration_since(self.clock.now());
        let late = tokio::time::timeout(left.min(STALL_TIMEOUT), progress).await.is_err();
        ensure!(!late || left < STALL_TIMEOUT, "nothing was delivered for {STALL_TIMEOUT:?}");
        Ok(())
    }

    async fn publish(&mut self) -> anyhow::Result<()> {
        // The call is now; that it may have to wait for room is part of the latency.
        let mark = self.deliveries.now();
        while self.publisher.is_full() {
            self.answers.next_into(&mut self.taken).await;
            self.check_answers()?;
        }
        self.answers.take_into(&mut self.taken);
        self.check_answers()?;
        self.publisher.send(self.target, self.payload.marked(mark), 0).await?;
        self.published += 1;
        Ok(())
    }

    fn check_answers(&mut self) -> anyhow::Result<()> {
        for answer in self.taken.drain(..) {
            answer.outcome.context("an update was not acknowledged")?;
        }
        Ok(())
    }

    /// Waits until everything is acknowledged and delivered, or no delivery comes any more; how
    /// many deliveries are missing.
    async fn finish(&mut self) -> anyhow::Result<u64> {
        while self.answers.outstanding() > 0 {
            self.answers.next_into(&mut self.taken).await;
            self.check_answers()?;
        }
        let all = self.published * self.deliveries.subscribers;
        let mut quiet_since = self.clock.now();
        let mut seen = 0;
        loop {
            let total = self.deliveries.total.load(Ordering::Relaxed);
            if total != seen {
                (seen, quiet_since) = (total, self.clock.now());
            }
            if total >= all || self.clock.since(quiet_since) > Duration::from_secs(1) {
                return Ok(all.saturating_sub(total));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_count_only_while_they_are_measured() {
        let deliveries = Deliveries::new(2);
        deliveries.take(0, &[1, 1]);
        assert!(deliveries.latency().is_none());
        deliveries.start();
        deliveries.take(1, &[deliveries.now(), deliveries.now()]);
        deliveries.take(9, &[deliveries.now()]);
        assert_eq!(deliveries.stop(), 3);
        deliveries.take(0, &[1]);
        assert_eq!(deliveries.stop(), 3);
        assert_eq!(deliveries.average(), 3);
        assert!(deliveries.latency().is_some());
    }
}
