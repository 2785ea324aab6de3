//! The local streams of events: what each hears, and handing it on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::waiting::Waiting;
use crate::client::event::Event;
use crate::domain::id::{Position, TopicId};
use crate::domain::selector::Selector;
use crate::domain::topic::path::TopicPath;
use crate::protocol::delivery::NotifiedChange;

/// What a local stream of events hears.
#[derive(Debug, Clone)]
pub(in crate::client) enum Sort {
    /// Events of the subscribed topics that the selector matches.
    Topics(Arc<Selector>),
    /// Notifications of the listener with the stream's own number.
    Listener,
}

/// What a round of handing events on has left.
#[derive(Debug, Default)]
pub(in crate::client) struct Flushed {
    /// Local streams that are full and have more to come.
    pub(in crate::client) stalled: Vec<mpsc::Sender<Vec<Event>>>,
    /// So much waits for one of them that no more events may be taken from the node.
    pub(in crate::client) blocked: bool,
}

/// One local stream of events.
#[derive(Debug)]
struct LocalStream {
    sort: Sort,
    sender: mpsc::Sender<Vec<Event>>,
    waiting: Waiting,
    /// Topics that a listener was told of, while a change is unfinished: another node begins again.
    listed: Option<BTreeSet<TopicId>>,
}

/// The local streams of a session, by their numbers.
#[derive(Debug, Default)]
pub(super) struct LocalStreams {
    streams: BTreeMap<u64, LocalStream>,
    /// The number of the last one that was added.
    last: u64,
    /// Room for those that hear of a topic.
    routes: Vec<u64>,
}

impl LocalStreams {
    /// Adds a local stream; its number, and where what it hears first is to be left.
    pub(super) fn add(
        &mut self,
        sort: Sort,
        sender: mpsc::Sender<Vec<Event>>,
    ) -> (u64, &mut Waiting) {
        self.last += 1;
        let listed = matches!(sort, Sort::Listener).then(BTreeSet::new);
        let stream = LocalStream { sort, sender, waiting: Waiting::default(), listed };
        let stream = self.streams.entry(self.last).or_insert(stream);
        (self.last, &mut stream.waiting)
    }

    /// Removes a local stream; whether it was there, and as what.
    pub(super) fn remove(&mut self, number: u64) -> Option<Sort> {
        self.streams.remove(&number).map(|stream| stream.sort)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Those that hear of the topic with this path.
    pub(super) fn routes(&mut self, path: &TopicPath) -> &[u64] {
        let hears = |stream: &LocalStream| match &stream.sort {
            Sort::Topics(selector) => selector.matches(path),
            Sort::Listener => false,
        };
        let hearing = self.streams.iter().filter(|(_, stream)| hears(stream));
        self.routes.clear();
        self.routes.extend(hearing.map(|(number, _)| *number));
        &self.routes
    }

    /// What waits for a local stream, if it is there.
    pub(super) fn waiting(&mut self, number: u64) -> Option<&mut Waiting> {
        self.streams.get_mut(&number).map(|stream| &mut stream.waiting)
    }

    /// Leaves an event for these local streams; the last one gets it without a copy.
    pub(super) fn tell(&mut self, routes: &[u64], event: Event) {
        let Some((last, others)) = routes.split_last() else { return };
        for number in others {
            if let Some(waiting) = self.waiting(*number) {
                waiting.push(event.clone());
            }
        }
        if let Some(waiting) = self.waiting(*last) {
            waiting.push(event);
        }
    }

    /// Leaves an event for each local stream.
    pub(super) fn tell_all(&mut self, event: &Event) {
        for stream in self.streams.values_mut() {
            stream.waiting.push(event.clone());
        }
    }

    /// Tells those of these that hear of topics that they are current.
    pub(super) fn tell_current(&mut self, numbers: &[u64], position: Position) {
        for number in numbers {
            if let Some(LocalStream { sort: Sort::Topics(_), waiting, .. }) =
                self.streams.get_mut(number)
            {
                waiting.push(Event::Current { position });
            }
        }
    }

    /// A listener that is being told of the topics that were there hears of each once, whichever node
    /// tells: whether this is news to it.
    pub(super) fn list(&mut self, number: u64, change: NotifiedChange, topic: TopicId) -> bool {
        let stream = self.streams.get_mut(&number);
        let Some(listed) = stream.and_then(|one| one.listed.as_mut()) else { return true };
        match change {
            NotifiedChange::Added | NotifiedChange::Selected => listed.insert(topic),
            NotifiedChange::Removed | NotifiedChange::Deselected => listed.remove(&topic),
        }
    }

    /// Listeners are about to be told of all topics, as if of none so far.
    pub(super) fn list_again(&mut self) {
        for stream in self.streams.values_mut() {
            if let Sort::Listener = stream.sort {
                stream.listed = Some(BTreeSet::new());
            }
        }
    }

    /// No node begins again with what listeners were told.
    pub(super) fn end_of_lists(&mut self) {
        for stream in self.streams.values_mut() {
            stream.listed = None;
        }
    }

    /// Hands on what waits, as far as the local streams have room.
    pub(super) fn flush(&mut self) -> Flushed {
        let mut flushed = Flushed::default();
        for stream in self.streams.values_mut() {
            let LocalStream { sender, waiting, .. } = stream;
            while !waiting.events.is_empty() {
                match sender.try_reserve() {
                    Ok(room) => room.send(waiting.take_batch()),
                    Err(TrySendError::Full(())) => {
                        flushed.stalled.push(sender.clone());
                        flushed.blocked |= waiting.is_full();
                        break;
                    }
                    // A stream that was dropped wants no events.
                    Err(TrySendError::Closed(())) => *waiting = Waiting::default(),
                }
            }
        }
        flushed
    }

    /// Every local stream ends after what waits for it.
    pub(super) fn end(&mut self) {
        self.flush();
        // A stream that is full loses what still waits for it, not its end.
        self.streams.clear();
    }
}
