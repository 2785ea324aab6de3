//! A machine of its own that applies entries of the log again: apply is a pure function of the log,
//! so it gives the events, outcomes and states that there were.

use std::io;
use std::sync::Arc;

use quorate_storage::snapshot::{Catalogue, SnapshotReader};
use quorate_storage::{Log, ReadError, RecordKind};

use crate::domain::entry::Payload;
use crate::domain::machine::{Applied, Machine};

/// Bytes of log that one step reads.
const PAGE_BYTES: usize = 1024 * 1024;

/// Why a scratch machine cannot go where it should.
#[derive(Debug, thiserror::Error)]
pub(in crate::replication) enum ScratchFault {
    /// No snapshot and no log reach down to that entry.
    #[error("entries before {entry} cannot be applied again")]
    StartsAt {
        /// The first that can.
        entry: u64,
    },
    /// The log or a snapshot cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
}

impl ScratchFault {
    /// The damage of the log that it comes from, if it does.
    pub(in crate::replication) fn damage(&self) -> Option<&ReadError> {
        let Self::Read(error) = self else { return None };
        let error = error.get_ref()?.downcast_ref::<ReadError>()?;
        matches!(error, ReadError::Damaged { .. }).then_some(error)
    }
}

/// The machine, and the entry that it applies next.
#[derive(Debug)]
pub(in crate::replication) struct Scratch {
    log: Log,
    catalogue: Arc<Catalogue>,
    machine: Machine,
    next: u64,
}

/// Where a scratch machine for `entry` can start: at the newest snapshot before it that the log
/// goes on from, or at the log's beginning. The first entry that can be applied again otherwise.
fn base(log: &Log, catalogue: &Catalogue, entry: u64) -> Result<Option<u64>, u64> {
    let first = log.first_index();
    let usable = |index: &u64| index.saturating_add(1) >= first;
    let mut snapshots: Vec<u64> = catalogue.list().iter().map(|kept| kept.id.index).collect();
    snapshots.retain(usable);
    match snapshots.iter().filter(|index| **index < entry).max() {
        Some(index) => Ok(Some(*index)),
        None if first == 0 => Ok(None),
        None => Err(snapshots.iter().min().map_or_else(|| log.next_index(), |index| index + 1)),
    }
}

/// Whether `entry` and all after it can be applied again.
pub(in crate::replication) fn reaches(log: &Log, catalogue: &Catalogue, entry: u64) -> bool {
    base(log, catalogue, entry).is_ok()
}

impl Scratch {
    /// A machine that has applied everything before `entry`.
    pub(in crate::replication) fn at(
        log: &Log,
        catalogue: &Arc<Catalogue>,
        entry: u64,
    ) -> Result<Self, ScratchFault> {
        let base = base(log, catalogue, entry).map_err(|entry| ScratchFault::StartsAt { entry })?;
        let (machine, next) = match base {
            None => (Machine::new(), 0),
            Some(index) => {
                let list = catalogue.list();
                let kept = list.iter().find(|kept| kept.id.index == index);
                let id = kept.ok_or(ScratchFault::StartsAt { entry: index + 1 })?.id;
                let reader = catalogue.reader(id).map_err(io::Error::other)?;
                (restore(&reader)?, index + 1)
            }
        };
        let (log, catalogue) = (log.clone(), Arc::clone(catalogue));
        let mut scratch = Self { log, catalogue, machine, next };
        while scratch.next < entry {
            scratch.step(entry, |_, _, _| true)?;
        }
        Ok(scratch)
    }

    /// Goes on to `entry`; starts anew when it lies behind, or a snapshot stands nearer to it.
    pub(in crate::replication) fn seek(&mut self, entry: u64) -> Result<(), ScratchFault> {
        let nearer = base(&self.log, &self.catalogue, entry)
            .is_ok_and(|base| base.is_some_and(|index| index >= self.next));
        if entry < self.next || nearer {
            *self = Self::at(&self.log.clone(), &Arc::clone(&self.catalogue), entry)?;
        }
        while self.next < entry {
            self.step(entry, |_, _, _| true)?;
        }
        Ok(())
    }

    /// The machine itself, for a node whose own is wrong.
    pub(in crate::replication) fn into_machine(self) -> Machine {
        self.machine
    }

    /// The entry that is applied next.
    pub(in crate::replication) fn next(&self) -> u64 {
        self.next
    }

    /// Applies a page of entries before `end`, or fewer when `each` (entry, log time, what came of
    /// it) answers false.
    pub(in crate::replication) fn step(
        &mut self,
        end: u64,
        mut each: impl FnMut(u64, u64, Applied) -> bool,
    ) -> Result<(), ScratchFault> {
        let records = self.log.read(self.next..end, PAGE_BYTES).map_err(|error| {
            // Purged meanwhile: nobody can say any more what was there.
            let first = self.log.first_index();
            if first > self.next {
                ScratchFault::StartsAt { entry: first }
            } else {
                ScratchFault::Read(io::Error::other(error))
            }
        })?;
        for record in records {
            let entry = record.index;
            let applied = if record.kind == RecordKind::Commands {
                let payload = Payload::decode(record.payload).map_err(io::Error::other)?;
                let applied = self.machine.apply(entry, &payload);
                (payload.log_time_ms, applied)
            } else {
                self.machine.pass(entry);
                (self.machine.log_time_ms(), Applied::default())
            };
            self.next = entry + 1;
            if !each(entry, applied.0, applied.1) {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The machine of a snapshot, every byte checked.
pub(in crate::replication) fn restore(reader: &SnapshotReader) -> io::Result<Machine> {
    let mut fault = None;
    let records = reader.records().map_while(|record| match record {
        Ok(record) => Some(record),
        Err(error) => {
            fault = Some(error);
            None
        }
    });
    let restored = Machine::from_records(records);
    if let Some(error) = fault {
        return Err(io::Error::other(error));
    }
    let machine = restored.map_err(io::Error::other)?;
    let head = reader.head();
    if machine.hash() != head.state_hash || machine.applied() != head.index {
        return Err(io::Error::other(format!(
            "the snapshot at entry {} restores another state than it was made of",
            head.index
        )));
    }
    Ok(machine)
}
