//! What a rotation costs the writer, and what the preparer takes off it.

use std::path::Path;
use std::sync::Arc;

use quorate_storage::disk::{FaultKind, FaultyDisk, SimulatedDisk};
use quorate_storage::{Disk, DiskOperation, Preparation, Step, Tail};

use crate::{Driven, completion, entries};

const DIR: &str = "log";

fn counted() -> (FaultyDisk, SimulatedDisk, Arc<dyn Disk>) {
    let simulated = SimulatedDisk::new();
    let faulty = FaultyDisk::new(Arc::new(simulated.clone()));
    (faulty.clone(), simulated, Arc::new(faulty))
}

fn flushes(disk: &FaultyDisk) -> u64 {
    disk.calls(DiskOperation::Sync) + disk.calls(DiskOperation::SyncDir)
}

#[test]
fn a_rotation_costs_the_writer_one_flush_more() {
    for prepares in [false, true] {
        let (faulty, _, disk) = counted();
        let mut log = Driven::open(&disk, Path::new(DIR));
        let mut preparer = log.log.preparer();
        let (mut rotations, mut made_ahead) = (0, 0);
        for index in 0..500 {
            while prepares && preparer.step(None) != Preparation::Idle {}
            let segments = log.log.segments().len();
            let (before, allocated) = (flushes(&faulty), faulty.calls(DiskOperation::Allocate));
            log.append(entries(index..index + 1, 1));
            let rotated = log.log.segments().len() > segments;
            assert_eq!(flushes(&faulty) - before, 1 + u64::from(rotated));
            rotations += u64::from(rotated);
            let by_writer = faulty.calls(DiskOperation::Allocate) - allocated;
            made_ahead += u64::from(rotated && by_writer == 0);
        }
        assert!(rotations >= 5, "{rotations}");
        assert_eq!(made_ahead, if prepares { rotations } else { 0 });
    }
}

#[test]
fn a_group_that_begins_a_segment_is_there_after_any_crash_once_it_is_acknowledged() {
    for seed in 0..400 {
        let (_, simulated, disk) = counted();
        let mut log = Driven::open(&disk, Path::new(DIR));
        let mut next = 0;
        while log.log.segments().len() < 2 {
            log.append(entries(next..next + 1, 1));
            next += 1;
        }
        // Neither the footer of the first segment is flushed, nor a mark behind the group.
        drop(log);
        simulated.crash(seed);
        for _ in 0..2 {
            let log = Driven::open(&disk, Path::new(DIR));
            assert_eq!((log.contents(), log.report.tail), (entries(0..next, 1), Tail::Proven));
        }
    }
}

#[test]
fn a_file_made_ahead_by_an_earlier_process_is_made_anew() {
    let (_, simulated, disk) = counted();
    let mut log = Driven::open(&disk, Path::new(DIR));
    log.append(entries(0..50, 1));
    let prepared = log.log.preparer().step(None);
    assert_eq!(prepared, Preparation::Prepared { segment: 2 });
    let spare = Path::new(DIR).join("0000000000000002.seg.new");
    assert!(simulated.bytes(&spare).is_some());
    drop(log);
    let mut log = Driven::open(&disk, Path::new(DIR));
    assert!(simulated.bytes(&spare).is_none());
    log.append(entries(50..200, 1));
    assert_eq!(log.contents(), entries(0..200, 1));
}

#[test]
fn a_preparer_that_finds_the_disk_full_changes_nothing_and_one_whose_flush_fails_poisons() {
    let (faulty, simulated, disk) = counted();
    let mut log = Driven::open(&disk, Path::new(DIR));
    log.append(entries(0..50, 1));
    faulty.fail(DiskOperation::Allocate, 1, FaultKind::Full);
    let mut preparer = log.log.preparer();
    assert!(matches!(preparer.step(None), Preparation::Full(fault) if fault.is_full()));
    let left = simulated.list(Path::new(DIR)).unwrap();
    assert!(!left.iter().any(|name| name.ends_with(".new")), "space is given back: {left:?}");
    log.append(entries(50..60, 1));
    faulty.fail(DiskOperation::Sync, 1, FaultKind::Io);
    let Preparation::Poisoned(poisoned) = preparer.step(None) else { panic!("not poisoned") };
    let (done, result) = completion();
    assert!(log.log.append(entries(60..61, 1), done).is_err());
    assert!(result.try_recv().is_err());
    assert_eq!(log.writer.step(None), Step::Poisoned(poisoned.clone()));
    assert_eq!(preparer.step(None), Preparation::Poisoned(poisoned));
}
