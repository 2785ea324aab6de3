//! Holes filled from another log of the same history: whatever bit flips, whatever bytes are lost,
//! whenever the power fails in between, the log is what it was, or says that it cannot be.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_storage::disk::SimulatedDisk;
use quorate_storage::inspect::{SegmentState, inspect};
use quorate_storage::record::{DURABLE_MARK_BYTES, Damage};
use quorate_storage::{
    Diagnosis, Disk, Filling, Log, MendError, OpenError, OpenMode, Record, Tail, Wound,
    begin_after, mend, survey,
};

use crate::crash_points::random_bytes;
use crate::damage::{DIR, Small, last_segment, paths, small, small_log, try_open};
use crate::{Driven, contents, options};

/// Holes in a small log, at most.
const ROUNDS_MAX: usize = 64;

fn shared(disk: &SimulatedDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// A log that holds every entry of the damaged one, also those that it has purged.
fn donor() -> Driven {
    let Small { disk, .. } = small_log(false);
    try_open(&disk).unwrap()
}

fn diagnose(disk: &SimulatedDisk) -> Result<Diagnosis, OpenError> {
    survey(shared(disk), Path::new(DIR), &options())
}

/// What a peer answers: the entries that are needed, from further back where they do not link.
fn fill(disk: &SimulatedDisk, donor: &Log, wound: &Wound) -> Result<(), MendError> {
    let end = wound.needed.end;
    let mut from = wound.needed.start;
    loop {
        let (chain_before, records) = if from < end {
            donor.read_chained(from..end, usize::MAX).unwrap()
        } else {
            let chain = end.checked_sub(1).map(|last| donor.chain_at(last).unwrap());
            (wound.chain.or(chain).unwrap_or(0), Vec::new())
        };
        let filling = Filling { chain_before, records };
        match mend(shared(disk), Path::new(DIR), wound, &filling) {
            Err(MendError::DoesNotFollow { .. }) if from > wound.lowest() => from -= 1,
            done => return done.map(drop),
        }
    }
}

/// Repairs until the log opens. False when it says that entries cannot repair it.
fn repair(disk: &SimulatedDisk, donor: &Log) -> Result<Driven, OpenError> {
    for _ in 0..ROUNDS_MAX {
        let error = match try_open(disk) {
            Err(error @ OpenError::Hole(_)) => error,
            opened => return opened,
        };
        match diagnose(disk)? {
            Diagnosis::Wound(wound) => match fill(disk, donor, &wound) {
                Ok(()) => {}
                Err(MendError::Open(error)) => return Err(error),
                Err(error) => panic!("{wound:?}: {error}"),
            },
            Diagnosis::Beyond(_) => return Err(error),
            Diagnosis::Sound => panic!("{error}, and nothing is found"),
        }
    }
    panic!("it never opens");
}

fn flipped(small: &Small, path: &Path, bit: usize) -> SimulatedDisk {
    let damaged = small.disk.fork();
    let mut bytes = small.disk.bytes(path).unwrap();
    bytes[bit / 8] ^= 1 << (bit % 8);
    damaged.put(path, bytes);
    damaged
}

/// What a flip at an offset of a segment must be taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Below the last durable mark.
    Hole,
    /// The last durable mark itself, or what no mark proves.
    Tail,
    /// A footer, whose content is known: it is written again.
    Known,
}

/// The segments of the log, and where in each the classes begin: holes, then the rest.
fn segments(small: &Small) -> Vec<(PathBuf, usize, Class, usize)> {
    let inspection = inspect(&shared(&small.disk), Path::new("")).unwrap();
    let class = |segment: &quorate_storage::inspect::SegmentFacts| {
        let written = usize::try_from(segment.written_bytes).unwrap();
        match segment.state {
            SegmentState::Sealed => (
                segment.path.clone(),
                written - quorate_storage::segment::FOOTER_BYTES,
                Class::Known,
                written,
            ),
            _ => {
                let proven = usize::try_from(segment.marks.proven_bytes).unwrap();
                (segment.path.clone(), proven - DURABLE_MARK_BYTES, Class::Tail, written)
            }
        }
    };
    inspection.segments.iter().map(class).collect()
}

#[test]
fn a_flip_of_every_bit_is_classified_and_every_hole_is_filled_from_a_peer() {
    let small = small();
    let donor = donor();
    let (mut holes, mut tails, mut known) = (0, 0, 0);
    for (path, boundary, behind, written) in segments(&small) {
        for bit in 0..written * 8 {
            let class = if bit / 8 < boundary { Class::Hole } else { behind };
            let damaged = flipped(&small, &path, bit);
            let found = try_open(&damaged);
            let context = || format!("{} byte {} bit {}", path.display(), bit / 8, bit % 8);
            match class {
                Class::Hole => {
                    assert!(matches!(found, Err(OpenError::Hole(_))), "{}", context());
                    drop(found);
                    let repaired = repair(&damaged, &donor.log).unwrap();
                    assert_eq!(repaired.contents(), small.contents, "{}", context());
                    assert_eq!(repaired.report.tail, Tail::Proven, "{}", context());
                    assert!(repaired.report.hard_state_proven, "{}", context());
                    assert_eq!(repaired.log.hard_state().unwrap(), "term 2, voted for 2");
                    let last = repaired.log.next_index() - 1;
                    let chain = donor.log.chain_at(last).unwrap();
                    assert_eq!(repaired.log.chain_at(last).unwrap(), chain);
                    holes += 1;
                }
                Class::Tail => {
                    let found = found.unwrap();
                    assert!(matches!(found.report.tail, Tail::Cut(_)), "{}", context());
                    let kept = found.contents();
                    assert_eq!(kept, small.contents[..kept.len()], "{}", context());
                    assert!(found.log.next_index() >= small.proven_next, "{}", context());
                    tails += 1;
                }
                Class::Known => {
                    let found = found.unwrap();
                    assert_eq!(found.report.tail, Tail::Proven, "{}", context());
                    assert_eq!(found.contents(), small.contents, "{}", context());
                    known += 1;
                }
            }
        }
    }
    println!("{holes} holes filled, {tails} tails cut, {known} footers written again");
    assert!(holes > 5_000 && tails > 500 && known > 300, "{holes} {tails} {known}");
}

/// The peer has everything, but this log's disk has lost more than a bit.
#[test]
fn lost_sectors_are_filled_or_named_as_beyond_repair() {
    let small = small();
    let donor = donor();
    let whole: Vec<PathBuf> = paths(&small.disk)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "seg"))
        .collect();
    let (mut filled, mut beyond, mut cut) = (0, 0, 0);
    for seed in 0..3_000_u64 {
        let noise = random_bytes(seed, 64);
        let damaged = small.disk.fork();
        for place in noise.chunks(8).take(1 + seed as usize % 4) {
            let path = &whole[usize::from(place[0]) % whole.len()];
            let mut bytes = damaged.bytes(path).unwrap();
            let at = (usize::from(place[1]) << 8 | usize::from(place[2])) % bytes.len();
            let end = (at + 1 + usize::from(place[3])).min(bytes.len());
            match place[4] % 3 {
                0 => bytes[at..end].fill(0),
                1 => bytes[at..end].fill(place[5]),
                _ if *path == last_segment(&small.disk) => bytes[at] ^= 1,
                _ => bytes.truncate(at),
            }
            damaged.put(path, bytes);
        }
        match repair(&damaged, &donor.log) {
            Ok(repaired) => {
                let found = repaired.contents();
                assert_eq!(found, small.contents[..found.len()], "seed {seed}");
                match repaired.report.tail {
                    Tail::Proven => filled += 1,
                    Tail::Cut(_) => cut += 1,
                }
            }
            Err(OpenError::Hole(_)) => {
                beyond += 1;
                // A snapshot that ends behind all of it takes its place; the vote stays.
                let aside =
                    begin_after(shared(&damaged), Path::new(DIR), &options(), 30, 4, 77, false)
                        .unwrap();
                assert!(!aside.is_empty());
                let log = try_open(&damaged).unwrap();
                assert_eq!((log.log.first_index(), log.log.next_index()), (31, 31));
                assert_eq!(log.log.last(), Some((30, 4)));
                assert_eq!(log.log.hard_state().unwrap(), "term 2, voted for 2");
                assert!(log.report.hard_state_proven);
            }
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    println!("{filled} filled, {cut} with a tail cut, {beyond} beyond repair");
    assert!(filled > 500 && beyond > 20, "{filled} {cut} {beyond}");
}

#[test]
fn a_missing_segment_is_written_anew_from_a_peer() {
    let small = small();
    let donor = donor();
    let all = segments(&small);
    for (path, ..) in &all[1..all.len() - 1] {
        let damaged = small.disk.fork();
        damaged.remove(path).unwrap();
        let repaired = repair(&damaged, &donor.log).unwrap();
        assert_eq!(repaired.contents(), small.contents);
    }
    assert!(all.len() >= 3, "{all:?}");
}

/// Its predecessor's footer tells that it was there, and nobody how far it went.
#[test]
fn a_missing_newest_segment_is_replaced_by_a_snapshot_and_leaves_a_doubt() {
    let small = small();
    let (path, ..) = segments(&small).pop().unwrap();
    let mut crashes = 0;
    for step in 1.. {
        let mut is_last = false;
        for seed in 0..8 {
            let damaged = small.disk.fork();
            damaged.remove(&path).unwrap();
            let Err(OpenError::Hole(hole)) = try_open(&damaged) else { panic!("opened") };
            assert_eq!((&hole.path, hole.offset, hole.damage), (&path, 0, Damage::Missing));
            let Diagnosis::Beyond(beyond) = diagnose(&damaged).unwrap() else { panic!("a wound") };
            assert!(beyond.is_open_ended);
            assert_eq!((&beyond.hole, beyond.next_index), (&hole, hole.index));
            assert!(small.proven_next > hole.index, "what was proven is gone");
            let begin = |open_ended| {
                let disk = shared(&damaged);
                begin_after(disk, Path::new(DIR), &options(), 30, 4, 77, open_ended).map(drop)
            };
            damaged.go_down_after(step);
            is_last |= begin(true).is_ok() && !damaged.is_down();
            damaged.crash(seed);
            match try_open(&damaged) {
                Ok(_) => {}
                // When everything has been moved away, only what was written down tells.
                Err(OpenError::Hole(_)) => match diagnose(&damaged).unwrap() {
                    Diagnosis::Beyond(beyond) => begin(beyond.is_open_ended).unwrap(),
                    other => panic!("{other:?}"),
                },
                Err(error) => panic!("step {step} seed {seed}: {error}"),
            }
            let log = try_open(&damaged).unwrap();
            assert_eq!((log.log.first_index(), log.log.next_index()), (31, 31));
            let Tail::Cut(cut) = log.report.tail else { panic!("step {step} seed {seed}: sure") };
            assert_eq!(cut.from_index, 31);
            crashes += 1;
        }
        if is_last {
            break;
        }
    }
    assert!(crashes > 60, "{crashes}");
}

/// The power fails during every disk operation of a repair, with every outcome of a few seeds.
#[test]
fn a_crash_at_every_step_of_a_repair_leaves_a_log_that_is_repaired_again() {
    let small = small();
    let donor = donor();
    let (path, boundary, ..) = segments(&small)[1].clone();
    let mut crashes = 0;
    for byte in [40, boundary / 2, boundary - 1] {
        for step in 1.. {
            let mut done = false;
            for seed in 0..8 {
                let damaged = flipped(&small, &path, byte * 8);
                damaged.go_down_after(step);
                let repaired = repair(&damaged, &donor.log).is_ok();
                done |= repaired && !damaged.is_down();
                damaged.crash(seed);
                let repaired = repair(&damaged, &donor.log).unwrap();
                assert_eq!(repaired.contents(), small.contents, "byte {byte} step {step}");
                crashes += 1;
            }
            if done {
                break;
            }
        }
    }
    assert!(crashes > 100, "{crashes}");
}

/// Likewise while a snapshot takes the log's place.
#[test]
fn a_crash_at_every_step_of_beginning_anew_leaves_a_hole_or_the_new_log() {
    let small = small();
    let (path, boundary, ..) = segments(&small)[1].clone();
    let begin = |disk: &SimulatedDisk| {
        begin_after(shared(disk), Path::new(DIR), &options(), 30, 4, 77, false).map(drop)
    };
    let (mut holes, mut done) = (0, 0);
    for step in 1.. {
        let mut is_last = false;
        for seed in 0..8 {
            let damaged = flipped(&small, &path, boundary / 2 * 8);
            damaged.go_down_after(step);
            is_last |= begin(&damaged).is_ok() && !damaged.is_down();
            damaged.crash(seed);
            match try_open(&damaged) {
                Ok(_) => done += 1,
                Err(OpenError::Hole(_)) => {
                    holes += 1;
                    begin(&damaged).unwrap();
                }
                Err(error) => panic!("step {step} seed {seed}: {error}"),
            }
            let log = try_open(&damaged).unwrap();
            assert_eq!((log.log.first_index(), log.log.next_index()), (31, 31));
            assert_eq!(log.log.hard_state().unwrap(), "term 2, voted for 2");
            assert!(log.report.hard_state_proven);
        }
        if is_last {
            break;
        }
    }
    assert!(holes > 20 && done > 8, "{holes} {done}");
}

#[test]
fn entries_of_another_history_fill_nothing() {
    let small = small();
    let donor = donor();
    let (path, boundary, ..) = segments(&small)[1].clone();
    let damaged = flipped(&small, &path, boundary / 2 * 8);
    let Diagnosis::Wound(wound) = diagnose(&damaged).unwrap() else { panic!("no wound") };
    assert!(!wound.needed.is_empty(), "{wound:?}");
    let (chain_before, records) = donor.log.read_chained(wound.needed.clone(), usize::MAX).unwrap();
    let before = damaged.bytes(&path);
    let mut other = records.clone();
    other[0].payload = bytes::Bytes::from_static(b"something else");
    let try_with = |chain_before, records: Vec<Record>| {
        mend(shared(&damaged), Path::new(DIR), &wound, &Filling { chain_before, records })
    };
    assert!(matches!(try_with(chain_before, other), Err(MendError::OtherChain { .. })));
    assert!(matches!(
        try_with(chain_before ^ 1, records.clone()),
        Err(MendError::DoesNotFollow { .. })
    ));
    let short = records[..records.len() - 1].to_vec();
    assert!(try_with(chain_before, short).is_err());
    assert_eq!(damaged.bytes(&path), before, "nothing has changed");
    try_with(chain_before, records).unwrap();
    assert_eq!(try_open(&damaged).unwrap().contents(), small.contents);
}

#[test]
fn a_hole_that_may_have_hidden_a_vote_is_not_filled_when_the_second_copy_is_damaged() {
    let small = small();
    let donor = donor();
    let slots = Path::new(DIR).join("hard-state");
    let mut unproven = 0;
    for (path, boundary, ..) in segments(&small) {
        for byte in 72..boundary {
            let damaged = flipped(&small, &path, byte * 8);
            let mut bytes = damaged.bytes(&slots).unwrap();
            bytes[30] ^= 1;
            bytes[4096 + 30] ^= 1;
            damaged.put(&slots, bytes);
            assert!(try_open(&damaged).is_err());
            let Diagnosis::Wound(wound) = diagnose(&damaged).unwrap() else { panic!("no wound") };
            match fill(&damaged, &donor.log, &wound) {
                Err(MendError::HardStateUnproven) => unproven += 1,
                Ok(()) => {
                    let log = try_open(&damaged).unwrap();
                    assert_eq!(log.log.hard_state().unwrap(), "term 2, voted for 2");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(unproven > 50, "{unproven}");
}

/// Damage that comes while the log is open is found by the read, never served, and mended.
#[test]
fn damage_under_an_open_log_is_mended_in_place() {
    let small = small();
    let donor = donor();
    let (mut mended, mut left) = (0, 0);
    for (path, boundary, ..) in segments(&small) {
        for byte in 113..boundary {
            let disk = small.disk.fork();
            let log = try_open(&disk).unwrap().log;
            let segment = log.segments().iter().find(|segment| segment.path == path).unwrap().id;
            // Into the file that the log holds open.
            let flipped = disk.bytes(&path).unwrap()[byte] ^ 4;
            let file = disk.open(&path, OpenMode::Write).unwrap();
            file.write_all_at(&[flipped], byte as u64).unwrap();
            let (first, next) = (log.first_index(), log.next_index());
            let read = log.read(first..next, usize::MAX);
            if let Ok(records) = &read {
                assert_eq!(records[..], small.contents[..]);
            }
            let Some(wound) = log.wound(segment).unwrap() else { panic!("byte {byte}") };
            let (chain_before, records) = if wound.needed.is_empty() {
                (wound.chain.unwrap(), Vec::new())
            } else {
                donor.log.read_chained(wound.needed.clone(), usize::MAX).unwrap()
            };
            match log.mend(&wound, &Filling { chain_before, records }) {
                Ok(_) => {
                    mended += 1;
                    assert_eq!(log.wound(segment).unwrap(), None);
                    assert_eq!(contents(&log), small.contents);
                    drop(log);
                    assert_eq!(try_open(&disk).unwrap().contents(), small.contents);
                }
                // Dead entries were lost with live ones, so that the places moved: for the next
                // opening.
                Err(_) => left += 1,
            }
        }
    }
    println!("{mended} mended in place, {left} left to the next opening");
    assert!(mended > 1_000, "{mended} {left}");
    assert!(left * 2 < mended, "{mended} {left}");
}
