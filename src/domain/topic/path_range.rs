//! Contiguous stretches of the path order, for walks of the topic tree.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Bound, RangeBounds};

use super::path::{self, TopicPath};

/// A contiguous stretch of the path order. Its ends are places in that order: no topic needs to
/// stand there, and the text of an end may be longer than a topic's path can be.
#[derive(Clone, PartialEq, Eq)]
pub struct PathRange {
    start: Bound<TopicPath>,
    end: Bound<TopicPath>,
}

impl PathRange {
    /// The whole tree.
    pub const ALL: Self = Self { start: Bound::Unbounded, end: Bound::Unbounded };

    /// From `start` to `end`; empty when they stand in the wrong order.
    #[must_use]
    pub fn new(start: Bound<TopicPath>, end: Bound<TopicPath>) -> Self {
        let range = Self { start, end };
        if range.is_empty() { Self::empty() } else { range }
    }

    /// One path alone.
    #[must_use]
    pub fn exactly(path: &TopicPath) -> Self {
        Self { start: Bound::Included(path.clone()), end: Bound::Included(path.clone()) }
    }

    /// A path and everything below it.
    #[must_use]
    pub fn branch(path: &TopicPath) -> Self {
        Self { start: Bound::Included(path.clone()), end: branch_end(path.as_str()) }
    }

    /// Everything strictly below a path.
    #[must_use]
    pub fn below(path: &TopicPath) -> Self {
        Self { start: Bound::Excluded(path.clone()), end: branch_end(path.as_str()) }
    }

    /// Every path whose text begins with `text`: the smallest stretch that holds them all. The text
    /// may end inside a segment or with a slash; what no path begins with gives an empty range.
    #[must_use]
    pub fn beginning_with(text: &str) -> Self {
        if text.is_empty() {
            return Self::ALL;
        }
        let open = text.strip_suffix('/');
        if open.unwrap_or(text).split('/').any(str::is_empty) {
            return Self::empty();
        }
        match open {
            Some(parent) => Self::below(&TopicPath::bound(parent)),
            None => Self { start: Bound::Included(TopicPath::bound(text)), end: successor(text) },
        }
    }

    /// The stretch that holds nothing.
    #[must_use]
    pub fn empty() -> Self {
        let nowhere = TopicPath::bound("\0");
        Self { start: Bound::Included(nowhere.clone()), end: Bound::Excluded(nowhere) }
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let start = match compare_starts(&self.start, &other.start) {
            Ordering::Less => &other.start,
            _ => &self.start,
        };
        let end = match compare_ends(&self.end, &other.end) {
            Ordering::Greater => &other.end,
            _ => &self.end,
        };
        Self::new(start.clone(), end.clone())
    }

    /// The smallest stretch that holds both.
    #[must_use]
    pub fn hull(&self, other: &Self) -> Self {
        if self.is_empty() {
            return other.clone();
        }
        if other.is_empty() {
            return self.clone();
        }
        let start = match compare_starts(&self.start, &other.start) {
            Ordering::Greater => &other.start,
            _ => &self.start,
        };
        let end = match compare_ends(&self.end, &other.end) {
            Ordering::Less => &other.end,
            _ => &self.end,
        };
        Self { start: start.clone(), end: end.clone() }
    }

    /// It certainly holds no path: its start lies behind its end.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match (&self.start, &self.end) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(start), Bound::Included(end)) => start > end,
            (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end))
            | (Bound::Excluded(start), Bound::Included(end)) => start >= end,
        }
    }

    /// The same stretch without what lies up to and in the branch `branch`, for a forward walk that
    /// is done with it.
    #[must_use]
    pub fn after_branch(&self, branch: &TopicPath) -> Self {
        let start = match branch_end(branch.as_str()) {
            Bound::Excluded(end) => Bound::Included(end),
            other => other,
        };
        self.intersection(&Self { start, end: Bound::Unbounded })
    }

    /// The same stretch without the branch `branch` and what lies behind it, for a backward walk
    /// that is done with it.
    #[must_use]
    pub fn before_branch(&self, branch: &TopicPath) -> Self {
        self.intersection(&Self { start: Bound::Unbounded, end: Bound::Excluded(branch.clone()) })
    }

    /// Sorted, with what overlaps or touches merged and what is empty left out.
    pub(crate) fn merged(mut ranges: Vec<Self>) -> Vec<Self> {
        ranges.retain(|range| !range.is_empty());
        ranges.sort_by(|left, right| {
            compare_starts(&left.start, &right.start).then(compare_ends(&left.end, &right.end))
        });
        let mut merged: Vec<Self> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if !starts_beyond(&range.start, &last.end) => *last = last.hull(&range),
                _ => merged.push(range),
            }
        }
        merged
    }
}

impl RangeBounds<TopicPath> for PathRange {
    fn start_bound(&self) -> Bound<&TopicPath> {
        self.start.as_ref()
    }

    fn end_bound(&self) -> Bound<&TopicPath> {
        self.end.as_ref()
    }
}

impl fmt::Debug for PathRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.start {
            Bound::Unbounded => formatter.write_str("(")?,
            Bound::Included(path) => write!(formatter, "[{:?}", path.as_str())?,
            Bound::Excluded(path) => write!(formatter, "({:?}", path.as_str())?,
        }
        formatter.write_str(" .. ")?;
        match &self.end {
            Bound::Unbounded => formatter.write_str(")"),
            Bound::Included(path) => write!(formatter, "{:?}]", path.as_str()),
            Bound::Excluded(path) => write!(formatter, "{:?})", path.as_str()),
        }
    }
}

/// The first place behind a branch: a slash sorts below every character, and the zero character
/// next.
fn branch_end(path: &str) -> Bound<TopicPath> {
    Bound::Excluded(TopicPath::bound(&format!("{path}\0")))
}

/// The first place behind all texts that begin with `text`, which does not end with a slash.
fn successor(text: &str) -> Bound<TopicPath> {
    let mut rest = text.to_owned();
    while let Some(last) = rest.pop() {
        let next = match last {
            '/' => Some('\0'),
            '.' => Some('0'),
            '\u{d7ff}' => Some('\u{e000}'),
            other => char::from_u32(u32::from(other) + 1),
        };
        if let Some(next) = next {
            rest.push(next);
            return Bound::Excluded(TopicPath::bound(&rest));
        }
    }
    Bound::Unbounded
}

fn compare_starts(left: &Bound<TopicPath>, right: &Bound<TopicPath>) -> Ordering {
    match (left, right) {
        (Bound::Unbounded, Bound::Unbounded) => Ordering::Equal,
        (Bound::Unbounded, _) => Ordering::Less,
        (_, Bound::Unbounded) => Ordering::Greater,
        (Bound::Included(left), Bound::Excluded(right)) => left.cmp(right).then(Ordering::Less),
        (Bound::Excluded(left), Bound::Included(right)) => left.cmp(right).then(Ordering::Greater),
        (Bound::Included(left), Bound::Included(right))
        | (Bound::Excluded(left), Bound::Excluded(right)) => left.cmp(right),
    }
}

fn compare_ends(left: &Bound<TopicPath>, right: &Bound<TopicPath>) -> Ordering {
    match (left, right) {
        (Bound::Unbounded, Bound::Unbounded) => Ordering::Equal,
        (Bound::Unbounded, _) => Ordering::Greater,
        (_, Bound::Unbounded) => Ordering::Less,
        (Bound::Included(left), Bound::Excluded(right)) => left.cmp(right).then(Ordering::Greater),
        (Bound::Excluded(left), Bound::Included(right)) => left.cmp(right).then(Ordering::Less),
        (Bound::Included(left), Bound::Included(right))
        | (Bound::Excluded(left), Bound::Excluded(right)) => left.cmp(right),
    }
}

/// There is at least one place between `end` and `start` that neither holds.
fn starts_beyond(start: &Bound<TopicPath>, end: &Bound<TopicPath>) -> bool {
    match (start, end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Excluded(start), Bound::Excluded(end)) => start >= end,
        (
            Bound::Included(start) | Bound::Excluded(start),
            Bound::Included(end) | Bound::Excluded(end),
        ) => path::compare(start.as_str(), end.as_str()) == Ordering::Greater,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TopicPath {
        TopicPath::parse(text).unwrap()
    }

    const PATHS: [&str; 14] = [
        "a",
        "a/a",
        "a/b",
        "a/b/c",
        "a/b.",
        "a/b0",
        "a/bc",
        "a/c",
        "a.",
        "a0",
        "b",
        "b/\u{10ffff}",
        "\u{d7ff}x",
        "\0",
    ];

    fn held(range: &PathRange) -> Vec<&'static str> {
        PATHS.into_iter().filter(|text| range.contains(&path(text))).collect()
    }

    #[test]
    fn a_branch_is_one_stretch() {
        assert_eq!(held(&PathRange::branch(&path("a/b"))), ["a/b", "a/b/c"]);
        assert_eq!(held(&PathRange::below(&path("a"))), &PATHS[1..8]);
        assert_eq!(held(&PathRange::exactly(&path("a"))), ["a"]);
        assert_eq!(held(&PathRange::ALL), PATHS);
        assert!(held(&PathRange::empty()).is_empty());
    }

    #[test]
    fn a_beginning_is_one_stretch_without_strangers() {
        for text in
            ["", "a", "a/", "a/b", "a.", "a/b.", "\u{d7ff}", "b/\u{10ffff}", "/", "a//", "\0"]
        {
            let range = PathRange::beginning_with(text);
            let expected: Vec<_> = PATHS.into_iter().filter(|p| p.starts_with(text)).collect();
            assert_eq!(held(&range), expected, "{text:?}");
        }
    }

    #[test]
    fn ranges_meet_and_join() {
        let branch = PathRange::branch(&path("a/b"));
        let from = PathRange::new(Bound::Included(path("a/b/c")), Bound::Unbounded);
        assert_eq!(held(&branch.intersection(&from)), ["a/b/c"]);
        assert_eq!(held(&branch.hull(&PathRange::exactly(&path("a/c")))), PATHS[2..8]);
        assert_eq!(branch.hull(&PathRange::empty()), branch);
        let apart = branch.intersection(&PathRange::branch(&path("b")));
        assert!(apart.is_empty());
        assert_eq!(apart, PathRange::empty());
        assert_eq!(
            held(&PathRange::ALL.after_branch(&path("a"))),
            ["a.", "a0", "b", "b/\u{10ffff}", "\u{d7ff}x"]
        );
        assert_eq!(held(&PathRange::ALL.before_branch(&path("a/a"))), ["a", "\0"]);
    }

    #[test]
    fn merging_leaves_disjoint_ranges_in_order() {
        let ranges = ["b", "a/b", "a", "a.", "a/b/c"].map(|text| PathRange::branch(&path(text)));
        let merged = PathRange::merged(ranges.to_vec());
        let expected = ["a", "a.", "b"].map(|text| PathRange::branch(&path(text)));
        assert_eq!(merged, expected);
        let touching = vec![PathRange::exactly(&path("a")), PathRange::below(&path("a"))];
        assert_eq!(PathRange::merged(touching), [PathRange::branch(&path("a"))]);
    }
}
