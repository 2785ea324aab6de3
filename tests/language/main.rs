//! The languages that users write: selectors and update constraints.
//!
//! The cases are text files that anyone can extend; what a line means stands at the head of the
//! first file of each folder. `properties` holds what must be true of any selector.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken case file or a wrong answer ends the test"
)]

mod cases;
mod constraints;
mod properties;
mod selectors;
