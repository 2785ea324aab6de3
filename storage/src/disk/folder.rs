//! A folder and its files, whose errors name the operation and the path.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, DiskFile, OpenMode};
use crate::error::{Blame, DiskFault, DiskOperation};

/// A folder of a disk.
#[derive(Debug, Clone)]
pub struct Folder {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

/// An open file that knows its path.
#[derive(Debug, Clone)]
pub struct NamedFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
}

impl Folder {
    /// The folder at `path`, made with its parents when missing.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, DiskFault> {
        disk.create_dir(path).blame(DiskOperation::CreateDir, path)?;
        Ok(Self { disk, path: path.to_owned() })
    }

    /// The folder at `path`, which exists; nothing is written.
    pub fn existing(disk: Arc<dyn Disk>, path: &Path) -> Self {
        Self { disk, path: path.to_owned() }
    }

    /// A folder inside of this one, made when missing.
    pub fn inside(&self, name: &str) -> Result<Self, DiskFault> {
        Self::open(Arc::clone(&self.disk), &self.path.join(name))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its disk.
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    /// The path of a file in it.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The names of its files, sorted.
    pub fn list(&self) -> Result<Vec<String>, DiskFault> {
        self.disk.list(&self.path).blame(DiskOperation::List, &self.path)
    }

    /// Opens a file in it.
    pub fn file(&self, name: &str, mode: OpenMode) -> Result<NamedFile, DiskFault> {
        let path = self.path_of(name);
        let file = self.disk.open(&path, mode).blame(DiskOperation::Open, &path)?;
        Ok(NamedFile { file, path })
    }

    /// As [`Self::file`], `None` when there is no such file.
    pub fn file_if_there(
        &self,
        name: &str,
        mode: OpenMode,
    ) -> Result<Option<NamedFile>, DiskFault> {
        match self.file(name, mode) {
            Ok(file) => Ok(Some(file)),
            Err(fault) if fault.kind == std::io::ErrorKind::NotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Renames within the folder. Durable after [`Self::sync`].
    pub fn rename(&self, from: &str, to: &str) -> Result<(), DiskFault> {
        let path = self.path_of(from);
        self.disk.rename(&path, &self.path_of(to)).blame(DiskOperation::Rename, &path)
    }

    /// Moves a file into another folder; durable in both when this returns.
    pub fn move_to(&self, name: &str, other: &Self, new_name: &str) -> Result<(), DiskFault> {
        let path = self.path_of(name);
        self.disk.rename(&path, &other.path_of(new_name)).blame(DiskOperation::Rename, &path)?;
        other.sync()?;
        self.sync()
    }

    /// Removes a file, if it is there. Durable after [`Self::sync`].
    pub fn remove(&self, name: &str) -> Result<(), DiskFault> {
        let path = self.path_of(name);
        match self.disk.remove(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result.blame(DiskOperation::Remove, &path),
        }
    }

    /// Makes the names in it durable.
    pub fn sync(&self) -> Result<(), DiskFault> {
        self.disk.sync_dir(&self.path).blame(DiskOperation::SyncDir, &self.path)
    }

    /// Replaces a file as a whole: written under another name, flushed, renamed. Durable after
    /// [`Self::sync`]; until then a crash leaves the old or the new content.
    pub fn replace(&self, name: &str, content: &[u8]) -> Result<(), DiskFault> {
        let new_name = format!("{name}.new");
        let written = self.file(&new_name, OpenMode::Replace).and_then(|file| {
            file.write(content, 0)?;
            file.sync()
        });
        if let Err(fault) = written {
            // Space is given back at once if it can be; what stays is replaced the next time.
            let _ = self.remove(&new_name);
            return Err(fault);
        }
        self.rename(&new_name, name)
    }
}

impl NamedFile {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file.
    pub fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    /// Reads up to `buffer.len()` bytes.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, DiskFault> {
        let mut count = 0;
        while let Some(rest) = buffer.get_mut(count..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + count as u64) {
                Ok(0) => break,
                Ok(read) => count += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(DiskFault::new(DiskOperation::Read, &self.path, &error)),
            }
        }
        Ok(count)
    }

    /// Reads the whole file, at most `bytes_max` bytes of it.
    pub fn read_up_to(&self, bytes_max: usize) -> Result<Vec<u8>, DiskFault> {
        let bytes = usize::try_from(self.size()?).unwrap_or(usize::MAX).min(bytes_max);
        let mut buffer = vec![0; bytes];
        let count = self.read(&mut buffer, 0)?;
        buffer.truncate(count);
        Ok(buffer)
    }

    /// Writes all of `bytes`.
    pub fn write(&self, bytes: &[u8], offset: u64) -> Result<(), DiskFault> {
        self.file.write_all_at(bytes, offset).blame(DiskOperation::Write, &self.path)
    }

    /// Flushes content and length.
    pub fn sync(&self) -> Result<(), DiskFault> {
        self.file.sync_data().blame(DiskOperation::Sync, &self.path)
    }

    /// Sets the length.
    pub fn truncate(&self, bytes: u64) -> Result<(), DiskFault> {
        self.file.truncate(bytes).blame(DiskOperation::Truncate, &self.path)
    }

    /// Reserves space.
    pub fn allocate(&self, bytes: u64) -> Result<(), DiskFault> {
        self.file.allocate(bytes).blame(DiskOperation::Allocate, &self.path)
    }

    /// Length in bytes.
    pub fn size(&self) -> Result<u64, DiskFault> {
        self.file.size().blame(DiskOperation::Size, &self.path)
    }

    /// The first range at or after `offset` where anything but zeros may stand.
    pub fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskFault> {
        self.file.next_data(offset).blame(DiskOperation::Read, &self.path)
    }
}
