//! Appending: what a caller pays, and what a group costs on the disk below the temporary folder.
//!
//! `cargo bench -p quorate-storage --bench append`.
#![expect(clippy::unwrap_used, reason = "a bench may stop")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use quorate_storage::disk::RealDisk;
use quorate_storage::{Disk, Log, LogOptions, Record, RecordKind, Step, Writer};

struct Appender {
    log: Log,
    writer: Writer,
    payload: Bytes,
}

impl Appender {
    fn new(dir: &Path, payload_bytes: usize) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let options = LogOptions { tail_bytes_max: 4 << 20, ..LogOptions::new(1, 1) };
        let (log, writer, _) = Log::open(disk, dir, options).unwrap();
        Self { log, writer, payload: vec![0x5a; payload_bytes].into() }
    }

    fn append(&self, count: u64) {
        let next = self.log.next_index();
        let records = (next..next + count)
            .map(|index| Record {
                kind: RecordKind::Commands,
                index,
                term: 1,
                payload: self.payload.clone(),
            })
            .collect();
        self.log.append(records, Box::new(|_| {})).unwrap();
    }

    fn flush(&mut self) {
        while matches!(self.writer.step(None), Step::Flushed { .. }) {}
        // The disk's use stays bounded however long the bench runs.
        if self.log.segments().len() > 4 {
            let durable = self.log.durable().unwrap();
            self.log.purge(durable).unwrap();
        }
    }
}

/// One group per iteration: queue, write, fdatasync, complete.
fn durable_group(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("durable_group");
    for (name, count, payload_bytes) in [
        ("one_of_128_B", 1, 128),
        ("512_of_128_B", 512, 128),
        ("one_of_64_KiB", 1, 64 << 10),
        ("four_of_256_KiB", 4, 256 << 10),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut appender = Appender::new(folder.path(), payload_bytes);
        group.throughput(Throughput::Bytes(count * payload_bytes as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                appender.append(count);
                appender.flush();
            });
        });
    }
    group.finish();
}

/// The caller's part alone: checks, chain, checksum, queue.
fn append_call(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append_call");
    for (name, payload_bytes) in [("128_B", 128), ("256_KiB", 256 << 10)] {
        let folder = tempfile::tempdir().unwrap();
        let mut appender = Appender::new(folder.path(), payload_bytes);
        group.throughput(Throughput::Bytes(payload_bytes as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || (),
                |()| {
                    appender.append(1);
                    if appender.log.queued_bytes() > 32 << 20 {
                        appender.flush();
                    }
                },
                BatchSize::SmallInput,
            );
            appender.flush();
        });
    }
    group.finish();
}

/// Reading the newest entries from memory and older ones from the page cache.
fn read(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let mut appender = Appender::new(folder.path(), 1024);
    for _ in 0..64 {
        appender.append(256);
        appender.flush();
    }
    let next = appender.log.next_index();
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Bytes(256 << 10));
    for (name, first) in [("memory", next - 256), ("file", 0)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(appender.log.read(first..first + 256, usize::MAX).unwrap()));
        });
    }
    group.finish();
}

criterion_group!(benches, durable_group, append_call, read);
criterion_main!(benches);
