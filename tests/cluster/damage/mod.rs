//! What a member's disk may do to it: torn ends, holes, a log that is gone.

mod divergence;
mod index;
mod loss;
mod repair;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate::replication::StartError;
use quorate::supervisor::ExitCode;
use quorate_storage::disk::{Disk, RealDisk};

use crate::stage::{Stage, Writer, number, update};

fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

/// The segments of a node's log, oldest first.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir.join("log")).unwrap().flatten().map(|file| file.path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|suffix| suffix == "seg")).collect();
    files.sort();
    files
}

/// The whole snapshots of a node.
fn snapshots(dir: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir.join("snapshots")).unwrap().flatten();
    files
        .map(|file| file.path())
        .filter(|path| path.to_string_lossy().ends_with(".snapshot"))
        .collect()
}

/// The active segment of a stopped node: the newest file of its log that holds records.
fn active_segment(log: &Path) -> PathBuf {
    let mut files: Vec<PathBuf> = std::fs::read_dir(log)
        .unwrap()
        .flatten()
        .map(|file| file.path())
        .filter(|path| path.is_file() && path.to_string_lossy().contains("seg"))
        .collect();
    files.sort();
    files.pop().unwrap()
}

/// The end of what was written into a segment; behind it there are zeros only.
fn written_end(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

/// Leaves half a record behind the end of the log, as a write does that a power cut has torn.
fn tear(log: &Path) {
    let path = active_segment(log);
    let mut bytes = std::fs::read(&path).unwrap();
    let end = written_end(&bytes);
    bytes.resize(bytes.len().max(end + 64), 0);
    bytes[end..end + 64].fill(0xab);
    std::fs::write(&path, bytes).unwrap();
}

async fn three_with_a_value() -> (Stage, Writer, quorate::domain::id::TopicId) {
    let stage = Stage::three().await;
    let leader = stage.leader().await;
    let mut writer = Writer::open(stage.node(&leader), 7).await;
    let topic = writer.add_topic("kept").await;
    for value in 1..=20 {
        writer.ask(&update(topic, value)).await;
    }
    stage.settle().await;
    (stage, writer, topic)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_tail_catches_up_before_it_votes_again() {
    let (mut stage, _writer, _topic) = three_with_a_value().await;
    let torn = stage.follower().await;
    stage.stop(&torn).await;
    tear(&stage.dir_of(&torn).join("log"));
    stage.start(&[&torn]).await;
    stage.settle().await;
    assert_eq!(number(stage.node(&torn), "kept"), Some(20));
    // It counts again: with one of the others away it makes the quorum.
    let away = stage.follower().await;
    let away = if away == torn { stage.leader().await } else { away };
    stage.stop(&away).await;
    let rest: Vec<String> = stage.up.keys().cloned().collect();
    let node = stage.node(&rest[0]).clone();
    let mut its = Writer::open(&node, 9).await;
    its.add_topic("after").await;
    stage.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_power_cut_torn_tails_found_a_quorum_again() {
    let (mut stage, _writer, _topic) = three_with_a_value().await;
    stage.stop_all().await;
    for node in ["n1", "n2", "n3"] {
        tear(&stage.dir_of(node).join("log"));
    }
    stage.start_all().await;
    stage.settle().await;
    for node in ["n1", "n2", "n3"] {
        assert_eq!(number(stage.node(node), "kept"), Some(20));
    }
    stage.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_cuts_a_torn_tail_and_serves() {
    let mut stage = Stage::new(1, &["n1"]);
    stage.start_all().await;
    let mut writer = Writer::open(stage.node("n1"), 7).await;
    let topic = writer.add_topic("kept").await;
    writer.ask(&update(topic, 3)).await;
    stage.stop_all().await;
    tear(&stage.dir_of("n1").join("log"));
    stage.start_all().await;
    assert_eq!(number(stage.node("n1"), "kept"), Some(3));
    stage.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_log_is_gone_does_not_start() {
    let (mut stage, _writer, _topic) = three_with_a_value().await;
    stage.stop("n2").await;
    std::fs::remove_dir_all(stage.dir_of("n2").join("log")).unwrap();
    let refused = stage.try_start("n2", stage.dir_of("n2")).await;
    let Err(error) = refused else { panic!("a member without its log has started") };
    assert_eq!(error.exit_code(), ExitCode::DAMAGED, "{error}");
    // Nor without its identity.
    stage.stop("n3").await;
    for file in std::fs::read_dir(stage.dir_of("n3")).unwrap().flatten() {
        if file.file_name().to_string_lossy().starts_with("identity") {
            std::fs::remove_file(file.path()).unwrap();
        }
    }
    let refused = stage.try_start("n3", stage.dir_of("n3")).await;
    let Err(error) = refused else { panic!("a member without its identity has started") };
    assert!(matches!(error, StartError::IdentityMissing { .. }), "{error}");
    stage.stop_all().await;
}
