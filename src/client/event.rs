//! Events as a program receives them.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream;
use tokio::sync::mpsc;

use super::error::SessionEnded;
use super::shared::Shared;
use crate::domain::id::{Lineage, Position, TopicId};
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::specification::TopicType;
use crate::protocol::delivery::UnsubscribeReason;
use crate::protocol::handshake::ResetReason;

/// A topic as events name it; shared by all of its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its cluster-wide identifier.
    pub id: TopicId,
    /// Where it stands.
    pub path: TopicPath,
    /// Its type; none is one that this version does not know, whose values are bytes.
    pub topic_type: Option<TopicType>,
    /// Its properties, those at their defaults left out; shared by topics that have the same.
    pub properties: Arc<BTreeMap<String, String>>,
}

/// One event of a subscription or of a topic notification listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The topic is now subscribed. Its value follows if it has one.
    Subscribed {
        /// Where the event stands; of an initial subscription, where the topic's value does, or
        /// without one the state that the subscription is of.
        position: Position,
        /// Which topic.
        topic: Arc<Topic>,
    },
    /// The topic has this value.
    Value {
        /// Where the event stands.
        position: Position,
        /// Which topic.
        topic: Arc<Topic>,
        /// As it was written; none is the null value.
        value: Option<Bytes>,
        /// It is the value that the topic had when it was subscribed.
        initial: bool,
    },
    /// The topic is no longer subscribed.
    Unsubscribed {
        /// Where the event stands.
        position: Position,
        /// Which topic.
        topic: Arc<Topic>,
        /// Why.
        reason: UnsubscribeReason,
    },
    /// A listener's topic was added.
    Added {
        /// Where the event stands.
        position: Position,
        /// Which topic.
        topic: Arc<Topic>,
    },
    /// A listener's topic was removed.
    Removed {
        /// Where the event stands.
        position: Position,
        /// Which topic.
        topic: Arc<Topic>,
    },
    /// A listener's topic was there when the listener was made.
    Selected {
        /// Where the event stands.
        position: Position,
        /// Which topic.
        topic: Arc<Topic>,
    },
    /// A listener no longer selects the topic.
    Deselected {
        /// Where the event stands.
        position: Position,
        /// Which topic.
        topic: Arc<Topic>,
    },
    /// All values that the topics had when they were selected have been delivered.
    Current {
        /// Where the session stands.
        position: Position,
    },
    /// Events are missing before this: nothing said of topics earlier holds, and everything that is
    /// subscribed is introduced again.
    Reset {
        /// Where the events go on.
        position: Position,
        /// Why.
        reason: ResetReason,
        /// The history that positions belong to from here on.
        lineage: Lineage,
    },
    /// The program was too slow; values of conflatable topics were left out in favour of newer ones.
    Lagged {
        /// Where the session stands.
        position: Position,
        /// How many, as far as the node counted.
        skipped: u64,
    },
    /// The session goes on over another connection. Nothing is missing.
    Moved {
        /// The position after which events go on.
        position: Position,
        /// The node that serves the session now.
        node: Arc<str>,
    },
}

impl Event {
    /// Where the event stands.
    #[must_use]
    pub fn position(&self) -> Position {
        match self {
            Self::Subscribed { position, .. }
            | Self::Value { position, .. }
            | Self::Unsubscribed { position, .. }
            | Self::Added { position, .. }
            | Self::Removed { position, .. }
            | Self::Selected { position, .. }
            | Self::Deselected { position, .. }
            | Self::Current { position }
            | Self::Reset { position, .. }
            | Self::Lagged { position, .. }
            | Self::Moved { position, .. } => *position,
        }
    }

    /// Bytes of its value.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Value { value: Some(value), .. } => value.len(),
            _ => 0,
        }
    }

    /// The topic that it is about.
    #[must_use]
    pub fn topic(&self) -> Option<&Arc<Topic>> {
        match self {
            Self::Subscribed { topic, .. }
            | Self::Value { topic, .. }
            | Self::Unsubscribed { topic, .. }
            | Self::Added { topic, .. }
            | Self::Removed { topic, .. }
            | Self::Selected { topic, .. }
            | Self::Deselected { topic, .. } => Some(topic),
            Self::Current { .. }
            | Self::Reset { .. }
            | Self::Lagged { .. }
            | Self::Moved { .. } => None,
        }
    }
}

/// The events of one subscription or listener, in order, without gap and without repetition, across
/// all connections of the session. Ends when the session does.
///
/// A program that does not take its events makes the node wait: some thousand events, or a megabyte
/// or two, on, other streams of the same client wait too, and the session lags. Dropping the stream
/// ends the subscription.
#[derive(Debug)]
pub struct EventStream {
    pub(super) batches: mpsc::Receiver<Vec<Event>>,
    pub(super) batch: std::vec::IntoIter<Event>,
    pub(super) guard: Guard,
}

/// Ends a subscription when its stream is dropped.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) shared: Arc<Shared>,
    pub(super) subscription: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.unsubscribe(self.subscription);
    }
}

impl EventStream {
    /// The next event; none when the session is over. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.batch.next() {
                return Some(event);
            }
            self.batch = self.batches.recv().await?.into_iter();
        }
    }

    /// The next event if it has arrived already.
    pub fn try_next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.batch.next() {
                return Some(event);
            }
            self.batch = self.batches.try_recv().ok()?.into_iter();
        }
    }

    /// Why the session is over, once the stream has ended.
    #[must_use]
    pub fn ended(&self) -> Option<Arc<SessionEnded>> {
        self.guard.shared.ended()
    }
}

impl Stream for EventStream {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            if let Some(event) = self.batch.next() {
                return Poll::Ready(Some(event));
            }
            match ready!(self.batches.poll_recv(context)) {
                Some(batch) => self.batch = batch.into_iter(),
                None => return Poll::Ready(None),
            }
        }
    }
}
