//! The subscriptions of one connection: where they begin, how they change, how they start over.
//!
//! Decides under the locks and returns what is to be sent on bulk streams. A change of interest is
//! one cut through the log: up to the cut the session hears what it wanted before, the state at the
//! cut gives the initial values, and everything after the cut is read from the journal with the new
//! interest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::id::{Position, SessionId};
use crate::domain::machine::Machine;
use crate::gateway::delivery::bulk_stream;
use crate::gateway::delivery::initial_values::InitialValues;
use crate::gateway::delivery::interest::Interest;
use crate::gateway::delivery::turn::Turn;
use crate::gateway::fanout::outbox::Outbox;
use crate::gateway::fanout::session_queue::SessionQueue;
use crate::gateway::hosting::Hosting;
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
}

/// A bulk stream that is to be sent.
#[derive(Debug)]
pub(in crate::gateway) struct BulkOrder {
    /// Its head.
    pub(in crate::gateway) begin: BulkBegin,
    /// Its items.
    pub(in crate::gateway) values: InitialValues,
}

/// Where a session's events begin on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Beginning {
    /// With its first selection, by initial values.
    Fresh,
    /// With its first selection, by the events after this position.
    Past(Position),
    /// After this position, with what the session has selected already.
    Continuous {
        /// The client has heard of everything up to here.
        position: Position,
        /// Initial values had not all arrived.
        initial_missing: bool,
    },
    /// With current values: what the client has heard of before does not hold.
    Reset(ResetReason),
}

impl Subscriber {
    /// The subscriptions of a session that has just been attached, and the bulk stream that goes
    /// with the beginning, if one does. Events flow once a writer runs.
    #[must_use]
    pub(in crate::gateway) fn new(
        hosting: &Arc<Hosting>,
        session: SessionId,
        beginning: Beginning,
    ) -> (Self, Option<BulkOrder>) {
        let view = hosting.replication.view();
        let here = Position::end_of_entry(view.applied());
        let slow_after = slow_after(&view);
        let interest = interest_of(&view, session);
        let bulks = AtomicU64::new(0);
        let next_bulk = || bulks.fetch_add(1, Ordering::Relaxed) + 1;
        let (queue, order) = match beginning {
            Beginning::Fresh | Beginning::Past(_) => {
                (SessionQueue::new(here, Arc::default(), slow_after), None)
            }
            Beginning::Continuous { position, initial_missing } => {
                let mut queue = SessionQueue::new(position, Arc::clone(&interest), slow_after);
                let order = initial_missing.then(|| {
                    let bulk = next_bulk();
                    let none = Arc::clone(&interest);
                    let turn = Turn::new(view.clone(), none, Arc::clone(&interest), &[(0, bulk)]);
                    queue.turn_now(Arc::clone(&interest), turn.at(position));
                    let purpose = BulkPurpose::Initial(0);
                    BulkOrder {
                        begin: bulk_stream::begin(bulk, purpose, view.applied()),
                        // What was set after the position is among the events that follow it.
                        values: InitialValues::new(view, None, interest)
                            .with_values_until(position),
                    }
                });
                (queue, order)
            }
            Beginning::Reset(reason) => {
                let mut queue = SessionQueue::new(here, Arc::clone(&interest), slow_after);
                let bulk = next_bulk();
                let (turn, order) = reset(hosting, view, interest, reason, bulk, Vec::new());
                queue.turn_now(Arc::clone(queue.interest()), turn);
                (queue, Some(order))
            }
        };
        let outbox = Arc::new(Outbox::new(session, queue));
        let subscriber = Self { hosting: Arc::clone(hosting), session, outbox, bulks };
        (subscriber, order)
    }

    /// The queue of the session, for its writer.
    #[must_use]
    pub(in crate::gateway) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// The session hears of something.
    #[must_use]
    pub(in crate::gateway) fn has_interest(&self) -> bool {
        !self.outbox.lock().newest_interest().is_empty()
    }

    /// The session's newest selections leave something to hear.
    #[must_use]
    pub(in crate::gateway) fn will_hear(&self) -> bool {
        !interest_of(&self.hosting.replication.view(), self.session).is_empty()
    }

    /// The number of a new bulk stream.
    #[must_use]
    pub(in crate::gateway) fn next_bulk(&self) -> u64 {
        self.bulks.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Follows changes of the session's selections or listeners that have been applied: all that
    /// the state has, since it is the newest state that is looked at. `requests`: the select commands
    /// that want their initial values announced. `begin`: nothing was sent on the event stream yet,
    /// so events begin here, or at the past position given.
    ///
    /// Each of the requests has a bulk stream of its own, with all that is new: what the first of
    /// them to end has brought is old news in the others. An empty list: there are no initial values
    /// to send. None: the state has applied requests up to a number of which `is_early` says that
    /// the change is to be followed later, together with another one that the state has already.
    #[must_use]
    pub(in crate::gateway) fn change(
        &self,
        requests: &[u64],
        is_early: impl FnOnce(u64) -> bool,
        begin: bool,
        past: Option<Position>,
    ) -> Option<Vec<BulkOrder>> {
        // Live sessions are in the fan-out; out of it, only the writer moves the cursor.
        let mut fanout = self.hosting.fanout();
        fanout.leave(&self.outbox);
        let mut queue = self.outbox.lock();
        drop(fanout);
        // Taken after the cursor can no longer be moved by the fan-out: the state is at least as new.
        let view = self.hosting.replication.view();
        let here = Position::end_of_entry(view.applied());
        queue.fall_behind(slow_after(&view));
        if is_early(view.session(self.session).map_or(0, |session| session.answered().last())) {
            drop(queue);
            self.outbox.wake();
            return None;
        }
        let after = interest_of(&view, self.session);
        if begin {
            let empty = Arc::default();
            let cursor = past.unwrap_or(here);
            let dropped = queue.restart(cursor, empty, slow_after(&view));
            debug_assert!(dropped.is_empty(), "a change before the beginning");
        }
        let before = Arc::clone(queue.newest_interest());
        let is_new = before != after;
        let numbered = |request: &u64| (*request, if is_new { self.next_bulk() } else { 0 });
        let initial: Vec<(u64, u64)> = requests.iter().map(numbered).collect();
        let turn = Turn::new(view.clone(), Arc::clone(&before), Arc::clone(&after), &initial);
        match past {
            Some(position) if begin => queue.turn_now(Arc::clone(&after), turn.at(position)),
            _ => {
                let switched = queue.switch(view.applied(), Arc::clone(&after), turn);
                debug_assert!(switched, "the state is older than what was handed out");
            }
        }
        drop(queue);
        self.outbox.wake();
        let order = |(request, bulk): (u64, u64)| {
            let purpose = BulkPurpose::Initial(request);
            let begin = bulk_stream::begin(bulk, purpose, view.applied());
            let (before, after) = (Some(Arc::clone(&before)), Arc::clone(&after));
            let values = InitialValues::new(view.clone(), before, after);
            // Of a beginning in the past, values come as events and not as initial values.
            let values =
                if past.is_some() { values.with_values_until(Position::START) } else { values };
            BulkOrder { begin, values }
        };
        Some(if is_new { initial.into_iter().map(order).collect() } else { Vec::new() })
    }

    /// Starts over from current values, since events after the cursor are gone.
    #[must_use]
    pub(in crate::gateway) fn start_over(&self, reason: ResetReason) -> BulkOrder {
        let mut fanout = self.hosting.fanout();
        fanout.leave(&self.outbox);
        let mut queue = self.outbox.lock();
        drop(fanout);
        let view = self.hosting.replication.view();
        let here = Position::end_of_entry(view.applied());
        let interest = interest_of(&view, self.session);
        let dropped = queue.restart(here, Arc::clone(&interest), slow_after(&view));
        let initial = dropped.into_iter().flat_map(Turn::into_initial).collect();
        let bulk = self.next_bulk();
        let (turn, order) =
            reset(&self.hosting, view, Arc::clone(&interest), reason, bulk, initial);
        queue.turn_now(interest, turn);
        order
    }

    /// The session leaves this connection.
    pub(in crate::gateway) fn leave(&self) {
        self.hosting.fanout().leave(&self.outbox);
    }
}

/// The turn and the bulk stream of a start from current values; `initial` were announced to nobody
/// yet.
fn reset(
    hosting: &Hosting,
    view: Machine,
    interest: Arc<Interest>,
    reason: ResetReason,
    bulk: u64,
    mut initial: Vec<(u64, u64)>,
) -> (Turn, BulkOrder) {
    initial.insert(0, (0, bulk));
    let lineage = hosting.replication.member().lineage;
    let turn = Turn::reset(view.clone(), Arc::clone(&interest), reason, lineage, &initial);
    let begin = bulk_stream::begin(bulk, BulkPurpose::Initial(0), view.applied());
    (turn, BulkOrder { begin, values: InitialValues::new(view, None, interest) })
}

fn interest_of(view: &Machine, session: SessionId) -> Arc<Interest> {
    view.session(session).map(Interest::of).map(Arc::new).unwrap_or_default()
}

fn slow_after(view: &Machine) -> Position {
    Position::end_of_entry(view.applied() + CATCH_UP_ENTRIES)
}
