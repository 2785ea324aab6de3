//! Do all nodes hold the same state? Compared by hash at every multiple of 1,024 entries.
//!
//! A node whose state a majority does not share is quarantined: it serves nothing, goes on voting,
//! and is healed once for each entry at which it was found wrong ([`Healer`]). Where no majority
//! holds one state nobody is known to be wrong: the alarm is all.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;

use crate::replication::consensus::applied::Applied;
use crate::replication::journal::Journal;
use crate::replication::members::ask;
use crate::replication::members::healing::Healer;
use crate::replication::members::peers::Peers;
use crate::supervisor::StopSignal;
use crate::telemetry::event;

/// Entries between two comparisons.
const COMPARE_EVERY: u64 = 1_024;
/// Tries to learn a peer's hash: it may not have applied the entry yet.
const TRIES: u32 = 20;
/// Pause between two tries.
const RETRY: Duration = Duration::from_millis(250);
/// What one question may take.
const ASK_PATIENCE: Duration = Duration::from_millis(500);

/// What the comparison of one entry's hashes says about this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::replication) enum Verdict {
    /// Nobody disagrees, as far as is known.
    Agreed,
    /// A majority of all voters holds another hash: this node is wrong.
    Wrong,
    /// Hashes differ and no majority is against this node.
    Undecided,
}

/// Judges this node's hash among those of `voters` nodes; `others` are the hashes that are known.
pub(in crate::replication) fn judge(own: u64, others: &[u64], voters: usize) -> Verdict {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for hash in others {
        *counts.entry(*hash).or_default() += 1;
    }
    let majority = voters / 2 + 1;
    if counts.keys().all(|hash| *hash == own) {
        Verdict::Agreed
    } else if counts.iter().any(|(hash, count)| *hash != own && *count >= majority) {
        Verdict::Wrong
    } else {
        Verdict::Undecided
    }
}

/// The task that compares.
#[derive(Debug)]
pub(in crate::replication) struct Comparison {
    pub(in crate::replication) applied: Applied,
    pub(in crate::replication) journal: Journal,
    pub(in crate::replication) peers: Peers,
    pub(in crate::replication) healer: Healer,
    /// Whether this node's state is known to be wrong.
    pub(in crate::replication) diverged: watch::Sender<bool>,
}

impl Comparison {
    /// Runs until `stop`.
    pub(in crate::replication) async fn run(self, mut stop: StopSignal) {
        tokio::select! {
            () = stop.stopped() => {}
            () = self.watch() => {}
        }
    }

    async fn watch(&self) {
        let mut applied = self.journal.applied();
        let mut next = (*applied.borrow() / COMPARE_EVERY + 1) * COMPARE_EVERY;
        loop {
            let Ok(now) = applied.wait_for(|now| *now >= next).await.map(|now| *now) else {
                return std::future::pending().await;
            };
            // What was passed in one leap is compared at its newest multiple alone.
            let entry = now / COMPARE_EVERY * COMPARE_EVERY;
            next = entry + COMPARE_EVERY;
            // An installed snapshot may have leapt over the entry: nothing to compare.
            let Some(own) = self.applied.hash_at(entry) else { continue };
            match self.compare(entry, own).await {
                Verdict::Agreed => {}
                Verdict::Undecided => tracing::error!(
                    event = event::STATE_DIVERGED,
                    entry,
                    hash = format_args!("{own:016x}"),
                    "state hashes differ and no majority holds one"
                ),
                Verdict::Wrong => {
                    tracing::error!(
                        event = event::STATE_DIVERGED,
                        entry,
                        hash = format_args!("{own:016x}"),
                        "a majority holds another state than this node"
                    );
                    self.diverged.send_replace(true);
                    if self.healer.heal(entry).await {
                        self.diverged.send_replace(false);
                    }
                }
            }
        }
    }

    async fn compare(&self, entry: u64, own: u64) -> Verdict {
        let roster = self.peers.roster();
        let voters = roster.members().count();
        let mut missing: Vec<u64> =
            roster.members().map(|(id, _)| id.0).filter(|id| *id != roster.own.0).collect();
        let mut others = Vec::new();
        for _ in 0..TRIES {
            let mut still_missing = Vec::new();
            for member in missing {
                match ask::hash_at(&self.peers, member, entry, ASK_PATIENCE).await {
                    Ok(hash) => others.push(hash),
                    Err(_) => still_missing.push(member),
                }
            }
            missing = still_missing;
            let verdict = judge(own, &others, voters);
            if missing.is_empty() || verdict == Verdict::Wrong {
                return verdict;
            }
            tokio::time::sleep(RETRY).await;
        }
        judge(own, &others, voters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_majority_of_all_voters_convicts() {
        for (others, voters, expected) in [
            (&[][..], 1, Verdict::Agreed),
            (&[1, 1], 3, Verdict::Agreed),
            (&[2, 2], 3, Verdict::Wrong),
            (&[1, 2], 3, Verdict::Undecided),
            (&[2], 3, Verdict::Undecided),
            (&[2], 2, Verdict::Undecided),
            (&[2, 2, 1, 1], 5, Verdict::Undecided),
            (&[2, 2, 2, 1], 5, Verdict::Wrong),
            (&[2, 3, 4, 5], 5, Verdict::Undecided),
        ] {
            assert_eq!(judge(1, others, voters), expected, "{others:?} of {voters}");
        }
    }
}
