//! What one session is told: what it wants, its events in order, its initial values, and the streams
//! that they travel on.

pub(in crate::gateway) mod bulk_stream;
pub mod event_frames;
pub(in crate::gateway) mod event_writer;
pub(in crate::gateway) mod initial_values;
pub mod interest;
pub(in crate::gateway) mod journal_cursor;
#[cfg(test)]
mod model;
pub mod outgoing;
pub(in crate::gateway) mod pressure;
pub(in crate::gateway) mod subscriber;
pub mod topic_walk;
pub mod turn;
