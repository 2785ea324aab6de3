//! From one segment to the next, and what is done for it ahead and afterwards.
//!
//! The head of the next segment and the group that no longer fits are one write and one flush, in a
//! file under a temporary name; that the file gets its name is the second flush. So a rotation costs
//! the writer one flush more than any other group. Two things are not waited for, and are the
//! [`Preparer`]'s: making the next file with its space, once the active segment is half full, and
//! flushing the footer of the one before. Without a preparer the writer makes the file by itself,
//! and footers stay in the page cache: opening writes a missing one again.

use std::sync::PoisonError;
use std::time::Duration;

use crate::disk::NamedFile;
use crate::error::DiskFault;
use crate::log::append_log::LogState;
use crate::log::group_commit::{Encoded, Failure, Writer, encode, segment_of};
use crate::log::log_state::{SharedLog, Spare, State};
use crate::log::poison::Poisoned;
use crate::log::standing::Bound;
use crate::log::visible::End;
use crate::recovery::with_purged;
use crate::segment::{
    ActiveSegment, Carried, Head, SegmentHeader, file_name, give_up_file, make_file,
};

impl Writer {
    /// Begins the next segment with the group that waits. Can be repeated after a full disk.
    pub(super) fn begin_next(&mut self) -> Result<Encoded, Failure> {
        let shared = SharedLog::clone(&self.shared);
        let mut spare = shared.lock_spare();
        let header = self.next_header(self.end, self.active.end());
        let file = spare.take().filter(|spare| spare.id == header.segment).map(|spare| spare.file);
        let (next, encoded) = self
            .write_next(header, file)
            .inspect_err(|_| give_up_file(&shared.folder, header.segment))?;
        self.switch_to(next)?;
        // Not earlier: until then the preparer would take the id for the next one.
        drop(spare);
        Ok(encoded)
    }

    /// Head and group, flushed under the temporary name.
    fn write_next(
        &mut self,
        header: SegmentHeader,
        file: Option<NamedFile>,
    ) -> Result<(ActiveSegment, Encoded), DiskFault> {
        let options = &self.shared.options;
        let file = match file {
            Some(file) => file,
            None => make_file(&self.shared.folder, header.segment, options.segment_bytes)?,
        };
        let mut next = ActiveSegment::begin(header, file, options.segment_bytes);
        let head = Head::new(&header, self.hard_state.as_ref(), &Carried::default());
        let (bytes, records) = head.into_parts();
        self.buffer.clear();
        self.buffer.extend_from_slice(&bytes);
        let encoded = encode(&self.group, self.end, &next, &mut self.buffer);
        next.append(&self.buffer, records + encoded.positions.len() as u64)?;
        next.publish(&self.shared.folder)?;
        Ok((next, encoded))
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

    /// Goes on in a segment that has its name; the one before is sealed.
    fn switch_to(&mut self, next: ActiveSegment) -> Result<(), DiskFault> {
        let successor = segment_of(&next);
        let mut before = std::mem::replace(&mut self.active, next);
        let End { next_index, last_term, .. } = self.end;
        match before.seal(next_index, last_term) {
            // A footer that finds no space is written at the next opening.
            Err(fault) if !fault.is_full() => return Err(fault),
            _ => {}
        }
        let summary = {
            let mut state = self.shared.lock();
            state.segments.insert(successor.summary.id, successor);
            state.segments.get_mut(&before.header().segment).map(|segment| {
                segment.summary.sealed = true;
                segment.summary.bytes = before.end();
                segment.summary.next_index = next_index;
                segment.summary.clone()
            })
        };
        self.shared.ahead.notify_one();
        let listener = self.shared.on_seal.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((listener, summary)) = listener.zip(summary) {
            listener(&summary);
        }
        Ok(())
    }

    /// A new first segment after a snapshot. The order makes each crash either the old log or the
    /// new one: the segment is durable under its temporary name before the standing names it, and
    /// opening gives it its name.
    pub(super) fn reset(&mut self, bound: Bound) -> Result<(), Failure> {
        let Bound { index, term, chain } = bound;
        let end = End { next_index: index + 1, last_term: term, chain };
        let header = self.next_header(end, 0);
        let shared = SharedLog::clone(&self.shared);
        // Its name is needed for the new first segment; until that has its own it stays ours.
        let mut spare = shared.lock_spare();
        *spare = None;
        let head = Head::new(&header, self.hard_state.as_ref(), &Carried::default());
        let segment_bytes = shared.options.segment_bytes;
        let next = ActiveSegment::prepare(&shared.folder, header, &head, segment_bytes)?;
        // The standing may name only what is there after a crash.
        shared.folder.sync()?;
        {
            let mut standing = shared.standing.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(current) = standing.current() {
                // From here on a repetition could tear the file that the standing names.
                let changed = with_purged(current, header.segment, bound);
                standing.save(changed).map_err(Failure::Fatal)?;
            }
            self.start_over(next).map_err(Failure::Fatal)?;
        }
        drop(spare);
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

    /// Goes on in the first segment of a log that was reset; what was before is forgotten.
    fn start_over(&mut self, mut next: ActiveSegment) -> Result<(), DiskFault> {
        next.publish(&self.shared.folder)?;
        let segment = segment_of(&next);
        self.shared.lock().segments.insert(next.header().segment, segment);
        self.active = next;
        Ok(())
    }
}

/// What a [`Preparer::step`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preparation {
    /// There is nothing to prepare.
    Idle,
    /// The file of the next segment is there, its space reserved.
    Prepared {
        /// The id that the segment will have.
        segment: u64,
    },
    /// The footer of a sealed segment is flushed.
    Settled {
        /// The segment's id.
        segment: u64,
    },
    /// There is no space for the next file; the writer will find out by itself, if it is so still.
    Full(DiskFault),
    /// Nothing will be flushed any more.
    Poisoned(Poisoned),
    /// The log was closed.
    Closed,
}

enum Task {
    Prepare,
    Settle(u64, NamedFile),
}

/// Does what the writer need not wait for; a thread beside the writer's drives it. There is no harm
/// in several, or in none.
#[derive(Debug)]
pub struct Preparer {
    shared: SharedLog,
}

impl Preparer {
    pub(crate) fn new(shared: SharedLog) -> Self {
        Self { shared }
    }

    /// Does one thing, waiting up to `wait` for it; `None` returns at once when there is nothing.
    pub fn step(&mut self, wait: Option<Duration>) -> Preparation {
        let shared = &self.shared;
        let task = {
            let patience = wait.unwrap_or(Duration::ZERO);
            let due =
                |state: &State| state.is_spare_due(&shared.options) || state.unsettled().is_some();
            let (state, _) = shared
                .ahead
                .wait_timeout_while(shared.lock(), patience, |state| {
                    !(due(state) || state.closed || matches!(state.health, LogState::Poisoned(_)))
                })
                .unwrap_or_else(PoisonError::into_inner);
            if let LogState::Poisoned(poisoned) = &state.health {
                return Preparation::Poisoned(poisoned.clone());
            }
            // The spare first: the writer may be about to need it.
            match state.unsettled() {
                _ if state.is_spare_due(&shared.options) && !state.closed => Task::Prepare,
                Some((id, file)) => Task::Settle(id, file),
                None if state.closed => return Preparation::Closed,
                None => return Preparation::Idle,
            }
        };
        let done = match task {
            Task::Prepare => self.prepare(),
            Task::Settle(id, file) => file.sync().map(|()| {
                shared.lock().settled(id);
                Preparation::Settled { segment: id }
            }),
        };
        done.unwrap_or_else(|fault| match Failure::from(fault) {
            Failure::Full(fault) => Preparation::Full(fault),
            Failure::Fatal(fault) => Preparation::Poisoned(shared.poison(fault)),
        })
    }

    fn prepare(&self) -> Result<Preparation, DiskFault> {
        let shared = &self.shared;
        let mut spare = shared.lock_spare();
        let id = {
            let state = shared.lock();
            // The writer may have gone on meanwhile.
            match state.next_segment() {
                Some(id) if state.is_spare_due(&shared.options) => id,
                _ => return Ok(Preparation::Idle),
            }
        };
        let file = make_file(&shared.folder, id, shared.options.segment_bytes)?;
        // With its space in the file system's own log, the writer's flush has less to carry.
        file.sync().inspect_err(|_| give_up_file(&shared.folder, id))?;
        *spare = Some(Spare { id, file });
        shared.lock().spare = Some(id);
        Ok(Preparation::Prepared { segment: id })
    }
}
