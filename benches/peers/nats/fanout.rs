//! Core publish and subscribe over TLS: one subject to many subscribers, each its own connection.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use hdrhistogram::Histogram;
use quorate::clock::Clock;
use quorate::supervisor::{OwnedTask, Supervisor};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::figures::{Figures, latencies};
use crate::meter::Reading;

use super::WARM_UP;
use super::connection::Connection;
use super::protocol::put_publish;
use super::server::{Program, Servers};

// The numbers that follow are those of `quorate bench fanout`.
const VALUE_BYTES: usize = 100;
/// Without a rate: values that may be published and not delivered to the average subscriber.
const OUTSTANDING_MAX: u64 = 256;
/// Values that are published in one go, without a rate.
const BURST: u64 = 16;
/// How much of a delay is made up at once.
const CATCH_UP_MAX: Duration = Duration::from_millis(20);
/// Histograms that the subscribers share, so that few wait for each other.
const SHARDS: usize = 8;
/// Subscribers that connect at a time.
const CONNECTING_MAX: usize = 64;
/// Without any delivery for so long the run has failed.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);
const SUBJECT: &str = "bench";

/// Starts a server, measures, ends it.
///
/// # Errors
/// When the server ends, or a connection does.
pub(crate) async fn run(
    program: &Program,
    dir: &Path,
    subscribers: u32,
    rate: Option<u32>,
    time: Duration,
) -> anyhow::Result<Figures> {
    let (mut servers, tls) = Servers::with_tls(program, dir)?;
    let publisher = servers.first_connection(Some(&tls)).await?;
    let address = servers.address(1)?;
    let deliveries = Arc::new(Deliveries::new(subscribers));
    let supervisor = Supervisor::new("peers");
    let (tls, supervisor, counted) = (&tls, &supervisor, &deliveries);
    let connecting = (0..subscribers).map(|number| async move {
        let mut connection = Connection::open(address, Some(tls)).await?;
        connection.subscribe(SUBJECT).await?;
        let listening = listen(number as usize, connection, Arc::clone(counted));
        anyhow::Ok(supervisor.spawn("subscriber", listening).abort_on_drop())
    });
    let audience: Vec<OwnedTask> =
        futures::stream::iter(connecting).buffer_unordered(CONNECTING_MAX).try_collect().await?;
    let clock = deliveries.clock;
    let payload = vec![b'v'; VALUE_BYTES];
    let mut source = Source { clock, publisher, payload, published: 0, deliveries };
    source.publish_for(WARM_UP, rate).await?;
    let pids = servers.pids();
    let before = Reading::take(&pids)?;
    source.deliveries.is_measuring.store(true, Ordering::Relaxed);
    let started = clock.now();
    source.publish_for(time, rate).await?;
    source.deliveries.is_measuring.store(false, Ordering::Relaxed);
    let seconds = clock.since(started).as_secs_f64();
    let after = Reading::take(&pids)?;
    let lost = source.deliveries.ended.load(Ordering::Relaxed);
    ensure!(lost == 0, "the connections of {lost} subscribers have ended");
    drop(audience);
    servers.stop().await?;
    let latencies_us = source.deliveries.latencies_us();
    let (server_s, client_s) = (after.servers_s - before.servers_s, after.own_s - before.own_s);
    let delivered = latencies_us.len();
    Figures::of(delivered, seconds, &latencies_us, server_s, client_s)
        .context("nothing was delivered")
}

/// What all subscribers have received, counted together.
struct Deliveries {
    clock: Clock,
    /// Values carry the nanoseconds from here to the publishing call.
    origin: Instant,
    subscribers: u64,
    total: AtomicU64,
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
            subscribers: u64::from(subscribers),
            total: AtomicU64::new(0),
            is_measuring: AtomicBool::new(false),
            latencies_us: std::array::from_fn(|_| Mutex::new(latencies())),
            progress: Notify::new(),
            step: (u64::from(subscribers) * OUTSTANDING_MAX / 8).max(1),
            ended: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.clock.since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Counts the marks that a subscriber received together.
    fn take(&self, subscriber: usize, marks: &[u64]) {
        let (now, count) = (self.now(), marks.len() as u64);
        if self.is_measuring.load(Ordering::Relaxed)
            && let Some(shard) = self.latencies_us.get(subscriber % SHARDS)
        {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for mark in marks {
                shard.saturating_record((now.saturating_sub(*mark) / 1_000).max(1));
            }
        }
        let before = self.total.fetch_add(count, Ordering::Relaxed);
        if before / self.step != (before + count) / self.step {
            self.progress.notify_one();
        }
    }

    /// Values that the average subscriber has received.
    fn average(&self) -> u64 {
        self.total.load(Ordering::Relaxed) / self.subscribers
    }

    fn latencies_us(&self) -> Histogram<u64> {
        let mut sum = latencies();
        for shard in &self.latencies_us {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            sum.add(&*shard).expect("all have the same bounds");
        }
        sum
    }
}

async fn listen(number: usize, mut connection: Connection, deliveries: Arc<Deliveries>) {
    let mut marks = Vec::new();
    let ended: anyhow::Result<()> = async {
        loop {
            connection.fill().await?;
            connection.messages(|_, payload, _| {
                let mark = payload.first_chunk().copied().context("a value without a mark")?;
                marks.push(u64::from_be_bytes(mark));
                Ok(())
            })?;
            deliveries.take(number, &marks);
            marks.clear();
            connection.flush().await?;
        }
    }
    .await;
    if ended.is_err() {
        deliveries.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// The publisher. It reads nothing: the server asks for a sign of life only after minutes.
struct Source {
    clock: Clock,
    publisher: Connection,
    payload: Vec<u8>,
    published: u64,
    deliveries: Arc<Deliveries>,
}

impl Source {
    async fn publish_for(&mut self, time: Duration, rate: Option<u32>) -> anyhow::Result<()> {
        let end = self.clock.now() + time;
        match rate {
            Some(rate) => self.publish_at(rate, end).await,
            None => self.publish_until(end).await,
        }
    }

    /// Publishes at a rate, whatever becomes of it.
    async fn publish_at(&mut self, rate: u32, end: Instant) -> anyhow::Result<()> {
        let interval = Duration::from_secs_f64(1.0 / f64::from(rate));
        let mut due = self.clock.now();
        loop {
            tokio::time::sleep_until(due.min(end)).await;
            let now = self.clock.now();
            if now >= end {
                return Ok(());
            }
            self.publish();
            self.publisher.flush().await?;
            due = due.max(now.checked_sub(CATCH_UP_MAX).unwrap_or(now)) + interval;
        }
    }

    /// Publishes as fast as the subscribers receive.
    async fn publish_until(&mut self, end: Instant) -> anyhow::Result<()> {
        while self.clock.now() < end {
            if self.published < self.deliveries.average() + OUTSTANDING_MAX {
                for _ in 0..BURST {
                    self.publish();
                }
                self.publisher.flush().await?;
                continue;
            }
            let limit = end.min(self.clock.now() + STALL_TIMEOUT);
            let progress = self.deliveries.progress.notified();
            let came = tokio::time::timeout_at(limit, progress).await.is_ok();
            ensure!(came || self.clock.now() >= end, "no delivery for {STALL_TIMEOUT:?}");
        }
        Ok(())
    }

    fn publish(&mut self) {
        let mark = self.deliveries.now().to_be_bytes();
        if let Some(start) = self.payload.first_chunk_mut() {
            *start = mark;
        }
        let subject = format_args!("{SUBJECT}");
        put_publish(self.publisher.outgoing(), subject, None, &self.payload);
        self.published += 1;
    }
}
