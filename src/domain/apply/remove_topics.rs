//! Remove one page of the topics that a selector matches, in path order.

use std::ops::Bound;

use super::{Decision, Effects};
use crate::domain::effect::Effect;
use crate::domain::limits::{PAGE_ITEMS_MAX, PAGE_VISITS_MAX};
use crate::domain::outcome::{Outcome, Rejection};
use crate::domain::selector::Selector;
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::path_range::PathRange;
use crate::domain::topic::tree::TopicTree;

pub(in crate::domain) fn apply(
    topics: &mut TopicTree,
    effects: &mut Effects<'_>,
    selector: &str,
    from: Option<&TopicPath>,
) -> Decision {
    let selector = Selector::parse(selector).map_err(|_| Rejection::InvalidSelector)?;
    let start = from.cloned().map_or(Bound::Unbounded, Bound::Included);
    let rest = PathRange::new(start, Bound::Unbounded);
    let mut matching = Vec::new();
    let mut next = None;
    let mut visits = 0;
    // A set's members lie apart: what stands between them is not visited.
    'page: for range in selector.ranges() {
        for topic in topics.range(range.intersection(&rest)) {
            let info = topic.info();
            if visits == PAGE_VISITS_MAX || matching.len() == PAGE_ITEMS_MAX {
                next = Some(info.path.clone());
                break 'page;
            }
            visits += 1;
            if selector.matches(&info.path) {
                matching.push(info.id);
            }
        }
    }
    let count = matching.len() as u32;
    for id in matching {
        if let Some(info) = topics.remove(id) {
            effects.push(Effect::TopicRemoved(info));
        }
    }
    Ok(Outcome::Removed { count, next })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::apply::stage::{ONE, Stage, path, plain};
    use crate::domain::command::Command;
    use crate::domain::topic::specification::TopicType;

    fn stage(paths: &[&str]) -> Stage {
        let mut stage = Stage::new();
        for at in paths {
            stage.add(at, plain(TopicType::Json));
        }
        stage
    }

    fn remove(selector: &str, from: Option<&str>) -> Command {
        Command::RemoveTopics { selector: selector.to_owned(), from: from.map(path) }
    }

    fn removed(effects: &[Effect]) -> Vec<String> {
        let path = |effect: &Effect| match effect {
            Effect::TopicRemoved(info) => info.path.to_string(),
            other => panic!("{other:?}"),
        };
        effects.iter().map(path).collect()
    }

    #[test]
    fn what_the_selector_matches_goes_in_path_order() {
        let mut stage = stage(&["b", "a/b", "a", "a!", "a/b/c"]);
        let (outcome, effects) = stage.send(ONE, remove("?a//", None));
        assert_eq!(outcome, Outcome::Removed { count: 3, next: None });
        assert_eq!(removed(&effects), ["a", "a/b", "a/b/c"]);
        assert_eq!(stage.paths(), ["a!", "b"]);
        let (outcome, effects) = stage.send(ONE, remove("?a//", None));
        assert_eq!((outcome, effects), (Outcome::Removed { count: 0, next: None }, vec![]));
    }

    #[test]
    fn it_starts_where_it_is_told() {
        let mut stage = stage(&["a", "b", "c", "d"]);
        let (outcome, effects) = stage.send(ONE, remove("#>a////>c////>d", Some("b")));
        assert_eq!(outcome, Outcome::Removed { count: 2, next: None });
        assert_eq!(removed(&effects), ["c", "d"]);
    }

    #[test]
    fn pages_have_bounds_and_join() {
        let names: Vec<String> = (0..PAGE_ITEMS_MAX + 5).map(|i| format!("p/{i:05}")).collect();
        let mut stage = Stage::new();
        let add = |name: &String| Command::AddTopic {
            path: path(name),
            specification: plain(TopicType::Json),
        };
        stage.send_all(ONE, names.iter().map(add));
        let (outcome, effects) = stage.send(ONE, remove("?.*//", None));
        let next = path(&names[PAGE_ITEMS_MAX]);
        let count = PAGE_ITEMS_MAX as u32;
        assert_eq!(outcome, Outcome::Removed { count, next: Some(next.clone()) });
        assert_eq!(removed(&effects), names[..PAGE_ITEMS_MAX]);
        let (outcome, _) = stage.send(ONE, remove("?.*//", Some(next.as_str())));
        assert_eq!(outcome, Outcome::Removed { count: 5, next: None });
        assert!(stage.machine.topics().is_empty());
    }

    #[test]
    fn a_selector_that_cannot_be_parsed_removes_nothing() {
        let mut stage = stage(&["a"]);
        let (outcome, _) = stage.send(ONE, remove("?(", None));
        assert_eq!(outcome, Outcome::Rejected(Rejection::InvalidSelector));
        assert_eq!(stage.paths(), ["a"]);
    }
}
