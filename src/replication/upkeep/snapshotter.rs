//! When a snapshot is taken and how far the log is purged; how much has been set aside.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use openraft::async_runtime::WatchReceiver;
use quorate_storage::append_log::SegmentSummary;
use quorate_storage::index::{Index, IndexState};
use quorate_storage::snapshot::Catalogue;
use quorate_storage::{Disk, Log, RecordKind, quarantine};

use crate::clock::{Clock, milliseconds};
use crate::replication::consensus::state_store::Raft;
use crate::replication::history::reader::History;
use crate::replication::settings::Retention;
use crate::supervisor::{StopSignal, Supervisor};
use crate::telemetry::{event, metrics};

/// How often the log's length is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often there is a look at what has been set aside.
const QUARANTINE_EVERY: Duration = Duration::from_secs(60);
/// Over so much of it the operator is told, and again whenever it has doubled.
const QUARANTINE_BYTES_TOLD: u64 = 256 << 20;
/// A snapshot is due after so many times its own size of log: writing snapshots adds at most a quarter
/// to what is written, and a start reads little more than the state. The idea is that of Redis'
/// `auto-aof-rewrite-percentage`.
const LOG_PER_SNAPSHOT: u64 = 4;
/// However small the state is, none is due after less log than this,
const SNAPSHOT_EVERY_BYTES_MIN: u64 = 128 << 20;
/// nor after less than so many segments: growth is reckoned in whole ones.
const SNAPSHOT_EVERY_SEGMENTS_MIN: u64 = 2;
/// Snapshots kept at least: the newest, and the one before it in case the newest is found damaged.
const SNAPSHOTS_KEPT_MIN: usize = 2;
/// Where an entry of commands has its wall time: behind version and log time.
const WALL_TIME_AT: usize = 9;

/// The task that takes snapshots and purges.
#[derive(Debug)]
pub(in crate::replication) struct Snapshotter {
    pub(in crate::replication) raft: Raft,
    pub(in crate::replication) disk: Arc<dyn Disk>,
    pub(in crate::replication) dir: PathBuf,
    pub(in crate::replication) log: Log,
    pub(in crate::replication) catalogue: Arc<Catalogue>,
    pub(in crate::replication) retention: Retention,
    pub(in crate::replication) clock: Clock,
    pub(in crate::replication) history: History,
    pub(in crate::replication) index: Index,
    pub(in crate::replication) supervisor: Supervisor,
}

impl Snapshotter {
    /// Runs until `stop`.
    pub(in crate::replication) async fn run(self, mut stop: StopSignal) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Entry of the newest snapshot that was asked for: one at a time.
        let mut asked = None;
        let mut newest_before = None;
        let at_start = self.log.next_index();
        let mut set_aside = tokio::time::interval(QUARANTINE_EVERY);
        let mut told_at = QUARANTINE_BYTES_TOLD;
        loop {
            tokio::select! {
                () = stop.stopped() => return,
                _ = set_aside.tick() => {
                    self.look_aside(&mut told_at).await;
                    continue;
                }
                _ = tick.tick() => {}
            }
            self.history.forget_idle();
            let newest = self.catalogue.newest();
            let every =
                snapshot_every(&self.retention, newest.as_ref().map(|kept| kept.file_bytes));
            let newest = newest.map(|kept| kept.id.index);
            let applied = self
                .raft
                .data_metrics()
                .borrow_watched()
                .last_applied
                .as_ref()
                .map(|id| id.index());
            // The newest was found damaged and set aside.
            if newest < std::mem::replace(&mut newest_before, newest) {
                asked = None;
            }
            let segments = self.log.segments();
            let look = Look {
                newest,
                applied,
                log: self.log.first_index()..self.log.next_index(),
                grown: log_bytes_after(&segments, newest),
                every,
                at_start,
            };
            let due = look.is_due();
            if due && (asked.is_none() || newest >= asked) {
                asked = applied;
                if self.raft.trigger().snapshot().await.is_err() {
                    return;
                }
            }
            if let Some(newest) = newest {
                self.tidy(newest).await;
            }
        }
    }

    /// Purges what the newest snapshot covers and retention does not keep; drops old snapshots.
    async fn tidy(&self, newest: u64) {
        let segments = self.log.segments();
        let oldest_wall_ms =
            self.clock.wall_ms().saturating_sub(milliseconds(self.retention.retain_age));
        let upto = purge_upto(&segments, newest, self.retention.retain_bytes, |segment| {
            self.wall_ms_of(segment).is_some_and(|wall_ms| wall_ms < oldest_wall_ms)
        });
        let upto = upto.map(|upto| self.not_past_the_index(upto));
        if let Some(upto) = upto.filter(|upto| *upto >= self.log.first_index()) {
            tracing::info!(event = event::LOG_PURGED, upto, snapshot = newest, "the log is purged");
            if self.raft.trigger().purge_log(upto).await.is_err() {
                return;
            }
        }
        // Snapshots are kept as long as the log after them: from them it is applied again.
        let first = self.log.first_index();
        let list = self.catalogue.list();
        let useful = list.iter().filter(|kept| kept.id.index.saturating_add(1) >= first).count();
        let keep = useful.max(SNAPSHOTS_KEPT_MIN);
        if list.len() > keep {
            let catalogue = Arc::clone(&self.catalogue);
            let pruned = self.supervisor.blocking("snapshot prune", move || catalogue.prune(keep));
            if let Ok(Err(error)) = pruned.await {
                tracing::warn!(event = event::SNAPSHOTS_NOT_PRUNED, %error, "old snapshots could not be removed");
            }
        }
    }

    /// Tells how much has been set aside; nothing of it is removed.
    async fn look_aside(&self, told_at: &mut u64) {
        let (disk, dir) = (Arc::clone(&self.disk), self.dir.clone());
        let look = move || quarantine::held_bytes(&*disk, &dir);
        let Ok(Ok(bytes)) = self.supervisor.blocking("quarantine", look).await else { return };
        metrics::quarantine_bytes(bytes);
        if bytes >= *told_at {
            *told_at = bytes.saturating_mul(2);
            tracing::warn!(event = event::QUARANTINE_LARGE, bytes, "much has been set aside");
        }
    }

    /// What the index has not taken yet stays: it could not be indexed again. One that is off, or
    /// whose disk refuses, holds nothing back.
    fn not_past_the_index(&self, upto: u64) -> u64 {
        let status = self.index.status();
        match status.state {
            IndexState::Serving => upto.min(status.coverage.end.saturating_sub(1)),
            _ => upto,
        }
    }

    /// The wall time of the newest entry before a segment's end that carries one, roughly: of its
    /// last entry, or none if that is no entry of commands.
    fn wall_ms_of(&self, segment: &SegmentSummary) -> Option<u64> {
        let last = segment.next_index.checked_sub(1)?;
        let records = self.log.read(last..segment.next_index, 1).ok()?;
        let record = records.first().filter(|record| record.kind == RecordKind::Commands)?;
        let mut time: Bytes = record.payload.clone();
        if time.len() < WALL_TIME_AT + 8 {
            return None;
        }
        time.advance(WALL_TIME_AT);
        Some(time.get_u64_le())
    }
}

/// What decides whether a snapshot is due.
#[derive(Debug)]
struct Look {
    /// The entry of the newest snapshot.
    newest: Option<u64>,
    applied: Option<u64>,
    log: Range<u64>,
    /// Bytes of log that the newest does not cover.
    grown: u64,
    /// How many make the next one due.
    every: u64,
    /// Where the log ended when the node started.
    at_start: u64,
}

impl Look {
    fn is_due(&self) -> bool {
        // Without one that the log goes on from nobody who is behind could catch up here.
        let uncovered = self.log.start > self.newest.map_or(0, |index| index + 1);
        // What stood in the log at the start is applied at full speed; a snapshot on the way through
        // it would hold up the start and be of use to nobody. What was cut since is not waited for.
        let started = self.applied.map_or(0, |index| index + 1) >= self.at_start.min(self.log.end);
        (uncovered || self.grown >= self.every && started) && self.applied > self.newest
    }
}

/// The bytes of log after which the next snapshot is due, by the size of the newest.
fn snapshot_every(retention: &Retention, newest_bytes: Option<u64>) -> u64 {
    let by_size = newest_bytes.unwrap_or(0).saturating_mul(LOG_PER_SNAPSHOT);
    let by_segments = retention.segment_bytes.saturating_mul(SNAPSHOT_EVERY_SEGMENTS_MIN);
    by_size.max(by_segments).max(SNAPSHOT_EVERY_BYTES_MIN).min(retention.snapshot_every_bytes)
}

/// Bytes of the segments that reach past `snapshot`.
fn log_bytes_after(segments: &[SegmentSummary], snapshot: Option<u64>) -> u64 {
    let behind = |segment: &&SegmentSummary| {
        snapshot.is_none_or(|index| segment.next_index > index.saturating_add(1))
    };
    segments.iter().filter(behind).map(|segment| segment.bytes).sum()
}

/// The last entry that may go: of whole sealed segments that the snapshot at `newest` covers, the
/// oldest, as long as what stays is over `retain_bytes` or the segment `is_old`.
fn purge_upto(
    segments: &[SegmentSummary],
    newest: u64,
    retain_bytes: u64,
    is_old: impl Fn(&SegmentSummary) -> bool,
) -> Option<u64> {
    let mut kept: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let mut upto = None;
    for segment in segments {
        let covered = segment.sealed && segment.next_index <= newest.saturating_add(1);
        kept = kept.saturating_sub(segment.bytes);
        if !covered || (kept < retain_bytes && !is_old(segment)) {
            break;
        }
        upto = segment.next_index.checked_sub(1);
    }
    upto
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments() -> Vec<SegmentSummary> {
        (0..4)
            .map(|id| SegmentSummary {
                id,
                path: format!("{id}").into(),
                first_index: id * 10,
                next_index: id * 10 + 10,
                bytes: 100,
                sealed: id < 3,
            })
            .collect()
    }

    #[test]
    fn none_is_due_on_the_way_through_the_log_at_a_start() {
        let usual = || Look {
            newest: Some(9),
            applied: Some(39),
            log: 0..40,
            grown: 300,
            every: 300,
            at_start: 40,
        };
        assert!(usual().is_due());
        assert!(!Look { grown: 299, ..usual() }.is_due());
        assert!(!Look { applied: Some(38), ..usual() }.is_due(), "one entry is still to come");
        assert!(!Look { applied: None, ..usual() }.is_due());
        // The end of what stood in the log was cut by a new leader.
        assert!(Look { applied: Some(34), log: 0..35, ..usual() }.is_due());
        assert!(!Look { applied: Some(9), log: 0..10, ..usual() }.is_due(), "nothing is new");
        // The log does not go on from the newest: that cannot wait.
        assert!(Look { applied: Some(20), log: 11..40, grown: 0, ..usual() }.is_due());
        assert!(!Look { applied: Some(20), log: 10..40, grown: 0, ..usual() }.is_due());
    }

    #[test]
    fn growth_counts_what_a_snapshot_does_not_cover() {
        assert_eq!(log_bytes_after(&segments(), None), 400);
        assert_eq!(log_bytes_after(&segments(), Some(9)), 300);
        assert_eq!(log_bytes_after(&segments(), Some(8)), 400);
        assert_eq!(log_bytes_after(&segments(), Some(39)), 0);
    }

    #[test]
    fn snapshots_of_a_small_state_come_sooner_and_never_later_than_asked_for() {
        const MIB: u64 = 1 << 20;
        let retention = |segment_bytes, snapshot_every_bytes| Retention {
            segment_bytes,
            snapshot_every_bytes,
            ..Retention::default()
        };
        let usual = retention(64 * MIB, 512 * MIB);
        for (newest, every) in [
            (None, 128 * MIB),
            (Some(2 * MIB), 128 * MIB),
            (Some(100 * MIB), 400 * MIB),
            (Some(150 * MIB), 512 * MIB),
            (Some(u64::MAX), 512 * MIB),
        ] {
            assert_eq!(snapshot_every(&usual, newest), every, "{newest:?}");
        }
        assert_eq!(snapshot_every(&retention(200 * MIB, 512 * MIB), None), 400 * MIB);
        assert_eq!(snapshot_every(&retention(MIB, MIB), None), MIB);
    }

    #[test]
    fn only_whole_covered_segments_go_and_retention_keeps_them() {
        let young = |_: &SegmentSummary| false;
        let old = |_: &SegmentSummary| true;
        // 300 bytes stay behind the first segment, 200 behind the second.
        assert_eq!(purge_upto(&segments(), 35, 0, young), Some(29));
        assert_eq!(purge_upto(&segments(), 15, 0, young), Some(9));
        assert_eq!(purge_upto(&segments(), 8, 0, young), None);
        assert_eq!(purge_upto(&segments(), 35, 200, young), Some(19));
        assert_eq!(purge_upto(&segments(), 35, 301, young), None);
        // Age lets go of what the length would keep; the active segment stays whatever its age.
        assert_eq!(purge_upto(&segments(), 99, 1_000, old), Some(29));
    }
}
