//! Members whose disks have lost what they held: found, never served, repaired from the others.

use std::path::Path;
use std::time::Duration;

use quorate::domain::id::TopicId;
use quorate::replication::Quorum;
use quorate_storage::identity::IdentityFile;
use quorate_storage::inspect::{Severity, verify};
use quorate_storage::record::DURABLE_MARK_BYTES;
use quorate_storage::segment::HEADER_BYTES;
use quorate_storage::{Log, LogOptions, Tail};

use super::{disk, segments, snapshots, written_end};
use crate::stage::{PATIENCE, Stage, Writer, number, update};

/// Flips one bit of a file where it stands, as a disk does: whoever has it open reads it.
fn flip(path: &Path, place: impl FnOnce(&[u8]) -> usize) {
    use std::os::unix::fs::FileExt;
    let bytes = std::fs::read(path).unwrap();
    let at = place(&bytes);
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[bytes[at] ^ 0x10], at as u64).unwrap();
    file.sync_all().unwrap();
}

/// A byte of the payload of an entry in the second half of a segment: what marks say can be told
/// without a peer.
fn in_an_entry(bytes: &[u8]) -> usize {
    let mut at = HEADER_BYTES;
    loop {
        let view = quorate_storage::record::decode(&bytes[at..]).unwrap().unwrap();
        if at > bytes.len() / 2 && view.kind.is_entry() && !view.payload.is_empty() {
            return at + view.disk_bytes() - view.payload.len();
        }
        at += view.disk_bytes();
    }
}

/// Opens the log of a stopped node.
fn open_log(dir: &Path) -> Log {
    let identity = IdentityFile::open(disk(), dir).unwrap().1.unwrap();
    let options = LogOptions::new(identity.cluster_id, identity.lineage);
    let (log, _writer, report) = Log::open(disk(), &dir.join("log"), options).unwrap();
    assert_eq!(report.tail, Tail::Proven);
    log
}

/// The logs of all stopped nodes agree: on one number, and so on the whole prefix.
fn assert_one_history(stage: &Stage, nodes: &[&str]) {
    let logs: Vec<Log> = nodes.iter().map(|node| open_log(&stage.dir_of(node))).collect();
    let last = logs.iter().map(Log::next_index).min().unwrap() - 1;
    let chains: Vec<u64> = logs.iter().map(|log| log.chain_at(last).unwrap()).collect();
    assert!(chains.iter().all(|chain| *chain == chains[0]), "{chains:x?} at {last}");
    for node in nodes {
        let verification = verify(&disk(), &stage.dir_of(node)).unwrap();
        let damage: Vec<_> = verification
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Damage)
            .collect();
        assert!(damage.is_empty(), "{node}: {damage:?}");
    }
}

/// Three nodes with small segments, and so many updates of one topic.
async fn three_with(updates: u64, change: impl FnOnce(&mut Stage)) -> (Stage, TopicId) {
    let mut stage = Stage::new(3, &["n1", "n2", "n3"]);
    stage.retention.segment_bytes = 4 << 10;
    change(&mut stage);
    stage.start_all().await;
    let leader = stage.leader().await;
    let mut writer = Writer::open(stage.node(&leader), 7).await;
    let topic = writer.add_topic("kept").await;
    write(&mut writer, topic, 1..=updates).await;
    stage.settle().await;
    (stage, topic)
}

/// Sends updates with many in flight.
async fn write(writer: &mut Writer, topic: TopicId, values: std::ops::RangeInclusive<u64>) {
    for value in values {
        writer.send(&update(topic, value)).await;
        while writer.in_flight() > 4 {
            writer.hear().await;
        }
    }
    while writer.in_flight() > 0 {
        writer.hear().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flip_anywhere_in_a_members_log_is_repaired_before_it_takes_part() {
    let (mut stage, topic) = three_with(400, |_| {}).await;
    let all = segments(&stage.dir_of("n2"));
    assert!(all.len() > 4, "{all:?}");
    let mut value = 400;
    // Header and middle of sealed segments, of the active one, and of several at once.
    type Spot = (usize, fn(&[u8]) -> usize);
    let spots: [&[Spot]; 5] = [
        &[(1, |_| 30)],
        &[(2, |bytes| bytes.len() / 2)],
        &[(usize::MAX, |bytes| written_end(bytes) / 2)],
        &[(usize::MAX, |_| 20)],
        &[(0, |bytes| bytes.len() / 3), (3, |bytes| bytes.len() - 120), (usize::MAX, |_| 80)],
    ];
    for spots in spots {
        stage.stop("n2").await;
        let all = segments(&stage.dir_of("n2"));
        for (segment, place) in spots {
            flip(all.get(*segment).unwrap_or(&all[all.len() - 1]), place);
        }
        // Written while it is away: it has to catch up after the repair.
        let leader = stage.leader().await;
        let mut writer = Writer::open(stage.node(&leader), 8 + value).await;
        value += 1;
        writer.ask(&update(topic, value)).await;
        drop(writer);
        stage.start(&["n2"]).await;
        stage.settle().await;
        assert_eq!(number(stage.node("n2"), "kept"), Some(value));
        let kept = stage.dir_of("n2").join("log/quarantine");
        assert!(std::fs::read_dir(kept).unwrap().count() > 0, "the damaged bytes are kept");
    }
    // It votes and counts like any other.
    stage.stop("n3").await;
    let leader = stage.leader().await;
    let mut writer = Writer::open(stage.node(&leader), 5_000).await;
    writer.ask(&update(topic, value + 1)).await;
    drop(writer);
    stage.stop_all().await;
    assert_one_history(&stage, &["n1", "n2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_segment_and_lost_sectors_are_repaired_from_peers() {
    let (mut stage, _) = three_with(400, |_| {}).await;
    stage.stop("n3").await;
    let all = segments(&stage.dir_of("n3"));
    std::fs::remove_file(&all[1]).unwrap();
    let mut bytes = std::fs::read(&all[3]).unwrap();
    bytes[1024..3072].fill(0);
    std::fs::write(&all[3], bytes).unwrap();
    stage.start(&["n3"]).await;
    stage.settle().await;
    assert_eq!(number(stage.node("n3"), "kept"), Some(400));
    stage.stop_all().await;
    assert_one_history(&stage, &["n1", "n2", "n3"]);
}

/// Nothing but the footer of the one before tells that it was there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_newest_segment_is_replaced_by_a_snapshot() {
    let (mut stage, topic) = three_with(400, |_| {}).await;
    stage.stop("n3").await;
    std::fs::remove_file(segments(&stage.dir_of("n3")).last().unwrap()).unwrap();
    stage.start(&["n3"]).await;
    stage.settle().await;
    assert_eq!(number(stage.node("n3"), "kept"), Some(400));
    // It votes and counts like any other once its log has caught up.
    stage.stop("n2").await;
    let leader = stage.leader().await;
    let mut writer = Writer::open(stage.node(&leader), 9).await;
    writer.ask(&update(topic, 401)).await;
    drop(writer);
    stage.stop_all().await;
    assert_one_history(&stage, &["n1", "n3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_with_different_holes_are_repaired_from_the_third() {
    let (mut stage, topic) = three_with(300, |_| {}).await;
    stage.stop_all().await;
    for (node, segment) in [("n1", 1), ("n3", 2)] {
        flip(&segments(&stage.dir_of(node))[segment], |bytes| bytes.len() / 2);
    }
    stage.start_all().await;
    stage.settle().await;
    let leader = stage.leader().await;
    let mut writer = Writer::open(stage.node(&leader), 9).await;
    writer.ask(&update(topic, 301)).await;
    drop(writer);
    stage.settle().await;
    for node in ["n1", "n2", "n3"] {
        assert_eq!(number(stage.node(node), "kept"), Some(301));
    }
    stage.stop_all().await;
    assert_one_history(&stage, &["n1", "n2", "n3"]);
}

/// Without a peer that has what is missing it waits, takes no part, and goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_a_hole_waits_for_a_peer_that_can_fill_it() {
    let (mut stage, _) = three_with(300, |_| {}).await;
    stage.stop_all().await;
    flip(&segments(&stage.dir_of("n1"))[1], |bytes| bytes.len() / 2);
    let mut first = Box::pin(stage.try_start("n1", stage.dir_of("n1")));
    let waited = tokio::time::timeout(Duration::from_secs(1), &mut first).await;
    assert!(waited.is_err(), "alone it neither starts nor ends");
    let second = stage.try_start("n2", stage.dir_of("n2"));
    let third = stage.try_start("n3", stage.dir_of("n3"));
    let all = Box::pin(async { tokio::join!(first, second, third) });
    let (first, second, third) = tokio::time::timeout(PATIENCE, all).await.unwrap();
    for (node, running) in ["n1", "n2", "n3"].into_iter().zip([first, second, third]) {
        let running = running.unwrap();
        tokio::time::timeout(PATIENCE, running.node.started()).await.unwrap();
        stage.up.insert(node.to_owned(), running);
    }
    stage.settle().await;
    assert_eq!(number(stage.node("n1"), "kept"), Some(300));
    stage.stop_all().await;
    assert_one_history(&stage, &["n1", "n2", "n3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_that_the_peers_have_purged_is_repaired_by_a_snapshot() {
    let (mut stage, topic) = three_with(200, |stage| {
        stage.retention.snapshot_every_bytes = 64 << 10;
        stage.retention.retain_bytes = 64 << 10;
    })
    .await;
    stage.stop("n2").await;
    let leader = stage.leader().await;
    let mut writer = Writer::open(stage.node(&leader), 11).await;
    let lost = {
        let log = open_log(&stage.dir_of("n2"));
        flip(&segments(&stage.dir_of("n2"))[0], in_an_entry);
        log.next_index()
    };
    let mut value = 200;
    let purged = |stage: &Stage, node: &str| {
        !segments(&stage.dir_of(node)).is_empty()
            && inspect_first(&stage.dir_of(node)).is_some_and(|first| first > lost)
    };
    while !(purged(&stage, "n1") && purged(&stage, "n3")) {
        write(&mut writer, topic, value + 1..=value + 50).await;
        value += 50;
        assert!(value < 20_000, "nothing is purged");
    }
    drop(writer);
    stage.start(&["n2"]).await;
    stage.settle().await;
    assert_eq!(number(stage.node("n2"), "kept"), Some(value));
    let kept = stage.dir_of("n2").join("log/quarantine");
    assert!(std::fs::read_dir(kept).unwrap().count() > 2, "the damaged log is kept");
    stage.stop_all().await;
    assert_one_history(&stage, &["n1", "n2", "n3"]);
}

/// The first index of the oldest segment of a running node.
fn inspect_first(dir: &Path) -> Option<u64> {
    let bytes = std::fs::read(segments(dir).first()?).ok()?;
    quorate_storage::segment::SegmentHeader::decode(&bytes).map(|header| header.first_index)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_snapshots_that_the_log_goes_on_from_are_replaced_from_a_peer() {
    let (mut stage, topic) = three_with(200, |stage| {
        stage.retention.snapshot_every_bytes = 64 << 10;
        stage.retention.retain_bytes = 64 << 10;
    })
    .await;
    let leader = stage.leader().await;
    let mut writer = Writer::open(stage.node(&leader), 11).await;
    let mut value = 200;
    while inspect_first(&stage.dir_of("n2")).is_none_or(|first| first == 0) {
        write(&mut writer, topic, value + 1..=value + 50).await;
        value += 50;
        assert!(value < 20_000, "nothing is purged");
    }
    drop(writer);
    stage.settle().await;
    stage.stop("n2").await;
    let damaged = snapshots(&stage.dir_of("n2"));
    assert!(!damaged.is_empty());
    for path in &damaged {
        flip(path, |bytes| bytes.len() / 2);
    }
    stage.start(&["n2"]).await;
    stage.settle().await;
    assert_eq!(number(stage.node("n2"), "kept"), Some(value));
    let aside = stage.dir_of("n2").join("snapshots/quarantine");
    assert_eq!(std::fs::read_dir(aside).unwrap().count(), damaged.len());
    stage.stop_all().await;
    assert_one_history(&stage, &["n1", "n2", "n3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_damaged_copy_of_identity_or_hard_state_is_mended_from_the_other() {
    let (mut stage, topic) = three_with(20, |_| {}).await;
    let mut value = 20;
    for file in ["identity.a", "identity.b", "log/hard-state", "log/standing.a"] {
        stage.stop("n2").await;
        let path = stage.dir_of("n2").join(file);
        flip(&path, |_| 17);
        stage.start(&["n2"]).await;
        let leader = stage.leader().await;
        let mut writer = Writer::open(stage.node(&leader), 100 + value).await;
        value += 1;
        writer.ask(&update(topic, value)).await;
        drop(writer);
        stage.settle().await;
        assert_eq!(number(stage.node("n2"), "kept"), Some(value), "{file}");
    }
    stage.stop_all().await;
    assert_one_history(&stage, &["n1", "n2", "n3"]);
}

/// The end of the log above its last durable mark is damaged, and what stood there had been
/// acknowledged to a leader that is still there: the leader lets it go back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_tail_that_is_cut_comes_back_from_the_leader_that_counted_it() {
    let (mut stage, topic) = three_with(20, |_| {}).await;
    let leader = stage.leader().await;
    let follower = stage.follower().await;
    stage.stop(&follower).await;
    let path = segments(&stage.dir_of(&follower)).pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let before = open_log(&stage.dir_of(&follower)).next_index();
    // The last marks go, and with the group behind the one before them the proof of that group.
    let mut last = written_end(&bytes).next_multiple_of(1);
    for _ in 0..3 {
        let group = durable_mark_before(&bytes, last).unwrap();
        bytes[group..].fill(0);
        last = group;
    }
    let end = written_end(&bytes);
    bytes[end..end + 32].fill(0xcd);
    std::fs::write(&path, bytes).unwrap();
    stage.start(&[&follower]).await;
    stage.settle().await;
    assert_eq!(number(stage.node(&follower), "kept"), Some(20));
    let now = stage.leader().await;
    let mut writer = Writer::open(stage.node(&now), 8).await;
    writer.ask(&update(topic, 21)).await;
    drop(writer);
    stage.settle().await;
    assert_eq!(stage.up[&leader].supervisor.exit(), None);
    assert_eq!(*stage.node(&leader).quorum().borrow(), Quorum::Quorate);
    stage.stop_all().await;
    assert_one_history(&stage, &["n1", "n2", "n3"]);
    assert!(open_log(&stage.dir_of(&follower)).next_index() > before);
}

/// Where the last durable mark before an offset begins.
fn durable_mark_before(bytes: &[u8], offset: usize) -> Option<usize> {
    let is_mark = |at: &usize| {
        let mark = bytes.get(*at..*at + DURABLE_MARK_BYTES);
        let decoded = mark.and_then(|mark| quorate_storage::record::decode(mark).ok().flatten());
        decoded.is_some_and(|view| view.kind == quorate_storage::RecordKind::Durable)
    };
    (0..offset).rev().find(is_mark)
}

/// A leader that reads a damaged record for a follower does not send it: it mends it first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_a_running_leader_reads_is_mended_and_never_sent() {
    let (mut stage, topic) = three_with(20, |_| {}).await;
    let away = stage.follower().await;
    stage.stop(&away).await;
    let leader = stage.leader().await;
    let mut writer = Writer::open(stage.node(&leader), 8).await;
    write(&mut writer, topic, 21..=500).await;
    drop(writer);
    // After a start nothing of the log is in memory.
    let others: Vec<String> = stage.up.keys().cloned().collect();
    stage.stop_all().await;
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    stage.start(&others).await;
    let leader = stage.leader().await;
    stage.settle().await;
    let damaged = segments(&stage.dir_of(&leader));
    assert!(damaged.len() > 4);
    for segment in [2, 3] {
        flip(&damaged[segment], |bytes| bytes.len() / 2);
    }
    let found = verify(&disk(), &stage.dir_of(&leader)).unwrap();
    assert!(found.would_refuse, "{:?}", found.findings);
    stage.start(&[&away]).await;
    stage.settle().await;
    assert_eq!(number(stage.node(&away), "kept"), Some(500));
    let found = verify(&disk(), &stage.dir_of(&leader)).unwrap();
    assert!(!found.would_refuse, "{:?}", found.findings);
    assert_eq!(stage.leader().await, leader, "it stays the leader");
    stage.stop_all().await;
    assert_one_history(&stage, &["n1", "n2", "n3"]);
}

/// The same in a reader of the journal that goes to disk: it hears everything, exactly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_a_reader_of_the_journal_meets_is_mended() {
    use quorate::domain::id::Position;
    use quorate::replication::Read;
    let (mut stage, _) = three_with(500, |stage| stage.retention.journal_bytes = 16 << 10).await;
    stage.stop_all().await;
    stage.start_all().await;
    stage.settle().await;
    let node = stage.node("n2").clone();
    flip(&segments(&stage.dir_of("n2"))[1], |bytes| bytes.len() / 2);
    let mut reader = node.journal_reader();
    let (mut position, mut events) = (Position::START, 0);
    loop {
        match tokio::time::timeout(PATIENCE, reader.after(position, 64)).await.unwrap() {
            Read::Blocks(blocks) => {
                let from = position;
                for event in blocks.iter().flat_map(|block| block.after(from).to_vec()) {
                    position = event.position;
                    events += 1;
                }
            }
            Read::CaughtUp => break,
            Read::Gone { oldest } => panic!("gone before {oldest}"),
        }
    }
    assert!(events > 500, "{events}");
    assert!(!verify(&disk(), &stage.dir_of("n2")).unwrap().would_refuse);
    drop((node, reader));
    stage.stop_all().await;
    assert_one_history(&stage, &["n1", "n2", "n3"]);
}

/// A vote that may have been lost with the log's, and whose second copy is damaged too: the node
/// might vote twice in a term, so it does not come back under its id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_that_cannot_be_proven_is_refused_and_one_lost_copy_is_not() {
    use quorate::replication::StartError;
    use quorate::supervisor::ExitCode;
    let (mut stage, _) = three_with(300, |_| {}).await;
    // Both slots of the second copy, and nothing else: the log has it.
    stage.stop("n2").await;
    let slots = stage.dir_of("n2").join("log/hard-state");
    for slot in [30, 4096 + 30] {
        flip(&slots, |_| slot);
    }
    stage.start(&["n2"]).await;
    stage.settle().await;
    stage.stop("n2").await;
    for slot in [30, 4096 + 30] {
        flip(&slots, |_| slot);
    }
    // The head of the newest segment repeats the vote.
    let all = segments(&stage.dir_of("n2"));
    flip(&all[all.len() - 1], |_| 90);
    let refused = stage.try_start("n2", stage.dir_of("n2")).await;
    let Err(error) = refused else { panic!("a node without a proven vote has started") };
    assert!(matches!(error, StartError::VoteUnproven { .. }), "{error}");
    assert_eq!(error.exit_code(), ExitCode::DAMAGED);
    // The others go on without it.
    assert!(stage.node("n1").read_index(PATIENCE).await.is_ok());
    stage.stop_all().await;
}

/// A leader reads a snapshot before it sends it: one that is damaged is set aside, and another is
/// taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_never_sent() {
    let (mut stage, topic) = three_with(200, |stage| {
        stage.retention.snapshot_every_bytes = 64 << 10;
        stage.retention.retain_bytes = 64 << 10;
    })
    .await;
    let away = stage.follower().await;
    let had = stage.node(&away).journal().applied_now();
    stage.stop(&away).await;
    let leader = stage.leader().await;
    let mut writer = Writer::open(stage.node(&leader), 11).await;
    let mut value = 200;
    let purged =
        |node: &str| inspect_first(&stage.dir_of(node)).is_some_and(|first| first > had + 1);
    while !stage.up.keys().all(|node| purged(node)) {
        write(&mut writer, topic, value + 1..=value + 50).await;
        value += 50;
        assert!(value < 20_000, "nothing is purged");
    }
    drop(writer);
    let mut damaged = 0;
    for node in stage.up.keys() {
        for path in snapshots(&stage.dir_of(node)) {
            flip(&path, |bytes| bytes.len() / 2);
            damaged += 1;
        }
    }
    assert!(damaged > 0);
    stage.start(&[&away]).await;
    stage.settle().await;
    assert_eq!(number(stage.node(&away), "kept"), Some(value));
    let leader = stage.leader().await;
    assert!(stage.dir_of(&leader).join("snapshots/quarantine").exists());
    stage.stop_all().await;
    assert_one_history(&stage, &[&away]);
}

/// What a former leader alone had in its log, never acknowledged, is damaged: nobody has it, and
/// nobody needs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_in_what_was_never_committed_is_given_up() {
    let (mut stage, topic) = three_with(50, |_| {}).await;
    let leader = stage.leader().await;
    let others: Vec<String> = stage.up.keys().filter(|name| **name != leader).cloned().collect();
    let mut writer = Writer::open(stage.node(&leader), 8).await;
    stage.stop(&others[0]).await;
    let node = stage.node(&leader).clone();
    // Taken into its log before it has noticed that it is alone; nobody answers any more.
    let writing = async {
        for value in 51..=100_000 {
            writer.send(&update(topic, value)).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let stopping = stage.stop(&others[1]);
    let writing = tokio::time::timeout(Duration::from_secs(2), writing);
    let (_timed_out, ()) = tokio::join!(writing, stopping);
    let before = node.journal().applied_now();
    drop((writer, node));
    stage.stop(&leader).await;
    let dir = stage.dir_of(&leader);
    let path = segments(&dir).pop().unwrap();
    let log = open_log(&dir);
    let alone = log.next_index() - 1 - before;
    drop(log);
    if alone > 0 {
        // Before the last mark.
        flip(&path, |bytes| written_end(bytes) - DURABLE_MARK_BYTES - 20);
    }
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    stage.start(&others).await;
    stage.start(&[&leader]).await;
    stage.settle().await;
    let now = stage.leader().await;
    let mut writer = Writer::open(stage.node(&now), 9).await;
    writer.ask(&update(topic, 70)).await;
    drop(writer);
    stage.settle().await;
    assert_eq!(number(stage.node(&leader), "kept"), Some(70));
    stage.stop_all().await;
    assert_one_history(&stage, &["n1", "n2", "n3"]);
    assert!(alone > 0, "nothing was written alone");
}
