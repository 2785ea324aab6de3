//! The listener and its pages.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::bounded::Bounded;
use crate::supervisor::Supervisor;
use crate::telemetry::event;
use crate::telemetry::health::{Health, Verdict};
use crate::telemetry::recorder::Recorder;

/// Connections that are served at once; more wait in the kernel.
const CONNECTIONS_MAX: usize = 64;
/// A connection on which nothing moves for so long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// What the answer to one request may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tidyings of the metrics.
const TIDY_INTERVAL: Duration = Duration::from_secs(5);

/// The JSON text of `/status`, still being gathered.
pub type StatusFuture = Pin<Box<dyn Future<Output = String> + Send>>;

/// Where the pages come from.
#[derive(Clone)]
pub struct Sources {
    /// For `/live`, `/ready` and `/safe-to-stop`.
    pub health: Health,
    /// For `/metrics`; without it the page is 404.
    pub recorder: Option<Recorder>,
    /// For `/status`: gives JSON.
    pub status: Arc<dyn Fn() -> StatusFuture + Send + Sync>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Sources").field("health", &self.health).finish_non_exhaustive()
    }
}

/// Why the console did not open.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The address cannot be had.
    #[error("cannot listen on TCP {address}")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
}

/// Opens the console (port 0 for any free one) and serves it until the group stops. Gives the
/// address that it has.
///
/// # Errors
/// [`ConsoleError`] if the address cannot be had.
pub async fn start(
    listen: SocketAddr,
    sources: Sources,
    supervisor: &Supervisor,
) -> Result<SocketAddr, ConsoleError> {
    let refused = |source| ConsoleError::Bind { address: listen, source };
    let listener = TcpListener::bind(listen).await.map_err(refused)?;
    let local = listener.local_addr().map_err(refused)?;
    tracing::info!(event = event::HTTP_OPEN, %local, "HTTP listener open");
    if let Some(recorder) = sources.recorder.clone() {
        let mut stop = supervisor.stop_signal();
        supervisor.spawn("metrics tidier", async move {
            let tidy = async {
                loop {
                    tokio::time::sleep(TIDY_INTERVAL).await;
                    recorder.tidy();
                }
            };
            tokio::select! {
                () = stop.stopped() => {}
                () = tidy => {}
            }
        });
    }
    let mut stop = supervisor.stop_signal();
    supervisor.spawn("console", async move {
        tokio::select! {
            () = stop.stopped() => {}
            // Ends only with the listener, which ends never: errors of accept are waited out.
            _ = axum::serve(Bounded::new(listener, CONNECTIONS_MAX, IDLE_TIMEOUT), pages(sources)) => {}
        }
    });
    Ok(local)
}

fn pages(sources: Sources) -> Router {
    Router::new()
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/safe-to-stop", get(safe_to_stop))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(sources)
}

fn page(verdict: &Verdict) -> Response {
    let code = if verdict.is_yes() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, format!("{verdict}\n")).into_response()
}

async fn live(State(from): State<Sources>) -> Response {
    page(&from.health.facts().live)
}

async fn ready(State(from): State<Sources>) -> Response {
    page(&from.health.facts().ready)
}

async fn safe_to_stop(State(from): State<Sources>) -> Response {
    page(&from.health.facts().safe_to_stop)
}

async fn metrics(State(from): State<Sources>) -> Response {
    match from.recorder {
        Some(recorder) => {
            let form = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
            (form, recorder.render()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn status(State(from): State<Sources>) -> Response {
    match tokio::time::timeout(ANSWER_TIMEOUT, (from.status)()).await {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(_) => StatusCode::GATEWAY_TIMEOUT.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn get_page(address: SocketAddr, path: &str) -> (u16, String) {
        let exchange = async {
            let mut stream = TcpStream::connect(address).await?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            io::Result::Ok(answer)
        };
        let answer = tokio::time::timeout(PATIENCE, exchange).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn sources(status: impl Fn() -> StatusFuture + Send + Sync + 'static) -> Sources {
        Sources { health: Health::starting(), recorder: None, status: Arc::new(status) }
    }

    #[tokio::test]
    async fn pages_say_what_they_are_told() {
        let supervisor = Supervisor::new("test");
        let from = sources(|| Box::pin(async { r#"{"leader":"n1"}"#.to_owned() }));
        let health = from.health.clone();
        let any = (std::net::Ipv4Addr::LOCALHOST, 0).into();
        let address = start(any, from, &supervisor).await.unwrap();
        assert_eq!(get_page(address, "/live").await, (200, "yes\n".to_owned()));
        assert_eq!(get_page(address, "/ready").await, (503, "no: starting\n".to_owned()));
        health.set(|facts| {
            facts.ready = Verdict::Yes;
            facts.live = Verdict::no("poisoned");
            facts.safe_to_stop = Verdict::no("n2 is away");
        });
        assert_eq!(get_page(address, "/live").await.0, 503);
        assert_eq!(get_page(address, "/ready").await.0, 200);
        assert_eq!(get_page(address, "/safe-to-stop").await, (503, "no: n2 is away\n".to_owned()));
        assert_eq!(get_page(address, "/status").await, (200, r#"{"leader":"n1"}"#.to_owned()));
        assert_eq!(get_page(address, "/metrics").await.0, 404);
        assert_eq!(get_page(address, "/nothing").await.0, 404);
        // The address is taken, and free again after the stop.
        let taken = start(address, sources(|| Box::pin(std::future::pending())), &supervisor).await;
        assert!(matches!(taken, Err(ConsoleError::Bind { .. })));
        assert!(supervisor.stop(PATIENCE).await.is_empty());
        assert!(TcpListener::bind(address).await.is_ok());
    }

    #[tokio::test]
    async fn those_who_say_nothing_are_cut_off_for_those_who_ask() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bounded = Bounded::new(listener, 2, Duration::from_millis(100));
        let supervisor = Supervisor::new("test");
        let from = sources(|| Box::pin(async { String::new() }));
        supervisor.spawn("console", async move {
            let _ = axum::serve(bounded, pages(from)).await;
        });
        let mut silent = Vec::new();
        for _ in 0..2 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        // Both places are taken until the silent ones have been silent for too long.
        assert_eq!(get_page(address, "/live").await.0, 200);
        for mut stream in silent {
            let mut rest = Vec::new();
            let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
            assert!(end.is_err() || rest.is_empty());
        }
        assert!(supervisor.stop(Duration::from_millis(100)).await.is_empty());
    }
}
