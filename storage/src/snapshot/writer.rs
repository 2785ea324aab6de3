//! Writes a snapshot as a stream: under a temporary name until the last byte is durable.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::format::{
    FOOTER_BYTES, Footer, FormatError, PageBuilder, SnapshotHead, SnapshotId, encode_footer,
    encode_header,
};
use super::reader::SnapshotError;
use crate::disk::{Disk, DiskFile, OpenMode};

/// The end of the name of a file that is being written and is no snapshot.
pub(super) const TEMPORARY_SUFFIX: &str = ".writing";
/// Bytes between flushes on the way. One flush of everything at the end would hold up the log's
/// own flushes, which share the device.
const FLUSH_EVERY_BYTES: u64 = 8 << 20;

/// A snapshot on its way to the disk. Dropped before [`SnapshotWriter::finish`], it leaves nothing.
#[derive(Debug)]
pub struct SnapshotWriter {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    temporary: PathBuf,
    file: Arc<dyn DiskFile>,
    head: SnapshotHead,
    page: PageBuilder,
    progress: Progress,
    hash: Xxh3Hasher,
}

#[derive(Debug, Default)]
struct Progress {
    offset: u64,
    flushed: u64,
    pages: u64,
    records: u64,
    finished: bool,
}

/// The running hash; a type of its own because the library's has no `Debug`.
struct Xxh3Hasher(Box<Xxh3>);

impl std::fmt::Debug for Xxh3Hasher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Xxh3")
    }
}

/// A snapshot that is durable under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Which one.
    pub id: SnapshotId,
    /// What it says about itself.
    pub head: SnapshotHead,
    /// Number of records.
    pub records: u64,
    /// Length of the file.
    pub file_bytes: u64,
}

impl SnapshotWriter {
    /// Begins a file in a folder that exists. One writer at a time per index and term.
    ///
    /// # Errors
    /// [`SnapshotError`] when the head is too large or the disk refuses.
    pub fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        head: SnapshotHead,
    ) -> Result<Self, SnapshotError> {
        let temporary = dir.join(format!("{:020}-{:020}{TEMPORARY_SUFFIX}", head.index, head.term));
        let header =
            encode_header(&head).map_err(|error| SnapshotError::format(&temporary, error))?;
        let file = disk
            .open(&temporary, OpenMode::Replace)
            .map_err(|error| SnapshotError::disk(&temporary, error))?;
        let mut writer = Self {
            disk,
            dir: dir.to_owned(),
            temporary,
            file,
            head,
            page: PageBuilder::default(),
            progress: Progress::default(),
            hash: Xxh3Hasher(Box::default()),
        };
        writer.write(&header)?;
        Ok(writer)
    }

    /// Adds a record.
    ///
    /// # Errors
    /// [`SnapshotError`] when it is larger than the format allows or the disk refuses. The file
    /// cannot be finished after the latter.
    pub fn push(&mut self, record: &[u8]) -> Result<(), SnapshotError> {
        if self.page.is_full_for(record.len()) {
            self.seal_page()?;
        }
        self.page.push(record).map_err(|error| SnapshotError::format(&self.temporary, error))?;
        self.progress.records += 1;
        Ok(())
    }

    /// Adds all records of an iterator.
    ///
    /// # Errors
    /// As [`SnapshotWriter::push`].
    pub fn extend(
        &mut self,
        records: impl IntoIterator<Item = Bytes>,
    ) -> Result<(), SnapshotError> {
        records.into_iter().try_for_each(|record| self.push(&record))
    }

    /// Bytes written so far, for progress.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.progress.offset
    }

    /// Ends the file, flushes it, and gives it its name. When this returns, the snapshot is
    /// durable; when it fails, there is none, or (if the last flush of the folder fails) there may
    /// be one, whole.
    ///
    /// # Errors
    /// [`SnapshotError`] when the disk refuses.
    pub fn finish(mut self) -> Result<Written, SnapshotError> {
        self.seal_page()?;
        let content_hash = self.hash.0.digest();
        let footer = Footer {
            pages: self.progress.pages,
            records: self.progress.records,
            file_bytes: self.progress.offset + FOOTER_BYTES as u64,
            content_hash,
        };
        self.write(&encode_footer(&footer))?;
        let id = SnapshotId { index: self.head.index, term: self.head.term, content_hash };
        let path = self.dir.join(id.file_name());
        self.file
            .sync_data()
            .and_then(|()| self.disk.rename(&self.temporary, &path))
            .map_err(|error| SnapshotError::disk(&self.temporary, error))?;
        self.progress.finished = true;
        self.disk.sync_dir(&self.dir).map_err(|error| SnapshotError::disk(&self.dir, error))?;
        Ok(Written {
            id,
            head: self.head.clone(),
            records: footer.records,
            file_bytes: footer.file_bytes,
        })
    }

    /// The folder that it writes into.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn seal_page(&mut self) -> Result<(), SnapshotError> {
        if self.page.is_empty() {
            return Ok(());
        }
        let page = self.page.seal(self.progress.pages);
        self.progress.pages += 1;
        self.write(&page)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let refused = |error| SnapshotError::disk(&self.temporary, error);
        self.file.write_all_at(bytes, self.progress.offset).map_err(refused)?;
        self.hash.0.update(bytes);
        self.progress.offset += bytes.len() as u64;
        if self.progress.offset - self.progress.flushed >= FLUSH_EVERY_BYTES {
            self.file.sync_data().map_err(refused)?;
            self.progress.flushed = self.progress.offset;
        }
        Ok(())
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if !self.progress.finished {
            // What cannot be removed now is removed when the catalogue opens next.
            let _: std::io::Result<()> = self.disk.remove(&self.temporary);
        }
    }
}

impl From<FormatError> for super::reader::SnapshotFault {
    fn from(error: FormatError) -> Self {
        Self::Format(error)
    }
}
