//! Bodies of fuzz targets, callable from a stable test.
//!
//! The input's bytes are choices: which command, whose, with which of a few paths and values, so
//! that commands meet each other. Some choices make bytes that are no command at all.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::invariants;
use super::{Applied, Machine};
use crate::domain::command::{Command, OpenSession, TypedValue};
use crate::domain::constraint::Constraint;
use crate::domain::effect::CloseReason;
use crate::domain::entry::{Origin, Payload, Proposal};
use crate::domain::id::{ClusterId, Lineage, NodeId, SessionId, StreamId, TopicId};
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::specification::{Specification, TopicType};

/// The entries that a few bytes describe, and the machine that applied them.
///
/// Each command's origin is made from the machine as it is then, so most commands have their turn.
#[must_use]
pub fn script(input: &[u8]) -> (Vec<Payload>, Machine) {
    let mut choices = Choices { input };
    let mut machine = Machine::new();
    let mut entries = Vec::new();
    let mut log_time_ms = 0;
    while !choices.input.is_empty() && entries.len() < 512 {
        log_time_ms += u64::from(choices.below(8)) * 100;
        let mut next_requests = BTreeMap::new();
        let count = 1 + choices.below(4);
        let proposals = (0..count)
            .map(|_| {
                let mut session = SessionId(u64::from(choices.below(5)));
                // What comes from nowhere is tried now and then; else somebody opens sessions.
                if machine.session(session).is_none() && !choices.one_in(16) {
                    session = SessionId::CLUSTER;
                }
                let origin = choices.origin(session, &machine, &mut next_requests);
                Proposal { origin, command: choices.command(session, &machine) }
            })
            .collect();
        let wall_time_ms = log_time_ms + 1_000_000;
        let payload = Payload { log_time_ms, wall_time_ms, proposals };
        machine.apply(entries.len() as u64 + 1, &payload);
        entries.push(payload);
    }
    (entries, machine)
}

/// Applies a script: invariants after each entry; the same again gives the same outcomes, events
/// and hashes; a snapshot taken midway and restored goes on as if nothing had been.
///
/// # Panics
/// When one of these does not hold.
pub fn machine_commands(input: &[u8]) {
    let (entries, built) = script(input);
    let mut machine = Machine::new();
    let mut history: Vec<(Applied, u64)> = Vec::new();
    let middle = entries.len() / 2;
    let mut restored = None;
    for (payload, entry) in entries.iter().zip(1..) {
        let decoded = Payload::decode(payload.encode());
        assert_eq!(decoded.as_ref(), Ok(payload));
        let applied = machine.apply(entry, payload);
        assert_eq!(invariants::check(&machine), Ok(()));
        check_events(entry, &applied);
        history.push((applied, machine.hash()));
        if history.len() == middle {
            restored = Some(reread(&machine));
        }
    }
    assert_eq!(machine.hash(), built.hash(), "the same entries give the same state");
    let mut restored = restored.unwrap_or_default();
    let rest = entries.iter().zip(1..).zip(&history).skip(middle);
    for ((payload, entry), (applied, hash)) in rest {
        assert_eq!(&restored.apply(entry, payload), applied, "a restored machine goes on");
        assert_eq!(restored.hash(), *hash);
    }
    assert!(machine.to_records().eq(restored.to_records()), "equal machines make equal records");
}

/// Reads bytes as one snapshot record, then as several: a machine or a named error.
///
/// # Panics
/// When a machine that was read does not keep its invariants or is not itself after a second time.
pub fn snapshot_restore(input: &[u8]) {
    let records = input.split(|byte| *byte == 0xfe).map(Bytes::copy_from_slice);
    for machine in
        [Machine::from_records([Bytes::copy_from_slice(input)]), Machine::from_records(records)]
            .into_iter()
            .flatten()
    {
        assert_eq!(invariants::check(&machine), Ok(()));
        reread(&machine);
    }
    // The hash keeps most damage out; so damage a snapshot and let the reader meet the fields.
    let (_, machine) = script(input.get(8..).unwrap_or_default());
    let mut records: Vec<BytesMut> = machine.to_records().map(BytesMut::from).collect();
    if let [a, b, c, d, value, ..] = input {
        let at = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        let count = records.len().max(1);
        if let Some(record) = records.get_mut(at % count) {
            let length = record.len().max(1);
            if let Some(byte) = record.get_mut(at / count % length) {
                *byte ^= *value;
            }
        }
    }
    if let Ok(machine) = Machine::from_records(records.into_iter().map(BytesMut::freeze)) {
        assert_eq!(invariants::check(&machine), Ok(()));
    }
}

/// Reads bytes as a command; what can be read is written and read again as the same.
///
/// # Panics
/// When it is not the same.
pub fn command_bytes(input: &[u8]) {
    if let Ok(command) = Command::decode(Bytes::copy_from_slice(input)) {
        assert_eq!(Command::decode(command.encode()).as_ref(), Ok(&command));
    }
}

/// Reads bytes as a log entry's payload, and its commands.
///
/// # Panics
/// When what is read is written with other bytes: an entry has one encoding only.
pub fn entry_payload(input: &[u8]) {
    let input = Bytes::copy_from_slice(input);
    let Ok(payload) = Payload::decode(input.clone()) else { return };
    assert_eq!(payload.encode(), input);
    for proposal in payload.proposals {
        let _unreadable = Command::decode(proposal.command).is_err();
    }
}

/// One command of every kind, with every field away from its default.
#[must_use]
pub fn every_command() -> Vec<Command> {
    let path = || TopicPath::parse("a/é").expect("the path is legal");
    let properties = [("CONFLATION", "off"), ("OWNER", "$Principal is \"ann\"")];
    let specification =
        || Specification::new(TopicType::Json, properties).expect("the properties are legal");
    let bytes = Some(Bytes::from_static(b"{\"x\":1}"));
    let value = || TypedValue { value_type: TopicType::Json, bytes: bytes.clone() };
    let null = TypedValue { value_type: TopicType::Int64, bytes: None };
    let no_topic = || Constraint::parse("noTopic").expect("the constraint is legal");
    let (session, node, incarnation) = (SessionId(0x0102_0304_0506_0708), NodeId(0x11), 3);
    let text = str::to_owned;
    vec![
        Command::Update { topic: TopicId(0x0a0b), stream: None, value: value() },
        Command::Update { topic: TopicId(1), stream: Some(StreamId(0x0c0d)), value: null },
        Command::SetByPath { path: path(), value: value() },
        Command::Refused { code: 401 },
        Command::AddTopic { path: path(), specification: specification() },
        Command::OpenTopic { path: path() },
        Command::SetTopic {
            path: path(),
            specification: Some(specification()),
            constraint: no_topic(),
            value: value(),
        },
        Command::OpenStream {
            path: path(),
            specification: Some(specification()),
            constraint: no_topic(),
            value: Some(value()),
        },
        Command::RemoveTopics { selector: text("?a//"), from: Some(path()) },
        Command::OpenSession(OpenSession {
            session,
            secret_hash: [0x5e; 32],
            principal: text("ann"),
            roles: vec![text("client"), text("operator")],
            properties: BTreeMap::from([(text("$Country"), text("CH")), (text("team"), text("x"))]),
            reconnect_timeout_ms: 60_000,
            host: node,
            incarnation,
        }),
        Command::MoveSession {
            session,
            secret_hash: [0x5e; 32],
            next_secret_hash: [0x5f; 32],
            host: node,
            incarnation,
        },
        Command::DetachSession { session, epoch: 4 },
        Command::CloseSession { session, reason: CloseReason::ByController },
        Command::ExpireSessions { sessions: vec![session, SessionId(9)] },
        Command::NodeStarted { node, incarnation },
        Command::NodeLost { node, incarnation },
        Command::Select { scope: text("s"), selector: text(">a"), select: true },
        Command::Listen { listener: 7, selector: text(">a"), select: true },
        Command::Unlisten { listener: 7 },
        Command::Found {
            cluster: ClusterId(0x21),
            lineage: Lineage(0x22),
            names: BTreeMap::from([(node, text("n1")), (NodeId(0x12), text("n2"))]),
            admin_password: text("$argon2id$v=19$x"),
            anonymous: true,
        },
        Command::SetPassword { principal: text("ann"), password: Some(text("$argon2id$v=19$y")) },
        Command::SetAnonymous { allowed: true },
    ]
}

fn reread(machine: &Machine) -> Machine {
    let restored = Machine::from_records(machine.to_records());
    let restored = restored.expect("a machine can be restored from its own records");
    assert_eq!(restored.hash(), machine.hash());
    assert_eq!(restored.applied(), machine.applied());
    assert_eq!(invariants::check(&restored), Ok(()));
    restored
}

fn check_events(entry: u64, applied: &Applied) {
    let positions = applied.events.iter().map(|event| event.position);
    assert!(positions.is_sorted_by(|one, next| one < next), "positions rise");
    for (event, next) in
        applied.events.iter().zip(applied.events.iter().skip(1).map(Some).chain([None]))
    {
        assert_eq!(event.position.index.entry(), entry);
        let is_last = next.is_none_or(|next| next.position.index != event.position.index);
        assert_eq!(event.last, is_last, "the last event of each command says so");
    }
}

/// Bytes as choices; zero when they have run out.
struct Choices<'a> {
    input: &'a [u8],
}

const PATHS: [&str; 8] = ["a", "a/b", "a/b/c", "a!", "b", "b/c", "c/d/e/f", "z"];
const SELECTORS: [&str; 10] =
    [">a", "a/b", "?a/.*", "?.*//", "*a.*", "#>a////>b", "?a//", "?(", "", "?b/.*/"];
const CONSTRAINTS: [&str; 4] = ["unconstrained", "noTopic", "noValue", "unconstrained"];

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        match self.input.split_first() {
            Some((first, rest)) => {
                self.input = rest;
                *first
            }
            None => 0,
        }
    }

    fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }

    fn one_in(&mut self, odds: u8) -> bool {
        self.below(odds) == odds - 1
    }

    fn text(&mut self, among: &[&str]) -> String {
        let at = usize::from(self.byte()) % among.len();
        among.get(at).copied().unwrap_or_default().to_owned()
    }

    fn path(&mut self) -> TopicPath {
        TopicPath::parse(&self.text(&PATHS)).expect("the paths are legal")
    }

    fn session(&mut self) -> SessionId {
        SessionId(u64::from(self.below(5)))
    }

    fn node(&mut self) -> NodeId {
        NodeId(u64::from(self.below(3)) + 1)
    }

    fn secret(&mut self) -> [u8; 32] {
        [self.below(4); 32]
    }

    fn topic_type(&mut self) -> TopicType {
        TopicType::from_code(1 + self.below(5)).unwrap_or(TopicType::Json)
    }

    fn value(&mut self) -> TypedValue {
        let value_type = if self.one_in(4) { self.topic_type() } else { TopicType::String };
        let bytes = (!self.one_in(5)).then(|| Bytes::from(vec![b'0' + self.below(3)]));
        TypedValue { value_type, bytes }
    }

    fn specification(&mut self) -> Specification {
        if self.one_in(4) {
            return Specification::plain(self.topic_type());
        }
        let property = match self.below(4) {
            0 => Some(("DONT_RETAIN_VALUE", "true")),
            _ => None,
        };
        Specification::new(TopicType::String, property).expect("the properties are legal")
    }

    fn constraint(&mut self) -> Constraint {
        let text = self.text(&CONSTRAINTS);
        Constraint::parse(&text).expect("the constraints are legal")
    }

    /// The next request of the session, or now and then another.
    fn origin(
        &mut self,
        session: SessionId,
        machine: &Machine,
        next_requests: &mut BTreeMap<SessionId, u64>,
    ) -> Origin {
        let Some(known) = machine.session(session) else {
            let request = u64::from(self.below(4));
            return Origin { session, request, ..Origin::default() };
        };
        let next = next_requests.entry(session).or_insert_with(|| known.answered().last() + 1);
        let mut origin = Origin {
            session,
            epoch: known.epoch(),
            role_version: known.role_version(),
            request: *next,
            answered_below: 0,
        };
        match self.below(16) {
            0 => origin.epoch = origin.epoch.wrapping_sub(1),
            1 => origin.role_version += 1,
            2 => origin.request += 1,
            3 => origin.request = origin.request.saturating_sub(u64::from(self.below(4))),
            4 => origin.answered_below = origin.request.saturating_sub(u64::from(self.below(4))),
            _ => *next += 1,
        }
        origin
    }

    fn command(&mut self, session: SessionId, machine: &Machine) -> Bytes {
        if self.one_in(16) {
            let bytes: Vec<u8> = (0..self.below(24)).map(|_| self.byte()).collect();
            return Bytes::from(bytes);
        }
        let from_cluster = session == SessionId::CLUSTER;
        let command = match from_cluster != self.one_in(16) {
            true => self.cluster_command(),
            false => self.session_command(session, machine),
        };
        command.encode()
    }

    fn session_command(&mut self, session: SessionId, machine: &Machine) -> Command {
        match self.below(16) {
            0..=4 => {
                let topic = match self.one_in(8) {
                    true => TopicId(u64::from(self.byte())),
                    false => machine.topic_at(&self.path()).map_or(TopicId(1), |at| at.info().id),
                };
                let stream = machine.topic(topic).and_then(|topic| topic.stream());
                let stream = match self.below(4) {
                    0 => Some(StreamId(u64::from(self.byte()))),
                    1 => None,
                    _ => stream.map(|hold| hold.id),
                };
                Command::Update { topic, stream, value: self.value() }
            }
            5 => Command::SetByPath { path: self.path(), value: self.value() },
            6 => Command::Refused { code: u16::from(self.byte()) },
            7 => Command::AddTopic { path: self.path(), specification: self.specification() },
            8 => Command::OpenTopic { path: self.path() },
            9 => Command::SetTopic {
                path: self.path(),
                specification: self.one_in(2).then(|| self.specification()),
                constraint: self.constraint(),
                value: self.value(),
            },
            10 => Command::OpenStream {
                path: self.path(),
                specification: self.one_in(2).then(|| self.specification()),
                constraint: self.constraint(),
                value: self.one_in(2).then(|| self.value()),
            },
            11 => Command::RemoveTopics {
                selector: self.text(&SELECTORS),
                from: self.one_in(4).then(|| self.path()),
            },
            12 => Command::Select {
                scope: self.text(&["", "", "s", "$x"]),
                selector: self.text(&SELECTORS),
                select: !self.one_in(3),
            },
            13 => Command::Listen {
                listener: u32::from(self.below(3)),
                selector: self.text(&SELECTORS),
                select: !self.one_in(3),
            },
            14 => Command::Unlisten { listener: u32::from(self.below(3)) },
            _ => Command::CloseSession {
                session: if self.one_in(4) { self.session() } else { session },
                reason: CloseReason::ByClient,
            },
        }
    }

    fn cluster_command(&mut self) -> Command {
        match self.below(12) {
            0..=2 => Command::OpenSession(OpenSession {
                session: self.session(),
                secret_hash: self.secret(),
                principal: self.text(&["", "ann", "bob"]),
                roles: vec![self.text(&["client", "operator"])],
                properties: BTreeMap::from([("$Transport".to_owned(), self.text(&["OTHER"]))]),
                reconnect_timeout_ms: u64::from(self.below(4)) * 300,
                host: self.node(),
                incarnation: u64::from(self.below(3)),
            }),
            3 | 4 => Command::MoveSession {
                session: self.session(),
                secret_hash: self.secret(),
                next_secret_hash: self.secret(),
                host: self.node(),
                incarnation: u64::from(self.below(3)),
            },
            5 => {
                let (session, epoch) = (self.session(), u32::from(self.below(4)));
                Command::DetachSession { session, epoch }
            }
            6 => Command::CloseSession { session: self.session(), reason: CloseReason::Expired },
            7 => {
                let count = self.below(6);
                let sessions = (0..count).map(|_| self.session()).collect();
                Command::ExpireSessions { sessions }
            }
            8 => Command::NodeStarted { node: self.node(), incarnation: u64::from(self.below(3)) },
            9 => Command::NodeLost { node: self.node(), incarnation: u64::from(self.below(3)) },
            10 => Command::Found {
                cluster: ClusterId(u64::from(self.below(2))),
                lineage: Lineage(7),
                names: BTreeMap::from([(self.node(), self.text(&["n1", "n2"]))]),
                admin_password: self.text(&["one", "two"]),
                anonymous: self.one_in(2),
            },
            _ => match self.one_in(2) {
                true => Command::SetAnonymous { allowed: self.one_in(2) },
                false => Command::SetPassword {
                    principal: self.text(&["", "ann", "bob"]),
                    password: self.one_in(2).then(|| self.text(&["one", "two"])),
                },
            },
        }
    }
}
#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The scripts of random bytes reach nearly every outcome of nearly every command; a generator
    /// that only met refusals would prove nothing.
    #[test]
    fn scripts_reach_far() {
        let mut state = 1u64;
        let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..40 {
            let input: Vec<u8> = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .take(4_000)
            .collect();
            let (entries, _) = script(&input);
            let mut machine = Machine::new();
            for (payload, entry) in entries.iter().zip(1..) {
                for answered in machine.apply(entry, payload).outcomes {
                    let text = format!("{:?}", answered.outcome);
                    let name = match text.strip_prefix("Rejected(") {
                        Some(reason) => reason.trim_end_matches(')').to_owned(),
                        None => text.split([' ', '(']).next().unwrap().to_owned(),
                    };
                    *outcomes.entry(name).or_default() += 1;
                }
            }
        }
        for name in [
            "Done",
            "Unchanged",
            "Topic",
            "Stream",
            "Removed",
            "Session",
            "Sessions",
            "Undecodable",
            "NoSuchSession",
            "StaleEpoch",
            "StaleRoles",
            "Gap",
            "Forgotten",
            "WrongSecret",
            "RefusedByHost",
            "StaleHost",
            "SessionExists",
            "InvalidScope",
            "NoSuchTopic",
            "ExistsMismatch",
            "IncompatibleValue",
            "UnsatisfiedConstraint",
            "InvalidStream",
            "InvalidSelector",
            "PermissionDenied",
            "AlreadyFounded",
        ] {
            let count = outcomes.get(name).copied().unwrap_or(0);
            assert!(count >= 3, "{name} was met {count} times");
        }
    }
}
