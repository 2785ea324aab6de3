//! Looks at the nodes and writes down what they hold, promise and lead.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use quorate::domain::id::NodeId;
use quorate_storage::{Log, LogOptions, RecordKind};

use super::machine::{Machine, Running};
use crate::history::{
    Body, Entry, FinalState, Leading, LogView, Node, Progress, QueueLevel, Recorder, StateHash,
    Time, Vote,
};

/// Bytes of log that one read brings.
const READ_BYTES: usize = 4 << 20;
/// What a hard state's record looks like: version u8 · term u64 · node u64 · committed u8.
const VOTE_BYTES: usize = 18;

/// On which occasion somebody looks at a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Glance {
    /// The node runs: what its disk holds may be unflushed.
    Running,
    /// The node is off: what its disk holds is all that is left.
    Off,
    /// Everything has come to rest.
    Final,
}

/// Who belongs to the cluster, once somebody is known to do.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    cluster: Option<(u64, u64)>,
    ids: BTreeMap<NodeId, Node>,
    /// What each node was last known to hold for committed.
    committed: BTreeMap<Node, u64>,
}

impl Witness {
    /// Looks at a node that runs.
    pub(crate) fn look(&mut self, machine: &Machine, recorder: &Recorder) {
        let Some(running) = machine.running() else { return };
        let (node, life, at) = (machine.node, machine.life, recorder.now());
        let member = running.replication.member();
        self.cluster = Some((member.cluster.0, member.lineage.0));
        self.ids.insert(member.id, node);
        let standing = running.replication.standing();
        self.committed.insert(node, standing.committed);
        let state = running.replication.view();
        let bound = quorate::replication::PERMITS as u64;
        let unanswered = standing.unanswered as u64;
        recorder.write(|history| {
            let (entry, hash) = (state.applied(), state.hash());
            history.states.hashes.push(StateHash { node, at, entry, hash });
            if standing.leads {
                let term = standing.term;
                history.consensus.leaders.push(Leading { node, term, at });
            }
            let progress = Progress {
                node,
                life,
                at,
                term: standing.term,
                committed: standing.committed,
                applied: standing.applied,
            };
            history.consensus.progress.push(progress);
            let level = QueueLevel { node, queue: "unanswered", level: unanswered, bound, at };
            history.queues.push(level);
        });
    }

    /// Looks at what a node's disk holds.
    pub(crate) fn look_at_disk(&mut self, machine: &Machine, glance: Glance, recorder: &Recorder) {
        let Some((cluster, lineage)) = self.cluster else { return };
        let (node, at) = (machine.node, recorder.now());
        let disk = Arc::new(machine.disk.fork());
        let options = LogOptions::new(cluster, lineage);
        let Ok((log, _writer, report)) = Log::open(disk, Path::new("node/log"), options) else {
            return;
        };
        let entries = entries(&log);
        let known = self.committed.get(&node).copied().unwrap_or(0);
        let committed = known.min(entries.last().map_or(0, |last| last.index));
        recorder.write(|history| {
            let first = log.first_index();
            let is_final = glance == Glance::Final;
            let view = LogView { node: Some(node), at, first, entries, committed, is_final };
            history.logs.push(view);
            if glance != Glance::Running && report.hard_state_proven {
                history.consensus.votes.extend(self.vote(&log, node, at));
            }
        });
    }

    fn vote(&self, log: &Log, node: Node, at: Time) -> Option<Vote> {
        let bytes = log.hard_state()?;
        let bytes: &[u8; VOTE_BYTES] = bytes.first_chunk()?;
        let number = |from: usize| {
            let mut part = [0; 8];
            part.copy_from_slice(&bytes[from..from + 8]);
            u64::from_le_bytes(part)
        };
        let voted_for = self.ids.get(&NodeId(number(9))).copied();
        Some(Vote { node, term: number(1), voted_for, at })
    }

    /// Looks at what a node's machine holds in the end.
    pub(crate) fn look_at_state(node: Node, running: &Running, recorder: &Recorder) {
        let state = FinalState::of(node, &running.replication.view());
        recorder.write(|history| history.states.finals.push(state));
    }
}

/// All entries of a log.
fn entries(log: &Log) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut next = log.first_index();
    while next < log.next_index() {
        let Ok(records) = log.read(next..log.next_index(), READ_BYTES) else { break };
        if records.is_empty() {
            break;
        }
        for record in records {
            let Ok(chain) = log.chain_at(record.index) else { return entries };
            let body = match record.kind {
                RecordKind::Commands => Body::Commands(record.payload),
                _ => Body::Passes(record.payload),
            };
            next = record.index + 1;
            entries.push(Entry { index: record.index, term: record.term, chain, body });
        }
    }
    entries
}
