//! The committed log of a run, put together from what all nodes held and applied once more on a
//! scratch machine: what every answer, every state and every event has to agree with.
//!
//! It trusts the nodes for nothing but which entries they called committed; that they agree on those
//! is for the [log oracle](crate::oracles::log_matching) to judge.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use quorate::domain::command::Command;
use quorate::domain::effect::{Effect, Event};
use quorate::domain::entry::{Origin, Payload, Proposal};
use quorate::domain::id::{Index, Position, SessionId, TopicId};
use quorate::domain::machine::{Answered, Machine};
use quorate::domain::outcome::Outcome;
use quorate::domain::topic::specification::Conflation;

use crate::history::{Body, Entry, History, number_of};
use crate::oracles::Violation;

const NAME: &str = "replay";

/// A committed log, applied.
#[derive(Debug)]
pub(crate) struct Replay {
    /// The committed entries, in order and without a hole.
    pub(crate) entries: Vec<Entry>,
    /// The state before the first entry and after each.
    machines: Vec<Machine>,
    /// Every command of the log, those that were refused or repeated too.
    pub(crate) commands: Vec<Replayed>,
    /// What the journal has to hold.
    pub(crate) events: Vec<Event>,
    /// Every topic that there ever was.
    pub(crate) topics: BTreeMap<TopicId, TopicLife>,
    by_request: BTreeMap<(SessionId, u64), Vec<usize>>,
}

/// One command of the log.
#[derive(Debug, Clone)]
pub(crate) struct Replayed {
    /// Where it stands.
    pub(crate) index: Index,
    /// Who sent it.
    pub(crate) origin: Origin,
    /// Its bytes.
    pub(crate) bytes: Bytes,
    /// What it says; none if it cannot be decoded.
    pub(crate) command: Option<Command>,
    /// Where it was first applied: elsewhere, if it stands here again.
    pub(crate) first: Index,
    /// What became of it.
    pub(crate) outcome: Outcome,
    /// Its events among all.
    pub(crate) events: Range<usize>,
}

impl Replayed {
    /// It stands in the log again; all that it does here is to be answered.
    pub(crate) fn is_repeat(&self) -> bool {
        self.first != self.index
    }
}

/// One topic from its addition to its removal.
#[derive(Debug, Clone)]
pub(crate) struct TopicLife {
    pub(crate) path: String,
    pub(crate) added: Position,
    pub(crate) removed: Option<Position>,
    /// Every value that was published, where it stands; none is null.
    pub(crate) values: Vec<(Position, Option<i64>)>,
    pub(crate) conflation: Conflation,
}

impl TopicLife {
    /// The values that were published up to and including this position.
    pub(crate) fn values_until(&self, position: Position) -> &[(Position, Option<i64>)] {
        let count = self.values.partition_point(|(at, _)| *at <= position);
        self.values.get(..count).unwrap_or_default()
    }
}

impl Replay {
    /// Puts the log together and applies it.
    ///
    /// # Errors
    /// A committed entry that nobody holds, or one that cannot be decoded.
    pub(crate) fn of(history: &History) -> Result<Self, Violation> {
        let entries = committed(history)?;
        let first = entries.first().map_or(1, |entry| entry.index);
        let mut before = Machine::new();
        before.pass(first.saturating_sub(1));
        let mut replay = Self {
            entries: Vec::new(),
            machines: vec![before],
            commands: Vec::new(),
            events: Vec::new(),
            topics: BTreeMap::new(),
            by_request: BTreeMap::new(),
        };
        for entry in entries {
            replay.apply(entry)?;
        }
        Ok(replay)
    }

    fn apply(&mut self, entry: Entry) -> Result<(), Violation> {
        let mut machine = self.machines.last().cloned().unwrap_or_default();
        match &entry.body {
            Body::Passes(_) => machine.pass(entry.index),
            Body::Commands(bytes) => {
                let payload = Payload::decode(bytes.clone()).map_err(|error| {
                    Violation::new(NAME, format!("committed {entry:?} cannot be read: {error}"))
                })?;
                let applied = machine.apply(entry.index, &payload);
                let from = self.events.len();
                for event in applied.events {
                    self.take(event);
                }
                let answers = payload.proposals.into_iter().zip(applied.outcomes);
                for ((proposal, answered), offset) in answers.zip(0..=u16::MAX) {
                    self.note(Index::new(entry.index, offset), proposal, answered, from);
                }
            }
        }
        self.entries.push(entry);
        self.machines.push(machine);
        Ok(())
    }

    /// Notes one command; its events are among those from `from` on.
    fn note(&mut self, index: Index, proposal: Proposal, answered: Answered, from: usize) {
        let events = self.events.get(from..).unwrap_or_default();
        let start = from + events.partition_point(|event| event.position.index < index);
        let end = from + events.partition_point(|event| event.position.index <= index);
        let Proposal { origin, command: bytes } = proposal;
        let command = Command::decode(bytes.clone()).ok();
        let Answered { index: first, outcome, .. } = answered;
        let commands = self.by_request.entry((origin.session, origin.request)).or_default();
        commands.push(self.commands.len());
        let events = start..end;
        self.commands.push(Replayed { index, origin, bytes, command, first, outcome, events });
    }

    fn take(&mut self, event: Event) {
        let position = event.position;
        match &event.effect {
            Effect::TopicAdded(info) => {
                let life = TopicLife {
                    path: info.path.to_string(),
                    added: position,
                    removed: None,
                    values: Vec::new(),
                    conflation: info.specification.conflation(),
                };
                self.topics.insert(info.id, life);
            }
            Effect::TopicRemoved(info) => {
                if let Some(life) = self.topics.get_mut(&info.id) {
                    life.removed = Some(position);
                }
            }
            Effect::Value { topic, value } => {
                if let Some(life) = self.topics.get_mut(&topic.id) {
                    life.values.push((position, value.as_ref().and_then(number_of)));
                }
            }
            Effect::SelectionsChanged { .. } | Effect::Session { .. } | Effect::Configuration => {}
        }
        self.events.push(event);
    }

    /// The newest committed entry.
    pub(crate) fn last(&self) -> u64 {
        self.newest().applied()
    }

    /// The state at the end.
    pub(crate) fn newest(&self) -> &Machine {
        self.machines.last().expect("the state before the first entry is always there")
    }

    /// The state after an entry; none if the log does not reach so far.
    pub(crate) fn after(&self, entry: u64) -> Option<&Machine> {
        // A log begins with entry 0 or 1, so what a state has applied does not tell its place.
        let first = self.entries.first().map_or(1, |entry| entry.index);
        self.machines.get(usize::try_from((entry + 1).checked_sub(first)?).ok()?)
    }

    /// The committed entry of an index.
    pub(crate) fn entry(&self, index: u64) -> Option<&Entry> {
        let first = self.entries.first()?.index;
        self.entries.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    /// The command at an index.
    pub(crate) fn command(&self, index: Index) -> Option<&Replayed> {
        let place = self.commands.binary_search_by_key(&index, |command| command.index).ok()?;
        self.commands.get(place)
    }

    /// Every place in the log at which a session's request stands, in order.
    pub(crate) fn request(
        &self,
        session: SessionId,
        request: u64,
    ) -> impl Iterator<Item = &Replayed> {
        let places = self.by_request.get(&(session, request)).map(Vec::as_slice);
        places.unwrap_or_default().iter().filter_map(|place| self.commands.get(*place))
    }

    /// The place at which a session's request was carried out or refused for good.
    pub(crate) fn decided(&self, session: SessionId, request: u64) -> Option<&Replayed> {
        let void = [201, 202, 204, 205];
        self.request(session, request).find(|command| match &command.outcome {
            // Void: the number stayed open, or the answer had been given.
            Outcome::Rejected(reason) => !void.contains(&reason.code()),
            _ => true,
        })
    }
}

/// The entries that some node held and called committed, from the first on.
fn committed(history: &History) -> Result<Vec<Entry>, Violation> {
    let mut entries = BTreeMap::new();
    for view in &history.logs {
        for entry in view.entries.iter().take_while(|entry| entry.index <= view.committed) {
            entries.entry(entry.index).or_insert_with(|| entry.clone());
        }
    }
    let newest = history.logs.iter().map(|view| view.committed).max().unwrap_or(0);
    let mut expected = entries.keys().next().copied().unwrap_or(0);
    if expected > 1 {
        let text = format!("nobody has shown the log before entry {expected}");
        return Err(Violation::new(NAME, text));
    }
    for index in entries.keys() {
        if *index != expected {
            break;
        }
        expected += 1;
    }
    if expected <= newest {
        let text = format!("entry {newest} is committed, but nobody holds entry {expected}");
        return Err(Violation::new(NAME, text));
    }
    Ok(entries.into_values().collect())
}

#[cfg(test)]
mod tests {
    use quorate::domain::machine::Machine;

    use super::Replay;
    use crate::history::{Body, History};
    use crate::model::Model;

    #[test]
    fn states_and_entries_of_logs_that_begin_with_zero_and_one() {
        let one = Model::history(1);
        let mut zero = one.clone();
        for view in &mut zero.logs {
            if view.first == 1 {
                let mut blank = view.entries[0].clone();
                (blank.index, blank.body) = (0, Body::Passes(bytes::Bytes::new()));
                view.entries.insert(0, blank);
                view.first = 0;
            }
        }
        let replays = [&one, &zero].map(|history: &History| Replay::of(history).unwrap());
        for entry in 1..=replays[0].last() {
            let [one, zero] = [&replays[0], &replays[1]].map(|replay| replay.after(entry));
            assert_eq!(one.map(Machine::applied), Some(entry));
            assert_eq!(one.map(Machine::hash), zero.map(Machine::hash));
            assert_eq!(replays[1].entry(entry).map(|entry| entry.index), Some(entry));
        }
        assert!(replays.iter().all(|replay| replay.after(replay.last() + 1).is_none()));
    }
}
