//! What one session still has to be told, and how far it has been told.
//!
//! A session is either *live*: the fan-out pushes it references to batches as blocks are applied;
//! or *behind*: it reads the journal by itself from its cursor, and joins when it has caught up. It
//! starts behind, and falls back when its queue is full, when its oldest reference would outlive
//! the journal's ring, or when its interest changes. Nothing that it has not been handed is
//! forgotten by falling behind: the cursor stays where the last handed-out event was.
//!
//! Pure: no clock, no tasks, no journal. Whoever reads the journal for a session that is behind does
//! so outside the lock and reports with [`SessionQueue::advance`], which refuses a report that a
//! change of interest or a restart has overtaken.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::domain::id::{Index, Position, TopicId};
use crate::entropy::HashMap;
use crate::gateway::delivery::interest::Interest;
use crate::gateway::delivery::outgoing::Outgoing;
use crate::gateway::delivery::turn::Turn;
use crate::gateway::fanout::batch::Batch;

/// Events that wait for a live session; one more and it falls behind.
pub const QUEUE_EVENTS_MAX: usize = 4_096;
/// Bytes of blocks that may be fanned out while a reference waits: about what the ring holds, so
/// that a sleeping session does not keep alive what the ring has dropped.
pub const QUEUE_MARK_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// After every event that will ever be.
const END: Position = Position { index: Index(u64::MAX), ordinal: u32::MAX };

/// One session's queue and cursor.
#[derive(Debug)]
pub struct SessionQueue {
    mode: Mode,
    /// Everything up to here has been handed out or is not wanted.
    cursor: Position,
    /// Holds from the cursor to the first switch.
    interest: Arc<Interest>,
    /// Changes of interest ahead, by entry. Only while behind.
    switches: VecDeque<Switch>,
    /// Rises whenever a read that is under way has become worthless.
    version: u64,
    events_max: usize,
}

#[derive(Debug)]
enum Mode {
    Live {
        batches: VecDeque<Arc<Batch>>,
        events: usize,
    },
    /// Events after this position may be conflated.
    Behind {
        conflate_after: Position,
    },
}

#[derive(Debug)]
struct Switch {
    /// Everything up to here is told first.
    after: Position,
    interest: Arc<Interest>,
    /// Boxed: most sessions turn once, and a queue sets room aside for four.
    turn: Box<Turn>,
}

/// What became of a pushed batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// The first to wait: the writer must be woken.
    Wake,
    /// The writer has been woken already.
    Queued,
    /// The session has fallen behind and gets no more pushes until it joins again.
    Overflow,
}

/// What the writer should do next.
#[derive(Debug)]
pub enum Next {
    /// Write what was put; `blocks` batches had come together.
    Write {
        /// How many batches were taken.
        blocks: usize,
    },
    /// Nothing waits.
    Idle,
    /// Read the journal.
    Read(ReadOrder),
    /// Tell what belongs to a change of interest; its position has been reached.
    Turn(Box<Turn>),
}

/// An order to read the journal on behalf of a session that is behind.
#[derive(Debug, Clone)]
pub struct ReadOrder {
    /// Events after this.
    pub after: Position,
    /// Up to and including this, which is the end of an entry or of the log.
    pub until: Position,
    /// These events.
    pub interest: Arc<Interest>,
    /// Values after this may give way to newer ones of their topic.
    pub conflate_after: Position,
    /// There is nothing that must be read before the session may join.
    pub may_join: bool,
    version: u64,
}

impl SessionQueue {
    /// A session that has been told everything up to `cursor`, behind, and owed every event up to
    /// `conflate_after`.
    #[must_use]
    pub fn new(cursor: Position, interest: Arc<Interest>, conflate_after: Position) -> Self {
        Self {
            mode: Mode::Behind { conflate_after },
            cursor,
            interest,
            switches: VecDeque::new(),
            version: 0,
            events_max: QUEUE_EVENTS_MAX,
        }
    }

    /// The same with another bound.
    #[cfg(test)]
    pub(in crate::gateway) fn bounded(self, events_max: usize) -> Self {
        Self { events_max, ..self }
    }

    /// Everything up to here has been handed out.
    #[must_use]
    pub fn cursor(&self) -> Position {
        self.cursor
    }

    /// The session gets pushes.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.mode, Mode::Live { .. })
    }

    /// Live, and nothing waits.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        matches!(&self.mode, Mode::Live { batches, .. } if batches.is_empty())
    }

    /// What the session wants at its cursor.
    #[must_use]
    pub fn interest(&self) -> &Arc<Interest> {
        &self.interest
    }

    /// Appends a block's batch; only for live sessions, in entry order.
    pub fn push(&mut self, batch: &Arc<Batch>) -> Pushed {
        let Mode::Live { batches, events } = &mut self.mode else { return Pushed::Overflow };
        let stale = batches
            .front()
            .is_some_and(|oldest| batch.mark() - oldest.mark() > QUEUE_MARK_BYTES_MAX);
        // One batch may be larger than the bound; an empty queue takes it.
        if stale || !batches.is_empty() && *events + batch.events() > self.events_max {
            self.fall_behind(self.cursor);
            return Pushed::Overflow;
        }
        if batches.is_empty() {
            // Everything before this entry was looked at, and nothing of it was wanted.
            let before = Position::end_of_entry(batch.entry().saturating_sub(1));
            self.cursor = self.cursor.max(before);
        }
        *events += batch.events();
        batches.push_back(Arc::clone(batch));
        if batches.len() == 1 { Pushed::Wake } else { Pushed::Queued }
    }

    /// The oldest waiting reference would outlive the ring, now that blocks up to `mark` have been
    /// fanned out.
    #[must_use]
    pub fn is_stale(&self, mark: u64) -> bool {
        match &self.mode {
            Mode::Live { batches, .. } => batches
                .front()
                .is_some_and(|oldest| mark.saturating_sub(oldest.mark()) > QUEUE_MARK_BYTES_MAX),
            Mode::Behind { .. } => false,
        }
    }

    /// Takes the next writes, or says what else to do. Puts at most one soft batch of bytes.
    pub fn next(&mut self, outgoing: &mut Outgoing) -> Next {
        let newest = self.newest_of_replaceable();
        match &mut self.mode {
            Mode::Live { batches, events } => {
                let mut blocks = 0;
                while !outgoing.is_full() {
                    let Some(batch) = batches.pop_front() else { break };
                    *events -= batch.events();
                    if batch.pieces().is_empty() {
                        batch.put_all(outgoing);
                    } else {
                        for (number, piece) in batch.pieces().iter().enumerate() {
                            let place = (batch.entry(), number);
                            let newer = piece
                                .replaceable
                                .is_some_and(|topic| newest.get(&topic) != Some(&place));
                            if !newer {
                                batch.put_piece(piece, outgoing);
                            }
                        }
                    }
                    self.cursor = Position::end_of_entry(batch.entry());
                    blocks += 1;
                }
                if blocks == 0 { Next::Idle } else { Next::Write { blocks } }
            }
            Mode::Behind { conflate_after } => {
                let conflate_after = *conflate_after;
                let until = self.switches.front().map_or(END, |switch| switch.after);
                if self.cursor >= until
                    && let Some(switch) = self.switches.pop_front()
                {
                    self.version += 1;
                    self.interest = switch.interest;
                    return Next::Turn(switch.turn);
                }
                Next::Read(ReadOrder {
                    after: self.cursor,
                    until,
                    interest: Arc::clone(&self.interest),
                    conflate_after,
                    may_join: until == END,
                    version: self.version,
                })
            }
        }
    }

    /// Where the newest waiting value of each replaceable topic stands.
    fn newest_of_replaceable(&self) -> HashMap<TopicId, (u64, usize)> {
        let mut newest = HashMap::default();
        if let Mode::Live { batches, .. } = &self.mode {
            for batch in batches {
                for (number, piece) in batch.pieces().iter().enumerate() {
                    if let Some(topic) = piece.replaceable {
                        newest.insert(topic, (batch.entry(), number));
                    }
                }
            }
        }
        newest
    }

    /// Reports that an order was carried out up to `to`, and what the session still wants if some
    /// topics were found too fast for it. False: the order was overtaken, and what was read must be
    /// thrown away.
    #[must_use]
    pub fn advance(
        &mut self,
        order: &ReadOrder,
        to: Position,
        narrowed: Option<Arc<Interest>>,
    ) -> bool {
        let until = self.switches.front().map_or(END, |switch| switch.after);
        if self.version != order.version || self.is_live() || to > until {
            return false;
        }
        self.cursor = self.cursor.max(to);
        if let Some(interest) = narrowed {
            self.interest = interest;
            self.version += 1;
        }
        true
    }

    /// From now on the session reads the journal from its cursor; events after `conflate_after` may
    /// be conflated.
    pub fn fall_behind(&mut self, conflate_after: Position) {
        if self.is_live() {
            self.mode = Mode::Behind { conflate_after };
            self.version += 1;
        }
    }

    /// After `entry` the session wants something else; `turn` is told when the cursor gets there.
    /// Only for sessions that are behind. False: something after it has been handed out already,
    /// so a later entry must be chosen.
    #[must_use]
    pub fn switch(&mut self, entry: u64, interest: Arc<Interest>, turn: Turn) -> bool {
        if self.is_live() || self.cursor > Position::end_of_entry(entry) {
            return false;
        }
        // A read that is under way may have gone past the entry: `advance` refuses it.
        let (after, turn) = (Position::end_of_entry(entry), Box::new(turn));
        self.switches.push_back(Switch { after, interest, turn });
        true
    }

    /// Tells `turn` at the cursor, before anything else; the session wants `interest` from there on.
    /// Only for sessions that are behind and have no change ahead.
    pub fn turn_now(&mut self, interest: Arc<Interest>, turn: Turn) {
        debug_assert!(!self.is_live() && self.switches.is_empty(), "not at a beginning");
        self.switches.push_back(Switch { after: self.cursor, interest, turn: Box::new(turn) });
    }

    /// Starts over: told everything up to `cursor`, whatever it has missed. Changes of interest
    /// that were ahead are dropped: they must be part of `interest` and told of otherwise.
    /// Gives back what was to be told at those changes.
    pub fn restart(
        &mut self,
        cursor: Position,
        interest: Arc<Interest>,
        conflate_after: Position,
    ) -> Vec<Turn> {
        self.version += 1;
        self.mode = Mode::Behind { conflate_after };
        self.cursor = cursor;
        self.interest = interest;
        self.switches.drain(..).map(|switch| *switch.turn).collect()
    }

    /// Something is to be told at a change that is ahead.
    #[must_use]
    pub fn has_changes_ahead(&self) -> bool {
        !self.switches.is_empty()
    }

    /// What the session wants after all changes that are ahead.
    #[must_use]
    pub fn newest_interest(&self) -> &Arc<Interest> {
        self.switches.back().map_or(&self.interest, |switch| &switch.interest)
    }

    /// The session has caught up through `entry` and gets pushes of all later ones from here on.
    /// False: it may not, since it is held, or because its read was overtaken.
    #[must_use]
    pub fn join(&mut self, order: &ReadOrder, entry: u64) -> bool {
        if self.version != order.version || self.is_live() || !self.switches.is_empty() {
            return false;
        }
        self.cursor = self.cursor.max(Position::end_of_entry(entry));
        self.mode = Mode::Live { batches: VecDeque::new(), events: 0 };
        true
    }
}
