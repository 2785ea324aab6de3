//! What can go wrong, as facts with fields, grouped by operation.

use std::io;
use std::path::{Path, PathBuf};

use crate::log::poison::Poisoned;
use crate::recovery::Hole;

/// A file operation, as named in errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the name of the operation")]
pub enum DiskOperation {
    CreateDir,
    Open,
    List,
    Rename,
    Remove,
    SyncDir,
    Read,
    Write,
    Sync,
    Truncate,
    Allocate,
    Size,
}

impl std::fmt::Display for DiskOperation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CreateDir => "create folder",
            Self::Open => "open",
            Self::List => "list",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::SyncDir => "sync folder",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Truncate => "truncate",
            Self::Allocate => "allocate",
            Self::Size => "size",
        })
    }
}

/// One failed file operation. Unlike [`io::Error`] it can be cloned and handed to every waiter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation} of {} failed: {kind}{}", path.display(), Code(*code))]
pub struct DiskFault {
    /// What was tried.
    pub operation: DiskOperation,
    /// On what.
    pub path: PathBuf,
    /// The kind of error.
    pub kind: io::ErrorKind,
    /// The operating system's number for it, where there is one.
    pub code: Option<i32>,
}

struct Code(Option<i32>);

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |code| write!(f, " (os error {code})"))
    }
}

impl DiskFault {
    /// The fact of `error`.
    pub fn new(operation: DiskOperation, path: &Path, error: &io::Error) -> Self {
        let (kind, code) = (error.kind(), error.raw_os_error());
        Self { operation, path: path.to_owned(), kind, code }
    }

    /// Whether space ran out, which passes.
    pub fn is_full(&self) -> bool {
        crate::disk::is_full_kind(self.kind)
    }
}

/// Names the operation and the path of an [`io::Error`].
pub(crate) trait Blame<T> {
    fn blame(self, operation: DiskOperation, path: &Path) -> Result<T, DiskFault>;
}

impl<T> Blame<T> for io::Result<T> {
    fn blame(self, operation: DiskOperation, path: &Path) -> Result<T, DiskFault> {
        self.map_err(|error| DiskFault::new(operation, path, &error))
    }
}

/// Why a change of the log was not taken. Nothing of a refused call is visible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// A flush failed earlier; open the log anew.
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
    /// The queue in front of the disk is full: the disk is slower than the caller, or full.
    #[error("{queued_bytes} bytes wait to be written, the limit is {queued_bytes_max}")]
    QueueFull {
        /// Bytes that wait now.
        queued_bytes: usize,
        /// The limit.
        queued_bytes_max: usize,
    },
    /// A payload above the format's limit.
    #[error("a payload of {bytes} bytes is over the limit of {bytes_max}")]
    PayloadTooLarge {
        /// Bytes given.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Entries must follow each other without a gap.
    #[error("entry {found} does not follow: the next index is {expected}")]
    NotConsecutive {
        /// The next index.
        expected: u64,
        /// The index given.
        found: u64,
    },
    /// An entry's term is lower than its predecessor's.
    #[error("entry {index} has term {found}, its predecessor {last}")]
    TermWentBack {
        /// The entry.
        index: u64,
        /// The predecessor's term.
        last: u64,
        /// The term given.
        found: u64,
    },
    /// Only entries are appended; marks have calls of their own.
    #[error("a record of kind {kind:?} is no entry")]
    NotAnEntry {
        /// The kind given.
        kind: crate::record::RecordKind,
    },
    /// What was named is not in the log.
    #[error("index {index} is outside of the log, which holds {first}..{next}")]
    OutsideOfLog {
        /// The index given.
        index: u64,
        /// The first index held.
        first: u64,
        /// One past the last index held.
        next: u64,
    },
    /// The read of an older record, needed for the change, failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The disk is full; nothing changed.
    #[error("the disk is full: {0}")]
    DiskFull(DiskFault),
    /// [`crate::Log::close`] was called.
    #[error("the log is closed")]
    Closed,
}

/// Why a record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Below the purge point or past the end.
    #[error("index {index} is outside of the log, which holds {first}..{next}")]
    OutsideOfLog {
        /// The index asked for.
        index: u64,
        /// The first index held.
        first: u64,
        /// One past the last index held.
        next: u64,
    },
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskFault),
    /// The bytes are not what was written. They are never served.
    #[error("damaged record in segment {segment} at offset {offset}: {damage}")]
    Damaged {
        /// The segment's id.
        segment: u64,
        /// Offset of the record in bytes.
        offset: u64,
        /// What is wrong.
        damage: crate::record::Damage,
    },
    /// The segment has been purged, or never existed.
    #[error("there is no segment {segment}")]
    NoSegment {
        /// The segment's id.
        segment: u64,
    },
}

/// Why a log cannot be opened. Everything on disk is left as it was, but for finished purges.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskFault),
    /// Something that was proven to be on disk is damaged or missing. Nothing is cut.
    #[error(transparent)]
    Hole(#[from] Hole),
    /// Both copies of a twin file are damaged, or files exist whose twin file is missing.
    #[error("{} and its copy are damaged or missing", path.display())]
    TwinsDamaged {
        /// The first copy.
        path: PathBuf,
    },
    /// A file of another cluster.
    #[error("{} belongs to cluster {found:016x}, not to {expected:016x}", path.display())]
    OtherCluster {
        /// The file.
        path: PathBuf,
        /// The cluster that the options name.
        expected: u64,
        /// The cluster that the file names.
        found: u64,
    },
    /// A file of a later format.
    #[error("{} has format version {found}, this build knows up to {known}", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u16,
        /// The newest version known.
        known: u16,
    },
}
