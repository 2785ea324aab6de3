//! Update streams: optimistic exclusive writers of one topic.

use super::Client;
use super::error::RequestError;
use super::pending::Pending;
use super::value::Value;
use crate::domain::id::{StreamId, TopicId};
use crate::protocol::record::Target;

/// The exclusive writer of a topic. It ends when another stream is opened for the topic, the topic
/// is set otherwise or removed; from then on every update through it is refused with 307.
#[derive(Debug)]
pub struct UpdateStream {
    client: Client,
    target: Target,
    created: bool,
}

impl UpdateStream {
    pub(super) fn new(client: Client, topic: TopicId, stream: StreamId, created: bool) -> Self {
        Self { client, target: Target::Stream(topic, stream), created }
    }

    /// Opening the stream added the topic.
    #[must_use]
    pub fn created(&self) -> bool {
        self.created
    }

    /// What its updates name.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Sends an update through the stream; waits only for a place in the window. Updates are applied
    /// in the order of these calls.
    ///
    /// # Errors
    /// As [`Client::update`]; the pending answer is refused with 307 once the stream has ended.
    pub async fn set(&self, value: Value<'_>) -> Result<Pending, RequestError> {
        self.client.update(&self.target, value).await
    }
}
