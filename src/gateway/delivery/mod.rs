//! Events on their way to sessions: who wants them, in which order, in which frames.

pub mod audience;
pub mod batch;
pub(super) mod bulk_stream;
#[cfg(test)]
pub(super) mod delivery_model;
pub mod event_frames;
pub(super) mod event_writer;
pub mod fanout;
pub(super) mod fanout_task;
pub(super) mod initial_values;
pub mod interest;
pub(super) mod journal_cursor;
pub mod outgoing;
pub mod session_queue;
pub mod topic_walk;
