//! The figures of a run, and what several rounds of them come to.

use hdrhistogram::Histogram;

/// Latencies are kept from 1 µs to 10 minutes in three significant digits, as `quorate bench` does.
const LATENCY_US_MAX: u64 = 600_000_000;

/// An empty histogram of latencies in microseconds.
pub(crate) fn latencies() -> Histogram<u64> {
    let histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3);
    histogram.expect("the bounds are constants that the library allows")
}

/// What one server did in one run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figures {
    /// Acknowledged updates, or delivered events.
    pub(crate) rate_per_s: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Processor time of all servers for a million of them.
    pub(crate) server_cpu_s_per_million: f64,
    /// Processor time of the client for a million of them.
    pub(crate) client_cpu_s_per_million: f64,
}

impl Figures {
    /// The figures of so many operations; none when there were none.
    pub(crate) fn of(
        operations: u64,
        seconds: f64,
        histogram_us: &Histogram<u64>,
        server_cpu_s: f64,
        client_cpu_s: f64,
    ) -> Option<Self> {
        let millions = operations as f64 / 1e6;
        let at = |quantile| histogram_us.value_at_quantile(quantile) as f64 / 1_000.0;
        (operations > 0 && seconds > 0.0 && !histogram_us.is_empty()).then(|| Self {
            rate_per_s: operations as f64 / seconds,
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            server_cpu_s_per_million: server_cpu_s / millions,
            client_cpu_s_per_million: client_cpu_s / millions,
        })
    }
}

/// The middle of several values, and their ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of these values; none if there are none, or one is not a number.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        if values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let upper = values.get(values.len() / 2)?;
        let lower = values.get((values.len() - 1) / 2)?;
        Some(Self { median: (lower + upper) / 2.0, min, max })
    }
}
