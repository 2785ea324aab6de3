//! Clients of a cluster: a session moves with everything it has heard, and waits out a lost quorum.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use quorate::client::{Client, ClientConfig, Event, EventStream, Onlooker, ReadOptions, Value};
use quorate::clock::Clock;
use quorate::domain::topic::specification::{Specification, TopicType};
use quorate::gateway::Gateway;
use quorate::protocol::handshake::NodeAddress;
use quorate::protocol::read::{Fetch, Level};
use quorate::protocol::record::Target;
use quorate::transport::certificate::{Pem, make_ca, make_node};
use quorate::transport::tls::{Authority, Identity, ServerTls};
use quorate::transport::{Endpoint, EndpointLimits, ResetKey};
use tokio::sync::watch;

use crate::stage::{PATIENCE, Stage, name, path};

/// Gateways in front of the nodes of a stage.
pub(crate) struct Front {
    pub(crate) gateways: BTreeMap<String, Gateway>,
    pub(crate) authority: Authority,
    pub(crate) ca: Pem,
    _nodes: watch::Sender<Vec<NodeAddress>>,
}

impl Front {
    pub(crate) fn open(stage: &Stage) -> Self {
        let ca = make_ca("clients").unwrap();
        let (nodes, known) = watch::channel(Vec::new());
        let open = |(node, running): (&String, &crate::stage::Running)| {
            let pem = make_node(&ca, &name(node), &[]).unwrap();
            let identity = Identity::from_pem(&pem.certificate, &pem.key).unwrap();
            let tls = ServerTls::for_clients(&identity, None).unwrap();
            let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
            let key = ResetKey::from_bytes([2; 32]);
            let endpoint = Endpoint::listen(any, &tls, &key, EndpointLimits::default()).unwrap();
            let replication = running.node.clone();
            let supervisor = &running.supervisor;
            let gateway =
                Gateway::start(endpoint, replication, supervisor, Clock::system(), known.clone());
            (node.clone(), gateway.unwrap())
        };
        let gateways: BTreeMap<_, _> = stage.up.iter().map(open).collect();
        let authority = Authority::from_pem(&ca.certificate).unwrap();
        Self { gateways, authority, ca, _nodes: nodes }
    }

    pub(crate) async fn client(&self, nodes: &[&str]) -> Client {
        let address = |node: &&str| self.gateways[*node].local_address().to_string();
        let config = ClientConfig::new(nodes.iter().map(address), self.authority.clone());
        soon(Client::connect(config)).await.unwrap()
    }
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}

async fn next_value(events: &mut EventStream) -> i64 {
    loop {
        match soon(events.next()).await.expect("the stream goes on") {
            Event::Value { value: Some(value), .. } => {
                return i64::from_le_bytes(value[..].try_into().unwrap());
            }
            Event::Reset { reason, .. } => panic!("reset: {reason:?}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_whose_node_stops_hears_every_event_once_from_another() {
    const COUNT: i64 = 1_500;
    let mut stage = Stage::three().await;
    stage.settle().await;
    let front = Front::open(&stage);
    let leader = stage.leader().await;
    let names = ["n1", "n2", "n3"];
    let others: Vec<&str> = names.into_iter().filter(|node| *node != leader).collect();
    let writer = front.client(&others).await;
    let watcher = front.client(&[leader.as_str(), others[0], others[1]]).await;
    let off = Specification::new(TopicType::Int64, [("CONFLATION", "off")]).unwrap();
    let topic = soon(writer.add_topic(&path("moved"), &off)).await.unwrap().topic;
    let mut events = soon(watcher.subscribe(">moved")).await.unwrap();
    assert_eq!(&*watcher.node(), leader.as_str());

    let target = Target::Topic(topic);
    let mut pending = Vec::new();
    for number in 1..=COUNT {
        pending.push(soon(writer.update(&target, Value::Int64(number))).await.unwrap());
        if number == COUNT / 2 {
            // The watcher's node, which leads, stops; the watcher has to find another.
            let left = front.gateways[&leader].stop(Duration::from_secs(5)).await;
            assert!(left.is_empty(), "{left:?}");
            stage.stop(&leader).await;
        }
    }
    for one in pending {
        soon(one).await.unwrap();
    }
    for expected in 1..=COUNT {
        assert_eq!(next_value(&mut events).await, expected);
    }
    assert_ne!(&*watcher.node(), leader.as_str());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_quorum_parks_sessions_until_it_comes_back() {
    let mut stage = Stage::three().await;
    stage.settle().await;
    let mut front = Front::open(&stage);
    let client = front.client(&["n1"]).await;
    let plain = Specification::plain(TopicType::Int64);
    let topic = soon(client.add_topic(&path("parked"), &plain)).await.unwrap().topic;
    soon(client.set(&path("parked"), Value::Int64(1))).await.unwrap();
    let mut events = soon(client.subscribe(">parked")).await.unwrap();
    assert_eq!(next_value(&mut events).await, 1);

    for node in ["n2", "n3"] {
        // The gateway holds on to its node, and so to the node's port.
        let gateway = front.gateways.remove(node).unwrap();
        gateway.stop(Duration::from_secs(5)).await;
        drop(gateway);
        stage.stop(node).await;
    }
    let mut quorum = stage.node("n1").quorum();
    soon(quorum.wait_for(|quorum| !quorum.is_quorate())).await.unwrap();
    let fetch = || Fetch { selector: ">parked".into(), values: Some(0), ..Fetch::default() };
    let short = Some(Duration::from_millis(300));
    let local = client.fetch(fetch(), ReadOptions { level: Level::Local, deadline: short }).await;
    assert!(local.is_err(), "{local:?}");
    let stale = soon(client.fetch(fetch(), Level::Stale)).await.unwrap();
    assert!(stale.freshness.stale);
    assert_eq!(stale.topics.len(), 1);
    // Who comes now can open no session, and still look.
    let address = front.gateways["n1"].local_address().to_string();
    let onlooker = Onlooker::new(ClientConfig::new([address], front.authority.clone())).unwrap();
    let status = soon(onlooker.cluster_status()).await.unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    let states: Vec<_> =
        status["nodes"].as_array().unwrap().iter().map(|node| node["state"].clone()).collect();
    assert_eq!(states, ["inquorate".into(), serde_json::Value::Null, serde_json::Value::Null]);
    let seen = soon(onlooker.fetch(fetch())).await.unwrap();
    assert!(seen.freshness.stale && seen.freshness.age > Duration::ZERO, "{seen:?}");
    assert_eq!(seen.topics.len(), 1);

    let target = Target::Topic(topic);
    let waiting = soon(client.update(&target, Value::Int64(2))).await.unwrap();

    stage.start(&["n2"]).await;
    soon(waiting).await.unwrap();
    assert_eq!(next_value(&mut events).await, 2);
    let fresh = soon(client.fetch(fetch(), Level::Linearizable)).await.unwrap();
    assert!(!fresh.freshness.stale);
}
