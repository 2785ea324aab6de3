//! The log as its users see it: what is readable, what is durable, and how to change either.
//!
//! [`Log`] is a handle that can be cloned. It never writes: changes are queued in order, readable at
//! once, and made durable by the one [`crate::Writer`], whose `step` a thread drives.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::disk::Disk;
use crate::error::{DiskFault, LogError, OpenError, ReadError};
use crate::group_commit::Writer;
use crate::poison::Poisoned;
use crate::record::{Position, Record};
use crate::recovery::OpenReport;

/// Runs once on the writer's thread: with `Ok` when the change is durable, with the poison when it
/// never will be. Completions run in the order of the calls; they must not block.
pub type Completion = Box<dyn FnOnce(Result<(), Poisoned>) + Send>;

/// Limits and identity of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Seeds the chain; a log of another cluster is refused.
    pub cluster_id: u64,
    /// Written into new segments.
    pub lineage: u64,
    /// A segment is sealed when the next group would make it longer than this.
    pub segment_bytes: u64,
    /// Bytes that one write and one flush cover; a single longer record travels alone.
    pub group_bytes_max: usize,
    /// Bytes that may wait for the writer; beyond it [`LogError::QueueFull`].
    pub queued_bytes_max: usize,
    /// Bytes of newest entries kept in memory for readers. What is not flushed stays beyond it.
    pub tail_bytes_max: usize,
    /// After this long without work a durable mark is flushed by itself.
    pub mark_after: Duration,
    /// How long the writer waits before it tries a full disk again.
    pub full_retry_after: Duration,
}

impl LogOptions {
    /// The defaults for a cluster.
    pub fn new(cluster_id: u64, lineage: u64) -> Self {
        Self {
            cluster_id,
            lineage,
            segment_bytes: 64 << 20,
            group_bytes_max: 1 << 20,
            queued_bytes_max: 64 << 20,
            tail_bytes_max: 64 << 20,
            mark_after: Duration::from_millis(10),
            full_retry_after: Duration::from_millis(200),
        }
    }
}

/// Whether the log takes and flushes changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogState {
    /// Yes.
    Writable,
    /// The disk is full. What is queued stays queued, unacknowledged, and is tried again; further
    /// calls are queued up to the queue's limit, so a user that stops proposing loses nothing.
    DiskFull(DiskFault),
    /// Never again in this process.
    Poisoned(Poisoned),
}

/// A segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Its id: consecutive, never reused.
    pub id: u64,
    /// Its file.
    pub path: PathBuf,
    /// The log's next index when the segment was begun.
    pub first_index: u64,
    /// The log's next index at its end; for the active segment so far.
    pub next_index: u64,
    /// Written bytes.
    pub bytes: u64,
    /// Whether it will never change again.
    pub sealed: bool,
}

/// Hears of each segment as it is sealed; runs on the writer's thread and must not block.
pub type SealListener = Arc<dyn Fn(&SegmentSummary) + Send + Sync>;

/// A handle to the log; clones are the same log.
#[derive(Debug, Clone)]
pub struct Log {}

impl Log {
    /// Opens or makes the log in `dir`. See [`crate::recovery`] for the rules.
    ///
    /// Crash-safe and idempotent itself. Every record reported is durable when this returns.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
    ) -> Result<(Self, Writer, OpenReport), OpenError> {
        todo!()
    }

    /// Appends entries with consecutive indices that follow the last one. Readable when this
    /// returns; `done` runs when all of them are durable. All or nothing is accepted.
    pub fn append(&self, records: Vec<Record>, done: Completion) -> Result<(), LogError> {
        todo!()
    }

    /// Saves the newest hard state (at most [`crate::hard_state::STATE_BYTES_MAX`]) in the same
    /// order as entries.
    pub fn save_hard_state(&self, state: Bytes, done: Completion) -> Result<(), LogError> {
        todo!()
    }

    /// The newest hard state given to [`Self::save_hard_state`], in this process or before.
    pub fn hard_state(&self) -> Option<Bytes> {
        todo!()
    }

    /// Takes away every entry after `last_kept`; `None` takes all. Purged entries cannot be taken
    /// away. At once for readers; `done` runs when a crash cannot bring them back.
    pub fn truncate_after(&self, last_kept: Option<u64>, done: Completion) -> Result<(), LogError> {
        todo!()
    }

    /// Forgets the whole log and starts after `index`, where a snapshot that is already durable
    /// ends. Gaps are the purpose: `index` may be past the end or below it.
    pub fn reset_to(
        &self,
        index: u64,
        term: u64,
        chain: u64,
        done: Completion,
    ) -> Result<(), LogError> {
        todo!()
    }

    /// Forgets entries up to and including `upto`, which must be durable. Whole segments below it
    /// are removed from disk. Blocks for the flush of the purge point.
    pub fn purge(&self, upto: u64) -> Result<(), LogError> {
        todo!()
    }

    /// The entries of `range` that exist, at most about `bytes_max` bytes, at least one.
    ///
    /// Fails when the range's start is outside of the log; an empty range is an empty answer.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<Record>, ReadError> {
        todo!()
    }

    /// As [`Self::read`], durable entries only, with their places on disk; for the index.
    pub fn read_located(
        &self,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<(Position, Record)>, ReadError> {
        todo!()
    }

    /// The record that stands at `position`, also when it is purged logically or truncated but
    /// its segment is still there.
    pub fn read_at(&self, position: Position) -> Result<Record, ReadError> {
        todo!()
    }

    /// The term of an entry, or of the last purged one.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        todo!()
    }

    /// The chain after an entry, or after the last purged one.
    pub fn chain_at(&self, index: u64) -> Result<u64, ReadError> {
        todo!()
    }

    /// The lowest index that can be read, or that will be the first.
    pub fn first_index(&self) -> u64 {
        todo!()
    }

    /// The index that the next entry takes.
    pub fn next_index(&self) -> u64 {
        todo!()
    }

    /// Index and term of the last entry, or of the last purged one when the log is empty.
    pub fn last(&self) -> Option<(u64, u64)> {
        todo!()
    }

    /// Index and term of the last purged entry.
    pub fn purged(&self) -> Option<(u64, u64)> {
        todo!()
    }

    /// The highest index up to which everything in the log is flushed.
    pub fn durable(&self) -> Option<u64> {
        todo!()
    }

    /// Whether the log takes and flushes changes.
    pub fn state(&self) -> LogState {
        todo!()
    }

    /// The poison, if there is one.
    pub fn poisoned(&self) -> Option<Poisoned> {
        todo!()
    }

    /// Bytes that wait for the writer.
    pub fn queued_bytes(&self) -> usize {
        todo!()
    }

    /// The segments on disk, oldest first; the last one is active.
    pub fn segments(&self) -> Vec<SegmentSummary> {
        todo!()
    }

    /// Who hears of sealed segments; replaces an earlier listener.
    pub fn on_seal(&self, listener: SealListener) {
        todo!()
    }

    /// The doubts that the opening left have been dealt with (the log has reached a leader's commit
    /// index, or a single node has said so): later openings no longer report them.
    pub fn settle_doubts(&self) -> Result<(), LogError> {
        todo!()
    }

    /// No further changes; the writer flushes what is queued and then answers
    /// [`crate::Step::Closed`].
    pub fn close(&self) {
        todo!()
    }
}
