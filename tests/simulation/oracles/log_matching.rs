//! The logs of all nodes agree: entries of one index and term are the same and follow the same
//! entries, and what was committed once is never another entry, on no node and at no time.

use std::collections::BTreeMap;

use super::Violation;
use crate::history::{Entry, History, LogView};

const NAME: &str = "log matching";

/// Where an entry was seen first, and what preceded it there.
struct Sighting<'a> {
    entry: &'a Entry,
    view: &'a LogView,
    before: Option<&'a Entry>,
}

impl Sighting<'_> {
    fn describe(&self) -> String {
        let node = self.view.node.map_or_else(|| "the log".to_owned(), |node| node.to_string());
        format!("{:?} on {node} at {}", self.entry, self.view.at)
    }
}

fn same(one: &Entry, other: &Entry) -> bool {
    (one.term, one.chain) == (other.term, other.chain) && one.digest() == other.digest()
}

pub(crate) fn check(history: &History) -> Result<(), Violation> {
    let fail = |what: &str, one: &Sighting<'_>, other: &Sighting<'_>| {
        let text = format!("{what}: {}, but {}", one.describe(), other.describe());
        Err(Violation::new(NAME, text))
    };
    let mut by_place: BTreeMap<(u64, u64), Sighting<'_>> = BTreeMap::new();
    let mut committed: BTreeMap<u64, Sighting<'_>> = BTreeMap::new();
    for view in &history.logs {
        let mut before: Option<&Entry> = None;
        for entry in &view.entries {
            let here = Sighting { entry, view, before };
            if let Some(before) = before
                && (before.index + 1 != entry.index || before.term > entry.term)
            {
                let text = format!("{} follows {before:?}", here.describe());
                return Err(Violation::new(NAME, text));
            }
            before = Some(entry);
            if entry.index <= view.committed {
                match committed.get(&entry.index) {
                    Some(first) if !same(first.entry, entry) => {
                        return fail("a committed entry has changed", first, &here);
                    }
                    Some(_) => {}
                    None => {
                        committed.insert(entry.index, Sighting { ..here });
                    }
                }
            }
            let Some(first) = by_place.get_mut(&(entry.index, entry.term)) else {
                by_place.insert((entry.index, entry.term), here);
                continue;
            };
            if !same(first.entry, entry) {
                return fail("entries of one index and term differ", first, &here);
            }
            match (first.before, here.before) {
                (Some(one), Some(other)) if !same(one, other) => {
                    return fail("equal entries follow different ones", first, &here);
                }
                (None, Some(_)) => first.before = here.before,
                _ => {}
            }
        }
    }
    // What is committed anywhere is what every final log holds there.
    for view in history.logs.iter().filter(|view| view.is_final) {
        for entry in &view.entries {
            let here = Sighting { entry, view, before: None };
            match committed.get(&entry.index) {
                Some(first) if !same(first.entry, entry) => {
                    return fail("a committed entry was replaced", first, &here);
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Body;
    use crate::model::Model;

    fn refused(spoil: impl FnOnce(&mut History)) -> String {
        let mut history = Model::history(1);
        check(&history).unwrap();
        spoil(&mut history);
        check(&history).unwrap_err().text
    }

    #[test]
    fn other_bytes_at_the_same_place() {
        let text = refused(|history| {
            let entry = history.logs.last_mut().unwrap().entries.last_mut().unwrap();
            entry.body = Body::Commands(bytes::Bytes::from_static(b"other"));
        });
        assert!(text.contains("differ") || text.contains("changed"), "{text}");
    }

    #[test]
    fn a_chain_that_comes_from_elsewhere() {
        let text = refused(|history| {
            let entries = &mut history.logs.last_mut().unwrap().entries;
            let middle = entries.len() / 2;
            entries[middle].chain ^= 1;
        });
        assert!(text.contains("changed"), "{text}");
    }

    #[test]
    fn an_uncommitted_entry_of_one_place_with_two_prefixes() {
        let entry = |index, term| Entry {
            index,
            term,
            chain: 10 * index + term,
            body: Body::Passes(bytes::Bytes::new()),
        };
        let view = |entries: &[Entry]| LogView { entries: entries.to_vec(), ..LogView::default() };
        let mut history = History::default();
        history.logs.push(view(&[entry(1, 1), entry(2, 1), entry(3, 3)]));
        history.logs.push(view(&[entry(3, 3)]));
        check(&history).unwrap();
        history.logs.push(view(&[entry(1, 1), entry(2, 2), entry(3, 3)]));
        let text = check(&history).unwrap_err().text;
        assert!(text.contains("follow different ones"), "{text}");
        history.logs.pop();
        history.logs.push(view(&[entry(1, 1), entry(2, 2)]));
        check(&history).unwrap();
    }

    #[test]
    fn a_committed_entry_that_was_replaced_later() {
        let text = refused(|history| {
            let view = history.logs.last_mut().unwrap();
            view.committed -= 1;
            let last = view.entries.last_mut().unwrap();
            last.term += 1;
            last.chain += 1;
        });
        assert!(text.contains("replaced"), "{text}");
    }

    #[test]
    fn a_hole() {
        let text = refused(|history| {
            history.logs[0].entries.remove(3);
        });
        assert!(text.contains("follows"), "{text}");
    }
}
