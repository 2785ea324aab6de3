//! The topics that a session is subscribed to, as the client keeps them.
//!
//! There may be a million of them. What they have in common is kept once, and each is an allocation
//! of its own, so that the table that leads to them is small when it grows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::waiting::Waiting;
use crate::client::event::{Event, Topic};
use crate::domain::id::{Index, Position, TopicId};
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::specification::TopicType;
use crate::entropy::HashMap;
use crate::protocol::topic::WireSpecification;

/// Different sets of properties that are kept to be shared; topics with others have their own.
const SHARED_PROPERTIES_MAX: usize = 1_024;

/// One of them.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) topic: Arc<Topic>,
    /// Values up to this index are in what was delivered.
    pub(super) version: Index,
    pub(super) position: Position,
    /// The newest value, if it is retained and there is one; the inner none is null.
    pub(super) value: Option<Option<Bytes>>,
    /// The local streams that hear of it.
    pub(super) routes: Arc<[u64]>,
}

/// All of them, by their identifiers.
#[derive(Debug, Default)]
pub(super) struct KnownTopics {
    topics: HashMap<TopicId, Box<Known>>,
    properties: BTreeSet<Arc<BTreeMap<String, String>>>,
    /// Of the last topic that was asked for: mostly those of the next one as well.
    routes: Option<Arc<[u64]>>,
}

impl Known {
    /// Leaves the subscription for a local stream, and the value if there is one.
    pub(super) fn introduce(&self, waiting: &mut Waiting) {
        let position = self.position;
        let topic = || Arc::clone(&self.topic);
        waiting.push(Event::Subscribed { position, topic: topic() });
        if let Some(value) = &self.value {
            let value = value.clone();
            waiting.push(Event::Value { position, topic: topic(), value, initial: true });
        }
    }
}

impl KnownTopics {
    pub(super) fn contains(&self, id: TopicId) -> bool {
        self.topics.contains_key(&id)
    }

    pub(super) fn get_mut(&mut self, id: TopicId) -> Option<&mut Known> {
        self.topics.get_mut(&id).map(Box::as_mut)
    }

    pub(super) fn insert(&mut self, known: Known) {
        self.topics.insert(known.topic.id, Box::new(known));
    }

    pub(super) fn remove(&mut self, id: TopicId) -> Option<Box<Known>> {
        self.topics.remove(&id)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// A topic as events name it.
    pub(super) fn describe(
        &mut self,
        id: TopicId,
        specification: WireSpecification,
        path: TopicPath,
    ) -> Topic {
        let topic_type = TopicType::from_code(specification.topic_type);
        Topic { id, path, topic_type, properties: self.share_properties(specification.properties) }
    }

    /// These routes, in an allocation that topics have in common.
    pub(super) fn share_routes(&mut self, routes: &[u64]) -> Arc<[u64]> {
        match &self.routes {
            Some(last) if **last == *routes => Arc::clone(last),
            _ => Arc::clone(self.routes.insert(routes.into())),
        }
    }

    /// Adds a local stream to those that hear of the topics that `hears` picks; they are given in path
    /// order.
    pub(super) fn add_route(
        &mut self,
        number: u64,
        hears: impl Fn(&TopicPath) -> bool,
    ) -> Vec<&Known> {
        let mut added: Vec<&mut Known> = self
            .topics
            .values_mut()
            .map(Box::as_mut)
            .filter(|known| hears(&known.topic.path))
            .collect();
        added.sort_by(|a, b| a.topic.path.cmp(&b.topic.path));
        let mut change = Change::default();
        for known in &mut added {
            change.apply(known, |routes| routes.push(number));
        }
        added.into_iter().map(|known| &*known).collect()
    }

    /// Takes a local stream from those that hear of anything.
    pub(super) fn remove_route(&mut self, number: u64) {
        let mut change = Change::default();
        for known in self.topics.values_mut() {
            if known.routes.contains(&number) {
                change.apply(known, |routes| routes.retain(|route| *route != number));
            }
        }
    }

    fn share_properties(
        &mut self,
        properties: BTreeMap<String, String>,
    ) -> Arc<BTreeMap<String, String>> {
        if let Some(shared) = self.properties.get(&properties) {
            return Arc::clone(shared);
        }
        let properties = Arc::new(properties);
        if self.properties.len() >= SHARED_PROPERTIES_MAX {
            self.properties.retain(|shared| Arc::strong_count(shared) > 1);
        }
        if self.properties.len() < SHARED_PROPERTIES_MAX {
            self.properties.insert(Arc::clone(&properties));
        }
        properties
    }
}

/// A change of routes that is the same for many topics in a row: what it made of the last ones.
#[derive(Debug, Default)]
struct Change {
    before: Arc<[u64]>,
    after: Option<Arc<[u64]>>,
}

impl Change {
    fn apply(&mut self, known: &mut Known, change: impl FnOnce(&mut Vec<u64>)) {
        if let Some(after) = &self.after
            && Arc::ptr_eq(&self.before, &known.routes)
        {
            known.routes = Arc::clone(after);
            return;
        }
        let mut routes = known.routes.to_vec();
        change(&mut routes);
        let after = self.after.insert(routes.into());
        self.before = std::mem::replace(&mut known.routes, Arc::clone(after));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(topics: &mut KnownTopics, number: u64, properties: &[(&str, &str)]) -> TopicId {
        let properties =
            properties.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let specification = WireSpecification { topic_type: 2, properties };
        let path = TopicPath::parse(&format!("t/{}", 9 - number)).unwrap();
        let topic = Arc::new(topics.describe(TopicId(number), specification, path));
        let (version, position) = (Index(1), Position::START);
        let routes = topics.share_routes(&[1]);
        topics.insert(Known { topic, version, position, value: None, routes });
        TopicId(number)
    }

    #[test]
    fn what_topics_have_in_common_is_there_once() {
        let mut topics = KnownTopics::default();
        let ids = [(1, "x"), (2, "x"), (3, "y")]
            .map(|(number, owner)| known(&mut topics, number, &[("OWNER", owner)]));
        let mut of = |at: usize| {
            let known = topics.get_mut(ids[at]).unwrap();
            (Arc::clone(&known.topic.properties), Arc::clone(&known.routes))
        };
        let (first, second, third) = (of(0), of(1), of(2));
        assert!(Arc::ptr_eq(&first.0, &second.0) && !Arc::ptr_eq(&first.0, &third.0));
        assert!(Arc::ptr_eq(&first.1, &second.1) && Arc::ptr_eq(&first.1, &third.1));
    }

    #[test]
    fn properties_beyond_the_limit_are_not_kept_to_be_shared() {
        let mut topics = KnownTopics::default();
        let share = |topics: &mut KnownTopics, number: usize| {
            topics.share_properties([("OWNER".into(), number.to_string())].into())
        };
        let held: Vec<_> = (0..SHARED_PROPERTIES_MAX).map(|at| share(&mut topics, at)).collect();
        let over = share(&mut topics, SHARED_PROPERTIES_MAX);
        assert_eq!(topics.properties.len(), SHARED_PROPERTIES_MAX);
        assert!(!Arc::ptr_eq(&over, &share(&mut topics, SHARED_PROPERTIES_MAX)));
        // What no topic has any more makes room.
        drop(held);
        let next = share(&mut topics, SHARED_PROPERTIES_MAX);
        assert!(Arc::ptr_eq(&next, &share(&mut topics, SHARED_PROPERTIES_MAX)));
        assert_eq!(topics.properties.len(), 1);
    }

    #[test]
    fn routes_come_and_go_in_path_order() {
        let mut topics = KnownTopics::default();
        for number in 1..=3 {
            known(&mut topics, number, &[]);
        }
        let third = topics.share_routes(&[]);
        topics.get_mut(TopicId(3)).unwrap().routes = third;
        let added = topics.add_route(7, |path| path.as_str() != "t/7");
        let paths: Vec<&str> = added.iter().map(|known| known.topic.path.as_str()).collect();
        assert_eq!(paths, ["t/6", "t/8"]);
        let mut routes = |number| topics.get_mut(TopicId(number)).unwrap().routes.to_vec();
        assert_eq!((routes(1), routes(2), routes(3)), (vec![1, 7], vec![1], vec![7]));
        topics.remove_route(1);
        let mut routes = |number| topics.get_mut(TopicId(number)).unwrap().routes.to_vec();
        assert_eq!((routes(1), routes(2), routes(3)), (vec![7], vec![], vec![7]));
    }
}
