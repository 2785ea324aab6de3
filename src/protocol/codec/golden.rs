//! One sample of every message, its bytes as they must stay, and what a cut of it does.
//!
//! `tests/fixtures/protocol/messages.txt` holds a line `name hex` for each sample; the bytes of a
//! released message never change.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};

use bytes::{Bytes, BytesMut};

use crate::domain::id::{ClusterId, Index, Lineage, Position, SessionId, StreamId, TopicId};
use crate::domain::topic::path::TopicPath;
use crate::protocol::command::ClientCommand;
use crate::protocol::delivery::{
    BulkBegin, BulkMessage, BulkPurpose, Event, EventMessage, NotifiedChange, UnsubscribeReason,
};
use crate::protocol::handshake::{
    Credentials, Hello, Look, NodeAddress, Refused, ResetReason, Resume, SessionLimits, StartFrom,
    Verdict, Welcome,
};
use crate::protocol::read::{
    Answer, Bound, DeepBranches, Fetch, Level, Limit, Query, Read, ReadReply, Row, SessionInfo,
};
use crate::protocol::server_message::{Acknowledged, Acknowledgement, Reply};
use crate::protocol::topic::{
    ConstraintNode, JsonCondition, Operator, WireSpecification, WireValue,
};
use crate::protocol::{ClientMessage, DecodeError, ErrorCode, ServerMessage, frame, kind};

const GOLDEN: &str = include_str!("../../../tests/fixtures/protocol/messages.txt");

fn position() -> Position {
    Position { index: Index::new(78, 3), ordinal: 2 }
}

fn path() -> TopicPath {
    TopicPath::parse("a/b").unwrap()
}

fn specification() -> WireSpecification {
    let properties = [("CONFLATION", "off")].map(|(key, value)| (key.into(), value.into()));
    WireSpecification { topic_type: 2, properties: BTreeMap::from(properties) }
}

fn value() -> WireValue {
    WireValue { value_type: 2, bytes: Some(Bytes::from_static(b"{}")) }
}

fn node() -> NodeAddress {
    NodeAddress { name: "n1".into(), address: "127.0.0.1:7400".into() }
}

fn hello() -> Hello {
    Hello {
        version: 1,
        client: "quorate/0.1".into(),
        credentials: Credentials::Anonymous,
        resume: None,
        reconnect_timeout_ms: 60_000,
        properties: BTreeMap::new(),
        beat_ms: 0,
        from: None,
    }
}

fn resume() -> Resume {
    Resume {
        session: SessionId(0x1122),
        secret: [7; 32],
        lineage: Lineage(9),
        position: Some(position()),
        initial_missing: true,
        seen: Some(Index(5)),
        replaying: false,
    }
}

fn commands() -> Vec<(&'static str, ClientCommand)> {
    let json = JsonCondition {
        pointer: "/x".into(),
        operator: Some(Operator::GreaterOrEqual),
        value: Bytes::from_static(b"1"),
    };
    let without = JsonCondition { pointer: "/y".into(), operator: None, value: Bytes::new() };
    let constraint = vec![
        ConstraintNode::Or { count: 2 },
        ConstraintNode::NoTopic,
        ConstraintNode::And { count: 4 },
        ConstraintNode::Unconstrained,
        ConstraintNode::NoValue,
        ConstraintNode::Value { operator: Operator::Is, value: value() },
        ConstraintNode::Json { conditions: vec![json, without] },
    ];
    let path = || "a/b".to_owned();
    vec![
        ("add-topic", ClientCommand::AddTopic { path: path(), specification: specification() }),
        ("open-topic", ClientCommand::OpenTopic { path: path() }),
        (
            "set-topic",
            ClientCommand::SetTopic {
                path: path(),
                specification: Some(specification()),
                constraint,
                value: value(),
            },
        ),
        (
            "set-topic-null",
            ClientCommand::SetTopic {
                path: path(),
                specification: None,
                constraint: vec![],
                value: WireValue { value_type: 1, bytes: None },
            },
        ),
        (
            "open-stream",
            ClientCommand::OpenStream {
                path: path(),
                specification: Some(specification()),
                constraint: vec![ConstraintNode::NoTopic],
                value: Some(value()),
            },
        ),
        (
            "remove-topics",
            ClientCommand::RemoveTopics { selector: "?a//".into(), from: Some(path()) },
        ),
        (
            "select",
            ClientCommand::Select { scope: "s".into(), selector: "?a//".into(), select: true },
        ),
        ("listen", ClientCommand::Listen { listener: 4, selector: ">a".into(), select: true }),
        ("unlisten", ClientCommand::Unlisten { listener: 4 }),
    ]
}

fn client_messages() -> Vec<(String, ClientMessage)> {
    let credentials =
        Credentials::Password { principal: "admin".into(), password: "secret".into() };
    let properties = BTreeMap::from([("place".to_owned(), "here".to_owned())]);
    let from = StartFrom { lineage: Some(Lineage(9)), position: Position::START };
    let read = |correlation, level, query| {
        let read = Read { level, at_least: Some(Index(5)), deadline_ms: Some(1_000), query };
        ClientMessage::Read { correlation, read: Ok(read) }
    };
    let fetch = Fetch {
        selector: "?a//".into(),
        from: Some(Bound { path: "a".into(), inclusive: true }),
        to: Some(Bound { path: "b".into(), inclusive: false }),
        topic_types: vec![1, 2],
        values: Some(0),
        properties: true,
        sizes: true,
        limit: Some(Limit::First(10)),
        bytes_max: Some(65_536),
        deep_branches: Some(DeepBranches { depth: 2, limit: 3 }),
    };
    let last = Fetch { limit: Some(Limit::Last(1)), ..Fetch::default() };
    let record = Bytes::from_static(b"\x01\x02\x07\0\0\0\0\0\0\0{}");
    let mut found = vec![
        ("hello", ClientMessage::Hello(hello())),
        ("hello-full", {
            ClientMessage::Hello(Hello {
                credentials,
                properties,
                beat_ms: 1_000,
                from: Some(from),
                ..hello()
            })
        }),
        ("hello-resume", ClientMessage::Hello(Hello { resume: Some(resume()), ..hello() })),
        ("update", ClientMessage::Update { request: 258, record }),
        ("read-fetch", read(1, Level::Local, Query::Fetch(fetch))),
        ("read-fetch-last", read(2, Level::Linearizable, Query::Fetch(last))),
        ("read-ping", read(3, Level::Stale, Query::Ping)),
        ("read-session", read(4, Level::Local, Query::SessionInfo)),
        ("read-cluster", read(5, Level::Local, Query::ClusterStatus)),
        ("answered", ClientMessage::Answered { below: 259 }),
        ("goodbye", ClientMessage::Goodbye),
        ("look", {
            let read = Read {
                level: Level::Stale,
                at_least: None,
                deadline_ms: Some(1_500),
                query: Query::ClusterStatus,
            };
            let client = "quorate/0.1".to_owned();
            let credentials = Credentials::Anonymous;
            ClientMessage::Look(Look { version: 1, client, credentials, read })
        }),
    ]
    .into_iter()
    .map(|(name, message)| (name.to_owned(), message))
    .collect::<Vec<_>>();
    for (name, command) in commands() {
        let mut frame = BytesMut::new();
        ClientMessage::put_command(&mut frame, 259, &command);
        let body = frame.freeze().slice(frame::OVERHEAD_BYTES + 8..);
        assert_eq!(ClientCommand::decode(&body), Ok(command));
        found.push((format!("command-{name}"), ClientMessage::Command { request: 259, body }));
    }
    found
}

fn welcome(verdict: Verdict) -> ServerMessage {
    ServerMessage::Welcome(Welcome {
        session: SessionId(0x1122),
        epoch: 3,
        secret: [8; 32],
        last_request: 41,
        lineage: Lineage(9),
        cluster: ClusterId(10),
        node: "n1".into(),
        nodes: vec![node()],
        limits: SessionLimits {
            in_flight_max: 1_024,
            reads_max: 64,
            value_bytes_max: 1_048_576,
            payload_bytes_max: 1_114_112,
            reconnect_timeout_ms: 60_000,
            beat_ms: 2_000,
        },
        verdict,
    })
}

fn row() -> Row {
    Row {
        path: "a/b".into(),
        topic: TopicId(7),
        specification: specification(),
        value: Some(Bytes::from_static(b"{}")),
        version: Some(Index(5)),
        size: Some(2),
    }
}

fn read_replies() -> Vec<(&'static str, ServerMessage)> {
    let reply = |answer| ServerMessage::ReadReply {
        correlation: 1,
        reply: ReadReply { index: Index(6), age_ms: 7, stale: true, answer },
    };
    let session = SessionInfo {
        session: SessionId(0x1122),
        epoch: 3,
        principal: "admin".into(),
        roles: vec!["ADMINISTRATOR".into()],
        properties: BTreeMap::from([("$ClientIP".to_owned(), "127.0.0.1".to_owned())]),
        node: "n1".into(),
    };
    let bare = Row { value: None, version: None, size: None, ..row() };
    let refused = Answer::Refused { code: 503, text: "no quorum".into(), retry_ms: Some(500) };
    vec![
        ("read-reply-rows", reply(Answer::Rows { rows: vec![row(), bare], more: true })),
        ("read-reply-bulk", reply(Answer::Bulk { bulk: 2 })),
        ("read-reply-pong", reply(Answer::Pong)),
        ("read-reply-session", reply(Answer::Session(session))),
        ("read-reply-cluster", {
            reply(Answer::ClusterStatus { json: Bytes::from_static(b"{}") })
        }),
        ("read-reply-refused", reply(refused)),
    ]
}

fn server_messages() -> Vec<(String, ServerMessage)> {
    let reply = |reply| ServerMessage::Reply { request: 259, index: Index(6), reply };
    let one = |request, result| Acknowledgement::One { request, index: Index(request), result };
    let acknowledged = ServerMessage::Acknowledged(vec![
        Acknowledgement::Run { first_request: 1, first_index: Index(65_536), count: 64 },
        one(65, Acknowledged::Unchanged),
        one(66, Acknowledged::Refused(ErrorCode::NoSuchTopic)),
        one(67, Acknowledged::Done),
    ]);
    let (code, retry_ms) = (ErrorCode::Inquorate, 500);
    let refused =
        Refused { code: 402, text: "no".into(), retry_ms: Some(500), nodes: vec![node()] };
    let reset = Verdict::Reset { reason: ResetReason::Purged, position: position() };
    let mut found = vec![
        ("welcome", welcome(Verdict::Fresh)),
        ("welcome-continuous", welcome(Verdict::Continuous { position: position() })),
        ("welcome-reset", welcome(reset)),
        ("refused", ServerMessage::Refused(refused)),
        ("acknowledged", acknowledged),
        ("reply-topic", reply(Reply::Topic { topic: TopicId(7), created: true })),
        ("reply-stream", {
            reply(Reply::Stream { stream: StreamId(8), topic: TopicId(7), created: false })
        }),
        ("reply-removed", reply(Reply::Removed { count: 1_000, next: Some("a/b".into()) })),
        ("reply-refused", reply(Reply::Refused { code: 309, text: "at byte 3".into() })),
        ("shed", ServerMessage::Shed { first: 42, code: ErrorCode::Overloaded, retry_ms: 20 }),
        ("parked", ServerMessage::Parked { code, retry_ms }),
        ("unparked", ServerMessage::Unparked),
        ("beat", ServerMessage::Beat { applied: Index(6) }),
        ("close", ServerMessage::Close { code: ErrorCode::Draining, retry_ms, text: "bye".into() }),
    ];
    found.extend(read_replies());
    found.into_iter().map(|(name, message)| (name.to_owned(), message)).collect()
}

fn event_messages() -> Vec<(String, EventMessage)> {
    let topic = TopicId(7);
    let listed = |change| Event::Notified {
        listener: 4,
        change,
        topic,
        specification: specification(),
        path: path(),
    };
    let events = [
        ("subscribed", {
            Event::Subscribed { topic, specification: specification(), path: path() }
        }),
        ("value", Event::Value { topic, value: Some(Bytes::from_static(b"{}")) }),
        ("value-empty", Event::Value { topic, value: Some(Bytes::new()) }),
        ("value-null", Event::Value { topic, value: None }),
        ("unsubscribed", Event::Unsubscribed { topic, reason: UnsubscribeReason::Removed }),
        ("notified-added", listed(NotifiedChange::Added)),
        ("notified-selected", listed(NotifiedChange::Selected)),
        ("notified-removed", listed(NotifiedChange::Removed)),
        ("notified-deselected", listed(NotifiedChange::Deselected)),
        ("reset", Event::Reset { reason: ResetReason::OtherLineage, lineage: Lineage(11) }),
        ("progress", Event::Progress),
        ("initial", Event::Initial { request: 259, bulk: 1 }),
        ("lagged", Event::Lagged { skipped: 12 }),
    ];
    let begin = EventMessage::Begin { lineage: Lineage(9), after: position() };
    std::iter::once(("events".to_owned(), begin))
        .chain(events.into_iter().enumerate().map(|(number, (name, event))| {
            let last = number % 2 == 0;
            (name.to_owned(), EventMessage::Event { position: position(), last, event })
        }))
        .collect()
}

fn bulk_messages() -> Vec<(String, BulkMessage)> {
    let begin = |purpose| BulkMessage::Begin(BulkBegin { bulk: 1, purpose, position: position() });
    let item = |value| BulkMessage::Item {
        version: Index(5),
        topic: TopicId(7),
        specification: specification(),
        path: path(),
        value,
    };
    [
        ("bulk-initial", begin(BulkPurpose::Initial(259))),
        ("bulk-fetch", begin(BulkPurpose::Fetch(1))),
        ("item", item(Some(Bytes::from_static(b"{}")))),
        ("item-without", item(None)),
        ("row", BulkMessage::Row(row())),
        ("bulk-end", BulkMessage::End { count: 3, more: true }),
    ]
    .map(|(name, message)| (name.to_owned(), message))
    .into()
}

/// Puts, reads back and cuts one message; returns its line of the golden file.
fn check<M: Debug + PartialEq>(
    name: &str,
    message: &M,
    put: impl Fn(&M, &mut BytesMut),
    decode: impl Fn(u8, Bytes) -> Result<M, DecodeError>,
) -> String {
    let mut buffer = BytesMut::new();
    put(message, &mut buffer);
    let whole = buffer.clone().freeze();
    let payload = frame::take_payload(&mut buffer, frame::PAYLOAD_BYTES_MAX).unwrap().unwrap();
    assert!(buffer.is_empty(), "{name}: bytes after the frame");
    let (kind, body) = frame::kind_and_body(payload).unwrap();
    assert_eq!(decode(kind, body.clone()).as_ref(), Ok(message), "{name}");
    for cut in 0..body.len() {
        // A cut in the part whose end the frame's length gives is another message, never this one.
        assert_ne!(decode(kind, body.slice(..cut)).as_ref(), Ok(message), "{name} cut at {cut}");
    }
    let long = Bytes::from(vec![0; kind::body_bytes_max(kind) + 1]);
    assert!(matches!(decode(kind, long), Err(DecodeError::TooLong { .. })), "{name}");
    for other in [0, 9, 32, 43, 64, 74, 96, 101, 255] {
        assert_eq!(decode(other, body.clone()), Err(DecodeError::UnknownKind { kind: other }));
    }
    let mut line = format!("{name} ");
    for byte in whole {
        write!(line, "{byte:02x}").unwrap();
    }
    line
}

#[test]
fn every_message_has_its_golden_bytes_and_no_cut_is_taken_for_it() {
    let mut lines = Vec::new();
    for (name, message) in client_messages() {
        lines.push(check(&name, &message, ClientMessage::put, ClientMessage::decode));
    }
    for (name, message) in server_messages() {
        lines.push(check(&name, &message, ServerMessage::put, ServerMessage::decode));
    }
    for (name, message) in event_messages() {
        lines.push(check(&name, &message, EventMessage::put, EventMessage::decode));
    }
    for (name, message) in bulk_messages() {
        lines.push(check(&name, &message, BulkMessage::put, BulkMessage::decode));
    }
    let written = lines.join("\n") + "\n";
    assert_eq!(written, GOLDEN, "the bytes as they are now:\n{written}");
}

/// Cuts of bodies without a free-length end are errors, at every byte.
#[test]
fn cuts_of_closed_bodies_are_errors() {
    let open = |message: &ServerMessage| {
        matches!(message, ServerMessage::Close { .. } | ServerMessage::Acknowledged(_))
    };
    for (name, message) in server_messages() {
        let mut buffer = BytesMut::new();
        message.put(&mut buffer);
        let body = buffer.freeze().slice(frame::OVERHEAD_BYTES..);
        for cut in (0..body.len()).filter(|_| !open(&message)) {
            let found = ServerMessage::decode(message.kind(), body.slice(..cut));
            assert!(found.is_err(), "{name} cut at {cut}: {found:?}");
        }
    }
    for (name, message) in client_messages() {
        let mut buffer = BytesMut::new();
        message.put(&mut buffer);
        let body = buffer.freeze().slice(frame::OVERHEAD_BYTES..);
        for cut in 0..body.len() {
            match ClientMessage::decode(message.kind(), body.slice(..cut)) {
                Err(_)
                | Ok(ClientMessage::Update { .. } | ClientMessage::Read { read: Err(_), .. }) => {}
                Ok(ClientMessage::Command { body, .. }) => {
                    assert!(ClientCommand::decode(&body).is_err(), "{name} cut at {cut}");
                }
                Ok(found) => assert_eq!(found, message, "{name} cut at {cut}"),
            }
        }
    }
}

#[test]
fn hostile_lengths_and_counts_are_refused() {
    // A CBOR list that claims 2^32 nodes, one that nests, a run of no requests, a run past the end
    // of numbers, a form and a flag that do not exist.
    let command = |hex: &[u8]| ClientCommand::decode(&Bytes::copy_from_slice(hex));
    assert!(command(b"\x82\x02\xa1\x02\x9a\xff\xff\xff\xff").is_err());
    let mut nested = b"\x82\x02\xa1\x07".to_vec();
    nested.extend(std::iter::repeat_n(0x81, 60_000));
    assert!(command(&nested).is_err());
    let mut many = b"\x82\x02\xa1\x02\x98\x41".to_vec();
    many.extend(std::iter::repeat_n([0x82, 0x00, 0x80], 65).flatten());
    assert!(command(&many).is_err());

    let acknowledged =
        |body: &[u8]| ServerMessage::decode(kind::ACKNOWLEDGED, Bytes::copy_from_slice(body));
    let count = Err(DecodeError::Field { field: "count" });
    assert_eq!(acknowledged(&[0; 21]), count);
    let mut past = [0xff; 21];
    past[0] = 0;
    past[17..].copy_from_slice(&1_u32.to_le_bytes());
    assert_eq!(acknowledged(&past), count);
    assert_eq!(acknowledged(&[2]), Err(DecodeError::Field { field: "form" }));

    let mut value = vec![0; 21];
    value[12] = 4;
    let value = EventMessage::decode(kind::VALUE, Bytes::from(value));
    assert_eq!(value, Err(DecodeError::Field { field: "flags" }));
    let mut properties = vec![0; 9];
    properties.extend([0xff, 0xff]);
    let item = [vec![0; 9], properties].concat();
    let item = BulkMessage::decode(kind::ITEM, Bytes::from(item));
    assert_eq!(item, Err(DecodeError::Field { field: "properties" }));
}

#[test]
fn unknown_fields_are_skipped_and_passwords_stay_out_of_logs() {
    // {0: 1, 1: "c", 2: [0, {}], 4: 5, 99: [1, {2: "x"}]}
    let body = b"\xa5\x00\x01\x01\x61c\x02\x82\x00\xa0\x04\x05\x18\x63\x82\x01\xa1\x02\x61x";
    let decoded = ClientMessage::decode(kind::HELLO, Bytes::from_static(body)).unwrap();
    let ClientMessage::Hello(hello) = decoded else { panic!("{decoded:?}") };
    assert_eq!((hello.version, hello.reconnect_timeout_ms), (1, 5));

    let secret = Credentials::Password { principal: "admin".into(), password: "hush".into() };
    assert!(!format!("{secret:?}").contains("hush"));
    assert!(!format!("{:?}", resume()).contains("secret"));
}

/// Every single-byte change of every sample decodes or fails by name, and what decodes survives a
/// round trip.
#[test]
fn flipped_bytes_never_panic() {
    for line in GOLDEN.lines() {
        let hex = line.split_once(' ').unwrap().1.as_bytes();
        let bytes: Vec<u8> = hex
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        for at in 0..bytes.len() {
            for change in [1, 0x80, 0xff, 0x20] {
                let mut changed = bytes.clone();
                changed[at] ^= change;
                crate::protocol::fuzzing::client_frames(&changed);
                crate::protocol::fuzzing::server_frames(&changed);
                crate::protocol::fuzzing::event_frames(&changed);
                crate::protocol::fuzzing::bulk_frames(&changed);
            }
        }
    }
}

#[test]
fn acknowledgements_join_into_runs() {
    use crate::protocol::server_message::AcknowledgementWriter;
    let mut writer = AcknowledgementWriter::default();
    let mut buffer = BytesMut::new();
    writer.put(&mut buffer);
    assert!(buffer.is_empty() && writer.is_empty());
    for request in 1..=3 {
        writer.push(request, Index::new(9, request as u16), Acknowledged::Done);
    }
    writer.push(4, Index::new(9, 7), Acknowledged::Done);
    writer.push(5, Index::new(9, 8), Acknowledged::Unchanged);
    writer.push(6, Index::new(9, 9), Acknowledged::Done);
    assert!(!writer.is_empty());
    writer.put(&mut buffer);
    let payload = frame::take_payload(&mut buffer, 1_000).unwrap().unwrap();
    let (kind, body) = frame::kind_and_body(payload).unwrap();
    let run = |first_request, offset, count| Acknowledgement::Run {
        first_request,
        first_index: Index::new(9, offset),
        count,
    };
    assert_eq!(
        ServerMessage::decode(kind, body),
        Ok(ServerMessage::Acknowledged(vec![
            run(1, 1, 3),
            run(4, 7, 1),
            Acknowledgement::One {
                request: 5,
                index: Index::new(9, 8),
                result: Acknowledged::Unchanged
            },
            run(6, 9, 1),
        ]))
    );
    assert!(writer.is_empty());
}
