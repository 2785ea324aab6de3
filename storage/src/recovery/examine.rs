//! Walking over one segment, and finding what of the last one is proven.

use super::replay::Replay;
use super::{LastSegment, Opening, Stop};
use crate::disk::{NamedFile, OpenMode};
use crate::error::{DiskFault, OpenError};
use crate::log::append_log::SegmentSummary;
use crate::log::hard_state::NumberedState;
use crate::log::log_state::Segment;
use crate::log::visible::End;
use crate::record::{Damage, RecordKind};
use crate::segment::{
    FOOTER_BYTES, Footer, HEADER_BYTES, Located, ScanFault, Scanner, SegmentHeader, file_name,
};

/// A place between two records, and what stands before it.
#[derive(Debug, Clone)]
pub(super) struct Milestone {
    pub(super) offset: u64,
    /// Records between the header and here.
    pub(super) records: u64,
    /// Over every byte before.
    pub(super) crc: crc32fast::Hasher,
    pub(super) end: End,
    pub(super) hard_state: Option<NumberedState>,
}

/// What of the last segment is what.
#[derive(Debug)]
pub(super) struct Examined {
    pub(super) file: NamedFile,
    /// Before the last durable mark. The mark proves what is before it, not itself.
    pub(super) proven: Milestone,
    /// Where the last durable mark ends.
    pub(super) mark_end: u64,
    /// After the last readable record, a footer not counted.
    pub(super) readable: Milestone,
    /// It ends in a footer: it has a successor.
    pub(super) is_sealed: bool,
    /// What is wrong behind the readable part, and one past the last byte that is not zero.
    pub(super) damaged: Option<u64>,
}

/// The state of a walk over one segment.
struct Walk<'a> {
    scanner: Scanner,
    replay: &'a mut Replay,
    records: u64,
    crc: crc32fast::Hasher,
    footer: Option<Footer>,
    /// The last durable mark: what is before it, and where it ends.
    marked: Option<(Milestone, u64)>,
}

impl<'a> Walk<'a> {
    fn new(file: NamedFile, header: &SegmentHeader, limit: u64, replay: &'a mut Replay) -> Self {
        replay.begin(header);
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header.encode());
        let scanner = Scanner::new(file, header.segment, HEADER_BYTES as u64, limit);
        Self { scanner, replay, records: 0, crc, footer: None, marked: None }
    }

    fn milestone(&self) -> Milestone {
        let (offset, records) = (self.scanner.offset(), self.records);
        let hard_state = self.replay.hard_state().cloned();
        Milestone { offset, records, crc: self.crc.clone(), end: self.replay.end(), hard_state }
    }

    /// Walks to the limit, the footer, or the end of the written part.
    fn run(&mut self) -> Result<(), Stop> {
        loop {
            let offset = self.scanner.offset();
            let damaged = |damage| Stop::Damage { offset, damage };
            let located = match self.scanner.advance() {
                Ok(Some(located)) => located,
                Ok(None) => return Ok(()),
                Err(ScanFault::Disk(fault)) => return Err(Stop::Disk(fault)),
                Err(ScanFault::Damage(damage)) => return Err(damaged(damage)),
            };
            if located.record.kind == RecordKind::Footer {
                let footer = self.check_footer(&located).map_err(|damage| {
                    // The footer is no readable record.
                    self.scanner.back_to(offset);
                    damaged(damage)
                })?;
                self.scanner.back_to(offset);
                self.footer = Some(footer);
                return Ok(());
            }
            if let Err(damage) = self.replay.accept(&located) {
                self.scanner.back_to(offset);
                return Err(damaged(damage));
            }
            if located.record.kind == RecordKind::Durable {
                self.marked = Some((Milestone { offset, ..self.milestone() }, located.end()));
            }
            self.records += 1;
            self.scanner.hash(&located, &mut self.crc);
        }
    }

    fn check_footer(&self, located: &Located) -> Result<Footer, Damage> {
        let damage = Damage::Mark { kind: RecordKind::Footer };
        let footer = Footer::from_record(&located.view()).ok_or(damage)?;
        let end = self.replay.end();
        let right = footer.records == self.records
            && footer.offset == located.position.offset
            && footer.next_index == end.next_index
            && footer.last_term == end.last_term
            && footer.crc == self.crc.clone().finalize();
        right.then_some(footer).ok_or(damage)
    }
}

impl Opening {
    /// Walks a segment that has a successor, up to where that one says it ends; without a
    /// successor, as far as it goes. A missing footer is written again: all it says is known.
    pub(super) fn walk_one(
        &self,
        id: u64,
        successor: Option<u64>,
        replay: &mut Replay,
    ) -> Result<Segment, OpenError> {
        let header = self.header(id, replay.index_or_start())?;
        self.check_follows(&header, replay)?;
        let file = self.folder.file(&file_name(id), OpenMode::Write)?;
        let successor = successor.map(|next| (next, self.header(next, 0)));
        let previous_end = match successor {
            Some((_, Ok(next))) => Some(next.previous_end),
            Some((next, Err(_))) => {
                // For the report: how far this segment goes, though its end is not known.
                let _ = Walk::new(file, &header, u64::MAX, replay).run();
                return Err(self.header(next, replay.index_or_start()).map_or_else(
                    |error| error,
                    |_| self.hole(next, 0, replay.index_or_start(), Damage::Header),
                ));
            }
            None => None,
        };
        let mut walk = Walk::new(file.clone(), &header, previous_end.unwrap_or(u64::MAX), replay);
        let result = walk.run();
        let offset = walk.scanner.offset();
        let milestone = walk.milestone();
        let damage = match result {
            Err(Stop::Disk(fault)) => return Err(fault.into()),
            Err(Stop::Damage { damage, .. }) => Some(damage),
            Ok(()) if previous_end.is_some_and(|end| end != offset) => Some(Damage::Missing),
            Ok(()) => None,
        };
        if let Some(damage) = damage {
            return Err(self.hole(id, offset, milestone.end.next_index, damage));
        }
        let bytes = offset + FOOTER_BYTES as u64;
        if previous_end.is_some() && !footer_stands(&file, &header, &milestone, bytes)? {
            Self::seal_again(header, &file, &milestone)?;
        }
        let summary = SegmentSummary {
            id,
            path: file.path().to_owned(),
            first_index: header.first_index,
            next_index: milestone.end.next_index,
            bytes,
            sealed: true,
        };
        Ok(Segment { file, summary, settled: true })
    }

    /// Finds what of the last segment is proven, readable, damaged. Changes nothing.
    pub(super) fn examine(&self, last: &LastSegment) -> Result<Examined, OpenError> {
        let file = self.folder.file(&file_name(last.id), OpenMode::Write)?;
        // A private replay: what it takes may still have to be carried over to another place.
        let mut replay = Replay::new(None);
        let mut walk = Walk::new(file.clone(), &last.header, u64::MAX, &mut replay);
        let mut damage = match walk.run() {
            Ok(()) => None,
            Err(Stop::Disk(fault)) => return Err(fault.into()),
            Err(Stop::Damage { damage, .. }) => Some(damage),
        };
        let readable = walk.milestone();
        let footer_end = walk.footer.map(|_| readable.offset + FOOTER_BYTES as u64);
        let written_end = walk.scanner.written_end_after(footer_end.unwrap_or(readable.offset))?;
        if written_end.is_some() {
            damage = damage.or(Some(Damage::Trailing));
        }
        let hole = |damage| self.hole(last.id, readable.offset, readable.end.next_index, damage);
        if let Some(damage) = damage
            && walk.scanner.durable_mark_after(readable.offset)?.is_some()
        {
            return Err(hole(damage));
        }
        // The head's mark was flushed before the file got its name.
        let Some((proven, mark_end)) = walk.marked.take() else {
            return Err(hole(damage.unwrap_or(Damage::Header)));
        };
        // Damage without a byte left behind it, such as a file that ends inside of a record.
        let damaged = damage.map(|_| written_end.unwrap_or(readable.offset));
        Ok(Examined { file, proven, mark_end, readable, is_sealed: footer_end.is_some(), damaged })
    }

    /// Feeds the proven part of the last segment to the log's replay.
    pub(super) fn walk_proven(
        &self,
        last: &LastSegment,
        examined: &Examined,
        replay: &mut Replay,
    ) -> Result<(), OpenError> {
        let mut walk =
            Walk::new(examined.file.clone(), &last.header, examined.proven.offset, replay);
        match walk.run() {
            Ok(()) => Ok(()),
            Err(Stop::Disk(fault)) => Err(fault.into()),
            Err(Stop::Damage { offset, damage }) => {
                let index = walk.replay.end().next_index;
                Err(self.hole(last.id, offset, index, damage))
            }
        }
    }
}

/// Whether the right footer stands at the end of a sealed segment, and nothing behind it.
fn footer_stands(
    file: &NamedFile,
    header: &SegmentHeader,
    milestone: &Milestone,
    bytes: u64,
) -> Result<bool, DiskFault> {
    if file.size()? != bytes {
        return Ok(false);
    }
    let mut found = vec![0; FOOTER_BYTES];
    file.read(&mut found, milestone.offset)?;
    let mut expected = Vec::new();
    footer_at(header, milestone).write(&mut expected);
    Ok(found == expected)
}

pub(super) fn footer_at(header: &SegmentHeader, milestone: &Milestone) -> Footer {
    Footer {
        first_index: header.first_index,
        next_index: milestone.end.next_index,
        last_term: milestone.end.last_term,
        records: milestone.records,
        offset: milestone.offset,
        crc: milestone.crc.clone().finalize(),
    }
}
