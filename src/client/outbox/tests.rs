//! What is numbered, kept and sent again.

use bytes::BufMut;

use super::*;
use crate::client::deliveries::Begun;
use crate::domain::id::Position;
use crate::protocol::frame::{put_frame, take_payload};
use crate::protocol::kind;

fn numbers(frames: Option<Bytes>) -> Vec<u64> {
    let mut buffer = BytesMut::from(&frames.unwrap_or_default()[..]);
    let mut found = Vec::new();
    while let Some(payload) = take_payload(&mut buffer, 1_000).unwrap() {
        found.push(u64::from_le_bytes(payload[1..9].try_into().unwrap()));
    }
    found
}

type Answers = oneshot::Receiver<Result<Answered, RequestError>>;

fn send(outbox: &mut Outbox) -> Answers {
    let (sender, receiver) = oneshot::channel();
    outbox
        .command(1, Waiter::One(sender), |buffer, request| {
            put_frame(buffer, kind::UPDATE, |body| body.put_u64_le(request));
        })
        .unwrap();
    receiver
}

fn run(first_request: u64, count: u32) -> [Acknowledgement; 1] {
    let first_index = Index(first_request + 100);
    [Acknowledgement::Run { first_request, first_index, count }]
}

fn acknowledge(outbox: &mut Outbox, entries: &[Acknowledgement]) -> u32 {
    let mut completions = Completions::default();
    let places = outbox.acknowledged(entries, &mut completions);
    completions.deliver();
    places
}

async fn now() -> Instant {
    crate::clock::Clock::system().now()
}

#[tokio::test(start_paused = true)]
async fn numbers_are_consecutive_and_answers_find_their_callers() {
    let mut outbox = Outbox::new();
    let answers: Vec<Answers> = (0..3).map(|_| send(&mut outbox)).collect();
    assert_eq!(numbers(outbox.take(now().await)), [1, 2, 3]);
    assert_eq!(outbox.take(now().await), None);
    assert_eq!(acknowledge(&mut outbox, &run(1, 3)), 3);
    for (request, mut answer) in (1..).zip(answers) {
        let answered = Answered { index: Index(request + 100), detail: Detail::Done };
        assert_eq!(answer.try_recv(), Ok(Ok(answered)));
    }
    assert_eq!((outbox.unanswered(), outbox.first(), outbox.seen()), (0, 4, Index(103)));
    assert_eq!(outbox.waiting_since(), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_unanswered_is_sent_again_in_order_and_nothing_else() {
    let mut outbox = Outbox::new();
    let mut answers: Vec<Answers> = (0..3).map(|_| send(&mut outbox)).collect();
    outbox.take(now().await);
    answers.extend((0..2).map(|_| send(&mut outbox)));
    outbox.take(now().await);
    answers.push(send(&mut outbox));
    acknowledge(&mut outbox, &run(1, 2));

    outbox.reconnected(4, false, now().await);
    let mut sent = Vec::new();
    while let Some(frames) = outbox.take(now().await) {
        sent.extend(numbers(Some(frames)));
    }
    assert_eq!(sent, [3, 4, 5, 6]);
    // The answer may come twice: from the old connection and from the new one.
    assert_eq!(acknowledge(&mut outbox, &run(2, 3)), 2);
    assert_eq!(acknowledge(&mut outbox, &run(1, 6)), 2);
    for mut answer in answers {
        assert!(answer.try_recv().unwrap().is_ok());
    }
    outbox.reconnected(6, false, now().await);
    assert_eq!(outbox.take(now().await), None);
}

#[tokio::test(start_paused = true)]
async fn a_hole_in_the_answers_keeps_its_batch() {
    let mut outbox = Outbox::new();
    let _answers: Vec<Answers> = (0..3).map(|_| send(&mut outbox)).collect();
    outbox.take(now().await);
    assert_eq!(acknowledge(&mut outbox, &run(2, 2)), 2);
    assert_eq!((outbox.first(), outbox.unanswered()), (1, 3));
    outbox.reconnected(0, false, now().await);
    assert_eq!(numbers(outbox.take(now().await)), [1, 2, 3]);
    assert_eq!(acknowledge(&mut outbox, &run(1, 1)), 1);
    assert_eq!(outbox.unanswered(), 0);
}

#[tokio::test(start_paused = true)]
async fn shed_commands_wait_and_go_again_from_the_first() {
    let mut outbox = Outbox::new();
    let _answers: Vec<Answers> = (0..4).map(|_| send(&mut outbox)).collect();
    outbox.take(now().await);
    let retry = Duration::from_millis(20);
    outbox.shed(3, retry, now().await);
    outbox.shed(2, retry, now().await);
    let _more = send(&mut outbox);
    assert_eq!(outbox.take(now().await), None);
    assert_eq!(outbox.waiting_since(), None);
    tokio::time::sleep(retry).await;
    assert_eq!(numbers(outbox.take(now().await)), [2, 3, 4]);
    assert_eq!(numbers(outbox.take(now().await)), [5]);
    // A late word about a number that was answered meanwhile changes nothing.
    acknowledge(&mut outbox, &run(1, 5));
    outbox.shed(5, retry, now().await);
    assert_eq!(outbox.paused_until(), None);
}

#[tokio::test(start_paused = true)]
async fn the_node_is_told_now_and_then_what_it_may_forget() {
    let mut outbox = Outbox::new();
    let _answers: Vec<Answers> = (0..300).map(|_| send(&mut outbox)).collect();
    outbox.take(now().await);
    acknowledge(&mut outbox, &run(1, 255));
    assert_eq!(outbox.take(now().await), None);
    acknowledge(&mut outbox, &run(256, 20));
    let mut expected = BytesMut::new();
    ClientMessage::Answered { below: 276 }.put(&mut expected);
    assert_eq!(outbox.take(now().await), Some(expected.freeze()));
    assert_eq!(outbox.take(now().await), None);
}

#[tokio::test(start_paused = true)]
async fn the_end_tells_everybody_and_takes_nothing_more() {
    let mut outbox = Outbox::new();
    let mut answer = send(&mut outbox);
    let (reader, mut read) = oneshot::channel();
    let ping = Read { level: Level::Local, at_least: None, deadline_ms: None, query: Query::Ping };
    outbox.read(ping.clone(), reader, now().await).unwrap();
    let reason = Arc::new(SessionEnded::Closed);
    let mut completions = Completions::default();
    outbox.end(&reason, &mut completions);
    completions.deliver();
    assert_eq!(
        answer.try_recv().unwrap(),
        Err(RequestError::SessionEndedMeanwhile { request: 1, reason: Arc::clone(&reason) })
    );
    let ended = RequestError::SessionEnded(reason);
    assert_eq!(read.try_recv().unwrap(), Err(ended.clone()));
    let (reader, _) = oneshot::channel();
    assert_eq!(outbox.read(ping, reader, now().await), Err(ended.clone()));
    let (sender, _) = oneshot::channel();
    assert_eq!(outbox.command(1, Waiter::One(sender), |_, _| ()), Err(ended));
}

#[tokio::test(start_paused = true)]
async fn rows_may_come_before_or_after_the_reply() {
    let row = |path: &str| Row {
        path: path.into(),
        topic: crate::domain::id::TopicId(1),
        specification: crate::protocol::topic::WireSpecification {
            topic_type: 2,
            properties: BTreeMap::new(),
        },
        value: None,
        version: None,
        size: None,
    };
    let reply =
        ReadReply { index: Index(9), age_ms: 0, stale: false, answer: Answer::Bulk { bulk: 1 } };
    for reply_first in [true, false] {
        let mut outbox = Outbox::new();
        let (sender, mut receiver) = oneshot::channel();
        let read =
            Read { level: Level::Local, at_least: None, deadline_ms: None, query: Query::Ping };
        let correlation = outbox.read(read, sender, now().await).unwrap();
        if reply_first {
            outbox.read_replied(correlation, reply.clone());
        }
        outbox.read_bulk(correlation, BulkMessage::Row(row("a")));
        outbox.read_bulk(correlation, BulkMessage::Row(row("b")));
        assert!(receiver.try_recv().is_err());
        outbox.read_bulk(correlation, BulkMessage::End { count: 2, more: true });
        if !reply_first {
            outbox.read_replied(correlation, reply.clone());
        }
        let answer = receiver.try_recv().unwrap().unwrap().answer;
        assert_eq!(answer, Answer::Rows { rows: vec![row("a"), row("b")], more: true });
    }
}

#[tokio::test(start_paused = true)]
async fn selections_are_open_until_answered_and_delivered() {
    let mut outbox = Outbox::new();
    let _answers: Vec<Answers> = (0..3).map(|_| send(&mut outbox)).collect();
    for request in 1..=3 {
        outbox.selects.sent(request, request * 10, Begun::default());
    }
    assert_eq!(outbox.selects.delivered(1), [10]);
    assert!(outbox.selects.is_any_unfinished());
    acknowledge(&mut outbox, &run(1, 2));
    // The connection breaks: 2 was applied, 3 was not; all values are owed once more.
    outbox.reconnected(2, true, now().await);
    assert!(outbox.selects.delivered(2).is_empty(), "its values come with those of everything");
    assert_eq!(outbox.selects.delivered(0), [20]);
    assert!(outbox.selects.is_any_unfinished());
    acknowledge(&mut outbox, &run(3, 1));
    assert_eq!(outbox.selects.delivered(3), [30]);
    assert!(!outbox.selects.is_any_unfinished());
}

#[tokio::test(start_paused = true)]
async fn a_start_over_covers_what_was_applied_before_it() {
    let mut outbox = Outbox::new();
    let _answers: Vec<Answers> = (0..2).map(|_| send(&mut outbox)).collect();
    outbox.selects.sent(1, 10, Begun::default());
    outbox.selects.sent(2, 20, Begun::default());
    outbox.reconnected(0, true, now().await);
    outbox.selects.expect_reset();
    assert!(outbox.selects.is_starting_over(), "until it has come there is no base to go on from");
    acknowledge(&mut outbox, &run(1, 2));
    // The answers are ahead of the events: the second was applied after the start over.
    outbox.selects.reset(Position { index: Index(101), ordinal: u32::MAX });
    assert_eq!(outbox.selects.delivered(0), [10]);
    assert!(!outbox.selects.is_starting_over());
    assert_eq!(outbox.selects.delivered(2), [20]);
    // One that is not followed by a reset, since nothing is selected, ends with the next selection.
    let _answer = send(&mut outbox);
    outbox.reconnected(2, true, now().await);
    outbox.selects.expect_reset();
    outbox.selects.sent(3, 30, Begun::default());
    assert_eq!(outbox.selects.delivered(3), [30]);
    assert!(!outbox.selects.is_starting_over());
}
