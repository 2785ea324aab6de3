//! Torn tails and flipped bits: what is proven is there or named as a hole, what is not proven may
//! go, and nothing is ever served that was not written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_storage::disk::SimulatedDisk;
use quorate_storage::{Disk, OpenError, Record, Tail};

use crate::{Driven, entries, no_matter};

pub(crate) const DIR: &str = "log";

/// A small log of several segments with every kind of record; its last group is not marked.
pub(crate) struct Small {
    pub(crate) disk: SimulatedDisk,
    pub(crate) contents: Vec<Record>,
    /// Entries below it are proven by a mark.
    pub(crate) proven_next: u64,
}

pub(crate) fn small() -> Small {
    small_log(true)
}

/// As [`small`], with all of its entries, or without the purged ones.
pub(crate) fn small_log(purged: bool) -> Small {
    let disk = SimulatedDisk::new();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let options = quorate_storage::LogOptions { segment_bytes: 1024, ..crate::options() };
    let mut log = Driven::open_with(&shared, Path::new(DIR), options).unwrap();
    log.save_hard_state("term 1, voted for 1");
    log.append(entries(0..10, 1));
    log.truncate_after(Some(6));
    log.append(entries(7..14, 2));
    log.save_hard_state("term 2, voted for 2");
    log.append(entries(14..16, 2));
    if purged {
        log.log.purge(1).unwrap();
    }
    log.append(entries(16..20, 2));
    // The last group, after a mark of its own, is proven by nothing.
    let proven_next = log.log.next_index();
    log.log.append(entries(20..23, 3), no_matter()).unwrap();
    log.drain();
    assert!(log.log.segments().len() >= 2);
    let contents = log.contents();
    Small { disk, contents, proven_next }
}

pub(crate) fn try_open(disk: &SimulatedDisk) -> Result<Driven, OpenError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Driven::try_open(&disk, Path::new(DIR))
}

pub(crate) fn paths(disk: &SimulatedDisk) -> Vec<PathBuf> {
    let names = disk.list(Path::new(DIR)).unwrap();
    names.into_iter().map(|name| Path::new(DIR).join(name)).collect()
}

pub(crate) fn last_segment(disk: &SimulatedDisk) -> PathBuf {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|suffix| suffix == "seg");
    paths(disk).into_iter().rfind(is_segment).unwrap()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    whole: u64,
    cut: u64,
    holes: u64,
    refused: u64,
}

/// Opens a damaged copy and checks that nothing wrong comes of it.
fn check(small: &Small, damaged: &SimulatedDisk, seen: &mut Seen) {
    let log = match try_open(damaged) {
        Ok(log) => log,
        Err(OpenError::Hole(hole)) => {
            assert!(hole.index <= 23, "{hole}");
            seen.holes += 1;
            // Refusing changes nothing about the answer.
            if seen.holes.is_multiple_of(16) {
                assert_eq!(try_open(damaged).err(), Some(OpenError::Hole(hole)));
            }
            return;
        }
        Err(OpenError::TwinsDamaged { .. }) => {
            seen.refused += 1;
            return;
        }
        Err(other) => panic!("{other}"),
    };
    let found = log.contents();
    assert_eq!(found, small.contents[..found.len()]);
    assert!(log.log.next_index() >= small.proven_next);
    if log.report.hard_state_proven {
        assert_eq!(log.log.hard_state().unwrap(), "term 2, voted for 2");
    }
    match log.report.tail {
        Tail::Proven => seen.whole += 1,
        Tail::Cut(cut) => {
            assert_eq!(cut.from_index, log.log.next_index());
            seen.cut += 1;
            // The doubt stays until it is settled, and the log does not change by reopening.
            let again = try_open(damaged).unwrap();
            assert_eq!(again.report.tail, Tail::Cut(cut));
            assert_eq!(again.contents(), found);
            again.log.settle_doubts().unwrap();
            assert_eq!(try_open(damaged).unwrap().report.tail, Tail::Proven);
        }
    }
}

#[test]
fn a_tail_torn_at_every_byte() {
    let small = small();
    let path = last_segment(&small.disk);
    let whole = small.disk.bytes(&path).unwrap();
    let written = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut seen = Seen::default();
    let mut cut_short = Seen::default();
    for length in 0..=written {
        // The bytes after it were never written.
        let zeroed = small.disk.fork();
        let mut bytes = whole.clone();
        bytes[length..].fill(0);
        zeroed.put(&path, bytes);
        check_torn(&small, &zeroed, &mut seen);
        // The file ends there.
        let short = small.disk.fork();
        short.put(&path, whole[..length].to_vec());
        check_torn(&small, &short, &mut cut_short);
    }
    for seen in [seen, cut_short] {
        // Before the head is whole it is a hole; between two records it is no tear at all.
        assert!(seen.holes > 72 && seen.cut > 100 && seen.whole >= 4, "{seen:?}");
    }
}

/// A tear takes later marks with it, so what they proved cannot be known: only what is left of the
/// file counts.
fn check_torn(small: &Small, torn: &SimulatedDisk, seen: &mut Seen) {
    let left = Small { disk: torn.clone(), contents: small.contents.clone(), proven_next: 0 };
    let log = try_open(torn);
    if let Ok(log) = &log
        && !log.report.hard_state_proven
    {
        panic!("the second copy of the hard state is sound");
    }
    drop(log);
    check(&left, torn, seen);
}

#[test]
fn a_flip_of_every_bit_is_found_cut_or_mended_and_never_served() {
    let small = small();
    let mut seen = Seen::default();
    for path in paths(&small.disk) {
        let whole = small.disk.bytes(&path).unwrap();
        let written = whole.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
        let is_slots = path.ends_with("hard-state");
        for bit in 0..whole.len() * 8 {
            // Every bit that was written; of empty space one bit in every 16 bytes.
            if (bit / 8 >= written || is_slots && bit / 8 % 4096 > 64) && bit % 128 != 3 {
                continue;
            }
            let damaged = small.disk.fork();
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            damaged.put(&path, bytes);
            check(&small, &damaged, &mut seen);
        }
    }
    println!("{seen:?}");
    assert_eq!(seen.refused, 0, "one copy is always whole");
    assert!(seen.whole > 500 && seen.cut > 500 && seen.holes > 5_000, "{seen:?}");
}

#[test]
fn a_missing_segment_is_a_hole_that_names_it() {
    let small = small();
    let segments: Vec<_> =
        paths(&small.disk).into_iter().filter(|path| path.extension().is_some()).collect();
    let segment = segments.iter().find(|path| path.ends_with("0000000000000002.seg")).unwrap();
    small.disk.remove(segment).unwrap();
    let Err(OpenError::Hole(hole)) = try_open(&small.disk) else { panic!("opened") };
    assert_eq!((hole.segment, hole.offset), (2, 0));
    assert_eq!(&hole.path, segment);
    assert!(hole.to_string().contains("0000000000000002.seg"), "{hole}");
}

#[test]
fn what_is_cut_is_kept_in_the_quarantine() {
    let small = small();
    let path = last_segment(&small.disk);
    let mut bytes = small.disk.bytes(&path).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes[written - 1] ^= 1;
    small.disk.put(&path, bytes.clone());
    let log = try_open(&small.disk).unwrap();
    let Tail::Cut(cut) = log.report.tail else { panic!("not cut") };
    assert_eq!(cut.from_index, 22);
    let kept = small.disk.bytes(&log.report.quarantined[0]).unwrap();
    let offset = usize::try_from(cut.offset).unwrap();
    assert_eq!(kept, bytes[offset..written]);
}

#[test]
fn both_copies_of_the_hard_state_lost_is_said_so() {
    let small = small();
    // The last group was a vote, and the tail is torn, and so is the second copy.
    let disk: Arc<dyn Disk> = Arc::new(small.disk.clone());
    let mut log = Driven::open(&disk, Path::new(DIR));
    log.save_hard_state("term 3, voted for 3");
    drop(log);
    let path = last_segment(&small.disk);
    let mut bytes = small.disk.bytes(&path).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes[written - 1] ^= 1;
    small.disk.put(&path, bytes);
    let only_log = small.disk.fork();
    let log = try_open(&only_log).unwrap();
    assert!(log.report.hard_state_proven, "the second copy has it");
    assert_eq!(log.log.hard_state().unwrap(), "term 3, voted for 3");
    let slots = Path::new(DIR).join("hard-state");
    let mut bytes = small.disk.bytes(&slots).unwrap();
    bytes[4096 + 30] ^= 1;
    small.disk.put(&slots, bytes);
    for _ in 0..2 {
        let log = try_open(&small.disk).unwrap();
        assert!(!log.report.hard_state_proven, "until it is settled");
    }
}

#[test]
fn a_lost_second_copy_of_the_hard_state_is_made_again_from_the_segment_head() {
    let disk = SimulatedDisk::new();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut log = Driven::open(&shared, Path::new(DIR));
    log.save_hard_state("the vote");
    for index in 0..150 {
        log.append(entries(index..index + 1, 1));
    }
    log.log.purge(149).unwrap();
    assert_eq!(log.log.segments().len(), 1);
    assert!(log.log.segments()[0].id > 1, "the segment that it was written to is gone");
    drop(log);
    let slots = Path::new(DIR).join("hard-state");
    let whole = disk.bytes(&slots).unwrap();
    disk.remove(&slots).unwrap();
    let log = try_open(&disk).unwrap();
    assert_eq!(log.log.hard_state().unwrap(), "the vote");
    assert!(log.report.hard_state_proven);
    assert_eq!(disk.bytes(&slots).unwrap().len(), whole.len());
}
