//! One topic as the machine holds it.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::effect::TopicInfo;
use crate::domain::id::{Index, SessionId, StreamId};
use crate::domain::machine::hash::{ItemKind, digest, item};
use crate::domain::topic::specification::TopicType;

/// A topic: what never changes while it lives, and what does.
///
/// There may be a million of them, so this is small, and what few topics have stands behind a pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub(super) info: Arc<TopicInfo>,
    value: Option<Bytes>,
    /// Of the value, so that neither a comparison nor the state hash visits the bytes of a value
    /// that is about to go; zero without one.
    value_digest: u64,
    pub(super) version: Index,
    pub(super) stream: Option<Arc<StreamHold>>,
}

/// An open update stream: who may write through it.
///
/// It counts only for the session and epoch that opened it, so a session's move or end makes it void
/// without a visit to its topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHold {
    /// The stream.
    pub id: StreamId,
    /// The session that opened it.
    pub session: SessionId,
    /// The session's epoch then.
    pub epoch: u32,
}

/// A value and its digest; what a topic is given.
#[derive(Debug)]
pub(in crate::domain) struct DigestedValue<'a> {
    bytes: Option<&'a Bytes>,
    digest: u64,
}

impl<'a> DigestedValue<'a> {
    /// Reads the value once.
    pub(in crate::domain) fn of(bytes: Option<&'a Bytes>) -> Self {
        Self { bytes, digest: bytes.map_or(0, |bytes| digest(bytes)) }
    }
}

impl Topic {
    /// A topic with what it has from the start.
    pub(super) fn new(
        info: Arc<TopicInfo>,
        value: Option<Bytes>,
        version: Index,
        stream: Option<Arc<StreamHold>>,
    ) -> Self {
        let value_digest = DigestedValue::of(value.as_ref()).digest;
        Self { info, value, value_digest, version, stream }
    }

    /// Whether the topic's value equals another, byte for byte.
    pub(in crate::domain) fn has_value(&self, other: &DigestedValue<'_>) -> bool {
        self.value_digest == other.digest && self.value.as_ref() == other.bytes
    }

    /// Keeps `value`, whose digest is that of `digested`.
    pub(super) fn keep(&mut self, value: Option<Bytes>, digested: &DigestedValue<'_>) {
        self.value_digest = if value.is_some() { digested.digest } else { 0 };
        self.value = value;
    }

    /// What never changes while the topic lives.
    #[must_use]
    pub fn info(&self) -> &Arc<TopicInfo> {
        &self.info
    }

    /// Its type.
    #[must_use]
    pub fn topic_type(&self) -> TopicType {
        self.info.specification.topic_type()
    }

    /// The last value; none is the null value, no value yet, or a topic that does not retain it.
    #[must_use]
    pub fn value(&self) -> Option<&Bytes> {
        self.value.as_ref()
    }

    /// The command that last published a value; the one that added the topic before the first.
    #[must_use]
    pub fn version(&self) -> Index {
        self.version
    }

    /// The newest update stream, if no other writer has come since.
    #[must_use]
    pub fn stream(&self) -> Option<&StreamHold> {
        self.stream.as_deref()
    }

    /// The items of the state hash.
    pub(super) fn items(&self) -> [u64; 2] {
        [identity_item(&self.info), self.content_item()]
    }

    /// The item of what changes.
    pub(super) fn content_item(&self) -> u64 {
        let stream = self.stream.as_deref();
        let words = [
            self.info.id.0,
            self.version.0,
            u64::from(self.value.is_some()),
            self.value_digest,
            stream.map_or(0, |hold| hold.id.0),
            stream.map_or(0, |hold| hold.session.0),
            stream.map_or(0, |hold| u64::from(hold.epoch)),
        ];
        item(ItemKind::Content, words)
    }
}

/// The item of what never changes.
fn identity_item(info: &TopicInfo) -> u64 {
    let words = [
        info.id.0,
        info.added.0,
        digest(info.path.as_str().as_bytes()),
        digest(&super::tree::canonical(&info.specification)),
    ];
    item(ItemKind::Topic, words)
}
