//! Events that have left memory, read from disk.

use quorate::domain::effect::Effect;
use quorate::domain::id::Position;
use quorate::replication::{JournalReader, Read, Replication};
use quorate_storage::index::{HistoryKind, IndexedSegment};

use crate::stage::{Stage, Writer, until, update};

/// Reads everything after a position: the values of the topic, in order. None when it is gone.
async fn values(
    node: &Replication,
    reader: &mut JournalReader,
    from: Position,
) -> Option<Vec<u64>> {
    let (mut position, mut values) = (from, Vec::new());
    let until = node.journal().applied_now();
    loop {
        match reader.after(position, 7).await {
            Read::Blocks(blocks) => {
                let from = position;
                for event in blocks.iter().flat_map(|block| block.after(from).to_vec()) {
                    assert!(event.position > position, "{event:?} after {position}");
                    position = event.position;
                    if let Effect::Value { value: Some(value), .. } = event.effect {
                        values.push(u64::from_be_bytes(value[..].try_into().unwrap()));
                    }
                }
            }
            Read::CaughtUp => return Some(values),
            Read::Gone { .. } => return None,
        }
        assert!(position.index.entry() <= until + 1_000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_ring_has_let_go_is_read_from_disk_exactly() {
    const UPDATES: u64 = 600;
    let mut stage = Stage::new(1, &["n1"]);
    stage.retention.journal_bytes = 16 << 10;
    stage.retention.segment_bytes = 64 << 10;
    stage.start_all().await;
    let node = stage.node("n1").clone();
    let mut writer = Writer::open(&node, 7).await;
    let topic = writer.add_topic("told").await;
    let mut middle = Position::START;
    for value in 1..=UPDATES {
        let (_, index) = writer.ask(&update(topic, value)).await;
        if value == UPDATES / 2 {
            middle = Position { index, ordinal: 0 };
        }
    }
    assert!(matches!(node.journal().after(Position::START, 1), Read::Gone { .. }));
    assert!(node.remembers(Position::START) && node.remembers(middle));
    let mut reader = node.journal_reader();
    let all: Vec<u64> = (1..=UPDATES).collect();
    assert_eq!(values(&node, &mut reader, Position::START).await.unwrap(), all);
    // Back to where it has been, and a second reader beside it.
    assert_eq!(values(&node, &mut reader, middle).await.unwrap(), all[(UPDATES / 2) as usize..]);
    let mut other = node.journal_reader();
    assert_eq!(values(&node, &mut other, Position::START).await.unwrap(), all);
    // Every handle keeps the peer port.
    drop((node, reader, other, writer));
    stage.stop_all().await;

    // The same after a start from disk.
    stage.start_all().await;
    let node = stage.node("n1").clone();
    let mut reader = node.journal_reader();
    assert_eq!(values(&node, &mut reader, Position::START).await.unwrap(), all);
    stage.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_purged_is_gone_and_the_rest_is_read_from_a_snapshot() {
    let mut stage = Stage::new(1, &["n1"]);
    stage.retention.journal_bytes = 16 << 10;
    stage.retention.segment_bytes = 64 << 10;
    stage.retention.snapshot_every_bytes = 128 << 10;
    stage.retention.retain_bytes = 128 << 10;
    stage.start_all().await;
    let node = stage.node("n1").clone();
    let mut writer = Writer::open(&node, 7).await;
    let topic = writer.add_topic("told").await;
    let mut sent = Vec::new();
    while node.remembers(Position::START) {
        let value = sent.len() as u64 + 1;
        let (_, index) = writer.ask(&update(topic, value)).await;
        sent.push(Position { index, ordinal: 0 });
        assert!(value < 20_000, "nothing is purged");
    }
    let mut reader = node.journal_reader();
    assert_eq!(values(&node, &mut reader, Position::START).await, None);
    // From the first position that is still remembered on, nothing is missing.
    let first = sent.iter().position(|position| node.remembers(*position)).unwrap();
    let rest = values(&node, &mut reader, sent[first]).await.unwrap();
    assert_eq!(rest, (first as u64 + 2..=sent.len() as u64).collect::<Vec<_>>());
    assert!(rest.len() > 200, "the reader went to disk: {} values", rest.len());
    stage.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_index_is_rebuilt_from_the_log_while_the_node_serves() {
    let mut stage = Stage::new(1, &["n1"]);
    stage.index_on_disk = true;
    stage.retention.segment_bytes = 32 << 10;
    stage.start_all().await;
    let node = stage.node("n1").clone();
    let mut writer = Writer::open(&node, 7).await;
    let topic = writer.add_topic("told").await;
    for value in 1..=300 {
        writer.ask(&update(topic, value)).await;
    }
    let applied = node.journal().applied_now();
    until("the index has come to the end of the log", || node.index().coverage().contains(applied))
        .await;
    let key = topic.0.to_be_bytes();
    let postings = |node: &Replication| {
        let segments = node.index().segments();
        let of = |segment: &IndexedSegment| node.index().postings(segment.id, &key).unwrap();
        segments.iter().flat_map(of).collect::<Vec<_>>()
    };
    until("segments are indexed", || postings(&node).len() > 100).await;
    let session = 7_u64.to_be_bytes();
    let history = |node: &Replication| {
        node.index().history(HistoryKind::Sessions, &session, 0..applied + 1).unwrap()
    };
    let (told, rows) = (postings(&node), history(&node));
    assert_eq!(rows.first().map(|row| row.value[0]), Some(1), "the session was opened");
    drop((node, writer));
    stage.stop_all().await;

    // Thrown away as a whole: the log is the truth.
    std::fs::remove_dir_all(stage.dir_of("n1").join("index")).unwrap();
    stage.start_all().await;
    let node = stage.node("n1").clone();
    until("the index is whole again", || node.index().coverage().contains(applied)).await;
    until("its segments too", || postings(&node).len() >= told.len()).await;
    assert_eq!(postings(&node)[..told.len()], told[..]);
    assert_eq!(history(&node), rows);
    drop(node);
    stage.stop_all().await;
}
