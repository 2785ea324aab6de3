//! Topic selectors: which topics somebody means.

mod selections;

pub use selections::{Selection, Selections, SelectionsError};

use std::fmt;
use std::sync::Arc;

use super::topic::path::TopicPath;
use super::topic::path_range::PathRange;

/// A parsed selector. Cheap to clone; equal and ordered by its canonical text.
#[derive(Clone)]
pub struct Selector {
    text: Arc<str>,
}

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Nothing at all.
    #[error("a selector cannot be empty")]
    Empty,
}

impl Selector {
    /// Parses a selector in any of its forms.
    ///
    /// # Errors
    /// [`SelectorError`] names the text, the place and the way out.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        unimplemented!("{text}")
    }

    /// The whole tree: `?.*//`.
    #[must_use]
    pub fn everything() -> Self {
        unimplemented!()
    }

    /// The path alone: `>path`.
    #[must_use]
    pub fn path(path: &TopicPath) -> Self {
        unimplemented!("{path}")
    }

    /// The canonical text; parsing it gives an equal selector.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// It selects this topic.
    #[must_use]
    pub fn matches(&self, path: &TopicPath) -> bool {
        self.matches_str(path.as_str())
    }

    /// It selects the topic at `path`, the text of a legal path.
    #[must_use]
    pub fn matches_str(&self, path: &str) -> bool {
        unimplemented!("{path}")
    }

    /// The literal path that everything it selects is at or below; none is the root.
    #[must_use]
    pub fn prefix(&self) -> Option<&TopicPath> {
        unimplemented!()
    }

    /// The smallest stretch of the path order that holds all it can select.
    #[must_use]
    pub fn range(&self) -> PathRange {
        unimplemented!()
    }

    /// Disjoint stretches in path order that hold all it can select: one per member of a set where
    /// they do not overlap.
    #[must_use]
    pub fn ranges(&self) -> Vec<PathRange> {
        unimplemented!()
    }

    /// It certainly selects every topic that `other` selects. No means: not proven.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        unimplemented!("{other:?}")
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Selector {}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Selector({})", self.text)
    }
}
