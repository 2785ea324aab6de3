//! A node whose state is not what the others hold, planted through a snapshot that is whole in every
//! byte and wrong in its content.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use quorate::domain::command::Command;
use quorate::domain::entry::{Origin, Payload, Proposal};
use quorate::domain::id::TopicId;
use quorate::domain::machine::Machine;
use quorate::replication::NodeState;
use quorate_storage::disk::RealDisk;
use quorate_storage::snapshot::{Catalogue, SnapshotHead};

use super::snapshots;
use crate::stage::{PATIENCE, Stage, Writer, number, until, update};

/// Entries between two comparisons.
const COMPARE_EVERY: u64 = 1_024;

/// Replaces the newest snapshot of a stopped node by one that holds something else.
fn plant(dir: &Path) -> u64 {
    let dir = dir.join("snapshots");
    let (catalogue, aside) = Catalogue::open(Arc::new(RealDisk), &dir, None).unwrap();
    assert!(aside.is_empty());
    let (reader, _) = catalogue.newest_verified().unwrap();
    let reader = reader.unwrap();
    let mut machine = Machine::from_records(reader.records().map(Result::unwrap)).unwrap();
    let right = machine.hash();
    let command = Command::SetAnonymous { allowed: false }.encode();
    let payload = Payload {
        log_time_ms: machine.log_time_ms(),
        wall_time_ms: 0,
        proposals: vec![Proposal { origin: Origin::default(), command }],
    };
    machine.apply(reader.head().index, &payload);
    assert_ne!(machine.hash(), right);
    let old = catalogue.newest().unwrap().id;
    let head = SnapshotHead { state_hash: machine.hash(), ..reader.head().clone() };
    let written = catalogue.write(head, machine.to_records()).unwrap();
    std::fs::remove_file(dir.join(old.file_name())).unwrap();
    written.id.index
}

async fn write_until(stage: &Stage, writer: &mut Writer, topic: TopicId, entry: u64) {
    let mut value = number(stage.node("n1"), "kept").unwrap_or(0);
    while stage.node("n1").journal().applied_now() < entry {
        value += 1;
        writer.ask(&update(topic, value)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_a_majority_does_not_share_is_quarantined_and_healed() {
    quarantined_and_healed(false).await;
}

/// A leader besides hands leadership on: it orders, but knows nothing right to answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_state_diverged_hands_leadership_on_and_is_healed() {
    quarantined_and_healed(true).await;
}

async fn quarantined_and_healed(as_leader: bool) {
    let mut stage = Stage::three().await;
    let leader = stage.leader().await;
    let mut writer = Writer::open(stage.node(&leader), 7).await;
    let topic = writer.add_topic("kept").await;
    for value in 1..=20 {
        writer.ask(&update(topic, value)).await;
    }
    stage.settle().await;
    let victim = stage.follower().await;
    stage.node(&victim).take_snapshot().await;
    let dir = stage.dir_of(&victim);
    until("the snapshot is written", || !snapshots(&dir).is_empty()).await;
    stage.stop(&victim).await;
    plant(&dir);
    stage.start(&[&victim]).await;
    while as_leader && stage.leader().await != victim {
        let leader = stage.leader().await;
        stage.node(&leader).hand_over(PATIENCE).await;
    }
    let mut states = stage.node(&victim).state();
    // The next comparison finds it.
    let watched = async move {
        let mut seen = BTreeMap::new();
        loop {
            let state = *states.borrow_and_update();
            *seen.entry(state.as_str()).or_insert(0) += 1;
            if state == NodeState::Ready && seen.contains_key("quarantined") {
                return seen;
            }
            if states.changed().await.is_err() {
                return seen;
            }
        }
    };
    let writing = write_until(&stage, &mut writer, topic, COMPARE_EVERY + 20);
    let both = async { tokio::join!(watched, writing) };
    let (seen, ()) = tokio::time::timeout(2 * PATIENCE, Box::pin(both)).await.unwrap();
    assert_eq!(seen.get("quarantined"), Some(&1), "{seen:?}");
    assert!(!as_leader || stage.leader().await != victim, "it still leads");
    // It votes as before and holds what the others hold, and so do its snapshots.
    stage.settle().await;
    write_until(&stage, &mut writer, topic, 2 * COMPARE_EVERY + 20).await;
    drop(writer);
    stage.settle().await;
    assert_eq!(*stage.node(&victim).state().borrow(), NodeState::Ready);
    stage.stop_all().await;
    stage.start_all().await;
    stage.settle().await;
    stage.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_against_it_a_divergence_alarms_only() {
    let mut stage = Stage::new(2, &["n1", "n2"]);
    stage.start_all().await;
    let leader = stage.leader().await;
    let mut writer = Writer::open(stage.node(&leader), 7).await;
    let topic = writer.add_topic("kept").await;
    writer.ask(&update(topic, 1)).await;
    let victim = stage.follower().await;
    stage.node(&victim).take_snapshot().await;
    let dir = stage.dir_of(&victim);
    until("the snapshot is written", || !snapshots(&dir).is_empty()).await;
    drop(writer);
    stage.stop(&victim).await;
    plant(&dir);
    stage.start(&[&victim]).await;
    let leader = stage.leader().await;
    let mut writer = Writer::open(stage.node(&leader), 8).await;
    write_until(&stage, &mut writer, topic, COMPARE_EVERY + 50).await;
    drop(writer);
    // Both have compared: the tries end after a while, and nobody is convicted.
    let hashes = loop {
        let status = stage.node("n1").status(PATIENCE).await;
        let hashes: Vec<_> = status.nodes.iter().filter_map(|node| node.state_hash).collect();
        if hashes.len() == 2 {
            break hashes;
        }
    };
    assert_ne!(hashes[0], hashes[1], "{hashes:?}");
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    until("both serve", || {
        ["n1", "n2"].iter().all(|node| *stage.node(node).state().borrow() == NodeState::Ready)
    })
    .await;
    stage.stop_all().await;
}
