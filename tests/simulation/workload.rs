//! What clients do in a run, by the public client library alone, and how it is written down.
//!
//! Every client has one session at a time and does four things beside each other, each by its own
//! dice: it **feeds** its topics (`f/…`: updates sent ahead, up to 64 unanswered, now and then a
//! value that the topic has already), it works on **registers** that it shares with others (`r/…`:
//! one request at a time: sets, conditional sets, linearizable and local reads), it adds and removes
//! **passing** topics (`t/…`), and it **listens**: streams of events that it opens, reads fast or
//! slowly, and drops. When its session ends it opens another one. Values are unique in the run but
//! for those that are sent to change nothing.
//!
//! | topics | conflation | written by | removed |
//! |---|---|---|---|
//! | `f/<client>/<k>` | `off`; every third `conflate` | one client, window 64 | never |
//! | `r/<k>` | `off` | all, one at a time each | never |
//! | `t/<k>` | `off` | all, one at a time each | now and then |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use quorate::client::{
    Answered, Client, ClientConfig, ConnectionState, ConstraintNode, Detail, Event, EventStream,
    Fetch, Operator, Patience, Pending, ReadLevel, ReadOptions, RequestError, SessionEnded,
    SetTopic, Target, Value, WireValue,
};
use quorate::domain::id::TopicId;
use quorate::domain::topic::path::TopicPath;
use quorate::domain::topic::specification::{Specification, TopicType};
use tokio::sync::watch;

use crate::dice::Dice;
use crate::history::{
    Action, ClientId, Heard, Node, Operation, Outcome, Recorder, Seen, SessionEnd, Stream,
    StreamId, number_of,
};

/// Updates of one client that may be unanswered.
const WINDOW: usize = 64;
/// Topics that each client feeds.
const FEEDS: u64 = 3;
/// Topics that all clients share.
const REGISTERS: u64 = 3;
/// Topics that come and go.
const PASSING: u64 = 2;
/// What the streams of events select.
const SELECTORS: [&str; 5] = ["?f//", "?r//", "?.*//", "?t//", ">r/0"];
/// Streams that a client has at most.
const STREAMS: usize = 3;
/// How long a read is tried.
const READ_PATIENCE: Duration = Duration::from_secs(3);
/// So long after the newest event every stream has caught up: longer than a client takes to give a
/// node up that has died.
const SILENCE: Duration = Duration::from_secs(6);
/// The pause before an address is tried again that gave no session.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

/// What clients are to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Everything.
    Busy,
    /// Send nothing new, wait for the answers to what was sent, go on listening.
    Quiet,
    /// End.
    Over,
}

/// A fault that is put in between the cluster and what is written down, to see it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientFault {
    /// What is called a linearizable read asks no quorum.
    StaleReads,
    /// After a move the newest value is handed out again.
    HearsTwice,
    /// After a move one value is not handed out.
    Misses,
}

/// What all clients of a run share.
#[derive(Clone)]
pub(crate) struct Workload {
    recorder: Recorder,
    fault: Option<ClientFault>,
    values: Arc<AtomicI64>,
    /// Clients that are not idle: that send, or wait for answers.
    working: Arc<AtomicUsize>,
    /// When somebody heard an event last.
    heard_us: Arc<AtomicU64>,
    phase: watch::Receiver<Phase>,
}

impl Workload {
    pub(crate) fn new(recorder: Recorder, phase: watch::Receiver<Phase>) -> Self {
        let (values, working, heard_us) = (Arc::default(), Arc::default(), Arc::default());
        Self { recorder, fault: None, values, working, heard_us, phase }
    }

    /// With a fault put in.
    pub(crate) fn planted(self, fault: Option<ClientFault>) -> Self {
        Self { fault, ..self }
    }

    /// Nobody waits for an answer, nobody sends, and nobody has heard anything for a while.
    pub(crate) fn is_idle(&self) -> bool {
        let silent_since = self.heard_us.load(Ordering::Relaxed);
        let silence_us = self.recorder.now().0.saturating_sub(silent_since);
        self.working.load(Ordering::Relaxed) == 0 && silence_us >= SILENCE.as_micros() as u64
    }

    fn value(&self) -> i64 {
        self.values.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn is_busy(&self) -> bool {
        *self.phase.borrow() == Phase::Busy
    }

    /// One client's program, until the run is over. `config` says where the nodes are.
    pub(crate) async fn client(self, id: ClientId, config: ClientConfig, mut dice: Dice) {
        let mut streams = 0;
        self.working.fetch_add(1, Ordering::Relaxed);
        while self.is_busy() {
            let reconnect = Duration::from_secs(dice.within(3, 60));
            let patience = Patience { reconnect, ..Patience::default() };
            let config = config.clone().patience(patience);
            let Ok(client) = Client::connect(config).await else {
                tokio::time::sleep(CONNECT_PAUSE).await;
                continue;
            };
            let session = Session { workload: self.clone(), id, client };
            let ending = session.attend(reconnect);
            (streams, ()) = tokio::join!(session.live(&mut dice, streams), ending);
        }
        self.working.fetch_sub(1, Ordering::Relaxed);
    }

    /// A client that comes when all is calm and shows that a write and a subscription work, listens
    /// until the run is over. `done` is told the number of its stream.
    pub(crate) async fn probe(self, id: ClientId, config: ClientConfig) {
        self.working.fetch_add(1, Ordering::Relaxed);
        let mut phase = self.phase.clone();
        let client = loop {
            match Client::connect(config.clone()).await {
                Ok(client) => break client,
                Err(_) if *phase.borrow() == Phase::Over => return,
                Err(_) => tokio::time::sleep(CONNECT_PAUSE).await,
            }
        };
        let session = Session { workload: self.clone(), id, client };
        let stream = session.open("?.*//", PROBE_STREAM).await;
        for register in 0..REGISTERS {
            let topic = format!("r/{register}");
            session.add(&topic).await;
            session.set(&topic, Some(self.value())).await;
        }
        self.working.fetch_sub(1, Ordering::Relaxed);
        if let Some(mut stream) = stream {
            tokio::select! {
                () = stream.read(Duration::ZERO) => stream.close(),
                _ = phase.wait_for(|phase| *phase == Phase::Over) => {}
            }
        }
    }
}

/// The number of the stream that the probe opens.
pub(crate) const PROBE_STREAM: u32 = 1;

fn path(text: &str) -> TopicPath {
    TopicPath::parse(text).expect("the workload's paths are legal")
}

/// Every third feed may be conflated.
fn specification(topic: &str) -> Specification {
    let conflates = topic.starts_with("f/") && topic.ends_with("/2");
    let conflation = if conflates { "conflate" } else { "off" };
    Specification::new(TopicType::Int64, [("CONFLATION", conflation)])
        .expect("the workload's specifications are legal")
}

/// One session of a client.
struct Session {
    workload: Workload,
    id: ClientId,
    client: Client,
}

impl Session {
    fn recorder(&self) -> &Recorder {
        &self.workload.recorder
    }

    fn node(&self) -> Option<Node> {
        node_of(&self.client.node())
    }

    /// Writes down when and why the session ends, if it ends before the run does.
    async fn attend(&self, reconnect: Duration) {
        let (mut states, mut phase) = (self.client.states(), self.workload.phase.clone());
        let mut lost = None;
        loop {
            let state = states.borrow_and_update().clone();
            let now = self.recorder().now();
            match state {
                ConnectionState::Connected { .. } | ConnectionState::Parked { .. } => lost = None,
                ConnectionState::Reconnecting => lost = lost.or(Some(now)),
                ConnectionState::Ended(reason) => {
                    let by_cluster = matches!(*reason, SessionEnded::ByCluster { .. });
                    let end = SessionEnd {
                        client: self.id,
                        session: self.client.session(),
                        lost: lost.unwrap_or(now),
                        ended: now,
                        reconnect_us: reconnect.as_micros() as u64,
                        by_cluster: by_cluster.then(|| reason.to_string()),
                    };
                    self.recorder().write(|history| history.sessions.push(end));
                    return;
                }
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                () = over(&mut phase) => return,
            }
        }
    }

    /// The run has come to its end, or the session has.
    async fn ended(&self, least: Phase) {
        let (mut states, mut phase) = (self.client.states(), self.workload.phase.clone());
        tokio::select! {
            _ = states.wait_for(|state| matches!(state, ConnectionState::Ended(_))) => {}
            _ = phase.wait_for(|phase| *phase >= least) => {}
        }
    }

    fn is_over(&self) -> bool {
        let ended = matches!(*self.client.states().borrow(), ConnectionState::Ended(_));
        ended || !self.workload.is_busy()
    }

    /// Does everything until the session or the run ends. Streams are numbered on from `streams`.
    async fn live(&self, dice: &mut Dice, streams: u32) -> u32 {
        let (mut feeding, mut sharing) = (dice.fork(), dice.fork());
        let (mut passing, mut listening) = (dice.fork(), dice.fork());
        let work = async {
            tokio::join!(
                self.feed(&mut feeding),
                self.share(&mut sharing),
                self.pass(&mut passing)
            );
            self.workload.working.fetch_sub(1, Ordering::Relaxed);
            // While the session lasts, its streams are heard to the end.
            self.ended(Phase::Over).await;
            self.workload.working.fetch_add(1, Ordering::Relaxed);
        };
        let (_, streams) = tokio::join!(work, self.listen(&mut listening, streams));
        streams
    }

    async fn pause(&self, dice: &mut Dice, most_ms: u64) {
        let pause = Duration::from_millis(dice.within(1, most_ms));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.ended(Phase::Quiet) => {}
        }
    }

    /// Updates of the client's own topics, sent ahead of their answers.
    async fn feed(&self, dice: &mut Dice) {
        let mut feeds = Vec::new();
        for feed in 0..FEEDS {
            let topic = format!("f/{}/{feed}", self.id.0);
            let Some(topic_id) = self.add(&topic).await else { return };
            feeds.push((topic, topic_id, None));
        }
        let mut waiting = FuturesUnordered::new();
        while !self.is_over() {
            for _ in 0..dice.within(1, 24) {
                if waiting.len() >= WINDOW {
                    break;
                }
                let feed = dice.below(FEEDS) as usize;
                let Some((topic, id, last)) = feeds.get_mut(feed) else { break };
                // Now and then what is there already.
                let again = dice.percent(10) && last.is_some();
                let value = if again { *last } else { Some(self.workload.value()) };
                let value = if dice.percent(2) { None } else { value };
                *last = value;
                let target =
                    if dice.percent(80) { Target::Topic(*id) } else { Target::Path(path(topic)) };
                let called = self.operation(topic, Action::Set(value));
                let sent = self.client.update(&target, value_of(value)).await;
                let Ok(pending) = sent else { break };
                waiting.push(self.answer(called, pending));
            }
            // Sometimes everything is answered before more is sent.
            if dice.percent(30) {
                while waiting.next().await.is_some() {}
            }
            // Answers are taken as they come, also while nothing is sent.
            let taking = async {
                while waiting.next().await.is_some() {}
                std::future::pending::<()>().await;
            };
            let pause = Duration::from_millis(dice.within(5, 600));
            tokio::select! {
                () = taking => {}
                () = tokio::time::sleep(pause) => {}
                () = self.ended(Phase::Quiet) => {}
            }
        }
        while waiting.next().await.is_some() {}
    }

    /// One request after another on topics that everybody writes.
    async fn share(&self, dice: &mut Dice) {
        let mut known = BTreeMap::new();
        for register in 0..REGISTERS {
            self.add(&format!("r/{register}")).await;
        }
        while !self.is_over() {
            let topic = format!("r/{}", dice.below(REGISTERS));
            match dice.below(10) {
                0..4 => {
                    if let Some(seen) = self.read(&topic, dice.percent(75)).await {
                        known.insert(topic, seen.value);
                    }
                }
                4..7 => {
                    let expected = known.get(&topic).copied().flatten();
                    let value = self.workload.value();
                    if self.set_if(&topic, expected, value).await {
                        known.insert(topic, Some(value));
                    } else {
                        known.remove(&topic);
                    }
                }
                7 => self.set(&topic, None).await,
                _ => self.set(&topic, Some(self.workload.value())).await,
            }
            self.pause(dice, 200).await;
        }
    }

    /// Topics that are added, set and removed.
    async fn pass(&self, dice: &mut Dice) {
        while !self.is_over() {
            let topic = format!("t/{}", dice.below(PASSING));
            match dice.below(8) {
                0 => drop(self.add(&topic).await),
                1 if dice.percent(40) => self.remove(&topic).await,
                2 | 3 => drop(self.read(&topic, true).await),
                _ => self.set(&topic, Some(self.workload.value())).await,
            }
            self.pause(dice, 1_500).await;
        }
    }

    /// Streams of events, opened, read and dropped.
    async fn listen(&self, dice: &mut Dice, mut number: u32) -> u32 {
        let mut open = FuturesUnordered::new();
        let mut phase = self.workload.phase.clone();
        loop {
            let room = open.len() < STREAMS && !self.is_over();
            let pause = Duration::from_millis(dice.within(1, 3_000));
            tokio::select! {
                Some(()) = open.next() => {}
                () = over(&mut phase) => return number,
                () = self.ended(Phase::Over) => {
                    // With their session the streams end by themselves.
                    while *phase.borrow() != Phase::Over && open.next().await.is_some() {}
                    return number;
                }
                () = tokio::time::sleep(pause), if room => {
                    number += 1;
                    let selector = *dice.pick(&SELECTORS).expect("there are selectors");
                    // Most streams are heard for good, some are dropped soon.
                    let for_ms = if dice.percent(50) { dice.within(100, 15_000) } else { u64::MAX };
                    let slow_ms = if dice.percent(20) { dice.within(1, 50) } else { 0 };
                    open.push(self.stream(selector, number, for_ms, slow_ms));
                }
            }
        }
    }

    async fn stream(&self, selector: &str, number: u32, for_ms: u64, slow_ms: u64) {
        let Some(mut stream) = self.open(selector, number).await else { return };
        let dropped = async {
            // What is open when it becomes quiet stays open.
            tokio::time::sleep(Duration::from_millis(for_ms.min(1 << 40))).await;
            if !self.workload.is_busy() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = stream.read(Duration::from_millis(slow_ms)) => {}
            () = dropped => {}
        }
        stream.close();
    }

    async fn open(&self, selector: &str, number: u32) -> Option<Listening> {
        let recorder = self.recorder().clone();
        let place = recorder.opened(Stream {
            client: self.id,
            session: self.client.session(),
            number,
            selector: selector.to_owned(),
            opened: recorder.now(),
            deliveries: Vec::new(),
            closed: None,
        });
        match self.client.subscribe(selector).await {
            Ok(events) => {
                let (node, workload) = (self.node(), self.workload.clone());
                Some(Listening { events, workload, place, node })
            }
            Err(_) => {
                recorder.closed(place);
                None
            }
        }
    }

    /// A request that is about to be made.
    fn operation(&self, topic: &str, action: Action) -> Operation {
        Operation {
            client: self.id,
            session: self.client.session(),
            request: None,
            topic: topic.to_owned(),
            action,
            called: self.recorder().now(),
            answered: None,
            node: self.node(),
            outcome: Outcome::Unknown,
        }
    }

    /// Writes a command down that has just been sent, and its answer when it comes.
    fn answer(
        &self,
        called: Operation,
        pending: Pending,
    ) -> impl Future<Output = Option<Answered>> + '_ {
        let request = Some(pending.request());
        let is_add = called.action == Action::Add;
        let place = self.recorder().called(Operation { request, ..called });
        async move {
            let answer = pending.await;
            let outcome = match &answer {
                Ok(Answered { index, detail }) => {
                    let changed = match detail {
                        Detail::Unchanged => false,
                        Detail::Topic { created, .. } => *created || !is_add,
                        _ => true,
                    };
                    Outcome::Applied { index: Some(*index), changed }
                }
                Err(error) => outcome_of(error),
            };
            self.recorder().answered(place, self.node(), outcome);
            answer.ok()
        }
    }

    async fn add(&self, topic: &str) -> Option<TopicId> {
        let called = self.operation(topic, Action::Add);
        let sent = self.client.begin_add_topic(&path(topic), &specification(topic)).await;
        match self.answer(called, sent.ok()?).await?.detail {
            Detail::Topic { topic, .. } => Some(topic),
            _ => None,
        }
    }

    async fn set(&self, topic: &str, value: Option<i64>) {
        let called = self.operation(topic, Action::Set(value));
        let sent = self.client.update(&Target::Path(path(topic)), value_of(value)).await;
        if let Ok(pending) = sent {
            self.answer(called, pending).await;
        }
    }

    /// True if the condition held.
    async fn set_if(&self, topic: &str, expected: Option<i64>, value: i64) -> bool {
        let called = self.operation(topic, Action::SetIf { expected, value });
        let constraint = match expected {
            Some(expected) => {
                let bytes = Some(expected.to_le_bytes().to_vec().into());
                let value = WireValue { value_type: TopicType::Int64 as u8, bytes };
                ConstraintNode::Value { operator: Operator::Is, value }
            }
            None => ConstraintNode::NoValue,
        };
        let topic = path(topic);
        let set = SetTopic {
            path: &topic,
            specification: None,
            constraint: &[constraint],
            value: Value::Int64(value),
        };
        match self.client.begin_set_topic(set).await {
            Ok(pending) => self.answer(called, pending).await.is_some(),
            Err(_) => false,
        }
    }

    async fn remove(&self, topic: &str) {
        let called = self.operation(topic, Action::Remove);
        let place = self.recorder().called(called);
        let outcome = match self.client.remove(&format!(">{topic}")).await {
            Ok(count) => Outcome::Applied { index: None, changed: count > 0 },
            Err(error) => outcome_of(&error),
        };
        self.recorder().answered(place, self.node(), outcome);
    }

    async fn read(&self, topic: &str, linearizable: bool) -> Option<Seen> {
        let called = self.operation(topic, Action::Read { linearizable });
        let place = self.recorder().called(called);
        let selector = format!(">{topic}");
        let fetch = Fetch { selector, values: Some(0), ..Fetch::default() };
        let asks = linearizable && self.workload.fault != Some(ClientFault::StaleReads);
        let level = if asks { ReadLevel::Linearizable } else { ReadLevel::Local };
        let options = ReadOptions { level, deadline: Some(READ_PATIENCE) };
        let seen = self.client.fetch(fetch, options).await.ok().map(|fetched| {
            let topic = fetched.topics.first();
            Seen {
                index: fetched.freshness.index,
                found: topic.is_some(),
                value: topic.and_then(|topic| topic.value.as_ref()).and_then(number_of),
                version: topic.and_then(|topic| topic.version),
            }
        });
        let outcome = seen.map_or(Outcome::NotRead, Outcome::Read);
        self.recorder().answered(place, self.node(), outcome);
        seen
    }
}

/// Waits until the run is over.
async fn over(phase: &mut watch::Receiver<Phase>) {
    // A run whose phases nobody tells any more is over too.
    let _over = phase.wait_for(|phase| *phase == Phase::Over).await.is_ok();
}

/// A stream of events that is written down.
struct Listening {
    events: EventStream,
    workload: Workload,
    place: StreamId,
    node: Option<Node>,
}

impl Listening {
    /// Reads until the session ends, with this pause after each event.
    async fn read(&mut self, pause: Duration) {
        let (mut newest, mut moved) = (None, false);
        let Workload { recorder, fault, heard_us, .. } = self.workload.clone();
        while let Some(event) = self.events.next().await {
            let position = event.position();
            let heard = match event {
                Event::Subscribed { topic, .. } => {
                    Heard::Subscribed { topic: topic.id, path: topic.path.to_string() }
                }
                Event::Value { topic, value, initial, .. } => {
                    let value = value.as_ref().and_then(number_of);
                    Heard::Value { topic: topic.id, value, initial }
                }
                Event::Unsubscribed { topic, reason, .. } => {
                    Heard::Unsubscribed { topic: topic.id, reason }
                }
                Event::Current { .. } => Heard::Current,
                Event::Reset { reason, .. } => Heard::Reset { reason },
                Event::Lagged { skipped, .. } => Heard::Lagged { skipped },
                Event::Moved { node, .. } => {
                    self.node = node_of(&node);
                    Heard::Moved
                }
                // Only listeners of notifications hear these.
                Event::Added { .. }
                | Event::Removed { .. }
                | Event::Selected { .. }
                | Event::Deselected { .. } => continue,
            };
            let is_value = matches!(heard, Heard::Value { initial: false, .. });
            if fault == Some(ClientFault::Misses) && is_value && std::mem::take(&mut moved) {
                continue;
            }
            moved |= heard == Heard::Moved;
            heard_us.store(recorder.now().0, Ordering::Relaxed);
            recorder.heard(self.place, self.node, position, heard.clone());
            if is_value {
                newest = Some((position, heard));
            } else if fault == Some(ClientFault::HearsTwice)
                && heard == Heard::Moved
                && let Some((position, heard)) = newest.take()
            {
                recorder.heard(self.place, self.node, position, heard);
            }
            if !pause.is_zero() && self.workload.is_busy() {
                tokio::time::sleep(pause).await;
            }
        }
    }

    fn close(self) {
        self.workload.recorder.closed(self.place);
    }
}

fn node_of(name: &str) -> Option<Node> {
    name.strip_prefix('n')?.parse().ok().map(Node)
}

fn value_of(value: Option<i64>) -> Value<'static> {
    value.map_or(Value::Null(TopicType::Int64), Value::Int64)
}

/// What an error says of a command.
fn outcome_of(error: &RequestError) -> Outcome {
    match error {
        RequestError::Refused { code, .. } => Outcome::Refused { code: code.number() },
        _ => Outcome::Unknown,
    }
}
