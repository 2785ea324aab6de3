//! The Raft library, filled in: its types, our bytes for them, its stores over ours, its network over
//! the lanes between peers.

pub(super) mod append_frame;
pub(super) mod applied;
#[doc(hidden)]
pub mod fuzzing;
pub(super) mod log_store;
pub(super) mod network;
pub(super) mod raft_codec;
pub(super) mod raft_types;
pub(super) mod runtime;
pub(super) mod snapshot_transfer;
pub(super) mod state_store;
#[cfg(test)]
mod suite;
pub(super) mod vote_gate;
