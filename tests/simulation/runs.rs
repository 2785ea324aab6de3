//! Runs.

use std::time::Duration;

use quorate::client::{Client, ClientConfig, Value};
use quorate::domain::topic::path::TopicPath;
use quorate::domain::topic::specification::{Specification, TopicType};

use crate::history::ClientId;
use crate::world::{authority, turn};

fn quiet_run(seed: u64) -> (u64, u64, Vec<String>) {
    turn(seed, 3, async |mut world| {
        world.start_all();
        let host = world.client_host(ClientId(1));
        let config = ClientConfig::new(world.doors(), authority());
        let body = host.attach(async move {
            let client = Client::connect(config).await.unwrap();
            let path = TopicPath::parse("a/b").unwrap();
            let specification = Specification::plain(TopicType::Int64);
            client.add_topic(&path, &specification).await.unwrap();
            let mut last = 0;
            for k in 0..200_i64 {
                let set = client.set(&path, Value::Int64(k)).await.unwrap();
                last = set.index.0;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            last
        });
        let last = tokio::time::timeout(Duration::from_secs(60), body).await;
        let tail = world.network.trace_tail();
        (last.unwrap_or(0), world.network.trace_hash(), tail)
    })
}

#[test]
fn three_nodes_form_a_cluster_and_take_writes_the_same_way_twice() {
    let started = std::time::Instant::now();
    let (last, hash, tail) = quiet_run(1);
    println!("{} ms, index {last}, {hash:016x}", started.elapsed().as_millis());
    assert_ne!(last, 0, "{}", tail.join("\n"));
    let (again, hash_again, tail_again) = quiet_run(1);
    println!("{again} {hash_again:016x}");
    if hash != hash_again {
        println!("{}\n-----\n{}", tail.join("\n"), tail_again.join("\n"));
    }
    assert_eq!((last, hash), (again, hash_again));
}
