//! Peer messages of consensus, as frames.
//!
//! ```text
//! append   = vote · previous log id · committed log id · count u32
//!            · { term u64 · kind u8 · length u32 }*, then one frame of payload per entry
//! accepted = result u8: 0 · log id | 1 (conflict) · log id | 2 (higher vote) · vote
//! ballot   = vote · last log id · transfer u8
//! answer   = vote · granted u8 · last log id
//! transfer = vote · node u64 · last log id
//! verdict  = result u8: 0 | 1 (vote changed) · expected vote · actual vote
//!            | 2 (log not flushed) · expected log id · actual log id
//! ```
//!
//! Indices of an append are consecutive from the entry after the previous one. Each payload is a frame
//! of its own, so that it goes to the wire by reference and arrives as its own allocation.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::entry::RaftEntry;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};

use crate::replication::consensus::raft_codec::{
    CodecError, need, put_log_id, put_vote, take_flag, take_log_id, take_vote,
};
use crate::replication::consensus::raft_types::{Entry, Kind, LogId, Payload, Types, log_id};

/// Entries in one append request.
pub(in crate::replication) const APPEND_ENTRIES_MAX: usize = 4_096;
const ENTRY_HEAD_BYTES: usize = 13;

/// The head of an append request: everything but the payloads, which follow one by one.
pub(in crate::replication) fn append_head_bytes(request: &AppendEntriesRequest<Types>) -> Bytes {
    let heads = request.entries.len() * ENTRY_HEAD_BYTES;
    let mut buffer = BytesMut::with_capacity(80 + heads);
    put_vote(&mut buffer, &request.vote);
    put_log_id(&mut buffer, request.prev_log_id.as_ref());
    put_log_id(&mut buffer, request.leader_commit.as_ref());
    buffer.put_u32_le(request.entries.len() as u32);
    for entry in &request.entries {
        buffer.put_u64_le(entry.term());
        buffer.put_u8(kind_byte(entry.payload().kind()));
        buffer.put_u32_le(entry.payload().bytes().len() as u32);
    }
    buffer.freeze()
}

/// An append request whose payloads are still to come.
#[derive(Debug)]
pub(in crate::replication) struct AppendHead {
    request: AppendEntriesRequest<Types>,
    /// Term, kind and payload length of the entries that are missing, in order.
    missing: VecDeque<(u64, Kind, usize)>,
}

impl AppendHead {
    /// Reads the head of an append request.
    pub(in crate::replication) fn take(mut buffer: Bytes) -> Result<Self, CodecError> {
        let vote = take_vote(&mut buffer)?;
        let prev_log_id = take_log_id(&mut buffer)?;
        let leader_commit = take_log_id(&mut buffer)?;
        need(&buffer, 4, "append request")?;
        let count = buffer.get_u32_le() as usize;
        if count > APPEND_ENTRIES_MAX {
            return Err(CodecError::Illegal { what: "count of entries", value: count as u64 });
        }
        if buffer.len() != count * ENTRY_HEAD_BYTES {
            let value = buffer.len() as u64;
            return Err(CodecError::Illegal { what: "length of entry heads", value });
        }
        let mut missing = VecDeque::with_capacity(count);
        for _ in 0..count {
            let term = buffer.get_u64_le();
            let kind = kind_of(buffer.get_u8())?;
            missing.push_back((term, kind, buffer.get_u32_le() as usize));
        }
        let entries = Vec::with_capacity(count);
        let request = AppendEntriesRequest { vote, prev_log_id, entries, leader_commit };
        Ok(Self { request, missing })
    }

    /// How many payloads are still to come.
    pub(in crate::replication) fn missing(&self) -> usize {
        self.missing.len()
    }

    /// Adds the next payload.
    pub(in crate::replication) fn add(&mut self, bytes: Bytes) -> Result<(), CodecError> {
        const WHAT: &str = "append payload";
        let (term, kind, length) =
            self.missing.pop_front().ok_or(CodecError::Illegal { what: WHAT, value: 0 })?;
        if bytes.len() != length {
            return Err(CodecError::Illegal { what: WHAT, value: bytes.len() as u64 });
        }
        let first = self.request.prev_log_id.as_ref().map_or(0, |id| id.index().saturating_add(1));
        let index = first.saturating_add(self.request.entries.len() as u64);
        self.request.entries.push(Entry::new(log_id(term, index), Payload::checked(kind, bytes)?));
        Ok(())
    }

    /// The request; an error while payloads are missing.
    pub(in crate::replication) fn whole(self) -> Result<AppendEntriesRequest<Types>, CodecError> {
        if self.missing.is_empty() {
            Ok(self.request)
        } else {
            Err(CodecError::Short { what: "append request" })
        }
    }
}

pub(in crate::replication) fn accepted_bytes(result: &StreamAppendResult<Types>) -> Bytes {
    let mut buffer = BytesMut::with_capacity(24);
    match result {
        Ok(id) => {
            buffer.put_u8(0);
            put_log_id(&mut buffer, id.as_ref());
        }
        Err(StreamAppendError::Conflict(id)) => {
            buffer.put_u8(1);
            put_log_id(&mut buffer, Some(id));
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            buffer.put_u8(2);
            put_vote(&mut buffer, vote);
        }
    }
    buffer.freeze()
}

pub(in crate::replication) fn take_accepted(
    mut buffer: Bytes,
) -> Result<StreamAppendResult<Types>, CodecError> {
    const WHAT: &str = "append result";
    need(&buffer, 1, WHAT)?;
    match buffer.get_u8() {
        0 => Ok(Ok(take_log_id(&mut buffer)?)),
        1 => {
            let id = take_log_id(&mut buffer)?.ok_or(CodecError::Short { what: WHAT })?;
            Ok(Err(StreamAppendError::Conflict(id)))
        }
        2 => Ok(Err(StreamAppendError::HigherVote(take_vote(&mut buffer)?))),
        other => Err(CodecError::Illegal { what: WHAT, value: u64::from(other) }),
    }
}

pub(in crate::replication) fn ballot_bytes(request: &VoteRequest<Types>) -> Bytes {
    let mut buffer = BytesMut::with_capacity(40);
    put_vote(&mut buffer, &request.vote);
    put_log_id(&mut buffer, request.last_log_id.as_ref());
    buffer.put_u8(u8::from(request.leadership_transfer));
    buffer.freeze()
}

pub(in crate::replication) fn take_ballot(
    mut buffer: Bytes,
) -> Result<VoteRequest<Types>, CodecError> {
    let vote = take_vote(&mut buffer)?;
    let last_log_id = take_log_id(&mut buffer)?;
    let leadership_transfer = take_flag(&mut buffer, "transfer flag")?;
    Ok(VoteRequest { vote, last_log_id, leadership_transfer })
}

pub(in crate::replication) fn answer_bytes(answer: &VoteResponse<Types>) -> Bytes {
    let mut buffer = BytesMut::with_capacity(40);
    put_vote(&mut buffer, &answer.vote);
    buffer.put_u8(u8::from(answer.vote_granted));
    put_log_id(&mut buffer, answer.last_log_id.as_ref());
    buffer.freeze()
}

pub(in crate::replication) fn take_answer(
    mut buffer: Bytes,
) -> Result<VoteResponse<Types>, CodecError> {
    let vote = take_vote(&mut buffer)?;
    let vote_granted = take_flag(&mut buffer, "grant flag")?;
    let last_log_id = take_log_id(&mut buffer)?;
    Ok(VoteResponse { vote, vote_granted, last_log_id })
}

pub(in crate::replication) fn transfer_bytes(request: &TransferLeaderRequest<Types>) -> Bytes {
    let mut buffer = BytesMut::with_capacity(48);
    put_vote(&mut buffer, request.from_leader());
    buffer.put_u64_le(*request.to_node_id());
    put_log_id(&mut buffer, request.last_log_id());
    buffer.freeze()
}

pub(in crate::replication) fn take_transfer(
    mut buffer: Bytes,
) -> Result<TransferLeaderRequest<Types>, CodecError> {
    let vote = take_vote(&mut buffer)?;
    need(&buffer, 8, "transfer request")?;
    let node = buffer.get_u64_le();
    let last: Option<LogId> = take_log_id(&mut buffer)?;
    Ok(TransferLeaderRequest::new(vote, node, last))
}

pub(in crate::replication) fn verdict_bytes(verdict: &TransferLeaderResponse<Types>) -> Bytes {
    let mut buffer = BytesMut::with_capacity(40);
    match verdict {
        Ok(()) => buffer.put_u8(0),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            buffer.put_u8(1);
            put_vote(&mut buffer, expected);
            put_vote(&mut buffer, actual);
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            buffer.put_u8(2);
            put_log_id(&mut buffer, expected.as_ref());
            put_log_id(&mut buffer, actual.as_ref());
        }
    }
    buffer.freeze()
}

pub(in crate::replication) fn take_verdict(
    mut buffer: Bytes,
) -> Result<TransferLeaderResponse<Types>, CodecError> {
    const WHAT: &str = "transfer verdict";
    need(&buffer, 1, WHAT)?;
    match buffer.get_u8() {
        0 => Ok(Ok(())),
        1 => {
            let expected = take_vote(&mut buffer)?;
            Ok(Err(TransferLeaderError::VoteChanged { expected, actual: take_vote(&mut buffer)? }))
        }
        2 => {
            let expected = take_log_id(&mut buffer)?;
            let actual = take_log_id(&mut buffer)?;
            Ok(Err(TransferLeaderError::LogNotFlushed { expected, actual }))
        }
        other => Err(CodecError::Illegal { what: WHAT, value: u64::from(other) }),
    }
}

fn kind_byte(kind: Kind) -> u8 {
    match kind {
        Kind::Blank => 1,
        Kind::Commands => 2,
        Kind::Membership => 3,
    }
}

fn kind_of(byte: u8) -> Result<Kind, CodecError> {
    match byte {
        1 => Ok(Kind::Blank),
        2 => Ok(Kind::Commands),
        3 => Ok(Kind::Membership),
        other => Err(CodecError::Illegal { what: "entry kind", value: u64::from(other) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::consensus::raft_types::{Commands, Leader, Vote, parts};
    use openraft::entry::RaftPayload;

    fn vote() -> Vote {
        Vote { leader_id: Leader { term: 4, voted_for: 2 }, committed: true }
    }

    fn request() -> AppendEntriesRequest<Types> {
        let entries = [Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"three")]
            .into_iter()
            .zip(6..)
            .map(|(bytes, index)| Entry::new(log_id(4, index), Payload::normal(Commands(bytes))))
            .collect();
        AppendEntriesRequest {
            vote: vote(),
            prev_log_id: Some(log_id(3, 5)),
            entries,
            leader_commit: Some(log_id(3, 5)),
        }
    }

    #[test]
    fn append_requests_come_back() {
        let request = request();
        let mut head = AppendHead::take(append_head_bytes(&request)).unwrap();
        for entry in &request.entries {
            assert!(head.missing() > 0);
            head.add(entry.payload().bytes().clone()).unwrap();
        }
        let back = head.whole().unwrap();
        assert_eq!(back.entries, request.entries);
        assert_eq!(back.prev_log_id.as_ref().map(parts), Some((3, 5)));
        let empty = AppendEntriesRequest { entries: vec![], prev_log_id: None, ..request };
        let head = AppendHead::take(append_head_bytes(&empty)).unwrap();
        assert_eq!(head.whole().unwrap().entries.len(), 0);
    }

    #[test]
    fn cut_and_odd_append_requests_are_errors() {
        let whole = append_head_bytes(&request());
        for cut in 0..whole.len() {
            assert!(AppendHead::take(whole.slice(..cut)).is_err(), "cut at {cut}");
        }
        let mut head = AppendHead::take(whole).unwrap();
        assert!(head.add(Bytes::from_static(b"four")).is_err());
        head.add(Bytes::new()).unwrap();
        assert!(head.whole().is_err());
        let membership = Payload::checked(Kind::Membership, Bytes::from_static(b"junk"));
        assert!(membership.is_err());
    }

    #[test]
    fn golden_bytes_of_the_small_messages() {
        let hex = |bytes: Bytes| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let vote_hex = "010400000000000000020000000000000001";
        let id_hex = "0103000000000000000500000000000000";
        let accepted: StreamAppendResult<Types> = Ok(Some(log_id(3, 5)));
        assert_eq!(hex(accepted_bytes(&accepted)), format!("00{id_hex}"));
        assert_eq!(take_accepted(accepted_bytes(&accepted)), Ok(accepted));
        for refused in
            [StreamAppendError::Conflict(log_id(3, 5)), StreamAppendError::HigherVote(vote())]
        {
            let refused: StreamAppendResult<Types> = Err(refused);
            assert_eq!(take_accepted(accepted_bytes(&refused)), Ok(refused));
        }
        let mut ballot = VoteRequest::new(vote(), Some(log_id(3, 5)));
        ballot.leadership_transfer = true;
        assert_eq!(hex(ballot_bytes(&ballot)), format!("{vote_hex}{id_hex}01"));
        assert_eq!(take_ballot(ballot_bytes(&ballot)), Ok(ballot));
        let answer = VoteResponse::new(vote(), Some(log_id(3, 5)), true);
        assert_eq!(hex(answer_bytes(&answer)), format!("{vote_hex}01{id_hex}"));
        assert_eq!(take_answer(answer_bytes(&answer)), Ok(answer));
        let transfer = TransferLeaderRequest::new(vote(), 9, None);
        assert_eq!(hex(transfer_bytes(&transfer)), format!("{vote_hex}090000000000000000"));
        assert_eq!(take_transfer(transfer_bytes(&transfer)), Ok(transfer));
        for verdict in [
            Ok(()),
            Err(TransferLeaderError::VoteChanged { expected: vote(), actual: vote() }),
            Err(TransferLeaderError::LogNotFlushed { expected: Some(log_id(3, 5)), actual: None }),
        ] {
            assert_eq!(take_verdict(verdict_bytes(&verdict)), Ok(verdict));
        }
    }
}
