//! The index of the log, damaged in every way, on one member of three and on a single node: it is
//! moved aside and made again from the log while the node serves, and nothing is lost.

use std::path::{Path, PathBuf};

use quorate::domain::id::TopicId;
use quorate::replication::Replication;
use quorate_storage::index::{HistoryKind, IndexedSegment};

use crate::stage::{Stage, Writer, number, until, update};

const UPDATES: u64 = 250;

/// What is done to the folder of a stopped node's index.
type Damage = (&'static str, fn(&Path));

const DAMAGES: [Damage; 6] = [
    ("folder missing", |dir| std::fs::remove_dir_all(dir).unwrap()),
    ("files truncated", |dir| {
        for path in files(dir) {
            let bytes = std::fs::metadata(&path).unwrap().len();
            std::fs::OpenOptions::new()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(bytes / 2)
                .unwrap();
        }
    }),
    ("files emptied", |dir| {
        for path in files(dir) {
            std::fs::write(path, b"").unwrap();
        }
    }),
    ("random bytes", |dir| {
        for path in files(dir) {
            let mut bytes = std::fs::read(&path).unwrap();
            let mut state = 0x9e37_79b9_7f4a_7c15_u64;
            for byte in bytes.iter_mut().step_by(37) {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
            std::fs::write(path, bytes).unwrap();
        }
    }),
    // What sled reads first is no such thing.
    ("garbage at open", |dir| {
        for path in files(dir) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name == "conf" || name.starts_with("snap") {
                std::fs::write(path, [0xff; 64]).unwrap();
            }
        }
    }),
    ("no folder but a file", |dir| {
        std::fs::remove_dir_all(dir).unwrap();
        std::fs::write(dir, b"no folder").unwrap();
    }),
];

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}

/// What the index answers.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    postings: Vec<quorate_storage::index::Posting>,
    history: Vec<quorate_storage::index::HistoryRow>,
}

fn told(node: &Replication, topic: TopicId, end: u64) -> Told {
    let key = topic.0.to_be_bytes();
    let of = |segment: &IndexedSegment| node.index().postings(segment.id, &key).unwrap();
    let postings = node.index().segments().iter().flat_map(of).collect();
    let session = 7_u64.to_be_bytes();
    let history = node.index().history(HistoryKind::Sessions, &session, 0..end).unwrap();
    Told { postings, history }
}

async fn indexed(node: &Replication, entry: u64, segments: usize) {
    until("the index is whole", || {
        node.index().coverage().contains(entry) && node.index().segments().len() >= segments
    })
    .await;
}

/// Damages the index of one node and starts it again; it serves at once and has it back later.
async fn survives(stage: &mut Stage, victim: &str, topic: TopicId) {
    let node = stage.node(victim).clone();
    let entry = node.journal().applied_now();
    let sealed = node.index().segments().len().max(3);
    indexed(&node, entry, sealed).await;
    let before = told(&node, topic, entry + 1);
    let segments = node.index().segments().len();
    assert!(before.postings.len() > 50 && !before.history.is_empty());
    drop(node);
    let mut value = UPDATES;
    for (number_of_damage, (what, damage)) in DAMAGES.into_iter().enumerate() {
        stage.stop(victim).await;
        let dir = stage.dir_of(victim).join("index");
        damage(&dir);
        stage.start(&[victim]).await;
        // It serves, whatever the index does.
        let leader = stage.leader().await;
        let mut writer = Writer::open(stage.node(&leader), 100 + number_of_damage as u64).await;
        value += 1;
        writer.ask(&update(topic, value)).await;
        drop(writer);
        stage.settle().await;
        assert_eq!(number(stage.node(victim), "told"), Some(value), "{what}");
        let node = stage.node(victim).clone();
        indexed(&node, entry, segments).await;
        let after = told(&node, topic, entry + 1);
        assert_eq!(after.history, before.history, "{what}");
        assert_eq!(after.postings[..before.postings.len()], before.postings[..], "{what}");
        assert_eq!(stage.up[victim].supervisor.exit(), None, "{what}");
    }
    let aside = std::fs::read_dir(stage.dir_of(victim))
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("index.damaged-"))
        .count();
    assert!(aside >= 3, "{aside} damaged indexes are kept");
}

async fn stage_of(expect: usize, nodes: &[&str]) -> (Stage, TopicId) {
    let mut stage = Stage::new(expect, nodes);
    stage.index_on_disk = true;
    stage.retention.segment_bytes = 4 << 10;
    stage.start_all().await;
    let leader = stage.leader().await;
    let mut writer = Writer::open(stage.node(&leader), 7).await;
    let topic = writer.add_topic("told").await;
    for value in 1..=UPDATES {
        writer.ask(&update(topic, value)).await;
    }
    drop(writer);
    stage.settle().await;
    (stage, topic)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_serves_while_its_damaged_index_is_made_again() {
    let (mut stage, topic) = stage_of(1, &["n1"]).await;
    survives(&mut stage, "n1", topic).await;
    stage.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_serves_while_its_damaged_index_is_made_again() {
    let (mut stage, topic) = stage_of(3, &["n1", "n2", "n3"]).await;
    let victim = stage.follower().await;
    survives(&mut stage, &victim, topic).await;
    stage.stop_all().await;
}

/// A store that breaks in the midst of a call, under a node that runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_breaks_in_a_call_is_made_again_under_a_running_node() {
    let mut stage = Stage::new(1, &["n1"]);
    stage.retention.segment_bytes = 4 << 10;
    let store = stage.index_in_memory();
    stage.start_all().await;
    let node = stage.node("n1").clone();
    let mut writer = Writer::open(&node, 7).await;
    let topic = writer.add_topic("told").await;
    let mut value = 0;
    for round in 0..3 {
        for _ in 0..100 {
            value += 1;
            writer.ask(&update(topic, value)).await;
        }
        let entry = node.journal().applied_now();
        indexed(&node, entry, 1).await;
        if round < 2 {
            store.fail_flushes(1);
        }
    }
    let entry = node.journal().applied_now();
    assert!(told(&node, topic, entry + 1).postings.len() > 200);
    assert_eq!(number(&node, "told"), Some(value));
    assert_eq!(stage.up["n1"].supervisor.exit(), None);
    drop((node, writer, store));
    stage.stop_all().await;
}
