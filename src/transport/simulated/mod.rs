//! A network in memory that stands in for QUIC in a simulated world: virtual time, seeded latency,
//! faults.
//!
//! It promises what the QUIC library promises to this folder, and no more: streams are ordered and
//! reliable until the connection ends, streams among each other are not ordered, windows push back,
//! a connection ends by a word from either side, by silence, or by a host that has forgotten it. A
//! lost packet shows as delay. A cut link shows as silence: what was sent waits, and arrives when
//! the link is healed before the silence has ended the connection.
//!
//! Certificates are not verified, but what they name is carried and checked: a certificate of
//! another authority has no place in here.
//!
//! | file | owns |
//! |---|---|
//! | `weather.rs` | how links behave: latency, loss, cuts |
//! | `world.rs` | endpoints, connections, and the parcels that are on their way |
//! | `arrival.rs` | what an arriving parcel changes |
//! | `stream.rs` | one direction of one stream |
//! | `handle.rs` | what `transport/` holds: endpoints, connections and halves of streams |

mod arrival;
mod halves;
mod handle;
mod stream;
#[cfg(all(test, feature = "server"))]
mod tests;
mod weather;
mod world;

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

pub(super) use halves::{ReceiveHalf, SendHalf};
pub(super) use handle::{End, Incoming, Socket};
pub use weather::{Counts, Weather};
use world::World;

use crate::clock::Clock;

/// How often silent connections are looked for.
const SILENCE_CHECK: Duration = Duration::from_millis(50);

thread_local! {
    static CURRENT: RefCell<Option<Network>> = const { RefCell::new(None) };
}

/// The network of a simulated world; clones are the same network.
#[derive(Debug, Clone)]
pub struct Network {
    world: Arc<Mutex<World>>,
    posted: Arc<Notify>,
}

impl Network {
    /// A network on which nobody is yet.
    #[must_use]
    pub fn new(seed: u64, weather: Weather) -> Self {
        Self { world: Arc::new(Mutex::new(World::new(seed, weather))), posted: Arc::default() }
    }

    /// Makes every endpoint of this thread one of this network, or, with none, of the machine's.
    pub fn install(network: Option<Self>) {
        CURRENT.set(network);
    }

    /// The network that this thread's endpoints belong to.
    pub(super) fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Carries parcels for as long as it is polled.
    pub async fn run(&self) {
        let clock = Clock::system();
        let mut look = clock.now() + SILENCE_CHECK;
        loop {
            let now = clock.now();
            let next = self.with(|world| {
                if now >= look {
                    world.end_silent(now);
                    look = now + SILENCE_CHECK;
                }
                world.deliver(now)
            });
            let due = next.map_or(look, |next| next.min(look));
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due) => {}
                () = self.posted.notified() => {}
            }
        }
    }

    /// From now on links behave so.
    pub fn set_weather(&self, weather: Weather) {
        self.with(|world| world.sky.weather = weather);
    }

    /// Lets nothing through from one host to another.
    pub fn cut(&self, from: IpAddr, to: IpAddr) {
        self.with(|world| world.sky.cut(from, to));
    }

    /// Heals every cut link; what waited goes on its way.
    pub fn heal(&self) {
        let now = Clock::system().now();
        self.with(|world| world.heal(now));
    }

    /// A host has lost its power: everything that it held is gone, without a word.
    pub fn unplug(&self, host: IpAddr) {
        self.with(|world| world.unplug(host));
    }

    /// What the network did so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.with(|world| world.sky.counts)
    }

    /// A number that stands for every delivery so far: its time, its way and its bytes.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.with(|world| world.trace.hash())
    }

    /// The newest deliveries, for people.
    #[must_use]
    pub fn trace_tail(&self) -> Vec<String> {
        self.with(|world| world.trace.tail())
    }

    fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        let (result, wakers, posted) = {
            let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
            let result = act(&mut world);
            let posted = std::mem::take(&mut world.posted);
            (result, std::mem::take(&mut world.to_wake), posted)
        };
        // Woken without the lock: whoever runs next may take it.
        for waker in wakers {
            waker.wake();
        }
        if posted {
            self.posted.notify_one();
        }
        result
    }
}

/// The monotonic time.
fn now() -> Instant {
    Clock::system().now()
}
