//! What members ask each other: a read index, a report for `cluster status`, a state hash.
//!
//! ```text
//! read index   ask 1 · –            answer entry u64
//! report       ask 2 · –            answer version u8 · state u8 · role u8 · last u64 · committed u64
//!                                          · applied u64 · topics u64 · sessions u64
//! state hash   ask 3 · entry u64    answer hash u64
//! records      ask 4 · see records  answer see records
//! extent       ask 5 · –            answer see records
//! ```
//!
//! A member that cannot answer ends the stream without one.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::async_runtime::WatchReceiver;
use openraft::{ReadPolicy, ServerState};
use quorate_storage::Log;
use tokio::sync::watch;

use crate::domain::id::NodeId;
use crate::replication::consensus::applied::Applied;
use crate::replication::consensus::raft_codec::{CodecError, need};
use crate::replication::consensus::state_store::Raft;
use crate::replication::members::peers::{Lane, PeerFault, Peers};
use crate::replication::members::records::{self, Extent};
use crate::replication::status::{NodeReport, NodeState, Role};
use crate::supervisor::Supervisor;

const READ_INDEX: u8 = 1;
const REPORT: u8 = 2;
const HASH: u8 = 3;
pub(in crate::replication) const RECORDS: u8 = 4;
pub(in crate::replication) const EXTENT: u8 = 5;
const REPORT_VERSION: u8 = 1;

/// What questions are answered from.
#[derive(Debug, Clone)]
pub(in crate::replication) struct Answerer {
    pub(in crate::replication) raft: Raft,
    pub(in crate::replication) applied: Applied,
    pub(in crate::replication) state: watch::Receiver<NodeState>,
    pub(in crate::replication) own: NodeId,
    pub(in crate::replication) log: Log,
    pub(in crate::replication) supervisor: Supervisor,
}

impl Answerer {
    /// What this node says of itself.
    pub(in crate::replication) fn report(&self) -> NodeReport {
        let machine = self.applied.view();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        NodeReport {
            state: *self.state.borrow(),
            role: match metrics.state {
                ServerState::Leader => Role::Leader,
                ServerState::Candidate => Role::Candidate,
                ServerState::Learner => Role::Learner,
                ServerState::Follower | ServerState::Shutdown => Role::Follower,
            },
            last_index: metrics.last_log_index.unwrap_or(0),
            // What the cluster has committed is unknown for a moment after each election.
            committed_index: metrics
                .cluster_committed
                .as_ref()
                .max(metrics.local_committed.as_ref())
                .map_or(0, |id| id.index()),
            applied_index: machine.applied(),
            topics: machine.topics().len() as u64,
            sessions: machine.sessions_hosted_by(self.own).count() as u64,
        }
    }

    /// The leader's read index, confirmed by a quorum; none if this node does not lead.
    pub(in crate::replication) async fn read_index(&self) -> Option<u64> {
        let confirmed = self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await.ok()?;
        Some(confirmed.read_log_id().index())
    }
}

/// Answers a question; none where there is no answer.
pub(in crate::replication) async fn answer(
    answerer: &Answerer,
    ask: u8,
    mut question: Bytes,
) -> Option<Bytes> {
    let number = |number: u64| Bytes::copy_from_slice(&number.to_le_bytes());
    match ask {
        READ_INDEX => answerer.read_index().await.map(number),
        REPORT => Some(report_bytes(&answerer.report())),
        HASH if question.len() == 8 => answerer.applied.hash_at(question.get_u64_le()).map(number),
        RECORDS => {
            let log = answerer.log.clone();
            let read = move || records::answer(&log, question);
            answerer.supervisor.blocking("records", read).await.ok()?
        }
        EXTENT => {
            let leads = answerer.read_index().await.is_some();
            let committed_next = answerer.applied.last().map_or(0, |last| last.index() + 1);
            Some(Extent { committed_next, leads, next: answerer.log.next_index() }.encode())
        }
        _ => None,
    }
}

/// Asks the leader for a read index.
pub(in crate::replication) async fn read_index(
    peers: &Peers,
    leader: u64,
    patience: Duration,
) -> Result<u64, PeerFault> {
    let answer = peers.call(leader, Lane::Ask, Bytes::from_static(&[READ_INDEX]), patience).await?;
    take_number(answer)
}

/// Asks a member for its report.
pub(in crate::replication) async fn report(
    peers: &Peers,
    member: u64,
    patience: Duration,
) -> Result<NodeReport, PeerFault> {
    let answer = peers.call(member, Lane::Ask, Bytes::from_static(&[REPORT]), patience).await?;
    take_report(answer).map_err(|_| PeerFault::Closed)
}

/// Asks a member for its state hash after `entry`.
pub(in crate::replication) async fn hash_at(
    peers: &Peers,
    member: u64,
    entry: u64,
    patience: Duration,
) -> Result<u64, PeerFault> {
    let mut question = BytesMut::with_capacity(9);
    question.put_u8(HASH);
    question.put_u64_le(entry);
    take_number(peers.call(member, Lane::Ask, question.freeze(), patience).await?)
}

fn take_number(mut answer: Bytes) -> Result<u64, PeerFault> {
    if answer.len() == 8 { Ok(answer.get_u64_le()) } else { Err(PeerFault::Closed) }
}

/// By the number that stands for them between members; new ones go to the end.
const STATES: [NodeState; 11] = [
    NodeState::Starting,
    NodeState::Replaying,
    NodeState::Joining,
    NodeState::CatchingUp,
    NodeState::Ready,
    NodeState::Inquorate,
    NodeState::Quarantined,
    NodeState::Poisoned,
    NodeState::Draining,
    NodeState::Stopped,
    NodeState::ReadOnly,
];
const ROLES: [Role; 4] = [Role::Leader, Role::Follower, Role::Candidate, Role::Learner];

pub(in crate::replication) fn report_bytes(report: &NodeReport) -> Bytes {
    let state = STATES.iter().position(|state| *state == report.state).unwrap_or(0);
    let role = ROLES.iter().position(|role| *role == report.role).unwrap_or(0);
    let mut buffer = BytesMut::with_capacity(43);
    buffer.put_u8(REPORT_VERSION);
    buffer.put_u8(state as u8);
    buffer.put_u8(role as u8);
    for number in [
        report.last_index,
        report.committed_index,
        report.applied_index,
        report.topics,
        report.sessions,
    ] {
        buffer.put_u64_le(number);
    }
    buffer.freeze()
}

pub(in crate::replication) fn take_report(mut buffer: Bytes) -> Result<NodeReport, CodecError> {
    need(&buffer, 43, "report")?;
    let version = buffer.get_u8();
    if version != REPORT_VERSION {
        return Err(CodecError::Illegal { what: "report version", value: u64::from(version) });
    }
    let state = buffer.get_u8();
    let illegal = CodecError::Illegal { what: "state", value: u64::from(state) };
    let state = *STATES.get(usize::from(state)).ok_or(illegal)?;
    let role = buffer.get_u8();
    let illegal = CodecError::Illegal { what: "role", value: u64::from(role) };
    let role = *ROLES.get(usize::from(role)).ok_or(illegal)?;
    let mut number = || buffer.get_u64_le();
    Ok(NodeReport {
        state,
        role,
        last_index: number(),
        committed_index: number(),
        applied_index: number(),
        topics: number(),
        sessions: number(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_come_back_in_every_state_and_role() {
        for state in STATES {
            for role in ROLES {
                let report = NodeReport {
                    state,
                    role,
                    last_index: 1,
                    committed_index: 2,
                    applied_index: 3,
                    topics: 4,
                    sessions: 5,
                };
                let bytes = report_bytes(&report);
                assert_eq!(take_report(bytes.clone()), Ok(report));
                for cut in 0..bytes.len() {
                    assert!(take_report(bytes.slice(..cut)).is_err(), "cut at {cut}");
                }
            }
        }
        assert!(take_report(vec![1, 99, 0].into()).is_err());
    }
}
