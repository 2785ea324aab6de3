//! Resume on another node after every kind of event: each watcher's line to its node goes dead right
//! before or right after an event of one kind; the session goes on at another node, and what the
//! program hears has no gap and no repetition.

mod line;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use quorate::client::{
    Client, ClientConfig, Event, EventStream, Patience, StartFrom, UnsubscribeReason, Value,
};
use quorate::domain::id::Position;
use quorate::domain::topic::specification::{Specification, TopicType};
use quorate::supervisor::Supervisor;

use crate::clients::{Front, soon};
use crate::stage::{Stage, path, until};
use line::{Cut, Line};

/// The nodes, in the order in which a session comes to them.
const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// Topics that are there before anybody watches.
const TOPICS: usize = 20;

fn before(what: &'static str, nth: usize) -> Cut {
    Cut { what, nth, after: false }
}

fn after(what: &'static str, nth: usize) -> Cut {
    Cut { what, nth, after: true }
}

/// What a program knows from its events, and what in them made no sense.
#[derive(Default)]
struct Heard {
    topics: BTreeMap<String, Option<i64>>,
    listed: BTreeSet<String>,
    /// Values that were no initial ones.
    values: Vec<(Position, String, i64)>,
    current: usize,
    moved: usize,
    /// The first line went dead before the head of the event stream came over it.
    headless: bool,
    resets: usize,
    log: Vec<String>,
    wrong: Vec<String>,
}

impl Heard {
    fn check(&mut self, holds: bool, what: &str) {
        if !holds {
            self.wrong.push(format!("{what}, at {}", self.log.len()));
        }
    }

    fn event(&mut self, event: Event) {
        self.log.push(format!("{} {}", event.position(), brief(&event)));
        match event {
            Event::Subscribed { topic, .. } => {
                let known = self.topics.insert(topic.path.to_string(), None);
                self.check(known.is_none(), "subscribed twice");
            }
            Event::Value { position, topic, value, initial } => {
                let path = topic.path.to_string();
                let number = i64::from_le_bytes(value.unwrap()[..].try_into().unwrap());
                let known = self.topics.insert(path.clone(), Some(number));
                self.check(known.is_some(), "a value before its topic");
                let last = known.flatten();
                let follows = last.is_none_or(|last| number == last + 1);
                self.check(follows, "a value lost or repeated");
                if !initial {
                    self.values.push((position, path, number));
                }
            }
            Event::Unsubscribed { topic, .. } => {
                let known = self.topics.remove(topic.path.as_str());
                self.check(known.is_some(), "unsubscribed twice");
            }
            Event::Reset { .. } => {
                self.topics.clear();
                self.resets += 1;
            }
            Event::Current { .. } => self.current += 1,
            Event::Moved { position, .. } => {
                self.headless |= self.moved == 0 && position == Position::START;
                self.moved += 1;
            }
            other => self.check(false, &format!("an event out of place: {other:?}")),
        }
    }

    fn notice(&mut self, event: Event) {
        self.log.push(format!("{} notice {}", event.position(), brief(&event)));
        match event {
            Event::Added { topic, .. } | Event::Selected { topic, .. } => {
                let new = self.listed.insert(topic.path.to_string());
                self.check(new, "listed twice");
            }
            Event::Removed { topic, .. } => {
                let known = self.listed.remove(topic.path.as_str());
                self.check(known, "removed twice");
            }
            Event::Reset { .. } => self.listed.clear(),
            Event::Moved { .. } | Event::Current { .. } => {}
            other => self.check(false, &format!("a notice out of place: {other:?}")),
        }
    }
}

impl std::fmt::Debug for Heard {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let topics = self.topics.keys().cloned().collect::<Vec<_>>().join(" ");
        let listed = self.listed.iter().cloned().collect::<Vec<_>>().join(" ");
        let (log, wrong) = (self.log.join("\n"), &self.wrong);
        write!(formatter, "topics {topics}\nlisted {listed}\nwrong {wrong:?}\nlog\n{log}")
    }
}

fn brief(event: &Event) -> String {
    let topic = event.topic().map_or("", |topic| topic.path.as_str());
    match event {
        Event::Subscribed { .. } => format!("+{topic}"),
        Event::Unsubscribed { reason: UnsubscribeReason::Requested, .. } => format!("~{topic}"),
        Event::Unsubscribed { .. } => format!("-{topic}"),
        Event::Value { value, initial, .. } => {
            let number =
                value.as_ref().map(|value| i64::from_le_bytes(value[..].try_into().unwrap()));
            format!("{topic}{}{number:?}", if *initial { ":" } else { "=" })
        }
        Event::Moved { node, .. } => format!("moved to {node}"),
        Event::Reset { reason, .. } => format!("reset {reason:?}"),
        Event::Current { .. } => "current".to_owned(),
        Event::Added { .. } => format!("added {topic}"),
        Event::Removed { .. } => format!("removed {topic}"),
        Event::Selected { .. } => format!("selected {topic}"),
        other => format!("{other:?}"),
    }
}

/// A program that watches everything over lines that go dead.
struct Watcher {
    cuts: Vec<Cut>,
    lines: Vec<Line>,
    client: Client,
    heard: Arc<Mutex<Heard>>,
    _supervisor: Supervisor,
}

impl Watcher {
    /// Connects to the first node, over the first line if there is one; the session may move to the
    /// others, over the other lines.
    async fn connect(front: &Front, nodes: &[&str], cuts: &[Cut], patience: Patience) -> Self {
        Self::connect_from(front, nodes, cuts, patience, None).await
    }

    /// The same; the session's events begin at a past position.
    async fn connect_from(
        front: &Front,
        nodes: &[&str],
        cuts: &[Cut],
        patience: Patience,
        from: Option<StartFrom>,
    ) -> Self {
        let mut lines = Vec::new();
        let mut addresses = Vec::new();
        for (place, node) in nodes.iter().enumerate() {
            let direct = front.gateways[*node].local_address();
            match cuts.get(place) {
                Some(cut) => {
                    let line = Line::open(&front.ca, direct, *cut);
                    addresses.push(line.address());
                    lines.push(line);
                }
                None => addresses.push(direct.to_string()),
            }
        }
        let config = ClientConfig::new(addresses, front.authority.clone()).patience(patience);
        let config = ClientConfig { from, ..config };
        let client = soon(Client::connect(config)).await.unwrap();
        let heard = Arc::default();
        let supervisor = Supervisor::new("watcher");
        Self { cuts: cuts.to_vec(), lines, client, heard, _supervisor: supervisor }
    }

    /// Subscribes and listens to everything, and takes what comes.
    fn watch(&self) {
        let (client, heard) = (self.client.clone(), Arc::clone(&self.heard));
        self._supervisor.spawn("watch", async move {
            let events = client.subscribe("?.*//").await.unwrap();
            let notices = client.listen("?.*//").await.unwrap();
            take(events, notices, heard).await;
        });
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap()
    }

    /// The line to the first node is dead, and those to the next ones unless the session has passed them
    /// over, as it may where a node takes long to answer.
    fn is_cut(&self) -> bool {
        let node = self.client.node();
        let passed = NODES.iter().position(|name| **name == *node).unwrap_or_default();
        let mut lines = self.lines.iter().enumerate();
        lines.all(|(place, line)| line.is_dead() || (1..passed).contains(&place))
    }

    /// Nothing wrong so far, and this holds.
    fn has(&self, holds: impl Fn(&Heard) -> bool) -> bool {
        let heard = self.heard();
        assert!(heard.wrong.is_empty(), "{:?}: {:?}", self.cuts, *heard);
        holds(&heard)
    }
}

async fn take(mut events: EventStream, mut notices: EventStream, heard: Arc<Mutex<Heard>>) {
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => heard.lock().unwrap().event(event),
                None => return,
            },
            notice = notices.next() => match notice {
                Some(notice) => heard.lock().unwrap().notice(notice),
                None => return,
            },
        }
    }
}

/// Waits until this holds for every watcher; says which one it does not hold for.
async fn all(watchers: &[Watcher], what: &str, holds: impl Fn(&Watcher) -> bool) {
    let mut patience = 0;
    loop {
        let Some(late) = watchers.iter().find(|watcher| !holds(watcher)) else { return };
        patience += 1;
        assert!(patience < 9_000, "never: {what}: {:?}: {:?}", late.cuts, *late.heard());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Counts topics up and knows what they hold.
struct Counter {
    client: Client,
    topics: BTreeMap<String, Option<i64>>,
    highest: BTreeMap<String, i64>,
}

impl Counter {
    async fn add(&mut self, topic: &str) {
        let off = Specification::new(TopicType::Int64, [("CONFLATION", "off")]).unwrap();
        soon(self.client.add_topic(&path(topic), &off)).await.unwrap();
        self.topics.insert(topic.to_owned(), None);
    }

    async fn count(&mut self, topic: &str) {
        let highest = self.highest.entry(topic.to_owned()).or_default();
        *highest += 1;
        soon(self.client.set(&path(topic), Value::Int64(*highest))).await.unwrap();
        self.topics.insert(topic.to_owned(), Some(*highest));
    }

    async fn remove(&mut self, topic: &str) {
        assert_eq!(soon(self.client.remove(&format!(">{topic}"))).await.unwrap(), 1);
        self.topics.remove(topic);
    }

    fn is_known_to(&self, heard: &Heard) -> bool {
        heard.topics == self.topics && heard.listed.iter().eq(self.topics.keys())
    }
}

/// Three nodes with a gateway each, topics on them, and who counts them up at the last node.
async fn scene() -> (Stage, Front, Counter) {
    let stage = Stage::three().await;
    stage.settle().await;
    let front = Front::open(&stage);
    let client = front.client(&["n3"]).await;
    let mut counter = Counter { client, topics: BTreeMap::new(), highest: BTreeMap::new() };
    for number in 0..TOPICS {
        let topic = format!("a/{number:02}");
        counter.add(&topic).await;
        counter.count(&topic).await;
    }
    (stage, front, counter)
}

/// A client that leaves its node within seconds when nothing comes, and not sooner.
fn patient() -> Patience {
    let (beat, unanswered) = (Duration::from_millis(250), Duration::from_secs(2));
    Patience { beat, unanswered, request: Duration::from_secs(60), ..Patience::default() }
}

/// Where lines go dead: every kind of event, and what goes with them.
fn cuts() -> Vec<Vec<Cut>> {
    let kinds: [(&'static str, &[usize]); 16] = [
        ("acknowledged", &[1, 2]),
        ("beat", &[2]),
        ("events", &[1]),
        ("initial", &[1, 2]),
        ("bulk", &[1]),
        ("item", &[1, 10, 20]),
        ("bulk end", &[1, 2]),
        ("notified: selected", &[1, 10, 20]),
        ("notified: added", &[1, 2]),
        ("notified: removed", &[1]),
        ("subscribed", &[1, 2]),
        ("value", &[1, 3, 5]),
        ("unsubscribed: removed", &[1]),
        ("unsubscribed: requested", &[1, 2]),
        ("progress", &[1, 3]),
        // Never there: the watcher that all others are compared with.
        ("lagged", &[]),
    ];
    let mut cuts = vec![Vec::new()];
    for (what, places) in kinds {
        for nth in places {
            cuts.push(vec![before(what, *nth)]);
            cuts.push(vec![after(what, *nth)]);
        }
    }
    // No event stream had begun: the session starts over, and that is cut too.
    cuts.push(vec![before("events", 1), before("reset", 1)]);
    cuts.push(vec![before("events", 1), after("reset", 1)]);
    cuts.push(vec![before("events", 1), after("item", 5)]);
    // The second node is lost as well.
    cuts.push(vec![after("item", 10), before("item", 15)]);
    cuts.push(vec![after("item", 10), before("bulk end", 1)]);
    cuts.push(vec![after("notified: selected", 10), after("notified: selected", 5)]);
    cuts.push(vec![after("value", 1), before("value", 1)]);
    cuts.push(vec![after("value", 2), after("notified: added", 1)]);
    cuts
}

/// The first line went dead before the head of the event stream, so that the session started over, and
/// the second one in the midst of that. Bulk streams can be ahead of that head, so a cut in one of them
/// can do it as well.
fn may_reset(watcher: &Watcher) -> bool {
    watcher.cuts.len() > 1 && watcher.heard().headless
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_resumes_on_another_node_after_every_kind_of_event() {
    let (_stage, front, mut counter) = scene().await;
    let mut watchers = Vec::new();
    for cuts in cuts() {
        watchers.push(Watcher::connect(&front, &NODES, &cuts, patient()).await);
    }
    // Initial values, and the topics that a listener finds.
    watchers.iter().for_each(Watcher::watch);
    all(&watchers, "everything is known", |watcher| {
        watcher.has(|heard| heard.current > 0 && counter.is_known_to(heard))
    })
    .await;

    // Values, additions, removals.
    let start = Position::end_of_entry(counter.client.seen().entry());
    for _ in 0..3 {
        counter.count("a/00").await;
    }
    counter.add("b/1").await;
    counter.count("b/1").await;
    counter.remove("a/01").await;
    counter.add("a/01").await;
    counter.count("a/01").await;
    all(&watchers, "all changes are known", |watcher| {
        watcher.has(|heard| counter.is_known_to(heard))
    })
    .await;
    let middle = Position::end_of_entry(counter.client.seen().entry());

    // Changes of the stream's own selections.
    counter.add("b/2").await;
    counter.count("b/2").await;
    let selections = |select: bool| {
        let each = watchers.iter().map(move |watcher| async move {
            let client = &watcher.client;
            let changed = if select {
                client.select("stream-1", "?b//").await
            } else {
                client.deselect("stream-1", "?b//").await
            };
            changed.unwrap();
        });
        futures::future::join_all(each)
    };
    soon(selections(false)).await;
    let deselected = |heard: &Heard| !heard.topics.keys().any(|topic| topic.starts_with("b/"));
    all(&watchers, "b is no longer heard of", |watcher| watcher.has(deselected)).await;
    counter.count("b/1").await;
    counter.remove("b/2").await;
    counter.count("a/02").await;
    soon(selections(true)).await;
    all(&watchers, "b is heard of again", |watcher| {
        watcher.has(|heard| counter.is_known_to(heard))
    })
    .await;
    counter.count("b/1").await;
    counter.count("a/00").await;

    all(&watchers, "the end", |watcher| {
        watcher.has(|heard| counter.is_known_to(heard)) && watcher.is_cut()
    })
    .await;
    let part = |watcher: &Watcher| -> Vec<(Position, String, i64)> {
        let heard = watcher.heard();
        let between = heard.values.iter().filter(|one| one.0 > start && one.0 <= middle);
        between.cloned().collect()
    };
    let reference = part(&watchers[0]);
    assert_eq!(reference.len(), 5);
    for watcher in &watchers {
        let moves = watcher.cuts.len();
        assert!(watcher.heard().moved >= moves.min(1), "{:?}", watcher.cuts);
        let heard_of = watcher.heard().resets;
        assert!(heard_of == 0 || may_reset(watcher), "{:?}: {:?}", watcher.cuts, watcher.heard());
        assert_eq!(part(watcher), reference, "{:?}: {:?}", watcher.cuts, watcher.heard());
        if moves > 0 {
            assert_ne!(&*watcher.client.node(), "n1");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_while_initial_values_are_cut_off_is_neither_lost_nor_repeated() {
    let (_stage, front, mut counter) = scene().await;
    let mut watchers = Vec::new();
    for what in ["initial", "bulk", "item", "notified: selected", "bulk end"] {
        let places: &[usize] =
            if matches!(what, "item" | "notified: selected") { &[1, 10, 20] } else { &[1] };
        for nth in places {
            watchers.push(Watcher::connect(&front, &NODES, &[before(what, *nth)], patient()).await);
            watchers.push(Watcher::connect(&front, &NODES, &[after(what, *nth)], patient()).await);
        }
    }
    watchers.iter().for_each(Watcher::watch);
    all(&watchers, "all lines are dead", Watcher::is_cut).await;
    // Topics of which some watchers have heard and others not.
    for topic in ["a/03", "a/17"] {
        counter.count(topic).await;
        counter.remove(topic).await;
    }
    for topic in ["a/04", "a/16"] {
        counter.remove(topic).await;
        counter.add(topic).await;
        counter.count(topic).await;
    }
    for topic in ["a/05", "a/15"] {
        counter.count(topic).await;
        counter.count(topic).await;
    }
    all(&watchers, "everything is known", |watcher| {
        watcher.has(|heard| heard.current > 0 && counter.is_known_to(heard))
    })
    .await;
    for watcher in &watchers {
        assert!(watcher.heard().moved > 0, "{:?}", watcher.cuts);
        assert!(watcher.heard().resets == 0 || may_reset(watcher), "{:?}", watcher.cuts);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_past_is_told_whole_over_moves() {
    let (_stage, front, mut counter) = scene().await;
    let start = Position::end_of_entry(counter.client.seen().entry());
    for _ in 0..3 {
        counter.add("b/1").await;
        for number in 0..TOPICS {
            counter.count(&format!("a/{number:02}")).await;
            counter.count("b/1").await;
        }
        // Gone when it is told of.
        counter.remove("b/1").await;
    }
    let mut all_cuts = vec![Vec::new()];
    for (what, places) in [
        ("events", [1, 1, 1]),
        ("initial", [1, 1, 1]),
        ("item", [1, 5, 10]),
        ("bulk end", [1, 1, 1]),
        ("subscribed", [1, 2, 3]),
        ("value", [1, 30, 100]),
        ("unsubscribed: removed", [1, 2, 3]),
    ] {
        for nth in BTreeSet::from(places) {
            all_cuts.push(vec![before(what, nth)]);
            all_cuts.push(vec![after(what, nth)]);
        }
    }
    all_cuts.push(vec![after("value", 20), after("value", 20)]);
    all_cuts.push(vec![after("item", 3), after("value", 20)]);
    let mut watchers = Vec::new();
    let from = StartFrom { lineage: None, position: start };
    for cuts in all_cuts {
        let watcher = Watcher::connect_from(&front, &NODES, &cuts, patient(), Some(from));
        watchers.push(watcher.await);
    }
    for watcher in &watchers {
        let (client, heard) = (watcher.client.clone(), Arc::clone(&watcher.heard));
        watcher._supervisor.spawn("watch", async move {
            let mut events = client.subscribe("?.*//").await.unwrap();
            while let Some(event) = events.next().await {
                heard.lock().unwrap().event(event);
            }
        });
    }
    all(&watchers, "everything is known", |watcher| {
        watcher.has(|heard| heard.topics == counter.topics) && watcher.is_cut()
    })
    .await;
    // It goes on in the present.
    counter.count("a/19").await;
    all(&watchers, "the newest value", |watcher| {
        watcher.has(|heard| heard.topics == counter.topics)
    })
    .await;
    let reference = watchers[0].heard().values.clone();
    assert_eq!(reference.len(), 3 * 2 * TOPICS + 1);
    for watcher in &watchers {
        let heard = watcher.heard();
        assert_eq!(heard.resets, 0, "{:?}: {heard:?}", watcher.cuts);
        assert_eq!(heard.values, reference, "{:?}: {heard:?}", watcher.cuts);
    }
}

/// A client that stays with its node whatever it does not say, until the connection breaks.
fn faithful() -> Patience {
    let long = Duration::from_secs(60);
    Patience { beat: long, unanswered: long, dead: long, request: long, ..Patience::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_outlives_its_host_after_every_kind_of_event() {
    let (mut stage, mut front, mut counter) = scene().await;
    let mut watchers = vec![Watcher::connect(&front, &["n2"], &[], faithful()).await];
    let kinds = [
        "events",
        "initial",
        "bulk",
        "item",
        "bulk end",
        "notified: selected",
        "notified: added",
        "notified: removed",
        "subscribed",
        "value",
        "unsubscribed: removed",
    ];
    for what in kinds {
        for cut in [before(what, 1), after(what, 1)] {
            watchers.push(Watcher::connect(&front, &NODES, &[cut], faithful()).await);
        }
    }
    watchers.iter().for_each(Watcher::watch);
    all(&watchers, "a start", |watcher| {
        watcher.is_cut() || watcher.has(|heard| counter.is_known_to(heard))
    })
    .await;
    counter.count("a/00").await;
    counter.add("b/1").await;
    counter.count("b/1").await;
    counter.remove("a/01").await;
    all(&watchers, "every line is dead", |watcher| {
        watcher.is_cut()
            && (watcher.lines.len() == 1 || watcher.has(|heard| counter.is_known_to(heard)))
    })
    .await;
    // What it still says does not arrive.
    let gateway = front.gateways.remove("n1").unwrap();
    gateway.stop(Duration::from_secs(5)).await;
    drop(gateway);
    stage.stop("n1").await;
    until("the others serve", || {
        stage.up.values().all(|one| one.node.quorum().borrow().is_quorate())
    })
    .await;
    counter.count("b/1").await;
    all(&watchers, "everything is known", |watcher| {
        watcher.has(|heard| counter.is_known_to(heard))
    })
    .await;
    for watcher in &watchers {
        assert_ne!(&*watcher.client.node(), "n1", "{:?}", watcher.cuts);
    }
}
