//! What hostile clients cost the others, measured from outside: the node's memory before and after,
//! and the latency of one well-behaved client with and without the attack, in interleaved pairs.
//! By hand, on a quiet machine: `cargo test --release --test processes hostile -- --ignored
//! --nocapture`; `QUORATE_BINARY` names another node's binary.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use quorate::client::{Client, ClientConfig, Value};
use quorate::domain::topic::path::TopicPath;
use quorate::domain::topic::specification::{Specification, TopicType};
use quorate::protocol::command::ClientCommand;
use quorate::protocol::handshake::{Credentials, Hello};
use quorate::protocol::{ClientMessage, VERSION};
use quorate::supervisor::Supervisor;
use quorate::transport::profile::Edge;
use quorate::transport::tls::{ANY_NODE, Authority, ClientTls};
use quorate::transport::{Connection, Endpoint, FrameReceiver, FrameSender};

use crate::harness::{Lone, say};

/// How long the good client is measured at a time, and how often.
const MEASURE: Duration = Duration::from_millis(1_500);
const PAIRS: usize = 5;

/// Where the node is, and who may say hello to it.
#[derive(Clone)]
struct Target {
    address: SocketAddr,
    authority: Authority,
    password: String,
}

impl Target {
    async fn good(&self) -> Client {
        let config = ClientConfig::new([self.address.to_string()], self.authority.clone())
            .password("admin", self.password.clone());
        Client::connect(config).await.unwrap()
    }

    async fn connect(&self, endpoint: &Endpoint, to: SocketAddr) -> Option<Connection> {
        let tls = ClientTls::for_client(&self.authority, None).unwrap();
        endpoint.connect(to, ANY_NODE, &tls, Duration::from_secs(1)).await.ok()
    }

    /// A connection that has said hello.
    async fn known(&self, endpoint: &Endpoint) -> Option<(Connection, FrameSender, FrameReceiver)> {
        let connection = self.connect(endpoint, self.address).await?;
        let (mut sender, mut receiver) = connection.open_bi().await.ok()?;
        let hello = Hello {
            version: VERSION,
            client: "hostile".to_owned(),
            credentials: Credentials::Password {
                principal: "admin".to_owned(),
                password: self.password.clone(),
            },
            resume: None,
            reconnect_timeout_ms: 1_000,
            properties: [].into(),
            beat_ms: 0,
            from: None,
        };
        let mut frame = BytesMut::new();
        ClientMessage::Hello(hello).put(&mut frame);
        sender.send_frames(frame.freeze()).await.ok()?;
        receiver.next().await.ok()??;
        Some((connection, sender, receiver))
    }
}

fn socket() -> Endpoint {
    Endpoint::dial_only("127.0.0.1:0".parse().unwrap(), Edge::Client).unwrap()
}

/// Writes one at a time; the 99th percentile of the time that each takes, in microseconds.
async fn p99_us(good: &Client, number: &mut i64) -> u64 {
    let topic = TopicPath::parse("good").unwrap();
    let end = Instant::now() + MEASURE;
    let mut took = Vec::new();
    while Instant::now() < end {
        *number += 1;
        let started = Instant::now();
        good.set(&topic, Value::Int64(*number)).await.unwrap();
        took.push(u64::try_from(started.elapsed().as_micros()).unwrap());
    }
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

/// Passes datagrams on to the node and none back: every handshake through it stays half open.
fn black_hole(node: SocketAddr, passed: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut datagram = [0; 2_048];
        while !stop.load(Ordering::Relaxed) {
            let Ok((bytes, from)) = socket.recv_from(&mut datagram) else { continue };
            if from != node {
                let _ = socket.send_to(&datagram[..bytes], node);
                passed.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    address
}

async fn half_open(target: Target, done: Arc<AtomicU64>) {
    let stop = Arc::new(AtomicBool::new(false));
    let hole = black_hole(target.address, Arc::default(), Arc::clone(&stop));
    let mut endpoints: Vec<Endpoint> = (0..8).map(|_| socket()).collect();
    let tls = ClientTls::for_client(&target.authority, None).unwrap();
    for number in 0.. {
        let tries = endpoints
            .iter()
            .map(|endpoint| endpoint.connect(hole, ANY_NODE, &tls, Duration::from_millis(20)));
        done.fetch_add(futures::future::join_all(tries).await.len() as u64, Ordering::Relaxed);
        if number % 64 == 0 {
            endpoints.iter_mut().for_each(|endpoint| *endpoint = socket());
        }
    }
}

async fn garbage(target: Target, done: Arc<AtomicU64>) {
    let endpoint = socket();
    let mut seed = 88_172_645_463_325_252_u64;
    loop {
        let Some(connection) = target.connect(&endpoint, target.address).await else { continue };
        let Ok((mut sender, mut receiver)) = connection.open_bi().await else { continue };
        let bytes: Vec<u8> = (0..4_096)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed as u8
            })
            .collect();
        let _ = sender.send_frames(bytes.into()).await;
        let _ = receiver.next().await;
        done.fetch_add(1, Ordering::Relaxed);
    }
}

async fn gibibytes(target: Target, done: Arc<AtomicU64>) {
    let endpoint = socket();
    let piece = Bytes::from(vec![0; 256 * 1024]);
    loop {
        let Some((_connection, mut sender, _receiver)) = target.known(&endpoint).await else {
            continue;
        };
        let mut head = BytesMut::new();
        head.put_u32_le(1 << 30);
        head.put_u8(2);
        let _ = sender.send_frames(head.freeze()).await;
        while sender.send_frames(piece.clone()).await.is_ok() {}
        done.fetch_add(1, Ordering::Relaxed);
    }
}

async fn never_reading(target: Target, done: Arc<AtomicU64>) {
    let endpoint = socket();
    let mut deaf = Vec::new();
    while deaf.len() < 50 {
        let Some((connection, mut sender, receiver)) = target.known(&endpoint).await else {
            continue;
        };
        let mut frame = BytesMut::new();
        let (scope, selector) = (String::new(), "?.*//".to_owned());
        let select = ClientCommand::Select { scope, selector, select: true };
        ClientMessage::put_command(&mut frame, 1, &select);
        let _ = sender.send_frames(frame.freeze()).await;
        deaf.push((connection, sender, receiver));
        done.fetch_add(1, Ordering::Relaxed);
    }
    // And something to hear: large values, as fast as one writer goes.
    let writer = target.good().await;
    let topic = TopicPath::parse("big").unwrap();
    let mut value = vec![0; 16 * 1024];
    for number in 0_u64.. {
        value[..8].copy_from_slice(&number.to_le_bytes());
        let _ = writer.set(&topic, Value::Binary(&value)).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// One attack against the node, and what it did to the others.
async fn attack<F: Future<Output = ()> + Send + 'static>(
    name: &str,
    node: &Lone,
    target: &Target,
    run: impl Fn(Target, Arc<AtomicU64>) -> F,
) {
    let good = target.good().await;
    let mut number = 0;
    let before = node.rss_kib();
    let done = Arc::new(AtomicU64::new(0));
    let (mut quiet, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let without = p99_us(&good, &mut number).await;
        let supervisor = Supervisor::new("attack");
        supervisor.spawn("attack", run(target.clone(), Arc::clone(&done)));
        let with = p99_us(&good, &mut number).await;
        supervisor.stop(Duration::from_millis(1)).await;
        quiet.push(without);
        ratios.push(with as f64 / without as f64);
        // What was half open is given up.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    quiet.sort_unstable();
    ratios.sort_by(f64::total_cmp);
    say(&format!(
        "{name}: {} times, p99 {} us without, x {:.2} with (median of {PAIRS}, {:.2} to {:.2}), \
         node {} -> {} KiB",
        done.load(Ordering::Relaxed),
        quiet[PAIRS / 2],
        ratios[PAIRS / 2],
        ratios[0],
        ratios[PAIRS - 1],
        before,
        node.rss_kib(),
    ));
    good.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, by hand on a quiet machine"]
async fn hostile_clients_cost_the_others_little() {
    let dir = tempfile::tempdir().unwrap();
    let node = Lone::start(dir.path());
    let load = |file: &str| std::fs::read_to_string(Path::new(&node.dir).join(file)).unwrap();
    let target = Target {
        address: node.client,
        authority: Authority::from_pem(&load("tls/ca.pem")).unwrap(),
        password: node.password.clone(),
    };
    let setup = target.good().await;
    for (topic, kind) in [("good", TopicType::Int64), ("big", TopicType::Binary)] {
        let topic = TopicPath::parse(topic).unwrap();
        setup.add_topic(&topic, &Specification::plain(kind)).await.unwrap();
    }
    setup.close().await;
    attack("half-open handshakes", &node, &target, half_open).await;
    attack("connections with garbage", &node, &target, garbage).await;
    attack("frames of a gibibyte", &node, &target, gibibytes).await;
    attack("50 that never read", &node, &target, never_reading).await;
}
