//! Runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quorate::client::{Client, ClientConfig, Value};
use quorate::domain::topic::path::TopicPath;
use quorate::domain::topic::specification::{Specification, TopicType};

use crate::history::{ClientId, Happening};
use crate::world::{Faults, authority, turn};

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

/// What a stormy run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Result {
    acked: u64,
    trouble: Vec<String>,
    hash: u64,
}

fn stormy_run(seed: u64, nodes: u8) -> (Result, Vec<String>, String) {
    turn(seed, nodes, async |mut world| {
        world.start_all();
        let stop = Arc::new(AtomicBool::new(false));
        let live = Arc::new(AtomicU64::new(0));
        let acked = Arc::new(std::sync::Mutex::new(Vec::new()));
        for k in 1..=3_u16 {
            let host = world.client_host(ClientId(k));
            let doors = world.doors();
            let (stop, live, acked) = (Arc::clone(&stop), Arc::clone(&live), Arc::clone(&acked));
            live.fetch_add(1, Ordering::Relaxed);
            let body = host.attach(async move {
                let mut value = i64::from(k) << 32;
                let path = TopicPath::parse(&format!("a/{k}")).unwrap();
                let specification = Specification::plain(TopicType::Int64);
                while !stop.load(Ordering::Relaxed) {
                    let config = ClientConfig::new(doors.clone(), authority());
                    let Ok(client) = Client::connect(config).await else {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    };
                    if client.add_topic(&path, &specification).await.is_err() {
                        continue;
                    }
                    while !stop.load(Ordering::Relaxed) {
                        value += 1;
                        match client.set(&path, Value::Int64(value)).await {
                            Ok(set) => acked.lock().unwrap().push((set.index.0 >> 16, k, value)),
                            Err(_) => break,
                        }
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                live.fetch_sub(1, Ordering::Relaxed);
            });
            #[expect(clippy::disallowed_methods, reason = "a client's program")]
            tokio::spawn(body);
        }
        world.storm(Duration::from_secs(2)).await;
        world.faults = Faults::mixed(&mut world.random);
        world.storm(Duration::from_secs(38)).await;
        stop.store(true, Ordering::Relaxed);
        world.come_to_rest(Duration::from_secs(30), || live.load(Ordering::Relaxed) == 0).await;
        let mut trouble = world.trouble.clone();
        let history = world.recorder.history();
        let finals = history.states.finals.clone();
        for pair in finals.windows(2) {
            if pair[0].content != pair[1].content {
                trouble.push(format!("{} and {} differ", pair[0].node, pair[1].node));
            }
        }
        let acked = acked.lock().unwrap().clone();
        if let Some(state) = finals.first() {
            let mut best = std::collections::BTreeMap::new();
            for (index, k, value) in &acked {
                best.insert(format!("a/{k}"), (*index, *value));
            }
            for (path, (index, value)) in best {
                let held = state.topics.get(&path);
                if held.is_none_or(|(held, at)| held.unwrap_or(0) < value || at.0 >> 16 < index) {
                    trouble.push(format!("{path} was acked as {value} at {index}, is {held:?}"));
                }
            }
        }
        let mut tail = world.network.trace_tail();
        for incident in &history.incidents {
            if !matches!(incident.what, Happening::Calm) {
                tail.push(format!("{} {:?}", incident.at, incident.what));
            }
        }
        let counts = format!("{:?} {:?}", world.faults.begun, world.network.counts());
        let hash = world.network.trace_hash();
        (Result { acked: acked.len() as u64, trouble, hash }, tail, counts)
    })
}

#[test]
fn storms() {
    let first: u64 = std::env::var("QUORATE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let count: u64 = std::env::var("QUORATE_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(2);
    let verbose = std::env::var("QUORATE_TRACE").is_ok();
    let twice = std::env::var("QUORATE_TWICE").is_ok();
    let mut failed = Vec::new();
    for seed in first..first + count {
        let started = std::time::Instant::now();
        let (result, tail, counts) = stormy_run(seed, if seed % 3 == 0 { 5 } else { 3 });
        println!("seed {seed}: {} ms, {result:?} {counts}", started.elapsed().as_millis());
        if verbose {
            println!("{}", tail.join("\n"));
        }
        if !result.trouble.is_empty() {
            failed.push(seed);
        }
        if twice {
            let (again, ..) = stormy_run(seed, if seed % 3 == 0 { 5 } else { 3 });
            if again != result {
                println!("seed {seed} differs: {again:?}");
                failed.push(seed);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}
