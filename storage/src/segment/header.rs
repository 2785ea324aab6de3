//! Header and footer of a segment.

use super::FOOTER_BYTES;
use crate::format::{VERSION, put, put_u32, put_u64, read_u16, read_u32, read_u64};
use crate::record::{RecordKind, RecordView, write_mark};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 72;

const MAGIC: &[u8; 8] = b"QRLOGSEG";
const CRC_AT: usize = HEADER_BYTES - 4;

/// What a segment says about itself and its predecessor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Its id.
    pub segment: u64,
    /// The cluster whose log it is.
    pub cluster_id: u64,
    /// The lineage it was written in.
    pub lineage: u64,
    /// The log's next index when it was begun.
    pub first_index: u64,
    /// The term before that index, 0 at the start of the log.
    pub previous_term: u64,
    /// The chain before that index.
    pub chain: u64,
    /// Where the records of the segment before end; 0 when there is none.
    pub previous_end: u64,
}

/// Bytes that are no header, or one of a later format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Damaged,
    UnknownVersion(u16),
}

impl SegmentHeader {
    /// Its bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 8, &VERSION.to_le_bytes());
        let numbers = [
            self.segment,
            self.cluster_id,
            self.lineage,
            self.first_index,
            self.previous_term,
            self.chain,
            self.previous_end,
        ];
        for (place, number) in numbers.into_iter().enumerate() {
            put_u64(&mut bytes, 12 + 8 * place, number);
        }
        let crc = crc32fast::hash(bytes.get(..CRC_AT).unwrap_or_default());
        put_u32(&mut bytes, CRC_AT, crc);
        bytes
    }

    /// Reads a header; `None` when the bytes are none of a version that is known.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Self::read(bytes).ok()
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let checked = || {
            let crc = crc32fast::hash(bytes.get(..CRC_AT)?);
            (bytes.starts_with(MAGIC) && read_u32(bytes, CRC_AT)? == crc).then_some(())?;
            let number = |place: usize| read_u64(bytes, 12 + 8 * place);
            let header = Self {
                segment: number(0)?,
                cluster_id: number(1)?,
                lineage: number(2)?,
                first_index: number(3)?,
                previous_term: number(4)?,
                chain: number(5)?,
                previous_end: number(6)?,
            };
            Some((read_u16(bytes, 8)?, read_u16(bytes, 10)?, header))
        };
        match checked() {
            Some((VERSION, 0, header)) => Ok(header),
            Some((version, _, _)) if version > VERSION => Err(HeaderFault::UnknownVersion(version)),
            _ => Err(HeaderFault::Damaged),
        }
    }
}

/// The last record of a sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// The header's first index.
    pub first_index: u64,
    /// The log's next index at the end.
    pub next_index: u64,
    /// The term before it.
    pub last_term: u64,
    /// Records between header and footer.
    pub records: u64,
    /// Its own offset.
    pub offset: u64,
    /// Checksum of every byte before it.
    pub crc: u32,
}

impl Footer {
    pub(crate) fn write(&self, buffer: &mut Vec<u8>) {
        let mut payload = [0; 28];
        put_u64(&mut payload, 0, self.first_index);
        put_u64(&mut payload, 8, self.records);
        put_u64(&mut payload, 16, self.offset);
        put_u32(&mut payload, 24, self.crc);
        let before = buffer.len();
        write_mark(buffer, RecordKind::Footer, self.next_index, self.last_term, &payload);
        debug_assert_eq!(buffer.len() - before, FOOTER_BYTES, "the reserve fits the footer");
    }

    /// The footer in a record of that kind.
    pub fn from_record(view: &RecordView<'_>) -> Option<Self> {
        let payload = view.payload;
        (view.kind == RecordKind::Footer && payload.len() == 28).then_some(())?;
        Some(Self {
            first_index: read_u64(payload, 0)?,
            next_index: view.index,
            last_term: view.term,
            records: read_u64(payload, 8)?,
            offset: read_u64(payload, 16)?,
            crc: read_u32(payload, 24)?,
        })
    }
}
