//! Log lines, to standard error: for people, or one JSON object each.

use std::io;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Libraries that talk more than they tell; a directive that names one wins over this. The Raft
/// library warns of every heartbeat that a dead peer does not answer, which the lifecycle events of
/// peers and quorum say once.
const QUIET: &str = "quinn=warn,quinn_proto=warn,quinn_udp=warn,openraft=error,sled=warn,rustls=warn,\
                     hyper=warn,h2=warn";
/// An environment variable that wins over the configured filter.
const FILTER_VARIABLE: &str = "QUORATE_LOG";

/// Why logging did not start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is no list of directives.
    #[error("{filter:?} is no log filter: {source}")]
    Filter {
        /// What was given.
        filter: String,
        /// The library's words.
        source: tracing_subscriber::filter::ParseError,
    },
    /// This process logs already.
    #[error("logging has been started before")]
    Started,
}

/// Logs to standard error from here on, once per process. `filter` is a level or a list of
/// directives such as `info,quorate::peer=debug`; the variable `QUORATE_LOG` wins over it.
///
/// # Errors
/// [`LoggingError`].
pub fn start(json: bool, filter: &str) -> Result<(), LoggingError> {
    let wanted = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| filter.to_owned());
    tracing::subscriber::set_global_default(subscriber(json, &wanted, io::stderr)?)
        .map_err(|_| LoggingError::Started)
}

fn subscriber<W>(
    json: bool,
    filter: &str,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, LoggingError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}"))
        .map_err(|source| LoggingError::Filter { filter: filter.to_owned(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    Ok(if json {
        Box::new(builder.json().flatten_event(true).finish())
    } else {
        // Colours would be noise in a file; standard error is one more often than not.
        Box::new(builder.with_ansi(false).finish())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::telemetry::event;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().map_err(|_| io::Error::other("poisoned"))?.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(json: bool, filter: &str) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(json, filter, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(event = event::NODE_STARTED, node = "n1", "node started");
            tracing::debug!("detail");
            tracing::info!(target: "quinn_proto::connection", "chatter");
        });
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_lines_carry_the_event_code_as_a_field() {
        let text = logged(true, "info");
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["event"], "Q-001");
        assert_eq!(line["node"], "n1");
        assert_eq!(line["message"], "node started");
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn human_lines_are_plain_and_filters_are_heeded() {
        let text = logged(false, "info");
        assert!(text.contains("node started event=\"Q-001\" node=\"n1\""), "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains("chatter"));
        let text = logged(false, "debug,quinn_proto=info");
        assert!(text.contains("detail") && text.contains("chatter"), "{text}");
        assert!(matches!(start(false, "a=b=c"), Err(LoggingError::Filter { .. })));
    }
}
