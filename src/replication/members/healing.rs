//! A state that diverged, replaced by one that a majority holds.
//!
//! The log is the truth and is the same everywhere; what went wrong is what this node made of it. So
//! a peer's snapshot, whose hash a majority holds at its entry, takes the place of the state, and the
//! node's own log after it is applied again. Consensus is not asked: entries, votes and
//! acknowledgements stay as they are.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use quorate_storage::Log;
use quorate_storage::index::Index;
use quorate_storage::snapshot::{Catalogue, Kept};

use crate::replication::consensus::applied::Applied;
use crate::replication::consensus::snapshot_transfer::fetch_snapshot;
use crate::replication::history::reader::History;
use crate::replication::history::scratch::{Scratch, ScratchFault};
use crate::replication::journal::Journal;
use crate::replication::members::ask;
use crate::replication::members::peers::Peers;
use crate::supervisor::Supervisor;
use crate::telemetry::event;

/// Pause between two rounds over all peers.
const ROUND_PAUSE: Duration = Duration::from_millis(500);
/// Rounds in which a member may say which hash it holds: it may not have applied the entry yet.
const HASH_TRIES: u32 = 20;
/// What one question may take.
const ASK_PATIENCE: Duration = Duration::from_millis(500);

/// What healing touches.
#[derive(Debug)]
pub(in crate::replication) struct Healer {
    pub(in crate::replication) applied: Applied,
    pub(in crate::replication) journal: Journal,
    pub(in crate::replication) log: Log,
    pub(in crate::replication) catalogue: Arc<Catalogue>,
    pub(in crate::replication) peers: Peers,
    pub(in crate::replication) history: History,
    pub(in crate::replication) index: Index,
    pub(in crate::replication) supervisor: Supervisor,
}

impl Healer {
    /// Replaces the state, which was found wrong at `entry`, however long it takes to find a peer
    /// that can give a right one. True when the node holds what a majority holds; false when it
    /// still does not, and is not to be healed again for that entry.
    pub(in crate::replication) async fn heal(&self, entry: u64) -> bool {
        let kept = loop {
            if let Some(kept) = self.trusted_snapshot(entry).await {
                break kept;
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        };
        let at = match self.install(&kept).await {
            Ok(at) => at,
            Err(error) => {
                tracing::error!(
                    event = event::STATE_DIVERGED,
                    entry,
                    %error,
                    "the state cannot be made again from a peer's snapshot"
                );
                return false;
            }
        };
        let own = self.applied.hash_at(at);
        let healed = match own {
            Some(own) => self.is_held_by_majority(at, own, 1).await,
            None => false,
        };
        if healed {
            tracing::warn!(
                event = event::STATE_HEALED,
                entry = at,
                snapshot = kept.id.index,
                "the state is what a majority holds again"
            );
        } else {
            tracing::error!(
                event = event::STATE_DIVERGED,
                entry = at,
                "the state made again is not what a majority holds either"
            );
        }
        healed
    }

    /// A snapshot of a peer that ends at `entry` or behind it, and whose hash a majority holds.
    async fn trusted_snapshot(&self, entry: u64) -> Option<Kept> {
        for peer in self.peers.connected() {
            let (peers, catalogue) = (&self.peers, &self.catalogue);
            let fetched = fetch_snapshot(peers, catalogue, &self.supervisor, peer.0, entry).await;
            let kept = match fetched {
                Ok(kept) => kept,
                Err(error) => {
                    tracing::debug!(%error, "a peer's snapshot was not received");
                    continue;
                }
            };
            if self.is_held_by_majority(kept.id.index, kept.head.state_hash, 0).await {
                return Some(kept);
            }
            // Nobody may load it.
            let catalogue = Arc::clone(&self.catalogue);
            let giving_up = move || catalogue.give_up(kept.id);
            if let Ok(Err(error)) = self.supervisor.blocking("snapshot give up", giving_up).await {
                tracing::warn!(event = event::SNAPSHOTS_NOT_PRUNED, %error, "a snapshot stays");
            }
        }
        None
    }

    /// Whether more than half of all voters hold this hash after `entry`; `own` of them are known.
    async fn is_held_by_majority(&self, entry: u64, hash: u64, own: usize) -> bool {
        let roster = self.peers.roster();
        let majority = roster.members().count() / 2 + 1;
        let mut asked: Vec<u64> =
            roster.members().map(|(id, _)| id.0).filter(|id| *id != roster.own.0).collect();
        let mut held = own;
        for _ in 0..HASH_TRIES {
            let mut silent = Vec::new();
            for member in asked {
                match ask::hash_at(&self.peers, member, entry, ASK_PATIENCE).await {
                    Ok(theirs) => held += usize::from(theirs == hash),
                    Err(_) => silent.push(member),
                }
            }
            if held >= majority || silent.is_empty() {
                break;
            }
            asked = silent;
            tokio::time::sleep(ROUND_PAUSE).await;
        }
        held >= majority
    }

    /// Applies this node's log again from the snapshot on and takes the result; the entry at which
    /// it took the wrong one's place.
    async fn install(&self, kept: &Kept) -> Result<u64, ScratchFault> {
        // The wrong state goes on being applied to; the right one begins no further than that.
        let mut applied = self.journal.applied();
        let reached = applied.wait_for(|now| *now >= kept.id.index).await.is_ok();
        if !reached {
            return Err(ScratchFault::Read(io::Error::other("the node stops")));
        }
        let (state, journal) = (self.applied.clone(), self.journal.clone());
        let (log, catalogue, id) = (self.log.clone(), Arc::clone(&self.catalogue), kept.id);
        let healing = move || {
            catalogue.keep_only(id).map_err(io::Error::other)?;
            let mut scratch = Scratch::at(&log, &catalogue, id.index + 1)?;
            loop {
                let target = state.last().map_or(0, |last| last.index());
                while scratch.next() <= target {
                    scratch.step(target + 1, |_, _, _| true)?;
                }
                let mut state = state.lock();
                let last = state.last.as_ref().map_or(0, |last| last.index());
                // Nothing was applied since, and what was is in the journal.
                if scratch.next() == last + 1 && journal.applied_now() == last {
                    state.heal(scratch.into_machine());
                    journal.reset(last);
                    return Ok::<_, ScratchFault>(last);
                }
                drop(state);
                // Another thread is between the two.
                std::thread::yield_now();
            }
        };
        let healed = self.supervisor.blocking("state healing", healing).await;
        let at = healed.map_err(|lost| ScratchFault::Read(io::Error::other(lost)))??;
        self.history.forget_all();
        self.index.distrust("it was told what a state left behind that diverged");
        Ok(at)
    }
}
