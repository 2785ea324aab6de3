//! The closed loop: one session that keeps a number of updates unanswered, over topics drawn
//! uniformly.

use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use tokio::time::Instant;

use crate::client::{Acknowledgement, Acknowledgements, Client, Publisher, Target};
use crate::clock::Clock;

use super::measure::{Cost, Reading, Servers};
use super::report::{Latency, latencies};
use super::workload::{Draws, Payload};

/// Publishes and counts.
pub(super) struct ClosedLoop<'a> {
    clock: Clock,
    /// Tags are the nanoseconds from here to the call.
    origin: Instant,
    publisher: Publisher,
    answers: Acknowledgements,
    targets: &'a [Target],
    draws: Draws,
    payload: Payload,
    taken: Vec<Acknowledgement>,
    latencies_us: Histogram<u64>,
    acknowledged: u64,
}

/// What a time of measuring came to.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub(super) acknowledged: u64,
    pub(super) seconds: f64,
    pub(super) latency: Option<Latency>,
    pub(super) cost: Cost,
}

impl<'a> ClosedLoop<'a> {
    /// A loop of so many unanswered updates of so many bytes.
    pub(super) fn new(
        client: &Client,
        targets: &'a [Target],
        window: u32,
        value_bytes: usize,
    ) -> Self {
        let (publisher, answers) = client.publisher(window as usize);
        let clock = Clock::system();
        Self {
            clock,
            origin: clock.now(),
            publisher,
            answers,
            targets,
            draws: Draws::new(),
            payload: Payload::new(value_bytes),
            taken: Vec::new(),
            latencies_us: latencies(),
            acknowledged: 0,
        }
    }

    /// Publishes for a time to warm up, then for a time that is measured.
    ///
    /// # Errors
    /// When an update is refused, the session ends, or a server has ended.
    pub(super) async fn measure(
        &mut self,
        warm_up: Duration,
        measured: Duration,
        servers: Option<&Servers>,
    ) -> anyhow::Result<Measured> {
        self.publish_until(self.clock.now() + warm_up).await?;
        let before = Reading::take(servers)?;
        self.latencies_us.reset();
        self.acknowledged = 0;
        let started = self.clock.now();
        self.publish_until(started + measured).await?;
        let seconds = self.clock.since(started).as_secs_f64();
        let after = Reading::take(servers)?;
        let measured = Measured {
            acknowledged: self.acknowledged,
            seconds,
            latency: Latency::of(&self.latencies_us),
            cost: after.cost_since(&before, self.acknowledged),
        };
        self.drain().await?;
        Ok(measured)
    }

    /// Publishes so many updates and waits for all their answers.
    ///
    /// # Errors
    /// When an update is refused or the session ends.
    pub(super) async fn publish(
        &mut self,
        count: u64,
        progress: &ProgressBar,
    ) -> anyhow::Result<()> {
        let mut sent = 0;
        while sent < count {
            while sent < count && !self.publisher.is_full() {
                self.send().await?;
                sent += 1;
            }
            self.take_answers().await?;
            progress.set_position(self.acknowledged);
        }
        self.drain().await
    }

    async fn publish_until(&mut self, end: Instant) -> anyhow::Result<()> {
        while self.clock.now() < end {
            while !self.publisher.is_full() {
                self.send().await?;
            }
            self.take_answers().await?;
        }
        Ok(())
    }

    async fn drain(&mut self) -> anyhow::Result<()> {
        while self.answers.outstanding() > 0 {
            self.take_answers().await?;
        }
        Ok(())
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        let mark = self.draws.next();
        let number = self.draws.below(self.targets.len());
        let target = self.targets.get(number).context("there are no topics")?;
        let tag = nanoseconds(self.clock.since(self.origin));
        self.publisher.send(target, self.payload.marked(mark), tag).await?;
        Ok(())
    }

    async fn take_answers(&mut self) -> anyhow::Result<()> {
        self.answers.next_into(&mut self.taken).await;
        let now = nanoseconds(self.clock.since(self.origin));
        for answer in self.taken.drain(..) {
            answer.outcome.context("an update was not acknowledged")?;
            let latency_us = now.saturating_sub(answer.tag) / 1_000;
            self.latencies_us.saturating_record(latency_us.max(1));
            self.acknowledged += 1;
        }
        Ok(())
    }
}

/// The whole nanoseconds of a duration, at most `u64::MAX`.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
