//! The index's one thread, as steps that a thread drives.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::cut::Cut;
use super::facts::IndexedSegment;
use super::handle::{Index, IndexState, Shared};
use super::mark::{Coverage, MARK_KEY, MARKED, Mark, MarkError, Sum};
use super::place::{IndexDamage, IndexPlace, IndexReport, Opened};
use super::queue::Taken;
use super::rows::Applied;
use super::serving::{Check, Serving, Trouble, write_mark};
use super::store::{StoreError, Tree};
use crate::error::ReadError;
use crate::log::append_log::{Log, SegmentSummary};
use crate::record::Record;
use crate::snapshot::{Catalogue, Owner};

/// Most entries that one step asks to be replayed.
pub const REPLAY_ENTRIES_MAX: usize = 4_096;
/// After an index broke so often without having got anything done in between, it stays off until
/// the node starts again: the fault is not in its files.
pub const SET_ASIDE_MAX: u32 = 3;
/// Most entries with leftovers that one step writes.
const ENTRIES_PER_STEP_MAX: usize = 4_096;
/// Says which keys a record speaks of: each call of the second argument is one posting, of a key
/// and a position. Pure: the same record always gives the same.
pub type KeyFunction = Arc<dyn Fn(&Record, &mut dyn FnMut(&[u8], u64)) + Send + Sync>;

/// Makes again what the application of entries left behind, on a scratch state that starts from
/// the oldest kept snapshot. Gives each entry that left something to the second argument, in order;
/// when that answers `false`, no further entry is wanted in this call.
pub type Replay = Box<dyn FnMut(ReplayRequest, &mut dyn FnMut(Applied) -> bool) -> Replayed + Send>;

/// Hears of every growth of the coverage, on the worker's thread; must not block.
pub type ProgressListener = Arc<dyn Fn(Coverage) + Send + Sync>;

/// Which entries are wanted again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayRequest {
    /// The first.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// Most entries in this call.
    pub entries_max: usize,
}

/// What a replay did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// It gave everything from the start of the request up to, not including, this entry.
    UpTo(u64),
    /// Nothing below this entry can be made again: the oldest snapshot ends just before it.
    StartsAt(u64),
    /// Not at the moment; it is asked again later.
    NotNow,
}

/// What an index needs from those who know what is in the log.
pub struct IndexOptions {
    /// Which log it belongs to.
    pub owner: Owner,
    /// The keys of records.
    pub keys: KeyFunction,
    /// Makes again what was dropped or lost; without it the coverage jumps over gaps.
    pub replay: Option<Replay>,
    /// Hears of progress.
    pub on_progress: Option<ProgressListener>,
}

/// What a step did.
#[derive(Debug)]
pub enum IndexStep {
    /// There was nothing to do.
    Idle,
    /// Part of opening, checking or clearing up.
    Working,
    /// The index is rebuilt, for this reason. To be logged as a warning.
    Rebuilding(IndexReport),
    /// It is complete and durable below this entry.
    Indexed {
        /// The first entry that is not covered.
        end: u64,
    },
    /// A sealed segment was indexed.
    Segment(IndexedSegment),
    /// A segment could not be read; it is tried again after the next wait.
    Unreadable {
        /// Its id.
        segment: u64,
        /// Why.
        error: ReadError,
    },
    /// The disk refused; it is tried again after the next wait.
    Refused {
        /// In which call.
        call: &'static str,
        /// The refusal.
        error: io::Error,
    },
    /// It broke [`SET_ASIDE_MAX`] times in a row and stays off.
    Off,
    /// [`Index::close`] was called and everything that could be written is durable.
    Closed,
}

/// Owns the index; see the module's head.
pub struct IndexWorker {
    shared: Arc<Shared>,
    place: IndexPlace,
    log: Log,
    catalogue: Option<Arc<Catalogue>>,
    options: IndexOptions,
    phase: Phase,
    trouble: TroubleState,
}

/// What went wrong so far.
#[derive(Debug, Default)]
struct TroubleState {
    /// Found, but the place could not be given up yet.
    pending: Option<IndexDamage>,
    times_set_aside: u32,
    /// The next opening makes a new index, and everyone knows why.
    reported: bool,
    /// The disk refused: wait before the next try.
    pause: bool,
}

enum Phase {
    Closed,
    Checking(Check),
    Serving(Serving),
    Off,
}

impl IndexWorker {
    /// Makes the handle and the worker. Nothing is opened before the first step, so an index can
    /// neither delay nor stop a node's start.
    #[must_use]
    pub fn new(
        place: IndexPlace,
        log: Log,
        catalogue: Option<Arc<Catalogue>>,
        options: IndexOptions,
    ) -> (Index, Self) {
        let shared = Arc::new(Shared::default());
        let index = Index { shared: Arc::clone(&shared) };
        let on_seal = index.clone();
        log.on_seal(Arc::new(move |_: &SegmentSummary| on_seal.wake()));
        let worker = Self {
            shared,
            place,
            log,
            catalogue,
            options,
            phase: Phase::Closed,
            trouble: TroubleState::default(),
        };
        (index, worker)
    }

    /// Does one bounded piece of work. With nothing urgent to do it first waits, at most as long
    /// as given, so that what apply leaves behind is written in batches; `None` does not wait.
    pub fn step(&mut self, wait: Option<Duration>) -> IndexStep {
        if std::mem::take(&mut self.trouble.pause) {
            self.wait(wait);
        }
        let found = self.shared.view_mut().found.take().or_else(|| self.trouble.pending.take());
        let done = match found {
            Some(damage) => Err(Trouble::Damage(damage)),
            None => self.try_step(wait),
        };
        match done {
            Ok(step) => step,
            Err(Trouble::Store(StoreError::Disk { call, source })) => self.refused(call, source),
            Err(Trouble::Store(StoreError::Broken { call, what })) => {
                self.set_aside(IndexDamage::Broken { call, what })
            }
            Err(Trouble::Damage(damage)) => self.set_aside(damage),
        }
    }

    fn try_step(&mut self, wait: Option<Duration>) -> Result<IndexStep, Trouble> {
        match &mut self.phase {
            Phase::Off => {
                self.wait(wait);
                Ok(if self.shared.queue.is_closed() { IndexStep::Closed } else { IndexStep::Off })
            }
            Phase::Closed => self.open(),
            Phase::Checking(check) => {
                if check.page(&self.shared)? {
                    self.serve();
                }
                Ok(IndexStep::Working)
            }
            Phase::Serving(_) => self.work(wait),
        }
    }

    fn wait(&self, wait: Option<Duration>) {
        if let Some(time) = wait {
            self.shared.queue.wait(time);
        }
    }

    fn refused(&mut self, call: &'static str, error: io::Error) -> IndexStep {
        self.put_away(IndexState::Refused { kind: error.kind() });
        self.trouble.pause = true;
        IndexStep::Refused { call, error }
    }

    fn set_aside(&mut self, damage: IndexDamage) -> IndexStep {
        self.put_away(IndexState::Opening);
        let moved_to = match self.place.move_aside() {
            Ok(moved_to) => moved_to,
            Err(error) => {
                self.trouble.pending = Some(damage);
                return self.refused("move aside", error);
            }
        };
        self.trouble.times_set_aside += 1;
        self.trouble.reported = true;
        if self.trouble.times_set_aside > SET_ASIDE_MAX {
            self.shared.view_mut().state = IndexState::Off;
            self.phase = Phase::Off;
        }
        IndexStep::Rebuilding(IndexReport { damage, moved_to })
    }

    /// Lets go of the store; readers that are in a call of it finish that call.
    fn put_away(&mut self, state: IndexState) {
        let mut view = self.shared.view_mut();
        view.state = state;
        view.found = None;
        view.segments.clear();
        view.coverage = Coverage::default();
        let store = view.store.take();
        drop(view);
        self.phase = Phase::Closed;
        drop(store);
    }

    fn open(&mut self) -> Result<IndexStep, Trouble> {
        let Opened { store, fresh } = self.place.open()?;
        let mut step = IndexStep::Working;
        let mark = match store.get(Tree::Meta, MARK_KEY)? {
            Some(bytes) => self.known_mark(&bytes)?,
            None if fresh => {
                let start = self.log.first_index();
                let coverage = Coverage { start, end: start };
                let mark = Mark { owner: self.options.owner, coverage, sum: Sum::default() };
                write_mark(&store, &mark)?;
                if !std::mem::take(&mut self.trouble.reported) && self.log.last().is_some() {
                    let damage = IndexDamage::Missing;
                    step = IndexStep::Rebuilding(IndexReport { damage, moved_to: None });
                }
                mark
            }
            None => return Err(Trouble::incomplete("the mark")),
        };
        let mut trees = MARKED.to_vec().into_iter();
        let tree = trees.next();
        self.phase =
            Phase::Checking(Check { store, mark, trees, tree, after: None, sum: Sum::default() });
        Ok(step)
    }

    fn known_mark(&self, bytes: &[u8]) -> Result<Mark, Trouble> {
        let mark = Mark::decode(bytes).map_err(|error| match error {
            MarkError::Torn => Trouble::incomplete("the mark"),
            MarkError::Format(found) => Trouble::Damage(IndexDamage::Format { found }),
        })?;
        let Owner { cluster_id, lineage } = mark.owner;
        let log_end = self.log.next_index();
        if mark.owner != self.options.owner {
            Err(Trouble::Damage(IndexDamage::Foreign { cluster_id, lineage }))
        } else if mark.coverage.end > log_end {
            let indexed_end = mark.coverage.end;
            Err(Trouble::Damage(IndexDamage::AheadOfLog { indexed_end, log_end }))
        } else {
            Ok(mark)
        }
    }

    fn serve(&mut self) {
        if let Phase::Checking(check) = std::mem::replace(&mut self.phase, Phase::Closed) {
            let mut view = self.shared.view_mut();
            view.store = Some(check.store.clone());
            view.coverage = check.mark.coverage;
            view.state = IndexState::Serving;
            self.phase = Phase::Serving(Serving {
                store: check.store,
                mark: check.mark,
                snapshots_seen: None,
                unreadable: BTreeSet::new(),
                cut: Cut::default(),
            });
        }
        self.progress();
    }

    fn progress(&self) {
        if let Some(listener) = &self.options.on_progress {
            let coverage = self.shared.view().coverage;
            listener(coverage);
        }
    }

    fn work(&mut self, wait: Option<Duration>) -> Result<IndexStep, Trouble> {
        if !self.shared.queue.is_urgent() && !self.shared.queue.is_closed() {
            if let Some(step) = self.background()? {
                return Ok(step);
            }
            self.wait(wait);
            if let Phase::Serving(serving) = &mut self.phase {
                serving.unreadable.clear();
            }
        }
        let before = self.shared.view().coverage;
        let step = self.advance()?;
        if self.shared.view().coverage != before {
            self.trouble.times_set_aside = 0;
            self.progress();
        }
        Ok(match step {
            IndexStep::Idle if self.shared.queue.is_closed() => IndexStep::Closed,
            step => step,
        })
    }

    /// One piece of the work that can wait.
    fn background(&mut self) -> Result<Option<IndexStep>, Trouble> {
        let Phase::Serving(serving) = &mut self.phase else {
            return Ok(None);
        };
        let segments = self.log.segments();
        let first_index = self.log.first_index();
        if serving.cut_some(&self.shared, first_index, &segments)? {
            return Ok(Some(IndexStep::Working));
        }
        if let Some(catalogue) = &self.catalogue {
            let generation = catalogue.generation();
            if serving.snapshots_seen != Some(generation) {
                serving.write_snapshots(catalogue)?;
                serving.snapshots_seen = Some(generation);
                return Ok(Some(IndexStep::Working));
            }
        }
        // An entry that was applied is committed and never truncated again, so what is written
        // about a segment of such entries stays true.
        let durable_end = self.log.durable().map_or(0, |index| index.saturating_add(1));
        let settled = durable_end.min(self.shared.queue.offered_end());
        let next = {
            let view = self.shared.view();
            segments.into_iter().find(|segment| {
                segment.sealed
                    && segment.next_index <= settled
                    && !view.segments.contains_key(&segment.id)
                    && !serving.unreadable.contains(&segment.id)
            })
        };
        let Some(segment) = next else {
            return Ok(None);
        };
        match serving.index_segment(&self.log, &self.options.keys, &segment)? {
            Ok(indexed) => {
                self.shared.view_mut().segments.insert(indexed.id, indexed);
                self.trouble.times_set_aside = 0;
                Ok(Some(IndexStep::Segment(indexed)))
            }
            Err(error) => {
                serving.unreadable.insert(segment.id);
                Ok(Some(IndexStep::Unreadable { segment: segment.id, error }))
            }
        }
    }

    /// Writes what applied entries left behind, as far as those are durable.
    fn advance(&mut self) -> Result<IndexStep, Trouble> {
        let Phase::Serving(serving) = &mut self.phase else {
            return Ok(IndexStep::Idle);
        };
        let first_index = self.log.first_index();
        if serving.mark.coverage.end < first_index {
            // The log was reset behind a snapshot, or purged past what was indexed.
            return serving.jump(&self.shared, first_index);
        }
        let start = serving.mark.coverage.end;
        let durable_end = self.log.durable().map_or(0, |index| index.saturating_add(1));
        match self.shared.queue.take(start, durable_end, ENTRIES_PER_STEP_MAX) {
            Taken::Nothing => Ok(IndexStep::Idle),
            Taken::Entries { applied, end } => serving.write(&self.shared, applied, end),
            Taken::Gap { end } => {
                let end = end.min(durable_end);
                match &mut self.options.replay {
                    _ if end <= start => Ok(IndexStep::Idle),
                    Some(replay) => serving.replay(&self.shared, replay, start, end),
                    None => serving.jump(&self.shared, end),
                }
            }
        }
    }
}

impl std::fmt::Debug for IndexWorker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("IndexWorker").field("place", &self.place).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for IndexOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("IndexOptions").field("owner", &self.owner).finish_non_exhaustive()
    }
}
