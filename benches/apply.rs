//! What one command costs on the apply thread, at ten thousand and at a million topics.
#![expect(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Bencher, Criterion, Throughput, criterion_group, criterion_main};
use quorate::domain::command::{Command, OpenSession, TypedValue};
use quorate::domain::entry::{Origin, Payload, Proposal};
use quorate::domain::id::{NodeId, SessionId, TopicId};
use quorate::domain::machine::Machine;
use quorate::domain::topic::path::TopicPath;
use quorate::domain::topic::specification::{Specification, TopicType};

const SESSION: SessionId = SessionId(1);
/// Commands in one entry.
const BATCH: u64 = 256;

/// A machine with one session, and the numbers that go on.
struct Load {
    machine: Machine,
    entry: u64,
    request: u64,
    random: u64,
}

impl Load {
    /// A hundred bytes of value in each topic.
    fn with_topics(count: u64) -> Self {
        let mut load = Self { machine: Machine::new(), entry: 0, request: 0, random: 1 };
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

    fn apply(&mut self, payload: &Payload) {
        self.entry += 1;
        black_box(self.machine.apply(self.entry, payload));
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % bound
    }
}

fn path(number: u64) -> TopicPath {
    TopicPath::parse(&format!("sensors/{:03}/{number:07}", number % 997)).unwrap()
}

fn add(number: u64) -> Command {
    let specification = Specification::plain(TopicType::Binary);
    Command::AddTopic { path: path(number), specification }
}

fn value(mark: u64) -> TypedValue {
    let mut bytes = mark.to_le_bytes().to_vec();
    bytes.resize(100, b'x');
    TypedValue { value_type: TopicType::Binary, bytes: Some(Bytes::from(bytes)) }
}

fn update(topic: u64, mark: u64) -> Command {
    Command::Update { topic: TopicId(topic), stream: None, value: value(mark) }
}

/// Measures the application of entries that `make` makes, without the making.
fn measure(bencher: &mut Bencher<'_>, load: &RefCell<Load>, make: impl Fn(&mut Load) -> Payload) {
    bencher.iter_batched(
        || make(&mut load.borrow_mut()),
        |payload| {
            let load = &mut *load.borrow_mut();
            load.entry += 1;
            black_box(load.machine.apply(load.entry, &payload))
        },
        BatchSize::PerIteration,
    );
}

fn updates(load: &mut Load, count: u64) -> Payload {
    let topics: Vec<u64> = (0..BATCH).map(|_| load.below(count) + 1).collect();
    let mark = load.entry;
    load.payload(topics.into_iter().map(|topic| update(topic, mark)))
}

fn apply(criterion: &mut Criterion) {
    let is_test = !std::env::args().any(|argument| argument == "--bench");
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(BATCH));
    for count in [10_000, 1_000_000] {
        // One pass that shows that it runs needs no million.
        let topics = if is_test { 1_000 } else { count };
        let load = RefCell::new(Load::with_topics(topics));
        group.bench_function(format!("update by id, {count} topics"), |bencher| {
            measure(bencher, &load, |load| updates(load, topics));
        });
        group.bench_function(format!("update by id beside readers, {count} topics"), |bencher| {
            // A reader holds a clone that is one entry old.
            let view = RefCell::new(load.borrow().machine.clone());
            measure(bencher, &load, |load| {
                *view.borrow_mut() = load.machine.clone();
                updates(load, topics)
            });
        });
        group.bench_function(format!("set by path, {count} topics"), |bencher| {
            measure(bencher, &load, |load| {
                let numbers: Vec<u64> = (0..BATCH).map(|_| load.below(topics)).collect();
                let mark = load.entry;
                load.payload(
                    numbers.into_iter().map(|number| Command::SetByPath {
                        path: path(number),
                        value: value(mark),
                    }),
                )
            });
        });
        group.bench_function(format!("add, {count} topics"), |bencher| {
            measure(bencher, &load, |load| {
                let next = load.machine.topics().len() as u64;
                load.payload((next..next + BATCH).map(add))
            });
        });
        group.bench_function(format!("clone, {count} topics"), |bencher| {
            bencher.iter(|| black_box(load.borrow().machine.clone()));
        });
    }
    group.finish();
}

criterion_group!(benches, apply);
criterion_main!(benches);
