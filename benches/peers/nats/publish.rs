//! Durable updates of a JetStream key-value bucket: three replicas in files, each answered after its
//! flush, from one connection to the leader's node.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use quorate::clock::Clock;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::figures::{Figures, latencies};
use crate::meter::Reading;
use crate::scenario::TOPICS;

use super::WARM_UP;
use super::connection::Connection;
use super::protocol::put_publish;
use super::server::{Program, Servers};

/// Unanswered updates while the keys get their first values.
const FILL_WINDOW: u32 = 256;
/// How long a fresh cluster may take to make the bucket and choose its leader.
const BUCKET_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Where the answers to the questions of the set-up go.
const INBOX: &str = "_INBOX.setup";
/// Where the answers to updates go, each with the number of its place in the window.
const ANSWERS: &str = "_INBOX.u";

/// Starts a cluster, measures, ends it.
///
/// # Errors
/// When a server ends or an update is refused.
pub(crate) async fn run(
    program: &Program,
    dir: &Path,
    window: u32,
    value_bytes: usize,
    time: Duration,
) -> anyhow::Result<Figures> {
    let mut servers = Servers::cluster(program, dir)?;
    let setup = servers.first_connection(None).await?;
    let leader = tokio::time::timeout(BUCKET_TIMEOUT, make_bucket(setup)).await;
    let leader = leader.context("the bucket has no leader in time")??;
    let mut connection = Connection::open(servers.address(leader)?, None).await?;
    connection.subscribe(&format!("{ANSWERS}.*")).await?;
    let mut filling = ClosedLoop::new(connection, FILL_WINDOW, value_bytes, Keys::Each(0));
    filling.publish_until(None).await?;
    let mut updates = ClosedLoop::new(filling.connection, window, value_bytes, Keys::Drawn);
    updates.publish_until(Some(WARM_UP)).await?;
    let pids = servers.pids();
    let before = Reading::take(&pids)?;
    updates.latencies_us.reset();
    let started = updates.clock.now();
    let acknowledged = updates.publish_until(Some(time)).await?;
    let seconds = updates.clock.since(started).as_secs_f64();
    let after = Reading::take(&pids)?;
    let (server_s, client_s) = (after.servers_s - before.servers_s, after.own_s - before.own_s);
    let figures = Figures::of(acknowledged, seconds, &updates.latencies_us, server_s, client_s);
    servers.stop().await?;
    figures.context("nothing was acknowledged")
}

/// Makes the bucket as `nats kv add` does, and gives the number of its leader's node.
async fn make_bucket(mut connection: Connection) -> anyhow::Result<usize> {
    connection.subscribe(INBOX).await?;
    let bucket = json!({
        "name": "KV_bench",
        "subjects": ["$KV.bench.>"],
        "retention": "limits",
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msgs_per_subject": 1,
        "max_msg_size": -1,
        "storage": "file",
        "discard": "new",
        "num_replicas": 3,
        "duplicate_window": 120_000_000_000_u64,
        "allow_rollup_hdrs": true,
        "deny_delete": true,
        "allow_direct": true,
    });
    // A cluster that has not yet found itself refuses, or does not answer at all.
    loop {
        let asked = connection.ask("$JS.API.STREAM.CREATE.KV_bench", &bucket, INBOX);
        match tokio::time::timeout(Duration::from_secs(5), asked).await {
            Ok(Ok(answer)) if answer.get("error").is_none() => break,
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) if error.to_string().starts_with("nobody answers") => {}
            Ok(Err(error)) => return Err(error),
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    loop {
        let info = connection.ask("$JS.API.STREAM.INFO.KV_bench", &json!({}), INBOX).await?;
        if let Some(leader) = settled_leader(&info) {
            return leader;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The number in the name of the leader's node, once both followers are with it.
fn settled_leader(info: &Value) -> Option<anyhow::Result<usize>> {
    let leader = info.pointer("/cluster/leader")?.as_str()?;
    let followers = info.pointer("/cluster/replicas")?.as_array()?;
    let current = followers.iter().filter(|one| one.get("current") == Some(&Value::Bool(true)));
    let number = leader.strip_prefix('n').and_then(|number| number.parse().ok());
    (current.count() == 2).then(|| number.with_context(|| format!("who is {leader}?")))
}

/// Which key is next.
enum Keys {
    /// One after the other, this one next, until all had their turn.
    Each(u32),
    /// Uniformly, from here on the same in every run.
    Drawn,
}

/// A number of updates that are unanswered at any time.
struct ClosedLoop {
    clock: Clock,
    connection: Connection,
    /// When the update in each place of the window was sent.
    sent: Vec<Instant>,
    idle: Vec<usize>,
    keys: Keys,
    draws: Draws,
    payload: Vec<u8>,
    latencies_us: Histogram<u64>,
}

impl ClosedLoop {
    fn new(connection: Connection, window: u32, value_bytes: usize, keys: Keys) -> Self {
        let clock = Clock::system();
        Self {
            clock,
            connection,
            sent: vec![clock.now(); window as usize],
            idle: (0..window as usize).collect(),
            keys,
            draws: Draws(0x9E37_79B9_7F4A_7C15),
            payload: vec![b'v'; value_bytes],
            latencies_us: latencies(),
        }
    }

    /// Publishes for a time, or until the keys are through and everything is answered; how many
    /// were acknowledged meanwhile. What is unanswered at the end of the time stays so.
    async fn publish_until(&mut self, time: Option<Duration>) -> anyhow::Result<u64> {
        let end = time.map(|time| self.clock.now() + time);
        let mut acknowledged = 0;
        loop {
            while let Some(place) = self.idle.pop() {
                if !self.send(place) {
                    self.idle.push(place);
                    break;
                }
            }
            if self.idle.len() == self.sent.len() {
                return Ok(acknowledged);
            }
            self.connection.flush().await?;
            self.connection.fill().await?;
            let now = self.clock.now();
            let (sent, idle, latencies_us) = (&self.sent, &mut self.idle, &mut self.latencies_us);
            self.connection.messages(|subject, payload, _| {
                let place = place_of(subject)?;
                let sent = sent.get(place).context("an answer to nothing")?;
                ensure!(is_acknowledgement(payload), "{}", String::from_utf8_lossy(payload));
                let latency = now.saturating_duration_since(*sent);
                latencies_us.saturating_record(u64::try_from(latency.as_micros())?.max(1));
                idle.push(place);
                acknowledged += 1;
                Ok(())
            })?;
            if end.is_some_and(|end| now >= end) {
                return Ok(acknowledged);
            }
        }
    }

    /// Puts the next update into a place of the window; false if there is none.
    fn send(&mut self, place: usize) -> bool {
        let key = match &mut self.keys {
            Keys::Each(next) if *next >= TOPICS => return false,
            Keys::Each(next) => {
                *next += 1;
                *next - 1
            }
            Keys::Drawn => self.draws.below(TOPICS),
        };
        let mark = self.draws.next().to_be_bytes();
        if let Some(start) = self.payload.first_chunk_mut() {
            *start = mark;
        }
        if let Some(sent) = self.sent.get_mut(place) {
            *sent = self.clock.now();
        }
        put_publish(
            self.connection.outgoing(),
            format_args!("$KV.bench.{key}"),
            Some(format_args!("{ANSWERS}.{place}")),
            &self.payload,
        );
        true
    }
}

fn place_of(subject: &[u8]) -> anyhow::Result<usize> {
    let number = subject.rsplit(|byte| *byte == b'.').next().unwrap_or(subject);
    match std::str::from_utf8(number).ok().and_then(|number| number.parse().ok()) {
        Some(place) => Ok(place),
        None => bail!("an answer to {}", String::from_utf8_lossy(subject)),
    }
}

/// An update that was taken is answered with its place in the stream.
fn is_acknowledgement(payload: &[u8]) -> bool {
    payload.starts_with(b"{\"stream\":") && payload.windows(6).any(|part| part == b"\"seq\":")
}

/// Numbers that look random and are the same in every run (xorshift).
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u32) -> u32 {
        let wide = u128::from(self.next()) * u128::from(bound);
        // Below the bound, which was 32 bits wide.
        (wide >> 64) as u32
    }
}
