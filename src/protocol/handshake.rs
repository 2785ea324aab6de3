//! How a session is opened and resumed: hello, welcome, refused.

use std::collections::BTreeMap;
use std::fmt;

use minicbor::{Decode, Encode};

use super::codec::cbor;
use super::read::Read;
use crate::domain::id::{ClusterId, Index, Lineage, Position, SessionId};
use crate::domain::limits;

/// Bytes of the secret that resumes a session.
pub const SECRET_BYTES: usize = 32;
/// Nodes that a welcome or a refusal names.
pub const NODES_MAX: usize = 64;

/// The first frame of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// The protocol version that the client speaks.
    #[n(0)]
    pub version: u16,
    /// Name and version of the client software, for people.
    #[n(1)]
    pub client: String,
    /// Who asks. Not looked at when a session is resumed by its secret.
    #[n(2)]
    pub credentials: Credentials,
    /// A session to go on with.
    #[n(3)]
    pub resume: Option<Resume>,
    /// How long the session is to outlive its connection, in milliseconds; the node may give less.
    #[n(4)]
    pub reconnect_timeout_ms: u64,
    /// Proposed user properties.
    #[cbor(n(5), default, decode_with = "cbor::texts::<_, { limits::PROPERTIES_MAX }>")]
    pub properties: BTreeMap<String, String>,
    /// The wanted interval between beats in milliseconds; zero leaves it to the node.
    #[cbor(n(6), default)]
    pub beat_ms: u32,
    /// Where a new session's events start; none: with initial values at its first `select`. Not
    /// looked at when a session is resumed.
    #[n(7)]
    pub from: Option<StartFrom>,
}

/// The first frame of a connection that reads once and opens no session: it needs no log, so it is
/// answered without a quorum too.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Look {
    /// The protocol version that the client speaks.
    #[n(0)]
    pub version: u16,
    /// Name and version of the client software, for people.
    #[n(1)]
    pub client: String,
    /// Who asks.
    #[n(2)]
    pub credentials: Credentials,
    /// What to read; rows come on the control stream.
    #[n(3)]
    pub read: Read,
}

/// Where a new session's events start: its first `select` is taken as made here, so that past
/// events of matching topics come on the event stream instead of initial values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StartFrom {
    /// The history that the position is of; none: the cluster's present one.
    #[n(0)]
    pub lineage: Option<Lineage>,
    /// Events after this position are wanted; [`Position::START`] for all that the log still has.
    #[n(1)]
    pub position: Position,
}

/// Who asks for a session.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum Credentials {
    /// Nobody in particular.
    #[n(0)]
    Anonymous,
    /// A principal that knows its password.
    #[n(1)]
    #[cbor(map)]
    Password {
        /// The principal's name.
        #[n(0)]
        principal: String,
        /// In clear, inside TLS.
        #[n(1)]
        password: String,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => formatter.write_str("Anonymous"),
            // A password never reaches a log.
            Self::Password { principal, .. } => write!(formatter, "Password({principal:?})"),
        }
    }
}

/// The session that a client goes on with, and how far it had come.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Resume {
    /// Which session.
    #[n(0)]
    pub session: SessionId,
    /// From the newest welcome.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub secret: [u8; SECRET_BYTES],
    /// From the newest welcome or reset.
    #[n(2)]
    pub lineage: Lineage,
    /// Every event up to and including this position has arrived; none asks for a reset.
    #[n(3)]
    pub position: Option<Position>,
    /// Not all has arrived that belongs to changes of the session's selections and listeners; the
    /// position is from before the oldest of them was asked for.
    #[cbor(n(4), default)]
    pub initial_missing: bool,
    /// The highest index that the client was told of; a local read is at least as new.
    #[n(5)]
    pub seen: Option<Index>,
    /// The session's events started at a past position and have not come to where it was opened.
    #[cbor(n(6), default)]
    pub replaying: bool,
}

impl fmt::Debug for Resume {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Resume")
            .field("session", &self.session)
            .field("lineage", &self.lineage)
            .field("position", &self.position)
            .field("initial_missing", &self.initial_missing)
            .field("replaying", &self.replaying)
            .finish_non_exhaustive()
    }
}

/// The session is open: the first frame from the node.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Welcome {
    /// The session's identifier, for its whole life.
    #[n(0)]
    pub session: SessionId,
    /// Raised by every connect.
    #[n(1)]
    pub epoch: u32,
    /// Shown at the next resume; the one before stays valid until this one is used.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub secret: [u8; SECRET_BYTES],
    /// The highest request number applied; the node expects the next one after it, and answers
    /// lower ones again.
    #[n(3)]
    pub last_request: u64,
    /// The history that positions belong to.
    #[n(4)]
    pub lineage: Lineage,
    /// The cluster.
    #[n(5)]
    pub cluster: ClusterId,
    /// Name of the node that serves the session now.
    #[n(6)]
    pub node: String,
    /// Every node that the client may try.
    #[cbor(n(7), default, decode_with = "cbor::list::<_, _, NODES_MAX>")]
    pub nodes: Vec<NodeAddress>,
    /// What the client has to keep to.
    #[n(8)]
    pub limits: SessionLimits,
    /// What became of a resume, or of a wished start.
    #[n(9)]
    pub verdict: Verdict,
}

impl fmt::Debug for Welcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Welcome")
            .field("session", &self.session)
            .field("epoch", &self.epoch)
            .field("node", &self.node)
            .field("last_request", &self.last_request)
            .field("lineage", &self.lineage)
            .field("verdict", &self.verdict)
            .finish_non_exhaustive()
    }
}

/// One node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NodeAddress {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Where it listens for clients, as `host:port`.
    #[n(1)]
    pub address: String,
}

/// What a client has to keep to in this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SessionLimits {
    /// Commands that may be unanswered.
    #[n(0)]
    pub in_flight_max: u32,
    /// Reads that may be unanswered.
    #[n(1)]
    pub reads_max: u32,
    /// Bytes of a value.
    #[n(2)]
    pub value_bytes_max: u32,
    /// Bytes of a frame's payload.
    #[n(3)]
    pub payload_bytes_max: u32,
    /// How long the session outlives its connection, in milliseconds.
    #[n(4)]
    pub reconnect_timeout_ms: u64,
    /// Milliseconds between beats once the session has a subscription or a listener.
    #[n(5)]
    pub beat_ms: u32,
}

/// What became of a resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Verdict {
    /// A new session whose events start with initial values.
    #[n(0)]
    Fresh,
    /// Every event after this position follows.
    #[n(1)]
    #[cbor(map)]
    Continuous {
        /// The position that the client gave.
        #[n(0)]
        position: Position,
    },
    /// Events were lost or cannot be found: current values follow, as of this position.
    #[n(2)]
    #[cbor(map)]
    Reset {
        /// Why.
        #[n(0)]
        reason: ResetReason,
        /// Events after it follow, and initial values are as of it.
        #[n(1)]
        position: Position,
    },
}

/// Why a session's events do not go on where the client had come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum ResetReason {
    /// The client asked for it: it gave no position.
    #[n(0)]
    Asked,
    /// The log no longer reaches back so far.
    #[n(1)]
    Purged,
    /// The position is of another lineage: the cluster was restored, or accepted a loss.
    #[n(2)]
    OtherLineage,
    /// This node skipped that part of the log by a snapshot.
    #[n(3)]
    SnapshotInstalled,
    /// The index of that part of the log cannot be rebuilt.
    #[n(4)]
    NotIndexed,
    /// The session's selections changed in a way that the journal cannot replay.
    #[n(5)]
    SelectionsChanged,
}

impl ResetReason {
    /// The number in hand-laid frames, equal to the one in CBOR.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Asked => 0,
            Self::Purged => 1,
            Self::OtherLineage => 2,
            Self::SnapshotInstalled => 3,
            Self::NotIndexed => 4,
            Self::SelectionsChanged => 5,
        }
    }

    /// The reason of this number.
    #[must_use]
    pub fn of_number(number: u8) -> Option<Self> {
        [
            Self::Asked,
            Self::Purged,
            Self::OtherLineage,
            Self::SnapshotInstalled,
            Self::NotIndexed,
            Self::SelectionsChanged,
        ]
        .into_iter()
        .find(|reason| reason.number() == number)
    }
}

/// The session is not opened; the connection ends after this frame.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Refused {
    /// An [`ErrorCode`](super::ErrorCode)'s number.
    #[n(0)]
    pub code: u16,
    /// For people.
    #[cbor(n(1), default)]
    pub text: String,
    /// Try again after so many milliseconds; none: trying again will not help.
    #[n(2)]
    pub retry_ms: Option<u32>,
    /// Nodes that may answer otherwise.
    #[cbor(n(3), default, decode_with = "cbor::list::<_, _, NODES_MAX>")]
    pub nodes: Vec<NodeAddress>,
}
