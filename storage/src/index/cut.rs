//! Clears up behind the log's purge, a page at a time.
//!
//! Order matters for a crash in between: first the rows that go are counted, then the mark stops
//! promising them, then they are removed. Rows of `config` stay: they are few, and a history that
//! is older than the log is still a history, only one that could not be rebuilt.

use std::ops::Bound;

use bytes::Bytes;

use super::facts::IndexedSegment;
use super::handle::Shared;
use super::mark::{Coverage, MARKED, Mark, Sum};
use super::postings::leaf_key;
use super::rows::{effects_key, entry_of};
use super::serving::{ROWS_PER_STEP, Serving, Trouble};
use super::store::{BATCH_KEYS_MAX, Batch, Page, StoreError, Tree};
use crate::log::append_log::SegmentSummary;

/// Trees whose rows below the coverage are removed.
const CLEARED: [Tree; 2] = [Tree::Effects, Tree::Sessions];

/// How far the clearing is.
#[derive(Debug, Default)]
pub(super) enum Cut {
    /// Nothing to do, as far as is known.
    #[default]
    Idle,
    /// Adding up what the mark will promise no more.
    Counting { upto: u64, walk: Walk, sum: Sum },
    /// Removing rows below the mark's start.
    Removing { upto: u64, walk: Walk },
    /// Removing postings of segments below this one.
    Postings { below: u64 },
}

/// A walk over trees, page by page.
#[derive(Debug, Default)]
pub(super) struct Walk {
    tree: usize,
    after: Option<Bytes>,
}

impl Cut {
    /// Does one page; `true` when there was something to do.
    pub(super) fn step(
        &mut self,
        serving: &mut Serving,
        shared: &Shared,
        first_index: u64,
        segments: &[SegmentSummary],
    ) -> Result<bool, Trouble> {
        match std::mem::take(self) {
            Self::Idle => {
                let coverage = serving.mark.coverage;
                let upto = first_index.min(coverage.end);
                if upto > coverage.start {
                    *self = Self::Counting { upto, walk: Walk::default(), sum: Sum::default() };
                    return Ok(true);
                }
                if forget_segments(serving, shared, segments)? {
                    let below = segments.iter().map(|segment| segment.id).min();
                    *self = below.map_or(Self::Idle, |below| Self::Postings { below });
                    return Ok(true);
                }
                Ok(false)
            }
            // The coverage began anew above: there is nothing left to stop promising.
            Self::Counting { upto, .. } if serving.mark.coverage.start >= upto => {
                *self = Self::Removing { upto, walk: Walk::default() };
                Ok(true)
            }
            Self::Counting { upto, mut walk, mut sum } => {
                let going = Coverage { start: serving.mark.coverage.start, end: upto };
                let Some((tree, page)) = walk.page(serving, &MARKED, going)? else {
                    let mut left = serving.mark.sum;
                    left.subtract(sum);
                    let coverage = Coverage { start: upto, end: serving.mark.coverage.end };
                    let mark = Mark { owner: serving.mark.owner, coverage, sum: left };
                    serving.set_mark(shared, mark)?;
                    *self = Self::Removing { upto, walk: Walk::default() };
                    return Ok(true);
                };
                for (key, value) in &page.items {
                    let goes = going.counts(tree, key);
                    if goes.ok_or_else(|| Trouble::incomplete("a row's key"))? {
                        sum.add(tree, key, value);
                    }
                }
                *self = Self::Counting { upto, walk, sum };
                Ok(true)
            }
            Self::Removing { upto, mut walk } => {
                let below = Coverage { start: 0, end: upto };
                if let Some((tree, page)) = walk.page(serving, &CLEARED, below)? {
                    let keys = page.items.into_iter().map(|(key, _)| key);
                    let gone = keys.filter(|key| entry_of(tree, key).is_some_and(|e| e < upto));
                    remove(serving, tree, gone)?;
                    *self = Self::Removing { upto, walk };
                }
                Ok(true)
            }
            Self::Postings { below } => {
                let end = leaf_key(below, 0);
                let range = (Bound::Unbounded, Bound::Excluded(&end[..]));
                let page = serving.store.scan(Tree::Postings, range, BATCH_KEYS_MAX, 1 << 20)?;
                remove(serving, Tree::Postings, page.items.into_iter().map(|(key, _)| key))?;
                if !page.complete {
                    *self = Self::Postings { below };
                }
                Ok(true)
            }
        }
    }
}

impl Walk {
    /// The next page of the given trees that can hold rows of a span of entries; `None` at the end.
    fn page(
        &mut self,
        serving: &Serving,
        trees: &[Tree],
        entries: Coverage,
    ) -> Result<Option<(Tree, Page)>, StoreError> {
        let Some(&tree) = trees.get(self.tree) else {
            return Ok(None);
        };
        // Effects are in the order of entries; histories are in the order of their keys.
        let ordered = tree == Tree::Effects;
        let (first, last) = (effects_key(entries.start, 0), effects_key(entries.end, 0));
        let start = match &self.after {
            Some(key) => Bound::Excluded(&key[..]),
            None if ordered => Bound::Included(&first[..]),
            None => Bound::Unbounded,
        };
        let end = if ordered { Bound::Excluded(&last[..]) } else { Bound::Unbounded };
        let page = serving.store.scan(tree, (start, end), ROWS_PER_STEP, 1 << 20)?;
        self.after = page.items.last().map(|(key, _)| key.clone());
        if page.complete {
            self.tree += 1;
            self.after = None;
        }
        Ok(Some((tree, page)))
    }
}

/// Drops the rows of segments that the log does not have any more; `true` when there were any.
fn forget_segments(
    serving: &Serving,
    shared: &Shared,
    segments: &[SegmentSummary],
) -> Result<bool, Trouble> {
    let gone: Vec<u64> = {
        let view = shared.view();
        let known = view.segments.keys().copied();
        known.filter(|id| segments.iter().all(|segment| segment.id != *id)).collect()
    };
    if gone.is_empty() {
        return Ok(false);
    }
    remove(serving, Tree::Segments, gone.iter().map(|id| IndexedSegment::key(*id)))?;
    let mut view = shared.view_mut();
    for id in gone {
        view.segments.remove(&id);
    }
    Ok(true)
}

fn remove(
    serving: &Serving,
    tree: Tree,
    keys: impl Iterator<Item = Bytes>,
) -> Result<(), StoreError> {
    let mut batch = Batch::new(tree);
    for key in keys {
        if batch.is_full() {
            serving.store.apply(&std::mem::replace(&mut batch, Batch::new(tree)))?;
        }
        batch.remove(key).expect("the key came from the store, and the batch has room");
    }
    if !batch.is_empty() {
        serving.store.apply(&batch)?;
    }
    Ok(())
}
