//! Endpoints, TLS and framed streams against each other, over loopback.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::certificate::{Pem, make_ca, make_client, make_node};
use super::profile::Edge;
use super::tls::{ANY_NODE, Authority, ClientTls, Identity, ServerTls, check, node_name_in};
use super::*;
use crate::clock::Clock;
use crate::config::settings::TlsFiles;
use crate::domain::node_name::NodeName;
use crate::protocol::frame::{FrameError, put_frame};
use crate::supervisor::Supervisor;

const PATIENCE: Duration = Duration::from_secs(10);
const ALERT_UNKNOWN_CA: u8 = 48;
const ALERT_CERTIFICATE_REQUIRED: u8 = 116;
const ALERT_NO_APPLICATION_PROTOCOL: u8 = 120;

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap()
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn key() -> ResetKey {
    ResetKey::from_bytes([7; 32])
}

/// An authority with a node and a client under it.
struct House {
    ca: Pem,
    authority: Authority,
    node: Identity,
}

impl House {
    fn new() -> Self {
        let ca = make_ca("test authority").unwrap();
        let node = make_node(&ca, &NodeName::parse("n1").unwrap(), &[]).unwrap();
        Self {
            authority: Authority::from_pem(&ca.certificate).unwrap(),
            node: Identity::from_pem(&node.certificate, &node.key).unwrap(),
            ca,
        }
    }

    fn client_identity(&self) -> Identity {
        let pem = make_client(&self.ca, "alice").unwrap();
        Identity::from_pem(&pem.certificate, &pem.key).unwrap()
    }

    fn listen(&self, edge: Edge) -> Endpoint {
        self.listen_at(edge, loopback(), EndpointLimits::default())
    }

    fn listen_at(&self, edge: Edge, address: SocketAddr, limits: EndpointLimits) -> Endpoint {
        let tls = match edge {
            Edge::Client => ServerTls::for_clients(&self.node, Some(&self.authority)),
            Edge::Peer => ServerTls::for_peers(&self.node, &self.authority),
        };
        Endpoint::listen(address, &tls.unwrap(), &key(), limits).unwrap()
    }

    fn client_tls(&self) -> ClientTls {
        ClientTls::for_client(&self.authority, None).unwrap()
    }

    fn peer_tls(&self) -> ClientTls {
        ClientTls::for_peer(&self.authority, &self.node).unwrap()
    }

    /// Both ends of a connection on the client edge.
    async fn pair(&self) -> (Connection, Connection, [Endpoint; 2]) {
        let server = self.listen(Edge::Client);
        let client = Endpoint::dial_only(loopback(), Edge::Client).unwrap();
        let tls = self.client_tls();
        let (dialed, accepted) = tokio::join!(
            soon(client.connect(server.local_address(), "127.0.0.1", &tls, PATIENCE)),
            soon(async { server.accept().await.unwrap().complete().await }),
        );
        (dialed.unwrap(), accepted.unwrap(), [server, client])
    }
}

/// Dials while the server completes what comes; gives both results.
async fn handshake(
    server: &Endpoint,
    name: &str,
    tls: &ClientTls,
) -> (Result<Connection, ConnectError>, Result<Connection, AcceptError>) {
    let client = Endpoint::dial_only(loopback(), Edge::Client).unwrap();
    let dial = async {
        let dialed = client.connect(server.local_address(), name, tls, PATIENCE).await;
        if let Ok(connection) = &dialed {
            // A server that refuses our certificate says so only after our own handshake is done.
            let _ = tokio::time::timeout(Duration::from_millis(500), connection.closed()).await;
        }
        // The farewell tells the server of a failure on this side.
        client.drained_within(Duration::from_millis(200)).await;
        dialed
    };
    let accept = async { server.accept().await.unwrap().complete().await };
    tokio::join!(soon(dial), soon(accept))
}

impl Endpoint {
    async fn drained_within(&self, patience: Duration) {
        let _ = tokio::time::timeout(patience, self.drained()).await;
    }
}

fn tls_alert(closed: &Closed) -> Option<u8> {
    match closed {
        Closed::Tls { alert, .. } => Some(*alert),
        _ => None,
    }
}

#[tokio::test]
async fn frames_of_every_size_come_through_in_order() {
    let house = House::new();
    let (dialed, accepted, _endpoints) = house.pair().await;
    let sizes = [0, 1, 3, 100, 1_400, 1_447, 1_448, 8_191, 8_192, 70_000, 1_048_576];
    let supervisor = Supervisor::new("test");
    supervisor.spawn("sender", async move {
        let (mut sender, _receiver) = dialed.open_bi().await.unwrap();
        for (kind, size) in (0..).zip(sizes) {
            sender.send(kind, &vec![kind; size]).await.unwrap();
            sender.queue_shared(kind, vec![kind; size].into()).unwrap();
        }
        // A batch that was laid before, of more frames than pieces are read at once.
        let mut batch = BytesMut::new();
        for number in 0..1_000_u32 {
            put_frame(&mut batch, 99, |body| body.put_u32_le(number));
        }
        sender.send_frames(batch.freeze()).await.unwrap();
        sender.finish().await.unwrap();
        assert!(sender.acknowledged().await);
        assert_eq!(sender.send(1, b"late").await, Err(SendError::Finished));
    });
    let (_sender, mut receiver) = soon(accepted.accept_bi()).await.unwrap();
    for (kind, size) in (0..).zip(sizes) {
        for _ in 0..2 {
            let frame = soon(receiver.next()).await.unwrap().unwrap();
            assert_eq!((frame.kind, frame.body.len()), (kind, size));
            assert!(frame.body.iter().all(|byte| *byte == kind));
        }
    }
    for number in 0..1_000_u32 {
        let frame = soon(receiver.next()).await.unwrap().unwrap();
        assert_eq!(frame, Frame { kind: 99, body: number.to_le_bytes().to_vec().into() });
    }
    assert_eq!(soon(receiver.next()).await, Ok(None));
    assert_eq!(soon(receiver.next()).await, Ok(None));
    assert!(supervisor.stop(PATIENCE).await.is_empty());
    assert_eq!(supervisor.exit(), None);
}

#[tokio::test]
async fn sends_and_receives_that_are_dropped_midway_lose_and_double_nothing() {
    let house = House::new();
    let (dialed, accepted, _endpoints) = house.pair().await;
    const FRAMES: u32 = 40;
    const BYTES: usize = 100_000;
    let supervisor = Supervisor::new("test");
    supervisor.spawn("sender", async move {
        let mut sender = dialed.open_uni().await.unwrap();
        for number in 0..FRAMES {
            let mut body = vec![0; BYTES];
            body[..4].copy_from_slice(&number.to_le_bytes());
            // Polled once and dropped: far more than the window takes at once.
            let dropped = tokio::time::timeout(Duration::ZERO, sender.send(1, &body)).await;
            if dropped.is_err() {
                while sender.queued_bytes() > 0 {
                    let _ = tokio::time::timeout(Duration::from_millis(1), sender.flush()).await;
                }
            }
        }
        sender.finish().await.unwrap();
        sender.acknowledged().await;
    });
    let mut receiver = soon(accepted.accept_uni()).await.unwrap();
    let mut dropped = 0;
    for number in 0..FRAMES {
        let frame = loop {
            // Mostly dropped while waiting for the rest of a frame.
            match tokio::time::timeout(Duration::from_micros(50), receiver.next()).await {
                Ok(frame) => break frame.unwrap().unwrap(),
                Err(_) => dropped += 1,
            }
        };
        assert_eq!(frame.body.len(), BYTES);
        assert_eq!(frame.body[..4], number.to_le_bytes());
    }
    assert_eq!(soon(receiver.next()).await, Ok(None));
    assert!(dropped > 0, "the test drops nothing");
    assert!(supervisor.stop(PATIENCE).await.is_empty());
    assert_eq!(supervisor.exit(), None);
}

#[tokio::test]
async fn frames_over_the_limit_are_refused_on_both_sides() {
    let house = House::new();
    let (dialed, accepted, _endpoints) = house.pair().await;
    let limit = Edge::Client.frame_bytes_max();
    let (mut sender, _r) = soon(dialed.open_bi()).await.unwrap();
    let long = SendError::TooLong { bytes: limit + 1, bytes_max: limit };
    assert_eq!(sender.send(1, &vec![0; limit]).await, Err(long.clone()));
    assert_eq!(sender.queue_shared(1, vec![0; limit].into()), Err(long));
    assert_eq!(sender.queued_bytes(), 0);
    // Nothing of the refused frames went out: the stream is still whole.
    soon(sender.send(2, b"short")).await.unwrap();
    let (_s, mut receiver) = soon(accepted.accept_bi()).await.unwrap();
    assert_eq!(soon(receiver.next()).await.unwrap().unwrap().kind, 2);
    // A side that does not keep to the limit is found out by the length alone.
    sender.queue_raw(Bytes::copy_from_slice(&(limit as u32 + 1).to_le_bytes()));
    soon(sender.flush()).await.unwrap();
    let refused = FrameError::TooLong { bytes: limit + 1, bytes_max: limit };
    assert_eq!(soon(receiver.next()).await, Err(ReceiveError::Frame(refused)));

    // A lower limit for a stranger's first frame.
    let (mut sender, _r) = soon(dialed.open_bi()).await.unwrap();
    soon(sender.send(1, &[0; 100])).await.unwrap();
    let (_s, mut receiver) = soon(accepted.accept_bi()).await.unwrap();
    receiver.limit_frames(100);
    let refused = FrameError::TooLong { bytes: 101, bytes_max: 100 };
    assert_eq!(soon(receiver.next()).await, Err(ReceiveError::Frame(refused)));
}

#[tokio::test]
async fn ends_are_told_apart() {
    let house = House::new();
    let (dialed, accepted, _endpoints) = house.pair().await;
    accepted.permit_streams(8);
    let open = |bytes: &'static [u8]| {
        let (dialed, accepted) = (dialed.clone(), accepted.clone());
        async move {
            let (mut sender, receiver) = soon(dialed.open_bi()).await.unwrap();
            sender.queue_raw(Bytes::from_static(bytes));
            soon(sender.flush()).await.unwrap();
            let (back, incoming) = soon(accepted.accept_bi()).await.unwrap();
            (sender, receiver, back, incoming)
        }
    };
    // Cut off within the length and within the body.
    for (bytes, missing) in [(&b"\x03"[..], 3), (b"\x03\0\0\0\x01", 2)] {
        let (mut sender, _r, _b, mut incoming) = open(bytes).await;
        soon(sender.finish()).await.unwrap();
        let cut = ReceiveError::Frame(FrameError::Cut { missing });
        assert_eq!(soon(incoming.next()).await, Err(cut));
    }
    let (mut sender, _r, _b, mut incoming) = open(b"\0\0\0\0").await;
    assert_eq!(soon(incoming.next()).await, Err(ReceiveError::Frame(FrameError::Empty)));
    // Reset by the sender, stopped by the receiver.
    sender.reset(CloseCode(9));
    let (mut sender, _r, _b, mut incoming) = open(b"\x03").await;
    sender.reset(CloseCode(9));
    assert_eq!(soon(incoming.next()).await, Err(ReceiveError::Reset { code: CloseCode(9) }));
    let (mut sender, _r, _b, mut incoming) = open(b"\x03").await;
    incoming.stop(CloseCode(5));
    assert!(!soon(sender.acknowledged()).await);
    let stopped = SendError::Stopped { code: CloseCode(5) };
    assert_eq!(soon(sender.send(1, b"x")).await, Err(stopped));
    // Dropped: a clean end if all was flushed, and not if something was not.
    let (sender, _r, _b, mut incoming) = open(b"\x01\0\0\0\x07").await;
    drop(sender);
    assert_eq!(soon(incoming.next()).await.unwrap().unwrap().kind, 7);
    assert_eq!(soon(incoming.next()).await, Ok(None));
    let (mut sender, _r, _b, mut incoming) = open(b"\x03").await;
    sender.queue(1, b"never flushed").unwrap();
    drop(sender);
    assert_eq!(soon(incoming.next()).await, Err(ReceiveError::Reset { code: ABANDONED }));
    // The connection closed, as both sides see it.
    let (mut sender, _r, _b, mut incoming) = open(b"\x03").await;
    dialed.close(CloseCode(42), "enough");
    let there = Closed::There { code: CloseCode(42), reason: "enough".to_owned() };
    assert_eq!(soon(incoming.next()).await, Err(ReceiveError::Closed(there.clone())));
    assert_eq!(soon(accepted.closed()).await, there);
    assert_eq!(soon(sender.send(1, b"x")).await, Err(SendError::Closed(Closed::Here)));
    assert_eq!(dialed.close_reason(), Some(Closed::Here));
    assert!(dialed.open_uni().await.is_err());
}

#[tokio::test]
async fn a_sender_that_is_never_flushed_is_full() {
    let house = House::new();
    let (dialed, _accepted, _endpoints) = house.pair().await;
    let mut sender = soon(dialed.open_uni()).await.unwrap();
    let body = Bytes::from(vec![0; 1024 * 1024]);
    let full = loop {
        if let Err(error) = sender.queue_shared(1, body.clone()) {
            break error;
        }
        assert!(sender.queued_bytes() < 2 * QUEUED_BYTES_MAX);
    };
    assert!(matches!(full, SendError::Full { bytes_max: QUEUED_BYTES_MAX, .. }));
    // A reader that reads nothing: the flush waits, and what was not taken stays.
    let flushed = tokio::time::timeout(Duration::from_millis(100), sender.flush()).await;
    assert!(flushed.is_err());
    assert!(sender.queued_bytes() > QUEUED_BYTES_MAX / 2);
}

#[tokio::test]
async fn who_is_not_trusted_is_refused_by_name_of_the_fault() {
    let house = House::new();
    let other = House::new();
    let clients = house.listen(Edge::Client);
    let peers = house.listen(Edge::Peer);

    // A server under an authority that we do not trust.
    let stranger = ClientTls::for_client(&other.authority, None).unwrap();
    let (dialed, accepted) = handshake(&clients, "127.0.0.1", &stranger).await;
    let Err(ConnectError::Handshake { source, .. }) = dialed else { panic!("{dialed:?}") };
    assert_eq!(tls_alert(&source), Some(ALERT_UNKNOWN_CA));
    let Err(AcceptError::Handshake { source, .. }) = accepted else { panic!("{accepted:?}") };
    assert_eq!(tls_alert(&source), Some(ALERT_UNKNOWN_CA));

    // A certificate for another host.
    let (dialed, _) = handshake(&clients, "example.org", &house.client_tls()).await;
    assert!(matches!(dialed, Err(ConnectError::Handshake { .. })), "{dialed:?}");

    // The wrong edge.
    let (dialed, _) = handshake(&clients, ANY_NODE, &house.peer_tls()).await;
    let Err(ConnectError::Handshake { source, .. }) = dialed else { panic!("{dialed:?}") };
    assert_eq!(tls_alert(&source), Some(ALERT_NO_APPLICATION_PROTOCOL));

    // No certificate on the peer port: the dialler itself may believe for a moment that it is in.
    let bare = ClientTls::without_certificate(&house.authority).unwrap();
    let (_, accepted) = handshake(&peers, ANY_NODE, &bare).await;
    let Err(AcceptError::Handshake { source, .. }) = accepted else { panic!("{accepted:?}") };
    assert_eq!(tls_alert(&source), Some(ALERT_CERTIFICATE_REQUIRED));

    // A peer of another cluster.
    let foreign = ClientTls::for_peer(&house.authority, &other.node).unwrap();
    let (_, accepted) = handshake(&peers, ANY_NODE, &foreign).await;
    let Err(AcceptError::Handshake { source, .. }) = accepted else { panic!("{accepted:?}") };
    assert!(tls_alert(&source).is_some(), "{source:?}");

    // And those who are.
    let (dialed, accepted) = handshake(&peers, ANY_NODE, &house.peer_tls()).await;
    let names = accepted.unwrap().certificate_names();
    assert_eq!(node_name_in(&names), Some(NodeName::parse("n1").unwrap()));
    assert_eq!(node_name_in(&dialed.unwrap().certificate_names()).unwrap().as_str(), "n1");
    let alice = ClientTls::for_client(&house.authority, Some(&house.client_identity())).unwrap();
    let (dialed, accepted) = handshake(&clients, "localhost", &alice).await;
    assert!(dialed.is_ok());
    assert_eq!(node_name_in(&accepted.unwrap().certificate_names()), None);
}

#[tokio::test]
async fn a_full_endpoint_refuses_and_takes_again_when_there_is_room() {
    let house = House::new();
    let limits = EndpointLimits { connections_max: 1, ..EndpointLimits::default() };
    let server = house.listen_at(Edge::Client, loopback(), limits);
    let address = server.local_address();
    let tls = house.client_tls();
    let supervisor = Supervisor::new("test");
    let (given, mut taken) = tokio::sync::mpsc::channel(4);
    let accepting = server.clone();
    supervisor.spawn("acceptor", async move {
        while let Some(accepting) = accepting.accept().await {
            given.send(accepting.complete().await.unwrap()).await.unwrap();
        }
    });
    let client = Endpoint::dial_only(loopback(), Edge::Client).unwrap();
    let _first = soon(client.connect(address, "127.0.0.1", &tls, PATIENCE)).await.unwrap();
    let accepted = soon(taken.recv()).await.unwrap();
    assert_eq!(server.connections(), 1);
    let second = soon(client.connect(address, "127.0.0.1", &tls, PATIENCE)).await;
    let Err(ConnectError::Handshake { source, .. }) = second else { panic!("{second:?}") };
    assert_eq!(source, Closed::Refused);
    drop(accepted);
    assert_eq!(server.connections(), 0);
    let _third = soon(client.connect(address, "127.0.0.1", &tls, PATIENCE)).await.unwrap();
    server.close(CloseCode(1), "done");
    assert!(supervisor.stop(PATIENCE).await.is_empty());
}

#[tokio::test]
async fn a_crowd_of_strangers_must_show_that_it_can_receive() {
    let house = House::new();
    let limits = EndpointLimits { unvalidated_max: 0, ..EndpointLimits::default() };
    let server = house.listen_at(Edge::Client, loopback(), limits);
    // Every handshake is asked to retry, and still ends well.
    let (dialed, accepted) = handshake(&server, "127.0.0.1", &house.client_tls()).await;
    assert!(dialed.is_ok() && accepted.is_ok());
}

#[tokio::test]
async fn strangers_of_one_address_do_not_keep_another_out() {
    let house = House::new();
    let limits = EndpointLimits { strangers_per_address_max: 3, ..EndpointLimits::default() };
    let server = house.listen_at(Edge::Client, loopback(), limits);
    let address = server.local_address();
    let tls = house.client_tls();
    let supervisor = Supervisor::new("test");
    let (given, mut taken) = tokio::sync::mpsc::channel(8);
    let accepting = server.clone();
    supervisor.spawn("acceptor", async move {
        while let Some(accepting) = accepting.accept().await {
            given.send(accepting.complete().await.unwrap()).await.unwrap();
        }
    });
    let crowd = Endpoint::dial_only(loopback(), Edge::Client).unwrap();
    let connect = |endpoint: Endpoint, tls: ClientTls| async move {
        soon(endpoint.connect(address, "127.0.0.1", &tls, PATIENCE)).await
    };
    let mut kept = Vec::new();
    for _ in 0..3 {
        let dialed = connect(crowd.clone(), tls.clone()).await.unwrap();
        kept.push((dialed, soon(taken.recv()).await.unwrap()));
    }
    // It has shown that the address is its own, and that has as many as it may.
    let refused = connect(crowd.clone(), tls.clone()).await;
    let Err(ConnectError::Handshake { source, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(source, Closed::Refused);
    let elsewhere = Endpoint::dial_only("127.0.0.2:0".parse().unwrap(), Edge::Client).unwrap();
    let _other = connect(elsewhere, tls.clone()).await.unwrap();
    // One that is introduced makes room for the next, and one that leaves does.
    kept[0].1.introduced();
    let _next = connect(crowd.clone(), tls.clone()).await.unwrap();
    assert!(connect(crowd.clone(), tls.clone()).await.is_err());
    kept.truncate(1);
    let _last = connect(crowd.clone(), tls.clone()).await.unwrap();
    // One that is in good standing is turned away for the faults of those beside it.
    for _ in 0..strangers::FAULTS_MAX {
        kept[0].1.at_fault();
    }
    kept[0].1.introduced();
    let barred = connect(crowd, tls).await;
    let Err(ConnectError::Handshake { source, .. }) = barred else { panic!("{barred:?}") };
    assert_eq!(source, Closed::Refused);
}

#[tokio::test]
async fn what_comes_by_a_proxy_is_not_held_against_its_address() {
    let house = House::new();
    let limits = EndpointLimits {
        strangers_per_address_max: 1,
        proxies: vec!["127.0.0.0/31".parse().unwrap()],
        ..EndpointLimits::default()
    };
    let server = house.listen_at(Edge::Client, loopback(), limits);
    let (behind, beside) = ("127.0.0.1:0", "127.0.0.2:0");
    let socket = |address: &str| Endpoint::dial_only(address.parse().unwrap(), Edge::Client);
    let (behind, beside) = (socket(behind).unwrap(), socket(beside).unwrap());
    let connect = |from: &Endpoint| {
        let (from, tls, to) = (from.clone(), house.client_tls(), server.local_address());
        async move { from.connect(to, "127.0.0.1", &tls, PATIENCE).await }
    };
    let mut kept = Vec::new();
    for _ in 0..3 {
        let accepted = async { server.accept().await.unwrap().complete().await.unwrap() };
        let (dialed, accepted) = soon(async { tokio::join!(connect(&behind), accepted) }).await;
        for _ in 0..strangers::FAULTS_MAX {
            accepted.at_fault();
        }
        kept.push((dialed.unwrap(), accepted));
    }
    let accepted = async { server.accept().await.unwrap().complete().await.unwrap() };
    let (first, _accepted) = soon(async { tokio::join!(connect(&beside), accepted) }).await;
    assert!(first.is_ok());
    let refused = soon(async {
        tokio::select! {
            refused = connect(&beside) => refused,
            _ = server.accept() => panic!("a second one of an address that may have one"),
        }
    });
    assert!(refused.await.is_err());
}

#[tokio::test]
async fn a_restarted_node_says_at_once_that_it_forgot_its_connections() {
    let house = House::new();
    let server = house.listen(Edge::Client);
    let address = server.local_address();
    let client = Endpoint::dial_only(loopback(), Edge::Client).unwrap();
    let tls = house.client_tls();
    // The first life runs on a runtime of its own, which ends without a farewell, as by kill -9.
    let (dialed, relay) = {
        let (relay, relayed) = relay(address).await;
        let (dialed, accepted) = tokio::join!(
            soon(client.connect(relay.local_address, "127.0.0.1", &tls, PATIENCE)),
            soon(async { server.accept().await.unwrap().complete().await }),
        );
        let connection = dialed.unwrap();
        let _kept = accepted.unwrap();
        // From here on the first life hears nothing and says nothing.
        relayed.cut.store(true, std::sync::atomic::Ordering::SeqCst);
        (connection, (relay, relayed, _kept))
    };
    let (relay, relayed, _kept) = relay;
    let second = house.listen(Edge::Client);
    *relayed.target.lock().unwrap() = second.local_address();
    relayed.cut.store(false, std::sync::atomic::Ordering::SeqCst);
    let (mut sender, _receiver) = soon(dialed.open_bi()).await.unwrap();
    let began = relay.clock.now();
    soon(sender.send(1, b"are you there?")).await.unwrap();
    assert_eq!(soon(dialed.closed()).await, Closed::Restarted);
    assert!(relay.clock.since(began) < Duration::from_secs(3), "within moments, not a timeout");
}

#[tokio::test]
async fn noise_on_the_port_changes_nothing() {
    let house = House::new();
    let server = house.listen(Edge::Peer);
    let noise = tokio::net::UdpSocket::bind(loopback()).await.unwrap();
    let mut seed = 1_u64;
    for length in (0..1_400).step_by(7) {
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 56) as u8
            })
            .collect();
        noise.send_to(&bytes, server.local_address()).await.unwrap();
    }
    let (dialed, accepted) = handshake(&server, ANY_NODE, &house.peer_tls()).await;
    assert!(dialed.is_ok() && accepted.is_ok());
    assert!(server.connections() <= 1);
}

/// A UDP relay, so that a server can be exchanged behind one address without its farewell.
struct Relay {
    local_address: SocketAddr,
    clock: Clock,
    _tasks: Supervisor,
}

struct Relayed {
    target: std::sync::Mutex<SocketAddr>,
    cut: std::sync::atomic::AtomicBool,
}

async fn relay(target: SocketAddr) -> (Relay, std::sync::Arc<Relayed>) {
    let front = tokio::net::UdpSocket::bind(loopback()).await.unwrap();
    let back = tokio::net::UdpSocket::bind(loopback()).await.unwrap();
    let local_address = front.local_addr().unwrap();
    let relayed = std::sync::Arc::new(Relayed {
        target: std::sync::Mutex::new(target),
        cut: std::sync::atomic::AtomicBool::new(false),
    });
    let shared = std::sync::Arc::clone(&relayed);
    let tasks = Supervisor::new("relay");
    tasks.spawn("relay", async move {
        let mut client = None;
        let (mut out, mut home) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            tokio::select! {
                Ok((bytes, from)) = front.recv_from(&mut out) => {
                    client = Some(from);
                    let target = *shared.target.lock().unwrap();
                    if !shared.cut.load(std::sync::atomic::Ordering::SeqCst) {
                        let _ = back.send_to(&out[..bytes], target).await;
                    }
                }
                Ok((bytes, from)) = back.recv_from(&mut home) => {
                    let target = *shared.target.lock().unwrap();
                    let open = !shared.cut.load(std::sync::atomic::Ordering::SeqCst);
                    if let (Some(client), true) = (client, open && from == target) {
                        let _ = front.send_to(&home[..bytes], client).await;
                    }
                }
            }
        }
    });
    (Relay { local_address, clock: Clock::system(), _tasks: tasks }, relayed)
}

#[test]
fn certificates_are_stored_with_a_private_key_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let ca = make_ca("ca").unwrap();
    let (certificate, key) = certificate::paths(dir.path(), "ca");
    ca.store(&certificate, &key).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(matches!(ca.store(&certificate, &key), Err(TlsError::Write { .. })));
    let loaded = Pem::load(&certificate, &key).unwrap();
    let name = NodeName::parse("eu-1").unwrap();
    let node =
        make_node(&loaded, &name, &["10.0.0.7".to_owned(), "n1.example".to_owned()]).unwrap();
    let (certificate, key) = certificate::paths(dir.path(), "eu-1");
    node.store(&certificate, &key).unwrap();
    let names = Identity::load(&certificate, &key).unwrap().names();
    assert_eq!(names, ["eu-1.node.quorate", "node.quorate", "localhost", "n1.example"]);
    assert!(make_node(&loaded, &name, &["not a host".to_owned()]).is_err());

    let missing = dir.path().join("missing.pem");
    assert!(matches!(Authority::load(&missing), Err(TlsError::Read { .. })));
    assert!(matches!(Authority::load(&key), Err(TlsError::Pem { wanted: "certificate", .. })));
    let swapped = Identity::load(&certificate, &certificate);
    assert!(matches!(swapped, Err(TlsError::Pem { wanted: "private key", .. })));
    // A key of another certificate is found before anything listens.
    let other = make_node(&loaded, &name, &[]).unwrap();
    let mixed = Identity::from_pem(&node.certificate, &other.key).unwrap();
    assert!(matches!(ServerTls::for_clients(&mixed, None), Err(TlsError::Identity { .. })));
}

#[tokio::test]
async fn files_are_checked_as_a_node_will_use_them() {
    let dir = tempfile::tempdir().unwrap();
    let name = NodeName::parse("n1").unwrap();
    let clock = Clock::system();
    let files = certificate::generated(dir.path(), &name).unwrap();
    check(&files, &name, &clock).unwrap();
    // The same ones at the next start; what a start that was cut short left is no hindrance.
    let before = std::fs::read(&files.key).unwrap();
    std::fs::create_dir(dir.path().join("tls.new")).unwrap();
    assert_eq!(certificate::generated(dir.path(), &name).unwrap(), files);
    assert_eq!(std::fs::read(&files.key).unwrap(), before);

    let n2 = NodeName::parse("n2").unwrap();
    assert!(matches!(check(&files, &n2, &clock), Err(TlsError::WrongNode { .. })));
    // Another authority of the same name.
    let other = make_ca("Quorate generated CA").unwrap();
    let foreign = TlsFiles { ca: dir.path().join("other.pem"), ..files.clone() };
    other.store(&foreign.ca, &dir.path().join("other.key")).unwrap();
    assert!(matches!(check(&foreign, &name, &clock), Err(TlsError::Untrusted { .. })));
    // A century from now.
    let late = Clock::starting_at(200 * 365 * 86_400_000);
    assert!(matches!(check(&files, &name, &late), Err(TlsError::Untrusted { .. })));
}

#[test]
fn a_certificate_names_one_node_or_none() {
    let names = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        node_name_in(&names).map(|name| name.as_str().to_owned())
    };
    assert_eq!(names(&["n1.node.quorate", "node.quorate", "localhost"]).as_deref(), Some("n1"));
    assert_eq!(names(&["node.quorate"]), None);
    assert_eq!(names(&["n1.node.quorate", "n2.node.quorate"]), None);
    assert_eq!(names(&["a.b.node.quorate"]), None);
    assert_eq!(names(&["n1node.quorate"]), None);
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let house = House::new();
    let first = house.listen(Edge::Client);
    let tls = ServerTls::for_clients(&house.node, None).unwrap();
    let second = Endpoint::listen(first.local_address(), &tls, &key(), EndpointLimits::default());
    let Err(BindError::Bind { address, .. }) = second else { panic!("{second:?}") };
    assert_eq!(address, first.local_address());
    assert!(first.socket_buffers().receive > 0);
}
