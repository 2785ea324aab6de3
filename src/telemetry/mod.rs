//! Logs, metrics and the facts of health.
//!
//! Owns the shape of what the node tells about itself: event codes, names of metrics, log lines,
//! readiness. It does not know who listens: the console serves metrics and health, the node sets
//! health, and everyone counts.

pub mod event;
pub mod health;
#[cfg(feature = "server")]
pub mod logging;
pub mod metrics;
#[cfg(feature = "server")]
pub mod recorder;
