//! The log as readers see it, ahead of the disk by what is queued.
//!
//! The newest entries are in memory, older ones are found through [`Points`]. What is not flushed
//! is always in memory. A truncation or reset takes effect here at once; flushes of entries that
//! were queued before it come in later and are told apart by their epoch.

use std::collections::VecDeque;

use crate::error::ReadError;
use crate::log::points::Points;
use crate::log::standing::Bound;
use crate::record::{Position, Record};

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
