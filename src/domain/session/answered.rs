//! The answers that a session may ask for again, so that a request sent twice changes nothing.

use std::sync::Arc;

use imbl::Vector;

use crate::domain::id::{Index, SessionId};
use crate::domain::limits;
use crate::domain::machine::hash::{ItemKind, digest, item};
use crate::domain::outcome::{Outcome, Rejection};

/// Answers that are kept at most: all that may be in flight, and one more.
pub const ANSWERS_MAX: usize = limits::SESSION_IN_FLIGHT_MAX + 1;

/// A session's last request number and the newest answers, without a gap up to it.
#[derive(Debug, Clone, Default)]
pub struct AnsweredRing {
    last: u64,
    answers: Vector<Answer>,
}

/// One kept answer. Its request number is its place in the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    index: Index,
    outcome: Kept,
}

/// An outcome in little room: nearly all are one of the first three.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kept {
    Done,
    Unchanged,
    Rejected(Rejection),
    Other(Arc<Outcome>),
}

/// What a request number means to the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::domain) enum Turn {
    /// It is the next.
    Next,
    /// It was applied at this index, with this outcome.
    Repeat(Index, Outcome),
    /// It was applied; its answer is no longer kept.
    Forgotten,
    /// A number before it is missing.
    Gap,
}

impl AnsweredRing {
    /// A ring to be filled from a snapshot.
    pub(in crate::domain) fn restored(last: u64) -> Self {
        Self { last, answers: Vector::new() }
    }

    /// Adds a kept answer while a snapshot is read; they come oldest first.
    pub(in crate::domain) fn restore(&mut self, index: Index, outcome: Outcome) {
        self.answers.push_back(Answer { index, outcome: Kept::new(outcome) });
    }

    /// The last request number that was applied; zero before the first.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// How many answers are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// The kept answers, oldest first: request number, index, outcome.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Index, Outcome)> {
        let first = self.first();
        self.answers
            .iter()
            .zip(first..)
            .map(|(answer, request)| (request, answer.index, answer.outcome.outcome()))
    }

    /// What a request number means here.
    pub(in crate::domain) fn turn(&self, request: u64) -> Turn {
        if request > self.last {
            return if request - 1 == self.last { Turn::Next } else { Turn::Gap };
        }
        let kept = request
            .checked_sub(self.first())
            .and_then(|place| self.answers.get(usize::try_from(place).ok()?));
        kept.map_or(Turn::Forgotten, |answer| Turn::Repeat(answer.index, answer.outcome.outcome()))
    }

    /// Keeps the answer to the next request, and drops what the client holds and what is over the
    /// bound. `change` is told each item of the state hash that comes (true) or goes (false).
    pub(in crate::domain) fn push(
        &mut self,
        session: SessionId,
        index: Index,
        outcome: &Outcome,
        answered_below: u64,
        mut change: impl FnMut(u64, bool),
    ) {
        change(self.progress_item(session), false);
        self.last += 1;
        change(self.progress_item(session), true);
        let answer = Answer { index, outcome: Kept::new(outcome.clone()) };
        change(answer.item(session, self.last), true);
        self.answers.push_back(answer);
        // The client cannot hold the answer that is made here, whatever it says.
        let keep_from = answered_below.min(self.last);
        while self.first() < keep_from || self.answers.len() > ANSWERS_MAX {
            let request = self.first();
            let Some(answer) = self.answers.pop_front() else { break };
            change(answer.item(session, request), false);
        }
    }

    /// The items of the state hash.
    pub(super) fn items(&self, session: SessionId) -> impl Iterator<Item = u64> {
        let answers = self.answers.iter().zip(self.first()..);
        let answers = answers.map(move |(answer, request)| answer.item(session, request));
        std::iter::once(self.progress_item(session)).chain(answers)
    }

    /// The request number of the oldest kept answer.
    fn first(&self) -> u64 {
        (self.last + 1).saturating_sub(self.answers.len() as u64)
    }

    fn progress_item(&self, session: SessionId) -> u64 {
        item(ItemKind::Progress, [session.0, self.last])
    }
}

impl Answer {
    fn item(&self, session: SessionId, request: u64) -> u64 {
        let (tag, word) = match &self.outcome {
            Kept::Done => (0, 0),
            Kept::Unchanged => (1, 0),
            Kept::Rejected(reason) => (2, u64::from(reason.code())),
            Kept::Other(outcome) => (3, digest(&outcome.encode())),
        };
        item(ItemKind::Answer, [session.0, request, self.index.0, tag, word])
    }
}

impl Kept {
    fn new(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Done,
            Outcome::Unchanged => Self::Unchanged,
            Outcome::Rejected(reason) => Self::Rejected(reason),
            other => Self::Other(Arc::new(other)),
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Done => Outcome::Done,
            Self::Unchanged => Outcome::Unchanged,
            Self::Rejected(reason) => Outcome::Rejected(*reason),
            Self::Other(outcome) => Outcome::clone(outcome),
        }
    }
}
