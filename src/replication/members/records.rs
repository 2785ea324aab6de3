//! Log entries for a member whose own are damaged. The answer needs no running consensus on either
//! side; whoever asks checks the entries by their chain.
//!
//! ```text
//! question  = first u64 · end u64
//! answer    = 0 · chain before the first entry u64 · { term u64 · kind u8 · length u32 · payload }*
//!           | 1 (the log begins later) · first index u64
//!           | 2 (the log ends before) · next index u64
//! committed = committed next u64 · leads u8 · next index u64
//! ```
//!
//! Entries are consecutive from the first on; an answer may hold fewer than were asked for, but one.

use std::ops::Range;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_storage::{Log, Record, RecordKind};

use crate::replication::consensus::raft_codec::{CodecError, need, take_flag};
use crate::replication::members::ask;
use crate::replication::members::peers::{Lane, PeerFault, Peers};

/// Bytes of entries in one answer; a longer entry travels alone.
const ANSWER_BYTES: usize = 1024 * 1024;
/// Bytes of an entry in an answer besides its payload.
const ENTRY_HEAD_BYTES: usize = 13;
/// What one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Entries as a member gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::replication) enum Given {
    /// The first ones of those asked for.
    Entries {
        /// The chain before the first.
        chain_before: u64,
        /// Consecutive.
        records: Vec<Record>,
    },
    /// The member has purged them.
    Purged {
        /// The first that it has.
        first: u64,
    },
    /// The member does not have them.
    Short {
        /// The index after its last.
        next: u64,
    },
}

/// How far a member's log is, for one whose end is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::replication) struct Extent {
    /// Entries below it are committed.
    pub(in crate::replication) committed_next: u64,
    /// A quorum has just confirmed that it leads.
    pub(in crate::replication) leads: bool,
    /// The index after its last entry.
    pub(in crate::replication) next: u64,
}

/// Answers a question for entries. Reads the disk.
pub(in crate::replication) fn answer(log: &Log, mut question: Bytes) -> Option<Bytes> {
    if question.len() != 16 {
        return None;
    }
    let range = question.get_u64_le()..question.get_u64_le();
    let given = if range.start < log.first_index() {
        Given::Purged { first: log.first_index() }
    } else if range.start >= log.next_index() {
        Given::Short { next: log.next_index() }
    } else {
        // What cannot be read here is not given; the member asks another.
        let (chain_before, records) = log.read_chained(range, ANSWER_BYTES).ok()?;
        Given::Entries { chain_before, records }
    };
    Some(given.encode())
}

/// Asks a member for entries; `range` is not empty.
pub(in crate::replication) async fn ask_for(
    peers: &Peers,
    member: u64,
    range: Range<u64>,
) -> Result<Given, PeerFault> {
    let mut question = BytesMut::with_capacity(17);
    question.put_u8(ask::RECORDS);
    question.put_u64_le(range.start);
    question.put_u64_le(range.end);
    let answer = peers.call(member, Lane::Ask, question.freeze(), PATIENCE).await?;
    Given::decode(answer, &range).map_err(|_| PeerFault::Closed)
}

/// Asks a member how far its log is.
pub(in crate::replication) async fn ask_extent(
    peers: &Peers,
    member: u64,
) -> Result<Extent, PeerFault> {
    let question = Bytes::from_static(&[ask::EXTENT]);
    let answer = peers.call(member, Lane::Ask, question, PATIENCE).await?;
    Extent::decode(answer).map_err(|_| PeerFault::Closed)
}

impl Given {
    fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::new();
        match self {
            Self::Entries { chain_before, records } => {
                buffer.put_u8(0);
                buffer.put_u64_le(*chain_before);
                for record in records {
                    buffer.put_u64_le(record.term);
                    buffer.put_u8(record.kind as u8);
                    buffer.put_u32_le(record.payload.len() as u32);
                    buffer.put_slice(&record.payload);
                }
            }
            Self::Purged { first } => {
                buffer.put_u8(1);
                buffer.put_u64_le(*first);
            }
            Self::Short { next } => {
                buffer.put_u8(2);
                buffer.put_u64_le(*next);
            }
        }
        buffer.freeze()
    }

    fn decode(mut buffer: Bytes, range: &Range<u64>) -> Result<Self, CodecError> {
        const WHAT: &str = "entries";
        need(&buffer, 9, WHAT)?;
        let answer = buffer.get_u8();
        let number = buffer.get_u64_le();
        match answer {
            0 => {}
            1 => return Ok(Self::Purged { first: number }),
            2 => return Ok(Self::Short { next: number }),
            other => return Err(CodecError::Illegal { what: WHAT, value: u64::from(other) }),
        }
        let mut records = Vec::new();
        let mut indices = range.clone();
        while !buffer.is_empty() {
            need(&buffer, ENTRY_HEAD_BYTES, WHAT)?;
            let (term, kind) = (buffer.get_u64_le(), buffer.get_u8());
            let length = buffer.get_u32_le() as usize;
            need(&buffer, length, WHAT)?;
            let payload = buffer.split_to(length);
            let illegal = CodecError::Illegal { what: "kind of entry", value: u64::from(kind) };
            let kind = RecordKind::from_u8(kind).filter(|kind| kind.is_entry());
            let kind = kind.ok_or(illegal)?;
            let index = indices.next().ok_or(illegal)?;
            records.push(Record { kind, index, term, payload });
        }
        if records.is_empty() {
            return Err(CodecError::Illegal { what: WHAT, value: 0 });
        }
        Ok(Self::Entries { chain_before: number, records })
    }
}

impl Extent {
    pub(in crate::replication) fn encode(self) -> Bytes {
        let mut buffer = BytesMut::with_capacity(17);
        buffer.put_u64_le(self.committed_next);
        buffer.put_u8(u8::from(self.leads));
        buffer.put_u64_le(self.next);
        buffer.freeze()
    }

    fn decode(mut buffer: Bytes) -> Result<Self, CodecError> {
        need(&buffer, 17, "extent")?;
        let committed_next = buffer.get_u64_le();
        let leads = take_flag(&mut buffer, "leads")?;
        Ok(Self { committed_next, leads, next: buffer.get_u64_le() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(index: u64, payload: &'static [u8]) -> Record {
        let payload = Bytes::from_static(payload);
        Record { kind: RecordKind::Commands, index, term: 3, payload }
    }

    #[test]
    fn answers_come_back_and_cuts_are_errors() {
        let entries = Given::Entries {
            chain_before: 7,
            records: vec![record(5, b"five"), record(6, b""), record(7, b"seven")],
        };
        for given in [entries, Given::Purged { first: 9 }, Given::Short { next: 2 }] {
            let bytes = given.encode();
            assert_eq!(Given::decode(bytes.clone(), &(5..8)), Ok(given.clone()));
            let wholes = [9 + ENTRY_HEAD_BYTES + 4, 9 + 2 * ENTRY_HEAD_BYTES + 4];
            for cut in (0..bytes.len()).filter(|cut| !wholes.contains(cut)) {
                assert!(Given::decode(bytes.slice(..cut), &(5..8)).is_err(), "cut at {cut}");
            }
            // More than was asked for, or a mark among them, is no answer.
            if let Given::Entries { .. } = given {
                assert!(Given::decode(bytes.clone(), &(5..7)).is_err());
                let mut mark = bytes.to_vec();
                mark[9 + 8] = RecordKind::Truncate as u8;
                assert!(Given::decode(mark.into(), &(5..8)).is_err());
            }
        }
        let extent = Extent { committed_next: 4, leads: true, next: 6 };
        assert_eq!(Extent::decode(extent.encode()), Ok(extent));
        assert!(Extent::decode(Bytes::from_static(&[0; 16])).is_err());
    }
}
