//! Snapshots that travel, and what stays on disk in the long run.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate::clock::Clock;
use quorate::domain::command::{Command, TypedValue};
use quorate::domain::id::TopicId;
use quorate::domain::outcome::Outcome;
use quorate::domain::topic::specification::{Specification, TopicType};
use quorate_storage::disk::{FaultyDisk, RealDisk};

use crate::stage::{PATIENCE, Stage, Writer, path, until};

const VALUE_BYTES: usize = 64 << 10;

async fn add_binary(writer: &mut Writer, text: &str) -> TopicId {
    let specification = Specification::plain(TopicType::Binary);
    let (outcome, _) = writer.ask(&Command::AddTopic { path: path(text), specification }).await;
    let Outcome::Topic { id, .. } = outcome else { panic!("{outcome:?}") };
    id
}

fn set_bytes(topic: TopicId, bytes: Vec<u8>) -> Command {
    let value = TypedValue { value_type: TopicType::Binary, bytes: Some(Bytes::from(bytes)) };
    Command::Update { topic, stream: None, value }
}

fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.filter(|path| path.to_string_lossy().ends_with(suffix)).collect()
}

fn bytes_in(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|data| data.len()).sum()
}

/// A cluster of which one member is away, behind the purge point by a snapshot of some size.
async fn one_is_behind() -> (Stage, Writer, TopicId, String) {
    let mut stage = Stage::new(3, &["n1", "n2", "n3"]);
    stage.retention.segment_bytes = 1 << 20;
    stage.retention.snapshot_every_bytes = 4 << 20;
    stage.retention.retain_bytes = 0;
    stage.start_all().await;
    let away = stage.follower().await;
    let leader = stage.leader().await;
    let mut writer = Writer::open(stage.node(&leader), 7).await;
    stage.settle().await;
    stage.stop(&away).await;
    let last = fill(&mut writer, 200).await;
    let purged = |node: &str| {
        let mut segments = files(&stage.dir_of(node).join("log"), ".seg");
        segments.sort();
        !segments[0].ends_with("0000000000000001.seg")
    };
    let rest: Vec<&String> = stage.up.keys().collect();
    until("both others have purged", || rest.iter().all(|node| purged(node))).await;
    // Both end at the same entry with a snapshot that no newer one follows, the same on both:
    // whoever leads then offers this one. Entries of the cluster's own may still come.
    let taken = async {
        loop {
            let newest = format!("/{:020}-", stage.settle().await);
            let has_newest = |node: &&String| {
                let snapshots = files(&stage.dir_of(node).join("snapshots"), ".snapshot");
                snapshots.iter().any(|path| path.to_string_lossy().contains(&newest))
            };
            if rest.iter().all(has_newest) {
                return;
            }
            for node in &rest {
                stage.node(node).take_snapshot().await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.expect("a snapshot of all that there is");
    (stage, writer, last, away)
}

/// Topics whose values do not compress into less than they are.
async fn fill(writer: &mut Writer, topics: usize) -> TopicId {
    let mut last = TopicId(0);
    for number in 0..topics {
        last = add_binary(writer, &format!("large/{number}")).await;
        writer.send(&set_bytes(last, vec![number as u8; VALUE_BYTES])).await;
        while writer.in_flight() > 8 {
            writer.hear().await;
        }
    }
    while writer.in_flight() > 0 {
        writer.hear().await;
    }
    last
}

/// Times that a sender may come to offer another snapshot than the one that was begun.
const TRIES: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_whose_receiver_ends_midway_goes_on_where_it_was() {
    for _ in 0..TRIES {
        if receive_in_two_parts().await {
            return;
        }
    }
    panic!("each time another snapshot was offered than the one that was begun");
}

/// True: the file that was begun became the file that is whole. False: it was not offered any more.
async fn receive_in_two_parts() -> bool {
    let (mut stage, mut writer, last, away) = one_is_behind().await;
    let snapshots = stage.dir_of(&away).join("snapshots");
    let disk = FaultyDisk::new(Arc::new(RealDisk));
    // Nothing more of it comes to the disk then.
    disk.fill_by(".partial", 3 << 20);
    stage.disks.insert(away.clone(), disk.clone());
    let sender = stage.leader().await;
    let offered = |stage: &Stage| {
        let mut names = files(&stage.dir_of(&sender).join("snapshots"), ".snapshot");
        names.sort();
        names.pop().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
    };
    let running = stage.try_start(&away, stage.dir_of(&away)).await.unwrap();
    let midway = || {
        let partial = files(&snapshots, ".partial").pop()?;
        let data = std::fs::metadata(partial).ok()?;
        (data.len() > 2 << 20).then_some(data.ino())
    };
    let mut inode = None;
    until("part of the snapshot is here", || {
        inode = midway();
        inode.is_some()
    })
    .await;
    running.node.stop(Duration::from_millis(100)).await;
    drop(running);
    disk.set_full(false);
    assert_eq!(midway(), inode, "it was stopped before the file was whole");
    let partial = files(&snapshots, ".partial").pop().unwrap();
    // The node's own next snapshot takes its place in the end.
    let (went_on, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let start = async {
        stage.start(&[&away]).await;
        stage.settle().await;
        over.store(true, Ordering::Relaxed);
    };
    let watch = async {
        while !over.load(Ordering::Relaxed) {
            let whole = files(&snapshots, ".snapshot");
            let is_it = |path| std::fs::metadata(path).is_ok_and(|data| Some(data.ino()) == inode);
            went_on.fetch_or(whole.iter().any(is_it), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::join!(start, watch);
    let went_on = went_on.into_inner();
    let begun = partial.file_name().unwrap().to_string_lossy().into_owned();
    let is_offered = stage.leader().await == sender
        && offered(&stage).is_some_and(|newest| begun.starts_with(&newest));
    assert!(went_on || !is_offered, "{begun} was begun, is offered, and was never whole");
    assert_eq!(writer.ask(&set_bytes(last, b"after".to_vec())).await.0, Outcome::Done);
    stage.settle().await;
    stage.stop_all().await;
    went_on
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_whose_sender_ends_midway_comes_from_another() {
    let (mut stage, writer, _, away) = one_is_behind().await;
    drop(writer);
    let snapshots = stage.dir_of(&away).join("snapshots");
    let sender = stage.leader().await;
    let running = stage.try_start(&away, stage.dir_of(&away)).await.unwrap();
    until("part of the snapshot is here", || {
        files(&snapshots, ".partial")
            .iter()
            .any(|path| std::fs::metadata(path).is_ok_and(|data| data.len() > 1 << 20))
    })
    .await;
    stage.up.insert(away.clone(), running);
    stage.stop(&sender).await;
    let started = stage.node(&away).started();
    tokio::time::timeout(PATIENCE, started).await.expect("the other one sends its own");
    stage.start(&[&sender]).await;
    stage.settle().await;
    stage.stop_all().await;
}

/// Days of a week that is compressed, and what is written on each.
const DAYS: u64 = 7;
const UPDATES_PER_DAY: u64 = 80;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_week_of_updates_takes_no_more_disk_than_the_settings_say() {
    let mut stage = Stage::new(1, &["n1"]);
    let retention = &mut stage.retention;
    retention.segment_bytes = 256 << 10;
    retention.snapshot_every_bytes = 512 << 10;
    retention.retain_bytes = 1 << 20;
    let (segment_bytes, snapshot_every) = (retention.segment_bytes, retention.snapshot_every_bytes);
    let retain_bytes = retention.retain_bytes;
    stage.start_all().await;
    let mut writer = Writer::open(stage.node("n1"), 7).await;
    let topic = add_binary(&mut writer, "weekly").await;
    let dir = stage.dir_of("n1");
    let snapshot_bytes = (VALUE_BYTES + (64 << 10)) as u64;
    // What must be kept, what a snapshot may wait for, the active segment and the one made ahead,
    // and the twin files; the snapshots are of one topic, and those below the log are pruned.
    let log_max = retain_bytes + snapshot_every + 4 * segment_bytes + (64 << 10);
    let snapshots_max = (2 + (retain_bytes + 2 * snapshot_every) / snapshot_every) * snapshot_bytes;
    let mut written = 0;
    for day in 0..DAYS {
        for update in 0..UPDATES_PER_DAY {
            let value = (day * UPDATES_PER_DAY + update).to_le_bytes();
            let value: Vec<u8> = value.into_iter().cycle().take(VALUE_BYTES).collect();
            writer.ask(&set_bytes(topic, value)).await;
            written += VALUE_BYTES as u64;
        }
        let mut last = (0, 0);
        let bounded = tokio::time::timeout(PATIENCE, async {
            loop {
                last = (bytes_in(&dir.join("log")), bytes_in(&dir.join("snapshots")));
                if last.0 <= log_max && last.1 <= snapshots_max {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        bounded.await.unwrap_or_else(|_| {
            panic!("day {day}: {last:?} bytes of at most {log_max} and {snapshots_max}")
        });
    }
    assert!(written > 10 * (log_max + snapshots_max), "the bound was put to the test");
    stage.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_older_than_the_settings_say_goes_whatever_its_length() {
    let mut stage = Stage::new(1, &["n1"]);
    stage.retention.segment_bytes = 256 << 10;
    stage.retention.snapshot_every_bytes = 512 << 10;
    // Neither day nor length lets go of anything yet.
    let now_ms = Clock::system().wall_ms();
    stage.clock = Clock::starting_at(now_ms);
    stage.start_all().await;
    let mut writer = Writer::open(stage.node("n1"), 7).await;
    let topic = add_binary(&mut writer, "old").await;
    for number in 0..64_u8 {
        writer.ask(&set_bytes(topic, vec![number; VALUE_BYTES])).await;
    }
    let dir = stage.dir_of("n1");
    until("there are snapshots", || !files(&dir.join("snapshots"), ".snapshot").is_empty()).await;
    let segments = || files(&dir.join("log"), ".seg").len();
    let before = segments();
    assert!(before >= 16, "{before} segments");
    stage.stop_all().await;
    // A week later.
    stage.clock = Clock::starting_at(now_ms + 7 * 24 * 3_600_000);
    stage.start_all().await;
    until("the old segments are gone", || segments() <= before / 2).await;
    stage.stop_all().await;
}
