//! The bytes of format version 1, kept: what is written today is what was written then, and what
//! was written then is read today.
//!
//! `QUORATE_WRITE_FIXTURES=1 cargo test -p quorate-storage fixtures` writes them anew; a difference
//! in a file of a released version is a fault.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use quorate_storage::disk::SimulatedDisk;
use quorate_storage::identity::{Identity, IdentityFile};
use quorate_storage::segment::{HEADER_BYTES, SegmentHeader};
use quorate_storage::{Disk, LogOptions, OpenError, Record, RecordKind, Tail};

use crate::{Driven, entry, no_matter};

const DIR: &str = "log";

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 512, ..LogOptions::new(0xc1a5_7e12, 0x11) }
}

fn expected() -> Vec<Record> {
    vec![
        entry(2, 1, "third"),
        Record { kind: RecordKind::Membership, ..entry(3, 2, "members") },
        entry(4, 2, "new fifth"),
        entry(5, 2, "sixth"),
    ]
}

/// Every kind of record, a sealed segment, a purge point.
fn script() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut log = Driven::open_with(&shared, Path::new(DIR), options()).unwrap();
    log.save_hard_state("vote of term 1");
    let blank = Record { kind: RecordKind::Blank, ..entry(0, 1, "") };
    log.append(vec![blank, entry(1, 1, "second"), entry(2, 1, "third")]);
    log.append(vec![Record { kind: RecordKind::Membership, ..entry(3, 2, "members") }]);
    log.append(vec![entry(4, 2, "fifth")]);
    log.truncate_after(Some(3));
    log.append(vec![entry(4, 2, "new fifth")]);
    log.save_hard_state("vote of term 2");
    log.log.purge(1).unwrap();
    log.append(vec![entry(5, 2, "sixth")]);
    log.writer.flush_mark();
    assert_eq!(log.contents(), expected());
    assert!(log.log.segments()[0].sealed);
    let mut identity = IdentityFile::open(shared, Path::new(DIR)).unwrap().0;
    identity.save(&kept_identity()).unwrap();
    disk
}

fn kept_identity() -> Identity {
    Identity {
        cluster_id: 0xc1a5_7e12,
        lineage: 0x11,
        node_id: 3,
        nonce: 4,
        incarnation: 5,
        stateless_reset_key: [6; 64],
        extra: Bytes::from_static(b"n1"),
    }
}

fn load(folder: &Path) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    disk.create_dir(Path::new(DIR)).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        disk.put(&Path::new(DIR).join(entry.file_name()), std::fs::read(entry.path()).unwrap());
    }
    disk
}

fn open(disk: &SimulatedDisk) -> Result<Driven, OpenError> {
    Driven::open_with(&(Arc::new(disk.clone()) as Arc<dyn Disk>), Path::new(DIR), options())
}

#[test]
fn what_is_written_is_what_is_kept() {
    let disk = script();
    let names = disk.list(Path::new(DIR)).unwrap();
    assert_eq!(names.len(), 8, "{names:?}");
    for name in names {
        let bytes = disk.bytes(&Path::new(DIR).join(&name)).unwrap();
        let path = kept().join("log").join(&name);
        if std::env::var_os("QUORATE_WRITE_FIXTURES").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == bytes, "{} differs", path.display());
    }
}

/// In `log-marked-seal` a segment ends in a durable mark and the next one's first group opens with
/// one, as in files from before head and first group were one write.
#[test]
fn what_is_kept_is_read() {
    for folder in ["log", "log-marked-seal"] {
        check_kept(folder);
    }
}

fn check_kept(folder: &str) {
    let disk = load(&kept().join(folder));
    let log = open(&disk).unwrap();
    assert_eq!(log.contents(), expected());
    assert_eq!(log.log.purged(), Some((1, 1)));
    assert_eq!(log.log.hard_state().unwrap(), "vote of term 2");
    assert_eq!(log.report.tail, Tail::Proven);
    let shared: Arc<dyn Disk> = Arc::new(disk);
    let identity = IdentityFile::open(shared, Path::new(DIR)).unwrap().1;
    assert_eq!(identity, Some(kept_identity()));
}

/// The header byte for byte, laid by hand.
#[test]
fn the_header_is_laid_as_its_grammar_says() {
    let bytes = std::fs::read(kept().join("log/0000000000000002.seg")).unwrap();
    let header = SegmentHeader::decode(&bytes).unwrap();
    let mut by_hand = b"QRLOGSEG".to_vec();
    by_hand.extend_from_slice(&[1, 0, 0, 0]);
    let numbers = [
        2,
        0xc1a5_7e12,
        0x11,
        header.first_index,
        header.previous_term,
        header.chain,
        header.previous_end,
    ];
    numbers.iter().for_each(|number: &u64| by_hand.extend_from_slice(&number.to_le_bytes()));
    let crc = crc32fast::hash(&by_hand);
    by_hand.extend_from_slice(&crc.to_le_bytes());
    assert_eq!(by_hand, bytes[..HEADER_BYTES]);
}

/// Kept broken logs: a hole stays a hole, a torn tail stays a cut.
#[test]
fn broken_logs_are_judged_as_ever() {
    let write = std::env::var_os("QUORATE_WRITE_FIXTURES").is_some();
    if write {
        let segment = Path::new(DIR).join("0000000000000001.seg");
        let hole = script();
        let mut bytes = hole.bytes(&segment).unwrap();
        bytes[200] ^= 0x40;
        hole.put(&segment, bytes);
        let torn = script();
        let mut log = open(&torn).unwrap();
        log.log.append(vec![entry(6, 3, "torn")], no_matter()).unwrap();
        log.drain();
        let segment = log.log.segments().last().unwrap().path.clone();
        let mut bytes = torn.bytes(&segment).unwrap();
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[last] = 0;
        torn.put(&segment, bytes);
        for (name, disk) in [("hole", hole), ("torn", torn)] {
            let folder = kept().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            for name in disk.list(Path::new(DIR)).unwrap() {
                let bytes = disk.bytes(&Path::new(DIR).join(&name)).unwrap();
                std::fs::write(folder.join(name), bytes).unwrap();
            }
        }
    }
    let Err(OpenError::Hole(hole)) = open(&load(&kept().join("hole"))) else { panic!("opened") };
    assert_eq!((hole.segment, hole.index), (1, 0));
    let log = open(&load(&kept().join("torn"))).unwrap();
    let Tail::Cut(cut) = log.report.tail else { panic!("not cut") };
    assert_eq!(cut.from_index, 6);
    assert_eq!(log.contents(), expected());
}
