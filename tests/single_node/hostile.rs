//! Clients that break the protocol: a named refusal, and everybody else goes on.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate::client::Value;
use quorate::domain::topic::specification::{Specification, TopicType};
use quorate::gateway::GatewayLimits;
use quorate::protocol::command::ClientCommand;
use quorate::protocol::handshake::{Hello, Look, Refused, Welcome};
use quorate::protocol::read::{Answer, Fetch, Level, Query, Read};
use quorate::protocol::server_message::{Acknowledged, Acknowledgement};
use quorate::protocol::{ClientMessage, ErrorCode, ServerMessage, VERSION, kind};
use quorate::transport::{CloseCode, Closed, ConnectError, Connection, FrameReceiver, FrameSender};

use crate::harness::{Counter, Node, path, soon};

/// A connection that says what it is told to.
pub(crate) struct Raw {
    connection: Connection,
    sender: FrameSender,
    receiver: FrameReceiver,
}

impl Raw {
    pub(crate) async fn connect(node: &Node) -> Self {
        let connection = node.connect().await;
        let (sender, receiver) = soon(connection.open_bi()).await.unwrap();
        Self { connection, sender, receiver }
    }

    /// Cuts the connection without a word on its streams.
    pub(crate) fn cut(&self) {
        self.connection.close(CloseCode(1), "cut");
    }

    /// The event stream: the next one-way stream that is not a bulk.
    pub(crate) async fn events(&self) -> FrameReceiver {
        loop {
            let mut stream = soon(self.connection.accept_uni()).await.unwrap();
            let head = soon(stream.next()).await.unwrap().unwrap();
            if head.kind == kind::EVENTS {
                return stream;
            }
        }
    }

    pub(crate) async fn send(&mut self, message: &ClientMessage) {
        let mut buffer = BytesMut::new();
        message.put(&mut buffer);
        self.send_bytes(buffer.freeze()).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: Bytes) {
        // A node that has closed the connection is seen by what it said.
        let _ = soon(self.sender.send_frames(bytes)).await;
    }

    /// Sends bytes unless the node does not take them for a while, or is gone.
    pub(crate) async fn pushes(&mut self, bytes: Bytes) -> bool {
        let sent = self.sender.send_frames(bytes);
        matches!(tokio::time::timeout(Duration::from_secs(2), sent).await, Ok(Ok(())))
    }

    /// Says nothing more.
    pub(crate) async fn finish(&mut self) {
        let _ = soon(self.sender.finish()).await;
    }

    /// Asks for so many streams of each kind; how many are granted within `patience`.
    pub(crate) async fn streams(&self, count: usize, patience: Duration) -> usize {
        let connection = &self.connection;
        let both = (0..count).map(|_| async {
            tokio::time::timeout(patience, connection.open_bi()).await.is_ok_and(|one| one.is_ok())
        });
        let one = (0..count).map(|_| async {
            tokio::time::timeout(patience, connection.open_uni()).await.is_ok_and(|one| one.is_ok())
        });
        let (both, one) =
            tokio::join!(futures::future::join_all(both), futures::future::join_all(one));
        both.into_iter().chain(one).filter(|granted| *granted).count()
    }

    /// Says something on a stream beside the control stream.
    pub(crate) async fn says_beside(&self, both_ways: bool) {
        let word = Bytes::from_static(b"\x01\0\0\0\x05");
        let mut stream = if both_ways {
            soon(self.connection.open_bi()).await.unwrap().0
        } else {
            soon(self.connection.open_uni()).await.unwrap()
        };
        soon(stream.send_frames(word)).await.unwrap();
    }

    pub(crate) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// The next message, or none when there will be none.
    pub(crate) async fn next_within(&mut self, patience: Duration) -> Option<ServerMessage> {
        let frame = tokio::time::timeout(patience, self.receiver.next()).await.ok()?.ok()??;
        Some(ServerMessage::decode(frame.kind, frame.body).unwrap())
    }

    pub(crate) async fn next(&mut self) -> Option<ServerMessage> {
        let frame = soon(self.receiver.next()).await.ok()??;
        Some(ServerMessage::decode(frame.kind, frame.body).unwrap())
    }

    pub(crate) async fn until(&mut self, wanted: impl Fn(&ServerMessage) -> bool) -> ServerMessage {
        loop {
            let message = self.next().await.expect("the stream goes on");
            if wanted(&message) {
                return message;
            }
        }
    }

    pub(crate) async fn hello(&mut self, hello: &Hello) -> ServerMessage {
        self.send(&ClientMessage::Hello(hello.clone())).await;
        self.next().await.unwrap()
    }

    pub(crate) async fn welcome(&mut self, hello: &Hello) -> Welcome {
        match self.hello(hello).await {
            ServerMessage::Welcome(welcome) => welcome,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn refused(&mut self, hello: &Hello) -> Refused {
        match self.hello(hello).await {
            ServerMessage::Refused(refused) => refused,
            other => panic!("{other:?}"),
        }
    }

    /// The code with which the node ends the connection.
    pub(crate) async fn closed(&mut self) -> ErrorCode {
        match self.until(|message| matches!(message, ServerMessage::Close { .. })).await {
            ServerMessage::Close { code, .. } => code,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn select(&self, request: u64, selector: &str) -> ClientMessage {
        command(
            request,
            &ClientCommand::Select {
                scope: String::new(),
                selector: selector.to_owned(),
                select: true,
            },
        )
    }
}

pub(crate) fn command(request: u64, command: &ClientCommand) -> ClientMessage {
    let mut buffer = BytesMut::new();
    ClientMessage::put_command(&mut buffer, request, command);
    // Behind length, kind and request number stands the body.
    ClientMessage::Command { request, body: buffer.freeze().slice(13..) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_violation_ends_its_own_connection_with_its_code() {
    let node = Node::start().await;
    let good = node.client().await;
    good.add_topic(&path("g"), &Specification::plain(TopicType::Int64)).await.unwrap();
    let update =
        |request| ClientMessage::Update { request, record: Bytes::from_static(b"\x01\x04") };
    let frame = |message: &ClientMessage| {
        let mut buffer = BytesMut::new();
        message.put(&mut buffer);
        buffer.freeze()
    };
    let cases: Vec<(&str, Bytes, ErrorCode)> = vec![
        ("a number too high", frame(&update(2)), ErrorCode::Gap),
        ("the number zero", frame(&update(0)), ErrorCode::Gap),
        ("a second hello", frame(&ClientMessage::Hello(node.hello())), ErrorCode::OutOfPlace),
        ("an unknown kind", Bytes::from_static(b"\x01\0\0\0\xc8"), ErrorCode::OutOfPlace),
        ("a short update", Bytes::from_static(b"\x02\0\0\0\x02\0"), ErrorCode::Malformed),
        ("a frame of nothing", Bytes::from_static(b"\0\0\0\0"), ErrorCode::FrameTooLong),
        ("a huge frame", Bytes::from_static(b"\xff\xff\xff\x7f"), ErrorCode::FrameTooLong),
    ];
    for (what, bytes, code) in cases {
        let counter = Counter::of_code("quorate_connections_closed_total", code);
        let mut raw = Raw::connect(&node).await;
        raw.welcome(&node.hello()).await;
        raw.send_bytes(bytes).await;
        assert_eq!(raw.closed().await, code, "{what}");
        counter.rises_by(1.0).await;
        good.set(&path("g"), Value::Int64(i64::from(code.number()))).await.unwrap();
    }
    good.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_do_not_say_hello_properly_are_refused() {
    let node = Node::start().await;
    let mut other_version = node.hello();
    other_version.version = 999;
    let counter = Counter::of_code("quorate_sessions_refused_total", ErrorCode::Version);
    let refused = Raw::connect(&node).await.refused(&other_version).await;
    assert_eq!(refused.code, ErrorCode::Version.number());
    counter.rises_by(1.0).await;

    for (bytes, code) in [
        (Bytes::from_static(b"\x01\0\0\0\x06"), ErrorCode::OutOfPlace),
        (Bytes::from_static(b"\x03\0\0\0\x01\xff\xff"), ErrorCode::Malformed),
        (Bytes::from_static(b"\xff\xff\xff\xff"), ErrorCode::FrameTooLong),
    ] {
        let counter = Counter::of_code("quorate_sessions_refused_total", code);
        let mut raw = Raw::connect(&node).await;
        raw.send_bytes(bytes).await;
        match raw.next().await {
            Some(ServerMessage::Refused(refused)) => assert_eq!(refused.code, code.number()),
            other => panic!("{other:?}"),
        }
        drop(raw);
        counter.rises_by(1.0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_commands_are_refused_under_their_numbers() {
    let node = Node::start().await;
    let mut raw = Raw::connect(&node).await;
    raw.welcome(&node.hello()).await;
    let counters = [
        (ErrorCode::Undecodable, 2.0),
        (ErrorCode::InvalidSelector, 1.0),
        (ErrorCode::InvalidPath, 1.0),
    ]
    .map(|(code, count)| (Counter::of_code("quorate_requests_refused_total", code), count));
    raw.send(&ClientMessage::Update { request: 1, record: Bytes::from_static(b"\xff\xff") }).await;
    raw.send(&ClientMessage::Command { request: 2, body: Bytes::from_static(b"\xff") }).await;
    raw.send(&raw.select(3, "*(")).await;
    let bad_path = ClientCommand::OpenTopic { path: "a//b".to_owned() };
    raw.send(&command(4, &bad_path)).await;
    for (wanted, reason) in [
        (1, ErrorCode::Undecodable),
        (2, ErrorCode::Undecodable),
        (3, ErrorCode::InvalidSelector),
        (4, ErrorCode::InvalidPath),
    ] {
        let reply = raw.until(|message| matches!(message, ServerMessage::Reply { .. })).await;
        let ServerMessage::Reply { request, reply, .. } = reply else { panic!("{reply:?}") };
        let quorate::protocol::server_message::Reply::Refused { code, text } = reply else {
            panic!("{reply:?}")
        };
        assert_eq!((request, code), (wanted, reason.number()), "{text}");
    }
    for (counter, count) in counters {
        counter.rises_by(count).await;
    }
    // The session goes on.
    raw.send(&raw.select(5, ">a")).await;
    let done = raw.until(|message| matches!(message, ServerMessage::Acknowledged(_))).await;
    let ServerMessage::Acknowledged(entries) = done else { panic!("{done:?}") };
    assert!(
        entries.iter().any(|entry| match entry {
            Acknowledgement::Run { first_request, .. } => *first_request == 5,
            Acknowledgement::One { request, result, .. } => {
                *request == 5 && *result == Acknowledged::Done
            }
        }),
        "{entries:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_read_is_answered_even_if_there_are_too_many() {
    let node = Node::start().await;
    let mut raw = Raw::connect(&node).await;
    raw.welcome(&node.hello()).await;
    let read = Read { level: Level::Local, at_least: None, deadline_ms: None, query: Query::Ping };
    let mut buffer = BytesMut::new();
    const READS: u64 = 500;
    let counter = Counter::of_code("quorate_requests_refused_total", ErrorCode::TooManyRequests);
    for correlation in 0..READS {
        ClientMessage::Read { correlation, read: Ok(read.clone()) }.put(&mut buffer);
    }
    raw.send_bytes(buffer.freeze()).await;
    let mut seen = std::collections::BTreeSet::new();
    let mut refused = 0;
    while (seen.len() as u64) < READS {
        let reply = raw.until(|message| matches!(message, ServerMessage::ReadReply { .. })).await;
        let ServerMessage::ReadReply { correlation, reply } = reply else { panic!("{reply:?}") };
        assert!(seen.insert(correlation));
        match reply.answer {
            Answer::Pong => {}
            Answer::Refused { code, retry_ms, .. } => {
                refused += 1;
                assert_eq!(code, ErrorCode::TooManyRequests.number());
                assert!(retry_ms.is_some());
            }
            other => panic!("{other:?}"),
        }
    }
    counter.rises_by(f64::from(refused)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_strangers_are_bounded_and_let_go_in_time() {
    let limits = GatewayLimits {
        handshakes_max: 8,
        handshake_timeout: Duration::from_secs(5),
        ..GatewayLimits::default()
    };
    let node = Node::start_with(limits).await;
    let endpoint = Node::endpoint();
    let mut silent = Vec::new();
    while silent.len() < limits.handshakes_max {
        silent.push(node.connect_from(&endpoint).await.unwrap());
    }
    let turned_away = Counter::of("quorate_connections_refused_total", "edge=\"client\"");
    let timed_out = Counter::of_code("quorate_sessions_refused_total", ErrorCode::HelloTimeout);
    let refused = node.connect_from(&endpoint).await;
    let Err(ConnectError::Handshake { source, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(source, Closed::Refused);
    // They say nothing, so their time runs out, and others find room.
    let code = CloseCode(u32::from(ErrorCode::HelloTimeout.number()));
    for stranger in silent {
        match soon(stranger.closed()).await {
            Closed::There { code: found, .. } => assert_eq!(found, code),
            other => panic!("{other:?}"),
        }
    }
    turned_away.rises_by(1.0).await;
    timed_out.rises_by(limits.handshakes_max as f64).await;
    node.client().await.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_take_its_answer_gives_its_place_up() {
    let limits = GatewayLimits {
        handshakes_max: 1,
        handshake_timeout: Duration::from_secs(3),
        ..GatewayLimits::default()
    };
    let node = Node::start_with(limits).await;
    let good = node.client().await;
    let big = vec![7; 500 * 1024];
    good.add_topic(&path("big"), &Specification::plain(TopicType::Binary)).await.unwrap();
    good.set(&path("big"), Value::Binary(&big)).await.unwrap();
    let counter = Counter::of_code("quorate_sessions_refused_total", ErrorCode::HelloTimeout);
    // A look at more than the stream's window holds, of which nothing is read.
    let query = Query::Fetch(Fetch {
        selector: ">big".to_owned(),
        values: Some(TopicType::Binary.code()),
        ..Fetch::default()
    });
    let read = Read { level: Level::Local, at_least: None, deadline_ms: None, query };
    let Hello { client, credentials, .. } = node.hello();
    let look = Look { version: VERSION, client, credentials, read };
    let mut deaf = Raw::connect(&node).await;
    deaf.send(&ClientMessage::Look(look)).await;
    counter.rises_by(1.0).await;
    node.client().await.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_takes_no_more_sessions_than_it_may() {
    let limits = GatewayLimits { sessions_max: 2, ..GatewayLimits::default() };
    let node = Node::start_with(limits).await;
    let (mut first, mut second) = (Raw::connect(&node).await, Raw::connect(&node).await);
    first.welcome(&node.hello()).await;
    second.welcome(&node.hello()).await;
    let counter = Counter::of_code("quorate_sessions_refused_total", ErrorCode::TooManySessions);
    let refused = Raw::connect(&node).await.refused(&node.hello()).await;
    counter.rises_by(1.0).await;
    assert_eq!(refused.code, ErrorCode::TooManySessions.number());
    assert!(refused.retry_ms.is_some());
    first.send(&ClientMessage::Goodbye).await;
    assert_eq!(first.closed().await, ErrorCode::None);
    drop(first);
    node.client().await.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_of_no_connection_are_counted() {
    const UNKNOWN: &str = "quorate_datagrams_unknown_total";
    let node = Node::start().await;
    let good = node.client().await;
    let of = |why| Counter::of(UNKNOWN, format!("edge=\"client\",why=\"{why}\""));
    let (version, id, length) = (of("version"), of("connection_id"), of("length"));
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut other_version = [0; 1_200];
    other_version[..6].copy_from_slice(&[0xc0, 0, 0, 0, 2, 8]);
    socket.send_to(&other_version, node.address()).await.unwrap();
    for bytes in [&[0x40, 1, 2, 3][..], &[0x45; 60]] {
        socket.send_to(bytes, node.address()).await.unwrap();
    }
    for counter in [version, id, length] {
        counter.rises_by(1.0).await;
    }
    // Whoever speaks another version is told which one is spoken here; the others hear nothing.
    let mut answer = [0; 100];
    let (bytes, _) = soon(socket.recv_from(&mut answer)).await.unwrap();
    assert_eq!(answer[1..5], [0; 4], "a negotiation of the version");
    assert_eq!(answer[bytes - 4..bytes], 1_u32.to_be_bytes());
    good.session_info().await.unwrap();
    good.close().await;
}
