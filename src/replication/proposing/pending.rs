//! Who on this node waits for which request: every command that was submitted here and is not
//! answered yet, in order per session, and the queue of what is to be proposed or forwarded next.
//!
//! Answers come from the local apply. When the leader changes or the lane to it breaks, everything
//! unanswered is queued again ([`Pending::requeue_all`]): request numbers make the machine apply
//! each command once and in order, so sending one twice is harmless and losing one is not possible.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::domain::entry::{ORIGIN_BYTES, Origin, Proposal};
use crate::domain::id::SessionId;
use crate::domain::limits::SESSION_IN_FLIGHT_MAX;
use crate::domain::machine::Answered;
use crate::domain::outcome::{Outcome, Rejection};
use crate::entropy::HashMap;
use crate::replication::error::Refusal;

/// Commands that a node holds unanswered.
pub const PERMITS: usize = 16_384;
/// Bytes of commands that a node holds unanswered.
const PERMIT_BYTES: usize = 64 * 1024 * 1024;
/// The hint in [`Refusal::Overloaded`].
const RETRY_MS: u32 = 20;

/// Whether new commands are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::replication) enum Intake {
    /// They are.
    Open,
    /// No quorum in sight: they are refused, those that wait go on waiting.
    Inquorate,
    /// Nothing can be flushed until there is space: as [`Self::Inquorate`].
    DiskFull,
    /// The node drains: as [`Self::Inquorate`], and for good.
    Closing,
    /// The node stops or is quarantined.
    Stopped,
}

/// The table; shared by sessions, the proposer and apply.
#[derive(Debug)]
pub(in crate::replication) struct Pending {
    table: Mutex<Table>,
    /// Woken when the queue has something new.
    wake: Notify,
    permits_max: usize,
    attachments: AtomicU64,
}

#[derive(Debug)]
struct Table {
    sessions: HashMap<SessionId, Slot>,
    /// The cluster's own commands by correlation number.
    cluster: BTreeMap<u64, Waiting>,
    next_correlation: u64,
    /// To be proposed or forwarded, in order.
    queue: VecDeque<Proposal>,
    unanswered: usize,
    unanswered_bytes: usize,
    intake: Intake,
}

#[derive(Debug)]
struct Waiting {
    command: Bytes,
    answer: oneshot::Sender<Answered>,
}

#[derive(Debug)]
struct Slot {
    attachment: u64,
    epoch: u32,
    role_version: u32,
    /// Sorted by request number.
    unanswered: VecDeque<Submitted>,
    answers: mpsc::Sender<Vec<Answered>>,
    /// This number and all above it were refused; the client sends again from here.
    refused_from: Option<u64>,
    /// Everything was queued again after a gap: gaps of former copies still come, up to the one of
    /// this number.
    stale_up_to: Option<u64>,
}

#[derive(Debug)]
struct Submitted {
    origin: Origin,
    command: Bytes,
}

impl Submitted {
    fn bytes(&self) -> usize {
        ORIGIN_BYTES + self.command.len()
    }

    fn proposal(&self) -> Proposal {
        Proposal { origin: self.origin, command: self.command.clone() }
    }
}

/// One session's way into the log, as long as this node hosts it.
///
/// Dropping it forgets what is unanswered; commands that have reached the log are applied all the
/// same, and their answers wait in the session's ring.
#[derive(Debug)]
pub struct SessionProposer {
    pending: Arc<Pending>,
    session: SessionId,
    attachment: u64,
}

impl SessionProposer {
    /// Takes a command for the log. Its answer arrives on the receiver that came with this
    /// proposer, in the order of request numbers.
    ///
    /// Numbers are consecutive; a number that still waits is not sent twice, one that has been
    /// answered is answered again from the session's ring.
    ///
    /// # Errors
    /// [`Refusal`] for this number and all above it, until this number is submitted again.
    pub fn submit(&self, request: u64, answered_below: u64, command: Bytes) -> Result<(), Refusal> {
        self.submit_all(answered_below, [(request, command)])
    }

    /// Takes several commands at once, at the cost of one lock: `(request number, command)` in
    /// order.
    ///
    /// # Errors
    /// [`Refusal`] for the first number that could not be taken and all above it; those before it
    /// have been taken.
    pub fn submit_all(
        &self,
        answered_below: u64,
        commands: impl IntoIterator<Item = (u64, Bytes)>,
    ) -> Result<(), Refusal> {
        let mut table = self.pending.lock();
        let before = table.queue.len();
        let permits_max = self.pending.permits_max;
        let mut result = Ok(());
        for (request, command) in commands {
            result = table.submit(self, permits_max, request, answered_below, command);
            if result.is_err() {
                break;
            }
        }
        let woken = table.queue.len() > before;
        drop(table);
        if woken {
            self.pending.wake.notify_one();
        }
        result
    }

    /// The session's roles were checked at this version from now on.
    pub fn set_role_version(&self, role_version: u32) {
        let mut table = self.pending.lock();
        if let Some(slot) = table.slot(self.session, self.attachment) {
            slot.role_version = role_version;
        }
    }

    /// Whose commands these are.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }
}

impl Drop for SessionProposer {
    fn drop(&mut self) {
        let mut table = self.pending.lock();
        if table.slot(self.session, self.attachment).is_some() {
            table.forget(self.session);
        }
    }
}

impl Pending {
    /// An empty table. `first_correlation` must be drawn at random: it keeps this node's cluster
    /// commands apart from those of others and of its own earlier runs.
    pub(in crate::replication) fn new(first_correlation: u64, permits_max: usize) -> Arc<Self> {
        let table = Table {
            sessions: HashMap::default(),
            cluster: BTreeMap::new(),
            next_correlation: first_correlation,
            queue: VecDeque::new(),
            unanswered: 0,
            unanswered_bytes: 0,
            intake: Intake::Open,
        };
        Arc::new(Self {
            table: Mutex::new(table),
            wake: Notify::new(),
            permits_max,
            attachments: AtomicU64::new(0),
        })
    }

    /// Begins to take a session's commands. An earlier attachment of the session ends: its
    /// receiver closes and its proposer refuses.
    pub(in crate::replication) fn attach(
        self: &Arc<Self>,
        session: SessionId,
        epoch: u32,
        role_version: u32,
    ) -> (SessionProposer, mpsc::Receiver<Vec<Answered>>) {
        // Each batch in the channel answers at least one command, and a session may have this many
        // commands between submission and the taking of the answer: a send never finds it full.
        let (answers, receiver) = mpsc::channel(SESSION_IN_FLIGHT_MAX);
        let attachment = self.attachments.fetch_add(1, Ordering::Relaxed);
        let slot = Slot {
            attachment,
            epoch,
            role_version,
            unanswered: VecDeque::new(),
            answers,
            refused_from: None,
            stale_up_to: None,
        };
        let mut table = self.lock();
        table.forget(session);
        table.sessions.insert(session, slot);
        drop(table);
        (SessionProposer { pending: Arc::clone(self), session, attachment }, receiver)
    }

    /// Takes a command of the cluster's own. The receiver closes without an answer when the node
    /// stops.
    pub(in crate::replication) fn submit_for_cluster(
        &self,
        command: Bytes,
    ) -> Result<(u64, oneshot::Receiver<Answered>), Refusal> {
        let (answer, receiver) = oneshot::channel();
        let mut table = self.lock();
        table.admit(self.permits_max, command.len())?;
        let correlation = table.next_correlation;
        table.next_correlation = correlation.wrapping_add(1);
        table.unanswered += 1;
        table.unanswered_bytes += ORIGIN_BYTES + command.len();
        table.queue.push_back(cluster_proposal(correlation, &command));
        table.cluster.insert(correlation, Waiting { command, answer });
        drop(table);
        self.wake.notify_one();
        Ok((correlation, receiver))
    }

    /// Gives up waiting for a command of the cluster's own; it may still be applied.
    pub(in crate::replication) fn forget_for_cluster(&self, correlation: u64) {
        let mut table = self.lock();
        if let Some(waiting) = table.cluster.remove(&correlation) {
            table.release(1, ORIGIN_BYTES + waiting.command.len());
        }
    }

    /// Takes proposals off the queue until one passes `bytes_soft` or there are `count_max`; a
    /// larger one comes alone.
    pub(in crate::replication) fn take(
        &self,
        bytes_soft: usize,
        count_max: usize,
        into: &mut Vec<Proposal>,
    ) {
        let mut table = self.lock();
        take_proposals(&mut table.queue, bytes_soft, count_max, into);
    }

    /// Returns when something may be waiting to be taken.
    pub(in crate::replication) async fn queued(&self) {
        self.wake.notified().await;
    }

    /// The way to the log broke: queues everything unanswered again, in order per session.
    pub(in crate::replication) fn requeue_all(&self) {
        let mut table = self.lock();
        let Table { sessions, cluster, queue, .. } = &mut *table;
        queue.clear();
        for (correlation, waiting) in cluster.iter() {
            queue.push_back(cluster_proposal(*correlation, &waiting.command));
        }
        for slot in sessions.values_mut() {
            slot.stale_up_to = None;
            queue.extend(slot.unanswered.iter().map(Submitted::proposal));
        }
        let woken = !queue.is_empty();
        drop(table);
        if woken {
            self.wake.notify_one();
        }
    }

    /// Hands the outcomes of one applied entry to those who wait here. Called by apply, in log
    /// order; never blocks on a session.
    pub(in crate::replication) fn answer(&self, outcomes: Vec<Answered>) {
        let mut table = self.lock();
        let before = table.queue.len();
        let mut run: Vec<Answered> = Vec::new();
        for answered in outcomes {
            let session = answered.origin.session;
            if session == SessionId::CLUSTER {
                table.answer_cluster(answered);
                continue;
            }
            if run.first().is_some_and(|first| first.origin.session != session) {
                table.deliver(std::mem::take(&mut run));
            }
            if table.settle(&answered) {
                run.push(answered);
            }
        }
        table.deliver(run);
        let woken = table.queue.len() > before;
        drop(table);
        if woken {
            self.wake.notify_one();
        }
    }

    /// Opens or closes the door for new commands. [`Intake::Stopped`] also ends every wait.
    pub(in crate::replication) fn set_intake(&self, intake: Intake) {
        let mut table = self.lock();
        if table.intake == Intake::Stopped {
            return;
        }
        table.intake = intake;
        if intake == Intake::Stopped {
            table.queue.clear();
            table.cluster.clear();
            table.sessions.clear();
            table.unanswered = 0;
            table.unanswered_bytes = 0;
        }
    }

    /// Commands that wait for their answer here.
    pub(in crate::replication) fn unanswered(&self) -> usize {
        self.lock().unanswered
    }

    /// Commands that hold a permit, and their bytes.
    pub(in crate::replication) fn in_flight(&self) -> (usize, usize) {
        let table = self.lock();
        (table.unanswered, table.unanswered_bytes)
    }

    /// Permits that there are.
    pub(in crate::replication) fn permits_max(&self) -> usize {
        self.permits_max
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no code that can panic runs under the table's lock")
    }
}

impl Table {
    fn submit(
        &mut self,
        proposer: &SessionProposer,
        permits_max: usize,
        request: u64,
        answered_below: u64,
        command: Bytes,
    ) -> Result<(), Refusal> {
        let admitted = self.admit(permits_max, command.len());
        let slot = self.slot(proposer.session, proposer.attachment).ok_or(Refusal::Stopped)?;
        let batches = slot.answers.max_capacity() - slot.answers.capacity();
        let refusal = match admitted {
            Err(refusal) => Some(refusal),
            Ok(()) if slot.unanswered.len() + batches >= SESSION_IN_FLIGHT_MAX => {
                Some(Refusal::Overloaded { retry_ms: RETRY_MS })
            }
            // A number above a refused one would only be a gap.
            Ok(()) if slot.refused_from.is_some_and(|refused| request > refused) => {
                Some(Refusal::Overloaded { retry_ms: RETRY_MS })
            }
            Ok(()) => None,
        };
        if let Some(refusal) = refusal {
            slot.refused_from = Some(slot.refused_from.map_or(request, |from| from.min(request)));
            return Err(refusal);
        }
        slot.refused_from = None;
        let origin = Origin {
            session: proposer.session,
            epoch: slot.epoch,
            role_version: slot.role_version,
            request,
            answered_below,
        };
        let place = slot.unanswered.partition_point(|other| other.origin.request < request);
        if slot.unanswered.get(place).is_some_and(|other| other.origin.request == request) {
            return Ok(());
        }
        let submitted = Submitted { origin, command };
        let (bytes, proposal) = (submitted.bytes(), submitted.proposal());
        slot.unanswered.insert(place, submitted);
        self.unanswered += 1;
        self.unanswered_bytes += bytes;
        self.queue.push_back(proposal);
        Ok(())
    }

    fn admit(&self, permits_max: usize, bytes: usize) -> Result<(), Refusal> {
        match self.intake {
            Intake::Stopped | Intake::Closing => Err(Refusal::Stopped),
            Intake::Inquorate => Err(Refusal::Inquorate),
            Intake::DiskFull => Err(Refusal::DiskFull),
            Intake::Open
                if self.unanswered >= permits_max
                    || self.unanswered_bytes + bytes > PERMIT_BYTES =>
            {
                Err(Refusal::Overloaded { retry_ms: RETRY_MS })
            }
            Intake::Open => Ok(()),
        }
    }

    fn slot(&mut self, session: SessionId, attachment: u64) -> Option<&mut Slot> {
        self.sessions.get_mut(&session).filter(|slot| slot.attachment == attachment)
    }

    fn forget(&mut self, session: SessionId) {
        if let Some(slot) = self.sessions.remove(&session) {
            let bytes = slot.unanswered.iter().map(Submitted::bytes).sum();
            self.release(slot.unanswered.len(), bytes);
        }
    }

    fn release(&mut self, count: usize, bytes: usize) {
        self.unanswered = self.unanswered.saturating_sub(count);
        self.unanswered_bytes = self.unanswered_bytes.saturating_sub(bytes);
    }

    fn answer_cluster(&mut self, answered: Answered) {
        if let Some(waiting) = self.cluster.remove(&answered.origin.request) {
            self.release(1, ORIGIN_BYTES + waiting.command.len());
            // A closed receiver has given up; nobody else waits.
            let _gone = waiting.answer.send(answered);
        }
    }

    /// Notes the answer to a session's command. True: the session waits for it and is to hear it.
    fn settle(&mut self, answered: &Answered) -> bool {
        let origin = &answered.origin;
        let Self { sessions, queue, .. } = self;
        let Some(slot) = sessions.get_mut(&origin.session) else { return false };
        if origin.epoch != slot.epoch {
            return false;
        }
        let place = slot.unanswered.partition_point(|other| other.origin.request < origin.request);
        if slot.unanswered.get(place).is_none_or(|other| other.origin.request != origin.request) {
            return false;
        }
        // A gap in front of the first unanswered number is the client's own doing: it hears of it.
        // Any other one means that a copy was lost on the way: send again, once for all of them.
        if answered.outcome == Outcome::Rejected(Rejection::Gap) && place > 0 {
            match slot.stale_up_to {
                Some(last) if origin.request < last => {}
                Some(last) if origin.request == last => slot.stale_up_to = None,
                _ => {
                    slot.stale_up_to = slot.unanswered.back().map(|last| last.origin.request);
                    queue.extend(slot.unanswered.iter().map(Submitted::proposal));
                }
            }
            return false;
        }
        if let Some(done) = slot.unanswered.remove(place) {
            self.release(1, done.bytes());
        }
        true
    }

    fn deliver(&mut self, run: Vec<Answered>) {
        let Some(first) = run.first() else { return };
        let session = first.origin.session;
        let Some(slot) = self.sessions.get(&session) else { return };
        if slot.answers.try_send(run).is_err() {
            // Its task has gone without detaching; a full channel cannot be, see `attach`.
            self.forget(session);
        }
    }
}

/// A command of the cluster's own, as it travels.
fn cluster_proposal(correlation: u64, command: &Bytes) -> Proposal {
    let origin = Origin { request: correlation, ..Origin::default() };
    Proposal { origin, command: command.clone() }
}

/// Moves proposals from the front of `queue` until one passes `bytes_soft` or there are
/// `count_max`; a larger one comes alone.
pub(in crate::replication) fn take_proposals(
    queue: &mut VecDeque<Proposal>,
    bytes_soft: usize,
    count_max: usize,
    into: &mut Vec<Proposal>,
) {
    let size = |proposal: &Proposal| ORIGIN_BYTES + proposal.command.len();
    let mut bytes: usize = into.iter().map(size).sum();
    while let Some(next) = queue.front() {
        let full = into.len() >= count_max || bytes + size(next) > bytes_soft;
        if full && !into.is_empty() {
            break;
        }
        bytes += size(next);
        into.extend(queue.pop_front());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Index;

    const SESSION: SessionId = SessionId(7);
    const EPOCH: u32 = 1;

    fn table() -> (Arc<Pending>, SessionProposer, mpsc::Receiver<Vec<Answered>>) {
        let pending = Pending::new(1_000, 8);
        let (proposer, answers) = pending.attach(SESSION, EPOCH, 0);
        (pending, proposer, answers)
    }

    fn submit(proposer: &SessionProposer, request: u64) -> Result<(), Refusal> {
        proposer.submit(request, 1, Bytes::from_static(b"command"))
    }

    /// Takes everything that is queued: the request numbers, in order.
    fn taken(pending: &Pending) -> Vec<u64> {
        let mut batch = Vec::new();
        pending.take(usize::MAX, usize::MAX, &mut batch);
        batch.iter().map(|proposal| proposal.origin.request).collect()
    }

    fn answered(session: SessionId, epoch: u32, request: u64, outcome: Outcome) -> Answered {
        let origin = Origin { session, epoch, request, ..Origin::default() };
        Answered { origin, index: Index::new(request, 0), outcome }
    }

    fn done(request: u64) -> Answered {
        answered(SESSION, EPOCH, request, Outcome::Done)
    }

    fn gap(request: u64) -> Answered {
        answered(SESSION, EPOCH, request, Outcome::Rejected(Rejection::Gap))
    }

    fn heard(answers: &mut mpsc::Receiver<Vec<Answered>>) -> Vec<u64> {
        let mut requests = Vec::new();
        while let Ok(batch) = answers.try_recv() {
            requests.extend(batch.iter().map(|answered| answered.origin.request));
        }
        requests
    }

    #[test]
    fn commands_are_queued_once_and_answered_once_in_order() {
        let (pending, proposer, mut answers) = table();
        for request in 1..=3 {
            submit(&proposer, request).unwrap();
        }
        // A number that still waits is not sent twice.
        submit(&proposer, 2).unwrap();
        assert_eq!(taken(&pending), [1, 2, 3]);
        pending.answer(vec![done(1), done(2)]);
        // A late copy's answer, another session's, another epoch's: nobody waits for them.
        pending.answer(vec![
            done(2),
            answered(SessionId(8), EPOCH, 3, Outcome::Done),
            answered(SESSION, EPOCH + 1, 3, Outcome::Done),
        ]);
        assert_eq!(heard(&mut answers), [1, 2]);
        assert_eq!(pending.unanswered(), 1);
    }

    #[test]
    fn everything_unanswered_goes_again_in_order_when_the_way_breaks() {
        let (pending, proposer, mut answers) = table();
        for request in 1..=4 {
            submit(&proposer, request).unwrap();
        }
        let (correlation, mut answer) =
            pending.submit_for_cluster(Bytes::from_static(b"own")).unwrap();
        assert_eq!(correlation, 1_000);
        assert_eq!(taken(&pending), [1, 2, 3, 4, 1_000]);
        pending.answer(vec![done(1)]);
        pending.requeue_all();
        assert_eq!(taken(&pending), [1_000, 2, 3, 4]);
        pending.answer(vec![answered(SessionId::CLUSTER, 0, 1_000, Outcome::Done)]);
        assert_eq!(answer.try_recv().unwrap().outcome, Outcome::Done);
        pending.requeue_all();
        assert_eq!(taken(&pending), [2, 3, 4]);
        assert_eq!(heard(&mut answers), [1]);
    }

    #[test]
    fn a_gap_sends_again_from_the_first_unanswered_once_for_all_of_them() {
        let (pending, proposer, mut answers) = table();
        for request in 1..=4 {
            submit(&proposer, request).unwrap();
        }
        taken(&pending);
        // The first was lost on the way: the others come back as gaps.
        pending.answer(vec![gap(2), gap(3), gap(4)]);
        assert_eq!(taken(&pending), [1, 2, 3, 4]);
        assert_eq!(heard(&mut answers), [0; 0]);
        pending.answer((1..=4).map(done).collect());
        assert_eq!(heard(&mut answers), [1, 2, 3, 4]);
        // So does the next loss.
        for request in 5..=7 {
            submit(&proposer, request).unwrap();
        }
        taken(&pending);
        pending.answer(vec![gap(6), gap(7)]);
        assert_eq!(taken(&pending), [5, 6, 7]);
        pending.answer((5..=7).map(done).collect());
        assert_eq!(heard(&mut answers), [5, 6, 7]);
        // In front of the first unanswered number a gap is the client's own doing.
        submit(&proposer, 9).unwrap();
        pending.answer(vec![gap(9)]);
        assert_eq!(heard(&mut answers), [9]);
        assert_eq!(pending.unanswered(), 0);
    }

    #[test]
    fn a_refused_number_refuses_all_above_it_until_it_comes_again() {
        let (pending, proposer, mut answers) = table();
        for request in 1..=8 {
            submit(&proposer, request).unwrap();
        }
        let overloaded = Err(Refusal::Overloaded { retry_ms: RETRY_MS });
        assert_eq!(submit(&proposer, 9), overloaded);
        pending.answer(vec![done(1), done(2)]);
        assert_eq!(submit(&proposer, 10), overloaded, "9 must come first");
        assert_eq!(submit(&proposer, 9), Ok(()));
        assert_eq!(submit(&proposer, 10), Ok(()));
        assert_eq!(heard(&mut answers), [1, 2]);
        pending.set_intake(Intake::Inquorate);
        assert_eq!(submit(&proposer, 11), Err(Refusal::Inquorate));
        pending.set_intake(Intake::Open);
        assert_eq!(submit(&proposer, 11), overloaded);
        // What waits goes on waiting through all of it.
        assert_eq!(pending.unanswered(), 8);
    }

    #[test]
    fn answers_that_are_not_taken_count_as_in_flight() {
        let pending = Pending::new(0, usize::MAX);
        let (proposer, _answers) = pending.attach(SESSION, EPOCH, 0);
        for request in 1..=SESSION_IN_FLIGHT_MAX as u64 {
            submit(&proposer, request).unwrap();
            pending.answer(vec![done(request)]);
        }
        let next = SESSION_IN_FLIGHT_MAX as u64 + 1;
        assert!(matches!(submit(&proposer, next), Err(Refusal::Overloaded { .. })));
    }

    #[test]
    fn a_new_attachment_and_the_end_close_the_former_one() {
        let (pending, proposer, mut answers) = table();
        submit(&proposer, 1).unwrap();
        let (next, mut its_answers) = pending.attach(SESSION, EPOCH + 1, 0);
        assert_eq!(submit(&proposer, 2), Err(Refusal::Stopped));
        assert!(matches!(answers.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
        assert_eq!(pending.unanswered(), 0);
        // The former one's end does not touch its successor.
        drop(proposer);
        submit(&next, 1).unwrap();
        pending.set_intake(Intake::Stopped);
        pending.set_intake(Intake::Open);
        assert_eq!(submit(&next, 2), Err(Refusal::Stopped));
        assert!(matches!(its_answers.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
    }

    #[test]
    fn batches_close_at_their_soft_bound_and_a_large_command_travels_alone() {
        let proposal = |bytes: usize| Proposal {
            origin: Origin::default(),
            command: Bytes::from(vec![0; bytes]),
        };
        let mut queue: VecDeque<Proposal> = [10, 10, 5_000, 10, 10].map(proposal).into();
        let mut sizes = Vec::new();
        while !queue.is_empty() {
            let mut batch = Vec::new();
            take_proposals(&mut queue, 200, 100, &mut batch);
            sizes.push(batch.iter().map(|one| one.command.len()).collect::<Vec<_>>());
        }
        assert_eq!(sizes, [vec![10, 10], vec![5_000], vec![10, 10]]);
    }
}
