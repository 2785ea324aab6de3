//! The real program on a disk that fails: system calls answered with an error by strace, and a
//! small file system that fills up.
//!
//! Short writes cannot be injected honestly into a process (strace would report them without any
//! byte being written); they are tested on the faulty disk, `storage/tests/log/faults.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use quorate::client::{Client, ErrorCode, Fetch, Patience, ReadLevel, RequestError, Target, Value};
use quorate::domain::topic::path::TopicPath;
use quorate::domain::topic::specification::{Specification, TopicType};

use super::harness::{say, wait};
use super::lone_node::{LoneNode, can_trace, page_at};

/// Updates that are unanswered at any time.
const WINDOW: usize = 8;
/// Which flush of a thread fails: the log writer gets there, no other does.
const FAILING_FLUSH: usize = 60;

fn path(text: &str) -> TopicPath {
    TopicPath::parse(text).unwrap()
}

async fn add(client: &Client, text: &str, topic_type: TopicType) -> Target {
    let added = client.add_topic(&path(text), &Specification::plain(topic_type)).await.unwrap();
    Target::Topic(added.topic)
}

async fn value_of(client: &Client, text: &str) -> Option<Vec<u8>> {
    let fetch = Fetch { selector: text.to_owned(), values: Some(0), ..Fetch::default() };
    let fetched = client.fetch(fetch, ReadLevel::Local).await.unwrap();
    fetched.topics.first().and_then(|topic| topic.value.as_ref()).map(|value| value.to_vec())
}

/// The updates whose bytes a flush of their file has covered before one failed, by the trace of
/// one thread that writes and flushes in turn; and how many flushes failed.
fn flushed(trace: &str) -> (BTreeSet<u64>, usize) {
    let mut begun: BTreeMap<&str, &str> = BTreeMap::new();
    let mut written: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    let (mut durable, mut failed) = (BTreeSet::new(), 0);
    for line in trace.lines() {
        let (thread, rest) = line.split_once(' ').unwrap_or_default();
        let rest = rest.trim_start();
        let (call, result) = if let Some(call) = rest.strip_suffix("<unfinished ...>") {
            begun.insert(thread, call);
            continue;
        } else if let Some((_, result)) = rest.split_once("resumed>") {
            (begun.remove(thread).unwrap_or_default(), result)
        } else {
            (rest, rest)
        };
        if call.starts_with("pwrite64(") {
            let updates = call.split("<update ").skip(1);
            let numbers = updates.filter_map(|rest| rest.split_once('>')?.0.parse::<u64>().ok());
            written.entry(thread).or_default().extend(numbers);
        } else if call.starts_with("fdatasync(") && result.contains("= -1 EIO") {
            failed += 1;
            written.remove(thread);
        } else if call.starts_with("fdatasync(") && failed == 0 {
            durable.extend(written.remove(thread).unwrap_or_default());
        }
    }
    (durable, failed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_flush_ends_the_program_with_70_and_acknowledges_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    if !can_trace(dir.path()) {
        return;
    }
    let node = LoneNode::new(dir.path(), dir.path());
    let trace = dir.path().join("trace");
    let inject = format!("inject=fdatasync:error=EIO:when={FAILING_FLUSH}");
    let trace_to = trace.to_string_lossy();
    let arguments =
        ["-s", "100000", "-e", "trace=pwrite64,fdatasync", "-e", &inject, "-o", &trace_to];
    let mut running = node.start(&arguments).serves();
    let patience = Patience { reconnect: Duration::from_secs(2), ..Patience::default() };
    let client = running.client(patience).await;
    let topic = add(&client, "kept", TopicType::String).await;
    let (mut pending, mut acknowledged, mut sent) = (Vec::new(), BTreeSet::new(), 0_u64);
    'writing: loop {
        while pending.len() < WINDOW {
            sent += 1;
            assert!(sent < 50_000, "no flush has failed");
            match client.update(&topic, Value::String(&format!("<update {sent}>"))).await {
                Ok(answer) => pending.push((sent, answer)),
                Err(_) => break 'writing,
            }
        }
        let (number, answer) = pending.remove(0);
        match answer.await {
            Ok(_) => acknowledged.insert(number),
            Err(_) => break,
        };
    }
    for (number, answer) in pending {
        if answer.await.is_ok() {
            acknowledged.insert(number);
        }
    }
    let status = running.ends();
    assert_eq!(status.code(), Some(70), "{}", running.log());
    let log = running.log();
    assert!(log.contains("Q-103") && log.contains("sync of"), "{log}");
    let (durable, failed) = flushed(&fs::read_to_string(&trace).unwrap());
    assert_eq!(failed, 1, "later flushes would have succeeded");
    assert!(acknowledged.len() > WINDOW, "{acknowledged:?}");
    let early: Vec<_> = acknowledged.difference(&durable).collect();
    assert!(early.is_empty(), "acknowledged without a flush that succeeded: {early:?}");
    say(&format!("{sent} sent, {} flushed, {} acknowledged", durable.len(), acknowledged.len()));
    drop(client);
    // The next start proves what it can read, and serves.
    let running = node.start(&[]).serves();
    let client = running.client(Patience::default()).await;
    let value = String::from_utf8(value_of(&client, "kept").await.unwrap()).unwrap();
    let last = value.trim_start_matches("<update ").trim_end_matches('>').parse::<u64>().unwrap();
    assert!(acknowledged.last().is_some_and(|newest| last >= *newest), "{last}");
    client.close().await;
    running.stop();
}

/// The check itself notices an acknowledgement that no flush covers.
#[test]
fn an_update_whose_flush_failed_is_not_taken_for_durable() {
    let write = |number| format!("7 pwrite64(5, \"..<update {number}>..\", 9, 0) = 9\n");
    let trace = [
        write(1),
        "7 fdatasync(5) = 0\n".to_owned(),
        write(2),
        "7 fdatasync(5 <unfinished ...>\n8 fdatasync(9) = 0\n".to_owned(),
        "7 <... fdatasync resumed>) = -1 EIO (Input/output error) (INJECTED)\n".to_owned(),
        write(3),
        "7 fdatasync(5) = 0\n".to_owned(),
    ]
    .concat();
    assert_eq!(flushed(&trace), ([1].into(), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_fails_while_opening_ends_the_program_with_73_and_the_files_name() {
    let dir = tempfile::tempdir().unwrap();
    if !can_trace(dir.path()) {
        return;
    }
    let node = LoneNode::new(dir.path(), dir.path());
    let running = node.start(&[]).serves();
    let client = running.client(Patience::default()).await;
    let topic = add(&client, "kept", TopicType::String).await;
    client.update(&topic, Value::String("here")).await.unwrap().await.unwrap();
    client.close().await;
    running.stop();
    let segment = segments(&node.dir).pop().unwrap();
    let segment = segment.to_string_lossy();
    let arguments = ["-P", &segment, "-e", "inject=pread64:error=EIO:when=1+", "-o", "/dev/null"];
    let mut running = node.start(&arguments);
    assert_eq!(running.ends().code(), Some(73), "{}", running.log());
    let log = running.log();
    assert!(log.contains("read of") && log.contains(&*segment), "{log}");
    // Nothing was changed by it.
    let running = node.start(&[]).serves();
    let client = running.client(Patience::default()).await;
    assert_eq!(value_of(&client, "kept").await.as_deref(), Some(&b"here"[..]));
    client.close().await;
    running.stop();
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir.join("log")).unwrap().flatten().map(|file| file.path());
    let mut segments: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|suffix| suffix == "seg")).collect();
    segments.sort();
    segments
}

/// Where no file system can be mounted, this is the full disk: twenty writes find no space.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_find_no_space_are_tried_again_and_acknowledged_then() {
    let dir = tempfile::tempdir().unwrap();
    if !can_trace(dir.path()) {
        return;
    }
    let node = LoneNode::new(dir.path(), dir.path());
    let inject =
        format!("inject=pwrite64:error=ENOSPC:when={FAILING_FLUSH}..{}", FAILING_FLUSH + 20);
    let arguments = ["-e", "trace=pwrite64", "-e", &inject, "-o", "/dev/null"];
    let running = node.start(&arguments).serves();
    let client = running.client(Patience::default()).await;
    let topic = add(&client, "kept", TopicType::String).await;
    let mut sent = 0_u64;
    while !running.log().contains("Q-105") {
        sent += 1;
        assert!(sent < 50_000, "the disk was never full:\n{}", running.log());
        client.update(&topic, Value::String(&sent.to_string())).await.unwrap().await.unwrap();
    }
    assert!(running.log().contains("Q-104"), "{}", running.log());
    client.close().await;
    running.stop();
    let running = node.start(&[]).serves();
    let client = running.client(Patience::default()).await;
    assert_eq!(value_of(&client, "kept").await, Some(sent.to_string().into_bytes()));
    client.close().await;
    running.stop();
}

/// A file system in memory of its own size.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(dir: &Path, size: &str) -> Option<Self> {
        fs::create_dir(dir).unwrap();
        let options = format!("size={size}");
        let arguments = ["-t", "tmpfs", "-o", &options, "none"];
        match Command::new("mount").args(arguments).arg(dir).output() {
            Ok(output) if output.status.success() => Some(Self(dir.to_owned())),
            other => {
                say(&format!("skipped: no file system can be mounted here: {other:?}"));
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _left_to_the_operator = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_makes_the_program_read_only_until_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("small"), "64m") else { return };
    let filler = disk.0.join("filler");
    fs::write(&filler, vec![1; 32 << 20]).unwrap();
    let node = LoneNode::new(dir.path(), &disk.0);
    let running = node.start(&[]).serves();
    let patience = Patience { request: Duration::from_secs(3), ..Patience::default() };
    let client = running.client(patience).await;
    // Many topics, so that no snapshot makes room.
    let mut written = 0;
    let failed = loop {
        let name = format!("filling/{written}");
        let refused =
            match client.add_topic(&path(&name), &Specification::plain(TopicType::Binary)).await {
                Ok(_) => client.set(&path(&name), Value::Binary(&[7; 256 << 10])).await.err(),
                Err(refused) => Some(refused),
            };
        if let Some(refused) = refused {
            break refused;
        }
        written += 1;
        assert!(written < 1_000, "the disk does not fill up");
    };
    let RequestError::OutcomeUnknown { parked, .. } = &failed else { panic!("{failed:?}") };
    assert_eq!(*parked, Some(ErrorCode::DiskFull), "{failed}");
    assert!(failed.to_string().contains("disk is full (509)"), "{failed}");
    // It says so, and reads go on.
    let ready = running.page("/ready");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("the disk is full"), "{ready}");
    assert!(running.page("/live").starts_with("HTTP/1.1 200"));
    let status = running.page("/status");
    assert!(status.contains("\"state\":\"read-only\""), "{status}");
    let last = format!("filling/{}", written - 1);
    assert_eq!(value_of(&client, &last).await.map(|value| value.len()), Some(256 << 10));
    assert!(running.log().contains("Q-104"), "{}", running.log());
    fs::remove_file(&filler).unwrap();
    let ready = wait(Duration::from_secs(30), || {
        running.page("/ready").starts_with("HTTP/1.1 200").then_some(())
    });
    assert!(ready.is_some(), "{}", running.log());
    assert!(running.log().contains("Q-105"), "{}", running.log());
    let topic = add(&client, "after", TopicType::String).await;
    client.update(&topic, Value::String("space")).await.unwrap().await.unwrap();
    client.close().await;
    running.stop();
    let running = node.start(&[]).serves();
    let client = running.client(Patience::default()).await;
    assert_eq!(value_of(&client, "after").await.as_deref(), Some(&b"space"[..]));
    for number in 0..written {
        let value = value_of(&client, &format!("filling/{number}")).await;
        assert_eq!(value.map(|value| value.len()), Some(256 << 10), "filling/{number}");
    }
    client.close().await;
    running.stop();
    say(&format!("{written} values of 256 KiB, then the disk was full, and then it was not"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_on_a_full_disk_and_serves_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("small"), "64m") else { return };
    let node = LoneNode::new(dir.path(), &disk.0);
    let running = node.start(&[]).serves();
    let client = running.client(Patience::default()).await;
    let topic = add(&client, "before", TopicType::String).await;
    client.update(&topic, Value::String("kept")).await.unwrap().await.unwrap();
    client.close().await;
    running.stop();
    let filler = disk.0.join("filler");
    let filled = fs::write(&filler, vec![1; 65 << 20]).unwrap_err();
    assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull);
    let mut running = node.start(&[]);
    let says_so = wait(Duration::from_secs(30), || {
        running.goes_on();
        running.log().contains("no space to write pid").then_some(())
    });
    assert!(says_so.is_some(), "{}", running.log());
    // Long enough for all that a start writes.
    wait(Duration::from_secs(5), || {
        running.goes_on();
        None::<()>
    });
    // Where it listens it could only say in its log.
    let log = running.log();
    let (_, http) = log.split_once("local=").unwrap();
    let http = http.split_whitespace().next().unwrap();
    assert!(page_at(http, "/live").starts_with("HTTP/1.1 200"), "{log}");
    assert!(page_at(http, "/ready").starts_with("HTTP/1.1 503"), "{log}");
    fs::remove_file(&filler).unwrap();
    let running = running.serves();
    let ready = wait(Duration::from_secs(30), || {
        running.page("/ready").starts_with("HTTP/1.1 200").then_some(())
    });
    assert!(ready.is_some(), "{}", running.log());
    let client = running.client(Patience::default()).await;
    assert_eq!(value_of(&client, "before").await.as_deref(), Some(&b"kept"[..]));
    let topic = add(&client, "after", TopicType::String).await;
    client.update(&topic, Value::String("space")).await.unwrap().await.unwrap();
    client.close().await;
    running.stop();
}
