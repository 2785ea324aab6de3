//! One node in this process, over real QUIC on loopback: what clients see of it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod garbage;
mod harness;
mod hostile;
mod pressure;
mod publish;
mod sessions;
mod subscribe;
