//! Reads a segment record by record through a window, and searches behind damage.

use bytes::Bytes;

use crate::disk::NamedFile;
use crate::error::DiskFault;
use crate::format::{read_u8, read_u32};
use crate::record::{
    self, DURABLE_MARK_BYTES, Damage, FRAME_BYTES, Position, Record, RecordKind, RecordView,
};

/// Bytes read at a time, unless a record is longer.
const WINDOW_BYTES: usize = 256 << 10;

/// A checked record, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Where it stands.
    pub position: Position,
    /// The chain before it; 0 for marks.
    pub previous_chain: u64,
    /// Its checksum.
    pub crc: u32,
    /// The record; its payload shares the window's memory.
    pub record: Record,
}

impl Located {
    /// Where the next record stands.
    pub fn end(&self) -> u64 {
        self.position.offset + self.record.disk_bytes() as u64
    }

    /// The chain after it.
    pub fn chain(&self) -> u64 {
        record::chain_after(self.previous_chain, self.record.index, self.record.term, self.crc)
    }

    /// It, borrowed.
    pub fn view(&self) -> RecordView<'_> {
        RecordView {
            kind: self.record.kind,
            index: self.record.index,
            term: self.record.term,
            previous_chain: self.previous_chain,
            crc: self.crc,
            payload: &self.record.payload,
        }
    }
}

/// Why a scan stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ScanFault {
    Damage(Damage),
    Disk(DiskFault),
}

impl From<DiskFault> for ScanFault {
    fn from(fault: DiskFault) -> Self {
        Self::Disk(fault)
    }
}

impl From<Damage> for ScanFault {
    fn from(damage: Damage) -> Self {
        Self::Damage(damage)
    }
}

/// Walks over the records of one segment file.
#[derive(Debug)]
pub struct Scanner {
    file: NamedFile,
    segment: u64,
    /// The next record's offset.
    offset: u64,
    /// Nothing is read from here on.
    limit: u64,
    window: Bytes,
    window_at: u64,
    window_bytes: usize,
}

impl Scanner {
    /// Starts at `offset`, where a record must begin, and ends before `limit` or at the file's end.
    pub fn new(file: NamedFile, segment: u64, offset: u64, limit: u64) -> Self {
        let window_bytes = WINDOW_BYTES;
        Self { file, segment, offset, limit, window: Bytes::new(), window_at: 0, window_bytes }
    }

    /// As [`Self::new`] with a first window of about `bytes`, for reads of a known size.
    pub(crate) fn with_window(mut self, bytes: usize) -> Self {
        self.window_bytes = bytes.clamp(4 << 10, 1 << 20);
        self
    }

    /// Offset of the next record, or of the damage.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes back to the start of the record that was just read.
    pub(crate) fn back_to(&mut self, offset: u64) {
        if offset < self.window_at {
            self.window = Bytes::new();
            self.window_at = offset;
        }
        self.offset = offset;
    }

    /// Adds the bytes of the record that was just read to a checksum.
    pub(crate) fn hash(&self, located: &Located, hasher: &mut crc32fast::Hasher) {
        let place = |offset: u64| usize::try_from(offset.saturating_sub(self.window_at)).ok();
        let range = place(located.position.offset).zip(place(located.end()));
        let bytes = range.and_then(|(from, to)| self.window.get(from..to));
        debug_assert!(bytes.is_some(), "the window holds the record that was just read");
        hasher.update(bytes.unwrap_or_default());
    }

    /// The next record; `None` at the limit, the file's end, or where the written part ends.
    pub(crate) fn advance(&mut self) -> Result<Option<Located>, ScanFault> {
        let frame = self.window_of(FRAME_BYTES)?;
        if frame.iter().take(4).all(|byte| *byte == 0) {
            return Ok(None);
        }
        let len = read_u32(&frame, 0).ok_or(Damage::Short)?;
        let window = self.window_of(FRAME_BYTES + record::body_bytes(len)?)?;
        let Some(view) = record::decode(&window)? else {
            return Ok(None);
        };
        let payload = window.slice_ref(view.payload);
        let position = Position { segment: self.segment, offset: self.offset };
        self.offset += view.disk_bytes() as u64;
        let record = Record { kind: view.kind, index: view.index, term: view.term, payload };
        let RecordView { previous_chain, crc, .. } = view;
        Ok(Some(Located { position, previous_chain, crc, record }))
    }

    /// The raw bytes between two offsets, at most up to the file's end.
    pub(crate) fn raw(&self, from: u64, to: u64) -> Result<Vec<u8>, DiskFault> {
        let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(0)];
        let count = self.file.read(&mut bytes, from)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    /// Whether anything but zeros stands from `offset` on; if so, one past the last such byte.
    pub(crate) fn written_end_after(&self, offset: u64) -> Result<Option<u64>, DiskFault> {
        // What was reserved and never written is a hole, and most of a segment that was begun. All
        // of them are asked for before anything is read: reading makes the system read on into them.
        let mut ranges = Vec::new();
        let mut at = offset;
        while let Some(data) = self.file.next_data(at)? {
            at = data.end;
            ranges.push(data);
        }
        let mut end = None;
        for data in ranges {
            let mut at = data.start;
            while at < data.end {
                let bytes = self.raw(at, (at + WINDOW_BYTES as u64).min(data.end))?;
                if bytes.is_empty() {
                    break;
                }
                if let Some(place) = bytes.iter().rposition(|byte| *byte != 0) {
                    end = Some(at + place as u64 + 1);
                }
                at += bytes.len() as u64;
            }
        }
        Ok(end)
    }

    /// The offset of a durable mark that names its own place, at or after `offset`, if there is
    /// one. Looks at every byte, since the lengths that would lead there cannot be trusted.
    pub(crate) fn durable_mark_after(&self, offset: u64) -> Result<Option<u64>, DiskFault> {
        const BODY: u32 = (DURABLE_MARK_BYTES - FRAME_BYTES) as u32;
        let size = self.file.size()?;
        let mut at = offset;
        while at < size {
            let overlap = DURABLE_MARK_BYTES as u64 - 1;
            let bytes = self.raw(at, (at + WINDOW_BYTES as u64 + overlap).min(size))?;
            let starts = bytes.windows(DURABLE_MARK_BYTES).enumerate();
            for (place, bytes) in starts {
                if read_u32(bytes, 0) != Some(BODY)
                    || read_u8(bytes, FRAME_BYTES) != Some(RecordKind::Durable as u8)
                {
                    continue;
                }
                let position = Position { segment: self.segment, offset: at + place as u64 };
                if let Ok(Some(view)) = record::decode(bytes)
                    && record::is_durable_mark(&view, position)
                {
                    return Ok(Some(position.offset));
                }
            }
            at += WINDOW_BYTES as u64;
        }
        Ok(None)
    }

    /// At least `bytes` bytes from the current offset, fewer only at the limit or the file's end.
    fn window_of(&mut self, bytes: usize) -> Result<Bytes, DiskFault> {
        let place = usize::try_from(self.offset - self.window_at).unwrap_or(usize::MAX);
        let held = self.window.len().saturating_sub(place);
        let left = self.limit.saturating_sub(self.offset);
        let wanted = bytes.min(usize::try_from(left).unwrap_or(usize::MAX));
        if held < wanted {
            let length = left.min(wanted.max(self.window_bytes) as u64);
            let mut buffer = vec![0; usize::try_from(length).unwrap_or(0)];
            let count = self.file.read(&mut buffer, self.offset)?;
            buffer.truncate(count);
            self.window = Bytes::from(buffer);
            self.window_at = self.offset;
            return Ok(self.window.clone());
        }
        Ok(self.window.slice(place.min(self.window.len())..))
    }
}
