//! What runs beside the log: who sees a quorum, the node's state, its own proposals, snapshots and
//! purge.

pub(super) mod caretaker;
mod figures;
pub(super) mod lifecycle;
pub(super) mod quorum_watch;
pub(super) mod snapshotter;
