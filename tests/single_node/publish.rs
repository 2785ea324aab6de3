//! Commands and their answers.

use quorate::client::{Detail, RequestError, SetTopic, Value};
use quorate::domain::topic::path::TopicPath;
use quorate::domain::topic::specification::{Specification, TopicType};
use quorate::protocol::ErrorCode;
use quorate::protocol::read::{Fetch, Level, Limit};
use quorate::protocol::record::Target;
use quorate::protocol::topic::ConstraintNode;

use crate::harness::{Node, path, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_is_acknowledged_with_its_index() {
    let node = Node::start().await;
    let client = node.client().await;
    let added =
        client.add_topic(&path("a/b"), &Specification::plain(TopicType::Json)).await.unwrap();
    assert!(added.created);
    let again =
        client.add_topic(&path("a/b"), &Specification::plain(TopicType::Json)).await.unwrap();
    assert!(!again.created);
    assert_eq!(again.topic, added.topic);

    let first = client.set(&path("a/b"), Value::Json(b"{\"x\":1}")).await.unwrap();
    assert!(first.index > again.index);
    let target = Target::Topic(added.topic);
    let same = client.update(&target, Value::Json(b"{\"x\":1}")).await.unwrap();
    assert_eq!(soon(same).await.unwrap().detail, Detail::Unchanged);
    let other = client.update(&target, Value::Json(b"{\"x\":2}")).await.unwrap();
    assert_eq!(soon(other).await.unwrap().detail, Detail::Done);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_commands_use_their_numbers_and_the_session_goes_on() {
    let node = Node::start().await;
    let client = node.client().await;
    let json = Specification::plain(TopicType::Json);
    client.add_topic(&path("a"), &json).await.unwrap();
    let code = |error: RequestError| error.code().unwrap();

    let target = Target::Path(path("a"));
    let bad = client.update(&target, Value::Json(b"{")).await.unwrap();
    assert_eq!(code(soon(bad).await.unwrap_err()), ErrorCode::IncompatibleValue);
    let other_type = client.set(&path("a"), Value::Int64(4)).await.unwrap_err();
    assert_eq!(code(other_type), ErrorCode::IncompatibleValue);
    let missing = client.set(&path("nowhere"), Value::Int64(4)).await.unwrap_err();
    assert_eq!(code(missing), ErrorCode::NoSuchTopic);
    let string = Specification::plain(TopicType::String);
    let mismatch = client.add_topic(&path("a"), &string).await.unwrap_err();
    assert_eq!(code(mismatch), ErrorCode::ExistsMismatch);

    let no_topic = [ConstraintNode::NoTopic];
    let set = |path, value| SetTopic {
        path,
        specification: Some(&json),
        constraint: &no_topic,
        value: Value::Json(value),
    };
    let new = path("new");
    client.set_topic(set(&new, b"1")).await.unwrap();
    let unsatisfied = client.set_topic(set(&new, b"2")).await.unwrap_err();
    assert_eq!(code(unsatisfied), ErrorCode::UnsatisfiedConstraint);
    client.set(&path("a"), Value::Json(b"7")).await.unwrap();
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pipelined_updates_are_all_answered_in_order() {
    const COUNT: u64 = 10_000;
    let node = Node::start().await;
    let client = node.client().await;
    let spec = Specification::plain(TopicType::Int64);
    let topic = client.add_topic(&path("n"), &spec).await.unwrap().topic;
    let (mut publisher, mut answers) = client.publisher(1024);
    let mut taken = Vec::new();
    let mut indices = Vec::new();
    for number in 0..COUNT {
        let value = Value::Int64(i64::try_from(number).unwrap() + 1);
        while publisher.is_full() {
            soon(answers.next_into(&mut taken)).await;
        }
        soon(publisher.send(&Target::Topic(topic), value, number)).await.unwrap();
    }
    while (taken.len() as u64) < COUNT {
        soon(answers.next_into(&mut taken)).await;
    }
    for (number, answer) in taken.into_iter().enumerate() {
        assert_eq!(answer.tag, number as u64);
        indices.push(answer.outcome.unwrap().index);
    }
    assert!(indices.is_sorted());
    let fetch = Fetch { selector: ">n".into(), values: Some(0), ..Fetch::default() };
    let fetched = client.fetch(fetch, Level::Linearizable).await.unwrap();
    assert_eq!(fetched.topics[0].value.as_deref(), Some(&COUNT.to_le_bytes()[..]));
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetches_are_paged_ranged_and_sent_in_bulk_when_large() {
    const COUNT: usize = 3_000;
    let node = Node::start().await;
    let client = node.client().await;
    let spec = Specification::plain(TopicType::String);
    let mut pending = Vec::new();
    for number in 0..COUNT {
        let path = TopicPath::parse(&format!("t/{number:05}")).unwrap();
        pending.push(client.begin_add_topic(&path, &spec).await.unwrap());
    }
    for added in pending {
        soon(added).await.unwrap();
    }
    client.set(&path("t/00007"), Value::String("seven")).await.unwrap();

    let all = Fetch { selector: "?t//".into(), ..Fetch::default() };
    let fetched = client.fetch(all.clone(), Level::Local).await.unwrap();
    assert_eq!((fetched.topics.len(), fetched.more), (COUNT, false));
    assert!(fetched.topics.is_sorted_by(|a, b| a.path < b.path));

    let first = Fetch { limit: Some(Limit::First(3)), values: Some(0), ..all.clone() };
    let from = quorate::protocol::read::Bound { path: "t/00006".into(), inclusive: false };
    let page = client.fetch(Fetch { from: Some(from), ..first }, Level::Local).await.unwrap();
    let paths: Vec<_> = page.topics.iter().map(|topic| topic.path.as_str().to_owned()).collect();
    assert_eq!(paths, ["t/00007", "t/00008", "t/00009"]);
    assert_eq!(page.topics[0].value.as_deref(), Some(&b"seven"[..]));
    assert_eq!((page.topics[1].value.as_deref(), page.more), (None, true));

    let last = Fetch { limit: Some(Limit::Last(1)), ..all };
    let page = client.fetch(last, Level::Local).await.unwrap();
    assert_eq!(page.topics[0].path.as_str(), "t/02999");
    let removed = client.remove("?t//").await.unwrap();
    assert_eq!(removed, COUNT as u64);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_stream_is_superseded_by_another_writer() {
    let node = Node::start().await;
    let client = node.client().await;
    let spec = Specification::plain(TopicType::String);
    let stream = client.open_stream(&path("s"), Some(&spec), &[]).await.unwrap();
    assert!(stream.created());
    soon(stream.set(Value::String("one")).await.unwrap()).await.unwrap();
    client.set(&path("s"), Value::String("other")).await.unwrap();
    let refused = soon(stream.set(Value::String("two")).await.unwrap()).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::InvalidStream));
    client.close().await;
}
