//! Reads and their answers. Reads carry a correlation id and change nothing.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::codec::cbor::{self, blob, blob_option};
use super::topic::WireSpecification;
use crate::domain::id::{Index, SessionId, TopicId};

/// Topic types that a fetch may list.
const TYPES_MAX: usize = 32;
/// Rows that one inline answer may have; more travel on a bulk stream.
pub const INLINE_ROWS_MAX: usize = 4_096;
/// Roles that a session description lists.
const ROLES_MAX: usize = 256;

/// One read.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Read {
    /// How new the answer has to be.
    #[cbor(n(0), default)]
    pub level: Level,
    /// The state read has applied at least this index, whatever the level.
    #[n(1)]
    pub at_least: Option<Index>,
    /// The node gives up after so many milliseconds; none: its own default.
    #[n(2)]
    pub deadline_ms: Option<u32>,
    /// What to read.
    #[n(3)]
    pub query: Query,
}

/// How new an answer has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum Level {
    /// At least as new as the session's own last answered command.
    #[default]
    #[n(0)]
    Local,
    /// At least as new as anything answered to anybody before the read was sent.
    #[n(1)]
    Linearizable,
    /// As `local`, but answered without a quorum too, marked with its age.
    #[n(2)]
    Stale,
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Query {
    /// Topics, their values, their properties.
    #[n(0)]
    Fetch(#[n(0)] Fetch),
    /// Nothing: the answer shows that the node lives and where it stands.
    #[n(1)]
    Ping,
    /// The caller's own session.
    #[n(2)]
    SessionInfo,
    /// The cluster as the node sees it.
    #[n(3)]
    ClusterStatus,
}

/// Which topics to fetch, and what of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Fetch {
    /// Which topics.
    #[n(0)]
    pub selector: String,
    /// Only from this path on.
    #[n(1)]
    pub from: Option<Bound>,
    /// Only up to this path.
    #[n(2)]
    pub to: Option<Bound>,
    /// Only topics of these types; empty: all.
    #[cbor(n(3), default, decode_with = "cbor::list::<_, _, TYPES_MAX>")]
    pub topic_types: Vec<u8>,
    /// With values, and only topics readable as this type; 0: any.
    #[n(4)]
    pub values: Option<u8>,
    /// With the topics' properties.
    #[cbor(n(5), default)]
    pub properties: bool,
    /// With the sizes of the values.
    #[cbor(n(6), default)]
    pub sizes: bool,
    /// At most so many, from the front or the end; none: as many as the node allows.
    #[n(7)]
    pub limit: Option<Limit>,
    /// At most so many bytes of rows; none: the node's own bound.
    #[n(8)]
    pub bytes_max: Option<u32>,
    /// At most so many results of each branch whose root has this depth.
    #[n(9)]
    pub deep_branches: Option<DeepBranches>,
}

/// One end of a range of paths. No topic needs to be at it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Bound {
    /// Where.
    #[n(0)]
    pub path: String,
    /// The path itself is in the range.
    #[n(1)]
    pub inclusive: bool,
}

/// How many topics to return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Limit {
    /// The first so many in path order.
    #[n(0)]
    First(#[n(0)] u32),
    /// The last so many; they too are returned in path order.
    #[n(1)]
    Last(#[n(0)] u32),
}

/// A bound on results below deep branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DeepBranches {
    /// Parts of the paths of the branches' roots.
    #[n(0)]
    pub depth: u32,
    /// Results for each branch.
    #[n(1)]
    pub limit: u32,
}

/// The answer to a read.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ReadReply {
    /// The state that was read had applied everything up to this index.
    #[n(0)]
    pub index: Index,
    /// Milliseconds since the node was last sure to be current; 0 for `linearizable`.
    #[cbor(n(1), default)]
    pub age_ms: u64,
    /// The node had no quorum when it answered.
    #[cbor(n(2), default)]
    pub stale: bool,
    /// What was read.
    #[n(3)]
    pub answer: Answer,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// Rows of a fetch, in path order.
    #[n(0)]
    #[cbor(map)]
    Rows {
        /// At most [`INLINE_ROWS_MAX`].
        #[cbor(n(0), default, decode_with = "cbor::list::<_, _, INLINE_ROWS_MAX>")]
        rows: Vec<Row>,
        /// The result was cut by a limit; ask again after the last row's path.
        #[n(1)]
        more: bool,
    },
    /// Rows of a fetch follow on this bulk stream.
    #[n(1)]
    #[cbor(map)]
    Bulk {
        /// Which.
        #[n(0)]
        bulk: u64,
    },
    /// The node lives.
    #[n(2)]
    Pong,
    /// The caller's session.
    #[n(3)]
    Session(#[n(0)] SessionInfo),
    /// The cluster's state as JSON text, fields as `quorate cluster status --json` prints them.
    #[n(4)]
    #[cbor(map)]
    ClusterStatus {
        /// UTF-8.
        #[cbor(n(0), with = "blob")]
        json: Bytes,
    },
    /// The read was refused.
    #[n(5)]
    #[cbor(map)]
    Refused {
        /// An [`ErrorCode`](super::ErrorCode)'s number.
        #[n(0)]
        code: u16,
        /// For people.
        #[cbor(n(1), default)]
        text: String,
        /// Try again after so many milliseconds, if that may help.
        #[n(2)]
        retry_ms: Option<u32>,
    },
}

/// One topic of a fetch.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Row {
    /// Where it stands.
    #[n(0)]
    pub path: String,
    /// Its identifier.
    #[n(1)]
    pub topic: TopicId,
    /// Its type, and its properties if they were asked for.
    #[n(2)]
    pub specification: WireSpecification,
    /// Its value if it has one and values were asked for.
    #[cbor(n(3), with = "blob_option", has_nil)]
    pub value: Option<Bytes>,
    /// The command that set the value.
    #[n(4)]
    pub version: Option<Index>,
    /// Bytes of the value if it has one and sizes were asked for.
    #[n(5)]
    pub size: Option<u64>,
}

/// A session as its node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SessionInfo {
    /// Its identifier.
    #[n(0)]
    pub session: SessionId,
    /// Its epoch.
    #[n(1)]
    pub epoch: u32,
    /// Empty is anonymous.
    #[cbor(n(2), default)]
    pub principal: String,
    /// Its roles, sorted.
    #[cbor(n(3), default, decode_with = "cbor::list::<_, _, ROLES_MAX>")]
    pub roles: Vec<String>,
    /// Fixed and user properties.
    #[cbor(
        n(4),
        default,
        decode_with = "cbor::texts::<_, { 2 * crate::domain::limits::PROPERTIES_MAX }>"
    )]
    pub properties: std::collections::BTreeMap<String, String>,
    /// The node that serves it.
    #[n(5)]
    pub node: String,
}
