//! What must hold of every run: one file for each property, each a pure function of the
//! [history](crate::history).
//!
//! An oracle says no by a [`Violation`] that names the operations, entries or nodes involved. It is
//! trusted only because its tests plant the faults that it is for into histories that are right
//! otherwise, and because it accepts every history of the [model](crate::model).

pub(crate) mod acknowledged;
pub(crate) mod delivery;
pub(crate) mod leaders;
pub(crate) mod linearizable;
pub(crate) mod liveness;
pub(crate) mod log_matching;
pub(crate) mod no_return;
pub(crate) mod pure_apply;
pub(crate) mod register;
pub(crate) mod session_order;
pub(crate) mod sessions;
pub(crate) mod state_hash;
pub(crate) mod witness;

use std::fmt;

use crate::history::History;
use crate::replay::Replay;

/// A property that a run does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Which oracle says so.
    pub(crate) oracle: &'static str,
    /// What it found.
    pub(crate) text: String,
}

impl Violation {
    pub(crate) fn new(oracle: &'static str, text: impl Into<String>) -> Self {
        Self { oracle, text: text.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.oracle, self.text)
    }
}

/// Everything that is wrong with a run: the first finding of each oracle.
pub(crate) fn judge(history: &History) -> Vec<Violation> {
    type OfHistory = fn(&History) -> Result<(), Violation>;
    type OfReplay = fn(&History, &Replay) -> Result<(), Violation>;
    let of_history: [OfHistory; 5] = [
        log_matching::check,
        leaders::check,
        no_return::check,
        linearizable::check,
        sessions::check,
    ];
    let of_replay: [OfReplay; 7] = [
        acknowledged::check,
        state_hash::check,
        pure_apply::check,
        witness::check,
        session_order::check,
        delivery::check,
        liveness::check,
    ];
    let found = of_history.into_iter().filter_map(|check| check(history).err());
    let mut found: Vec<Violation> = found.collect();
    match Replay::of(history) {
        Ok(replay) => {
            found.extend(of_replay.into_iter().filter_map(|check| check(history, &replay).err()));
        }
        Err(violation) => found.push(violation),
    }
    found
}
