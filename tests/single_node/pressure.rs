//! Clients that take all they can get: what they take is bounded, and the others go on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use quorate::client::{Event, Value};
use quorate::domain::topic::specification::{Specification, TopicType};
use quorate::protocol::handshake::Credentials;
use quorate::protocol::record::{Target, put_record};
use quorate::protocol::server_message::Acknowledgement;
use quorate::protocol::{ClientMessage, ErrorCode, ServerMessage};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::harness::{Counter, Node, path, soon};
use crate::hostile::Raw;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_are_not_granted_and_the_second_is_one_too_many() {
    let node = Node::start().await;
    let mut raw = Raw::connect(&node).await;
    raw.welcome(&node.hello()).await;
    let counter = Counter::of_code("quorate_connections_closed_total", ErrorCode::OutOfPlace);
    let granted = raw.streams(1_000, Duration::from_millis(500)).await;
    // Two of each kind at a time, the control stream among them, until the node has seen one.
    assert!(granted < 16, "{granted}");
    assert_eq!(raw.closed().await, ErrorCode::OutOfPlace);
    counter.rises_by(1.0).await;
    for both_ways in [true, false] {
        let counter = Counter::of_code("quorate_connections_closed_total", ErrorCode::OutOfPlace);
        let mut raw = Raw::connect(&node).await;
        raw.welcome(&node.hello()).await;
        raw.says_beside(both_ways).await;
        assert_eq!(raw.closed().await, ErrorCode::OutOfPlace);
        counter.rises_by(1.0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gibibyte_in_one_frame_is_refused_at_its_head() {
    const PIECE: usize = 256 * 1024;
    let node = Node::start().await;
    for known in [false, true] {
        let mut raw = Raw::connect(&node).await;
        if known {
            raw.welcome(&node.hello()).await;
        }
        let mut head = BytesMut::new();
        head.put_u32_le(1 << 30);
        head.put_u8(2);
        let name = if known {
            "quorate_connections_closed_total"
        } else {
            "quorate_sessions_refused_total"
        };
        let counter = Counter::of_code(name, ErrorCode::FrameTooLong);
        raw.send_bytes(head.freeze()).await;
        let mut sent = 0;
        while sent < 1 << 30 && raw.pushes(Bytes::from(vec![0; PIECE])).await {
            sent += PIECE;
        }
        // What the stream's window holds, and what was on its way.
        assert!(sent <= 8 * 1024 * 1024, "{sent} bytes were taken");
        counter.rises_by(1.0).await;
    }
    node.client().await.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_holds_nobody_up() {
    const COUNT: i64 = 5_000;
    let node = Node::start().await;
    let writer = node.client().await;
    let watcher = node.client().await;
    for topic in ["big", "count"] {
        let kind = if topic == "big" { TopicType::Binary } else { TopicType::Int64 };
        writer.add_topic(&path(topic), &Specification::plain(kind)).await.unwrap();
    }
    let mut events = watcher.subscribe(">count").await.unwrap();
    let lagged = Counter::of("quorate_sessions_lagged_total", "");
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let mut raw = Raw::connect(&node).await;
        raw.welcome(&node.hello()).await;
        raw.send(&raw.select(1, "?.*//")).await;
        raw.until(|message| matches!(message, ServerMessage::Acknowledged(_))).await;
        // From here on nothing of its streams is read.
        deaf.push(raw);
    }
    let mut value = vec![0; 4 * 1024];
    for number in 1..=COUNT {
        value[..8].copy_from_slice(&number.to_le_bytes());
        let big = Target::Path(path("big"));
        drop(soon(writer.update(&big, Value::Binary(&value))).await.unwrap());
        if number % 100 == 0 {
            soon(writer.set(&path("count"), Value::Int64(number))).await.unwrap();
        }
    }
    let mut last = 0;
    while last < COUNT {
        if let Event::Value { value: Some(value), .. } = soon(events.next()).await.unwrap() {
            last = i64::from_le_bytes(value[..].try_into().unwrap());
        }
    }
    lagged.rises_by(1.0).await;
    // A deaf client is not cut off: it lags, and may begin to read at any time.
    for raw in &deaf {
        assert!(raw.is_open());
    }
    writer.close().await;
    watcher.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_takes_an_answer_is_held_back_or_ended() {
    let node = Node::start().await;
    let good = node.client().await;
    let plain = Specification::plain(TopicType::Int64);
    good.add_topic(&path("count"), &plain).await.unwrap();
    let mut raw = Raw::connect(&node).await;
    raw.welcome(&node.hello()).await;
    // It neither reads answers nor says which of them have come.
    let mut record = BytesMut::new();
    let target = Target::Path(path("nowhere"));
    put_record(&mut record, &target, TopicType::Int64 as u8, Some(&[0; 8][..]));
    let record = record.freeze();
    let mut request = 0;
    let mut held = false;
    for _ in 0..400 {
        let mut frames = BytesMut::new();
        for _ in 0..256 {
            request += 1;
            ClientMessage::Update { request, record: record.clone() }.put(&mut frames);
        }
        if !raw.pushes(frames.freeze()).await {
            held = true;
            break;
        }
    }
    // What was taken without an answer being read was shed: dropped, and nothing kept of it.
    if !held {
        raw.until(|message| matches!(message, ServerMessage::Shed { .. })).await;
    }
    soon(good.set(&path("count"), Value::Int64(1))).await.unwrap();
    good.close().await;
}

/// Codes of the events that were logged.
#[derive(Clone, Default)]
struct Audit(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Audit {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct Code(Option<String>);
        impl tracing::field::Visit for Code {
            fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
                if field.name() == "event" {
                    self.0 = Some(value.to_owned());
                }
            }

            fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}
        }
        let mut code = Code(None);
        event.record(&mut code);
        self.0.lock().unwrap().extend(code.0);
    }
}

#[tokio::test]
async fn wrong_credentials_are_refused_named_and_audited() {
    let audit = Audit::default();
    // One thread: the node's tasks log here too.
    let _guard =
        tracing::subscriber::set_default(tracing_subscriber::registry().with(audit.clone()));
    // As in the strangers' test of the cluster: with one dispatcher alone another test's thread,
    // which listens to nothing, may decide that nobody wants an event.
    let _another = tracing::Dispatch::new(tracing_subscriber::registry());
    let node = Node::start().await;
    let counters = [("kind=\"password\"", 2.0), ("kind=\"anonymous\"", 1.0)]
        .map(|(kind, count)| (Counter::of("quorate_authentications_failed_total", kind), count));
    let password = |principal: &str, password: &str| Credentials::Password {
        principal: principal.to_owned(),
        password: password.to_owned(),
    };
    for credentials in [password("admin", "guess"), password("nobody", "secret")] {
        let mut hello = node.hello();
        hello.credentials = credentials;
        let refused = Raw::connect(&node).await.refused(&hello).await;
        assert_eq!(ErrorCode::from(refused.code), ErrorCode::BadCredentials);
        assert_eq!(refused.retry_ms, None);
    }
    let mut hello = node.hello();
    hello.credentials = Credentials::Anonymous;
    let refused = Raw::connect(&node).await.refused(&hello).await;
    assert_eq!(ErrorCode::from(refused.code), ErrorCode::AnonymousRefused);
    let audited = audit.0.lock().unwrap().iter().filter(|code| *code == "Q-500").count();
    assert_eq!(audited, 3);
    for (counter, count) in counters {
        counter.rises_by(count).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overload_is_shed_by_permits_and_what_is_taken_is_answered_in_time() {
    const PERMITS: usize = 128;
    const CLIENTS: usize = 4;
    const EACH: u64 = 2_000;
    let node = Node::start_within(PERMITS).await;
    let term = node.replication.status(Duration::from_secs(5)).await.term;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let client = node.client().await;
        let plain = Specification::plain(TopicType::Int64);
        let topic = client.add_topic(&path(&format!("load/{number}")), &plain).await.unwrap().topic;
        clients.push((client, topic));
    }
    let load = clients.iter().map(|(client, topic)| async move {
        let (mut publisher, mut answers) = client.publisher(1_024);
        let mut taken = Vec::new();
        let sending = async {
            for number in 1..=EACH {
                let value = Value::Int64(number as i64);
                soon(publisher.send(&Target::Topic(*topic), value, number)).await.unwrap();
            }
        };
        let taking = async {
            while (taken.len() as u64) < EACH {
                soon(answers.next_into(&mut taken)).await;
            }
        };
        tokio::join!(sending, taking);
        assert!(taken.iter().all(|answer| answer.outcome.is_ok()));
        client.statistics().sheds
    });
    // What one client may have in flight, times the clients, is many times the permits.
    let sheds: u64 = futures::future::join_all(load).await.into_iter().sum();
    assert!(sheds > 0, "nothing was shed");
    let status = node.replication.status(Duration::from_secs(5)).await;
    assert!(node.replication.is_leader() && status.term == term, "{status:?}");

    // The same on the wire: more than there are permits, in one go.
    let mut raw = Raw::connect(&node).await;
    raw.welcome(&node.hello()).await;
    let mut frames = BytesMut::new();
    let mut record = BytesMut::new();
    let target = Target::Path(path("load/0"));
    put_record(&mut record, &target, TopicType::Int64 as u8, Some(&[1; 8][..]));
    for request in 1..=PERMITS as u64 * 4 {
        let record = record.clone().freeze();
        ClientMessage::Update { request, record }.put(&mut frames);
    }
    let counter = Counter::of_code("quorate_requests_refused_total", ErrorCode::Overloaded);
    raw.send_bytes(frames.freeze()).await;
    let shed = raw.until(|message| matches!(message, ServerMessage::Shed { .. })).await;
    let ServerMessage::Shed { first, code, retry_ms } = shed else { panic!("{shed:?}") };
    assert_eq!(code, ErrorCode::Overloaded);
    assert!(first > 1 && retry_ms > 0, "{first} {retry_ms}");
    counter.rises_by(1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_no_stream_of_the_nodes_holds_only_itself_up() {
    // More than it grants, and more than the node sends at once.
    const SELECTIONS: u64 = 100;
    let node = Node::start().await;
    let mut raw = Raw::connect(&node).await;
    raw.welcome(&node.hello()).await;
    for request in 1..=SELECTIONS {
        raw.send(&raw.select(request, &format!(">a/{request}"))).await;
    }
    let mut answered = 0;
    while answered < SELECTIONS {
        let message = raw.until(|message| matches!(message, ServerMessage::Acknowledged(_))).await;
        let ServerMessage::Acknowledged(entries) = message else { continue };
        answered += (entries.iter())
            .map(|entry| match entry {
                Acknowledgement::Run { count, .. } => u64::from(*count),
                Acknowledgement::One { .. } => 1,
            })
            .sum::<u64>();
    }
    let client = node.client().await;
    let mut events = soon(client.subscribe("?.*//")).await.unwrap();
    assert!(matches!(soon(events.next()).await, Some(Event::Current { .. })));
    client.close().await;
}
