//! Real processes on loopback: loaded, watched, killed, started again in any order.
//!
//! By default each test streams the first part of the flights file, so that the whole suite stays
//! short in a debug build; `QUORATE_FULL=1 cargo test --release --test processes` streams all of it
//! and tries all six start orders, which is how the acceptance lines are checked.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests say what went wrong by panicking, and wait against the real clock"
)]

mod accepted_loss;
mod all_killed;
mod faults;
mod flights;
mod harness;
mod hostile;
mod leader_killed;
mod lone_node;
