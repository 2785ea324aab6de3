//! Subscriptions: initial values, live events, changes of selection, replay, slow readers.

use std::collections::BTreeMap;

use quorate::client::{Client, Event, EventStream, Value};
use quorate::domain::id::Position;
use quorate::domain::topic::specification::{Specification, TopicType};
use quorate::protocol::delivery::UnsubscribeReason;
use quorate::protocol::handshake::StartFrom;
use quorate::protocol::record::Target;

use crate::harness::{Node, path, soon};

async fn next(events: &mut EventStream) -> Event {
    soon(events.next()).await.expect("the stream goes on")
}

/// The next value, skipping what is not one.
async fn next_value(events: &mut EventStream) -> (Position, String, Vec<u8>) {
    loop {
        if let Event::Value { position, topic, value, .. } = next(events).await {
            return (position, topic.path.to_string(), value.unwrap_or_default().to_vec());
        }
    }
}

async fn until_current(events: &mut EventStream) -> Vec<Event> {
    let mut seen = Vec::new();
    loop {
        match next(events).await {
            Event::Current { .. } => return seen,
            event => seen.push(event),
        }
    }
}

async fn add(client: &Client, topics: &[&str]) {
    for text in topics {
        client.add_topic(&path(text), &Specification::plain(TopicType::String)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_gets_initial_values_then_every_update() {
    let node = Node::start().await;
    let writer = node.client().await;
    let watcher = node.client().await;
    add(&writer, &["a/1", "a/2", "b"]).await;
    writer.set(&path("a/1"), Value::String("one")).await.unwrap();

    let mut events = watcher.subscribe("?a//").await.unwrap();
    let initial = until_current(&mut events).await;
    let values: Vec<_> =
        initial.iter().filter(|event| matches!(event, Event::Value { .. })).collect();
    assert_eq!((initial.len(), values.len()), (3, 1), "{initial:?}");

    let mut last = Position::START;
    for number in 0..100 {
        let text = format!("v{number}");
        writer.set(&path("a/2"), Value::String(&text)).await.unwrap();
        writer.set(&path("b"), Value::String(&text)).await.unwrap();
        let (position, topic, value) = next_value(&mut events).await;
        assert_eq!((topic.as_str(), value.as_slice()), ("a/2", text.as_bytes()));
        assert!(position > last);
        last = position;
    }
    writer.close().await;
    watcher.close().await;
}

/// Commands that are sent together are applied together, before the first of them is followed.
#[tokio::test]
async fn selections_that_change_together_lose_no_initial_values() {
    let node = Node::start().await;
    let writer = node.client().await;
    add(&writer, &["a/1", "b/1", "c/1"]).await;
    writer.set(&path("b/1"), Value::String("there")).await.unwrap();
    for _ in 0..10 {
        let client = node.client().await;
        client.select("other", "?a//").await.unwrap();
        let (deselected, first, second) = soon(async {
            tokio::join!(
                client.deselect("other", "?a//"),
                client.subscribe("?b//"),
                client.subscribe("?c//")
            )
        })
        .await;
        deselected.unwrap();
        let (mut first, mut second) = (first.unwrap(), second.unwrap());
        let told = until_current(&mut first).await;
        assert!(matches!(&told[..], [Event::Subscribed { .. }, Event::Value { .. }]), "{told:?}");
        let told = until_current(&mut second).await;
        assert!(matches!(&told[..], [Event::Subscribed { .. }]), "{told:?}");
        client.close().await;
    }
    writer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_come_and_go() {
    let node = Node::start().await;
    let client = node.client().await;
    let mut events = client.subscribe("?.*//").await.unwrap();
    let mut notices = client.listen("?x/.*").await.unwrap();
    let mut others = client.listen("?.*//").await.unwrap();
    until_current(&mut events).await;
    add(&client, &["x/1", "y"]).await;
    client.remove(">x/1").await.unwrap();
    add(&client, &["x/1"]).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(match next(&mut events).await {
            Event::Subscribed { topic, .. } => format!("+{}", topic.path),
            Event::Unsubscribed { topic, reason, .. } => {
                assert_eq!(reason, UnsubscribeReason::Removed);
                format!("-{}", topic.path)
            }
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(seen, ["+x/1", "+y", "-x/1", "+x/1"]);
    let mut noticed = Vec::new();
    for _ in 0..3 {
        noticed.push(match next(&mut notices).await {
            Event::Added { topic, .. } => format!("+{}", topic.path),
            Event::Removed { topic, .. } => format!("-{}", topic.path),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(noticed, ["+x/1", "-x/1", "+x/1"]);
    for wanted in ["x/1", "y", "x/1", "x/1"] {
        let event = next(&mut others).await;
        assert_eq!(event.topic().map(|topic| topic.path.as_str()), Some(wanted), "{event:?}");
    }
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deselection_ends_subscriptions_and_a_selection_brings_them_back() {
    let node = Node::start().await;
    let client = node.client().await;
    add(&client, &["a/1", "a/2"]).await;
    let mut events = client.subscribe("?a//").await.unwrap();
    until_current(&mut events).await;
    // The client library gives each subscription a scope of its own; this one is another.
    client.select("mine", "?a/1").await.unwrap();
    client.deselect("mine", "?.*//").await.unwrap();
    client.set(&path("a/1"), Value::String("still")).await.unwrap();
    assert_eq!(next_value(&mut events).await.1, "a/1");
    drop(events);

    let mut again = client.subscribe(">a/1").await.unwrap();
    let initial = until_current(&mut again).await;
    assert!(
        matches!(&initial[..], [Event::Subscribed { .. }, Event::Value { value: Some(value), .. }]
            if &value[..] == b"still"),
        "{initial:?}"
    );
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_made_while_updates_flow_miss_nothing_and_repeat_nothing() {
    const ROUNDS: i64 = 1_500;
    let node = Node::start().await;
    let writer = node.client().await;
    let off = Specification::new(TopicType::Int64, [("CONFLATION", "off")]).unwrap();
    let mut topics = Vec::new();
    for name in ["c/0", "c/1", "c/2"] {
        topics.push(writer.add_topic(&path(name), &off).await.unwrap().topic);
    }
    let publish = async {
        let (mut publisher, mut answers) = writer.publisher(64);
        let mut taken = Vec::new();
        for round in 1..=ROUNDS {
            for topic in &topics {
                let target = Target::Topic(*topic);
                while publisher.is_full() {
                    soon(answers.next_into(&mut taken)).await;
                    taken.clear();
                }
                soon(publisher.send(&target, Value::Int64(round), 0)).await.unwrap();
            }
        }
    };
    let watch = async {
        let mut clients = Vec::new();
        let mut followed = Vec::new();
        for _ in 0..8 {
            let client = node.client().await;
            // Whoever does not read one stream of a client makes its others wait.
            for selector in [">c/0", "?c/[12]", "?c//"] {
                followed.push(follow(client.subscribe(selector).await.unwrap(), ROUNDS));
            }
            clients.push(client);
        }
        soon(futures::future::join_all(followed)).await;
        for client in clients {
            client.close().await;
        }
    };
    tokio::join!(publish, watch);
}

/// Reads until every topic has come to `last`, and finds each value once and in order.
async fn follow(mut events: EventStream, last: i64) {
    let mut newest: BTreeMap<String, i64> = BTreeMap::new();
    while newest.is_empty() || newest.values().any(|value| *value < last) {
        match next(&mut events).await {
            Event::Value { topic, value: Some(value), initial, .. } => {
                let number = i64::from_le_bytes(value[..].try_into().unwrap());
                match newest.insert(topic.path.to_string(), number) {
                    Some(before) => assert_eq!(number, before + 1, "{}", topic.path),
                    None => assert!(initial || number == 1, "{}", topic.path),
                }
            }
            Event::Subscribed { .. } | Event::Current { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_may_start_in_the_past() {
    let node = Node::start().await;
    let writer = node.client().await;
    add(&writer, &["p", "gone"]).await;
    for text in ["1", "2", "3"] {
        writer.set(&path("p"), Value::String(text)).await.unwrap();
    }
    writer.set(&path("gone"), Value::String("g")).await.unwrap();
    writer.remove(">gone").await.unwrap();
    let start = StartFrom { lineage: None, position: Position::START };
    let reader = node.client_with(|config| config.from(start)).await;
    let mut events = reader.subscribe("?.*//").await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let (_, topic, value) = next_value(&mut events).await;
        seen.push(format!("{topic}={}", String::from_utf8(value).unwrap()));
    }
    assert_eq!(seen, ["p=1", "p=2", "p=3", "gone=g"]);
    writer.close().await;
    reader.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_is_never_skipped_where_conflation_is_off() {
    const COUNT: i64 = 15_000;
    let node = Node::start().await;
    let writer = node.client().await;
    let slow = node.client_with(|mut config| {
        config.event_batches = 1;
        config
    });
    let slow = slow.await;
    let off = Specification::new(TopicType::Int64, [("CONFLATION", "off")]).unwrap();
    let plain = Specification::plain(TopicType::Int64);
    let each = writer.add_topic(&path("each"), &off).await.unwrap().topic;
    let newest = writer.add_topic(&path("newest"), &plain).await.unwrap().topic;
    let mut events = slow.subscribe("?.*//").await.unwrap();
    until_current(&mut events).await;

    let (mut publisher, mut answers) = writer.publisher(512);
    let mut taken = Vec::new();
    for number in 1..=COUNT {
        for topic in [each, newest] {
            let target = Target::Topic(topic);
            while publisher.is_full() {
                soon(answers.next_into(&mut taken)).await;
                taken.clear();
            }
            soon(publisher.send(&target, Value::Int64(number), 0)).await.unwrap();
        }
    }
    // Only now the reader begins to read.
    let (mut count, mut last_each, mut last_newest) = (0_i64, 0, 0);
    let mut last = Position::START;
    while last_each < COUNT || last_newest < COUNT {
        let (position, topic, value) = next_value(&mut events).await;
        assert!(position > last);
        last = position;
        let number = i64::from_le_bytes(value[..].try_into().unwrap());
        if topic == "each" {
            assert_eq!(number, last_each + 1);
            last_each = number;
        } else {
            assert!(number > last_newest);
            last_newest = number;
            count += 1;
        }
    }
    assert!(count < COUNT, "a session that lags jumps to newest values");
    writer.close().await;
    slow.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_of_equal_and_of_different_interest() {
    let node = Node::start().await;
    let writer = node.client().await;
    let mut watchers = Vec::new();
    for number in 0..40 {
        let client = node.client().await;
        let selector = if number % 2 == 0 { "?m//".to_owned() } else { format!(">m/{number}") };
        let events = client.subscribe(&selector).await.unwrap();
        watchers.push((number, client, events));
    }
    for number in 0..40 {
        add(&writer, &[&format!("m/{number}")]).await;
        writer.set(&path(&format!("m/{number}")), Value::String("x")).await.unwrap();
    }
    for (number, client, events) in &mut watchers {
        let expected = if *number % 2 == 0 { 40 } else { 1 };
        for index in 0..expected {
            let wanted = if expected == 1 { *number } else { index };
            assert_eq!(next_value(events).await.1, format!("m/{wanted}"));
        }
        client.close().await;
    }
    writer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_selection_returns_though_nobody_reads_its_many_values() {
    const COUNT: usize = 6_000;
    let node = Node::start().await;
    let client = node
        .client_with(|config| quorate::client::ClientConfig { event_batches: 1, ..config })
        .await;
    let mut events = client.subscribe("?.*//").await.unwrap();
    until_current(&mut events).await;
    client.deselect("stream-1", "?a//").await.unwrap();
    let writer = node.client().await;
    let specification = Specification::plain(TopicType::String);
    let mut pending = Vec::new();
    for number in 0..COUNT {
        let topic = path(&format!("a/{number}"));
        pending.push(writer.begin_add_topic(&topic, &specification).await.unwrap());
        if pending.len() == 512 {
            for answer in pending.drain(..) {
                soon(answer).await.unwrap();
            }
        }
    }
    for answer in pending {
        soon(answer).await.unwrap();
    }
    // The program reads no event before its calls have returned.
    soon(client.select("mine", "?a//")).await.unwrap();
    soon(client.deselect("other", "?.*//")).await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < COUNT {
        if let Event::Subscribed { topic, .. } = next(&mut events).await {
            assert!(seen.insert(topic.path.to_string()));
        }
    }
    client.close().await;
    writer.close().await;
}
