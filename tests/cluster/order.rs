//! Exactly once and in order, whatever happens to leaders.

use quorate::domain::id::Position;
use quorate::domain::outcome::Outcome;
use quorate::replication::Read;

use crate::stage::{Stage, Writer, number, update};

/// Commands that one session keeps unanswered.
const WINDOW: usize = 64;

/// Sends `updates` updates with a window, calling `at` after each number is sent.
async fn pump(writer: &mut Writer, topic: quorate::domain::id::TopicId, from: u64, updates: u64) {
    for value in from..from + updates {
        while writer.in_flight() >= WINDOW {
            writer.hear().await;
        }
        writer.send(&update(topic, value)).await;
    }
}

/// The values that a node's journal holds for a topic, in order.
fn published(node: &quorate::replication::Replication, text: &str) -> Vec<u64> {
    let mut values = Vec::new();
    let mut position = Position::START;
    loop {
        match node.journal().after(position, 1_000) {
            Read::Blocks(blocks) => {
                let from = position;
                for event in blocks.iter().flat_map(|block| block.after(from).to_vec()) {
                    position = event.position;
                    if let quorate::domain::effect::Effect::Value { topic, value: Some(value) } =
                        event.effect
                        && topic.path.as_str() == text
                    {
                        values.push(u64::from_be_bytes(value[..].try_into().unwrap()));
                    }
                }
            }
            Read::CaughtUp => return values,
            Read::Gone { oldest } => panic!("the ring has lost entries up to {oldest}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followers_writes_survive_its_leader_in_order_and_once() {
    let mut stage = Stage::three().await;
    let host = stage.follower().await;
    let mut writer = Writer::open(stage.node(&host), 7).await;
    let topic = writer.add_topic("counter").await;
    let mut sent = 0;
    // The first leader stops in good order; the second is cut off where it stands.
    for round in 0..2 {
        pump(&mut writer, topic, sent + 1, 500).await;
        sent += 500;
        let leader = stage.leader().await;
        if leader == host {
            // The window goes on over a change of leadership from this node to another.
            assert!(stage.node(&host).hand_over(crate::stage::PATIENCE).await);
        } else {
            stage.stop(&leader).await;
        }
        pump(&mut writer, topic, sent + 1, 500).await;
        sent += 500;
        while writer.in_flight() > 0 {
            writer.hear().await;
        }
        if stage.up.len() < 3 {
            let down = ["n1", "n2", "n3"].into_iter().find(|node| !stage.up.contains_key(*node));
            stage.start(&[down.unwrap()]).await;
        }
        assert!(writer.answered.iter().all(|one| !matches!(one.outcome, Outcome::Rejected(_))));
        assert_eq!(
            published(stage.node(&host), "counter"),
            (1..=sent).collect::<Vec<_>>(),
            "{round}"
        );
    }
    stage.settle().await;
    for node in ["n1", "n2", "n3"] {
        assert_eq!(number(stage.node(node), "counter"), Some(sent));
    }
    stage.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_on_every_node_at_once_are_each_in_order() {
    let mut stage = Stage::three().await;
    let mut writers = Vec::new();
    for (place, node) in ["n1", "n2", "n3"].into_iter().enumerate() {
        let mut writer = Writer::open(stage.node(node), 50 + place as u64).await;
        let topic = writer.add_topic(node).await;
        writers.push((writer, topic));
    }
    let pumping = writers.into_iter().map(async |(mut writer, topic)| {
        pump(&mut writer, topic, 1, 1_000).await;
        while writer.in_flight() > 0 {
            writer.hear().await;
        }
    });
    futures::future::join_all(pumping).await;
    stage.settle().await;
    for node in ["n1", "n2", "n3"] {
        for topic in ["n1", "n2", "n3"] {
            assert_eq!(published(stage.node(node), topic), (1..=1_000).collect::<Vec<_>>());
        }
    }
    stage.stop_all().await;
}
