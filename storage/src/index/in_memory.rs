//! An ordered map in memory that forgets at a crash what was not flushed. The simulator's index.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::store::{Batch, Page, StoreError, Tree, fill_page};

/// The store. Clones are handles of one store, so a test keeps one over a crash of the rest.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    items: BTreeMap<(Tree, Bytes), Bytes>,
    /// What each key held before its changes since the last flush, newest last.
    undo: Vec<((Tree, Bytes), Option<Bytes>)>,
    flushes_to_fail: u32,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses everything that was applied since the last flush.
    pub fn crash(&self) {
        let mut shared = self.lock();
        while let Some((key, before)) = shared.undo.pop() {
            match before {
                Some(value) => shared.items.insert(key, value),
                None => shared.items.remove(&key),
            };
        }
        shared.flushes_to_fail = 0;
    }

    /// Loses everything, as when the directory is deleted.
    pub fn wipe(&self) {
        let mut shared = self.lock();
        shared.items.clear();
        shared.undo.clear();
    }

    /// Loses one durable key, as damage would.
    pub fn damage(&self, tree: Tree, key: &[u8]) {
        self.lock().items.remove(&(tree, Bytes::copy_from_slice(key)));
    }

    /// Makes the next flushes fail as a store that panics does, over wipes too.
    pub fn fail_flushes(&self, count: u32) {
        self.lock().flushes_to_fail = count;
    }

    /// Whether there is nothing in it, flushed or not.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().items.is_empty()
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    pub(super) fn get(&self, tree: Tree, key: &[u8]) -> Option<Bytes> {
        self.lock().items.get(&(tree, Bytes::copy_from_slice(key))).cloned()
    }

    pub(super) fn last(
        &self,
        tree: Tree,
        range: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Option<(Bytes, Bytes)> {
        self.lock()
            .items
            .range(within(tree, range))
            .rev()
            .find(|((t, _), _)| *t == tree)
            .map(|((_, key), value)| (key.clone(), value.clone()))
    }

    pub(super) fn scan(
        &self,
        tree: Tree,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        items_max: usize,
        bytes_max: usize,
    ) -> Page {
        let shared = self.lock();
        let items = shared
            .items
            .range(within(tree, range))
            .take_while(|((t, _), _)| *t == tree)
            .map(|((_, key), value)| Ok((key.clone(), value.clone())));
        let page: Result<Page, std::convert::Infallible> = fill_page(items, items_max, bytes_max);
        match page {
            Ok(page) => page,
            Err(never) => match never {},
        }
    }

    pub(super) fn apply(&self, batch: &Batch) {
        let mut shared = self.lock();
        for (key, value) in batch.changes() {
            let key = (batch.tree(), key.clone());
            let before = match value {
                Some(value) => shared.items.insert(key.clone(), value.clone()),
                None => shared.items.remove(&key),
            };
            shared.undo.push((key, before));
        }
    }

    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let mut shared = self.lock();
        if shared.flushes_to_fail > 0 {
            shared.flushes_to_fail -= 1;
            return Err(StoreError::Broken { call: "flush", what: "as the test asked".to_owned() });
        }
        shared.undo.clear();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Every change under the lock is complete before the lock can be poisoned.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type FullKey = (Tree, Bytes);

fn within(tree: Tree, range: (Bound<&[u8]>, Bound<&[u8]>)) -> (Bound<FullKey>, Bound<FullKey>) {
    let (start, end) = range;
    let whole = |key: &[u8]| (tree, Bytes::copy_from_slice(key));
    let start = match start {
        Bound::Unbounded => Bound::Included((tree, Bytes::new())),
        bound => bound.map(whole),
    };
    let end = match end {
        Bound::Unbounded => next(tree),
        bound => bound.map(whole),
    };
    (start, end)
}

/// The end of a tree: the beginning of the next one.
fn next(tree: Tree) -> Bound<FullKey> {
    match Tree::ALL.iter().find(|other| **other > tree) {
        Some(other) => Bound::Excluded((*other, Bytes::new())),
        None => Bound::Unbounded,
    }
}
