//! The index of the log: how things in it are found again.
//!
//! The truth is the log and its snapshots; everything in here can be thrown away and made anew
//! from them. So the index may live in a store that is not to be trusted: it is opened and called
//! under guards, checked against its own mark, and when anything is wrong it is moved aside, never
//! deleted, and rebuilt while the node serves.
//!
//! | tree | key | value | comes from |
//! |---|---|---|---|
//! | `segments` | segment id | [`IndexedSegment`] | scanning sealed segments |
//! | `postings` | segment id, leaf number | packed leaf of key → [`Posting`]s | scanning, by the key function |
//! | `snapshots` | snapshot id | [`IndexedSnapshot`] | the catalogue |
//! | `effects` | entry, chunk | opaque | offers of apply, or replay |
//! | `sessions`, `config` | key, entry, ordinal | opaque | offers of apply, or replay |
//! | `meta` | `mark` | owner, coverage, sum | written last |
//!
//! One thread drives [`IndexWorker::step`] and is the only one that opens, writes, flushes and
//! moves aside. [`Index`] is the handle for everyone else: it offers what apply left behind
//! (never waiting), and reads. A read outside of the [`Coverage`] is refused by name, so that its
//! caller can wait, or answer that it does not know.
//!
//! Only durable entries are written. The mark is written and flushed after what it promises, so a
//! crash between leaves rows above the mark, which are written again, alike.

mod cut;
mod facts;
mod handle;
mod in_memory;
mod mark;
mod on_sled;
mod place;
mod postings;
mod queue;
mod rows;
mod serving;
mod store;
mod worker;

#[cfg(test)]
mod contract;

pub use facts::{IndexedSegment, IndexedSnapshot};
pub use handle::{
    EFFECTS_PAGE_ENTRIES_MAX, EffectsPage, HISTORY_ROWS_MAX, HistoryRow, Index, IndexError,
    IndexState, IndexStatus,
};
pub use in_memory::MemoryStore;
pub use mark::Coverage;
pub use place::{IndexDamage, IndexPlace, IndexReport};
pub use postings::{POSTING_KEY_BYTES_MAX, Posting};
pub use queue::{Offered, QUEUE_BYTES_MAX};
pub use rows::{
    Applied, AppliedError, EFFECTS_BYTES_MAX, HISTORIES_PER_ENTRY_MAX, HISTORY_KEY_BYTES_MAX,
    History, HistoryKind,
};
pub use store::{BATCH_KEYS_MAX, Tree, VALUE_BYTES_LIMIT};
pub use worker::{
    IndexOptions, IndexStep, IndexWorker, KeyFunction, ProgressListener, REPLAY_ENTRIES_MAX,
    Replay, ReplayRequest, Replayed, SET_ASIDE_MAX,
};
