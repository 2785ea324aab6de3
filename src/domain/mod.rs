//! What the cluster knows and decides, as pure code.
//!
//! Nothing in this folder reads a clock, draws a random number, touches a file or a socket, logs,
//! awaits, or iterates in hash order. [`Machine::apply`](machine::Machine::apply) of the same log
//! gives the same state, the same outcomes and the same events on every node and in every run;
//! `tests/architecture.rs` holds the folder to it.

mod apply;
pub mod command;
pub mod configuration;
pub mod constraint;
pub mod effect;
pub mod fetch;
pub mod id;
pub mod limits;
pub mod machine;
pub mod node;
pub mod outcome;
pub mod selector;
pub mod session;
pub mod topic;

pub use command::entry;
#[doc(hidden)]
pub use machine::fuzzing;
pub use machine::{invariants, snapshot};
pub use node::{address as node_address, name as node_name};
