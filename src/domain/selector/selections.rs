//! What a session has selected: an ordered list of select and deselect entries per scope.
//!
//! In a scope the last entry that matches a path decides. The lists are kept short: an entry that
//! can no longer decide anything is dropped.

use std::collections::BTreeMap;

use super::Selector;
use crate::domain::limits;
use crate::domain::topic::path::TopicPath;

/// One entry of a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// False: it subtracts.
    pub select: bool,
    /// What it is about.
    pub selector: Selector,
}

/// What a session has selected. It has a topic when at least one of its scopes selects it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selections {
    /// No scope is empty, none begins with a deselect entry.
    scopes: BTreeMap<String, Vec<Selection>>,
}

/// Why an entry was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionsError {
    /// It would be one more than [`limits::SELECTIONS_MAX`].
    #[error("a session holds at most {} selections", limits::SELECTIONS_MAX)]
    TooMany,
    /// Their expressions would take more than [`limits::SELECTIONS_COMPILED_BYTES_MAX`].
    #[error("the session's selections hold too many or too large regular expressions")]
    TooComplex,
    /// Names that begin with a dollar sign are reserved; others have at most
    /// [`limits::SCOPE_BYTES_MAX`].
    #[error(
        "selection scope {scope:?} begins with $ or is longer than {} bytes",
        limits::SCOPE_BYTES_MAX
    )]
    IllegalScope {
        /// What was given, at most its first 64 characters.
        scope: String,
    },
}

impl Selections {
    /// Adds an entry to a scope (the default scope is empty) and drops what it makes superfluous:
    /// earlier entries that it covers, and deselect entries with nothing before them. Deselecting
    /// the whole tree so deletes the scope. True when something is selected or deselected by an
    /// entry that was not there before.
    ///
    /// # Errors
    /// [`SelectionsError`]; nothing is changed then.
    pub fn add(
        &mut self,
        scope: &str,
        select: bool,
        selector: Selector,
    ) -> Result<bool, SelectionsError> {
        check_scope(scope)?;
        let before = self.scopes.get(scope).map_or(&[][..], Vec::as_slice);
        if is_superfluous(before, select, &selector) {
            return Ok(false);
        }
        let others = self.len() - before.len();
        let mut after: Vec<Selection> =
            before.iter().filter(|entry| !selector.covers(&entry.selector)).cloned().collect();
        after.push(Selection { select, selector });
        let idle = after.iter().take_while(|entry| !entry.select).count();
        after.drain(..idle);
        if others + after.len() > limits::SELECTIONS_MAX {
            return Err(SelectionsError::TooMany);
        }
        let compiled_bytes = |entries: &[Selection]| -> usize {
            entries.iter().map(|entry| entry.selector.compiled_bytes()).sum()
        };
        let all: usize = self.scopes.values().map(|entries| compiled_bytes(entries)).sum();
        let kept = all - compiled_bytes(before) + compiled_bytes(&after);
        // What only shrinks is always taken.
        if kept > limits::SELECTIONS_COMPILED_BYTES_MAX && kept > all {
            return Err(SelectionsError::TooComplex);
        }
        if after.is_empty() {
            self.scopes.remove(scope);
        } else {
            self.scopes.insert(scope.to_owned(), after);
        }
        Ok(true)
    }

    /// Puts back an entry of saved selections, in the order that [`Self::scopes`] gives. Unlike
    /// [`Self::add`] it drops nothing: an entry may have become superfluous after it was added, and
    /// restored selections must equal the saved ones.
    ///
    /// # Errors
    /// [`SelectionsError`] when the scope's name or the number of entries is not legal.
    pub fn restore(
        &mut self,
        scope: &str,
        select: bool,
        selector: Selector,
    ) -> Result<(), SelectionsError> {
        check_scope(scope)?;
        if self.len() == limits::SELECTIONS_MAX {
            return Err(SelectionsError::TooMany);
        }
        let entries = self.scopes.entry(scope.to_owned()).or_default();
        entries.push(Selection { select, selector });
        Ok(())
    }

    /// Subtracts a selector in every scope. True when there was something to subtract from.
    ///
    /// # Errors
    /// [`SelectionsError`]; nothing is changed then.
    pub fn deselect_in_all_scopes(&mut self, selector: &Selector) -> Result<bool, SelectionsError> {
        let mut next = self.clone();
        let mut changed = false;
        for scope in self.scopes.keys() {
            changed |= next.add(scope, false, selector.clone())?;
        }
        *self = next;
        Ok(changed)
    }

    /// At least one scope selects the path.
    #[must_use]
    pub fn matches(&self, path: &TopicPath) -> bool {
        self.matches_str(path.as_str())
    }

    /// At least one scope selects the path with this text.
    #[must_use]
    pub fn matches_str(&self, path: &str) -> bool {
        self.scopes.values().any(|entries| {
            let deciding = entries.iter().rev().find(|entry| entry.selector.matches_str(path));
            deciding.is_some_and(|entry| entry.select)
        })
    }

    /// Nothing is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scopes.is_empty()
    }

    /// Entries over all scopes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.scopes.values().map(Vec::len).sum()
    }

    /// The scopes in order of their names, each with its entries in order.
    pub fn scopes(&self) -> impl Iterator<Item = (&str, &[Selection])> {
        self.scopes.iter().map(|(scope, entries)| (scope.as_str(), entries.as_slice()))
    }
}

fn check_scope(scope: &str) -> Result<(), SelectionsError> {
    if scope.starts_with('$') || scope.len() > limits::SCOPE_BYTES_MAX {
        return Err(SelectionsError::IllegalScope { scope: scope.chars().take(64).collect() });
    }
    Ok(())
}

/// The entry says nothing new: one of the same sign covers it and none of the other sign comes
/// later, or there is nothing to subtract from.
fn is_superfluous(entries: &[Selection], select: bool, selector: &Selector) -> bool {
    let same_sign = entries.iter().rev().take_while(|entry| entry.select == select);
    let nothing_selected = !select && entries.is_empty();
    nothing_selected || same_sign.into_iter().any(|entry| entry.selector.covers(selector))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn selector(text: &str) -> Selector {
        Selector::parse(text).unwrap()
    }

    /// Adds entries such as `+?a//` and `-a/b`; gives what is left, written the same way.
    fn added(entries: &[&str]) -> (Selections, Vec<String>) {
        let mut selections = Selections::default();
        for entry in entries {
            let (sign, text) = entry.split_at(1);
            selections.add("", sign == "+", selector(text)).unwrap();
        }
        let left = selections
            .scopes()
            .flat_map(|(_, entries)| entries)
            .map(|entry| format!("{}{}", if entry.select { "+" } else { "-" }, entry.selector))
            .collect();
        (selections, left)
    }

    #[test]
    fn later_entries_decide_and_drop_what_they_cover() {
        for (entries, expected) in [
            (&["+a", "+a"][..], &["+>a"][..]),
            (&["+a", "-a"], &[]),
            (&["-a"], &[]),
            (&["+?a//", "-a/b"], &["+?a//", "->a/b"]),
            (&["+?a//", "-a/b", "+a/b"], &["+?a//", "+>a/b"]),
            (&["+?a//", "+a/b"], &["+?a//"]),
            (&["+a/b", "+?a//"], &["+?a//"]),
            (&["+a", "+b", "-?.*//"], &[]),
            (&["+a", "+?.*//"], &["+?.*//"]),
            (&["+?a//", "-?a/b//", "-a/b/c"], &["+?a//", "-?a/b//"]),
            (&["+?a//", "-?a/b//", "+a/b/c", "-?a//"], &[]),
            (&["+b", "+?a/.*", "-?a/.*/x"], &["+>b", "+?a/.*", "-?a/.*/x"]),
        ] {
            assert_eq!(added(entries).1, expected, "{entries:?}");
        }
    }

    #[test]
    fn scopes_are_apart() {
        let mut selections = Selections::default();
        for scope in ["one", "two"] {
            assert_eq!(selections.add(scope, true, selector("a")), Ok(true));
        }
        assert_eq!(selections.add("one", false, selector("a")), Ok(true));
        assert!(selections.matches_str("a"));
        assert_eq!(selections.scopes().map(|(name, _)| name).collect::<Vec<_>>(), ["two"]);
        assert_eq!(selections.add("two", false, Selector::everything()), Ok(true));
        assert!(selections.is_empty() && !selections.matches_str("a"));
        for scope in ["", "one", "two"] {
            selections.add(scope, true, selector("?.*//")).unwrap();
        }
        assert_eq!(selections.deselect_in_all_scopes(&selector("b")), Ok(true));
        assert!(selections.matches_str("a") && !selections.matches_str("b"));
        assert_eq!(selections.deselect_in_all_scopes(&Selector::everything()), Ok(true));
        assert_eq!(selections.deselect_in_all_scopes(&Selector::everything()), Ok(false));
        assert!(selections.is_empty());
    }

    #[test]
    fn limits_are_kept_and_nothing_is_changed_at_them() {
        let mut selections = Selections::default();
        for number in 0..limits::SELECTIONS_MAX {
            let scope = if number % 2 == 0 { "" } else { "odd" };
            selections.add(scope, true, selector(&number.to_string())).unwrap();
        }
        let full = selections.clone();
        assert_eq!(selections.add("", true, selector("one")), Err(SelectionsError::TooMany));
        assert_eq!(selections, full);
        assert_eq!(selections.add("", true, selector("?.*//")), Ok(true));
        assert_eq!(selections.len(), limits::SELECTIONS_MAX / 2 + 1);

        let mut selections = Selections::default();
        let mut refused = None;
        for number in 0..limits::SELECTIONS_MAX {
            let costly = selector(&format!("?{number}(xx|y){{300}}"));
            if let Err(error) = selections.add("", true, costly) {
                refused = Some(error);
                break;
            }
        }
        assert_eq!(refused, Some(SelectionsError::TooComplex));
        assert_eq!(selections.add("", false, Selector::everything()), Ok(true));

        let long = "s".repeat(limits::SCOPE_BYTES_MAX + 1);
        for scope in [&long, "$s"] {
            let refused = selections.add(scope, true, selector("a"));
            assert!(matches!(refused, Err(SelectionsError::IllegalScope { .. })), "{refused:?}");
        }
        assert!(selections.is_empty());
    }

    #[test]
    fn restored_selections_equal_the_saved_ones() {
        // The second of these has become superfluous by the third.
        let (mut selections, left) = added(&["+?a//", "-c", "+a/b", "+?c//"]);
        assert_eq!(left, ["+?a//", "+>a/b", "+?c//"]);
        selections.add("other", true, selector("#a////?b/.*//")).unwrap();
        let mut restored = Selections::default();
        for (scope, entries) in selections.scopes() {
            for entry in entries {
                restored.restore(scope, entry.select, entry.selector.clone()).unwrap();
            }
        }
        assert_eq!(restored, selections);
    }

    const SELECTORS: [&str; 12] = [
        "a", "b", "a/b", "?a/", "?a//", "?.*//", "?.*", "?a/.*", "?.*/b", "*a.*", "#a////b",
        "?[ab]//",
    ];
    const PATHS: [&str; 8] = ["a", "b", "c", "a/a", "a/b", "a/b/c", "b/b", "c/b"];

    proptest! {
        /// Conflation never changes what is selected.
        #[test]
        fn dropping_entries_changes_nothing(
            entries in prop::collection::vec((any::<bool>(), 0..SELECTORS.len()), 0..10),
        ) {
            let mut selections = Selections::default();
            let all: Vec<_> =
                entries.iter().map(|(select, at)| (*select, selector(SELECTORS[*at]))).collect();
            for (select, selector) in &all {
                selections.add("", *select, selector.clone()).unwrap();
            }
            for path in PATHS {
                let deciding = all.iter().rev().find(|(_, selector)| selector.matches_str(path));
                let expected = deciding.is_some_and(|(select, _)| *select);
                prop_assert_eq!(selections.matches_str(path), expected, "{} of {:?}", path, selections);
            }
        }
    }
}
