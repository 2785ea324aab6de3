//! No acknowledgement before its flush: the system calls of a writer process, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use quorate_storage::disk::RealDisk;
use quorate_storage::{Disk, Log, LogOptions};

use crate::kill_loop::{DIR_VARIABLE, child_command, drive, say};
use crate::{CLUSTER, entry};

const ENTRIES: u64 = 200;

fn payload(index: u64) -> String {
    format!("<entry {index}>")
}

/// The child's part; as a test of its own it does nothing.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR_VARIABLE) else { return };
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let options = LogOptions { segment_bytes: 4 << 10, ..LogOptions::new(CLUSTER, 0x11) };
    let (log, writer, _) = Log::open(disk, Path::new(&dir), options).unwrap();
    let thread = drive(&log, writer);
    for index in 0..ENTRIES {
        let done = Box::new(move |result: Result<(), _>| {
            result.unwrap();
            say(&format!("acked {index}\n"));
        });
        log.append(vec![entry(index, 1, &payload(index))], done).unwrap();
        // Some travel alone, some in groups.
        while index % 3 == 0 && log.durable() != Some(index) {
            std::thread::yield_now();
        }
    }
    log.close();
    thread.join().unwrap();
}

/// What the trace has shown so far.
#[derive(Default)]
struct Trace {
    /// Calls that have begun and not ended, by thread.
    open: BTreeMap<u64, String>,
    /// Entries written to a file descriptor and not flushed.
    written: BTreeMap<u64, BTreeSet<u64>>,
    /// What a flush that has begun will cover, by thread.
    flushing: BTreeMap<u64, BTreeSet<u64>>,
    durable: BTreeSet<u64>,
    acknowledged: Vec<u64>,
}

impl Trace {
    /// A line of `strace -f`: thread, call, arguments, result.
    fn read(&mut self, line: &str) {
        let (thread, rest) = line.split_once(' ').unwrap_or_default();
        let thread = thread.parse().unwrap_or(0);
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            self.begin(thread, begun);
            self.open.insert(thread, begun.to_owned());
        } else if let Some((_, result)) = rest.split_once("resumed>") {
            let begun = self.open.remove(&thread).unwrap_or_default();
            self.end(thread, &begun, result);
        } else {
            self.begin(thread, rest);
            self.end(thread, rest, rest);
        }
    }

    /// A flush covers what was written when it began; an acknowledgement counts as it begins.
    fn begin(&mut self, thread: u64, call: &str) {
        let descriptor = descriptor(call);
        if call.starts_with("fdatasync(") {
            let covered = self.written.get(&descriptor).cloned().unwrap_or_default();
            self.flushing.insert(thread, covered);
        } else if call.starts_with("write(1,")
            && let Some(index) = numbers_after(call, "acked ").next()
        {
            assert!(self.durable.contains(&index), "{index} acknowledged before its flush");
            self.acknowledged.push(index);
        }
    }

    fn end(&mut self, thread: u64, call: &str, result: &str) {
        let descriptor = descriptor(call);
        if call.starts_with("fdatasync(") {
            let covered = self.flushing.remove(&thread).unwrap_or_default();
            assert!(result.trim_end().ends_with("= 0"), "{result}");
            self.durable.extend(covered);
        } else if call.starts_with("pwrite64(") {
            // A descriptor may be used again for the next segment; what counts is still its flush.
            let entries = numbers_after(call, "<entry ");
            self.written.entry(descriptor).or_default().extend(entries);
        }
    }
}

fn descriptor(call: &str) -> u64 {
    let digits = call.split_once('(').map_or("", |(_, arguments)| arguments);
    digits.split(|letter: char| !letter.is_ascii_digit()).next().unwrap_or("").parse().unwrap_or(0)
}

fn numbers_after<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = u64> + 'a {
    text.split(before)
        .skip(1)
        .filter_map(|rest| rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok())
}

#[test]
fn the_covering_flush_precedes_each_acknowledgement() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, trace_file) = (folder.path().join("log"), folder.path().join("trace"));
    let child = child_command("flush_order::child", &dir);
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-s", "1000000", "-e", "trace=fdatasync,pwrite64,write", "-o"])
        .arg(&trace_file)
        .arg(child.get_program())
        .args(child.get_args())
        .env(DIR_VARIABLE, &dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let output = match strace.output() {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: strace cannot be run here: {error}");
            return;
        }
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("ptrace") && said.contains("not permitted") {
        println!("skipped: strace may not trace here: {said}");
        return;
    }
    assert!(output.status.success(), "{said}");
    let mut trace = Trace::default();
    for line in std::fs::read_to_string(&trace_file).unwrap().lines() {
        trace.read(line);
    }
    assert_eq!(trace.acknowledged, (0..ENTRIES).collect::<Vec<_>>());
    println!("{ENTRIES} acknowledgements, each after its flush");
}

/// The check itself notices an acknowledgement that comes too early.
#[test]
fn an_early_acknowledgement_is_noticed() {
    let written = r#"7 pwrite64(5, "<entry 1>", 9, 0) = 9"#;
    let flush_begins = "7 fdatasync(5 <unfinished ...>";
    let flush_ends = "7 <... fdatasync resumed>) = 0";
    let acked = r#"8 write(1, "acked 1\n", 8) = 8"#;
    let holds = |lines: &[&str]| {
        std::panic::catch_unwind(|| {
            let mut trace = Trace::default();
            lines.iter().for_each(|line| trace.read(line));
        })
        .is_ok()
    };
    assert!(holds(&[written, flush_begins, flush_ends, acked]));
    assert!(!holds(&[written, flush_begins, acked, flush_ends]));
    assert!(!holds(&[flush_begins, written, flush_ends, acked]));
    assert!(!holds(&[written, acked]));
}
