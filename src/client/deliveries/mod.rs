//! What the session is subscribed to, how far its events have come, and which local stream hears
//! what.
//!
//! Plain state without I/O. It takes decoded frames of the event stream and of bulk streams, drops
//! what was seen before, and leaves batches of events for each local stream.

mod known;
mod local_streams;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use known::{Known, KnownTopics};
use local_streams::LocalStreams;
pub(super) use local_streams::{Flushed, Sort};

use super::event::{Event, Topic};
use crate::domain::id::{Index, Lineage, Position, TopicId};
use crate::entropy::HashMap;
use crate::protocol::delivery::{
    self, BulkMessage, EventMessage, NotifiedChange, UnsubscribeReason,
};
use crate::protocol::handshake::ResetReason;

/// Topics that have ended while a bulk stream was under way; until it has come to its end no more may.
const ENDED_MAX: usize = 65_536;

/// The node broke the rules of the protocol; the connection is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("an event before the head of the event stream")]
    NoHead,
    #[error("a second head of the event stream")]
    SecondHead,
    #[error("a value of a topic that was never introduced")]
    UnknownTopic,
    #[error("a bulk stream that does not begin with its head, or goes on after its end")]
    Bulk,
}

/// How far events had come at some moment; none: they had not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Begun(Option<Position>);

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is done with.
    Done,
    /// It cannot be understood before an announced bulk stream has come further; here it is again.
    Later(EventMessage),
    /// The initial values of these selections (0: of everything) are complete.
    Complete(Vec<u64>),
    /// The session was reset: what follows is as of this position.
    Reset(Position),
}

/// Initial values that have been announced.
#[derive(Debug)]
struct Announced {
    /// The selection that they answer.
    request: u64,
    /// The bulk stream that brings them; none: it has come to its end, or nothing was to be brought.
    bulk: Option<u64>,
}

/// How far the event stream of the connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    /// Its head has not; changes of selections that another connection did not tell to their end are
    /// owed, or are not.
    Headless {
        changes_owed: bool,
    },
    /// Such changes are being told: until their initial values are announced, events of topics that are
    /// not known are no news.
    CatchingUp,
    Flowing,
}

/// Whether the session's events are of the past that it was asked to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replay {
    /// They are not, or no longer.
    Over,
    /// They are to be; it is not known yet up to where.
    Begun,
    /// They are up to here.
    Until(Position),
}

/// The state of a session's events on the client.
#[derive(Debug)]
pub(super) struct Deliveries {
    retain_values: bool,
    lineage: Lineage,
    /// The newest event taken.
    newest: Position,
    /// The last listener that was notified of it: several may be, by rising numbers.
    newest_listener: Option<u32>,
    /// Every event up to here has been taken; none before the first event stream has begun.
    complete: Option<Position>,
    /// Where the session's first event stream began.
    first: Option<Position>,
    replay: Replay,
    stream: Stream,
    /// Anything has been heard at all.
    heard: bool,
    topics: KnownTopics,
    /// Initial values that are not complete, in the order of their announcement.
    announced: VecDeque<Announced>,
    /// Where topics have ended that a bulk stream of before may still bring.
    ended: HashMap<TopicId, Position>,
    /// Topics that a node unsubscribed since their events were taken too slowly: another node does not
    /// know of it.
    taken_too_slowly: BTreeSet<TopicId>,
    streams: LocalStreams,
    /// The position from which the session was to begin is not one that the node could go on from:
    /// what each stream hears first.
    refused_start: Option<Event>,
}

impl Deliveries {
    /// `from` is where the session's events are to start, if it is not with present values.
    pub(super) fn new(retain_values: bool, lineage: Lineage, from: Option<Position>) -> Self {
        Self {
            retain_values,
            lineage,
            newest: Position::START,
            newest_listener: None,
            complete: from,
            first: from,
            replay: if from.is_some() { Replay::Begun } else { Replay::Over },
            stream: Stream::Headless { changes_owed: false },
            heard: false,
            topics: KnownTopics::default(),
            announced: VecDeque::new(),
            ended: HashMap::default(),
            taken_too_slowly: BTreeSet::new(),
            streams: LocalStreams::default(),
            refused_start: None,
        }
    }

    /// The session begins here and with present values, not where it was asked to begin.
    pub(super) fn refuse_start(&mut self, position: Position, reason: ResetReason) {
        self.complete = None;
        self.first = None;
        self.replay = Replay::Over;
        self.refused_start = Some(Event::Reset { position, reason, lineage: self.lineage });
    }

    /// Where a resume goes on; no position asks for present values. `unfinished`: how far events had
    /// come before the oldest change of selections of which not all was told; the node has to know
    /// what the session heard of before it.
    pub(super) fn resume_position(&self, unfinished: Option<Begun>) -> (Lineage, Option<Position>) {
        let held = match unfinished {
            None => self.complete,
            Some(Begun(Some(position))) => Some(position),
            Some(Begun(None)) => self.first,
        };
        (self.lineage, self.complete.min(held))
    }

    /// Events of the past are still to come: a resume has to say so.
    pub(super) fn is_replaying(&self) -> bool {
        match self.replay {
            Replay::Over => false,
            Replay::Begun => true,
            Replay::Until(end) => self.complete < Some(end),
        }
    }

    /// How far events have come, for a change of selections that is about to be sent.
    pub(super) fn begun(&self) -> Begun {
        Begun(self.complete)
    }

    /// The newest event taken: a node that serves the session next must have come as far.
    pub(super) fn newest(&self) -> Index {
        self.newest.index
    }

    /// Adds a local stream of events. It hears at once of the matching topics that the session is
    /// subscribed to already.
    pub(super) fn subscribe(&mut self, sort: Sort, sender: mpsc::Sender<Vec<Event>>) -> u64 {
        let hears = match &sort {
            Sort::Topics(selector) => Some(Arc::clone(selector)),
            Sort::Listener => None,
        };
        let (number, waiting) = self.streams.add(sort, sender);
        if let Some(selector) = hears {
            if let Some(reset) = &self.refused_start {
                waiting.push(reset.clone());
            }
            for known in self.topics.add_route(number, |path| selector.matches(path)) {
                known.introduce(waiting);
            }
        }
        number
    }

    /// Removes a local stream of events; whether it was there, and as what.
    pub(super) fn unsubscribe(&mut self, number: u64) -> Option<Sort> {
        let removed = self.streams.remove(number)?;
        if let Sort::Topics(_) = &removed {
            self.topics.remove_route(number);
        }
        Some(removed)
    }

    /// The session listens to anything at all, so that the node owes it beats.
    pub(super) fn is_listening(&self) -> bool {
        !self.streams.is_empty()
    }

    /// The session goes on over a new connection, served by this node. `changes_owed`: what belongs to
    /// changes of selections follows once more.
    pub(super) fn reconnected(&mut self, node: &Arc<str>, changes_owed: bool) {
        self.stream = Stream::Headless { changes_owed };
        self.forget_bulks();
        let position = self.newest;
        self.streams.tell_all(&Event::Moved { position, node: Arc::clone(node) });
    }

    /// A local stream has all the values that its topics had when they were selected, or has heard
    /// of all the topics that were there. `finished`: no change is unfinished, so that no other node
    /// begins again with what listeners were told.
    pub(super) fn tell_current(&mut self, numbers: &[u64], finished: bool) {
        self.streams.tell_current(numbers, self.newest);
        if finished {
            self.streams.end_of_lists();
        }
    }

    /// Takes the next frame of the event stream.
    pub(super) fn event(&mut self, message: EventMessage) -> Result<Taken, Violation> {
        match message {
            EventMessage::Begin { lineage, after } => {
                self.stream = match self.stream {
                    Stream::Headless { changes_owed: true } => Stream::CatchingUp,
                    Stream::Headless { changes_owed: false } => Stream::Flowing,
                    Stream::CatchingUp | Stream::Flowing => return Err(Violation::SecondHead),
                };
                if self.complete.is_none() {
                    self.lineage = lineage;
                    self.complete = Some(after);
                    self.newest = after;
                }
                self.first.get_or_insert(after);
                Ok(Taken::Done)
            }
            EventMessage::Event { .. } if matches!(self.stream, Stream::Headless { .. }) => {
                Err(Violation::NoHead)
            }
            // What is still to be introduced cannot end yet: it would come to life afterwards.
            EventMessage::Event {
                position,
                last,
                event: event @ delivery::Event::Unsubscribed { topic, .. },
            } if self.awaits_bulk()
                && (!self.topics.contains(topic) || self.ended.len() >= ENDED_MAX) =>
            {
                Ok(Taken::Later(EventMessage::Event { position, last, event }))
            }
            // It tells what comes over this connection, wherever it stands.
            EventMessage::Event {
                position,
                event: delivery::Event::Initial { request, bulk },
                ..
            } => {
                self.heard = true;
                self.stream = Stream::Flowing;
                self.advance(position, true);
                self.announced.push_back(Announced { request, bulk: (bulk != 0).then_some(bulk) });
                Ok(self.completed())
            }
            EventMessage::Event { position, last, event } => {
                let is_reset = matches!(event, delivery::Event::Reset { .. });
                if !is_reset && !self.is_news(position, &event) {
                    return Ok(Taken::Done);
                }
                let listener = match &event {
                    delivery::Event::Notified { listener, .. } => Some(*listener),
                    _ if position > self.newest => None,
                    _ => self.newest_listener,
                };
                let taken = match event {
                    delivery::Event::Value { topic, value } => {
                        if let Err(value) = self.value(position, topic, value)? {
                            let event = delivery::Event::Value { topic, value };
                            return Ok(Taken::Later(EventMessage::Event { position, last, event }));
                        }
                        Taken::Done
                    }
                    event => self.happened(position, event)?,
                };
                self.heard = true;
                if is_reset {
                    // It may be of another history.
                    (self.newest, self.complete) = (position, Some(position));
                }
                self.advance(position, last);
                self.newest_listener = listener;
                Ok(taken)
            }
        }
    }

    /// Events have come to this position; `whole`: with all that stands there.
    fn advance(&mut self, position: Position, whole: bool) {
        if position > self.newest {
            self.newest_listener = None;
        }
        self.newest = self.newest.max(position);
        if whole {
            self.complete = self.complete.max(Some(position));
        }
    }

    fn forget_bulks(&mut self) {
        self.announced.clear();
        self.ended.clear();
    }

    /// A bulk stream of initial values that has been announced is still to come, or to end.
    fn awaits_bulk(&self) -> bool {
        self.announced.iter().any(|announced| announced.bulk.is_some())
    }

    /// What is complete now. Initial values leave out what was announced before them, so those before
    /// have to be there as well.
    fn completed(&mut self) -> Taken {
        let mut requests = Vec::new();
        while let Some(first) = self.announced.pop_front_if(|first| first.bulk.is_none()) {
            requests.push(first.request);
        }
        if requests.is_empty() { Taken::Done } else { Taken::Complete(requests) }
    }

    /// Positions never fall; what stands where the newest event does is told apart by its topic.
    fn is_news(&self, position: Position, event: &delivery::Event) -> bool {
        let is_other = match event {
            // A bulk stream that was ahead of the events has introduced it already.
            delivery::Event::Subscribed { topic, .. } => !self.topics.contains(*topic),
            delivery::Event::Notified { listener, change, .. } => match change {
                NotifiedChange::Selected | NotifiedChange::Deselected => true,
                NotifiedChange::Added | NotifiedChange::Removed => {
                    self.newest_listener.is_none_or(|newest| *listener > newest)
                }
            },
            // A value's own check is its topic's version.
            delivery::Event::Value { .. }
            | delivery::Event::Unsubscribed { .. }
            | delivery::Event::Progress
            | delivery::Event::Initial { .. }
            | delivery::Event::Lagged { .. }
            | delivery::Event::Reset { .. } => true,
        };
        position > self.newest || (position == self.newest && is_other)
    }

    fn happened(&mut self, position: Position, event: delivery::Event) -> Result<Taken, Violation> {
        match event {
            delivery::Event::Value { topic, value } => {
                self.value(position, topic, value)?.map_err(|_| Violation::UnknownTopic)?;
            }
            // A node that cannot know how much had arrived introduces what is known already.
            delivery::Event::Subscribed { topic, .. } if self.topics.contains(topic) => {}
            delivery::Event::Subscribed { topic, specification, path } => {
                let topic = self.topics.describe(topic, specification, path);
                self.introduce(topic, Index::default(), position, None);
            }
            delivery::Event::Unsubscribed { topic, reason } => {
                self.taken_too_slowly.remove(&topic);
                if let Some(known) = self.topics.remove(topic) {
                    if reason == UnsubscribeReason::BackPressure {
                        self.taken_too_slowly.insert(topic);
                    }
                    if self.awaits_bulk() {
                        self.ended.insert(topic, position);
                    }
                    let topic = known.topic;
                    let event = Event::Unsubscribed { position, topic, reason };
                    self.streams.tell(&known.routes, event);
                }
            }
            delivery::Event::Notified { listener, change, topic, .. }
                if !self.streams.list(u64::from(listener), change, topic) => {}
            delivery::Event::Notified { listener, change, topic, specification, path } => {
                let topic = Arc::new(self.topics.describe(topic, specification, path));
                let event = match change {
                    NotifiedChange::Added => Event::Added { position, topic },
                    NotifiedChange::Removed => Event::Removed { position, topic },
                    NotifiedChange::Selected => Event::Selected { position, topic },
                    NotifiedChange::Deselected => Event::Deselected { position, topic },
                };
                self.streams.tell(&[u64::from(listener)], event);
            }
            delivery::Event::Reset { reason, lineage } => {
                self.lineage = lineage;
                self.first = Some(position);
                self.replay = Replay::Over;
                self.stream = Stream::Flowing;
                if reason == ResetReason::Asked && !self.heard {
                    // There is nothing that could no longer hold.
                    return Ok(Taken::Reset(position));
                }
                self.refused_start = None;
                self.topics.clear();
                self.taken_too_slowly.clear();
                self.forget_bulks();
                self.streams.list_again();
                self.streams.tell_all(&Event::Reset { position, reason, lineage });
                return Ok(Taken::Reset(position));
            }
            // The latter is taken where it comes in.
            delivery::Event::Progress | delivery::Event::Initial { .. } => {}
            delivery::Event::Lagged { skipped } => {
                self.streams.tell_all(&Event::Lagged { position, skipped });
            }
        }
        Ok(Taken::Done)
    }

    /// Gives the value back if its topic may still be introduced by an announced bulk stream.
    fn value(
        &mut self,
        position: Position,
        topic: TopicId,
        value: Option<Bytes>,
    ) -> Result<Result<(), Option<Bytes>>, Violation> {
        let Some(known) = self.topics.get_mut(topic) else {
            return match value {
                // Its value comes with the initial ones.
                _ if self.stream == Stream::CatchingUp => Ok(Ok(())),
                value if self.awaits_bulk() => Ok(Err(value)),
                _ if self.taken_too_slowly.contains(&topic) => Ok(Ok(())),
                _ => Err(Violation::UnknownTopic),
            };
        };
        if position.index <= known.version {
            return Ok(Ok(()));
        }
        known.version = position.index;
        known.position = position;
        if self.retain_values {
            // Its own allocation: the frame's memory is not kept for the life of the topic.
            known.value = Some(value.as_deref().map(Bytes::copy_from_slice));
        }
        let topic = Arc::clone(&known.topic);
        let event = Event::Value { position, topic, value, initial: false };
        self.streams.tell(&known.routes, event);
        Ok(Ok(()))
    }

    /// The bulk stream of initial values with this number has been announced.
    pub(super) fn is_announced(&self, bulk: u64) -> bool {
        self.announced.iter().any(|announced| announced.bulk == Some(bulk))
    }

    /// Takes a frame of the bulk stream of initial values with this number, as of this position,
    /// after its head and its announcement. What a reset has overtaken is of no use any more.
    pub(super) fn bulk(
        &mut self,
        bulk: u64,
        as_of: Position,
        message: BulkMessage,
    ) -> Result<Taken, Violation> {
        match message {
            BulkMessage::Item { .. } | BulkMessage::End { .. } if !self.is_announced(bulk) => {
                Ok(Taken::Done)
            }
            BulkMessage::Item { version, topic, specification, path, value } => {
                // The event stream is ahead of the bulk for a topic that is known.
                let has_ended = self.ended.get(&topic).is_some_and(|end| *end > as_of);
                if !self.topics.contains(topic) && !has_ended {
                    let set = Position { index: version, ordinal: 0 };
                    let position = if value.is_some() { set } else { as_of };
                    let topic = self.topics.describe(topic, specification, path);
                    self.introduce(topic, version, position, value);
                }
                Ok(Taken::Done)
            }
            BulkMessage::End { .. } => {
                for announced in self.announced.iter_mut().filter(|one| one.bulk == Some(bulk)) {
                    announced.bulk = None;
                }
                if !self.awaits_bulk() {
                    self.ended.clear();
                }
                if self.is_replaying() {
                    self.replay = Replay::Until(as_of);
                }
                Ok(self.completed())
            }
            BulkMessage::Begin(_) | BulkMessage::Row(_) => Err(Violation::Bulk),
        }
    }

    fn introduce(
        &mut self,
        topic: Topic,
        version: Index,
        position: Position,
        value: Option<Bytes>,
    ) {
        let id = topic.id;
        let routes = self.topics.share_routes(self.streams.routes(&topic.path));
        let value = value.map(Some);
        let mut known = Known { topic: Arc::new(topic), version, position, value, routes };
        for number in &*known.routes {
            if let Some(waiting) = self.streams.waiting(*number) {
                known.introduce(waiting);
            }
        }
        known.value = match known.value.take() {
            Some(Some(bytes)) if self.retain_values => Some(Some(Bytes::copy_from_slice(&bytes))),
            _ => None,
        };
        self.taken_too_slowly.remove(&id);
        self.topics.insert(known);
    }

    /// Hands on what waits, as far as the local streams have room.
    pub(super) fn flush(&mut self) -> Flushed {
        self.streams.flush()
    }

    /// The session is over: every local stream ends after what waits for it.
    pub(super) fn end(&mut self) {
        self.streams.end();
        self.topics.clear();
    }
}
