//! Client connections: the node's side of the client protocol.
pub mod audience;
pub mod batch;
pub mod event_frames;
pub mod fanout;
pub mod initial_values;
pub mod interest;
pub mod journal_cursor;
pub mod outbox;
pub mod outgoing;
pub mod session_queue;
pub mod topic_walk;
pub mod turn;
