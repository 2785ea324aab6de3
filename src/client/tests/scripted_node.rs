//! A node that does what a test tells it, over the real transport on the loopback interface.

use std::future::Future;
use std::time::Duration;

use bytes::BytesMut;

use crate::client::{ClientConfig, Patience};
use crate::domain::id::{ClusterId, Index, Lineage, Position, SessionId, TopicId};
use crate::domain::node_name::NodeName;
use crate::domain::topic::path::TopicPath;
use crate::protocol::command::ClientCommand;
use crate::protocol::delivery::{BulkBegin, BulkMessage, BulkPurpose, Event, EventMessage};
use crate::protocol::handshake::{Hello, NodeAddress, Refused, SessionLimits, Verdict, Welcome};
use crate::protocol::read::{Answer, Query, Read, ReadReply};
use crate::protocol::server_message::{Acknowledged, Acknowledgement};
use crate::protocol::topic::WireSpecification;
use crate::protocol::{ClientMessage, ErrorCode, ServerMessage};
use crate::transport::certificate::{make_ca, make_node};
use crate::transport::tls::{Authority, Identity, ServerTls};
use crate::transport::{
    CloseCode, Connection, Endpoint, EndpointLimits, FrameReceiver, FrameSender, ResetKey,
};

/// Nothing in these tests may take longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
pub(super) const SESSION: SessionId = SessionId(0x55);
pub(super) const LINEAGE: Lineage = Lineage(9);

pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("a test step took too long")
}

/// An authority and a node certificate under it.
pub(super) struct House {
    pub(super) authority: Authority,
    identity: Identity,
}

impl House {
    pub(super) fn new() -> Self {
        let ca = make_ca("test authority").unwrap();
        let node = make_node(&ca, &NodeName::parse("n1").unwrap(), &[]).unwrap();
        Self {
            authority: Authority::from_pem(&ca.certificate).unwrap(),
            identity: Identity::from_pem(&node.certificate, &node.key).unwrap(),
        }
    }

    pub(super) fn node(&self, name: &'static str) -> Node {
        let tls = ServerTls::for_clients(&self.identity, None).unwrap();
        let key = ResetKey::from_bytes([7; 32]);
        let loopback = "127.0.0.1:0".parse().unwrap();
        let endpoint = Endpoint::listen(loopback, &tls, &key, EndpointLimits::default()).unwrap();
        Node { name, endpoint }
    }

    pub(super) fn config(&self, nodes: &[&Node]) -> ClientConfig {
        ClientConfig::new(nodes.iter().map(|node| node.address()), self.authority.clone())
    }
}

/// Patience for a machine that is busy with other tests: a silent node is noticed late, but well
/// within a test's own time.
pub(super) fn patient() -> Patience {
    Patience { unanswered: Duration::from_secs(30), beat: PATIENCE * 2, ..Patience::default() }
}

/// A listener and its name.
pub(super) struct Node {
    name: &'static str,
    pub(super) endpoint: Endpoint,
}

impl Node {
    pub(super) fn address(&self) -> String {
        self.endpoint.local_address().to_string()
    }

    /// The next client, its hello read.
    pub(super) async fn visit(&self) -> Visit {
        soon(async {
            let connection = self.endpoint.accept().await.unwrap().complete().await.unwrap();
            let (sender, mut receiver) = connection.accept_bi().await.unwrap();
            let frame = receiver.next().await.unwrap().unwrap();
            let ClientMessage::Hello(hello) =
                ClientMessage::decode(frame.kind, frame.body).unwrap()
            else {
                panic!("the first message is a hello")
            };
            Visit { node: self.name, connection, sender, receiver, hello }
        })
        .await
    }

    /// The next client, welcomed to a fresh session.
    pub(super) async fn host(&self) -> Visit {
        let mut visit = self.visit().await;
        visit.welcome(Verdict::Fresh, 0).await;
        visit
    }
}

/// One client at one node.
pub(super) struct Visit {
    node: &'static str,
    pub(super) connection: Connection,
    sender: FrameSender,
    receiver: FrameReceiver,
    pub(super) hello: Hello,
}

impl Visit {
    pub(super) async fn say(&mut self, message: ServerMessage) {
        let mut frame = BytesMut::new();
        message.put(&mut frame);
        soon(self.sender.send_frames(frame.freeze())).await.unwrap();
    }

    pub(super) async fn welcome(&mut self, verdict: Verdict, last_request: u64) {
        self.welcome_within(verdict, last_request, 1_024).await;
    }

    pub(super) async fn welcome_within(
        &mut self,
        verdict: Verdict,
        last_request: u64,
        in_flight_max: u32,
    ) {
        let limits = SessionLimits {
            in_flight_max,
            reads_max: 16,
            value_bytes_max: 1 << 20,
            payload_bytes_max: 1 << 20,
            reconnect_timeout_ms: 60_000,
            beat_ms: self.hello.beat_ms,
        };
        let node = NodeAddress { name: self.node.into(), address: "127.0.0.1:1".into() };
        self.say(ServerMessage::Welcome(Welcome {
            session: SESSION,
            epoch: 1,
            secret: self.secret(),
            last_request,
            lineage: LINEAGE,
            cluster: ClusterId(1),
            node: self.node.into(),
            nodes: vec![node],
            limits,
            verdict,
        }))
        .await;
    }

    /// The secret that this node gives: its name's last byte, repeated.
    pub(super) fn secret(&self) -> [u8; 32] {
        [*self.node.as_bytes().last().unwrap(); 32]
    }

    pub(super) async fn refuse(&mut self, code: ErrorCode) {
        let refused =
            Refused { code: code.number(), text: String::new(), retry_ms: None, nodes: Vec::new() };
        self.say(ServerMessage::Refused(refused)).await;
        // The client closes the connection once it has read the refusal.
        soon(self.connection.closed()).await;
    }

    /// What the client says next, its pings answered.
    pub(super) async fn next(&mut self) -> ClientMessage {
        loop {
            let message = self.next_or_ping().await;
            let ClientMessage::Read { correlation, read: Ok(Read { query: Query::Ping, .. }) } =
                message
            else {
                return message;
            };
            self.answer(correlation, Answer::Pong).await;
        }
    }

    pub(super) async fn next_or_ping(&mut self) -> ClientMessage {
        let frame = soon(self.receiver.next()).await.unwrap().unwrap();
        ClientMessage::decode(frame.kind, frame.body).unwrap()
    }

    /// The numbers of the next `count` messages, all of which are commands or updates.
    pub(super) async fn numbers(&mut self, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            match self.next().await {
                ClientMessage::Update { request, .. } | ClientMessage::Command { request, .. } => {
                    numbers.push(request)
                }
                other => panic!("neither command nor update: {other:?}"),
            }
        }
        numbers
    }

    pub(super) async fn command(&mut self) -> (u64, ClientCommand) {
        match self.next().await {
            ClientMessage::Command { request, body } => {
                (request, ClientCommand::decode(&body).unwrap())
            }
            other => panic!("no command: {other:?}"),
        }
    }

    pub(super) async fn done(&mut self, first_request: u64, count: u32) {
        let first_index = Index::new(first_request, 0);
        let run = Acknowledgement::Run { first_request, first_index, count };
        self.say(ServerMessage::Acknowledged(vec![run])).await;
    }

    pub(super) async fn refused(&mut self, request: u64, code: ErrorCode) {
        let result = Acknowledged::Refused(code);
        let one = Acknowledgement::One { request, index: Index(0), result };
        self.say(ServerMessage::Acknowledged(vec![one])).await;
    }

    pub(super) async fn answer(&mut self, correlation: u64, answer: Answer) {
        let reply = ReadReply { index: Index::new(1, 0), age_ms: 0, stale: false, answer };
        self.say(ServerMessage::ReadReply { correlation, reply }).await;
    }

    /// Opens the event stream.
    pub(super) async fn events(&self, after: Position) -> Events {
        let sender = soon(self.connection.open_uni()).await.unwrap();
        let mut events = Events { sender };
        events.put(&EventMessage::Begin { lineage: LINEAGE, after }).await;
        events
    }

    pub(super) async fn bulk(&self, bulk: u64, purpose: BulkPurpose) -> Bulk {
        let sender = soon(self.connection.open_uni()).await.unwrap();
        let mut stream = Bulk { sender };
        let begin = BulkBegin { bulk, purpose, position: at(1) };
        stream.put(&BulkMessage::Begin(begin)).await;
        stream
    }

    /// The connection is gone at once, without a word on the streams.
    pub(super) fn vanish(self) {
        self.connection.close(CloseCode(1), "");
    }
}

/// An event stream.
pub(super) struct Events {
    sender: FrameSender,
}

impl Events {
    async fn put(&mut self, message: &EventMessage) {
        let mut frame = BytesMut::new();
        message.put(&mut frame);
        soon(self.sender.send_frames(frame.freeze())).await.unwrap();
    }

    pub(super) async fn event(&mut self, position: Position, event: Event) {
        self.put(&EventMessage::Event { position, last: true, event }).await;
    }

    /// As [`event`](Self::event), but gives up when the client takes no more.
    pub(super) async fn event_unless_full(&mut self, position: Position, event: Event) -> bool {
        let mut frame = BytesMut::new();
        EventMessage::Event { position, last: true, event }.put(&mut frame);
        let sent = self.sender.send_frames(frame.freeze());
        tokio::time::timeout(Duration::from_millis(500), sent).await.is_ok()
    }
}

/// A bulk stream.
pub(super) struct Bulk {
    sender: FrameSender,
}

impl Bulk {
    pub(super) async fn put(&mut self, message: &BulkMessage) {
        let mut frame = BytesMut::new();
        message.put(&mut frame);
        soon(self.sender.send_frames(frame.freeze())).await.unwrap();
    }

    pub(super) async fn item(&mut self, entry: u64, topic: u64, path: &str, value: &str) {
        self.put(&BulkMessage::Item {
            version: Index::new(entry, 0),
            topic: TopicId(topic),
            specification: json(),
            path: TopicPath::parse(path).unwrap(),
            value: Some(value.to_owned().into()),
        })
        .await;
    }

    pub(super) async fn end(mut self) {
        self.put(&BulkMessage::End { count: 0, more: false }).await;
        soon(self.sender.finish()).await.unwrap();
    }
}

pub(super) fn at(entry: u64) -> Position {
    Position { index: Index::new(entry, 0), ordinal: 0 }
}

pub(super) fn json() -> WireSpecification {
    WireSpecification { topic_type: 2, properties: [].into() }
}

pub(super) fn subscribed(topic: u64, path: &str) -> Event {
    let path = TopicPath::parse(path).unwrap();
    Event::Subscribed { topic: TopicId(topic), specification: json(), path }
}

pub(super) fn value(topic: u64, text: &str) -> Event {
    Event::Value { topic: TopicId(topic), value: Some(text.to_owned().into()) }
}
