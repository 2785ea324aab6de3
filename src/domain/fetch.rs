//! Fetch: which topics a reader asks for, and in which pages.
//!
//! A page is answered from one standing view of the topics, in path order. Between pages topics may
//! come and go. What must not be seen is left out by the walk that the caller gives.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::effect::TopicInfo;
use super::limits;
use super::selector::Selector;
use super::topic::path::{self, TopicPath};
use super::topic::path_range::PathRange;
use super::topic::specification::TopicType;

/// What every result costs of the page's bytes beside its texts and its value.
const RESULT_BYTES: usize = 32;

/// As what a reader can take values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadAs {
    /// The bytes of any type.
    Bytes,
    /// JSON, and what JSON can write: strings and numbers.
    Json,
    /// Only topics of this very type.
    Exactly(TopicType),
}

impl ReadAs {
    /// A topic of this type can be read so.
    #[must_use]
    pub fn reads(self, topic_type: TopicType) -> bool {
        match self {
            Self::Bytes => true,
            Self::Json => topic_type != TopicType::Binary,
            Self::Exactly(exactly) => exactly == topic_type,
        }
    }
}

/// How many results, and from which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Count {
    #[default]
    All,
    First(usize),
    Last(usize),
}

/// At most `results` from each branch whose root has `depth` segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DeepBranches {
    depth: usize,
    results: usize,
}

/// What a reader asks for. Each builder gives the request with one option more; of two that
/// exclude each other the later counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    selector: Selector,
    start: Bound<TopicPath>,
    end: Bound<TopicPath>,
    topic_types: Option<BTreeSet<TopicType>>,
    values: Option<ReadAs>,
    properties: bool,
    sizes: bool,
    count: Count,
    result_bytes_max: usize,
    deep_branches: Option<DeepBranches>,
    visits_max: usize,
}

/// Why there is no such request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No type of topic is asked for.
    #[error("a fetch of no topic types finds nothing; name one or leave the types out")]
    NoTypes,
    /// Values cannot be read as asked for from a type of topic that is asked for.
    #[error("values of {topic_type} topics cannot be read as {}", name_of(*read_as))]
    Unreadable {
        /// As what they were to be read.
        read_as: ReadAs,
        /// Of which topics.
        topic_type: TopicType,
    },
}

fn name_of(read_as: ReadAs) -> &'static str {
    match read_as {
        ReadAs::Bytes => "bytes",
        ReadAs::Json => "json",
        ReadAs::Exactly(topic_type) => topic_type.name(),
    }
}

impl FetchRequest {
    /// All topics that a selector selects, without values.
    #[must_use]
    pub fn new(selector: Selector) -> Self {
        Self {
            selector,
            start: Bound::Unbounded,
            end: Bound::Unbounded,
            topic_types: None,
            values: None,
            properties: false,
            sizes: false,
            count: Count::All,
            result_bytes_max: limits::FETCH_BYTES_MAX,
            deep_branches: None,
            visits_max: limits::FETCH_VISITS_MAX,
        }
    }

    /// From this path on; no topic needs to be there.
    #[must_use]
    pub fn from(self, path: TopicPath) -> Self {
        Self { start: Bound::Included(path), ..self }
    }

    /// Behind this path in path order.
    #[must_use]
    pub fn after(self, path: TopicPath) -> Self {
        Self { start: Bound::Excluded(path), ..self }
    }

    /// Up to and with this path.
    #[must_use]
    pub fn to(self, path: TopicPath) -> Self {
        Self { end: Bound::Included(path), ..self }
    }

    /// Before this path in path order.
    #[must_use]
    pub fn before(self, path: TopicPath) -> Self {
        Self { end: Bound::Excluded(path), ..self }
    }

    /// Only topics of these types.
    ///
    /// # Errors
    /// [`FetchError`] when there is none, or values of one cannot be read as asked for.
    pub fn topic_types(self, types: BTreeSet<TopicType>) -> Result<Self, FetchError> {
        if types.is_empty() {
            return Err(FetchError::NoTypes);
        }
        Self { topic_types: Some(types), ..self }.checked()
    }

    /// With values, and only topics whose values can be read so.
    ///
    /// # Errors
    /// [`FetchError`] when values of a type that is asked for cannot be read so.
    pub fn with_values(self, read_as: ReadAs) -> Result<Self, FetchError> {
        Self { values: Some(read_as), ..self }.checked()
    }

    fn checked(self) -> Result<Self, FetchError> {
        if let (Some(types), Some(read_as)) = (&self.topic_types, self.values)
            && let Some(topic_type) = types.iter().find(|one| !read_as.reads(**one))
        {
            return Err(FetchError::Unreadable { read_as, topic_type: *topic_type });
        }
        Ok(self)
    }

    /// With all properties of the topics.
    #[must_use]
    pub fn with_properties(self) -> Self {
        Self { properties: true, ..self }
    }

    /// With the sizes of the values.
    #[must_use]
    pub fn with_sizes(self) -> Self {
        Self { sizes: true, ..self }
    }

    /// At most this many, the first in path order. Zero only tells whether there are any.
    #[must_use]
    pub fn first(self, results: usize) -> Self {
        Self { count: Count::First(results), ..self }
    }

    /// At most this many, the last in path order; they are given in path order too.
    #[must_use]
    pub fn last(self, results: usize) -> Self {
        Self { count: Count::Last(results), ..self }
    }

    /// At most this many bytes of results, and never more than [`limits::FETCH_BYTES_MAX`]. A page
    /// holds one result at least, if there is one.
    #[must_use]
    pub fn maximum_result_bytes(self, bytes: usize) -> Self {
        Self { result_bytes_max: bytes.min(limits::FETCH_BYTES_MAX), ..self }
    }

    /// At most `results` from each branch whose root has `depth` segments: the first of it, or for
    /// [`Self::last`] the last. What is left out so does not make [`FetchPage::has_more`] true. With
    /// zero results there are only paths shorter than `depth`.
    #[must_use]
    pub fn limit_deep_branches(self, depth: usize, results: usize) -> Self {
        Self { deep_branches: Some(DeepBranches { depth, results }), ..self }
    }

    /// At most this many topics are looked at, and never more than [`limits::FETCH_VISITS_MAX`].
    #[must_use]
    pub fn maximum_visits(self, topics: usize) -> Self {
        Self { visits_max: topics.min(limits::FETCH_VISITS_MAX), ..self }
    }

    /// What it selects.
    #[must_use]
    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    /// As what values are asked for, if they are.
    #[must_use]
    pub fn values(&self) -> Option<ReadAs> {
        self.values
    }

    /// Properties are asked for.
    #[must_use]
    pub fn properties(&self) -> bool {
        self.properties
    }

    /// Sizes are asked for.
    #[must_use]
    pub fn sizes(&self) -> bool {
        self.sizes
    }

    /// The disjoint stretches of the path order that can hold results, in path order.
    #[must_use]
    pub fn ranges(&self) -> Vec<PathRange> {
        let asked = PathRange::new(self.start.clone(), self.end.clone());
        let mut ranges = self.selector.ranges();
        for range in &mut ranges {
            *range = range.intersection(&asked);
        }
        ranges.retain(|range| !range.is_empty());
        ranges
    }

    /// One page of results. `walk` gives the topics of a range in path order; it is called again
    /// for a smaller range when a branch has given all that it may.
    pub fn evaluate<'a, I>(&self, walk: impl Fn(PathRange) -> I) -> FetchPage
    where
        I: DoubleEndedIterator<Item = Candidate<'a>>,
    {
        let backward = matches!(self.count, Count::Last(_));
        let mut ranges = self.ranges();
        if backward {
            ranges.reverse();
        }
        let mut page = Page::new(self);
        for mut range in ranges {
            loop {
                let mut topics = walk(range.clone());
                let step = loop {
                    let next = if backward { topics.next_back() } else { topics.next() };
                    match next {
                        None => break Step::EndOfRange,
                        Some(candidate) => match page.visit(candidate) {
                            Step::Next => {}
                            other => break other,
                        },
                    }
                };
                match step {
                    Step::BranchIsFull(root) => {
                        range = if backward {
                            range.before_branch(&root)
                        } else {
                            range.after_branch(&root)
                        };
                    }
                    Step::PageIsFull => return page.finished(true, backward),
                    Step::Next | Step::EndOfRange => break,
                }
            }
        }
        page.finished(false, backward)
    }
}

/// A topic that may be a result.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// What never changes of it.
    pub info: &'a Arc<TopicInfo>,
    /// Its value; none when it has none.
    pub value: Option<&'a Bytes>,
}

/// One result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The topic.
    pub info: Arc<TopicInfo>,
    /// Its value, where values are asked for and it has one.
    pub value: Option<Bytes>,
    /// The size of its value in bytes, where sizes are asked for; zero when it has none.
    pub value_bytes: Option<usize>,
}

/// One page of results.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FetchPage {
    /// In path order.
    pub topics: Vec<Fetched>,
    /// There is more, or may be: the page was cut by the number or the size of results, or by the
    /// number of topics looked at.
    pub has_more: bool,
    /// The last path that was dealt with; the next page starts after it, or before it for
    /// [`FetchRequest::last`]. None when nothing was, or there is no more.
    pub resume: Option<TopicPath>,
    /// How many topics were looked at.
    pub visits: usize,
}

/// What to do after a candidate.
enum Step {
    Next,
    /// The branch of this root gives no more.
    BranchIsFull(TopicPath),
    PageIsFull,
    EndOfRange,
}

/// A page while it is filled.
struct Page<'r, 'a> {
    request: &'r FetchRequest,
    results: FetchPage,
    bytes: usize,
    /// The deep branch that was met last, and how many results it gave.
    branch: Option<(&'a str, usize)>,
    done: Option<&'a Arc<TopicInfo>>,
}

impl<'r, 'a> Page<'r, 'a> {
    fn new(request: &'r FetchRequest) -> Self {
        Self { request, results: FetchPage::default(), bytes: 0, branch: None, done: None }
    }

    fn visit(&mut self, candidate: Candidate<'a>) -> Step {
        if self.results.visits == self.request.visits_max {
            return Step::PageIsFull;
        }
        self.results.visits += 1;
        let path = candidate.info.path.as_str();
        if let Some(DeepBranches { depth, results }) = self.request.deep_branches {
            // Of a depth of zero, the one branch is the whole tree.
            let root = if depth == 0 { Some("") } else { path::first_segments(path, depth) };
            if let Some(root) = root {
                let given = match self.branch {
                    Some((met, given)) if met == root => given,
                    _ => 0,
                };
                self.branch = Some((root, given));
                if given >= results {
                    self.done = Some(candidate.info);
                    return match candidate.info.path.ancestor(depth) {
                        Some(root) => Step::BranchIsFull(root),
                        None => Step::EndOfRange,
                    };
                }
            } else {
                self.branch = None;
            }
        }
        if self.accepts(&candidate)
            && let Step::PageIsFull = self.take(candidate)
        {
            return Step::PageIsFull;
        }
        self.done = Some(candidate.info);
        Step::Next
    }

    fn accepts(&self, candidate: &Candidate<'_>) -> bool {
        let request = self.request;
        let topic_type = candidate.info.specification.topic_type();
        request.values.is_none_or(|read_as| read_as.reads(topic_type))
            && request.topic_types.as_ref().is_none_or(|types| types.contains(&topic_type))
            && request.selector.matches(&candidate.info.path)
    }

    fn take(&mut self, candidate: Candidate<'a>) -> Step {
        let request = self.request;
        let results = match request.count {
            Count::All => usize::MAX,
            Count::First(results) | Count::Last(results) => results,
        };
        let value = candidate.value.filter(|_| request.values.is_some());
        let mut bytes = RESULT_BYTES + candidate.info.path.as_str().len();
        bytes += value.map_or(0, Bytes::len);
        if request.properties {
            let properties = candidate.info.specification.properties();
            bytes += properties.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        }
        let taken = &mut self.results.topics;
        let too_large = !taken.is_empty() && self.bytes + bytes > request.result_bytes_max;
        if taken.len() >= results || too_large {
            return Step::PageIsFull;
        }
        self.bytes += bytes;
        let value_bytes = request.sizes.then(|| candidate.value.map_or(0, Bytes::len));
        let value = value.cloned();
        taken.push(Fetched { info: Arc::clone(candidate.info), value, value_bytes });
        if let Some((_, given)) = &mut self.branch {
            *given += 1;
        }
        Step::Next
    }

    fn finished(mut self, has_more: bool, backward: bool) -> FetchPage {
        if backward {
            self.results.topics.reverse();
        }
        self.results.has_more = has_more;
        self.results.resume = self.done.filter(|_| has_more).map(|info| info.path.clone());
        self.results
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::id::{Index, TopicId};
    use crate::domain::topic::specification::Specification;

    type Tree = BTreeMap<TopicPath, (Arc<TopicInfo>, Option<Bytes>)>;

    fn path(text: &str) -> TopicPath {
        TopicPath::parse(text).unwrap()
    }

    fn tree<'a>(
        topics: impl IntoIterator<Item = (&'a str, TopicType, Option<&'static str>)>,
    ) -> Tree {
        let topic = |(at, topic_type, value): (&str, TopicType, Option<&'static str>)| {
            let info = TopicInfo {
                id: TopicId(1),
                path: path(at),
                specification: Specification::plain(topic_type).into(),
                added: Index(1),
            };
            (path(at), (Arc::new(info), value.map(|text| Bytes::from_static(text.as_bytes()))))
        };
        topics.into_iter().map(topic).collect()
    }

    fn strings(paths: &[&str]) -> Tree {
        tree(paths.iter().map(|at| (*at, TopicType::String, Some("v"))))
    }

    fn fetch(tree: &Tree, request: &FetchRequest) -> FetchPage {
        request.evaluate(|range| {
            tree.range(range).map(|(_, (info, value))| Candidate { info, value: value.as_ref() })
        })
    }

    fn paths(page: &FetchPage) -> Vec<&str> {
        page.topics.iter().map(|topic| topic.info.path.as_str()).collect()
    }

    fn request(selector: &str) -> FetchRequest {
        FetchRequest::new(Selector::parse(selector).unwrap())
    }

    /// The topics are those of a well-known worked example. It lists y/y/y/y/3 before y/y/y/4, which
    /// no order by segments does that also has x/0 before x/x/1; ours is by segments throughout.
    #[test]
    fn deep_branches_give_their_first_results() {
        let tree = strings(&["x/0", "x/x/1", "x/x/x/2", "y/y/y/y/3", "y/y/y/4", "z/5", "z/z/6"]);
        let all = request("?.*//");
        for (depth, results, expected) in [
            (1, 1, &["x/0", "y/y/y/4", "z/5"][..]),
            (3, 0, &["x/0", "z/5"]),
            (1, 0, &[]),
            (2, 1, &["x/0", "x/x/1", "y/y/y/4", "z/5", "z/z/6"]),
            (9, 1, &["x/0", "x/x/1", "x/x/x/2", "y/y/y/4", "y/y/y/y/3", "z/5", "z/z/6"]),
            (0, 2, &["x/0", "x/x/1"]),
        ] {
            let page = fetch(&tree, &all.clone().limit_deep_branches(depth, results));
            assert_eq!(paths(&page), expected, "({depth}, {results})");
            assert!(!page.has_more);
        }
        let last = all.limit_deep_branches(1, 1).last(2);
        let page = fetch(&tree, &last);
        assert_eq!((paths(&page), page.has_more), (vec!["y/y/y/y/3", "z/z/6"], true));
    }

    #[test]
    fn full_branches_are_not_walked() {
        let names: Vec<String> = (0..1000).map(|n| format!("{}/{n}", n % 4)).collect();
        let tree = strings(&names.iter().map(String::as_str).collect::<Vec<_>>());
        for request in [request("?.*//"), request("?.*//").last(100)] {
            let page = fetch(&tree, &request.limit_deep_branches(1, 2));
            assert_eq!((page.topics.len(), page.has_more), (8, false));
            assert!(page.visits <= 12, "{}", page.visits);
        }
    }

    #[test]
    fn bounds_are_in_path_order_and_the_later_of_a_pair_counts() {
        let tree = strings(&["a", "a/b", "a!", "b", "c"]);
        let all = request("?.*//");
        for (request, expected) in [
            (all.clone(), &["a", "a/b", "a!", "b", "c"][..]),
            (all.clone().from(path("a/b")), &["a/b", "a!", "b", "c"]),
            (all.clone().after(path("a")), &["a/b", "a!", "b", "c"]),
            (all.clone().from(path("a/a")).to(path("b")), &["a/b", "a!", "b"]),
            (all.clone().before(path("a!")), &["a", "a/b"]),
            (all.clone().from(path("c")).after(path("b")), &["c"]),
            (all.clone().after(path("a")).from(path("a")).before(path("b")).to(path("a")), &["a"]),
            (all.clone().from(path("b")).to(path("a")), &[]),
            (all.after(path("b")).before(path("b")), &[]),
        ] {
            assert_eq!(paths(&fetch(&tree, &request)), expected, "{request:?}");
        }
    }

    #[test]
    fn first_and_last_cut_and_say_so() {
        let tree = strings(&["a", "b", "c", "d"]);
        let all = request("#a////b////d");
        for (request, expected, has_more) in [
            (all.clone().first(2), &["a", "b"][..], true),
            (all.clone().last(2), &["b", "d"], true),
            (all.clone().first(3), &["a", "b", "d"], false),
            (all.clone().last(9), &["a", "b", "d"], false),
            (all.clone().first(1).last(1), &["d"], true),
            (all.first(0), &[], true),
            (request("x").first(0), &[], false),
        ] {
            let page = fetch(&tree, &request);
            assert_eq!((paths(&page), page.has_more), (expected.to_vec(), has_more), "{request:?}");
        }
    }

    #[test]
    fn values_and_sizes_come_when_asked_for() {
        let tree = tree([
            ("binary", TopicType::Binary, Some("12")),
            ("empty", TopicType::String, None),
            ("json", TopicType::Json, Some("{}")),
            ("string", TopicType::String, Some("abc")),
        ]);
        let all = request("?.*//");
        assert!(fetch(&tree, &all).topics.iter().all(|topic| topic.value.is_none()));
        let types = |types: &[TopicType]| types.iter().copied().collect::<BTreeSet<_>>();
        for (read_as, expected) in [
            (ReadAs::Bytes, &["binary", "empty", "json", "string"][..]),
            (ReadAs::Json, &["empty", "json", "string"]),
            (ReadAs::Exactly(TopicType::String), &["empty", "string"]),
            (ReadAs::Exactly(TopicType::Double), &[]),
        ] {
            let page = fetch(&tree, &all.clone().with_values(read_as).unwrap());
            assert_eq!(paths(&page), expected, "{read_as:?}");
            let value_of = |topic: &Fetched| tree[&topic.info.path].1.clone();
            assert!(page.topics.iter().all(|topic| topic.value == value_of(topic)));
        }
        let sized = fetch(&tree, &all.clone().with_sizes());
        let sizes: Vec<_> = sized.topics.iter().map(|topic| topic.value_bytes).collect();
        assert_eq!(sizes, [Some(2), Some(0), Some(2), Some(3)]);
        let only = all.clone().topic_types(types(&[TopicType::Json, TopicType::Binary])).unwrap();
        assert_eq!(paths(&fetch(&tree, &only)), ["binary", "json"]);
        assert_eq!(
            only.with_values(ReadAs::Json).unwrap_err().to_string(),
            "values of binary topics cannot be read as json"
        );
        assert_eq!(all.topic_types(types(&[])), Err(FetchError::NoTypes));
    }

    #[test]
    fn size_and_visits_cut_pages_but_never_the_first_result() {
        let long = "x".repeat(1000);
        let names = ["a", "b", "c"].map(|name| format!("{name}{long}"));
        let tree = strings(&names.each_ref().map(String::as_str));
        for (bytes, expected) in
            [(0, 1), (2000, 1), (2 * (1001 + RESULT_BYTES), 2), (usize::MAX, 3)]
        {
            let page = fetch(&tree, &request("?.*//").maximum_result_bytes(bytes));
            assert_eq!((page.topics.len(), page.has_more), (expected, expected < 3), "{bytes}");
        }
        let page = fetch(&tree, &request("?c.*").maximum_visits(0));
        assert_eq!((page.topics.len(), page.has_more, page.resume), (0, true, None));
        let page = fetch(&tree, &request("?(a|c).*").maximum_visits(2));
        assert_eq!((page.topics.len(), page.has_more), (1, true));
        assert_eq!(page.resume, Some(path(&names[1])));
    }

    /// The same by filtering everything.
    fn slowly(
        tree: &Tree,
        selector: &Selector,
        deep: Option<(usize, usize)>,
        last: bool,
    ) -> Vec<String> {
        let mut given: BTreeMap<String, usize> = BTreeMap::new();
        let mut matching: Vec<_> = tree.keys().filter(|path| selector.matches(path)).collect();
        if last {
            matching.reverse();
        }
        let mut kept: Vec<String> = matching
            .into_iter()
            .filter(|path| {
                let Some((depth, results)) = deep.filter(|(depth, _)| path.depth() >= *depth)
                else {
                    return true;
                };
                let root: Vec<&str> = path.segments().take(depth).collect();
                let given = given.entry(root.join("/")).or_default();
                *given += 1;
                *given <= results
            })
            .map(TopicPath::to_string)
            .collect();
        if last {
            kept.reverse();
        }
        kept
    }

    proptest! {
        #[test]
        fn pages_join_to_the_whole(
            paths in prop::collection::btree_set("[ab](/[ab!]){0,3}", 0..20),
            selector in prop::sample::select(vec!["?.*//", "?a//", "?.*/b//", "*.*b", "#a////?b/a/"]),
            page_size in 1..4_usize, last: bool, visits in 1..5_usize,
        ) {
            let tree = strings(&paths.iter().map(String::as_str).collect::<Vec<_>>());
            let request = request(selector).maximum_visits(visits);
            let mut request = if last { request.last(page_size) } else { request.first(page_size) };
            let mut found = Vec::new();
            loop {
                let page = fetch(&tree, &request);
                let names = page.topics.iter().map(|topic| topic.info.path.to_string());
                if last {
                    found.splice(0..0, names);
                } else {
                    found.extend(names);
                }
                let Some(resume) = page.resume else { break };
                request = if last { request.before(resume) } else { request.after(resume) };
            }
            let selector = Selector::parse(selector).unwrap();
            prop_assert_eq!(found, slowly(&tree, &selector, None, last));
        }

        #[test]
        fn deep_branches_are_limited(
            paths in prop::collection::btree_set("[ab](/[ab!]){0,3}", 0..20),
            selector in prop::sample::select(vec!["?.*//", "?a//", "?.*/b//", "*.*b", "#a////?b/a/"]),
            depth in 0..4_usize, results in 0..3_usize, last: bool,
        ) {
            let tree = strings(&paths.iter().map(String::as_str).collect::<Vec<_>>());
            let request = request(selector).limit_deep_branches(depth, results);
            let request = if last { request.last(100) } else { request };
            let page = fetch(&tree, &request);
            let selector = Selector::parse(selector).unwrap();
            let expected = slowly(&tree, &selector, Some((depth, results)), last);
            let found: Vec<&str> = page.topics.iter().map(|topic| topic.info.path.as_str()).collect();
            prop_assert_eq!(found, expected);
            prop_assert!(!page.has_more);
        }
    }
}
