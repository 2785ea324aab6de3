//! Set a topic by its identifier: the update record, the hot path.

use super::publish::{check_value, publish};
use super::{Context, Decision, Effects};
use crate::domain::command::TypedValue;
use crate::domain::id::{StreamId, TopicId};
use crate::domain::outcome::{Outcome, Rejection};
use crate::domain::topic::tree::TopicTree;

pub(in crate::domain) fn apply(
    topics: &mut TopicTree,
    context: &Context,
    effects: &mut Effects<'_>,
    topic: TopicId,
    stream: Option<StreamId>,
    value: &TypedValue,
) -> Decision {
    let found = topics.get(topic);
    if let Some(stream) = stream {
        // The hold is of this session in this epoch, so another session that guesses the number,
        // or the same one after a move, does not get in. A removed topic took its stream with it.
        let origin = &context.origin;
        let holds = found.and_then(|topic| topic.stream()).is_some_and(|hold| {
            hold.id == stream && hold.session == origin.session && hold.epoch == origin.epoch
        });
        if !holds {
            return Err(Rejection::InvalidStream);
        }
    }
    let found = found.ok_or(Rejection::NoSuchTopic)?;
    if let Err(reason) = check_value(&found.info().specification, value) {
        if stream.is_some() {
            // What was pipelined behind a value that is refused must not be applied.
            topics.set_stream(topic, None);
        }
        return Err(reason);
    }
    let published = publish(topics, context, effects, topic, value, stream.is_some());
    Ok(if published { Outcome::Done } else { Outcome::Unchanged })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::domain::apply::stage::{
        ONE, Stage, TWO, json, null, path, plain, string, update, with,
    };
    use crate::domain::command::{Command, TypedValue};
    use crate::domain::constraint::Constraint;
    use crate::domain::effect::{CloseReason, Effect};
    use crate::domain::id::{NodeId, StreamId, TopicId};
    use crate::domain::limits;
    use crate::domain::outcome::{Outcome, Rejection};
    use crate::domain::topic::specification::TopicType;

    fn through(topic: TopicId, stream: StreamId, value: TypedValue) -> Command {
        Command::Update { topic, stream: Some(stream), value }
    }

    fn open_stream(
        stage: &mut Stage,
        session: crate::domain::id::SessionId,
    ) -> (TopicId, StreamId) {
        let (outcome, _) = stage.send(
            session,
            Command::OpenStream {
                path: path("s"),
                specification: Some(plain(TopicType::String)),
                constraint: Constraint::unconstrained(),
                value: None,
            },
        );
        let Outcome::Stream { id, topic, .. } = outcome else { panic!("{outcome:?}") };
        (topic, id)
    }

    #[test]
    fn a_value_is_published_and_versioned() {
        let mut stage = Stage::new();
        let topic = stage.add("a", plain(TopicType::String));
        let (outcome, effects) = stage.send(ONE, update(topic, "one"));
        assert_eq!(outcome, Outcome::Done);
        let info = stage.machine.topic(topic).unwrap().info().clone();
        let value = Some(Bytes::from_static(b"one"));
        assert_eq!(effects, [Effect::Value { topic: info, value }]);
        assert_eq!(stage.text(topic).as_deref(), Some("one"));
        assert_eq!(stage.machine.topic(topic).unwrap().version().entry(), stage.entry);
    }

    #[test]
    fn an_equal_value_is_acknowledged_and_not_published() {
        let mut stage = Stage::new();
        let topic = stage.add("a", plain(TopicType::String));
        stage.send(ONE, update(topic, "one"));
        let version = stage.machine.topic(topic).unwrap().version();
        assert_eq!(stage.send(TWO, update(topic, "one")), (Outcome::Unchanged, vec![]));
        assert_eq!(stage.machine.topic(topic).unwrap().version(), version);
    }

    #[test]
    fn the_value_has_an_allocation_of_its_own() {
        let mut stage = Stage::new();
        let topic = stage.add("a", plain(TopicType::String));
        let command = update(topic, "a value that is longer than any inline form").encode();
        let origin = stage.origin(ONE);
        stage.propose(origin, command.clone());
        let value = stage.machine.topic(topic).unwrap().value().unwrap().as_ptr() as usize;
        let entry = command.as_ptr() as usize;
        assert!(!(entry..entry + command.len()).contains(&value));
    }

    #[test]
    fn null_removes_the_value_where_the_type_has_one() {
        let mut stage = Stage::new();
        let topic = stage.add("a", plain(TopicType::String));
        let clear = Command::Update { topic, stream: None, value: null(TopicType::String) };
        assert_eq!(stage.send(ONE, clear.clone()), (Outcome::Unchanged, vec![]));
        stage.send(ONE, update(topic, "one"));
        let (outcome, effects) = stage.send(ONE, clear);
        assert_eq!(outcome, Outcome::Done);
        assert!(matches!(effects[..], [Effect::Value { value: None, .. }]));
        assert_eq!(stage.text(topic), None);
        for (at, topic_type) in [("json", TopicType::Json), ("binary", TopicType::Binary)] {
            let topic = stage.add(at, plain(topic_type));
            let clear = Command::Update { topic, stream: None, value: null(topic_type) };
            let (outcome, _) = stage.send(ONE, clear);
            assert_eq!(outcome, Outcome::Rejected(Rejection::IncompatibleValue));
        }
    }

    #[test]
    fn json_null_is_a_value() {
        let mut stage = Stage::new();
        let topic = stage.add("a", plain(TopicType::Json));
        let value = json("null");
        stage.send(ONE, Command::Update { topic, stream: None, value });
        assert_eq!(stage.text(topic).as_deref(), Some("null"));
    }

    #[test]
    fn what_is_not_retained_is_always_published() {
        let mut stage = Stage::new();
        let specification = with(TopicType::String, &[("DONT_RETAIN_VALUE", "true")]);
        let topic = stage.add("a", specification);
        for _ in 0..2 {
            let (outcome, effects) = stage.send(ONE, update(topic, "same"));
            assert_eq!(outcome, Outcome::Done);
            assert!(matches!(effects[..], [Effect::Value { value: Some(_), .. }]));
            assert_eq!(stage.text(topic), None);
        }
        let clear = Command::Update { topic, stream: None, value: null(TopicType::String) };
        let (outcome, effects) = stage.send(ONE, clear);
        assert_eq!(outcome, Outcome::Done);
        assert!(matches!(effects[..], [Effect::Value { value: None, .. }]));
    }

    #[test]
    fn refusals() {
        let mut stage = Stage::new();
        let topic = stage.add("a", plain(TopicType::String));
        let large = Bytes::from(vec![b'x'; limits::VALUE_BYTES_MAX + 1]);
        let value = |bytes| TypedValue { value_type: TopicType::String, bytes: Some(bytes) };
        for (topic, value, reason) in [
            (TopicId(99), string("x"), Rejection::NoSuchTopic),
            (topic, json("1"), Rejection::IncompatibleValue),
            (topic, value(large.clone()), Rejection::ValueTooLarge),
        ] {
            let (outcome, _) = stage.send(ONE, Command::Update { topic, stream: None, value });
            assert_eq!(outcome, Outcome::Rejected(reason));
        }
        let value = value(large.slice(1..));
        let (outcome, _) = stage.send(ONE, Command::Update { topic, stream: None, value });
        assert_eq!(outcome, Outcome::Done, "exactly the limit fits");
    }

    #[test]
    fn pipelined_stream_values_are_applied_in_order() {
        let mut stage = Stage::new();
        let (topic, stream) = open_stream(&mut stage, ONE);
        for text in ["one", "two", "two", "three"] {
            stage.send(ONE, through(topic, stream, string(text)));
            assert_eq!(stage.text(topic).as_deref(), Some(text));
            assert!(stage.machine.topic(topic).unwrap().stream().is_some());
        }
    }

    #[test]
    fn what_ends_a_stream() {
        type End = fn(&mut Stage, TopicId);
        let ends: [(&str, End); 7] = [
            ("another session's update", |stage, topic| {
                stage.send(TWO, update(topic, "other"));
            }),
            ("the own session's update beside the stream", |stage, topic| {
                stage.send(ONE, update(topic, "other"));
            }),
            ("another stream", |stage, _| {
                open_stream(stage, TWO);
            }),
            ("a newer stream of the same session", |stage, _| {
                open_stream(stage, ONE);
            }),
            ("removal", |stage, _| {
                let selector = ">s".to_owned();
                stage.send(ONE, Command::RemoveTopics { selector, from: None });
            }),
            ("a move of the session", |stage, _| {
                stage.cluster(Command::MoveSession {
                    session: ONE,
                    secret_hash: [1; 32],
                    next_secret_hash: [7; 32],
                    host: NodeId(12),
                    incarnation: 1,
                });
            }),
            ("a value that is refused", |stage, topic| {
                let hold = *stage.machine.topic(topic).unwrap().stream().unwrap();
                let (outcome, _) = stage.send(ONE, through(topic, hold.id, json("1")));
                assert_eq!(outcome, Outcome::Rejected(Rejection::IncompatibleValue));
            }),
        ];
        for (what, end) in ends {
            let mut stage = Stage::new();
            let (topic, stream) = open_stream(&mut stage, ONE);
            stage.send(ONE, through(topic, stream, string("mine")));
            end(&mut stage, topic);
            for _ in 0..2 {
                let (outcome, _) = stage.send(ONE, through(topic, stream, string("again")));
                assert_eq!(outcome, Outcome::Rejected(Rejection::InvalidStream), "{what}");
            }
        }
    }

    #[test]
    fn what_does_not_end_a_stream() {
        let mut stage = Stage::new();
        let (topic, stream) = open_stream(&mut stage, ONE);
        stage.send(ONE, through(topic, stream, string("mine")));
        stage.send(TWO, update(topic, "mine"));
        stage.send(TWO, Command::Update { topic, stream: None, value: json("1") });
        let (outcome, _) = stage.send(ONE, through(topic, stream, string("again")));
        assert_eq!(outcome, Outcome::Done, "an equal or refused value is no other writer");
        let epoch = 1;
        stage.cluster(Command::DetachSession { session: ONE, epoch });
        let (outcome, _) = stage.send(ONE, through(topic, stream, string("more")));
        assert_eq!(outcome, Outcome::Done, "nor is a lost connection");
    }

    #[test]
    fn a_stream_is_its_sessions_alone() {
        let mut stage = Stage::new();
        let (topic, stream) = open_stream(&mut stage, ONE);
        let (outcome, _) = stage.send(TWO, through(topic, stream, string("guessed")));
        assert_eq!(outcome, Outcome::Rejected(Rejection::InvalidStream));
        let reason = CloseReason::ByClient;
        stage.send(ONE, Command::CloseSession { session: ONE, reason });
        stage.cluster(crate::domain::apply::stage::open(crate::domain::id::SessionId(3)));
        let three = crate::domain::id::SessionId(3);
        let (outcome, _) = stage.send(three, through(topic, stream, string("guessed")));
        assert_eq!(outcome, Outcome::Rejected(Rejection::InvalidStream));
    }
}
