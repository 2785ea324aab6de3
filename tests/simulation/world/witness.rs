//! Looks at the nodes and writes down what they hold, promise and lead.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use quorate::domain::id::NodeId;
use quorate_storage::{Log, LogOptions, RecordKind};

use super::machine::Machine;
use crate::history::{
    Body, Entry, FinalState, Leading, LogView, Node, Progress, QueueLevel, Recorder, StateHash,
    Time, Vote,
};

/// Bytes of log that one read brings.
const READ_BYTES: usize = 4 << 20;
/// What a hard state's record looks like: version u8 · term u64 · node u64 · committed u8.
const VOTE_BYTES: usize = 18;

/// Who belongs to the cluster, once somebody is known to do.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    cluster: Option<(u64, u64)>,
    ids: BTreeMap<NodeId, Node>,
    /// What each node was last known to hold for committed, and to have on its disk.
    committed: BTreeMap<Node, u64>,
    /// Up to where, exclusively, each node's committed entries were written down.
    read: BTreeMap<Node, u64>,
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
        // What is committed elsewhere may have been accepted here in place of other entries, and not be
        // on this disk yet: after a crash the others are still there.
        let durable = running.replication.log().durable().unwrap_or(0);
        self.committed.insert(node, standing.committed.min(durable));
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

    /// Writes down what a node that runs has committed since the last time: often enough that no
    /// entry is purged before somebody has seen it.
    pub(crate) fn read_log(&mut self, machine: &Machine, recorder: &Recorder) {
        let Some(running) = machine.running() else { return };
        let log = running.replication.log();
        let committed = running.replication.standing().committed;
        let next = self.read.entry(machine.node).or_insert(0);
        let from = (*next).max(log.first_index());
        let entries = entries(log, from, committed.saturating_add(1));
        let Some(last) = entries.last() else { return };
        *next = last.index + 1;
        let (node, at, first) = (Some(machine.node), recorder.now(), log.first_index());
        let committed = committed.min(last.index);
        let view = LogView { node, at, first, entries, committed, is_final: false };
        recorder.write(|history| history.logs.push(view));
    }

    /// Looks at all that a node holds after everything has come to rest, or, where it does not run,
    /// at what is left on its disk.
    pub(crate) fn look_at_all(&mut self, machine: &Machine, is_final: bool, recorder: &Recorder) {
        let Some(running) = machine.running() else {
            self.look_at_disk(machine, recorder);
            return;
        };
        let log = running.replication.log();
        self.write_log(machine.node, log, is_final, recorder);
        self.write_vote(machine.node, log, recorder);
        let state = FinalState::of(machine.node, &running.replication.view());
        recorder.write(|history| history.states.finals.push(state));
    }

    /// Looks at what is left on the disk of a node that is off.
    pub(crate) fn look_at_disk(&mut self, machine: &Machine, recorder: &Recorder) {
        let Some((cluster, lineage)) = self.cluster else { return };
        let disk = Arc::new(machine.disk.fork());
        let options = LogOptions::new(cluster, lineage);
        let Ok((log, _writer, report)) = Log::open(disk, Path::new("node/log"), options) else {
            return;
        };
        self.write_log(machine.node, &log, false, recorder);
        if report.hard_state_proven {
            self.write_vote(machine.node, &log, recorder);
        }
    }

    fn write_log(&self, node: Node, log: &Log, is_final: bool, recorder: &Recorder) {
        let entries = entries(log, log.first_index(), log.next_index());
        let known = self.committed.get(&node).copied().unwrap_or(0);
        let committed = known.min(entries.last().map_or(0, |last| last.index));
        let (at, first) = (recorder.now(), log.first_index());
        let view = LogView { node: Some(node), at, first, entries, committed, is_final };
        recorder.write(|history| history.logs.push(view));
    }

    fn write_vote(&self, node: Node, log: &Log, recorder: &Recorder) {
        let vote = self.vote(log, node, recorder.now());
        recorder.write(|history| history.consensus.votes.extend(vote));
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
        Some(Vote { node, term: number(1), voted_for, elected: bytes[17] != 0, at })
    }
}

/// Entries of a log from one on, up to another.
fn entries(log: &Log, from: u64, end: u64) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut next = from;
    let end = end.min(log.next_index());
    while next < end {
        let Ok(records) = log.read(next..end, READ_BYTES) else { break };
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
