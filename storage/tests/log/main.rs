//! The log against its promises: one contract on every disk, damage, faults, crashes, killed
//! writers, kept formats.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test helpers stand outside of #[test] functions"
)]

mod contract;
mod crash_points;
mod damage;
mod faults;
mod fixtures;
mod flush_order;
mod fuzz_bodies;
mod kill_loop;
mod loss;
mod repair;
mod rotation;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use bytes::Bytes;
use quorate_storage::{
    Completion, Disk, Log, LogOptions, OpenError, OpenReport, Poisoned, Record, RecordKind, Step,
    Writer,
};

const CLUSTER: u64 = 0xc1;

fn options() -> LogOptions {
    LogOptions { segment_bytes: 4096, ..LogOptions::new(CLUSTER, 0x11) }
}

fn entry(index: u64, term: u64, payload: &str) -> Record {
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    Record { kind: RecordKind::Commands, index, term, payload }
}

fn entries(range: std::ops::Range<u64>, term: u64) -> Vec<Record> {
    range.map(|index| entry(index, term, &format!("entry {index} of term {term}"))).collect()
}

/// A completion and where its result arrives.
fn completion() -> (Completion, Receiver<Result<(), Poisoned>>) {
    let (sender, receiver) = sync_channel(1);
    (Box::new(move |result| sender.send(result).unwrap()), receiver)
}

fn no_matter() -> Completion {
    Box::new(|_| {})
}

/// A log with its writer, driven by the test.
struct Driven {
    log: Log,
    writer: Writer,
    report: OpenReport,
}

impl Driven {
    fn open(disk: &Arc<dyn Disk>, dir: &Path) -> Self {
        Self::try_open(disk, dir).unwrap()
    }

    fn try_open(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Self, OpenError> {
        Self::open_with(disk, dir, options())
    }

    fn open_with(disk: &Arc<dyn Disk>, dir: &Path, options: LogOptions) -> Result<Self, OpenError> {
        let (log, writer, report) = Log::open(Arc::clone(disk), dir, options)?;
        Ok(Self { log, writer, report })
    }

    /// Flushes everything queued.
    fn drain(&mut self) {
        while matches!(self.writer.step(None), Step::Flushed { .. }) {}
    }

    /// Appends and flushes as one group.
    fn append(&mut self, records: Vec<Record>) {
        let (done, result) = completion();
        self.log.append(records, done).unwrap();
        self.drain();
        result.try_recv().unwrap().unwrap();
    }

    fn save_hard_state(&mut self, state: &'static str) {
        let (done, result) = completion();
        self.log.save_hard_state(Bytes::from_static(state.as_bytes()), done).unwrap();
        self.drain();
        result.try_recv().unwrap().unwrap();
    }

    fn truncate_after(&mut self, last_kept: Option<u64>) {
        let (done, result) = completion();
        self.log.truncate_after(last_kept, done).unwrap();
        self.drain();
        result.try_recv().unwrap().unwrap();
    }

    fn contents(&self) -> Vec<Record> {
        contents(&self.log)
    }
}

fn contents(log: &Log) -> Vec<Record> {
    let (first, next) = (log.first_index(), log.next_index());
    if first == next { Vec::new() } else { log.read(first..next, usize::MAX).unwrap() }
}
