//! Everything stopped and started again; a follower that was away too long.

use quorate::domain::outcome::Outcome;

use crate::stage::{Stage, Writer, number, until, update};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stop_loses_nothing_in_any_start_order() {
    let mut stage = Stage::three().await;
    let mut writer = Writer::open(stage.node("n2"), 7).await;
    let topic = writer.add_topic("kept").await;
    for value in 1..=100 {
        assert_eq!(writer.ask(&update(topic, value)).await.0, Outcome::Done);
    }
    for order in [["n3", "n1", "n2"], ["n2", "n3", "n1"]] {
        stage.stop_all().await;
        // Two make a quorum; the third finds them.
        stage.start(&order[..2]).await;
        stage.start(&order[2..]).await;
        stage.settle().await;
        for node in order {
            assert_eq!(number(stage.node(node), "kept"), Some(100), "{node} after {order:?}");
        }
    }
    stage.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_behind_the_purge_comes_back_by_snapshot() {
    let mut stage = Stage::new(3, &["n1", "n2", "n3"]);
    stage.retention.segment_bytes = 64 << 10;
    stage.retention.snapshot_every_bytes = 128 << 10;
    stage.retention.retain_bytes = 0;
    stage.start_all().await;
    let away = stage.follower().await;
    let leader = stage.leader().await;
    let mut writer = Writer::open(stage.node(&leader), 7).await;
    let topic = writer.add_topic("moved on").await;
    writer.ask(&update(topic, 1)).await;
    stage.settle().await;
    stage.stop(&away).await;
    let purged = |stage: &Stage| {
        let log = stage.dir_of(&leader).join("log");
        let mut names: Vec<String> = std::fs::read_dir(log)
            .unwrap()
            .flatten()
            .map(|file| file.file_name().to_string_lossy().into_owned())
            .filter(|name| name.contains("seg"))
            .collect();
        names.sort();
        names[0].clone()
    };
    let oldest = purged(&stage);
    let mut sent = 1;
    while purged(&stage) == oldest {
        sent += 1;
        writer.ask(&update(topic, sent)).await;
        assert!(sent < 30_000, "nothing is purged");
    }
    stage.start(&[&away]).await;
    stage.settle().await;
    assert_eq!(number(stage.node(&away), "moved on"), Some(sent));
    let snapshots = stage.dir_of(&away).join("snapshots");
    let received = std::fs::read_dir(snapshots).unwrap().flatten();
    assert!(received.count() > 0, "it came by snapshot");
    // It goes on as any other member.
    let mut its = Writer::open(stage.node(&away), 8).await;
    its.ask(&update(topic, sent + 1)).await;
    stage.settle().await;
    stage.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_survivor_serves_nothing_and_resumes_with_the_quorum() {
    let mut stage = Stage::three().await;
    let survivor = stage.leader().await;
    let mut writer = Writer::open(stage.node(&survivor), 7).await;
    let topic = writer.add_topic("held").await;
    let others: Vec<String> = stage.up.keys().filter(|name| **name != survivor).cloned().collect();
    for other in &others {
        stage.stop(other).await;
    }
    let quorum = stage.node(&survivor).quorum();
    until("the quorum is lost", || !quorum.borrow().is_quorate()).await;
    let state = stage.node(&survivor).state();
    until("the node is inquorate", || {
        *state.borrow() == quorate::replication::NodeState::Inquorate
    })
    .await;
    let read = stage.node(&survivor).read_index(std::time::Duration::from_secs(1)).await;
    assert_eq!(read, Err(quorate::replication::ReadError::Inquorate));
    for other in &others {
        let node: &str = other;
        stage.start(&[node]).await;
    }
    until("the quorum is back", || quorum.borrow().is_quorate()).await;
    writer.ask(&update(topic, 1)).await;
    stage.settle().await;
    stage.stop_all().await;
}
