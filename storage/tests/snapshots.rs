//! Snapshots on the simulated disk: golden bytes, tears, flips, crashes, transfers.
#![expect(clippy::unwrap_used, reason = "a failed step of a test is its failure")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use quorate_storage::disk::{Disk, RealDisk, SimulatedDisk};
use quorate_storage::snapshot::{
    Catalogue, CatalogueError, Kept, Owner, QUARANTINE, RANGE_BYTES_MAX, SnapshotHead, SnapshotId,
    SnapshotReader, TransferError,
};

const DIR: &str = "node/snapshots";
const GOLDEN: &str = "00000000000000000078-00000000000000000003-cc11c887dbf84e5c.snapshot";

fn dir() -> &'static Path {
    Path::new(DIR)
}

fn head(index: u64) -> SnapshotHead {
    SnapshotHead {
        lineage: 0x1111_2222_3333_4444,
        cluster_id: 0x5555_6666_7777_8888,
        index,
        term: 3,
        chain: 0x9999_aaaa_bbbb_cccc,
        state_hash: 0xdddd_eeee_ffff_0000,
        meta: Bytes::from_static(b"voters 1 2 3"),
    }
}

fn records(count: usize, bytes: usize) -> Vec<Bytes> {
    (0..count).map(|n| Bytes::from(vec![n as u8; bytes + n % 3])).collect()
}

fn open(disk: &SimulatedDisk) -> Catalogue {
    let (catalogue, aside) = Catalogue::open(Arc::new(disk.clone()), dir(), None).unwrap();
    assert!(aside.is_empty(), "{aside:?}");
    catalogue
}

fn contents(reader: &SnapshotReader) -> Vec<Bytes> {
    reader.records().map(Result::unwrap).collect()
}

/// A small snapshot's file, and its name.
fn small() -> (SnapshotId, Vec<u8>) {
    let disk = SimulatedDisk::new();
    let kept = open(&disk).write(head(78), records(5, 7)).unwrap();
    let bytes = disk.bytes(&dir().join(kept.id.file_name())).unwrap();
    (kept.id, bytes)
}

/// A disk with this as the file of a snapshot.
fn disk_with(name: &str, bytes: &[u8]) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    disk.create_dir(dir()).unwrap();
    disk.put(&dir().join(name), bytes.to_vec());
    disk
}

/// What a start would find: the newest snapshot that is whole.
fn accepted(disk: &SimulatedDisk) -> Option<SnapshotId> {
    let (catalogue, _) = Catalogue::open(Arc::new(disk.clone()), dir(), None).unwrap();
    catalogue.newest_verified().unwrap().0.map(|reader| reader.id())
}

#[test]
fn a_snapshot_comes_back_as_it_was_written() {
    let disk = SimulatedDisk::new();
    let kept = open(&disk).write(head(78), records(3_000, 300)).unwrap();
    assert_eq!((kept.records, kept.id.index, kept.id.term), (3_000, 78, 3));
    disk.crash(1);
    let catalogue = open(&disk);
    assert_eq!(catalogue.newest().unwrap().id, kept.id);
    let (reader, aside) = catalogue.newest_verified().unwrap();
    let reader = reader.unwrap();
    assert!(aside.is_empty());
    assert_eq!(reader.head(), &head(78));
    assert_eq!(contents(&reader), records(3_000, 300));
}

#[test]
fn an_empty_snapshot_and_empty_records_are_snapshots() {
    let disk = SimulatedDisk::new();
    let catalogue = open(&disk);
    let none = catalogue.write(head(1), []).unwrap();
    assert!(contents(&catalogue.reader(none.id).unwrap()).is_empty());
    let empty = catalogue.write(head(2), vec![Bytes::new(); 3]).unwrap();
    assert_eq!(contents(&catalogue.reader(empty.id).unwrap()), vec![Bytes::new(); 3]);
}

#[test]
fn the_bytes_of_version_1_never_change() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1").join(GOLDEN);
    let (id, bytes) = small();
    assert_eq!(id.file_name(), GOLDEN);
    assert_eq!(std::fs::read(&golden).unwrap(), bytes);
    let reader = SnapshotReader::open(&RealDisk, &golden).unwrap();
    reader.verify().unwrap();
    assert_eq!(reader.head(), &head(78));
    assert_eq!(contents(&reader), records(5, 7));
}

#[test]
fn a_snapshot_torn_at_any_byte_is_not_accepted() {
    let (id, bytes) = small();
    for length in 0..bytes.len() {
        let disk = disk_with(&id.file_name(), &bytes[..length]);
        assert_eq!(accepted(&disk), None, "accepted {length} of {} bytes", bytes.len());
        let aside = dir().join(QUARANTINE).join(id.file_name());
        assert_eq!(disk.bytes(&aside).unwrap(), &bytes[..length], "it was moved, not deleted");
    }
    assert_eq!(accepted(&disk_with(&id.file_name(), &bytes)), Some(id));
}

#[test]
fn a_torn_end_that_reads_as_zeros_is_not_accepted() {
    let (id, bytes) = small();
    for length in 0..bytes.len() {
        let mut torn = bytes[..length].to_vec();
        torn.resize(bytes.len(), 0);
        let accepted = accepted(&disk_with(&id.file_name(), &torn));
        assert_eq!(accepted, (torn == bytes).then_some(id), "at {length}");
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let (id, bytes) = small();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(accepted(&disk_with(&id.file_name(), &flipped)), None, "bit {bit}");
    }
}

#[test]
fn bytes_behind_the_end_and_wrong_names_are_found() {
    let (id, mut bytes) = small();
    let wrong = SnapshotId { index: id.index + 1, ..id };
    assert_eq!(accepted(&disk_with(&wrong.file_name(), &bytes)), None);
    bytes.push(0);
    assert_eq!(accepted(&disk_with(&id.file_name(), &bytes)), None);
}

#[test]
fn a_damaged_newest_gives_way_to_the_one_before() {
    let disk = SimulatedDisk::new();
    let catalogue = open(&disk);
    let old = catalogue.write(head(10), records(9, 9)).unwrap();
    let new = catalogue.write(head(20), records(9, 9)).unwrap();
    let path = dir().join(new.id.file_name());
    let mut bytes = disk.bytes(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    disk.put(&path, bytes);
    let (reader, aside) = catalogue.newest_verified().unwrap();
    assert_eq!(reader.unwrap().id(), old.id);
    assert_eq!(aside.len(), 1);
    assert_eq!(aside[0].name, new.id.file_name());
    assert_eq!(catalogue.list().len(), 1);
}

#[test]
fn a_snapshot_of_a_later_version_stays_where_it_is() {
    let (id, mut bytes) = small();
    bytes[8] = 2;
    let disk = disk_with(&id.file_name(), &bytes);
    let (catalogue, aside) = Catalogue::open(Arc::new(disk.clone()), dir(), None).unwrap();
    assert!(catalogue.list().is_empty());
    assert_eq!(aside[0].moved_to, None);
    assert!(disk.bytes(&dir().join(id.file_name())).is_some());
}

#[test]
fn a_snapshot_of_another_history_is_set_aside() {
    let disk = SimulatedDisk::new();
    let kept = open(&disk).write(head(10), records(1, 1)).unwrap();
    let ours = Owner { cluster_id: head(0).cluster_id, lineage: head(0).lineage };
    let disk_of = |disk: &SimulatedDisk| -> Arc<dyn Disk> { Arc::new(disk.clone()) };
    let (catalogue, aside) = Catalogue::open(disk_of(&disk), dir(), Some(ours)).unwrap();
    assert_eq!((catalogue.list().len(), aside.len()), (1, 0));
    let other = Owner { lineage: 9, ..ours };
    let (catalogue, aside) = Catalogue::open(disk_of(&disk), dir(), Some(other)).unwrap();
    assert_eq!((catalogue.list().len(), aside.len()), (0, 1));
    assert_eq!(aside[0].name, kept.id.file_name());
}

#[test]
fn pruning_keeps_the_newest_whole_ones() {
    let disk = SimulatedDisk::new();
    let catalogue = open(&disk);
    let kept: Vec<Kept> =
        (1..=5).map(|n| catalogue.write(head(n * 10), records(4, 4)).unwrap()).collect();
    // The newest is damaged: it must not count as one of the two that stay.
    let path = dir().join(kept[4].id.file_name());
    let mut bytes = disk.bytes(&path).unwrap();
    bytes[100] ^= 1;
    disk.put(&path, bytes);
    let (removed, aside) = catalogue.prune(2).unwrap();
    assert_eq!(removed, [kept[1].id, kept[0].id]);
    assert_eq!(aside.len(), 1);
    let left: Vec<SnapshotId> = catalogue.list().iter().map(|kept| kept.id).collect();
    assert_eq!(left, [kept[3].id, kept[2].id]);
    let (removed, _) = catalogue.prune(0).unwrap();
    assert_eq!(removed, [kept[2].id]);
    assert_eq!(catalogue.newest().unwrap().id, kept[3].id);
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let disk = SimulatedDisk::new();
    let catalogue = open(&disk);
    let mut writer = catalogue.begin(head(7)).unwrap();
    writer.extend(records(100, 10_000)).unwrap();
    assert!(writer.bytes() > 500_000);
    drop(writer);
    assert!(disk.list(dir()).unwrap().is_empty());
}

#[test]
fn a_crash_at_any_operation_of_writing_leaves_the_old_snapshot_or_the_new_one() {
    let mut crashes = 0;
    for operation in 0.. {
        let mut done = false;
        for seed in 0..4 {
            let disk = SimulatedDisk::new();
            let old = open(&disk).write(head(10), records(40, 4_000)).unwrap();
            let catalogue = open(&disk);
            disk.go_down_after(operation);
            let new = catalogue.write(head(20), records(200, 4_000));
            disk.crash(operation * 4 + seed);
            let newest = accepted(&disk).unwrap();
            match &new {
                Ok(kept) => assert_eq!(newest, kept.id),
                Err(_) => assert!(newest == old.id || newest.index == 20),
            }
            let names = disk.list(dir()).unwrap();
            assert!(names.iter().all(|name| name.ends_with(".snapshot")), "{names:?}");
            let quarantine = disk.list(&dir().join(QUARANTINE));
            assert!(quarantine.is_err(), "a file under a snapshot's name was torn: {quarantine:?}");
            done = new.is_ok();
            crashes += 1;
        }
        if done {
            break;
        }
    }
    assert!(crashes > 30, "only {crashes} crash points");
}

#[test]
fn a_crash_at_any_operation_of_pruning_leaves_the_newest() {
    for operation in 0..20 {
        let disk = SimulatedDisk::new();
        let catalogue = open(&disk);
        for index in 1..=4 {
            catalogue.write(head(index), records(2, 2)).unwrap();
        }
        disk.go_down_after(operation);
        let done = catalogue.prune(1).is_ok();
        disk.crash(operation);
        assert_eq!(accepted(&disk).unwrap().index, 4);
        if done {
            return;
        }
    }
    panic!("pruning three files takes fewer operations");
}

/// Sends the rest of a snapshot in ranges.
fn send(from: &Catalogue, to: &Catalogue, id: SnapshotId, range_bytes: usize) -> Kept {
    let file_bytes = from.list().iter().find(|kept| kept.id == id).unwrap().file_bytes;
    let mut receiver = to.receive(id, file_bytes).unwrap();
    while !receiver.is_complete() {
        let offset = receiver.status().received;
        let range = from.read_range(id, offset, range_bytes).unwrap();
        receiver.write(offset, &range).unwrap();
    }
    to.accept(receiver).unwrap()
}

#[test]
fn a_transfer_brings_the_same_file() {
    let (source, target) = (SimulatedDisk::new(), SimulatedDisk::new());
    let (from, to) = (open(&source), open(&target));
    let id = from.write(head(78), records(700, 3_000)).unwrap().id;
    let kept = send(&from, &to, id, 64 << 10);
    assert_eq!(kept.id, id);
    let path = dir().join(id.file_name());
    assert_eq!(source.bytes(&path), target.bytes(&path));
    target.crash(3);
    assert_eq!(accepted(&target), Some(id));
    assert!(from.read_range(id, 1 << 40, 10).unwrap().is_empty());
    assert!(from.read_range(id, 0, usize::MAX).unwrap().len() <= RANGE_BYTES_MAX);
}

#[test]
fn an_interrupted_transfer_goes_on_after_a_restart() {
    let (source, target) = (SimulatedDisk::new(), SimulatedDisk::new());
    let from = open(&source);
    let kept = from.write(head(78), records(5_000, 3_000)).unwrap();
    {
        let to = open(&target);
        let mut receiver = to.receive(kept.id, kept.file_bytes).unwrap();
        while receiver.status().received < kept.file_bytes * 3 / 4 {
            let offset = receiver.status().received;
            let range = from.read_range(kept.id, offset, 100_000).unwrap();
            receiver.write(offset, &range).unwrap();
        }
    }
    target.crash(5);
    let to = open(&target);
    assert!(to.list().is_empty(), "a partial file is no snapshot");
    let resumed = to.receive(kept.id, kept.file_bytes).unwrap().status().received;
    assert!(resumed > kept.file_bytes / 3, "resumed at {resumed} of {}", kept.file_bytes);
    let accepted = send(&from, &to, kept.id, 100_000);
    assert!(accepted.verified);
    assert!(to.reader(kept.id).unwrap().verify().is_ok());
    assert_eq!(target.list(dir()).unwrap(), [kept.id.file_name()]);
}

#[test]
fn a_crash_at_any_operation_of_a_transfer_can_be_gone_on_from() {
    let source = SimulatedDisk::new();
    let from = open(&source);
    let id = from.write(head(78), records(60, 20_000)).unwrap().id;
    for operation in 0.. {
        let target = SimulatedDisk::new();
        let to = open(&target);
        target.go_down_after(operation);
        let survived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            send(&from, &to, id, 200_000);
        }))
        .is_ok();
        target.crash(operation);
        let to = open(&target);
        assert!(to.newest().is_some() || !survived, "an accepted snapshot was lost");
        if to.newest().is_none() {
            send(&from, &to, id, 200_000);
        }
        assert_eq!(accepted(&target), Some(id));
        if survived {
            assert!(operation > 3);
            return;
        }
    }
}

#[test]
fn ranges_out_of_order_or_too_long_are_refused() {
    let disk = SimulatedDisk::new();
    let to = open(&disk);
    let id = SnapshotId { index: 1, term: 1, content_hash: 1 };
    let mut receiver = to.receive(id, 1_000).unwrap();
    receiver.write(0, &[0; 400]).unwrap();
    let error = receiver.write(500, &[0; 1]).unwrap_err();
    assert!(matches!(error, TransferError::Offset { expected: 400, given: 500 }));
    let error = receiver.write(400, &[0; 601]).unwrap_err();
    assert!(matches!(error, TransferError::TooLong { file_bytes: 1_000, end: 1_001 }));
    let error = to.accept(receiver).unwrap_err();
    assert!(matches!(error, TransferError::Incomplete { received: 400, file_bytes: 1_000 }));
}

#[test]
fn what_was_not_announced_is_rejected_and_can_be_received_again() {
    let (source, target) = (SimulatedDisk::new(), SimulatedDisk::new());
    let from = open(&source);
    let kept = from.write(head(78), records(30, 30)).unwrap();
    let good = from.read_range(kept.id, 0, usize::MAX).unwrap();
    let to = open(&target);
    for place in [0, 9, 40, good.len() / 2, good.len() - 1] {
        let mut bad = good.to_vec();
        bad[place] ^= 4;
        let mut receiver = to.receive(kept.id, kept.file_bytes).unwrap();
        receiver.write(0, &bad).unwrap();
        assert!(matches!(to.accept(receiver).unwrap_err(), TransferError::Rejected(_)));
        assert!(to.list().is_empty());
    }
    let other = SnapshotId { content_hash: kept.id.content_hash ^ 1, ..kept.id };
    let mut receiver = to.receive(other, kept.file_bytes).unwrap();
    receiver.write(0, &good).unwrap();
    assert!(matches!(to.accept(receiver).unwrap_err(), TransferError::Rejected(_)));
    assert_eq!(send(&from, &to, kept.id, 50).id, kept.id);
}

#[test]
fn a_snapshot_that_went_away_is_named() {
    let disk = SimulatedDisk::new();
    let catalogue = open(&disk);
    let id = SnapshotId { index: 1, term: 1, content_hash: 1 };
    let error = catalogue.read_range(id, 0, 10).unwrap_err();
    assert!(matches!(error, CatalogueError::Unknown { id: other } if other == id));
    assert!(catalogue.reader(id).is_err());
}

#[test]
fn the_catalogue_works_on_a_real_disk() {
    let scratch = tempfile::tempdir().unwrap();
    let dir: PathBuf = scratch.path().join("a/b/snapshots");
    let (catalogue, _) = Catalogue::open(Arc::new(RealDisk), &dir, None).unwrap();
    let generation = catalogue.generation();
    let kept = catalogue.write(head(5), records(1_000, 1_000)).unwrap();
    assert!(catalogue.generation() > generation);
    let (again, aside) = Catalogue::open(Arc::new(RealDisk), &dir, None).unwrap();
    assert!(aside.is_empty());
    assert_eq!(again.newest().unwrap().id, kept.id);
    assert_eq!(contents(&again.reader(kept.id).unwrap()), records(1_000, 1_000));
}
