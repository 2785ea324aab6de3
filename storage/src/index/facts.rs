//! What the trees `segments` and `snapshots` hold.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::snapshot::{Kept, SnapshotId};

/// A sealed segment that is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexedSegment {
    /// The segment's id.
    pub id: u64,
    /// The log's next index when it was begun.
    pub first_index: u64,
    /// The log's next index at its end.
    pub next_index: u64,
    /// Written bytes of its file.
    pub bytes: u64,
    /// Number of postings.
    pub postings: u64,
    /// Number of leaves that hold them.
    pub leaves: u32,
}

/// A snapshot that the index knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexedSnapshot {
    /// Which one.
    pub id: SnapshotId,
    /// Length of its file.
    pub file_bytes: u64,
    /// Number of records.
    pub records: u64,
}

impl IndexedSegment {
    pub(super) fn key(id: u64) -> Bytes {
        Bytes::copy_from_slice(&id.to_be_bytes())
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(44);
        for number in [self.id, self.first_index, self.next_index, self.bytes, self.postings] {
            out.put_u64_le(number);
        }
        out.put_u32_le(self.leaves);
        out.freeze()
    }

    /// `None` means damage.
    pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let mut value = value;
        if value.len() != 44 {
            return None;
        }
        let facts = Self {
            id: value.get_u64_le(),
            first_index: value.get_u64_le(),
            next_index: value.get_u64_le(),
            bytes: value.get_u64_le(),
            postings: value.get_u64_le(),
            leaves: value.get_u32_le(),
        };
        (key == facts.id.to_be_bytes()).then_some(facts)
    }
}

impl IndexedSnapshot {
    pub(super) fn key(&self) -> Bytes {
        let mut key = BytesMut::with_capacity(24);
        for number in [self.id.index, self.id.term, self.id.content_hash] {
            key.put_u64(number);
        }
        key.freeze()
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(16);
        out.put_u64_le(self.file_bytes);
        out.put_u64_le(self.records);
        out.freeze()
    }

    /// `None` means damage.
    pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let (mut key, mut value) = (key, value);
        if key.len() != 24 || value.len() != 16 {
            return None;
        }
        let id =
            SnapshotId { index: key.get_u64(), term: key.get_u64(), content_hash: key.get_u64() };
        Some(Self { id, file_bytes: value.get_u64_le(), records: value.get_u64_le() })
    }
}

impl From<&Kept> for IndexedSnapshot {
    fn from(kept: &Kept) -> Self {
        Self { id: kept.id, file_bytes: kept.file_bytes, records: kept.records }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_go_there_and_back() {
        let segment = IndexedSegment {
            id: 1,
            first_index: 2,
            next_index: 3,
            bytes: 4,
            postings: 5,
            leaves: 6,
        };
        let (key, value) = (IndexedSegment::key(1), segment.encode());
        assert_eq!(IndexedSegment::decode(&key, &value), Some(segment));
        assert_eq!(IndexedSegment::decode(&IndexedSegment::key(2), &value), None);
        assert_eq!(IndexedSegment::decode(&key, &value[1..]), None);

        let id = SnapshotId { index: 1, term: 2, content_hash: 3 };
        let snapshot = IndexedSnapshot { id, file_bytes: 4, records: 5 };
        let (key, value) = (snapshot.key(), snapshot.encode());
        assert_eq!(IndexedSnapshot::decode(&key, &value), Some(snapshot));
        assert_eq!(IndexedSnapshot::decode(&key[1..], &value), None);
    }
}
