//! A machine as records, and back.
//!
//! ```text
//! record     = version u8 · item*
//! item       = kind u8 · length u32 · body
//! 1 head       applied u64 · log time u64 · wall time u64 · next topic u64 · anonymous u8
//! 2 founding   cluster u64 · lineage u64
//! 3 name       node u64 · text
//! 4 run        node u64 · incarnation u64
//! 5 principal  text · text
//! 6 topic      id u64 · added u64 · version u64 · flags u8 (1 value, 2 stream) · type u8 · pairs
//!              · text path · [stream u64 · session u64 · epoch u32] · [value]
//! 7 session    id u64 · epoch u32 · role version u32 · secret 32 · flags u8 (1 previous, 2 detached)
//!              · [previous 32] · [detached at u64] · host u64 · incarnation u64 · opened u64
//!              · reconnect timeout u64 · last request u64 · text principal · texts roles · pairs
//! 8 selection  select u8 · text scope · text selector          of the session before
//! 9 listening  listener u32 · select u8 · text selector        of the session before
//! 10 answer    index u64 · outcome                             of the session before, oldest first
//! 11 end       topics u64 · sessions u64 · state hash u64
//! text       = length u32 · bytes        texts = count u32 · text*        pairs = count u32 · (text · text)*
//! ```
//!
//! All integers are little-endian. The order is fixed (kinds rise but for the items of a session,
//! topics by path, sessions by identifier), so equal machines make equal records. A record is at most
//! [`SNAPSHOT_RECORD_BYTES`] long, unless one item alone is longer. Reading allocates by the bytes
//! that are there, never by a number that they claim, and ends with the state hash recomputed.

mod read;
mod write;

pub use read::RestoreError;

use bytes::Bytes;

use super::limits::SNAPSHOT_RECORD_BYTES;
use super::machine::Machine;

/// The only version there is.
const VERSION: u8 = 1;

/// Kinds of items. Stored: never reused, never changed.
mod kind {
    pub(super) const HEAD: u8 = 1;
    pub(super) const FOUNDING: u8 = 2;
    pub(super) const NAME: u8 = 3;
    pub(super) const RUN: u8 = 4;
    pub(super) const PRINCIPAL: u8 = 5;
    pub(super) const TOPIC: u8 = 6;
    pub(super) const SESSION: u8 = 7;
    pub(super) const SELECTION: u8 = 8;
    pub(super) const LISTENING: u8 = 9;
    pub(super) const ANSWER: u8 = 10;
    pub(super) const END: u8 = 11;
}

impl Machine {
    /// The records that rebuild this machine, made one by one as they are asked for. To write them
    /// in the background, iterate over a clone.
    pub fn to_records(&self) -> impl Iterator<Item = Bytes> {
        write::Records::new(self, SNAPSHOT_RECORD_BYTES)
    }

    /// The machine of these records.
    ///
    /// # Errors
    /// [`RestoreError`] names what is wrong; the recomputed state hash must be the one at the end.
    pub fn from_records(records: impl IntoIterator<Item = Bytes>) -> Result<Self, RestoreError> {
        let mut reader = read::Reader::default();
        for record in records {
            reader.record(record)?;
        }
        reader.finish()
    }
}
