//! Inspection and verification: what they say, and that they change nothing.
#![expect(clippy::unwrap_used, reason = "a failed step of a test is its failure")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use quorate_storage::disk::{Disk, RealDisk, SimulatedDisk};
use quorate_storage::identity::{Identity, IdentityFile};
use quorate_storage::inspect::{
    InspectError, Inspection, SegmentState, Severity, Verification, inspect, verify,
};
use quorate_storage::snapshot::{Catalogue, SnapshotHead};
use quorate_storage::{Log, LogOptions, OpenError, Record, RecordKind, Writer, layout};

const CLUSTER: u64 = 7;
const LINEAGE: u64 = 8;

fn dir() -> &'static Path {
    Path::new("data/n1")
}

/// A node's folder: an identity, five entries in several segments, a hard state, a snapshot.
fn build(disk: &Arc<dyn Disk>, dir: &Path) {
    let (mut file, _) = IdentityFile::open(Arc::clone(disk), dir).unwrap();
    let identity = Identity {
        cluster_id: CLUSTER,
        lineage: LINEAGE,
        node_id: 3,
        nonce: 4,
        incarnation: 5,
        stateless_reset_key: [6; 64],
        extra: Bytes::from_static(b"n1"),
    };
    file.save(&identity).unwrap();
    let mut options = LogOptions::new(CLUSTER, LINEAGE);
    options.segment_bytes = 600;
    let (log, mut writer, _) = Log::open(Arc::clone(disk), &layout::log_dir(dir), options).unwrap();
    log.save_hard_state(Bytes::from_static(b"vote"), Box::new(|_| ())).unwrap();
    for index in 0..5 {
        let payload = Bytes::from(vec![index as u8; 60]);
        let record = Record { kind: RecordKind::Commands, index, term: 2, payload };
        log.append(vec![record], Box::new(|_| ())).unwrap();
        flush(&log, &mut writer);
    }
    writer.flush_mark();
    let (catalogue, _) =
        Catalogue::open(Arc::clone(disk), &layout::snapshot_dir(dir), None).unwrap();
    let head = SnapshotHead {
        lineage: LINEAGE,
        cluster_id: CLUSTER,
        index: 2,
        term: 2,
        chain: log.chain_at(2).unwrap(),
        state_hash: 9,
        meta: Bytes::new(),
    };
    catalogue.write(head, [Bytes::from_static(b"state")]).unwrap();
}

fn flush(log: &Log, writer: &mut Writer) {
    while log.durable().is_none_or(|durable| durable + 1 < log.next_index()) {
        writer.step(None);
    }
}

fn node() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    build(&as_disk(&disk), dir());
    disk
}

fn as_disk(disk: &SimulatedDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// All files of a node and their bytes.
fn files(disk: &SimulatedDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    let folders = [
        dir().to_owned(),
        layout::log_dir(dir()),
        layout::snapshot_dir(dir()),
        layout::log_dir(dir()).join("quarantine"),
        dir().join("quarantine"),
    ];
    let mut files = BTreeMap::new();
    for folder in folders {
        for name in disk.list(&folder).unwrap_or_default() {
            let path = folder.join(name);
            let bytes = disk.bytes(&path).unwrap();
            files.insert(path, bytes);
        }
    }
    files
}

fn looked_at(disk: &SimulatedDisk) -> (Inspection, Verification) {
    let before = (files(disk), disk.operations());
    let inspection = inspect(&as_disk(disk), dir()).unwrap();
    let verification = verify(&as_disk(disk), dir()).unwrap();
    assert_eq!(before, (files(disk), disk.operations()), "looking changed something");
    (inspection, verification)
}

#[test]
fn a_sound_folder() {
    let disk = node();
    let (inspection, verification) = looked_at(&disk);
    assert_eq!(verification.findings, []);
    assert!(verification.is_sound() && !verification.would_refuse);

    let identity = inspection.identity.unwrap().unwrap();
    assert_eq!((identity.cluster_id, identity.node_id, identity.incarnation), (CLUSTER, 3, 5));
    let log = inspection.log.unwrap().unwrap();
    assert_eq!((log.first_index, log.next_index, log.last_term), (0, 5, Some(2)));
    assert_eq!(log.hard_state.unwrap(), "vote");
    let segments = inspection.segments;
    assert!(segments.len() > 1, "{segments:?}");
    let (last, sealed) = segments.split_last().unwrap();
    assert!(sealed.iter().all(|segment| segment.state == SegmentState::Sealed), "{sealed:?}");
    assert_eq!((&last.state, last.next_index), (&SegmentState::Active, 5));
    assert!(segments.windows(2).all(|pair| pair[0].next_index <= pair[1].next_index));
    assert_eq!(inspection.totals.entries, 5);
    assert!(inspection.totals.log_bytes > 5 * 60);
    assert_eq!(inspection.snapshots.len(), 1);
    let (head, records) = inspection.snapshots[0].content.as_ref().unwrap();
    assert_eq!((head.index, *records), (2, 1));
    assert!(inspection.leftovers.is_empty());
}

/// One bit of every byte; the opening's own tests flip every bit of a log.
#[test]
fn a_flipped_bit_anywhere_is_found_and_left_alone() {
    let disk = node();
    let (mut flips, mut damages) = (0, 0);
    for (path, bytes) in files(&disk) {
        // The two slots of the hard state are mostly padding.
        let step = if bytes.len() > 4_000 { 41 } else { 1 };
        for place in (0..bytes.len()).step_by(step) {
            let mut flipped = bytes.clone();
            flipped[place] ^= 1 << (place % 8);
            let fork = disk.fork();
            fork.put(&path, flipped);
            let operations = fork.operations();
            let verification = verify(&as_disk(&fork), dir()).unwrap();
            assert!(!verification.findings.is_empty(), "{} at {place}", path.display());
            assert_eq!(fork.operations(), operations, "looking changed something");
            damages += usize::from(!verification.is_sound());
            flips += 1;
        }
    }
    assert!(flips > 1_500 && damages > 1_000, "{flips} flips, {damages} damages");
}

#[test]
fn damage_in_a_sealed_segment_is_named_by_its_place() {
    let disk = node();
    let (inspection, _) = looked_at(&disk);
    // Damage in two segments: a start would stop at the first, a verification names both.
    for segment in &inspection.segments[..2] {
        let mut bytes = disk.bytes(&segment.path).unwrap();
        let middle = usize::try_from(segment.written_bytes).unwrap() / 2;
        bytes[middle] ^= 0x10;
        disk.put(&segment.path, bytes);
    }
    let (inspection, verification) = looked_at(&disk);
    assert!(inspection.would_refuse() && verification.would_refuse);
    assert!(matches!(inspection.log, Some(Err(OpenError::Hole(_)))));
    let damages: Vec<_> =
        verification.findings.iter().filter(|f| f.severity == Severity::Damage).collect();
    assert_eq!(damages.len(), 2, "{damages:?}");
    for (finding, segment) in damages.iter().zip(&inspection.segments) {
        assert_eq!(finding.segment, Some(segment.id));
        assert!(finding.offset.is_some() && finding.index.is_some());
        let text = finding.to_string();
        assert!(text.contains(&format!("segment {}, offset ", segment.id)), "{text}");
    }
}

#[test]
fn a_torn_end_is_a_doubt_and_stays() {
    let disk = node();
    let (inspection, _) = looked_at(&disk);
    let last = inspection.segments.last().unwrap();
    let mut bytes = disk.bytes(&last.path).unwrap();
    // The beginning of a record that was being written when the power went.
    let end = usize::try_from(last.written_bytes).unwrap();
    bytes.resize(bytes.len().max(end + 20), 0);
    bytes[end..end + 20]
        .copy_from_slice(&[60, 0, 0, 0, 1, 2, 3, 4, 2, 5, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0]);
    disk.put(&last.path, bytes);
    let (inspection, verification) = looked_at(&disk);
    assert!(!inspection.would_refuse());
    assert!(!verification.is_sound());
    assert!(
        verification.findings.iter().all(|finding| finding.severity <= Severity::Doubt),
        "{:?}",
        verification.findings
    );
}

#[test]
fn a_damaged_snapshot_and_unfinished_files_are_named() {
    let disk = node();
    let (inspection, _) = looked_at(&disk);
    let path = &inspection.snapshots[0].path;
    let mut bytes = disk.bytes(path).unwrap();
    let page = bytes.len() - 60;
    bytes[page] ^= 1;
    disk.put(path, bytes);
    disk.put(&layout::snapshot_dir(dir()).join("x.writing"), vec![1]);
    let (inspection, verification) = looked_at(&disk);
    assert_eq!(inspection.leftovers.len(), 1);
    let found: Vec<_> = verification.findings.iter().map(|f| (f.severity, f.index)).collect();
    assert_eq!(found, [(Severity::Damage, Some(2)), (Severity::Note, None)]);
    assert!(!verification.would_refuse, "the log is whole");
}

#[test]
fn a_folder_that_is_no_nodes_is_said_to_be_none() {
    let disk = SimulatedDisk::new();
    disk.create_dir(dir()).unwrap();
    let error = inspect(&as_disk(&disk), dir()).unwrap_err();
    assert!(matches!(error, InspectError::NotANode { .. }));
    assert!(verify(&as_disk(&disk), dir()).is_err());
    assert!(files(&disk).is_empty());
}

#[test]
fn a_real_folder_is_read_and_not_written() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("n1");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    build(&disk, &dir);
    let listing = |dir: &Path| {
        let mut found = Vec::new();
        for folder in [dir.to_owned(), layout::log_dir(dir), layout::snapshot_dir(dir)] {
            for name in RealDisk.list(&folder).unwrap() {
                let path = folder.join(name);
                let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
                found.push((path.clone(), std::fs::read(&path).unwrap(), modified));
            }
        }
        found
    };
    let before = listing(&dir);
    let verification = verify(&disk, &dir).unwrap();
    assert_eq!(verification.findings, []);
    assert_eq!(listing(&dir), before);
}
