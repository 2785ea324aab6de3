//! Quorate.
pub mod client;
pub mod clock;
pub mod config;
#[cfg(feature = "server")]
pub mod console;
pub mod domain;
#[cfg(feature = "server")]
pub mod peer;
pub mod protocol;
pub mod supervisor;
pub mod telemetry;
pub mod transport;
