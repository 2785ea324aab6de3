//! What a log remembers while it is open, behind one lock.
//!
//! [`Visible`] is the log as readers see it; [`Queue`] is what the writer has not taken yet. The
//! writer reports back through [`Visible::written`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::disk::{Folder, NamedFile};
use crate::error::{DiskFault, LogError, ReadError};
use crate::log::append_log::{Completion, LogOptions, LogState, SealListener, SegmentSummary};
use crate::log::hard_state::NumberedState;
use crate::log::poison::Poisoned;
use crate::log::standing::{Bound, StandingFile};
use crate::log::visible::Visible;
use crate::record::Frame;

/// Shared between the handles and the writer.
pub(crate) struct Shared {
    pub(crate) folder: Folder,
    pub(crate) options: LogOptions,
    state: Mutex<State>,
    /// Told when something is queued, poisoned or closed.
    pub(crate) work: Condvar,
    /// Locks are taken in the order `spare`, `standing`, `state`.
    pub(crate) standing: Mutex<StandingFile>,
    pub(crate) on_seal: Mutex<Option<SealListener>>,
    /// Told when there is something to prepare, on poison and on close.
    pub(crate) ahead: Condvar,
    /// The file of the next segment, if it has been made. Whoever makes, takes or replaces that
    /// file holds the lock meanwhile.
    spare: Mutex<Option<Spare>>,
}

/// A file that waits to become a segment.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) id: u64,
    pub(crate) file: NamedFile,
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
            ahead: Condvar::new(),
            spare: Mutex::new(None),
        }
    }

    /// A file half made under the lock is not there yet; what follows makes it anew.
    pub(crate) fn lock_spare(&self) -> MutexGuard<'_, Option<Spare>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.ahead.notify_all();
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
    /// The newest segment whose file has been made ahead.
    pub(crate) spare: Option<u64>,
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
    /// The id of the segment after the active one.
    pub(crate) fn next_segment(&self) -> Option<u64> {
        self.segments.last_key_value().map(|(id, _)| id + 1)
    }

    /// The active segment is half full and the next file has not been made.
    pub(crate) fn is_spare_due(&self, options: &LogOptions) -> bool {
        let active = self.segments.last_key_value().map(|(_, segment)| &segment.summary);
        active.is_some_and(|active| active.bytes >= options.segment_bytes / 2)
            && self.next_segment() != self.spare
    }

    /// The oldest sealed segment whose footer may stand in the page cache only.
    pub(crate) fn unsettled(&self) -> Option<(u64, NamedFile)> {
        let unsettled = |segment: &&Segment| segment.summary.sealed && !segment.settled;
        let segment = self.segments.values().find(unsettled)?;
        Some((segment.summary.id, segment.file.clone()))
    }

    /// That footer is flushed.
    pub(crate) fn settled(&mut self, id: u64) {
        if let Some(segment) = self.segments.get_mut(&id) {
            segment.settled = true;
        }
    }

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
    /// Sealed, and its footer has been flushed.
    pub(crate) settled: bool,
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
