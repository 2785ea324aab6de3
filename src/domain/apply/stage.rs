//! What the tests of commands stand on: a machine with two sessions, and the checks that every
//! entry must pass whatever it did.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::domain::command::{Command, OpenSession, TypedValue};
use crate::domain::constraint::Constraint;
use crate::domain::effect::Effect;
use crate::domain::entry::{Origin, Payload, Proposal};
use crate::domain::id::{NodeId, SessionId, TopicId};
use crate::domain::invariants;
use crate::domain::machine::{Answered, Machine};
use crate::domain::outcome::Outcome;
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::specification::{Specification, TopicType};

pub(in crate::domain) const ONE: SessionId = SessionId(1);
pub(in crate::domain) const TWO: SessionId = SessionId(2);
pub(in crate::domain) const NODE: NodeId = NodeId(11);

/// A machine and the place of the next entry.
#[derive(Debug, Clone)]
pub(in crate::domain) struct Stage {
    pub(in crate::domain) machine: Machine,
    pub(in crate::domain) entry: u64,
    pub(in crate::domain) log_time_ms: u64,
}

impl Stage {
    /// Sessions [`ONE`] and [`TWO`] are open on [`NODE`].
    pub(in crate::domain) fn new() -> Self {
        let mut stage = Self::empty();
        for session in [ONE, TWO] {
            assert_eq!(stage.cluster(open(session)).0, Outcome::Session { epoch: 1 });
        }
        stage
    }

    pub(in crate::domain) fn empty() -> Self {
        Self { machine: Machine::new(), entry: 0, log_time_ms: 1_000 }
    }

    /// The next command of a session, sent as its host would.
    pub(in crate::domain) fn send(
        &mut self,
        session: SessionId,
        command: Command,
    ) -> (Outcome, Vec<Effect>) {
        let origin = self.origin(session);
        let (answered, effects) = self.propose(origin, command.encode());
        (answered.outcome, effects)
    }

    /// A command of the cluster.
    pub(in crate::domain) fn cluster(&mut self, command: Command) -> (Outcome, Vec<Effect>) {
        let (answered, effects) = self.propose(Origin::default(), command.encode());
        (answered.outcome, effects)
    }

    /// Who a session's next command comes from.
    pub(in crate::domain) fn origin(&self, session: SessionId) -> Origin {
        let known = self.machine.session(session);
        Origin {
            session,
            epoch: known.map_or(1, |session| session.epoch()),
            role_version: known.map_or(1, |session| session.role_version()),
            request: known.map_or(1, |session| session.answered().last() + 1),
            answered_below: 0,
        }
    }

    /// One entry with one command; checks what any entry must keep true.
    pub(in crate::domain) fn propose(
        &mut self,
        origin: Origin,
        command: Bytes,
    ) -> (Answered, Vec<Effect>) {
        self.entry += 1;
        let (before, hash) = (self.machine.clone(), self.machine.hash());
        let payload = Payload {
            log_time_ms: self.log_time_ms,
            wall_time_ms: self.log_time_ms + 5_000_000,
            proposals: vec![Proposal { origin, command }],
        };
        let mut applied = self.machine.apply(self.entry, &payload);
        assert_eq!(before.hash(), hash, "a clone stands still");
        assert_eq!(invariants::check(&before), Ok(()));
        assert_eq!(invariants::check(&self.machine), Ok(()));
        let count = applied.events.len();
        for (ordinal, event) in applied.events.iter().enumerate() {
            assert_eq!(event.position.ordinal as usize, ordinal);
            assert_eq!(event.position.index.entry(), self.entry);
            assert_eq!(event.last, ordinal + 1 == count);
        }
        assert_eq!(applied.outcomes.len(), 1);
        let answered = applied.outcomes.remove(0);
        assert_eq!(answered.origin, origin);
        if let Outcome::Rejected(_) = answered.outcome {
            assert_eq!(count, 0, "a rejection has no events");
        }
        (answered, applied.events.into_iter().map(|event| event.effect).collect())
    }

    /// One entry with many commands of the cluster or of a session, without the checks that cost a
    /// walk over everything; every one must succeed.
    pub(in crate::domain) fn send_all(
        &mut self,
        session: SessionId,
        commands: impl IntoIterator<Item = Command>,
    ) {
        self.entry += 1;
        let mut origin = match session {
            SessionId::CLUSTER => Origin::default(),
            session => self.origin(session),
        };
        let mut proposals = Vec::new();
        for command in commands {
            proposals.push(Proposal { origin, command: command.encode() });
            origin.request += 1;
        }
        let payload = Payload { log_time_ms: self.log_time_ms, wall_time_ms: 0, proposals };
        let applied = self.machine.apply(self.entry, &payload);
        for answered in applied.outcomes {
            assert!(!matches!(answered.outcome, Outcome::Rejected(_)), "{answered:?}");
        }
    }

    /// Adds a topic as session [`ONE`].
    pub(in crate::domain) fn add(&mut self, at: &str, specification: Specification) -> TopicId {
        let (outcome, _) = self.send(ONE, Command::AddTopic { path: path(at), specification });
        let Outcome::Topic { id, created: true } = outcome else { panic!("{outcome:?}") };
        id
    }

    /// The text of a topic's value.
    pub(in crate::domain) fn text(&self, topic: TopicId) -> Option<String> {
        let value = self.machine.topic(topic).unwrap().value()?;
        Some(String::from_utf8(value.to_vec()).unwrap())
    }

    /// The paths of all topics.
    pub(in crate::domain) fn paths(&self) -> Vec<String> {
        self.machine.topics().iter().map(|topic| topic.info().path.to_string()).collect()
    }
}

pub(in crate::domain) fn open(session: SessionId) -> Command {
    Command::OpenSession(opening(session))
}

pub(in crate::domain) fn opening(session: SessionId) -> OpenSession {
    OpenSession {
        session,
        secret_hash: [session.0 as u8; 32],
        principal: format!("principal {}", session.0),
        roles: vec!["client".to_owned()],
        properties: BTreeMap::from([("$Transport".to_owned(), "OTHER".to_owned())]),
        reconnect_timeout_ms: 60_000,
        host: NODE,
        incarnation: 1,
    }
}

pub(in crate::domain) fn path(text: &str) -> TopicPath {
    TopicPath::parse(text).unwrap()
}

pub(in crate::domain) fn string(text: &str) -> TypedValue {
    let bytes = Some(Bytes::copy_from_slice(text.as_bytes()));
    TypedValue { value_type: TopicType::String, bytes }
}

pub(in crate::domain) fn json(text: &str) -> TypedValue {
    TypedValue { value_type: TopicType::Json, ..string(text) }
}

pub(in crate::domain) fn null(value_type: TopicType) -> TypedValue {
    TypedValue { value_type, bytes: None }
}

pub(in crate::domain) fn plain(topic_type: TopicType) -> Specification {
    Specification::plain(topic_type)
}

pub(in crate::domain) fn with(topic_type: TopicType, properties: &[(&str, &str)]) -> Specification {
    Specification::new(topic_type, properties.iter().copied()).unwrap()
}

pub(in crate::domain) fn set(at: &str, value: TypedValue) -> Command {
    Command::SetTopic {
        path: path(at),
        specification: None,
        constraint: Constraint::unconstrained(),
        value,
    }
}

pub(in crate::domain) fn update(topic: TopicId, text: &str) -> Command {
    Command::Update { topic, stream: None, value: string(text) }
}
