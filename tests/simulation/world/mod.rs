//! The world: machines, network and clock of one run, turned by one seed.

mod machine;

use std::time::Duration;

use quorate::clock::Clock;
use quorate::entropy;
use quorate::host::Host;
use quorate::transport::simulated::{Network, Weather};
use tokio::runtime::{Builder, RngSeed};
use tokio::time::Instant;

pub(crate) use machine::{Machine, Plan, authority, door_of};

use crate::history::{ClientId, Node, Recorder, Time};

/// The wall time at which every run begins.
const WALL_MS: u64 = 1_700_000_000_000;

/// One run's world.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) network: Network,
    pub(crate) recorder: Recorder,
    pub(crate) machines: Vec<Machine>,
    pub(crate) random: Random,
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
        live(World { plan, network, recorder, machines, random }).await
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
    pub(crate) fn client_host(&self, client: ClientId) -> Host {
        let [high, low] = client.0.to_be_bytes();
        Host::new(client.to_string(), [10, 1, high, low].into())
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
