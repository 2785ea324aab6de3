//! Quorate.
pub mod clock;
pub mod domain;
pub mod protocol;
pub mod supervisor;
pub mod telemetry;
pub mod transport;
