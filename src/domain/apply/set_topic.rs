//! Set under a constraint, adding the topic first where a specification is given.

use super::publish::{check_constraint, check_value, publish};
use super::{Context, Decision, Effects};
use crate::domain::command::TypedValue;
use crate::domain::constraint::Constraint;
use crate::domain::effect::Effect;
use crate::domain::id::TopicId;
use crate::domain::outcome::{Outcome, Rejection};
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::specification::Specification;
use crate::domain::topic::tree::TopicTree;

/// Which topic, and how it may have to be made.
#[derive(Debug)]
pub(in crate::domain) struct Target {
    /// Where it stands.
    pub(in crate::domain) path: TopicPath,
    /// Add it like this when it is missing.
    pub(in crate::domain) specification: Option<Specification>,
    /// Must hold now.
    pub(in crate::domain) constraint: Constraint,
}

pub(in crate::domain) fn apply(
    topics: &mut TopicTree,
    context: &Context,
    effects: &mut Effects<'_>,
    target: Target,
    value: &TypedValue,
) -> Decision {
    check(topics, &target, Some(value))?;
    let (id, created) = find_or_add(topics, context, effects, target)?;
    let published = publish(topics, context, effects, id, value, false);
    // A topic that was added just now has changed, also when its first value is null.
    let unchanged = !published && !created;
    Ok(if unchanged { Outcome::Unchanged } else { Outcome::Topic { id, created } })
}

/// Everything that can refuse it, in this order: a missing topic that is not to be added, the
/// constraint, another specification, the value.
pub(super) fn check(
    topics: &TopicTree,
    target: &Target,
    value: Option<&TypedValue>,
) -> Result<(), Rejection> {
    let topic = topics.at(&target.path);
    let existing = topic.map(|topic| topic.info().specification.as_ref());
    let wanted = target.specification.as_ref();
    let specification = existing.or(wanted).ok_or(Rejection::NoSuchTopic)?;
    check_constraint(&target.constraint, topic)?;
    if wanted.is_some_and(|wanted| wanted != specification) {
        return Err(Rejection::ExistsMismatch);
    }
    value.map_or(Ok(()), |value| check_value(specification, value))
}

/// The topic, and whether it was added now.
pub(super) fn find_or_add(
    topics: &mut TopicTree,
    context: &Context,
    effects: &mut Effects<'_>,
    target: Target,
) -> Result<(TopicId, bool), Rejection> {
    if let Some(topic) = topics.at(&target.path) {
        return Ok((topic.info().id, false));
    }
    let specification = target.specification.ok_or(Rejection::NoSuchTopic)?;
    let info = topics.add(target.path, specification, context.index);
    let id = info.id;
    effects.push(Effect::TopicAdded(info));
    Ok((id, true))
}
