//! The rules of deliveries, by frames as a node sends them.

use std::collections::BTreeMap;

use super::waiting::{BATCH_EVENTS_MAX, WAITING_EVENTS_MAX};
use super::*;
use crate::domain::selector::Selector;
use crate::domain::topic::path::TopicPath;
use crate::protocol::delivery::{Event as Wire, UnsubscribeReason};
use crate::protocol::topic::WireSpecification;

const LINEAGE: Lineage = Lineage(9);

fn at(entry: u64) -> Position {
    Position { index: Index::new(entry, 0), ordinal: 0 }
}

fn begun() -> Deliveries {
    let mut deliveries = Deliveries::new(true, LINEAGE, None);
    deliveries.event(EventMessage::Begin { lineage: LINEAGE, after: at(1) }).unwrap();
    deliveries
}

fn path(text: &str) -> TopicPath {
    TopicPath::parse(text).unwrap()
}

fn json() -> WireSpecification {
    WireSpecification { topic_type: 2, properties: BTreeMap::new() }
}

fn subscribed(topic: u64, text: &str) -> Wire {
    Wire::Subscribed { topic: TopicId(topic), specification: json(), path: path(text) }
}

fn value(topic: u64, text: &'static str) -> Wire {
    Wire::Value { topic: TopicId(topic), value: Some(Bytes::from_static(text.as_bytes())) }
}

fn item(entry: u64, topic: u64, text: &str, value: &'static str) -> BulkMessage {
    BulkMessage::Item {
        version: Index::new(entry, 0),
        topic: TopicId(topic),
        specification: json(),
        path: path(text),
        value: Some(Bytes::from_static(value.as_bytes())),
    }
}

const END: BulkMessage = BulkMessage::End { count: 0, more: false };

fn event(deliveries: &mut Deliveries, entry: u64, event: Wire) -> Taken {
    let message = EventMessage::Event { position: at(entry), last: true, event };
    deliveries.event(message).unwrap()
}

fn stream(deliveries: &mut Deliveries, selector: &str) -> (u64, mpsc::Receiver<Vec<Event>>) {
    let (sender, receiver) = mpsc::channel(100);
    let sort = Sort::Topics(Arc::new(Selector::parse(selector).unwrap()));
    (deliveries.subscribe(sort, sender), receiver)
}

/// What has come to a stream, in short.
fn heard(deliveries: &mut Deliveries, receiver: &mut mpsc::Receiver<Vec<Event>>) -> String {
    assert!(deliveries.flush().stalled.is_empty());
    let mut events = Vec::new();
    while let Ok(batch) = receiver.try_recv() {
        assert!(batch.len() <= BATCH_EVENTS_MAX);
        events.extend(batch);
    }
    let short = |event: Event| match event {
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
    };
    events.into_iter().map(short).collect::<Vec<_>>().join(" ")
}

#[test]
fn events_go_to_the_streams_that_match() {
    let mut deliveries = begun();
    let (_, mut all) = stream(&mut deliveries, "?.*//");
    let (one, mut only) = stream(&mut deliveries, ">a");
    event(&mut deliveries, 2, subscribed(1, "a"));
    event(&mut deliveries, 3, value(1, "x"));
    event(&mut deliveries, 4, subscribed(2, "b"));
    event(&mut deliveries, 5, value(2, "y"));
    assert_eq!(heard(&mut deliveries, &mut all), "+a a=x@3 +b b=y@5");
    assert_eq!(heard(&mut deliveries, &mut only), "+a a=x@3");
    assert!(deliveries.unsubscribe(one).is_some() && deliveries.unsubscribe(one).is_none());
    let reason = UnsubscribeReason::Removed;
    event(&mut deliveries, 6, Wire::Unsubscribed { topic: TopicId(1), reason });
    assert_eq!(heard(&mut deliveries, &mut all), "-a");
}

#[test]
fn a_later_stream_starts_with_what_is_known() {
    let mut deliveries = begun();
    event(&mut deliveries, 2, subscribed(2, "b"));
    event(&mut deliveries, 2, value(2, "y"));
    event(&mut deliveries, 3, subscribed(1, "a"));
    let (_, mut late) = stream(&mut deliveries, "?.*//");
    event(&mut deliveries, 4, value(2, "z"));
    assert_eq!(heard(&mut deliveries, &mut late), "+a +b b:y@2 b=z@4");
}

#[test]
fn a_value_waits_for_its_topic_on_an_announced_bulk_stream() {
    let mut deliveries = begun();
    let (_, mut all) = stream(&mut deliveries, "?.*//");
    event(&mut deliveries, 2, Wire::Initial { request: 7, bulk: 1 });
    let Taken::Later(early) = event(&mut deliveries, 3, value(1, "new")) else {
        panic!("taken without its topic")
    };
    assert_eq!(deliveries.resume_position(None), (LINEAGE, Some(at(2))));
    assert_eq!(deliveries.bulk(1, at(2), item(2, 2, "b", "b")), Ok(Taken::Done));
    let Taken::Later(early) = deliveries.event(early).unwrap() else {
        panic!("taken without its topic")
    };
    assert_eq!(deliveries.bulk(1, at(2), item(1, 1, "a", "old")), Ok(Taken::Done));
    assert_eq!(deliveries.event(early), Ok(Taken::Done));
    assert_eq!(deliveries.bulk(1, at(2), END), Ok(Taken::Complete(vec![7])));
    assert_eq!(heard(&mut deliveries, &mut all), "+b b:b@2 +a a:old@1 a=new@3");
    assert_eq!(deliveries.resume_position(None), (LINEAGE, Some(at(3))));
}

#[test]
fn a_topic_that_a_bulk_stream_introduced_first_is_introduced_once() {
    let mut deliveries = begun();
    let (_, mut all) = stream(&mut deliveries, "?.*//");
    // A resume that owes initial values shows the present state; the events before it follow.
    event(&mut deliveries, 2, Wire::Initial { request: 0, bulk: 1 });
    deliveries.bulk(1, at(9), item(4, 1, "a", "four")).unwrap();
    assert_eq!(deliveries.bulk(1, at(9), END), Ok(Taken::Complete(vec![0])));
    event(&mut deliveries, 3, subscribed(1, "a"));
    event(&mut deliveries, 4, value(1, "four"));
    event(&mut deliveries, 5, value(1, "five"));
    assert_eq!(heard(&mut deliveries, &mut all), "+a a:four@4 a=five@5");
    assert_eq!(deliveries.resume_position(None), (LINEAGE, Some(at(5))));
}

#[test]
fn a_topic_that_ends_before_its_bulk_stream_has_come_does_not_come_to_life() {
    let mut deliveries = begun();
    let (_, mut all) = stream(&mut deliveries, "?.*//");
    event(&mut deliveries, 2, Wire::Initial { request: 7, bulk: 1 });
    let gone = |topic| {
        let reason = UnsubscribeReason::Removed;
        Wire::Unsubscribed { topic: TopicId(topic), reason }
    };
    let Taken::Later(early) = event(&mut deliveries, 3, gone(1)) else {
        panic!("taken without its topic")
    };
    assert_eq!(deliveries.bulk(1, at(2), item(1, 1, "a", "old")), Ok(Taken::Done));
    assert_eq!(deliveries.event(early), Ok(Taken::Done));
    assert_eq!(deliveries.bulk(1, at(2), END), Ok(Taken::Complete(vec![7])));
    // One that no bulk stream has introduced was never subscribed.
    assert_eq!(event(&mut deliveries, 4, gone(2)), Taken::Done);
    assert_eq!(heard(&mut deliveries, &mut all), "+a a:old@1 -a");
}

#[test]
fn a_topic_that_ended_does_not_come_back_by_a_bulk_stream_of_before() {
    let mut deliveries = begun();
    let (_, mut all) = stream(&mut deliveries, "?.*//");
    event(&mut deliveries, 2, subscribed(1, "a"));
    event(&mut deliveries, 3, Wire::Initial { request: 7, bulk: 1 });
    let reason = UnsubscribeReason::Requested;
    event(&mut deliveries, 4, Wire::Unsubscribed { topic: TopicId(1), reason });
    assert_eq!(deliveries.bulk(1, at(3), item(2, 1, "a", "old")), Ok(Taken::Done));
    // One of later may.
    event(&mut deliveries, 5, Wire::Initial { request: 8, bulk: 2 });
    assert_eq!(deliveries.bulk(2, at(5), item(5, 1, "a", "new")), Ok(Taken::Done));
    assert_eq!(deliveries.bulk(1, at(3), END), Ok(Taken::Complete(vec![7])));
    assert_eq!(deliveries.bulk(2, at(5), END), Ok(Taken::Complete(vec![8])));
    assert!(deliveries.ended.is_empty());
    assert_eq!(heard(&mut deliveries, &mut all), "+a -a +a a:new@5");
}

#[test]
fn what_a_resume_has_not_introduced_yet_is_no_news() {
    let mut deliveries = begun();
    let (_, mut all) = stream(&mut deliveries, "?.*//");
    event(&mut deliveries, 2, subscribed(1, "a"));
    deliveries.reconnected(&"n2".into(), true);
    deliveries.event(EventMessage::Begin { lineage: LINEAGE, after: at(2) }).unwrap();
    event(&mut deliveries, 3, value(2, "not known yet"));
    event(&mut deliveries, 4, value(1, "x"));
    event(&mut deliveries, 5, Wire::Initial { request: 0, bulk: 1 });
    deliveries.bulk(1, at(5), item(3, 2, "b", "y")).unwrap();
    assert_eq!(deliveries.bulk(1, at(5), END), Ok(Taken::Complete(vec![0])));
    assert_eq!(heard(&mut deliveries, &mut all), "+a moved to n2 a=x@4 +b b:y@3");
    let unknown = EventMessage::Event { position: at(6), last: true, event: value(3, "z") };
    assert_eq!(deliveries.event(unknown), Err(Violation::UnknownTopic));
}

#[test]
fn a_reset_before_anything_was_heard_is_not_told() {
    let mut deliveries = Deliveries::new(true, LINEAGE, None);
    let (_, mut all) = stream(&mut deliveries, "?.*//");
    deliveries.reconnected(&"n2".into(), false);
    deliveries.event(EventMessage::Begin { lineage: LINEAGE, after: at(5) }).unwrap();
    let reset = Wire::Reset { reason: ResetReason::Asked, lineage: LINEAGE };
    assert_eq!(event(&mut deliveries, 5, reset.clone()), Taken::Reset(at(5)));
    event(&mut deliveries, 6, reset);
    assert_eq!(heard(&mut deliveries, &mut all), "moved to n2 reset");
}

#[test]
fn a_replay_goes_on_as_one_until_it_has_come_to_its_end() {
    let mut deliveries = Deliveries::new(true, LINEAGE, Some(at(2)));
    assert!(deliveries.is_replaying());
    deliveries.event(EventMessage::Begin { lineage: LINEAGE, after: at(2) }).unwrap();
    event(&mut deliveries, 2, Wire::Initial { request: 1, bulk: 1 });
    assert_eq!(deliveries.bulk(1, at(9), END), Ok(Taken::Complete(vec![1])));
    event(&mut deliveries, 8, Wire::Progress);
    assert!(deliveries.is_replaying());
    event(&mut deliveries, 9, Wire::Progress);
    assert!(!deliveries.is_replaying());
}

#[test]
fn what_is_in_the_initial_value_is_not_delivered_again() {
    let mut deliveries = begun();
    let (_, mut all) = stream(&mut deliveries, "?.*//");
    event(&mut deliveries, 3, Wire::Initial { request: 7, bulk: 1 });
    assert!(deliveries.is_announced(1) && !deliveries.is_announced(2));
    deliveries.bulk(1, at(2), item(5, 1, "a", "five")).unwrap();
    assert_eq!(deliveries.bulk(1, at(2), END), Ok(Taken::Complete(vec![7])));
    event(&mut deliveries, 4, value(1, "four"));
    event(&mut deliveries, 5, value(1, "five"));
    event(&mut deliveries, 6, value(1, "six"));
    // An item of a topic that is known is older than its events.
    event(&mut deliveries, 7, Wire::Initial { request: 8, bulk: 2 });
    deliveries.bulk(2, at(2), item(5, 1, "a", "five")).unwrap();
    assert_eq!(heard(&mut deliveries, &mut all), "+a a:five@5 a=six@6");
}

#[test]
fn a_resume_repeats_nothing_and_misses_nothing() {
    let mut deliveries = begun();
    let (_, mut all) = stream(&mut deliveries, "?.*//");
    event(&mut deliveries, 2, subscribed(1, "a"));
    // The first of two events of entry 3; the connection breaks before the second.
    let first = |event| EventMessage::Event { position: at(3), last: false, event };
    deliveries.event(first(value(1, "x"))).unwrap();
    assert_eq!(deliveries.resume_position(None), (LINEAGE, Some(at(2))));
    deliveries.reconnected(&"n2".into(), false);
    deliveries.event(EventMessage::Begin { lineage: LINEAGE, after: at(2) }).unwrap();
    deliveries.event(first(value(1, "x"))).unwrap();
    let second = Position { ordinal: 1, ..at(3) };
    let added = EventMessage::Event { position: second, last: true, event: subscribed(2, "b") };
    deliveries.event(added).unwrap();
    event(&mut deliveries, 4, value(2, "y"));
    assert_eq!(heard(&mut deliveries, &mut all), "+a a=x@3 moved to n2 +b b=y@4");
    assert_eq!(deliveries.resume_position(None), (LINEAGE, Some(at(4))));
}

#[test]
fn a_reset_starts_over_even_at_lower_positions() {
    let mut deliveries = begun();
    let (number, mut all) = stream(&mut deliveries, "?.*//");
    event(&mut deliveries, 8, subscribed(1, "a"));
    event(&mut deliveries, 9, value(1, "x"));
    deliveries.reconnected(&"n2".into(), false);
    deliveries.event(EventMessage::Begin { lineage: LINEAGE, after: at(5) }).unwrap();
    let reset = Wire::Reset { reason: ResetReason::OtherLineage, lineage: Lineage(10) };
    assert_eq!(event(&mut deliveries, 5, reset), Taken::Reset(at(5)));
    event(&mut deliveries, 5, Wire::Initial { request: 0, bulk: 1 });
    deliveries.bulk(1, at(2), item(4, 1, "a", "w")).unwrap();
    assert_eq!(deliveries.bulk(1, at(2), END), Ok(Taken::Complete(vec![0])));
    deliveries.tell_current(&[number], true);
    event(&mut deliveries, 6, value(1, "v"));
    assert_eq!(
        heard(&mut deliveries, &mut all),
        "+a a=x@9 moved to n2 reset +a a:w@4 current a=v@6"
    );
    assert_eq!(deliveries.resume_position(None), (Lineage(10), Some(at(6))));
}

#[test]
fn a_start_that_was_refused_is_what_a_stream_hears_first() {
    let mut deliveries = Deliveries::new(true, LINEAGE, Some(at(700)));
    deliveries.refuse_start(at(3), ResetReason::OtherLineage);
    // Not the position of another history under this one's lineage.
    assert_eq!(deliveries.resume_position(None), (LINEAGE, None));
    deliveries.event(EventMessage::Begin { lineage: LINEAGE, after: at(3) }).unwrap();
    let (_, mut all) = stream(&mut deliveries, "?.*//");
    event(&mut deliveries, 4, subscribed(1, "a"));
    let (_, mut later) = stream(&mut deliveries, ">a");
    assert_eq!(heard(&mut deliveries, &mut all), "reset +a");
    assert_eq!(heard(&mut deliveries, &mut later), "reset +a");
}

#[test]
fn progress_moves_the_resume_position() {
    let mut deliveries = begun();
    event(&mut deliveries, 50, Wire::Progress);
    event(&mut deliveries, 50, Wire::Progress);
    assert_eq!(deliveries.resume_position(None), (LINEAGE, Some(at(50))));
    assert_eq!(Deliveries::new(true, LINEAGE, None).resume_position(None), (LINEAGE, None));
}

/// What a selection brings leaves out what one before it does.
#[test]
fn initial_values_are_complete_when_those_announced_before_are() {
    let mut deliveries = begun();
    let (_, mut all) = stream(&mut deliveries, "?.*//");
    event(&mut deliveries, 2, Wire::Initial { request: 7, bulk: 1 });
    event(&mut deliveries, 3, Wire::Initial { request: 8, bulk: 2 });
    // A third one that selects nothing new.
    assert_eq!(event(&mut deliveries, 4, Wire::Initial { request: 9, bulk: 0 }), Taken::Done);
    deliveries.bulk(2, at(3), item(3, 2, "b", "y")).unwrap();
    assert_eq!(deliveries.bulk(2, at(3), END), Ok(Taken::Done));
    deliveries.bulk(1, at(2), item(2, 1, "a", "x")).unwrap();
    assert_eq!(deliveries.bulk(1, at(2), END), Ok(Taken::Complete(vec![7, 8, 9])));
    assert_eq!(
        event(&mut deliveries, 5, Wire::Initial { request: 10, bulk: 0 }),
        Taken::Complete(vec![10])
    );
    assert_eq!(heard(&mut deliveries, &mut all), "+b b:y@3 +a a:x@2");
}

/// Only the node that unsubscribed it knows of it; the next one goes by the session's selections.
#[test]
fn a_topic_that_was_unsubscribed_for_slowness_stays_so_over_a_move() {
    let mut deliveries = begun();
    let (_, mut all) = stream(&mut deliveries, "?.*//");
    event(&mut deliveries, 2, subscribed(1, "a"));
    event(&mut deliveries, 3, value(1, "x"));
    let reason = UnsubscribeReason::BackPressure;
    event(&mut deliveries, 4, Wire::Unsubscribed { topic: TopicId(1), reason });
    deliveries.reconnected(&Arc::from("n2"), false);
    deliveries.event(EventMessage::Begin { lineage: LINEAGE, after: at(4) }).unwrap();
    event(&mut deliveries, 5, value(1, "y"));
    event(&mut deliveries, 6, subscribed(1, "a"));
    event(&mut deliveries, 7, value(1, "z"));
    let told = heard(&mut deliveries, &mut all);
    assert!(!told.contains('y') && told.contains('z'), "{told}");
    // Once it has ended, its values are no news of anybody's.
    event(&mut deliveries, 8, Wire::Unsubscribed { topic: TopicId(1), reason });
    let reason = UnsubscribeReason::Removed;
    event(&mut deliveries, 9, Wire::Unsubscribed { topic: TopicId(1), reason });
    let stray = EventMessage::Event { position: at(10), last: true, event: value(1, "w") };
    assert_eq!(deliveries.event(stray), Err(Violation::UnknownTopic));
}

#[test]
fn broken_nodes_are_noticed() {
    let mut fresh = Deliveries::new(true, LINEAGE, None);
    let early = EventMessage::Event { position: at(1), last: true, event: Wire::Progress };
    assert_eq!(fresh.event(early), Err(Violation::NoHead));
    let mut deliveries = begun();
    let begin = EventMessage::Begin { lineage: LINEAGE, after: at(1) };
    assert_eq!(deliveries.event(begin), Err(Violation::SecondHead));
    let unknown = EventMessage::Event { position: at(2), last: true, event: value(1, "x") };
    assert_eq!(deliveries.event(unknown), Err(Violation::UnknownTopic));
    let row = BulkMessage::Begin(delivery::BulkBegin {
        bulk: 1,
        purpose: delivery::BulkPurpose::Initial(1),
        position: at(2),
    });
    assert_eq!(deliveries.bulk(1, at(2), row), Err(Violation::Bulk));
}

#[test]
fn long_batches_are_cut() {
    let mut deliveries = begun();
    let (_, mut all) = stream(&mut deliveries, "?.*//");
    event(&mut deliveries, 2, subscribed(1, "a"));
    for entry in 3..1_003 {
        event(&mut deliveries, entry, value(1, "x"));
    }
    assert_eq!(heard(&mut deliveries, &mut all).split(' ').count(), 1_001);
}

#[test]
fn a_full_stream_holds_the_others_back_only_past_its_bound() {
    let mut deliveries = begun();
    let (sender, mut receiver) = mpsc::channel(1);
    let everything = Sort::Topics(Arc::new(Selector::everything()));
    deliveries.subscribe(everything, sender);
    let (_, mut other) = stream(&mut deliveries, "?.*//");
    event(&mut deliveries, 2, subscribed(1, "a"));
    assert!(deliveries.flush().stalled.is_empty());
    for entry in 3..3 + WAITING_EVENTS_MAX as u64 - 1 {
        event(&mut deliveries, entry, value(1, "x"));
        let flushed = deliveries.flush();
        assert_eq!((flushed.stalled.len(), flushed.blocked), (1, false));
        assert!(other.try_recv().is_ok());
    }
    event(&mut deliveries, 10_000, value(1, "x"));
    assert!(deliveries.flush().blocked);
    let mut count = 0;
    while let Ok(batch) = receiver.try_recv() {
        count += batch.len();
        deliveries.flush();
    }
    assert_eq!(count, WAITING_EVENTS_MAX + 1);
    assert!(deliveries.flush().stalled.is_empty());
    // Values count by their bytes too.
    let large = |entry| EventMessage::Event {
        position: at(entry),
        last: true,
        event: Wire::Value { topic: TopicId(1), value: Some(vec![0; 300 * 1024].into()) },
    };
    for entry in 20_000..20_004 {
        deliveries.event(large(entry)).unwrap();
        assert!(!deliveries.flush().blocked);
        let _ = other.try_recv();
    }
    deliveries.event(large(20_004)).unwrap();
    assert!(deliveries.flush().blocked);
    assert_eq!(receiver.try_recv().unwrap().len(), 1);
}
