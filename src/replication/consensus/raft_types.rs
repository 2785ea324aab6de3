//! The Raft library's types, as this system fills them in.
//!
//! An entry is a log id, a kind and one [`Bytes`]: the record that storage keeps, the slice that
//! peers are sent and the payload that apply reads are the same bytes. Nothing of the library's own
//! serialization is used anywhere.

use std::fmt;

use bytes::Bytes;
use openraft::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use openraft::entry::{RaftEntry, RaftPayload};
use openraft::impls::leader_id_std::LeaderId;
use openraft::vote::leader_id_std::CommittedLeaderId;
use openraft::{OptionalSend, RaftTypeConfig};

use crate::replication::consensus::raft_codec;
use crate::replication::consensus::runtime::Runtime;

/// The configuration of types.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::replication) struct Types;

/// A leader: one per term.
pub(in crate::replication) type Leader = LeaderId<u64, u64>;
/// Where an entry stands: its term and index.
pub(in crate::replication) type LogId = LogIdOf<Types>;
/// What a node has promised.
pub(in crate::replication) type Vote = VoteOf<Types>;
/// The voters (and learners) of the cluster.
pub(in crate::replication) type Membership = openraft::Membership<u64, ()>;
/// A membership and the entry that it stands in.
pub(in crate::replication) type StoredMembership = StoredMembershipOf<Types>;
/// What a snapshot covers.
pub(in crate::replication) type SnapshotMeta = SnapshotMetaOf<Types>;
/// A snapshot of this data.
pub(in crate::replication) type Snapshot<D> = SnapshotOf<Types, D>;

impl RaftTypeConfig for Types {
    type D = Commands;
    type R = ();
    type NodeId = u64;
    type Node = ();
    type Term = u64;
    type LeaderId = Leader;
    type Vote = openraft::Vote<Leader>;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = openraft::impls::OneshotResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// The encoded payload of an entry of commands, see [`crate::domain::entry`].
#[derive(Clone, PartialEq, Eq)]
pub(in crate::replication) struct Commands(pub(in crate::replication) Bytes);

impl fmt::Debug for Commands {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "commands[{} bytes]", self.0.len())
    }
}

impl fmt::Display for Commands {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// What kind of entry it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::replication) enum Kind {
    /// Nothing: a new leader's first entry.
    Blank,
    /// Commands for the machine.
    Commands,
    /// The voters from here on.
    Membership,
}

/// What an entry carries, without its place.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::replication) struct Payload {
    kind: Kind,
    /// Empty for a blank entry. A membership has been decoded once before it got here.
    bytes: Bytes,
}

impl Payload {
    /// A payload from disk or from a peer.
    pub(in crate::replication) fn checked(
        kind: Kind,
        bytes: Bytes,
    ) -> Result<Self, raft_codec::CodecError> {
        if kind == Kind::Membership {
            raft_codec::take_membership(&mut bytes.clone())?;
        }
        Ok(Self { kind, bytes })
    }

    pub(in crate::replication) fn kind(&self) -> Kind {
        self.kind
    }

    pub(in crate::replication) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}[{} bytes]", self.kind, self.bytes.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

impl RaftPayload for Payload {
    type D = Commands;
    type NodeId = u64;
    type Node = ();

    fn blank() -> Self {
        Self { kind: Kind::Blank, bytes: Bytes::new() }
    }

    fn with_normal(self, data: Commands) -> Self {
        Self { kind: Kind::Commands, bytes: data.0 }
    }

    fn with_membership(self, membership: Membership) -> Self {
        Self { kind: Kind::Membership, bytes: raft_codec::membership_bytes(&membership) }
    }

    fn get_membership(&self) -> Option<Membership> {
        if self.kind != Kind::Membership {
            return None;
        }
        // Only this library's own encoding or bytes that decoded once get in here.
        raft_codec::take_membership(&mut self.bytes.clone()).ok()
    }
}

/// An entry of the log.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::replication) struct Entry {
    id: LogId,
    payload: Payload,
}

impl Entry {
    pub(in crate::replication) fn payload(&self) -> &Payload {
        &self.payload
    }

    pub(in crate::replication) fn id(&self) -> LogId {
        self.id
    }

    pub(in crate::replication) fn term(&self) -> u64 {
        self.id.committed_leader_id().term
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.id, self.payload)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

impl RaftEntry for Entry {
    type CommittedLeaderId = CommittedLeaderId<u64>;
    type Payload = Payload;

    fn new(id: LogId, payload: Payload) -> Self {
        Self { id, payload }
    }

    fn log_id_parts(&self) -> (&CommittedLeaderId<u64>, u64) {
        (self.id.committed_leader_id(), self.id.index())
    }

    fn set_log_id(&mut self, id: LogId) {
        self.id = id;
    }

    fn get_membership(&self) -> Option<Membership> {
        self.payload.get_membership()
    }
}

/// The log id of `term` and `index`.
pub(in crate::replication) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId { term }, index)
}

/// The term and index of a log id.
pub(in crate::replication) fn parts(id: &LogId) -> (u64, u64) {
    (id.committed_leader_id().term, id.index())
}
