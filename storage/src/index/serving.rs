//! An opened store: first checked against its mark, then written to.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;

use super::cut::Cut;
use super::facts::{IndexedSegment, IndexedSnapshot};
use super::handle::Shared;
use super::mark::{Coverage, MARK_KEY, MARKED, Mark, Sum};
use super::place::IndexDamage;
use super::postings::{Posting, PostingsBuilder, leaf_key};
use super::queue::QUEUE_BYTES_MAX;
use super::rows::Applied;
use super::store::{Batch, Store, StoreError, Tree};
use super::worker::{IndexStep, KeyFunction, REPLAY_ENTRIES_MAX, Replay, ReplayRequest, Replayed};
use crate::error::ReadError;
use crate::log::append_log::{Log, SegmentSummary};
use crate::snapshot::Catalogue;

/// Rows that one step of checking or cutting looks at.
pub(super) const ROWS_PER_STEP: usize = 4_096;
/// Bytes of log that are in memory at a time while a segment is scanned.
const SCAN_BYTES: usize = 4 << 20;

/// An opened store whose content is compared with its mark.
pub(super) struct Check {
    pub(super) store: Store,
    pub(super) mark: Mark,
    pub(super) trees: std::vec::IntoIter<Tree>,
    pub(super) tree: Option<Tree>,
    pub(super) after: Option<Bytes>,
    pub(super) sum: Sum,
}

/// A store that is believed.
pub(super) struct Serving {
    pub(super) store: Store,
    pub(super) mark: Mark,
    pub(super) snapshots_seen: Option<u64>,
    pub(super) unreadable: BTreeSet<u64>,
    pub(super) cut: Cut,
}

/// Why a step ended early.
#[derive(Debug)]
pub(super) enum Trouble {
    Store(StoreError),
    Damage(IndexDamage),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Trouble {
    pub(super) fn incomplete(what: &'static str) -> Self {
        Self::Damage(IndexDamage::Incomplete { what })
    }
}

impl Check {
    /// Looks at one page; `true` when everything was looked at and is as the mark says.
    pub(super) fn page(&mut self, shared: &Shared) -> Result<bool, Trouble> {
        let Some(tree) = self.tree else {
            if self.sum != self.mark.sum {
                return Err(Trouble::incomplete("rows below the mark"));
            }
            let segments = known_segments(&self.store)?;
            shared.view_mut().segments = segments.into_iter().map(|s| (s.id, s)).collect();
            return Ok(true);
        };
        let start = self.after.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
        let page = self.store.scan(tree, (start, Bound::Unbounded), ROWS_PER_STEP, 1 << 20)?;
        for (key, value) in &page.items {
            let counts = self.mark.coverage.counts(tree, key);
            if counts.ok_or_else(|| Trouble::incomplete("a row's key"))? {
                self.sum.add(tree, key, value);
            }
        }
        self.after = page.items.last().map(|(key, _)| key.clone());
        if page.complete {
            self.tree = self.trees.next();
            self.after = None;
        }
        Ok(false)
    }
}

fn known_segments(store: &Store) -> Result<Vec<IndexedSegment>, Trouble> {
    let all = (Bound::Unbounded, Bound::Unbounded);
    let rows = store.scan(Tree::Segments, all, usize::MAX, usize::MAX)?;
    let mut segments = Vec::with_capacity(rows.items.len());
    for (key, value) in rows.items {
        let segment = IndexedSegment::decode(&key, &value);
        let segment = segment.ok_or_else(|| Trouble::incomplete("a segment's row"))?;
        if let Some(last) = segment.leaves.checked_sub(1) {
            let leaf = store.get(Tree::Postings, &leaf_key(segment.id, last))?;
            leaf.ok_or_else(|| Trouble::incomplete("a segment's last leaf"))?;
        }
        segments.push(segment);
    }
    Ok(segments)
}

impl Serving {
    pub(super) fn write(
        &mut self,
        shared: &Shared,
        applied: Vec<Applied>,
        end: u64,
    ) -> Result<IndexStep, Trouble> {
        let mut sum = self.mark.sum;
        let mut rows_written = false;
        let mut batches = MARKED.map(Batch::new);
        for row in applied.into_iter().flat_map(Applied::into_rows) {
            sum.add_row(&row);
            rows_written = true;
            for batch in batches.iter_mut().filter(|batch| batch.tree() == row.tree) {
                if batch.is_full() {
                    self.store.apply(&std::mem::replace(batch, Batch::new(row.tree)))?;
                }
                batch
                    .put(row.key.clone(), row.value.clone())
                    .expect("rows were checked against the store's limits, and the batch has room");
            }
        }
        for batch in batches.iter().filter(|batch| !batch.is_empty()) {
            self.store.apply(batch)?;
        }
        if rows_written {
            self.store.flush()?;
        }
        let coverage = Coverage { start: self.mark.coverage.start, end };
        self.set_mark(shared, Mark { owner: self.mark.owner, coverage, sum })?;
        Ok(IndexStep::Indexed { end })
    }

    pub(super) fn replay(
        &mut self,
        shared: &Shared,
        replay: &mut Replay,
        start: u64,
        end: u64,
    ) -> Result<IndexStep, Trouble> {
        let mut applied: Vec<Applied> = Vec::new();
        let mut bytes = 0;
        let mut rejected = None;
        let request = ReplayRequest { start, end, entries_max: REPLAY_ENTRIES_MAX };
        let replayed = replay(request, &mut |entry| {
            if rejected.is_some() || !(start..end).contains(&entry.entry) {
                return false;
            }
            if entry.check().is_err() {
                rejected = Some(entry.entry);
                return false;
            }
            bytes += entry.cost();
            applied.push(entry);
            bytes < QUEUE_BYTES_MAX
        });
        match (replayed, rejected) {
            // It can never be covered, so nothing at or below it is promised any more.
            (_, Some(entry)) => self.jump(shared, entry + 1),
            (Replayed::StartsAt(first), None) if first > start => self.jump(shared, first),
            (Replayed::UpTo(next), None) if next > start => {
                let next = next.min(end);
                applied.retain(|entry| entry.entry < next);
                self.write(shared, applied, next)
            }
            _ => Ok(IndexStep::Idle),
        }
    }

    /// Begins the coverage anew: what is below can never be complete.
    pub(super) fn jump(&mut self, shared: &Shared, entry: u64) -> Result<IndexStep, Trouble> {
        let coverage = Coverage { start: entry, end: entry };
        self.set_mark(shared, Mark { owner: self.mark.owner, coverage, sum: Sum::default() })?;
        Ok(IndexStep::Indexed { end: entry })
    }

    /// Writes and flushes the mark, then shows it to readers.
    pub(super) fn set_mark(&mut self, shared: &Shared, mark: Mark) -> Result<(), Trouble> {
        write_mark(&self.store, &mark)?;
        self.mark = mark;
        shared.view_mut().coverage = mark.coverage;
        Ok(())
    }

    pub(super) fn index_segment(
        &self,
        log: &Log,
        keys: &KeyFunction,
        segment: &SegmentSummary,
    ) -> Result<Result<IndexedSegment, ReadError>, Trouble> {
        let mut builder = PostingsBuilder::default();
        let mut next = segment.first_index.max(log.first_index());
        while next < segment.next_index {
            let records = match log.read_located(next..segment.next_index, SCAN_BYTES) {
                Ok(records) => records,
                Err(error) => return Ok(Err(error)),
            };
            let Some((_, last)) = records.last() else { break };
            next = last.index.saturating_add(1);
            for (place, record) in records.iter().filter(|(place, _)| place.segment == segment.id) {
                keys(record, &mut |key, position| {
                    builder.add(key, Posting { position, record_offset: place.offset });
                });
            }
        }
        let postings = builder.len() as u64;
        let leaves = builder.into_leaves();
        let mut batch = Batch::new(Tree::Postings);
        let mut count = 0;
        for leaf in leaves {
            if batch.is_full() {
                self.store.apply(&std::mem::replace(&mut batch, Batch::new(Tree::Postings)))?;
            }
            batch
                .put(leaf_key(segment.id, count), leaf)
                .expect("leaves are packed below the store's limits, and the batch has room");
            count += 1;
        }
        self.store.apply(&batch)?;
        self.store.flush()?;
        let indexed = IndexedSegment {
            id: segment.id,
            first_index: segment.first_index,
            next_index: segment.next_index,
            bytes: segment.bytes,
            postings,
            leaves: count,
        };
        let mut batch = Batch::new(Tree::Segments);
        batch
            .put(IndexedSegment::key(segment.id), indexed.encode())
            .expect("one small row fits a batch");
        self.store.apply(&batch)?;
        self.store.flush()?;
        Ok(Ok(indexed))
    }

    pub(super) fn write_snapshots(&self, catalogue: &Catalogue) -> Result<(), Trouble> {
        let kept: Vec<IndexedSnapshot> =
            catalogue.list().iter().map(IndexedSnapshot::from).collect();
        let all = (Bound::Unbounded, Bound::Unbounded);
        let known = self.store.scan(Tree::Snapshots, all, usize::MAX, usize::MAX)?;
        let wanted: std::collections::BTreeMap<Bytes, Bytes> =
            kept.iter().map(|snapshot| (snapshot.key(), snapshot.encode())).collect();
        let gone = known.items.iter().filter(|(key, _)| !wanted.contains_key(key));
        let changes = gone
            .map(|(key, _)| (key.clone(), None))
            .chain(wanted.iter().map(|(key, value)| (key.clone(), Some(value.clone()))));
        let mut batch = Batch::new(Tree::Snapshots);
        for (key, value) in changes {
            if batch.is_full() {
                self.store.apply(&std::mem::replace(&mut batch, Batch::new(Tree::Snapshots)))?;
            }
            match value {
                Some(value) => batch.put(key, value),
                None => batch.remove(key),
            }
            .expect("rows of snapshots are small, and the batch has room");
        }
        self.store.apply(&batch)?;
        Ok(self.store.flush()?)
    }

    /// Goes on with clearing up what the log has purged; `true` when there was something to do.
    pub(super) fn cut_some(
        &mut self,
        shared: &Shared,
        first_index: u64,
        segments: &[SegmentSummary],
    ) -> Result<bool, Trouble> {
        let mut cut = std::mem::take(&mut self.cut);
        let done = cut.step(self, shared, first_index, segments);
        self.cut = cut;
        done
    }
}

/// Writes the mark and makes it durable.
pub(super) fn write_mark(store: &Store, mark: &Mark) -> Result<(), StoreError> {
    let mut batch = Batch::new(Tree::Meta);
    batch.put(Bytes::from_static(MARK_KEY), mark.encode()).expect("one small row fits a batch");
    store.apply(&batch)?;
    store.flush()
}
