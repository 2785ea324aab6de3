//! The simulated network behind the types of `transport/`: what QUIC promises, it promises too.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Network, Weather};
use crate::clock::Clock;
use crate::domain::node_name::NodeName;
use crate::entropy;
use crate::host::Host;
use crate::supervisor::Supervisor;
use crate::transport::certificate::{make_ca, make_node};
use crate::transport::profile::{
    CLIENT_STREAM_WINDOW_BYTES, CLIENT_STREAMS_MAX, Edge, PEER_IDLE_TIMEOUT,
};
use crate::transport::tls::{ANY_NODE, Authority, ClientTls, Identity, ServerTls};
use crate::transport::{
    CloseCode, Closed, ConnectError, Connection, Endpoint, EndpointLimits, ReceiveError, ResetKey,
    SendError,
};

const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const TWO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
const PATIENCE: Duration = Duration::from_secs(1);

/// Two hosts, and both ends of a connection from the second to the first.
struct Stage {
    network: Network,
    one: Host,
    server: Endpoint,
    dialed: Connection,
    accepted: Connection,
    identity: Identity,
    authority: Authority,
    _installed: Installed,
}

/// This thread's endpoints are the machine's again when it is dropped.
struct Installed;

impl Drop for Installed {
    fn drop(&mut self) {
        Network::install(None);
        entropy::seed_this_thread(None);
    }
}

impl Stage {
    async fn new(edge: Edge) -> Self {
        entropy::seed_this_thread(Some(1));
        let network = Network::new(7, Weather::default());
        Network::install(Some(network.clone()));
        let carrier = network.clone();
        // On no host, as the one that spawns is on none.
        Supervisor::new("network").spawn("carrier", async move { carrier.run().await });
        let ca = make_ca("simulation").unwrap();
        let node = make_node(&ca, &NodeName::parse("n1").unwrap(), &[]).unwrap();
        let authority = Authority::from_pem(&ca.certificate).unwrap();
        let identity = Identity::from_pem(&node.certificate, &node.key).unwrap();
        let (one, two) = (Host::new("one", ONE), Host::new("two", TWO));
        let server = one.enter(|| listen(edge, &identity, &authority));
        let client = two.enter(|| Endpoint::dial_only(([0, 0, 0, 0], 0).into(), edge).unwrap());
        let tls = match edge {
            Edge::Client => ClientTls::for_client(&authority, None).unwrap(),
            Edge::Peer => ClientTls::for_peer(&authority, &identity).unwrap(),
        };
        let (dialed, accepted) =
            tokio::join!(client.connect(server.local_address(), ANY_NODE, &tls, PATIENCE), async {
                server.accept().await.unwrap().complete().await.unwrap()
            });
        let dialed = dialed.unwrap();
        let _installed = Installed;
        Self { network, one, server, dialed, accepted, identity, authority, _installed }
    }
}

fn listen(edge: Edge, identity: &Identity, authority: &Authority) -> Endpoint {
    let tls = match edge {
        Edge::Client => ServerTls::for_clients(identity, None).unwrap(),
        Edge::Peer => ServerTls::for_peers(identity, authority).unwrap(),
    };
    let address = SocketAddr::new(ONE, 7_400);
    let limits = EndpointLimits::default();
    Endpoint::listen(address, &tls, &ResetKey::from_bytes([1; 32]), limits).unwrap()
}

async fn is_pending(future: impl Future) -> bool {
    tokio::time::timeout(Duration::from_millis(200), future).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn frames_arrive_in_order_whatever_the_weather_and_end_cleanly() {
    let stage = Stage::new(Edge::Peer).await;
    let stormy = Weather { loss: 200, reorder: 300, split: 500, ..Weather::default() };
    stage.network.set_weather(stormy);
    assert_eq!(stage.accepted.remote().ip(), TWO);
    assert!(stage.dialed.certificate_names().contains(&ANY_NODE.to_owned()));
    let (mut sender, _) = stage.dialed.open_bi().await.unwrap();
    for k in 0..200_u8 {
        sender.send(k, &vec![k; usize::from(k) * 10]).await.unwrap();
    }
    sender.finish().await.unwrap();
    let (mut back, mut receiver) = stage.accepted.accept_bi().await.unwrap();
    for k in 0..200_u8 {
        let frame = receiver.next().await.unwrap().unwrap();
        assert_eq!((frame.kind, &frame.body[..]), (k, &vec![k; usize::from(k) * 10][..]));
    }
    assert_eq!(receiver.next().await, Ok(None));
    assert!(sender.acknowledged().await);
    assert_eq!(sender.send(1, b"late").await, Err(SendError::Finished));
    assert!(matches!(back.send(1, &vec![0; 3 << 20]).await, Err(SendError::TooLong { .. })));
    assert!(stage.network.counts().lost > 0 && stage.network.counts().reordered > 0);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_holds_its_writer_back() {
    let stage = Stage::new(Edge::Client).await;
    let (mut sender, _) = stage.accepted.open_bi().await.unwrap();
    let body = vec![1; 64 * 1024];
    let window = CLIENT_STREAM_WINDOW_BYTES as usize;
    for _ in 0..window / body.len() {
        sender.queue(1, &body).unwrap();
    }
    sender.queue(1, &body).unwrap();
    assert!(is_pending(sender.flush()).await);
    let (_, mut receiver) = stage.dialed.accept_bi().await.unwrap();
    receiver.next().await.unwrap().unwrap();
    receiver.next().await.unwrap().unwrap();
    assert!(!is_pending(sender.flush()).await);
    // The other side wants no more.
    drop(receiver);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(sender.send(1, b"x").await, Err(SendError::Stopped { code: CloseCode(0) }));
}

#[tokio::test(start_paused = true)]
async fn only_so_many_streams_are_open_and_ended_ones_make_room() {
    let stage = Stage::new(Edge::Client).await;
    let mut open = Vec::new();
    for _ in 0..CLIENT_STREAMS_MAX {
        let mut sender = stage.dialed.open_uni().await.unwrap();
        sender.send(1, b"here").await.unwrap();
        open.push(sender);
    }
    assert!(is_pending(stage.dialed.open_uni()).await);
    open.pop().unwrap().finish().await.unwrap();
    for _ in 0..CLIENT_STREAMS_MAX {
        let mut receiver = stage.accepted.accept_uni().await.unwrap();
        receiver.next().await.unwrap().unwrap();
        let ended = tokio::time::timeout(Duration::from_millis(50), receiver.next()).await;
        assert!(ended.is_err() || ended == Ok(Ok(None)));
    }
    assert!(!is_pending(stage.dialed.open_uni()).await);
}

#[tokio::test(start_paused = true)]
async fn a_reset_stream_and_a_closed_connection_say_why() {
    let stage = Stage::new(Edge::Peer).await;
    let mut sender = stage.dialed.open_uni().await.unwrap();
    sender.send(1, b"x").await.unwrap();
    let mut receiver = stage.accepted.accept_uni().await.unwrap();
    sender.reset(CloseCode(9));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(receiver.next().await, Err(ReceiveError::Reset { code: CloseCode(9) }));
    stage.dialed.close(CloseCode(5), "enough");
    let there = Closed::There { code: CloseCode(5), reason: "enough".to_owned() };
    assert_eq!(stage.accepted.closed().await, there);
    assert_eq!(stage.dialed.closed().await, Closed::Here);
    assert_eq!(stage.accepted.open_uni().await.err(), Some(there));
}

#[tokio::test(start_paused = true)]
async fn a_short_cut_delays_and_a_long_one_ends_the_connection_on_both_sides() {
    let stage = Stage::new(Edge::Peer).await;
    let mut sender = stage.dialed.open_uni().await.unwrap();
    stage.network.cut(TWO, ONE);
    sender.send(1, b"late").await.unwrap();
    assert!(is_pending(stage.accepted.accept_uni()).await);
    stage.network.heal();
    let mut receiver = stage.accepted.accept_uni().await.unwrap();
    assert_eq!(&receiver.next().await.unwrap().unwrap().body[..], b"late");
    let (clock, begun) = (Clock::system(), Clock::system().now());
    stage.network.cut(TWO, ONE);
    stage.network.cut(ONE, TWO);
    assert_eq!(stage.accepted.closed().await, Closed::TimedOut);
    assert_eq!(stage.dialed.closed().await, Closed::TimedOut);
    let silent = clock.since(begun);
    assert!(silent >= PEER_IDLE_TIMEOUT && silent < 2 * PEER_IDLE_TIMEOUT);
    assert_eq!(stage.network.counts().timed_out, 2);
}

#[tokio::test(start_paused = true)]
async fn a_dead_host_is_silent_and_one_that_came_back_has_forgotten() {
    let Stage { network, one, server, dialed, accepted, identity, authority, _installed } =
        Stage::new(Edge::Peer).await;
    one.lose_power();
    network.unplug(ONE);
    let mut sender = dialed.open_uni().await.unwrap();
    sender.send(1, b"anybody?").await.unwrap();
    assert!(is_pending(dialed.closed()).await);
    drop((server, accepted));
    let again = Host::new("one", ONE);
    let server = again.enter(|| listen(Edge::Peer, &identity, &authority));
    sender.send(1, b"anybody?").await.unwrap();
    assert_eq!(dialed.closed().await, Closed::Restarted);
    assert_eq!(server.connections(), 0);
    assert_eq!(network.counts().forgotten, 1);
}

#[tokio::test(start_paused = true)]
async fn dials_are_refused_unanswered_or_of_another_edge() {
    let stage = Stage::new(Edge::Peer).await;
    let two = Host::new("two", TWO);
    let own = Endpoint::dial_only(([0, 0, 0, 0], 0).into(), Edge::Client);
    let client = two.enter(|| own.unwrap());
    let tls = ClientTls::for_client(&stage.authority, None).unwrap();
    let server = stage.server.local_address();
    let other_edge = client.connect(server, ANY_NODE, &tls, PATIENCE).await.err();
    let refused = |error| {
        matches!(
            error,
            Some(ConnectError::Handshake { source: Closed::Tls { alert: 120, .. }, .. })
        )
    };
    assert!(refused(other_edge));
    let nobody = SocketAddr::new(TWO, 1);
    let unanswered = client.connect(nobody, ANY_NODE, &tls, PATIENCE).await.err();
    assert_eq!(unanswered, Some(ConnectError::TimedOut { address: nobody }));
    stage.server.stop_listening();
    let tls = ClientTls::for_peer(&stage.authority, &stage.identity).unwrap();
    let unanswered = client.connect(server, ANY_NODE, &tls, PATIENCE).await.err();
    assert_eq!(unanswered, Some(ConnectError::TimedOut { address: server }));
    assert_eq!(stage.accepted.close_reason(), None, "what is there goes on");
    stage.server.close(CloseCode(3), "bye");
    let bye = Closed::There { code: CloseCode(3), reason: "bye".to_owned() };
    assert_eq!(stage.dialed.closed().await, bye);
}
