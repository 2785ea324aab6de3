//! The disk side of a member: the log and the snapshots opened, the threads that write the log, and
//! what repairs it from the peers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quorate_storage::recovery::Tail;
use quorate_storage::snapshot::{Catalogue, Owner};
use quorate_storage::{Log, LogOptions, OpenReport, Preparation, Preparer, Step, Writer};

use super::Groups;
use super::measured_disk::MeasuredDisk;
use crate::clock::Clock;
use crate::peer::Mesh;
use crate::replication::consensus::state_store::tell_set_aside;
use crate::replication::error::StartError;
use crate::replication::founding::bootstrap::membership;
use crate::replication::founding::directory::Directory;
use crate::replication::founding::rules::{Proposal, Standing};
use crate::replication::members::peers::{Peers, Roster};
use crate::replication::members::repair::Repair;
use crate::replication::settings::Retention;
use crate::supervisor::{Exit, ExitCode, Next, StopSignal, Supervisor, Waiting};
use crate::telemetry::event;

/// How long the log writer waits for work before it looks whether it is to stop.
const WRITER_WAIT: Duration = Duration::from_millis(100);
/// How long the writer pauses while the disk is full.
const FULL_PAUSE: Duration = Duration::from_millis(50);
/// Where the writer may not wait: how often it looks for work, and the looks without any before it
/// flushes the mark that it owes.
const IDLE_PAUSE: Duration = Duration::from_millis(1);
const IDLE_STEPS_BEFORE_MARK: u32 = 10;
/// How long the preparer pauses while the disk is full: the writer comes first.
const PREPARE_AGAIN: Duration = Duration::from_millis(500);
/// The disk side of a member.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) log: Log,
    pub(super) catalogue: Arc<Catalogue>,
    /// The end of the log was damaged and cut.
    pub(super) cut: bool,
    /// The log has no entry.
    pub(super) is_empty: bool,
}
impl Store {
    /// Opens log and snapshots, and starts the threads that write.
    pub(super) async fn open(
        directory: &Directory,
        retention: &Retention,
        groups: &Groups,
    ) -> Result<Self, StartError> {
        let Standing::Formed { proposal, begun } = directory.standing() else {
            return Err(StartError::Stopped);
        };
        let owner = Owner { cluster_id: proposal.cluster.0, lineage: proposal.lineage.0 };
        let options = log_options(proposal, retention);
        let dir = &directory.dir;
        let disk = Arc::clone(&directory.disk);
        // Walks the log and flushes what it carries over: no work for a thread of the runtime.
        let (log_disk, log_dir) = (MeasuredDisk::new(Arc::clone(&disk)), dir.join("log"));
        let open_log = move || Log::open(Arc::new(log_disk), &log_dir, options);
        let opened = groups.storage.blocking("log open", open_log).await;
        let (log, writer, report) = opened.map_err(|_| StartError::Stopped)??;
        tell(&report, dir);
        if !report.hard_state_proven {
            return Err(StartError::VoteUnproven { dir: dir.clone() });
        }
        let is_empty = log.last().is_none();
        if *begun && is_empty {
            return Err(StartError::LogMissing { dir: dir.clone() });
        }
        let (catalogue, set_aside) = Catalogue::open(disk, &dir.join("snapshots"), Some(owner))?;
        tell_set_aside(&set_aside);
        let mut driver = WriterDriver::new(writer, groups.storage.clone());
        let write = move |stop: &StopSignal, waiting| driver.step(stop, waiting);
        groups.storage.spawn_steps("log writer", write)?;
        let mut preparer = log.preparer();
        let prepare = move |stop: &StopSignal, waiting| prepare(&mut preparer, stop, waiting);
        groups.storage.spawn_steps("log preparer", prepare)?;
        let cut = matches!(report.tail, Tail::Cut(_));
        Ok(Self { log, catalogue: Arc::new(catalogue), cut, is_empty })
    }
}

fn log_options(proposal: &Proposal, retention: &Retention) -> LogOptions {
    let mut options = LogOptions::new(proposal.cluster.0, proposal.lineage.0);
    options.segment_bytes = retention.segment_bytes;
    options
}

/// The repair of a member from its peers.
pub(super) fn repair_of(
    directory: &Directory,
    retention: &Retention,
    groups: &Groups,
    mesh: &Mesh,
    clock: Clock,
) -> Result<Repair, StartError> {
    let Standing::Formed { proposal, .. } = directory.standing() else {
        return Err(StartError::Stopped);
    };
    let Some((_, id)) = membership(directory.standing(), mesh.name()) else {
        return Err(StartError::Stopped);
    };
    Ok(Repair {
        disk: Arc::clone(&directory.disk),
        dir: directory.dir.clone(),
        options: log_options(proposal, retention),
        peers: Peers::new(mesh.clone(), Roster::new(proposal, id), clock),
        supervisor: groups.storage.clone(),
    })
}

fn tell(report: &OpenReport, dir: &Path) {
    tracing::info!(
        event = event::LOG_OPENED,
        dir = %dir.display(),
        records = report.records,
        bytes = report.bytes,
        segments = report.segments,
        "the log is open"
    );
    if let Tail::Cut(cut) = &report.tail {
        tracing::warn!(
            event = event::LOG_TAIL_CUT,
            from_index = cut.from_index,
            segment = cut.segment,
            offset = cut.offset,
            "the end of the log was damaged above its last durable mark and is cut"
        );
    }
}

/// The writer's work: group after group until the log is closed, or nothing can be flushed. A stop
/// without a close, as after a start that failed, ends it between two groups.
#[derive(Debug)]
pub(in crate::replication) struct WriterDriver {
    writer: Writer,
    supervisor: Supervisor,
    is_full: bool,
    /// Steps in a row that found nothing to do and were not allowed to wait.
    idle: u32,
}

impl WriterDriver {
    pub(in crate::replication) fn new(writer: Writer, supervisor: Supervisor) -> Self {
        Self { writer, supervisor, is_full: false, idle: 0 }
    }

    pub(in crate::replication) fn step(&mut self, stop: &StopSignal, waiting: Waiting) -> Next {
        let mut step = self.writer.step((waiting == Waiting::Allowed).then_some(WRITER_WAIT));
        if let (Step::Idle { mark_owed: true }, Waiting::Forbidden) = (&step, waiting) {
            self.idle += 1;
            if self.idle >= IDLE_STEPS_BEFORE_MARK {
                step = self.writer.flush_mark();
            }
        } else {
            self.idle = 0;
        }
        match step {
            Step::Idle { .. } | Step::Full(_) if stop.is_stopped() => Next::Done,
            Step::Idle { .. } => Next::Idle(IDLE_PAUSE),
            Step::Flushed { .. } => {
                if std::mem::take(&mut self.is_full) {
                    tracing::info!(event = event::DISK_RECOVERED, "there is space again");
                }
                Next::Again
            }
            Step::Marked => Next::Again,
            Step::Full(fault) => {
                if !std::mem::replace(&mut self.is_full, true) {
                    tracing::warn!(event = event::DISK_FULL, %fault, "the disk is full");
                }
                Next::Pause(FULL_PAUSE)
            }
            Step::Poisoned(poisoned) if self.is_full && poisoned.fault.is_full() => {
                // Closed before there was space: what waited for it was never acknowledged.
                tracing::warn!(event = event::DISK_FULL, %poisoned, "closed with a full disk");
                Next::Done
            }
            Step::Poisoned(poisoned) => {
                tracing::error!(event = event::STORAGE_POISONED, %poisoned, "a flush failed");
                let reason = poisoned.to_string();
                self.supervisor.request_exit(Exit { code: ExitCode::POISONED, reason });
                Next::Done
            }
            Step::Closed => Next::Done,
        }
    }
}

/// The preparer's work. What is wrong with the disk, the writer finds and tells.
fn prepare(preparer: &mut Preparer, stop: &StopSignal, waiting: Waiting) -> Next {
    match preparer.step((waiting == Waiting::Allowed).then_some(WRITER_WAIT)) {
        Preparation::Idle | Preparation::Full(_) if stop.is_stopped() => Next::Done,
        Preparation::Idle => Next::Idle(IDLE_PAUSE),
        Preparation::Prepared { .. } | Preparation::Settled { .. } => Next::Again,
        Preparation::Full(_) => Next::Pause(PREPARE_AGAIN),
        Preparation::Poisoned(_) | Preparation::Closed => Next::Done,
    }
}
