//! Everything that can be proposed.
//!
//! ```text
//! command = kind u8 · …
//! kind 1 (update)          flags u8 · topic id u64 · value
//! kind 2 (stream update)   flags u8 · topic id u64 · stream id u64 · value
//! kind 3 (set by path)     flags u8 · path length u16 · path · value
//! kind 4 (refused)         0 · code u16
//! kind 128 (archive)       0 · command kind u16 · version u16 · rkyv archive
//! flags = value type (bits 0–2, as TopicType; 0 is illegal) · null (bit 3) · rest zero
//! ```
//!
//! The value type is what the client claims and its host has checked the bytes against; apply only
//! compares it with the topic's. A released archive never changes: new fields are a new version.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::constraint::Constraint;
use super::effect::CloseReason;
use super::id::{ClusterId, Lineage, NodeId, SessionId, StreamId, TopicId};
use super::topic::path::TopicPath;
use super::topic::specification::{Specification, TopicType};

/// A value as it travels: of a claimed type that its bytes were checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypedValue {
    /// What the bytes are.
    pub value_type: TopicType,
    /// The bytes; none is the null value of `string`, `int64` and `double`.
    pub bytes: Option<Bytes>,
}

/// Everything that can be proposed.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Set a topic by its identifier: the update record.
    Update {
        /// Which topic.
        topic: TopicId,
        /// Through this update stream; refused when it has been superseded.
        stream: Option<StreamId>,
        /// What to set.
        value: TypedValue,
    },
    /// Set an existing topic by its path.
    SetByPath {
        /// Which topic.
        path: TopicPath,
        /// What to set.
        value: TypedValue,
    },
    /// The host refused this request number for good; it only uses the number.
    Refused {
        /// The wire code of the reason.
        code: u16,
    },
    /// Add a topic: created, or there already with an equal specification.
    AddTopic {
        /// Where.
        path: TopicPath,
        /// What kind.
        specification: Specification,
    },
    /// Learn the identifier of an existing topic.
    OpenTopic {
        /// Which.
        path: TopicPath,
    },
    /// Set under a constraint, adding the topic first where a specification is given.
    SetTopic {
        /// Which topic.
        path: TopicPath,
        /// Add it like this when it is missing.
        specification: Option<Specification>,
        /// Must hold at the moment of the update.
        constraint: Constraint,
        /// What to set.
        value: TypedValue,
    },
    /// Open an update stream, optionally adding the topic, under a constraint, with a first value.
    OpenStream {
        /// Which topic.
        path: TopicPath,
        /// Add it like this when it is missing.
        specification: Option<Specification>,
        /// Must hold at the moment of opening.
        constraint: Constraint,
        /// First value, if any.
        value: Option<TypedValue>,
    },
    /// Remove one page of the topics that a selector matches.
    RemoveTopics {
        /// Text of the selector, checked where it entered.
        selector: String,
        /// Start here; none is the beginning.
        from: Option<TopicPath>,
    },
    /// Open a session. Proposed by its host under [`SessionId::CLUSTER`]; idempotent by content.
    OpenSession(OpenSession),
    /// Claim a session for another host, or for a new connection to the same host.
    MoveSession {
        /// Which.
        session: SessionId,
        /// Hash of the secret that the client showed.
        secret_hash: [u8; 32],
        /// Hash of the secret that it will show next time.
        next_secret_hash: [u8; 32],
        /// The claiming node.
        host: NodeId,
        /// Its incarnation.
        incarnation: u64,
    },
    /// The session's client is gone.
    DetachSession {
        /// Which.
        session: SessionId,
        /// Only this epoch: a late word about an older one changes nothing.
        epoch: u32,
    },
    /// End a session.
    CloseSession {
        /// Which.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// End detached sessions whose reconnect timeout has run out in log time; the machine checks
    /// each again. At most [`PAGE_ITEMS_MAX`](super::limits::PAGE_ITEMS_MAX).
    ExpireSessions {
        /// Candidates.
        sessions: Vec<SessionId>,
    },
    /// A node has started: sessions of its earlier incarnations are detached.
    NodeStarted {
        /// Which.
        node: NodeId,
        /// Rises with each start of the node.
        incarnation: u64,
    },
    /// The leader has not heard a node for `node_lost_timeout`: its sessions are detached.
    NodeLost {
        /// Which.
        node: NodeId,
        /// Only this incarnation.
        incarnation: u64,
    },
    /// Add a select or deselect entry to a scope of the caller's session.
    Select {
        /// Empty is the default scope.
        scope: String,
        /// Text of the selector, checked where it entered.
        selector: String,
        /// False: deselect.
        select: bool,
    },
    /// Add a select or deselect entry to one of the caller's topic notification listeners; the
    /// first one registers the listener.
    Listen {
        /// Chosen by the client, unique in its session.
        listener: u32,
        /// Text of the selector.
        selector: String,
        /// False: deselect.
        select: bool,
    },
    /// Remove a topic notification listener.
    Unlisten {
        /// Which.
        listener: u32,
    },
    /// Found the cluster: the first command of its log.
    Found {
        /// The cluster.
        cluster: ClusterId,
        /// Its first lineage.
        lineage: Lineage,
        /// Names of the founders.
        names: BTreeMap<NodeId, String>,
        /// The administrator's password, as an argon2id PHC string.
        admin_password: String,
        /// Clients may connect without credentials.
        anonymous: bool,
    },
    /// Set the password of a principal.
    SetPassword {
        /// Whose.
        principal: String,
        /// As an argon2id PHC string; none removes the principal.
        password: Option<String>,
    },
    /// Let clients connect without credentials, or not.
    SetAnonymous {
        /// Whether they may.
        allowed: bool,
    },
}

/// What a session is opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSession {
    /// Drawn by the host; 63 random bits, never zero.
    pub session: SessionId,
    /// Hash of the secret that resumes it.
    pub secret_hash: [u8; 32],
    /// Empty is anonymous.
    pub principal: String,
    /// Sorted, without doubles.
    pub roles: Vec<String>,
    /// Fixed (`$…`) and user properties.
    pub properties: BTreeMap<String, String>,
    /// How long it outlives its connection, in log time.
    pub reconnect_timeout_ms: u64,
    /// The node that serves it.
    pub host: NodeId,
    /// Of that node.
    pub incarnation: u64,
}
