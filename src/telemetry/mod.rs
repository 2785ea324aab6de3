//! Logs, metrics and the facts of health.

pub mod event;
pub mod metrics;
