//! Receives a snapshot's file in byte ranges: in order, resumable, believed only when whole.
//!
//! The bytes gather in a partial file that is named after the snapshot and its length. A restart
//! walks the pages of that file and goes on behind the last one that is intact, so a crash that
//! loses or mangles its end costs at most one flush interval, and never the transfer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::catalogue::Kept;
use super::format::{
    FOOTER_BYTES, FormatError, HEADER_FIXED_BYTES, PAGE_HEAD_BYTES, SnapshotHead, SnapshotId,
    decode_header, decode_page, header_bytes, page_body_bytes,
};
use super::reader::{SnapshotError, SnapshotReader, read};
use crate::disk::{Disk, DiskFile, OpenMode};

/// The end of the name of a partial file.
pub(super) const PARTIAL_SUFFIX: &str = ".partial";
/// Bytes between flushes of the partial file.
const FLUSH_EVERY_BYTES: u64 = 8 << 20;

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receiving {
    /// Which snapshot.
    pub id: SnapshotId,
    /// Bytes that are here: the offset to ask for next.
    pub received: u64,
    /// Bytes of the whole file.
    pub file_bytes: u64,
}

/// A transfer that cannot go on as asked.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The range does not begin where the last one ended.
    #[error("a range begins at {given} instead of {expected}")]
    Offset {
        /// Where it should begin.
        expected: u64,
        /// Where it begins.
        given: u64,
    },
    /// More bytes than were announced.
    #[error("the file has {file_bytes} bytes and the range ends at {end}")]
    TooLong {
        /// Announced.
        file_bytes: u64,
        /// Given.
        end: u64,
    },
    /// Not all bytes are here.
    #[error("{received} of {file_bytes} bytes are here")]
    Incomplete {
        /// What is here.
        received: u64,
        /// What was announced.
        file_bytes: u64,
    },
    /// The whole file is not the snapshot that was announced. It was removed; its source has it.
    #[error("what was received is not the snapshot that was announced")]
    Rejected(#[source] SnapshotError),
    /// The disk refused.
    #[error("the partial file")]
    Disk(#[source] SnapshotError),
}

/// A snapshot on its way from another node. Dropped unfinished, it keeps what it has.
#[derive(Debug)]
pub struct SnapshotReceiver {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    partial: PathBuf,
    file: Arc<dyn DiskFile>,
    status: Receiving,
    flushed: u64,
}

impl SnapshotReceiver {
    /// Begins, or resumes what an earlier call, perhaps of an earlier process, has received.
    ///
    /// # Errors
    /// [`TransferError::Disk`].
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        id: SnapshotId,
        file_bytes: u64,
    ) -> Result<Self, TransferError> {
        let name = partial_name(id, file_bytes);
        let partial = dir.join(&name);
        let refused = |error| TransferError::Disk(SnapshotError::disk(&partial, error));
        let known = disk.list(dir).map_err(refused)?.contains(&name);
        let mode = if known { OpenMode::Write } else { OpenMode::Replace };
        let file = disk.open(&partial, mode).map_err(refused)?;
        let mut received = 0;
        if known {
            received = sound_prefix(&*file, file_bytes).map_err(refused)?;
            file.truncate(received).map_err(refused)?;
        } else {
            disk.sync_dir(dir).map_err(refused)?;
        }
        let status = Receiving { id, received, file_bytes };
        Ok(Self { disk, dir: dir.to_owned(), partial, file, status, flushed: received })
    }

    /// How far it is.
    #[must_use]
    pub fn status(&self) -> Receiving {
        self.status
    }

    /// Whether all bytes are here.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.status.received == self.status.file_bytes
    }

    /// Takes the next range.
    ///
    /// # Errors
    /// [`TransferError`]; nothing is taken then, and the transfer may go on at
    /// [`Receiving::received`].
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<Receiving, TransferError> {
        let Receiving { received, file_bytes, .. } = self.status;
        if offset != received {
            return Err(TransferError::Offset { expected: received, given: offset });
        }
        let end = received.saturating_add(bytes.len() as u64);
        if end > file_bytes {
            return Err(TransferError::TooLong { file_bytes, end });
        }
        let refused = |error| TransferError::Disk(SnapshotError::disk(&self.partial, error));
        self.file.write_all_at(bytes, offset).map_err(refused)?;
        if end - self.flushed >= FLUSH_EVERY_BYTES {
            self.file.sync_data().map_err(refused)?;
            self.flushed = end;
        }
        self.status.received = end;
        Ok(self.status)
    }

    /// Flushes, verifies every byte, and gives the file its name.
    pub(super) fn finish(
        self,
        check: impl FnOnce(&SnapshotHead) -> Result<(), FormatError>,
    ) -> Result<Kept, TransferError> {
        let Receiving { id, received, file_bytes } = self.status;
        if !self.is_complete() {
            return Err(TransferError::Incomplete { received, file_bytes });
        }
        let refused = |error| TransferError::Disk(SnapshotError::disk(&self.partial, error));
        self.file.sync_data().map_err(refused)?;
        let kept = match self.verified(check) {
            Ok(kept) => kept,
            Err(error) if error.is_damage() => {
                self.disk.remove(&self.partial).map_err(refused)?;
                return Err(TransferError::Rejected(error));
            }
            Err(error) => return Err(TransferError::Disk(error)),
        };
        self.disk
            .rename(&self.partial, &self.dir.join(id.file_name()))
            .and_then(|()| self.disk.sync_dir(&self.dir))
            .map_err(refused)?;
        Ok(kept)
    }

    fn verified(
        &self,
        check: impl FnOnce(&SnapshotHead) -> Result<(), FormatError>,
    ) -> Result<Kept, SnapshotError> {
        let reader = SnapshotReader::open(&*self.disk, &self.partial)?;
        if reader.id() != self.status.id {
            return Err(SnapshotError::format(&self.partial, FormatError::Name));
        }
        check(reader.head()).map_err(|error| SnapshotError::format(&self.partial, error))?;
        reader.verify()?;
        Ok(Kept {
            id: reader.id(),
            head: reader.head().clone(),
            records: reader.record_count(),
            file_bytes: reader.file_bytes(),
            verified: true,
        })
    }
}

fn partial_name(id: SnapshotId, file_bytes: u64) -> String {
    format!("{}.{file_bytes}{PARTIAL_SUFFIX}", id.file_name())
}

/// The snapshot and the length that a partial file's name speaks of.
pub(super) fn partial_id(name: &str) -> Option<(SnapshotId, u64)> {
    let (file_name, length) = name.strip_suffix(PARTIAL_SUFFIX)?.rsplit_once('.')?;
    Some((SnapshotId::from_file_name(file_name)?, length.parse().ok()?))
}

/// How much of a partial file is a header and whole pages. Only a prefix that may be gone on
/// from; the whole is verified when it is complete.
fn sound_prefix(file: &dyn DiskFile, file_bytes: u64) -> std::io::Result<u64> {
    let size = file.size()?.min(file_bytes.saturating_sub(FOOTER_BYTES as u64));
    if size < HEADER_FIXED_BYTES as u64 {
        return Ok(0);
    }
    let Ok(length) = header_bytes(&read(file, 0, 16)?) else {
        return Ok(0);
    };
    if size < length as u64 || decode_header(&read(file, 0, length)?).is_err() {
        return Ok(0);
    }
    let (mut offset, mut pages) = (length as u64, 0);
    while size - offset >= PAGE_HEAD_BYTES as u64 {
        let Ok(body_bytes) = page_body_bytes(&read(file, offset, PAGE_HEAD_BYTES)?) else {
            break;
        };
        let page_bytes = PAGE_HEAD_BYTES + body_bytes;
        if size - offset < page_bytes as u64
            || decode_page(&read(file, offset, page_bytes)?, pages).is_err()
        {
            break;
        }
        offset += page_bytes as u64;
        pages += 1;
    }
    Ok(offset)
}
