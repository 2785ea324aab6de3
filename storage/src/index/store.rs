//! The two stores behind the index, under one shape: sled on a real disk, and an ordered map in
//! memory that loses its unflushed part at a crash, for simulation. What one promises the other
//! promises too; the contract suite at the bottom runs over both.

use std::io;
use std::ops::Bound;

use bytes::Bytes;

use super::in_memory::MemoryStore;
use super::on_sled::SledStore;

/// Most keys in one batch.
pub const BATCH_KEYS_MAX: usize = 1_024;
/// Values are shorter than this. A leaf of sled holds up to 16 of them and must stay below 4 MiB,
/// where sled would move it into a file of its own that it never makes durable.
pub const VALUE_BYTES_LIMIT: usize = 64 << 10;
/// Keys are at most this long: a topic path with an index behind it.
pub(super) const KEY_BYTES_MAX: usize = 2 << 10;

/// The trees of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tree {
    /// Sealed segments and how far each is indexed.
    Segments,
    /// Snapshot files.
    Snapshots,
    /// Per sealed segment, packed leaves of key → record offsets.
    Postings,
    /// Per entry, what its application did beyond the obvious: opaque.
    Effects,
    /// Histories of sessions: opaque key and log index → opaque value.
    Sessions,
    /// Histories of configuration: opaque key and log index → opaque value.
    Config,
    /// Marks of the index itself.
    Meta,
}

impl Tree {
    /// Every tree, in a fixed order.
    pub const ALL: [Self; 7] = [
        Self::Segments,
        Self::Snapshots,
        Self::Postings,
        Self::Effects,
        Self::Sessions,
        Self::Config,
        Self::Meta,
    ];

    /// The name on disk, which never changes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Segments => "segments",
            Self::Snapshots => "snapshots",
            Self::Postings => "postings",
            Self::Effects => "effects",
            Self::Sessions => "sessions",
            Self::Config => "config",
            Self::Meta => "meta",
        }
    }
}

/// Changes of one tree that become readable together.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    tree: Tree,
    changes: Vec<(Bytes, Option<Bytes>)>,
}

/// A change that a batch does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BatchError {
    /// The batch holds [`BATCH_KEYS_MAX`] keys already.
    #[error("the batch holds {BATCH_KEYS_MAX} keys already")]
    Full,
    /// The value is not below [`VALUE_BYTES_LIMIT`].
    #[error("a value of {bytes} bytes is not below {VALUE_BYTES_LIMIT}")]
    ValueTooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The key is longer than [`KEY_BYTES_MAX`].
    #[error("a key of {bytes} bytes is longer than {KEY_BYTES_MAX}")]
    KeyTooLarge {
        /// Its length.
        bytes: usize,
    },
}

impl Batch {
    /// An empty batch for one tree.
    pub(super) fn new(tree: Tree) -> Self {
        Self { tree, changes: Vec::new() }
    }

    /// The tree that it changes.
    pub(super) fn tree(&self) -> Tree {
        self.tree
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether it takes no further key.
    pub(super) fn is_full(&self) -> bool {
        self.changes.len() >= BATCH_KEYS_MAX
    }

    /// Adds a value. Of two under one key the later counts.
    ///
    /// # Errors
    /// [`BatchError`] when a limit is reached; the batch is unchanged then.
    pub(super) fn put(&mut self, key: Bytes, value: Bytes) -> Result<(), BatchError> {
        if value.len() >= VALUE_BYTES_LIMIT {
            return Err(BatchError::ValueTooLarge { bytes: value.len() });
        }
        self.change(key, Some(value))
    }

    /// Adds a removal.
    ///
    /// # Errors
    /// [`BatchError`] when a limit is reached; the batch is unchanged then.
    pub(super) fn remove(&mut self, key: Bytes) -> Result<(), BatchError> {
        self.change(key, None)
    }

    fn change(&mut self, key: Bytes, value: Option<Bytes>) -> Result<(), BatchError> {
        if self.is_full() {
            return Err(BatchError::Full);
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(BatchError::KeyTooLarge { bytes: key.len() });
        }
        self.changes.push((key, value));
        Ok(())
    }

    pub(super) fn changes(&self) -> &[(Bytes, Option<Bytes>)] {
        &self.changes
    }
}

/// Part of a tree, in key order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    /// Keys and values.
    pub(super) items: Vec<(Bytes, Bytes)>,
    /// Whether the range ends here; otherwise the next page begins after the last key.
    pub(super) complete: bool,
}

/// Why a store failed in a call.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// It panicked, or found its own files damaged. It must not be used again.
    #[error("the store failed in {call}: {what}")]
    Broken {
        /// Which call.
        call: &'static str,
        /// What it said, for people.
        what: String,
    },
    /// The disk refused (full, forbidden …). The store's content is not in doubt.
    #[error("the disk refused in {call}")]
    Disk {
        /// Which call.
        call: &'static str,
        /// The refusal.
        source: io::Error,
    },
}

/// One of the two stores.
#[derive(Debug, Clone)]
pub(super) enum Store {
    /// On a real disk.
    Sled(SledStore),
    /// In memory, for simulation.
    Memory(MemoryStore),
}

impl Store {
    /// Whether two handles are of one opening of one store.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sled(one), Self::Sled(other)) => one.is_same(other),
            (Self::Memory(one), Self::Memory(other)) => one.is_same(other),
            (Self::Sled(_), Self::Memory(_)) | (Self::Memory(_), Self::Sled(_)) => false,
        }
    }

    /// One value.
    pub(super) fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self {
            Self::Sled(store) => store.get(tree, key),
            Self::Memory(store) => Ok(store.get(tree, key)),
        }
    }

    /// The greatest key in a range and its value.
    pub(super) fn last(
        &self,
        tree: Tree,
        range: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        match self {
            Self::Sled(store) => store.last(tree, range),
            Self::Memory(store) => Ok(store.last(tree, range)),
        }
    }

    /// Keys and values of a range in order: at most `items_max`, and no further one once
    /// `bytes_max` are reached, so a page of a range that is not empty is not empty.
    pub(super) fn scan(
        &self,
        tree: Tree,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        items_max: usize,
        bytes_max: usize,
    ) -> Result<Page, StoreError> {
        if is_empty(range) {
            return Ok(Page { items: Vec::new(), complete: true });
        }
        match self {
            Self::Sled(store) => store.scan(tree, range, items_max, bytes_max),
            Self::Memory(store) => Ok(store.scan(tree, range, items_max, bytes_max)),
        }
    }

    /// Makes a batch readable; it is durable after the next [`Store::flush`].
    pub(super) fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        match self {
            Self::Sled(store) => store.apply(batch),
            Self::Memory(store) => {
                store.apply(batch);
                Ok(())
            }
        }
    }

    /// Makes everything applied durable.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        match self {
            Self::Sled(store) => store.flush(),
            Self::Memory(store) => store.flush(),
        }
    }
}

/// Fills a page from an ordered iterator; shared by both stores, so that they page alike.
pub(super) fn fill_page<E>(
    items: impl Iterator<Item = Result<(Bytes, Bytes), E>>,
    items_max: usize,
    bytes_max: usize,
) -> Result<Page, E> {
    let mut page = Page { items: Vec::new(), complete: false };
    let mut bytes = 0;
    for item in items {
        if page.items.len() >= items_max.max(1) || (bytes >= bytes_max && bytes > 0) {
            return Ok(page);
        }
        let (key, value) = item?;
        bytes += key.len() + value.len();
        page.items.push((key, value));
    }
    page.complete = true;
    Ok(page)
}

/// Whether a range can hold nothing; ordered maps refuse such a range by a panic.
fn is_empty(range: (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match range {
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start), Bound::Excluded(end))
        | (Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => start >= end,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}
