//! Histories that are right, drawn from a seed: the oracles must accept all of them, and their tests
//! plant faults into them.
//!
//! One log and one machine, clients that send ahead, answers and deliveries that come late, sends
//! that are repeated, elections, a client that dies with commands of unknown outcome, streams that
//! move and start over. No product code but the domain takes part.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quorate::client::{ResetReason, UnsubscribeReason};
use quorate::domain::command::{Command, OpenSession, TypedValue};
use quorate::domain::constraint::Constraint;
use quorate::domain::effect::{Effect, Event};
use quorate::domain::entry::{Origin, Payload, Proposal};
use quorate::domain::id::{Index, NodeId, Position, SessionId, TopicId};
use quorate::domain::machine::Machine;
use quorate::domain::outcome::Outcome as Decided;
use quorate::domain::selector::Selector;
use quorate::domain::topic::path::TopicPath;
use quorate::domain::topic::specification::{Specification, TopicType};
use xxhash_rust::xxh3::xxh3_64;

use crate::dice::Dice;
use crate::history::{
    Action, Body, ClientId, Delivery, Ending, Entry, FinalState, Happening, Heard, History,
    Incident, Leading, LogView, Node, Operation, Outcome, Progress, Seen, StateHash, Stream, Time,
    Vote, number_of,
};

const CLIENTS: u16 = 4;
const NODES: u8 = 3;
const TOPICS: [&str; 4] = ["a/0", "a/1", "b/0", "b/1"];
const SELECTORS: [&str; 3] = ["?a//", "?.*//", ">b/1"];
const WINDOW: usize = 8;
const STEPS: usize = 700;
const ELECTION_US: u64 = 300_000;

/// A run that goes right.
pub(crate) struct Model {
    dice: Dice,
    history: History,
    now: Time,
    machines: Vec<Machine>,
    entries: Vec<Entry>,
    events: Vec<Event>,
    term: u64,
    leader: Node,
    clients: Vec<Client>,
    next_value: i64,
}

struct Client {
    id: ClientId,
    session: SessionId,
    next_request: u64,
    /// Sent and not in the log yet; which operation it is of.
    waiting: VecDeque<(Option<usize>, Proposal)>,
    /// In the log and not answered yet.
    decided: VecDeque<(usize, Outcome)>,
    sent: Vec<Proposal>,
    /// Reads on their way: of which operation, and the least entry that they may see.
    reads: Vec<(usize, u64)>,
    seen: u64,
    streams: Vec<Subscribed>,
    alive: bool,
}

struct Subscribed {
    /// In the history.
    place: usize,
    selector: Selector,
    position: Position,
    known: BTreeMap<TopicId, ()>,
}

fn path(text: &str) -> TopicPath {
    TopicPath::parse(text).unwrap()
}

fn number(value: Option<i64>) -> TypedValue {
    let bytes = value.map(|value| Bytes::copy_from_slice(&value.to_le_bytes()));
    TypedValue { value_type: TopicType::Int64, bytes }
}

impl Model {
    /// The history of a seed.
    pub(crate) fn history(seed: u64) -> History {
        let mut model = Self::begin(seed);
        for step in 0..STEPS {
            model.now.0 += model.dice.within(1, 2_000);
            if step == STEPS / 2 {
                model.die();
            }
            model.step();
        }
        model.end()
    }

    fn begin(seed: u64) -> Self {
        let mut before = Machine::new();
        before.pass(0);
        let clients = (1..=CLIENTS).map(|id| Client {
            id: ClientId(id),
            session: SessionId(u64::from(id)),
            next_request: 1,
            waiting: VecDeque::new(),
            decided: VecDeque::new(),
            sent: Vec::new(),
            reads: Vec::new(),
            seen: 0,
            streams: Vec::new(),
            alive: true,
        });
        let mut model = Self {
            dice: Dice::new(seed),
            history: History::default(),
            now: Time(0),
            machines: vec![before],
            entries: Vec::new(),
            events: Vec::new(),
            term: 0,
            leader: Node(1),
            clients: clients.collect(),
            next_value: 1,
        };
        model.elect();
        for client in 1..=CLIENTS {
            let open = Command::OpenSession(OpenSession {
                session: SessionId(client.into()),
                secret_hash: [1; 32],
                principal: String::new(),
                roles: Vec::new(),
                properties: BTreeMap::new(),
                reconnect_timeout_ms: 60_000,
                host: NodeId(1),
                incarnation: 1,
            });
            let proposal = Proposal { origin: Origin::default(), command: open.encode() };
            model.append(vec![(None, None, proposal)]);
        }
        for (place, topic) in TOPICS.iter().enumerate() {
            model.call(place % usize::from(CLIENTS), Action::Add, topic);
        }
        model.settle();
        model
    }

    fn machine(&self) -> &Machine {
        self.machines.last().unwrap()
    }

    fn here(&self) -> Position {
        Position::end_of_entry(self.machine().applied())
    }

    fn node(&mut self) -> Node {
        Node(self.dice.within(1, NODES.into()) as u8)
    }

    fn step(&mut self) {
        let client = self.dice.below(CLIENTS.into()) as usize;
        if !self.clients[client].alive {
            return;
        }
        match self.dice.below(100) {
            0..30 => self.write(client),
            30..40 => self.read(client, true),
            40..45 => self.read(client, false),
            45..63 => self.commit(),
            63..80 => self.answer(client),
            80..93 => self.deliver(client),
            93..95 => self.send_again(client),
            95 => self.elect(),
            96 | 97 => self.interrupt(client),
            98 => self.subscribe(client),
            _ => self.rebuild(client),
        }
    }

    /// Sends a write, conditional or not, of a value that is new or the topic's own.
    fn write(&mut self, client: usize) {
        if self.clients[client].waiting.len() >= WINDOW {
            return;
        }
        let topic = *self.dice.pick(&TOPICS).unwrap();
        self.next_value += 1;
        let value = self.next_value;
        let current = self.value_of(topic);
        let action = match self.dice.below(10) {
            0 => Action::Set(None),
            1 => Action::Set(current.unwrap_or(Some(value))),
            2 | 3 => {
                let expected =
                    if self.dice.percent(70) { current.flatten() } else { Some(value - 7) };
                Action::SetIf { expected, value }
            }
            _ => Action::Set(Some(value)),
        };
        self.call(client, action, topic);
    }

    /// The topic's value; the outer none: there is no topic.
    fn value_of(&self, topic: &str) -> Option<Option<i64>> {
        let topic = self.machine().topic_at(&path(topic))?;
        Some(topic.value().and_then(number_of))
    }

    fn operation(&mut self, client: usize, topic: &str, action: Action) -> Operation {
        let node = Some(self.node());
        let Client { id, session, .. } = self.clients[client];
        Operation {
            client: id,
            session,
            request: None,
            topic: topic.to_owned(),
            action,
            called: self.now,
            answered: None,
            node,
            outcome: Outcome::Unknown,
        }
    }

    /// Sends a command.
    fn call(&mut self, client: usize, action: Action, topic: &str) {
        let command = self.command(&action, topic);
        let operation = self.operation(client, topic, action);
        let place = self.history.operations.len();
        // The client library does not say under which numbers it removes topics.
        let is_told = operation.action != Action::Remove;
        let request = self.send(client, Some(place), &command);
        self.history
            .operations
            .push(Operation { request: is_told.then_some(request), ..operation });
    }

    fn command(&self, action: &Action, topic: &str) -> Command {
        let topic_path = path(topic);
        match action {
            Action::Add => {
                let off = [("CONFLATION", "off")];
                let specification = if topic.starts_with('a') {
                    Specification::new(TopicType::Int64, off).unwrap()
                } else {
                    Specification::plain(TopicType::Int64)
                };
                Command::AddTopic { path: topic_path, specification }
            }
            Action::Set(value) => match self.machine().topic_at(&topic_path) {
                Some(topic) if value.is_some_and(|value| value % 2 == 0) => {
                    Command::Update { topic: topic.info().id, stream: None, value: number(*value) }
                }
                _ => Command::SetByPath { path: topic_path, value: number(*value) },
            },
            Action::SetIf { expected, value } => {
                let constraint = match number(*expected).bytes {
                    Some(bytes) => Constraint::value_is(TopicType::Int64, bytes).unwrap(),
                    None => Constraint::no_value(),
                };
                let value = number(Some(*value));
                Command::SetTopic { path: topic_path, specification: None, constraint, value }
            }
            Action::Remove => Command::RemoveTopics { selector: format!(">{topic}"), from: None },
            Action::Read { .. } => unreachable!("a read is no command"),
        }
    }

    fn send(&mut self, client: usize, operation: Option<usize>, command: &Command) -> u64 {
        let client = &mut self.clients[client];
        let request = client.next_request;
        client.next_request += 1;
        let session = client.session;
        let origin = Origin { session, epoch: 1, role_version: 1, request, answered_below: 1 };
        let proposal = Proposal { origin, command: command.encode() };
        client.waiting.push_back((operation, proposal));
        request
    }

    fn read(&mut self, client: usize, linearizable: bool) {
        let topic = *self.dice.pick(&TOPICS).unwrap();
        let operation = self.operation(client, topic, Action::Read { linearizable });
        let place = self.history.operations.len();
        self.history.operations.push(operation);
        let least = if linearizable { u64::MAX } else { self.clients[client].seen };
        self.clients[client].reads.push((place, least));
    }

    /// Appends an entry of what some clients wait for.
    fn commit(&mut self) {
        let mut proposals = Vec::new();
        for place in 0..self.clients.len() {
            let count = self.dice.below(4) as usize;
            let client = &mut self.clients[place];
            let count = count.min(client.waiting.len());
            for (operation, proposal) in client.waiting.drain(..count) {
                client.sent.push(proposal.clone());
                proposals.push((Some(place), operation, proposal));
            }
        }
        if !proposals.is_empty() {
            self.append(proposals);
        }
    }

    fn append(&mut self, proposals: Vec<(Option<usize>, Option<usize>, Proposal)>) {
        let index = self.machine().applied() + 1;
        let payload = Payload {
            log_time_ms: self.now.0 / 1_000,
            wall_time_ms: 1_000_000 + self.now.0 / 1_000,
            proposals: proposals.iter().map(|(_, _, proposal)| proposal.clone()).collect(),
        };
        let mut machine = self.machine().clone();
        let applied = machine.apply(index, &payload);
        self.events.extend(applied.events);
        for ((client, operation, _), answered) in proposals.into_iter().zip(applied.outcomes) {
            let (Some(client), Some(operation)) = (client, operation) else { continue };
            let outcome = self.outcome(operation, answered.index, &answered.outcome);
            self.clients[client].decided.push_back((operation, outcome));
        }
        self.push(Body::Commands(payload.encode()), machine);
    }

    fn push(&mut self, body: Body, machine: Machine) {
        let index = machine.applied();
        let mut entry = Entry { index, term: self.term, chain: 0, body };
        let before = self.entries.last().map_or(0, |entry| entry.chain);
        let parts = [before, index, self.term, entry.digest()];
        entry.chain = xxh3_64(&parts.map(u64::to_le_bytes).concat());
        self.entries.push(entry);
        for node in 1..=NODES {
            let (at, hash) = (self.now, machine.hash());
            self.history.states.hashes.push(StateHash { node: Node(node), at, entry: index, hash });
        }
        self.machines.push(machine);
    }

    fn outcome(&self, operation: usize, index: Index, decided: &Decided) -> Outcome {
        let action = &self.history.operations[operation].action;
        let changed = match decided {
            Decided::Rejected(reason) => return Outcome::Refused { code: reason.code() },
            Decided::Unchanged => false,
            Decided::Topic { created, .. } => *created || *action != Action::Add,
            Decided::Removed { count, .. } => *count > 0,
            _ => true,
        };
        Outcome::Applied { index: (*action != Action::Remove).then_some(index), changed }
    }

    /// Lets some answers and reads of a client come.
    fn answer(&mut self, client: usize) {
        let answered = Some(self.now);
        for _ in 0..self.dice.within(1, 4) {
            let Some((place, outcome)) = self.clients[client].decided.pop_front() else { break };
            let operation = &mut self.history.operations[place];
            (operation.answered, operation.outcome) = (answered, outcome);
            let entry = operation.index().map_or(0, Index::entry);
            self.clients[client].seen = self.clients[client].seen.max(entry);
        }
        if self.clients[client].reads.is_empty() {
            return;
        }
        let (place, least) = self.clients[client].reads.remove(0);
        let newest = self.machine().applied();
        let entry = self.dice.within(least.min(newest), newest);
        let topic = path(&self.history.operations[place].topic);
        let topic = self.machines[entry as usize].topic_at(&topic);
        let value = topic.and_then(|topic| topic.value()).and_then(number_of);
        let version = topic.filter(|_| value.is_some()).map(|topic| topic.version());
        let index = Index::new(entry, u16::MAX);
        let operation = &mut self.history.operations[place];
        operation.answered = answered;
        operation.outcome = Outcome::Read(Seen { index, found: topic.is_some(), value, version });
        self.clients[client].seen = self.clients[client].seen.max(entry);
    }

    /// A host sends again what is in the log already.
    fn send_again(&mut self, client: usize) {
        if let Some(proposal) = self.dice.pick(&self.clients[client].sent) {
            let proposal = proposal.clone();
            self.append(vec![(None, None, proposal)]);
        }
    }

    fn elect(&mut self) {
        self.term += self.dice.within(1, 2);
        self.leader = self.node();
        let (term, at, leader) = (self.term, self.now, self.leader);
        for node in (1..=NODES).map(Node) {
            self.history.consensus.votes.push(Vote {
                node,
                term,
                voted_for: Some(leader),
                elected: false,
                at,
            });
        }
        self.history.consensus.leaders.push(Leading { node: leader, term, at });
        let mut machine = self.machine().clone();
        machine.pass(machine.applied() + 1);
        self.push(Body::Passes(Bytes::new()), machine);
        self.look();
    }

    fn look(&mut self) {
        let (at, term, committed) = (self.now, self.term, self.machine().applied());
        for node in (1..=NODES).map(Node) {
            let progress = Progress { node, life: 1, at, term, committed, applied: committed };
            self.history.consensus.progress.push(progress);
        }
    }

    fn subscribe(&mut self, client: usize) {
        if self.clients[client].streams.len() >= 2 {
            return;
        }
        let number = self.clients[client].streams.len() as u32 + 1;
        let selector = *self.dice.pick(&SELECTORS).unwrap();
        let Client { id, session, .. } = self.clients[client];
        let place = self.history.streams.len();
        self.history.streams.push(Stream {
            client: id,
            session,
            number,
            selector: selector.to_owned(),
            opened: self.now,
            deliveries: Vec::new(),
            closed: None,
        });
        let scope = format!("stream-{number}");
        let command = Command::Select { scope, selector: selector.to_owned(), select: true };
        self.send(client, None, &command);
        self.flush(client);
        let selector = Selector::parse(selector).unwrap();
        let known = BTreeMap::new();
        let mut stream = Subscribed { place, selector, position: self.here(), known };
        self.introduce(&mut stream);
        self.clients[client].streams.push(stream);
    }

    /// Commits all that a client has sent.
    fn flush(&mut self, client: usize) {
        let waiting: Vec<_> = self.clients[client].waiting.drain(..).collect();
        if waiting.is_empty() {
            return;
        }
        self.clients[client].sent.extend(waiting.iter().map(|(_, proposal)| proposal.clone()));
        let own = waiting.into_iter().map(|(place, proposal)| (Some(client), place, proposal));
        self.append(own.collect());
    }

    fn hear(&mut self, stream: &Subscribed, position: Position, heard: Heard) {
        let node = Some(self.node());
        let delivery = Delivery { at: self.now, node, position, heard };
        self.history.streams[stream.place].deliveries.push(delivery);
    }

    /// Tells of all topics that there are.
    fn introduce(&mut self, stream: &mut Subscribed) {
        let here = self.here();
        for topic in self.machine().clone().topics().iter() {
            let info = topic.info();
            if !stream.selector.matches(&info.path) {
                continue;
            }
            stream.known.insert(info.id, ());
            let value = topic.value().and_then(number_of);
            let set = Position { index: topic.version(), ordinal: 0 };
            let position = if value.is_some() { set } else { here };
            let (topic, path) = (info.id, info.path.to_string());
            self.hear(stream, position, Heard::Subscribed { topic, path });
            if value.is_some() {
                self.hear(stream, position, Heard::Value { topic, value, initial: true });
            }
        }
        stream.position = here;
        self.hear(stream, here, Heard::Current);
    }

    fn deliver(&mut self, client: usize) {
        let events = self.dice.within(1, 30) as usize;
        let mut streams = std::mem::take(&mut self.clients[client].streams);
        for stream in &mut streams {
            self.deliver_to(stream, events);
        }
        self.clients[client].streams = streams;
    }

    fn deliver_to(&mut self, stream: &mut Subscribed, events: usize) {
        let from = self.events.partition_point(|event| event.position <= stream.position);
        let next: Vec<Event> = self.events[from..].iter().take(events).cloned().collect();
        for Event { position, effect, .. } in next {
            stream.position = position;
            match effect {
                Effect::TopicAdded(info) if stream.selector.matches(&info.path) => {
                    stream.known.insert(info.id, ());
                    let (topic, path) = (info.id, info.path.to_string());
                    self.hear(stream, position, Heard::Subscribed { topic, path });
                }
                Effect::TopicRemoved(info) if stream.known.remove(&info.id).is_some() => {
                    let (topic, reason) = (info.id, UnsubscribeReason::Removed);
                    self.hear(stream, position, Heard::Unsubscribed { topic, reason });
                }
                Effect::Value { topic, value } if stream.known.contains_key(&topic.id) => {
                    let value = value.as_ref().and_then(number_of);
                    let heard = Heard::Value { topic: topic.id, value, initial: false };
                    self.hear(stream, position, heard);
                }
                _ => {}
            }
        }
    }

    /// Moves a client's streams to another node, or starts them over.
    fn interrupt(&mut self, client: usize) {
        let starts_over = self.dice.percent(40);
        let mut streams = std::mem::take(&mut self.clients[client].streams);
        for stream in &mut streams {
            self.hear(stream, stream.position, Heard::Moved);
            if starts_over {
                let reason = ResetReason::SnapshotInstalled;
                self.hear(stream, self.here(), Heard::Reset { reason });
                stream.known.clear();
                self.introduce(stream);
            }
        }
        self.clients[client].streams = streams;
    }

    /// Removes a topic, or adds it again.
    fn rebuild(&mut self, client: usize) {
        let topic = TOPICS[3];
        let action = if self.value_of(topic).is_some() { Action::Remove } else { Action::Add };
        self.call(client, action, topic);
    }

    /// A client's program ends: of what it has sent, some is in the log and some is lost.
    fn die(&mut self) {
        let answered = Some(self.now);
        let place = self.dice.below(CLIENTS.into()) as usize;
        let client = &mut self.clients[place];
        client.alive = false;
        let kept = client.waiting.len() / 2;
        client.waiting.truncate(kept);
        let session = client.session;
        client.streams.clear();
        client.reads.clear();
        client.decided.clear();
        self.flush(place);
        self.clients[place].decided.clear();
        for operation in &mut self.history.operations {
            if operation.session == session && operation.answered.is_none() {
                operation.answered = answered;
                if matches!(operation.action, Action::Read { .. }) {
                    operation.outcome = Outcome::NotRead;
                }
            }
        }
        for stream in self.history.streams.iter_mut().filter(|stream| stream.session == session) {
            stream.closed = answered;
        }
    }

    /// Commits, answers and delivers everything.
    fn settle(&mut self) {
        for client in 0..self.clients.len() {
            if !self.clients[client].alive {
                continue;
            }
            self.flush(client);
            self.now.0 += 1;
            while !self.clients[client].decided.is_empty() || !self.clients[client].reads.is_empty()
            {
                self.answer(client);
            }
        }
        for client in 0..self.clients.len() {
            let mut streams = std::mem::take(&mut self.clients[client].streams);
            for stream in &mut streams {
                self.deliver_to(stream, usize::MAX);
            }
            self.clients[client].streams = streams;
        }
    }

    fn end(mut self) -> History {
        self.settle();
        self.now.0 += 1_000_000;
        let calm_since = self.now;
        self.history.incidents.push(Incident { at: calm_since, what: Happening::Calm });
        self.elect();
        let client = self.clients.iter().position(|client| client.alive).unwrap();
        self.clients[client].streams.truncate(1);
        let place = self.clients[client].streams.first().map(|stream| stream.place);
        // A stream that is read no more is closed.
        let session = self.clients[client].session;
        for (other, stream) in self.history.streams.iter_mut().enumerate() {
            if stream.session == session && Some(other) != place {
                stream.closed = Some(calm_since);
            }
        }
        self.now.0 += 1;
        self.subscribe(client);
        for topic in TOPICS {
            self.next_value += 1;
            self.call(client, Action::Add, topic);
            self.call(client, Action::Set(Some(self.next_value)), topic);
        }
        self.now.0 += 1;
        self.settle();
        self.look();
        let probe = self.history.streams.last().map(|stream| (stream.client, stream.number));
        let (at, committed) = (self.now, self.machine().applied());
        for node in (1..=NODES).map(Node) {
            self.history.states.finals.push(FinalState::of(node, self.machine()));
            // One node has purged what a snapshot covers.
            let first = if node == Node(NODES) { 3 } else { 1 };
            let entries = self.entries.iter().filter(|entry| entry.index >= first).cloned();
            let entries = entries.collect();
            let node = Some(node);
            let view = LogView { node, at, first, entries, committed, is_final: true };
            self.history.logs.push(view);
        }
        let nodes = (1..=NODES).map(Node).collect();
        let election_us = ELECTION_US;
        self.history.ending = Some(Ending { calm_since, election_us, nodes, at, probe });
        self.history
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracles::judge;

    #[test]
    fn no_history_is_refused() {
        let mut counts = BTreeMap::new();
        for seed in 0..100 {
            let history = Model::history(seed);
            let found = judge(&history);
            assert!(found.is_empty(), "seed {seed}: {}", found[0]);
            for operation in &history.operations {
                let kind = match operation.outcome {
                    Outcome::Applied { changed: true, .. } => "applied",
                    Outcome::Applied { changed: false, .. } => "unchanged",
                    Outcome::Refused { .. } => "refused",
                    Outcome::Read(_) => "read",
                    Outcome::NotRead => "not read",
                    Outcome::Unknown => "unknown",
                };
                *counts.entry(kind).or_insert(0) += 1;
            }
            for delivery in history.streams.iter().flat_map(|stream| &stream.deliveries) {
                let kind = match delivery.heard {
                    Heard::Moved => "moved",
                    Heard::Reset { .. } => "reset",
                    Heard::Unsubscribed { .. } => "unsubscribed",
                    Heard::Value { .. } => "value",
                    _ => continue,
                };
                *counts.entry(kind).or_insert(0) += 1;
            }
        }
        // Histories without these would show nothing.
        for kind in ["applied", "unchanged", "refused", "read", "unknown", "moved", "reset"] {
            assert!(counts.get(kind).is_some_and(|count| *count > 50), "{kind}: {counts:?}");
        }
        assert!(counts["unsubscribed"] > 50 && counts["value"] > 10_000, "{counts:?}");
    }
}
