//! The applied state: the machine, what it has applied, and its hash after each recent entry.
//!
//! The lock is held for one entry at a time and for O(1) clones; readers work on their clone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::domain::machine::Machine;
use crate::replication::consensus::raft_types::{LogId, StoredMembership};

/// Entries whose state hash is remembered.
pub(in crate::replication) const HASHES_KEPT: usize = 4_096;

/// A shared handle to the applied state.
#[derive(Debug, Clone, Default)]
pub(in crate::replication) struct Applied {
    state: Arc<Mutex<State>>,
}

/// What has been applied.
#[derive(Debug, Default)]
pub(in crate::replication) struct State {
    pub(in crate::replication) machine: Machine,
    pub(in crate::replication) last: Option<LogId>,
    pub(in crate::replication) membership: StoredMembership,
    /// Rises when the machine is replaced because it was wrong.
    pub(in crate::replication) healings: u64,
    hashes: Hashes,
}

impl State {
    /// Notes that the entry `id` has been applied to the machine.
    pub(in crate::replication) fn applied(&mut self, id: LogId) {
        self.hashes.push(id.index(), self.machine.hash());
        self.last = Some(id);
    }

    /// Replaces a machine that was wrong by one that has applied the same entries.
    pub(in crate::replication) fn heal(&mut self, machine: Machine) {
        self.hashes = Hashes::default();
        self.hashes.push(machine.applied(), machine.hash());
        self.machine = machine;
        self.healings += 1;
    }

    /// Replaces everything by what a snapshot holds.
    pub(in crate::replication) fn replace(
        &mut self,
        machine: Machine,
        last: Option<LogId>,
        membership: StoredMembership,
    ) {
        self.hashes = Hashes::default();
        if let Some(id) = &last {
            self.hashes.push(id.index(), machine.hash());
        }
        self.machine = machine;
        self.last = last;
        self.membership = membership;
    }
}

impl Applied {
    /// The state, for the time of one entry or one clone.
    pub(in crate::replication) fn lock(&self) -> MutexGuard<'_, State> {
        // Apply catches panics of the machine itself and stops the node; what a reader could still
        // see then is the state before or within that entry, and nothing is served any more.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// An O(1) clone of the newest applied state.
    pub(in crate::replication) fn view(&self) -> Machine {
        self.lock().machine.clone()
    }

    /// The newest applied entry: its term and index.
    pub(in crate::replication) fn last(&self) -> Option<LogId> {
        self.lock().last
    }

    /// The state hash after `entry`, if it is among the newest [`HASHES_KEPT`].
    pub(in crate::replication) fn hash_at(&self, entry: u64) -> Option<u64> {
        self.lock().hashes.at(entry)
    }
}

/// The hash after each of the newest entries.
#[derive(Debug, Default)]
struct Hashes {
    /// Entry of the first hash.
    first: u64,
    hashes: VecDeque<u64>,
}

impl Hashes {
    fn push(&mut self, entry: u64, hash: u64) {
        if self.first + self.hashes.len() as u64 != entry {
            self.hashes.clear();
            self.first = entry;
        }
        self.hashes.push_back(hash);
        if self.hashes.len() > HASHES_KEPT {
            self.hashes.pop_front();
            self.first += 1;
        }
    }

    fn at(&self, entry: u64) -> Option<u64> {
        let place = entry.checked_sub(self.first)?;
        self.hashes.get(usize::try_from(place).ok()?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_hashes_are_kept_by_entry() {
        let mut hashes = Hashes::default();
        for entry in 10..10 + HASHES_KEPT as u64 + 5 {
            hashes.push(entry, entry * 3);
        }
        assert_eq!(hashes.at(14), None);
        assert_eq!(hashes.at(15), Some(45));
        let newest = 10 + HASHES_KEPT as u64 + 4;
        assert_eq!(hashes.at(newest), Some(newest * 3));
        assert_eq!(hashes.at(newest + 1), None);
        hashes.push(99_999, 1);
        assert_eq!((hashes.at(newest), hashes.at(99_999)), (None, Some(1)));
    }
}
