//! Whether a numbered command may be applied: the one order of checks that makes a session's
//! commands apply exactly once and in order.

use super::answered::Turn;
use super::table::SessionTable;
use crate::domain::entry::Origin;
use crate::domain::id::Index;
use crate::domain::outcome::{Outcome, Rejection};

/// What to do with a numbered command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::domain) enum Admission {
    /// It has its turn.
    Apply,
    /// It is void, but uses its number.
    Spend(Rejection),
    /// It was applied before, with this answer.
    Repeat(Index, Outcome),
    /// It is void and its number stays open, or has been used before.
    Void(Rejection),
}

/// Looks at a command's origin; changes nothing.
pub(in crate::domain) fn admit(sessions: &SessionTable, origin: &Origin) -> Admission {
    let Some(session) = sessions.get(origin.session) else {
        return Admission::Void(Rejection::NoSuchSession);
    };
    if origin.epoch != session.epoch() {
        return Admission::Void(Rejection::StaleEpoch);
    }
    match session.answered().turn(origin.request) {
        Turn::Repeat(index, outcome) => Admission::Repeat(index, outcome),
        Turn::Forgotten => Admission::Void(Rejection::Forgotten),
        Turn::Gap => Admission::Void(Rejection::Gap),
        Turn::Next if origin.role_version != session.role_version() => {
            Admission::Spend(Rejection::StaleRoles)
        }
        Turn::Next => Admission::Apply,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::apply::stage::{ONE, Stage, TWO, plain, update};
    use crate::domain::id::SessionId;
    use crate::domain::limits;
    use crate::domain::machine::Answered;
    use crate::domain::topic::specification::TopicType;

    #[test]
    fn a_repeat_has_the_first_answer_and_no_effects() {
        let mut stage = Stage::new();
        let topic = stage.add("a", plain(TopicType::String));
        let origin = stage.origin(ONE);
        let command = update(topic, "one").encode();
        let (first, effects) = stage.propose(origin, command.clone());
        assert_eq!(effects.len(), 1);
        stage.send(TWO, update(topic, "two"));
        let (again, effects) = stage.propose(origin, command);
        assert_eq!((again, effects), (first, vec![]));
        assert_eq!(stage.text(topic).as_deref(), Some("two"));
    }

    #[test]
    fn the_order_of_checks() {
        let mut stage = Stage::new();
        let topic = stage.add("a", plain(TopicType::String));
        let next = stage.origin(ONE);
        let rejected = |reason| Outcome::Rejected(reason);
        let unknown = Origin { session: SessionId(9), epoch: 9, ..next };
        let stale = Origin { epoch: 0, role_version: 9, ..next };
        let gap = Origin { request: next.request + 1, role_version: 9, ..next };
        for (origin, reason) in [
            (unknown, Rejection::NoSuchSession),
            (stale, Rejection::StaleEpoch),
            (Origin { request: 1, ..stale }, Rejection::StaleEpoch),
            (gap, Rejection::Gap),
            (Origin { request: u64::MAX, ..next }, Rejection::Gap),
            (Origin { request: 0, ..next }, Rejection::Forgotten),
        ] {
            let (answered, _) = stage.propose(origin, update(topic, "x").encode());
            assert_eq!(answered.outcome, rejected(reason), "{origin:?}");
            assert_eq!(stage.origin(ONE), next, "the number stays open");
        }
        // A repeat is answered before roles are looked at, and revoked rights use the number.
        let (answered, _) = stage
            .propose(Origin { request: 1, role_version: 9, ..next }, update(topic, "x").encode());
        assert!(matches!(answered.outcome, Outcome::Topic { created: true, .. }));
        let (answered, _) =
            stage.propose(Origin { role_version: 9, ..next }, update(topic, "x").encode());
        assert_eq!(answered.outcome, rejected(Rejection::StaleRoles));
        assert_eq!(stage.text(topic), None);
        assert_eq!(stage.origin(ONE).request, next.request + 1);
        let (again, _) = stage.propose(next, update(topic, "x").encode());
        assert_eq!(again, Answered { origin: next, ..answered }, "void for good");
    }

    #[test]
    fn bytes_that_are_no_command_use_the_number() {
        let mut stage = Stage::new();
        for (bytes, reason) in [
            (&b""[..], Rejection::Undecodable),
            (b"\xff\x00", Rejection::Undecodable),
            (b"\x80\x00\x01\x00\x63\x00", Rejection::Undecodable),
            (b"\x03\x01\x02\x00//", Rejection::InvalidPath),
        ] {
            let origin = stage.origin(ONE);
            let (answered, _) = stage.propose(origin, Bytes::from_static(bytes));
            assert_eq!(answered.outcome, Outcome::Rejected(reason));
            assert_eq!(stage.origin(ONE).request, origin.request + 1);
        }
        let (answered, _) = stage.propose(Origin::default(), Bytes::new());
        assert_eq!(answered.outcome, Outcome::Rejected(Rejection::Undecodable));
    }

    #[test]
    fn answers_are_dropped_on_the_clients_word_and_at_the_bound() {
        let mut stage = Stage::new();
        let topic = stage.add("a", plain(TopicType::String));
        let kept = |stage: &Stage| stage.machine.session(ONE).unwrap().answered().len();
        for text in ["1", "2", "3"] {
            stage.send(ONE, update(topic, text));
        }
        assert_eq!(kept(&stage), 4);
        let origin = Origin { answered_below: 4, ..stage.origin(ONE) };
        stage.propose(origin, update(topic, "4").encode());
        assert_eq!(kept(&stage), 2, "requests 4 and 5");
        let ask = |stage: &mut Stage, request| {
            let origin = Origin { request, ..stage.origin(ONE) };
            stage.propose(origin, update(topic, "x").encode()).0.outcome
        };
        assert_eq!(ask(&mut stage, 3), Outcome::Rejected(Rejection::Forgotten));
        assert_eq!(ask(&mut stage, 4), Outcome::Done);
        // A word beyond what can be true drops no more than what was answered before.
        let origin = Origin { answered_below: u64::MAX, ..stage.origin(ONE) };
        stage.propose(origin, update(topic, "5").encode());
        assert_eq!(kept(&stage), 1);

        let many = limits::SESSION_IN_FLIGHT_MAX + 10;
        stage.send_all(ONE, (0..many).map(|i| update(topic, &i.to_string())));
        assert_eq!(kept(&stage), limits::SESSION_IN_FLIGHT_MAX + 1);
        let last = stage.machine.session(ONE).unwrap().answered().last();
        let oldest = last - limits::SESSION_IN_FLIGHT_MAX as u64;
        assert_eq!(ask(&mut stage, oldest), Outcome::Done);
        assert_eq!(ask(&mut stage, oldest - 1), Outcome::Rejected(Rejection::Forgotten));
    }
}
