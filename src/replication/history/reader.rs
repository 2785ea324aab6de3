//! A reader of the journal that goes on from disk where the ring has let go.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_storage::Log;
use quorate_storage::snapshot::Catalogue;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::clock::Clock;

use crate::domain::id::Position;
use crate::replication::history::scratch::{Scratch, ScratchFault, reaches};
use crate::replication::journal::{Block, Journal, Read};
use crate::replication::members::mender::Mender;
use crate::supervisor::Supervisor;

/// Readers of one node that apply the log again at the same time, and scratch machines that are
/// kept between their turns; each may be as large as the state.
const READERS_AT_ONCE: usize = 2;
/// A scratch machine that nobody has used for so long is dropped.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Blocks that one turn on disk makes.
const BLOCKS_PER_TURN: usize = 1_024;

/// Where readers find the log; clones share it.
#[derive(Debug, Clone)]
pub(in crate::replication) struct History {
    journal: Journal,
    log: Log,
    catalogue: Arc<Catalogue>,
    turns: Arc<Semaphore>,
    /// Between turns, the longest unused first.
    idle: Arc<Mutex<VecDeque<(Scratch, Instant)>>>,
    supervisor: Supervisor,
    clock: Clock,
    mender: Mender,
}

impl History {
    pub(in crate::replication) fn new(
        journal: Journal,
        log: Log,
        catalogue: Arc<Catalogue>,
        supervisor: Supervisor,
        clock: Clock,
        mender: Mender,
    ) -> Self {
        let turns = Arc::new(Semaphore::new(READERS_AT_ONCE));
        Self { journal, log, catalogue, turns, idle: Arc::default(), supervisor, clock, mender }
    }

    pub(in crate::replication) fn reader(&self) -> JournalReader {
        JournalReader { history: self.clone(), ready: VecDeque::new(), made: 0..0 }
    }

    /// Drops scratch machines that nobody uses any more.
    pub(in crate::replication) fn forget_idle(&self) {
        self.idle().retain(|(_, since)| self.clock.since(*since) < IDLE_MAX);
    }

    /// Drops all of them: what they started from is not believed any more.
    pub(in crate::replication) fn forget_all(&self) {
        self.idle().clear();
    }

    /// The idle scratch machine that has the shortest way to `entry`.
    fn take_idle(&self, entry: u64) -> Option<Scratch> {
        let mut idle = self.idle();
        let near = idle.iter().enumerate().filter(|(_, (scratch, _))| scratch.next() <= entry);
        let best = near.max_by_key(|(_, (scratch, _))| scratch.next()).map(|(place, _)| place)?;
        idle.remove(best).map(|(scratch, _)| scratch)
    }

    fn put_idle(&self, scratch: Scratch) {
        let mut idle = self.idle();
        idle.push_back((scratch, self.clock.now()));
        if idle.len() > READERS_AT_ONCE {
            idle.pop_front();
        }
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<(Scratch, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all events after `position` can be read, from the ring or from disk.
    pub(in crate::replication) fn reaches(&self, position: Position) -> bool {
        match self.journal.after(position, 1) {
            Read::Gone { .. } => reaches(&self.log, &self.catalogue, first_entry(position)),
            Read::Blocks(_) | Read::CaughtUp => true,
        }
    }
}

/// The first entry that may hold events after `position`.
fn first_entry(position: Position) -> u64 {
    let entry = position.index.entry();
    if position >= Position::end_of_entry(entry) { entry + 1 } else { entry }
}

/// Reads the journal for one session: from the ring, or by applying the log again. Disk is read
/// in background turns; a session that keeps up never touches it.
#[derive(Debug)]
pub struct JournalReader {
    history: History,
    /// Made from disk and perhaps not yet read to their end: all blocks of the entries `made`.
    ready: VecDeque<Arc<Block>>,
    made: std::ops::Range<u64>,
}

impl JournalReader {
    /// As [`Journal::after`], and [`Read::Gone`] only for what neither the ring nor the disk holds.
    /// Reads on best from where the last read ended.
    pub async fn after(&mut self, position: Position, max_blocks: usize) -> Read {
        let mut position = position;
        loop {
            let oldest = match self.history.journal.after(position, max_blocks) {
                Read::Gone { oldest } => oldest,
                found => {
                    self.ready.clear();
                    self.made = 0..0;
                    return found;
                }
            };
            let start = first_entry(position);
            if !self.made.contains(&start) && !self.make(start, oldest).await {
                return Read::Gone { oldest };
            }
            let is_unread = |block: &&Arc<Block>| {
                block.events.last().is_some_and(|last| last.position > position)
            };
            let blocks: Vec<_> =
                self.ready.iter().filter(is_unread).take(max_blocks).cloned().collect();
            if !blocks.is_empty() {
                return Read::Blocks(blocks);
            }
            // No events up to where this turn on disk ended: the ring or another turn goes on.
            position = position.max(Position::end_of_entry(self.made.end.saturating_sub(1)));
        }
    }

    /// Makes the blocks of a page of entries from `start` on, no further than `last`; false when
    /// the log cannot tell.
    async fn make(&mut self, start: u64, last: u64) -> bool {
        let turns = Arc::clone(&self.history.turns);
        let Ok(_turn) = turns.acquire().await else { return false };
        loop {
            match self.turn(start, last).await {
                Some(Ok(())) => return true,
                Some(Err(error)) => {
                    // What is damaged is mended, or the reader starts anew.
                    let damage = error.damage().cloned();
                    let Some(damage) = damage else { return false };
                    if !self.history.mender.mended(&damage).await {
                        return false;
                    }
                }
                None => return false,
            }
        }
    }

    /// One turn on disk; none when the node stops.
    async fn turn(&mut self, start: u64, last: u64) -> Option<Result<(), ScratchFault>> {
        let former = self.history.take_idle(start);
        let (log, catalogue) = (self.history.log.clone(), Arc::clone(&self.history.catalogue));
        let turn = move || {
            let mut scratch = match former {
                Some(mut scratch) => {
                    scratch.seek(start)?;
                    scratch
                }
                None => Scratch::at(&log, &catalogue, start)?,
            };
            let mut blocks = VecDeque::new();
            let end = last.saturating_add(1);
            while scratch.next() < end && blocks.is_empty() {
                scratch.step(end, |entry, log_time_ms, applied| {
                    blocks.extend(Block::of(entry, log_time_ms, applied.events));
                    blocks.len() < BLOCKS_PER_TURN
                })?;
            }
            Ok::<_, ScratchFault>((scratch, blocks))
        };
        match self.history.supervisor.blocking("journal on disk", turn).await {
            Ok(Ok((scratch, blocks))) => {
                self.made = start..scratch.next();
                self.ready = blocks;
                self.history.put_idle(scratch);
                Some(Ok(()))
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, start, "the journal on disk does not reach that far");
                Some(Err(error))
            }
            Err(_) => None,
        }
    }
}
