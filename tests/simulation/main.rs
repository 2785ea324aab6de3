//! A whole cluster in one thread under virtual time and one seed, and the judgement of what it did.
//!
//! ```text
//!   seed ──► world: nodes, network, disks, clock, faults        (real code above the seams)
//!              ▲            │
//!   workload ──┘            │ what clients asked and heard, what nodes held
//!   (client library)        ▼
//!                        history ──► oracles ──► violations, each with its operations
//! ```
//!
//! - [`history`] is the only thing that the world and the oracles share: plain data.

#![cfg(feature = "server")]
#![expect(dead_code, reason = "the world and the oracles that use the history are being built")]

mod history;
mod runs;
mod world;
