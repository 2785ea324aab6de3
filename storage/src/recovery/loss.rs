//! Going on without what is lost: the last resort of a node that has no peer to mend it.
//!
//! At each hole the log keeps what can still be applied: everything behind the hole, where a
//! snapshot covers the hole; what stands before it otherwise. Whatever is given up moves to
//! `quarantine/`; nothing is deleted. The log that is left opens like any other. Whoever calls this
//! mints a new lineage first, so that no position of the old one is taken for one of the new.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::mend::{Filling, MendError, begin_after, free_name, mend, write_filler, write_whole};
use super::wound::{Beyond, Diagnosis, Wound, survey};
use super::{Hole, Standing};
use crate::disk::{Disk, Folder, OpenMode};
use crate::error::{DiskFault, OpenError};
use crate::log::append_log::{Log, LogOptions};
use crate::log::hard_state::HardStateFile;
use crate::log::standing::{Bound, StandingFile};
use crate::log::twin_file::QUARANTINE;
use crate::record::{MARK_HEAD_BYTES, Position, RecordKind, write_durable_mark};
use crate::segment::{HEADER_BYTES, ScanFault, Scanner, SegmentHeader, file_name, id_of};

/// Holes that one call goes on without; each costs a walk over the log.
const HOLES_MAX: usize = 4_096;

/// Where a whole snapshot ends, and the chain there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotEnd {
    /// Its last entry.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The chain after it.
    pub chain: u64,
}

/// One hole, and what going on without it costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostPart {
    /// The hole.
    pub hole: Hole,
    /// Entries that the state will lack. Empty where a snapshot holds what they did.
    pub lost: Range<u64>,
    /// Entries that the snapshot holds the effect of, but that cannot be read again.
    pub unreadable: Range<u64>,
}

/// What was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// In the order of the log; empty when the log had no hole.
    pub parts: Vec<LostPart>,
    /// The entries that the log holds now.
    pub kept: Range<u64>,
    /// Where what was given up is kept.
    pub quarantined: Vec<PathBuf>,
}

/// Why nothing could be kept, or the disk refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LossError {
    /// Neither a part of the log nor a snapshot is left to go on from.
    #[error("{hole}; nothing before it is left, and there is no snapshot that covers it")]
    NothingLeft {
        /// The hole.
        hole: Hole,
    },
    /// The log has more holes than one call goes on without; call again.
    #[error("more than {HOLES_MAX} holes")]
    TooManyHoles,
    /// A step could not be done.
    #[error(transparent)]
    Mend(#[from] MendError),
}

impl From<DiskFault> for LossError {
    fn from(fault: DiskFault) -> Self {
        Self::Mend(fault.into())
    }
}

impl From<OpenError> for LossError {
    fn from(error: OpenError) -> Self {
        Self::Mend(error.into())
    }
}

/// Makes a log open again at the price of what is lost. `snapshot` is the newest whole one.
///
/// A crash in between leaves a log that still refuses to open, or one that this has finished.
///
/// # Errors
/// [`LossError`].
pub fn accept_loss(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    options: &LogOptions,
    snapshot: Option<SnapshotEnd>,
) -> Result<Loss, LossError> {
    let mut loss = Loss { parts: Vec::new(), kept: 0..0, quarantined: Vec::new() };
    for _ in 0..HOLES_MAX {
        let surgery = Surgery {
            disk: Arc::clone(disk),
            folder: Folder::open(Arc::clone(disk), dir)?,
            dir,
            options,
            snapshot,
        };
        match survey(Arc::clone(disk), dir, options)? {
            Diagnosis::Sound => {
                let (log, _writer, _) = Log::open(Arc::clone(disk), dir, options.clone())?;
                loss.kept = log.first_index()..log.next_index();
                return Ok(loss);
            }
            Diagnosis::Wound(wound) => surgery.operate(&wound, &mut loss)?,
            Diagnosis::Beyond(Beyond { hole, next_index, .. }) => {
                let before = hole.index;
                surgery.give_up_from(hole, before, next_index, &mut loss)?;
            }
        }
    }
    Err(LossError::TooManyHoles)
}

struct Surgery<'a> {
    disk: Arc<dyn Disk>,
    folder: Folder,
    dir: &'a Path,
    options: &'a LogOptions,
    snapshot: Option<SnapshotEnd>,
}

impl Surgery<'_> {
    fn operate(&self, wound: &Wound, loss: &mut Loss) -> Result<(), LossError> {
        let end = wound.needed.end;
        // Only marks are lost: nothing is missing.
        if let Some(chain) = wound.chain.filter(|_| wound.needed.is_empty()) {
            let filling = Filling { chain_before: chain, records: Vec::new() };
            match mend(Arc::clone(&self.disk), self.dir, wound, &filling) {
                Ok(mended) => {
                    loss.quarantined.extend(mended.quarantined);
                    return Ok(());
                }
                Err(MendError::DoesNotFit { .. } | MendError::DoesNotFollow { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let covered = self.snapshot.filter(|snapshot| end <= snapshot.index.saturating_add(1));
        match (covered, wound.chain) {
            (Some(snapshot), Some(chain)) if snapshot.index < wound.next_index => {
                self.skip(wound, snapshot, chain, loss)
            }
            _ => {
                let before = wound.needed.start;
                self.give_up_from(wound.hole.clone(), before, wound.next_index, loss)
            }
        }
    }

    /// The log begins behind the hole; a snapshot holds what is before.
    fn skip(
        &self,
        wound: &Wound,
        snapshot: SnapshotEnd,
        chain: u64,
        loss: &mut Loss,
    ) -> Result<(), LossError> {
        let end = wound.needed.end;
        let segment = wound.hole.segment;
        let name = file_name(segment);
        let mut standing = StandingFile::open(&self.folder)?;
        let Some(current) = standing.current() else {
            return Err(OpenError::TwinsDamaged { path: self.folder.path_of("standing") }.into());
        };
        if !HardStateFile::open(&self.folder)?.1.sound {
            return Err(MendError::HardStateUnproven.into());
        }
        let region_end = usize::try_from(wound.region.end).unwrap_or(usize::MAX);
        let header = SegmentHeader {
            segment,
            cluster_id: self.options.cluster_id,
            lineage: self.options.lineage,
            first_index: end,
            previous_term: if end == snapshot.index + 1 { snapshot.term } else { 0 },
            chain,
            previous_end: 0,
        };
        let mut bytes = header.encode().to_vec();
        let place = Position { segment, offset: bytes.len() as u64 };
        write_durable_mark(&mut bytes, end, place);
        match region_end.checked_sub(bytes.len()) {
            Some(0) => {}
            Some(filler @ MARK_HEAD_BYTES..) => write_filler(&mut bytes, filler),
            _ => {
                let (hole, before) = (wound.hole.clone(), wound.needed.start);
                return self.give_up_from(hole, before, wound.next_index, loss);
            }
        }
        let old = self.copy_aside(&name, loss)?;
        bytes.extend_from_slice(old.get(region_end..).unwrap_or_default());
        write_whole(&self.folder, &name, &bytes)?;
        self.move_aside(|id| id < segment, loss)?;
        let bound = match current.purged {
            Some(bound) if bound.index >= snapshot.index => bound,
            _ => Bound { index: snapshot.index, term: snapshot.term, chain: snapshot.chain },
        };
        standing.save(Standing { first_segment: segment, purged: Some(bound), ..current })?;
        let first = current.purged.map_or(0, |bound| bound.index + 1);
        let hole = wound.hole.clone();
        loss.parts.push(LostPart { hole, lost: end..end, unreadable: first..end });
        Ok(())
    }

    /// The log ends before the hole, or where a snapshot reaches further, it begins anew behind
    /// that.
    fn give_up_from(
        &self,
        hole: Hole,
        before: u64,
        next_index: u64,
        loss: &mut Loss,
    ) -> Result<(), LossError> {
        let standing = StandingFile::open(&self.folder)?;
        let purged = standing.current().and_then(|current| current.purged);
        let first = purged.map_or(0, |bound| bound.index + 1);
        let end = next_index.max(before);
        if let Some(snapshot) = self.snapshot.filter(|snapshot| snapshot.index >= before) {
            let SnapshotEnd { index, term, chain } = snapshot;
            let disk = Arc::clone(&self.disk);
            let aside = begin_after(disk, self.dir, self.options, index, term, chain, false)?;
            loss.quarantined.extend(aside);
            let lost = (index + 1).min(end)..end;
            loss.parts.push(LostPart { hole, unreadable: first..lost.start, lost });
            return Ok(());
        }
        if let Some(bound) = purged.filter(|_| before == first && hole.offset < HEADER_BYTES as u64)
            && standing.current().is_some_and(|current| current.first_segment == hole.segment)
        {
            let Bound { index, term, chain } = bound;
            let disk = Arc::clone(&self.disk);
            let aside = begin_after(disk, self.dir, self.options, index, term, chain, false)?;
            loss.quarantined.extend(aside);
            loss.parts.push(LostPart { hole, lost: before..end, unreadable: before..before });
            return Ok(());
        }
        if before < first || before == 0 && purged.is_none() && hole.offset < HEADER_BYTES as u64 {
            return Err(LossError::NothingLeft { hole });
        }
        let segment = hole.segment;
        self.move_aside(|id| id > segment, loss)?;
        if hole.offset < HEADER_BYTES as u64 {
            self.move_aside(|id| id == segment, loss)?;
            // What is the last one now says in its footer that it is not.
            let before_it = segment.saturating_sub(1);
            if let Some(end) = self.footer_of(before_it)? {
                self.end_at(before_it, end, before, loss)?;
            }
        } else {
            self.end_at(segment, hole.offset, before, loss)?;
        }
        loss.parts.push(LostPart { hole, lost: before..end, unreadable: before..before });
        Ok(())
    }

    /// Ends a segment at an offset, where `next_index` is the next entry.
    fn end_at(
        &self,
        segment: u64,
        offset: u64,
        next_index: u64,
        loss: &mut Loss,
    ) -> Result<(), LossError> {
        let name = file_name(segment);
        let mut bytes = self.copy_aside(&name, loss)?;
        bytes.truncate(usize::try_from(offset).unwrap_or(usize::MAX));
        let place = Position { segment, offset: bytes.len() as u64 };
        write_durable_mark(&mut bytes, next_index, place);
        Ok(write_whole(&self.folder, &name, &bytes)?)
    }

    /// Where the footer of a segment begins, if it is there and has one. What stands behind it, such as
    /// reserved space whose giving back was never flushed, does not matter.
    fn footer_of(&self, segment: u64) -> Result<Option<u64>, LossError> {
        let Some(file) = self.folder.file_if_there(&file_name(segment), OpenMode::Read)? else {
            return Ok(None);
        };
        let mut scanner = Scanner::new(file, segment, HEADER_BYTES as u64, u64::MAX);
        loop {
            match scanner.advance() {
                Ok(Some(located)) if located.record.kind == RecordKind::Footer => {
                    return Ok(Some(located.position.offset));
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(ScanFault::Damage(_)) => return Ok(None),
                Err(ScanFault::Disk(fault)) => return Err(fault.into()),
            }
        }
    }

    /// Copies a segment to the quarantine; its bytes.
    fn copy_aside(&self, name: &str, loss: &mut Loss) -> Result<Vec<u8>, LossError> {
        let Some(file) = self.folder.file_if_there(name, OpenMode::Read)? else {
            return Ok(Vec::new());
        };
        let bytes = file.read_up_to(usize::MAX)?;
        let aside = self.folder.inside(QUARANTINE)?;
        let kept = free_name(&aside, name)?;
        aside.replace(&kept, &bytes)?;
        aside.sync()?;
        loss.quarantined.push(aside.path_of(&kept));
        Ok(bytes)
    }

    /// Moves segments to the quarantine, the newest first: what stays has no gap.
    fn move_aside(&self, which: impl Fn(u64) -> bool, loss: &mut Loss) -> Result<(), LossError> {
        let aside = self.folder.inside(QUARANTINE)?;
        let names = self.folder.list()?;
        for name in names.iter().rev().filter(|name| id_of(name).is_some_and(&which)) {
            let kept = free_name(&aside, name)?;
            self.folder.move_to(name, &aside, &kept)?;
            loss.quarantined.push(aside.path_of(&kept));
        }
        Ok(())
    }
}
