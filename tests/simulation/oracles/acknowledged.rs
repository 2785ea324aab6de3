//! What was acknowledged survives: the command stands at the index that its answer named, in the log
//! of every node, and the topics that the nodes end with are those that the log gives.

use std::collections::BTreeMap;

use quorate::domain::command::Command;
use quorate::domain::id::Index;

use super::Violation;
use crate::history::{Action, FinalState, History, LogView, Operation, number_of};
use crate::replay::{Replay, Replayed};

const NAME: &str = "acknowledged survives";

pub(crate) fn check(history: &History, replay: &Replay) -> Result<(), Violation> {
    for operation in &history.operations {
        let Some(index) = operation.index() else { continue };
        stands(operation, index, replay)?;
    }
    for view in history.logs.iter().filter(|view| view.is_final) {
        whole(view, replay)?;
    }
    for end in &history.states.finals {
        let newest = history.operations.iter().filter(|operation| operation.index().is_some());
        if let Some(operation) = newest.max_by_key(|operation| operation.index())
            && operation.index().is_some_and(|index| index.entry() > end.entry)
        {
            let text = format!("{} ends at entry {}, before {operation}", end.node, end.entry);
            return Err(Violation::new(NAME, text));
        }
        topics(end, replay)?;
    }
    Ok(())
}

/// The command is in the committed log, where its answer said.
fn stands(operation: &Operation, index: Index, replay: &Replay) -> Result<(), Violation> {
    let found = replay.command(index);
    let is_it = found.is_some_and(|found| {
        found.origin.session == operation.session
            && operation.request.is_none_or(|request| request == found.origin.request)
            && says(operation, found, replay)
    });
    if is_it {
        return Ok(());
    }
    let there = match found {
        Some(found) => format!("{:?} of {:?} stands there", found.command, found.origin),
        None => format!("the log ends at entry {}", replay.last()),
    };
    let text = format!("{operation} was acknowledged at {index}, but {there}");
    Err(Violation::new(NAME, text))
}

/// The command asks for what the operation asked for.
fn says(operation: &Operation, found: &Replayed, replay: &Replay) -> bool {
    let Some(command) = &found.command else { return false };
    match (&operation.action, command) {
        (Action::Add, Command::AddTopic { path, .. }) => path.as_str() == operation.topic,
        (Action::Set(wanted), Command::Update { topic, value, .. }) => {
            let life = replay.topics.get(topic);
            life.is_some_and(|life| life.path == operation.topic)
                && value.bytes.as_ref().and_then(number_of) == *wanted
        }
        (Action::Set(wanted), Command::SetByPath { path, value }) => {
            path.as_str() == operation.topic && value.bytes.as_ref().and_then(number_of) == *wanted
        }
        (Action::SetIf { value: wanted, .. }, Command::SetTopic { path, value, .. }) => {
            path.as_str() == operation.topic
                && value.bytes.as_ref().and_then(number_of) == Some(*wanted)
        }
        (Action::Remove, Command::RemoveTopics { .. }) => true,
        _ => false,
    }
}

/// A node's last log holds all that is committed and that it has not purged.
fn whole(view: &LogView, replay: &Replay) -> Result<(), Violation> {
    let held: BTreeMap<u64, _> = view.entries.iter().map(|entry| (entry.index, entry)).collect();
    for entry in replay.entries.iter().filter(|entry| entry.index >= view.first) {
        let found = held.get(&entry.index);
        if found.is_none_or(|found| found.chain != entry.chain) {
            let node = view.node.map_or_else(|| "the log".to_owned(), |node| node.to_string());
            let text = format!("{node} ends with {found:?} in place of the committed {entry:?}");
            return Err(Violation::new(NAME, text));
        }
    }
    Ok(())
}

/// A node ends with the topics that the log gives.
fn topics(end: &FinalState, replay: &Replay) -> Result<(), Violation> {
    let Some(machine) = replay.after(end.entry) else {
        let text = format!("{} ends at entry {}, which is not committed", end.node, end.entry);
        return Err(Violation::new(NAME, text));
    };
    let expected = FinalState::of(end.node, machine).topics;
    let paths = expected.keys().chain(end.topics.keys());
    for path in paths {
        let (wanted, found) = (expected.get(path), end.topics.get(path));
        if wanted != found {
            let text = format!(
                "{} ends with {path:?} at {found:?}, the log up to entry {} gives {wanted:?}",
                end.node, end.entry
            );
            return Err(Violation::new(NAME, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::history::{Action, History, Outcome};
    use crate::model::Model;
    use crate::oracles::judge;
    use crate::replay::Replay;

    fn refused(spoil: impl FnOnce(&mut History)) -> String {
        let mut history = Model::history(5);
        let replay = Replay::of(&history).unwrap();
        check(&history, &replay).unwrap();
        spoil(&mut history);
        check(&history, &replay).unwrap_err().text
    }

    fn acknowledged(history: &mut History) -> &mut crate::history::Operation {
        let changed = |operation: &&mut crate::history::Operation| {
            matches!(operation.action, Action::Set(Some(_)))
                && matches!(operation.outcome, Outcome::Applied { changed: true, .. })
        };
        history.operations.iter_mut().rev().find(changed).unwrap()
    }

    #[test]
    fn an_index_that_is_not_the_commands() {
        let text = refused(|history| {
            let operation = acknowledged(history);
            let index = operation.index().map(|index| quorate::domain::id::Index(index.0 - 1));
            operation.outcome = Outcome::Applied { index, changed: true };
        });
        assert!(text.contains("was acknowledged"), "{text}");
    }

    #[test]
    fn another_value_than_was_asked_for() {
        let text = refused(|history| acknowledged(history).action = Action::Set(Some(-1)));
        assert!(text.contains("was acknowledged"), "{text}");
    }

    #[test]
    fn an_acknowledgement_whose_entry_all_nodes_lost() {
        let mut history = Model::history(6);
        assert_eq!(judge(&history), []);
        // As if no flush had been one: the last entry that was acknowledged is gone everywhere.
        let entry = acknowledged(&mut history).index().unwrap().entry();
        for view in &mut history.logs {
            view.entries.retain(|held| held.index < entry);
            view.committed = view.committed.min(entry - 1);
        }
        let found = judge(&history);
        assert!(found.iter().any(|violation| violation.oracle == super::NAME), "{found:?}");
    }

    #[test]
    fn a_node_that_lost_its_end() {
        let text = refused(|history| {
            let view = history.logs.iter_mut().rev().find(|view| view.is_final).unwrap();
            view.entries.pop();
        });
        assert!(text.contains("in place of"), "{text}");
    }

    #[test]
    fn a_node_with_an_older_value() {
        let text = refused(|history| {
            let end = &mut history.states.finals[1];
            let (_, topic) = end.topics.iter_mut().next().unwrap();
            topic.0 = Some(-1);
        });
        assert!(text.contains("ends with"), "{text}");
    }
}
