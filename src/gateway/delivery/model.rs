//! Fan-out, queues and journal readers together against a model of what a session must hear, in
//! random schedules: every event once and in order, across selections, lags and rejoins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use proptest::prelude::*;

use crate::domain::command::{Command, OpenSession, TypedValue};
use crate::domain::effect::{Effect, Event};
use crate::domain::entry::{Origin, Payload, Proposal};
use crate::domain::id::{Lineage, NodeId, Position, SessionId, TopicId};
use crate::domain::machine::Machine;
use crate::domain::outcome::Outcome;
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::specification::{Conflation, Specification, TopicType};
use crate::gateway::delivery::interest::Interest;
use crate::gateway::delivery::journal_cursor::{JournalCursor, Progress};
use crate::gateway::delivery::outgoing::Outgoing;
use crate::gateway::delivery::turn::Turn;
use crate::gateway::fanout::Fanout;
use crate::gateway::fanout::outbox::Outbox;
use crate::gateway::fanout::session_queue::{Next, ReadOrder, SessionQueue};
use crate::protocol::delivery::{self, EventMessage};
use crate::protocol::frame::take_payload;
use crate::protocol::handshake::ResetReason;
use crate::replication::Block;

/// A small bound, so that random schedules reach it.
const QUEUE_EVENTS: usize = 12;
const SESSIONS: u64 = 3;
const SELECTORS: [&str; 5] = ["?.*//", "?a//", ">a/0", "?b/.*", "*.*1"];
const PATHS: [&str; 6] = ["a/0", "a/1", "b/0", "b/1", "c", "a"];
/// The last one ends subscriptions by itself, so random schedules leave it out.
const CONFLATIONS: [&str; 4] = ["off", "conflate", "always", "unsubscribe"];

#[derive(Debug, Clone)]
enum Step {
    Update { path: usize },
    Updates { path: usize, count: usize },
    Add { path: usize, conflation: usize },
    Remove { path: usize },
    Select { session: u64, selector: usize, select: bool },
    StartOver { session: u64 },
    FanOut,
    Write { session: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let path = 0..PATHS.len();
    let session = 1..=SESSIONS;
    prop_oneof![
        6 => path.clone().prop_map(|path| Step::Update { path }),
        2 => (path.clone(), 1..30_usize).prop_map(|(path, count)| Step::Updates { path, count }),
        2 => (path.clone(), 0..CONFLATIONS.len() - 1)
            .prop_map(|(path, conflation)| Step::Add { path, conflation }),
        1 => path.prop_map(|path| Step::Remove { path }),
        2 => (session.clone(), 0..SELECTORS.len(), any::<bool>())
            .prop_map(|(session, selector, select)| Step::Select { session, selector, select }),
        1 => session.clone().prop_map(|session| Step::StartOver { session }),
        18 => Just(Step::FanOut),
        30 => session.prop_map(|session| Step::Write { session }),
    ]
}

/// What one session heard, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    Value(TopicId, Position),
    Subscribed(TopicId, Position),
    Removed(TopicId, Position),
    Initial(Position),
    TooSlow(TopicId),
    Other,
}

/// A read that has not been reported yet.
struct Reading {
    order: ReadOrder,
    applied: u64,
    progress: Option<Progress>,
    outgoing: Outgoing,
}

struct Hearer {
    outbox: Arc<Outbox>,
    reading: Option<Reading>,
    cursor: JournalCursor,
    heard: Vec<Heard>,
    /// After the end of this entry it wants this.
    cuts: Vec<(u64, Arc<Interest>)>,
    requests: u64,
    /// How many times initial values must be announced.
    announcements: usize,
}

struct World {
    machine: Machine,
    blocks: Vec<Arc<Block>>,
    fanout: Fanout,
    hearers: BTreeMap<u64, Hearer>,
    entry: u64,
    serial: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            machine: Machine::new(),
            blocks: Vec::new(),
            fanout: Fanout::new(0),
            hearers: BTreeMap::new(),
            entry: 0,
            serial: 0,
        };
        for session in 1..=SESSIONS {
            world.cluster(&Command::OpenSession(OpenSession {
                session: SessionId(session),
                secret_hash: [0; 32],
                principal: String::new(),
                roles: Vec::new(),
                properties: BTreeMap::new(),
                reconnect_timeout_ms: 60_000,
                host: NodeId(1),
                incarnation: 1,
            }));
            let here = Position::end_of_entry(world.entry);
            let queue = SessionQueue::new(here, Arc::default(), here).bounded(QUEUE_EVENTS);
            let hearer = Hearer {
                outbox: Arc::new(Outbox::new(SessionId(session), queue)),
                cursor: JournalCursor::default(),
                reading: None,
                heard: Vec::new(),
                cuts: vec![(world.entry, Arc::default())],
                requests: 0,
                announcements: 0,
            };
            world.hearers.insert(session, hearer);
        }
        world
    }

    fn apply(&mut self, commands: Vec<(Origin, Command)>) -> Vec<Outcome> {
        self.entry += 1;
        let proposals = commands
            .into_iter()
            .map(|(origin, command)| Proposal { origin, command: command.encode() })
            .collect();
        let payload = Payload { log_time_ms: 0, wall_time_ms: 0, proposals };
        let applied = self.machine.apply(self.entry, &payload);
        self.blocks.extend(Block::of(self.entry, 0, applied.events));
        applied.outcomes.into_iter().map(|answered| answered.outcome).collect()
    }

    fn cluster(&mut self, command: &Command) {
        self.apply(vec![(Origin::default(), command.clone())]);
    }

    /// As the first session, whose numbers rise with each command.
    fn origin(&mut self, session: u64) -> Origin {
        let hearer = self.hearers.get_mut(&session).unwrap();
        hearer.requests += 1;
        Origin {
            session: SessionId(session),
            epoch: 1,
            role_version: 1,
            request: hearer.requests,
            answered_below: hearer.requests,
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Update { path } => self.update(path, 1),
            Step::Updates { path, count } => self.update(path, count),
            Step::Add { path, conflation } => {
                let specification =
                    Specification::new(TopicType::Int64, [("CONFLATION", CONFLATIONS[conflation])]);
                let command = Command::AddTopic {
                    path: TopicPath::parse(PATHS[path]).unwrap(),
                    specification: specification.unwrap(),
                };
                let origin = self.origin(1);
                self.apply(vec![(origin, command)]);
            }
            Step::Remove { path } => {
                let command =
                    Command::RemoveTopics { selector: format!(">{}", PATHS[path]), from: None };
                let origin = self.origin(1);
                self.apply(vec![(origin, command)]);
            }
            Step::Select { session, selector, select } => self.select(session, selector, select),
            Step::StartOver { session } => self.start_over(session),
            Step::FanOut => self.fan_out(),
            Step::Write { session } => self.write(session),
        }
    }

    fn update(&mut self, path: usize, count: usize) {
        let commands = (0..count)
            .map(|_| {
                self.serial += 1;
                let value = TypedValue {
                    value_type: TopicType::Int64,
                    bytes: Some(bytes::Bytes::copy_from_slice(&self.serial.to_le_bytes())),
                };
                let path = TopicPath::parse(PATHS[path]).unwrap();
                (self.origin(1), Command::SetByPath { path, value })
            })
            .collect();
        self.apply(commands);
    }

    /// The command, and at some later time (here: at once) its consequence, as the subscriber does.
    fn select(&mut self, session: u64, selector: usize, select: bool) {
        let origin = self.origin(session);
        let selector = SELECTORS[selector].to_owned();
        let command = Command::Select { scope: String::new(), selector, select };
        let outcomes = self.apply(vec![(origin, command)]);
        assert!(!matches!(outcomes[..], [Outcome::Rejected(_)]), "{outcomes:?}");
        let after = Interest::of(self.machine.session(SessionId(session)).unwrap());
        let after = Arc::new(after);
        let hearer = self.hearers.get_mut(&session).unwrap();
        self.fanout.leave(&hearer.outbox);
        let mut queue = hearer.outbox.lock();
        queue.fall_behind(Position::end_of_entry(self.entry));
        let before = Arc::clone(queue.newest_interest());
        let turn =
            Turn::new(self.machine.clone(), before, Arc::clone(&after), &[(origin.request, 1)]);
        assert!(queue.switch(self.entry, Arc::clone(&after), turn));
        drop(queue);
        hearer.cuts.push((self.entry, after));
        hearer.announcements += 1;
    }

    /// The events after the cursor are gone, so the session begins with the present.
    fn start_over(&mut self, session: u64) {
        let record = self.machine.session(SessionId(session)).unwrap();
        let interest = Arc::new(Interest::of(record));
        let hearer = self.hearers.get_mut(&session).unwrap();
        self.fanout.leave(&hearer.outbox);
        let here = Position::end_of_entry(self.entry);
        let mut queue = hearer.outbox.lock();
        let dropped = queue.restart(here, Arc::clone(&interest), here);
        let mut initial: Vec<_> =
            dropped.into_iter().flat_map(|turn| turn.into_initial().0).collect();
        initial.push((0, 9));
        let view = self.machine.clone();
        let reason = ResetReason::Purged;
        let turn = Turn::reset(view, Arc::clone(&interest), reason, Lineage(1), &initial);
        queue.turn_now(Arc::clone(&interest), turn);
        drop(queue);
        hearer.heard.clear();
        hearer.cuts = vec![(self.entry, interest)];
        hearer.announcements = initial.len();
    }

    fn fan_out(&mut self) {
        let fanned = self.fanout.fanned();
        match self.blocks.iter().find(|block| block.entry > fanned) {
            Some(block) => {
                let block = Arc::clone(block);
                let _ = self.fanout.fan_out(&block, 1);
            }
            None => self.fanout.pass(self.entry),
        }
    }

    /// One half of a turn of the event writer: it reads, and at its next step reports what it has
    /// read; anything may happen in between.
    fn write(&mut self, session: u64) {
        let hearer = self.hearers.get_mut(&session).unwrap();
        if let Some(reading) = hearer.reading.take() {
            return self.report(session, reading);
        }
        let mut outgoing = Outgoing::default();
        let next = hearer.outbox.lock().next(&mut outgoing);
        match next {
            Next::Write { .. } | Next::Idle => {}
            Next::Turn(mut turn) => while !turn.write(&mut outgoing) {},
            Next::Read(order) => {
                let rest = self.blocks.iter().filter(|block| !block.after(order.after).is_empty());
                let blocks: Vec<_> = rest.take(2).cloned().collect();
                let progress = (!blocks.is_empty())
                    .then(|| hearer.cursor.read(&order, &blocks, &self.machine, &mut outgoing));
                let outgoing = std::mem::take(&mut outgoing);
                hearer.reading = Some(Reading { order, applied: self.entry, progress, outgoing });
                return;
            }
        }
        hearer.heard.extend(heard(outgoing));
    }

    fn report(&mut self, session: u64, reading: Reading) {
        let Reading { order, applied, progress, outgoing } = reading;
        let hearer = self.hearers.get_mut(&session).unwrap();
        match progress {
            Some(progress) => {
                let narrowed = (!progress.unsubscribed.is_empty())
                    .then(|| Arc::new(order.interest.without(progress.unsubscribed)));
                if hearer.outbox.lock().advance(&order, progress.to, narrowed) {
                    hearer.heard.extend(heard(outgoing));
                }
            }
            None if order.may_join => {
                let _ = self.fanout.join(&hearer.outbox, &order, applied);
            }
            None => {
                let to = Position::end_of_entry(applied).min(order.until);
                let _ = hearer.outbox.lock().advance(&order, to.max(order.after), None);
            }
        }
    }

    /// No more changes: everybody gets everything.
    fn settle(&mut self) {
        for _ in 0..self.blocks.len() + 10 {
            self.fan_out();
        }
        for session in 1..=SESSIONS {
            let mut turns = 0;
            while self.hearers[&session].reading.is_some()
                || !self.hearers[&session].outbox.lock().is_drained()
            {
                self.write(session);
                turns += 1;
                assert!(turns < 10_000, "session {session} does not come to rest");
            }
        }
    }

    /// What a session must hear if nothing is left out: each event with its topic's policy.
    fn due(&self, session: u64) -> Vec<(Heard, Conflation)> {
        let cuts = &self.hearers[&session].cuts;
        let events = self.blocks.iter().flat_map(|block| &block.events);
        events
            .filter_map(|event| {
                let entry = event.position.index.entry();
                let cut = cuts.iter().rev().find(|(cut, _)| *cut < entry)?;
                expected(event, &cut.1)
            })
            .collect()
    }
}

fn expected(event: &Event, interest: &Interest) -> Option<(Heard, Conflation)> {
    let position = event.position;
    let (topic, heard) = match &event.effect {
        Effect::Value { topic, .. } => (topic, Heard::Value(topic.id, position)),
        Effect::TopicAdded(topic) => (topic, Heard::Subscribed(topic.id, position)),
        Effect::TopicRemoved(topic) => (topic, Heard::Removed(topic.id, position)),
        _ => return None,
    };
    interest.wants(topic).then(|| (heard, topic.specification.conflation()))
}

fn heard(mut outgoing: Outgoing) -> Vec<Heard> {
    let mut bytes = BytesMut::new();
    for chunk in outgoing.take() {
        bytes.extend_from_slice(&chunk);
    }
    let mut found = Vec::new();
    while let Some(mut payload) = take_payload(&mut bytes, 1 << 20).unwrap() {
        let kind = payload.get_u8();
        let EventMessage::Event { position, event, .. } =
            EventMessage::decode(kind, payload).unwrap()
        else {
            panic!("only events");
        };
        found.push(match event {
            delivery::Event::Value { topic, .. } => Heard::Value(topic, position),
            delivery::Event::Subscribed { topic, .. } => Heard::Subscribed(topic, position),
            delivery::Event::Unsubscribed {
                topic,
                reason: delivery::UnsubscribeReason::Removed,
            } => Heard::Removed(topic, position),
            delivery::Event::Initial { .. } => Heard::Initial(position),
            delivery::Event::Unsubscribed {
                topic,
                reason: delivery::UnsubscribeReason::BackPressure,
            } => Heard::TooSlow(topic),
            _ => Heard::Other,
        });
    }
    found
}

fn position(heard: &Heard) -> Option<Position> {
    match heard {
        Heard::Value(_, position)
        | Heard::Subscribed(_, position)
        | Heard::Removed(_, position)
        | Heard::Initial(position) => Some(*position),
        Heard::TooSlow(_) | Heard::Other => None,
    }
}

fn check(world: &World, session: u64) {
    let hearer = &world.hearers[&session];
    let due = world.due(session);
    let positions: Vec<_> = hearer.heard.iter().filter_map(position).collect();
    assert!(positions.is_sorted(), "positions fall: {positions:?}");
    let initial = hearer.heard.iter().filter(|heard| matches!(heard, Heard::Initial(_))).count();
    assert_eq!(initial, hearer.announcements, "one announcement per selection and start");

    let events: Vec<_> = hearer
        .heard
        .iter()
        .filter(|heard| position(heard).is_some() && !matches!(heard, Heard::Initial(_)))
        .collect();
    // Nothing but what is due, in order and once.
    let mut rest = due.iter();
    for event in &events {
        assert!(rest.any(|(due, _)| due == *event), "{event:?} is not due here");
    }
    // Everything that is due, but for overtaken values of conflatable topics.
    let said: BTreeSet<_> = events.iter().map(|event| format!("{event:?}")).collect();
    let mut newest: BTreeMap<TopicId, &Heard> = BTreeMap::new();
    for (event, conflation) in &due {
        let is_value = matches!(event, Heard::Value(..));
        match event {
            Heard::Value(topic, _) => drop(newest.insert(*topic, event)),
            Heard::Removed(topic, _) => drop(newest.remove(topic)),
            _ => {}
        }
        if !is_value || *conflation == Conflation::Off {
            assert!(said.contains(&format!("{event:?}")), "{event:?} is missing");
        }
    }
    for (topic, event) in newest {
        let wanted_to_the_end = hearer.cuts.last().is_some_and(|(_, interest)| {
            world.machine.topic(topic).is_some_and(|topic| interest.wants(topic.info()))
        });
        // A value that nothing has overtaken is never left out.
        let is_newest = world.machine.topic(topic).is_some_and(|topic| {
            position(event).is_some_and(|position| position.index == topic.version())
        });
        if wanted_to_the_end && is_newest {
            assert!(said.contains(&format!("{event:?}")), "{event:?}, the newest, is missing");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_session_hears_its_part_of_the_journal(
        steps in proptest::collection::vec(step(), 1..400),
    ) {
        let mut world = World::new();
        for path in 0..PATHS.len() {
            world.take(&Step::Add { path, conflation: path % 3 });
        }
        world.take(&Step::Select { session: 1, selector: 0, select: true });
        world.take(&Step::Select { session: 2, selector: 1, select: true });
        for step in &steps {
            world.take(step);
        }
        world.settle();
        for session in 1..=SESSIONS {
            check(&world, session);
        }
    }
}

#[test]
fn a_full_queue_makes_the_session_lag_and_join_again() {
    let mut world = World::new();
    world.take(&Step::Add { path: 0, conflation: 0 });
    world.take(&Step::Add { path: 1, conflation: 1 });
    world.take(&Step::Select { session: 2, selector: 0, select: true });
    world.settle();
    assert!(world.hearers[&2].outbox.lock().is_live());
    for _ in 0..QUEUE_EVENTS {
        for path in [0, 1] {
            world.take(&Step::Update { path });
            world.take(&Step::FanOut);
        }
    }
    assert!(!world.hearers[&2].outbox.lock().is_live(), "over its bound");
    world.settle();
    check(&world, 2);
    let values = |id: u64| {
        let heard = world.hearers[&2].heard.iter();
        let topic = world.machine.topic_at(&TopicPath::parse(PATHS[id as usize]).unwrap()).unwrap();
        let topic = topic.info().id;
        heard.filter(|heard| matches!(heard, Heard::Value(of, _) if *of == topic)).count()
    };
    assert_eq!(values(0), QUEUE_EVENTS, "conflation off: each one");
    assert_eq!(values(1), 1, "conflation while it lags: the newest");
}

#[test]
fn a_waiting_value_of_an_always_topic_is_replaced() {
    let mut world = World::new();
    world.take(&Step::Add { path: 0, conflation: 2 });
    world.take(&Step::Add { path: 2, conflation: 1 });
    world.take(&Step::Select { session: 2, selector: 0, select: true });
    world.settle();
    for path in [0, 2, 0, 2] {
        world.take(&Step::Update { path });
        world.take(&Step::FanOut);
    }
    let before = world.hearers[&2].heard.len();
    world.settle();
    check(&world, 2);
    // Both of the plain topic, only the newer one of the other.
    assert_eq!(world.hearers[&2].heard.len() - before, 3);
}

#[test]
fn a_replay_announces_a_topic_that_is_gone_by_now_once() {
    let mut world = World::new();
    world.take(&Step::Add { path: 1, conflation: 0 });
    world.take(&Step::Select { session: 2, selector: 0, select: true });
    let hearer = world.hearers.get_mut(&2).unwrap();
    hearer.cursor = JournalCursor::replaying_until(Position::end_of_entry(world.entry + 5));
    // One whose addition is replayed, and one that was there before.
    world.take(&Step::Add { path: 0, conflation: 0 });
    for path in [0, 1, 0] {
        world.take(&Step::Update { path });
    }
    for path in [0, 1] {
        world.take(&Step::Remove { path });
    }
    let added = world.blocks.iter().flat_map(|block| &block.events).filter_map(|event| {
        let Effect::TopicAdded(topic) = &event.effect else { return None };
        Some(topic.id)
    });
    let added: Vec<TopicId> = added.collect();
    world.settle();
    for topic in added {
        let heard = world.hearers[&2].heard.iter();
        let subscribed =
            heard.filter(|heard| matches!(heard, Heard::Subscribed(of, _) if *of == topic));
        assert_eq!(subscribed.count(), 1, "topic {topic}");
    }
}

#[test]
fn a_session_too_slow_for_a_topic_is_unsubscribed_until_it_selects_again() {
    let mut world = World::new();
    world.take(&Step::Add { path: 0, conflation: 3 });
    world.take(&Step::Add { path: 2, conflation: 0 });
    world.take(&Step::Select { session: 2, selector: 0, select: true });
    world.settle();
    let topic = world.machine.topic_at(&TopicPath::parse(PATHS[0]).unwrap()).unwrap().info().id;
    for _ in 0..QUEUE_EVENTS {
        for path in [0, 2] {
            world.take(&Step::Update { path });
            world.take(&Step::FanOut);
        }
    }
    world.settle();
    let values = |world: &World| {
        let heard = world.hearers[&2].heard.iter();
        heard.filter(|heard| matches!(heard, Heard::Value(of, _) if *of == topic)).count()
    };
    let slow = |world: &World| {
        world.hearers[&2].heard.iter().filter(|heard| **heard == Heard::TooSlow(topic)).count()
    };
    assert_eq!((values(&world), slow(&world)), (0, 1), "told once, then nothing");
    world.take(&Step::Update { path: 0 });
    world.settle();
    assert_eq!((values(&world), slow(&world)), (0, 1), "live again, and still nothing");

    world.take(&Step::Select { session: 2, selector: 1, select: true });
    world.settle();
    world.take(&Step::Update { path: 0 });
    world.settle();
    assert_eq!((values(&world), slow(&world)), (1, 1), "selected again");
}
