//! The state hash: 64 bits, the wrapping sum of one xxh3 per item of replicated state.
//!
//! A sum forgets order, so any part can add and remove its own items in constant time, and a restore
//! that meets them in another order arrives at the same number. Every item begins with its own key
//! (a topic's identifier, a session's, a request number), so no two items of a state are equal.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// What an item is. Numbers are part of the hash on every node: never reused, never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::domain) enum ItemKind {
    /// Log and wall time.
    Clock = 1,
    /// The next topic identifier.
    TopicCounter = 2,
    /// What never changes while a topic lives.
    Topic = 3,
    /// A topic's value, version and stream.
    Content = 4,
    /// A session without its answers.
    Session = 5,
    /// One topic notification listener, a part of its session's item.
    Listener = 6,
    /// A session's last request number.
    Progress = 7,
    /// One kept answer.
    Answer = 8,
    /// The founding of the cluster.
    Founding = 9,
    /// The name of a member.
    Name = 10,
    /// The incarnation of a member.
    Incarnation = 11,
    /// The password of a principal.
    Principal = 12,
    /// Whether anonymous clients may connect.
    Anonymous = 13,
}

/// The hash of an item that is a few numbers.
pub(in crate::domain) fn item<const WORDS: usize>(kind: ItemKind, words: [u64; WORDS]) -> u64 {
    let bytes = words.map(u64::to_le_bytes);
    xxh3_64_with_seed(bytes.as_flattened(), kind as u64)
}

/// The hash of a text or value, to be a word of an item.
pub(in crate::domain) fn digest(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// The sum of the items that one part of the machine holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::domain) struct ItemSum(u64);

impl ItemSum {
    /// Takes an item in.
    pub(in crate::domain) fn add(&mut self, item: u64) {
        self.0 = self.0.wrapping_add(item);
    }

    /// Takes an item out again.
    pub(in crate::domain) fn remove(&mut self, item: u64) {
        self.0 = self.0.wrapping_sub(item);
    }

    /// The sum.
    pub(in crate::domain) fn value(self) -> u64 {
        self.0
    }
}

impl FromIterator<u64> for ItemSum {
    fn from_iter<I: IntoIterator<Item = u64>>(items: I) -> Self {
        Self(items.into_iter().fold(0, u64::wrapping_add))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_forgets_order_and_takes_items_out_again() {
        let items = [
            item(ItemKind::Topic, [1, 2]),
            item(ItemKind::Content, [1, 2]),
            item(ItemKind::Topic, [2, 1]),
        ];
        let mut sum: ItemSum = items.iter().rev().copied().collect();
        assert_eq!(sum, items.iter().copied().collect());
        for item in items {
            assert_ne!(sum, ItemSum::default());
            sum.remove(item);
        }
        assert_eq!(sum, ItemSum::default());
    }

    #[test]
    fn kind_and_every_word_count() {
        let hash = item(ItemKind::Topic, [1, 2]);
        for other in [
            item(ItemKind::Content, [1, 2]),
            item(ItemKind::Topic, [3, 2]),
            item(ItemKind::Topic, [1, 3]),
            item(ItemKind::Topic, [1]),
        ] {
            assert_ne!(hash, other);
        }
        // The same on every node and in every release.
        assert_eq!(format!("{hash:016x}"), "0dc8b45684f61ed8");
    }
}
