//! Which groups of sessions hear of a topic.
//!
//! Sessions of equal interest form a group, and a group's interest never changes: a session that
//! changes its mind joins another group. So what was found once about a topic and a group stays
//! true, and is remembered as "all groups up to this number have been asked"; an update of a topic
//! asks only the groups that are newer. Groups are found by the literal prefixes of their selectors,
//! so neither idle sessions nor other branches cost an update anything.

use std::sync::Arc;

use crate::domain::effect::TopicInfo;
use crate::domain::id::TopicId;
use crate::domain::topic::path::TopicPath;
use crate::entropy::HashMap;
use crate::gateway::delivery::interest::Interest;

/// A group of sessions of equal interest; numbers rise and are not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

/// Different sets of groups that are remembered; past it everything remembered is dropped and found
/// again as topics are updated.
const SETS_MAX: usize = 16_384;

/// The groups, by what they want, and what was found out about topics.
#[derive(Debug, Default)]
pub struct Audience {
    interests: HashMap<GroupId, Arc<Interest>>,
    /// By literal prefix of a selector, in rising order.
    by_prefix: HashMap<Box<str>, Vec<GroupId>>,
    /// Groups with topic notification listeners.
    listening: Vec<GroupId>,
    topics: HashMap<TopicId, Memo>,
    sets: Sets,
    newest: u64,
}

/// What is remembered about a topic: 16 bytes, since there may be millions.
#[derive(Debug, Clone, Copy)]
struct Memo {
    /// Groups up to this number have been asked.
    asked: u64,
    /// Those that want it.
    set: u32,
}

/// Sets of groups, each kept once.
#[derive(Debug, Default)]
struct Sets {
    by_number: Vec<Arc<[GroupId]>>,
    numbers: HashMap<Arc<[GroupId]>, u32>,
}

impl Audience {
    /// Adds a group of sessions that want `interest`.
    pub fn add(&mut self, interest: &Arc<Interest>) -> GroupId {
        self.newest += 1;
        let group = GroupId(self.newest);
        for prefix in interest.prefixes() {
            self.by_prefix.entry(prefix.into()).or_default().push(group);
        }
        if !interest.listeners().is_empty() {
            self.listening.push(group);
        }
        self.interests.insert(group, Arc::clone(interest));
        group
    }

    /// Forgets a group.
    pub fn remove(&mut self, group: GroupId) {
        let Some(interest) = self.interests.remove(&group) else { return };
        for prefix in interest.prefixes() {
            if let Some(groups) = self.by_prefix.get_mut(prefix) {
                groups.retain(|other| *other != group);
                if groups.is_empty() {
                    self.by_prefix.remove(prefix);
                }
            }
        }
        self.listening.retain(|other| *other != group);
    }

    /// The groups that want this topic. Removed groups may still be among them.
    pub fn of(&mut self, topic: &TopicInfo) -> Arc<[GroupId]> {
        let memo = self.topics.get(&topic.id).copied();
        if let Some(memo) = memo
            && memo.asked == self.newest
        {
            return self.sets.get(memo.set);
        }
        let asked = memo.map_or(0, |memo| memo.asked);
        let known = memo.map(|memo| self.sets.get(memo.set)).unwrap_or_default();
        let newer = self.ask(topic, asked);
        let kept = known.iter().filter(|group| self.interests.contains_key(group)).copied();
        let mut groups: Vec<GroupId> = kept.chain(newer).collect();
        groups.sort_unstable();
        groups.dedup();
        if self.sets.by_number.len() >= SETS_MAX {
            self.topics.clear();
            self.sets = Sets::default();
        }
        let (set, groups) = self.sets.number(groups);
        self.topics.insert(topic.id, Memo { asked: self.newest, set });
        groups
    }

    /// Groups with listeners, whatever they listen to.
    #[must_use]
    pub fn listening(&self) -> &[GroupId] {
        &self.listening
    }

    /// What a group wants.
    #[must_use]
    pub fn interest(&self, group: GroupId) -> Option<&Arc<Interest>> {
        self.interests.get(&group)
    }

    /// A topic is gone; its identifier does not come again.
    pub fn forget(&mut self, topic: TopicId) {
        self.topics.remove(&topic);
    }

    /// Drops what was found out about topics.
    pub fn forget_all(&mut self) {
        self.topics.clear();
        self.sets = Sets::default();
    }

    /// Groups newer than `asked` that want the topic.
    fn ask(&self, topic: &TopicInfo, asked: u64) -> Vec<GroupId> {
        let mut found = Vec::new();
        for prefix in prefixes_of(&topic.path) {
            let Some(groups) = self.by_prefix.get(prefix) else { continue };
            for group in groups.iter().rev().take_while(|group| group.0 > asked) {
                if self.interests.get(group).is_some_and(|interest| interest.wants(topic)) {
                    found.push(*group);
                }
            }
        }
        found
    }
}

impl Sets {
    fn get(&self, number: u32) -> Arc<[GroupId]> {
        self.by_number.get(number as usize).cloned().unwrap_or_default()
    }

    fn number(&mut self, groups: Vec<GroupId>) -> (u32, Arc<[GroupId]>) {
        let groups: Arc<[GroupId]> = groups.into();
        if let Some(number) = self.numbers.get(&groups) {
            return (*number, self.get(*number));
        }
        let number = self.by_number.len() as u32;
        self.by_number.push(Arc::clone(&groups));
        self.numbers.insert(Arc::clone(&groups), number);
        (number, groups)
    }
}

/// The empty text, then the path's ancestors, then the path itself.
fn prefixes_of(path: &TopicPath) -> impl Iterator<Item = &str> {
    let text = path.as_str();
    let ends = text.match_indices('/').map(|(at, _)| at);
    let ends = std::iter::once(0).chain(ends).chain(std::iter::once(text.len()));
    ends.filter_map(|end| text.get(..end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Index;
    use crate::domain::selector::{Selections, Selector};
    use crate::domain::topic::specification::{Specification, TopicType};

    fn interest(entries: &[(bool, &str)]) -> Arc<Interest> {
        let mut selections = Selections::default();
        for (select, selector) in entries {
            selections.add("", *select, Selector::parse(selector).unwrap()).unwrap();
        }
        Arc::new(Interest::new(Arc::new(selections), Vec::new()))
    }

    fn topic(id: u64, path: &str) -> TopicInfo {
        TopicInfo {
            id: TopicId(id),
            path: TopicPath::parse(path).unwrap(),
            specification: Arc::new(Specification::plain(TopicType::String)),
            added: Index::new(1, 0),
        }
    }

    #[test]
    fn prefixes_are_the_path_and_its_ancestors() {
        let path = TopicPath::parse("a/bc/d").unwrap();
        assert_eq!(prefixes_of(&path).collect::<Vec<_>>(), ["", "a", "a/bc", "a/bc/d"]);
    }

    #[test]
    fn a_topic_is_asked_about_once_per_group() {
        let mut audience = Audience::default();
        let all = audience.add(&interest(&[(true, "?.*//")]));
        let branch = audience.add(&interest(&[(true, "?a//"), (false, ">a/secret")]));
        let exact = audience.add(&interest(&[(true, ">a/b")]));
        assert_eq!(*audience.of(&topic(1, "a/b")), [all, branch, exact]);
        assert_eq!(*audience.of(&topic(2, "a/secret")), [all]);
        assert_eq!(*audience.of(&topic(3, "b")), [all]);

        // A newer group is asked the next time; what was known stays.
        let late = audience.add(&interest(&[(true, "*a/.*")]));
        assert_eq!(*audience.of(&topic(1, "a/b")), [all, branch, exact, late]);
        audience.remove(branch);
        let later = audience.add(&interest(&[(true, ">b")]));
        assert_eq!(*audience.of(&topic(1, "a/b")), [all, exact, late]);
        assert_eq!(*audience.of(&topic(3, "b")), [all, later]);
        audience.forget(TopicId(3));
        assert_eq!(*audience.of(&topic(3, "b")), [all, later]);
        assert_eq!(*audience.of(&topic(4, "a!")), [all]);
    }

    #[test]
    fn sets_are_kept_once_and_bounded() {
        let mut audience = Audience::default();
        audience.add(&interest(&[(true, "?.*//")]));
        for id in 0..100 {
            let _ = audience.of(&topic(id, &format!("t/{id}")));
        }
        assert_eq!(audience.sets.by_number.len(), 1);
        for id in 0..SETS_MAX as u64 + 10 {
            audience.add(&interest(&[(true, &format!(">t/{id}"))]));
            assert_eq!(audience.of(&topic(id, &format!("t/{id}"))).len(), 2);
        }
        assert!(audience.sets.by_number.len() <= SETS_MAX);
    }
}
