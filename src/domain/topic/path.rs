//! Topic paths.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use crate::domain::limits;

/// A legal topic path: segments of one or more characters, joined by `/`.
///
/// Ordered by segments, so a topic's descendants follow it without a gap: `a`, `a/b`, `a!`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TopicPath(Arc<str>);

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
}

impl Ord for TopicPath {
    fn cmp(&self, other: &Self) -> Ordering {
        // A slash sorts below every other byte: this is the order by segments without splitting.
        let rank = |byte: &u8| if *byte == b'/' { 0 } else { u16::from(*byte) + 1 };
        self.0.as_bytes().iter().map(rank).cmp(other.0.as_bytes().iter().map(rank))
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
    fn illegal_paths_are_refused() {
        let long = "x".repeat(limits::PATH_BYTES_MAX + 1);
        for text in ["", "/", "/a", "a/", "a//b", &long] {
            assert!(TopicPath::parse(text).is_err(), "{text:.20}");
        }
        assert!(TopicPath::parse(&long[1..]).is_ok());
    }
}
