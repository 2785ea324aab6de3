//! The index's own mark: how far it is complete, and a sum over what it claims to hold, so that a
//! store that silently opens with less than was written is noticed.
//!
//! ```text
//! mark = format u16 (1) · cluster id u64 · lineage u64 · covered start u64 · covered end u64
//!      · rows u64 · sum u64                                  (little-endian)
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::rows::{Row, entry_of};
use super::store::Tree;
use crate::snapshot::Owner;

/// The key of the mark in the tree `meta`.
pub(super) const MARK_KEY: &[u8] = b"mark";
/// The version of everything in the index. Another one is rebuilt, not converted.
pub(super) const FORMAT: u16 = 1;
const MARK_BYTES: usize = 2 + 6 * 8;

/// The trees that the mark speaks of.
pub(super) const MARKED: [Tree; 3] = [Tree::Effects, Tree::Sessions, Tree::Config];

/// For which entries effects and histories are complete: those from `start` up to, not including,
/// `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Coverage {
    /// Nothing is promised below this entry.
    pub start: u64,
    /// Nothing is promised from this entry on.
    pub end: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) owner: Owner,
    pub(super) coverage: Coverage,
    pub(super) sum: Sum,
}

/// Number of rows and a sum over them that does not depend on their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sum {
    pub(super) rows: u64,
    pub(super) sum: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MarkError {
    /// Not as many bytes as a mark has.
    Torn,
    /// Another version.
    Format(u16),
}

impl Mark {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(MARK_BYTES);
        out.put_u16_le(FORMAT);
        for number in [
            self.owner.cluster_id,
            self.owner.lineage,
            self.coverage.start,
            self.coverage.end,
            self.sum.rows,
            self.sum.sum,
        ] {
            out.put_u64_le(number);
        }
        out.freeze()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, MarkError> {
        let mut bytes = bytes;
        let format = bytes.try_get_u16_le().map_err(|_| MarkError::Torn)?;
        if format != FORMAT {
            return Err(MarkError::Format(format));
        }
        if bytes.len() != MARK_BYTES - 2 {
            return Err(MarkError::Torn);
        }
        Ok(Self {
            owner: Owner { cluster_id: bytes.get_u64_le(), lineage: bytes.get_u64_le() },
            coverage: Coverage { start: bytes.get_u64_le(), end: bytes.get_u64_le() },
            sum: Sum { rows: bytes.get_u64_le(), sum: bytes.get_u64_le() },
        })
    }
}

impl Sum {
    pub(super) fn add(&mut self, tree: Tree, key: &[u8], value: &[u8]) {
        self.rows = self.rows.wrapping_add(1);
        self.sum = self.sum.wrapping_add(hash(tree, key, value));
    }

    pub(super) fn subtract(&mut self, other: Self) {
        self.rows = self.rows.wrapping_sub(other.rows);
        self.sum = self.sum.wrapping_sub(other.sum);
    }

    pub(super) fn add_row(&mut self, row: &Row) {
        self.add(row.tree, &row.key, &row.value);
    }
}

fn hash(tree: Tree, key: &[u8], value: &[u8]) -> u64 {
    use xxhash_rust::xxh3::xxh3_64_with_seed;
    xxh3_64_with_seed(value, xxh3_64_with_seed(key, tree as u64))
}

impl Coverage {
    /// Whether a row of a marked tree is one that the mark counts; `None` when its key is damaged.
    pub(super) fn counts(self, tree: Tree, key: &Bytes) -> Option<bool> {
        entry_of(tree, key).map(|entry| self.contains(entry))
    }

    /// Whether an entry is covered.
    #[must_use]
    pub fn contains(self, entry: u64) -> bool {
        (self.start..self.end).contains(&entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mark_goes_there_and_back_and_keeps_its_bytes() {
        let mark = Mark {
            owner: Owner { cluster_id: 1, lineage: 2 },
            coverage: Coverage { start: 3, end: 4 },
            sum: Sum { rows: 5, sum: 6 },
        };
        let bytes = mark.encode();
        let mut golden = vec![1, 0];
        for number in 1..=6_u8 {
            golden.extend([number, 0, 0, 0, 0, 0, 0, 0]);
        }
        assert_eq!(bytes, golden);
        assert_eq!(Mark::decode(&bytes), Ok(mark));
        assert_eq!(Mark::decode(&bytes[..49]), Err(MarkError::Torn));
        assert_eq!(Mark::decode(&[2, 0, 1]), Err(MarkError::Format(2)));
    }

    #[test]
    fn sum_does_not_depend_on_order() {
        let mut one = Sum::default();
        one.add(Tree::Effects, b"a", b"1");
        one.add(Tree::Config, b"b", b"2");
        let mut other = Sum::default();
        other.add(Tree::Config, b"b", b"2");
        other.add(Tree::Effects, b"a", b"1");
        assert_eq!(one, other);
        let mut swapped = Sum::default();
        swapped.add(Tree::Effects, b"b", b"2");
        swapped.add(Tree::Config, b"a", b"1");
        assert_ne!(one, swapped);
    }
}
