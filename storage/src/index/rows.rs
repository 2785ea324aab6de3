//! How what an entry left behind becomes rows of the trees, and back.
//!
//! ```text
//! effects            key = entry u64 BE · chunk u16 BE
//!                    value = chunks u16 LE (in the first one only) · bytes
//! sessions, config   key = key length u16 BE · key · entry u64 BE · ordinal u16 BE
//!                    value = the caller's bytes
//! ```
//!
//! Effects may be longer than a value of the store, so they are cut into chunks that are written
//! in one batch. The length in front of a history's key keeps one key's rows apart from those of a
//! key that it begins.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::store::{KEY_BYTES_MAX, Tree, VALUE_BYTES_LIMIT};

/// Most chunks of one entry's effects: they must fit into one batch.
const CHUNKS_MAX: usize = 512;
/// Bytes of effects in one chunk.
const CHUNK_BYTES: usize = VALUE_BYTES_LIMIT - 64;
/// Most bytes of effects that one entry may leave.
pub const EFFECTS_BYTES_MAX: usize = CHUNKS_MAX * CHUNK_BYTES;
/// Longest key of a history, bytes.
pub const HISTORY_KEY_BYTES_MAX: usize = KEY_BYTES_MAX - 12;
/// Most rows of history that one entry may leave.
pub const HISTORIES_PER_ENTRY_MAX: usize = 65_536;

/// What the application of one entry left behind for the index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// The entry.
    pub entry: u64,
    /// Its effects, opaque, at most [`EFFECTS_BYTES_MAX`]; `None` when there is nothing to say.
    pub effects: Option<Bytes>,
    /// Rows of histories, at most [`HISTORIES_PER_ENTRY_MAX`]; of two with the same key and
    /// ordinal the later counts.
    pub histories: Vec<History>,
}

/// One row of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Which history.
    pub kind: HistoryKind,
    /// What changed: opaque, at most [`HISTORY_KEY_BYTES_MAX`].
    pub key: Bytes,
    /// The place of the change within its entry.
    pub ordinal: u16,
    /// Opaque; shorter than 64 KiB.
    pub value: Bytes,
}

/// The two histories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HistoryKind {
    /// Of sessions.
    Sessions,
    /// Of configuration.
    Config,
}

impl HistoryKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sessions, Self::Config];

    /// The tree that holds it.
    #[must_use]
    pub const fn tree(self) -> Tree {
        match self {
            Self::Sessions => Tree::Sessions,
            Self::Config => Tree::Config,
        }
    }
}

/// Why an entry's leftovers are not taken: the caller broke a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppliedError {
    /// More effects than [`EFFECTS_BYTES_MAX`].
    #[error("{bytes} bytes of effects are more than {EFFECTS_BYTES_MAX}")]
    Effects {
        /// Their length.
        bytes: usize,
    },
    /// More rows of history than [`HISTORIES_PER_ENTRY_MAX`].
    #[error("{rows} rows of history are more than {HISTORIES_PER_ENTRY_MAX}")]
    Histories {
        /// How many.
        rows: usize,
    },
    /// A key of a history longer than [`HISTORY_KEY_BYTES_MAX`], or a value of 64 KiB or more.
    #[error("a row of history with a key of {key_bytes} bytes and a value of {value_bytes}")]
    Row {
        /// Length of the key.
        key_bytes: usize,
        /// Length of the value.
        value_bytes: usize,
    },
}

/// A row as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) tree: Tree,
    pub(super) key: Bytes,
    pub(super) value: Bytes,
}

impl Applied {
    /// Checks the limits.
    ///
    /// # Errors
    /// [`AppliedError`] names the limit that is broken.
    pub fn check(&self) -> Result<(), AppliedError> {
        if let Some(effects) = self.effects.as_ref().filter(|e| e.len() > EFFECTS_BYTES_MAX) {
            return Err(AppliedError::Effects { bytes: effects.len() });
        }
        if self.histories.len() > HISTORIES_PER_ENTRY_MAX {
            return Err(AppliedError::Histories { rows: self.histories.len() });
        }
        for row in &self.histories {
            if row.key.len() > HISTORY_KEY_BYTES_MAX || row.value.len() >= VALUE_BYTES_LIMIT {
                return Err(AppliedError::Row {
                    key_bytes: row.key.len(),
                    value_bytes: row.value.len(),
                });
            }
        }
        Ok(())
    }

    /// Whether it leaves no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.effects.is_none() && self.histories.is_empty()
    }

    /// Bytes that it holds in a queue, about.
    pub(super) fn cost(&self) -> usize {
        let effects = self.effects.as_ref().map_or(0, Bytes::len);
        let histories: usize =
            self.histories.iter().map(|row| 96 + row.key.len() + row.value.len()).sum();
        64 + effects + histories
    }

    /// Its rows, each key once.
    pub(super) fn into_rows(self) -> Vec<Row> {
        let mut rows = Vec::new();
        if let Some(effects) = self.effects {
            push_effects(&mut rows, self.entry, effects);
        }
        let mut histories = std::collections::BTreeMap::new();
        for row in self.histories {
            let tree = row.kind.tree();
            histories.insert((tree, history_key(&row.key, self.entry, row.ordinal)), row.value);
        }
        rows.extend(histories.into_iter().map(|((tree, key), value)| Row { tree, key, value }));
        rows
    }
}

fn push_effects(rows: &mut Vec<Row>, entry: u64, mut effects: Bytes) {
    let chunks = effects.len().div_ceil(CHUNK_BYTES).max(1);
    let count = u16::try_from(chunks).expect("effects were checked against 512 chunks");
    for chunk in 0..count {
        let part = effects.split_to(effects.len().min(CHUNK_BYTES));
        let value = if chunk == 0 {
            let mut first = BytesMut::with_capacity(2 + part.len());
            first.put_u16_le(count);
            first.put_slice(&part);
            first.freeze()
        } else {
            part
        };
        rows.push(Row { tree: Tree::Effects, key: effects_key(entry, chunk), value });
    }
}

/// The key of one chunk of an entry's effects.
pub(super) fn effects_key(entry: u64, chunk: u16) -> Bytes {
    let mut key = BytesMut::with_capacity(10);
    key.put_u64(entry);
    key.put_u16(chunk);
    key.freeze()
}

/// The entry and the chunk that a key of `effects` names; `None` means damage.
pub(super) fn effects_key_parts(key: &[u8]) -> Option<(u64, u16)> {
    let mut key = key;
    (key.len() == 10).then(|| (key.get_u64(), key.get_u16()))
}

/// The number of chunks, and the first one's bytes, from a first chunk; `None` means damage.
pub(super) fn first_chunk(value: &Bytes) -> Option<(u16, Bytes)> {
    let mut value = value.clone();
    let count = value.try_get_u16_le().ok()?;
    (1..=CHUNKS_MAX).contains(&usize::from(count)).then_some((count, value))
}

/// The key of a row of history.
pub(super) fn history_key(key: &[u8], entry: u64, ordinal: u16) -> Bytes {
    let mut out = BytesMut::with_capacity(12 + key.len());
    out.put_u16(u16::try_from(key.len()).expect("history keys were checked"));
    out.put_slice(key);
    out.put_u64(entry);
    out.put_u16(ordinal);
    out.freeze()
}

/// The key, entry and ordinal of a row of history; `None` means damage.
pub(super) fn history_key_parts(row: &Bytes) -> Option<(Bytes, u64, u16)> {
    let mut rest = row.clone();
    let length = usize::from(rest.try_get_u16().ok()?);
    if rest.len() != length + 10 {
        return None;
    }
    let key = rest.split_to(length);
    Some((key, rest.get_u64(), rest.get_u16()))
}

/// The entry that a row of any of the three trees belongs to; `None` means damage.
pub(super) fn entry_of(tree: Tree, key: &Bytes) -> Option<u64> {
    if tree == Tree::Effects {
        effects_key_parts(key).map(|(entry, _)| entry)
    } else {
        history_key_parts(key).map(|(_, entry, _)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_of_any_length_fit_the_store() {
        for length in [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, EFFECTS_BYTES_MAX] {
            let effects = Bytes::from(vec![5; length]);
            let applied = Applied { entry: 7, effects: Some(effects.clone()), histories: vec![] };
            applied.check().unwrap();
            let rows = applied.into_rows();
            assert!(rows.iter().all(|row| row.value.len() < VALUE_BYTES_LIMIT));
            let (count, first) = first_chunk(&rows[0].value).unwrap();
            assert_eq!(usize::from(count), rows.len());
            let mut back = first.to_vec();
            for (number, row) in rows.iter().enumerate() {
                assert_eq!(effects_key_parts(&row.key), Some((7, number as u16)));
                if number > 0 {
                    back.extend_from_slice(&row.value);
                }
            }
            assert_eq!(back, effects);
        }
        let above = Bytes::from(vec![5; EFFECTS_BYTES_MAX + 1]);
        let applied = Applied { entry: 7, effects: Some(above), histories: vec![] };
        assert_eq!(applied.check(), Err(AppliedError::Effects { bytes: EFFECTS_BYTES_MAX + 1 }));
    }

    #[test]
    fn the_later_of_two_rows_under_one_key_counts() {
        let row = |value: &'static str| History {
            kind: HistoryKind::Config,
            key: Bytes::from_static(b"k"),
            ordinal: 1,
            value: Bytes::from_static(value.as_bytes()),
        };
        let applied = Applied { entry: 3, effects: None, histories: vec![row("a"), row("b")] };
        let rows = applied.into_rows();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].value, "b");
        assert_eq!(history_key_parts(&rows[0].key), Some((Bytes::from_static(b"k"), 3, 1)));
    }

    #[test]
    fn limits_of_histories_are_checked() {
        let row = |key: usize, value: usize| Applied {
            entry: 1,
            effects: None,
            histories: vec![History {
                kind: HistoryKind::Sessions,
                key: Bytes::from(vec![1; key]),
                ordinal: 0,
                value: Bytes::from(vec![1; value]),
            }],
        };
        row(HISTORY_KEY_BYTES_MAX, VALUE_BYTES_LIMIT - 1).check().unwrap();
        assert!(row(HISTORY_KEY_BYTES_MAX + 1, 0).check().is_err());
        assert!(row(0, VALUE_BYTES_LIMIT).check().is_err());
    }
}
