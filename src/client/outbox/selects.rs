//! Changes of selections and listeners of which not all has been told: what a resume has to say of
//! them, and whom their completion is told to.

use std::collections::BTreeMap;

use crate::client::deliveries::Begun;
use crate::domain::id::{Index, Position};

/// Changes of selections and listeners of which not all has arrived.
#[derive(Debug, Default)]
pub(in crate::client) struct Selects {
    open: BTreeMap<u64, OpenSelect>,
    /// The node owes all that is new, after a resume or a reset.
    all_owed: bool,
    starting_over: StartingOver,
}

#[derive(Debug)]
struct OpenSelect {
    /// Which local stream of events asked; 0 for none.
    subscription: u64,
    /// How far events had come when it was sent.
    begun: Begun,
    /// Where it was applied.
    answered: Option<Index>,
    delivered: bool,
    /// Its values come with those of everything.
    covered: bool,
}

/// What is known of a start over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum StartingOver {
    /// There is none.
    #[default]
    No,
    /// The welcome has said that there is one, if anything is selected at all.
    Expected,
    /// The node has not told everything yet.
    Begun,
}

impl Selects {
    /// The command `request` changes what the session hears of, on behalf of a local stream of events
    /// or of none (0); events had come so far.
    pub(in crate::client) fn sent(&mut self, request: u64, subscription: u64, begun: Begun) {
        let (answered, delivered, covered) = (None, false, false);
        let select = OpenSelect { subscription, begun, answered, delivered, covered };
        self.open.insert(request, select);
    }

    /// It has been answered. No index: it was refused.
    pub(super) fn answered(&mut self, request: u64, index: Option<Index>) {
        if let Some(select) = self.open.get_mut(&request) {
            select.answered = index;
            if index.is_none() || select.delivered {
                self.open.remove(&request);
            }
        }
    }

    /// Another connection goes on. `all_owed`: initial values of all that is new since the resume
    /// position follow, those of the changes up to the request `last` among them.
    pub(super) fn reconnected(&mut self, last: u64, all_owed: bool) {
        for (request, select) in &mut self.open {
            select.covered = all_owed && *request <= last;
        }
        self.all_owed = self.open.values().any(|select| select.covered);
    }

    /// Initial values or notices are still owed: a resume has to say so.
    pub(in crate::client) fn is_any_unfinished(&self) -> bool {
        self.all_owed || self.starting_over == StartingOver::Begun || !self.open.is_empty()
    }

    /// How far events had come before the oldest change that is not told to its end.
    pub(in crate::client) fn begun_before(&self) -> Option<Begun> {
        self.open.values().map(|select| select.begun).min()
    }

    /// The session starts over and has not been told everything yet: what it knows is no base.
    pub(in crate::client) fn is_starting_over(&self) -> bool {
        self.starting_over != StartingOver::No
    }

    /// The welcome says that the session is to be reset: until that has come, what it knows is no base.
    pub(in crate::client) fn expect_reset(&mut self) {
        self.starting_over = StartingOver::Expected;
    }

    /// The node has reset the session and owes initial values of everything as of this position.
    pub(in crate::client) fn reset(&mut self, position: Position) {
        self.all_owed = true;
        self.starting_over = StartingOver::Begun;
        for select in self.open.values_mut() {
            select.covered |= select.answered.is_some_and(|index| index <= position.index);
            // Positions before the reset may be of another history.
            select.begun = Begun::default();
        }
    }

    /// The initial values of this change, or (0) of everything, have all been delivered. Returns the
    /// local streams of events that have them now.
    pub(in crate::client) fn delivered(&mut self, request: u64) -> Vec<u64> {
        if request == 0 {
            self.all_owed = false;
        }
        if request == 0 || self.starting_over == StartingOver::Expected {
            self.starting_over = StartingOver::No;
        }
        let mut ready = Vec::new();
        self.open.retain(|number, select| {
            // A node that is sent a covered selection again announces nothing new for it: its values
            // are on their way with those of everything.
            let told_by = if select.covered { 0 } else { *number };
            if told_by == request {
                if !std::mem::replace(&mut select.delivered, true) {
                    ready.push(select.subscription);
                }
                return select.answered.is_none();
            }
            true
        });
        ready
    }
}
