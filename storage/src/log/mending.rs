//! Mending a log while it is open: damage that a read has found.
//!
//! Only what keeps its place is mended here: entries found through sparse places in the segment
//! must stay where they are. That is so for all damage but such that took marks with it from the
//! midst of a group; that is left to the next opening. A sealed segment is written anew and renamed
//! over the damaged file; in the active one, which the writer holds open, only bytes that are
//! damaged already are written over.

use std::path::PathBuf;

use crate::disk::OpenMode;
use crate::error::{DiskFault, ReadError};
use crate::log::append_log::Log;
use crate::recovery::mend::{Filling, MendError, keep, mend, patch};
use crate::recovery::replay::Replay;
use crate::recovery::wound::{Limit, Probe, Wound, probe};
use crate::segment::{HEADER_BYTES, SegmentHeader, file_name};

/// Why damage in an open log was not mended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LiveMendError {
    /// It needs the next opening.
    #[error("what stands there cannot be mended while the log is open")]
    NotInPlace,
    /// What was given does not fill it, or the disk refuses.
    #[error(transparent)]
    Mend(#[from] MendError),
    /// The segment is gone.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<DiskFault> for LiveMendError {
    fn from(fault: DiskFault) -> Self {
        Self::Mend(fault.into())
    }
}

impl Log {
    /// The first damage in a segment, as far as it is flushed, and what would fill it. `None` when
    /// it is sound, or was mended meanwhile. Reads the segment; changes nothing.
    ///
    /// # Errors
    /// [`LiveMendError::NotInPlace`] for damage around which too little is left to say.
    pub fn wound(&self, segment: u64) -> Result<Option<Wound>, LiveMendError> {
        let (handle, sealed, next_index) = {
            let state = self.shared.lock();
            let summary = state.segments.get(&segment).map(|segment| segment.summary.clone());
            let summary = summary.ok_or(ReadError::NoSegment { segment })?;
            let next_index = state.visible.durable_next;
            (state.segment(segment)?, summary.sealed, next_index)
        };
        let header_of = |bytes: Vec<u8>| SegmentHeader::decode(&bytes);
        let Some(header) = header_of(handle.file.read_up_to(HEADER_BYTES)?) else {
            return Err(LiveMendError::NotInPlace);
        };
        let folder = &self.shared.folder;
        let successor = folder.file_if_there(&file_name(segment + 1), OpenMode::Read)?;
        let next = match successor {
            Some(file) => header_of(file.read_up_to(HEADER_BYTES)?),
            None => None,
        };
        let limit = match next {
            Some(next) => Limit::Sealed(next),
            None if sealed => Limit::Footer,
            None => Limit::Last,
        };
        match probe(&handle.file, &header, limit, &mut Replay::new(None))? {
            Probe::Sound { .. } => Ok(None),
            Probe::Wound(wound) => Ok(Some(Wound { next_index, ..*wound })),
            Probe::Beyond { .. } => Err(LiveMendError::NotInPlace),
        }
    }

    /// Fills damage that [`Self::wound`] found; see [`mend`] for what
    /// the filling must be. Blocks for the flush.
    ///
    /// # Errors
    /// [`LiveMendError`]; nothing has changed then, but for a copy in the quarantine.
    pub fn mend(&self, wound: &Wound, filling: &Filling) -> Result<PathBuf, LiveMendError> {
        let patch = patch(wound, filling)?;
        if !patch.in_place {
            return Err(LiveMendError::NotInPlace);
        }
        let segment = wound.hole.segment;
        let folder = &self.shared.folder;
        let name = file_name(segment);
        let sealed = {
            let state = self.shared.lock();
            let found = state.segments.get(&segment).map(|segment| segment.summary.sealed);
            found.ok_or(ReadError::NoSegment { segment })?
        };
        if sealed {
            let mended = mend(folder.disk(), folder.path(), wound, filling)?;
            let file = folder.file(&name, OpenMode::Write)?;
            if let Some(segment) = self.shared.lock().segments.get_mut(&segment) {
                segment.file = file;
            }
            return Ok(mended.path);
        }
        let file = self.shared.lock().segment(segment)?.file;
        let bytes = patch.bytes.len();
        let mut damaged = vec![0; bytes];
        let count = file.read(&mut damaged, wound.region.start)?;
        damaged.truncate(count);
        keep(folder, &name, wound.region.start, &damaged)?;
        file.write(&patch.bytes, wound.region.start)?;
        file.sync()?;
        Ok(file.path().to_owned())
    }
}
