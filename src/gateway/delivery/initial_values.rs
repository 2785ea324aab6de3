//! The current values of what a session has come to be subscribed to, for a bulk stream.

use std::sync::Arc;

use crate::domain::effect::TopicInfo;
use crate::domain::id::{Index, Position};
use crate::domain::machine::Machine;
use crate::domain::topic::record::Topic;
use crate::domain::topic::specification::Priority;
use crate::gateway::delivery::event_frames::wire_specification;
use crate::gateway::delivery::interest::Interest;
use crate::gateway::delivery::outgoing::Outgoing;
use crate::gateway::delivery::topic_walk::TopicWalk;
use crate::protocol::delivery::{BulkMessage, put_item};

/// Items of one bulk stream, written page by page: topics of high priority first, of low priority
/// last, in path order within.
#[derive(Debug)]
pub(in crate::gateway) struct InitialValues {
    walk: TopicWalk,
    before: Option<Arc<Interest>>,
    after: Arc<Interest>,
    /// Values set after this come, or have come, on the event stream.
    values_until: Option<Position>,
    told: Told,
    class: Priority,
    low_seen: bool,
    count: u64,
    ended: bool,
}

/// What a session that goes on from a past position is told of on its event stream: from each of
/// these positions on, what this interest wants.
#[derive(Debug, Clone, Default)]
pub(in crate::gateway) struct Told(Vec<(Position, Arc<Interest>)>);

impl Told {
    /// By rising positions.
    #[must_use]
    pub(in crate::gateway) fn new(stages: Vec<(Position, Arc<Interest>)>) -> Self {
        Self(stages)
    }

    /// The topic's addition is among the events.
    fn tells(&self, topic: &TopicInfo) -> bool {
        let added = Position { index: topic.added, ordinal: 0 };
        let stage = self.0.iter().rev().find(|(from, _)| *from < added);
        stage.is_some_and(|(_, interest)| interest.wants(topic))
    }
}

impl InitialValues {
    /// Everything in `view` that `after` wants and `before` did not.
    #[must_use]
    pub(in crate::gateway) fn new(
        view: Machine,
        before: Option<Arc<Interest>>,
        after: Arc<Interest>,
    ) -> Self {
        Self {
            walk: TopicWalk::new(view, after.ranges()),
            before,
            after,
            values_until: None,
            told: Told::default(),
            class: Priority::High,
            low_seen: false,
            count: 0,
            ended: false,
        }
    }

    /// Leaves out the values that were set after `position`: their events follow on the event
    /// stream.
    #[must_use]
    pub(in crate::gateway) fn with_values_until(self, position: Position) -> Self {
        Self { values_until: Some(position), ..self }
    }

    /// Leaves out the topics whose additions are told of on the event stream.
    #[must_use]
    pub(in crate::gateway) fn without_told(self, told: Told) -> Self {
        Self { told, ..self }
    }

    /// Appends the next items, and the end after the last; true when the end has been appended.
    pub(in crate::gateway) fn write(&mut self, outgoing: &mut Outgoing) -> bool {
        let Self { walk, before, after, values_until, told, class, low_seen, count, ended } = self;
        if *ended {
            return true;
        }
        let more = walk.page(|topic| {
            let info = topic.info();
            let priority = info.specification.priority();
            *low_seen |= priority == Priority::Low;
            let new = priority == *class
                && after.wants(info)
                && !told.tells(info)
                && !before.as_ref().is_some_and(|before| before.wants(info));
            if new {
                *count += 1;
                put_topic(topic, *values_until, outgoing);
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

fn put_topic(topic: &Topic, values_until: Option<Position>, outgoing: &mut Outgoing) {
    let info = topic.info();
    let here = values_until.is_none_or(|until| topic.version() <= until.index);
    let value = topic.value().filter(|_| here);
    let version = value.map_or(Index(0), |_| topic.version());
    let specification = wire_specification(&info.specification);
    outgoing.write(|buffer| {
        put_item(
            buffer,
            version,
            info.id,
            &specification,
            &info.path,
            value.map(|value| &value[..]),
        );
    });
}
