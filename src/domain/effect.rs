//! What the others may need to hear: the events of the journal.

use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;

use super::id::{Index, NodeId, Position, SessionId, TopicId};
use super::selector::Selections;
use super::topic::path::TopicPath;
use super::topic::specification::Specification;

/// What never changes while a topic lives; shared by the machine, its events and its readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Cluster-wide, from addition to removal.
    pub id: TopicId,
    /// Where it stands in the tree.
    pub path: TopicPath,
    /// Its type and properties; shared by all topics that have the same.
    pub specification: Arc<Specification>,
    /// The command that added it.
    pub added: Index,
}

/// One event of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where it stands; strictly rising over the journal.
    pub position: Position,
    /// It is the last event of its command.
    pub last: bool,
    /// What happened.
    pub effect: Effect,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A topic was added.
    TopicAdded(Arc<TopicInfo>),
    /// A topic was removed.
    TopicRemoved(Arc<TopicInfo>),
    /// A topic was given a value that differs from the last one; none is the null value.
    Value {
        /// The topic.
        topic: Arc<TopicInfo>,
        /// Its own allocation, never a slice of an entry: it lives as long as the topic keeps it.
        value: Option<Bytes>,
    },
    /// A session's selections or listeners changed; its host resolves them at this index.
    SelectionsChanged {
        /// Whose.
        session: SessionId,
        /// What it heard of until then: a resume from before the change goes on with that.
        before: Arc<Selected>,
    },
    /// A session was opened, moved, detached or ended.
    Session {
        /// Which.
        session: SessionId,
        /// What happened to it.
        change: SessionChange,
    },
    /// Replicated configuration changed: principals, policies, the founding itself.
    Configuration,
}

/// What a session hears of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selected {
    /// The topics that it is subscribed to.
    pub selections: Arc<Selections>,
    /// Its topic notification listeners, by the numbers that its client chose.
    pub listeners: OrdMap<u32, Arc<Selections>>,
}

/// What happened to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionChange {
    /// Opened on this node.
    Opened {
        /// Its host.
        host: NodeId,
        /// Its first epoch.
        epoch: u32,
    },
    /// Claimed by this node; the former host's commands are void from here on.
    Moved {
        /// Its new host.
        host: NodeId,
        /// Its new epoch.
        epoch: u32,
    },
    /// Its client is gone; it waits until its reconnect timeout runs out.
    Detached,
    /// Ended, for this reason.
    Closed(CloseReason),
}

/// Why a session ended. Numbers are stored and sent, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum CloseReason {
    /// Its client closed it.
    ByClient = 1,
    /// Its reconnect timeout ran out.
    Expired = 2,
    /// Another session or an operator closed it.
    ByController = 3,
    /// Its client broke the protocol.
    ProtocolError = 4,
}

impl CloseReason {
    /// Every reason there is.
    pub const ALL: [Self; 4] =
        [Self::ByClient, Self::Expired, Self::ByController, Self::ProtocolError];

    /// The stable number of this reason.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The reason of a number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}
