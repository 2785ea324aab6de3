//! What a log remembers while it is open, behind one lock.
//!
//! [`Visible`] is the log as readers see it, ahead of the disk by what is queued. [`Queue`] is what
//! the writer has not taken yet. The writer reports back through [`Visible::written`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::append_log::{Completion, LogOptions, LogState, SealListener, SegmentSummary};
use crate::disk::{Folder, NamedFile};
use crate::error::{DiskFault, LogError, ReadError};
use crate::hard_state::NumberedState;
use crate::points::Points;
use crate::poison::Poisoned;
use crate::record::{Frame, Position, Record};
use crate::standing::{Bound, StandingFile};

/// Shared between the handles and the writer.
pub(crate) struct Shared {
    pub(crate) folder: Folder,
    pub(crate) options: LogOptions,
    state: Mutex<State>,
    /// Told when something is queued, poisoned or closed.
    pub(crate) work: Condvar,
    /// Taken before `state` where both are.
    pub(crate) standing: Mutex<StandingFile>,
    pub(crate) on_seal: Mutex<Option<SealListener>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(
        folder: Folder,
        options: LogOptions,
        state: State,
        standing: StandingFile,
    ) -> Self {
        Self {
            folder,
            options,
            state: Mutex::new(state),
            work: Condvar::new(),
            standing: Mutex::new(standing),
            on_seal: Mutex::new(None),
        }
    }

    /// A panic while the lock was held leaves nothing half-changed that a reader could not bear;
    /// the process ends on any panic of its threads anyway.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing will be acknowledged any more. The first fault stays.
    pub(crate) fn poison(&self, fault: DiskFault) -> Poisoned {
        let mut state = self.lock();
        let poisoned = match &state.health {
            LogState::Poisoned(first) => first.clone(),
            _ => Poisoned { fault },
        };
        state.health = LogState::Poisoned(poisoned.clone());
        drop(state);
        self.work.notify_all();
        poisoned
    }
}

/// Everything behind the lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) visible: Visible,
    pub(crate) queue: Queue,
    pub(crate) segments: BTreeMap<u64, Segment>,
    pub(crate) hard_state: Option<NumberedState>,
    pub(crate) health: LogState,
    pub(crate) closed: bool,
}

impl State {
    /// Refuses a change that would not be taken, before anything of it is done.
    pub(crate) fn admit(&self, bytes: usize, options: &LogOptions) -> Result<(), LogError> {
        if let LogState::Poisoned(poisoned) = &self.health {
            return Err(poisoned.clone().into());
        }
        if self.closed {
            return Err(LogError::Closed);
        }
        let (queued_bytes, queued_bytes_max) = (self.queue.bytes, options.queued_bytes_max);
        if queued_bytes > 0 && queued_bytes + bytes > queued_bytes_max {
            return Err(LogError::QueueFull { queued_bytes, queued_bytes_max });
        }
        Ok(())
    }
}

impl State {
    /// A flush succeeded: a full disk is over, a poison never is.
    pub(crate) fn space_found(&mut self) {
        if let LogState::DiskFull(_) = self.health {
            self.health = LogState::Writable;
        }
    }
}

/// A segment file that readers may open records of.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) file: NamedFile,
    pub(crate) summary: SegmentSummary,
}

/// One thing for the writer to do, in order.
#[derive(Debug)]
pub(crate) enum Work {
    /// Only the completion: an append of nothing.
    Nothing,
    /// A record to write.
    Frame(Frame),
    /// Start over after a snapshot.
    Reset(Bound),
}

/// Work and who waits for it.
pub(crate) struct Queued {
    pub(crate) work: Work,
    /// Changes of the log's end that had been made when it was queued.
    pub(crate) epoch: u64,
    pub(crate) done: Option<Completion>,
}

impl std::fmt::Debug for Queued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queued").field("work", &self.work).finish_non_exhaustive()
    }
}

impl Queued {
    pub(crate) fn bytes(&self) -> usize {
        match &self.work {
            Work::Frame(frame) => frame.disk_bytes(),
            Work::Nothing | Work::Reset(_) => 0,
        }
    }
}

/// What the writer has not taken.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) items: VecDeque<Queued>,
    pub(crate) bytes: usize,
}

impl Queue {
    pub(crate) fn push(&mut self, item: Queued) {
        self.bytes += item.bytes();
        self.items.push_back(item);
    }

    /// The next group: at most `bytes_max` bytes of frames, at least one item; a reset is a group
    /// of its own.
    pub(crate) fn take_group(&mut self, bytes_max: usize) -> Vec<Queued> {
        let mut group: Vec<Queued> = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.items.front() {
            let is_reset = matches!(next.work, Work::Reset(_));
            bytes += next.bytes();
            if !group.is_empty() && (is_reset || bytes > bytes_max) {
                break;
            }
            group.extend(self.items.pop_front());
            if is_reset {
                break;
            }
        }
        self.bytes -= group.iter().map(Queued::bytes).sum::<usize>();
        group
    }
}

/// The end of the log: what the next entry must follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) next_index: u64,
    /// Term of the last entry, 0 before the first.
    pub(crate) last_term: u64,
    pub(crate) chain: u64,
}

/// The log as readers see it.
#[derive(Debug)]
pub(crate) struct Visible {
    pub(crate) purged: Option<Bound>,
    pub(crate) end: End,
    /// Everything below it is flushed.
    pub(crate) durable_next: u64,
    /// Runs of equal terms: first index, term.
    pub(crate) terms: Vec<(u64, u64)>,
    pub(crate) points: Points,
    tail: VecDeque<TailEntry>,
    tail_bytes: usize,
    /// Truncations and resets so far.
    epoch: u64,
    /// Those that the writer has not reached: epoch, first index taken away.
    cuts: VecDeque<(u64, u64)>,
}

/// A new entry, kept in memory.
#[derive(Debug)]
struct TailEntry {
    record: Record,
    /// The chain after it.
    chain: u64,
}

impl Visible {
    pub(crate) fn new(
        purged: Option<Bound>,
        end: End,
        terms: Vec<(u64, u64)>,
        points: Points,
    ) -> Self {
        Self {
            purged,
            end,
            durable_next: end.next_index,
            terms,
            points,
            tail: VecDeque::new(),
            tail_bytes: 0,
            epoch: 0,
            cuts: VecDeque::new(),
        }
    }

    pub(crate) fn first_index(&self) -> u64 {
        self.purged.map_or(0, |bound| bound.index + 1)
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The first index that is in memory; everything from it on is.
    pub(crate) fn tail_first(&self) -> u64 {
        self.end.next_index - self.tail.len() as u64
    }

    pub(crate) fn outside(&self, index: u64) -> ReadError {
        ReadError::OutsideOfLog { index, first: self.first_index(), next: self.end.next_index }
    }

    /// Makes an entry that has been checked readable.
    pub(crate) fn push(&mut self, record: Record, chain: u64, tail_bytes_max: usize) {
        if self.terms.last().is_none_or(|(_, term)| *term != record.term) {
            self.terms.push((record.index, record.term));
        }
        self.end = End { next_index: record.index + 1, last_term: record.term, chain };
        self.tail_bytes += record.disk_bytes();
        self.tail.push_back(TailEntry { record, chain });
        self.shrink(tail_bytes_max);
    }

    /// Gives up the oldest entries in memory that can be read from disk.
    fn shrink(&mut self, tail_bytes_max: usize) {
        while self.tail_bytes > tail_bytes_max {
            let Some(oldest) = self.tail.front() else { break };
            if oldest.record.index >= self.durable_next {
                break;
            }
            self.tail_bytes -= oldest.record.disk_bytes();
            self.tail.pop_front();
        }
    }

    /// The term of an entry, or of the last purged one.
    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        if let Some(bound) = self.purged
            && bound.index == index
        {
            return Some(bound.term);
        }
        if index < self.first_index() || index >= self.end.next_index {
            return None;
        }
        let run = self.terms.partition_point(|(first, _)| *first <= index).checked_sub(1)?;
        self.terms.get(run).map(|(_, term)| *term)
    }

    /// The chain after an entry, as far as memory knows.
    pub(crate) fn chain_in_memory(&self, index: u64) -> Option<u64> {
        if let Some(bound) = self.purged
            && bound.index == index
        {
            return Some(bound.chain);
        }
        if index + 1 == self.end.next_index {
            return Some(self.end.chain);
        }
        let place = usize::try_from(index.checked_sub(self.tail_first())?).ok()?;
        self.tail.get(place).map(|entry| entry.chain)
    }

    /// Entries from memory: from `start` up to `end`, at least one, then while they fit.
    pub(crate) fn read_tail(
        &self,
        start: u64,
        end: u64,
        bytes_left: &mut usize,
        records: &mut Vec<Record>,
    ) {
        let from = usize::try_from(start.saturating_sub(self.tail_first())).unwrap_or(usize::MAX);
        for entry in self.tail.iter().skip(from).take_while(|entry| entry.record.index < end) {
            let bytes = entry.record.disk_bytes();
            if bytes > *bytes_left && !records.is_empty() {
                *bytes_left = 0;
                return;
            }
            *bytes_left = bytes_left.saturating_sub(bytes);
            records.push(entry.record.clone());
        }
    }

    /// Takes entries from `end.next_index` on away.
    pub(crate) fn truncate(&mut self, end: End) {
        while self.end.next_index > end.next_index
            && let Some(entry) = self.tail.pop_back()
        {
            self.tail_bytes -= entry.record.disk_bytes();
            self.end.next_index = entry.record.index;
        }
        self.end = end;
        let kept = self.terms.partition_point(|(first, _)| *first < end.next_index);
        self.terms.truncate(kept);
        self.points.truncate(end.next_index);
        self.durable_next = self.durable_next.min(end.next_index);
        self.epoch += 1;
        self.cuts.push_back((self.epoch, end.next_index));
    }

    /// Starts over after `bound`, which a durable snapshot covers.
    pub(crate) fn reset(&mut self, bound: Bound) {
        self.tail.clear();
        self.tail_bytes = 0;
        self.terms.clear();
        self.points.clear();
        self.purged = Some(bound);
        self.end = End { next_index: bound.index + 1, last_term: bound.term, chain: bound.chain };
        self.durable_next = self.end.next_index;
        self.epoch += 1;
        self.cuts.push_back((self.epoch, 0));
    }

    /// Forgets entries up to and including the bound's.
    pub(crate) fn purge(&mut self, bound: Bound) {
        self.purged = Some(bound);
        let first = self.first_index();
        while let Some(entry) = self.tail.front()
            && entry.record.index < first
        {
            self.tail_bytes -= entry.record.disk_bytes();
            self.tail.pop_front();
        }
        self.points.purge(first);
        let dead = self.terms.partition_point(|(start, _)| *start <= first).saturating_sub(1);
        self.terms.drain(..dead);
    }

    /// The writer has flushed an entry.
    pub(crate) fn written(&mut self, index: u64, epoch: u64, position: Position) {
        if self.cuts.iter().any(|(cut, from)| *cut > epoch && *from <= index) {
            return;
        }
        self.durable_next = self.durable_next.max(index + 1);
        if index >= self.first_index() {
            self.points.note(index, position);
        }
    }

    /// The writer has flushed the truncation or reset that began `epoch`.
    pub(crate) fn cut_written(&mut self, epoch: u64) {
        while self.cuts.front().is_some_and(|(cut, _)| *cut <= epoch) {
            self.cuts.pop_front();
        }
        self.points.break_off();
    }

    /// After a group: give up what memory holds beyond its bound.
    pub(crate) fn settle(&mut self, tail_bytes_max: usize) {
        self.shrink(tail_bytes_max);
    }
}

/// A handle that reads a segment's records, kept while the segment may already be purged.
#[derive(Debug, Clone)]
pub(crate) struct SegmentHandle {
    pub(crate) id: u64,
    pub(crate) file: NamedFile,
    /// Flushed bytes; nothing behind them is read.
    pub(crate) bytes: u64,
}

impl State {
    pub(crate) fn segment(&self, id: u64) -> Result<SegmentHandle, ReadError> {
        let segment = self.segments.get(&id).ok_or(ReadError::NoSegment { segment: id })?;
        Ok(SegmentHandle { id, file: segment.file.clone(), bytes: segment.summary.bytes })
    }
}

pub(crate) type SharedLog = Arc<Shared>;
