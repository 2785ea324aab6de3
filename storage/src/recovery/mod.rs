//! Opening: what on disk may be believed.
//!
//! 1. The standing names the first segment and the purge point. Lower segments are leftovers of a
//!    purge and are removed; a prepared first segment gets its name.
//! 2. Every segment but the last is walked up to where its successor says it ends. Whatever is
//!    damaged or missing there was proven to be on disk: a [`Hole`]. Nothing is changed.
//! 3. The last segment is *examined*. Damage before its last durable mark, found by searching behind
//!    the damage, is a hole too. Everything after the last mark is *unproven*: it may stand in the
//!    page cache only.
//! 4. The unproven tail is *settled*. What is readable of it is carried over into a fresh segment,
//!    flushed, folder too, before anybody hears of it. What is not readable is copied to
//!    `quarantine/`, and the doubt is written down before the cut ([`Tail::Cut`]).
//! 5. Then the end is walked like the rest, and the newest hard state is proven or doubted.
//!
//! Each step leaves a state from which the next opening comes to the same log. A hole is not
//! opening's to fill: [`wound`] says what would, and [`mend`] does it.

mod examine;
pub mod loss;
pub mod mend;
pub(crate) mod replay;
mod settle;
pub mod wound;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, Folder, OpenMode};
use crate::error::{DiskFault, OpenError};
use crate::log::append_log::{LogOptions, LogState};
use crate::log::group_commit::{Writer, WriterStart, segment_of};
use crate::log::hard_state::{FoundState, HardStateFile, NumberedState};
use crate::log::log_state::{Queue, Segment, Shared, SharedLog, State};
use crate::log::standing::{Bound, Standing, StandingFile};
use crate::log::visible::{End, Visible};
use crate::record::{Damage, chain_seed};
use crate::segment::{
    ActiveSegment, Carried, Head, SegmentHeader, file_name, id_of, id_of_new, new_file_name,
};
use replay::Replay;

/// Something that was proven to be on disk is damaged or missing. It is never cut away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "hole in segment {segment} ({}) at offset {offset}, the first unreadable entry is {index}: {damage}",
    path.display()
)]
pub struct Hole {
    /// The segment's id.
    pub segment: u64,
    /// Its file.
    pub path: PathBuf,
    /// Offset of the damage in bytes.
    pub offset: u64,
    /// The first index that cannot be read.
    pub index: u64,
    /// What is wrong there.
    pub damage: Damage,
}

/// What was cut off the end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The first index that may have been lost, though it may never have existed.
    pub from_index: u64,
    /// The segment.
    pub segment: u64,
    /// Offset of the damage in bytes.
    pub offset: u64,
}

/// What the end of the log looked like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Everything that was ever acknowledged is there.
    Proven,
    /// The end was damaged above the last durable mark, now or at an earlier opening that has not
    /// been settled. A group that was acknowledged may be missing: a member must not vote before
    /// its log has reached a leader's commit index.
    Cut(Cut),
}

/// What opening found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    /// The end of the log.
    pub tail: Tail,
    /// Whether the newest hard state is known to be the newest. When not, the node must rejoin
    /// under a new id.
    pub hard_state_proven: bool,
    /// Records checked.
    pub records: u64,
    /// Bytes checked.
    pub bytes: u64,
    /// Segments on disk now.
    pub segments: usize,
    /// Files set aside by this opening.
    pub quarantined: Vec<PathBuf>,
}

pub(crate) fn with_purged(current: Standing, first_segment: u64, bound: Bound) -> Standing {
    Standing { first_segment, purged: Some(bound), ..current }
}

pub(crate) fn without_doubts(current: Standing) -> Standing {
    Standing { cut: None, hard_state_unproven: false, ..current }
}

/// What every step of opening needs.
struct Opening {
    folder: Folder,
    options: LogOptions,
    standing: StandingFile,
    segments: Vec<Segment>,
    quarantined: Vec<PathBuf>,
}

pub(crate) fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: LogOptions,
) -> Result<(SharedLog, Writer, OpenReport), OpenError> {
    let folder = Folder::open(disk, dir)?;
    let mut standing = StandingFile::open(&folder)?;
    let (hard_state_file, found_state) = HardStateFile::open(&folder)?;
    if standing.current().is_none() {
        make(&folder, &options, &mut standing, &found_state)?;
    }
    let mut opening =
        Opening { folder, options, standing, segments: Vec::new(), quarantined: Vec::new() };
    let standing = opening.standing_now()?;
    let ids = opening.tidy(&standing)?;
    let mut replay = Replay::new(standing.purged);
    let last = opening.walk_sealed(&ids, &mut replay)?;
    let state = found_state.newest.as_ref();
    let active = opening.settle_last(last, &mut replay, state)?;
    opening.finish(replay, active, hard_state_file, found_state)
}

/// A new log: its first segment is durable before the standing names it.
fn make(
    folder: &Folder,
    options: &LogOptions,
    standing: &mut StandingFile,
    found_state: &FoundState,
) -> Result<(), OpenError> {
    let is_segment = |name: &String| id_of(name).is_some();
    if folder.list()?.iter().any(is_segment) || found_state.newest.is_some() {
        return Err(OpenError::TwinsDamaged { path: folder.path_of("standing") });
    }
    let header = SegmentHeader {
        segment: 1,
        cluster_id: options.cluster_id,
        lineage: options.lineage,
        first_index: 0,
        previous_term: 0,
        chain: chain_seed(options.cluster_id),
        previous_end: 0,
    };
    let head = Head::new(&header, None, &Carried::default());
    ActiveSegment::prepare(folder, header, &head, options.segment_bytes)?;
    folder.sync()?;
    let first = Standing { first_segment: 1, purged: None, cut: None, hard_state_unproven: false };
    Ok(standing.save(first)?)
}

/// A segment that has been identified, and whether another follows it.
struct LastSegment {
    id: u64,
    header: SegmentHeader,
}

impl Opening {
    fn standing_now(&self) -> Result<Standing, OpenError> {
        let missing = || OpenError::TwinsDamaged { path: self.folder.path_of("standing") };
        self.standing.current().ok_or_else(missing)
    }

    /// Removes what purges and interrupted rotations left, names a prepared first segment, and
    /// answers with the ids of the segments, without a gap.
    fn tidy(&self, standing: &Standing) -> Result<Vec<u64>, OpenError> {
        let first = standing.first_segment;
        let names = self.folder.list()?;
        self.remove_unfinished_mends(&names)?;
        let mut ids: Vec<u64> = names.iter().filter_map(|name| id_of(name)).collect();
        if !ids.contains(&first) && names.contains(&new_file_name(first)) {
            self.folder.rename(&new_file_name(first), &file_name(first))?;
            ids.push(first);
        }
        for id in names.iter().filter_map(|name| id_of_new(name)) {
            self.folder.remove(&new_file_name(id))?;
        }
        for id in ids.extract_if(.., |id| *id < first) {
            self.folder.remove(&file_name(id))?;
        }
        // Also proves the names that are believed from here on.
        self.folder.sync()?;
        ids.sort_unstable();
        let last = ids.last().copied().unwrap_or(first);
        match (first..=last).find(|id| !ids.contains(id)) {
            None => Ok(ids),
            Some(id) => {
                let index = self.next_index_before(&ids, id, standing);
                Err(self.hole(id, 0, index, Damage::Missing))
            }
        }
    }

    /// For the report of a missing segment: the first index that it may have held.
    fn next_index_before(&self, ids: &[u64], missing: u64, standing: &Standing) -> u64 {
        let start = standing.purged.map_or(0, |bound| bound.index + 1);
        let mut replay = Replay::new(standing.purged);
        let before = ids.iter().copied().take_while(|id| *id < missing);
        for id in before {
            if self.walk_one(id, None, &mut replay).is_err() {
                break;
            }
        }
        replay.next_index().map_or(start, |next| next.max(start))
    }

    fn hole(&self, segment: u64, offset: u64, index: u64, damage: Damage) -> OpenError {
        let path = self.folder.path_of(&file_name(segment));
        Hole { segment, path, offset, index, damage }.into()
    }

    /// Reads and checks a header.
    fn header(&self, id: u64, next_index: u64) -> Result<SegmentHeader, OpenError> {
        use crate::segment::{HEADER_BYTES, HeaderFault};
        let name = file_name(id);
        let file = self.folder.file(&name, OpenMode::Read)?;
        let bytes = file.read_up_to(HEADER_BYTES)?;
        let path = self.folder.path_of(&name);
        let header = match SegmentHeader::read(&bytes) {
            Ok(header) if header.segment == id => header,
            Ok(_) | Err(HeaderFault::Damaged) => {
                return Err(self.hole(id, 0, next_index, Damage::Header));
            }
            Err(HeaderFault::UnknownVersion(found)) => {
                let known = crate::format::VERSION;
                return Err(OpenError::UnknownFormat { path, found, known });
            }
        };
        let (expected, found) = (self.options.cluster_id, header.cluster_id);
        if expected != found {
            return Err(OpenError::OtherCluster { path, expected, found });
        }
        Ok(header)
    }

    /// Walks every segment but the last, whose header it answers with.
    fn walk_sealed(&mut self, ids: &[u64], replay: &mut Replay) -> Result<LastSegment, OpenError> {
        let first = self.standing_now()?.first_segment;
        let last = ids.last().copied().unwrap_or(first);
        for id in first..last {
            let segment = self.walk_one(id, Some(id + 1), replay)?;
            self.segments.push(segment);
        }
        let header = self.header(last, replay.index_or_start())?;
        self.check_follows(&header, replay)?;
        Ok(LastSegment { id: last, header })
    }

    fn check_follows(&self, header: &SegmentHeader, replay: &Replay) -> Result<(), OpenError> {
        let seed = chain_seed(self.options.cluster_id);
        if replay.follows(header, seed) {
            return Ok(());
        }
        Err(self.hole(header.segment, 0, replay.index_or_start(), Damage::Header))
    }

    /// Everything is in place: the hard state is proven or doubted, and the log begins.
    fn finish(
        mut self,
        replay: Replay,
        active: ActiveSegment,
        hard_state_file: HardStateFile,
        found_state: FoundState,
    ) -> Result<(SharedLog, Writer, OpenReport), OpenError> {
        let mut standing = self.standing_now()?;
        let purged = standing.purged;
        let end = replay.end();
        if !replay.leads_through_bound() {
            let offset = active.end();
            return Err(self.hole(
                active.header().segment,
                offset,
                end.next_index,
                Damage::Missing,
            ));
        }
        let in_log = replay.hard_state().cloned();
        let newest = newer(in_log.as_ref(), found_state.newest.as_ref()).cloned();
        let was_there = in_log.is_some() || found_state.newest.is_some();
        // A damaged tail may have held a newer state only if the second copy is damaged as well.
        if standing.cut.is_some() && was_there && !found_state.sound {
            standing.hard_state_unproven = true;
            self.standing.save(standing)?;
        }
        match &newest {
            // Written once more, since so far it may stand in the page cache only.
            Some(newest) if found_state.sound && found_state.newest.as_ref() == Some(newest) => {
                hard_state_file.save(newest)?;
            }
            None if found_state.sound => {}
            _ => hard_state_file.mend(newest.as_ref())?,
        }
        self.segments.push(segment_of(&active));
        if let Some(segment) = self.segments.last_mut() {
            segment.summary.next_index = end.next_index;
        }
        let report = OpenReport {
            tail: standing.cut.map_or(Tail::Proven, Tail::Cut),
            hard_state_proven: !standing.hard_state_unproven,
            records: replay.records(),
            bytes: replay.bytes(),
            segments: self.segments.len(),
            quarantined: self.quarantined,
        };
        let (points, terms) = replay.into_places();
        let mut visible = Visible::new(purged, end, terms, points);
        if let Some(bound) = purged {
            visible.purge(bound);
        }
        let segments =
            self.segments.into_iter().map(|segment| (segment.summary.id, segment)).collect();
        let state = State {
            visible,
            queue: Queue::default(),
            segments,
            hard_state: newest.clone(),
            health: LogState::Writable,
            closed: false,
            spare: None,
        };
        let shared = Arc::new(Shared::new(self.folder, self.options, state, self.standing));
        let start = WriterStart { active, end, hard_state: newest, hard_state_file };
        let writer = Writer::new(Arc::clone(&shared), start);
        Ok((shared, writer, report))
    }
}

/// The newer of two hard states.
fn newer<'a>(
    one: Option<&'a NumberedState>,
    other: Option<&'a NumberedState>,
) -> Option<&'a NumberedState> {
    one.into_iter().chain(other).max_by_key(|state| state.number)
}

/// The end of the log before a segment, as its header says.
fn end_before(header: &SegmentHeader) -> End {
    End { next_index: header.first_index, last_term: header.previous_term, chain: header.chain }
}

impl From<DiskFault> for Stop {
    fn from(fault: DiskFault) -> Self {
        Self::Disk(fault)
    }
}

/// Why a walk over a segment did not reach its end.
#[derive(Debug)]
enum Stop {
    Damage { offset: u64, damage: Damage },
    Disk(DiskFault),
}
