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
mod founding;
mod history;
mod node;
mod order;
mod restart;
mod resume;
mod retention;
mod single;
mod stage;
mod strangers;
mod upkeep;
