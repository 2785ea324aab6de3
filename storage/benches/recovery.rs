//! Opening a log: every record of it is checked.
//!
//! `cargo bench -p quorate-storage --bench recovery`.
#![expect(clippy::unwrap_used, reason = "a bench may stop")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quorate_storage::disk::RealDisk;
use quorate_storage::{Disk, Log, LogOptions, Record, RecordKind, Step};

const LOG_BYTES: usize = 64 << 20;

fn options() -> LogOptions {
    LogOptions { segment_bytes: 16 << 20, tail_bytes_max: 1 << 20, ..LogOptions::new(1, 1) }
}

fn fill(disk: &Arc<dyn Disk>, dir: &Path, payload_bytes: usize) {
    let (log, mut writer, _) = Log::open(Arc::clone(disk), dir, options()).unwrap();
    let payload = Bytes::from(vec![0x5a; payload_bytes]);
    for index in 0..(LOG_BYTES / payload_bytes) as u64 {
        let payload = payload.clone();
        let record = Record { kind: RecordKind::Commands, index, term: 1, payload };
        log.append(vec![record], Box::new(|_| {})).unwrap();
        if log.queued_bytes() > 1 << 20 {
            writer.step(None);
        }
    }
    while matches!(writer.step(None), Step::Flushed { .. }) {}
    writer.flush_mark();
}

fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open_64_MiB");
    group.sample_size(10).throughput(Throughput::Bytes(LOG_BYTES as u64));
    for (name, payload_bytes) in [("of_1_KiB", 1 << 10), ("of_64_KiB", 64 << 10)] {
        let folder = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        fill(&disk, folder.path(), payload_bytes);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                black_box(Log::open(Arc::clone(&disk), folder.path(), options()).unwrap());
            });
        });
    }
    group.finish();
}

criterion_group!(benches, open);
criterion_main!(benches);
