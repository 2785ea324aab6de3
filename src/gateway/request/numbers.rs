//! The numbered requests of one connection: what may come next, what waits, what follows an answer.
//!
//! Pure. Numbers are consecutive; after a shed number the client begins again there, and what it
//! had sent beyond is passed over until then.

use std::collections::BTreeMap;

use crate::domain::limits::SESSION_IN_FLIGHT_MAX;
use crate::gateway::request::translate::{FollowUp, Unfit};

/// What to do with a request that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Admission {
    /// Take it.
    Take,
    /// It follows a number that was shed: the client sends it again.
    PassOver,
    /// It follows a shed number by more than a client may have unanswered: the client goes on as
    /// if nothing had been said, and breaks the protocol.
    Unheeding,
    /// A number before it is missing: the client breaks the protocol.
    Gap {
        /// What should have come.
        expected: u64,
    },
}

/// The requests of one connection.
#[derive(Debug)]
pub(in crate::gateway) struct Requests {
    /// The lowest number that has not come on this connection; none before the first.
    next: Option<u64>,
    /// The highest number applied when the connection began.
    applied_before: u64,
    shed: Option<u64>,
    answered_below: u64,
    /// Numbers whose answer needs more than a code.
    notes: BTreeMap<u64, Note>,
}

/// What is remembered of a request until its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) enum Note {
    /// It was refused by this host; the text goes with the answer.
    Unfit(Unfit),
    /// It changes what the session hears of.
    FollowUp(FollowUp),
}

impl Requests {
    /// A connection that begins when the session's requests up to `applied` have been applied.
    #[must_use]
    pub(in crate::gateway) fn new(applied: u64) -> Self {
        Self {
            next: None,
            applied_before: applied,
            shed: None,
            answered_below: 0,
            notes: BTreeMap::new(),
        }
    }

    /// A request of this number has come.
    pub(in crate::gateway) fn admit(&mut self, request: u64) -> Admission {
        if let Some(shed) = self.shed {
            if request > shed {
                let is_on_its_way = request - shed <= SESSION_IN_FLIGHT_MAX as u64;
                return if is_on_its_way { Admission::PassOver } else { Admission::Unheeding };
            }
            self.shed = None;
            self.next = Some(request + 1);
            return Admission::Take;
        }
        let expected = self.next.unwrap_or(self.applied_before + 1);
        if request == 0 || request > expected {
            return Admission::Gap { expected };
        }
        // A lower number is one that is asked for again; it is answered from the session's ring.
        if self.next.is_none() || request == expected {
            self.next = Some(request + 1);
        }
        Admission::Take
    }

    /// This number and all above it were not taken.
    pub(in crate::gateway) fn shed_from(&mut self, request: u64) {
        self.shed = Some(request);
        self.notes.split_off(&request);
    }

    /// The client holds every answer below this number.
    pub(in crate::gateway) fn answered(&mut self, below: u64) {
        self.answered_below = self.answered_below.max(below);
    }

    /// What the client has said that it holds.
    #[must_use]
    pub(in crate::gateway) fn answered_below(&self) -> u64 {
        self.answered_below
    }

    /// Remembers something until the answer.
    pub(in crate::gateway) fn note(&mut self, request: u64, note: Note) {
        self.notes.insert(request, note);
    }

    /// What was remembered, when the answer has come.
    pub(in crate::gateway) fn take_note(&mut self, request: u64) -> Option<Note> {
        self.notes.remove(&request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_consecutive() {
        let mut requests = Requests::new(0);
        assert_eq!(requests.admit(2), Admission::Gap { expected: 1 });
        assert_eq!(requests.admit(0), Admission::Gap { expected: 1 });
        assert_eq!(requests.admit(1), Admission::Take);
        assert_eq!(requests.admit(2), Admission::Take);
        assert_eq!(requests.admit(4), Admission::Gap { expected: 3 });
        // Asked for again, and on.
        assert_eq!(requests.admit(1), Admission::Take);
        assert_eq!(requests.admit(3), Admission::Take);
    }

    #[test]
    fn a_resumed_session_may_begin_below_what_was_applied() {
        let mut requests = Requests::new(10);
        assert_eq!(requests.admit(12), Admission::Gap { expected: 11 });
        assert_eq!(requests.admit(7), Admission::Take);
        assert_eq!(requests.admit(8), Admission::Take);
        assert_eq!(requests.admit(10), Admission::Gap { expected: 9 });
        assert_eq!(Requests::new(10).admit(11), Admission::Take);
    }

    #[test]
    fn what_follows_a_shed_number_is_passed_over() {
        let mut requests = Requests::new(0);
        for request in 1..=3 {
            assert_eq!(requests.admit(request), Admission::Take);
            requests.note(request, Note::FollowUp(FollowUp::Changed));
        }
        requests.shed_from(2);
        assert_eq!(requests.take_note(3), None);
        assert!(requests.take_note(1).is_some());
        assert_eq!(requests.admit(4), Admission::PassOver);
        assert_eq!(requests.admit(3), Admission::PassOver);
        let last = 2 + SESSION_IN_FLIGHT_MAX as u64;
        assert_eq!(requests.admit(last), Admission::PassOver);
        assert_eq!(requests.admit(last + 1), Admission::Unheeding);
        assert_eq!(requests.admit(2), Admission::Take);
        assert_eq!(requests.admit(3), Admission::Take);
        requests.answered(2);
        requests.answered(1);
        assert_eq!(requests.answered_below(), 2);
    }
}
