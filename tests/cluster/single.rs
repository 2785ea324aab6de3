//! One node: commits through the real log, comes back from disk.

use quorate::domain::outcome::Outcome;

use crate::stage::{Stage, Writer, number, update};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_commits_and_comes_back_with_everything() {
    let mut stage = Stage::new(1, &["n1"]);
    stage.start_all().await;
    let mut writer = Writer::open(stage.node("n1"), 7).await;
    let topic = writer.add_topic("one").await;
    for value in 1..=50 {
        assert_eq!(writer.ask(&update(topic, value)).await.0, Outcome::Done);
    }
    assert_eq!(writer.ask(&update(topic, 50)).await.0, Outcome::Unchanged);
    let before = stage.settle().await;
    stage.stop_all().await;
    stage.start_all().await;
    assert!(stage.settle().await > before, "the new start is in the log");
    assert_eq!(number(stage.node("n1"), "one"), Some(50));
    stage.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_bound_the_log_and_a_start_uses_them() {
    let mut stage = Stage::new(1, &["n1"]);
    stage.retention.segment_bytes = 64 << 10;
    stage.retention.snapshot_every_bytes = 128 << 10;
    stage.retention.retain_bytes = 0;
    stage.start_all().await;
    let mut writer = Writer::open(stage.node("n1"), 7).await;
    let topic = writer.add_topic("one").await;
    let mut sent = 0;
    let snapshots = stage.dir_of("n1").join("snapshots");
    let has_snapshot = || {
        let files = std::fs::read_dir(&snapshots).unwrap();
        files.flatten().any(|file| file.file_name().to_string_lossy().ends_with(".snapshot"))
    };
    let log = stage.dir_of("n1").join("log");
    let first_segment = |log: &std::path::Path| {
        let mut names: Vec<_> =
            std::fs::read_dir(log).unwrap().flatten().map(|f| f.file_name()).collect();
        names.sort();
        names.into_iter().find(|name| name.to_string_lossy().contains("seg"))
    };
    let oldest = first_segment(&log);
    while !has_snapshot() || first_segment(&log) == oldest {
        sent += 1;
        writer.ask(&update(topic, sent)).await;
        assert!(sent < 20_000, "no snapshot, or no purge, after {sent} entries");
    }
    stage.stop_all().await;
    stage.start_all().await;
    assert_eq!(number(stage.node("n1"), "one"), Some(sent));
    stage.stop_all().await;
}
