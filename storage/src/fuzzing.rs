//! Bodies of the fuzz targets, callable from stable tests. Each takes any bytes and must return;
//! a panic is a finding.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::disk::{Disk, SimulatedDisk};
use crate::error::OpenError;
use crate::format::{put_u32, put_u64, read_u8, read_u32, read_u64};
use crate::log::append_log::{Completion, Log, LogOptions};
use crate::log::group_commit::{Step, Writer};
use crate::log::rotation::Preparation;
use crate::record::{
    self, DURABLE_MARK_BYTES, Damage, ENTRY_HEAD_BYTES, FRAME_BYTES, Record, RecordKind,
};
use crate::recovery::loss::accept_loss;
use crate::recovery::{Hole, Tail};
use crate::segment::{FOOTER_BYTES, HEADER_BYTES, SegmentHeader, file_name};

const DIR: &str = "log";
const CLUSTER: u64 = 7;
/// Header and durable mark of a new log's segment.
const HEAD_BYTES: usize = HEADER_BYTES + DURABLE_MARK_BYTES;

/// Decodes any bytes as a record, as they are and with a right checksum, and encodes what was
/// decoded back to the same bytes.
pub fn record_decode(bytes: &[u8]) {
    record_comes_back(bytes);
    let mut sealed = bytes.to_vec();
    seal(&mut sealed, 0, false);
    record_comes_back(&sealed);
}

fn record_comes_back(bytes: &[u8]) {
    if let Ok(Some(view)) = record::decode(bytes) {
        let record = Record {
            kind: view.kind,
            index: view.index,
            term: view.term,
            payload: Bytes::copy_from_slice(view.payload),
        };
        let mut again = Vec::new();
        record::Frame::new(record, view.previous_chain).write(&mut again);
        assert_eq!(bytes.get(..view.disk_bytes()), Some(again.as_slice()));
    }
}

/// Opens a log whose only segment holds any bytes; the first byte says how. Where it is sealed, its
/// successor is given up as lost first. Opening again must come to the same log. Tells how many
/// entries that log has; none if it is refused.
///
/// | first byte mod 4 | the segment |
/// |---|---|
/// | 0 | the other bytes |
/// | 1 | a sound head and the other bytes |
/// | 2 | that, with the checksum of each record made right |
/// | 3 | that, with the chain made right as well |
pub fn segment_open(bytes: &[u8]) -> Option<usize> {
    let disk = SimulatedDisk::new();
    drop(open(&disk));
    let path = Path::new(DIR).join(file_name(1));
    let (mode, rest) = bytes.split_first()?;
    let content = if mode % 4 == 0 {
        rest.to_vec()
    } else {
        let mut content = disk.bytes(&path).unwrap_or_default();
        content.truncate(HEAD_BYTES);
        content.extend_from_slice(rest);
        if mode % 4 >= 2 {
            seal(&mut content, HEAD_BYTES, mode % 4 == 3);
        }
        content
    };
    let _ = SegmentHeader::decode(&content);
    disk.put(&path, content);
    let missing = |hole: &Hole| hole.segment == 2 && hole.damage == Damage::Missing;
    if matches!(open(&disk), Err(OpenError::Hole(hole)) if missing(&hole)) {
        // It is sealed, and its successor is lost.
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let accepted = accept_loss(&shared, Path::new(DIR), &options(), None);
        accepted.expect("what ends in a sound footer is whole");
    }
    let (log, _, report) = open(&disk).ok()?;
    let first = contents(&log);
    drop(log);
    let (log, _, again) = open(&disk).expect("a log that opened opens again");
    assert_eq!(first, contents(&log));
    assert_eq!(report.tail, again.tail);
    Some(first.len())
}

/// Makes the checksums of the records from `at` on right, and with `chained` what they say of the
/// chain, so that damage lies in what records mean and not in their bytes alone.
fn seal(bytes: &mut [u8], mut at: usize, chained: bool) {
    let mut chain = record::chain_seed(CLUSTER);
    let mut chain_before = BTreeMap::new();
    while let Some(len) = read_u32(bytes, at)
        && let Ok(body_bytes) = record::body_bytes(len)
        && let Some((before, rest)) = bytes.split_at_mut_checked(at)
        && let Some(whole) = rest.get_mut(..FRAME_BYTES + body_bytes)
    {
        let kind = read_u8(whole, 8).and_then(RecordKind::from_u8);
        let (index, term) = (read_u64(whole, 9).unwrap_or(0), read_u64(whole, 17).unwrap_or(0));
        let is_entry = kind.is_some_and(RecordKind::is_entry);
        let has_chain = chained && whole.len() >= ENTRY_HEAD_BYTES;
        if has_chain && kind == Some(RecordKind::Truncate) {
            chain = chain_before.get(&index).copied().unwrap_or(chain);
            put_u64(whole, 25, chain);
        } else if has_chain && is_entry {
            put_u64(whole, 25, chain);
        } else if has_chain && kind == Some(RecordKind::Footer) && whole.len() == FOOTER_BYTES {
            put_u32(whole, FOOTER_BYTES - 4, crc32fast::hash(before));
        }
        let crc = crc32fast::hash(whole.get(FRAME_BYTES..).unwrap_or_default());
        put_u32(whole, 4, crc);
        if is_entry {
            chain_before.insert(index, chain);
            chain = record::chain_after(chain, index, term, crc);
        }
        at += FRAME_BYTES + body_bytes;
    }
}

fn open(disk: &SimulatedDisk) -> Result<(Log, Writer, crate::OpenReport), OpenError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Log::open(disk, Path::new(DIR), options())
}

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 2048,
        group_bytes_max: 600,
        tail_bytes_max: 1024,
        ..LogOptions::new(CLUSTER, 1)
    }
}

fn contents(log: &Log) -> Vec<Record> {
    let (first, next) = (log.first_index(), log.next_index());
    if first == next {
        return Vec::new();
    }
    log.read(first..next, usize::MAX).expect("an opened log can be read")
}

/// What a log must hold, kept beside it.
///
/// A log after a crash is the acknowledged state, or that state with a prefix of the calls that
/// followed it. So the model keeps the state after each call since the newest acknowledged one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Expected {
    first_index: u64,
    entries: BTreeMap<u64, (u64, Bytes)>,
    hard_state: Option<Bytes>,
}

impl Expected {
    fn next_index(&self) -> u64 {
        self.entries.last_key_value().map_or(self.first_index, |(last, _)| last + 1)
    }

    fn purge(&mut self, upto: u64) {
        self.entries = self.entries.split_off(&(upto + 1));
        self.first_index = upto + 1;
    }
}

/// Which calls have been acknowledged: the newest one's number.
type Acknowledged = Arc<Mutex<u64>>;

/// A log on a simulated disk beside its model.
#[derive(Debug)]
pub struct Modelled {
    disk: SimulatedDisk,
    running: Option<(Log, Writer)>,
    /// Call number and the state after it, oldest first; the first one is acknowledged.
    states: Vec<(u64, Expected)>,
    calls: u64,
    acknowledged: Acknowledged,
    /// Lowest index that an unsettled purge may have reached.
    purging: Option<u64>,
    term: u64,
    /// Openings that found something.
    pub statistics: Statistics,
}

/// What a run of [`Modelled`] went through.
#[derive(Debug, Clone, Copy, Default)]
pub struct Statistics {
    /// Crashes of the machine, during openings included.
    pub crashes: u64,
    /// Ends of the process alone, during openings included.
    pub kills: u64,
    /// Crashes and ends during an opening.
    pub crashes_in_opening: u64,
    /// Openings that were made twice and came to the same.
    pub opened_twice: u64,
    /// Openings that cut an unproven tail.
    pub cuts: u64,
    /// Files made ahead and footers flushed afterwards.
    pub prepared: u64,
    /// Calls that were acknowledged.
    pub acknowledged: u64,
}

impl Default for Modelled {
    fn default() -> Self {
        Self::new(SimulatedDisk::new())
    }
}

impl Modelled {
    /// A new log on `disk`.
    pub fn new(disk: SimulatedDisk) -> Self {
        let mut modelled = Self {
            disk,
            running: None,
            states: vec![(0, Expected::default())],
            calls: 0,
            acknowledged: Arc::default(),
            purging: None,
            term: 1,
            statistics: Statistics::default(),
        };
        modelled.open_until_up(0, &mut || 0);
        modelled
    }

    /// The newest state that the model holds, acknowledged or not.
    fn newest(&self) -> Expected {
        self.states.last().map(|(_, state)| state.clone()).unwrap_or_default()
    }

    fn completion(&mut self, state: Expected) -> Completion {
        self.calls += 1;
        let call = self.calls;
        self.states.push((call, state));
        let acknowledged = Arc::clone(&self.acknowledged);
        Box::new(move |result| {
            if result.is_ok() {
                let mut newest = acknowledged.lock().expect("no test panics holding it");
                assert!(call > *newest, "acknowledgements come in order");
                *newest = call;
            }
        })
    }

    /// Appends `count` entries of `bytes` bytes.
    pub fn append(&mut self, count: u64, bytes: usize, raise_term: bool) {
        self.term += u64::from(raise_term);
        let mut state = self.newest();
        let mut records = Vec::new();
        for _ in 0..count {
            let index = state.next_index();
            let seed = (index ^ (self.calls << 8)).to_le_bytes();
            let payload: Bytes = seed.iter().copied().cycle().take(bytes).collect();
            state.entries.insert(index, (self.term, payload.clone()));
            records.push(Record { kind: RecordKind::Commands, index, term: self.term, payload });
        }
        let Some((log, _)) = self.running.clone_log() else { return };
        let done = self.completion(state);
        if log.append(records, done).is_err() {
            self.states.pop();
        }
    }

    /// Saves a hard state.
    pub fn save_hard_state(&mut self) {
        let mut state = self.newest();
        let bytes = Bytes::copy_from_slice(&self.calls.to_le_bytes());
        state.hard_state = Some(bytes.clone());
        let Some((log, _)) = self.running.clone_log() else { return };
        let done = self.completion(state);
        if log.save_hard_state(bytes, done).is_err() {
            self.states.pop();
        }
    }

    /// Takes the last `count` entries away, as far as there are so many.
    pub fn truncate(&mut self, count: u64) {
        let mut state = self.newest();
        let kept_next = state.next_index().saturating_sub(count).max(state.first_index);
        state.entries.split_off(&kept_next);
        let Some((log, _)) = self.running.clone_log() else { return };
        let done = self.completion(state);
        if log.truncate_after(kept_next.checked_sub(1), done).is_err() {
            self.states.pop();
        }
    }

    /// Purges all but about `kept` durable entries.
    pub fn purge(&mut self, kept: u64) {
        let Some((log, _)) = self.running.clone_log() else { return };
        let Some(upto) = log.durable().and_then(|durable| durable.checked_sub(kept)) else {
            return;
        };
        if upto < log.first_index() {
            return;
        }
        if log.purge(upto).is_ok() {
            for (_, state) in &mut self.states {
                if state.first_index <= upto {
                    state.purge(upto);
                }
            }
        } else {
            self.purging = Some(upto);
        }
    }

    /// Starts over `ahead` entries after the end.
    pub fn reset(&mut self, ahead: u64) {
        let newest = self.newest();
        let index = newest.next_index() + ahead;
        let state = Expected {
            first_index: index + 1,
            entries: BTreeMap::new(),
            hard_state: newest.hard_state,
        };
        let Some((log, _)) = self.running.clone_log() else { return };
        let (term, done) = (self.term, self.completion(state));
        if log.reset_to(index, term, index ^ term, done).is_err() {
            self.states.pop();
        }
    }

    /// One step of the writer, and a check of what readers see.
    pub fn step(&mut self, mark: bool) {
        if let Some((_, writer)) = &mut self.running {
            let step = if mark { writer.flush_mark() } else { writer.step(None) };
            assert!(!matches!(step, Step::Closed));
        }
        self.take_acknowledged();
    }

    /// What the writer need not wait for.
    pub fn prepare(&mut self) {
        if let Some((log, _)) = &self.running {
            let mut preparer = log.preparer();
            let busy = |step: &Preparation| {
                matches!(step, Preparation::Prepared { .. } | Preparation::Settled { .. })
            };
            while busy(&preparer.step(None)) {
                self.statistics.prepared += 1;
            }
        }
    }

    /// Everything queued is flushed, or the machine goes down.
    pub fn drain(&mut self) {
        while let Some((_, writer)) = &mut self.running {
            if !matches!(writer.step(None), Step::Flushed { .. }) {
                break;
            }
        }
        self.take_acknowledged();
    }

    /// What readers see is the newest state, flushed or not.
    pub fn check_readers(&mut self) {
        if let Some((log, _)) = self.running.clone_log()
            && !self.disk.is_down()
        {
            self.compare(&log, &self.newest());
        }
    }

    fn take_acknowledged(&mut self) {
        let newest = *self.acknowledged.lock().expect("no test panics holding it");
        let known = self.states.iter().position(|(call, _)| *call == newest).unwrap_or(0);
        self.statistics.acknowledged += known as u64;
        self.states.drain(..known);
    }

    /// The machine goes down during the `count`th change of the disk from now.
    pub fn go_down_after(&mut self, count: u64) {
        self.disk.go_down_after(count);
    }

    /// Whether it has gone down.
    pub fn is_down(&self) -> bool {
        self.disk.is_down()
    }

    /// The `count`th flush of a file from now fails.
    pub fn fail_flush_after(&mut self, count: u64) {
        self.disk.fail_flush_after(count);
    }

    /// Whether a failed flush has ended this log.
    pub fn is_poisoned(&self) -> bool {
        self.running.as_ref().is_some_and(|(log, _)| log.poisoned().is_some())
    }

    /// The machine goes down and comes up, or only the process does; `next` decides which, what
    /// survives, and when an opening is interrupted (0: never).
    pub fn reboot(&mut self, next: &mut dyn FnMut() -> u64) {
        self.take_acknowledged();
        self.running = None;
        self.go_down(next);
        self.open_until_up(8, next);
    }

    fn go_down(&mut self, next: &mut dyn FnMut() -> u64) {
        if next().is_multiple_of(3) {
            self.statistics.kills += 1;
            self.disk.kill_process();
        } else {
            self.statistics.crashes += 1;
            self.disk.crash(next());
        }
    }

    /// Opens; in at most `interruptions` cases goes down on the way and begins again.
    fn open_until_up(&mut self, interruptions: u64, next: &mut dyn FnMut() -> u64) {
        for _ in 0..interruptions {
            let at = next() % 48;
            if at == 0 {
                break;
            }
            self.disk.go_down_after(at);
            let opened = open(&self.disk);
            if !self.disk.is_down() {
                drop(opened.expect("a log that crashed opens"));
                break;
            }
            self.statistics.crashes_in_opening += 1;
            self.go_down(next);
        }
        self.disk.go_down_after(u64::MAX / 2);
        let (mut log, mut writer, mut report) = open(&self.disk).expect("a log that crashed opens");
        if next().is_multiple_of(4) {
            let (before, tail) = (contents(&log), report.tail);
            drop((log, writer));
            (log, writer, report) = open(&self.disk).expect("a log that opened opens again");
            assert_eq!((contents(&log), report.tail), (before, tail), "opening is idempotent");
            self.statistics.opened_twice += 1;
        }
        assert!(report.hard_state_proven, "a crash alone never makes the hard state doubtful");
        if let Tail::Cut(_) = report.tail {
            self.statistics.cuts += 1;
            log.settle_doubts().expect("the disk is up");
        }
        self.check_opened(&log);
        self.running = Some((log, writer));
    }

    /// The log must be one of the states since the newest acknowledged one.
    fn check_opened(&mut self, log: &Log) {
        if let Some(upto) = self.purging.take()
            && log.first_index() == upto + 1
        {
            for (_, state) in &mut self.states {
                if state.first_index <= upto {
                    state.purge(upto);
                }
            }
        }
        let found = Expected {
            first_index: log.first_index(),
            entries: contents(log)
                .into_iter()
                .map(|record| (record.index, (record.term, record.payload)))
                .collect(),
            hard_state: log.hard_state(),
        };
        let known = self.states.iter().any(|(_, state)| is_reached(&found, state));
        let prefix = known
            || self.states.windows(2).any(|pair| match pair {
                [(_, before), (_, after)] => is_between(&found, before, after),
                _ => false,
            });
        assert!(prefix, "found {found:#?}, expected one of {:#?}", self.states);
        *self.acknowledged.lock().expect("no test panics holding it") = self.calls;
        self.states = vec![(self.calls, found)];
    }

    fn compare(&self, log: &Log, state: &Expected) {
        assert_eq!(log.first_index(), state.first_index);
        assert_eq!(log.next_index(), state.next_index());
        assert_eq!(log.hard_state(), state.hard_state);
        let found = contents(log);
        assert_eq!(found.len(), state.entries.len());
        for (record, (index, (term, payload))) in found.iter().zip(&state.entries) {
            assert_eq!((record.index, record.term), (*index, *term));
            assert_eq!(&record.payload, payload);
            assert_eq!(log.term_at(*index), Some(*term));
        }
        let mut chain = None;
        let places = log.read_located(state.first_index..state.next_index(), usize::MAX);
        for (position, record) in places.expect("the disk is up") {
            assert_eq!(log.read_at(position).as_ref(), Ok(&record));
            assert_eq!(state.entries.get(&record.index), Some(&(record.term, record.payload)));
            let after = log.chain_at(record.index).expect("the disk is up");
            assert_ne!(chain.replace(after), Some(after));
        }
    }
}

fn is_reached(found: &Expected, state: &Expected) -> bool {
    found == state
}

/// An append is a prefix of its entries when the machine goes down inside of it.
fn is_between(found: &Expected, before: &Expected, after: &Expected) -> bool {
    let next = found.next_index();
    let mut cut = after.clone();
    cut.entries.split_off(&next);
    next >= before.next_index()
        && next <= after.next_index()
        && before.first_index == after.first_index
        && *found == cut
}

trait CloneLog {
    fn clone_log(&self) -> Option<(Log, ())>;
}

impl CloneLog for Option<(Log, Writer)> {
    fn clone_log(&self) -> Option<(Log, ())> {
        self.as_ref().map(|(log, _)| (log.clone(), ()))
    }
}

/// Operations on a log with reboots, read from any bytes, against a model on the simulated disk.
pub fn log_operations(bytes: &[u8]) -> Statistics {
    log_operations_on(SimulatedDisk::new(), bytes)
}

/// As [`log_operations`] on a given empty disk, which may lie.
pub fn log_operations_on(disk: SimulatedDisk, bytes: &[u8]) -> Statistics {
    let mut bytes = bytes.iter().copied();
    let mut modelled = Modelled::new(disk);
    let mut seed = 0_u64;
    while let Some(operation) = bytes.next() {
        let argument = u64::from(bytes.next().unwrap_or(0));
        match operation % 16 {
            0..=5 => {
                let (count, size) = (argument % 5, (argument as usize * 7) % 300);
                modelled.append(count, size, operation % 16 == 5);
            }
            6 | 7 => modelled.save_hard_state(),
            8 => modelled.truncate(argument % 8),
            9 => modelled.purge(argument % 8),
            10 if argument % 4 == 0 => modelled.reset(argument / 4 % 10),
            10 | 11 => {
                modelled.step(argument % 2 == 0);
                if argument % 4 < 2 {
                    modelled.prepare();
                }
            }
            12 | 13 => modelled.drain(),
            14 if argument % 8 == 0 => modelled.fail_flush_after(1 + argument / 8 % 4),
            14 => modelled.go_down_after(1 + argument % 24),
            _ => modelled.check_readers(),
        }
        if modelled.is_down() || modelled.is_poisoned() || (operation > 250 && argument > 200) {
            seed = seed.wrapping_mul(0x9e37_79b9).wrapping_add(argument + 1);
            modelled.reboot(&mut || {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed >> 33
            });
        }
    }
    modelled.drain();
    if !modelled.is_down() {
        modelled.check_readers();
    }
    modelled.statistics
}
