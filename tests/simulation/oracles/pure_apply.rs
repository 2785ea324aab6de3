//! The state is a function of the log and of nothing else: the log applied again, once straight
//! through and once over a snapshot in the middle, gives the hashes and the contents of the nodes.

use quorate::domain::entry::Payload;
use quorate::domain::machine::Machine;

use super::Violation;
use crate::history::{Body, History, content_of};
use crate::replay::Replay;

const NAME: &str = "apply is pure";

pub(crate) fn check(history: &History, replay: &Replay) -> Result<(), Violation> {
    for seen in &history.states.hashes {
        let Some(machine) = replay.after(seen.entry) else {
            let text =
                format!("{} has applied entry {}, which is not committed", seen.node, seen.entry);
            return Err(Violation::new(NAME, text));
        };
        if machine.hash() != seen.hash {
            let text = format!(
                "after entry {} {} had the state hash {:016x} at {}, the log gives {:016x}: {:?}",
                seen.entry,
                seen.node,
                seen.hash,
                seen.at,
                machine.hash(),
                replay.entry(seen.entry)
            );
            return Err(Violation::new(NAME, text));
        }
    }
    for end in &history.states.finals {
        let machine = replay.after(end.entry);
        if machine.is_none_or(|machine| content_of(machine) != end.content) {
            let text = format!(
                "{} holds another state after entry {} than the log gives",
                end.node, end.entry
            );
            return Err(Violation::new(NAME, text));
        }
    }
    again(replay)
}

/// Applies everything once more, with a snapshot in between.
fn again(replay: &Replay) -> Result<(), Violation> {
    let mut machine = Machine::new();
    let middle = replay.entries.len() / 2;
    for (place, entry) in replay.entries.iter().enumerate() {
        match &entry.body {
            Body::Passes(_) => machine.pass(entry.index),
            Body::Commands(bytes) => {
                let payload = Payload::decode(bytes.clone()).map_err(|error| {
                    Violation::new(NAME, format!("{entry:?} cannot be read: {error}"))
                })?;
                machine.apply(entry.index, &payload);
            }
        }
        if place == middle {
            let records: Vec<_> = machine.to_records().collect();
            machine = Machine::from_records(records).map_err(|error| {
                Violation::new(NAME, format!("no state from the snapshot after {entry:?}: {error}"))
            })?;
        }
        let first = replay.after(entry.index).map(Machine::hash);
        if first != Some(machine.hash()) {
            let text = format!(
                "{entry:?} applied twice gives {first:016x?} and {:016x}{}",
                machine.hash(),
                if place > middle { ", the second over a snapshot" } else { "" }
            );
            return Err(Violation::new(NAME, text));
        }
    }
    if replay.entries.is_empty() || content_of(&machine) == content_of(replay.newest()) {
        return Ok(());
    }
    Err(Violation::new(NAME, "the log applied twice gives two states with one hash"))
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::history::History;
    use crate::model::Model;
    use crate::replay::Replay;

    fn refused(spoil: impl FnOnce(&mut History)) -> String {
        let mut history = Model::history(4);
        let replay = Replay::of(&history).unwrap();
        check(&history, &replay).unwrap();
        spoil(&mut history);
        check(&history, &replay).unwrap_err().text
    }

    #[test]
    fn nodes_that_agree_on_a_state_that_is_not_the_logs() {
        let text = refused(|history| {
            let entry = history.states.hashes[history.states.hashes.len() / 2].entry;
            for seen in history.states.hashes.iter_mut().filter(|seen| seen.entry == entry) {
                seen.hash += 1;
            }
        });
        assert!(text.contains("the log gives"), "{text}");
    }

    #[test]
    fn nodes_that_all_miss_a_field() {
        let text = refused(|history| {
            for end in &mut history.states.finals {
                end.content += 1;
            }
        });
        assert!(text.contains("another state"), "{text}");
    }

    #[test]
    fn an_entry_that_was_applied_and_never_committed() {
        let text = refused(|history| {
            let last = history.states.hashes.last_mut().unwrap();
            last.entry += 1_000;
        });
        assert!(text.contains("not committed"), "{text}");
    }
}
