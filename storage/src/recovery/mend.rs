//! Filling a hole with entries from elsewhere, and beginning anew behind a snapshot.
//!
//! A mended segment is written beside the damaged one, flushed, and renamed over it; the damaged
//! bytes have been copied to `quarantine/` before. So a crash leaves the damaged log or the mended
//! one, and mending again comes to the same bytes. What was sound keeps its place in the file:
//! what cannot be told again (marks) is replaced by a mark or by filler of the same length.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::wound::Wound;
use super::{Cut, Opening, Standing, newer};
use crate::disk::{Disk, Folder, OpenMode};
use crate::error::{DiskFault, OpenError};
use crate::log::append_log::LogOptions;
use crate::log::hard_state::HardStateFile;
use crate::log::standing::{Bound, StandingFile};
use crate::log::twin_file::QUARANTINE;
use crate::log::visible::End;
use crate::record::{
    DURABLE_MARK_BYTES, Frame, MARK_HEAD_BYTES, PAYLOAD_BYTES_MAX, Position, Record, RecordKind,
    write_durable_mark, write_mark,
};
use crate::segment::{ActiveSegment, Carried, HEADER_BYTES, Head, SegmentHeader, file_name, id_of};

/// The end of the name of a segment that is being mended.
pub(super) const MEND_SUFFIX: &str = ".mend";

/// Why a hole was not filled. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MendError {
    /// The entries are not consecutive, end elsewhere, or are no entries.
    #[error("entries up to {expected} are needed, those given end before {found}")]
    OtherEntries {
        /// One past the last that is needed.
        expected: u64,
        /// One past the last that was given.
        found: u64,
    },
    /// They belong to another history than what stands before the hole.
    #[error("the entries from {from} on do not follow what stands before the hole")]
    DoesNotFollow {
        /// The first one.
        from: u64,
    },
    /// What stands behind the hole belongs to another history than they.
    #[error("the chain before entry {next_index} is {found:016x} instead of {expected:016x}")]
    OtherChain {
        /// One past the last entry.
        next_index: u64,
        /// What the sound part says.
        expected: u64,
        /// What they lead to.
        found: u64,
    },
    /// They do not fit between what is sound.
    #[error("{bytes} bytes of entries do not fit into {region_bytes} damaged bytes")]
    DoesNotFit {
        /// Bytes of what should fill the hole.
        bytes: usize,
        /// Bytes of the hole.
        region_bytes: usize,
    },
    /// The newest hard state may have been lost with the damage, and its second copy is damaged.
    #[error("the newest hard state cannot be proven")]
    HardStateUnproven,
    /// The files cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl From<DiskFault> for MendError {
    fn from(fault: DiskFault) -> Self {
        Self::Open(fault.into())
    }
}

/// Entries for a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filling {
    /// The chain before the first entry.
    pub chain_before: u64,
    /// Consecutive entries that end where the hole ends.
    pub records: Vec<Record>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// The segment's file.
    pub path: PathBuf,
    /// Entries that were put in.
    pub entries: usize,
    /// Where the damaged bytes are kept; none if the file was missing.
    pub quarantined: Option<PathBuf>,
    /// Whether every sound entry and every entry that was put in stands where it stood before.
    pub in_place: bool,
}

/// Fills the hole of a closed log. Without a chain in the wound, whoever calls vouches that the
/// entries are committed in the cluster.
///
/// # Errors
/// [`MendError`]; the log is as it was then.
pub fn mend(
    disk: Arc<dyn Disk>,
    dir: &Path,
    wound: &Wound,
    filling: &Filling,
) -> Result<Mended, MendError> {
    let folder = Folder::open(disk, dir)?;
    let patch = patch(wound, filling)?;
    let (_, found) = HardStateFile::open(&folder)?;
    if patch.may_hide_hard_state && !found.sound {
        return Err(MendError::HardStateUnproven);
    }
    replace(&folder, wound, patch)
}

/// What takes the place of the region.
pub(crate) struct Patch {
    pub(crate) bytes: Vec<u8>,
    entries: usize,
    pub(crate) in_place: bool,
    may_hide_hard_state: bool,
}

/// Checks the filling and lays it out so that it is as long as the region.
pub(crate) fn patch(wound: &Wound, filling: &Filling) -> Result<Patch, MendError> {
    let content = content(wound, filling)?;
    let header = wound.header.filter(|_| wound.region.start == 0);
    let region_bytes = usize::try_from(wound.region.end - wound.region.start).unwrap_or(usize::MAX);
    let head_bytes = if header.is_some() { HEADER_BYTES } else { 0 };
    let mut bytes = Vec::with_capacity(region_bytes.min(content.len() + region_bytes));
    if let Some(header) = &header {
        bytes.extend_from_slice(&header.encode());
    }
    let does_not_fit = MendError::DoesNotFit { bytes: content.len(), region_bytes };
    let Some(slack) = region_bytes.checked_sub(head_bytes + content.len()) else {
        return Err(does_not_fit);
    };
    let before = wound.end_before();
    match slack {
        0 => bytes.extend_from_slice(&content),
        // Each group opens with a mark.
        DURABLE_MARK_BYTES.. => {
            let place = Position {
                segment: wound.hole.segment,
                offset: wound.region.start + bytes.len() as u64,
            };
            let rest = slack - DURABLE_MARK_BYTES;
            if rest == 0 || rest >= MARK_HEAD_BYTES {
                let next_index = before.map_or(wound.needed.start, |end| end.next_index);
                write_durable_mark(&mut bytes, next_index, place);
                bytes.extend_from_slice(&content);
                write_filler(&mut bytes, rest);
            } else {
                bytes.extend_from_slice(&content);
                write_filler(&mut bytes, slack);
            }
        }
        MARK_HEAD_BYTES.. => {
            bytes.extend_from_slice(&content);
            write_filler(&mut bytes, slack);
        }
        _ => return Err(does_not_fit),
    }
    let entries = filling.records.len();
    let in_place = slack == 0 || slack == DURABLE_MARK_BYTES || entries == 0;
    Ok(Patch { bytes, entries, in_place, may_hide_hard_state: slack > 0 })
}

/// The records that lead from what stands before the hole to what stands behind it.
fn content(wound: &Wound, filling: &Filling) -> Result<Vec<u8>, MendError> {
    let Filling { chain_before, records } = filling;
    let expected = wound.needed.end;
    let from = records.first().map_or(expected, |record| record.index);
    let does_not_follow = MendError::DoesNotFollow { from };
    let start = wound.end_at(from).filter(|end| end.chain == *chain_before);
    let start = start.ok_or_else(|| does_not_follow.clone())?;
    let mut end = start;
    let mut bytes = Vec::new();
    let broke_off = wound.end_before().is_some_and(|before| before.next_index > from);
    if broke_off && !(records.is_empty() && wound.cut_behind) {
        let payload = end.chain.to_le_bytes();
        write_mark(&mut bytes, RecordKind::Truncate, end.next_index, end.last_term, &payload);
    }
    for record in records {
        if record.index != end.next_index || !record.kind.is_entry() {
            let found = end.next_index;
            return Err(MendError::OtherEntries { expected, found });
        }
        if record.term < end.last_term {
            return Err(does_not_follow);
        }
        let frame = Frame::new(record.clone(), end.chain);
        frame.write(&mut bytes);
        let next_index = record.index.saturating_add(1);
        end = End { next_index, last_term: record.term, chain: frame.chain() };
    }
    if end.next_index != expected {
        return Err(MendError::OtherEntries { expected, found: end.next_index });
    }
    match wound.chain {
        Some(chain) if chain != end.chain => {
            let (expected, found) = (chain, end.chain);
            Err(MendError::OtherChain { next_index: end.next_index, expected, found })
        }
        _ => Ok(bytes),
    }
}

/// Filler of exactly so many bytes: none, or at least one mark.
pub(super) fn write_filler(bytes: &mut Vec<u8>, mut count: usize) {
    const LONGEST: usize = MARK_HEAD_BYTES + PAYLOAD_BYTES_MAX;
    while count > 0 {
        let whole = if count <= LONGEST {
            count
        } else if count - LONGEST >= MARK_HEAD_BYTES {
            LONGEST
        } else {
            LONGEST - MARK_HEAD_BYTES
        };
        let payload = vec![0; whole.saturating_sub(MARK_HEAD_BYTES)];
        write_mark(bytes, RecordKind::Filler, 0, 0, &payload);
        count -= whole;
    }
}

/// Writes the mended segment and puts it in the damaged one's place.
fn replace(folder: &Folder, wound: &Wound, patch: Patch) -> Result<Mended, MendError> {
    let name = file_name(wound.hole.segment);
    let old = match folder.file_if_there(&name, OpenMode::Read)? {
        Some(file) => Some(file.read_up_to(usize::MAX)?),
        None => None,
    };
    let place = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
    let (start, end) = (place(wound.region.start), place(wound.region.end));
    let mut quarantined = None;
    let mut bytes = Vec::new();
    if let Some(old) = &old {
        let damaged = old.get(start..end.min(old.len())).unwrap_or_default();
        quarantined = Some(keep(folder, &name, wound.region.start, damaged)?);
        bytes.extend_from_slice(old.get(..start).unwrap_or(old));
    }
    // A file that was cut short within what is sound before the region never leads here.
    bytes.resize(start, 0);
    bytes.extend_from_slice(&patch.bytes);
    bytes.extend_from_slice(old.as_deref().and_then(|old| old.get(end..)).unwrap_or_default());
    write_whole(folder, &name, &bytes)?;
    let path = folder.path_of(&name);
    Ok(Mended { path, entries: patch.entries, quarantined, in_place: patch.in_place })
}

/// Writes a segment beside the one of that name, and puts it in its place.
pub(super) fn write_whole(folder: &Folder, name: &str, bytes: &[u8]) -> Result<(), DiskFault> {
    // Reserved space stays a hole in the file; it is reserved again when it is written to.
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mending = format!("{name}{MEND_SUFFIX}");
    let file = folder.file(&mending, OpenMode::Replace)?;
    file.write(bytes.get(..written).unwrap_or(bytes), 0)?;
    file.truncate(bytes.len() as u64)?;
    file.sync()?;
    folder.rename(&mending, name)?;
    folder.sync()
}

/// Copies damaged bytes to the quarantine, durable when this returns.
pub(crate) fn keep(
    folder: &Folder,
    name: &str,
    offset: u64,
    damaged: &[u8],
) -> Result<PathBuf, DiskFault> {
    let aside = folder.inside(QUARANTINE)?;
    let kept = format!("{name}.{offset:08x}");
    aside.replace(&kept, damaged)?;
    aside.sync()?;
    Ok(aside.path_of(&kept))
}

/// Gives a log up that records cannot mend, for a snapshot that ends at `index` and covers all of
/// it: the log goes on behind it. Every segment moves to `quarantine/`. The newest hard state is
/// carried over; it must be proven by its second copy, since the damage may have taken newer ones.
/// Of a log that is open-ended ([`Beyond::is_open_ended`]) nobody knows how far it went: its end is in
/// doubt as if it had been cut there ([`Tail::Cut`]).
///
/// [`Beyond::is_open_ended`]: super::wound::Beyond::is_open_ended
/// [`Tail::Cut`]: super::Tail::Cut
///
/// # Errors
/// [`MendError::HardStateUnproven`]; [`MendError::Open`] when the disk refuses.
pub fn begin_after(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: &LogOptions,
    index: u64,
    term: u64,
    chain: u64,
    is_open_ended: bool,
) -> Result<Vec<PathBuf>, MendError> {
    let folder = Folder::open(disk, dir)?;
    let mut standing = StandingFile::open(&folder)?;
    let (_, found) = HardStateFile::open(&folder)?;
    let Some(current) = standing.current() else {
        return Err(OpenError::TwinsDamaged { path: folder.path_of("standing") }.into());
    };
    if !found.sound {
        return Err(MendError::HardStateUnproven);
    }
    let names = folder.list()?;
    let ids: Vec<u64> = names.iter().filter_map(|name| id_of(name)).collect();
    let last = ids.iter().copied().max().unwrap_or(current.first_segment);
    let header = SegmentHeader {
        segment: last.max(current.first_segment) + 1,
        cluster_id: options.cluster_id,
        lineage: options.lineage,
        first_index: index + 1,
        previous_term: term,
        chain,
        previous_end: 0,
    };
    let head = Head::new(&header, newer(None, found.newest.as_ref()), &Carried::default());
    let mut fresh = ActiveSegment::prepare(&folder, header, &head, options.segment_bytes)?;
    // Written down before what tells of it is moved away.
    let offset = HEADER_BYTES as u64;
    let doubt = Cut { from_index: index + 1, segment: header.segment, offset };
    let cut = current.cut.or_else(|| is_open_ended.then_some(doubt));
    if cut != current.cut {
        standing.save(Standing { cut, ..current })?;
    }
    // From here to the standing a crash leaves a log with a hole that only this can mend again.
    let aside = folder.inside(QUARANTINE)?;
    let mut quarantined = Vec::new();
    for id in ids {
        let kept = free_name(&aside, &file_name(id))?;
        folder.move_to(&file_name(id), &aside, &kept)?;
        quarantined.push(aside.path_of(&kept));
    }
    fresh.publish(&folder)?;
    standing.save(Standing {
        first_segment: header.segment,
        purged: Some(Bound { index, term, chain }),
        cut,
        hard_state_unproven: current.hard_state_unproven,
    })?;
    Ok(quarantined)
}

/// A name in the quarantine that nothing has.
pub(super) fn free_name(aside: &Folder, name: &str) -> Result<String, DiskFault> {
    let taken = aside.list()?;
    let numbered = |number: u32| {
        if number == 0 { name.to_owned() } else { format!("{name}.{number}") }
    };
    let free = (0..).map(numbered).find(|candidate| !taken.contains(candidate));
    Ok(free.unwrap_or_else(|| name.to_owned()))
}

impl Opening {
    /// Removes what an interrupted mending left behind.
    pub(super) fn remove_unfinished_mends(&self, names: &[String]) -> Result<(), DiskFault> {
        for name in names.iter().filter(|name| name.ends_with(MEND_SUFFIX)) {
            self.folder.remove(name)?;
        }
        Ok(())
    }
}
