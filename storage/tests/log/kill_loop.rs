//! A writer process that is killed again and again, on the real disk.
//!
//! The child is this test binary with an environment variable; it tells through a pipe what has
//! been acknowledged. A killed process keeps its page cache, so this finds faults of recovery, not
//! of flushing: those are for the simulated disk and `flush_order`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use quorate_storage::disk::RealDisk;
use quorate_storage::{Disk, Log, LogOptions, Preparation, Record, Step, Tail};

use crate::{CLUSTER, Driven, entry, no_matter};

pub(crate) const DIR_VARIABLE: &str = "QUORATE_TEST_WRITER_DIR";
const ROUNDS: u64 = 60;
/// Lines that a child says at most; it ends by itself if nobody kills it.
const LINES_MAX: u64 = 20_000;

fn child_options() -> LogOptions {
    LogOptions {
        segment_bytes: 64 << 10,
        tail_bytes_max: 4 << 10,
        ..LogOptions::new(CLUSTER, 0x11)
    }
}

fn payload(index: u64, term: u64) -> String {
    format!("entry {index} of term {term};").repeat(1 + index as usize % 5)
}

fn batch(first: u64, count: u64, term: u64) -> Vec<Record> {
    (first..first + count).map(|index| entry(index, term, &payload(index, term))).collect()
}

/// Starts `child` of this test binary on a folder.
pub(crate) fn child_command(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(DIR_VARIABLE, dir);
    command
}

/// Says a line at once, past the test harness.
pub(crate) fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(line.as_bytes()).unwrap();
    stdout.flush().unwrap();
}

/// Drives a log's preparer and writer until the log is closed.
pub(crate) fn drive(log: &Log, mut writer: quorate_storage::Writer) -> JoinHandle<()> {
    let mut preparer = log.preparer();
    std::thread::spawn(move || {
        while preparer.step(Some(Duration::from_millis(100))) != Preparation::Closed {}
    });
    std::thread::spawn(
        move || {
            while writer.step(Some(Duration::from_millis(100))) != Step::Closed {}
        },
    )
}

/// The child's part; as a test of its own it does nothing.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR_VARIABLE) else { return };
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let (log, writer, _) = Log::open(disk, Path::new(&dir), child_options()).unwrap();
    let thread = drive(&log, writer);
    let waiting = Arc::new(AtomicU64::new(0));
    let mut term = log.last().map_or(1, |(_, term)| term + 1);
    for round in 0..LINES_MAX {
        // At most so many wait; the completions come from the writer's thread.
        while log.queued_bytes() > 8 << 10 {
            std::thread::yield_now();
        }
        let next = log.next_index();
        match round % 64 {
            20 if next > log.first_index() + 5 => {
                // What is acknowledged before the cut is said before it.
                while waiting.load(Ordering::Acquire) > 0 {
                    std::thread::yield_now();
                }
                say(&format!("cut {}\n", next - 3));
                log.truncate_after(Some(next - 4), no_matter()).unwrap();
                term += 1;
            }
            40 => log.save_hard_state(format!("vote {term}").into(), no_matter()).unwrap(),
            60 => {
                if let Some(upto) = log.durable().and_then(|durable| durable.checked_sub(500))
                    && upto >= log.first_index()
                {
                    say(&format!("purge {upto}\n"));
                    log.purge(upto).unwrap();
                }
            }
            _ => {
                let count = 1 + round % 4;
                waiting.fetch_add(1, Ordering::AcqRel);
                let waiting = Arc::clone(&waiting);
                let done = Box::new(move |result: Result<(), _>| {
                    if result.is_ok() {
                        say(&format!("acked {next} {count} {term}\n"));
                    }
                    waiting.fetch_sub(1, Ordering::AcqRel);
                });
                log.append(batch(next, count, term), done).unwrap();
            }
        }
    }
    log.close();
    thread.join().unwrap();
}

/// What the children have said so far.
#[derive(Default)]
struct Heard {
    /// Acknowledged entries and their terms.
    acknowledged: BTreeMap<u64, u64>,
    purged: u64,
    lines: u64,
}

impl Heard {
    fn hear(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let word = words.next();
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        match (word, number(), number(), number()) {
            (Some("acked"), Some(first), Some(count), Some(term)) => {
                self.acknowledged.extend((first..first + count).map(|index| (index, term)));
            }
            (Some("cut"), Some(next), ..) => drop(self.acknowledged.split_off(&next)),
            (Some("purge"), Some(upto), ..) => self.purged = upto + 1,
            _ => return,
        }
        self.lines += 1;
    }

    fn check(&mut self, log: &Log) {
        assert!(log.first_index() <= self.purged);
        self.acknowledged = self.acknowledged.split_off(&log.first_index());
        for record in crate::contents(log) {
            let (index, term) = (record.index, record.term);
            assert_eq!(record, entry(index, term, &payload(index, term)));
            if let Some(acknowledged) = self.acknowledged.remove(&index) {
                assert_eq!(term, acknowledged);
            }
        }
        assert!(self.acknowledged.is_empty(), "lost: {:?}", self.acknowledged);
    }
}

/// Ends the child even when the test fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn sixty_killed_writers_lose_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("log");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let (mut total, mut purged) = (0, 0);
    for round in 0..ROUNDS {
        let mut heard = Heard { purged, ..Heard::default() };
        {
            let mut command = child_command("kill_loop::child", &dir);
            let mut child = Killed(command.stdout(Stdio::piped()).spawn().unwrap());
            let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
            let enough = 1 + (round * 37) % 150;
            while heard.lines < enough {
                heard.hear(&lines.next().expect("the child goes on until it is killed").unwrap());
            }
            child.0.kill().unwrap();
            // What it said before it died counts too.
            lines.map_while(Result::ok).for_each(|line| heard.hear(&line));
        }
        total += heard.acknowledged.len();
        let log = Driven::open_with(&disk, &dir, child_options()).unwrap();
        assert!(log.report.hard_state_proven);
        heard.check(&log.log);
        purged = heard.purged;
        if let Tail::Cut(_) = log.report.tail {
            // A write cut short by the kill: nobody was told of it.
            log.log.settle_doubts().unwrap();
        }
    }
    println!("{ROUNDS} killed writers, {total} acknowledged entries checked");
    assert!(total > 1_000);
}
