//! Where the index lives, and how a damaged one is moved out of the way.

use std::io;
use std::path::{Path, PathBuf};

use super::in_memory::MemoryStore;
use super::on_sled::SledStore;
use super::store::{Store, StoreError};

/// Where the index lives.
#[derive(Debug, Clone)]
pub enum IndexPlace {
    /// A folder of its own on a real disk.
    Folder(PathBuf),
    /// Memory, for simulation and tests.
    Memory(MemoryStore),
}

/// What was wrong with an index that is rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexDamage {
    /// There is none although the log is not new.
    #[error("the index is missing")]
    Missing,
    /// The store panicked, or found its own files damaged.
    #[error("the store failed in {call}: {what}")]
    Broken {
        /// In which call.
        call: &'static str,
        /// What it said, for people.
        what: String,
    },
    /// The store opened, but does not hold what its mark says.
    #[error("the index does not hold what it should: {what}")]
    Incomplete {
        /// Which part, for people.
        what: &'static str,
    },
    /// It belongs to another cluster or another history of it.
    #[error("the index belongs to cluster {cluster_id:016x}, lineage {lineage:016x}")]
    Foreign {
        /// The cluster in its mark.
        cluster_id: u64,
        /// The lineage in its mark.
        lineage: u64,
    },
    /// It speaks of entries that the log does not have.
    #[error("the index ends before entry {indexed_end}, the log before {log_end}")]
    AheadOfLog {
        /// The first entry that the index does not cover.
        indexed_end: u64,
        /// The first index that the log does not have.
        log_end: u64,
    },
    /// Another version of this program wrote it.
    #[error("the index has format {found}")]
    Format {
        /// The format in its mark.
        found: u16,
    },
}

/// That an index is rebuilt, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexReport {
    /// What was wrong.
    pub damage: IndexDamage,
    /// Where the old one is now; `None` when there was none, or none on disk.
    pub moved_to: Option<PathBuf>,
}

/// A store, and whether there was nothing before it was opened.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) fresh: bool,
}

impl IndexPlace {
    pub(super) fn open(&self) -> Result<Opened, StoreError> {
        match self {
            Self::Folder(dir) => {
                let fresh = is_absent_or_empty(dir)
                    .map_err(|source| StoreError::Disk { call: "open", source })?;
                Ok(Opened { store: Store::Sled(SledStore::open(dir)?), fresh })
            }
            Self::Memory(store) => {
                Ok(Opened { store: Store::Memory(store.clone()), fresh: store.is_empty() })
            }
        }
    }

    /// Gives the place up to a new index. A folder is renamed, never deleted.
    pub(super) fn move_aside(&self) -> io::Result<Option<PathBuf>> {
        match self {
            Self::Folder(dir) => move_folder(dir),
            Self::Memory(store) => {
                store.wipe();
                Ok(None)
            }
        }
    }
}

fn is_absent_or_empty(dir: &Path) -> io::Result<bool> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        // Something that is no folder stands there: it is opened, fails, and is moved aside.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        Err(error) => Err(error),
    }
}

fn move_folder(dir: &Path) -> io::Result<Option<PathBuf>> {
    if !dir.try_exists()? {
        return Ok(None);
    }
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or("index");
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    let mut number = 1_u32;
    let target = loop {
        let target = parent.join(format!("{name}.damaged-{number}"));
        if !target.try_exists()? {
            break target;
        }
        number += 1;
    };
    std::fs::rename(dir, &target)?;
    std::fs::File::open(parent)?.sync_all()?;
    Ok(Some(target))
}
