//! Making the end of the log durable before anybody hears of it.

use super::examine::{Examined, Milestone, footer_at};
use super::replay::Replay;
use super::{Cut, LastSegment, Opening, Standing, newer};
use crate::disk::{Folder, NamedFile, OpenMode};
use crate::error::{DiskFault, OpenError};
use crate::log::append_log::SegmentSummary;
use crate::log::hard_state::NumberedState;
use crate::log::log_state::Segment;
use crate::log::twin_file::QUARANTINE;
use crate::record::Damage;
use crate::segment::{
    ActiveSegment, Carried, FOOTER_BYTES, Head, Scanner, SegmentHeader, file_name,
};

impl Opening {
    /// Settles the last segment and answers with the one that is written from now on.
    pub(super) fn settle_last(
        &mut self,
        last: LastSegment,
        replay: &mut Replay,
        in_file: Option<&NumberedState>,
    ) -> Result<ActiveSegment, OpenError> {
        let (last, examined) = self.examine_newest(last, replay)?;
        self.walk_proven(&last, &examined, replay)?;
        let Examined { mark_end, readable, damaged, .. } = &examined;
        if damaged.is_none() && readable.offset == *mark_end {
            return Self::go_on(&last, &examined);
        }
        self.carry_over(&last, &examined, replay, in_file)
    }

    /// The last segment has no footer: one is written only when the successor is durable, name and
    /// all. Behind a footer it can only be missing.
    fn examine_newest(
        &mut self,
        mut last: LastSegment,
        replay: &mut Replay,
    ) -> Result<(LastSegment, Examined), OpenError> {
        loop {
            let examined = self.examine(&last)?;
            if !examined.is_sealed {
                return Ok((last, examined));
            }
            let next = last.id + 1;
            if self.folder.file_if_there(&file_name(next), OpenMode::Read)?.is_none() {
                let index = examined.readable.end.next_index;
                return Err(self.hole(next, 0, index, Damage::Missing));
            }
            // It came since the folder was listed: this is a look at a node that runs.
            let sealed = self.walk_one(last.id, Some(next), replay)?;
            self.segments.push(sealed);
            let header = self.header(next, replay.index_or_start())?;
            self.check_follows(&header, replay)?;
            last = LastSegment { id: next, header };
        }
    }

    /// Nothing stands after the last mark. The mark itself proves only what is before it, so it is
    /// written once more: that makes its bytes dirty, and the flush real.
    fn go_on(last: &LastSegment, examined: &Examined) -> Result<ActiveSegment, OpenError> {
        let Examined { file, proven, readable, .. } = examined;
        let bytes = raw(file, last.id, proven.offset, readable.offset)?;
        file.write(&bytes, proven.offset)?;
        file.sync()?;
        let Milestone { offset, records, crc, .. } = readable.clone();
        Ok(ActiveSegment::resume(last.header, file.clone(), offset, records, crc))
    }

    /// The last segment has become one that has a successor.
    fn keep_sealed(&mut self, last: &LastSegment, examined: &Examined, end: &Milestone) {
        let file = &examined.file;
        let summary = SegmentSummary {
            id: last.id,
            path: file.path().to_owned(),
            first_index: last.header.first_index,
            next_index: end.end.next_index,
            bytes: end.offset + FOOTER_BYTES as u64,
            sealed: true,
        };
        self.segments.push(Segment { file: file.clone(), summary, settled: true });
    }

    /// Carries what is readable after the last mark over into a fresh segment.
    fn carry_over(
        &mut self,
        last: &LastSegment,
        examined: &Examined,
        replay: &mut Replay,
        in_file: Option<&NumberedState>,
    ) -> Result<ActiveSegment, OpenError> {
        let Examined { file, proven, mark_end, readable, damaged, .. } = examined;
        let carried = Carried {
            bytes: raw(file, last.id, *mark_end, readable.offset)?,
            records: readable.records - proven.records - 1,
            next_index: readable.end.next_index,
        };
        let header = self.header_after(last, proven);
        let hard_state = newer(proven.hard_state.as_ref(), in_file);
        let head = Head::new(&header, hard_state, &carried);
        let segment_bytes = self.options.segment_bytes;
        let mut active = ActiveSegment::prepare(&self.folder, header, &head, segment_bytes)?;
        if let Some(written_end) = *damaged {
            self.set_aside(last, file, readable, written_end)?;
        }
        active.publish(&self.folder)?;
        Self::seal_again(last.header, file, proven)?;
        self.keep_sealed(last, examined, proven);
        // Read back, so that the places of what was carried over are known.
        let fresh = LastSegment { id: header.segment, header };
        let read_back = self.examine(&fresh)?;
        self.walk_proven(&fresh, &read_back, replay)?;
        Ok(active)
    }

    /// Copies the damaged bytes to the quarantine and writes the doubt down, before the cut.
    fn set_aside(
        &mut self,
        last: &LastSegment,
        file: &NamedFile,
        readable: &Milestone,
        written_end: u64,
    ) -> Result<(), OpenError> {
        let bytes = raw(file, last.id, readable.offset, written_end)?;
        let aside: Folder = self.folder.inside(QUARANTINE)?;
        let name = format!("{}.{:08x}", file_name(last.id), readable.offset);
        aside.replace(&name, &bytes)?;
        aside.sync()?;
        self.quarantined.push(aside.path_of(&name));
        let standing = self.standing_now()?;
        let cut =
            Cut { from_index: readable.end.next_index, segment: last.id, offset: readable.offset };
        // An earlier cut that nobody has settled reaches deeper.
        let cut = standing.cut.filter(|old| old.from_index <= cut.from_index).unwrap_or(cut);
        self.standing.save(Standing { cut: Some(cut), ..standing })?;
        Ok(())
    }

    /// Ends a segment at a milestone: what stands behind it lives on in its successor.
    pub(super) fn seal_again(
        header: SegmentHeader,
        file: &NamedFile,
        milestone: &Milestone,
    ) -> Result<(), DiskFault> {
        let mut bytes = Vec::new();
        footer_at(&header, milestone).write(&mut bytes);
        file.truncate(milestone.offset)?;
        file.write(&bytes, milestone.offset)?;
        file.sync()
    }

    fn header_after(&self, last: &LastSegment, milestone: &Milestone) -> SegmentHeader {
        SegmentHeader {
            segment: last.id + 1,
            cluster_id: self.options.cluster_id,
            lineage: self.options.lineage,
            first_index: milestone.end.next_index,
            previous_term: milestone.end.last_term,
            chain: milestone.end.chain,
            previous_end: milestone.offset,
        }
    }
}

fn raw(file: &NamedFile, segment: u64, from: u64, to: u64) -> Result<Vec<u8>, DiskFault> {
    Scanner::new(file.clone(), segment, from, to).raw(from, to)
}
