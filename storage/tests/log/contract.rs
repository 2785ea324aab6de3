//! What every log does on every disk.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quorate_storage::disk::{FaultyDisk, RealDisk, SimulatedDisk};
use quorate_storage::log::append_log::LogState;
use quorate_storage::record::{PAYLOAD_BYTES_MAX, chain_seed};
use quorate_storage::{
    Disk, LogError, LogOptions, OpenError, ReadError, Record, RecordKind, Step, Tail,
};

use crate::{CLUSTER, Driven, completion, contents, entries, entry, no_matter, options};

/// Runs one clause on a real, a simulated and a quiet faulty disk.
fn on_every_disk(clause: impl Fn(Arc<dyn Disk>, &Path)) {
    let folder = tempfile::tempdir().unwrap();
    clause(Arc::new(RealDisk), &folder.path().join("n1/log"));
    let simulated = SimulatedDisk::new();
    clause(Arc::new(simulated), &PathBuf::from("n1/log"));
    let faulty = FaultyDisk::new(Arc::new(SimulatedDisk::new()));
    clause(Arc::new(faulty), &PathBuf::from("n1/log"));
}

#[test]
fn a_new_log_is_empty_and_sound() {
    on_every_disk(|disk, dir| {
        for _ in 0..3 {
            let log = Driven::open(&disk, dir);
            assert_eq!((log.log.first_index(), log.log.next_index()), (0, 0));
            assert_eq!((log.log.last(), log.log.purged(), log.log.durable()), (None, None, None));
            assert_eq!(log.log.hard_state(), None);
            assert_eq!(log.report.tail, Tail::Proven);
            assert!(log.report.hard_state_proven);
            assert_eq!(log.log.segments().len(), 1);
            assert!(matches!(log.log.read(0..1, 1), Err(ReadError::OutsideOfLog { .. })));
            assert_eq!(log.log.read(0..0, 1), Ok(Vec::new()));
        }
    });
}

#[test]
fn appended_is_readable_and_durable_only_after_the_step() {
    on_every_disk(|disk, dir| {
        let mut log = Driven::open(&disk, dir);
        let (done, result) = completion();
        log.log.append(entries(0..3, 1), done).unwrap();
        assert_eq!(log.contents(), entries(0..3, 1));
        assert_eq!(log.log.last(), Some((2, 1)));
        assert_eq!(log.log.durable(), None);
        assert!(result.try_recv().is_err());
        assert!(matches!(log.writer.step(None), Step::Flushed { records: 3, .. }));
        result.try_recv().unwrap().unwrap();
        assert_eq!(log.log.durable(), Some(2));
        assert_eq!(log.writer.step(None), Step::Idle { mark_owed: true });
        assert_eq!(log.writer.flush_mark(), Step::Marked);
        assert_eq!(log.writer.step(None), Step::Idle { mark_owed: false });
    });
}

#[test]
fn what_was_acknowledged_is_there_after_reopening() {
    on_every_disk(|disk, dir| {
        let mut expected = Vec::new();
        for round in 0..6_u64 {
            let mut log = Driven::open(&disk, dir);
            assert_eq!(log.contents(), expected);
            assert_eq!(log.log.durable(), (round * 10).checked_sub(1));
            let new = entries(round * 10..round * 10 + 10, round);
            log.append(new.clone());
            expected.extend(new);
            if round % 2 == 0 {
                log.writer.flush_mark();
            }
        }
    });
}

#[test]
fn completions_come_in_order_and_groups_are_bounded() {
    on_every_disk(|disk, dir| {
        let options = LogOptions { group_bytes_max: 300, ..options() };
        let mut log = Driven::open_with(&disk, dir, options).unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        for index in 0..20 {
            let order = Arc::clone(&order);
            let done = Box::new(move |result: Result<(), _>| {
                result.unwrap();
                order.lock().unwrap().push(index);
            });
            log.log.append(vec![entry(index, 1, &"x".repeat(67))], done).unwrap();
        }
        let mut groups = 0;
        while let Step::Flushed { records, bytes } = log.writer.step(None) {
            assert_eq!(records, 3, "three records of 100 bytes fit into a group");
            assert!(bytes <= 300 + quorate_storage::record::DURABLE_MARK_BYTES);
            groups += 1;
            if groups == 6 {
                break;
            }
        }
        log.drain();
        assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
    });
}

#[test]
fn an_append_longer_than_a_group_completes_with_its_last_record() {
    on_every_disk(|disk, dir| {
        let options = LogOptions { group_bytes_max: 100, ..options() };
        let mut log = Driven::open_with(&disk, dir, options).unwrap();
        let (done, result) = completion();
        log.log.append(entries(0..5, 1), done).unwrap();
        while !matches!(log.writer.step(None), Step::Idle { .. }) {
            assert_eq!(result.try_recv().is_ok(), log.log.durable() == Some(4));
        }
        assert_eq!(log.log.durable(), Some(4));
    });
}

#[test]
fn what_does_not_follow_is_refused_whole() {
    on_every_disk(|disk, dir| {
        let mut log = Driven::open(&disk, dir);
        log.append(entries(0..2, 3));
        let append = |records| log.log.append(records, no_matter());
        assert_eq!(
            append(vec![entry(2, 3, "a"), entry(4, 3, "b")]),
            Err(LogError::NotConsecutive { expected: 3, found: 4 })
        );
        assert_eq!(
            append(vec![entry(2, 2, "a")]),
            Err(LogError::TermWentBack { index: 2, last: 3, found: 2 })
        );
        let kind = RecordKind::Durable;
        assert_eq!(
            append(vec![Record { kind, ..entry(2, 3, "a") }]),
            Err(LogError::NotAnEntry { kind })
        );
        let payload = Bytes::from(vec![0; PAYLOAD_BYTES_MAX + 1]);
        assert!(matches!(
            append(vec![Record { payload, ..entry(2, 3, "") }]),
            Err(LogError::PayloadTooLarge { .. })
        ));
        assert!(matches!(
            log.log.save_hard_state(Bytes::from(vec![0; 4096]), no_matter()),
            Err(LogError::PayloadTooLarge { .. })
        ));
        assert_eq!(log.contents(), entries(0..2, 3));
    });
}

#[test]
fn a_full_queue_refuses_and_takes_again_when_it_is_empty() {
    on_every_disk(|disk, dir| {
        let options = LogOptions { queued_bytes_max: 150, ..options() };
        let mut log = Driven::open_with(&disk, dir, options).unwrap();
        log.log.append(vec![entry(0, 1, &"x".repeat(100))], no_matter()).unwrap();
        assert!(matches!(
            log.log.append(vec![entry(1, 1, &"x".repeat(100))], no_matter()),
            Err(LogError::QueueFull { queued_bytes: 133, queued_bytes_max: 150 })
        ));
        assert_eq!(log.log.next_index(), 1);
        log.drain();
        assert_eq!(log.log.queued_bytes(), 0);
        // A single record over the limit still travels, alone.
        log.append(vec![entry(1, 1, &"x".repeat(1000))]);
    });
}

#[test]
fn segments_are_sealed_reported_and_read_across() {
    on_every_disk(|disk, dir| {
        let options = LogOptions { tail_bytes_max: 0, ..options() };
        let mut log = Driven::open_with(&disk, dir, options.clone()).unwrap();
        let sealed = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&sealed);
        log.log.on_seal(Arc::new(move |summary| heard.lock().unwrap().push(summary.clone())));
        for index in 0..200 {
            log.append(entries(index..index + 1, 1 + index / 50));
        }
        let segments = log.log.segments();
        assert!(segments.len() > 3);
        assert_eq!(sealed.lock().unwrap().as_slice(), &segments[..segments.len() - 1]);
        for pair in segments.windows(2) {
            assert_eq!(pair[0].next_index, pair[1].first_index);
            assert_eq!(pair[0].id + 1, pair[1].id);
            assert!(pair[0].sealed && pair[0].bytes <= 4096);
        }
        let check = |log: &Driven| {
            for start in (0..200).step_by(7) {
                for end in [start + 1, start + 9, 200, 500] {
                    let read = log.log.read(start..end, usize::MAX).unwrap();
                    assert_eq!(read.len() as u64, end.min(200) - start);
                    for (record, index) in read.iter().zip(start..) {
                        assert_eq!(*record, entries(index..index + 1, 1 + index / 50)[0]);
                    }
                }
                assert_eq!(log.log.read(start..200, 1).unwrap().len(), 1);
                assert_eq!(log.log.term_at(start), Some(1 + start / 50));
            }
            let located = log.log.read_located(0..200, usize::MAX).unwrap();
            assert_eq!(located.len(), 200);
            for (position, record) in &located {
                assert_eq!(log.log.read_at(*position).as_ref(), Ok(record));
            }
            located
        };
        let before = check(&log);
        drop(log);
        let log = Driven::open_with(&disk, dir, options).unwrap();
        // The unproven last group was carried over; nothing else moved.
        assert_eq!(check(&log)[..198], before[..198]);
    });
}

#[test]
fn the_chain_is_the_same_on_two_logs_with_the_same_entries() {
    on_every_disk(|disk, dir| {
        let chains = |dir: PathBuf, options: LogOptions, one_by_one: bool| {
            let mut log = Driven::open_with(&disk, &dir, options).unwrap();
            for index in 0..30 {
                if one_by_one {
                    log.append(entries(index..index + 1, 1));
                    log.save_hard_state("vote");
                    log.writer.flush_mark();
                } else {
                    log.log.append(entries(index..index + 1, 1), no_matter()).unwrap();
                }
            }
            log.drain();
            (0..30).map(|index| log.log.chain_at(index).unwrap()).collect::<Vec<_>>()
        };
        let small = LogOptions { segment_bytes: 512, tail_bytes_max: 0, ..options() };
        let one = chains(dir.join("a"), small, true);
        assert_eq!(one, chains(dir.join("b"), options(), false));
        let other = LogOptions::new(CLUSTER + 1, 0x11);
        assert_ne!(one[0], chains(dir.join("c"), other, false)[0]);
        assert!(!one.contains(&chain_seed(CLUSTER)));
    });
}

#[test]
fn truncation_takes_away_at_once_and_for_good() {
    on_every_disk(|disk, dir| {
        for tail_bytes_max in [0, 1 << 20] {
            let dir = dir.join(tail_bytes_max.to_string());
            let options = LogOptions { tail_bytes_max, ..options() };
            let mut log = Driven::open_with(&disk, &dir, options.clone()).unwrap();
            log.append(entries(0..100, 1));
            let chain = log.log.chain_at(49).unwrap();
            let (done, result) = completion();
            log.log.truncate_after(Some(49), done).unwrap();
            assert_eq!(log.log.last(), Some((49, 1)));
            assert_eq!(log.log.chain_at(49), Ok(chain));
            assert_eq!(log.log.durable(), Some(49));
            assert!(log.log.read(50..51, 1).is_err());
            assert!(result.try_recv().is_err());
            // New entries may follow before the mark is flushed.
            log.log.append(entries(50..60, 2), no_matter()).unwrap();
            assert_eq!(log.log.durable(), Some(49));
            log.drain();
            result.try_recv().unwrap().unwrap();
            assert_eq!(log.log.durable(), Some(59));
            let mut expected = entries(0..50, 1);
            expected.extend(entries(50..60, 2));
            assert_eq!(log.contents(), expected);
            drop(log);
            let mut log = Driven::open_with(&disk, &dir, options.clone()).unwrap();
            assert_eq!(log.contents(), expected);
            log.truncate_after(Some(59));
            assert!(matches!(
                log.log.truncate_after(Some(60), no_matter()),
                Err(LogError::OutsideOfLog { index: 60, first: 0, next: 60 })
            ));
            log.truncate_after(None);
            assert_eq!((log.log.last(), log.contents()), (None, Vec::new()));
            log.append(entries(0..1, 5));
            drop(log);
            let log = Driven::open_with(&disk, &dir, options).unwrap();
            assert_eq!(log.contents(), entries(0..1, 5));
        }
    });
}

#[test]
fn an_unflushed_entry_that_was_truncated_stays_away() {
    on_every_disk(|disk, dir| {
        let options = LogOptions { tail_bytes_max: 0, group_bytes_max: 100, ..options() };
        let mut log = Driven::open_with(&disk, dir, options).unwrap();
        log.log.append(entries(0..10, 1), no_matter()).unwrap();
        log.log.truncate_after(Some(4), no_matter()).unwrap();
        log.log.append(entries(5..8, 2), no_matter()).unwrap();
        log.log.truncate_after(Some(6), no_matter()).unwrap();
        log.log.append(entries(7..12, 3), no_matter()).unwrap();
        let mut expected = entries(0..5, 1);
        expected.extend(entries(5..7, 2));
        expected.extend(entries(7..12, 3));
        while matches!(log.writer.step(None), Step::Flushed { .. }) {
            assert_eq!(log.contents(), expected);
        }
        assert_eq!(log.log.durable(), Some(11));
    });
}

#[test]
fn the_newest_hard_state_survives_sealing_purging_and_reopening() {
    on_every_disk(|disk, dir| {
        let mut log = Driven::open(&disk, dir);
        log.save_hard_state("first");
        log.save_hard_state("second");
        for index in 0..200 {
            log.append(entries(index..index + 1, 1));
        }
        log.log.purge(190).unwrap();
        assert_eq!(log.log.segments().len(), 1);
        drop(log);
        let log = Driven::open(&disk, dir);
        assert_eq!(log.log.hard_state().unwrap(), "second");
        assert!(log.report.hard_state_proven);
    });
}

#[test]
fn purge_forgets_exactly_and_removes_whole_segments() {
    on_every_disk(|disk, dir| {
        let mut log = Driven::open(&disk, dir);
        for index in 0..200 {
            log.append(entries(index..index + 1, 1 + index / 100));
        }
        let chain = log.log.chain_at(120).unwrap();
        let segments = log.log.segments().len();
        log.log.purge(120).unwrap();
        log.log.purge(50).unwrap();
        assert!(log.log.segments().len() < segments);
        assert!(matches!(log.log.purge(200), Err(LogError::OutsideOfLog { .. })));
        assert!(log.log.truncate_after(Some(119), no_matter()).is_err());
        for _ in 0..2 {
            assert_eq!(log.log.first_index(), 121);
            assert_eq!(log.log.purged(), Some((120, 2)));
            assert_eq!(log.log.chain_at(120), Ok(chain));
            assert_eq!(log.log.term_at(120), Some(2));
            assert_eq!(log.log.term_at(119), None);
            assert!(log.log.read(120..121, 1).is_err());
            assert_eq!(log.contents().len(), 79);
            drop(log);
            log = Driven::open(&disk, dir);
        }
        log.log.purge(199).unwrap();
        assert_eq!(log.log.last(), Some((199, 2)));
        assert_eq!(log.contents(), Vec::new());
        log.append(entries(200..201, 2));
        drop(log);
        assert_eq!(Driven::open(&disk, dir).contents(), entries(200..201, 2));
    });
}

#[test]
fn reset_starts_after_the_snapshot() {
    on_every_disk(|disk, dir| {
        let mut log = Driven::open(&disk, dir);
        log.append(entries(0..100, 1));
        log.save_hard_state("vote");
        for (index, term) in [(1000, 7), (500, 7)] {
            let (done, result) = completion();
            log.log.reset_to(index, term, 42, done).unwrap();
            assert_eq!(log.log.last(), Some((index, term)));
            log.log.append(entries(index + 1..index + 3, term), no_matter()).unwrap();
            log.drain();
            result.try_recv().unwrap().unwrap();
            assert_eq!(log.log.segments().len(), 1);
            assert_eq!(log.log.durable(), Some(index + 2));
            drop(log);
            log = Driven::open(&disk, dir);
            assert_eq!(log.contents(), entries(index + 1..index + 3, term));
            assert_eq!(log.log.purged(), Some((index, term)));
            assert_eq!(log.log.chain_at(index), Ok(42));
            assert_eq!(log.log.hard_state().unwrap(), "vote");
        }
    });
}

#[test]
fn another_cluster_is_refused() {
    on_every_disk(|disk, dir| {
        drop(Driven::open(&disk, dir));
        let other = Driven::open_with(&disk, dir, LogOptions::new(9, 1)).err().unwrap();
        assert!(matches!(other, OpenError::OtherCluster { expected: 9, found: CLUSTER, .. }));
    });
}

#[test]
fn a_thread_flushes_marks_when_idle_and_ends_when_closed() {
    on_every_disk(|disk, dir| {
        let Driven { log, mut writer, .. } = Driven::open(&disk, dir);
        let (marks, marked) = std::sync::mpsc::sync_channel(8);
        let thread = std::thread::spawn(move || {
            loop {
                match writer.step(Some(Duration::from_secs(5))) {
                    Step::Marked => marks.send(()).unwrap(),
                    Step::Closed => return writer,
                    _ => {}
                }
            }
        });
        let (done, result) = completion();
        log.append(entries(0..5, 1), done).unwrap();
        result.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
        marked.recv_timeout(Duration::from_secs(10)).unwrap();
        let (done, result) = completion();
        log.append(entries(5..6, 1), done).unwrap();
        log.close();
        assert_eq!(log.append(entries(6..7, 1), no_matter()), Err(LogError::Closed));
        let mut writer = thread.join().unwrap();
        result.try_recv().unwrap().unwrap();
        assert_eq!(writer.step(None), Step::Closed);
        assert_eq!(log.state(), LogState::Writable);
        drop((log, writer));
        let log = Driven::open(&disk, dir);
        assert_eq!(log.contents(), entries(0..6, 1));
        // Everything was marked, so nothing had to be carried over.
        assert_eq!(log.log.segments().len(), 1);
    });
}

#[test]
fn readers_and_a_writer_at_once_see_a_growing_prefix() {
    let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new());
    let options = LogOptions { tail_bytes_max: 500, ..options() };
    let Driven { log, mut writer, .. } = Driven::open_with(&disk, Path::new("d"), options).unwrap();
    let read = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| while writer.step(Some(Duration::from_secs(5))) != Step::Closed {});
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = log.next_index();
                    if next > 0 {
                        let records = log.read(0..next, usize::MAX).unwrap();
                        assert_eq!(records.len() as u64, next);
                        read.fetch_max(next, Ordering::Relaxed);
                    }
                    if next == 400 {
                        break;
                    }
                }
            });
        }
        for index in 0..400 {
            log.append(entries(index..index + 1, 1), no_matter()).unwrap();
        }
        while log.durable() != Some(399) || read.load(Ordering::Relaxed) < 400 {
            std::thread::yield_now();
        }
        log.close();
    });
    assert_eq!(contents(&log).len(), 400);
}
