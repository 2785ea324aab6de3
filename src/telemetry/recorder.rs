//! Where metrics are kept until someone asks: one recorder per process, no listener of its own.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds of histograms of seconds: from a flush on a fast disk to an election gone wrong.
const SECONDS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// The metrics of this process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    handle: PrometheusHandle,
}

/// Why there is no recorder.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// This process has one already.
    #[error("metrics are recorded already")]
    Installed,
    /// The library refused the histogram's bounds.
    #[error("the histogram bounds were refused")]
    Bounds,
}

impl Recorder {
    /// Keeps all metrics of the process from here on, once per process.
    ///
    /// # Errors
    /// [`RecorderError`].
    pub fn install() -> Result<Self, RecorderError> {
        let recorder = builder()?.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_| RecorderError::Installed)?;
        Ok(Self { handle })
    }

    /// All metrics in the text form of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds in what histograms have gathered; to be called every few seconds, or they grow.
    pub fn tidy(&self) {
        self.handle.run_upkeep();
    }
}

fn builder() -> Result<PrometheusBuilder, RecorderError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .map_err(|_| RecorderError::Bounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_become_lines_under_our_names() {
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            crate::telemetry::metrics::connection_accepted("client");
            crate::telemetry::metrics::connection_accepted("client");
            crate::telemetry::metrics::peers_connected(2);
            metrics::histogram!("quorate_test_seconds").record(0.002);
        });
        let recorder = Recorder { handle };
        recorder.tidy();
        let text = recorder.render();
        assert!(text.contains("quorate_connections_accepted_total{edge=\"client\"} 2"), "{text}");
        assert!(text.contains("quorate_peers_connected 2"), "{text}");
        assert!(text.contains("quorate_test_seconds_bucket{le=\"0.0025\"} 1"), "{text}");
    }
}
