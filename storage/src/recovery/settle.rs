//! Making the end of the log durable before anybody hears of it.

use super::examine::{Examined, Milestone, footer_at};
use super::replay::Replay;
use super::{Cut, LastSegment, Opening, Standing, newer};
use crate::disk::{Folder, NamedFile};
use crate::error::{DiskFault, OpenError};
use crate::log::append_log::SegmentSummary;
use crate::log::hard_state::NumberedState;
use crate::log::log_state::Segment;
use crate::log::twin_file::QUARANTINE;
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
        let examined = self.examine(&last)?;
        self.walk_proven(&last, &examined, replay)?;
        let Examined { mark_end, readable, damaged, .. } = &examined;
        if damaged.is_none() && readable.offset == *mark_end {
            return self.go_on(&last, &examined, in_file);
        }
        self.carry_over(&last, &examined, replay, in_file)
    }

    /// Nothing stands after the last mark but perhaps a footer. The mark itself proves only what is
    /// before it, so it is written once more: that makes its bytes dirty, and the flush real.
    fn go_on(
        &mut self,
        last: &LastSegment,
        examined: &Examined,
        in_file: Option<&NumberedState>,
    ) -> Result<ActiveSegment, OpenError> {
        let Examined { file, proven, readable, footer_end, .. } = examined;
        let end = footer_end.unwrap_or(readable.offset);
        let bytes = raw(file, last.id, proven.offset, end)?;
        file.write(&bytes, proven.offset)?;
        if footer_end.is_some() {
            file.truncate(end)?;
        }
        file.sync()?;
        if footer_end.is_none() {
            let Milestone { offset, records, crc, .. } = readable.clone();
            return Ok(ActiveSegment::resume(last.header, file.clone(), offset, records, crc));
        }
        let hard_state = newer(proven.hard_state.as_ref(), in_file);
        let header = self.header_after(last, readable);
        let head = Head::new(&header, hard_state, &Carried::default());
        let segment_bytes = self.options.segment_bytes;
        let mut active = ActiveSegment::prepare(&self.folder, header, &head, segment_bytes)?;
        active.publish(&self.folder)?;
        self.keep_sealed(last, examined, readable);
        Ok(active)
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
