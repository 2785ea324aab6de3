//! The one writer: takes what is queued, writes it once, flushes it once, completes it in order.

use std::time::Duration;

use crate::error::DiskFault;
use crate::poison::Poisoned;

/// What a [`Writer::step`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing was queued. `mark_owed` says that the last group is flushed but not yet marked.
    Idle {
        /// Whether [`Writer::flush_mark`] would write.
        mark_owed: bool,
    },
    /// One group is durable and its completions have run.
    Flushed {
        /// Records in it, its own mark not counted.
        records: usize,
        /// Bytes written.
        bytes: usize,
    },
    /// A durable mark was flushed by itself.
    Marked,
    /// The disk is full; the group waits.
    Full(DiskFault),
    /// Nothing will be flushed any more; every waiter has been told.
    Poisoned(Poisoned),
    /// The log was closed and everything queued is flushed.
    Closed,
}

/// Owns the active segment. There is one per log.
#[derive(Debug)]
pub struct Writer {}

impl Writer {
    /// Writes, flushes and completes one group, waiting up to `wait` for it; `None` returns at once
    /// when nothing is queued. A durable mark that is owed is flushed after `mark_after` of waiting.
    pub fn step(&mut self, wait: Option<Duration>) -> Step {
        todo!()
    }

    /// Flushes a durable mark if one is owed; what `step` does by itself after `mark_after`, for
    /// drivers that have their own time.
    pub fn flush_mark(&mut self) -> Step {
        todo!()
    }
}
