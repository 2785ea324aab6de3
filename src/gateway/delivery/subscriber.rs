//! The subscriptions of one connection: where they begin, how they change, how they start over.
//!
//! Decides under the locks and returns what is to be sent on bulk streams. A change of interest is
//! one cut through the log: up to the cut the session hears what it wanted before, the state at the
//! cut gives the initial values, and everything after the cut is read from the journal with the new
//! interest.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::id::{Index, Position, SessionId};
use crate::domain::machine::Machine;
use crate::gateway::delivery::bulk_stream;
use crate::gateway::delivery::initial_values::InitialValues;
use crate::gateway::delivery::interest::Interest;
use crate::gateway::delivery::journal_cursor::JournalCursor;
use crate::gateway::delivery::turn::Turn;
use crate::gateway::fanout::outbox::Outbox;
use crate::gateway::fanout::session_queue::SessionQueue;
use crate::gateway::hosting::Hosting;
use crate::gateway::request::translate::FollowUp;
use crate::protocol::delivery::{BulkBegin, BulkPurpose};
use crate::protocol::handshake::ResetReason;

/// A session that joins within so many entries is not slow: until then nothing is conflated.
const CATCH_UP_ENTRIES: u64 = 4_096;

/// The subscriptions of one connection.
#[derive(Debug)]
pub(in crate::gateway) struct Subscriber {
    hosting: Arc<Hosting>,
    session: SessionId,
    outbox: Arc<Outbox>,
    bulks: AtomicU64,
    /// The newest change that was followed: in which state, and what was heard of before.
    followed: Mutex<Option<(u64, Arc<Interest>)>>,
    /// The client hears of the past up to here.
    replays_until: Option<Position>,
}

/// A bulk stream that is to be sent.
#[derive(Debug)]
pub(in crate::gateway) struct BulkOrder {
    /// Its head.
    pub(in crate::gateway) begin: BulkBegin,
    /// Its items.
    pub(in crate::gateway) values: InitialValues,
}

impl BulkOrder {
    /// Values that answer this select command (0: what the session has selected by now).
    fn initial(request: u64, bulk: u64, values: InitialValues) -> Self {
        let purpose = BulkPurpose::Initial(request);
        Self { begin: bulk_stream::begin(bulk, purpose, values.as_of()), values }
    }
}

/// Where a session's events begin on this connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) enum Beginning {
    /// With its first selection, by initial values.
    Fresh,
    /// With its first selection, by the events after this position.
    Past(Position),
    /// After this position, with what the session has selected already.
    Continuous(Position),
    /// The same, and not all had arrived that belongs to the changes since the position.
    Unfinished(Position, Changes),
    /// The same, and the session has not come to the end of the past that it began with.
    Replaying(Position, Changes),
    /// With current values: what the client has heard of before does not hold.
    Reset(ResetReason),
}

/// Changes of what a session has selected since some position: the entry of each, and what the
/// session heard of before it.
pub(in crate::gateway) type Changes = Vec<(u64, Arc<Interest>)>;

impl Subscriber {
    /// The subscriptions of a session that has just been attached. Events flow once a writer runs.
    #[must_use]
    pub(in crate::gateway) fn new(
        hosting: &Arc<Hosting>,
        session: SessionId,
        beginning: Beginning,
    ) -> Self {
        let view = hosting.replication.view();
        let here = Position::end_of_entry(view.applied());
        let slow_after = slow_after(&view);
        let interest = interest_of(&view, session);
        let bulks = AtomicU64::new(0);
        let mut replays_until = None;
        let next_bulk = || bulks.fetch_add(1, Ordering::Relaxed) + 1;
        let queue = match beginning {
            Beginning::Fresh | Beginning::Past(_) => {
                SessionQueue::new(here, Arc::default(), slow_after)
            }
            Beginning::Continuous(position) => SessionQueue::new(position, interest, slow_after),
            Beginning::Unfinished(position, changes) => {
                catch_up(view, interest, position, &changes, next_bulk())
            }
            Beginning::Replaying(position, changes) => {
                replays_until = Some(here);
                replay(view, interest, position, &changes, next_bulk())
            }
            Beginning::Reset(reason) => {
                let mut queue = SessionQueue::new(here, Arc::clone(&interest), slow_after);
                let turn = reset(hosting, view, interest, reason, next_bulk(), Vec::new());
                queue.turn_now(Arc::clone(queue.interest()), turn);
                queue
            }
        };
        let outbox = Arc::new(Outbox::new(session, queue));
        let (hosting, followed) = (Arc::clone(hosting), Mutex::default());
        Self { hosting, session, outbox, bulks, followed, replays_until }
    }

    /// The queue of the session, for its writer.
    #[must_use]
    pub(in crate::gateway) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// There is something to be told from the beginning on: the reader that it begins with.
    #[must_use]
    pub(in crate::gateway) fn begins_with(&self) -> Option<JournalCursor> {
        match self.replays_until {
            Some(position) => Some(JournalCursor::replaying_until(position)),
            None => {
                // A reset is told also to a session that selects nothing any more.
                let queue = self.outbox.lock();
                let hears = queue.has_changes_ahead() || !queue.newest_interest().is_empty();
                hears.then(JournalCursor::default)
            }
        }
    }

    /// The number of a new bulk stream.
    #[must_use]
    pub(in crate::gateway) fn next_bulk(&self) -> u64 {
        self.bulks.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Follows a change of the session's selections or listeners that has been applied at `index`;
    /// the notice that all of it was told names the `request`. `begin`: nothing was sent on the event
    /// stream yet, so events begin right before the change, or at the past position given.
    pub(in crate::gateway) fn change(
        &self,
        (request, index): (u64, Index),
        follow_up: FollowUp,
        begin: bool,
        past: Option<Position>,
    ) {
        // Live sessions are in the fan-out; out of it, only the writer moves the cursor.
        let mut fanout = self.hosting.fanout();
        fanout.leave(&self.outbox);
        let mut queue = self.outbox.lock();
        drop(fanout);
        // Taken after the cursor can no longer be moved by the fan-out: the state is at least as new.
        let view = self.hosting.replication.view();
        let here = Position::end_of_entry(view.applied());
        queue.fall_behind(slow_after(&view));
        let after = interest_of(&view, self.session);
        if begin {
            let empty = Arc::default();
            let before = Position::end_of_entry(index.entry().saturating_sub(1));
            let cursor = past.unwrap_or(before).min(here);
            let dropped = queue.restart(cursor, empty, slow_after(&view));
            debug_assert!(dropped.is_empty(), "a change before the beginning");
        }
        let before = Arc::clone(queue.newest_interest());
        // The state may have later changes too: what they select is new now, and their own values
        // are those of this change once more, so that they are complete no sooner.
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match &*followed {
            Some((applied, known)) if before == after && index.entry() <= *applied => {
                (follow_up == FollowUp::Selected).then(|| Arc::clone(known))
            }
            _ if before.selects_as(&after) => None,
            _ => {
                *followed = Some((view.applied(), Arc::clone(&before)));
                Some(Arc::clone(&before))
            }
        };
        drop(followed);
        let wants_values = known.is_some();
        let bulk = if wants_values { self.next_bulk() } else { 0 };
        let (from, to) = (Arc::clone(&before), Arc::clone(&after));
        let mut turn = Turn::new(view.clone(), from, to, &[(request, bulk)]);
        if let Some(known) = known {
            let values = InitialValues::new(view.clone(), vec![known], Arc::clone(&after));
            // Of a beginning in the past, values come as events and not as initial values.
            let values = match past {
                Some(position) => values.without_values().added_until(position),
                None => values,
            };
            turn.carry([BulkOrder::initial(request, bulk, values)]);
        }
        match past {
            Some(position) if begin => queue.turn_now(Arc::clone(&after), turn.at(position)),
            _ => {
                let switched = queue.switch(view.applied(), after, turn);
                debug_assert!(switched, "the state is older than what was handed out");
            }
        }
        drop(queue);
        self.outbox.wake();
    }

    /// Starts over from current values, since events after the cursor are gone.
    pub(in crate::gateway) fn start_over(&self, reason: ResetReason) {
        let mut fanout = self.hosting.fanout();
        fanout.leave(&self.outbox);
        let mut queue = self.outbox.lock();
        drop(fanout);
        let view = self.hosting.replication.view();
        let here = Position::end_of_entry(view.applied());
        let interest = interest_of(&view, self.session);
        let dropped = queue.restart(here, Arc::clone(&interest), slow_after(&view));
        let turn =
            reset(&self.hosting, view, Arc::clone(&interest), reason, self.next_bulk(), dropped);
        queue.turn_now(interest, turn);
    }

    /// The session leaves this connection.
    pub(in crate::gateway) fn leave(&self) {
        self.hosting.fanout().leave(&self.outbox);
    }
}

/// The queue of a session that goes on after `position` without having heard all that belongs to
/// these changes. How far it had come with each is not known: some of the topics may have been
/// introduced and others not.
///
/// So it hears of everything that any of them wanted, and its client passes over topics that it does
/// not know; what the log tells listeners follows each change as it stands there. Then, in one turn, it
/// is told to forget what it no longer wants, and gets the initial values of all that it cannot be sure
/// to have.
fn catch_up(
    view: Machine,
    interest: Arc<Interest>,
    position: Position,
    changes: &Changes,
    bulk: u64,
) -> SessionQueue {
    let stages: Vec<&Arc<Interest>> =
        changes.iter().map(|(_, before)| before).chain([&interest]).collect();
    let wide = |stage: &Arc<Interest>| Arc::new(stage.or(stages.iter().copied()));
    let then = stages.first().map_or_else(Arc::default, |then| wide(then));
    let mut queue = SessionQueue::new(position, Arc::clone(&then), slow_after(&view));
    for ((entry, _), stage) in changes.iter().zip(stages.iter().skip(1)) {
        let stage = wide(stage);
        let nothing = Turn::new(view.clone(), Arc::clone(&stage), Arc::clone(&stage), &[]);
        let switched = queue.switch(*entry, stage, nothing);
        debug_assert!(switched, "a change before the position that it follows");
    }
    let mut turn = Turn::new(view.clone(), then, Arc::clone(&interest), &[(0, bulk)]);
    let known = stages.iter().map(|stage| Arc::clone(stage)).collect();
    let values = InitialValues::new(view.clone(), known, Arc::clone(&interest));
    turn.carry([BulkOrder::initial(0, bulk, values)]);
    let switched = queue.switch(view.applied(), interest, turn);
    debug_assert!(switched, "the state is older than the position");
    queue
}

/// The queue of a session that goes on in the past, after `position`: first it is introduced to all
/// that it wants now, without values, and told to forget what it wanted before these changes.
fn replay(
    view: Machine,
    interest: Arc<Interest>,
    position: Position,
    changes: &Changes,
    bulk: u64,
) -> SessionQueue {
    let before = Arc::new(interest.or(changes.iter().map(|(_, before)| before)));
    let mut turn = Turn::new(view.clone(), before, Arc::clone(&interest), &[(0, bulk)]);
    let values = InitialValues::new(view.clone(), Vec::new(), Arc::clone(&interest));
    turn.carry([BulkOrder::initial(0, bulk, values.without_values())]);
    let mut queue = SessionQueue::new(position, Arc::clone(&interest), slow_after(&view));
    queue.turn_now(interest, turn.at(position));
    queue
}

/// The turn of a start from current values; what was `dropped` was announced to nobody yet.
fn reset(
    hosting: &Hosting,
    view: Machine,
    interest: Arc<Interest>,
    reason: ResetReason,
    bulk: u64,
    dropped: Vec<Turn>,
) -> Turn {
    let (others, orders): (Vec<_>, Vec<_>) = dropped.into_iter().map(Turn::into_initial).unzip();
    let initial = [vec![(0, bulk)], others.concat()].concat();
    let lineage = hosting.replication.member().lineage;
    let mut turn = Turn::reset(view.clone(), Arc::clone(&interest), reason, lineage, &initial);
    let values = InitialValues::new(view, Vec::new(), interest);
    turn.carry([BulkOrder::initial(0, bulk, values)]);
    turn.carry(orders.into_iter().flatten());
    turn
}

fn interest_of(view: &Machine, session: SessionId) -> Arc<Interest> {
    view.session(session).map(Interest::of).map(Arc::new).unwrap_or_default()
}

fn slow_after(view: &Machine) -> Position {
    Position::end_of_entry(view.applied() + CATCH_UP_ENTRIES)
}
