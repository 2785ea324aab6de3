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
        super::metrics::describe();
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
            crate::telemetry::metrics::log_flushed(std::time::Duration::from_millis(2));
            crate::telemetry::metrics::describe();
        });
        let recorder = Recorder { handle };
        recorder.tidy();
        let text = recorder.render();
        assert!(text.contains("quorate_connections_accepted_total{edge=\"client\"} 2"), "{text}");
        assert!(text.contains("quorate_peers_connected 2"), "{text}");
        assert!(text.contains("quorate_log_flush_seconds_bucket{le=\"0.0025\"} 1"), "{text}");
        assert!(text.contains("# HELP quorate_peers_connected Peers that"), "{text}");
    }

    #[test]
    fn every_name_is_ours_and_has_its_help() {
        use crate::telemetry::metrics as ours;
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            ours::describe();
            let figures = ours::Figures {
                state: "ready",
                role: "leader",
                term: 3,
                last: 9,
                durable: 9,
                committed: 8,
                applied: 7,
                log_bytes: 1,
                queue_bytes: 2,
                unanswered: (5, 6),
                permits: 10,
                journal_bytes: 11,
                topics: 12,
                sessions: 13,
            };
            ours::node(&figures, &["ready", "inquorate"], &["leader", "follower"]);
            ours::request_refused(502);
            ours::connection_closed(101);
            ours::session_lagged();
            ours::events_skipped(2);
        });
        let text = Recorder { handle }.render();
        let names: Vec<&str> = (text.lines())
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .map(|line| line.split(['{', ' ']).next().unwrap())
            .collect();
        assert!(names.len() >= 20, "{text}");
        for name in names {
            assert!(ours::NAMES.contains(&name), "{name} has no help");
            assert!(text.contains(&format!("# HELP {name} ")), "{name}: {text}");
        }
        assert!(text.contains("quorate_node_state{state=\"ready\"} 1"), "{text}");
        assert!(text.contains("quorate_node_state{state=\"inquorate\"} 0"), "{text}");
        assert!(text.contains("quorate_connections_closed_total{code=\"101\"} 1"), "{text}");
    }
}
