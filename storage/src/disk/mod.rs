//! The disk seam: every file operation of this crate goes through [`Disk`] and [`DiskFile`].
//!
//! Three implementations: [`RealDisk`] (the operating system), [`SimulatedDisk`] (keeps durable and
//! volatile bytes apart and forgets on `crash`), [`FaultyDisk`] (fails or corrupts chosen calls of
//! another disk). The seam promises what POSIX promises and no more: bytes survive a crash once
//! [`DiskFile::sync_data`] returned, a name survives once [`Disk::sync_dir`] of its folder returned.

mod faulty;
mod folder;
mod real;
mod simulated;

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub use faulty::{FaultKind, FaultyDisk};
pub use folder::{Folder, NamedFile};
pub use real::RealDisk;
pub use simulated::SimulatedDisk;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Existing, for reading only.
    Read,
    /// Existing, for reading and writing.
    Write,
    /// For reading and writing; made when absent, emptied when present. The name is durable only
    /// after [`Disk::sync_dir`] of its folder.
    Replace,
}

/// A place with folders and files.
pub trait Disk: Debug + Send + Sync {
    /// Makes a folder and its missing parents. Their names are durable when this returns.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Opens or makes a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// The names of the files (not folders) directly inside `dir`, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Gives a file another name, replacing what had it, as one step. Durable after
    /// [`Disk::sync_dir`] of both folders.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name. Open handles keep reading.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names inside `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file; shared between the writer and readers.
pub trait DiskFile: Debug + Send + Sync {
    /// Reads up to `buffer.len()` bytes; 0 at or past the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes a prefix of `bytes` and says how long it was, as `pwrite` does.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes all bytes and the length durable (`fdatasync`). After an error nothing written before
    /// may be believed to be on disk, whatever a second call says.
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts the file to `bytes`, or lengthens it with zeros.
    fn truncate(&self, bytes: u64) -> io::Result<()>;
    /// Reserves space so that the file is at least `bytes` long; new bytes read as zeros. A file
    /// system without this ability grows the file as it is written, and that is no error.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;

    /// The first range at or after `offset` where anything but zeros may stand; none: there is none
    /// up to the end. To a file without knowledge of its holes it is all of the rest.
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        Ok(rest(offset, self.size()?))
    }

    /// Fills `buffer` or fails with `UnexpectedEof`.
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            let count = match self.read_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            buffer = buffer.get_mut(count..).unwrap_or_default();
            offset += count as u64;
        }
        Ok(())
    }

    /// Writes all of `bytes`. On an error a prefix may have been written.
    fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = match self.write_at(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            bytes = bytes.get(count..).unwrap_or_default();
            offset += count as u64;
        }
        Ok(())
    }

    /// Reads at most `bytes_max` bytes from the start; for small files of known bounds.
    ///
    /// Fails with `FileTooLarge` when the file is longer.
    fn read_whole(&self, bytes_max: u64) -> io::Result<Vec<u8>> {
        let size = self.size()?;
        if size > bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        self.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// What a file without knowledge of its holes has from `offset` on.
fn rest(offset: u64, size: u64) -> Option<Range<u64>> {
    (offset < size).then_some(offset..size)
}

/// No space, or no more of it for us: the error that a log waits out instead of dying of it.
pub fn is_full(error: &io::Error) -> bool {
    is_full_kind(error.kind())
}

pub(crate) fn is_full_kind(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
