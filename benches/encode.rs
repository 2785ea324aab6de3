//! Encoding: an update record, an entry of many of them, and an event as a subscriber gets it.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quorate::domain::command::{Command, TypedValue, put_update};
use quorate::domain::entry::{Origin, Payload, Proposal};
use quorate::domain::id::{Position, SessionId, TopicId};
use quorate::domain::topic::specification::TopicType;
use quorate::protocol::delivery::put_value;

const VALUE_BYTES: usize = 128;
/// Commands of one entry.
const BATCH: u64 = 256;
/// A buffer of frames is sent from here on.
const BUFFER_BYTES: usize = 60 * 1024;

fn value() -> TypedValue {
    let bytes = Some(Bytes::from(vec![7; VALUE_BYTES]));
    TypedValue { value_type: TopicType::Binary, bytes }
}

/// What the client writes, and what the node checks.
fn update(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("update record, 128 bytes");
    let value = value();
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    group.bench_function("write", |bencher| {
        bencher.iter(|| {
            if buffer.len() > BUFFER_BYTES {
                buffer.clear();
            }
            put_update(&mut buffer, TopicId(1), None, black_box(&value));
        });
    });
    let record = Command::Update { topic: TopicId(1), stream: None, value }.encode();
    group.bench_function("check", |bencher| {
        bencher.iter(|| Command::decode(black_box(&record).clone()).unwrap());
    });
    group.finish();
}

/// What goes into the log and comes out of it.
fn entry(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("entry of 256 updates");
    group.throughput(Throughput::Elements(BATCH));
    let command = Command::Update { topic: TopicId(1), stream: None, value: value() }.encode();
    let proposals = (1..=BATCH).map(|request| {
        let origin =
            Origin { session: SessionId(1), epoch: 1, role_version: 1, request, answered_below: 1 };
        Proposal { origin, command: command.clone() }
    });
    let payload = Payload { log_time_ms: 1, wall_time_ms: 1, proposals: proposals.collect() };
    group.bench_function("write", |bencher| bencher.iter(|| black_box(&payload).encode()));
    let bytes = payload.encode();
    group.bench_function("read", |bencher| {
        bencher.iter(|| Payload::decode(black_box(&bytes).clone()).unwrap());
    });
    group.finish();
}

/// What one event costs, once for all who hear of it.
fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(1));
    let value = vec![7; VALUE_BYTES];
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    group.bench_function("value event, 128 bytes", |bencher| {
        bencher.iter(|| {
            if buffer.len() > BUFFER_BYTES {
                buffer.clear();
            }
            put_value(&mut buffer, Position::START, true, TopicId(1), black_box(Some(&value)));
        });
    });
    group.finish();
}

criterion_group!(benches, encode, update, entry);
criterion_main!(benches);
