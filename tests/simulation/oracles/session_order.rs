//! A session's commands take effect exactly once and in the order in which it sent them, however
//! often its hosts had to send them again.

use std::collections::BTreeMap;

use quorate::domain::effect::Effect;
use quorate::domain::id::SessionId;

use super::Violation;
use crate::history::{Action, History, Operation, Outcome, number_of};
use crate::replay::{Replay, Replayed};

const NAME: &str = "exactly once and in order";

pub(crate) fn check(history: &History, replay: &Replay) -> Result<(), Violation> {
    numbers(history)?;
    effects(replay)?;
    values(history, replay)
}

fn of_sessions(history: &History) -> BTreeMap<SessionId, Vec<&Operation>> {
    let mut sessions: BTreeMap<SessionId, Vec<&Operation>> = BTreeMap::new();
    for operation in &history.operations {
        if operation.request.is_some() {
            sessions.entry(operation.session).or_default().push(operation);
        }
    }
    sessions
}

/// Every command has a number of its own; what was answered before something else was asked has a
/// lower one and stands earlier in the log.
fn numbers(history: &History) -> Result<(), Violation> {
    for mut operations in of_sessions(history).into_values() {
        operations.sort_by_key(|operation| operation.request);
        for (earlier, later) in operations.iter().zip(operations.iter().skip(1)) {
            let wrong = if earlier.request == later.request {
                "have one number"
            } else if later.answered.is_some_and(|answered| answered < earlier.called) {
                "have numbers against the order of sending"
            } else if let (Some(one), Some(two)) = (earlier.index(), later.index())
                && one >= two
            {
                "took effect against the order of sending"
            } else {
                continue;
            };
            return Err(Violation::new(NAME, format!("{earlier} and {later} {wrong}")));
        }
    }
    Ok(())
}

/// In the log, a request is always the same command, has effects at one place at most, and those of
/// a session follow its numbers without a gap.
fn effects(replay: &Replay) -> Result<(), Violation> {
    let mut newest: BTreeMap<SessionId, &Replayed> = BTreeMap::new();
    for command in &replay.commands {
        let session = command.origin.session;
        if session == SessionId::CLUSTER {
            continue;
        }
        let request = command.origin.request;
        let first = replay.request(session, request).next().unwrap_or(command);
        if first.bytes != command.bytes {
            let text = format!(
                "request {request} of session {session} is {:?} at {} and {:?} at {}",
                first.command, first.index, command.command, command.index
            );
            return Err(Violation::new(NAME, text));
        }
        let decided = replay.decided(session, request);
        if decided.is_none_or(|decided| decided.index != command.index) {
            // Stands there in vain, or again: it may do nothing.
            if command.events.is_empty() {
                continue;
            }
            let text = format!(
                "request {request} of session {session} takes effect at {} though it was decided \
                 at {:?}",
                command.index,
                decided.map(|decided| decided.index)
            );
            return Err(Violation::new(NAME, text));
        }
        let before = newest.insert(session, command);
        let expected = before.map_or(1, |before| before.origin.request + 1);
        if request != expected {
            let text = format!(
                "request {request} of session {session} was decided at {}, after request {} at {:?}",
                command.index,
                expected - 1,
                before.map(|before| before.index)
            );
            return Err(Violation::new(NAME, text));
        }
    }
    Ok(())
}

/// How often values may and must have been published.
#[derive(Default)]
struct Count<'a> {
    writers: Vec<&'a Operation>,
    published: usize,
}

/// Each write is published once if its client was told so, never if it was refused, and at most
/// once if nobody knows.
fn values(history: &History, replay: &Replay) -> Result<(), Violation> {
    let mut counts: BTreeMap<i64, Count<'_>> = BTreeMap::new();
    for operation in &history.operations {
        if let Action::Set(Some(value)) | Action::SetIf { value, .. } = operation.action {
            counts.entry(value).or_default().writers.push(operation);
        }
    }
    for event in &replay.events {
        let Effect::Value { topic, value: Some(value) } = &event.effect else { continue };
        let Some(value) = number_of(value) else { continue };
        let Some(count) = counts.get_mut(&value) else {
            let text = format!("{value} of {} at {} was never sent", topic.path, event.position);
            return Err(Violation::new(NAME, text));
        };
        count.published += 1;
    }
    for (value, count) in counts {
        let told = |operation: &&&Operation| match operation.outcome {
            Outcome::Applied { changed, .. } => changed,
            _ => false,
        };
        let unknown = |operation: &&&Operation| operation.outcome == Outcome::Unknown;
        let least = count.writers.iter().filter(told).count();
        let most = least + count.writers.iter().filter(unknown).count();
        if !(least..=most).contains(&count.published) {
            let writers: Vec<String> =
                count.writers.iter().map(|operation| operation.to_string()).collect();
            let text = format!(
                "{value} was published {} times, between {least} and {most} are right: {}",
                count.published,
                writers.join("; ")
            );
            return Err(Violation::new(NAME, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate::domain::entry::Payload;

    use super::*;
    use crate::history::Body;
    use crate::model::Model;

    fn refused(seed: u64, spoil: impl FnOnce(&mut History)) -> String {
        let mut history = Model::history(seed);
        let replay = Replay::of(&history).unwrap();
        check(&history, &replay).unwrap();
        spoil(&mut history);
        let replay = Replay::of(&history).unwrap();
        check(&history, &replay).unwrap_err().text
    }

    /// Two neighbours of one session, both acknowledged as changes.
    fn neighbours(history: &History) -> (usize, usize) {
        let changed = |place: usize| {
            let operation = &history.operations[place];
            matches!(operation.action, Action::Set(Some(_)))
                && matches!(operation.outcome, Outcome::Applied { changed: true, .. })
        };
        let places: Vec<usize> = (0..history.operations.len()).filter(|at| changed(*at)).collect();
        for (number, one) in places.iter().enumerate() {
            for two in &places[number + 1..] {
                let (first, second) = (&history.operations[*one], &history.operations[*two]);
                if first.session == second.session
                    && first.request.map(|at| at + 1) == second.request
                {
                    return (*one, *two);
                }
            }
        }
        panic!("the model sends in a row");
    }

    #[test]
    fn effects_against_the_order_of_sending() {
        let text = refused(7, |history| {
            let (one, two) = neighbours(history);
            let outcome = history.operations[one].outcome.clone();
            history.operations[one].outcome = history.operations[two].outcome.clone();
            history.operations[two].outcome = outcome;
        });
        assert!(text.contains("took effect against"), "{text}");
    }

    #[test]
    fn two_commands_of_one_number() {
        let text = refused(7, |history| {
            let (one, two) = neighbours(history);
            history.operations[two].request = history.operations[one].request;
        });
        assert!(text.contains("have one number"), "{text}");
    }

    #[test]
    fn numbers_against_the_order_of_sending() {
        let text = refused(7, |history| {
            let (one, two) = neighbours(history);
            let late = history.operations[two].answered.unwrap();
            history.operations[one].called = crate::history::Time(late.0 + 1);
        });
        assert!(text.contains("numbers against"), "{text}");
    }

    /// Changes the entry at which a command stands; the outcomes in the history stay.
    fn change(history: &mut History, index: quorate::domain::id::Index, to: impl Fn(&mut Payload)) {
        for view in &mut history.logs {
            for entry in &mut view.entries {
                if entry.index == index.entry()
                    && let Body::Commands(bytes) = &entry.body
                {
                    let mut payload = Payload::decode(bytes.clone()).unwrap();
                    to(&mut payload);
                    entry.body = Body::Commands(payload.encode());
                }
            }
        }
    }

    #[test]
    fn a_retry_under_a_new_number_is_applied_twice() {
        let text = refused(8, |history| {
            let replay = Replay::of(history).unwrap();
            let changed = |operation: &&Operation| {
                matches!(operation.action, Action::Set(Some(_)))
                    && matches!(operation.outcome, Outcome::Applied { changed: true, .. })
            };
            let changes: Vec<&Operation> = history.operations.iter().filter(changed).collect();
            // A later command of the session, when the topic has another value again.
            let find = |first: &&&Operation| {
                let is_later = |other: &&&Operation| other.index() > first.index();
                let other = |other: &&Operation| other.topic == first.topic;
                let between = changes.iter().filter(is_later).find(|one| other(one))?.index();
                changes
                    .iter()
                    .find(|later| later.session == first.session && later.index() > between)
            };
            let (first, later) =
                changes.iter().find_map(|first| Some((first, find(&first)?))).unwrap();
            let again: Bytes = replay.command(first.index().unwrap()).unwrap().bytes.clone();
            let (later, index) = ((*later).clone(), later.index().unwrap());
            change(history, index, |payload| {
                payload.proposals[usize::from(index.offset())].command = again.clone();
            });
            history.operations.retain(|operation| *operation != later);
        });
        assert!(text.contains("published"), "{text}");
    }

    #[test]
    fn a_retry_with_other_bytes() {
        let text = refused(9, |history| {
            let replay = Replay::of(history).unwrap();
            let repeat = replay
                .commands
                .iter()
                .find(|command| command.is_repeat())
                .expect("the model sends again");
            let index = repeat.index;
            change(history, index, |payload| {
                let command = &mut payload.proposals[usize::from(index.offset())].command;
                let mut bytes = command.to_vec();
                let last = bytes.len() - 1;
                bytes[last] ^= 1;
                *command = bytes.into();
            });
        });
        assert!(text.contains("request"), "{text}");
    }

    #[test]
    fn a_write_that_nobody_sent_and_one_that_was_refused() {
        let text = refused(7, |history| {
            let (one, _) = neighbours(history);
            history.operations.remove(one);
        });
        assert!(text.contains("never sent"), "{text}");
        let text = refused(7, |history| {
            let (one, _) = neighbours(history);
            history.operations[one].outcome = Outcome::Refused { code: 301 };
        });
        assert!(text.contains("published"), "{text}");
    }
}
