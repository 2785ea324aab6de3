//! Going on without what is lost: the log opens, keeps a true prefix or what a snapshot covers,
//! says what is gone, and deletes nothing.

use std::path::Path;
use std::sync::Arc;

use quorate_storage::disk::SimulatedDisk;
use quorate_storage::{Disk, Loss, LossError, OpenError, SnapshotEnd, accept_loss};

use crate::damage::{DIR, Small, last_segment, paths, small, small_log, try_open};
use crate::options;

fn accept(disk: &SimulatedDisk, snapshot: Option<SnapshotEnd>) -> Result<Loss, LossError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    accept_loss(&disk, Path::new(DIR), &options(), snapshot)
}

fn snapshot_at(small: &Small, index: u64) -> SnapshotEnd {
    let log = try_open(&small.disk.fork()).unwrap().log;
    let term = log.term_at(index).unwrap();
    SnapshotEnd { index, term, chain: log.chain_at(index).unwrap() }
}

/// A copy with one flipped bit that makes a hole, for every byte of every segment.
fn each_hole(small: &Small, mut check: impl FnMut(SimulatedDisk, &str)) -> usize {
    let mut holes = 0;
    for path in paths(&small.disk) {
        if path.extension().is_none_or(|suffix| suffix != "seg") {
            continue;
        }
        let whole = small.disk.bytes(&path).unwrap();
        for byte in 0..whole.len() {
            let damaged = small.disk.fork();
            let mut bytes = whole.clone();
            bytes[byte] ^= 1 << (byte % 8);
            damaged.put(&path, bytes);
            if matches!(try_open(&damaged), Err(OpenError::Hole(_))) {
                holes += 1;
                check(damaged, &format!("{} byte {byte}", path.display()));
            }
        }
    }
    holes
}

#[test]
fn without_a_snapshot_the_log_ends_before_the_hole() {
    let small = small_log(false);
    let (mut lost_nothing, mut nothing_left) = (0, 0);
    let holes = each_hole(&small, |damaged, context| {
        let loss = match accept(&damaged, None) {
            Ok(loss) => loss,
            Err(LossError::NothingLeft { .. }) => {
                nothing_left += 1;
                return;
            }
            Err(error) => panic!("{context}: {error}"),
        };
        let log = try_open(&damaged).unwrap_or_else(|error| panic!("{context}: {error}"));
        let found = log.contents();
        let kept = loss.kept.clone();
        assert_eq!(kept, log.log.first_index()..log.log.next_index(), "{context}");
        let part = &loss.parts;
        if part.iter().all(|part| part.lost.is_empty()) {
            lost_nothing += 1;
        } else {
            // What a lost truncation took away comes back with it; a single node has none.
            assert!(found.len() <= small.contents.len(), "{context}");
            assert_eq!(part[0].lost.start, kept.end, "{context}");
            assert!(part[0].lost.end >= small.proven_next.min(14), "{context} {part:?}");
        }
        let common = found.len().min(7);
        assert_eq!(found[..common], small.contents[..common], "{context}");
        assert!(!loss.quarantined.is_empty(), "{context}");
        for path in &loss.quarantined {
            assert!(damaged.bytes(path).is_some(), "{context}: {}", path.display());
        }
        // A second time there is nothing to do.
        assert_eq!(accept(&damaged, None).unwrap().parts, []);
    });
    println!("{holes} holes, {lost_nothing} without loss, {nothing_left} with nothing left");
    assert!(holes > 500 && lost_nothing > 100, "{holes} {lost_nothing}");
    assert!(nothing_left < 20, "{nothing_left}");
}

#[test]
fn what_a_snapshot_covers_is_not_lost() {
    let small = small();
    let last = try_open(&small.disk.fork()).unwrap().log.next_index() - 1;
    for index in [5, 13, 19, last] {
        let snapshot = snapshot_at(&small, index);
        let mut whole = 0;
        let holes = each_hole(&small, |damaged, context| {
            let loss = accept(&damaged, Some(snapshot)).unwrap();
            let log = try_open(&damaged).unwrap_or_else(|error| panic!("{context}: {error}"));
            // State and log lead on from each other.
            assert!(log.log.first_index() <= index + 1, "{context}: {:?}", loss.parts);
            assert!(log.log.next_index() > index, "{context}: {:?}", loss.parts);
            let found = log.contents();
            let start = small.contents.iter().position(|kept| Some(kept) == found.first());
            if let Some(start) = start {
                assert_eq!(found, small.contents[start..start + found.len()], "{context}");
            }
            if loss.parts.iter().all(|part| part.lost.is_empty()) {
                assert_eq!(log.log.next_index(), last + 1, "{context}: {:?}", loss.parts);
                whole += 1;
            }
        });
        println!("snapshot at {index}: {whole} of {holes} holes without loss");
        assert!(index < last || whole == holes, "{whole} of {holes}");
    }
}

#[test]
fn without_its_newest_segment_the_log_ends_with_the_one_before() {
    let small = small_log(false);
    let newest = last_segment(&small.disk);
    let next_index = |disk: &SimulatedDisk| try_open(disk).unwrap().log.next_index();
    let mut crashes = 0;
    for step in 1.. {
        let mut is_last = false;
        for seed in 0..8 {
            let damaged = small.disk.fork();
            damaged.remove(&newest).unwrap();
            let Err(OpenError::Hole(hole)) = try_open(&damaged) else { panic!("opened") };
            damaged.go_down_after(step);
            is_last |= accept(&damaged, None).is_ok() && !damaged.is_down();
            damaged.crash(seed);
            accept(&damaged, None).unwrap();
            assert_eq!(next_index(&damaged), hole.index, "step {step}, seed {seed}");
            let log = try_open(&damaged).unwrap();
            assert_eq!(log.contents(), small.contents[..log.contents().len()]);
            assert!(log.report.hard_state_proven);
            crashes += 1;
        }
        if is_last {
            break;
        }
    }
    assert!(crashes > 30, "{crashes}");
}

/// A crash can keep a footer and lose that the space behind it was given back.
#[test]
fn a_footer_is_found_whatever_stands_behind_it() {
    let small = small_log(false);
    let newest = last_segment(&small.disk);
    let damaged = small.disk.fork();
    damaged.remove(&newest).unwrap();
    let before_it = last_segment(&damaged);
    let whole = damaged.bytes(&before_it).unwrap();
    for behind in [vec![0; 4_096], vec![7; 100], whole.clone()] {
        let damaged = damaged.fork();
        damaged.put(&before_it, [whole.clone(), behind].concat());
        let Err(OpenError::Hole(hole)) = try_open(&damaged) else { panic!("opened") };
        let loss = accept(&damaged, None).unwrap();
        assert_eq!(loss.parts.len(), 1);
        let log = try_open(&damaged).unwrap();
        assert_eq!(log.log.next_index(), hole.index);
        assert_eq!(log.contents(), small.contents[..log.contents().len()]);
    }
}

#[test]
fn a_crash_at_every_step_leaves_a_log_that_refuses_or_is_done() {
    let small = small();
    let snapshot = snapshot_at(&small, 13);
    let path =
        paths(&small.disk).into_iter().find(|path| path.ends_with("0000000000000002.seg")).unwrap();
    let whole = small.disk.bytes(&path).unwrap();
    let mut crashes = 0;
    for (byte, snapshot) in [(200, None), (200, Some(snapshot)), (20, Some(snapshot))] {
        for step in 1.. {
            let mut is_last = false;
            for seed in 0..8 {
                let damaged = small.disk.fork();
                let mut bytes = whole.clone();
                bytes[byte] ^= 1;
                damaged.put(&path, bytes);
                damaged.go_down_after(step);
                is_last |= accept(&damaged, snapshot).is_ok() && !damaged.is_down();
                damaged.crash(seed);
                accept(&damaged, snapshot).unwrap();
                let log = try_open(&damaged).unwrap();
                assert!(log.report.hard_state_proven);
                let found = log.contents();
                assert!(found.iter().all(|record| small.contents.contains(record)));
                crashes += 1;
            }
            if is_last {
                break;
            }
        }
    }
    assert!(crashes > 60, "{crashes}");
}
