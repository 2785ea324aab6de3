//! Event encoding and fan-out: what one block of updates costs a node with many subscribers.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use quorate::domain::effect::{Effect, Event, TopicInfo};
use quorate::domain::id::{Index, Position, SessionId, TopicId};
use quorate::domain::selector::{Selections, Selector};
use quorate::domain::topic::path::TopicPath;
use quorate::domain::topic::specification::{Specification, TopicType};
use quorate::gateway::delivery::interest::Interest;
use quorate::gateway::delivery::outgoing::Outgoing;
use quorate::gateway::fanout::outbox::Outbox;
use quorate::gateway::fanout::session_queue::{Next, SessionQueue};
use quorate::gateway::fanout::{Fanout, Joined};
use quorate::protocol::delivery::put_value;
use quorate::replication::Block;

const VALUE_BYTES: usize = 128;
const EVENTS: u16 = 100;
const TOPICS: u64 = 10_000;

fn block(entry: u64) -> Arc<Block> {
    let specification = Arc::new(Specification::plain(TopicType::Binary));
    let events = (0..EVENTS)
        .map(|offset| {
            let number = (entry * u64::from(EVENTS) + u64::from(offset)) % TOPICS;
            let topic = TopicInfo {
                id: TopicId(number),
                path: TopicPath::parse(&format!("bench/{number}")).unwrap(),
                specification: Arc::clone(&specification),
                added: Index::new(1, 0),
            };
            Event {
                position: Position { index: Index::new(entry, offset), ordinal: 0 },
                last: true,
                effect: Effect::Value {
                    topic: Arc::new(topic),
                    value: Some(Bytes::from(vec![7; VALUE_BYTES])),
                },
            }
        })
        .collect();
    Block::of(entry, 0, events).unwrap()
}

fn interest() -> Arc<Interest> {
    let mut selections = Selections::default();
    selections.add("", true, Selector::parse("?.*//").unwrap()).unwrap();
    Arc::new(Interest::new(Arc::new(selections), Vec::new()))
}

/// A fan-out with this many live sessions that want everything.
fn audience(sessions: u64) -> (Fanout, Vec<Arc<Outbox>>) {
    let mut fanout = Fanout::new(0);
    let interest = interest();
    let here = Position::end_of_entry(0);
    let outboxes = (1..=sessions)
        .map(|session| {
            let queue = SessionQueue::new(here, Arc::clone(&interest), here);
            let outbox = Arc::new(Outbox::new(SessionId(session), queue));
            let next = outbox.lock().next(&mut Outgoing::default());
            let Next::Read(order) = next else { unreachable!("it is behind") };
            assert_eq!(fanout.join(&outbox, &order, 0), Joined::Live);
            outbox
        })
        .collect();
    (fanout, outboxes)
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(1));
    let value = vec![7; VALUE_BYTES];
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    group.bench_function("value event, 128 bytes", |bencher| {
        bencher.iter(|| {
            if buffer.len() > 60 * 1024 {
                buffer.clear();
            }
            put_value(&mut buffer, Position::START, true, TopicId(1), black_box(Some(&value)));
        });
    });
    group.finish();
}

fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fan out and drain 100 events");
    for sessions in [1, 100, 1_000] {
        let (mut fanout, outboxes) = audience(sessions);
        let mut entry = 0;
        group.throughput(Throughput::Elements(u64::from(EVENTS) * sessions));
        group.bench_function(format!("{sessions} sessions"), |bencher| {
            bencher.iter_batched(
                || {
                    entry += 1;
                    block(entry)
                },
                |block| {
                    let _ = fanout.fan_out(&block, 1);
                    for outbox in &outboxes {
                        let mut outgoing = Outgoing::default();
                        let _ = outbox.lock().next(&mut outgoing);
                        black_box(outgoing.take());
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, encode, fan_out);
criterion_main!(benches);
