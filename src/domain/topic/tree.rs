//! All topics: by identifier for updates, in path order for everything else.
//!
//! A clone is O(1) and stands still. Both orders share the topics; specifications are shared by all
//! topics that have the same.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use imbl::{OrdMap, OrdSet};

use super::path::TopicPath;
use super::record::{DigestedValue, StreamHold, Topic};
use super::slots::Slots;
use super::specification::Specification;
use crate::domain::effect::TopicInfo;
use crate::domain::id::{Index, TopicId};
use crate::domain::limits;
use crate::domain::machine::hash::{ItemKind, ItemSum, item};

/// All topics.
#[derive(Debug, Clone)]
pub struct TopicTree {
    next_id: u64,
    by_id: Slots<Topic>,
    by_path: OrdSet<ByPath>,
    specifications: OrdMap<Box<[u8]>, Shared>,
    /// Of the topics; the counter is added when the sum is asked for.
    sum: ItemSum,
}

/// A topic in path order.
#[derive(Debug, Clone)]
struct ByPath(Arc<TopicInfo>);

impl Borrow<TopicPath> for ByPath {
    fn borrow(&self) -> &TopicPath {
        &self.0.path
    }
}

impl Ord for ByPath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.path.cmp(&other.0.path)
    }
}

impl PartialOrd for ByPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByPath {
    fn eq(&self, other: &Self) -> bool {
        self.0.path == other.0.path
    }
}

impl Eq for ByPath {}

/// A topic as a snapshot holds it.
#[derive(Debug)]
pub(in crate::domain) struct RestoredTopic {
    pub(in crate::domain) id: TopicId,
    pub(in crate::domain) path: TopicPath,
    pub(in crate::domain) specification: Specification,
    pub(in crate::domain) added: Index,
    pub(in crate::domain) version: Index,
    pub(in crate::domain) value: Option<Bytes>,
    pub(in crate::domain) stream: Option<StreamHold>,
}

/// A specification and how many topics have it.
#[derive(Debug, Clone)]
struct Shared {
    specification: Arc<Specification>,
    topics: u64,
}

impl Default for TopicTree {
    fn default() -> Self {
        Self {
            next_id: 1,
            by_id: Slots::default(),
            by_path: OrdSet::new(),
            specifications: OrdMap::new(),
            sum: ItemSum::default(),
        }
    }
}

impl TopicTree {
    /// How many topics there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The topic of an identifier.
    #[must_use]
    pub fn get(&self, id: TopicId) -> Option<&Topic> {
        self.by_id.get(id.0)
    }

    /// The topic at a path.
    #[must_use]
    pub fn at(&self, path: &TopicPath) -> Option<&Topic> {
        self.get(self.by_path.get(path)?.0.id)
    }

    /// The topics of a range of paths, in path order.
    pub fn range<R: RangeBounds<TopicPath>>(
        &self,
        range: R,
    ) -> impl DoubleEndedIterator<Item = &Topic> {
        // The set panics on a range that ends before it starts.
        let empty = match (range.start_bound(), range.end_bound()) {
            (Bound::Included(start), Bound::Included(end)) => start > end,
            (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end))
            | (Bound::Excluded(start), Bound::Included(end)) => start >= end,
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        };
        (!empty)
            .then(|| self.by_path.range(range))
            .into_iter()
            .flatten()
            .filter_map(|entry| self.get(entry.0.id))
    }

    /// All topics, in path order.
    pub fn iter(&self) -> impl Iterator<Item = &Topic> {
        self.range(..)
    }

    /// The identifier that the next topic will have.
    pub(in crate::domain) fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Computes the part's share of the state hash from nothing.
    pub(in crate::domain) fn recomputed_hash(&self) -> u64 {
        let sum: ItemSum = self.iter().flat_map(Topic::items).collect();
        sum.value().wrapping_add(item(ItemKind::TopicCounter, [self.next_id]))
    }

    /// What must hold between the two orders and in any topic; the first thing that does not.
    pub(in crate::domain) fn check(&self) -> Result<(), &'static str> {
        let mut uses: OrdMap<Box<[u8]>, u64> = OrdMap::new();
        for entry in &self.by_path {
            let info = &entry.0;
            let topic = self.by_id.get(info.id.0).ok_or("a path leads to no topic")?;
            let specification = &info.specification;
            let key = canonical(specification).into_boxed_slice();
            let shared = self.specifications.get(&key).map(|shared| &shared.specification);
            *uses.entry(key).or_default() += 1;
            let value_bytes = topic.value().map_or(0, Bytes::len);
            for (holds, what) in [
                (Arc::ptr_eq(info, &topic.info), "the two orders hold different topics"),
                (info.id.0 < self.next_id, "a topic's identifier is yet to be given out"),
                (topic.version >= info.added, "a topic's value is older than the topic"),
                (value_bytes <= limits::VALUE_BYTES_MAX, "a value is over its limit"),
                (
                    !(specification.dont_retain_value() && topic.value().is_some()),
                    "a topic that retains no value has one",
                ),
                (
                    shared.is_some_and(|shared| Arc::ptr_eq(shared, specification)),
                    "a specification is not shared",
                ),
            ] {
                if !holds {
                    return Err(what);
                }
            }
        }
        let counted = self.specifications.iter().map(|(key, shared)| (key, &shared.topics));
        if !counted.eq(uses.iter()) {
            return Err("the uses of specifications are miscounted");
        }
        if self.by_id.len() != self.by_path.len() {
            return Err("the two orders hold different numbers of topics");
        }
        Ok(())
    }

    /// The part's share of the state hash.
    pub(in crate::domain) fn hash(&self) -> u64 {
        self.sum.value().wrapping_add(item(ItemKind::TopicCounter, [self.next_id]))
    }

    /// Adds a topic at a path that has none.
    pub(in crate::domain) fn add(
        &mut self,
        path: TopicPath,
        specification: Specification,
        added: Index,
    ) -> Arc<TopicInfo> {
        let info = Arc::new(TopicInfo {
            id: TopicId(self.next_id),
            path,
            specification: self.share(specification),
            added,
        });
        self.next_id = self.next_id.wrapping_add(1);
        self.put(Topic::new(Arc::clone(&info), None, added, None));
        info
    }

    /// Gives a topic a published value, if it retains one, with the digest of what was published; the newest stream stays only if the value came through it.
    pub(in crate::domain) fn publish(
        &mut self,
        id: TopicId,
        (value, digested): (Option<Bytes>, &DigestedValue<'_>),
        version: Index,
        through_stream: bool,
    ) {
        self.change(id, |topic| {
            topic.keep(value, digested);
            topic.version = version;
            if !through_stream {
                topic.stream = None;
            }
        });
    }

    /// Opens an update stream in place of any other, or ends the open one.
    pub(in crate::domain) fn set_stream(&mut self, id: TopicId, stream: Option<StreamHold>) {
        self.change(id, |topic| topic.stream = stream.map(Arc::new));
    }

    /// Removes a topic.
    pub(in crate::domain) fn remove(&mut self, id: TopicId) -> Option<Arc<TopicInfo>> {
        let topic = self.by_id.remove(id.0)?;
        for item in topic.items() {
            self.sum.remove(item);
        }
        self.by_path.remove(&topic.info.path);
        let key = canonical(&topic.info.specification);
        if let Some(shared) = self.specifications.get_mut(key.as_slice()) {
            shared.topics -= 1;
            if shared.topics == 0 {
                self.specifications.remove(key.as_slice());
            }
        }
        Some(Arc::clone(&topic.info))
    }

    /// Puts a topic of a snapshot in; false if its path or identifier is there already.
    pub(in crate::domain) fn restore(&mut self, topic: RestoredTopic) -> bool {
        let RestoredTopic { id, path, specification, added, version, value, stream } = topic;
        if self.get(id).is_some() || self.by_path.contains(&path) {
            return false;
        }
        let specification = self.share(specification);
        let info = Arc::new(TopicInfo { id, path, specification, added });
        self.put(Topic::new(info, value, version, stream.map(Arc::new)));
        true
    }

    /// Sets the identifier that the next topic will have, from a snapshot.
    pub(in crate::domain) fn restore_next_id(&mut self, next_id: u64) {
        self.next_id = next_id;
    }

    fn change(&mut self, id: TopicId, change: impl FnOnce(&mut Topic)) {
        if let Some(topic) = self.by_id.get_mut(id.0) {
            self.sum.remove(topic.content_item());
            change(topic);
            self.sum.add(topic.content_item());
        }
    }

    fn put(&mut self, topic: Topic) {
        for item in topic.items() {
            self.sum.add(item);
        }
        self.by_path.insert(ByPath(Arc::clone(&topic.info)));
        self.by_id.insert(topic.info.id.0, topic);
    }

    fn share(&mut self, specification: Specification) -> Arc<Specification> {
        let key = canonical(&specification).into_boxed_slice();
        let shared = self
            .specifications
            .entry(key)
            .or_insert_with(|| Shared { specification: Arc::new(specification), topics: 0 });
        shared.topics += 1;
        Arc::clone(&shared.specification)
    }
}

/// One byte sequence per specification, for sharing and for the state hash.
pub(super) fn canonical(specification: &Specification) -> Vec<u8> {
    let mut bytes = vec![specification.topic_type().code()];
    for (key, value) in specification.properties() {
        for text in [&key, &value] {
            bytes.put_u32_le(text.len() as u32);
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::topic::specification::TopicType;

    fn path(text: &str) -> TopicPath {
        TopicPath::parse(text).unwrap()
    }

    fn tree(paths: &[&str]) -> TopicTree {
        let mut tree = TopicTree::default();
        for text in paths {
            let specification = Specification::plain(TopicType::Json);
            tree.add(path(text), specification, Index(1));
        }
        tree
    }

    fn held<R: RangeBounds<TopicPath>>(tree: &TopicTree, range: R) -> Vec<String> {
        tree.range(range).map(|topic| topic.info().path.to_string()).collect()
    }

    #[test]
    fn ranges_are_in_path_order_and_may_be_empty() {
        let tree = tree(&["b", "a!", "a/b", "a", "a/b/c"]);
        assert_eq!(tree.check(), Ok(()));
        assert_eq!(held(&tree, ..), ["a", "a/b", "a/b/c", "a!", "b"]);
        assert_eq!(held(&tree, path("a/b")..path("b")), ["a/b", "a/b/c", "a!"]);
        let after = (Bound::Excluded(path("a/b")), Bound::Included(path("a!")));
        assert_eq!(held(&tree, after), ["a/b/c", "a!"]);
        // Ranges that end before they start, in every form.
        let (a, b) = (|| path("a"), || path("b"));
        assert!(held(&tree, b()..a()).is_empty());
        assert!(held(&tree, b()..=a()).is_empty());
        assert!(held(&tree, a()..a()).is_empty());
        assert!(held(&tree, (Bound::Excluded(a()), Bound::Excluded(a()))).is_empty());
        assert!(held(&tree, (Bound::Excluded(a()), Bound::Included(a()))).is_empty());
        assert_eq!(held(&tree, a()..=a()), ["a"]);
    }

    #[test]
    fn what_is_removed_is_gone_from_both_orders_and_from_the_hash() {
        let empty = TopicTree::default();
        let mut tree = tree(&["a", "b"]);
        let clone = tree.clone();
        for text in ["a", "b"] {
            let id = tree.at(&path(text)).unwrap().info().id;
            assert_eq!(tree.remove(id).unwrap().path, path(text));
            assert_eq!(tree.remove(id), None);
            assert_eq!(tree.check(), Ok(()));
        }
        assert!(tree.is_empty() && tree.specifications.is_empty());
        assert_ne!(tree.hash(), empty.hash(), "identifiers go on");
        tree.restore_next_id(1);
        assert_eq!(tree.hash(), empty.hash());
        assert_eq!(held(&clone, ..), ["a", "b"]);
        assert_eq!(clone.check(), Ok(()));
    }
}
