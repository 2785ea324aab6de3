//! The log as its users see it: what is readable, what is durable, and how to change either.
//!
//! [`Log`] is a handle that can be cloned. It never writes: changes are queued in order, readable at
//! once, and made durable by the one [`crate::Writer`], whose `step` a thread drives.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::disk::Disk;
use crate::error::{DiskFault, LogError, OpenError, ReadError};
use crate::log::group_commit::Writer;
use crate::log::hard_state::{NumberedState, STATE_BYTES_MAX};
use crate::log::log_state::{Queued, SharedLog, State, Work};
use crate::log::piece::{Piece, advance, damaged};
use crate::log::poison::Poisoned;
use crate::log::rotation::Preparer;
use crate::log::standing::Bound;
use crate::log::visible::End;
use crate::record::{Damage, Frame, PAYLOAD_BYTES_MAX, Position, Record, RecordKind, chain_seed};
use crate::recovery::{self, OpenReport};
use crate::segment::{Located, Scanner, file_name};

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
            tail_bytes_max: 16 << 20,
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
pub struct Log {
    pub(super) shared: SharedLog,
}

impl Log {
    /// Opens or makes the log in `dir`. See [`crate::recovery`] for the rules.
    ///
    /// Crash-safe and idempotent itself. Every record reported is durable when this returns.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
    ) -> Result<(Self, Writer, OpenReport), OpenError> {
        let (shared, writer, report) = recovery::open(disk, dir, options)?;
        Ok((Self { shared }, writer, report))
    }

    /// Appends entries with consecutive indices that follow the last one. Readable when this
    /// returns; `done` runs when all of them are durable. All or nothing is accepted.
    pub fn append(&self, records: Vec<Record>, done: Completion) -> Result<(), LogError> {
        let mut state = self.shared.lock();
        let bytes = records.iter().map(Record::disk_bytes).sum();
        state.admit(bytes, &self.shared.options)?;
        check_entries(&state.visible.end, &records)?;
        let State { visible, queue, .. } = &mut *state;
        let epoch = visible.epoch();
        let mut done = Some(done);
        let mut left = records.len();
        if records.is_empty() {
            queue.push(Queued { work: Work::Nothing, epoch, done: done.take() });
        }
        for record in records {
            let frame = Frame::new(record.clone(), visible.end.chain);
            visible.push(record, frame.chain(), self.shared.options.tail_bytes_max);
            left -= 1;
            let done = if left == 0 { done.take() } else { None };
            queue.push(Queued { work: Work::Frame(frame), epoch, done });
        }
        drop(state);
        self.shared.work.notify_all();
        Ok(())
    }

    /// Saves the newest hard state (at most [`STATE_BYTES_MAX`]) in the same order as entries.
    pub fn save_hard_state(&self, hard_state: Bytes, done: Completion) -> Result<(), LogError> {
        let (bytes, bytes_max) = (hard_state.len(), STATE_BYTES_MAX);
        if bytes > bytes_max {
            return Err(LogError::PayloadTooLarge { bytes, bytes_max });
        }
        let mut state = self.shared.lock();
        state.admit(bytes, &self.shared.options)?;
        let number = state.hard_state.as_ref().map_or(0, |newest| newest.number) + 1;
        state.hard_state = Some(NumberedState { number, state: hard_state.clone() });
        let record =
            Record { kind: RecordKind::HardState, index: number, term: 0, payload: hard_state };
        self.queue_mark(state, record, done);
        Ok(())
    }

    /// The newest hard state given to [`Self::save_hard_state`], in this process or before.
    pub fn hard_state(&self) -> Option<Bytes> {
        self.shared.lock().hard_state.as_ref().map(|newest| newest.state.clone())
    }

    /// Takes away every entry after `last_kept`; `None` takes all. Purged entries cannot be taken
    /// away. At once for readers; `done` runs when a crash cannot bring them back.
    pub fn truncate_after(&self, last_kept: Option<u64>, done: Completion) -> Result<(), LogError> {
        let mut state = self.shared.lock();
        state.admit(0, &self.shared.options)?;
        let visible = &state.visible;
        let (first, next) = (visible.first_index(), visible.end.next_index);
        let next_index = last_kept.map_or(first, |index| index.saturating_add(1));
        if next_index < first || next_index > next {
            let index = last_kept.unwrap_or(0);
            return Err(LogError::OutsideOfLog { index, first, next });
        }
        if next_index == next {
            let epoch = visible.epoch();
            state.queue.push(Queued { work: Work::Nothing, epoch, done: Some(done) });
            drop(state);
            self.shared.work.notify_all();
            return Ok(());
        }
        let end = match next_index.checked_sub(1) {
            None => {
                End { next_index, last_term: 0, chain: chain_seed(self.shared.options.cluster_id) }
            }
            Some(last) => {
                let last_term = visible.term_at(last).ok_or_else(|| visible.outside(last))?;
                let chain = match visible.chain_in_memory(last) {
                    Some(chain) => chain,
                    // Rare (a conflict that reaches far back), so readers may wait for it.
                    None => self.entry_on_disk(&state, last)?.chain(),
                };
                End { next_index, last_term, chain }
            }
        };
        state.visible.truncate(end);
        let payload = Bytes::copy_from_slice(&end.chain.to_le_bytes());
        let (kind, index, term) = (RecordKind::Truncate, next_index, end.last_term);
        self.queue_mark(state, Record { kind, index, term, payload }, done);
        Ok(())
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
        let mut state = self.shared.lock();
        state.admit(0, &self.shared.options)?;
        let bound = Bound { index, term, chain };
        state.visible.reset(bound);
        let epoch = state.visible.epoch();
        state.queue.push(Queued { work: Work::Reset(bound), epoch, done: Some(done) });
        drop(state);
        self.shared.work.notify_all();
        Ok(())
    }

    /// Forgets entries up to and including `upto`, which must be durable. Whole segments below it
    /// are removed from disk. Blocks for the flush of the purge point; an index that is purged
    /// already changes nothing.
    pub fn purge(&self, upto: u64) -> Result<(), LogError> {
        let mut standing = self.shared.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let (bound, first_segment) = {
            let state = self.shared.lock();
            if let LogState::Poisoned(poisoned) = &state.health {
                return Err(poisoned.clone().into());
            }
            let visible = &state.visible;
            if visible.purged.is_some_and(|bound| bound.index >= upto) {
                return Ok(());
            }
            if upto >= visible.durable_next {
                let next = visible.durable_next;
                return Err(LogError::OutsideOfLog {
                    index: upto,
                    first: visible.first_index(),
                    next,
                });
            }
            let term = visible.term_at(upto).ok_or_else(|| visible.outside(upto))?;
            let chain = match visible.chain_in_memory(upto) {
                Some(chain) => chain,
                None => self.entry_on_disk(&state, upto)?.chain(),
            };
            // A segment that was begun when the log ended at or before `upto` holds every later
            // entry, or one of its successors does.
            let kept = state.segments.values().rev().map(|segment| &segment.summary);
            let first = kept.into_iter().find(|summary| summary.first_index <= upto + 1);
            (Bound { index: upto, term, chain }, first.map(|summary| summary.id))
        };
        let Some(current) = standing.current() else { return Err(LogError::Closed) };
        let first_segment = first_segment.unwrap_or(current.first_segment);
        let changed = recovery::with_purged(current, first_segment, bound);
        standing.save(changed).map_err(|fault| self.not_saved(fault))?;
        let removed = {
            let mut state = self.shared.lock();
            if state.visible.purged.is_none_or(|purged| purged.index < upto) {
                state.visible.purge(bound);
            }
            let kept = state.segments.split_off(&first_segment);
            std::mem::replace(&mut state.segments, kept)
        };
        // The purge stands; a file that cannot be removed now is removed at the next opening.
        for id in removed.into_keys() {
            if let Err(fault) = self.shared.folder.remove(&file_name(id)) {
                tracing::warn!(segment = id, %fault, "purged segment stays on disk");
            }
        }
        Ok(())
    }

    /// The entries of `range` that exist, at most about `bytes_max` bytes, at least one.
    ///
    /// Fails when the range's start is outside of the log; an empty range is an empty answer.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<Record>, ReadError> {
        let mut records = Vec::new();
        let mut bytes_left = bytes_max;
        let mut at = range.start;
        while at < range.end && (bytes_left > 0 || records.is_empty()) {
            let piece = {
                let state = self.shared.lock();
                let visible = &state.visible;
                if at < visible.first_index() || at >= visible.end.next_index {
                    // Only the start must be there; the rest is as far as the log goes.
                    return if records.is_empty() { Err(visible.outside(at)) } else { Ok(records) };
                }
                if at >= visible.tail_first() {
                    visible.read_tail(at, range.end, &mut bytes_left, &mut records);
                    return Ok(records);
                }
                Piece::find(&state, at, range.end.min(visible.tail_first()))?
            };
            piece.walk(at, bytes_left, |located| {
                let bytes = located.record.disk_bytes();
                if bytes > bytes_left && !records.is_empty() {
                    bytes_left = 0;
                    return false;
                }
                bytes_left = bytes_left.saturating_sub(bytes);
                records.push(located.record);
                bytes_left > 0
            })?;
            at = piece.end;
        }
        Ok(records)
    }

    /// As [`Self::read`], and the chain before the first entry of the answer: with it whoever gets
    /// the entries can tell that they are this log's.
    pub fn read_chained(
        &self,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<(u64, Vec<Record>), ReadError> {
        let chain = match range.start.checked_sub(1) {
            Some(before) => self.chain_at(before)?,
            None => chain_seed(self.shared.options.cluster_id),
        };
        Ok((chain, self.read(range, bytes_max)?))
    }

    /// As [`Self::read`], durable entries only, with their places on disk; for the index. Empty
    /// when nothing from the range's start on is durable yet.
    pub fn read_located(
        &self,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<(Position, Record)>, ReadError> {
        let mut records = Vec::new();
        let mut bytes_left = bytes_max;
        let mut at = range.start;
        while at < range.end && (bytes_left > 0 || records.is_empty()) {
            let piece = {
                let state = self.shared.lock();
                let visible = &state.visible;
                if at < visible.first_index() {
                    return if records.is_empty() { Err(visible.outside(at)) } else { Ok(records) };
                }
                if at >= visible.durable_next {
                    return Ok(records);
                }
                Piece::find(&state, at, range.end.min(visible.durable_next))?
            };
            piece.walk(at, bytes_left, |located| {
                bytes_left = bytes_left.saturating_sub(located.record.disk_bytes());
                records.push((located.position, located.record));
                bytes_left > 0
            })?;
            at = piece.end;
        }
        Ok(records)
    }

    /// The record that stands at `position`, also when it is purged logically or truncated but
    /// its segment is still there.
    pub fn read_at(&self, position: Position) -> Result<Record, ReadError> {
        let handle = self.shared.lock().segment(position.segment)?;
        let mut scanner =
            Scanner::new(handle.file, handle.id, position.offset, handle.bytes).with_window(0);
        match advance(&mut scanner, position.segment)? {
            Some(located) => Ok(located.record),
            None => Err(damaged(position, Damage::Missing)),
        }
    }

    /// The term of an entry, or of the last purged one.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        self.shared.lock().visible.term_at(index)
    }

    /// The chain after an entry, or after the last purged one.
    pub fn chain_at(&self, index: u64) -> Result<u64, ReadError> {
        let piece = {
            let state = self.shared.lock();
            if let Some(chain) = state.visible.chain_in_memory(index) {
                return Ok(chain);
            }
            Piece::find(&state, index, index.saturating_add(1))?
        };
        Ok(piece.entry(index)?.chain())
    }

    /// The lowest index that can be read, or that will be the first.
    pub fn first_index(&self) -> u64 {
        self.shared.lock().visible.first_index()
    }

    /// The index that the next entry takes.
    pub fn next_index(&self) -> u64 {
        self.shared.lock().visible.end.next_index
    }

    /// Index and term of the last entry, or of the last purged one when the log is empty.
    pub fn last(&self) -> Option<(u64, u64)> {
        let state = self.shared.lock();
        let End { next_index, last_term, .. } = state.visible.end;
        next_index.checked_sub(1).map(|index| (index, last_term))
    }

    /// Index and term of the last purged entry.
    pub fn purged(&self) -> Option<(u64, u64)> {
        self.shared.lock().visible.purged.map(|bound| (bound.index, bound.term))
    }

    /// The highest index up to which everything in the log is flushed.
    pub fn durable(&self) -> Option<u64> {
        self.shared.lock().visible.durable_next.checked_sub(1)
    }

    /// Whether the log takes and flushes changes.
    pub fn state(&self) -> LogState {
        self.shared.lock().health.clone()
    }

    /// The poison, if there is one.
    pub fn poisoned(&self) -> Option<Poisoned> {
        match &self.shared.lock().health {
            LogState::Poisoned(poisoned) => Some(poisoned.clone()),
            LogState::Writable | LogState::DiskFull(_) => None,
        }
    }

    /// Bytes that wait for the writer.
    pub fn queued_bytes(&self) -> usize {
        self.shared.lock().queue.bytes
    }

    /// The segments on disk, oldest first; the last one is active.
    pub fn segments(&self) -> Vec<SegmentSummary> {
        self.shared.lock().segments.values().map(|segment| segment.summary.clone()).collect()
    }

    /// Who hears of sealed segments; replaces an earlier listener.
    pub fn on_seal(&self, listener: SealListener) {
        *self.shared.on_seal.lock().unwrap_or_else(PoisonError::into_inner) = Some(listener);
    }

    /// The doubts that the opening left have been dealt with (the log has reached a leader's commit
    /// index, or a single node has said so): later openings no longer report them.
    pub fn settle_doubts(&self) -> Result<(), LogError> {
        let mut standing = self.shared.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(current) = standing.current() else { return Err(LogError::Closed) };
        standing.save(recovery::without_doubts(current)).map_err(|fault| self.not_saved(fault))
    }

    /// No further changes; the writer flushes what is queued and then answers
    /// [`crate::Step::Closed`].
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
        self.shared.ahead.notify_all();
    }

    /// Does ahead and afterwards what the writer need not wait for; see [`Preparer`].
    pub fn preparer(&self) -> Preparer {
        Preparer::new(SharedLog::clone(&self.shared))
    }

    fn queue_mark(&self, mut state: MutexGuard<'_, State>, record: Record, done: Completion) {
        let epoch = state.visible.epoch();
        let work = Work::Frame(Frame::new(record, 0));
        state.queue.push(Queued { work, epoch, done: Some(done) });
        drop(state);
        self.shared.work.notify_all();
    }

    fn entry_on_disk(&self, state: &State, index: u64) -> Result<Located, ReadError> {
        Piece::find(state, index, index + 1)?.entry(index)
    }

    /// A standing that could not be saved: full is an answer, anything else a failed flush.
    fn not_saved(&self, fault: DiskFault) -> LogError {
        if fault.is_full() {
            LogError::DiskFull(fault)
        } else {
            LogError::Poisoned(self.shared.poison(fault))
        }
    }
}

fn check_entries(end: &End, records: &[Record]) -> Result<(), LogError> {
    let (mut next_index, mut last_term) = (end.next_index, end.last_term);
    for record in records {
        let (bytes, bytes_max) = (record.payload.len(), PAYLOAD_BYTES_MAX);
        if !record.kind.is_entry() {
            return Err(LogError::NotAnEntry { kind: record.kind });
        }
        if bytes > bytes_max {
            return Err(LogError::PayloadTooLarge { bytes, bytes_max });
        }
        if record.index != next_index {
            return Err(LogError::NotConsecutive { expected: next_index, found: record.index });
        }
        if record.term < last_term {
            let Record { index, term: found, .. } = *record;
            return Err(LogError::TermWentBack { index, last: last_term, found });
        }
        (next_index, last_term) = (next_index + 1, record.term);
    }
    Ok(())
}
