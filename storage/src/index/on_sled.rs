//! The index on a real disk: the one file that names sled.
//!
//! sled 0.34.7 is used where it is good, as an ordered map that may be thrown away, and fenced
//! where it is not:
//! - its `flush` reaches the page cache only, so each flush here is followed by an `fdatasync` of
//!   its file, and the directory is made durable once it was created;
//! - records above a quarter of sled's segment go to files that sled never makes durable, so its
//!   segments are 16 MiB and our values below 64 KiB;
//! - it panics on damaged files, so the open and every call run under a guard, and a store that
//!   panicked once is not asked again.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::store::{Batch, Page, StoreError, Tree, fill_page};

/// Bytes of sled's own segments.
const SEGMENT_BYTES: usize = 16 << 20;
/// Bytes that sled is asked to keep in memory; it takes more when it scans.
const CACHE_BYTES: u64 = 16 << 20;
/// The file that holds everything, by the pinned version's naming.
const FILE: &str = "db";

/// An open sled. Clones share it.
#[derive(Clone)]
pub(super) struct SledStore {
    open: Arc<Open>,
}

struct Open {
    /// None only while it is dropped.
    inner: Option<Inner>,
}

struct Inner {
    db: sled::Db,
    trees: Vec<sled::Tree>,
    /// A second handle of sled's file, for the `fdatasync` that sled does not do.
    file: File,
}

impl SledStore {
    /// Opens the directory, or creates it.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        refuse_if_locked(&dir.join(FILE))?;
        let inner = guarded("open", || {
            let db = sled::Config::new()
                .path(dir)
                .cache_capacity(CACHE_BYTES)
                .segment_size(SEGMENT_BYTES)
                .flush_every_ms(None)
                .open()?;
            let mut trees = Vec::with_capacity(Tree::ALL.len());
            for tree in Tree::ALL {
                trees.push(db.open_tree(tree.name())?);
            }
            // The open created pages and perhaps files; they are durable before anything is said.
            db.flush()?;
            let file = File::options().read(true).write(true).open(dir.join(FILE))?;
            file.sync_all()?;
            File::open(dir)?.sync_all()?;
            if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
            Ok(Inner { db, trees, file })
        })?;
        Ok(Self { open: Arc::new(Open { inner: Some(inner) }) })
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.open, &other.open)
    }

    pub(super) fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let tree = self.tree(tree)?;
        guarded("get", || Ok(tree.get(key)?.map(|value| Bytes::copy_from_slice(&value))))
    }

    pub(super) fn last(
        &self,
        tree: Tree,
        range: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        let tree = self.tree(tree)?;
        guarded("last", || Ok(tree.range::<&[u8], _>(range).next_back().transpose()?.map(copied)))
    }

    pub(super) fn scan(
        &self,
        tree: Tree,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        items_max: usize,
        bytes_max: usize,
    ) -> Result<Page, StoreError> {
        let tree = self.tree(tree)?;
        guarded("scan", || {
            let items = tree.range::<&[u8], _>(range).map(|item| item.map(copied));
            fill_page(items, items_max, bytes_max)
        })
    }

    pub(super) fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        let tree = self.tree(batch.tree())?;
        guarded("apply", || {
            let mut changes = sled::Batch::default();
            for (key, value) in batch.changes() {
                match value {
                    Some(value) => changes.insert(&key[..], &value[..]),
                    None => changes.remove(&key[..]),
                }
            }
            tree.apply_batch(changes)
        })
    }

    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let inner = self.inner()?;
        guarded("flush", || {
            inner.db.flush()?;
            inner.file.sync_data()?;
            Ok(())
        })
    }

    fn inner(&self) -> Result<&Inner, StoreError> {
        self.open.inner.as_ref().ok_or_else(closed)
    }

    fn tree(&self, tree: Tree) -> Result<&sled::Tree, StoreError> {
        self.inner()?.trees.get(tree as usize).ok_or_else(closed)
    }
}

impl std::fmt::Debug for SledStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SledStore")
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // sled flushes when it is dropped, and panics there too when its files are damaged.
        // Whatever it says then has been said by an earlier call or does not matter any more.
        let inner = self.inner.take();
        let _: Result<(), _> = catch_unwind(AssertUnwindSafe(|| drop(inner)));
    }
}

fn closed() -> StoreError {
    StoreError::Broken { call: "get", what: "the store is closed".to_owned() }
}

fn copied((key, value): (sled::IVec, sled::IVec)) -> (Bytes, Bytes) {
    (Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value))
}

/// Runs one call of sled: a panic or a finding of damage is [`StoreError::Broken`], a refusal of
/// the disk is [`StoreError::Disk`].
fn guarded<T>(
    call: &'static str,
    run: impl FnOnce() -> Result<T, sled::Error>,
) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(source))) if is_refusal(source.kind()) => {
            Err(StoreError::Disk { call, source })
        }
        Ok(Err(error)) => Err(StoreError::Broken { call, what: error.to_string() }),
        Err(panic) => Err(StoreError::Broken { call, what: panic_text(&*panic) }),
    }
}

/// A store that is still open, here or in another process, is no damaged store. sled reports both
/// by the same kind of error, so the lock is tried first.
fn refuse_if_locked(file: &Path) -> Result<(), StoreError> {
    let Ok(file) = File::open(file) else {
        return Ok(());
    };
    match file.try_lock() {
        Ok(()) | Err(std::fs::TryLockError::Error(_)) => Ok(()),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(StoreError::Disk { call: "open", source: io::ErrorKind::ResourceBusy.into() })
        }
    }
}

/// Whether the disk said no to the request, rather than yes with the wrong bytes.
fn is_refusal(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::OutOfMemory
            | io::ErrorKind::WouldBlock
            | io::ErrorKind::ResourceBusy
    )
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without a text".to_owned())
}
