//! A single node whose disk has lost what no peer can give back: it refuses, says what and where,
//! and goes on without it only when told to, in a new lineage.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use quorate::replication::{AcceptLossError, StartError, accept_loss};
use quorate::supervisor::ExitCode;

use super::{disk, segments, snapshots, written_end};
use crate::stage::{Stage, Writer, number, until, update};

fn flip_middle(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = written_end(&bytes) / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// Every file below a folder and its bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    files
}

/// A single node that has taken so many updates, and snapshots where asked for.
async fn single_with(updates: u64, snapshot_at: Option<u64>) -> Stage {
    let mut stage = Stage::new(1, &["n1"]);
    stage.retention.segment_bytes = 4 << 10;
    stage.index_on_disk = true;
    stage.start_all().await;
    let node = stage.node("n1").clone();
    let mut writer = Writer::open(&node, 7).await;
    let topic = writer.add_topic("kept").await;
    for value in 1..=updates {
        writer.ask(&update(topic, value)).await;
        if Some(value) == snapshot_at {
            node.take_snapshot().await;
            let dir = stage.dir_of("n1");
            until("the snapshot is written", || !snapshots(&dir).is_empty()).await;
        }
    }
    drop((node, writer));
    stage.stop_all().await;
    stage
}

async fn refused(stage: &Stage) -> StartError {
    match stage.try_start("n1", stage.dir_of("n1")).await {
        Ok(_) => panic!("a single node with a hole has started"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_with_a_hole_refuses_names_it_and_goes_on_when_told_to() {
    let mut stage = single_with(300, None).await;
    let dir = stage.dir_of("n1");
    let damaged = segments(&dir)[2].clone();
    flip_middle(&damaged);
    let error = refused(&stage).await;
    assert_eq!(error.exit_code(), ExitCode::DAMAGED, "{error}");
    let text = error.to_string();
    for named in ["segment 3", "offset", "entry is", "quorate log repair --accept-loss"] {
        assert!(text.contains(named), "{named}: {text}");
    }
    assert!(text.contains(&dir.display().to_string()), "{text}");

    // A dry run says what would be lost and writes nothing.
    let before = files(&dir);
    let tried = accept_loss(&disk(), &dir, true).unwrap().unwrap();
    assert_eq!(files(&dir), before);
    assert_eq!(tried.loss.parts.len(), 1);
    assert!(refused(&stage).await.to_string().contains("segment 3"));

    let accepted = accept_loss(&disk(), &dir, false).unwrap().unwrap();
    assert_eq!(accepted.loss.parts, tried.loss.parts);
    assert_eq!(accepted.loss.kept, tried.loss.kept);
    let lost = accepted.loss.parts[0].lost.clone();
    assert_eq!(lost.start, accepted.loss.kept.end);
    assert!(lost.end > lost.start + 20, "{lost:?}");
    // Every byte that was there is still somewhere.
    let kept: Vec<Vec<u8>> =
        accepted.loss.quarantined.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(kept.contains(&before[&damaged]), "the damaged segment as it was");
    for later in segments_of(&before).into_iter().filter(|path| *path > damaged) {
        assert!(kept.contains(&before[&later]), "{}", later.display());
    }
    assert!(accept_loss(&disk(), &dir, false).unwrap().is_none(), "nothing is left to do");

    stage.start_all().await;
    let node = stage.node("n1").clone();
    assert_eq!(node.member().lineage, accepted.lineage);
    let value = number(&node, "kept").unwrap();
    assert!(value > 0 && value < 300, "{value}");
    // It serves and keeps what it acknowledges now.
    let mut writer = Writer::open(&node, 8).await;
    let topic = writer.add_topic("after").await;
    writer.ask(&update(topic, 1)).await;
    drop((node, writer));
    stage.stop_all().await;
    stage.start_all().await;
    assert_eq!(number(stage.node("n1"), "after"), Some(1));
    assert_eq!(number(stage.node("n1"), "kept"), Some(value));
    stage.stop_all().await;
}

fn segments_of(files: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<PathBuf> {
    let is_segment = |path: &&PathBuf| path.extension().is_some_and(|suffix| suffix == "seg");
    files.keys().filter(is_segment).cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_snapshot_covers_costs_history_and_no_state() {
    let mut stage = single_with(300, Some(200)).await;
    let dir = stage.dir_of("n1");
    flip_middle(&segments(&dir)[1]);
    assert!(matches!(refused(&stage).await, StartError::Hole { .. }));
    let accepted = accept_loss(&disk(), &dir, false).unwrap().unwrap();
    assert!(accepted.snapshot.is_some());
    assert!(accepted.loss.parts.iter().all(|part| part.lost.is_empty()), "{accepted:?}");
    stage.start_all().await;
    assert_eq!(number(stage.node("n1"), "kept"), Some(300));
    assert_eq!(stage.node("n1").member().lineage, accepted.lineage);
    stage.stop_all().await;
    // And once more, from the snapshot of the new lineage.
    stage.start_all().await;
    assert_eq!(number(stage.node("n1"), "kept"), Some(300));
    stage.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_a_cluster_is_not_asked_to_lose_anything() {
    let mut stage = Stage::three().await;
    stage.stop_all().await;
    let refused = accept_loss(&disk(), &stage.dir_of("n1"), false);
    assert!(matches!(refused, Err(AcceptLossError::HasPeers { founders: 3, .. })), "{refused:?}");
    let empty = tempfile::tempdir().unwrap();
    let refused = accept_loss(&disk(), empty.path(), false);
    assert!(matches!(refused, Err(AcceptLossError::NotAMember { .. })), "{refused:?}");
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
}
