//! Why replication refused, gave up or cannot tell.

use std::time::Duration;

/// A session's command was not taken; nothing of it has reached the log.
///
/// It holds for this request number and all above it: the client sends again from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The node or the session has as many commands in flight as it may.
    #[error("overloaded; try again in {retry_ms} ms")]
    Overloaded {
        /// A hint; milliseconds.
        retry_ms: u32,
    },
    /// The node cannot see a quorum.
    #[error("the node does not see a quorum")]
    Inquorate,
    /// The node stops, or the session has been detached from it.
    #[error("the node no longer takes commands of this session")]
    Stopped,
}

/// A command of the cluster's own could not be proposed, or nobody knows what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not taken; nothing has reached the log.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// The deadline passed first. The command may still be applied.
    #[error("the deadline passed before the outcome was known")]
    OutcomeUnknown,
}

/// A linearizable read could not be placed in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader confirmed the index before the deadline.
    #[error("no leader confirmed a read index within {}", Millis(*waited))]
    Deadline {
        /// How long it was tried.
        waited: Duration,
    },
    /// The node does not see a quorum.
    #[error("the node does not see a quorum")]
    Inquorate,
}

/// Prints a duration in whole milliseconds.
struct Millis(Duration);

impl std::fmt::Display for Millis {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} ms", self.0.as_millis())
    }
}
