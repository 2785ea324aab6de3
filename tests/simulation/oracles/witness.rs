//! Every answer is what the log says it must be.
//!
//! Answers carry log indices, so the order of everything is known and need not be searched for: an
//! answered command is what it was when the log is applied, a read shows the state at the index that
//! it names, and the indices agree with real time. This finds a stale read also where the clients
//! alone could not tell, and a wrong index, which [linearizability](super::linearizable) cannot see.

use std::collections::BTreeMap;

use quorate::domain::id::{Index, SessionId};
use quorate::domain::outcome::Outcome as Decided;

use super::Violation;
use crate::history::{Action, History, Operation, Outcome, Seen, Time, number_of};
use crate::replay::Replay;

const NAME: &str = "answers agree with the log";

pub(crate) fn check(history: &History, replay: &Replay) -> Result<(), Violation> {
    for operation in &history.operations {
        match &operation.outcome {
            Outcome::Applied { .. } | Outcome::Refused { .. } => command(operation, replay)?,
            Outcome::Read(seen) => read(operation, seen, replay)?,
            Outcome::NotRead | Outcome::Unknown => {}
        }
    }
    real_time(&history.operations)
}

/// An answered command became what the answer says.
fn command(operation: &Operation, replay: &Replay) -> Result<(), Violation> {
    let Some(request) = operation.request else { return Ok(()) };
    let decided = replay.decided(operation.session, request);
    let agrees = match (&operation.outcome, decided.map(|found| (&found.outcome, found.index))) {
        (Outcome::Applied { index, changed }, Some((decided, at))) => {
            let changed_there = match decided {
                Decided::Done => Some(true),
                Decided::Unchanged => Some(false),
                Decided::Topic { created, .. } => {
                    Some(*created || !matches!(operation.action, Action::Add))
                }
                Decided::Removed { count, .. } => Some(*count > 0),
                _ => None,
            };
            changed_there == Some(*changed) && index.is_none_or(|index| index == at)
        }
        // The host may have refused it by a code that the log has no word for.
        (Outcome::Refused { .. }, Some((decided, _))) => matches!(decided, Decided::Rejected(_)),
        // Refused before it was numbered in the log: nothing has changed.
        (Outcome::Refused { .. }, None) => true,
        _ => false,
    };
    if agrees {
        return Ok(());
    }
    let found = decided.map(|found| (found.index, &found.outcome));
    Err(Violation::new(NAME, format!("{operation}, but the log gives {found:?}")))
}

/// A read has seen the state of its index.
fn read(operation: &Operation, seen: &Seen, replay: &Replay) -> Result<(), Violation> {
    let Some(machine) = replay.after(seen.index.entry()) else {
        let text = format!("{operation}: the log ends at entry {}", replay.last());
        return Err(Violation::new(NAME, text));
    };
    let topic = machine.topics().iter().find(|topic| topic.info().path.as_str() == operation.topic);
    let value = topic.and_then(|topic| topic.value()).and_then(number_of);
    let version = topic.filter(|topic| topic.value().is_some()).map(|topic| topic.version());
    let there = Seen { index: seen.index, found: topic.is_some(), value, version };
    if there == *seen {
        return Ok(());
    }
    Err(Violation::new(NAME, format!("{operation}, but the log gives {there:?}")))
}

/// The newest index that was known, to everybody and to each session.
#[derive(Default)]
struct Floors<'a> {
    all: Floor<'a>,
    sessions: BTreeMap<SessionId, Floor<'a>>,
}

#[derive(Default, Clone, Copy)]
struct Floor<'a> {
    index: Index,
    told: Option<&'a Operation>,
}

impl<'a> Floor<'a> {
    fn raise(&mut self, index: Index, operation: &'a Operation) {
        if index > self.index {
            *self = Self { index, told: Some(operation) };
        }
    }
}

/// Where an answered operation stands.
fn place(operation: &Operation) -> Option<Index> {
    match &operation.outcome {
        Outcome::Applied { index, .. } => *index,
        Outcome::Read(seen) => Some(seen.index),
        _ => None,
    }
}

/// What was answered before something else was asked stands before it.
fn real_time(operations: &[Operation]) -> Result<(), Violation> {
    let answered = operations
        .iter()
        .filter_map(|operation| Some((operation.answered?, place(operation)?, operation)));
    let mut answered: Vec<(Time, Index, &Operation)> = answered.collect();
    answered.sort_by_key(|(at, index, _)| (*at, *index));
    let mut called: Vec<(Index, &Operation)> =
        answered.iter().map(|(_, index, operation)| (*index, *operation)).collect();
    called.sort_by_key(|(index, operation)| (operation.called, *index));
    let mut answered = answered.into_iter().peekable();
    let mut floors = Floors::default();
    for (index, operation) in called {
        while let Some((_, index, earlier)) = answered.next_if(|(at, ..)| *at < operation.called) {
            floors.all.raise(index, earlier);
            floors.sessions.entry(earlier.session).or_default().raise(index, earlier);
        }
        let floor = match operation.action {
            // A read that asks no quorum is as new as what its own session was told.
            Action::Read { linearizable: false } => {
                floors.sessions.get(&operation.session).copied().unwrap_or_default()
            }
            _ => floors.all,
        };
        let is_read = matches!(operation.action, Action::Read { .. });
        let follows = index > floor.index || (is_read && index == floor.index);
        if let Some(earlier) = floor.told
            && !follows
        {
            let text = format!("{operation} is older than what was answered before: {earlier}");
            return Err(Violation::new(NAME, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    fn refused(seed: u64, spoil: impl FnOnce(&mut History) -> bool) -> Option<String> {
        let mut history = Model::history(seed);
        let replay = Replay::of(&history).unwrap();
        check(&history, &replay).unwrap();
        spoil(&mut history).then(|| check(&history, &replay).unwrap_err().text)
    }

    /// Every history has such an operation, or some have.
    fn refused_in_many(spoil: impl Fn(&mut History) -> bool) -> Vec<String> {
        let texts: Vec<String> = (0..20).filter_map(|seed| refused(seed, &spoil)).collect();
        assert!(texts.len() > 10, "planted {} times", texts.len());
        texts
    }

    #[test]
    fn a_stale_read() {
        refused_in_many(|history| {
            let replay = Replay::of(history).unwrap();
            // Shows, with a true state, what was there before the newest write that was answered.
            let written: Vec<Operation> = history
                .operations
                .iter()
                .filter(|operation| operation.index().is_some() && operation.request.is_some())
                .cloned()
                .collect();
            for operation in &mut history.operations {
                let called = operation.called;
                let Outcome::Read(seen) = &mut operation.outcome else { continue };
                let earlier = written.iter().find(|write| {
                    write.answered.is_some_and(|answered| answered < called)
                        && matches!(operation.action, Action::Read { linearizable: true })
                        && write.topic == operation.topic
                });
                let Some(index) = earlier.and_then(|write| write.index()) else { continue };
                let entry = index.entry() - 1;
                let machine = replay.after(entry).unwrap();
                let topic = machine
                    .topics()
                    .iter()
                    .find(|topic| topic.info().path.as_str() == operation.topic);
                *seen = Seen {
                    index: Index::new(entry, u16::MAX),
                    found: topic.is_some(),
                    value: topic.and_then(|topic| topic.value()).and_then(number_of),
                    version: topic
                        .filter(|topic| topic.value().is_some())
                        .map(|topic| topic.version()),
                };
                return true;
            }
            false
        });
    }

    #[test]
    fn a_value_that_is_not_of_its_index() {
        refused_in_many(|history| {
            let read =
                history.operations.iter_mut().find_map(|operation| match &mut operation.outcome {
                    Outcome::Read(seen) if seen.value.is_some() => Some(seen),
                    _ => None,
                });
            let Some(seen) = read else { return false };
            seen.value = seen.value.map(|value| value + 1);
            true
        });
    }

    #[test]
    fn a_conditional_write_that_is_said_to_have_failed_and_did_not() {
        refused_in_many(|history| {
            let done = history.operations.iter_mut().find(|operation| {
                matches!(operation.action, Action::SetIf { .. })
                    && matches!(operation.outcome, Outcome::Applied { .. })
            });
            let Some(done) = done else { return false };
            done.outcome = Outcome::Refused { code: 306 };
            true
        });
    }

    #[test]
    fn an_answer_to_a_command_that_was_refused() {
        refused_in_many(|history| {
            let refused = history.operations.iter_mut().find(|operation| {
                operation.request.is_some() && matches!(operation.outcome, Outcome::Refused { .. })
            });
            let Some(refused) = refused else { return false };
            refused.outcome = Outcome::Applied { index: None, changed: true };
            true
        });
    }
}
