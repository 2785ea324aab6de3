//! What a snapshot takes from the apply thread at a million topics: the time that each entry takes
//! without one, and while one after the other is written beside it.
//!
//! `cargo bench --bench snapshot_pause`; no criterion, since tails are what it is for. As in the
//! server, apply and the O(1) clone share a lock, and the clone is turned into records and flushed
//! on another thread.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench stops at the first surprise, prints, and reads the clock"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate::domain::command::{Command, OpenSession, TypedValue};
use quorate::domain::entry::{Origin, Payload, Proposal};
use quorate::domain::id::{NodeId, SessionId, TopicId};
use quorate::domain::machine::Machine;
use quorate::domain::topic::path::TopicPath;
use quorate::domain::topic::specification::{Specification, TopicType};
use quorate_storage::disk::RealDisk;
use quorate_storage::snapshot::{Catalogue, SnapshotHead};

const SESSION: SessionId = SessionId(1);
/// Commands in one entry.
const BATCH: u64 = 256;
/// Snapshots that are written while entries are applied.
const SNAPSHOTS: usize = 3;

fn main() {
    // As a test it only has to run.
    let topics =
        if std::env::args().any(|argument| argument == "--bench") { 1_000_000 } else { 2_000 };
    let mut load = Load::with_topics(topics);
    let mut alone = Vec::new();
    let entries = if topics > 10_000 { 5_000 } else { 50 };
    for _ in 0..entries {
        alone.push(load.apply_updates(topics));
    }
    let (beside, clones, wrote) = load.apply_beside_snapshots(topics);
    println!("{topics} topics of 100 B, entries of {BATCH} updates, {SNAPSHOTS} snapshots");
    println!("  a snapshot took {:.2} s", wrote.as_secs_f64() / SNAPSHOTS as f64);
    let p99 = ["alone", "beside a snapshot", "clone under the lock"].into_iter();
    let p99: Vec<f64> =
        p99.zip([alone, beside, clones]).map(|(name, times)| tell(name, times)).collect();
    if let [alone, beside, _] = p99.as_slice() {
        println!("  p99 of an entry's time lost to a snapshot: {:.3} ms", beside - alone);
    }
}

/// Prints a distribution; its p99 in milliseconds.
fn tell(name: &str, mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    let at = |part: usize| {
        let place = (times.len() * part / 1_000).min(times.len().saturating_sub(1));
        times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    println!(
        "  {name:>20}: {:>6} times, p50 {:.3} ms, p99 {:.3} ms, max {:.3} ms",
        times.len(),
        at(500),
        at(990),
        at(1_000)
    );
    at(990)
}

/// A machine with one session, and the numbers that go on.
struct Load {
    machine: Arc<Mutex<Machine>>,
    entry: u64,
    request: u64,
    random: u64,
}

impl Load {
    /// A hundred bytes of value in each topic.
    fn with_topics(count: u64) -> Self {
        let machine = Arc::new(Mutex::new(Machine::new()));
        let mut load = Self { machine, entry: 0, request: 0, random: 1 };
        let open = Command::OpenSession(OpenSession {
            session: SESSION,
            secret_hash: [1; 32],
            principal: String::new(),
            roles: Vec::new(),
            properties: BTreeMap::new(),
            reconnect_timeout_ms: 60_000,
            host: NodeId(1),
            incarnation: 1,
        });
        let proposals = vec![Proposal { origin: Origin::default(), command: open.encode() }];
        load.apply(&Payload { log_time_ms: 0, wall_time_ms: 0, proposals });
        let numbers: Vec<u64> = (0..count).collect();
        for batch in numbers.chunks(BATCH as usize) {
            let payload = load.payload(batch.iter().map(|number| add(*number)));
            load.apply(&payload);
            let payload = load.payload(batch.iter().map(|number| update(number + 1, 0)));
            load.apply(&payload);
        }
        load
    }

    fn payload(&mut self, commands: impl Iterator<Item = Command>) -> Payload {
        let proposals = commands
            .map(|command| {
                self.request += 1;
                let origin = Origin {
                    session: SESSION,
                    epoch: 1,
                    role_version: 1,
                    request: self.request,
                    answered_below: self.request.saturating_sub(BATCH),
                };
                Proposal { origin, command: command.encode() }
            })
            .collect();
        Payload { log_time_ms: self.entry, wall_time_ms: self.entry, proposals }
    }

    /// Applies one entry; the time from before the lock to after it.
    fn apply(&mut self, payload: &Payload) -> Duration {
        self.entry += 1;
        let begun = Instant::now();
        black_box(self.machine.lock().unwrap().apply(self.entry, payload));
        begun.elapsed()
    }

    fn apply_updates(&mut self, topics: u64) -> Duration {
        let mark = self.entry;
        let updated: Vec<u64> = (0..BATCH).map(|_| self.below(topics) + 1).collect();
        let payload = self.payload(updated.into_iter().map(|topic| update(topic, mark)));
        self.apply(&payload)
    }

    /// Applies while snapshots are written: the entries' times, the clones' times, all of it.
    fn apply_beside_snapshots(&mut self, topics: u64) -> (Vec<Duration>, Vec<Duration>, Duration) {
        let done = AtomicBool::new(false);
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(RealDisk);
        let (catalogue, _) = Catalogue::open(disk, folder.path(), None).unwrap();
        let machine = Arc::clone(&self.machine);
        let (mut beside, begun) = (Vec::new(), Instant::now());
        let mut clones = Vec::new();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut clones = Vec::new();
                for index in 1..=SNAPSHOTS as u64 {
                    let begun = Instant::now();
                    let clone = machine.lock().unwrap().clone();
                    clones.push(begun.elapsed());
                    let head = SnapshotHead {
                        lineage: 1,
                        cluster_id: 1,
                        index,
                        term: 1,
                        chain: index,
                        state_hash: clone.hash(),
                        meta: Bytes::new(),
                    };
                    catalogue.write(head, clone.to_records()).unwrap();
                }
                done.store(true, Ordering::Release);
                clones
            });
            while !done.load(Ordering::Acquire) {
                beside.push(self.apply_updates(topics));
            }
            clones = writer.join().unwrap();
        });
        (beside, clones, begun.elapsed())
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % bound
    }
}

fn add(number: u64) -> Command {
    let path = TopicPath::parse(&format!("sensors/{:03}/{number:07}", number % 997)).unwrap();
    Command::AddTopic { path, specification: Specification::plain(TopicType::Binary) }
}

fn update(topic: u64, mark: u64) -> Command {
    let mut bytes = mark.to_le_bytes().to_vec();
    bytes.resize(100, b'x');
    let value = TypedValue { value_type: TopicType::Binary, bytes: Some(Bytes::from(bytes)) };
    Command::Update { topic: TopicId(topic), stream: None, value }
}
