//! Every stream of events is the journal's: for each topic that it introduces, every value that the
//! log publishes from there on, once and in order, over all the nodes that serve it; and topics come
//! and go in it as they do in the log.
//!
//! The journal is what [replaying](crate::replay) the log emits, so an update that changes nothing
//! is in no stream. Values of conflatable topics may be left out where the stream says so. A reset
//! must have a reason that can be true, and the values after it must be current.

use std::collections::BTreeMap;

use quorate::client::{ResetReason, UnsubscribeReason};
use quorate::domain::id::{Index, Position, TopicId};
use quorate::domain::selector::Selector;
use quorate::domain::topic::specification::Conflation;

use super::Violation;
use crate::history::{Delivery, Heard, History, Stream};
use crate::replay::{Replay, TopicLife};

const NAME: &str = "streams are the journal's";
/// Deliveries that a violation shows.
const EARLIER_MAX: usize = 12;

pub(crate) fn check(history: &History, replay: &Replay) -> Result<(), Violation> {
    let is_purged = history.logs.iter().any(|view| view.first > 1);
    for stream in &history.streams {
        let selector = Selector::parse(&stream.selector).map_err(|error| {
            Violation::new(NAME, format!("{stream} has no legal selector: {error}"))
        })?;
        let acknowledged = history
            .operations
            .iter()
            .filter(|operation| operation.answered.is_some_and(|at| at < stream.opened))
            .filter_map(|operation| operation.index())
            .max();
        // A stream that was dropped may have been dropped before it was told.
        let told = |delivery: &Delivery| matches!(delivery.heard, Heard::Lagged { .. });
        let lagged = stream.closed.is_some() || stream.deliveries.iter().any(told);
        let mut reader = Reader {
            stream,
            lagged,
            replay,
            selector,
            is_purged,
            acknowledged: acknowledged.unwrap_or_default(),
            topics: BTreeMap::new(),
            marks: Marks::default(),
        };
        let mut before = None;
        for (place, delivery) in stream.deliveries.iter().enumerate() {
            reader.take(delivery, before).map_err(|text| {
                let earlier = around(stream, place);
                Violation::new(NAME, format!("{stream}: {delivery}: {text}{earlier}"))
            })?;
            before = Some(delivery);
        }
        if history.ending.is_some() && stream.closed.is_none() {
            reader.rests().map_err(|text| {
                let earlier = around(stream, stream.deliveries.len());
                Violation::new(NAME, format!("{stream}: at rest: {text}{earlier}"))
            })?;
        }
    }
    Ok(())
}

/// What a stream has told shortly before a place, and every sudden turn that it took.
fn around(stream: &Stream, place: usize) -> String {
    let turn = |heard: &Heard| !matches!(heard, Heard::Value { .. } | Heard::Subscribed { .. });
    let told = stream.deliveries.iter().take(place).enumerate();
    let lines = told
        .filter(|(at, delivery)| at + EARLIER_MAX >= place || turn(&delivery.heard))
        .map(|(_, delivery)| format!("\n    before: {delivery}"));
    lines.collect()
}

/// What a stream is known to have told of one topic.
#[derive(Debug, Clone, Copy)]
enum Told {
    /// It was introduced here, without a value.
    Introduced(Position),
    /// Every value up to here.
    Until(Position),
}

/// What was heard of the stream as a whole.
#[derive(Debug, Default)]
struct Marks {
    /// The newest event that was no initial value.
    newest: Position,
    /// Where it went on over another connection last.
    moved: Option<Position>,
    /// Where it was reset last.
    reset: Option<Position>,
    current: bool,
    values: usize,
}

struct Reader<'a> {
    stream: &'a Stream,
    replay: &'a Replay,
    selector: Selector,
    /// It says somewhere that values were left out.
    lagged: bool,
    /// Some node held no longer all of its log.
    is_purged: bool,
    /// The newest index that anybody was told of before the stream was asked for.
    acknowledged: Index,
    topics: BTreeMap<TopicId, Told>,
    marks: Marks,
}

impl<'a> Reader<'a> {
    fn life(&self, topic: TopicId) -> Result<&'a TopicLife, String> {
        self.replay.topics.get(&topic).ok_or_else(|| "the log has no such topic".to_owned())
    }

    fn take(&mut self, delivery: &Delivery, before: Option<&Delivery>) -> Result<(), String> {
        let position = delivery.position;
        match &delivery.heard {
            Heard::Subscribed { topic, path } => self.subscribed(*topic, path, position),
            Heard::Value { topic, value, initial: true } => {
                let introduced = before.is_some_and(|before| {
                    matches!(&before.heard, Heard::Subscribed { topic: other, .. } if other == topic)
                });
                if !introduced {
                    return Err("an initial value without its topic's introduction".to_owned());
                }
                self.initial(*topic, position, *value)
            }
            Heard::Value { topic, value, initial: false } => self.value(*topic, position, *value),
            Heard::Unsubscribed { topic, reason } => self.unsubscribed(*topic, position, *reason),
            Heard::Current => self.current(),
            Heard::Reset { reason } => self.reset(position, *reason),
            Heard::Lagged { .. } => Ok(()),
            Heard::Moved => {
                self.marks.moved = Some(position);
                Ok(())
            }
        }
    }

    /// Events of the event stream stand in the order of their positions.
    fn in_order(&mut self, position: Position) -> Result<(), String> {
        if position < self.marks.newest {
            return Err(format!("comes after {}", self.marks.newest));
        }
        self.marks.newest = position;
        Ok(())
    }

    fn subscribed(&mut self, topic: TopicId, path: &str, at: Position) -> Result<(), String> {
        let life = self.life(topic)?;
        if life.path != path || !self.selector.matches_str(path) {
            return Err(format!("{topic} stands at {:?}, which is not selected", life.path));
        }
        if self.topics.contains_key(&topic) {
            return Err("is subscribed already".to_owned());
        }
        if at < life.added {
            return Err(format!("the topic was added at {}", life.added));
        }
        self.topics.insert(topic, Told::Introduced(at));
        Ok(())
    }

    fn initial(&mut self, topic: TopicId, at: Position, value: Option<i64>) -> Result<(), String> {
        let life = self.life(topic)?;
        let published = life.values.iter().find(|(position, _)| position.index == at.index);
        let Some((position, _)) = published.filter(|(_, published)| *published == value) else {
            return Err(format!("the log publishes {published:?} there"));
        };
        // What was missed is not told again, so a start over shows nothing older than itself.
        if let Some(reset) = self.marks.reset
            && let Some(newer) = between(life, *position, reset).first()
        {
            return Err(format!("is older than {newer:?}, which was there at the reset {reset}"));
        }
        self.topics.insert(topic, Told::Until(*position));
        Ok(())
    }

    fn value(&mut self, topic: TopicId, at: Position, value: Option<i64>) -> Result<(), String> {
        let life = self.life(topic)?;
        let Some(told) = self.topics.get(&topic).copied() else {
            return Err("the topic is not subscribed".to_owned());
        };
        self.in_order(at)?;
        let published = life.values.iter().find(|(position, _)| *position == at);
        if published.is_none_or(|(_, published)| *published != value) {
            return Err(format!("the log publishes {published:?} there"));
        }
        let missed = match told {
            Told::Until(until) if at <= until => {
                return Err(format!("was told before: everything up to {until} was"));
            }
            Told::Until(until) => before(life, until, at),
            Told::Introduced(introduced) => self.missed_first(life, introduced, at),
        };
        if let Some(missed) = missed.first() {
            self.may_miss(life, *missed)?;
        }
        self.marks.values += 1;
        self.topics.insert(topic, Told::Until(at));
        Ok(())
    }

    /// What is missing between the introduction of a topic without a value and its next event.
    ///
    /// Either it had no value then, and everything that was published later follows; or the stream
    /// had gone on over another connection, and what was published after that follows.
    fn missed_first(
        &self,
        life: &'a TopicLife,
        introduced: Position,
        at: Position,
    ) -> &'a [(Position, Option<i64>)] {
        let known = life.values_until(introduced);
        let newest = known.last();
        let had_none = newest.is_none_or(|(_, value)| value.is_none());
        if had_none && at > introduced && before(life, introduced, at).is_empty() {
            return &[];
        }
        match self.marks.moved {
            Some(moved) if newest.is_some_and(|(set, _)| *set > moved) => before(life, moved, at),
            _ if had_none => before(life, introduced, at),
            _ => known,
        }
    }

    fn may_miss(&self, life: &TopicLife, missed: (Position, Option<i64>)) -> Result<(), String> {
        match life.conflation {
            Conflation::Always | Conflation::Unsubscribe => Ok(()),
            Conflation::Conflate if self.lagged => Ok(()),
            Conflation::Off | Conflation::Conflate => {
                Err(format!("{:?} at {} is missing before it", missed.1, missed.0))
            }
        }
    }

    fn unsubscribed(
        &mut self,
        topic: TopicId,
        at: Position,
        reason: UnsubscribeReason,
    ) -> Result<(), String> {
        self.in_order(at)?;
        let life = self.life(topic)?;
        let Some(told) = self.topics.remove(&topic) else {
            return Err("the topic is not subscribed".to_owned());
        };
        match reason {
            UnsubscribeReason::Removed if life.removed == Some(at) => {}
            UnsubscribeReason::Requested => {
                let state = self.replay.after(at.index.entry());
                let session = state.and_then(|state| state.session(self.stream.session));
                if session.is_some_and(|session| session.selections().matches_str(&life.path)) {
                    return Err("the session still selects the topic there".to_owned());
                }
            }
            UnsubscribeReason::BackPressure if life.conflation == Conflation::Unsubscribe => {
                return Ok(());
            }
            _ => return Err(format!("the topic was removed at {:?}", life.removed)),
        }
        let missed = match told {
            Told::Until(until) => between(life, until, at),
            Told::Introduced(introduced) => self.missed_first(life, introduced, at),
        };
        missed.first().map_or(Ok(()), |missed| self.may_miss(life, *missed))
    }

    /// Everything that was acknowledged before the stream was asked for has been told.
    fn current(&mut self) -> Result<(), String> {
        if std::mem::replace(&mut self.marks.current, true) {
            return Ok(());
        }
        let asked = Position { index: self.acknowledged, ordinal: u32::MAX };
        for (topic, life) in &self.replay.topics {
            let lives = life.added <= asked && life.removed.is_none();
            if !lives || !self.selector.matches_str(&life.path) {
                continue;
            }
            let Some(told) = self.topics.get(topic) else {
                return Err(format!("{:?} was there before and is not subscribed", life.path));
            };
            let newest = life.values_until(asked).last();
            let is_told = match (told, newest) {
                (_, None | Some((_, None))) => true,
                (Told::Until(until), Some((newest, _))) => until >= newest,
                // It has none any more, or its value follows from where the stream went on.
                (Told::Introduced(at), Some((newest, _))) => {
                    let last = life.values_until(*at).last();
                    let has_none = at >= newest && last.is_some_and(|(_, value)| value.is_none());
                    has_none || self.marks.moved.is_some_and(|moved| *newest > moved)
                }
            };
            if !is_told {
                return Err(format!(
                    "{:?} was set to {newest:?} before, told is {told:?}",
                    life.path
                ));
            }
        }
        Ok(())
    }

    fn reset(&mut self, at: Position, reason: ResetReason) -> Result<(), String> {
        let can_be = match reason {
            ResetReason::Asked => self.marks.values == 0,
            ResetReason::Purged | ResetReason::SnapshotInstalled => self.is_purged,
            ResetReason::OtherLineage => false,
            _ => true,
        };
        if !can_be {
            return Err("there was no reason for it".to_owned());
        }
        self.in_order(at)?;
        self.topics.clear();
        self.marks = Marks { newest: at, reset: Some(at), ..Marks::default() };
        Ok(())
    }

    /// Nothing is on its way any more: everything there is has been told.
    fn rests(&self) -> Result<(), String> {
        let end = Position::end_of_entry(self.replay.last());
        for (topic, life) in &self.replay.topics {
            let wanted = life.removed.is_none() && self.selector.matches_str(&life.path);
            match (wanted, self.topics.get(topic)) {
                (false, Some(_)) => {
                    return Err(format!("{:?} was removed, and that was not told", life.path));
                }
                (true, None) => return Err(format!("{:?} was never subscribed", life.path)),
                (true, Some(Told::Until(until))) => {
                    if let Some(missed) = between(life, *until, end).last() {
                        return Err(format!("{:?}: {missed:?} was never told", life.path));
                    }
                }
                (true, Some(Told::Introduced(_))) => {
                    if let Some((at, Some(value))) = life.values.last() {
                        return Err(format!("{:?}: {value} at {at} was never told", life.path));
                    }
                }
                (false, None) => {}
            }
        }
        Ok(())
    }
}

/// The values that were published after `from`, up to and including `to`.
fn between(life: &TopicLife, from: Position, to: Position) -> &[(Position, Option<i64>)] {
    let start = life.values.partition_point(|(at, _)| *at <= from);
    let end = life.values.partition_point(|(at, _)| *at <= to);
    life.values.get(start..end).unwrap_or_default()
}

/// The values that were published after `from` and before `to`.
fn before(life: &TopicLife, from: Position, to: Position) -> &[(Position, Option<i64>)] {
    let start = life.values.partition_point(|(at, _)| *at <= from);
    let end = life.values.partition_point(|(at, _)| *at < to);
    life.values.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    fn verdict(history: &History) -> Result<(), Violation> {
        check(history, &Replay::of(history).unwrap())
    }

    /// Plants a fault into many histories; where it can be planted it must be found.
    fn refused_in_many(words: &[&str], plant: impl Fn(&mut Stream, &Replay) -> bool) {
        let mut planted = 0;
        for seed in 0..30 {
            let mut history = Model::history(seed);
            verdict(&history).unwrap();
            let replay = Replay::of(&history).unwrap();
            if !history.streams.iter_mut().any(|stream| plant(stream, &replay)) {
                continue;
            }
            planted += 1;
            let text = verdict(&history).unwrap_err().text;
            assert!(words.iter().any(|word| text.contains(word)), "{words:?}: {text}");
        }
        assert!(planted > 10, "planted {planted} times");
    }

    /// The place of a value that stands between two others of its topic, and the one behind it. What
    /// is told right after an introduction or a start over may begin anywhere, and of a topic that
    /// conflates values may be left out.
    fn value_with_next(stream: &Stream, replay: &Replay) -> Option<(usize, usize)> {
        let mut told: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
        for (place, delivery) in stream.deliveries.iter().enumerate() {
            match delivery.heard {
                Heard::Value { topic, initial: false, .. }
                    if replay.topics[&topic].conflation == Conflation::Off =>
                {
                    let places = told.entry(topic).or_default();
                    places.push(place);
                    if let [_, between, next] = places[..] {
                        return Some((between, next));
                    }
                }
                Heard::Value { .. } => {}
                _ => told.clear(),
            }
        }
        None
    }

    /// The first place at which something is heard that is not lost by a later start over.
    fn place_of(stream: &Stream, wanted: impl Fn(&Heard) -> bool) -> Option<usize> {
        let resets = |delivery: &Delivery| matches!(delivery.heard, Heard::Reset { .. });
        let from = stream.deliveries.iter().rposition(resets).map_or(0, |place| place + 1);
        let found = stream.deliveries[from..].iter().position(|delivery| wanted(&delivery.heard));
        found.map(|place| from + place)
    }

    #[test]
    fn a_duplicate() {
        refused_in_many(&["told before"], |stream, replay| {
            let Some((place, _)) = value_with_next(stream, replay) else { return false };
            let again = stream.deliveries[place].clone();
            stream.deliveries.insert(place + 1, again);
            true
        });
    }

    #[test]
    fn a_gap() {
        refused_in_many(&["is missing before it"], |stream, replay| {
            let Some((place, _)) = value_with_next(stream, replay) else { return false };
            stream.deliveries.remove(place);
            true
        });
    }

    #[test]
    fn a_gap_that_a_move_left() {
        refused_in_many(&["is missing before it"], |stream, replay| {
            let Some((place, _)) = value_with_next(stream, replay) else { return false };
            stream.deliveries[place].heard = Heard::Moved;
            true
        });
    }

    #[test]
    fn a_reorder() {
        refused_in_many(&["comes after", "is missing before"], |stream, replay| {
            let Some((place, next)) = value_with_next(stream, replay) else { return false };
            stream.deliveries.swap(place, next);
            true
        });
    }

    #[test]
    fn a_value_that_is_not_the_logs() {
        refused_in_many(&["the log publishes"], |stream, replay| {
            let Some((place, _)) = value_with_next(stream, replay) else { return false };
            let Heard::Value { value, .. } = &mut stream.deliveries[place].heard else {
                return false;
            };
            *value = Some(-7);
            true
        });
    }

    #[test]
    fn an_early_end() {
        refused_in_many(&["never told", "never subscribed"], |stream, _| {
            let is_value = |delivery: &Delivery| {
                matches!(delivery.heard, Heard::Value { initial: false, value: Some(_), .. })
            };
            let Some(last) = stream.deliveries.iter().rposition(is_value) else { return false };
            stream.deliveries.truncate(last);
            stream.closed.is_none()
        });
    }

    #[test]
    fn a_reset_without_reason_or_with_old_values() {
        refused_in_many(&["no reason"], |stream, replay| {
            let Some((place, _)) = value_with_next(stream, replay) else { return false };
            let mut reset = stream.deliveries[place].clone();
            reset.heard = Heard::Reset { reason: ResetReason::OtherLineage };
            stream.deliveries.insert(place + 1, reset);
            true
        });
        refused_in_many(&["was there at the reset"], |stream, _| {
            // After the reset the topic is introduced with a value that it had before.
            let resets = |delivery: &Delivery| matches!(delivery.heard, Heard::Reset { .. });
            let Some(reset) = stream.deliveries.iter().position(resets) else { return false };
            for place in reset..stream.deliveries.len() {
                let Heard::Value { topic, initial: true, .. } = stream.deliveries[place].heard
                else {
                    continue;
                };
                let older = stream.deliveries[..reset].iter().find(|older| {
                    matches!(older.heard, Heard::Value { topic: other, initial: false, .. } if other == topic)
                        && older.position.index < stream.deliveries[place].position.index
                });
                let Some(older) = older.cloned() else { continue };
                let Heard::Value { value, .. } = older.heard else { continue };
                for changed in [place - 1, place] {
                    stream.deliveries[changed].position = older.position;
                }
                stream.deliveries[place].heard = Heard::Value { topic, value, initial: true };
                return true;
            }
            false
        });
    }

    #[test]
    fn topics_that_come_and_go() {
        refused_in_many(&["is not subscribed"], |stream, _| {
            let initial = |heard: &Heard| matches!(heard, Heard::Value { initial: true, .. });
            let Some(place) = place_of(stream, initial) else { return false };
            let Heard::Value { initial, .. } = &mut stream.deliveries[place].heard else {
                return false;
            };
            *initial = false;
            stream.deliveries.remove(place - 1);
            true
        });
        refused_in_many(&["subscribed already"], |stream, _| {
            let place = stream
                .deliveries
                .iter()
                .position(|delivery| matches!(delivery.heard, Heard::Subscribed { .. }));
            let Some(place) = place else { return false };
            let again = stream.deliveries[place].clone();
            stream.deliveries.insert(place, again);
            true
        });
        refused_in_many(&["was not told", "no such", "not subscribed", "already"], |stream, _| {
            let gone = |heard: &Heard| matches!(heard, Heard::Unsubscribed { .. });
            let Some(removed) = place_of(stream, gone) else { return false };
            stream.deliveries.remove(removed);
            stream.closed.is_none()
        });
        refused_in_many(&["was removed at"], |stream, replay| {
            let Some((place, _)) = value_with_next(stream, replay) else { return false };
            let Heard::Value { topic, .. } = stream.deliveries[place].heard else { return false };
            let reason = UnsubscribeReason::Removed;
            stream.deliveries[place].heard = Heard::Unsubscribed { topic, reason };
            true
        });
    }

    #[test]
    fn initial_values() {
        refused_in_many(&["was set to", "the log publishes", "is missing"], |stream, _| {
            let initial = |heard: &Heard| matches!(heard, Heard::Value { initial: true, .. });
            let Some(place) = place_of(stream, initial) else { return false };
            stream.deliveries.remove(place);
            stream.closed.is_none()
        });
    }
}
