//! Set an existing topic by its path.

use super::publish::{check_value, publish};
use super::{Context, Decision, Effects};
use crate::domain::command::TypedValue;
use crate::domain::outcome::{Outcome, Rejection};
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::tree::TopicTree;

pub(in crate::domain) fn apply(
    topics: &mut TopicTree,
    context: &Context,
    effects: &mut Effects<'_>,
    path: &TopicPath,
    value: &TypedValue,
) -> Decision {
    let topic = topics.at(path).ok_or(Rejection::NoSuchTopic)?;
    let id = topic.info().id;
    check_value(&topic.info().specification, value)?;
    let published = publish(topics, context, effects, id, value, false);
    Ok(if published { Outcome::Topic { id, created: false } } else { Outcome::Unchanged })
}
