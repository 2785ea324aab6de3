//! One record of the log: its grammar on disk, its check, its chain.
//!
//! ```text
//! record = len u32 · crc32 u32 · kind u8 · index u64 · term u64 · previous chain u64 · payload   entries
//!        | len u32 · crc32 u32 · kind u8 · index u64 · term u64 · payload                        marks
//! ```
//!
//! Little-endian. `len` counts the bytes after the crc; the crc covers the same bytes. `len` = 0 is
//! no record: it is where the written part of a segment ends. Kinds are never reused.
//!
//! | kind | | index | term | payload |
//! |---|---|---|---|---|
//! | 1 | blank entry | its own | its own | opaque |
//! | 2 | commands entry | its own | its own | opaque |
//! | 3 | membership entry | its own | its own | opaque |
//! | 16 | hard state | sequence number | 0 | opaque |
//! | 17 | durable mark | next index when written | 0 | segment id u64 · own offset u64 |
//! | 18 | truncate mark | first index taken away | term before it | chain before it u64 |
//! | 19 | filler | 0 | 0 | zeros |
//! | 32 | footer | next index | last term | see [`crate::segment`] |
//!
//! A filler says nothing: a repair puts it where marks were lost that it cannot tell, so that what
//! stands behind keeps its place.
//!
//! A durable mark says that everything before it in the log has been flushed. It names its own
//! place, so that bytes inside of a payload can hardly pass for one when recovery searches behind
//! damage.
//!
//! The **chain** after an entry is `xxh3_64(previous chain · index · term · crc32)`, each
//! little-endian; marks do not touch it. It starts with `xxh3_64` of the cluster id, so two nodes
//! that agree on one chain value agree on the whole prefix.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::format::{put_u32, put_u64, read_u8, read_u32, read_u64};

/// Bytes of `len` and `crc32`.
pub const FRAME_BYTES: usize = 8;
/// Bytes from `len` to the payload of a mark.
pub const MARK_HEAD_BYTES: usize = FRAME_BYTES + 1 + 8 + 8;
/// Bytes from `len` to the payload of an entry.
pub const ENTRY_HEAD_BYTES: usize = MARK_HEAD_BYTES + 8;
/// The longest payload of one record.
pub const PAYLOAD_BYTES_MAX: usize = 8 << 20;
/// Bytes of a whole durable mark.
pub const DURABLE_MARK_BYTES: usize = MARK_HEAD_BYTES + 16;

/// What a record is. The numbers are on disk and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// An entry without content (a new leader's first).
    Blank = 1,
    /// An entry of commands.
    Commands = 2,
    /// An entry that changes the cluster's members.
    Membership = 3,
    /// Mark: what the node voted.
    HardState = 16,
    /// Mark: everything before it has been flushed.
    Durable = 17,
    /// Mark: entries from its index on are taken away.
    Truncate = 18,
    /// Mark: nothing; it keeps the place of marks that a repair could not tell.
    Filler = 19,
    /// Mark: the segment ends here.
    Footer = 32,
}

impl RecordKind {
    /// The kind with this number.
    pub fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Blank,
            2 => Self::Commands,
            3 => Self::Membership,
            16 => Self::HardState,
            17 => Self::Durable,
            18 => Self::Truncate,
            19 => Self::Filler,
            32 => Self::Footer,
            _ => return None,
        })
    }

    /// Whether it takes an index of the log and is part of the chain.
    pub fn is_entry(self) -> bool {
        matches!(self, Self::Blank | Self::Commands | Self::Membership)
    }

    fn head_bytes(self) -> usize {
        if self.is_entry() { ENTRY_HEAD_BYTES } else { MARK_HEAD_BYTES }
    }
}

/// One record in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub kind: RecordKind,
    /// Its place in the log.
    pub index: u64,
    /// The term of the leader that made it.
    pub term: u64,
    /// Opaque bytes, at most [`PAYLOAD_BYTES_MAX`].
    pub payload: Bytes,
}

impl Record {
    /// Bytes that an entry takes on disk.
    pub fn disk_bytes(&self) -> usize {
        self.kind.head_bytes() + self.payload.len()
    }
}

/// Where a record stands on this node's disk. Positions in the log's order compare in that order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The segment's id.
    pub segment: u64,
    /// Offset of the record's first byte in the segment's file.
    pub offset: u64,
}

/// Why bytes are no record that belongs where they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The file ends inside of the record.
    #[error("the file ends inside of the record")]
    Short,
    /// A length that no record has.
    #[error("no record is {len} bytes long")]
    Length {
        /// The length found.
        len: u32,
    },
    /// The checksum does not match.
    #[error("checksum {found:08x} instead of {expected:08x}")]
    Checksum {
        /// Computed from the bytes.
        expected: u32,
        /// Stored beside them.
        found: u32,
    },
    /// A kind that no record has.
    #[error("unknown kind {kind}")]
    Kind {
        /// The kind found.
        kind: u8,
    },
    /// A record that is whole but does not follow its predecessor.
    #[error("index {found} stands where {expected} should")]
    Index {
        /// The index that follows.
        expected: u64,
        /// The index found.
        found: u64,
    },
    /// An entry whose term is below its predecessor's.
    #[error("term {found} after term {last}")]
    Term {
        /// The predecessor's term.
        last: u64,
        /// The term found.
        found: u64,
    },
    /// An entry of another history.
    #[error("chain {found:016x} instead of {expected:016x}")]
    Chain {
        /// The chain so far.
        expected: u64,
        /// The chain that the record names.
        found: u64,
    },
    /// A mark whose content cannot be, or stands where it cannot.
    #[error("a {kind:?} mark that cannot stand here")]
    Mark {
        /// Its kind.
        kind: RecordKind,
    },
    /// Bytes that are not zero after the end of the written part.
    #[error("bytes after the end")]
    Trailing,
    /// The segment's header.
    #[error("the segment's header is damaged or does not follow its predecessor")]
    Header,
    /// The file is not there.
    #[error("the file is missing")]
    Missing,
}

/// A record as it stands in a buffer, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// What it is.
    pub kind: RecordKind,
    /// Its index; see the grammar for marks.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The chain before it; 0 for marks.
    pub previous_chain: u64,
    /// Its checksum.
    pub crc: u32,
    /// Its payload.
    pub payload: &'a [u8],
}

impl RecordView<'_> {
    /// Bytes of the whole record.
    pub fn disk_bytes(&self) -> usize {
        self.kind.head_bytes() + self.payload.len()
    }

    /// The chain after it.
    pub fn chain(&self) -> u64 {
        chain_after(self.previous_chain, self.index, self.term, self.crc)
    }
}

/// Reads the record at the start of `bytes`; `None` where the written part ends (`len` = 0).
pub fn decode(bytes: &[u8]) -> Result<Option<RecordView<'_>>, Damage> {
    let len = read_u32(bytes, 0).ok_or(Damage::Short)?;
    if len == 0 {
        return Ok(None);
    }
    let body_bytes = body_bytes(len)?;
    let found = read_u32(bytes, 4).ok_or(Damage::Short)?;
    let body = bytes.get(FRAME_BYTES..FRAME_BYTES + body_bytes).ok_or(Damage::Short)?;
    let expected = crc32fast::hash(body);
    if expected != found {
        return Err(Damage::Checksum { expected, found });
    }
    let number = read_u8(body, 0).ok_or(Damage::Short)?;
    let kind = RecordKind::from_u8(number).ok_or(Damage::Kind { kind: number })?;
    let index = read_u64(body, 1).ok_or(Damage::Short)?;
    let term = read_u64(body, 9).ok_or(Damage::Short)?;
    let previous_chain = if kind.is_entry() { read_u64(body, 17) } else { Some(0) };
    let previous_chain = previous_chain.ok_or(Damage::Short)?;
    let payload = body.get(kind.head_bytes() - FRAME_BYTES..).ok_or(Damage::Short)?;
    Ok(Some(RecordView { kind, index, term, previous_chain, crc: found, payload }))
}

/// The bytes after the crc of a record with this `len`, once that is a length that can be.
pub(crate) fn body_bytes(len: u32) -> Result<usize, Damage> {
    const SHORTEST: usize = MARK_HEAD_BYTES - FRAME_BYTES;
    const LONGEST: usize = ENTRY_HEAD_BYTES - FRAME_BYTES + PAYLOAD_BYTES_MAX;
    match len as usize {
        bytes @ SHORTEST..=LONGEST => Ok(bytes),
        _ => Err(Damage::Length { len }),
    }
}

/// The chain after an entry.
pub fn chain_after(previous_chain: u64, index: u64, term: u64, crc: u32) -> u64 {
    let mut bytes = [0; 28];
    put_u64(&mut bytes, 0, previous_chain);
    put_u64(&mut bytes, 8, index);
    put_u64(&mut bytes, 16, term);
    put_u32(&mut bytes, 24, crc);
    xxh3_64(&bytes)
}

/// The chain after an entry that follows `previous_chain`.
pub fn chain_of(record: &Record, previous_chain: u64) -> u64 {
    Frame::new(record.clone(), previous_chain).chain()
}

/// The chain before the first entry of a cluster.
pub fn chain_seed(cluster_id: u64) -> u64 {
    xxh3_64(&cluster_id.to_le_bytes())
}

/// A record that is ready to be written: the bytes before its payload, checksum included.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: RecordKind,
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) previous_chain: u64,
    pub(crate) crc: u32,
    pub(crate) payload: Bytes,
}

impl Frame {
    pub(crate) fn new(record: Record, previous_chain: u64) -> Self {
        let Record { kind, index, term, payload } = record;
        let mut frame = Self { kind, index, term, previous_chain, crc: 0, payload };
        let mut hasher = crc32fast::Hasher::new();
        let head = frame.head();
        hasher.update(head.get(FRAME_BYTES..kind.head_bytes()).unwrap_or_default());
        hasher.update(&frame.payload);
        frame.crc = hasher.finalize();
        frame
    }

    pub(crate) fn chain(&self) -> u64 {
        chain_after(self.previous_chain, self.index, self.term, self.crc)
    }

    pub(crate) fn disk_bytes(&self) -> usize {
        self.kind.head_bytes() + self.payload.len()
    }

    pub(crate) fn write(&self, buffer: &mut Vec<u8>) {
        let head = self.head();
        buffer.extend_from_slice(head.get(..self.kind.head_bytes()).unwrap_or_default());
        buffer.extend_from_slice(&self.payload);
    }

    fn head(&self) -> [u8; ENTRY_HEAD_BYTES] {
        let mut head = [0; ENTRY_HEAD_BYTES];
        put_u32(&mut head, 0, u32::try_from(self.disk_bytes() - FRAME_BYTES).unwrap_or(u32::MAX));
        put_u32(&mut head, 4, self.crc);
        head[8] = self.kind as u8;
        put_u64(&mut head, 9, self.index);
        put_u64(&mut head, 17, self.term);
        put_u64(&mut head, 25, self.previous_chain);
        head
    }
}

/// Appends a mark that is no entry to `buffer`.
pub(crate) fn write_mark(
    buffer: &mut Vec<u8>,
    kind: RecordKind,
    index: u64,
    term: u64,
    payload: &[u8],
) {
    let record = Record { kind, index, term, payload: Bytes::copy_from_slice(payload) };
    Frame::new(record, 0).write(buffer);
}

/// Appends the durable mark for `place`, where `buffer`'s end will stand.
pub(crate) fn write_durable_mark(buffer: &mut Vec<u8>, next_index: u64, place: Position) {
    let mut payload = [0; 16];
    put_u64(&mut payload, 0, place.segment);
    put_u64(&mut payload, 8, place.offset);
    write_mark(buffer, RecordKind::Durable, next_index, 0, &payload);
}

/// Whether `view` is a durable mark that names `place` as its own.
pub(crate) fn is_durable_mark(view: &RecordView<'_>, place: Position) -> bool {
    view.kind == RecordKind::Durable
        && view.payload.len() == 16
        && read_u64(view.payload, 0) == Some(place.segment)
        && read_u64(view.payload, 8) == Some(place.offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(kind: RecordKind, previous_chain: u64) -> Vec<u8> {
        let record =
            Record { kind, index: 0x0102, term: 3, payload: Bytes::from_static(b"payload") };
        let mut bytes = Vec::new();
        Frame::new(record, previous_chain).write(&mut bytes);
        bytes
    }

    /// By the grammar and nothing else.
    fn laid_by_hand(kind: u8, previous_chain: Option<u64>) -> Vec<u8> {
        let mut body = vec![kind];
        body.extend_from_slice(&[2, 1, 0, 0, 0, 0, 0, 0]);
        body.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0]);
        body.extend(previous_chain.iter().flat_map(|chain| chain.to_le_bytes()));
        body.extend_from_slice(b"payload");
        let mut bytes = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
        bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    #[test]
    fn every_kind_has_its_bytes() {
        let kinds = [
            (RecordKind::Blank, 1),
            (RecordKind::Commands, 2),
            (RecordKind::Membership, 3),
            (RecordKind::HardState, 16),
            (RecordKind::Durable, 17),
            (RecordKind::Truncate, 18),
            (RecordKind::Filler, 19),
            (RecordKind::Footer, 32),
        ];
        for (kind, number) in kinds {
            let chain = kind.is_entry().then_some(0x0807_0605_0403_0201);
            let bytes = written(kind, chain.unwrap_or(0));
            assert_eq!(bytes, laid_by_hand(number, chain));
            let view = decode(&bytes).unwrap().unwrap();
            assert_eq!((view.kind, view.index, view.term), (kind, 0x0102, 3));
            assert_eq!((view.payload, view.previous_chain), (&b"payload"[..], chain.unwrap_or(0)));
            assert_eq!(view.disk_bytes(), bytes.len());
            assert_eq!(RecordKind::from_u8(number), Some(kind));
        }
        for number in (0..=255).filter(|number| !kinds.iter().any(|(_, known)| known == number)) {
            assert_eq!(RecordKind::from_u8(number), None);
        }
    }

    /// Kept values: a change of the hash or of its order of fields would split clusters.
    #[test]
    fn the_chain_is_what_it_was() {
        assert_eq!(chain_seed(0xc1a5_7e12), CHAIN_SEED_KEPT);
        assert_eq!(chain_after(1, 2, 3, 4), CHAIN_KEPT);
        let mut by_hand = Vec::new();
        for number in [1_u64, 2, 3] {
            by_hand.extend_from_slice(&number.to_le_bytes());
        }
        by_hand.extend_from_slice(&4_u32.to_le_bytes());
        assert_eq!(chain_after(1, 2, 3, 4), xxh3_64(&by_hand));
    }

    const CHAIN_SEED_KEPT: u64 = 11_254_611_562_199_714_618;
    const CHAIN_KEPT: u64 = 15184211204990523083;

    #[test]
    fn every_flip_and_every_cut_is_noticed() {
        let bytes = written(RecordKind::Commands, 9);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // A length of zero is no record; the log then finds bytes after its end.
            assert!(!matches!(decode(&flipped), Ok(Some(_))), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "length {length}");
        }
        assert_eq!(decode(&[0; 8]), Ok(None));
        assert!(matches!(decode(&[0xff; 64]), Err(Damage::Length { .. })));
    }
}
