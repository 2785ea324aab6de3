//! What a change of segment costs the groups around it, on the disk below the temporary folder:
//! latencies of groups that go on in a segment beside those of groups that begin one.
//!
//! `cargo bench -p quorate-storage --bench rotation`; no criterion, since tails are what it is for.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench may stop, and prints")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_storage::disk::RealDisk;
use quorate_storage::{Disk, Log, LogOptions, Preparation, Record, RecordKind, Writer};

const GROUP_BYTES: usize = 64 << 10;
const SEGMENT_BYTES: u64 = 4 << 20;
const SEGMENTS_KEPT: usize = 4;

fn main() {
    // As a test it only has to run.
    let groups = if std::env::args().any(|argument| argument == "--bench") { 12_000 } else { 200 };
    for prepares in [false, true] {
        measure(groups, prepares);
    }
}

fn measure(groups: u64, prepares: bool) {
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let options = LogOptions { segment_bytes: SEGMENT_BYTES, ..LogOptions::new(1, 1) };
    let (log, mut writer, _) = Log::open(disk, folder.path(), options).unwrap();
    let mut preparer = log.preparer();
    let preparing = prepares.then(|| {
        std::thread::spawn(move || {
            while preparer.step(Some(Duration::from_millis(100))) != Preparation::Closed {}
        })
    });
    let payload = Bytes::from(vec![0x5a; GROUP_BYTES]);
    let (mut staying, mut rotating) = (Vec::new(), Vec::new());
    for _ in 0..groups {
        let segment = log.segments().last().map(|segment| segment.id);
        let took = one_group(&log, &mut writer, &payload);
        let segments = log.segments();
        let rotated = segments.last().map(|segment| segment.id) != segment;
        if rotated { &mut rotating } else { &mut staying }.push(took);
        if segments.len() > SEGMENTS_KEPT {
            log.purge(segments.first().unwrap().next_index - 1).unwrap();
        }
    }
    log.close();
    preparing.into_iter().for_each(|thread| thread.join().unwrap());
    let who = if prepares { "files made ahead" } else { "files made by the writer" };
    println!("{who}, groups of {} KiB, segments of {} MiB", GROUP_BYTES >> 10, SEGMENT_BYTES >> 20);
    for (name, times) in [("go on", &mut staying), ("begin a segment", &mut rotating)] {
        times.sort_unstable();
        let at = |part: usize| {
            let place = (times.len() * part / 1_000).min(times.len().saturating_sub(1));
            times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        println!(
            "  {name:>15}: {:>6} groups, p50 {:.3} ms, p99 {:.3} ms, max {:.3} ms",
            times.len(),
            at(500),
            at(990),
            at(1_000)
        );
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn one_group(log: &Log, writer: &mut Writer, payload: &Bytes) -> Duration {
    let (kind, index) = (RecordKind::Commands, log.next_index());
    let record = Record { kind, index, term: 1, payload: payload.clone() };
    let begun = Instant::now();
    log.append(vec![record], Box::new(|_| {})).unwrap();
    writer.step(None);
    begun.elapsed()
}
