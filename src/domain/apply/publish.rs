//! What all writers of a value share: the checks, and the publishing.

use bytes::Bytes;

use super::{Context, Effects};
use crate::domain::command::TypedValue;
use crate::domain::constraint::{Constraint, TopicView};
use crate::domain::effect::Effect;
use crate::domain::id::TopicId;
use crate::domain::limits;
use crate::domain::outcome::Rejection;
use crate::domain::topic::record::{DigestedValue, Topic};
use crate::domain::topic::specification::Specification;
use crate::domain::topic::tree::TopicTree;
use crate::domain::topic::value::own;

/// Whether a topic of this specification may be set to this value. The host has checked the bytes
/// against the type that they claim; here the claim is held against the topic.
pub(super) fn check_value(
    specification: &Specification,
    value: &TypedValue,
) -> Result<(), Rejection> {
    if value.bytes.as_ref().is_some_and(|bytes| bytes.len() > limits::VALUE_BYTES_MAX) {
        return Err(Rejection::ValueTooLarge);
    }
    let null_is_legal = value.bytes.is_some() || specification.topic_type().allows_null();
    if value.value_type != specification.topic_type() || !null_is_legal {
        return Err(Rejection::IncompatibleValue);
    }
    Ok(())
}

/// Whether a constraint holds for the topic at a path; none is: there is no topic.
pub(super) fn check_constraint(
    constraint: &Constraint,
    topic: Option<&Topic>,
) -> Result<(), Rejection> {
    let view = topic.map(|topic| TopicView {
        topic_type: topic.info().specification.topic_type(),
        value: topic.value().map(Bytes::as_ref),
    });
    if constraint.holds(view) { Ok(()) } else { Err(Rejection::UnsatisfiedConstraint) }
}

/// Sets a checked value. False: it equals the topic's value, so nothing changes and nobody hears.
///
/// Any published value that did not come through the topic's newest stream ends that stream, also
/// when the stream's own session wrote it.
pub(super) fn publish(
    topics: &mut TopicTree,
    context: &Context,
    effects: &mut Effects<'_>,
    id: TopicId,
    value: &TypedValue,
    through_stream: bool,
) -> bool {
    let Some(topic) = topics.get(id) else { return false };
    let info = topic.info().clone();
    let retained = !info.specification.dont_retain_value();
    let digested = DigestedValue::of(value.bytes.as_ref());
    if retained && topic.has_value(&digested) {
        return false;
    }
    let value = value.bytes.as_deref().map(own);
    let kept = if retained { value.clone() } else { None };
    topics.publish(id, (kept, &digested), context.index, through_stream);
    effects.push(Effect::Value { topic: info, value });
    true
}
