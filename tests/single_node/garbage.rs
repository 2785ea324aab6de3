//! What a hostile client can put into frames: each is refused by name, and nobody else notices.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use quorate::client::{Client, Value};
use quorate::clock::Clock;
use quorate::domain::id::TopicId;
use quorate::domain::topic::specification::{Specification, TopicType};
use quorate::protocol::command::ClientCommand;
use quorate::protocol::record::{Target, put_record};
use quorate::protocol::server_message::{Acknowledged, Acknowledgement, Reply};
use quorate::protocol::topic::{ConstraintNode, WireSpecification, WireValue};
use quorate::protocol::{ClientMessage, ErrorCode, ServerMessage};

use crate::harness::{Counter, Node, path, soon};
use crate::hostile::{Raw, command};

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let count = self.roll() % most;
        (0..count).map(|_| self.roll() as u8).collect()
    }
}

fn frame(message: &ClientMessage) -> BytesMut {
    let mut buffer = BytesMut::new();
    message.put(&mut buffer);
    buffer
}

/// Frames of every kind that a client may say.
fn samples(node: &Node) -> Vec<BytesMut> {
    let read = quorate::protocol::read::Read {
        level: quorate::protocol::read::Level::Local,
        at_least: None,
        deadline_ms: Some(100),
        query: quorate::protocol::read::Query::Ping,
    };
    let record = Bytes::from_static(b"\x01\x04\x01\0\0\0\0\0\0\0aaaaaaaa");
    let open = ClientCommand::OpenTopic { path: "a/b".to_owned() };
    vec![
        frame(&ClientMessage::Hello(node.hello())),
        frame(&ClientMessage::Update { request: 1, record }),
        frame(&command(1, &open)),
        frame(&ClientMessage::Read { correlation: 1, read: Ok(read) }),
        frame(&ClientMessage::Answered { below: 1 }),
        frame(&ClientMessage::Goodbye),
    ]
}

/// What is said after the words of a hostile client: the node's last word, if it has one.
async fn last_word(raw: &mut Raw) -> Option<u16> {
    loop {
        match raw.next_within(Duration::from_secs(5)).await? {
            ServerMessage::Close { code, .. } => return Some(code.number()),
            ServerMessage::Refused(refused) => return Some(refused.code),
            _ => {}
        }
    }
}

async fn still_serves(good: &Client, number: i64) {
    let clock = Clock::system();
    let started = clock.now();
    soon(good.set(&path("good"), Value::Int64(number))).await.unwrap();
    assert!(clock.since(started) < Duration::from_secs(5), "{:?}", clock.since(started));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_end_their_own_connection_under_a_code() {
    let node = Node::start().await;
    let good = node.client().await;
    good.add_topic(&path("good"), &Specification::plain(TopicType::Int64)).await.unwrap();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for round in 0..60 {
        let mut raw = Raw::connect(&node).await;
        let is_known = round % 2 == 0;
        if is_known {
            raw.welcome(&node.hello()).await;
        }
        let garbage = match round % 3 {
            // Whole frames of random kinds and bodies.
            0 => {
                let mut frames = BytesMut::new();
                for _ in 0..8 {
                    let body = dice.bytes(200);
                    frames.put_u32_le(1 + body.len() as u32);
                    frames.put_u8((dice.roll() % 9) as u8);
                    frames.put_slice(&body);
                }
                frames
            }
            // A good frame with some bytes changed.
            1 => {
                let samples = samples(&node);
                let mut frame = samples[(dice.roll() % samples.len() as u64) as usize].clone();
                for _ in 0..3 {
                    let at = (dice.roll() % frame.len() as u64) as usize;
                    frame[at] ^= dice.roll() as u8;
                }
                frame
            }
            _ => BytesMut::from(&dice.bytes(4_096)[..]),
        };
        let counter = |name, is_known: bool| is_known.then(|| Counter::of(name, ""));
        let closed = counter("quorate_connections_closed_total", is_known);
        let refused = counter("quorate_sessions_refused_total", !is_known);
        raw.send_bytes(garbage.freeze()).await;
        raw.finish().await;
        // A named code, or an end without one where the bytes were too few to be wrong.
        if let Some(code) = last_word(&mut raw).await {
            let code = ErrorCode::from(code);
            assert!(!matches!(code, ErrorCode::Unknown(_) | ErrorCode::Internal), "{code}");
            drop(raw);
            for counter in [closed, refused].into_iter().flatten() {
                counter.rises_by(1.0).await;
            }
        }
        still_serves(&good, round).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_cut_at_any_byte_leave_nothing_behind() {
    let node = Node::start().await;
    let good = node.client().await;
    good.add_topic(&path("good"), &Specification::plain(TopicType::Int64)).await.unwrap();
    let before = node.gateway.sessions();
    for (number, sample) in samples(&node).into_iter().enumerate() {
        for cut in (0..sample.len()).step_by(1 + sample.len() / 8) {
            let mut raw = Raw::connect(&node).await;
            raw.welcome(&node.hello()).await;
            raw.send_bytes(Bytes::copy_from_slice(&sample[..cut])).await;
            raw.finish().await;
            assert!(last_word(&mut raw).await.is_none_or(|code| code < 300), "{number} at {cut}");
        }
        still_serves(&good, number as i64).await;
    }
    let gone = async {
        while node.gateway.sessions() > before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(gone).await;
}

fn int(topic: TopicId, number: i64) -> Bytes {
    let mut record = BytesMut::new();
    let target = Target::Topic(topic);
    let code = TopicType::Int64 as u8;
    put_record(&mut record, &target, code, Some(&number.to_le_bytes()[..]));
    record.freeze()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replayed_request_is_answered_again_and_not_applied_again() {
    let node = Node::start().await;
    let good = node.client().await;
    let plain = Specification::plain(TopicType::Int64);
    let topic = good.add_topic(&path("good"), &plain).await.unwrap().topic;
    let mut events = good.subscribe(">good").await.unwrap();
    let mut raw = Raw::connect(&node).await;
    raw.welcome(&node.hello()).await;
    let update = |request, number| ClientMessage::Update { request, record: int(topic, number) };
    let mut indices = Vec::new();
    for (request, number) in [(1, 1), (2, 2), (1, 1), (2, 2), (1, 99), (3, 3)] {
        raw.send(&update(request, number)).await;
        let answer = raw.until(|message| matches!(message, ServerMessage::Acknowledged(_))).await;
        let ServerMessage::Acknowledged(entries) = answer else { panic!("{answer:?}") };
        indices.push(match entries[0] {
            Acknowledgement::Run { first_request, first_index, .. } => (first_request, first_index),
            Acknowledgement::One { request, index, .. } => (request, index),
        });
    }
    assert_eq!((indices[0], indices[1]), (indices[2], indices[3]));
    assert_eq!(indices[0], indices[4], "the first word under a number holds");
    // Everybody sees each once.
    let mut seen = Vec::new();
    while seen.len() < 3 {
        if let quorate::client::Event::Value { value: Some(value), .. } =
            soon(events.next()).await.unwrap()
        {
            seen.push(i64::from_le_bytes(value[..].try_into().unwrap()));
        }
    }
    assert_eq!(seen, [1, 2, 3]);
    // Out of order is no replay: it ends the connection.
    let counter = Counter::of_code("quorate_connections_closed_total", ErrorCode::Gap);
    raw.send(&update(9, 9)).await;
    assert_eq!(raw.closed().await, ErrorCode::Gap);
    counter.rises_by(1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_a_path_a_value_or_a_selector_is_refused_by_name_and_soon() {
    let node = Node::start().await;
    let good = node.client().await;
    let plain = Specification::plain(TopicType::Json);
    good.add_topic(&path("json"), &plain).await.unwrap();
    good.add_topic(&path("good"), &Specification::plain(TopicType::Int64)).await.unwrap();
    let set = |bytes: &[u8]| ClientCommand::SetTopic {
        path: "json".to_owned(),
        specification: None,
        constraint: Vec::new(),
        value: WireValue { value_type: 2, bytes: Some(Bytes::copy_from_slice(bytes)) },
    };
    let add = |path: &str| ClientCommand::AddTopic {
        path: path.to_owned(),
        specification: WireSpecification { topic_type: 2, properties: [].into() },
    };
    let select = |selector: &str| ClientCommand::Select {
        scope: String::new(),
        selector: selector.to_owned(),
        select: true,
    };
    let too_deep = ClientCommand::SetTopic {
        path: "json".to_owned(),
        specification: None,
        constraint: vec![ConstraintNode::And { count: 60 }; 64],
        value: WireValue { value_type: 2, bytes: Some(Bytes::from_static(b"1")) },
    };
    let long = "x".repeat(2_000);
    let cases: Vec<(&str, ClientCommand, ErrorCode)> = vec![
        ("no JSON", set(b"{\"a\":"), ErrorCode::IncompatibleValue),
        ("JSON that is no UTF-8", set(b"\"\xff\xfe\""), ErrorCode::IncompatibleValue),
        ("JSON with more behind it", set(b"1 2"), ErrorCode::IncompatibleValue),
        ("JSON of a hundred thousand depths", set(&[b'['; 100_000]), ErrorCode::IncompatibleValue),
        ("an empty part of a path", add("a//b"), ErrorCode::InvalidPath),
        ("an empty path", add(""), ErrorCode::InvalidPath),
        ("a path that is too long", add(&long), ErrorCode::InvalidPath),
        (
            "a regex that grows",
            select("?a/(((x{1,200}){1,200}){1,200})"),
            ErrorCode::InvalidSelector,
        ),
        (
            "a regex that is too long",
            select(&format!("?a/{}", long.repeat(5))),
            ErrorCode::InvalidSelector,
        ),
        ("a look-around", select("*(?=a)b"), ErrorCode::InvalidSelector),
        ("an open group", select("?a/(b"), ErrorCode::InvalidSelector),
        ("a constraint of unfinished lists", too_deep, ErrorCode::InvalidConstraint),
    ];
    let mut raw = Raw::connect(&node).await;
    raw.welcome(&node.hello()).await;
    let clock = Clock::system();
    for (request, (what, asked, code)) in (1..).zip(cases) {
        let started = clock.now();
        let counter = Counter::of_code("quorate_requests_refused_total", code);
        raw.send(&command(request, &asked)).await;
        let is_answer = |message: &ServerMessage| {
            matches!(message, ServerMessage::Reply { .. } | ServerMessage::Acknowledged(_))
        };
        // Refused by the host with words, or by the log with a code.
        let found = match raw.until(is_answer).await {
            ServerMessage::Reply { request, reply: Reply::Refused { code, .. }, .. } => {
                (request, ErrorCode::from(code))
            }
            ServerMessage::Acknowledged(entries) => match entries[..] {
                [Acknowledgement::One { request, result: Acknowledged::Refused(code), .. }] => {
                    (request, code)
                }
                _ => panic!("{what}: {entries:?}"),
            },
            other => panic!("{what}: {other:?}"),
        };
        assert_eq!(found, (request, code), "{what}");
        counter.rises_by(1.0).await;
        assert!(
            clock.since(started) < Duration::from_secs(3),
            "{what}: {:?}",
            clock.since(started)
        );
        still_serves(&good, request as i64).await;
    }
}
