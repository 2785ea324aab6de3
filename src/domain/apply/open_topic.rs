//! Learn the identifier of an existing topic.

use super::Decision;
use crate::domain::outcome::{Outcome, Rejection};
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::tree::TopicTree;

pub(in crate::domain) fn apply(topics: &TopicTree, path: &TopicPath) -> Decision {
    let topic = topics.at(path).ok_or(Rejection::NoSuchTopic)?;
    Ok(Outcome::Topic { id: topic.info().id, created: false })
}
