//! The way of events through the sessions' outboxes: what the fan-out pays for each session that it
//! tells, what each session's writer pays to take what waits, and both with sessions that are slow.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use quorate::domain::effect::{Effect, Event, TopicInfo};
use quorate::domain::id::{Index, Position, SessionId, TopicId};
use quorate::domain::selector::{Selections, Selector};
use quorate::domain::topic::path::TopicPath;
use quorate::domain::topic::specification::{Specification, TopicType};
use quorate::gateway::delivery::interest::Interest;
use quorate::gateway::delivery::outgoing::Outgoing;
use quorate::gateway::fanout::outbox::Outbox;
use quorate::gateway::fanout::session_queue::{Next, QUEUE_EVENTS_MAX, SessionQueue};
use quorate::gateway::fanout::{Fanout, Joined};
use quorate::replication::Block;

const VALUE_BYTES: usize = 128;
/// Events of one block.
const EVENTS: u16 = 100;
const TOPICS: u64 = 10_000;
/// Blocks that have come together when a writer has its turn.
const WAITING: u64 = 4;

/// A node's fan-out, its hosted sessions, and the log that goes on.
struct Node {
    fanout: Fanout,
    outboxes: Vec<Arc<Outbox>>,
    topics: Vec<Arc<TopicInfo>>,
    entry: u64,
}

impl Node {
    /// So many live sessions; each has the interest of its number.
    fn new(sessions: u64, topics: Vec<Arc<TopicInfo>>, of: impl Fn(u64) -> Arc<Interest>) -> Self {
        let here = Position::end_of_entry(0);
        let outboxes = (0..sessions).map(|number| {
            let queue = SessionQueue::new(here, of(number), here);
            Arc::new(Outbox::new(SessionId(number + 1), queue))
        });
        let outboxes = outboxes.collect();
        let mut node = Self { fanout: Fanout::new(0), outboxes, topics, entry: 0 };
        node.join();
        node
    }

    /// The next block: a hundred updates, one topic after the other.
    fn block(&mut self) -> Arc<Block> {
        self.entry += 1;
        let first = (self.entry - 1) * u64::from(EVENTS);
        let events = (0..EVENTS).zip(first..).map(|(offset, number)| {
            let topic = self.topics.get(number as usize % self.topics.len()).unwrap();
            Event {
                position: Position { index: Index::new(self.entry, offset), ordinal: 0 },
                last: true,
                effect: Effect::Value {
                    topic: Arc::clone(topic),
                    value: Some(Bytes::from(vec![7; VALUE_BYTES])),
                },
            }
        });
        Block::of(self.entry, 0, events.collect()).unwrap()
    }

    fn fan_out(&mut self, block: &Block) {
        black_box(self.fanout.fan_out(block, 1));
    }

    /// Gives every session so many blocks to wait for their writers.
    fn fill(&mut self, blocks: u64) {
        for _ in 0..blocks {
            let block = self.block();
            self.fan_out(&block);
        }
    }

    /// One turn of every session's writer, as long as something waits.
    fn drain(&self) {
        for outbox in &self.outboxes {
            loop {
                let mut outgoing = Outgoing::default();
                match outbox.lock().next(&mut outgoing) {
                    Next::Write { .. } => black_box(outgoing.take()),
                    _ => break,
                };
            }
        }
    }

    /// Lets every session in that has fallen behind, as if it had read the journal.
    fn join(&mut self) {
        for outbox in &self.outboxes {
            let next = outbox.lock().next(&mut Outgoing::default());
            if let Next::Read(order) = next {
                assert_eq!(self.fanout.join(outbox, &order, self.entry), Joined::Live);
            }
        }
    }
}

fn topics(count: u64, properties: &[(&str, &str)]) -> Vec<Arc<TopicInfo>> {
    let properties = properties.iter().copied();
    let specification = Arc::new(Specification::new(TopicType::Binary, properties).unwrap());
    let topic = |number| TopicInfo {
        id: TopicId(number),
        path: path(number),
        specification: Arc::clone(&specification),
        added: Index::new(1, 0),
    };
    (0..count).map(|number| Arc::new(topic(number))).collect()
}

fn path(number: u64) -> TopicPath {
    TopicPath::parse(&format!("bench/{number}")).unwrap()
}

fn interest(selector: Selector) -> Arc<Interest> {
    let mut selections = Selections::default();
    selections.add("", true, selector).unwrap();
    Arc::new(Interest::new(Arc::new(selections), Vec::new()))
}

/// Sessions that all want everything, as the subscribers of a popular branch do.
fn alike(sessions: u64, properties: &[(&str, &str)], count: u64) -> RefCell<Node> {
    let everything = interest(Selector::everything());
    RefCell::new(Node::new(sessions, topics(count, properties), |_| Arc::clone(&everything)))
}

/// The fan-out's part: a block is encoded once and pushed to each session.
fn push(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("outbox: push a block of 100 events");
    let mut measure = |name: String, node: RefCell<Node>| {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    let mut node = node.borrow_mut();
                    node.drain();
                    node.block()
                },
                |block| node.borrow_mut().fan_out(&block),
                BatchSize::PerIteration,
            );
        });
    };
    for sessions in [1, 100, 1_000] {
        measure(format!("{sessions} sessions"), alike(sessions, &[], TOPICS));
    }
    // A hundred of them hear of each block.
    let own = |number| interest(Selector::path(&path(number)));
    let node = Node::new(1_000, topics(1_000, &[]), own);
    measure("1000 sessions with a topic each".to_owned(), RefCell::new(node));
    group.finish();
}

/// The writers' part: what waits becomes the chunks that a stream takes.
fn take(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("outbox: take 4 blocks of 100 events");
    let sessions = 100;
    group.throughput(Throughput::Elements(u64::from(EVENTS) * WAITING * sessions));
    for (name, properties, topics) in [
        ("100 sessions", &[][..], TOPICS),
        ("100 sessions, 10 topics always conflated", &[("CONFLATION", "always")][..], 10),
    ] {
        let node = alike(sessions, properties, topics);
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || node.borrow_mut().fill(WAITING),
                |()| node.borrow().drain(),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// Both parts: what one block costs a node with many subscribers.
fn push_and_take(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fan out and drain 100 events");
    for sessions in [1, 100, 1_000] {
        let node = alike(sessions, &[], TOPICS);
        group.throughput(Throughput::Elements(u64::from(EVENTS) * sessions));
        group.bench_function(format!("{sessions} sessions"), |bencher| {
            bencher.iter_batched(
                || node.borrow_mut().block(),
                |block| {
                    let mut node = node.borrow_mut();
                    node.fan_out(&block);
                    node.drain();
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// Sessions whose queues are full fall behind at the next block and join again.
fn overflow(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("outbox: overflow and join again");
    let sessions = 100;
    let node = alike(sessions, &[], TOPICS);
    group.throughput(Throughput::Elements(sessions));
    group.bench_function(format!("{sessions} sessions"), |bencher| {
        bencher.iter_batched(
            || {
                let mut node = node.borrow_mut();
                node.drain();
                node.fill((QUEUE_EVENTS_MAX / usize::from(EVENTS)) as u64);
                assert_eq!(node.fanout.live(), sessions as usize);
                node.block()
            },
            |block| {
                let mut node = node.borrow_mut();
                node.fan_out(&block);
                assert_eq!(node.fanout.live(), 0, "a full queue took more");
                node.join();
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, push, take, push_and_take, overflow);
criterion_main!(benches);
