//! A read-only tour of a node's folder.
//!
//! [`inspect()`] says what is there, [`verify()`] what is wrong with it. Neither changes a byte on
//! disk: what a start of the node would find, repair and refuse is learnt by opening everything over an
//! [`OverlayDisk`], by the very code that a start runs. On top of that each segment is walked by
//! itself, so that damage behind the first hole is found too.
//!
//! A node may run meanwhile; then the end of its log may look unproven, and files may come and go.

mod overlay;
mod segments;
mod verify;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{Disk, OpenMode, RealDisk};
use crate::error::OpenError;
use crate::identity::IdentityFile;
use crate::layout;
use crate::log::append_log::{Log, LogOptions};
use crate::recovery::{OpenReport, Tail};
use crate::segment::SegmentHeader;
use crate::snapshot::{SnapshotHead, SnapshotId, SnapshotReader};

pub use crate::recovery::loss::LostPart;
pub use overlay::OverlayDisk;
pub use segments::{Marks, SegmentDamage, SegmentFacts, SegmentState};
pub use verify::{Finding, Severity, Verification, verify};

/// What a node's folder holds.
#[derive(Debug)]
pub struct Inspection {
    /// The folder.
    pub dir: PathBuf,
    /// Who the node is; `None` when that was never written.
    pub identity: Result<Option<IdentityFacts>, OpenError>,
    /// What a start would make of the log; `None` when there is no log, or no way to know whose.
    pub log: Option<Result<LogFacts, OpenError>>,
    /// The segments, by id.
    pub segments: Vec<SegmentFacts>,
    /// The snapshots, oldest first. Their pages are not read; [`verify()`] does that.
    pub snapshots: Vec<SnapshotFacts>,
    /// Files that are no part of the state: being written, half received, set aside.
    pub leftovers: Vec<PathBuf>,
    /// Sums over all of it.
    pub totals: Totals,
}

/// Who a node is; its secret key stays where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFacts {
    /// The cluster.
    pub cluster_id: u64,
    /// The history of the log.
    pub lineage: u64,
    /// The node.
    pub node_id: u64,
    /// The folder's nonce.
    pub nonce: u64,
    /// How often the node was started.
    pub incarnation: u64,
}

/// What a start would make of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFacts {
    /// The first entry that can be read, or that will be the first.
    pub first_index: u64,
    /// The index that the next entry takes.
    pub next_index: u64,
    /// The term of the last entry, or of the last purged one.
    pub last_term: Option<u64>,
    /// Index and term of the last purged entry.
    pub purged: Option<(u64, u64)>,
    /// The chain after the last entry.
    pub chain: Option<u64>,
    /// The newest hard state: opaque.
    pub hard_state: Option<Bytes>,
    /// What opening says about the end, the hard state, and what it sets aside.
    pub report: OpenReport,
}

/// What a snapshot file holds.
#[derive(Debug)]
pub struct SnapshotFacts {
    /// Its file.
    pub path: PathBuf,
    /// Which one, by its name.
    pub id: SnapshotId,
    /// Length of its file, bytes.
    pub bytes: u64,
    /// Its header and number of records, or what is wrong with it.
    pub content: Result<(SnapshotHead, u64), crate::snapshot::SnapshotError>,
}

/// Sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Bytes of segment files as written; reserved space is not counted.
    pub log_bytes: u64,
    /// Records in segments that could be read.
    pub records: u64,
    /// Entries in segments that could be read, truncated ones included.
    pub entries: u64,
    /// Bytes of snapshot files.
    pub snapshot_bytes: u64,
    /// Bytes of the index, without older ones that were moved aside.
    pub index_bytes: u64,
}

/// A folder that cannot be inspected at all.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is neither an identity nor a log nor a snapshot.
    #[error("{} is not a node's folder", dir.display())]
    NotANode {
        /// The folder.
        dir: PathBuf,
    },
    /// The disk refused.
    #[error("cannot read {}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The machine's own disk, for tools that know of nothing else in this crate.
#[must_use]
pub fn real_disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

/// Looks at a node's folder. Reads every segment; changes nothing.
///
/// # Errors
/// [`InspectError`] when there is nothing to look at, or the disk refuses.
pub fn inspect(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Inspection, InspectError> {
    Ok(Tour::make(disk, dir)?.inspection)
}

/// An inspection, and the disk on which a start was tried.
struct Tour {
    inspection: Inspection,
    overlay: OverlayDisk,
}

impl Tour {
    fn make(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Self, InspectError> {
        let overlay = OverlayDisk::new(Arc::clone(disk));
        let identity = IdentityFile::open(Arc::new(overlay.clone()), dir).map(|(_, identity)| {
            identity.map(|identity| IdentityFacts {
                cluster_id: identity.cluster_id,
                lineage: identity.lineage,
                node_id: identity.node_id,
                nonce: identity.nonce,
                incarnation: identity.incarnation,
            })
        });
        let (segments, mut leftovers) = segments::walk_all(disk, &layout::log_dir(dir))?;
        let (snapshots, unfinished) = look_at_snapshots(&**disk, &layout::snapshot_dir(dir))?;
        leftovers.extend(unfinished);
        if matches!(identity, Ok(None)) && segments.is_empty() && snapshots.is_empty() {
            return Err(InspectError::NotANode { dir: dir.to_owned() });
        }
        let owner = match &identity {
            Ok(Some(identity)) => Some((identity.cluster_id, identity.lineage)),
            _ => segments.iter().rev().find_map(|segment| {
                segment
                    .header
                    .map(|SegmentHeader { cluster_id, lineage, .. }| (cluster_id, lineage))
            }),
        };
        let log_is_there = !segments.is_empty() || has_files(&**disk, &layout::log_dir(dir))?;
        let log = owner
            .filter(|_| log_is_there)
            .map(|(cluster_id, lineage)| open_log(&overlay, dir, cluster_id, lineage));
        let totals = Totals {
            log_bytes: segments.iter().map(|segment| segment.written_bytes).sum(),
            records: segments.iter().map(|segment| segment.records).sum(),
            entries: segments.iter().map(|segment| segment.entries).sum(),
            snapshot_bytes: snapshots.iter().map(|snapshot| snapshot.bytes).sum(),
            index_bytes: bytes_in(&**disk, &layout::index_dir(dir))?,
        };
        let dir = dir.to_owned();
        let inspection = Inspection { dir, identity, log, segments, snapshots, leftovers, totals };
        Ok(Self { inspection, overlay })
    }
}

impl Inspection {
    /// Whether a start would refuse: what it needs is damaged.
    #[must_use]
    pub fn would_refuse(&self) -> bool {
        self.identity.is_err() || matches!(self.log, Some(Err(_)))
    }

    /// Whether the end of the log would be cut, now or by an opening that was not settled.
    #[must_use]
    pub fn tail(&self) -> Option<Tail> {
        self.log.as_ref()?.as_ref().ok().map(|log| log.report.tail)
    }
}

fn open_log(
    overlay: &OverlayDisk,
    dir: &Path,
    cluster_id: u64,
    lineage: u64,
) -> Result<LogFacts, OpenError> {
    let mut options = LogOptions::new(cluster_id, lineage);
    // What opening writes goes into memory here: a fresh segment need not be a large one.
    options.segment_bytes = 1 << 20;
    options.tail_bytes_max = 1 << 20;
    let disk: Arc<dyn Disk> = Arc::new(overlay.clone());
    let (log, _writer, report) = Log::open(disk, &layout::log_dir(dir), options)?;
    let next_index = log.next_index();
    Ok(LogFacts {
        first_index: log.first_index(),
        next_index,
        last_term: log.last().map(|(_, term)| term),
        purged: log.purged(),
        chain: next_index.checked_sub(1).and_then(|last| log.chain_at(last).ok()),
        hard_state: log.hard_state(),
        report,
    })
}

fn look_at_snapshots(
    disk: &dyn Disk,
    dir: &Path,
) -> Result<(Vec<SnapshotFacts>, Vec<PathBuf>), InspectError> {
    let (mut snapshots, mut leftovers) = (Vec::new(), Vec::new());
    for name in names_in(disk, dir)? {
        let path = dir.join(&name);
        let Some(id) = SnapshotId::from_file_name(&name) else {
            leftovers.push(path);
            continue;
        };
        let bytes = size_of(disk, &path)?;
        let content = SnapshotReader::open(disk, &path)
            .map(|reader| (reader.head().clone(), reader.record_count()));
        snapshots.push(SnapshotFacts { path, id, bytes, content });
    }
    let quarantine = dir.join(crate::snapshot::QUARANTINE);
    leftovers.extend(names_in(disk, &quarantine)?.into_iter().map(|name| quarantine.join(name)));
    Ok((snapshots, leftovers))
}

/// The names of the files in a folder; none when there is no such folder.
fn names_in(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>, InspectError> {
    match disk.list(dir) {
        Ok(names) => Ok(names),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(InspectError::Disk { path: dir.to_owned(), source }),
    }
}

fn has_files(disk: &dyn Disk, dir: &Path) -> Result<bool, InspectError> {
    Ok(!names_in(disk, dir)?.is_empty())
}

fn bytes_in(disk: &dyn Disk, dir: &Path) -> Result<u64, InspectError> {
    names_in(disk, dir)?.iter().map(|name| size_of(disk, &dir.join(name))).sum()
}

fn size_of(disk: &dyn Disk, path: &Path) -> Result<u64, InspectError> {
    match disk.open(path, OpenMode::Read).and_then(|file| file.size()) {
        Ok(bytes) => Ok(bytes),
        // Gone since the folder was listed: a node may be running.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(source) => Err(InspectError::Disk { path: path.to_owned(), source }),
    }
}
