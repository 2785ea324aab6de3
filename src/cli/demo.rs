//! `quorate demo`: the main job in one command.
//!
//! A scratch cluster of child processes, a real stream of updates, one watcher on each node, the
//! leader killed midway, and everything compared with the file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use serde_json::Value;

use crate::client::{Client, ClientConfig, Event};
use crate::clock::Clock;
use crate::domain::id::Position;
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::specification::{Specification, TopicType};
use crate::supervisor::{ExitCode, Supervisor};

use super::feed::feeder::{FeedOptions, Feeder};
use super::feed::ndjson::{InputError, Update, Updates};
use super::nodes::local_cluster::{LocalCluster, Plan, free_base_port};
use super::profile::{self, ProfileArguments};
use super::{output, runtime};

/// The flights and weather of New York's airports in January 2013 (CC0).
const FLIGHTS: &[u8] = include_bytes!("../../tests/data/flights-2013-01.ndjson.gz");
/// The stream is paced to last about so long.
const STREAM_SECONDS: u64 = 15;
/// How long after the last acknowledgement the watchers may take to have everything.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the nodes may take to show one state hash.
const AGREEMENT_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// NDJSON updates, plain or gzip; without it the flights inside of this program.
    file: Option<PathBuf>,
    /// How many nodes: 1, or 3 to 7.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=7))]
    nodes: u16,
    /// One JSON object instead of a fact a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut draw = [0_u8; 8];
    getrandom::fill(&mut draw).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    let name = format!("quorate-demo-{:016x}", u64::from_le_bytes(draw));
    let dir = std::env::temp_dir().join(name);
    let result = runtime::block_on(demo(&arguments, &dir))?;
    match &result {
        // The directory was made for this run alone.
        Ok(_) => std::fs::remove_dir_all(&dir).context("cannot remove the scratch cluster")?,
        Err(_) => output::note(format!("the scratch cluster is left in {}", dir.display())),
    }
    result
}

async fn demo(arguments: &Arguments, dir: &std::path::Path) -> anyhow::Result<ExitCode> {
    let updates = read_updates(arguments.file.as_ref())?;
    ensure!(!updates.is_empty(), "the file has no updates");
    let plan = Plan { nodes: arguments.nodes, base_port: free_base_port(arguments.nodes)? };
    let mut cluster = LocalCluster::prepare(dir, plan)?;
    for node in 0..cluster.nodes().len() {
        cluster.start(node)?;
    }
    cluster.wait_ready(Duration::from_secs(60)).await?;
    output::note(format!("{} nodes are ready; streaming {} updates", plan.nodes, updates.len()));

    let profile = ProfileArguments::of(cluster.profile());
    let expected = Expected::of(&updates);
    let supervisor = Supervisor::new("demo");
    let mut watchers = Vec::new();
    for node in cluster.nodes() {
        let config = profile.configuration()?;
        watchers.push(Watcher::start(&supervisor, config, &node.name, expected.events()).await?);
    }
    let client = profile.connect(None).await?;
    let result = stream(&mut cluster, &client, updates).await;
    let facts = match result {
        Ok(facts) => verify(&client, facts, watchers, &expected).await,
        Err(error) => Err(error),
    };
    client.close().await;
    cluster.stop().await;
    report(&facts?, arguments.json)
}

fn read_updates(file: Option<&PathBuf>) -> anyhow::Result<Vec<Update>> {
    let updates = match file {
        Some(file) => Updates::open(file)?,
        None => Updates::from_bytes("flights", FLIGHTS)?,
    };
    Ok(updates.collect::<Result<_, InputError>>()?)
}

/// What the stream came to, and what the watchers saw of it.
struct Facts {
    acknowledged: u64,
    delivered: u64,
    lost: u64,
    duplicated: u64,
    gap: Duration,
    seconds: f64,
    killed: Option<String>,
    agreed: bool,
}

/// Streams the updates and kills the leader midway.
async fn stream(
    cluster: &mut LocalCluster,
    client: &Client,
    updates: Vec<Update>,
) -> anyhow::Result<Facts> {
    let clock = Clock::system();
    let rate = u32::try_from(updates.len() as u64 / STREAM_SECONDS).unwrap_or(u32::MAX).max(1);
    let specification = Specification::new(TopicType::Json, [("CONFLATION", "off")])?;
    let options = FeedOptions { rate: Some(rate), window: 512, specification };
    let progress = output::progress(Some(updates.len() as u64), "updates");
    let mut feeder = Feeder::new(client.clone(), options, progress.clone());
    let started = clock.now();
    let half = Duration::from_secs(STREAM_SECONDS) / 2;
    let mut killed = None;
    {
        let mut feeding = std::pin::pin!(feeder.run(updates.into_iter().map(Ok)));
        let mut midway = std::pin::pin!(tokio::time::sleep(half));
        loop {
            tokio::select! {
                fed = &mut feeding => break fed?,
                () = &mut midway, if killed.is_none() && cluster.nodes().len() > 1 => {
                    let leader = leader(client).await?;
                    let names = cluster.nodes().iter().map(|node| node.name.clone());
                    let node = names.clone().position(|name| name == leader);
                    let node = node.context("the leader is none of the nodes")?;
                    cluster.kill(node).await?;
                    cluster.start_later(node, Duration::from_secs(2));
                    progress.suspend(|| output::note(format!("killed {leader}, the leader")));
                    killed = Some(leader);
                }
                (node, died) = cluster.next_death() => {
                    let name = cluster.nodes().get(node).map_or("?", |node| &node.name);
                    anyhow::bail!("{name} ended by itself: {died}");
                }
            }
        }
    }
    progress.finish_and_clear();
    Ok(Facts {
        acknowledged: feeder.tally().count(),
        delivered: 0,
        lost: 0,
        duplicated: 0,
        gap: feeder.tally().longest_pause(),
        seconds: clock.since(started).as_secs_f64(),
        killed,
        agreed: false,
    })
}

async fn leader(client: &Client) -> anyhow::Result<String> {
    let status: Value = serde_json::from_slice(&client.cluster_status().await?)?;
    let leader =
        status.get("leader").and_then(Value::as_str).context("the cluster shows no leader")?;
    Ok(leader.to_owned())
}

/// Compares what each watcher saw with the file, and the nodes' state hashes with each other.
async fn verify(
    client: &Client,
    mut facts: Facts,
    watchers: Vec<Watcher>,
    expected: &Expected,
) -> anyhow::Result<Facts> {
    facts.delivered = u64::MAX;
    for watcher in watchers {
        let seen = watcher.finish().await?;
        facts.delivered = facts.delivered.min(seen.events);
        facts.lost += expected.lost(&seen);
        facts.duplicated += seen.duplicated;
    }
    let agreement = async {
        loop {
            let status: Value = serde_json::from_slice(&client.cluster_status().await?)?;
            if agrees(&status) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    facts.agreed = matches!(tokio::time::timeout(AGREEMENT_TIMEOUT, agreement).await, Ok(Ok(())));
    Ok(facts)
}

/// All nodes show one hash at the last entry.
fn agrees(status: &Value) -> bool {
    let hash_index = status.get("hash_index").and_then(Value::as_u64);
    let Some(nodes) = status.get("nodes").and_then(Value::as_array) else { return false };
    let mut hashes = nodes.iter().map(|node| {
        let last = node.get("last_index").and_then(Value::as_u64);
        node.get("state_hash").and_then(Value::as_str).filter(|_| last == hash_index)
    });
    let Some(Some(first)) = hashes.next() else { return false };
    hashes.all(|hash| hash == Some(first))
}

fn report(facts: &Facts, json: bool) -> anyhow::Result<ExitCode> {
    let gap_ms = u64::try_from(facts.gap.as_millis()).unwrap_or(u64::MAX);
    if json {
        output::json(&serde_json::json!({
            "acknowledged": facts.acknowledged, "delivered": facts.delivered, "lost": facts.lost,
            "duplicated": facts.duplicated, "gap_ms": gap_ms, "seconds": facts.seconds,
            "killed": facts.killed, "hashes_equal": facts.agreed,
        }));
    } else {
        output::line(format!("acknowledged {}", facts.acknowledged));
        output::line(format!("delivered {}", facts.delivered));
        output::line(format!("lost {}", facts.lost));
        output::line(format!("duplicated {}", facts.duplicated));
        output::line(format!("gap_ms {gap_ms}"));
        output::line(format!("hashes_equal {}", facts.agreed));
    }
    let good = facts.lost == 0 && facts.duplicated == 0 && facts.agreed;
    Ok(if good { ExitCode::DONE } else { ExitCode::FAILED })
}

/// What each watcher must see: every topic's values in order, without those that repeat the one
/// before.
struct Expected {
    changes: BTreeMap<TopicPath, Vec<Bytes>>,
}

impl Expected {
    fn of(updates: &[Update]) -> Self {
        let mut changes: BTreeMap<TopicPath, Vec<Bytes>> = BTreeMap::new();
        for update in updates {
            let values = changes.entry(update.topic.clone()).or_default();
            if values.last() != Some(&update.value) {
                values.push(update.value.clone());
            }
        }
        Self { changes }
    }

    fn events(&self) -> u64 {
        self.changes.values().map(|values| values.len() as u64).sum()
    }

    /// How many of the changes a watcher did not see, in their order.
    fn lost(&self, seen: &Seen) -> u64 {
        let missing = |(path, values): (&TopicPath, &Vec<Bytes>)| {
            let mut seen = seen.changes.get(path).map(Vec::as_slice).unwrap_or_default().iter();
            let found = values.iter().filter(|value| seen.any(|seen| seen == *value)).count();
            (values.len() - found) as u64
        };
        self.changes.iter().map(missing).sum()
    }
}

/// What one watcher saw.
#[derive(Default)]
struct Seen {
    changes: BTreeMap<TopicPath, Vec<Bytes>>,
    events: u64,
    /// Events whose position is not above the one before.
    duplicated: u64,
    last: Position,
}

/// One session that watches everything.
struct Watcher {
    seen: tokio::sync::oneshot::Receiver<anyhow::Result<Seen>>,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Watcher {
    async fn start(
        supervisor: &Supervisor,
        config: ClientConfig,
        node: &str,
        events: u64,
    ) -> anyhow::Result<Self> {
        let client = profile::connect(config, Some(node)).await?;
        let (sender, seen) = tokio::sync::oneshot::channel();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut stream = client.subscribe("?.*//").await?;
        supervisor.spawn(format!("watcher of {node}"), async move {
            let mut seen = Seen::default();
            let mut stopped = stopped;
            while seen.events < events {
                let event = tokio::select! {
                    event = stream.next() => event,
                    _ = stopped.wait_for(|stopped| *stopped) => None,
                };
                let Some(event) = event else { break };
                seen.take(event);
            }
            // A little longer: an event too many is one that was doubled.
            let late = tokio::time::timeout(Duration::from_millis(500), stream.next()).await;
            if let Ok(Some(event)) = late {
                seen.take(event);
            }
            client.close().await;
            // Whoever asked may be gone.
            let _unheard = sender.send(Ok(seen));
        });
        Ok(Self { seen, stop })
    }

    /// Waits until it has seen everything, or for the time that it may take.
    async fn finish(mut self) -> anyhow::Result<Seen> {
        if let Ok(seen) = tokio::time::timeout(DELIVERY_TIMEOUT, &mut self.seen).await {
            return seen.context("a watcher ended early")?;
        }
        self.stop.send_replace(true);
        self.seen.await.context("a watcher ended early")?
    }
}

impl Seen {
    fn take(&mut self, event: Event) {
        let Event::Value { position, topic, value, .. } = event else { return };
        if position <= self.last && self.events > 0 {
            self.duplicated += 1;
        }
        self.last = self.last.max(position);
        self.events += 1;
        self.changes.entry(topic.path.clone()).or_default().push(value.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_counted_in_order() {
        let update = |topic: &str, value: &'static str| Update {
            topic: TopicPath::parse(topic).unwrap(),
            value: Bytes::from_static(value.as_bytes()),
        };
        let updates = [update("a", "1"), update("a", "1"), update("a", "2"), update("b", "1")];
        let expected = Expected::of(&updates);
        assert_eq!(expected.events(), 3);
        let path = TopicPath::parse("a").unwrap();
        let seen = |values: &[&'static str]| {
            let values = values.iter().map(|value| Bytes::from_static(value.as_bytes())).collect();
            Seen { changes: BTreeMap::from([(path.clone(), values)]), ..Seen::default() }
        };
        assert_eq!(expected.lost(&seen(&["1", "2"])), 1);
        assert_eq!(expected.lost(&seen(&["2", "1"])), 2);
        assert_eq!(expected.lost(&Seen::default()), 3);
    }
}
