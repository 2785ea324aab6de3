//! What a stream of acknowledged updates came to: counts, latencies, the longest pause.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::domain::id::{Index, Position};

/// Latencies are kept from 1 µs to 10 minutes in three significant digits.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Counts acknowledgements as they come in.
pub(in crate::cli) struct Tally {
    started: Instant,
    last: Option<Instant>,
    latencies_us: Histogram<u64>,
    count: u64,
    first_index: Option<Index>,
    last_index: Option<Index>,
    longest_pause: Duration,
}

impl Tally {
    /// Starts to count.
    pub(in crate::cli) fn new(now: Instant) -> Self {
        let latencies_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3);
        Self {
            started: now,
            last: None,
            latencies_us: latencies_us.expect("the bounds are constants that the library allows"),
            count: 0,
            first_index: None,
            last_index: None,
            longest_pause: Duration::ZERO,
        }
    }

    /// One update that was sent at `sent` is acknowledged now.
    pub(in crate::cli) fn record(&mut self, index: Index, sent: Instant, now: Instant) {
        let latency = now.saturating_duration_since(sent).as_micros();
        self.latencies_us.saturating_record(u64::try_from(latency).unwrap_or(u64::MAX).max(1));
        let pause = now.saturating_duration_since(self.last.unwrap_or(now));
        self.longest_pause = self.longest_pause.max(pause);
        self.last = Some(now);
        self.count += 1;
        self.first_index = Some(self.first_index.map_or(index, |first| first.min(index)));
        self.last_index = Some(self.last_index.map_or(index, |last| last.max(index)));
    }

    /// How many.
    pub(in crate::cli) fn count(&self) -> u64 {
        self.count
    }

    /// The longest time between two of them.
    pub(in crate::cli) fn longest_pause(&self) -> Duration {
        self.longest_pause
    }

    /// Latency at a quantile, in milliseconds.
    pub(in crate::cli) fn latency_ms(&self, quantile: f64) -> f64 {
        self.latencies_us.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// Latencies as the JSON outputs show them; null when nothing was acknowledged.
    pub(in crate::cli) fn latencies(&self) -> Value {
        latencies(&self.latencies_us)
    }

    /// Seconds since the start.
    pub(in crate::cli) fn seconds(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.started).as_secs_f64()
    }

    /// The fields of `topics load --json` but `sent` and `reconnects`.
    pub(in crate::cli) fn report(&self, now: Instant) -> Value {
        let seconds = self.seconds(now);
        let position =
            |index: Option<Index>| index.map(|index| Position { index, ordinal: 0 }.to_string());
        json!({
            "acknowledged": self.count,
            "first_position": position(self.first_index),
            "last_position": position(self.last_index),
            "seconds": (seconds * 1000.0).round() / 1000.0,
            "updates_per_s": (self.count as f64 / seconds.max(1e-9)).round(),
            "ack_ms": self.latencies(),
        })
    }
}

/// Latencies of a histogram of microseconds as the JSON outputs show them.
pub(in crate::cli) fn latencies(histogram_us: &Histogram<u64>) -> Value {
    if histogram_us.is_empty() {
        return Value::Null;
    }
    let ms = |us: u64| us as f64 / 1000.0;
    json!({
        "p50": ms(histogram_us.value_at_quantile(0.5)),
        "p99": ms(histogram_us.value_at_quantile(0.99)),
        "p999": ms(histogram_us.value_at_quantile(0.999)),
        "max": ms(histogram_us.max()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_report_has_the_fields_that_tools_rely_on() {
        let start = Clock::system().now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut tally = Tally::new(start);
        tally.record(Index::new(78, 3), at(0), at(2));
        tally.record(Index::new(80, 0), at(1), at(502));
        let report = tally.report(at(1000));
        assert_eq!(report["acknowledged"], 2);
        assert_eq!(report["first_position"], "78.3");
        assert_eq!(report["last_position"], "80.0");
        assert_eq!(report["updates_per_s"], 2.0);
        assert_eq!(report["ack_ms"]["p50"], 2.0);
        assert_eq!(tally.longest_pause(), Duration::from_millis(500));
    }
}
