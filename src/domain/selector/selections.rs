//! What a session has selected: an ordered list of select and deselect entries per scope.

use std::collections::BTreeMap;

use super::{Selector, SelectorError};
use crate::domain::topic::path::TopicPath;

/// One entry of a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// False: it subtracts.
    pub select: bool,
    /// What it is about.
    pub selector: Selector,
}

/// What a session has selected. In a scope the last entry that matches a path decides; a session
/// has a topic when at least one scope does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selections {
    scopes: BTreeMap<String, Vec<Selection>>,
    entries: usize,
}

/// Why an entry was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionsError {
    /// Over [`SELECTIONS_MAX`](crate::domain::limits::SELECTIONS_MAX) entries.
    #[error("too many selections")]
    TooMany,
    /// The scope's name is not legal.
    #[error("the scope is not legal")]
    IllegalScope,
    /// The selector cannot be parsed.
    #[error(transparent)]
    Selector(#[from] SelectorError),
}

impl Selections {
    /// Adds an entry to a scope (the default scope is empty) and drops what it makes superfluous.
    /// True when the selections are others than before.
    ///
    /// # Errors
    /// [`SelectionsError`]; nothing is changed then.
    pub fn add(
        &mut self,
        scope: &str,
        select: bool,
        selector: Selector,
    ) -> Result<bool, SelectionsError> {
        unimplemented!("{scope} {select} {selector}")
    }

    /// At least one scope selects the path.
    #[must_use]
    pub fn matches(&self, path: &TopicPath) -> bool {
        self.matches_str(path.as_str())
    }

    /// At least one scope selects the path with this text.
    #[must_use]
    pub fn matches_str(&self, path: &str) -> bool {
        unimplemented!("{path}")
    }

    /// Nothing is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Entries over all scopes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries
    }

    /// The scopes in order of their names, each with its entries in order. Adding them again in
    /// this order gives equal selections.
    pub fn scopes(&self) -> impl Iterator<Item = (&str, &[Selection])> {
        self.scopes.iter().map(|(scope, entries)| (scope.as_str(), entries.as_slice()))
    }
}
