//! The client against scripted nodes.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod scripted_node;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::domain::id::{Position, TopicId};
use crate::protocol::command::ClientCommand;
use crate::protocol::delivery::{BulkMessage, BulkPurpose, Event as Wire};
use crate::protocol::handshake::{ResetReason, Verdict};
use crate::protocol::read::{Answer, Fetch, Level, Row};
use crate::protocol::record::Target;
use crate::protocol::{ClientMessage, ErrorCode, ServerMessage};
use scripted_node::*;

const TARGET: Target = Target::Topic(TopicId(7));

async fn update(client: &Client) -> Pending {
    soon(client.update(&TARGET, Value::Json(b"{}"))).await.unwrap()
}

/// A client at a node that has welcomed it.
async fn at_home(config: ClientConfig, node: &Node) -> (Client, Visit) {
    let (client, visit) = tokio::join!(soon(Client::connect(config)), node.host());
    (client.unwrap(), visit)
}

fn continuous(position: Position) -> Verdict {
    Verdict::Continuous { position }
}

async fn next(events: &mut EventStream) -> String {
    match soon(events.next()).await.expect("the stream goes on") {
        Event::Subscribed { topic, .. } => format!("+{}", topic.path),
        Event::Unsubscribed { topic, .. } => format!("-{}", topic.path),
        Event::Value { topic, value, position, initial } => {
            let text = String::from_utf8(value.unwrap_or_default().to_vec()).unwrap();
            let sign = if initial { ":" } else { "=" };
            format!("{}{sign}{text}@{}", topic.path, position.index.entry())
        }
        Event::Reset { .. } => "reset".to_owned(),
        Event::Moved { node, .. } => format!("moved to {node}"),
        Event::Current { .. } => "current".to_owned(),
        other => format!("{other:?}"),
    }
}

async fn following(events: &mut EventStream, count: usize) -> String {
    let mut found = Vec::new();
    for _ in 0..count {
        found.push(next(events).await);
    }
    found.join(" ")
}

#[tokio::test]
async fn updates_are_numbered_sent_and_answered() {
    let house = House::new();
    let node = house.node("n1");
    let (client, mut visit) = at_home(house.config(&[&node]), &node).await;
    assert_eq!((client.session(), &*client.node()), (SESSION, "n1"));
    let (first, second) = (update(&client).await, update(&client).await);
    assert_eq!(visit.numbers(2).await, [1, 2]);
    visit.done(1, 1).await;
    visit.refused(2, ErrorCode::NoSuchTopic).await;
    let answered = soon(first).await.unwrap();
    assert_eq!((answered.index, answered.detail), (Index::new(1, 0), Detail::Done));
    assert_eq!(soon(second).await.unwrap_err().code(), Some(ErrorCode::NoSuchTopic));
    assert_eq!(client.seen(), Index::new(1, 0));
}

#[tokio::test]
async fn what_is_unanswered_goes_again_over_the_next_node_and_nothing_twice() {
    let house = House::new();
    let (one, two) = (house.node("n1"), house.node("n2"));
    let config = house.config(&[&one, &two]).patience(patient());
    let (client, mut visit) = at_home(config, &one).await;
    let mut pending = Vec::new();
    for _ in 0..4 {
        pending.push(update(&client).await);
    }
    let path = crate::domain::topic::path::TopicPath::parse("a").unwrap();
    let specification = crate::domain::topic::specification::Specification::plain(
        crate::domain::topic::specification::TopicType::Json,
    );
    pending.push(client.begin_add_topic(&path, &specification).await.unwrap());
    assert_eq!(visit.numbers(5).await, [1, 2, 3, 4, 5]);
    visit.done(1, 2).await;
    let rest = pending.split_off(2);
    for answer in pending {
        soon(answer).await.unwrap();
    }
    let first_secret = visit.secret();
    visit.vanish();

    let mut visit = two.visit().await;
    let resume = visit.hello.resume.clone().unwrap();
    assert_eq!((resume.session, resume.secret), (SESSION, first_secret));
    assert_eq!(resume.seen, Some(Index::new(1, 1)));
    // Number 3 was applied, its answer got lost; the node answers it again.
    visit.welcome(continuous(at(0)), 3).await;
    assert_eq!(visit.numbers(3).await, [3, 4, 5]);
    let late = update(&client).await;
    assert_eq!(visit.numbers(1).await, [6]);
    visit.done(3, 2).await;
    let topic = crate::protocol::server_message::Reply::Topic { topic: TopicId(8), created: true };
    visit.say(ServerMessage::Reply { request: 5, index: Index::new(5, 0), reply: topic }).await;
    visit.done(6, 1).await;
    let mut indices = Vec::new();
    for answer in rest.into_iter().chain([late]) {
        indices.push(soon(answer).await.unwrap().index);
    }
    assert_eq!(indices, [(3, 0), (3, 1), (5, 0), (6, 0)].map(|(entry, at)| Index::new(entry, at)));
    assert_eq!((&*client.node(), client.statistics().reconnects), ("n2", 1));
}

#[tokio::test]
async fn a_silent_node_is_left_for_the_next_one() {
    let house = House::new();
    let (one, two) = (house.node("n1"), house.node("n2"));
    let (client, mut silent) = at_home(house.config(&[&one, &two]), &one).await;
    let clock = crate::clock::Clock::system();
    let sent_at = clock.now();
    let pending = update(&client).await;
    assert!(matches!(silent.next_or_ping().await, ClientMessage::Update { request: 1, .. }));
    // It is asked for a sign of life and says nothing, though its connection stands.
    assert!(matches!(silent.next_or_ping().await, ClientMessage::Read { correlation: 0, .. }));
    let mut visit = two.visit().await;
    assert!(clock.since(sent_at) < Duration::from_secs(4), "{:?}", clock.since(sent_at));
    visit.welcome(continuous(at(0)), 0).await;
    assert_eq!(visit.numbers(1).await, [1]);
    visit.done(1, 1).await;
    soon(pending).await.unwrap();
    assert_eq!(&*client.node(), "n2");
    assert!(client.statistics().races >= 1);
    soon(silent.connection.closed()).await;
}

#[tokio::test]
async fn a_node_that_lives_is_not_left_however_long_an_answer_takes() {
    let house = House::new();
    let (one, two) = (house.node("n1"), house.node("n2"));
    let patience = Patience { unanswered: Duration::from_millis(1_000), ..Patience::default() };
    let config = house.config(&[&one, &two]).patience(patience);
    let (client, mut visit) = at_home(config, &one).await;
    let pending = update(&client).await;
    assert_eq!(visit.numbers(1).await, [1]);
    for _ in 0..4 {
        let ClientMessage::Read { correlation, .. } = visit.next_or_ping().await else {
            panic!("a ping is due")
        };
        visit.answer(correlation, Answer::Pong).await;
    }
    visit.done(1, 1).await;
    soon(pending).await.unwrap();
    assert_eq!((two.endpoint.connections(), client.statistics().races), (0, 0));
}

#[tokio::test]
async fn a_missed_beat_of_a_subscribed_session_moves_it() {
    let house = House::new();
    let (one, two) = (house.node("n1"), house.node("n2"));
    let patience = Patience { beat: Duration::from_millis(200), ..Patience::default() };
    let config = house.config(&[&one, &two]).patience(patience);
    let (client, mut silent) = at_home(config, &one).await;
    let subscribing = async {
        let (request, _) = silent.command().await;
        silent.done(request, 1).await;
    };
    let (events, ()) = tokio::join!(soon(client.subscribe("?.*//")), subscribing);
    let mut events = events.unwrap();
    let mut sent = silent.events(at(1)).await;
    sent.event(at(2), Wire::Initial { request: 1, bulk: 0 }).await;
    sent.event(at(3), subscribed(1, "a")).await;
    assert_eq!(following(&mut events, 2).await, "current +a");
    // From here on it says nothing.
    let mut visit = two.visit().await;
    let resume = visit.hello.resume.clone().unwrap();
    assert_eq!((resume.position, resume.initial_missing), (Some(at(3)), false));
    visit.welcome(continuous(at(3)), 1).await;
    let mut sent = visit.events(at(3)).await;
    sent.event(at(4), value(1, "x")).await;
    assert_eq!(following(&mut events, 2).await, "moved to n2 a=x@4");
}

#[tokio::test]
async fn what_comes_while_another_node_is_asked_does_not_change_what_it_was_told() {
    let house = House::new();
    let (one, two) = (house.node("n1"), house.node("n2"));
    let patience = Patience { beat: Duration::from_millis(200), ..Patience::default() };
    let config = house.config(&[&one, &two]).patience(patience);
    let (client, mut late) = at_home(config, &one).await;
    let subscribing = async {
        let (request, _) = late.command().await;
        late.done(request, 1).await;
    };
    let (events, ()) = tokio::join!(soon(client.subscribe("?.*//")), subscribing);
    let mut events = events.unwrap();
    let mut sent = late.events(at(1)).await;
    sent.event(at(2), Wire::Initial { request: 1, bulk: 0 }).await;
    sent.event(at(3), subscribed(1, "a")).await;
    assert_eq!(following(&mut events, 2).await, "current +a");
    // It misses its beats, and speaks again when the hello to the next one has been sent.
    let mut visit = two.visit().await;
    assert_eq!(visit.hello.resume.as_ref().unwrap().position, Some(at(3)));
    sent.event(at(4), value(1, "late")).await;
    let early = tokio::time::timeout(Duration::from_millis(300), events.next()).await;
    assert!(early.is_err(), "{early:?}");
    visit.welcome(continuous(at(3)), 1).await;
    let mut sent = visit.events(at(3)).await;
    sent.event(at(4), value(1, "x")).await;
    assert_eq!(following(&mut events, 2).await, "moved to n2 a=x@4");
}

#[tokio::test]
async fn initial_values_and_events_meet_without_gap_or_repetition() {
    let house = House::new();
    let node = house.node("n1");
    let config = house.config(&[&node]).patience(patient());
    let (client, mut visit) = at_home(config, &node).await;
    let subscribing = async {
        let (request, command) = visit.command().await;
        let ClientCommand::Select { selector, select: true, .. } = command else {
            panic!("no selection: {command:?}")
        };
        assert_eq!(selector, "?a//");
        visit.done(request, 1).await;
        request
    };
    let (events, request) = tokio::join!(soon(client.subscribe("?a//")), subscribing);
    let mut events = events.unwrap();
    let mut sent = visit.events(at(4)).await;
    sent.event(at(5), Wire::Initial { request, bulk: 1 }).await;
    // The event stream is ahead of the bulk stream: its values wait for their topics.
    sent.event(at(6), value(2, "six")).await;
    sent.event(at(7), value(1, "seven")).await;
    let mut bulk = visit.bulk(1, BulkPurpose::Initial(request)).await;
    bulk.item(4, 1, "a/1", "four").await;
    assert_eq!(following(&mut events, 2).await, "+a/1 a/1:four@4");
    bulk.item(6, 2, "a/2", "six").await;
    assert_eq!(following(&mut events, 3).await, "+a/2 a/2:six@6 a/1=seven@7");
    bulk.item(4, 1, "a/1", "four").await;
    bulk.end().await;
    assert_eq!(next(&mut events).await, "current");
    sent.event(at(8), value(2, "eight")).await;
    assert_eq!(next(&mut events).await, "a/2=eight@8");
}

#[tokio::test]
async fn initial_values_that_were_cut_off_are_asked_for_again() {
    let house = House::new();
    let (one, two) = (house.node("n1"), house.node("n2"));
    let config = house.config(&[&one, &two]).patience(patient());
    let (client, mut visit) = at_home(config, &one).await;
    let subscribing = async {
        let (request, _) = visit.command().await;
        visit.done(request, 1).await;
        request
    };
    let (events, request) = tokio::join!(soon(client.subscribe("?.*//")), subscribing);
    let mut events = events.unwrap();
    let mut sent = visit.events(at(4)).await;
    sent.event(at(5), Wire::Initial { request, bulk: 1 }).await;
    let mut bulk = visit.bulk(1, BulkPurpose::Initial(request)).await;
    bulk.item(4, 1, "a", "four").await;
    assert_eq!(following(&mut events, 2).await, "+a a:four@4");
    visit.vanish();

    let mut visit = two.visit().await;
    let resume = visit.hello.resume.clone().unwrap();
    // As far as events had come before the selection: the node is to know what was heard then.
    assert_eq!((resume.position, resume.initial_missing), (Some(at(4)), true));
    visit.welcome(continuous(at(4)), request).await;
    let mut sent = visit.events(at(4)).await;
    sent.event(at(5), Wire::Initial { request: 0, bulk: 1 }).await;
    sent.event(at(6), value(1, "six")).await;
    let mut bulk = visit.bulk(1, BulkPurpose::Initial(0)).await;
    bulk.item(6, 1, "a", "six").await;
    bulk.item(3, 2, "b", "three").await;
    bulk.end().await;
    let mut found = Vec::new();
    for _ in 0..5 {
        found.push(next(&mut events).await);
    }
    assert_eq!(found.remove(0), "moved to n2");
    // The two streams meet in any order; each says what it has once.
    let place = |event: &str| found.iter().position(|found| found == event).unwrap();
    assert!(place("+b") < place("b:three@3") && place("b:three@3") < place("current"));
    assert!(place("a=six@6") < found.len());
}

#[tokio::test]
async fn a_reset_is_told_and_everything_introduced_again() {
    let house = House::new();
    let (one, two) = (house.node("n1"), house.node("n2"));
    let config = house.config(&[&one, &two]).patience(patient());
    let (client, mut visit) = at_home(config, &one).await;
    let subscribing = async {
        let (request, _) = visit.command().await;
        visit.done(request, 1).await;
        request
    };
    let (events, request) = tokio::join!(soon(client.subscribe("?.*//")), subscribing);
    let mut events = events.unwrap();
    let mut sent = visit.events(at(4)).await;
    sent.event(at(5), Wire::Initial { request, bulk: 0 }).await;
    sent.event(at(9), subscribed(1, "a")).await;
    assert_eq!(following(&mut events, 2).await, "current +a");
    visit.vanish();
    let mut visit = two.visit().await;
    let reason = ResetReason::Purged;
    visit.welcome(Verdict::Reset { reason, position: at(8) }, request).await;
    let mut sent = visit.events(at(8)).await;
    let reset = Wire::Reset { reason, lineage: Lineage(10) };
    sent.event(at(8), reset).await;
    sent.event(at(8), Wire::Initial { request: 0, bulk: 1 }).await;
    let mut bulk = visit.bulk(1, BulkPurpose::Initial(0)).await;
    bulk.item(7, 1, "a", "seven").await;
    bulk.end().await;
    assert_eq!(following(&mut events, 4).await, "moved to n2 reset +a a:seven@7");
}

#[tokio::test]
async fn the_window_bounds_what_is_unanswered() {
    let house = House::new();
    let node = house.node("n1");
    let config = house.config(&[&node]).patience(patient());
    let welcomed = async {
        let mut visit = node.visit().await;
        visit.welcome_within(Verdict::Fresh, 0, 4).await;
        visit
    };
    let (client, mut visit) = tokio::join!(soon(Client::connect(config)), welcomed);
    let client = client.unwrap();
    let (mut publisher, mut answers) = client.publisher(100);
    for tag in 0..4 {
        soon(publisher.send(&TARGET, Value::Json(b"{}"), tag)).await.unwrap();
    }
    let full = publisher.try_send(&TARGET, Value::Json(b"{}"), 4);
    assert_eq!(full, Err(RequestError::WindowFull));
    // A large value takes more than one place.
    let large = vec![b'x'; 200 * 1024];
    let mut waiting = Box::pin(publisher.send(&TARGET, Value::Binary(&large), 4));
    assert_eq!(visit.numbers(4).await, [1, 2, 3, 4]);
    visit.done(1, 3).await;
    let mut taken = Vec::new();
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("four places are not free"),
        () = async {
            while taken.len() < 3 {
                answers.next_into(&mut taken).await;
            }
        } => {}
    }
    visit.done(4, 1).await;
    assert_eq!(soon(waiting).await, Ok(5));
    assert_eq!(visit.numbers(1).await, [5]);
    visit.done(5, 1).await;
    while taken.len() < 5 {
        soon(answers.next_into(&mut taken)).await;
    }
    let tags: Vec<(u64, u64)> = taken.iter().map(|answer| (answer.tag, answer.request)).collect();
    assert_eq!(tags, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]);
    assert!(taken.iter().all(|answer| answer.outcome.is_ok()));
    assert_eq!(answers.outstanding(), 0);
}

#[tokio::test]
async fn a_publishers_own_window_bounds_answers_that_nobody_takes() {
    let house = House::new();
    let node = house.node("n1");
    let config = house.config(&[&node]).patience(patient());
    let (client, mut visit) = at_home(config, &node).await;
    let (mut publisher, mut answers) = client.publisher(2);
    soon(publisher.send(&TARGET, Value::Json(b"1"), 1)).await.unwrap();
    soon(publisher.send(&TARGET, Value::Json(b"2"), 2)).await.unwrap();
    assert_eq!(visit.numbers(2).await, [1, 2]);
    visit.done(1, 2).await;
    // A ping behind the answers: they have been taken in when it returns.
    let (pong, ()) = tokio::join!(soon(client.ping(Level::Local)), async {
        let ClientMessage::Read { correlation, .. } = visit.next_or_ping().await else {
            panic!("no ping")
        };
        visit.answer(correlation, Answer::Pong).await;
    });
    pong.unwrap();
    assert!(publisher.is_full());
    assert_eq!(answers.outstanding(), 2);
    let full = publisher.try_send(&TARGET, Value::Json(b"3"), 3);
    assert_eq!(full, Err(RequestError::WindowFull));
    assert_eq!(answers.take_into(&mut Vec::new()), 2);
    assert_eq!(publisher.try_send(&TARGET, Value::Json(b"3"), 3), Ok(3));
}

#[tokio::test]
async fn shed_commands_are_sent_again() {
    let house = House::new();
    let node = house.node("n1");
    let config = house.config(&[&node]).patience(patient());
    let (client, mut visit) = at_home(config, &node).await;
    let mut pending = Vec::new();
    for _ in 0..3 {
        pending.push(update(&client).await);
    }
    assert_eq!(visit.numbers(3).await, [1, 2, 3]);
    visit.done(1, 1).await;
    visit.say(ServerMessage::Shed { first: 2, code: ErrorCode::Overloaded, retry_ms: 10 }).await;
    assert_eq!(visit.numbers(2).await, [2, 3]);
    visit.done(2, 2).await;
    for answer in pending {
        soon(answer).await.unwrap();
    }
    assert_eq!(client.statistics().sheds, 1);
}

#[tokio::test]
async fn a_parked_session_goes_where_there_is_a_quorum() {
    let house = House::new();
    let (one, two) = (house.node("n1"), house.node("n2"));
    let config = house.config(&[&one, &two]).patience(patient());
    let (client, mut visit) = at_home(config, &one).await;
    let mut states = client.states();
    visit.say(ServerMessage::Parked { code: ErrorCode::Inquorate, retry_ms: 5 }).await;
    let parked = ConnectionState::Parked { node: "n1".into(), code: ErrorCode::Inquorate };
    soon(states.wait_for(|state| *state == parked)).await.unwrap();
    // The other node has no quorum yet either: the client stays and asks again.
    two.visit().await.refuse(ErrorCode::Inquorate).await;
    let mut visit = two.visit().await;
    visit.welcome(continuous(at(0)), 0).await;
    let connected = ConnectionState::Connected { node: "n2".into() };
    soon(states.wait_for(|state| *state == connected)).await.unwrap();
}

#[tokio::test]
async fn a_full_outage_is_reported_after_the_reconnect_timeout() {
    let house = House::new();
    let node = house.node("n1");
    let patience = Patience {
        reconnect: Duration::from_millis(400),
        attempt: Duration::from_millis(100),
        ..patient()
    };
    let (client, visit) = at_home(house.config(&[&node]).patience(patience), &node).await;
    let pending = update(&client).await;
    let unknown = client.update(&TARGET, Value::Json(b"{}")).await.unwrap();
    assert_eq!(
        unknown.within(Duration::from_millis(1)).await,
        Err(RequestError::OutcomeUnknown { request: 2, parked: None })
    );
    visit.vanish();
    drop(node);
    let failed = soon(pending).await.unwrap_err();
    let RequestError::SessionEndedMeanwhile { request: 1, reason } = failed else {
        panic!("{failed:?}")
    };
    assert!(matches!(*reason, SessionEnded::Unreachable { .. }), "{reason:?}");
    let ended = ConnectionState::Ended(Arc::clone(&reason));
    soon(client.states().wait_for(|state| *state == ended)).await.unwrap();
    let over = client.update(&TARGET, Value::Json(b"{}")).await.unwrap_err();
    assert_eq!(over, RequestError::SessionEnded(reason));
}

#[tokio::test]
async fn wrong_credentials_and_unknown_authorities_fail_at_once() {
    let house = House::new();
    let node = house.node("n1");
    let config = house.config(&[&node]).password("admin", "wrong");
    let refusing = async { node.visit().await.refuse(ErrorCode::BadCredentials).await };
    let (failed, ()) = tokio::join!(soon(Client::connect(config)), refusing);
    let code = match failed {
        Err(ConnectFailed::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code, ErrorCode::BadCredentials);

    let config = ClientConfig::new([node.address()], House::new().authority);
    let knocking = async { node.endpoint.accept().await.unwrap().complete().await.is_err() };
    let (failed, refused) = tokio::join!(soon(Client::connect(config)), soon(knocking));
    assert!(refused && matches!(failed, Err(ConnectFailed::Unreachable { .. })), "{failed:?}");
}

#[tokio::test]
async fn the_older_secret_is_shown_when_the_newest_is_refused() {
    let house = House::new();
    let (one, two) = (house.node("n1"), house.node("n2"));
    let config = house.config(&[&one, &two]).patience(patient());
    let (client, visit) = at_home(config, &one).await;
    let mut states = client.states();
    visit.vanish();
    let mut visit = two.visit().await;
    visit.welcome(continuous(at(0)), 0).await;
    let connected = |node: &str| ConnectionState::Connected { node: node.into() };
    soon(states.wait_for(|state| *state == connected("n2"))).await.unwrap();
    visit.vanish();
    let mut visit = one.visit().await;
    assert_eq!(visit.hello.resume.as_ref().unwrap().secret, [b'2'; 32]);
    visit.refuse(ErrorCode::WrongSecret).await;
    let mut visit = two.visit().await;
    assert_eq!(visit.hello.resume.as_ref().unwrap().secret, [b'1'; 32]);
    visit.refuse(ErrorCode::WrongSecret).await;
    let ended = soon(states.wait_for(|state| matches!(state, ConnectionState::Ended(_)))).await;
    let ConnectionState::Ended(reason) = ended.unwrap().clone() else { panic!("not ended") };
    let code = ErrorCode::WrongSecret;
    assert_eq!(*reason, SessionEnded::ByCluster { code, text: String::new() });
}

#[tokio::test]
async fn closing_says_goodbye_after_what_was_sent_before() {
    let house = House::new();
    let node = house.node("n1");
    let config = house.config(&[&node]).patience(patient());
    let (client, mut visit) = at_home(config, &node).await;
    let pending = update(&client).await;
    let closing = async {
        assert_eq!(visit.numbers(1).await, [1]);
        assert_eq!(visit.next().await, ClientMessage::Goodbye);
        visit.done(1, 1).await;
        let (code, text) = (ErrorCode::None, String::new());
        visit.say(ServerMessage::Close { code, retry_ms: 0, text }).await;
    };
    tokio::join!(soon(client.close()), closing);
    soon(pending).await.unwrap();
    let closed = ConnectionState::Ended(Arc::new(SessionEnded::Closed));
    assert_eq!(*client.states().borrow(), closed);
}

#[tokio::test]
async fn a_dropped_stream_ends_its_selection() {
    let house = House::new();
    let node = house.node("n1");
    let config = house.config(&[&node]).patience(patient());
    let (client, mut visit) = at_home(config, &node).await;
    let subscribing = async {
        let (request, command) = visit.command().await;
        visit.done(request, 1).await;
        command
    };
    let (events, selected) = tokio::join!(soon(client.subscribe(">a")), subscribing);
    let ClientCommand::Select { scope: selected, .. } = selected else { panic!("{selected:?}") };
    drop(events.unwrap());
    let (_, command) = visit.command().await;
    let selector = "?.*//".to_owned();
    assert_eq!(command, ClientCommand::Select { scope: selected, selector, select: false });
}

#[tokio::test]
async fn a_program_may_fetch_while_it_takes_no_events() {
    let house = House::new();
    let node = house.node("n1");
    let config = ClientConfig { event_batches: 1, ..house.config(&[&node]).patience(patient()) };
    let (client, mut visit) = at_home(config, &node).await;
    let subscribing = async {
        let (request, _) = visit.command().await;
        visit.done(request, 1).await;
        request
    };
    let (events, request) = tokio::join!(soon(client.subscribe("?.*//")), subscribing);
    let mut events = events.unwrap();
    let mut sent = visit.events(at(1)).await;
    sent.event(at(2), Wire::Initial { request, bulk: 0 }).await;
    sent.event(at(3), subscribed(1, "a")).await;
    let text = "x".repeat(16 * 1024);
    let mut entry = 3;
    // Until the event stream's window is full, which is what holds the node back.
    while sent.event_unless_full(at(entry + 1), value(1, &text)).await {
        entry += 1;
        assert!(entry < 1_000, "a stream that nobody reads must fill up");
    }
    let fetching = async {
        let ClientMessage::Read { correlation, .. } = visit.next().await else {
            panic!("no fetch")
        };
        visit.answer(correlation, Answer::Bulk { bulk: 5 }).await;
        let mut bulk = visit.bulk(5, BulkPurpose::Fetch(correlation)).await;
        bulk.put(&BulkMessage::Row(Row {
            path: "a".into(),
            topic: TopicId(1),
            specification: json(),
            value: Some("v".into()),
            version: Some(Index::new(4, 0)),
            size: None,
        }))
        .await;
        bulk.end().await;
    };
    let fetch = Fetch { selector: ">a".into(), values: Some(0), ..Fetch::default() };
    let (fetched, ()) = tokio::join!(soon(client.fetch(fetch, Level::Local)), fetching);
    let fetched = fetched.unwrap();
    assert_eq!((fetched.topics.len(), fetched.more), (1, false));
    assert_eq!(fetched.topics.first().unwrap().value.as_deref(), Some(&b"v"[..]));
    // Nothing was lost: the events are all there once they are taken.
    assert_eq!(following(&mut events, 2).await, "current +a");
    for expected in 4..=entry {
        let event = soon(events.next()).await.unwrap();
        assert_eq!(event.position(), at(expected));
    }
}

#[tokio::test]
async fn selections_return_however_much_there_is_to_tell_and_nobody_reads() {
    let house = House::new();
    let node = house.node("n1");
    let config = ClientConfig { event_batches: 1, ..house.config(&[&node]).patience(patient()) };
    let (client, mut visit) = at_home(config, &node).await;
    let answering = async {
        let (request, _) = visit.command().await;
        visit.done(request, 1).await;
        request
    };
    let (events, first) = tokio::join!(soon(client.subscribe("?a//")), answering);
    let mut events = events.unwrap();
    let answering = async {
        let (request, _) = visit.command().await;
        visit.done(request, 1).await;
        request
    };
    let (selected, second) = tokio::join!(soon(client.select("more", "?a/b//")), answering);
    selected.unwrap();
    let mut sent = visit.events(at(4)).await;
    sent.event(at(5), Wire::Initial { request: first, bulk: 1 }).await;
    sent.event(at(5), Wire::Initial { request: second, bulk: 0 }).await;
    let mut bulk = visit.bulk(1, BulkPurpose::Initial(first)).await;
    for topic in 1..=1_000 {
        bulk.item(4, topic, &format!("a/{topic}"), "v").await;
    }
    for topic in 1..=1_000 {
        let expected = format!("+a/{topic} a/{topic}:v@4");
        assert_eq!(following(&mut events, 2).await, expected);
    }
    bulk.end().await;
    assert_eq!(next(&mut events).await, "current");
}
