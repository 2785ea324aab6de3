//! How commands get into the log: who waits for what, one order on the way to the leader, entries and
//! their log time.

pub(super) mod log_time;
pub(super) mod pending;
pub(super) mod proposer;
