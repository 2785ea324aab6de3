//! The one writer: takes what is queued, writes it once, flushes it once, completes it in order.
//!
//! | what fails | what follows |
//! |---|---|
//! | no space, before the flush | what was written is taken back, the group stays first in line, [`Step::Full`]; each later step tries again |
//! | no space in the flush, any other error | poisoned: every waiter is told so, now and later |

use std::sync::PoisonError;
use std::time::Duration;

use crate::disk::NamedFile;
use crate::error::{DiskFault, DiskOperation};
use crate::format::read_u64;
use crate::log::append_log::{LogState, SegmentSummary};
use crate::log::hard_state::{HardStateFile, NumberedState};
use crate::log::log_state::{Queued, Segment, SharedLog, Work};
use crate::log::poison::Poisoned;
use crate::log::visible::End;
use crate::record::{DURABLE_MARK_BYTES, Frame, Position, RecordKind, write_durable_mark};
use crate::segment::{ActiveSegment, FOOTER_BYTES};

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
    /// Nothing will be flushed any more; every waiter has been told. The driving thread may end:
    /// later calls of the log are refused, so nobody can wait.
    Poisoned(Poisoned),
    /// The log was closed and everything queued is flushed.
    Closed,
}

/// Owns the active segment. There is one per log.
#[derive(Debug)]
pub struct Writer {
    pub(super) shared: SharedLog,
    pub(super) active: ActiveSegment,
    /// The end of the log in the order of the file, which may lag behind what readers see.
    pub(super) end: End,
    /// The newest hard state in the file.
    pub(super) hard_state: Option<NumberedState>,
    hard_state_file: HardStateFile,
    /// The group that is being flushed, or that waits for space.
    pub(super) group: Vec<Queued>,
    /// Reused from group to group.
    pub(super) buffer: Vec<u8>,
    pub(super) mark_owed: bool,
}

/// What recovery hands to the writer.
#[derive(Debug)]
pub(crate) struct WriterStart {
    pub(crate) active: ActiveSegment,
    pub(crate) end: End,
    pub(crate) hard_state: Option<NumberedState>,
    pub(crate) hard_state_file: HardStateFile,
}

/// What a step finds to do.
enum Duty {
    Group(Vec<Queued>),
    Retry,
    Mark,
    Idle,
    Closed,
    Poisoned(Poisoned),
}

/// Why a group was not flushed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing happened that cannot be done again.
    Full(DiskFault),
    Fatal(DiskFault),
}

impl From<DiskFault> for Failure {
    fn from(fault: DiskFault) -> Self {
        let flush = matches!(fault.operation, DiskOperation::Sync | DiskOperation::SyncDir);
        if fault.is_full() && !flush { Self::Full(fault) } else { Self::Fatal(fault) }
    }
}

impl Writer {
    pub(crate) fn new(shared: SharedLog, start: WriterStart) -> Self {
        let WriterStart { active, end, hard_state, hard_state_file } = start;
        Self {
            shared,
            active,
            end,
            hard_state,
            hard_state_file,
            group: Vec::new(),
            buffer: Vec::new(),
            mark_owed: false,
        }
    }

    /// Writes, flushes and completes one group, waiting up to `wait` for it; `None` returns at once
    /// when nothing is queued. A durable mark that is owed is flushed after `mark_after` of waiting.
    pub fn step(&mut self, wait: Option<Duration>) -> Step {
        match self.next_duty(wait) {
            Duty::Group(group) => {
                self.group = group;
                self.flush_group()
            }
            Duty::Retry => self.flush_group(),
            Duty::Mark => self.flush_mark(),
            Duty::Idle => Step::Idle { mark_owed: self.mark_owed },
            Duty::Closed => Step::Closed,
            Duty::Poisoned(poisoned) => self.fail(poisoned),
        }
    }

    /// Flushes a durable mark if one is owed; what `step` does by itself after `mark_after`, for
    /// drivers that have their own time.
    pub fn flush_mark(&mut self) -> Step {
        if !self.mark_owed {
            return Step::Idle { mark_owed: false };
        }
        if let Some(poisoned) = self.poisoned() {
            return self.fail(poisoned);
        }
        // Whatever happens, the next group opens with a mark.
        self.mark_owed = false;
        self.buffer.clear();
        write_durable_mark(&mut self.buffer, self.end.next_index, self.active.place(0));
        match self.append_buffer(1) {
            Ok(()) => {
                let mut state = self.shared.lock();
                if let Some(segment) = state.segments.get_mut(&self.active.header().segment) {
                    segment.summary.bytes = self.active.end();
                }
                Step::Marked
            }
            Err(Failure::Full(fault)) => Step::Full(fault),
            Err(Failure::Fatal(fault)) => {
                let poisoned = self.shared.poison(fault);
                self.fail(poisoned)
            }
        }
    }

    fn poisoned(&self) -> Option<Poisoned> {
        match &self.shared.lock().health {
            LogState::Poisoned(poisoned) => Some(poisoned.clone()),
            LogState::Writable | LogState::DiskFull(_) => None,
        }
    }

    fn next_duty(&self, wait: Option<Duration>) -> Duty {
        let options = &self.shared.options;
        let retrying = !self.group.is_empty();
        let patience = match wait {
            None => Duration::ZERO,
            Some(wait) if retrying => wait.min(options.full_retry_after),
            Some(wait) if self.mark_owed => wait.min(options.mark_after),
            Some(wait) => wait,
        };
        let state = self.shared.lock();
        let (mut state, timeout) = self
            .shared
            .work
            .wait_timeout_while(state, patience, |state| {
                let poisoned = matches!(state.health, LogState::Poisoned(_));
                let work = !retrying && !state.queue.items.is_empty();
                !(poisoned || work || state.closed)
            })
            .unwrap_or_else(PoisonError::into_inner);
        if let LogState::Poisoned(poisoned) = &state.health {
            return Duty::Poisoned(poisoned.clone());
        }
        if retrying {
            return Duty::Retry;
        }
        if !state.queue.items.is_empty() {
            return Duty::Group(state.queue.take_group(options.group_bytes_max));
        }
        let waited = wait.is_some_and(|wait| wait >= options.mark_after) && timeout.timed_out();
        match (self.mark_owed, state.closed) {
            (true, true) => Duty::Mark,
            (true, false) if waited => Duty::Mark,
            (false, true) => Duty::Closed,
            _ => Duty::Idle,
        }
    }

    fn flush_group(&mut self) -> Step {
        let flushed = match self.group.first().map(|item| &item.work) {
            Some(Work::Reset(bound)) => {
                let bound = *bound;
                self.reset(bound).map(|()| (0, 0))
            }
            _ => self.write_group(),
        };
        match flushed {
            Ok((records, bytes)) => {
                for item in std::mem::take(&mut self.group) {
                    if let Some(done) = item.done {
                        done(Ok(()));
                    }
                }
                Step::Flushed { records, bytes }
            }
            Err(Failure::Full(fault)) => {
                let mut state = self.shared.lock();
                // Whoever closes a full log gives up on what waits in it.
                let closed = state.closed;
                if !closed {
                    state.health = LogState::DiskFull(fault.clone());
                }
                drop(state);
                if closed {
                    let poisoned = self.shared.poison(fault);
                    return self.fail(poisoned);
                }
                Step::Full(fault)
            }
            Err(Failure::Fatal(fault)) => {
                let poisoned = self.shared.poison(fault);
                self.fail(poisoned)
            }
        }
    }

    /// Tells every waiter, in order.
    fn fail(&mut self, poisoned: Poisoned) -> Step {
        let mut waiters = std::mem::take(&mut self.group);
        {
            let mut state = self.shared.lock();
            waiters.extend(state.queue.items.drain(..));
            state.queue.bytes = 0;
        }
        for item in waiters {
            if let Some(done) = item.done {
                done(Err(poisoned.clone()));
            }
        }
        Step::Poisoned(poisoned)
    }

    /// One write, one flush. Answers with the records and bytes of the group.
    fn write_group(&mut self) -> Result<(usize, usize), Failure> {
        let bytes: usize = self.group.iter().map(Queued::bytes).sum();
        if bytes == 0 {
            self.commit(&[]);
            return Ok((0, 0));
        }
        let options = &self.shared.options;
        let (segment_bytes, buffer_bytes_max) =
            (options.segment_bytes, 2 * options.group_bytes_max);
        let around = (2 * DURABLE_MARK_BYTES + FOOTER_BYTES + bytes) as u64;
        let is_over = !self.active.is_fresh() && self.active.end() + around > segment_bytes;
        let encoded = if is_over {
            self.begin_next()?
        } else {
            self.active.reserve(segment_bytes)?;
            self.buffer.clear();
            write_durable_mark(&mut self.buffer, self.end.next_index, self.active.place(0));
            let encoded = encode(&self.group, self.end, &self.active, &mut self.buffer);
            self.append_buffer(1 + encoded.positions.len() as u64)?;
            encoded
        };
        let Encoded { positions, end, hard_state } = encoded;
        let written = self.buffer.len();
        if self.buffer.capacity() > buffer_bytes_max {
            self.buffer = Vec::new();
        }
        self.end = end;
        if let Some(hard_state) = hard_state {
            self.hard_state_file.save(&hard_state).map_err(Failure::Fatal)?;
            self.hard_state = Some(hard_state);
        }
        self.mark_owed = true;
        self.commit(&positions);
        Ok((positions.len(), written))
    }

    /// Before a full disk is reported, nothing of the failed write may be left behind the end.
    fn append_buffer(&mut self, records: u64) -> Result<(), Failure> {
        let appended = self.active.append(&self.buffer, records).map_err(Failure::from);
        if let Err(Failure::Full(_)) = &appended {
            self.active.withdraw().map_err(Failure::Fatal)?;
        }
        appended
    }

    /// Reports what is durable to the readers' side.
    fn commit(&mut self, positions: &[Position]) {
        let mut state = self.shared.lock();
        let mut positions = positions.iter();
        for item in &self.group {
            let Work::Frame(frame) = &item.work else { continue };
            let Some(position) = positions.next() else { break };
            if frame.kind.is_entry() {
                state.visible.written(frame.index, item.epoch, *position);
            } else if frame.kind == RecordKind::Truncate {
                state.visible.cut_written(item.epoch);
            }
        }
        if let Some(segment) = state.segments.get_mut(&self.active.header().segment) {
            segment.summary.bytes = self.active.end();
            segment.summary.next_index = self.end.next_index;
        }
        state.visible.settle(self.shared.options.tail_bytes_max);
        state.space_found();
        if state.is_spare_due(&self.shared.options) {
            self.shared.ahead.notify_one();
        }
    }
}

/// What readers need of a segment.
pub(crate) fn segment_of(active: &ActiveSegment) -> Segment {
    let header = active.header();
    let file: NamedFile = active.file().clone();
    let summary = SegmentSummary {
        id: header.segment,
        path: file.path().to_owned(),
        first_index: header.first_index,
        next_index: header.first_index,
        bytes: active.end(),
        sealed: false,
    };
    Segment { file, summary, settled: false }
}

/// A group as it stands in a buffer.
pub(super) struct Encoded {
    /// Where each frame will stand.
    pub(super) positions: Vec<Position>,
    /// The log's end after the last.
    pub(super) end: End,
    /// The newest hard state among them.
    pub(super) hard_state: Option<NumberedState>,
}

/// Lays a group's frames behind what is in the buffer, which begins at the segment's end.
pub(super) fn encode(
    group: &[Queued],
    mut end: End,
    segment: &ActiveSegment,
    buffer: &mut Vec<u8>,
) -> Encoded {
    let mut positions = Vec::with_capacity(group.len());
    let mut hard_state = None;
    for item in group {
        let Work::Frame(frame) = &item.work else { continue };
        positions.push(segment.place(buffer.len()));
        frame.write(buffer);
        end = end_after(end, frame);
        if frame.kind == RecordKind::HardState {
            let state = frame.payload.clone();
            hard_state = Some(NumberedState { number: frame.index, state });
        }
    }
    Encoded { positions, end, hard_state }
}

fn end_after(end: End, frame: &Frame) -> End {
    match frame.kind {
        kind if kind.is_entry() => {
            End { next_index: frame.index + 1, last_term: frame.term, chain: frame.chain() }
        }
        RecordKind::Truncate => End {
            next_index: frame.index,
            last_term: frame.term,
            chain: read_u64(&frame.payload, 0).unwrap_or(end.chain),
        },
        _ => end,
    }
}
