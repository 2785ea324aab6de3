//! Open an update stream: from here on the newest writer of its topic, until another one writes.

use super::publish::publish;
use super::set_topic::{Target, check, find_or_add};
use super::{Context, Decision, Effects};
use crate::domain::command::TypedValue;
use crate::domain::id::StreamId;
use crate::domain::outcome::Outcome;
use crate::domain::topic::record::StreamHold;
use crate::domain::topic::tree::TopicTree;

pub(in crate::domain) fn apply(
    topics: &mut TopicTree,
    context: &Context,
    effects: &mut Effects<'_>,
    target: Target,
    value: Option<&TypedValue>,
) -> Decision {
    check(topics, &target, value)?;
    let (topic, created) = find_or_add(topics, context, effects, target)?;
    let id = StreamId(context.index.0);
    let hold = StreamHold { id, session: context.origin.session, epoch: context.origin.epoch };
    topics.set_stream(topic, Some(hold));
    if let Some(value) = value {
        publish(topics, context, effects, topic, value, true);
    }
    Ok(Outcome::Stream { id, topic, created })
}
