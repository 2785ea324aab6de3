//! Add a topic: created, or there already with an equal specification.

use super::{Context, Decision, Effects};
use crate::domain::effect::Effect;
use crate::domain::outcome::{Outcome, Rejection};
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::specification::Specification;
use crate::domain::topic::tree::TopicTree;

pub(in crate::domain) fn apply(
    topics: &mut TopicTree,
    context: &Context,
    effects: &mut Effects<'_>,
    path: TopicPath,
    specification: Specification,
) -> Decision {
    if let Some(topic) = topics.at(&path) {
        if *topic.info().specification != specification {
            return Err(Rejection::ExistsMismatch);
        }
        return Ok(Outcome::Topic { id: topic.info().id, created: false });
    }
    let info = topics.add(path, specification, context.index);
    let id = info.id;
    effects.push(Effect::TopicAdded(info));
    Ok(Outcome::Topic { id, created: true })
}
