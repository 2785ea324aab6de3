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

#[cfg(test)]
mod tests {
    use crate::domain::apply::stage::{ONE, Stage, json, path, plain, string};
    use crate::domain::command::{Command, TypedValue};
    use crate::domain::constraint::Constraint;
    use crate::domain::effect::Effect;
    use crate::domain::outcome::{Outcome, Rejection};
    use crate::domain::topic::specification::{Specification, TopicType};

    fn open(specification: Option<Specification>, value: Option<TypedValue>) -> Command {
        let constraint = Constraint::unconstrained();
        Command::OpenStream { path: path("a"), specification, constraint, value }
    }

    #[test]
    fn it_adds_the_topic_and_sets_a_first_value() {
        let mut stage = Stage::new();
        let command = open(Some(plain(TopicType::String)), Some(string("x")));
        let (outcome, effects) = stage.send(ONE, command.clone());
        let Outcome::Stream { id, topic, created: true } = outcome else { panic!("{outcome:?}") };
        assert!(matches!(effects[..], [Effect::TopicAdded(_), Effect::Value { .. }]));
        let hold = *stage.machine.topic(topic).unwrap().stream().unwrap();
        assert_eq!((hold.id, hold.session, hold.epoch), (id, ONE, 1));
        let (outcome, effects) = stage.send(ONE, command);
        let Outcome::Stream { id: newer, created: false, .. } = outcome else { panic!() };
        assert!(newer > id && effects.is_empty(), "an equal value is not published");
    }

    #[test]
    fn refusals_open_nothing() {
        let mut stage = Stage::new();
        let (outcome, _) = stage.send(ONE, open(None, None));
        assert_eq!(outcome, Outcome::Rejected(Rejection::NoSuchTopic));
        let topic = stage.add("a", plain(TopicType::String));
        for (command, reason) in [
            (open(Some(plain(TopicType::Json)), None), Rejection::ExistsMismatch),
            (open(None, Some(json("1"))), Rejection::IncompatibleValue),
        ] {
            let (outcome, _) = stage.send(ONE, command);
            assert_eq!(outcome, Outcome::Rejected(reason));
            assert_eq!(stage.machine.topic(topic).unwrap().stream(), None);
        }
    }
}
