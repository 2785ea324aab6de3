//! Three times what a cluster of three carries: it sheds by permits, says when to come again, keeps
//! its leader, answers what it has taken in time, and its memory stays bounded.
//!
//! By hand, on a quiet machine: `cargo test --release --test processes hostile::overload --
//! --ignored --nocapture`.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures::future::join_all;
use quorate::client::{Client, ClientConfig, Value};
use quorate::domain::id::TopicId;
use quorate::domain::limits::SESSION_IN_FLIGHT_MAX;
use quorate::domain::topic::path::TopicPath;
use quorate::domain::topic::specification::{Specification, TopicType};
use quorate::protocol::record::{Target as RecordTarget, put_record};
use quorate::protocol::server_message::Acknowledgement;
use quorate::protocol::{ClientMessage, ErrorCode, ServerMessage};

use super::victim::{Known, Target, p99_us, percentile, socket};
use crate::harness::{Cluster, Memory, say};

/// Sessions: what they may have in flight together is twice the leader's permits.
const SESSIONS: usize = 32;
/// What each has in flight while the sustainable rate is measured.
const WINDOW: u64 = 128;
const VALUE_BYTES: usize = 128;
const MEASURE: Duration = Duration::from_secs(5);
const OVERLOAD: Duration = Duration::from_secs(15);
const TICK: Duration = Duration::from_millis(5);
/// What a session may have waiting for the transport; more of the offer is not even sent.
const BACKLOG_BYTES_MAX: usize = 256 * 1024;
/// What the 99th percentile of the accepted may become.
const ACCEPTED_P99_MAX: Duration = Duration::from_secs(2);
/// What each node's memory may grow by.
const GROWTH_KIB_MAX: u64 = 256 * 1024;

/// How a session offers its updates.
#[derive(Clone, Copy)]
enum Offer {
    /// So many unanswered at a time.
    Window(u64),
    /// So many a second, whatever becomes of them.
    Rate(f64),
}

/// What came of one session's offer.
#[derive(Default)]
struct Outcome {
    offered: u64,
    /// Of each that was accepted, from its (last) sending to its answer, in microseconds.
    took_us: Vec<u64>,
    sheds: u64,
    not_sent: u64,
}

/// One session that offers updates to a topic of its own and listens to what the node says.
struct Load {
    known: Known,
    topic: TopicId,
    /// The lowest number that was not sent, and when the unanswered before it were.
    next: u64,
    sent: VecDeque<Instant>,
    /// Nothing is sent before: the node has said so.
    pause_until: Option<Instant>,
    outcome: Outcome,
}

impl Load {
    async fn open(target: &Target, topic: TopicId) -> Self {
        let known = target.known_in_time(&socket("127.0.0.1")).await.unwrap();
        let (sent, outcome) = (VecDeque::new(), Outcome::default());
        Self { known, topic, next: 1, sent, pause_until: None, outcome }
    }

    async fn run(&mut self, offer: Offer, time: Duration) {
        let started = Instant::now();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut due = 0;
        while started.elapsed() < time {
            let backlog = self.known.sender.queued_bytes();
            tokio::select! {
                flushed = self.known.sender.flush(), if backlog > 0 => flushed.unwrap(),
                frame = self.known.receiver.next() => {
                    let frame = frame.unwrap().unwrap();
                    self.hear(ServerMessage::decode(frame.kind, frame.body).unwrap());
                    if let Offer::Window(window) = offer {
                        self.send(window.saturating_sub(self.sent.len() as u64));
                    }
                }
                _ = tick.tick() => match offer {
                    Offer::Window(window) => {
                        self.send(window.saturating_sub(self.sent.len() as u64));
                    }
                    Offer::Rate(rate) => {
                        let wanted = (rate * started.elapsed().as_secs_f64()) as u64;
                        self.outcome.offered += wanted - due;
                        self.send(wanted - due);
                        due = wanted;
                    }
                },
            }
        }
    }

    fn send(&mut self, count: u64) {
        let now = Instant::now();
        if self.pause_until.is_some_and(|until| until > now)
            || self.known.sender.queued_bytes() > BACKLOG_BYTES_MAX
        {
            self.outcome.not_sent += count;
            return;
        }
        // What a client may have unanswered; more is not overload, but against the rules.
        let taken = count.min((SESSION_IN_FLIGHT_MAX - self.sent.len()) as u64);
        self.outcome.not_sent += count - taken;
        let mut frames = BytesMut::new();
        let answered = ClientMessage::Answered { below: self.next - self.sent.len() as u64 };
        answered.put(&mut frames);
        let mut value = [0; VALUE_BYTES];
        for _ in 0..taken {
            value[..8].copy_from_slice(&self.next.to_le_bytes());
            let mut record = BytesMut::new();
            let target = RecordTarget::Topic(self.topic);
            put_record(&mut record, &target, TopicType::Binary as u8, Some(&value));
            let record = record.freeze();
            ClientMessage::Update { request: self.next, record }.put(&mut frames);
            self.sent.push_back(now);
            self.next += 1;
        }
        self.known.sender.queue_frames(frames.freeze()).unwrap();
    }

    fn hear(&mut self, message: ServerMessage) {
        match message {
            ServerMessage::Acknowledged(entries) => {
                for entry in entries {
                    let (first, count) = match entry {
                        Acknowledgement::Run { first_request, count, .. } => {
                            (first_request, u64::from(count))
                        }
                        Acknowledgement::One { request, .. } => (request, 1),
                    };
                    let oldest = self.next - self.sent.len() as u64;
                    for _ in oldest..first + count {
                        let sent = self.sent.pop_front().unwrap();
                        self.outcome.took_us.push(sent.elapsed().as_micros() as u64);
                    }
                }
            }
            ServerMessage::Shed { first, code, retry_ms } => {
                assert_eq!(code, ErrorCode::Overloaded);
                assert!(retry_ms > 0, "no hint");
                self.outcome.sheds += 1;
                let oldest = self.next - self.sent.len() as u64;
                self.sent.truncate(first.saturating_sub(oldest) as usize);
                self.next = first.max(oldest);
                self.pause_until = Some(Instant::now() + Duration::from_millis(retry_ms.into()));
            }
            ServerMessage::Parked { code, .. } => panic!("parked: {code}"),
            ServerMessage::Close { code, text, .. } => panic!("closed: {code} {text}"),
            _ => {}
        }
    }
}

/// A client of one node, by its folder.
fn target(cluster: &Cluster, node: &str) -> Target {
    let ports = fs::read_to_string(cluster.dir.join(node).join("ports.json")).unwrap();
    let ports: serde_json::Value = serde_json::from_str(&ports).unwrap();
    let port = |of: &str| ports[of].as_str().unwrap().parse().unwrap();
    Target {
        client: port("client"),
        peer: port("peer"),
        http: port("http"),
        tls: cluster.dir.clone(),
        password: fs::read_to_string(cluster.dir.join("admin.password")).unwrap().trim().into(),
    }
}

fn memory(cluster: &Cluster, node: &str) -> Memory {
    let pid = fs::read_to_string(Path::new(&cluster.dir).join(node).join("pid")).unwrap();
    Memory(pid.trim().parse().unwrap())
}

async fn all(loads: &mut [Load], offer: Offer, time: Duration) -> Outcome {
    for load in loads.iter_mut() {
        load.outcome = Outcome::default();
    }
    join_all(loads.iter_mut().map(|load| load.run(offer, time))).await;
    let mut together = Outcome::default();
    for load in loads {
        let one = std::mem::take(&mut load.outcome);
        together.offered += one.offered;
        together.sheds += one.sheds;
        together.not_sent += one.not_sent;
        together.took_us.extend(one.took_us);
    }
    together
}

async fn good_client(target: &Target) -> Client {
    let config = ClientConfig::new([target.client.to_string()], target.authority())
        .password("admin", target.password.clone());
    Client::connect(config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, by hand on a quiet machine"]
async fn overload_is_shed_and_the_cluster_goes_on() {
    const NODES: [&str; 3] = ["n1", "n2", "n3"];
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), &[]);
    let status = cluster.status().unwrap();
    let leader = status["leader"].as_str().unwrap().to_owned();
    let target = target(&cluster, &leader);
    let good = good_client(&target).await;
    let plain = Specification::plain(TopicType::Binary);
    let path = |name: &str| TopicPath::parse(name).unwrap();
    good.add_topic(&path("good"), &Specification::plain(TopicType::Int64)).await.unwrap();
    let mut loads = Vec::new();
    for number in 0..SESSIONS {
        let topic = good.add_topic(&path(&format!("load/{number}")), &plain).await.unwrap().topic;
        loads.push(Load::open(&target, topic).await);
    }

    all(&mut loads, Offer::Window(WINDOW), Duration::from_secs(2)).await;
    let mut calm = all(&mut loads, Offer::Window(WINDOW), MEASURE).await;
    let sustainable = calm.took_us.len() as f64 / MEASURE.as_secs_f64();
    let calm_p99 = percentile(&mut calm.took_us, 99);

    let before = target.metrics();
    let memories = NODES.map(|node| memory(&cluster, node));
    let before_kib: Vec<u64> = memories.iter().map(Memory::rss_kib).collect();
    let (stop, held) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let most_kib: [Arc<AtomicU64>; 3] = Default::default();
    let watch = {
        let (stop, held, most_kib) = (Arc::clone(&stop), Arc::clone(&held), most_kib.clone());
        let target = target.clone();
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for (memory, most) in memories.iter().zip(&most_kib) {
                    most.fetch_max(memory.rss_kib(), Ordering::Relaxed);
                }
                let unanswered = target.metrics().sum("quorate_proposals_unanswered", &[]);
                held.fetch_max(unanswered as u64, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(100));
            }
        })
    };
    let offer = Offer::Rate(3.0 * sustainable / SESSIONS as f64);
    let mut number = 0;
    let (mut hot, good_p99) =
        tokio::join!(all(&mut loads, offer, OVERLOAD), p99_us(&good, &mut number, OVERLOAD));
    stop.store(true, Ordering::Relaxed);
    watch.join().unwrap();
    let after = target.metrics();
    let status_after = cluster.status().unwrap();

    let code = format!("code=\"{}\"", ErrorCode::Overloaded.number());
    let refusals =
        |metrics: &super::victim::Metrics| metrics.sum("quorate_requests_refused_total", &[&code]);
    let counted = refusals(&after) - refusals(&before);
    let seconds = OVERLOAD.as_secs_f64();
    let accepted = hot.took_us.len() as f64 / seconds;
    let (p50, p99) = (percentile(&mut hot.took_us, 50), percentile(&mut hot.took_us, 99));
    let most: Vec<u64> = most_kib.iter().map(|kib| kib.load(Ordering::Relaxed)).collect();
    say(&format!(
        "sustainable {sustainable:.0}/s (p99 {calm_p99} us); offered {:.0}/s, of which held back by \
         the client {:.0}/s; accepted {accepted:.0}/s, p50 {p50} us, p99 {p99} us; a client beside \
         it, one at a time: p99 {good_p99} us; {} sheds told, {counted} counted; permits held at \
         most {} of {}; memory {before_kib:?} -> at most {most:?} KiB; leader {leader} -> {}, term \
         {} -> {}",
        hot.offered as f64 / seconds,
        hot.not_sent as f64 / seconds,
        hot.sheds,
        held.load(Ordering::Relaxed),
        after.sum("quorate_proposals_permits", &[]),
        status_after["leader"],
        status["term"],
        status_after["term"],
    ));
    assert!(hot.sheds > 0 && counted > 0.0, "nothing was shed");
    assert!(accepted > sustainable / 2.0, "overload took the throughput away");
    assert!(Duration::from_micros(p99) < ACCEPTED_P99_MAX);
    assert_eq!(
        (&status["leader"], &status["term"]),
        (&status_after["leader"], &status_after["term"]),
        "leadership was lost\n{}",
        cluster.logs()
    );
    for (before, most) in before_kib.iter().zip(&most) {
        assert!(*most < before + GROWTH_KIB_MAX, "{before} -> {most} KiB");
    }
    // It has not only survived.
    good.set(&path("good"), Value::Int64(i64::MAX)).await.unwrap();
}
