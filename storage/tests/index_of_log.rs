//! The index over a real log on the simulated disk: built, damaged, lost, rebuilt, cut.
#![expect(clippy::panic, reason = "a helper that finds the wrong thing fails its test")]
#![expect(clippy::unwrap_used, reason = "a failed step of a test is its failure")]
#![expect(clippy::indexing_slicing, reason = "tests index what they have just built")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use quorate_storage::disk::SimulatedDisk;
use quorate_storage::index::{
    Applied, Coverage, History, HistoryKind, Index, IndexDamage, IndexError, IndexOptions,
    IndexPlace, IndexReport, IndexState, IndexStep, IndexWorker, MemoryStore, Offered, Posting,
    QUEUE_BYTES_MAX, Replay, Replayed, SET_ASIDE_MAX, Tree,
};
use quorate_storage::snapshot::{Catalogue, Owner, SnapshotHead};
use quorate_storage::{Log, LogOptions, Record, RecordKind, Writer};

const OWNER: Owner = Owner { cluster_id: 7, lineage: 8 };
const STEPS_MAX: usize = 2_000;

/// A log whose entries are words; an entry's words are its keys.
struct Node {
    log: Log,
    writer: Writer,
    catalogue: Arc<Catalogue>,
}

impl Node {
    fn new() -> Self {
        let disk = SimulatedDisk::new();
        let mut options = LogOptions::new(OWNER.cluster_id, OWNER.lineage);
        options.segment_bytes = 16 << 10;
        let (log, writer, _) =
            Log::open(Arc::new(disk.clone()), Path::new("node/log"), options).unwrap();
        let dir = Path::new("node/snapshots");
        let (catalogue, _) = Catalogue::open(Arc::new(disk), dir, None).unwrap();
        Self { log, writer, catalogue: Arc::new(catalogue) }
    }

    fn with_entries(count: u64) -> Self {
        let mut node = Self::new();
        node.append(count);
        node
    }

    /// Appends entries and makes them durable, in groups far below a segment.
    fn append(&mut self, count: u64) {
        for start in (0..count).step_by(25) {
            self.append_unflushed((count - start).min(25));
            self.flush();
        }
    }

    fn flush(&mut self) {
        while self.log.durable().is_none_or(|durable| durable + 1 < self.log.next_index()) {
            self.writer.step(None);
        }
    }

    fn append_unflushed(&mut self, count: u64) {
        for _ in 0..count {
            let record = record(self.log.next_index());
            self.log.append(vec![record], Box::new(|_| ())).unwrap();
        }
    }

    fn entries(&self) -> std::ops::Range<u64> {
        self.log.first_index()..self.log.next_index()
    }

    fn index(&self, place: &IndexPlace, replay: Option<Replay>) -> (Index, IndexWorker) {
        let keys = Arc::new(|record: &Record, emit: &mut dyn FnMut(&[u8], u64)| {
            for (number, word) in words(record).iter().enumerate() {
                emit(word.as_bytes(), record.index << 16 | number as u64);
            }
        });
        let options = IndexOptions { owner: OWNER, keys, replay, on_progress: None };
        IndexWorker::new(
            place.clone(),
            self.log.clone(),
            Some(Arc::clone(&self.catalogue)),
            options,
        )
    }

    /// Replays from the log itself, as if the oldest snapshot ended before its first entry.
    fn replay(&self) -> Replay {
        let log = self.log.clone();
        Box::new(move |request, sink| {
            let first = log.first_index();
            if request.start < first {
                return Replayed::StartsAt(first);
            }
            let end = request.end.min(request.start + request.entries_max as u64);
            for entry in request.start..end {
                if !sink(applied(entry)) {
                    return Replayed::UpTo(entry + 1);
                }
            }
            Replayed::UpTo(end)
        })
    }

    fn offer_all(&self, index: &Index) {
        for entry in self.entries() {
            index.offer(applied(entry)).unwrap();
        }
    }

    /// What a lookup of a word must find, by reading the whole log.
    fn occurrences(&self, word: &str) -> Vec<u64> {
        let records = self.log.read(self.entries(), usize::MAX).unwrap();
        assert_eq!(records.len() as u64, self.log.next_index() - self.log.first_index());
        let mut found = Vec::new();
        for record in records {
            for (number, other) in words(&record).iter().enumerate() {
                if other == word {
                    found.push(record.index << 16 | number as u64);
                }
            }
        }
        found
    }
}

fn record(index: u64) -> Record {
    let text = format!("all w{} w{} pad{}", index % 7, index % 50, "x".repeat(80));
    Record { kind: RecordKind::Commands, index, term: 1, payload: Bytes::from(text) }
}

fn words(record: &Record) -> Vec<String> {
    String::from_utf8(record.payload.to_vec()).unwrap().split(' ').map(str::to_owned).collect()
}

/// What the application of an entry leaves behind, as a pure function of it.
fn applied(entry: u64) -> Applied {
    let effects = entry.is_multiple_of(3).then(|| Bytes::from(format!("effects of {entry}")));
    let mut histories = Vec::new();
    if entry.is_multiple_of(5) {
        for ordinal in 0..2 {
            histories.push(History {
                kind: HistoryKind::Config,
                key: Bytes::from(format!("key{}", entry % 4)),
                ordinal,
                value: Bytes::from(format!("{entry}/{ordinal}")),
            });
        }
    }
    if entry.is_multiple_of(7) {
        let (key, value) = (Bytes::from_static(b"session"), Bytes::from(entry.to_string()));
        histories.push(History { kind: HistoryKind::Sessions, key, ordinal: 0, value });
    }
    Applied { entry, effects, histories }
}

/// Steps until there is nothing to do; gives the reports of rebuilding.
fn settle(worker: &mut IndexWorker) -> Vec<IndexReport> {
    let mut reports = Vec::new();
    for _ in 0..STEPS_MAX {
        match worker.step(None) {
            IndexStep::Idle | IndexStep::Closed => return reports,
            IndexStep::Rebuilding(report) => reports.push(report),
            IndexStep::Refused { .. } => {
                // sled gives its lock back a moment after it was dropped.
                worker.step(Some(std::time::Duration::from_millis(20)));
            }
            step @ (IndexStep::Off | IndexStep::Unreadable { .. }) => panic!("{step:?}"),
            IndexStep::Working | IndexStep::Indexed { .. } | IndexStep::Segment(_) => {}
        }
    }
    panic!("the index does not settle");
}

/// Everything that the index says, compared with what it must say.
fn check(node: &Node, index: &Index) {
    let entries = node.entries();
    let status = index.status();
    assert_eq!(status.state, IndexState::Serving);
    assert_eq!(status.coverage, Coverage { start: entries.start, end: entries.end });

    let mut found = BTreeMap::new();
    let mut next = entries.start;
    while next < entries.end {
        let page = index.effects(next..entries.end, 500).unwrap();
        assert!(page.next > next);
        next = page.next;
        found.extend(page.effects);
    }
    let expected: BTreeMap<u64, Bytes> =
        entries.clone().filter_map(|e| applied(e).effects.map(|bytes| (e, bytes))).collect();
    assert_eq!(found, expected);

    for key in ["key0", "key1", "key2", "key3", "key"] {
        let rows = index.history(HistoryKind::Config, key.as_bytes(), entries.clone()).unwrap();
        let rows: Vec<(u64, u16, Bytes)> =
            rows.into_iter().map(|row| (row.entry, row.ordinal, row.value)).collect();
        let mut expected = Vec::new();
        for entry in entries.clone() {
            for row in applied(entry).histories {
                if row.kind == HistoryKind::Config && row.key == key {
                    expected.push((entry, row.ordinal, row.value));
                }
            }
        }
        assert_eq!(rows, expected);
    }

    let sealed: Vec<u64> =
        node.log.segments().iter().filter(|segment| segment.sealed).map(|s| s.id).collect();
    let indexed = index.segments();
    assert_eq!(indexed.iter().map(|segment| segment.id).collect::<Vec<_>>(), sealed);
    let end = indexed.last().map_or(entries.start, |segment| segment.next_index);
    for word in ["all", "w0", "w3", "w49", "nothing"] {
        let mut found = Vec::new();
        for segment in &indexed {
            for Posting { position, record_offset } in
                index.postings(segment.id, word.as_bytes()).unwrap()
            {
                let place =
                    quorate_storage::Position { segment: segment.id, offset: record_offset };
                let record = node.log.read_at(place).unwrap();
                assert_eq!(record.index, position >> 16, "a posting points at its record");
                if record.index >= entries.start {
                    found.push(position);
                }
            }
        }
        let mut expected = node.occurrences(word);
        expected.retain(|position| position >> 16 < end);
        assert_eq!(found, expected, "{word}");
    }

    let known: Vec<_> = index.snapshots().unwrap().iter().map(|snapshot| snapshot.id).collect();
    let kept: Vec<_> = node.catalogue.list().iter().rev().map(|kept| kept.id).collect();
    assert_eq!(known, kept);
}

/// Runs a test over both places.
fn on_both(test: impl Fn(&IndexPlace)) {
    test(&IndexPlace::Memory(MemoryStore::new()));
    let scratch = tempfile::tempdir().unwrap();
    test(&IndexPlace::Folder(scratch.path().join("index")));
}

fn snapshot_head(index: u64) -> SnapshotHead {
    SnapshotHead {
        lineage: OWNER.lineage,
        cluster_id: OWNER.cluster_id,
        index,
        term: 1,
        chain: 0,
        state_hash: 0,
        meta: Bytes::new(),
    }
}

#[test]
fn what_was_applied_is_found_again() {
    on_both(|place| {
        let mut node = Node::with_entries(1_000);
        node.catalogue.write(snapshot_head(10), [Bytes::from_static(b"state")]).unwrap();
        let (index, mut worker) = node.index(place, None);
        assert!(matches!(index.effects(0..1, 1), Err(IndexError::Unavailable { .. })));
        node.offer_all(&index);
        settle(&mut worker);
        assert!(index.segments().len() > 5);
        check(&node, &index);
        node.append(300);
        node.catalogue.write(snapshot_head(20), [Bytes::from_static(b"state")]).unwrap();
        node.offer_all(&index);
        assert_eq!(settle(&mut worker), []);
        check(&node, &index);
        let end = node.log.next_index();
        let newest = index.history_before(HistoryKind::Sessions, b"session", end).unwrap().unwrap();
        assert_eq!(newest.entry, (end - 1) / 7 * 7);
        let keys = index.history_keys(HistoryKind::Config, None, 3).unwrap();
        assert_eq!(keys, ["key0", "key1", "key2"]);
        let keys = index.history_keys(HistoryKind::Config, Some(b"key2"), 3).unwrap();
        assert_eq!(keys, ["key3"]);
        let error = index.effects(end..end + 1, 1).unwrap_err();
        assert!(matches!(error, IndexError::NotYet { end: other } if other == end));
        assert!(matches!(index.postings(999, b"all"), Err(IndexError::UnknownSegment { .. })));
    });
}

#[test]
fn an_index_that_was_closed_goes_on_where_it_ended() {
    on_both(|place| {
        let mut node = Node::with_entries(500);
        {
            let (index, mut worker) = node.index(place, None);
            node.offer_all(&index);
            settle(&mut worker);
            index.close();
            assert!(matches!(worker.step(None), IndexStep::Closed));
        }
        node.append(100);
        let (index, mut worker) = node.index(place, None);
        node.offer_all(&index);
        assert_eq!(settle(&mut worker), [], "no rebuild, no replay");
        check(&node, &index);
    });
}

#[test]
fn a_deleted_index_is_rebuilt_and_said_to_be_missing() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("index");
    let place = IndexPlace::Folder(dir.clone());
    let node = Node::with_entries(800);
    {
        let (index, mut worker) = node.index(&place, None);
        node.offer_all(&index);
        settle(&mut worker);
    }
    std::fs::remove_dir_all(&dir).unwrap();
    // The node starts from a snapshot near the end: only the last entries are applied again.
    let (index, mut worker) = node.index(&place, Some(node.replay()));
    for entry in node.log.next_index() - 10..node.log.next_index() {
        index.offer(applied(entry)).unwrap();
    }
    let reports = settle(&mut worker);
    assert_eq!(reports, [IndexReport { damage: IndexDamage::Missing, moved_to: None }]);
    check(&node, &index);
}

/// Builds an index in a folder, damages the folder, and lets a new worker find that.
fn after_damage(damage: impl Fn(&Path)) -> Vec<IndexReport> {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("index");
    let place = IndexPlace::Folder(dir.clone());
    let node = Node::with_entries(400);
    {
        let (index, mut worker) = node.index(&place, None);
        node.offer_all(&index);
        settle(&mut worker);
    }
    damage(&dir);
    let (index, mut worker) = node.index(&place, Some(node.replay()));
    index.offer(applied(node.log.next_index() - 1)).unwrap();
    let reports = settle(&mut worker);
    check(&node, &index);
    for report in &reports {
        if let Some(moved_to) = &report.moved_to {
            assert!(moved_to.exists(), "what was damaged is kept");
        }
    }
    reports
}

#[track_caller]
fn assert_moved_aside(reports: &[IndexReport]) {
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].moved_to.is_some(), "{reports:?}");
}

#[test]
fn a_truncated_file_is_survived() {
    let full = |dir: &Path| std::fs::metadata(dir.join("db")).unwrap().len();
    let mut moved = 0;
    for part in [0, 1, 100, 300, 600, 900, 990, 999] {
        let reports = after_damage(|dir| {
            let length = full(dir) * part / 1_000;
            std::fs::File::options()
                .write(true)
                .open(dir.join("db"))
                .unwrap()
                .set_len(length)
                .unwrap();
        });
        moved += usize::from(reports.iter().any(|report| report.moved_to.is_some()));
    }
    assert!(moved > 0, "some cut must lose what the mark promises");
}

#[test]
fn random_bytes_are_survived() {
    let overwrite = |name: &'static str, from: usize, length: usize| {
        move |dir: &Path| {
            for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                if path.file_name().unwrap().to_str().unwrap().starts_with(name) && path.is_file() {
                    let mut bytes = std::fs::read(&path).unwrap();
                    let end = bytes.len().min(from + length);
                    let mut seed = 88_172_645_463_325_252_u64;
                    for byte in &mut bytes[from.min(end)..end] {
                        seed ^= seed << 13;
                        seed ^= seed >> 7;
                        seed ^= seed << 17;
                        *byte = seed as u8;
                    }
                    std::fs::write(&path, bytes).unwrap();
                }
            }
        }
    };
    assert_moved_aside(&after_damage(overwrite("db", 0, usize::MAX)));
    assert_moved_aside(&after_damage(overwrite("conf", 0, usize::MAX)));
    // sled's own snapshot file is only a short cut of its recovery.
    after_damage(overwrite("snap", 0, usize::MAX));
    for from in [0, 1_000, 20_000, 60_000] {
        after_damage(overwrite("db", from, 512));
    }
}

#[test]
fn a_file_where_the_folder_should_be_is_moved_aside() {
    assert_moved_aside(&after_damage(|dir| {
        std::fs::remove_dir_all(dir).unwrap();
        std::fs::write(dir, b"no folder").unwrap();
    }));
}

#[test]
fn a_store_that_breaks_in_a_call_is_rebuilt() {
    let store = MemoryStore::new();
    let mut node = Node::with_entries(300);
    let (index, mut worker) = node.index(&IndexPlace::Memory(store.clone()), Some(node.replay()));
    node.offer_all(&index);
    settle(&mut worker);
    node.append(20);
    node.offer_all(&index);
    store.fail_flushes(1);
    let reports = settle(&mut worker);
    assert!(
        matches!(
            &reports[..],
            [IndexReport { damage: IndexDamage::Broken { call: "flush", .. }, .. }]
        ),
        "{reports:?}"
    );
    check(&node, &index);
}

#[test]
fn a_store_that_always_breaks_is_given_up() {
    let store = MemoryStore::new();
    let node = Node::with_entries(50);
    let (index, mut worker) = node.index(&IndexPlace::Memory(store.clone()), None);
    node.offer_all(&index);
    store.fail_flushes(u32::MAX);
    let mut reports = 0;
    for _ in 0..STEPS_MAX {
        match worker.step(None) {
            IndexStep::Rebuilding(_) => reports += 1,
            IndexStep::Off => break,
            _ => {}
        }
    }
    assert_eq!(reports, SET_ASIDE_MAX + 1);
    assert_eq!(index.status().state, IndexState::Off);
    assert!(matches!(index.effects(0..1, 1), Err(IndexError::Unavailable { .. })));
    index.close();
    assert!(matches!(worker.step(None), IndexStep::Closed));
}

#[test]
fn a_crash_between_any_two_steps_loses_nothing() {
    let store = MemoryStore::new();
    let place = IndexPlace::Memory(store.clone());
    let mut node = Node::with_entries(100);
    for round in 0..60 {
        let (index, mut worker) = node.index(&place, Some(node.replay()));
        node.append(20);
        node.offer_all(&index);
        for _ in 0..round {
            if let IndexStep::Rebuilding(report) = worker.step(None) {
                assert_eq!(report.damage, IndexDamage::Missing, "round {round}");
            }
        }
        store.crash();
    }
    let (index, mut worker) = node.index(&place, Some(node.replay()));
    node.offer_all(&index);
    assert_eq!(settle(&mut worker), []);
    check(&node, &index);
}

#[test]
fn rows_that_got_lost_below_the_mark_are_noticed() {
    for (tree, key) in [
        (Tree::Effects, [&9_u64.to_be_bytes()[..], &[0, 0]].concat()),
        (Tree::Meta, b"mark".to_vec()),
    ] {
        let store = MemoryStore::new();
        let place = IndexPlace::Memory(store.clone());
        let node = Node::with_entries(100);
        {
            let (index, mut worker) = node.index(&place, None);
            node.offer_all(&index);
            settle(&mut worker);
        }
        store.damage(tree, &key);
        let (index, mut worker) = node.index(&place, Some(node.replay()));
        node.offer_all(&index);
        let reports = settle(&mut worker);
        assert!(matches!(reports[0].damage, IndexDamage::Incomplete { .. }), "{reports:?}");
        check(&node, &index);
    }
}

#[test]
fn damage_that_a_reader_finds_is_repaired() {
    let store = MemoryStore::new();
    let node = Node::with_entries(300);
    let (index, mut worker) = node.index(&IndexPlace::Memory(store.clone()), Some(node.replay()));
    node.offer_all(&index);
    settle(&mut worker);
    let segment = index.segments()[0];
    store.damage(Tree::Postings, &[&segment.id.to_be_bytes()[..], &[0; 4]].concat());
    assert!(matches!(index.postings(segment.id, b"all"), Err(IndexError::Unavailable { .. })));
    let reports = settle(&mut worker);
    assert!(matches!(reports[0].damage, IndexDamage::Incomplete { what: "a leaf of postings" }));
    check(&node, &index);
}

#[test]
fn offers_that_a_full_queue_dropped_are_replayed() {
    let node = Node::with_entries(60);
    let place = IndexPlace::Memory(MemoryStore::new());
    let large = |entry: u64| Applied {
        entry,
        effects: Some(Bytes::from(vec![entry as u8; 1 << 20])),
        histories: Vec::new(),
    };
    let (log, replayed) = (node.log.clone(), Arc::new(Mutex::new(0)));
    let count = Arc::clone(&replayed);
    let replay: Replay = Box::new(move |request, sink| {
        assert!(request.end <= log.next_index());
        for entry in request.start..request.end {
            *count.lock().unwrap() += 1;
            if !sink(large(entry)) {
                return Replayed::UpTo(entry + 1);
            }
        }
        Replayed::UpTo(request.end)
    });
    let (index, mut worker) = node.index(&place, Some(replay));
    let mut dropped = 0;
    for entry in node.entries().take(59) {
        dropped += u64::from(index.offer(large(entry)).unwrap() == Offered::Dropped);
    }
    assert!(dropped > 30);
    assert_eq!(index.status().dropped, dropped);
    assert!(index.status().queue_bytes <= QUEUE_BYTES_MAX);
    settle(&mut worker);
    index.offer(large(node.log.next_index() - 1)).unwrap();
    settle(&mut worker);
    assert_eq!(*replayed.lock().unwrap(), dropped);
    let mut next = node.log.first_index();
    while next < node.log.next_index() {
        let page = index.effects(next..node.log.next_index(), 3 << 20).unwrap();
        for (entry, effects) in &page.effects {
            assert_eq!(*entry, next);
            assert_eq!(effects, &large(*entry).effects.unwrap());
            next += 1;
        }
        assert_eq!(page.next, next);
    }
}

#[test]
fn without_replay_the_coverage_jumps_over_a_gap() {
    let node = Node::with_entries(100);
    let (index, mut worker) = node.index(&IndexPlace::Memory(MemoryStore::new()), None);
    let start = node.log.first_index() + 40;
    for entry in start..node.log.next_index() {
        index.offer(applied(entry)).unwrap();
    }
    settle(&mut worker);
    assert_eq!(index.coverage(), Coverage { start, end: node.log.next_index() });
    let error = index.effects(start - 1..start, 1).unwrap_err();
    assert!(matches!(error, IndexError::Gone { start: other } if other == start));
}

#[test]
fn only_durable_entries_are_written() {
    let mut node = Node::with_entries(10);
    let (index, mut worker) = node.index(&IndexPlace::Memory(MemoryStore::new()), None);
    let durable_end = node.log.next_index();
    node.append_unflushed(10);
    node.offer_all(&index);
    settle(&mut worker);
    assert_eq!(index.coverage().end, durable_end);
    node.flush();
    settle(&mut worker);
    assert_eq!(index.coverage().end, durable_end + 10);
}

#[test]
fn what_the_log_purges_is_cut() {
    on_both(|place| {
        let mut node = Node::with_entries(1_000);
        let (index, mut worker) = node.index(place, None);
        node.offer_all(&index);
        settle(&mut worker);
        let before = index.segments().len();
        node.log.purge(600).unwrap();
        settle(&mut worker);
        assert_eq!(index.coverage().start, node.log.first_index());
        assert!(index.segments().len() < before);
        let gone = index.effects(3..4, 1).unwrap_err();
        assert!(matches!(gone, IndexError::Gone { .. }));
        let sessions = index.history(HistoryKind::Sessions, b"session", 0..u64::MAX).unwrap();
        assert_eq!(sessions[0].entry, node.log.first_index().div_ceil(7) * 7);
        let config = index.history(HistoryKind::Config, b"key0", 0..u64::MAX).unwrap();
        assert!(config[0].entry < 100, "configuration keeps its history");
        drop((index, worker));
        // The sum of what is left is right: nothing is reported.
        node.append(5);
        let (index, mut worker) = node.index(place, None);
        for entry in node.log.next_index() - 5..node.log.next_index() {
            index.offer(applied(entry)).unwrap();
        }
        assert_eq!(settle(&mut worker), []);
        assert_eq!(index.coverage().end, node.log.next_index());
    });
}

#[test]
fn an_index_of_another_log_or_ahead_of_this_one_is_set_aside() {
    let store = MemoryStore::new();
    let place = IndexPlace::Memory(store);
    {
        let node = Node::with_entries(100);
        let (index, mut worker) = node.index(&place, None);
        node.offer_all(&index);
        settle(&mut worker);
    }
    let node = Node::with_entries(50);
    let (index, mut worker) = node.index(&place, Some(node.replay()));
    node.offer_all(&index);
    let reports = settle(&mut worker);
    assert!(matches!(reports[0].damage, IndexDamage::AheadOfLog { .. }), "{reports:?}");
    check(&node, &index);
    drop((index, worker));

    let keys = Arc::new(|_: &Record, _: &mut dyn FnMut(&[u8], u64)| ());
    let owner = Owner { lineage: 9, ..OWNER };
    let options = IndexOptions { owner, keys, replay: None, on_progress: None };
    let (_, mut worker) = IndexWorker::new(place, node.log, None, options);
    let reports = settle(&mut worker);
    let foreign = IndexDamage::Foreign { cluster_id: OWNER.cluster_id, lineage: OWNER.lineage };
    assert_eq!(reports, [IndexReport { damage: foreign, moved_to: None }]);
}

#[test]
fn progress_is_told_as_it_becomes_durable() {
    let node = Node::with_entries(100);
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    let keys = Arc::new(|_: &Record, _: &mut dyn FnMut(&[u8], u64)| ());
    let options = IndexOptions {
        owner: OWNER,
        keys,
        replay: None,
        on_progress: Some(Arc::new(move |coverage| listener.lock().unwrap().push(coverage))),
    };
    let place = IndexPlace::Memory(MemoryStore::new());
    let (index, mut worker) = IndexWorker::new(place, node.log.clone(), None, options);
    node.offer_all(&index);
    settle(&mut worker);
    let told = told.lock().unwrap();
    assert_eq!(told.last(), Some(&index.coverage()));
    assert!(told.is_sorted_by_key(|coverage| coverage.end));
}

#[test]
fn a_folder_that_cannot_be_made_is_tried_again() {
    let scratch = tempfile::tempdir().unwrap();
    let dir: PathBuf = scratch.path().join("index");
    let node = Node::with_entries(10);
    // Somebody else holds sled's lock.
    std::fs::create_dir_all(&dir).unwrap();
    let held = std::fs::File::create(dir.join("db")).unwrap();
    held.lock().unwrap();
    let (index, mut worker) = node.index(&IndexPlace::Folder(dir.clone()), None);
    node.offer_all(&index);
    for _ in 0..3 {
        assert!(matches!(worker.step(None), IndexStep::Refused { call: "open", .. }));
        assert!(matches!(index.status().state, IndexState::Refused { .. }));
    }
    drop(held);
    std::fs::remove_dir_all(&dir).unwrap();
    settle(&mut worker);
    assert_eq!(index.coverage().end, node.log.next_index());
}
