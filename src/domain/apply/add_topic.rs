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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::domain::apply::stage::{ONE, Stage, TWO, path, plain, with};
    use crate::domain::command::Command;
    use crate::domain::effect::Effect;
    use crate::domain::outcome::{Outcome, Rejection};
    use crate::domain::topic::specification::{Specification, TopicType};

    fn add(at: &str, specification: Specification) -> Command {
        Command::AddTopic { path: path(at), specification }
    }

    #[test]
    fn created_then_there_already() {
        let mut stage = Stage::new();
        let specification = with(TopicType::Json, &[("CONFLATION", "off")]);
        let (outcome, effects) = stage.send(ONE, add("a/b", specification.clone()));
        let Outcome::Topic { id, created: true } = outcome else { panic!("{outcome:?}") };
        let info = stage.machine.topic(id).unwrap().info().clone();
        assert_eq!((info.path.as_str(), info.added.entry()), ("a/b", stage.entry));
        assert_eq!(effects, [Effect::TopicAdded(info)]);
        let again = stage.send(TWO, add("a/b", specification));
        assert_eq!(again, (Outcome::Topic { id, created: false }, vec![]));
    }

    #[test]
    fn another_specification_is_a_mismatch() {
        let mut stage = Stage::new();
        stage.add("a", plain(TopicType::Json));
        for specification in
            [plain(TopicType::String), with(TopicType::Json, &[("PRIORITY", "high")])]
        {
            let (outcome, _) = stage.send(ONE, add("a", specification));
            assert_eq!(outcome, Outcome::Rejected(Rejection::ExistsMismatch));
        }
    }

    #[test]
    fn identifiers_are_never_used_again() {
        let mut stage = Stage::new();
        let first = stage.add("a", plain(TopicType::Json));
        stage.send(ONE, Command::RemoveTopics { selector: ">a".to_owned(), from: None });
        assert!(stage.add("a", plain(TopicType::Json)) > first);
    }

    #[test]
    fn equal_specifications_are_one() {
        let mut stage = Stage::new();
        let ids = ["a", "b"].map(|at| stage.add(at, with(TopicType::Json, &[("PRIORITY", "low")])));
        let [a, b] = ids.map(|id| stage.machine.topic(id).unwrap().info().specification.clone());
        assert!(Arc::ptr_eq(&a, &b));
    }
}
