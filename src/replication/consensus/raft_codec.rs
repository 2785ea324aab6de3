//! Our own bytes for what the Raft library keeps on disk and sends to peers. All integers are
//! little-endian.
//!
//! ```text
//! vote        = version u8 · term u64 · node u64 · committed u8
//! log id      = present u8 (· term u64 · index u64)
//! membership  = version u8 · configurations u8 · { voters u16 · node u64* }* · nodes u16 · node u64*
//! ```
//!
//! A released layout never changes: new fields are a new version. Append requests and other peer
//! messages are laid out in `append_frame`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::replication::consensus::raft_types::{Leader, LogId, Membership, Vote, log_id, parts};

const VERSION: u8 = 1;
/// Configurations of a joint membership; Raft needs two.
const CONFIGURATIONS_MAX: usize = 4;
/// Members of a cluster.
const NODES_MAX: usize = 64;

/// Bytes that this module would not have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::replication) enum CodecError {
    /// It ends too early.
    #[error("the {what} is cut short")]
    Short {
        /// What was being read.
        what: &'static str,
    },
    /// A value out of its range.
    #[error("{value} is no legal {what}")]
    Illegal {
        /// What was being read.
        what: &'static str,
        /// What was found.
        value: u64,
    },
}

/// Fails if fewer than `bytes` are left.
pub(in crate::replication) fn need(
    buffer: &Bytes,
    bytes: usize,
    what: &'static str,
) -> Result<(), CodecError> {
    if buffer.len() < bytes { Err(CodecError::Short { what }) } else { Ok(()) }
}

pub(in crate::replication) fn put_vote(buffer: &mut BytesMut, vote: &Vote) {
    buffer.put_u8(VERSION);
    buffer.put_u64_le(vote.leader_id.term);
    buffer.put_u64_le(vote.leader_id.voted_for);
    buffer.put_u8(u8::from(vote.committed));
}

pub(in crate::replication) fn take_vote(buffer: &mut Bytes) -> Result<Vote, CodecError> {
    need(buffer, 18, "vote")?;
    take_version(buffer, "vote version")?;
    let leader_id = Leader { term: buffer.get_u64_le(), voted_for: buffer.get_u64_le() };
    let committed = take_flag(buffer, "vote flag")?;
    Ok(Vote { leader_id, committed })
}

/// A vote as it is stored.
pub(in crate::replication) fn vote_bytes(vote: &Vote) -> Bytes {
    let mut buffer = BytesMut::with_capacity(18);
    put_vote(&mut buffer, vote);
    buffer.freeze()
}

pub(in crate::replication) fn put_log_id(buffer: &mut BytesMut, id: Option<&LogId>) {
    match id {
        None => buffer.put_u8(0),
        Some(id) => {
            let (term, index) = parts(id);
            buffer.put_u8(1);
            buffer.put_u64_le(term);
            buffer.put_u64_le(index);
        }
    }
}

pub(in crate::replication) fn take_log_id(buffer: &mut Bytes) -> Result<Option<LogId>, CodecError> {
    need(buffer, 1, "log id")?;
    if !take_flag(buffer, "log id flag")? {
        return Ok(None);
    }
    need(buffer, 16, "log id")?;
    let term = buffer.get_u64_le();
    Ok(Some(log_id(term, buffer.get_u64_le())))
}

pub(in crate::replication) fn put_membership(buffer: &mut BytesMut, membership: &Membership) {
    buffer.put_u8(VERSION);
    let configurations = membership.get_joint_config();
    buffer.put_u8(configurations.len() as u8);
    for voters in configurations {
        buffer.put_u16_le(voters.len() as u16);
        voters.iter().for_each(|node| buffer.put_u64_le(*node));
    }
    let nodes: Vec<u64> = membership.nodes().map(|(node, ())| *node).collect();
    buffer.put_u16_le(nodes.len() as u16);
    nodes.iter().for_each(|node| buffer.put_u64_le(*node));
}

pub(in crate::replication) fn take_membership(
    buffer: &mut Bytes,
) -> Result<Membership, CodecError> {
    const WHAT: &str = "membership";
    need(buffer, 2, WHAT)?;
    take_version(buffer, "membership version")?;
    let count = usize::from(buffer.get_u8());
    if count > CONFIGURATIONS_MAX {
        return Err(CodecError::Illegal { what: "count of configurations", value: count as u64 });
    }
    let mut configurations = Vec::with_capacity(count);
    for _ in 0..count {
        configurations.push(take_nodes(buffer)?);
    }
    let nodes: BTreeMap<u64, ()> = take_nodes(buffer)?.into_iter().map(|node| (node, ())).collect();
    if configurations.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    let voters = configurations.len() as u64;
    Membership::new(configurations, nodes)
        .map_err(|_| CodecError::Illegal { what: "set of voters", value: voters })
}

/// A membership as it is stored.
pub(in crate::replication) fn membership_bytes(membership: &Membership) -> Bytes {
    let mut buffer = BytesMut::with_capacity(64);
    put_membership(&mut buffer, membership);
    buffer.freeze()
}

fn take_nodes(buffer: &mut Bytes) -> Result<BTreeSet<u64>, CodecError> {
    const WHAT: &str = "list of nodes";
    need(buffer, 2, WHAT)?;
    let count = usize::from(buffer.get_u16_le());
    if count > NODES_MAX {
        return Err(CodecError::Illegal { what: "count of nodes", value: count as u64 });
    }
    need(buffer, count * 8, WHAT)?;
    Ok((0..count).map(|_| buffer.get_u64_le()).collect())
}

fn take_version(buffer: &mut Bytes, what: &'static str) -> Result<(), CodecError> {
    match buffer.get_u8() {
        VERSION => Ok(()),
        other => Err(CodecError::Illegal { what, value: u64::from(other) }),
    }
}

pub(in crate::replication) fn take_flag(
    buffer: &mut Bytes,
    what: &'static str,
) -> Result<bool, CodecError> {
    need(buffer, 1, what)?;
    match buffer.get_u8() {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(CodecError::Illegal { what, value: u64::from(other) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn membership() -> Membership {
        let voters = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
        let nodes: BTreeMap<u64, ()> = [1, 2, 3, 4].map(|id| (id, ())).into();
        Membership::new(vec![voters(&[1, 2]), voters(&[2, 3])], nodes).unwrap()
    }

    #[test]
    fn golden_bytes() {
        let vote = Vote { leader_id: Leader { term: 5, voted_for: 7 }, committed: true };
        assert_eq!(hex(&vote_bytes(&vote)), "010500000000000000070000000000000001");
        assert_eq!(take_vote(&mut vote_bytes(&vote)), Ok(vote));
        assert_eq!(
            hex(&membership_bytes(&membership())),
            "0102\
             020001000000000000000200000000000000\
             020002000000000000000300000000000000\
             04000100000000000000020000000000000003000000000000000400000000000000"
        );
        assert_eq!(take_membership(&mut membership_bytes(&membership())), Ok(membership()));
        let mut buffer = BytesMut::new();
        put_log_id(&mut buffer, Some(&log_id(3, 9)));
        put_log_id(&mut buffer, None);
        assert_eq!(hex(&buffer), "010300000000000000090000000000000000");
        let mut bytes = buffer.freeze();
        assert_eq!(take_log_id(&mut bytes), Ok(Some(log_id(3, 9))));
        assert_eq!(take_log_id(&mut bytes), Ok(None));
    }

    #[test]
    fn every_cut_and_illegal_value_is_an_error() {
        let whole = membership_bytes(&membership());
        for cut in 0..whole.len() {
            assert!(take_membership(&mut whole.slice(..cut)).is_err(), "cut at {cut}");
        }
        let vote =
            vote_bytes(&Vote { leader_id: Leader { term: 1, voted_for: 1 }, committed: false });
        for cut in 0..vote.len() {
            assert!(take_vote(&mut vote.slice(..cut)).is_err(), "cut at {cut}");
        }
        assert!(take_vote(&mut Bytes::from_static(&[2; 18])).is_err());
        assert!(take_membership(&mut Bytes::from_static(&[1, 200])).is_err());
        // A voter that is not among the nodes.
        let stray = [1, 1, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(take_membership(&mut Bytes::copy_from_slice(&stray)).is_err());
    }
}
