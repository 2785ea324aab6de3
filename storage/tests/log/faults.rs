//! A failed flush, a full disk, short writes, unreadable bytes.

use std::path::Path;
use std::sync::Arc;

use quorate_storage::disk::{FaultKind, FaultyDisk, SimulatedDisk};
use quorate_storage::log::append_log::LogState;
use quorate_storage::{Disk, DiskOperation, LogError, LogOptions, ReadError, Step, Tail};

use crate::{Driven, completion, contents, entries, no_matter, options};

const DIR: &str = "log";

fn faulty() -> (FaultyDisk, SimulatedDisk, Arc<dyn Disk>) {
    let simulated = SimulatedDisk::new();
    let faulty = FaultyDisk::new(Arc::new(simulated.clone()));
    let disk: Arc<dyn Disk> = Arc::new(faulty.clone());
    (faulty, simulated, disk)
}

#[test]
fn a_failed_flush_poisons_for_good() {
    for operation in [DiskOperation::Sync, DiskOperation::Write] {
        let (faulty, simulated, disk) = faulty();
        let mut log = Driven::open(&disk, Path::new(DIR));
        log.append(entries(0..5, 1));
        faulty.fail(operation, 1, FaultKind::Io);
        let (done, first) = completion();
        log.log.append(entries(5..6, 1), done).unwrap();
        let (done, second) = completion();
        log.log.append(entries(6..7, 1), done).unwrap();
        let Step::Poisoned(poisoned) = log.writer.step(None) else { panic!("not poisoned") };
        assert_eq!(poisoned.fault.operation, operation);
        assert_eq!(poisoned.fault.code, Some(5));
        for result in [first, second] {
            assert_eq!(result.try_recv().unwrap(), Err(poisoned.clone()));
        }
        // The disk is well again; the log is not.
        for _ in 0..3 {
            assert_eq!(log.writer.step(None), Step::Poisoned(poisoned.clone()));
            assert_eq!(log.writer.flush_mark(), Step::Poisoned(poisoned.clone()));
            let refused = log.log.append(entries(7..8, 1), no_matter());
            assert_eq!(refused, Err(LogError::Poisoned(poisoned.clone())));
            assert!(log.log.save_hard_state("x".into(), no_matter()).is_err());
            assert!(log.log.truncate_after(Some(1), no_matter()).is_err());
            assert!(log.log.purge(1).is_err());
        }
        assert_eq!(log.log.durable(), Some(4));
        assert_eq!(log.log.state(), LogState::Poisoned(poisoned));
        // Opening anew goes on with what can be proven.
        drop(log);
        simulated.crash(3);
        let log = Driven::open(&disk, Path::new(DIR));
        assert_eq!(log.contents()[..5], entries(0..5, 1));
    }
}

#[test]
fn every_failing_call_of_a_busy_log_is_survived_or_poisons() {
    let operations = [
        DiskOperation::Open,
        DiskOperation::Rename,
        DiskOperation::Remove,
        DiskOperation::SyncDir,
        DiskOperation::Write,
        DiskOperation::Sync,
        DiskOperation::Truncate,
        DiskOperation::Allocate,
    ];
    let mut poisoned = 0;
    for (seed, operation) in operations.into_iter().enumerate() {
        for nth in 1..30 {
            let (faulty, simulated, disk) = faulty();
            let mut log = Driven::open(&disk, Path::new(DIR));
            faulty.fail(operation, nth, FaultKind::Io);
            let mut acknowledged = 0;
            for index in 0..150 {
                let (done, result) = completion();
                if log.log.append(entries(index..index + 1, 1), done).is_err() {
                    break;
                }
                log.drain();
                match result.try_recv().unwrap() {
                    Ok(()) => acknowledged = index + 1,
                    Err(_) => break,
                }
                if index % 60 == 59 {
                    // It may fail; what it may not is lose anything above.
                    let _ = log.log.purge(index - 50);
                }
            }
            poisoned += u64::from(log.log.poisoned().is_some());
            drop(log);
            simulated.crash(nth + seed as u64 * 1000);
            // Without the fault, in case that it has not come to pass yet.
            let disk: Arc<dyn Disk> = Arc::new(simulated);
            let log = Driven::open(&disk, Path::new(DIR));
            assert!(log.log.next_index() >= acknowledged, "{operation} {nth}");
            for record in log.contents() {
                assert_eq!(record, entries(record.index..record.index + 1, 1)[0]);
            }
        }
    }
    assert!(poisoned > 50, "{poisoned}");
}

#[test]
fn a_full_disk_is_waited_out() {
    let (faulty, simulated, disk) = faulty();
    let mut log = Driven::open(&disk, Path::new(DIR));
    log.append(entries(0..5, 1));
    faulty.set_full(true);
    let (done, result) = completion();
    log.log.append(entries(5..8, 1), done).unwrap();
    for _ in 0..3 {
        assert!(matches!(log.writer.step(None), Step::Full(fault) if fault.is_full()));
        assert!(matches!(log.log.state(), LogState::DiskFull(_)));
        assert!(result.try_recv().is_err(), "neither acknowledged nor failed");
        assert_eq!(log.log.durable(), Some(4));
        assert_eq!(contents(&log.log), entries(0..8, 1), "readers go on");
    }
    assert!(matches!(log.log.purge(3), Err(LogError::DiskFull(_))));
    // A crash now loses nothing acknowledged.
    let copy = simulated.fork();
    let copied: Arc<dyn Disk> = Arc::new(copy);
    assert_eq!(Driven::open(&copied, Path::new(DIR)).contents(), entries(0..5, 1));
    faulty.set_full(false);
    log.drain();
    result.try_recv().unwrap().unwrap();
    assert_eq!(log.log.state(), LogState::Writable);
    assert_eq!(log.log.durable(), Some(7));
    log.log.purge(3).unwrap();
    drop(log);
    let log = Driven::open(&disk, Path::new(DIR));
    assert_eq!((log.contents(), log.report.tail), (entries(4..8, 1), Tail::Proven));
}

/// Wherever in a group, a rotation or a reset space runs out.
#[test]
fn every_call_that_finds_the_disk_full_is_tried_again() {
    let operations = [
        DiskOperation::Open,
        DiskOperation::Rename,
        DiskOperation::Write,
        DiskOperation::Truncate,
        DiskOperation::Allocate,
    ];
    let mut full = 0;
    for operation in operations {
        for nth in 1..25 {
            let (faulty, simulated, disk) = faulty();
            let mut log = Driven::open(&disk, Path::new(DIR));
            // Half of a write may be done before.
            faulty.fail(DiskOperation::Write, nth, FaultKind::ShortWrite);
            faulty.fail(operation, nth + 1, FaultKind::Full);
            for index in 0..120 {
                let (done, result) = completion();
                log.log.append(entries(index..index + 1, 1), done).unwrap();
                while let Step::Full(_) = log.writer.step(None) {
                    full += 1;
                }
                result.try_recv().unwrap().unwrap();
            }
            assert_eq!(log.log.state(), LogState::Writable, "{operation} {nth}");
            drop(log);
            let disk: Arc<dyn Disk> = Arc::new(simulated);
            let log = Driven::open(&disk, Path::new(DIR));
            assert_eq!(log.report.tail, Tail::Proven, "{operation} {nth}");
            assert_eq!(log.contents(), entries(0..120, 1));
        }
    }
    assert!(full > 25, "{full}");
}

#[test]
fn closing_a_full_log_tells_the_waiters() {
    let (faulty, _, disk) = faulty();
    let mut log = Driven::open(&disk, Path::new(DIR));
    faulty.set_full(true);
    let (done, result) = completion();
    log.log.append(entries(0..1, 1), done).unwrap();
    assert!(matches!(log.writer.step(None), Step::Full(_)));
    log.log.close();
    assert!(matches!(log.writer.step(None), Step::Poisoned(_)));
    assert!(result.try_recv().unwrap().is_err());
}

#[test]
fn no_space_in_the_flush_itself_poisons() {
    let (faulty, _, disk) = faulty();
    let mut log = Driven::open(&disk, Path::new(DIR));
    faulty.fail(DiskOperation::Sync, 1, FaultKind::Full);
    log.log.append(entries(0..1, 1), no_matter()).unwrap();
    assert!(matches!(log.writer.step(None), Step::Poisoned(_)));
}

#[test]
fn short_writes_are_finished() {
    let (faulty, _, disk) = faulty();
    let mut log = Driven::open(&disk, Path::new(DIR));
    for nth in 1..40 {
        faulty.fail(DiskOperation::Write, nth, FaultKind::ShortWrite);
    }
    log.append(entries(0..20, 1));
    drop(log);
    assert_eq!(Driven::open(&disk, Path::new(DIR)).contents(), entries(0..20, 1));
}

/// Zeros that are written ahead of small groups are a write like any other: nothing is acknowledged
/// on the strength of a call that failed.
#[test]
fn what_fails_where_zeros_are_written_ahead_is_survived_or_poisons() {
    let step_of_one = |log: &mut Driven, index| {
        let (done, result) = completion();
        log.log.append(entries(index..index + 1, 1), done).unwrap();
        (log.writer.step(None), result)
    };
    // The group that takes a write more than the others.
    let (quiet, _, disk) = faulty();
    let mut log = Driven::open(&disk, Path::new(DIR));
    let group = (0..30).find(|index| {
        let before = quiet.calls(DiskOperation::Write);
        let (step, _) = step_of_one(&mut log, *index);
        assert!(matches!(step, Step::Flushed { .. }));
        quiet.calls(DiskOperation::Write) - before == 2
    });
    let group = group.expect("zeros were written ahead");
    for (operation, nth, kind) in [
        (DiskOperation::Write, 2, FaultKind::Io),
        (DiskOperation::Write, 2, FaultKind::Full),
        (DiskOperation::Write, 2, FaultKind::ShortWrite),
        (DiskOperation::Write, 2, FaultKind::Lie),
        (DiskOperation::Sync, 1, FaultKind::Io),
        (DiskOperation::Sync, 1, FaultKind::Full),
    ] {
        for seed in 0..20 {
            let case = format!("{operation} {kind:?}, crash {seed}");
            let (faulty, simulated, disk) = faulty();
            let mut log = Driven::open(&disk, Path::new(DIR));
            for index in 0..group {
                log.append(entries(index..index + 1, 1));
            }
            faulty.fail(operation, nth, kind);
            let (mut step, result) = step_of_one(&mut log, group);
            if let Step::Full(_) = step {
                assert!(result.try_recv().is_err(), "{case}: acknowledged on a full disk");
                step = log.writer.step(None);
            }
            let is_acknowledged = match (step, result.try_recv().unwrap()) {
                (Step::Flushed { .. }, Ok(())) => true,
                (Step::Poisoned(_), Err(_)) => false,
                (step, result) => panic!("{case}: {step:?}, {result:?}"),
            };
            let fails = kind == FaultKind::Io || operation == DiskOperation::Sync;
            assert_eq!(is_acknowledged, !fails, "{case}");
            drop(log);
            simulated.crash(seed);
            let mut log = Driven::open(&disk, Path::new(DIR));
            let there = log.contents();
            assert_eq!(there[..group as usize], entries(0..group, 1), "{case}");
            assert!(there.len() as u64 > group || !is_acknowledged, "{case}");
            let next = there.len() as u64;
            log.append(entries(next..next + 20, 1));
            assert_eq!(log.contents(), entries(0..next + 20, 1), "{case}");
        }
    }
}

#[test]
fn a_flipped_bit_is_found_by_the_read_and_never_served() {
    let (faulty, _, disk) = faulty();
    let options = LogOptions { tail_bytes_max: 0, ..options() };
    let mut log = Driven::open_with(&disk, Path::new(DIR), options).unwrap();
    log.append(entries(0..10, 1));
    let (position, _) = log.log.read_located(4..5, 1).unwrap()[0];
    let path = log.log.segments()[0].path.clone();
    faulty.flip(&path, position.offset + 40, 0x10);
    assert!(log.log.read(0..4, usize::MAX).is_ok());
    for failed in [
        log.log.read(0..10, usize::MAX).err(),
        log.log.read(4..5, 1).err(),
        log.log.read_at(position).err(),
        log.log.chain_at(4).err(),
    ] {
        let Some(ReadError::Damaged { segment, offset, .. }) = failed else {
            panic!("served: {failed:?}")
        };
        assert_eq!((segment, offset), (position.segment, position.offset));
    }
    faulty.fail(DiskOperation::Read, 1, FaultKind::Io);
    assert!(matches!(log.log.read(0..1, 1), Err(ReadError::Disk(_))));
    assert!(log.log.read(0..1, 1).is_ok());
}

#[test]
fn an_opening_that_cannot_read_says_so_and_changes_nothing() {
    let (faulty, _, disk) = faulty();
    let mut log = Driven::open(&disk, Path::new(DIR));
    log.append(entries(0..60, 1));
    drop(log);
    let (mut number, mut refused) = (0, 0);
    loop {
        number += 1;
        let before = faulty.calls(DiskOperation::Read);
        faulty.fail(DiskOperation::Read, number, FaultKind::Io);
        match Driven::open_with(&disk, Path::new(DIR), options()) {
            Err(error) => {
                assert!(error.to_string().starts_with("read of log/"), "{error}");
                refused += 1;
            }
            Ok(_) if faulty.calls(DiskOperation::Read) - before < number => break,
            // What could not be read is there twice.
            Ok(log) => assert_eq!(log.contents(), entries(0..60, 1), "read {number}"),
        }
        assert!(number < 1_000, "opening reads without end");
    }
    assert!(refused > 3, "{refused} of {number} reads were missed");
}
