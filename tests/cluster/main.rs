//! Whole clusters in one process, over real QUIC on loopback and real files.

#![cfg(feature = "server")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod clients;
mod damage;
mod disk;
mod divergence;
mod founding;
mod history;
mod index;
mod loss;
mod node;
mod order;
mod repair;
mod restart;
mod retention;
mod single;
mod stage;
mod upkeep;
