//! Postings of one sealed segment: which records speak of a key, packed into leaves.
//!
//! ```text
//! tree key = first index of the segment u64 (big-endian) · leaf number u32 (big-endian)
//! leaf     = version u8 (1) · { key length u16 · key · count u32 · { posting }* }*
//! posting  = record offset (varint, less the one before in this group)
//!          · position (varint, less the one before in this group, zigzag)
//! ```
//!
//! Leaves are in key order, and a key with more postings than fit goes on in the next leaf. A
//! lookup is a binary search over the leaves, whose number the segment's own entry holds.

use std::cmp::Ordering;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::store::VALUE_BYTES_LIMIT;

const LEAF_VERSION: u8 = 1;
/// A leaf is closed when it has grown past this; one more posting never reaches the value limit.
const LEAF_BYTES: usize = VALUE_BYTES_LIMIT - 64;
/// Longest key of a posting, bytes: a topic path.
pub const POSTING_KEY_BYTES_MAX: usize = 1 << 10;

/// One place where a key occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Posting {
    /// What the key function gave: by convention the index of the command.
    pub position: u64,
    /// Offset of the record in its segment file, bytes.
    pub record_offset: u64,
}

impl Posting {
    /// In the order of the file.
    fn cmp_place(&self, other: &Self) -> Ordering {
        (self.record_offset, self.position).cmp(&(other.record_offset, other.position))
    }
}

/// Collects the postings of one segment and packs them.
#[derive(Debug, Default)]
pub(super) struct PostingsBuilder {
    keys: Vec<u8>,
    found: Vec<Found>,
}

#[derive(Debug, Clone, Copy)]
struct Found {
    /// The first eight bytes of the key, big-endian, zeros behind a shorter one: most keys are told
    /// apart by it, without a look at their bytes.
    prefix: u64,
    key_start: usize,
    key_bytes: usize,
    posting: Posting,
}

/// Bytes of a key that [`Found::prefix`] holds.
const PREFIX_BYTES: usize = size_of::<u64>();

fn prefix_of(key: &[u8]) -> u64 {
    let mut prefix = [0; PREFIX_BYTES];
    for (to, from) in prefix.iter_mut().zip(key) {
        *to = *from;
    }
    u64::from_be_bytes(prefix)
}

impl PostingsBuilder {
    /// Adds a posting. Keys past [`POSTING_KEY_BYTES_MAX`] are cut there: a lookup of the whole
    /// key cuts it too, and its reader checks what it finds anyway.
    pub(super) fn add(&mut self, key: &[u8], posting: Posting) {
        let key = cut(key);
        let key_start = self.keys.len();
        self.keys.extend_from_slice(key);
        let prefix = prefix_of(key);
        self.found.push(Found { prefix, key_start, key_bytes: key.len(), posting });
    }

    /// Number of postings.
    pub(super) fn len(&self) -> usize {
        self.found.len()
    }

    /// Packs everything into leaves, in order.
    pub(super) fn into_leaves(mut self) -> Vec<Bytes> {
        let keys = std::mem::take(&mut self.keys);
        let key_of = |found: &Found| {
            keys.get(found.key_start..found.key_start + found.key_bytes).unwrap_or_default()
        };
        let by_key = |a: &Found, b: &Found| {
            // Of keys with one prefix the shorter is less, if no more than the prefix is left.
            a.prefix.cmp(&b.prefix).then_with(|| {
                if a.key_bytes.max(b.key_bytes) <= PREFIX_BYTES {
                    a.key_bytes.cmp(&b.key_bytes)
                } else {
                    key_of(a).cmp(key_of(b))
                }
            })
        };
        self.found.sort_unstable_by(|a, b| by_key(a, b).then(a.posting.cmp_place(&b.posting)));
        let mut leaves = Vec::new();
        let mut leaf = LeafBuilder::default();
        for group in self.found.chunk_by(|a, b| by_key(a, b).is_eq()) {
            let Some(first) = group.first() else { continue };
            let key = key_of(first);
            let mut open = false;
            for found in group {
                // A posting takes at most 20 bytes, a new group its key and six bytes more.
                let needed = if open { 20 } else { key.len() + 26 };
                if leaf.bytes.len() + needed > LEAF_BYTES {
                    leaves.extend(leaf.seal());
                    open = false;
                }
                if !open {
                    leaf.open_group(key);
                    open = true;
                }
                leaf.push(found.posting);
            }
        }
        leaves.extend(leaf.seal());
        leaves
    }
}

#[derive(Debug, Default)]
struct LeafBuilder {
    bytes: BytesMut,
    count_at: usize,
    count: u32,
    last: Option<Posting>,
}

impl LeafBuilder {
    fn open_group(&mut self, key: &[u8]) {
        self.close_group();
        if self.bytes.is_empty() {
            self.bytes.put_u8(LEAF_VERSION);
        }
        self.bytes.put_u16_le(u16::try_from(key.len()).expect("keys are cut at 1 KiB"));
        self.bytes.put_slice(key);
        self.count_at = self.bytes.len();
        self.bytes.put_u32_le(0);
        self.count = 0;
        self.last = None;
    }

    fn push(&mut self, posting: Posting) {
        let last = self.last.unwrap_or(Posting { position: 0, record_offset: 0 });
        put_varint(&mut self.bytes, posting.record_offset.wrapping_sub(last.record_offset));
        put_varint(&mut self.bytes, zigzag(posting.position.wrapping_sub(last.position)));
        self.last = Some(posting);
        self.count += 1;
    }

    fn close_group(&mut self) {
        let count = self.count.to_le_bytes();
        if let (Some(place), true) =
            (self.bytes.get_mut(self.count_at..self.count_at + 4), self.count > 0)
        {
            place.copy_from_slice(&count);
        }
        self.count = 0;
    }

    fn seal(&mut self) -> Option<Bytes> {
        self.close_group();
        let bytes = self.bytes.split().freeze();
        (!bytes.is_empty()).then_some(bytes)
    }
}

/// A leaf, decoded. `None` anywhere in here means damage.
#[derive(Debug)]
pub(super) struct Leaf {
    groups: Vec<(Bytes, Vec<Posting>)>,
}

impl Leaf {
    pub(super) fn decode(bytes: &Bytes) -> Option<Self> {
        let mut rest = bytes.clone();
        if rest.try_get_u8().ok()? != LEAF_VERSION {
            return None;
        }
        let mut groups: Vec<(Bytes, Vec<Posting>)> = Vec::new();
        while rest.has_remaining() {
            let key_bytes = usize::from(rest.try_get_u16_le().ok()?);
            if key_bytes > rest.len() {
                return None;
            }
            let key = rest.split_to(key_bytes);
            let count = rest.try_get_u32_le().ok()? as usize;
            // A posting takes two bytes at least, so a false count reserves no more than the leaf.
            let mut postings = Vec::with_capacity(count.min(rest.len() / 2));
            let mut last = Posting { position: 0, record_offset: 0 };
            for _ in 0..count {
                let offset = take_varint(&mut rest)?;
                let position = unzigzag(take_varint(&mut rest)?);
                last = Posting {
                    record_offset: last.record_offset.wrapping_add(offset),
                    position: last.position.wrapping_add(position),
                };
                postings.push(last);
            }
            if groups.last().is_some_and(|(before, _)| *before >= key) {
                return None;
            }
            groups.push((key, postings));
        }
        (!groups.is_empty()).then_some(Self { groups })
    }

    /// Whether the key may begin in this leaf or in an earlier one.
    pub(super) fn reaches(&self, key: &[u8]) -> bool {
        self.groups.last().is_some_and(|(last, _)| &last[..] >= cut(key))
    }

    /// Whether the key may go on in the next leaf.
    pub(super) fn may_go_on(&self, key: &[u8]) -> bool {
        self.groups.last().is_some_and(|(last, _)| &last[..] <= cut(key))
    }

    /// The postings of a key in this leaf.
    pub(super) fn postings(&self, key: &[u8]) -> &[Posting] {
        self.groups
            .binary_search_by(|(group, _)| group[..].cmp(cut(key)))
            .ok()
            .and_then(|at| self.groups.get(at))
            .map_or(&[], |(_, postings)| postings)
    }
}

/// The tree key of a leaf.
pub(super) fn leaf_key(segment: u64, leaf: u32) -> Bytes {
    let mut key = BytesMut::with_capacity(12);
    key.put_u64(segment);
    key.put_u32(leaf);
    key.freeze()
}

fn cut(key: &[u8]) -> &[u8] {
    key.get(..POSTING_KEY_BYTES_MAX).unwrap_or(key)
}

fn zigzag(difference: u64) -> u64 {
    let signed = difference as i64;
    ((signed << 1) ^ (signed >> 63)) as u64
}

fn unzigzag(code: u64) -> u64 {
    (code >> 1) ^ (code & 1).wrapping_neg()
}

fn put_varint(out: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8((number as u8) | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

fn take_varint(bytes: &mut Bytes) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = bytes.try_get_u8().ok()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn posting(position: u64, record_offset: u64) -> Posting {
        Posting { position, record_offset }
    }

    fn packed(items: &[(&[u8], Posting)]) -> Vec<Leaf> {
        let mut builder = PostingsBuilder::default();
        for (key, posting) in items {
            builder.add(key, *posting);
        }
        builder
            .into_leaves()
            .iter()
            .map(|bytes| {
                assert!(bytes.len() < VALUE_BYTES_LIMIT);
                Leaf::decode(bytes).unwrap()
            })
            .collect()
    }

    #[test]
    fn postings_come_back_in_record_order() {
        let leaves = packed(&[
            (b"b", posting(5 << 16, 300)),
            (b"a", posting(1 << 16, 100)),
            (b"b", posting(3 << 16 | 2, 200)),
        ]);
        assert_eq!(leaves.len(), 1);
        assert_eq!(leaves[0].postings(b"a"), [posting(1 << 16, 100)]);
        assert_eq!(leaves[0].postings(b"b"), [posting(3 << 16 | 2, 200), posting(5 << 16, 300)]);
        assert!(leaves[0].postings(b"c").is_empty());
    }

    #[test]
    fn a_key_with_many_postings_goes_on_over_leaves() {
        let items: Vec<(&[u8], Posting)> =
            (0..100_000_u64).map(|n| (&b"busy"[..], posting(n << 16, n * 97))).collect();
        let leaves = packed(&items);
        assert!(leaves.len() > 2);
        let back: Vec<Posting> =
            leaves.iter().flat_map(|leaf| leaf.postings(b"busy").iter().copied()).collect();
        assert_eq!(back.len(), items.len());
        assert!(back.iter().zip(&items).all(|(a, (_, b))| a == b));
    }

    #[test]
    fn no_postings_no_leaves() {
        assert!(packed(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn any_postings_come_back(items in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 0..4), any::<u64>(), 0..u64::MAX), 0..200)
        ) {
            let refs: Vec<(&[u8], Posting)> =
                items.iter().map(|(k, p, o)| (&k[..], posting(*p, *o))).collect();
            let leaves = packed(&refs);
            for (key, position, offset) in &items {
                prop_assert!(
                    leaves.iter().any(|l| l.postings(key).contains(&posting(*position, *offset)))
                );
            }
            let total: usize =
                leaves.iter().flat_map(|l| l.groups.iter()).map(|(_, p)| p.len()).sum();
            prop_assert_eq!(total, items.len());
        }

        #[test]
        fn any_bytes_decode_or_do_not(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Leaf::decode(&Bytes::from(bytes));
        }
    }
}
