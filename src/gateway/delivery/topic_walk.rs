//! A walk over the topics of a state that stands still, in pages.

use std::collections::VecDeque;
use std::ops::Bound;

use crate::domain::machine::Machine;
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::path_range::PathRange;
use crate::domain::topic::record::Topic;

/// Topics that one page looks at; short enough not to hold up the other tasks of a thread.
pub const PAGE_VISITS: usize = 512;

/// Where a walk over stretches of the path order has come to.
#[derive(Debug)]
pub struct TopicWalk {
    view: Machine,
    ranges: VecDeque<PathRange>,
}

impl TopicWalk {
    /// A walk over these stretches, disjoint and in order, of the state `view`.
    #[must_use]
    pub fn new(view: Machine, ranges: Vec<PathRange>) -> Self {
        Self { view, ranges: ranges.into() }
    }

    /// The state that is walked.
    #[must_use]
    pub fn view(&self) -> &Machine {
        &self.view
    }

    /// Visits the next page of topics; ends early when `visit` says no after a topic. True: there
    /// may be more.
    pub fn page(&mut self, mut visit: impl FnMut(&Topic) -> bool) -> bool {
        let mut left = PAGE_VISITS;
        while let Some(range) = self.ranges.front_mut() {
            let mut last: Option<TopicPath> = None;
            for topic in self.view.topics().range(range.clone()) {
                left -= 1;
                if !visit(topic) || left == 0 {
                    last = Some(topic.info().path.clone());
                    break;
                }
            }
            let Some(last) = last else {
                self.ranges.pop_front();
                continue;
            };
            let rest = PathRange::new(Bound::Excluded(last), Bound::Unbounded);
            *range = range.intersection(&rest);
            return true;
        }
        false
    }
}
