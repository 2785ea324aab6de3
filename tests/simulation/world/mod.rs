//! The world: machines, network and clock of one run, turned by one seed.

mod faults;
mod machine;
mod witness;

use std::collections::BTreeMap;
use std::time::Duration;

use quorate::clock::Clock;
use quorate::entropy;
use quorate::host::Host;
use quorate::transport::simulated::{Network, Weather};
use tokio::runtime::{Builder, RngSeed};
use tokio::time::Instant;

pub(crate) use faults::Faults;
use faults::client_address;
pub(crate) use machine::{Machine, Plan, authority, door_of};
use witness::Witness;

use crate::history::{ClientId, Ending, Node, Recorder, Time};

/// The wall time at which every run begins.
const WALL_MS: u64 = 1_700_000_000_000;

/// How often the world is looked at while it comes to rest.
const REST_LOOK: Duration = Duration::from_millis(100);
/// Looks at the nodes for one at their logs.
const LOOKS_PER_LOG: u64 = 10;
/// What an election takes at most when nothing is wrong.
const ELECTION: Duration = Duration::from_millis(600);

/// One run's world.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) network: Network,
    pub(crate) recorder: Recorder,
    pub(crate) machines: Vec<Machine>,
    pub(crate) random: Random,
    pub(crate) faults: Faults,
    pub(crate) witness: Witness,
    /// Clients from the first on that there may be.
    pub(crate) clients: u16,
    looks: u64,
    /// No faults any more.
    pub(crate) is_calm: bool,
    calm_since: Time,
    /// The stream that shows in the end that subscriptions work.
    pub(crate) probe: Option<(ClientId, u32)>,
    /// What must not happen and did.
    pub(crate) trouble: Vec<String>,
}

/// Turns a world of so many nodes by this seed, under virtual time.
pub(crate) fn turn<T>(seed: u64, nodes: u8, live: impl AsyncFnOnce(World) -> T) -> T {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
        .build()
        .unwrap();
    entropy::seed_this_thread(Some(seed));
    let result = runtime.block_on(async {
        let mut random = Random::new(seed);
        let network = Network::new(random.next(), Weather::default());
        Network::install(Some(network.clone()));
        let started = Instant::now();
        let clock = Clock::starting_at(WALL_MS);
        let recorder = Recorder::new(move || {
            Time(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX))
        });
        let carrier = network.clone();
        #[expect(clippy::disallowed_methods, reason = "the network stands on no host")]
        tokio::spawn(async move { carrier.run().await });
        let flush = (Duration::from_millis(1), Duration::from_millis(3));
        let plan = Plan { nodes, clock, flush };
        let machines = (1..=nodes).map(|k| Machine::new(Node(k))).collect();
        let world = World {
            plan,
            network,
            recorder,
            machines,
            random,
            faults: Faults::none(),
            witness: Witness::default(),
            clients: 0,
            looks: 0,
            is_calm: false,
            calm_since: Time(0),
            probe: None,
            trouble: Vec::new(),
        };
        live(world).await
    });
    drop(runtime);
    Network::install(None);
    entropy::seed_this_thread(None);
    result
}

impl World {
    /// Turns every machine on that is off.
    pub(crate) fn start_all(&mut self) {
        for machine in self.machines.iter_mut().filter(|machine| !machine.is_on()) {
            machine.start(self.plan, &self.recorder);
        }
    }

    /// The machine that a client runs on.
    fn client_host(&mut self, client: ClientId) -> Host {
        self.clients = self.clients.max(client.0);
        Host::new(client.to_string(), client_address(client))
    }

    /// Runs a client's program on a machine of its own.
    pub(crate) fn run_program(
        &mut self,
        client: ClientId,
        program: impl Future<Output = ()> + Send + 'static,
    ) {
        let host = self.client_host(client);
        let program = host.attach(program);
        #[expect(clippy::disallowed_methods, reason = "a program is no part of the product")]
        tokio::spawn(program);
    }

    /// How often each kind of fault began.
    pub(crate) fn faults_begun(&self) -> BTreeMap<&'static str, u64> {
        self.faults.begun.clone()
    }

    /// Looks at every node that runs.
    pub(crate) fn look(&mut self) {
        self.looks += 1;
        for machine in &self.machines {
            self.witness.look(machine, &self.recorder);
            if self.looks.is_multiple_of(LOOKS_PER_LOG) {
                self.witness.read_log(machine, &self.recorder);
            }
        }
    }

    /// Waits in the calm until everything has come to rest: all nodes serve and hold the same state,
    /// for at most so long. What does not come to rest is left for the oracles.
    pub(crate) async fn come_to_rest(&mut self, patience: Duration, is_idle: impl Fn() -> bool) {
        let until = Instant::now() + patience;
        while Instant::now() < until && !(is_idle() && self.is_at_rest()) {
            tokio::time::sleep(REST_LOOK).await;
            self.look();
            self.carry_on().await;
        }
        let at_rest = self.is_at_rest();
        if !at_rest {
            self.trouble.push(format!("no rest: {}", self.restlessness()));
        }
        let nodes: Vec<Node> = self.machines.iter().map(|machine| machine.node).collect();
        self.look();
        for machine in &self.machines {
            self.witness.look_at_all(machine, at_rest, &self.recorder);
        }
        let at = self.recorder.now();
        let election_us = ELECTION.as_micros() as u64;
        let (calm_since, probe) = (self.calm_since, self.probe);
        let ending = Ending { calm_since, election_us, nodes, at, probe };
        self.recorder.write(|history| history.ending = Some(ending));
    }

    /// All nodes serve and have applied the same.
    fn is_at_rest(&self) -> bool {
        let mut applied = self.machines.iter().map(|machine| {
            let running = machine.running()?;
            let standing = running.replication.standing();
            (standing.applied == standing.committed).then_some(standing.applied)
        });
        match applied.next() {
            Some(Some(first)) => applied.all(|other| other == Some(first)),
            _ => false,
        }
    }

    /// Why it is not at rest, for people.
    fn restlessness(&self) -> String {
        let one = |machine: &Machine| match machine.running() {
            Some(running) => {
                let state = *running.replication.state().borrow();
                format!("{} {state} {:?}", machine.node, running.replication.standing())
            }
            None => format!("{} not started, life {}", machine.node, machine.life),
        };
        self.machines.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    /// Where clients go.
    pub(crate) fn doors(&self) -> Vec<String> {
        self.machines.iter().map(|machine| door_of(machine.node)).collect()
    }
}

/// A seeded sequence: splitmix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x5157_0a1e)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}
