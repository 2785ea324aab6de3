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

#[cfg(test)]
mod tests {
    use crate::domain::apply::stage::{ONE, Stage, json, path, plain, string};
    use crate::domain::command::Command;
    use crate::domain::effect::Effect;
    use crate::domain::outcome::{Outcome, Rejection};
    use crate::domain::topic::specification::TopicType;

    #[test]
    fn it_sets_and_teaches_the_identifier() {
        let mut stage = Stage::new();
        let id = stage.add("a/b", plain(TopicType::String));
        let command = Command::SetByPath { path: path("a/b"), value: string("x") };
        let (outcome, effects) = stage.send(ONE, command.clone());
        assert_eq!(outcome, Outcome::Topic { id, created: false });
        assert!(matches!(effects[..], [Effect::Value { .. }]));
        assert_eq!(stage.send(ONE, command), (Outcome::Unchanged, vec![]));
    }

    #[test]
    fn refusals() {
        let mut stage = Stage::new();
        stage.add("a", plain(TopicType::String));
        for (at, value, reason) in [
            ("b", string("x"), Rejection::NoSuchTopic),
            ("a", json("1"), Rejection::IncompatibleValue),
        ] {
            let (outcome, _) = stage.send(ONE, Command::SetByPath { path: path(at), value });
            assert_eq!(outcome, Outcome::Rejected(reason));
        }
    }
}
