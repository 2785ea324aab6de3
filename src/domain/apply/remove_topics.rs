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
