//! The index as everyone but its own thread sees it.

use std::collections::BTreeMap;
use std::io;
use std::ops::{Bound, Range};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::{Bytes, BytesMut};

use super::facts::{IndexedSegment, IndexedSnapshot};
use super::mark::Coverage;
use super::place::IndexDamage;
use super::postings::{Leaf, Posting, leaf_key};
use super::queue::{Offered, Queue};
use super::rows::{
    Applied, AppliedError, HistoryKind, effects_key, effects_key_parts, first_chunk, history_key,
    history_key_parts,
};
use super::store::{Store, StoreError, Tree};

/// Most rows that one call of [`Index::history`] answers with.
pub const HISTORY_ROWS_MAX: usize = 4_096;
/// Most entries with effects that one call of [`Index::effects`] answers with.
pub const EFFECTS_PAGE_ENTRIES_MAX: usize = 4_096;
/// Most bytes that one scan of the store brings into memory, about.
const SCAN_BYTES_MAX: usize = 1 << 20;

/// A handle of the index; clones are the same index.
#[derive(Debug, Clone)]
pub struct Index {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) queue: Queue,
    view: RwLock<View>,
}

/// What readers see; replaced by the worker only.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) store: Option<Store>,
    pub(super) state: IndexState,
    pub(super) coverage: Coverage,
    pub(super) segments: BTreeMap<u64, IndexedSegment>,
    /// What a reader found; the worker takes it and rebuilds.
    pub(super) found: Option<IndexDamage>,
}

/// What the index is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum IndexState {
    /// It has not been opened yet, or is being checked. Reads are refused.
    #[default]
    Opening,
    /// It answers within its coverage, which may still be growing.
    Serving,
    /// The disk refuses; it is tried again. Reads are refused.
    Refused {
        /// The refusal.
        kind: io::ErrorKind,
    },
    /// It broke too often in this run and is not tried again. Reads are refused.
    Off,
}

/// How the index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexStatus {
    /// What it is doing.
    pub state: IndexState,
    /// For which entries effects and histories are complete and durable.
    pub coverage: Coverage,
    /// Number of indexed segments.
    pub segments: usize,
    /// Bytes that wait in the queue.
    pub queue_bytes: usize,
    /// Offers that a full queue dropped since the start.
    pub dropped: u64,
}

/// A question that the index does not answer.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It is not serving (now).
    #[error("the index does not serve: {state:?}")]
    Unavailable {
        /// What it does instead.
        state: IndexState,
    },
    /// The question is about entries that it does not cover yet. Wait until it does.
    #[error("the index covers entries below {end} only")]
    NotYet {
        /// The first entry that is not covered.
        end: u64,
    },
    /// The question is about entries that it will never cover again.
    #[error("the index covers entries from {start} on only")]
    Gone {
        /// The first entry that is covered.
        start: u64,
    },
    /// The segment is not indexed (yet, or any more).
    #[error("segment {segment} is not indexed")]
    UnknownSegment {
        /// Its id.
        segment: u64,
    },
    /// The disk refused.
    #[error("the index's disk")]
    Disk(#[source] io::Error),
}

/// Effects of consecutive entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectsPage {
    /// Entries that have effects, and their effects.
    pub effects: Vec<(u64, Bytes)>,
    /// The first entry that was not looked at.
    pub next: u64,
}

/// A row of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// The entry that left it.
    pub entry: u64,
    /// Its place within the entry.
    pub ordinal: u16,
    /// The caller's bytes.
    pub value: Bytes,
}

/// A failure inside of a read, before it is told apart.
enum Failure {
    Store(StoreError),
    Damage(&'static str),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Index {
    /// What it was offered was wrong: it is moved aside and made again from the log.
    pub fn distrust(&self, what: &'static str) {
        self.shared.view_mut().found = Some(IndexDamage::Incomplete { what });
    }

    /// Hands in what the application of an entry left behind. Every applied entry is offered, in
    /// order, also one that left nothing; never waits.
    ///
    /// # Errors
    /// [`AppliedError`] when it breaks a limit. The index will not cover that entry.
    pub fn offer(&self, applied: Applied) -> Result<Offered, AppliedError> {
        self.shared.queue.offer(applied)
    }

    /// Wakes the worker: a segment was sealed, the log was purged, a snapshot was made.
    pub fn wake(&self) {
        self.shared.queue.wake();
    }

    /// Asks the worker to write what it may, and to end.
    pub fn close(&self) {
        self.shared.queue.close();
    }

    /// How the index is.
    #[must_use]
    pub fn status(&self) -> IndexStatus {
        let view = self.shared.view();
        IndexStatus {
            state: view.state.clone(),
            coverage: view.coverage,
            segments: view.segments.len(),
            queue_bytes: self.shared.queue.bytes(),
            dropped: self.shared.queue.dropped(),
        }
    }

    /// For which entries effects and histories are complete and durable. No snapshot may be taken
    /// at or past its end: the entries behind that snapshot could not be indexed again.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        self.shared.view().coverage
    }

    /// The indexed segments, oldest first.
    #[must_use]
    pub fn segments(&self) -> Vec<IndexedSegment> {
        self.shared.view().segments.values().copied().collect()
    }

    /// Effects of the entries of a range, in order: at most about `bytes_max` bytes and
    /// [`EFFECTS_PAGE_ENTRIES_MAX`] entries, and at least one entry is looked at. The page may end
    /// before the range; go on at [`EffectsPage::next`].
    ///
    /// # Errors
    /// [`IndexError::Gone`] or [`IndexError::NotYet`] when the range's first entry is not covered;
    /// a range that runs past the coverage is answered up to there.
    pub fn effects(
        &self,
        entries: Range<u64>,
        bytes_max: usize,
    ) -> Result<EffectsPage, IndexError> {
        let coverage = self.serving()?.1;
        if entries.is_empty() {
            return Ok(EffectsPage { effects: Vec::new(), next: entries.start });
        }
        covered(coverage, entries.start)?;
        let end = entries.end.min(coverage.end);
        self.read(|store| read_effects(store, entries.start..end, bytes_max))
    }

    /// The history of a key in a range of entries, oldest first, at most [`HISTORY_ROWS_MAX`]
    /// rows. Rows below the coverage may be there, but are not promised to be all.
    ///
    /// # Errors
    /// [`IndexError`] when the index does not serve.
    pub fn history(
        &self,
        kind: HistoryKind,
        key: &[u8],
        entries: Range<u64>,
    ) -> Result<Vec<HistoryRow>, IndexError> {
        let coverage = self.serving()?.1;
        let end = entries.end.min(coverage.end);
        self.read(|store| {
            let (start, end) = (history_key(key, entries.start, 0), history_key(key, end, 0));
            let range = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
            let page = store.scan(kind.tree(), range, HISTORY_ROWS_MAX, usize::MAX)?;
            page.items.into_iter().map(|(key, value)| row(&key, value)).collect()
        })
    }

    /// The newest row of a key's history below an entry: what was so just before it.
    ///
    /// # Errors
    /// [`IndexError`] when the index does not serve, or does not cover the entries below yet.
    pub fn history_before(
        &self,
        kind: HistoryKind,
        key: &[u8],
        entry: u64,
    ) -> Result<Option<HistoryRow>, IndexError> {
        let coverage = self.serving()?.1;
        if entry > coverage.end {
            return Err(IndexError::NotYet { end: coverage.end });
        }
        self.read(|store| {
            let (start, end) = (history_key(key, 0, 0), history_key(key, entry, 0));
            let range = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
            let found = store.last(kind.tree(), range)?;
            found.map(|(key, value)| row(&key, value)).transpose()
        })
    }

    /// Which keys a history has, in order of length and bytes: at most `keys_max` after the given
    /// one.
    ///
    /// # Errors
    /// [`IndexError`] when the index does not serve.
    pub fn history_keys(
        &self,
        kind: HistoryKind,
        after: Option<&[u8]>,
        keys_max: usize,
    ) -> Result<Vec<Bytes>, IndexError> {
        self.read(|store| {
            let mut keys: Vec<Bytes> = Vec::new();
            let mut from = after.map(|key| history_key(key, u64::MAX, u16::MAX));
            while keys.len() < keys_max {
                let start = from.as_ref().map_or(Bound::Unbounded, |k| Bound::Excluded(&k[..]));
                let page = store.scan(kind.tree(), (start, Bound::Unbounded), 1, usize::MAX)?;
                let Some((row, _)) = page.items.first() else { break };
                let (key, _, _) =
                    history_key_parts(row).ok_or(Failure::Damage("a history's key"))?;
                from = Some(history_key(&key, u64::MAX, u16::MAX));
                keys.push(key);
            }
            Ok(keys)
        })
    }

    /// Where a key occurs in an indexed segment, in the order of its records. What the key function
    /// said when the segment was indexed: read the record and look.
    ///
    /// # Errors
    /// [`IndexError::UnknownSegment`] when the segment is not indexed.
    pub fn postings(&self, segment: u64, key: &[u8]) -> Result<Vec<Posting>, IndexError> {
        self.serving()?;
        let facts = self.shared.view().segments.get(&segment).copied();
        let facts = facts.ok_or(IndexError::UnknownSegment { segment })?;
        self.read(|store| read_postings(store, &facts, key))
    }

    /// The snapshots that the index knows, oldest first.
    ///
    /// # Errors
    /// [`IndexError`] when the index does not serve.
    pub fn snapshots(&self) -> Result<Vec<IndexedSnapshot>, IndexError> {
        self.read(|store| {
            let all = (Bound::Unbounded, Bound::Unbounded);
            let page = store.scan(Tree::Snapshots, all, usize::MAX, usize::MAX)?;
            let decoded = |(key, value): &(Bytes, Bytes)| IndexedSnapshot::decode(key, value);
            let snapshots: Option<Vec<_>> = page.items.iter().map(decoded).collect();
            snapshots.ok_or(Failure::Damage("a snapshot's row"))
        })
    }

    fn serving(&self) -> Result<(Store, Coverage), IndexError> {
        let view = self.shared.view();
        match (&view.store, &view.state) {
            (Some(store), IndexState::Serving) => Ok((store.clone(), view.coverage)),
            (_, state) => Err(IndexError::Unavailable { state: state.clone() }),
        }
    }

    fn read<T>(&self, read: impl FnOnce(&Store) -> Result<T, Failure>) -> Result<T, IndexError> {
        let (store, _) = self.serving()?;
        let damage = match read(&store) {
            Ok(answer) => return Ok(answer),
            Err(Failure::Store(StoreError::Disk { source, .. })) => {
                return Err(IndexError::Disk(source));
            }
            Err(Failure::Store(StoreError::Broken { call, what })) => {
                IndexDamage::Broken { call, what }
            }
            Err(Failure::Damage(what)) => IndexDamage::Incomplete { what },
        };
        self.shared.report(&store, damage);
        Err(IndexError::Unavailable { state: IndexState::Opening })
    }
}

impl Shared {
    pub(super) fn view(&self) -> RwLockReadGuard<'_, View> {
        // Every change under the lock is complete before the lock can be poisoned.
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn view_mut(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the worker that a reader found damage, if the store is still the one it read.
    fn report(&self, store: &Store, damage: IndexDamage) {
        let mut view = self.view_mut();
        if view.store.as_ref().is_some_and(|now| now.is_same(store)) {
            view.state = IndexState::Opening;
            view.found.get_or_insert(damage);
        }
        drop(view);
        self.queue.wake();
    }
}

fn covered(coverage: Coverage, entry: u64) -> Result<(), IndexError> {
    if entry < coverage.start {
        Err(IndexError::Gone { start: coverage.start })
    } else if entry >= coverage.end {
        Err(IndexError::NotYet { end: coverage.end })
    } else {
        Ok(())
    }
}

fn row(key: &Bytes, value: Bytes) -> Result<HistoryRow, Failure> {
    let (_, entry, ordinal) = history_key_parts(key).ok_or(Failure::Damage("a history's key"))?;
    Ok(HistoryRow { entry, ordinal, value })
}

fn read_effects(
    store: &Store,
    entries: Range<u64>,
    bytes_max: usize,
) -> Result<EffectsPage, Failure> {
    const DAMAGE: Failure = Failure::Damage("an entry's effects");
    let mut effects: Vec<(u64, Bytes)> = Vec::new();
    let mut bytes = 0;
    let mut next = entries.start;
    // The chunks of the entry that is being put together, and how many there are to be.
    let mut open: Option<(u64, BytesMut, u16, u16)> = None;
    loop {
        let full = bytes >= bytes_max || effects.len() >= EFFECTS_PAGE_ENTRIES_MAX;
        if full && open.is_none() && !effects.is_empty() {
            return Ok(EffectsPage { effects, next });
        }
        let chunk = open.as_ref().map_or(0, |(_, _, chunk, _)| *chunk);
        let (start, end) = (effects_key(next, chunk), effects_key(entries.end, 0));
        let range = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
        let page = store.scan(Tree::Effects, range, 512, SCAN_BYTES_MAX)?;
        for (key, value) in page.items {
            let (entry, chunk) = effects_key_parts(&key).ok_or(DAMAGE)?;
            let (whole, more) = match open.take() {
                None => {
                    if bytes >= bytes_max && !effects.is_empty() {
                        return Ok(EffectsPage { effects, next: entry });
                    }
                    let (count, first) =
                        first_chunk(&value).filter(|_| chunk == 0).ok_or(DAMAGE)?;
                    (BytesMut::from(&first[..]), count - 1)
                }
                Some((of, mut whole, expected, more)) => {
                    if (of, expected) != (entry, chunk) {
                        return Err(DAMAGE);
                    }
                    whole.extend_from_slice(&value);
                    (whole, more - 1)
                }
            };
            bytes += value.len();
            if more > 0 {
                next = entry;
                open = Some((entry, whole, chunk + 1, more));
            } else {
                next = entry + 1;
                effects.push((entry, whole.freeze()));
            }
        }
        if page.complete {
            return if open.is_some() {
                Err(DAMAGE)
            } else {
                Ok(EffectsPage { effects, next: entries.end })
            };
        }
    }
}

fn read_postings(
    store: &Store,
    segment: &IndexedSegment,
    key: &[u8],
) -> Result<Vec<Posting>, Failure> {
    let leaf = |number: u32| -> Result<Leaf, Failure> {
        let bytes = store.get(Tree::Postings, &leaf_key(segment.id, number))?;
        bytes.and_then(|bytes| Leaf::decode(&bytes)).ok_or(Failure::Damage("a leaf of postings"))
    };
    // The first leaf that reaches the key, by halving.
    let (mut low, mut high) = (0, segment.leaves);
    while low < high {
        let middle = low + (high - low) / 2;
        if leaf(middle)?.reaches(key) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    let mut postings = Vec::new();
    for number in low..segment.leaves {
        let leaf = leaf(number)?;
        postings.extend_from_slice(leaf.postings(key));
        if !leaf.may_go_on(key) {
            break;
        }
    }
    Ok(postings)
}
