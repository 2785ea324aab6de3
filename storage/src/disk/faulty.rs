//! Another disk whose chosen calls fail, lie, or read flipped bits.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile, OpenMode};
use crate::error::DiskOperation;

/// What happens to a chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// It fails with EIO and has no effect.
    Io,
    /// It fails with ENOSPC and has no effect.
    Full,
    /// A write writes only the first half and says so.
    ShortWrite,
    /// It reports success and has no effect.
    Lie,
}

/// A disk over another; clones share the faults.
#[derive(Debug, Clone)]
pub struct FaultyDisk {
    inner: Arc<dyn Disk>,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Debug, Default)]
struct Faults {
    calls: BTreeMap<DiskOperation, u64>,
    planned: Vec<Planned>,
    full: bool,
    fills: Option<Fill>,
    flips: Vec<Flip>,
}

#[derive(Debug)]
struct Planned {
    operation: DiskOperation,
    at: u64,
    kind: FaultKind,
}

#[derive(Debug)]
struct Fill {
    suffix: String,
    bytes: u64,
}

#[derive(Debug)]
struct Flip {
    path: PathBuf,
    offset: u64,
    mask: u8,
}

impl FaultyDisk {
    /// A quiet disk over `inner`: no faults yet.
    pub fn new(inner: Arc<dyn Disk>) -> Self {
        Self { inner, faults: Arc::default() }
    }

    /// The `nth` call of `operation` from now, 1 being the next, suffers `kind`, once.
    pub fn fail(&self, operation: DiskOperation, nth: u64, kind: FaultKind) {
        let mut faults = self.lock();
        let at = faults.calls.get(&operation).copied().unwrap_or(0) + nth;
        faults.planned.push(Planned { operation, at, kind });
    }

    /// While full, everything that would take space fails with ENOSPC.
    pub fn set_full(&self, full: bool) {
        let mut faults = self.lock();
        faults.full = full;
        // One that has been emptied is not filled by what was to fill it before.
        faults.fills = None;
    }

    /// The disk is full as soon as a file whose name ends with `suffix` is to grow beyond `bytes`.
    pub fn fill_by(&self, suffix: &str, bytes: u64) {
        self.lock().fills = Some(Fill { suffix: suffix.to_owned(), bytes });
    }

    /// Reads of `path` see the byte at `offset` combined with `mask` by exclusive or.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) {
        self.lock().flips.push(Flip { path: path.to_owned(), offset, mask });
    }

    /// How often `operation` has been called.
    pub fn calls(&self, operation: DiskOperation) -> u64 {
        self.lock().calls.get(&operation).copied().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call; an error, a lie (`Some`), or an honest call (`None`).
    fn call(&self, operation: DiskOperation, takes_space: bool) -> io::Result<Option<FaultKind>> {
        let mut faults = self.lock();
        let count = faults.calls.entry(operation).or_default();
        *count += 1;
        let now = *count;
        let planned =
            faults.planned.iter().position(|fault| fault.operation == operation && fault.at == now);
        let kind = planned.map(|place| faults.planned.swap_remove(place).kind);
        match kind {
            Some(FaultKind::Io) => Err(rustix::io::Errno::IO.into()),
            Some(FaultKind::Full) => Err(rustix::io::Errno::NOSPC.into()),
            None if faults.full && takes_space => Err(rustix::io::Errno::NOSPC.into()),
            quiet => Ok(quiet),
        }
    }
}

impl Disk for FaultyDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match self.call(DiskOperation::CreateDir, false)? {
            Some(_) => Ok(()),
            None => self.inner.create_dir(path),
        }
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.call(DiskOperation::Open, mode == OpenMode::Replace)?;
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(FaultyFile { disk: self.clone(), path: path.to_owned(), inner }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.call(DiskOperation::List, false)?;
        self.inner.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.call(DiskOperation::Rename, false)? {
            Some(_) => Ok(()),
            None => self.inner.rename(from, to),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match self.call(DiskOperation::Remove, false)? {
            Some(_) => Ok(()),
            None => self.inner.remove(path),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        match self.call(DiskOperation::SyncDir, false)? {
            Some(_) => Ok(()),
            None => self.inner.sync_dir(dir),
        }
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    path: PathBuf,
    inner: Arc<dyn DiskFile>,
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.call(DiskOperation::Read, false)?;
        let count = self.inner.read_at(buffer, offset)?;
        for flip in self.disk.lock().flips.iter().filter(|flip| flip.path == self.path) {
            let place = flip.offset.checked_sub(offset).and_then(|at| usize::try_from(at).ok());
            if let Some(byte) = place.and_then(|at| buffer.get_mut(..count)?.get_mut(at)) {
                *byte ^= flip.mask;
            }
        }
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let end = offset + bytes.len() as u64;
        let mut faults = self.disk.lock();
        let fills = faults.fills.take_if(|fill| {
            end > fill.bytes && self.path.to_string_lossy().ends_with(&fill.suffix)
        });
        faults.full |= fills.is_some();
        drop(faults);
        match self.disk.call(DiskOperation::Write, true)? {
            Some(FaultKind::ShortWrite) if bytes.len() > 1 => {
                let (half, _) = bytes.split_at(bytes.len() / 2);
                self.inner.write_at(half, offset)
            }
            Some(FaultKind::Lie) => Ok(bytes.len()),
            _ => self.inner.write_at(bytes, offset),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.disk.call(DiskOperation::Sync, false)? {
            Some(_) => Ok(()),
            None => self.inner.sync_data(),
        }
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        match self.disk.call(DiskOperation::Truncate, false)? {
            Some(_) => Ok(()),
            None => self.inner.truncate(bytes),
        }
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match self.disk.call(DiskOperation::Allocate, true)? {
            Some(_) => Ok(()),
            None => self.inner.allocate(bytes),
        }
    }

    fn size(&self) -> io::Result<u64> {
        self.disk.call(DiskOperation::Size, false)?;
        self.inner.size()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.disk.call(DiskOperation::Read, false)?;
        self.inner.next_data(offset)
    }
}
