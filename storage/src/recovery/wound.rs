//! What a hole takes away, and what would fill it.
//!
//! Each group of records opens with a durable mark that names its own place, so behind damage the
//! next such mark is where reading can go on: bytes inside of a payload do not pass for one. What
//! stands between the damage and that mark is the *region* of the wound. The sound records behind it
//! tell which entry must follow, and its chain: what fills the region is proven by that chain.
//!
//! Only where nothing sound stands behind the region (the end of the log) its last chain is not
//! known. Then only entries that are committed in the cluster may fill it.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::replay::Replay;
use super::{Hole, Opening, end_before};
use crate::disk::{Disk, Folder, NamedFile, OpenMode};
use crate::error::{DiskFault, OpenError};
use crate::format::read_u64;
use crate::log::append_log::LogOptions;
use crate::log::standing::StandingFile;
use crate::log::visible::End;
use crate::record::{DURABLE_MARK_BYTES, Damage, MARK_HEAD_BYTES, RecordKind, chain_seed};
use crate::segment::{HEADER_BYTES, Located, ScanFault, Scanner, SegmentHeader, file_name, id_of};

/// What is known about a damaged log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Diagnosis {
    /// There is no hole.
    Sound,
    /// A hole that entries from elsewhere can fill.
    Wound(Wound),
    /// A hole around which too little is left to say what would fill it. A snapshot that covers
    /// the whole log can take its place.
    Beyond(Beyond),
}

/// A hole that records cannot fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beyond {
    /// The hole.
    pub hole: Hole,
    /// The log ended before this index, as far as can be told.
    pub next_index: u64,
    /// It may have ended behind that: its newest segment is missing, and nothing else tells.
    pub is_open_ended: bool,
}

/// A hole, and the entries that would fill it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wound {
    /// The hole.
    pub hole: Hole,
    /// The entries that are needed; empty when only marks are lost.
    pub needed: Range<u64>,
    /// The chain after the last of them, where what is sound tells it.
    pub chain: Option<u64>,
    /// The log ended before this index, as far as can be told.
    pub next_index: u64,
    /// The ends that the log had within this segment before the damage, in rising order.
    pub(crate) known: Vec<End>,
    /// The header, where that is lost.
    pub(crate) header: Option<SegmentHeader>,
    /// The bytes that are replaced.
    pub(crate) region: Range<u64>,
    /// Behind the region stands a truncation, so that it does not matter what it takes away.
    pub(crate) cut_behind: bool,
}

impl Wound {
    /// The lowest index from which entries may be given, when those in `needed` do not link: the
    /// damage may have taken a truncation with it.
    #[must_use]
    pub fn lowest(&self) -> u64 {
        self.known.first().map_or(self.needed.start, |end| end.next_index)
    }

    /// The same wound where the cluster is known to have kept nothing from `next_index` on: the end
    /// of the log that was never committed is given up. Only where no chain is known.
    #[must_use]
    pub fn ending_at(&self, next_index: u64) -> Self {
        let mut wound = self.clone();
        if self.chain.is_none() && next_index < self.needed.end {
            wound.needed = self.needed.start.min(next_index)..next_index;
        }
        wound
    }

    /// The same wound with the chain that its end has in the cluster.
    #[must_use]
    pub fn with_chain(&self, chain: u64) -> Self {
        Self { chain: self.chain.or(Some(chain)), ..self.clone() }
    }

    /// Bytes of the segment that are damaged, or stand between what is.
    #[must_use]
    pub fn region_bytes(&self) -> u64 {
        self.region.end - self.region.start
    }

    /// The log's end before the damage, cut back to `next_index`.
    pub(super) fn end_at(&self, next_index: u64) -> Option<End> {
        self.known.iter().find(|end| end.next_index == next_index).copied()
    }

    /// Where the damage begins in the log.
    pub(super) fn end_before(&self) -> Option<End> {
        self.known.last().copied()
    }
}

/// Where a segment's records must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// There, followed by this header.
    Sealed(SegmentHeader),
    /// At its footer; the header that follows is lost.
    Footer,
    /// At its last durable mark, as far as it is proven.
    Last,
}

/// Finds the first hole of a log. Changes nothing.
///
/// # Errors
/// [`OpenError`] when the log cannot be looked at at all.
pub fn survey(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: &LogOptions,
) -> Result<Diagnosis, OpenError> {
    let folder = Folder::open(disk, dir)?;
    let standing = StandingFile::open(&folder)?;
    let options = options.clone();
    let opening =
        Opening { folder, options, standing, segments: Vec::new(), quarantined: Vec::new() };
    opening.survey()
}

/// The end of the predecessor.
#[derive(Debug, Clone, Copy)]
struct Before {
    end: End,
    records_end: u64,
    lineage: u64,
}

impl Opening {
    fn survey(&self) -> Result<Diagnosis, OpenError> {
        let standing = self.standing_now()?;
        let names = self.folder.list()?;
        let first = standing.first_segment;
        let ids: Vec<u64> =
            names.iter().filter_map(|name| id_of(name)).filter(|id| *id >= first).collect();
        let last = ids.iter().copied().max().unwrap_or(first);
        let log_next = self.last_known_index(&ids)?;
        let mut replay = Replay::new(standing.purged);
        let mut before: Option<Before> = None;
        for id in first..=last {
            let next = if id < last { self.sound_header(id + 1)? } else { None };
            let limit = match next {
                Some(next) => Limit::Sealed(next),
                None if id < last => Limit::Footer,
                None => Limit::Last,
            };
            let index = replay.index_or_start();
            let hole = |offset, damage| {
                let path = self.folder.path_of(&file_name(id));
                Hole { segment: id, path, offset, index, damage }
            };
            let beyond = |hole| {
                Diagnosis::Beyond(Beyond { hole, next_index: log_next, is_open_ended: false })
            };
            let file = self.folder.file_if_there(&file_name(id), OpenMode::Read)?;
            let Some(header) = self.sound_header(id)? else {
                let damage = if file.is_some() { Damage::Header } else { Damage::Missing };
                let Some(header) = self.lost_header(id, before, file.as_ref())? else {
                    return Ok(beyond(hole(0, damage)));
                };
                return Ok(match (file, limit) {
                    (Some(_), _) => Diagnosis::Wound(Wound {
                        hole: hole(0, damage),
                        needed: header.first_index..header.first_index,
                        chain: Some(header.chain),
                        next_index: log_next,
                        known: vec![end_before(&header)],
                        header: Some(header),
                        region: 0..HEADER_BYTES as u64,
                        cut_behind: false,
                    }),
                    (None, Limit::Sealed(next)) if next.previous_end > HEADER_BYTES as u64 => {
                        Diagnosis::Wound(Wound {
                            hole: hole(0, damage),
                            needed: header.first_index..next.first_index,
                            chain: Some(next.chain),
                            next_index: log_next,
                            known: vec![end_before(&header)],
                            header: Some(header),
                            region: 0..next.previous_end,
                            cut_behind: false,
                        })
                    }
                    (None, _) => beyond(hole(0, damage)),
                });
            };
            let Some(file) = file else { return Ok(beyond(hole(0, Damage::Missing))) };
            if !replay.follows(&header, chain_seed(self.options.cluster_id)) {
                return Ok(beyond(hole(0, Damage::Header)));
            }
            match probe(&file, &header, limit, &mut replay)? {
                Probe::Sound { is_sealed: true, .. } if id == last => {
                    let next_index = replay.end().next_index;
                    let path = self.folder.path_of(&file_name(id + 1));
                    let damage = Damage::Missing;
                    let hole = Hole { segment: id + 1, path, offset: 0, index: next_index, damage };
                    return Ok(Diagnosis::Beyond(Beyond {
                        hole,
                        next_index: next_index.max(log_next),
                        is_open_ended: true,
                    }));
                }
                Probe::Sound { records_end, .. } => {
                    let (end, lineage) = (replay.end(), header.lineage);
                    before = Some(Before { end, records_end, lineage });
                }
                Probe::Wound(wound) => {
                    return Ok(Diagnosis::Wound(Wound { next_index: log_next, ..*wound }));
                }
                Probe::Beyond { offset, damage } => return Ok(beyond(hole(offset, damage))),
            }
        }
        if replay.leads_through_bound() {
            return Ok(Diagnosis::Sound);
        }
        let path = self.folder.path_of(&file_name(last));
        let (offset, index) =
            (before.map_or(0, |before| before.records_end), replay.end().next_index);
        let hole = Hole { segment: last, path, offset, index, damage: Damage::Missing };
        Ok(Diagnosis::Beyond(Beyond { hole, next_index: log_next, is_open_ended: false }))
    }

    /// The header of a segment, if it is there and whole.
    fn sound_header(&self, id: u64) -> Result<Option<SegmentHeader>, OpenError> {
        let Some(file) = self.folder.file_if_there(&file_name(id), OpenMode::Read)? else {
            return Ok(None);
        };
        let bytes = file.read_up_to(HEADER_BYTES)?;
        let cluster_id = self.options.cluster_id;
        let fits = |header: &SegmentHeader| header.segment == id && header.cluster_id == cluster_id;
        Ok(SegmentHeader::decode(&bytes).filter(fits))
    }

    /// What a header that is lost must have said.
    fn lost_header(
        &self,
        id: u64,
        before: Option<Before>,
        file: Option<&NamedFile>,
    ) -> Result<Option<SegmentHeader>, OpenError> {
        let standing = self.standing_now()?;
        let cluster_id = self.options.cluster_id;
        let lineage = before.map_or(self.options.lineage, |before| before.lineage);
        let header = |end: End, previous_end| SegmentHeader {
            segment: id,
            cluster_id,
            lineage,
            first_index: end.next_index,
            previous_term: end.last_term,
            chain: end.chain,
            previous_end,
        };
        if let Some(before) = before {
            return Ok(Some(header(before.end, before.records_end)));
        }
        let Some(bound) = standing.purged else {
            let chain = chain_seed(cluster_id);
            let start = End { next_index: 0, last_term: 0, chain };
            return Ok((id == standing.first_segment).then(|| header(start, 0)));
        };
        // Its predecessors are purged: the first entry says what came before it.
        let Some(file) = file else { return Ok(None) };
        let mut scanner = Scanner::new(file.clone(), id, HEADER_BYTES as u64, u64::MAX);
        while let Ok(Some(located)) = scanner.advance() {
            if located.record.kind.is_entry() {
                let next_index = located.record.index;
                let last_term = located.record.term.min(bound.term);
                let end = End { next_index, last_term, chain: located.previous_chain };
                return Ok((next_index <= bound.index + 1).then(|| header(end, 0)));
            }
            if located.record.kind == RecordKind::Truncate {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// One past the highest index that any sound header or durable mark names: how far the log may
    /// have reached.
    fn last_known_index(&self, ids: &[u64]) -> Result<u64, OpenError> {
        let standing = self.standing_now()?;
        let mut next_index = standing.purged.map_or(0, |bound| bound.index + 1);
        for id in ids {
            if let Some(header) = self.sound_header(*id)? {
                next_index = next_index.max(header.first_index);
            }
        }
        let Some(last) = ids.iter().max() else { return Ok(next_index) };
        let Some(file) = self.folder.file_if_there(&file_name(*last), OpenMode::Read)? else {
            return Ok(next_index);
        };
        let mut at = HEADER_BYTES as u64;
        loop {
            let mut scanner = Scanner::new(file.clone(), *last, at, u64::MAX);
            while let Ok(Some(located)) = scanner.advance() {
                let index = located.record.index;
                match located.record.kind {
                    RecordKind::Durable => next_index = next_index.max(index),
                    kind if kind.is_entry() => next_index = next_index.max(index + 1),
                    _ => {}
                }
            }
            match scanner.durable_mark_after(scanner.offset() + 1)? {
                Some(mark) => at = mark,
                None => return Ok(next_index),
            }
        }
    }
}

/// What one segment is like.
pub(crate) enum Probe {
    Sound { records_end: u64, is_sealed: bool },
    Wound(Box<Wound>),
    Beyond { offset: u64, damage: Damage },
}

/// Walks one segment and looks around the first damage.
pub(crate) fn probe(
    file: &NamedFile,
    header: &SegmentHeader,
    limit: Limit,
    replay: &mut Replay,
) -> Result<Probe, DiskFault> {
    replay.begin(header);
    let records_limit = match limit {
        Limit::Sealed(next) => next.previous_end,
        Limit::Footer | Limit::Last => u64::MAX,
    };
    let mut known = vec![end_before(header)];
    let mut scanner =
        Scanner::new(file.clone(), header.segment, HEADER_BYTES as u64, records_limit);
    let Walked { damage, footer, marked } = walk(&mut scanner, replay, &mut known)?;
    let offset = scanner.offset();
    let damage = match (damage, limit) {
        (Some(damage), _) => damage,
        (None, Limit::Sealed(next)) if next.previous_end != offset => Damage::Missing,
        (None, Limit::Footer) if !footer => Damage::Missing,
        // The head's mark was flushed before the file got its name.
        (None, Limit::Last) if !marked => Damage::Header,
        // Zeros, and behind them what was once proven.
        (None, Limit::Last) if !footer && scanner.durable_mark_after(offset)?.is_some() => {
            Damage::Trailing
        }
        _ => return Ok(Probe::Sound { records_end: offset, is_sealed: footer }),
    };
    let before = replay.end();
    let index = before.next_index;
    let hole =
        Hole { segment: header.segment, path: file.path().to_owned(), offset, index, damage };
    let behind = look_behind(file, header.segment, offset, records_limit)?;
    let (region_end, next, chain, cut_behind) = match (behind, limit) {
        (Some(Behind { mark, end: Some((next, chain)), is_cut, .. }), _) => {
            (mark, next, Some(chain), is_cut)
        }
        (_, Limit::Sealed(next)) => (next.previous_end, next.first_index, Some(next.chain), false),
        (Some(Behind { mark, marked, .. }), Limit::Last) => {
            // Of one mark that is lost it is known that it changed nothing.
            let one_mark = mark == offset + DURABLE_MARK_BYTES as u64 && marked == index;
            (mark, marked, one_mark.then_some(before.chain), false)
        }
        (None, Limit::Last) if !marked && is_in_head(file, header, offset)? => {
            // The head's own mark: behind it stands nothing, or a group would have brought one.
            let written = scanner.written_end_after(offset)?.unwrap_or(offset);
            let mark_end = offset + DURABLE_MARK_BYTES as u64;
            let region_end = if written <= mark_end {
                mark_end
            } else {
                written.max(mark_end + MARK_HEAD_BYTES as u64)
            };
            (region_end, header.first_index, Some(header.chain), false)
        }
        // An unproven tail is no hole.
        (None, Limit::Last) => {
            return Ok(Probe::Sound { records_end: offset, is_sealed: false });
        }
        (_, Limit::Footer) => return Ok(Probe::Beyond { offset, damage }),
    };
    Ok(Probe::Wound(Box::new(Wound {
        hole,
        needed: index.min(next)..next,
        chain,
        next_index: next,
        known,
        header: None,
        region: offset..region_end,
        cut_behind,
    })))
}

/// How far a walk came.
struct Walked {
    damage: Option<Damage>,
    /// A footer stands where it ended.
    footer: bool,
    /// It met a durable mark.
    marked: bool,
}

/// Walks to the limit, the footer, the end of the written part or the first damage.
fn walk(
    scanner: &mut Scanner,
    replay: &mut Replay,
    known: &mut Vec<End>,
) -> Result<Walked, DiskFault> {
    let mut walked = Walked { damage: None, footer: false, marked: false };
    loop {
        let offset = scanner.offset();
        let located = match scanner.advance() {
            Ok(Some(located)) => located,
            Ok(None) => return Ok(walked),
            Err(ScanFault::Disk(fault)) => return Err(fault),
            Err(ScanFault::Damage(damage)) => {
                return Ok(Walked { damage: Some(damage), ..walked });
            }
        };
        if located.record.kind == RecordKind::Footer {
            scanner.back_to(offset);
            return Ok(Walked { footer: true, ..walked });
        }
        if let Err(damage) = replay.accept(&located) {
            scanner.back_to(offset);
            return Ok(Walked { damage: Some(damage), ..walked });
        }
        walked.marked |= located.record.kind == RecordKind::Durable;
        let end = replay.end();
        if located.record.kind == RecordKind::Truncate {
            known.retain(|known| known.next_index < end.next_index);
        }
        if known.last() != Some(&end) {
            known.push(end);
        }
    }
}

/// What stands behind a damage.
struct Behind {
    /// The first durable mark from which on all can be read until the end is known.
    mark: u64,
    /// The next index that it, or a mark behind it, names.
    marked: u64,
    /// The next index and the chain before it, if a record tells them.
    end: Option<(u64, u64)>,
    /// That record is a truncation.
    is_cut: bool,
}

fn look_behind(
    file: &NamedFile,
    segment: u64,
    offset: u64,
    limit: u64,
) -> Result<Option<Behind>, DiskFault> {
    let mut behind = None;
    let mut from = offset;
    loop {
        let scanner = Scanner::new(file.clone(), segment, from, limit);
        let Some(mark) = scanner.durable_mark_after(from)?.filter(|mark| *mark < limit) else {
            return Ok(behind);
        };
        let mut scanner = Scanner::new(file.clone(), segment, mark, limit);
        let mut marked = 0;
        let damaged = loop {
            let located: Located = match scanner.advance() {
                Ok(Some(located)) => located,
                Ok(None) => break scanner.durable_mark_after(scanner.offset())?.is_some(),
                Err(ScanFault::Disk(fault)) => return Err(fault),
                Err(ScanFault::Damage(_)) => break true,
            };
            let record = &located.record;
            let end = match record.kind {
                RecordKind::Durable => {
                    marked = record.index;
                    continue;
                }
                RecordKind::HardState | RecordKind::Filler => continue,
                RecordKind::Truncate => {
                    read_u64(&record.payload, 0).map(|chain| (record.index, chain))
                }
                RecordKind::Footer => None,
                RecordKind::Blank | RecordKind::Commands | RecordKind::Membership => {
                    Some((record.index, located.previous_chain))
                }
            };
            let is_cut = record.kind == RecordKind::Truncate;
            return Ok(Some(Behind { mark, marked, end, is_cut }));
        };
        behind = Some(Behind { mark, marked, end: None, is_cut: false });
        if !damaged {
            return Ok(behind);
        }
        // Damaged again before anything told the end: both are one wound.
        from = scanner.offset() + 1;
    }
}

/// Whether nothing but a hard state stands between the header and `offset`.
fn is_in_head(file: &NamedFile, header: &SegmentHeader, offset: u64) -> Result<bool, DiskFault> {
    let mut scanner = Scanner::new(file.clone(), header.segment, HEADER_BYTES as u64, offset);
    loop {
        match scanner.advance() {
            Ok(Some(located)) if located.record.kind == RecordKind::HardState => {}
            Ok(Some(_)) => return Ok(false),
            Ok(None) | Err(ScanFault::Damage(_)) => return Ok(scanner.offset() == offset),
            Err(ScanFault::Disk(fault)) => return Err(fault),
        }
    }
}
