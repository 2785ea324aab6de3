//! Learn the identifier of an existing topic.

use super::Decision;
use crate::domain::outcome::{Outcome, Rejection};
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::tree::TopicTree;

pub(in crate::domain) fn apply(topics: &TopicTree, path: &TopicPath) -> Decision {
    let topic = topics.at(path).ok_or(Rejection::NoSuchTopic)?;
    Ok(Outcome::Topic { id: topic.info().id, created: false })
}

#[cfg(test)]
mod tests {
    use crate::domain::apply::stage::{ONE, Stage, path, plain};
    use crate::domain::command::Command;
    use crate::domain::outcome::{Outcome, Rejection};
    use crate::domain::topic::specification::TopicType;

    #[test]
    fn it_answers_with_the_identifier() {
        let mut stage = Stage::new();
        let id = stage.add("a", plain(TopicType::Int64));
        let opened = stage.send(ONE, Command::OpenTopic { path: path("a") });
        assert_eq!(opened, (Outcome::Topic { id, created: false }, vec![]));
        let (outcome, _) = stage.send(ONE, Command::OpenTopic { path: path("a/b") });
        assert_eq!(outcome, Outcome::Rejected(Rejection::NoSuchTopic));
    }
}
