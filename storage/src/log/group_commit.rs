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
use crate::log::log_state::{Queued, Segment, Shared, SharedLog, Work};
use crate::log::poison::Poisoned;
use crate::log::standing::Bound;
use crate::log::visible::End;
use crate::record::{DURABLE_MARK_BYTES, Frame, Position, RecordKind, write_durable_mark};
use crate::recovery::with_purged;
use crate::segment::{ActiveSegment, Carried, FOOTER_BYTES, Head, SegmentHeader, file_name};

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
    shared: SharedLog,
    active: ActiveSegment,
    /// The active segment is sealed but has no successor yet: where its records end.
    sealed_end: Option<u64>,
    /// The end of the log in the order of the file, which may lag behind what readers see.
    end: End,
    /// The newest hard state in the file.
    hard_state: Option<NumberedState>,
    hard_state_file: HardStateFile,
    /// The group that is being flushed, or that waits for space.
    group: Vec<Queued>,
    /// Reused from group to group.
    buffer: Vec<u8>,
    mark_owed: bool,
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
enum Failure {
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
            sealed_end: None,
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
        if self.sealed_end.is_some()
            || (!self.active.is_fresh() && self.active.end() + around > segment_bytes)
        {
            self.rotate()?;
        }
        self.active.reserve(segment_bytes)?;
        let (positions, end, hard_state) = self.encode_group();
        self.append_buffer(1 + positions.len() as u64)?;
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

    /// Fills the buffer. Answers with the place of each frame, the log's end after the last, and
    /// the newest hard state among them.
    fn encode_group(&mut self) -> (Vec<Position>, End, Option<NumberedState>) {
        self.buffer.clear();
        write_durable_mark(&mut self.buffer, self.end.next_index, self.active.place(0));
        let mut positions = Vec::with_capacity(self.group.len());
        let (mut end, mut hard_state) = (self.end, None);
        for item in &self.group {
            let Work::Frame(frame) = &item.work else { continue };
            positions.push(self.active.place(self.buffer.len()));
            frame.write(&mut self.buffer);
            end = end_after(end, frame);
            if frame.kind == RecordKind::HardState {
                let state = frame.payload.clone();
                hard_state = Some(NumberedState { number: frame.index, state });
            }
        }
        (positions, end, hard_state)
    }

    fn append_buffer(&mut self, records: u64) -> Result<(), Failure> {
        let appended = self.active.append(&self.buffer, records).map_err(Failure::from);
        self.taken_back(appended)
    }

    /// Before a full disk is reported, nothing of the failed write may be left behind the end.
    fn taken_back<T>(&mut self, result: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(Failure::Full(_)) = &result {
            self.active.withdraw().map_err(Failure::Fatal)?;
        }
        result
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
    }

    /// Seals the active segment and begins the next one. Can be repeated after a full disk.
    fn rotate(&mut self) -> Result<(), Failure> {
        let previous_end = match self.sealed_end {
            Some(end) => end,
            None => {
                let End { next_index, last_term, .. } = self.end;
                let sealed = self.active.seal(next_index, last_term).map_err(Failure::from);
                let end = self.taken_back(sealed)?;
                self.sealed_end = Some(end);
                self.mark_owed = false;
                self.report_sealed();
                end
            }
        };
        let header = self.next_header(self.end, previous_end);
        let next = self.prepare(header)?;
        self.switch_to(next)?;
        Ok(())
    }

    fn next_header(&self, end: End, previous_end: u64) -> SegmentHeader {
        SegmentHeader {
            segment: self.active.header().segment + 1,
            cluster_id: self.shared.options.cluster_id,
            lineage: self.shared.options.lineage,
            first_index: end.next_index,
            previous_term: end.last_term,
            chain: end.chain,
            previous_end,
        }
    }

    fn prepare(&self, header: SegmentHeader) -> Result<ActiveSegment, DiskFault> {
        let Shared { folder, options, .. } = &*self.shared;
        let head = Head::new(&header, self.hard_state.as_ref(), &Carried::default());
        ActiveSegment::prepare(folder, header, &head, options.segment_bytes)
    }

    fn switch_to(&mut self, mut next: ActiveSegment) -> Result<(), DiskFault> {
        next.publish(&self.shared.folder)?;
        let segment = segment_of(&next);
        self.shared.lock().segments.insert(next.header().segment, segment);
        self.active = next;
        self.sealed_end = None;
        Ok(())
    }

    fn report_sealed(&self) {
        let mut state = self.shared.lock();
        let Some(segment) = state.segments.get_mut(&self.active.header().segment) else { return };
        segment.summary.sealed = true;
        segment.summary.bytes = self.active.end();
        segment.summary.next_index = self.end.next_index;
        let summary = segment.summary.clone();
        drop(state);
        let listener = self.shared.on_seal.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(listener) = listener {
            listener(&summary);
        }
    }

    /// A new first segment after a snapshot. The order makes each crash either the old log or the
    /// new one: the segment is durable under its temporary name before the standing names it, and
    /// opening gives it its name.
    fn reset(&mut self, bound: Bound) -> Result<(), Failure> {
        let Bound { index, term, chain } = bound;
        let end = End { next_index: index + 1, last_term: term, chain };
        let header = self.next_header(end, 0);
        let next = self.prepare(header)?;
        // The standing may name only what is there after a crash.
        self.shared.folder.sync()?;
        {
            let shared = SharedLog::clone(&self.shared);
            let mut standing = shared.standing.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(current) = standing.current() {
                // From here on a repetition could tear the file that the standing names.
                let changed = with_purged(current, header.segment, bound);
                standing.save(changed).map_err(Failure::Fatal)?;
            }
            self.switch_to(next).map_err(Failure::Fatal)?;
        }
        self.end = end;
        self.mark_owed = false;
        let removed = {
            let mut state = self.shared.lock();
            if let Some(item) = self.group.first() {
                state.visible.cut_written(item.epoch);
            }
            state.space_found();
            let kept = state.segments.split_off(&header.segment);
            std::mem::replace(&mut state.segments, kept)
        };
        for id in removed.into_keys() {
            if let Err(fault) = self.shared.folder.remove(&file_name(id)) {
                tracing::warn!(segment = id, %fault, "forgotten segment stays on disk");
            }
        }
        Ok(())
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
    Segment { file, summary }
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
