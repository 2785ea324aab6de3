//! The faults of a run: a table of kinds with rates, and what each does to the world.
//!
//! | kind | what happens | until |
//! |---|---|---|
//! | crash | the power of a node goes, unflushed bytes are lost, the last write may be torn | it is started again |
//! | crash in a write | the same, in the middle of an operation of the disk | it is started again |
//! | kill | the process of a node ends, its disk keeps everything | it is started again |
//! | stop | a node stops in good order | it is started again |
//! | pause | nothing of a node runs while time goes on | it goes on |
//! | isolate, halves, one way, ring | links are cut | they are healed |
//! | rough weather | loss, delay, reordering, duplicated dials | the weather is fine |
//! | slow disk | the flushes of a node take long | they do not |
//! | failed flush | a flush of a node fails | the node has given up and is started again |
//! | full stop | every node crashes, or stops; they come back in any order, perhaps not all at first | all are back |

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use quorate::transport::simulated::Weather;
use tokio::time::Instant;

use super::machine::address_of;
use super::{Random, World};
use crate::history::{ClientId, Happening};

/// How often the world is looked at and a fault may begin.
const TICK: Duration = Duration::from_millis(50);
/// How long a stop in good order may take.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// After so long a disk that was to go down in a write goes down without one.
const LAST_WRITE: Duration = Duration::from_millis(300);
/// Operations of a disk, the next one included, in one of which it goes down.
const LAST_OPERATIONS: u64 = 30;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Crash,
    CrashInWrite,
    Kill,
    Stop,
    Pause,
    Isolate,
    Halves,
    OneWay,
    Ring,
    RoughWeather,
    SlowDisk,
    FailedFlush,
    FullStop,
}

/// How often each kind begins, per simulated minute.
const TABLE: [(Kind, u64); 13] = [
    (Kind::Crash, 8),
    (Kind::CrashInWrite, 6),
    (Kind::Kill, 4),
    (Kind::Stop, 3),
    (Kind::Pause, 6),
    (Kind::Isolate, 6),
    (Kind::Halves, 3),
    (Kind::OneWay, 6),
    (Kind::Ring, 2),
    (Kind::RoughWeather, 6),
    (Kind::SlowDisk, 6),
    (Kind::FailedFlush, 3),
    (Kind::FullStop, 2),
];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::CrashInWrite => "crash in a write",
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Isolate => "isolate",
            Self::Halves => "halves",
            Self::OneWay => "one way",
            Self::Ring => "ring",
            Self::RoughWeather => "rough weather",
            Self::SlowDisk => "slow disk",
            Self::FailedFlush => "failed flush",
            Self::FullStop => "full stop",
        }
    }
}

/// What is to happen later.
#[derive(Debug, Clone, Copy)]
enum Later {
    Start(usize),
    PowerCut(usize),
    Resume(usize),
    Heal,
    FineWeather,
    FastDisk(usize),
}

/// The faults of a run: which there are, and what is still to come of those that began.
#[derive(Debug)]
pub(crate) struct Faults {
    rates: Vec<(Kind, u64)>,
    agenda: BTreeMap<(Instant, u64), Later>,
    number: u64,
    pub(crate) begun: BTreeMap<&'static str, u64>,
}

impl Faults {
    /// Each run has its own mixture, so that rare companies meet as well.
    pub(crate) fn mixed(random: &mut Random) -> Self {
        let mut rates = Vec::new();
        for (kind, rate) in TABLE {
            match random.below(4) {
                0 => {}
                factor => rates.push((kind, rate * factor / 2)),
            }
        }
        Self { rates, agenda: BTreeMap::new(), number: 0, begun: BTreeMap::new() }
    }

    /// Nothing happens by itself.
    pub(crate) fn none() -> Self {
        Self { rates: Vec::new(), agenda: BTreeMap::new(), number: 0, begun: BTreeMap::new() }
    }
}

impl World {
    /// Lets faults happen for so long.
    pub(crate) async fn storm(&mut self, span: Duration) {
        let until = Instant::now() + span;
        while Instant::now() < until {
            tokio::time::sleep(TICK).await;
            self.look();
            self.carry_on().await;
            for (kind, per_minute) in self.faults.rates.clone() {
                let ticks = 60_000 / TICK.as_millis() as u64;
                if self.random.below(ticks) < per_minute {
                    self.strike(kind).await;
                }
            }
        }
    }

    /// Undoes every fault and starts what is off.
    pub(crate) fn calm(&mut self) {
        self.faults.agenda.clear();
        self.network.heal();
        self.network.set_weather(Weather::default());
        for place in 0..self.machines.len() {
            self.restore(place);
            // One that was to fail and has not come yet never comes.
            self.machines[place].disk.fail_flush_after(u64::MAX);
            if self.machines[place].disk.is_down() {
                self.power_cut(place);
            }
        }
        self.start_all();
        self.recorder.happened(Happening::Calm);
        self.calm_since = self.recorder.now();
        self.is_calm = true;
    }

    /// Undoes what is due, and starts again what gave up.
    pub(crate) async fn carry_on(&mut self) {
        let now = Instant::now();
        while let Some(entry) =
            self.faults.agenda.first_entry().filter(|entry| entry.key().0 <= now)
        {
            match entry.remove() {
                Later::Start(place) => {
                    if !self.machines[place].is_on() {
                        self.machines[place].start(self.plan, &self.recorder);
                    }
                }
                Later::PowerCut(place) => self.power_cut(place),
                Later::Resume(place) => {
                    self.machines[place].host().into_iter().for_each(quorate::host::Host::resume);
                }
                Later::Heal => self.network.heal(),
                Later::FineWeather => self.network.set_weather(Weather::default()),
                Later::FastDisk(place) => self.restore(place),
            }
        }
        for place in 0..self.machines.len() {
            if self.machines[place].disk.is_down() {
                self.power_cut(place);
                self.start_soon(place);
            } else if let Some(exit) = self.machines[place].ended() {
                let node = self.machines[place].node;
                let code = i32::from(exit.code.0);
                self.recorder.happened(Happening::Ended { node, code });
                let of_the_flush = ["failed", "Input/output error"];
                let is_excused = self.machines[place].is_hurt
                    && of_the_flush.iter().any(|words| exit.reason.contains(words));
                if exit.reason.contains("panicked") || (self.is_calm && !is_excused) {
                    self.trouble.push(format!("{node} gave up: {exit}"));
                }
                self.kill(place);
                self.start_soon(place);
            }
        }
    }

    fn later(&mut self, after: Duration, what: Later) {
        self.faults.number += 1;
        self.faults.agenda.insert((Instant::now() + after, self.faults.number), what);
    }

    fn ms(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.random.below(most - least + 1))
    }

    fn start_soon(&mut self, place: usize) {
        // Mostly soon, now and then after the others have gone on without it.
        let most = if self.random.below(4) == 0 { 8_000 } else { 1_500 };
        let after = self.ms(0, most);
        self.later(after, Later::Start(place));
    }

    fn restore(&mut self, place: usize) {
        let (least, most) = self.plan.flush;
        if let Some(host) = self.machines[place].host() {
            host.resume();
            host.set_step_time(least, most);
        }
    }

    fn power_cut(&mut self, place: usize) {
        let seed = self.random.next();
        let machine = &mut self.machines[place];
        if machine.is_on() {
            self.recorder.happened(Happening::Crashed { node: machine.node });
            machine.crash(seed);
            self.network.unplug(address_of(machine.node));
            self.witness.look_at_disk(machine, &self.recorder);
        }
    }

    fn kill(&mut self, place: usize) {
        let machine = &mut self.machines[place];
        if machine.is_on() {
            self.recorder.happened(Happening::Crashed { node: machine.node });
            machine.kill();
            self.network.unplug(address_of(machine.node));
        }
    }

    async fn strike(&mut self, kind: Kind) {
        let place = self.random.below(self.machines.len() as u64) as usize;
        let needs_node = !matches!(
            kind,
            Kind::Isolate | Kind::Halves | Kind::OneWay | Kind::Ring | Kind::RoughWeather
        );
        if needs_node && kind != Kind::FullStop && !self.machines[place].is_on() {
            return;
        }
        let node = self.machines[place].node;
        *self.faults.begun.entry(kind.name()).or_default() += 1;
        let text = if needs_node { node.to_string() } else { String::new() };
        self.recorder.happened(Happening::Fault { kind: kind.name(), text });
        match kind {
            Kind::Crash => {
                self.power_cut(place);
                self.start_soon(place);
            }
            Kind::CrashInWrite => {
                let within = 1 + self.random.below(LAST_OPERATIONS);
                self.machines[place].disk.go_down_after(within);
                self.later(LAST_WRITE, Later::PowerCut(place));
                let after = LAST_WRITE + self.ms(1, 1_500);
                self.later(after, Later::Start(place));
            }
            Kind::Kill => {
                self.kill(place);
                self.start_soon(place);
            }
            Kind::Stop => {
                self.recorder.happened(Happening::Stopped { node });
                self.machines[place].stop(STOP_PATIENCE).await;
                self.network.unplug(address_of(node));
                self.start_soon(place);
            }
            Kind::Pause => {
                if let Some(host) = self.machines[place].host() {
                    host.pause();
                }
                let after = self.ms(20, 4_000);
                self.later(after, Later::Resume(place));
            }
            Kind::Isolate | Kind::Halves | Kind::OneWay | Kind::Ring => self.partition(kind, place),
            Kind::RoughWeather => {
                let weather = Weather {
                    latency_max: self.ms(1, 60),
                    loss: self.random.below(200),
                    reorder: self.random.below(200),
                    duplication: self.random.below(300),
                    ..Weather::default()
                };
                self.network.set_weather(weather);
                let after = self.ms(500, 5_000);
                self.later(after, Later::FineWeather);
            }
            Kind::SlowDisk => {
                let least = self.ms(1, 50);
                let most = least + self.ms(0, 250);
                if let Some(host) = self.machines[place].host() {
                    host.set_step_time(least, most);
                }
                let after = self.ms(500, 3_000);
                self.later(after, Later::FastDisk(place));
            }
            Kind::FailedFlush => {
                let within = 1 + self.random.below(10);
                self.machines[place].disk.fail_flush_after(within);
                self.machines[place].is_hurt = true;
            }
            Kind::FullStop => self.full_stop().await,
        }
    }

    /// Cuts links, after healing those that are cut.
    fn partition(&mut self, kind: Kind, place: usize) {
        self.network.heal();
        let nodes: Vec<IpAddr> =
            self.machines.iter().map(|machine| address_of(machine.node)).collect();
        let mut sides: Vec<(IpAddr, IpAddr)> = Vec::new();
        match kind {
            Kind::Isolate => {
                let alone = nodes[place];
                sides.extend(nodes.iter().map(|other| (alone, *other)));
                if self.random.below(2) == 0 {
                    let clients = 1..=self.clients;
                    sides.extend(clients.map(|k| (alone, client_address(ClientId(k)))));
                }
            }
            Kind::Halves => {
                let cut = 1 + self.random.below(nodes.len() as u64 - 1) as usize;
                let (one, other) = nodes.split_at(cut);
                sides.extend(one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))));
            }
            Kind::Ring => {
                let count = nodes.len();
                let apart = |a: usize, b: usize| (a + 1) % count != b && (b + 1) % count != a;
                for a in 0..count {
                    let others = (0..count).filter(|b| *b != a && apart(a, *b));
                    sides.extend(others.map(|b| (nodes[a], nodes[b])));
                }
                if count < 4 {
                    // Every ring of three is whole; a line is left of it.
                    sides.push((nodes[place], nodes[(place + 1) % count]));
                }
            }
            _ => {
                let from = nodes[place];
                let to = nodes[self.random.below(nodes.len() as u64) as usize];
                let deaf = self.random.below(2) == 0;
                // One link in one direction, or everything that a node says, or hears.
                if from == to {
                    for other in nodes.iter().filter(|other| **other != from) {
                        let (from, to) = if deaf { (*other, from) } else { (from, *other) };
                        self.network.cut(from, to);
                    }
                } else {
                    self.network.cut(from, to);
                }
            }
        }
        for (a, b) in sides.into_iter().filter(|(a, b)| a != b) {
            self.network.cut(a, b);
            self.network.cut(b, a);
        }
        let after = self.ms(100, 6_000);
        self.later(after, Later::Heal);
    }

    /// Everything goes down; it comes back in some order, perhaps not all of it at first.
    async fn full_stop(&mut self) {
        let politely = self.random.below(3) == 0;
        for place in 0..self.machines.len() {
            let node = self.machines[place].node;
            if politely && self.machines[place].is_on() {
                self.recorder.happened(Happening::Stopped { node });
                self.machines[place].stop(STOP_PATIENCE).await;
                self.network.unplug(address_of(node));
            } else if self.random.below(2) == 0 {
                self.power_cut(place);
            } else {
                self.kill(place);
            }
        }
        self.faults.agenda.retain(|_, later| !matches!(later, Later::Start(_)));
        let late = (self.random.below(2) == 0)
            .then(|| self.random.below(self.machines.len() as u64) as usize);
        for place in 0..self.machines.len() {
            let after =
                if late == Some(place) { self.ms(3_000, 12_000) } else { self.ms(0, 2_000) };
            self.later(after, Later::Start(place));
        }
    }
}

/// Where a client is.
pub(crate) fn client_address(client: ClientId) -> IpAddr {
    let [high, low] = client.0.to_be_bytes();
    [10, 1, high, low].into()
}
