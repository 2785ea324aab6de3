//! Runs: a world, its clients and its faults, turned by a seed and then judged.
//!
//! ```text
//! QUORATE_SEED=17 cargo test --release --test simulation -- replay --nocapture     one seed
//! QUORATE_SEEDS=2000 cargo test --release --test simulation -- seeds --nocapture   many, with counts
//! ```
//!
//! `QUORATE_FIRST` is the first seed of many. Seeds that found something stay in `regressions.txt`.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use quorate::client::ClientConfig;
use quorate::transport::simulated::Counts;
use tokio::sync::watch;

use crate::dice::Dice;
use crate::history::{ClientId, History};
use crate::oracles::judge;
use crate::workload::{ClientFault, PROBE_STREAM, Phase, Workload};
use crate::world::{Faults, World, authority, turn};

/// Clients of a run, the probe not counted.
const CLIENTS: u16 = 4;
/// From the start to the first fault, under faults, and in the calm until nothing new is sent.
const FOUNDING: Duration = Duration::from_secs(2);
const STORM: Duration = Duration::from_secs(40);
const CALM: Duration = Duration::from_secs(8);
/// What coming to rest may take after that.
const REST: Duration = Duration::from_secs(60);
/// Real time after which a seed hangs.
const HANGS_AFTER: Duration = Duration::from_secs(300);
/// Runs beside each other, each in a thread of its own.
const THREADS: u64 = 2;
/// Newest deliveries that a failure shows.
const TAIL: usize = 60;

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    seed: u64,
    /// Of every delivery; two runs of a seed have the same.
    hash: u64,
    operations: usize,
    simulated: Duration,
    faults: BTreeMap<&'static str, u64>,
    network: Counts,
    pub(crate) violations: Vec<String>,
    /// What happened, and the newest deliveries.
    trace: Vec<String>,
}

impl Report {
    /// A run that did not come to its end.
    fn broken(seed: u64, what: String) -> Self {
        Self {
            seed,
            hash: 0,
            operations: 0,
            simulated: Duration::ZERO,
            faults: BTreeMap::new(),
            network: Counts::default(),
            violations: vec![what],
            trace: Vec::new(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, hash, operations, .. } = self;
        for line in &self.trace {
            writeln!(formatter, "{line}")?;
        }
        for violation in &self.violations {
            writeln!(formatter, "seed {seed}: {violation}")?;
        }
        writeln!(formatter, "seed {seed}: {operations} operations, trace {hash:016x}")?;
        write!(
            formatter,
            "QUORATE_SEED={seed} cargo test --release --test simulation -- replay --nocapture"
        )
    }
}

/// Five nodes for every third seed, three for the others.
fn nodes_of(seed: u64) -> u8 {
    if seed.is_multiple_of(3) { 5 } else { 3 }
}

/// A fault of the product itself, put in to see it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    Nothing,
    /// Flushes report success and do nothing.
    LyingFlush,
    /// Something is wrong between the cluster and what is written down of it.
    AtClients(ClientFault),
}

fn run(seed: u64) -> Report {
    run_with(seed, Planted::Nothing)
}

pub(crate) fn run_with(seed: u64, planted: Planted) -> Report {
    let living = async |world: World| report(&live(world, planted).await);
    let running = AssertUnwindSafe(|| turn(seed, nodes_of(seed), living));
    let outcome = std::panic::catch_unwind(running);
    outcome.map_or_else(
        |panic| {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            Report::broken(seed, format!("the world panicked: {}", words.unwrap_or_default()))
        },
        |report| Report { seed, ..report },
    )
}

/// What a run leaves behind.
pub(crate) fn history_of(seed: u64) -> History {
    let living = async |world: World| live(world, Planted::Nothing).await.recorder.history();
    turn(seed, nodes_of(seed), living)
}

/// A run from its beginning to its end.
async fn live(mut world: World, planted: Planted) -> World {
    let (phase, phases) = watch::channel(Phase::Busy);
    let fault = match planted {
        Planted::AtClients(fault) => Some(fault),
        Planted::Nothing | Planted::LyingFlush => None,
    };
    let workload = Workload::new(world.recorder.clone(), phases).planted(fault);
    let mut dice = Dice::new(world.random.next());
    world.start_all();
    for number in 1..=CLIENTS {
        let id = ClientId(number);
        let config = ClientConfig::new(world.doors(), authority());
        let program = workload.clone().client(id, config, dice.fork());
        world.run_program(id, program);
    }
    world.storm(FOUNDING).await;
    if planted == Planted::LyingFlush {
        // From here on: a node that has lost its identity would not start, and nobody would ask.
        world.machines.iter().for_each(|machine| machine.disk.lie_about_flushes());
    }
    world.faults = Faults::mixed(&mut world.random);
    world.storm(STORM).await;
    world.calm();
    let probe = ClientId(CLIENTS + 1);
    world.probe = Some((probe, PROBE_STREAM));
    let config = ClientConfig::new(world.doors(), authority());
    let program = workload.clone().probe(probe, config);
    world.run_program(probe, program);
    world.storm(CALM).await;
    phase.send_replace(Phase::Quiet);
    world.come_to_rest(REST, || workload.is_idle()).await;
    phase.send_replace(Phase::Over);
    world
}

fn report(world: &World) -> Report {
    let history = world.recorder.history();
    let mut violations = world.trouble.clone();
    violations.extend(judge(&history).iter().map(ToString::to_string));
    let mut trace = incidents(&history);
    let tail = world.network.trace_tail();
    trace.extend(tail.into_iter().rev().take(TAIL).rev());
    Report {
        seed: 0,
        hash: world.network.trace_hash(),
        operations: history.operations.len(),
        simulated: Duration::from_micros(world.recorder.now().0),
        faults: world.faults_begun(),
        network: world.network.counts(),
        violations,
        trace,
    }
}

fn incidents(history: &History) -> Vec<String> {
    let line = |incident: &crate::history::Incident| format!("{} {:?}", incident.at, incident.what);
    history.incidents.iter().map(line).collect()
}

/// Runs seeds beside each other and prints what they came to together; gives those that failed.
fn run_all(seeds: &[u64], check_twice: bool) -> Vec<u64> {
    let next = AtomicU64::new(0);
    let (reports, finished) = mpsc::sync_channel::<Report>(THREADS as usize);
    let mut total = Total::default();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let (next, reports) = (&next, reports.clone());
            scope.spawn(move || {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let mut report = run(*seed);
                    if check_twice {
                        let again = run(*seed);
                        if again.hash != report.hash || again.operations != report.operations {
                            report.violations.push("two runs of it differ".to_owned());
                        }
                    }
                    reports.send(report).expect("somebody listens until the last report");
                }
            });
        }
        drop(reports);
        loop {
            match finished.recv_timeout(HANGS_AFTER) {
                Ok(report) => total.add(&report),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let begun = next.load(Ordering::Relaxed);
                    println!("one of the newest of the {begun} seeds that began does not end");
                    // A thread that spins cannot be ended in any other way.
                    std::process::exit(101);
                }
            }
        }
    });
    println!("{total}");
    total.failed
}

/// What many runs came to.
#[derive(Debug, Default)]
struct Total {
    seeds: u64,
    operations: usize,
    simulated: Duration,
    faults: BTreeMap<&'static str, u64>,
    network: Counts,
    failed: Vec<u64>,
}

impl Total {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.operations += report.operations;
        self.simulated += report.simulated;
        for (kind, count) in &report.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        self.network.add(&report.network);
        if !report.violations.is_empty() {
            println!("{report}");
            self.failed.push(report.seed);
        }
    }
}

impl fmt::Display for Total {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, operations, simulated, network, failed, .. } = self;
        let hours = simulated.as_secs_f64() / 3_600.0;
        write!(formatter, "{seeds} seeds, {hours:.2} simulated hours, {operations} operations;")?;
        let faults = self.faults.iter().map(|(kind, count)| format!(" {count} × {kind}"));
        write!(formatter, "{};", faults.collect::<Vec<_>>().join(","))?;
        write!(formatter, " {network}; {} failed", failed.len())?;
        if failed.is_empty() { Ok(()) } else { write!(formatter, ": {failed:?}") }
    }
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// A debug build takes its time for each seed, and plain `cargo test` must end soon.
fn count(debug: u64, release: u64) -> u64 {
    if cfg!(debug_assertions) { debug } else { release }
}

#[test]
fn seeds() {
    let first = number_from("QUORATE_FIRST").unwrap_or(1);
    let count = number_from("QUORATE_SEEDS").unwrap_or_else(|| count(2, 300));
    let seeds: Vec<u64> = (first..first + count).collect();
    let failed = run_all(&seeds, false);
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}

/// The seeds of a list: one a line, what it found behind a `#`.
fn listed(text: &str) -> Vec<u64> {
    text.lines()
        .filter_map(|line| line.split('#').next())
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.trim().parse().expect("each line begins with a seed"))
        .collect()
}

#[test]
fn two_runs_of_a_seed_are_identical() {
    let seeds: Vec<u64> = (1_000_001..1_000_001 + count(1, 20)).collect();
    let failed = run_all(&seeds, true);
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}

#[test]
fn regressions() {
    let mut seeds = listed(include_str!("regressions.txt"));
    seeds.truncate(count(2, 1_000) as usize);
    let failed = run_all(&seeds, false);
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}

/// One seed, with all that happened.
#[test]
fn replay() {
    let report = run(number_from("QUORATE_SEED").unwrap_or(1));
    println!("{report}");
    assert!(report.violations.is_empty(), "{:?}", report.violations);
}
