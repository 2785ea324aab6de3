//! What a disk that refuses does to a member, and what the cluster does without it.

use std::time::Duration;

use quorate::domain::id::TopicId;
use quorate::domain::outcome::Outcome;
use quorate::replication::{NodeState, ProposeError, Refusal};
use quorate::supervisor::ExitCode;
use quorate_storage::DiskOperation;
use quorate_storage::disk::{FaultKind, FaultyDisk, RealDisk};

use crate::stage::{PATIENCE, Stage, Writer, number, path, until, update};

/// Three nodes on disks that can be made to fail; a leader; a writer on a follower.
struct Scene {
    stage: Stage,
    leader: String,
    host: String,
    writer: Writer,
    topic: TopicId,
}

impl Scene {
    async fn set() -> Self {
        let mut stage = Stage::new(3, &["n1", "n2", "n3"]);
        for node in ["n1", "n2", "n3"] {
            let disk = FaultyDisk::new(std::sync::Arc::new(RealDisk));
            stage.disks.insert(node.to_owned(), disk);
        }
        stage.start_all().await;
        let leader = stage.leader().await;
        let host = stage.follower().await;
        let mut writer = Writer::open(stage.node(&host), 7).await;
        let topic = writer.add_topic("kept").await;
        Self { stage, leader, host, writer, topic }
    }

    async fn write(&mut self, numbers: std::ops::RangeInclusive<u64>) {
        for value in numbers {
            assert_eq!(self.writer.ask(&update(self.topic, value)).await.0, Outcome::Done);
        }
    }

    async fn another_leads(&self) {
        let node = self.stage.node(&self.host);
        let former = &self.leader;
        until("another leads", || node.leader().is_some_and(|name| name.as_str() != former)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_full_disk_is_read_only_hands_on_and_recovers() {
    let mut scene = Scene::set().await;
    scene.write(1..=20).await;
    let full = scene.stage.disks[&scene.leader].clone();
    full.set_full(true);
    // It can still be acknowledged: two others have flushed it.
    scene.write(21..=21).await;
    let node = scene.stage.node(&scene.leader).clone();
    let mut state = node.state();
    let is_read_only = state.wait_for(|state| *state == NodeState::ReadOnly);
    tokio::time::timeout(PATIENCE, is_read_only).await.expect("it says so").unwrap();
    scene.another_leads().await;
    // Those who come to it for writing are told why not, and reading goes on.
    let found = quorate::domain::command::Command::AddTopic {
        path: path("refused"),
        specification: quorate::domain::topic::specification::Specification::plain(
            quorate::domain::topic::specification::TopicType::Int64,
        ),
    };
    let refused = node.propose(&found, PATIENCE).await;
    assert!(matches!(refused, Err(ProposeError::Refused(Refusal::DiskFull))), "{refused:?}");
    assert!(number(&node, "kept").is_some());
    // The cluster goes on without it.
    scene.write(22..=40).await;
    assert_eq!(*node.state().borrow(), NodeState::ReadOnly);
    full.set_full(false);
    let is_ready = state.wait_for(|state| *state == NodeState::Ready);
    tokio::time::timeout(PATIENCE, is_ready).await.expect("it recovers").unwrap();
    scene.write(41..=50).await;
    scene.stage.settle().await;
    for node in ["n1", "n2", "n3"] {
        assert_eq!(number(scene.stage.node(node), "kept"), Some(50), "{node}");
    }
    scene.stage.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_flush_fails_ends_with_70_and_nothing_is_lost() {
    let mut scene = Scene::set().await;
    scene.write(1..=20).await;
    scene.stage.disks[&scene.leader].fail(DiskOperation::Sync, 3, FaultKind::Io);
    scene.write(21..=60).await;
    scene.another_leads().await;
    let poisoned = scene.stage.up.remove(&scene.leader).unwrap();
    let exit = tokio::time::timeout(PATIENCE, poisoned.supervisor.exit_requested()).await.unwrap();
    assert_eq!(exit.code, ExitCode::POISONED);
    assert!(exit.reason.contains("poisoned: sync of"), "{exit}");
    assert!(exit.reason.contains("os error 5"), "{exit}");
    poisoned.node.stop(Duration::from_millis(200)).await;
    drop(poisoned);
    // What it holds is opened anew and proven again.
    scene.stage.start(&[&scene.leader]).await;
    scene.write(61..=70).await;
    scene.stage.settle().await;
    for node in ["n1", "n2", "n3"] {
        assert_eq!(number(scene.stage.node(node), "kept"), Some(70), "{node}");
    }
    scene.stage.stop_all().await;
}

/// A single node has nobody to hand on to: it waits for space, and what it had taken is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_waits_for_space_and_answers_then() {
    let mut stage = Stage::new(1, &["n1"]);
    let disk = FaultyDisk::new(std::sync::Arc::new(RealDisk));
    stage.disks.insert("n1".to_owned(), disk.clone());
    stage.start_all().await;
    let node = stage.node("n1").clone();
    let mut writer = Writer::open(&node, 7).await;
    let topic = writer.add_topic("kept").await;
    writer.ask(&update(topic, 1)).await;
    disk.set_full(true);
    let request = writer.send(&update(topic, 2)).await;
    let mut state = node.state();
    let is_read_only = state.wait_for(|state| *state == NodeState::ReadOnly);
    tokio::time::timeout(PATIENCE, is_read_only).await.expect("it says so").unwrap();
    assert_eq!(writer.in_flight(), 1, "request {request} is not acknowledged");
    assert_eq!(number(&node, "kept"), Some(1));
    disk.set_full(false);
    writer.hear().await;
    assert_eq!(writer.in_flight(), 0);
    let is_ready = state.wait_for(|state| *state == NodeState::Ready);
    tokio::time::timeout(PATIENCE, is_ready).await.expect("it recovers").unwrap();
    drop((node, writer));
    stage.stop_all().await;
    stage.start_all().await;
    assert_eq!(number(stage.node("n1"), "kept"), Some(2));
    stage.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_finds_no_space_is_written_when_there_is_some() {
    let mut stage = Stage::new(1, &["n1"]);
    let disk = FaultyDisk::new(std::sync::Arc::new(RealDisk));
    stage.disks.insert("n1".to_owned(), disk.clone());
    stage.start_all().await;
    let mut writer = Writer::open(stage.node("n1"), 7).await;
    let topic = writer.add_topic("kept").await;
    writer.ask(&update(topic, 1)).await;
    let snapshots = || {
        let files = std::fs::read_dir(stage.dir_of("n1").join("snapshots")).unwrap().flatten();
        files.filter(|file| file.file_name().to_string_lossy().ends_with(".snapshot")).count()
    };
    disk.set_full(true);
    let opened = disk.calls(DiskOperation::Open);
    stage.node("n1").take_snapshot().await;
    until("it was tried", || disk.calls(DiskOperation::Open) > opened).await;
    assert_eq!((snapshots(), stage.up["n1"].supervisor.exit()), (0, None));
    disk.set_full(false);
    until("it is written", || snapshots() == 1).await;
    drop(writer);
    stage.stop_all().await;
}

/// Its engine waits for the disk to take a vote; a stop does not wait for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_full_disk_can_be_stopped() {
    let mut scene = Scene::set().await;
    scene.write(1..=5).await;
    let full = scene.stage.disks[&scene.leader].clone();
    full.set_full(true);
    scene.write(6..=6).await;
    scene.another_leads().await;
    let running = scene.stage.up.remove(&scene.leader).unwrap();
    let stop = running.node.stop(Duration::from_millis(200));
    tokio::time::timeout(PATIENCE, stop).await.expect("it ends");
    assert_eq!(running.supervisor.exit(), None, "a full disk is no fault of the node");
    drop(running);
    full.set_full(false);
    scene.stage.start(&[&scene.leader]).await;
    scene.write(7..=9).await;
    scene.stage.settle().await;
    assert_eq!(number(scene.stage.node(&scene.leader), "kept"), Some(9));
    scene.stage.stop_all().await;
}
