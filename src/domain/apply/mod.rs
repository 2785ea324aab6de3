//! One file per command, each a free function over the parts that it may change.
//!
//! A function checks everything before it changes anything: a rejection leaves no trace but the
//! answer. None can panic and none can fail.

pub(super) mod add_topic;
pub(super) mod close_session;
pub(super) mod detach_session;
pub(super) mod expire_sessions;
pub(super) mod found;
pub(super) mod listen;
pub(super) mod move_session;
pub(super) mod node_lost;
pub(super) mod node_started;
pub(super) mod open_session;
pub(super) mod open_stream;
pub(super) mod open_topic;
mod publish;
pub(super) mod refused;
pub(super) mod remove_topics;
pub(super) mod select;
pub(super) mod set_anonymous;
pub(super) mod set_by_path;
pub(super) mod set_password;
pub(super) mod set_topic;
#[cfg(test)]
pub(super) mod stage;
pub(super) mod unlisten;
pub(super) mod update;

use super::effect::{Effect, Event};
use super::entry::Origin;
use super::id::{Index, Position};
use super::outcome::{Outcome, Rejection};

/// What a command does in the end.
pub(super) type Decision = Result<Outcome, Rejection>;

/// The command's place and sender, and the time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    /// Where the command stands in the log.
    pub(super) index: Index,
    /// Who sent it.
    pub(super) origin: Origin,
    /// Log time of its entry.
    pub(super) log_time_ms: u64,
}

/// The events of one command, appended to those of its entry.
#[derive(Debug)]
pub(super) struct Effects<'a> {
    events: &'a mut Vec<Event>,
    index: Index,
    ordinal: u32,
}

impl<'a> Effects<'a> {
    /// None yet.
    pub(super) fn new(events: &'a mut Vec<Event>, index: Index) -> Self {
        Self { events, index, ordinal: 0 }
    }

    /// Appends an event.
    pub(super) fn push(&mut self, effect: Effect) {
        let position = Position { index: self.index, ordinal: self.ordinal };
        self.events.push(Event { position, last: false, effect });
        self.ordinal += 1;
    }

    /// The command has no more.
    pub(super) fn finish(self) {
        if self.ordinal > 0
            && let Some(event) = self.events.last_mut()
        {
            event.last = true;
        }
    }
}
