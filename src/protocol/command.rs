//! Numbered commands other than update records.
//!
//! They travel as `request u64 · CBOR`, so that a node can refuse a command that it cannot read
//! under its number. Texts are not checked here.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::DecodeError;
use super::codec::cbor;
use super::topic::{ConstraintNode, WireSpecification, WireValue};
use crate::domain::limits;

/// What a client asks to be changed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ClientCommand {
    /// Add a topic. Answered with its identifier.
    #[n(0)]
    #[cbor(map)]
    AddTopic {
        /// Where.
        #[n(0)]
        path: String,
        /// What kind.
        #[n(1)]
        specification: WireSpecification,
    },
    /// Learn the identifier of an existing topic.
    #[n(1)]
    #[cbor(map)]
    OpenTopic {
        /// Which.
        #[n(0)]
        path: String,
    },
    /// Set a topic under a constraint, adding it first where a specification is given. Answered
    /// with its identifier.
    #[n(2)]
    #[cbor(map)]
    SetTopic {
        /// Which.
        #[n(0)]
        path: String,
        /// Add it like this when it is missing.
        #[n(1)]
        specification: Option<WireSpecification>,
        /// In prefix order; empty always holds.
        #[cbor(
            n(2),
            default,
            decode_with = "cbor::list::<_, _, { limits::CONSTRAINT_NODES_MAX }>"
        )]
        constraint: Vec<ConstraintNode>,
        /// What to set.
        #[n(3)]
        value: WireValue,
    },
    /// Open an update stream. Answered with its identifier and the topic's.
    #[n(3)]
    #[cbor(map)]
    OpenStream {
        /// Of which topic.
        #[n(0)]
        path: String,
        /// Add the topic like this when it is missing.
        #[n(1)]
        specification: Option<WireSpecification>,
        /// In prefix order; empty always holds.
        #[cbor(
            n(2),
            default,
            decode_with = "cbor::list::<_, _, { limits::CONSTRAINT_NODES_MAX }>"
        )]
        constraint: Vec<ConstraintNode>,
        /// First value, if any.
        #[n(3)]
        value: Option<WireValue>,
    },
    /// Remove one page of the topics that a selector matches. Answered with the count and where the
    /// next page starts.
    #[n(4)]
    #[cbor(map)]
    RemoveTopics {
        /// Which.
        #[n(0)]
        selector: String,
        /// Start of this page; none is the beginning.
        #[n(1)]
        from: Option<String>,
    },
    /// Add a select or deselect entry to a scope. A select is followed by an `initial` event.
    #[n(5)]
    #[cbor(map)]
    Select {
        /// Empty is the default scope.
        #[cbor(n(0), default)]
        scope: String,
        /// Which topics.
        #[n(1)]
        selector: String,
        /// False: deselect.
        #[n(2)]
        select: bool,
    },
    /// Add a select or deselect entry to a topic notification listener; the first one registers it.
    #[n(6)]
    #[cbor(map)]
    Listen {
        /// Chosen by the client, unique in its session.
        #[n(0)]
        listener: u32,
        /// Which topics.
        #[n(1)]
        selector: String,
        /// False: deselect.
        #[n(2)]
        select: bool,
    },
    /// Remove a topic notification listener.
    #[n(7)]
    #[cbor(map)]
    Unlisten {
        /// Which.
        #[n(0)]
        listener: u32,
    },
}

impl ClientCommand {
    /// Reads the body of a command frame behind its request number.
    ///
    /// # Errors
    /// [`DecodeError`]; the node answers [`Undecodable`](super::ErrorCode::Undecodable) under the
    /// request number and the session goes on.
    pub fn decode(body: &Bytes) -> Result<Self, DecodeError> {
        cbor::take(body)
    }
}
