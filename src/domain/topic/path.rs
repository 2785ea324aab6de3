//! Topic paths.

use std::cmp::Ordering;
use std::fmt;

use smol_str::SmolStr;

use crate::domain::limits;

/// A legal topic path: segments of one or more characters, joined by `/`. Short ones need no
/// allocation; clones of longer ones share theirs.
///
/// Ordered by segments, so a topic's descendants follow it without a gap: `a`, `a/b`, `a!`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TopicPath(SmolStr);

/// Why a text is no topic path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing at all.
    #[error("a topic path cannot be empty")]
    Empty,
    /// Longer than [`limits::PATH_BYTES_MAX`].
    #[error("a topic path of {bytes} bytes is over the limit of {}", limits::PATH_BYTES_MAX)]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// Two slashes in a row, or one at either end.
    #[error("topic path {path:?} has an empty segment at byte {at}")]
    EmptySegment {
        /// What was given.
        path: String,
        /// Where.
        at: usize,
    },
}

impl TopicPath {
    /// The only way to a path.
    ///
    /// # Errors
    /// [`PathError`] names what is wrong.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.len() > limits::PATH_BYTES_MAX {
            return Err(PathError::TooLong { bytes: text.len() });
        }
        let mut at = 0;
        for segment in text.split('/') {
            if segment.is_empty() {
                return Err(PathError::EmptySegment { path: text.to_owned(), at });
            }
            at += segment.len() + 1;
        }
        Ok(Self(text.into()))
    }

    /// The path's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its segments, at least one.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// How many segments it has, at least one.
    #[must_use]
    pub fn depth(&self) -> usize {
        depth(&self.0)
    }

    /// The path above it; none for a path of one segment.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.0.rfind('/').and_then(|at| self.0.get(..at)).map(|text| Self(text.into()))
    }

    /// Its first `depth` segments; none when it has fewer, or for a depth of zero.
    #[must_use]
    pub fn ancestor(&self, depth: usize) -> Option<Self> {
        first_segments(&self.0, depth).map(|text| Self(text.into()))
    }

    /// It is `branch` itself or stands somewhere below it.
    #[must_use]
    pub fn is_in_branch(&self, branch: &Self) -> bool {
        is_in_branch(&self.0, &branch.0)
    }

    /// A place in path order that need not be a legal topic path: it may be over the length limit,
    /// but has no empty segment. Only bounds of a [`PathRange`](super::path_range::PathRange) are
    /// made like this.
    pub(super) fn bound(text: &str) -> Self {
        Self(text.into())
    }
}

/// How many segments the path has.
pub(crate) fn depth(path: &str) -> usize {
    path.bytes().filter(|byte| *byte == b'/').count() + 1
}

/// The text of the path's first `depth` segments; none when it has fewer, or for zero.
pub(crate) fn first_segments(path: &str, depth: usize) -> Option<&str> {
    let last = depth.checked_sub(1)?;
    match path.match_indices('/').nth(last) {
        Some((at, _)) => path.get(..at),
        None => (self::depth(path) == depth).then_some(path),
    }
}

/// `path` is `branch` or stands below it.
pub(crate) fn is_in_branch(path: &str, branch: &str) -> bool {
    path.strip_prefix(branch).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The order of paths: by segments, each compared as bytes.
pub(crate) fn compare(left: &str, right: &str) -> Ordering {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    // Neighbours in a tree share long beginnings, so those are skipped eight bytes at a time.
    let equal = left
        .as_chunks::<8>()
        .0
        .iter()
        .zip(right.as_chunks::<8>().0)
        .take_while(|(one, other)| one == other)
        .count()
        * 8;
    let (left, right) = (left.get(equal..).unwrap_or(&[]), right.get(equal..).unwrap_or(&[]));
    // A slash sorts below every other byte: this is the order by segments without splitting.
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { u16::from(*byte) + 1 };
    left.iter().map(rank).cmp(right.iter().map(rank))
}

impl Ord for TopicPath {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for TopicPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TopicPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for TopicPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TopicPath({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_by_segments() {
        let mut paths = ["a!", "a/b/c", "b", "a/b", "a", "a/b!", "a/a"]
            .map(|text| TopicPath::parse(text).unwrap());
        paths.sort();
        assert_eq!(
            paths.each_ref().map(TopicPath::as_str),
            ["a", "a/a", "a/b", "a/b/c", "a/b!", "a!", "b"]
        );
    }

    #[test]
    fn a_path_knows_its_branch() {
        let path = TopicPath::parse("a/bc/d").unwrap();
        assert_eq!(path.depth(), 3);
        assert_eq!(path.parent(), Some(TopicPath::parse("a/bc").unwrap()));
        assert_eq!(TopicPath::parse("a").unwrap().parent(), None);
        let ancestors =
            [0, 1, 2, 3, 4].map(|depth| path.ancestor(depth).map(|found| found.to_string()));
        assert_eq!(
            ancestors,
            [None, Some("a".into()), Some("a/bc".into()), Some("a/bc/d".into()), None]
        );
        for (branch, expected) in [("a", true), ("a/b", false), ("a/bc/d", true), ("bc", false)] {
            assert_eq!(path.is_in_branch(&TopicPath::parse(branch).unwrap()), expected, "{branch}");
        }
    }

    #[test]
    fn order_of_long_paths_is_the_order_of_their_segments() {
        let texts =
            ["aaaaaaaa/b", "aaaaaaaa", "aaaaaaaaa", "aaaaaaaa/b/c", "aaaaaaa/z", "aaaaaaaé"];
        for left in texts {
            for right in texts {
                let expected = left.split('/').cmp(right.split('/'));
                assert_eq!(compare(left, right), expected, "{left} against {right}");
            }
        }
    }

    #[test]
    fn illegal_paths_are_refused() {
        let long = "x".repeat(limits::PATH_BYTES_MAX + 1);
        for text in ["", "/", "/a", "a/", "a//b", &long] {
            assert!(TopicPath::parse(text).is_err(), "{text:.20}");
        }
        assert!(TopicPath::parse(&long[1..]).is_ok());
    }
}
