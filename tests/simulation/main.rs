//! A whole cluster in one thread under virtual time and one seed, and the judgement of what it did.
//!
//! ```text
//!   seed ──► world: nodes, network, disks, clock, faults        (real code above the seams)
//!              ▲            │
//!   workload ──┘            │ what clients asked and heard, what nodes held
//!   (client library)        ▼
//!                        history ──► oracles ──► violations, each with its operations
//!                           ▲          ▲
//!            model, planted ┘          └ replay: the committed log, applied once more
//!            faults
//! ```
//!
//! - [`history`] is the only thing that the world and the oracles share: plain data.
//! - [`oracles`] are pure functions of it, one file for each property; [`replay`] is what they hold
//!   the nodes' answers, states and events against.
//! - [`world`] turns machines, network, disks and faults; [`workload`] is what clients do in it;
//!   [`runs`] puts them together and has the history judged.
//! - [`model`] makes up histories that are right, which no oracle may refuse, and into which the
//!   tests of each oracle plant the faults that it must find.
//! - [`dice`] turn a seed into choices.

#![expect(
    clippy::print_stdout,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a run prints what it found, fails by panicking, and reads virtual time only"
)]
#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod dice;
mod history;
mod model;
mod oracles;
mod planted;
mod replay;
mod runs;
mod workload;
mod world;
