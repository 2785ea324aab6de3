//! The current values of what a session has come to be subscribed to, for a bulk stream.

use std::sync::Arc;

use crate::domain::effect::TopicInfo;
use crate::domain::id::{Index, Position};
use crate::domain::machine::Machine;
use crate::domain::topic::record::Topic;
use crate::domain::topic::specification::{Priority, Specification};
use crate::gateway::delivery::event_frames::wire_specification;
use crate::gateway::delivery::interest::Interest;
use crate::gateway::delivery::outgoing::Outgoing;
use crate::gateway::delivery::topic_walk::TopicWalk;
use crate::protocol::delivery::{BulkMessage, put_item};
use crate::protocol::topic::WireSpecification;

/// Items of one bulk stream, written page by page: topics of high priority first, of low priority
/// last, in path order within.
#[derive(Debug)]
pub(in crate::gateway) struct InitialValues {
    walk: TopicWalk,
    /// What all of these wanted has been told of; nothing if there are none.
    before: Vec<Arc<Interest>>,
    after: Arc<Interest>,
    /// Values come on the event stream.
    without_values: bool,
    /// Topics that were added after this are told of on the event stream.
    added_until: Option<Position>,
    class: Priority,
    low_seen: bool,
    specification: LastSpecification,
    count: u64,
    ended: bool,
}

impl InitialValues {
    /// Everything in `view` that `after` wants and not all of `before` did.
    #[must_use]
    pub(in crate::gateway) fn new(
        view: Machine,
        before: Vec<Arc<Interest>>,
        after: Arc<Interest>,
    ) -> Self {
        Self {
            walk: TopicWalk::new(view, after.ranges()),
            before,
            after,
            without_values: false,
            added_until: None,
            class: Priority::High,
            low_seen: false,
            specification: LastSpecification::default(),
            count: 0,
            ended: false,
        }
    }

    /// The last entry that the values know of.
    #[must_use]
    pub(in crate::gateway) fn as_of(&self) -> u64 {
        self.walk.view().applied()
    }

    /// Leaves out the values: their events come on the event stream.
    #[must_use]
    pub(in crate::gateway) fn without_values(self) -> Self {
        Self { without_values: true, ..self }
    }

    /// Leaves out the topics that were added after `position`: the event stream tells of them.
    #[must_use]
    pub(in crate::gateway) fn added_until(self, position: Position) -> Self {
        Self { added_until: Some(position), ..self }
    }

    /// Appends the next items, and the end after the last; true when the end has been appended.
    pub(in crate::gateway) fn write(&mut self, outgoing: &mut Outgoing) -> bool {
        let Self { walk, before, after, without_values, added_until, .. } = self;
        let Self { class, low_seen, specification, count, ended, .. } = self;
        if *ended {
            return true;
        }
        let more = walk.page(|topic| {
            let info = topic.info();
            let priority = info.specification.priority();
            *low_seen |= priority == Priority::Low;
            let is_known = !before.is_empty() && before.iter().all(|before| before.wants(info));
            let added = Position { index: info.added, ordinal: 0 };
            let is_told = added_until.is_some_and(|until| added > until);
            let new = priority == *class && after.wants(info) && !is_known && !is_told;
            if new {
                *count += 1;
                put_topic(topic, specification.of(info), *without_values, outgoing);
            }
            !outgoing.is_full()
        });
        if more {
            return false;
        }
        let next = match class {
            Priority::High => Some(Priority::Default),
            Priority::Default if *low_seen => Some(Priority::Low),
            Priority::Default | Priority::Low => None,
        };
        if let Some(next) = next {
            *class = next;
            *walk = TopicWalk::new(walk.view().clone(), after.ranges());
            return false;
        }
        let end = BulkMessage::End { count: *count, more: false };
        outgoing.write(|buffer| end.put(buffer));
        *ended = true;
        true
    }
}

/// The specification of the last topic, as it travels: most topics share a few.
#[derive(Debug, Default)]
struct LastSpecification(Option<(Arc<Specification>, WireSpecification)>);

impl LastSpecification {
    fn of(&mut self, info: &TopicInfo) -> &WireSpecification {
        let specification = &info.specification;
        let last = self.0.take().filter(|(last, _)| Arc::ptr_eq(last, specification));
        let made = || (Arc::clone(specification), wire_specification(specification));
        &self.0.insert(last.unwrap_or_else(made)).1
    }
}

fn put_topic(
    topic: &Topic,
    specification: &WireSpecification,
    without_value: bool,
    outgoing: &mut Outgoing,
) {
    let info = topic.info();
    let value = topic.value().filter(|_| !without_value);
    let version = value.map_or(Index(0), |_| topic.version());
    outgoing.write(|buffer| {
        put_item(
            buffer,
            version,
            info.id,
            specification,
            &info.path,
            value.map(|value| &value[..]),
        );
    });
}
