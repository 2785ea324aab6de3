//! The journal's events as frames of the event stream: the one place where they are encoded.

use bytes::BytesMut;

use crate::domain::effect::{Effect, Event, TopicInfo};
use crate::domain::id::{Position, TopicId};
use crate::domain::topic::specification::Specification;
use crate::gateway::delivery::interest::Interest;
use crate::protocol::delivery::{self, EventMessage, NotifiedChange, UnsubscribeReason};
use crate::protocol::topic::WireSpecification;

/// The topic that an event is about, if it is about one.
#[must_use]
pub fn topic_of(event: &Event) -> Option<&TopicInfo> {
    match &event.effect {
        Effect::TopicAdded(topic) | Effect::TopicRemoved(topic) | Effect::Value { topic, .. } => {
            Some(topic)
        }
        Effect::SelectionsChanged { .. } | Effect::Session { .. } | Effect::Configuration => None,
    }
}

/// Appends the frame that tells a subscriber of the topic what happened to it.
pub fn put_event(buffer: &mut BytesMut, event: &Event) {
    match &event.effect {
        Effect::Value { topic, value } => {
            delivery::put_value(buffer, event.position, event.last, topic.id, value.as_deref());
        }
        Effect::TopicAdded(topic) => put_subscribed(buffer, event.position, event.last, topic),
        Effect::TopicRemoved(topic) => {
            let reason = UnsubscribeReason::Removed;
            put_unsubscribed(buffer, event.position, event.last, topic.id, reason);
        }
        Effect::SelectionsChanged { .. } | Effect::Session { .. } | Effect::Configuration => {}
    }
}

/// Appends the notifications that the listeners of `interest` get of an event, by rising number.
/// They come before the frame of a subscription, so none of them is the last of its command.
pub fn put_notifications(buffer: &mut BytesMut, event: &Event, interest: &Interest) {
    let (topic, change) = match &event.effect {
        Effect::TopicAdded(topic) => (topic, NotifiedChange::Added),
        Effect::TopicRemoved(topic) => (topic, NotifiedChange::Removed),
        _ => return,
    };
    for listener in interest.listeners() {
        if listener.selections.matches(&topic.path) {
            put_notified(buffer, event.position, false, listener.id, change, topic);
        }
    }
}

/// Appends a subscription.
pub fn put_subscribed(buffer: &mut BytesMut, position: Position, last: bool, topic: &TopicInfo) {
    let event = delivery::Event::Subscribed {
        topic: topic.id,
        specification: wire_specification(&topic.specification),
        path: topic.path.clone(),
    };
    EventMessage::Event { position, last, event }.put(buffer);
}

/// Appends the end of a subscription.
pub fn put_unsubscribed(
    buffer: &mut BytesMut,
    position: Position,
    last: bool,
    topic: TopicId,
    reason: UnsubscribeReason,
) {
    let event = delivery::Event::Unsubscribed { topic, reason };
    EventMessage::Event { position, last, event }.put(buffer);
}

/// Appends a topic notification.
pub fn put_notified(
    buffer: &mut BytesMut,
    position: Position,
    last: bool,
    listener: u32,
    change: NotifiedChange,
    topic: &TopicInfo,
) {
    let event = delivery::Event::Notified {
        listener,
        change,
        topic: topic.id,
        specification: wire_specification(&topic.specification),
        path: topic.path.clone(),
    };
    EventMessage::Event { position, last, event }.put(buffer);
}

/// Appends an event that is about the stream and not about a topic.
pub fn put_notice(buffer: &mut BytesMut, position: Position, event: delivery::Event) {
    EventMessage::Event { position, last: false, event }.put(buffer);
}

/// A specification as it travels.
#[must_use]
pub fn wire_specification(specification: &Specification) -> WireSpecification {
    WireSpecification {
        topic_type: specification.topic_type().code(),
        properties: specification.properties(),
    }
}
