//! Each topic is a linearizable register for writes, conditional writes and `linearizable` reads,
//! judged by what clients asked and were told alone.

use std::collections::BTreeMap;

use super::Violation;
use super::register::{Searched, search};
use crate::history::{History, Operation};

const NAME: &str = "linearizable";

pub(crate) fn check(history: &History) -> Result<(), Violation> {
    for (topic, operations) in by_topic(history) {
        search(&operations).map_err(|text| Violation::new(NAME, format!("{topic:?}: {text}")))?;
    }
    Ok(())
}

/// Topics whose operations overlapped so much that nothing was decided; the
/// [witness](super::witness) has judged them all the same.
pub(crate) fn undecided(history: &History) -> usize {
    let searched = by_topic(history).into_values().map(|operations| search(&operations));
    searched.filter(|searched| *searched == Ok(Searched::GaveUp)).count()
}

fn by_topic(history: &History) -> BTreeMap<&str, Vec<&Operation>> {
    let mut topics: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in &history.operations {
        topics.entry(&operation.topic).or_default().push(operation);
    }
    topics
}

#[cfg(test)]
mod tests {
    use quorate::domain::id::{Index, SessionId};

    use super::*;
    use crate::history::{Action, ClientId, Outcome, Seen, Time};
    use crate::model::Model;

    /// One operation of session `session`: called, answered (0: never), what and what came of it.
    fn operation(
        session: u64,
        request: Option<u64>,
        (called, answered): (u64, u64),
        action: Action,
        outcome: Outcome,
    ) -> Operation {
        Operation {
            client: ClientId(session as u16),
            session: SessionId(session),
            request,
            topic: "a".to_owned(),
            action,
            called: Time(called),
            answered: (answered > 0).then_some(Time(answered)),
            node: None,
            outcome,
        }
    }

    const DONE: Outcome = Outcome::Applied { index: None, changed: true };
    const UNMET: Outcome = Outcome::Refused { code: 306 };

    fn read(value: i64) -> Outcome {
        let seen = Seen { index: Index(0), found: true, value: Some(value), version: None };
        Outcome::Read(seen)
    }

    fn set(value: i64) -> Action {
        Action::Set(Some(value))
    }

    fn set_if(expected: i64, value: i64) -> Action {
        Action::SetIf { expected: Some(expected), value }
    }

    const LOOK: Action = Action::Read { linearizable: true };

    /// Whether the operations after the topic's addition can be explained.
    fn explained(operations: Vec<Operation>) -> bool {
        let add = operation(9, Some(1), (1, 2), Action::Add, DONE);
        let operations = [vec![add], operations].concat();
        let history = History { operations, ..History::default() };
        assert_eq!(undecided(&history), 0);
        check(&history).is_ok()
    }

    #[test]
    fn small_cases() {
        let first = operation(1, Some(1), (10, 20), set(1), DONE);
        let second = operation(1, Some(2), (30, 40), set(2), DONE);
        let cases = [
            ("in order", true, vec![operation(2, None, (50, 60), LOOK, read(2))]),
            ("a stale read", false, vec![operation(2, None, (50, 60), LOOK, read(1))]),
            ("while it is written", true, vec![operation(2, None, (35, 60), LOOK, read(1))]),
            ("of the future", false, vec![operation(2, None, (5, 6), LOOK, read(1))]),
            ("a value from nowhere", false, vec![operation(2, None, (50, 60), LOOK, read(7))]),
            (
                "there and back",
                false,
                vec![
                    operation(2, None, (31, 32), LOOK, read(2)),
                    operation(3, None, (33, 34), LOOK, read(1)),
                ],
            ),
            ("the condition held", true, vec![operation(2, Some(1), (50, 60), set_if(2, 3), DONE)]),
            ("it did not hold", false, vec![operation(2, Some(1), (50, 60), set_if(1, 3), DONE)]),
            ("rightly refused", true, vec![operation(2, Some(1), (50, 60), set_if(1, 3), UNMET)]),
            ("wrongly refused", false, vec![operation(2, Some(1), (50, 60), set_if(2, 3), UNMET)]),
        ];
        for (what, right, more) in cases {
            let operations = [vec![first.clone(), second.clone()], more].concat();
            assert_eq!(explained(operations), right, "{what}");
        }
    }

    #[test]
    fn unknown_outcomes() {
        let first = operation(1, Some(1), (10, 20), set(1), DONE);
        let unknown = operation(2, Some(1), (30, 0), set(2), Outcome::Unknown);
        let one = operation(3, None, (50, 60), LOOK, read(1));
        let two = operation(3, None, (70, 80), LOOK, read(2));
        let again = operation(3, None, (90, 99), LOOK, read(1));
        let with = |more: &[&Operation]| {
            let mut operations = vec![first.clone(), unknown.clone()];
            operations.extend(more.iter().map(|operation| (*operation).clone()));
            explained(operations)
        };
        assert!(with(&[]) && with(&[&one]) && with(&[&one, &two]));
        assert!(!with(&[&one, &two, &again]), "it took effect, and not twice");
        let refused = operation(3, Some(1), (50, 60), set_if(1, 3), UNMET);
        assert!(with(&[&refused]), "the unknown write came before");
        assert!(!with(&[
            &refused,
            &Operation { called: Time(70), answered: Some(Time(80)), ..one }
        ]));
    }

    #[test]
    fn a_session_s_commands_keep_their_order() {
        let write = |request, value| operation(1, Some(request), (10, 100), set(value), DONE);
        let look = |from: u64, value| operation(2, None, (from, from + 1), LOOK, read(value));
        assert!(explained(vec![write(1, 1), write(2, 2), look(20, 1), look(30, 2)]));
        assert!(!explained(vec![write(1, 1), write(2, 2), look(20, 2), look(30, 1)]));
    }

    #[test]
    fn stale_reads_in_long_histories() {
        let mut found = 0;
        for seed in 0..40 {
            let mut history = Model::history(seed);
            check(&history).unwrap();
            assert_eq!(undecided(&history), 0);
            if spoil(&mut history) {
                found += usize::from(check(&history).is_err());
            }
        }
        // Where the two writes overlap, no client can tell; the witness can.
        assert!(found > 10, "{found}");
    }

    /// Lets a read that began after a write was answered see the value before that.
    fn spoil(history: &mut History) -> bool {
        let writes: Vec<Operation> = history
            .operations
            .iter()
            .filter(|operation| matches!(operation.action, Action::Set(Some(_))))
            .filter(|operation| operation.index().is_some())
            .cloned()
            .collect();
        for operation in history.operations.iter_mut().rev() {
            let Outcome::Read(seen) = &mut operation.outcome else { continue };
            let done = |write: &&Operation| {
                write.topic == operation.topic
                    && write.answered.is_some_and(|answered| answered < operation.called)
            };
            let mut done: Vec<&Operation> = writes.iter().filter(done).collect();
            done.sort_by_key(|write| write.index());
            if let [.., older, _] = done[..]
                && let Action::Set(value) = older.action
                && seen.value.is_some()
                && operation.action == LOOK
            {
                seen.value = value;
                return true;
            }
        }
        false
    }
}
