//! HTTP for operators and probes: health, metrics, status. Read only, without credentials, on
//! loopback unless the operator says otherwise.
//!
//! | path | answer |
//! |---|---|
//! | `/live` | 200, or 503 with the reason: the process does its work |
//! | `/ready` | 200, or 503 with the reason: clients are served |
//! | `/safe-to-stop` | 200, or 503 with the reason: the cluster keeps its quorum without this node |
//! | `/metrics` | Prometheus text |
//! | `/status` | JSON: the cluster as this node sees it |
//!
//! Knows neither the gateway nor the cluster: what `/status` says comes from a function that the
//! node hands in.

mod bounded;
mod server;

pub use server::{ConsoleError, Sources, StatusFuture, start};
