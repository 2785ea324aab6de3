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

#[cfg(test)]
mod tests {
    use crate::domain::apply::stage::{ONE, Stage, TWO, json, null, path, plain, set, string};
    use crate::domain::command::{Command, TypedValue};
    use crate::domain::constraint::Constraint;
    use crate::domain::effect::Effect;
    use crate::domain::outcome::{Outcome, Rejection};
    use crate::domain::topic::specification::{Specification, TopicType};

    fn command(
        at: &str,
        specification: Option<Specification>,
        constraint: &str,
        value: TypedValue,
    ) -> Command {
        let constraint = Constraint::parse(constraint).unwrap();
        Command::SetTopic { path: path(at), specification, constraint, value }
    }

    fn add_and_set(at: &str, constraint: &str, value: TypedValue) -> Command {
        command(at, Some(plain(TopicType::String)), constraint, value)
    }

    #[test]
    fn it_adds_then_sets_in_one_command() {
        let mut stage = Stage::new();
        let (outcome, effects) = stage.send(ONE, add_and_set("a", UNCONSTRAINED, string("x")));
        let Outcome::Topic { id, created: true } = outcome else { panic!("{outcome:?}") };
        assert!(matches!(effects[..], [Effect::TopicAdded(_), Effect::Value { .. }]));
        assert_eq!(stage.text(id).as_deref(), Some("x"));
        let (outcome, effects) = stage.send(ONE, add_and_set("a", UNCONSTRAINED, string("y")));
        assert_eq!(outcome, Outcome::Topic { id, created: false });
        assert!(matches!(effects[..], [Effect::Value { .. }]));
        let again = stage.send(ONE, add_and_set("a", UNCONSTRAINED, string("y")));
        assert_eq!(again, (Outcome::Unchanged, vec![]));
    }

    #[test]
    fn a_topic_may_be_added_with_null() {
        let mut stage = Stage::new();
        let command = add_and_set("a", UNCONSTRAINED, null(TopicType::String));
        let (outcome, effects) = stage.send(ONE, command);
        assert!(matches!(outcome, Outcome::Topic { created: true, .. }));
        assert!(matches!(effects[..], [Effect::TopicAdded(_)]));
    }

    #[test]
    fn without_a_specification_the_topic_must_be_there() {
        let mut stage = Stage::new();
        let (outcome, _) = stage.send(ONE, set("a", string("x")));
        assert_eq!(outcome, Outcome::Rejected(Rejection::NoSuchTopic));
        stage.add("a", plain(TopicType::String));
        let (outcome, _) = stage.send(ONE, set("a", string("x")));
        assert!(matches!(outcome, Outcome::Topic { created: false, .. }));
    }

    #[test]
    fn of_two_that_want_no_topic_one_creates() {
        let mut stage = Stage::new();
        let (first, _) = stage.send(ONE, add_and_set("a", "noTopic", string("1")));
        assert!(matches!(first, Outcome::Topic { created: true, .. }));
        let (second, _) = stage.send(TWO, add_and_set("a", "noTopic", string("2")));
        assert_eq!(second, Outcome::Rejected(Rejection::UnsatisfiedConstraint));
    }

    #[test]
    fn refusals_change_nothing() {
        let mut stage = Stage::new();
        let id = stage.add("a", plain(TopicType::String));
        stage.send(ONE, set("a", string("x")));
        let json_specification = Some(plain(TopicType::Json));
        for (command, reason) in [
            (command("b", None, "noTopic", string("y")), Rejection::NoSuchTopic),
            (
                command("a", json_specification.clone(), "noTopic", json("1")),
                Rejection::UnsatisfiedConstraint,
            ),
            (
                command("a", json_specification.clone(), UNCONSTRAINED, json("1")),
                Rejection::ExistsMismatch,
            ),
            (command("a", None, UNCONSTRAINED, json("1")), Rejection::IncompatibleValue),
            (command("a", None, "noValue", string("y")), Rejection::UnsatisfiedConstraint),
            (
                command("b", json_specification, UNCONSTRAINED, string("1")),
                Rejection::IncompatibleValue,
            ),
            (add_and_set("b", "noValue", string("y")), Rejection::UnsatisfiedConstraint),
        ] {
            let (outcome, _) = stage.send(ONE, command);
            assert_eq!(outcome, Outcome::Rejected(reason));
            assert_eq!(stage.paths(), ["a"]);
            assert_eq!(stage.text(id).as_deref(), Some("x"));
        }
    }

    const UNCONSTRAINED: &str = "unconstrained";
}
