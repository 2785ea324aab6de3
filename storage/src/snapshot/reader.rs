//! Reads a snapshot and believes nothing in it that it has not checked.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use xxhash_rust::xxh3::Xxh3;

use super::format::{
    FOOTER_BYTES, Footer, FormatError, HEADER_FIXED_BYTES, PAGE_HEAD_BYTES, SnapshotHead,
    SnapshotId, decode_footer, decode_header, decode_page, header_bytes, page_body_bytes,
};
use crate::disk::{Disk, DiskFile, OpenMode};

/// A snapshot that could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("snapshot file {}: {fault}", path.display())]
pub struct SnapshotError {
    /// The file, or its folder.
    pub path: PathBuf,
    /// What is wrong.
    #[source]
    pub fault: SnapshotFault,
}

/// What is wrong with a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFault {
    /// Its bytes.
    #[error(transparent)]
    Format(FormatError),
    /// The disk under it.
    #[error(transparent)]
    Disk(#[from] io::Error),
}

impl SnapshotError {
    pub(super) fn format(path: &Path, error: FormatError) -> Self {
        Self { path: path.to_owned(), fault: SnapshotFault::Format(error) }
    }

    pub(super) fn disk(path: &Path, error: io::Error) -> Self {
        Self { path: path.to_owned(), fault: SnapshotFault::Disk(error) }
    }

    /// Whether space ran out, which passes.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(&self.fault, SnapshotFault::Disk(error) if crate::disk::is_full(error))
    }

    /// Whether the file itself is at fault, so that asking again cannot help: its bytes are wrong
    /// or cannot be read. A disk that refuses for reasons of its own (no such file, no permission,
    /// no memory, no space) says nothing about the file.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match &self.fault {
            SnapshotFault::Format(_) => true,
            SnapshotFault::Disk(error) => !matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::OutOfMemory
                    | io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::ReadOnlyFilesystem
            ),
        }
    }
}

/// A snapshot file whose header, footer, length and name agree. Its pages are checked as they are
/// read: by [`SnapshotReader::verify`], or by the iterator of [`SnapshotReader::records`].
#[derive(Debug)]
pub struct SnapshotReader {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    head: SnapshotHead,
    header: Bytes,
    footer: Footer,
}

impl SnapshotReader {
    /// Opens a file and checks everything but its pages. The file's name, if it is a snapshot's,
    /// must be its content's.
    ///
    /// # Errors
    /// [`SnapshotError`] says what does not fit.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, SnapshotError> {
        let reader = Self::open_unnamed(disk, path)?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match SnapshotId::from_file_name(name) {
            Some(id) if id != reader.id() => Err(SnapshotError::format(path, FormatError::Name)),
            _ => Ok(reader),
        }
    }

    fn open_unnamed(disk: &dyn Disk, path: &Path) -> Result<Self, SnapshotError> {
        let wrong = |error| SnapshotError::format(path, error);
        let refused = |error| SnapshotError::disk(path, error);
        let file = disk.open(path, OpenMode::Read).map_err(refused)?;
        let size = file.size().map_err(refused)?;
        if size < (HEADER_FIXED_BYTES + FOOTER_BYTES) as u64 {
            return Err(wrong(FormatError::Truncated));
        }
        let start = read(&*file, 0, 16).map_err(refused)?;
        let length = header_bytes(&start).map_err(wrong)?;
        if size < (length + FOOTER_BYTES) as u64 {
            return Err(wrong(FormatError::Truncated));
        }
        let header = read(&*file, 0, length).map_err(refused)?;
        let head = decode_header(&header).map_err(wrong)?;
        let end = read(&*file, size - FOOTER_BYTES as u64, FOOTER_BYTES).map_err(refused)?;
        let footer = decode_footer(&end).map_err(wrong)?;
        if footer.file_bytes != size {
            return Err(wrong(FormatError::Length { claimed: footer.file_bytes }));
        }
        Ok(Self { file, path: path.to_owned(), head, header, footer })
    }

    /// What the snapshot says about itself.
    #[must_use]
    pub fn head(&self) -> &SnapshotHead {
        &self.head
    }

    /// Which snapshot it is.
    #[must_use]
    pub fn id(&self) -> SnapshotId {
        SnapshotId {
            index: self.head.index,
            term: self.head.term,
            content_hash: self.footer.content_hash,
        }
    }

    /// Number of records.
    #[must_use]
    pub fn record_count(&self) -> u64 {
        self.footer.records
    }

    /// Length of the file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.footer.file_bytes
    }

    /// Reads everything and checks it.
    ///
    /// # Errors
    /// [`SnapshotError`] at the first byte that is not as it was written.
    pub fn verify(&self) -> Result<(), SnapshotError> {
        self.records().try_for_each(|record| record.map(drop))
    }

    /// The records in order, each page checked before its first record is given. The check of the
    /// whole comes last, so build aside what you build, and install it only after the iterator has
    /// ended without an error.
    pub fn records(&self) -> Records<'_> {
        let mut hash = Box::<Xxh3>::default();
        hash.update(&self.header);
        Records {
            reader: self,
            offset: self.header.len() as u64,
            pages: 0,
            records: 0,
            hash,
            page: Vec::new().into_iter(),
            ended: false,
        }
    }
}

/// The records of a snapshot; ends after the first error.
pub struct Records<'a> {
    reader: &'a SnapshotReader,
    offset: u64,
    pages: u64,
    records: u64,
    hash: Box<Xxh3>,
    page: std::vec::IntoIter<Bytes>,
    ended: bool,
}

impl Iterator for Records<'_> {
    type Item = Result<Bytes, SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.page.next() {
                self.records += 1;
                return Some(Ok(record));
            }
            if self.ended {
                return None;
            }
            let end = self.reader.footer.file_bytes - FOOTER_BYTES as u64;
            let step = if self.offset >= end { self.check_whole() } else { self.read_page(end) };
            if let Err(fault) = step {
                self.ended = true;
                return Some(Err(SnapshotError { path: self.reader.path.clone(), fault }));
            }
        }
    }
}

impl Records<'_> {
    fn read_page(&mut self, end: u64) -> Result<(), SnapshotFault> {
        let file = &*self.reader.file;
        if end - self.offset < PAGE_HEAD_BYTES as u64 {
            return Err(FormatError::Truncated.into());
        }
        let body_bytes = page_body_bytes(&read(file, self.offset, PAGE_HEAD_BYTES)?)?;
        let length = PAGE_HEAD_BYTES + body_bytes;
        if end - self.offset < length as u64 {
            return Err(FormatError::Length { claimed: body_bytes as u64 }.into());
        }
        let page = read(file, self.offset, length)?;
        let records = decode_page(&page, self.pages)?;
        self.hash.update(&page);
        self.pages += 1;
        self.offset += length as u64;
        self.page = records.into_iter();
        Ok(())
    }

    fn check_whole(&mut self) -> Result<(), SnapshotFault> {
        let footer = &self.reader.footer;
        if self.pages != footer.pages || self.records != footer.records {
            return Err(FormatError::Count.into());
        }
        if self.hash.digest() != footer.content_hash {
            return Err(FormatError::Checksum { part: "file" }.into());
        }
        self.ended = true;
        Ok(())
    }
}

impl std::fmt::Debug for Records<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Records")
            .field("path", &self.reader.path)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

/// Reads exactly so many bytes. Callers have checked the length against the file's.
pub(super) fn read(file: &dyn DiskFile, offset: u64, bytes: usize) -> io::Result<Bytes> {
    let mut buffer = BytesMut::zeroed(bytes);
    file.read_exact_at(&mut buffer, offset)?;
    Ok(buffer.freeze())
}
