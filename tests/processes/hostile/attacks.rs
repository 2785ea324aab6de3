//! The attacks, each in a process of its own: what the attacker computes is not what the node's
//! other clients pay for. It runs when nothing else wants the core, and ends by itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use futures::future::join_all;
use quorate::domain::topic::specification::TopicType;
use quorate::protocol::command::ClientCommand;
use quorate::protocol::frame::put_frame;
use quorate::protocol::peer_message::{CONTROL_LANE, HELLO};
use quorate::protocol::read::{Fetch, Level, Query, Read};
use quorate::protocol::record::{Target as RecordTarget, put_record};
use quorate::protocol::topic::{WireSpecification, WireValue};
use quorate::protocol::{ClientMessage, VERSION};
use quorate::transport::certificate::{Pem, make_node, paths};
use quorate::transport::profile::Edge;
use quorate::transport::tls::{ANY_NODE, Authority, ClientTls, Identity};
use quorate::transport::{Connection, Endpoint, FrameReceiver, FrameSender};

use super::half_open::half_open;
use super::victim::{Known, Target, socket};
use crate::harness::Owned;

/// What names the attack, and where the attacker finds what it needs.
const ATTACK: &str = "QUORATE_ATTACK";
const TARGET: &str = "QUORATE_ATTACK_TARGET";
const COUNT: &str = "QUORATE_ATTACK_COUNT";
/// Of the control: what share of a core it computes for.
const SHARE: &str = "QUORATE_ATTACK_SHARE";
/// The name of the control.
pub(crate) const CONTROL: &str = "control";
/// The longest that an attacker lives.
const LIFE: Duration = Duration::from_secs(60);
/// How often an attacker that keeps a pace sends: in bursts, which cost the others more than the same
/// number evenly spread.
pub(super) const TICK: Duration = Duration::from_millis(5);
/// Connections that an attacker works with at a time.
const AT_A_TIME: usize = 16;
/// Sessions that do not read, or do not acknowledge.
const DEAF: usize = 50;

/// A running attacker.
pub(crate) struct Attacker {
    process: Owned,
    count: PathBuf,
}

impl Attacker {
    /// Starts the attack of this name.
    pub(crate) fn start(name: &str, target: &Target, dir: &Path) -> Self {
        Self::start_with(name, 0.0, target, dir)
    }

    /// Starts a process that computes for this share of a core (two at most) and attacks nobody.
    pub(crate) fn start_control(share: f64, target: &Target, dir: &Path) -> Self {
        Self::start_with(CONTROL, share, target, dir)
    }

    fn start_with(name: &str, share: f64, target: &Target, dir: &Path) -> Self {
        let count = dir.join(format!("attack-{name}"));
        let _none_yet = std::fs::remove_file(&count);
        let mut command = Command::new("chrt");
        command.args(["--idle", "0"]).arg(std::env::current_exe().unwrap());
        command.args(["hostile::attacks::attacker", "--exact", "--ignored", "--nocapture"]);
        command.env(ATTACK, name).env(TARGET, target.to_text()).env(COUNT, &count);
        command.env(SHARE, share.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self { process: Owned(command.spawn().unwrap()), count }
    }

    /// What it has computed so far, on all cores.
    pub(crate) fn cpu(&self) -> Duration {
        /// The kernel's unit of such times, on every Linux of this age.
        const TICKS_PER_S: u32 = 100;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.0.id())).unwrap();
        // Behind the name, which may hold anything: the 12th and 13th are in user and kernel mode.
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let ticks: u32 = rest
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u32>().unwrap())
            .sum();
        Duration::from_secs(1) * ticks / TICKS_PER_S
    }

    /// How often it has struck.
    pub(crate) fn count(&self) -> u64 {
        std::fs::read_to_string(&self.count).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

#[test]
#[ignore = "the attacker, which the measurements start"]
fn attacker() {
    let Ok(name) = std::env::var(ATTACK) else { return };
    let target = Target::from_text(&std::env::var(TARGET).unwrap());
    let file = PathBuf::from(std::env::var(COUNT).unwrap());
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        loop {
            let text = counted.load(Ordering::Relaxed).to_string();
            let aside = file.with_extension("new");
            let _gone = std::fs::write(&aside, text).and_then(|()| std::fs::rename(&aside, &file));
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let attack = async {
        let _its_time_is_over = tokio::time::timeout(LIFE, run(&name, &target, &count)).await;
    };
    runtime.block_on(attack);
}

async fn run(name: &str, target: &Target, count: &AtomicU64) {
    match name {
        "half-open" => half_open(target, count).await,
        "silent" => silent(target, count).await,
        "noise" => noise(target, count, 5_000).await,
        "flood" => noise(target, count, 100_000).await,
        "crowd" => crowd(target, count).await,
        CONTROL => control(count).await,
        "garbage" => many(|| garbage(target, count)).await,
        "violations" => many(|| violations(target, count)).await,
        "unfit" => many(|| unfit(target, count)).await,
        "bombs" => many(|| bombs(target, count)).await,
        "gibibyte" => many(|| gibibytes(target, count)).await,
        "streams" => many(|| streams(target, count)).await,
        "passwords" => many(|| passwords(target, count)).await,
        "deaf" => deaf(target, count).await,
        "mute" => mute(target, count).await,
        "answers" => many(|| answers(target, count)).await,
        "peer-strangers" => many(|| peer_strangers(target, count)).await,
        "peer-garbage" => many(|| peer_garbage(target, count)).await,
        other => panic!("there is no attack {other}"),
    }
}

async fn many<F: Future<Output = ()>>(attack: impl Fn() -> F) {
    join_all((0..AT_A_TIME).map(|_| attack())).await;
}

fn strike(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn new(salt: u64) -> Self {
        Self(88_172_645_463_325_252 ^ (salt + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.roll() as u8).collect()
    }
}

/// Connections that never say hello.
async fn silent(target: &Target, count: &AtomicU64) {
    let endpoint = socket("127.0.0.1");
    let mut kept = Vec::new();
    loop {
        strike(count);
        match target.connect(&endpoint).await {
            Some(connection) => kept.push(connection),
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
        kept.retain(|connection: &Connection| connection.close_reason().is_none());
    }
}

/// Datagrams of random bytes on both ports, a third of them with the head of a first packet, so
/// many a second.
async fn noise(target: &Target, count: &AtomicU64, per_s: u64) {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut dice = Dice::new(0);
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        for number in 0..per_s * TICK.as_millis() as u64 / 1_000 {
            let to = if number % 2 == 0 { target.client } else { target.peer };
            let length = (dice.roll() % 1_452) as usize;
            let mut bytes = dice.bytes(length);
            if dice.roll().is_multiple_of(3) && bytes.len() > 1_200 {
                bytes[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
            }
            let _ = socket.send_to(&bytes, to).await;
            strike(count);
        }
    }
}

/// What looks like the beginning of connections from a thousand addresses, ten thousand a second, a
/// third of it too small to be one.
async fn crowd(target: &Target, count: &AtomicU64) {
    const ADDRESSES: u8 = 250;
    const PER_S: u64 = 10_000;
    let mut sockets = Vec::new();
    for network in 1..=4 {
        for address in 1..=ADDRESSES {
            let own = SocketAddr::from(([127, 1, network, address], 0));
            sockets.push(tokio::net::UdpSocket::bind(own).await.unwrap());
        }
    }
    let mut dice = Dice::new(0);
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        for _ in 0..PER_S * TICK.as_millis() as u64 / 1_000 {
            let length = if dice.roll().is_multiple_of(3) { 40 } else { 1_200 };
            let mut bytes = dice.bytes(length);
            bytes[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
            let socket = &sockets[(dice.roll() % sockets.len() as u64) as usize];
            let _ = socket.send_to(&bytes, target.client).await;
            strike(count);
        }
    }
}

/// Nothing at all but computing: what that alone costs the others, beside the node on its machine.
async fn control(count: &AtomicU64) {
    const TURN: Duration = Duration::from_millis(4);
    let share: f64 = std::env::var(SHARE).unwrap().parse().unwrap();
    let compute = |share: f64| {
        loop {
            let started = Instant::now();
            while started.elapsed() < TURN.mul_f64(share) {
                std::hint::black_box(Dice::new(0).bytes(1_000));
            }
            std::thread::sleep(TURN.saturating_sub(started.elapsed()));
        }
    };
    // A second core, where one is not enough.
    for share in [share.min(1.0), (share - 1.0).clamp(0.0, 1.0)] {
        std::thread::spawn(move || compute(share));
    }
    strike(count);
    tokio::time::sleep(LIFE).await;
}

/// Random bytes where a hello is due.
async fn garbage(target: &Target, count: &AtomicU64) {
    let endpoint = socket("127.0.0.1");
    let mut dice = Dice::new(count.load(Ordering::Relaxed));
    loop {
        let Some(connection) = target.connect(&endpoint).await else { continue };
        let Ok((mut sender, mut receiver)) = connection.open_bi().await else { continue };
        let mut bytes = dice.bytes(2_048);
        if dice.roll().is_multiple_of(2) {
            // A frame of a length that may be.
            bytes[..4].copy_from_slice(&1_000_u32.to_le_bytes());
        }
        let _ = sender.send_frames(bytes.into()).await;
        let _ = receiver.next().await;
        strike(count);
    }
}

fn frame(message: &ClientMessage) -> Bytes {
    let mut buffer = BytesMut::new();
    message.put(&mut buffer);
    buffer.freeze()
}

/// One rule of the protocol after the other is broken, each by a client of its own.
async fn violations(target: &Target, count: &AtomicU64) {
    let endpoint = socket("127.0.0.1");
    let record = Bytes::from_static(b"\x01\x04\x01\0\0\0\0\0\0\0aaaaaaaa");
    let update = |request| ClientMessage::Update { request, record: record.clone() };
    let replayed = [frame(&update(1)), frame(&update(1)), frame(&update(3))].concat();
    let broken: [Bytes; 6] = [
        frame(&update(2)),
        replayed.into(),
        frame(&ClientMessage::Hello(target.hello())),
        Bytes::from_static(b"\x01\0\0\0\xc8"),
        Bytes::from_static(b"\x02\0\0\0\x02\0"),
        Bytes::from_static(b"\xff\xff\xff\x7f"),
    ];
    for number in 0.. {
        if number % (broken.len() + 1) == broken.len() {
            let mut hello = target.hello();
            hello.version = VERSION + 1;
            let Some(connection) = target.connect(&endpoint).await else { continue };
            let Ok((mut sender, mut receiver)) = connection.open_bi().await else { continue };
            let _ = sender.send_frames(frame(&ClientMessage::Hello(hello))).await;
            let _ = receiver.next().await;
            strike(count);
            continue;
        }
        let Some(mut known) = target.known(&endpoint).await else { continue };
        let bytes = broken[number % (broken.len() + 1)].clone();
        let _ = known.sender.send_frames(bytes).await;
        while let Ok(Some(_)) = known.receiver.next().await {}
        strike(count);
    }
}

/// Commands that are refused under their numbers: bad paths, selectors, values, texts.
async fn unfit(target: &Target, count: &AtomicU64) {
    let endpoint = socket("127.0.0.1");
    let commands = [
        ClientCommand::OpenTopic { path: "a//b".to_owned() },
        ClientCommand::AddTopic {
            path: "x".repeat(2_000),
            specification: WireSpecification { topic_type: 2, properties: [].into() },
        },
        ClientCommand::Select { scope: String::new(), selector: "*(".to_owned(), select: true },
        ClientCommand::SetTopic {
            path: "json".to_owned(),
            specification: None,
            constraint: Vec::new(),
            value: WireValue { value_type: 2, bytes: Some(Bytes::from_static(b"{\"a\":")) },
        },
        ClientCommand::SetTopic {
            path: "json".to_owned(),
            specification: None,
            constraint: Vec::new(),
            value: WireValue { value_type: 2, bytes: Some(Bytes::from_static(b"\"\xff\xfe\"")) },
        },
    ];
    let Some(mut known) = target.known_in_time(&endpoint).await else { return };
    for request in 1.. {
        let mut buffer = BytesMut::new();
        let at = request as usize % (commands.len() + 1);
        match commands.get(at) {
            Some(command) => ClientMessage::put_command(&mut buffer, request, command),
            // No command at all.
            None => {
                let body = Bytes::from_static(b"\xa1\x00\x61\xff");
                ClientMessage::Command { request, body }.put(&mut buffer);
            }
        }
        ClientMessage::Answered { below: request }.put(&mut buffer);
        if known.sender.send_frames(buffer.freeze()).await.is_err() {
            return;
        }
        let _ = known.receiver.next().await;
        strike(count);
        // Every one of them takes its place in the log: a writer's pace, not a flood.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Regular expressions that grow, to be refused, and the largest that are taken.
async fn bombs(target: &Target, count: &AtomicU64) {
    let endpoint = socket("127.0.0.1");
    let selectors = [
        "?a/(((x{1,200}){1,200}){1,200})".to_owned(),
        format!("?a/{}", "x".repeat(10_000)),
        "?(.*)*(.*)*(.*)*(.*)*(.*)*//".to_owned(),
        "?([a-z]{1,50}){1,50}//".to_owned(),
        "?\\pL{1,100}//".to_owned(),
        "*(?=a)b".to_owned(),
    ];
    let Some(mut known) = target.known_in_time(&endpoint).await else { return };
    for correlation in 0.. {
        let selector = selectors[correlation as usize % selectors.len()].clone();
        let query = Query::Fetch(Fetch { selector, ..Fetch::default() });
        let read = Ok(Read { level: Level::Local, at_least: None, deadline_ms: None, query });
        let read = frame(&ClientMessage::Read { correlation, read });
        if known.sender.send_frames(read).await.is_err() {
            return;
        }
        let _ = known.receiver.next().await;
        strike(count);
    }
}

/// The head of a frame of a gibibyte and as much of it as is taken, by strangers and clients.
async fn gibibytes(target: &Target, count: &AtomicU64) {
    let endpoint = socket("127.0.0.1");
    let piece = Bytes::from(vec![0; 256 * 1024]);
    for number in 0.. {
        let known = if number % 2 == 0 {
            target.known(&endpoint).await
        } else {
            target.stranger(&endpoint).await
        };
        let Some(mut known) = known else { continue };
        let mut head = BytesMut::new();
        head.put_u32_le(1 << 30);
        head.put_u8(2);
        let _ = known.sender.send_frames(head.freeze()).await;
        for _ in 0..(1 << 30) / piece.len() {
            let sent = known.sender.send_frames(piece.clone());
            if !matches!(tokio::time::timeout(Duration::from_secs(2), sent).await, Ok(Ok(()))) {
                break;
            }
        }
        strike(count);
    }
}

/// A thousand streams asked for.
async fn streams(target: &Target, count: &AtomicU64) {
    let endpoint = socket("127.0.0.1");
    loop {
        let Some(known) = target.known(&endpoint).await else { continue };
        let ask = join_all((0..500).map(|_| async {
            let (both, one) =
                tokio::join!(said(&known.connection), said_one_way(&known.connection));
            both || one
        }));
        let _ = tokio::time::timeout(Duration::from_secs(1), ask).await;
        strike(count);
    }
}

async fn said(connection: &Connection) -> bool {
    let Ok((mut sender, _receiver)) = connection.open_bi().await else { return false };
    sender.send_frames(Bytes::from_static(b"\0")).await.is_ok()
}

async fn said_one_way(connection: &Connection) -> bool {
    let Ok(mut sender) = connection.open_uni().await else { return false };
    sender.send_frames(Bytes::from_static(b"\0")).await.is_ok()
}

async fn passwords(target: &Target, count: &AtomicU64) {
    let endpoint = socket("127.0.0.1");
    let mut wrong = target.clone();
    wrong.password = "guessed".to_owned();
    loop {
        let _refused = wrong.known(&endpoint).await;
        strike(count);
    }
}

/// Selects everything.
async fn select_all(known: &mut Known) {
    let mut buffer = BytesMut::new();
    let (scope, selector) = (String::new(), "?.*//".to_owned());
    ClientMessage::put_command(
        &mut buffer,
        1,
        &ClientCommand::Select { scope, selector, select: true },
    );
    let _ = known.sender.send_frames(buffer.freeze()).await;
    let _answer = known.receiver.next().await;
}

/// Sessions that hear of everything and read nothing.
async fn deaf(target: &Target, count: &AtomicU64) {
    let endpoint = socket("127.0.0.1");
    let mut kept = Vec::new();
    while kept.len() < DEAF {
        let Some(mut known) = target.known(&endpoint).await else { continue };
        select_all(&mut known).await;
        kept.push(known);
        strike(count);
    }
    std::future::pending().await
}

/// Sessions that hear of everything, and of which the node hears nothing any more: no packet of
/// theirs comes through, so none of its packets is acknowledged.
async fn mute(target: &Target, count: &AtomicU64) {
    let mut kept = Vec::new();
    while kept.len() < DEAF {
        let relay = Arc::new(tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let through = relay.local_addr().unwrap();
        let node = target.client;
        let (cut, mut is_cut) = tokio::sync::watch::channel(false);
        let relaying = async move {
            let (mut client, mut datagram) = (None, vec![0; 65_536]);
            loop {
                tokio::select! {
                    Ok((bytes, from)) = relay.recv_from(&mut datagram) => {
                        let to = if from == node { client } else { Some(node) };
                        if from != node {
                            client = Some(from);
                        }
                        if let Some(to) = to {
                            let _ = relay.send_to(&datagram[..bytes], to).await;
                        }
                    }
                    Ok(()) = is_cut.changed() => return std::future::pending::<()>().await,
                }
            }
        };
        let endpoint = socket("127.0.0.1");
        let mut relaying = Box::pin(relaying);
        let opened = async {
            let mut known = target.known_at(&endpoint, through).await?;
            select_all(&mut known).await;
            Some(known)
        };
        let opened = tokio::select! {
            () = &mut relaying => None,
            opened = opened => opened,
        };
        let _ = cut.send(true);
        // The relay's socket stays: what the node sends to it is not answered by the system.
        kept.push((opened, relaying, endpoint));
        strike(count);
    }
    std::future::pending().await
}

/// Commands without end whose answers are never taken.
async fn answers(target: &Target, count: &AtomicU64) {
    let endpoint = socket("127.0.0.1");
    let mut record = BytesMut::new();
    let nowhere = quorate::domain::topic::path::TopicPath::parse("nowhere").unwrap();
    let value = Some(&[0; 8][..]);
    put_record(&mut record, &RecordTarget::Path(nowhere), TopicType::Int64 as u8, value);
    let record = record.freeze();
    let Some(mut known) = target.known_in_time(&endpoint).await else { return };
    for turn in 0_u64.. {
        let mut frames = BytesMut::new();
        for request in turn * 256 + 1..=(turn + 1) * 256 {
            ClientMessage::Update { request, record: record.clone() }.put(&mut frames);
        }
        if known.sender.send_frames(frames.freeze()).await.is_err() {
            return;
        }
        strike(count);
    }
}

fn peer_socket() -> Endpoint {
    Endpoint::dial_only("127.0.0.1:0".parse().unwrap(), Edge::Peer).unwrap()
}

async fn peer_dial(
    endpoint: &Endpoint,
    target: &Target,
    tls: &ClientTls,
) -> Option<(Connection, FrameSender, FrameReceiver)> {
    let patience = Duration::from_secs(1);
    let connection = endpoint.connect(target.peer, ANY_NODE, tls, patience).await.ok()?;
    let (sender, receiver) = connection.open_bi().await.ok()?;
    Some((connection, sender, receiver))
}

/// Certificates of another authority on the peer port.
async fn peer_strangers(target: &Target, count: &AtomicU64) {
    let endpoint = peer_socket();
    let other = quorate::transport::certificate::make_ca("other").unwrap();
    let tls = peer_tls(&target.authority(), &other);
    loop {
        if let Some((connection, ..)) = peer_dial(&endpoint, target, &tls).await {
            let _ = tokio::time::timeout(Duration::from_secs(1), connection.closed()).await;
        }
        strike(count);
    }
}

fn peer_tls(trusted: &Authority, ca: &Pem) -> ClientTls {
    let name = quorate::domain::node_name::NodeName::parse("n2").unwrap();
    let pem = make_node(ca, &name, &[]).unwrap();
    let identity = Identity::from_pem(&pem.certificate, &pem.key).unwrap();
    ClientTls::for_peer(trusted, &identity).unwrap()
}

/// A member's certificate, and garbage behind it.
async fn peer_garbage(target: &Target, count: &AtomicU64) {
    let endpoint = peer_socket();
    let (certificate, key) = paths(&target.tls, "ca");
    let tls = peer_tls(&target.authority(), &Pem::load(&certificate, &key).unwrap());
    let mut dice = Dice::new(count.load(Ordering::Relaxed));
    loop {
        let Some((connection, mut sender, _receiver)) = peer_dial(&endpoint, target, &tls).await
        else {
            strike(count);
            continue;
        };
        let mut bytes = BytesMut::new();
        match dice.roll() % 3 {
            0 => bytes.put_slice(&dice.bytes(2_000)),
            1 => {
                bytes.put_u8(CONTROL_LANE);
                let body = dice.bytes(400);
                put_frame(&mut bytes, HELLO, |frame| frame.put_slice(&body));
            }
            _ => {
                bytes.put_u8(CONTROL_LANE);
                bytes.put_u32_le(1 << 30);
                bytes.put_bytes(HELLO, 64 * 1024);
            }
        }
        let _ = sender.send_frames(bytes.freeze()).await;
        let _ = tokio::time::timeout(Duration::from_secs(3), connection.closed()).await;
        strike(count);
    }
}
