//! Meshes against each other, over loopback in one process.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;
use crate::clock::Clock;
use crate::domain::node_address::NodeAddress;
use crate::domain::node_name::NodeName;
use crate::protocol::frame::put_frame;
use crate::protocol::peer_message::{HELLO, HELLO_BYTES_MAX, Hello};
use crate::supervisor::Supervisor;
use crate::transport::certificate::{Pem, make_ca, make_node};
use crate::transport::profile::{Edge, PEER_STREAMS_MAX};
use crate::transport::tls::{ANY_NODE, Authority, ClientTls, Identity};
use crate::transport::{Closed, Connection, Endpoint, Priority, ReceiveError, ResetKey};

const PATIENCE: Duration = Duration::from_secs(20);
const ECHO: Lane = Lane(7);
const SILENT: Lane = Lane(8);
const DROPPED: Lane = Lane(9);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap()
}

fn deadline() -> Instant {
    Clock::system().now() + PATIENCE
}

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A cluster's authority and the addresses of its seeds.
struct Town {
    ca: Pem,
}

struct Member {
    mesh: Mesh,
    supervisor: Supervisor,
    echo: Supervisor,
}

/// How a member differs from the plain one.
struct Birth {
    name: &'static str,
    certificate: &'static str,
    nonce: u64,
    incarnation: u64,
    listen: SocketAddr,
    seeds: Vec<SocketAddr>,
}

impl Birth {
    fn new(name: &'static str, seeds: &[SocketAddr]) -> Self {
        let nonce = u64::from(name.as_bytes().last().copied().unwrap());
        Self {
            name,
            certificate: name,
            nonce,
            incarnation: 1,
            listen: any_port(),
            seeds: seeds.to_vec(),
        }
    }
}

impl Town {
    fn new() -> Self {
        Self { ca: make_ca("town").unwrap() }
    }

    fn settings(&self, birth: &Birth) -> MeshSettings {
        let pem = make_node(&self.ca, &name(birth.certificate), &[]).unwrap();
        MeshSettings {
            listen: birth.listen,
            advertise: None,
            seeds: birth.seeds.iter().filter_map(|a| NodeAddress::from_socket(*a)).collect(),
            identity: Identity::from_pem(&pem.certificate, &pem.key).unwrap(),
            authority: Authority::from_pem(&self.ca.certificate).unwrap(),
            reset_key: ResetKey::from_bytes([birth.nonce as u8; 32]),
        }
    }

    fn bear(&self, birth: &Birth) -> Member {
        let supervisor = Supervisor::new("mesh");
        let hello = Hello::new(name(birth.name), birth.nonce, birth.incarnation);
        let (mesh, streams) = Mesh::start(self.settings(birth), hello, &supervisor).unwrap();
        let echo = supervisor.group("echo");
        echo.spawn("echo", serve(echo.clone(), streams));
        Member { mesh, supervisor, echo }
    }

    fn member(&self, name: &'static str, seeds: &[SocketAddr]) -> Member {
        self.bear(&Birth::new(name, seeds))
    }
}

/// Answers what comes on the echo lane, keeps the silent lane open, drops the third.
async fn serve(supervisor: Supervisor, mut streams: mpsc::Receiver<IncomingStream>) {
    let mut kept = Vec::new();
    while let Some(mut stream) = streams.recv().await {
        match stream.lane {
            ECHO => {
                supervisor.spawn("echo one", async move {
                    if let Ok(Some(request)) = stream.request().await {
                        // The caller may have gone with its node.
                        let _ = stream.reply(request).await;
                    }
                });
            }
            SILENT => kept.push(stream),
            _ => drop(stream),
        }
    }
}

impl Member {
    fn address(&self) -> SocketAddr {
        self.mesh.local_address()
    }

    async fn connected(&self, peer: &str) -> PeerInfo {
        self.wait(peer, |info| info.connected).await
    }

    async fn wait(&self, peer: &str, until: impl Fn(&PeerInfo) -> bool) -> PeerInfo {
        let mut peers = self.mesh.peers();
        let peer = name(peer);
        let found = soon(peers.wait_for(|peers| peers.get(&peer).is_some_and(&until))).await;
        found.unwrap().get(&peer).unwrap().clone()
    }

    async fn call(&self, peer: &str, text: &'static str) -> Result<Bytes, CallError> {
        self.mesh.call(&name(peer), ECHO, text.into(), deadline()).await
    }

    /// Calls until it works: a connection may be replaced by the preferred one just then.
    async fn reaches(&self, peer: &str) {
        soon(async {
            while self.call(peer, "hello").await.as_deref() != Ok(b"hello") {
                self.connected(peer).await;
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn stop(self) {
        self.mesh.stop().await;
        assert!(self.supervisor.stop(PATIENCE).await.is_empty());
        // The echo ends with the mesh that feeds it.
        assert_eq!(self.supervisor.exit(), None);
        drop(self.mesh);
        assert!(self.echo.stop(Duration::from_millis(200)).await.is_empty());
    }
}

/// Three members that all know of the first; and the first of nobody.
async fn three(town: &Town) -> BTreeMap<&'static str, Member> {
    let first = town.member("n1", &[]);
    let seeds = [first.address()];
    let mut members = BTreeMap::from([("n1", first)]);
    for name in ["n2", "n3"] {
        members.insert(name, town.member(name, &seeds));
    }
    // n2 and n3 do not know of each other; the first does not tell.
    let third = members["n3"].address();
    members["n2"].mesh.add_addresses(NodeAddress::from_socket(third));
    for (from, member) in &members {
        for to in ["n1", "n2", "n3"] {
            if to != *from {
                member.reaches(to).await;
            }
        }
    }
    members
}

#[tokio::test]
async fn three_nodes_find_and_call_each_other() {
    let town = Town::new();
    let members = three(&town).await;
    let n1 = &members["n1"].mesh;
    // What a hello says is seen.
    let info = members["n2"].connected("n1").await;
    assert_eq!(info.hello.peer_address, NodeAddress::from_socket(n1.local_address()));
    assert_eq!(info.hello.directory_nonce, u64::from(b'1'));
    assert!(n1.rtt(&name("n2")).unwrap() < PATIENCE);

    // A stream of frames both ways.
    let big = Bytes::from(vec![5; 1_500_000]);
    let answer = n1.call(&name("n3"), ECHO, big.clone(), deadline()).await;
    assert_eq!(answer, Ok(big));

    // Nobody answers: the deadline; nobody serves: at once; nobody is there.
    let soon_over = Clock::system().now() + Duration::from_millis(50);
    let silent = n1.call(&name("n2"), SILENT, Bytes::new(), soon_over).await;
    assert_eq!(silent, Err(CallError::TimedOut));
    let dropped = n1.call(&name("n2"), DROPPED, Bytes::new(), deadline()).await;
    assert!(matches!(dropped, Err(CallError::NoAnswer | CallError::Send(_))), "{dropped:?}");
    let nobody = n1.call(&name("n9"), ECHO, Bytes::new(), deadline()).await;
    assert_eq!(nobody, Err(CallError::NotConnected { peer: name("n9") }));
    let long = Bytes::from(vec![0; 3_000_000]);
    let long = n1.call(&name("n2"), ECHO, long, deadline()).await;
    assert!(matches!(long, Err(CallError::Send(_))), "{long:?}");

    for (_, member) in members {
        member.stop().await;
    }
}

#[tokio::test]
async fn both_dial_at_once_and_one_connection_is_left() {
    let town = Town::new();
    for round in 0..3 {
        // Ports are drawn first, so that each can dial the other from the start.
        let sockets = [(); 2].map(|()| std::net::UdpSocket::bind(any_port()).unwrap());
        let [a, b] = sockets.map(|socket| socket.local_addr().unwrap());
        let first = town.bear(&Birth { listen: a, ..Birth::new("n1", &[a, b]) });
        let second = town.bear(&Birth { listen: b, ..Birth::new("n2", &[a, b]) });
        first.reaches("n2").await;
        second.reaches("n1").await;
        // It settles: from some time on the connection does not change any more, and holds a
        // stream for longer than any dialler pauses.
        let mut settled = 0;
        while settled < 3 {
            let (mut sender, mut receiver) = loop {
                let opened = first.mesh.open(&name("n2"), SILENT, Priority::High).await;
                if let Ok(opened) = opened {
                    break opened;
                }
                first.connected("n2").await;
            };
            let sent = sender.send(1, b"x").await;
            let quiet = tokio::time::timeout(Duration::from_millis(200), receiver.next()).await;
            settled = if sent.is_ok() && quiet.is_err() { settled + 1 } else { 0 };
        }
        let before = (first.connected("n2").await, second.connected("n1").await);
        assert!(!first.mesh.peers().borrow().contains_key(&name("n1")), "round {round}");
        assert_eq!(before.0.remote, second.address(), "the lower name dialled");
        first.stop().await;
        second.stop().await;
    }
}

#[tokio::test]
async fn a_peer_that_restarts_is_found_again_at_its_new_incarnation() {
    let town = Town::new();
    let first = town.member("n1", &[]);
    let seeds = [first.address()];
    let second = town.member("n2", &seeds);
    first.reaches("n2").await;
    let before = first.connected("n2").await;
    let address = second.address();
    let mut events = first.mesh.events();
    // A farewell is seen as what it is.
    second.stop().await;
    let refusal = loop {
        if let MeshEvent::Disconnected { refusal, .. } = soon(events.recv()).await.unwrap() {
            break refusal;
        }
    };
    assert_eq!(refusal, Some(Refusal::Stopping));
    assert!(!first.mesh.is_connected(&name("n2")));
    let unreachable = first.call("n2", "hello").await;
    assert_eq!(unreachable, Err(CallError::NotConnected { peer: name("n2") }));

    // It knows no seeds this time: the first dials it, by the address of its former hello.
    let second = town.bear(&Birth { listen: address, incarnation: 2, ..Birth::new("n2", &[]) });
    let after = first.wait("n2", |info| info.connected && info.hello.incarnation == 2).await;
    assert!(after.connection > before.connection);
    first.reaches("n2").await;
    second.reaches("n1").await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_peer_that_dies_without_farewell_is_replaced_by_its_next_life() {
    let town = Town::new();
    let first = town.member("n1", &[]);
    let seeds = [first.address()];
    // The former life goes on hanging about, as one that is paused or cut off would.
    let former = town.member("n2", &seeds);
    first.reaches("n2").await;
    let next = town.bear(&Birth { incarnation: 2, ..Birth::new("n2", &seeds) });
    first.wait("n2", |info| info.connected && info.hello.incarnation == 2).await;
    next.reaches("n1").await;
    // The former one is told why.
    let mut events = former.mesh.events();
    let refused = loop {
        if let MeshEvent::Refused { refusal, by_us: false, .. } = soon(events.recv()).await.unwrap()
        {
            break refusal;
        }
    };
    assert_eq!(refused, Refusal::NameInUse);
    first.stop().await;
    former.stop().await;
    next.stop().await;
}

#[tokio::test]
async fn two_nodes_of_one_name_are_told_so() {
    let town = Town::new();
    let first = town.member("n1", &[]);
    let seeds = [first.address()];
    let second = town.member("n2", &seeds);
    first.reaches("n2").await;
    let mut seen_by_first = first.mesh.events();

    // Another directory under the name of a node that is connected.
    let stranger = town.bear(&Birth { nonce: 99, ..Birth::new("n2", &seeds) });
    let mut seen_by_stranger = stranger.mesh.events();
    let told = |event: &MeshEvent, mine: bool| {
        matches!(event, MeshEvent::Refused { refusal: Refusal::NameInUse, by_us, .. }
            if *by_us == mine)
    };
    while !told(&soon(seen_by_first.recv()).await.unwrap(), true) {}
    while !told(&soon(seen_by_stranger.recv()).await.unwrap(), false) {}
    assert_eq!(first.connected("n2").await.hello.directory_nonce, u64::from(b'2'));

    // Once the holder is gone the other directory is let in, for replication to judge.
    second.stop().await;
    first.wait("n2", |info| info.connected && info.hello.directory_nonce == 99).await;

    // A node under our own name.
    let double = town.bear(&Birth { nonce: 77, ..Birth::new("n1", &seeds) });
    while !told(&soon(seen_by_first.recv()).await.unwrap(), true) {}
    assert!(!first.mesh.peers().borrow().contains_key(&name("n1")));
    double.stop().await;
    stranger.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn a_name_that_is_not_in_the_certificate_is_refused() {
    let town = Town::new();
    let first = town.member("n1", &[]);
    // Our own certificate is looked at before anything is opened.
    let birth = Birth { certificate: "n9", ..Birth::new("n2", &[]) };
    let hello = Hello::new(name("n2"), 1, 1);
    let supervisor = Supervisor::new("wrong");
    let refused = Mesh::start(town.settings(&birth), hello, &supervisor);
    assert!(matches!(refused, Err(MeshError::CertificateName { .. })));

    // A node that lies: its mesh is changed after the check.
    let mut events = first.mesh.events();
    let liar = town.bear(&Birth::new("n2", &[]));
    liar.mesh.lie_about_name(name("n3"));
    liar.mesh.add_addresses(NodeAddress::from_socket(first.address()));
    let (peer, refusal) = loop {
        if let MeshEvent::Refused { peer, refusal, by_us: true, .. } =
            soon(events.recv()).await.unwrap()
        {
            break (peer, refusal);
        }
    };
    assert_eq!((peer, refusal), (Some(name("n2")), Refusal::CertificateName));
    assert!(first.mesh.peers().borrow().is_empty());
    liar.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn a_changed_hello_is_said_to_those_who_are_connected() {
    let town = Town::new();
    let first = town.member("n1", &[]);
    let second = town.member("n2", &[first.address()]);
    second.reaches("n1").await;
    first.mesh.change_hello(|hello| hello.extra = Bytes::from_static(b"pledge"));
    second.wait("n1", |info| info.hello.extra == "pledge").await;
    second.mesh.change_hello(|hello| {
        hello.extra = Bytes::from(vec![1; 60_000]);
        // Not for changing.
        hello.incarnation = 50;
    });
    let info = first.wait("n2", |info| info.hello.extra.len() == 60_000).await;
    assert_eq!(info.hello.incarnation, 1);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn replication_can_send_a_peer_away() {
    let town = Town::new();
    let first = town.member("n1", &[]);
    let second = town.member("n2", &[first.address()]);
    second.reaches("n1").await;
    let mut events = second.mesh.events();
    let (mut sender, mut receiver) =
        second.mesh.open(&name("n1"), SILENT, Priority::Low).await.unwrap();
    sender.send(1, b"x").await.unwrap();
    first.mesh.refuse(&name("n2"), Refusal::WrongCluster);
    let refusal = loop {
        if let MeshEvent::Disconnected { refusal, .. } = soon(events.recv()).await.unwrap() {
            break refusal;
        }
    };
    assert_eq!(refusal, Some(Refusal::WrongCluster));
    assert!(matches!(soon(receiver.next()).await, Err(ReceiveError::Closed(_))));
    first.stop().await;
    second.stop().await;
}

/// A member's certificate in the hands of someone who does not keep to the protocol.
async fn intruder(town: &Town, target: SocketAddr) -> (Connection, Endpoint) {
    let pem = make_node(&town.ca, &name("x9"), &[]).unwrap();
    let identity = Identity::from_pem(&pem.certificate, &pem.key).unwrap();
    let authority = Authority::from_pem(&town.ca.certificate).unwrap();
    let tls = ClientTls::for_peer(&authority, &identity).unwrap();
    let endpoint = Endpoint::dial_only(any_port(), Edge::Peer).unwrap();
    let connection = endpoint.connect(target, ANY_NODE, &tls, PATIENCE).await.unwrap();
    (connection, endpoint)
}

#[tokio::test]
async fn who_breaks_the_protocol_is_sent_away_by_name() {
    let town = Town::new();
    let first = town.member("n1", &[]);
    let hello = Hello::new(name("x9"), 1, 1);
    let with_lane = |lane: u8, kind: u8, body: &[u8]| {
        let mut bytes = bytes::BytesMut::from(&[lane][..]);
        put_frame(&mut bytes, kind, |buffer| buffer.extend_from_slice(body));
        bytes.freeze()
    };
    let huge = u32::try_from(HELLO_BYTES_MAX + 1).unwrap().to_le_bytes();
    let cases = [
        (with_lane(3, HELLO, &hello.encode()), Refusal::BadHello),
        (with_lane(0, 9, &hello.encode()), Refusal::BadHello),
        (with_lane(0, HELLO, b"garbage"), Refusal::BadHello),
        ([&[0][..], &huge].concat().into(), Refusal::BadHello),
        (
            with_lane(0, HELLO, &Hello { name: name("n7"), ..hello.clone() }.encode()),
            Refusal::CertificateName,
        ),
        (
            with_lane(
                0,
                HELLO,
                &Hello { version_min: 7, version_max: 9, ..hello.clone() }.encode(),
            ),
            Refusal::Version,
        ),
        // Says nothing at all, or not the whole of it.
        (Bytes::new(), Refusal::Silent),
        (Bytes::from_static(&[0, 200, 0]), Refusal::Silent),
    ];
    for (bytes, refusal) in cases {
        let (connection, _endpoint) = intruder(&town, first.address()).await;
        let (mut sender, _receiver) = connection.open_bi().await.unwrap();
        sender.queue_raw(bytes.clone());
        sender.flush().await.unwrap();
        let Closed::There { code, .. } = soon(connection.closed()).await else {
            panic!("{bytes:?}: not told why");
        };
        assert_eq!(Refusal::from_code(code), Some(refusal), "{bytes:?}");
    }
    assert!(first.mesh.peers().borrow().is_empty());
    first.stop().await;
}

#[tokio::test]
async fn an_older_hello_of_a_run_does_not_replace_a_newer_one() {
    let town = Town::new();
    let first = town.member("n1", &[]);
    let hello = |revision| Hello {
        revision,
        extra: Bytes::from(format!("revision {revision}")),
        ..Hello::new(name("x9"), 1, 1)
    };
    let greet = async |revision| {
        let (connection, endpoint) = intruder(&town, first.address()).await;
        let (mut sender, mut receiver) = connection.open_bi().await.unwrap();
        sender.queue_raw(Bytes::from_static(&[0]));
        sender.send(HELLO, &hello(revision).encode()).await.unwrap();
        assert_eq!(soon(receiver.next()).await.unwrap().unwrap().kind, HELLO);
        (sender, receiver, connection, endpoint)
    };
    let _newer = greet(7).await;
    let former = first.connected("x9").await;
    assert_eq!(former.hello, hello(7));
    // What was said before that arrives over a second connection, which takes the first one's place.
    let (mut sender, ..) = greet(6).await;
    let present = first.wait("x9", |info| info.connection != former.connection).await;
    assert_eq!(present.hello, hello(7));
    let mut events = first.mesh.events();
    sender.send(HELLO, &hello(6).encode()).await.unwrap();
    sender.send(HELLO, &hello(8).encode()).await.unwrap();
    assert_eq!(
        soon(events.recv()).await.unwrap(),
        MeshEvent::HelloChanged { peer: name("x9"), hello: hello(8) }
    );
    // Another run counts anew.
    let next = Hello { incarnation: 2, ..hello(0) };
    let (connection, _endpoint) = intruder(&town, first.address()).await;
    let (mut sender, _receiver) = connection.open_bi().await.unwrap();
    sender.queue_raw(Bytes::from_static(&[0]));
    sender.send(HELLO, &next.encode()).await.unwrap();
    first.wait("x9", |info| info.hello == next).await;
    first.stop().await;
}

#[tokio::test]
async fn a_member_that_floods_is_held_back_and_hurts_nobody() {
    let town = Town::new();
    let first = town.member("n1", &[]);
    let second = town.member("n2", &[first.address()]);
    second.reaches("n1").await;
    let (connection, _endpoint) = intruder(&town, first.address()).await;
    let (mut sender, mut receiver) = connection.open_bi().await.unwrap();
    sender.queue_raw(Bytes::from_static(&[0]));
    sender.send(HELLO, &Hello::new(name("x9"), 1, 1).encode()).await.unwrap();
    assert_eq!(soon(receiver.next()).await.unwrap().unwrap().kind, HELLO);
    // Streams without a lane stay open up to the permitted number, and no further.
    let mut open = Vec::new();
    let flood = async {
        loop {
            let (mut sender, receiver) = connection.open_bi().await.unwrap();
            sender.queue_raw(Bytes::from_static(&[ECHO.0]));
            sender.flush().await.unwrap();
            open.push((sender, receiver));
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(300), flood).await.is_err());
    // One of the permitted is the control lane's.
    assert_eq!(open.len(), PEER_STREAMS_MAX as usize - 1);
    // The others are served as before.
    second.reaches("n1").await;
    // A hello under another name ends it.
    let other = Hello::new(name("x8"), 1, 1).encode();
    sender.send(HELLO, &other).await.unwrap();
    let Closed::There { code, .. } = soon(connection.closed()).await else { panic!("not told") };
    assert_eq!(Refusal::from_code(code), Some(Refusal::BadHello));
    second.reaches("n1").await;
    first.stop().await;
    second.stop().await;
}
