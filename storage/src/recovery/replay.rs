//! The log as its records tell it, one after the other.

use super::end_before;
use crate::format::read_u64;
use crate::log::hard_state::NumberedState;
use crate::log::points::Points;
use crate::log::standing::Bound;
use crate::log::visible::End;
use crate::record::{Damage, RecordKind, is_durable_mark};
use crate::segment::{Located, SegmentHeader};

/// What the records so far add up to.
#[derive(Debug)]
pub(crate) struct Replay {
    purged: Option<Bound>,
    /// `None` before the first header.
    end: Option<End>,
    hard_state: Option<NumberedState>,
    points: Points,
    /// Runs of equal terms: first index, term.
    terms: Vec<(u64, u64)>,
    records: u64,
    bytes: u64,
    /// The chain after the last purged entry, if that entry has been read.
    chain_at_bound: Option<u64>,
}

impl Replay {
    pub(crate) fn new(purged: Option<Bound>) -> Self {
        Self {
            purged,
            end: None,
            hard_state: None,
            points: Points::default(),
            terms: Vec::new(),
            records: 0,
            bytes: 0,
            chain_at_bound: None,
        }
    }

    /// Whether a segment with this header may come next.
    pub(super) fn follows(&self, header: &SegmentHeader, seed: u64) -> bool {
        match (self.end, self.purged) {
            (Some(end), _) => end == end_before(header),
            (None, None) => end_before(header) == End { next_index: 0, last_term: 0, chain: seed },
            // The header may stem from before a truncation, so its chain need not be the log's.
            (None, Some(bound)) => header.first_index <= bound.index + 1,
        }
    }

    /// Begins a segment that [`Self::follows`].
    pub(super) fn begin(&mut self, header: &SegmentHeader) {
        self.end = Some(end_before(header));
    }

    /// The end so far; before the first header it is the start of the log.
    pub(super) fn end(&self) -> End {
        self.end.unwrap_or(End { next_index: 0, last_term: 0, chain: 0 })
    }

    pub(super) fn next_index(&self) -> Option<u64> {
        self.end.map(|end| end.next_index)
    }

    /// The first index that has not been read, for reports.
    pub(super) fn index_or_start(&self) -> u64 {
        let start = self.purged.map_or(0, |bound| bound.index + 1);
        self.next_index().unwrap_or(start)
    }

    pub(super) fn hard_state(&self) -> Option<&NumberedState> {
        self.hard_state.as_ref()
    }

    /// Whether the log leads through the purge point and beyond it, as it did when that was set.
    pub(super) fn leads_through_bound(&self) -> bool {
        let Some(bound) = self.purged else { return true };
        self.end().next_index > bound.index
            && self.chain_at_bound.is_none_or(|chain| chain == bound.chain)
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn into_places(self) -> (Points, Vec<(u64, u64)>) {
        (self.points, self.terms)
    }

    /// Takes one record, unless it does not belong where it stands. Footers are the walker's.
    pub(super) fn accept(&mut self, located: &Located) -> Result<(), Damage> {
        let record = &located.record;
        match record.kind {
            RecordKind::Blank | RecordKind::Commands | RecordKind::Membership => {
                self.accept_entry(located)?;
            }
            RecordKind::HardState => {
                let newer =
                    self.hard_state.as_ref().is_none_or(|newest| newest.number < record.index);
                if newer {
                    let state = bytes::Bytes::copy_from_slice(&record.payload);
                    self.hard_state = Some(NumberedState { number: record.index, state });
                }
            }
            RecordKind::Durable => {
                if !is_durable_mark(&located.view(), located.position) {
                    return Err(Damage::Mark { kind: record.kind });
                }
            }
            RecordKind::Truncate => self.accept_truncate(located)?,
            RecordKind::Filler => {}
            RecordKind::Footer => return Err(Damage::Mark { kind: record.kind }),
        }
        self.records += 1;
        self.bytes += record.disk_bytes() as u64;
        Ok(())
    }

    fn accept_entry(&mut self, located: &Located) -> Result<(), Damage> {
        let record = &located.record;
        let end = self.end();
        if record.index != end.next_index {
            return Err(Damage::Index { expected: end.next_index, found: record.index });
        }
        if record.term < end.last_term {
            return Err(Damage::Term { last: end.last_term, found: record.term });
        }
        if located.previous_chain != end.chain {
            return Err(Damage::Chain { expected: end.chain, found: located.previous_chain });
        }
        let next_index = record.index.checked_add(1);
        let next_index = next_index.ok_or(Damage::Mark { kind: record.kind })?;
        if self.terms.last().is_none_or(|(_, term)| *term != record.term) {
            self.terms.push((record.index, record.term));
        }
        self.points.note(record.index, located.position);
        if self.purged.is_some_and(|bound| bound.index == record.index) {
            self.chain_at_bound = Some(located.chain());
        }
        self.end = Some(End { next_index, last_term: record.term, chain: located.chain() });
        Ok(())
    }

    fn accept_truncate(&mut self, located: &Located) -> Result<(), Damage> {
        let record = &located.record;
        let damage = Damage::Mark { kind: record.kind };
        let chain = read_u64(&record.payload, 0).ok_or(damage)?;
        let next_index = record.index;
        if next_index > self.end().next_index || record.payload.len() != 8 {
            return Err(damage);
        }
        let kept = self.terms.partition_point(|(first, _)| *first < next_index);
        self.terms.truncate(kept);
        self.points.truncate(next_index);
        self.end = Some(End { next_index, last_term: record.term, chain });
        Ok(())
    }
}
