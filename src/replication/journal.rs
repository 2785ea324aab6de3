//! The event journal: a ring of recent events in memory, one block per applied entry.
//!
//! Blocks are shared, never copied; the ring is bounded in bytes. A reader whose position has left
//! the ring is told so ([`Read::Gone`]) and reads older events from disk or starts over.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use crate::domain::effect::{Effect, Event};
use crate::domain::id::Position;

/// Events of blocks that are kept in memory, in bytes.
pub const RING_BYTES_DEFAULT: usize = 64 * 1024 * 1024;
/// What an event is reckoned at beside its value: itself, its share of allocations.
const EVENT_BYTES: usize = 128;
/// What a block is reckoned at beside its events.
const BLOCK_BYTES: usize = 96;

/// The events of one applied entry. Entries without events have no block.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// The entry's log index.
    pub entry: u64,
    /// Log time of the entry, milliseconds.
    pub log_time_ms: u64,
    /// What the block is reckoned at in the ring's bound.
    pub bytes: usize,
    /// In position order; never empty.
    pub events: Vec<Event>,
}

impl Block {
    /// The block of one entry; none when it had no events.
    #[must_use]
    pub fn of(entry: u64, log_time_ms: u64, events: Vec<Event>) -> Option<Arc<Self>> {
        if events.is_empty() {
            return None;
        }
        let values: usize = events.iter().map(|event| value_bytes(&event.effect)).sum();
        let bytes = BLOCK_BYTES + events.len() * EVENT_BYTES + values;
        Some(Arc::new(Self { entry, log_time_ms, bytes, events }))
    }

    /// Reads a little of each event before the block is dropped: what is dropped has left the
    /// processor's caches long ago, and it waits for many reads at once but for one drop at a time.
    fn look_at_all(&self) {
        let seen = self.events.iter().map(|event| match &event.effect {
            Effect::Value { topic, value } => {
                topic.id.0
                    ^ value.as_ref().and_then(|value| value.first()).map_or(0, |at| u64::from(*at))
            }
            _ => 0,
        });
        std::hint::black_box(seen.fold(0, std::ops::BitXor::bitxor));
    }

    /// The events after `position`; all of them when the block starts after it.
    #[must_use]
    pub fn after(&self, position: Position) -> &[Event] {
        let skip = self.events.partition_point(|event| event.position <= position);
        self.events.get(skip..).unwrap_or_default()
    }
}

fn value_bytes(effect: &Effect) -> usize {
    match effect {
        Effect::Value { value, .. } => value.as_ref().map_or(0, bytes::Bytes::len),
        _ => 0,
    }
}

/// What a read of the journal found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Blocks in order, the first of which may begin before the position asked for: see
    /// [`Block::after`].
    Blocks(Vec<Arc<Block>>),
    /// Nothing after the position has been applied yet; wait on [`Journal::applied`].
    CaughtUp,
    /// Events after the position have left the ring.
    Gone {
        /// Every event after the end of this entry is still in the ring.
        oldest: u64,
    },
}

/// A shared handle to the ring.
#[derive(Debug, Clone)]
pub struct Journal {
    ring: Arc<Mutex<Ring>>,
    applied: Arc<watch::Sender<u64>>,
    bytes_max: usize,
}

#[derive(Debug)]
struct Ring {
    blocks: VecDeque<Arc<Block>>,
    bytes: usize,
    /// Events of this entry and of all below it are not in the ring.
    gone: u64,
    applied: u64,
}

impl Journal {
    /// An empty ring of a node whose state stands at entry `applied`.
    #[must_use]
    pub fn new(applied: u64, bytes_max: usize) -> Self {
        let ring = Ring { blocks: VecDeque::new(), bytes: 0, gone: applied, applied };
        Self {
            ring: Arc::new(Mutex::new(ring)),
            applied: Arc::new(watch::Sender::new(applied)),
            bytes_max,
        }
    }

    /// What the events in the ring are reckoned at.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Up to `max_blocks` blocks with events after `position`.
    #[must_use]
    pub fn after(&self, position: Position, max_blocks: usize) -> Read {
        let ring = self.lock();
        // Entry 0 founds the log and never has events: nothing can have gone below entry 1.
        if ring.gone > 0 && position < Position::end_of_entry(ring.gone) {
            return Read::Gone { oldest: ring.gone };
        }
        let first = ring.blocks.partition_point(|block| {
            block.events.last().is_none_or(|event| event.position <= position)
        });
        let blocks: Vec<_> = ring.blocks.range(first..).take(max_blocks).cloned().collect();
        if blocks.is_empty() { Read::CaughtUp } else { Read::Blocks(blocks) }
    }

    /// The newest entry whose events can be read, with or without events of its own. Changes
    /// after the events are there.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// The newest entry whose events can be read.
    #[must_use]
    pub fn applied_now(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Appends what an entry caused and wakes the readers. Entries come in log order.
    pub(super) fn push(&self, entry: u64, block: Option<Arc<Block>>) {
        let mut gone = Vec::new();
        {
            let mut ring = self.lock();
            ring.applied = ring.applied.max(entry);
            if let Some(block) = block {
                ring.bytes += block.bytes;
                ring.blocks.push_back(block);
            }
            // The newest block stays even if it alone is over the bound: its readers are waiting.
            while ring.bytes > self.bytes_max && ring.blocks.len() > 1 {
                if let Some(old) = ring.blocks.pop_front() {
                    ring.bytes -= old.bytes;
                    ring.gone = old.entry;
                    gone.push(old);
                }
            }
        }
        self.applied.send_replace(entry);
        // Readers do not wait for this.
        for block in gone {
            block.look_at_all();
        }
    }

    /// Forgets everything: the state was replaced by a snapshot at `entry`, so there are no events
    /// between what readers have seen and what comes next.
    pub(super) fn reset(&self, entry: u64) {
        {
            let mut ring = self.lock();
            *ring = Ring { blocks: VecDeque::new(), bytes: 0, gone: entry, applied: entry };
        }
        self.applied.send_replace(entry);
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().expect("no code that can panic runs under the ring's lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::effect::Effect;
    use crate::domain::id::Index;

    fn block(entry: u64, offsets: &[u16]) -> Arc<Block> {
        let events = offsets
            .iter()
            .map(|offset| Event {
                position: Position { index: Index::new(entry, *offset), ordinal: 0 },
                last: true,
                effect: Effect::Configuration,
            })
            .collect();
        Block::of(entry, 0, events).unwrap()
    }

    fn at(entry: u64, offset: u16) -> Position {
        Position { index: Index::new(entry, offset), ordinal: 0 }
    }

    fn entries(read: Read) -> Vec<u64> {
        match read {
            Read::Blocks(blocks) => blocks.iter().map(|block| block.entry).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn readers_find_what_follows_their_position() {
        let journal = Journal::new(4, RING_BYTES_DEFAULT);
        assert_eq!(journal.after(Position::end_of_entry(4), 10), Read::CaughtUp);
        assert_eq!(journal.after(at(4, 0), 10), Read::Gone { oldest: 4 });
        journal.push(5, Some(block(5, &[0, 1])));
        journal.push(6, None);
        journal.push(7, Some(block(7, &[3])));
        assert_eq!(entries(journal.after(Position::end_of_entry(4), 10)), [5, 7]);
        assert_eq!(entries(journal.after(Position::end_of_entry(4), 1)), [5]);
        assert_eq!(entries(journal.after(at(5, 0), 10)), [5, 7]);
        assert_eq!(entries(journal.after(at(5, 1), 10)), [7]);
        assert_eq!(journal.after(at(7, 3), 10), Read::CaughtUp);
        assert_eq!(journal.after(at(9, 0), 10), Read::CaughtUp);
        assert_eq!(*journal.applied().borrow(), 7);
        assert_eq!(block(5, &[0, 1]).after(at(5, 0)).len(), 1);
    }

    #[test]
    fn the_ring_is_bounded_in_bytes_and_says_what_has_gone() {
        let journal = Journal::new(0, 3 * (BLOCK_BYTES + EVENT_BYTES));
        for entry in 1..=5 {
            journal.push(entry, Some(block(entry, &[0])));
        }
        assert_eq!(journal.after(at(1, 0), 10), Read::Gone { oldest: 2 });
        assert_eq!(entries(journal.after(Position::end_of_entry(2), 10)), [3, 4, 5]);
        // One block over the bound by itself is kept.
        let offsets: Vec<u16> = (0..100).collect();
        journal.push(6, Some(block(6, &offsets)));
        assert_eq!(entries(journal.after(Position::end_of_entry(5), 10)), [6]);
        journal.reset(9);
        assert_eq!(journal.after(at(6, 50), 10), Read::Gone { oldest: 9 });
        assert_eq!(journal.after(Position::end_of_entry(9), 10), Read::CaughtUp);
    }
}
