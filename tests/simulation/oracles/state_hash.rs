//! Nodes that have applied the same entries hold the same state, by the hash that they keep and by
//! a digest of everything that they hold, which finds what the hash leaves out.

use std::collections::BTreeMap;

use super::Violation;
use crate::history::{History, StateHash};
use crate::replay::Replay;

const NAME: &str = "state hash";

pub(crate) fn check(history: &History, _replay: &Replay) -> Result<(), Violation> {
    let mut first: BTreeMap<u64, StateHash> = BTreeMap::new();
    for seen in &history.states.hashes {
        let known = *first.entry(seen.entry).or_insert(*seen);
        if known.hash != seen.hash {
            let text = format!(
                "after entry {} {} has the state hash {:016x} (at {}) and {} {:016x} (at {})",
                seen.entry, known.node, known.hash, known.at, seen.node, seen.hash, seen.at
            );
            return Err(Violation::new(NAME, text));
        }
    }
    let mut contents = BTreeMap::new();
    for end in &history.states.finals {
        let known = *contents.entry(end.entry).or_insert((end.node, end.content));
        if known.1 != end.content {
            let hash_differs = |seen: &&StateHash| seen.entry == end.entry;
            let hashed = history.states.hashes.iter().any(|seen| hash_differs(&seen));
            let text = format!(
                "after entry {} {} and {} hold different states{}",
                end.entry,
                known.0,
                end.node,
                if hashed { ", and their state hash does not tell" } else { "" }
            );
            return Err(Violation::new(NAME, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::history::History;
    use crate::model::Model;
    use crate::replay::Replay;

    fn refused(spoil: impl FnOnce(&mut History)) -> String {
        let mut history = Model::history(3);
        let replay = Replay::of(&history).unwrap();
        check(&history, &replay).unwrap();
        spoil(&mut history);
        check(&history, &replay).unwrap_err().text
    }

    #[test]
    fn a_node_with_another_state() {
        let text = refused(|history| {
            let last = history.states.hashes.last_mut().unwrap();
            last.hash ^= 1;
        });
        assert!(text.contains("state hash"), "{text}");
    }

    #[test]
    fn a_hash_that_misses_a_field() {
        let text = refused(|history| history.states.finals[1].content ^= 1);
        assert!(text.contains("does not tell"), "{text}");
    }
}
