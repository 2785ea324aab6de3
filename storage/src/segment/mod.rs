//! Segment files: the grammar, a header and a footer, writing and scanning.
//!
//! ```text
//! segment = header · hard state? · durable mark · record* · footer? · zero*
//! header  = magic "QRLOGSEG" · version u16 · zero u16 · segment id u64 · cluster id u64
//!         · lineage u64 · first index u64 · previous term u64 · chain u64 · previous end u64
//!         · crc32 u32
//! footer  = record of kind 32 whose payload is
//!           first index u64 · records u64 · offset of the footer u64 · crc32 of all before it u32
//! ```
//!
//! Little-endian. The first index is the log's next index when the segment was begun; previous term
//! and chain are those before it. *Previous end* is where the records of the segment before end:
//! what stands there after that offset was carried over into this segment and counts no more.
//!
//! A file gets its name `<id, 16 hex digits>.seg` only when its head (all up to the first durable
//! mark) has been flushed, and only when every record in earlier segments has been. So whatever
//! stands before the last durable mark of the last segment is proven, and every record of a segment
//! that has a successor. The footer comes after the successor has its name; it may be missing after
//! a crash, and opening writes it again.

mod active;
mod header;
mod scanner;

pub(crate) use active::{ActiveSegment, Carried, Head, give_up_file, make_file};
pub(crate) use header::HeaderFault;
pub use header::{Footer, HEADER_BYTES, SegmentHeader};
pub(crate) use scanner::ScanFault;
pub use scanner::{Located, Scanner};

use crate::record::MARK_HEAD_BYTES;

/// Bytes of a whole footer record.
pub const FOOTER_BYTES: usize = MARK_HEAD_BYTES + 28;

/// The file name of a segment.
pub fn file_name(id: u64) -> String {
    format!("{id:016x}.seg")
}

/// The file name of a segment whose head is being written.
pub(crate) fn new_file_name(id: u64) -> String {
    format!("{id:016x}.seg.new")
}

/// The id in a segment's file name.
pub fn id_of(name: &str) -> Option<u64> {
    parse_id(name.strip_suffix(".seg")?)
}

pub(crate) fn id_of_new(name: &str) -> Option<u64> {
    parse_id(name.strip_suffix(".seg.new")?)
}

fn parse_id(digits: &str) -> Option<u64> {
    let id = (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())??;
    (format!("{id:016x}") == digits).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_are_not() {
        for id in [0, 1, 0xabc, u64::MAX] {
            assert_eq!(id_of(&file_name(id)), Some(id));
            assert_eq!(id_of_new(&new_file_name(id)), Some(id));
        }
        for name in ["", ".seg", "1.seg", "+000000000000001.seg", "000000000000000A.seg", "x"] {
            assert_eq!(id_of(name), None);
        }
    }
}
