//! How links behave, and the trace of what they carried.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Deliveries that are kept for people.
const TAIL_MAX: usize = 200;
/// What the first and the longest repetition of a lost packet cost.
const REPEAT_MS: (u64, u64) = (20, 300);

/// How links behave. Chances are out of a thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// The shortest way of a parcel.
    pub latency_min: Duration,
    /// The longest way of a parcel that is not lost.
    pub latency_max: Duration,
    /// Parcels that are lost and sent again.
    pub loss: u64,
    /// Parcels that are far slower than the others, and so overtaken.
    pub reorder: u64,
    /// Dials that arrive a second time, from nobody.
    pub duplication: u64,
    /// Writes that arrive in two pieces.
    pub split: u64,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            latency_min: Duration::from_millis(1),
            latency_max: Duration::from_millis(3),
            loss: 0,
            reorder: 0,
            duplication: 0,
            split: 50,
        }
    }
}

/// What a network did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Parcels that arrived.
    pub delivered: u64,
    /// Parcels that were lost and sent again.
    pub lost: u64,
    /// Parcels that were made slow.
    pub reordered: u64,
    /// Dials that arrived twice.
    pub duplicated: u64,
    /// Parcels that waited at a cut.
    pub stalled: u64,
    /// Connections that ended by silence.
    pub timed_out: u64,
    /// Connections of which the other side knew nothing any more.
    pub forgotten: u64,
}

impl Counts {
    /// Adds what another network did.
    pub fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.reordered += other.reordered;
        self.duplicated += other.duplicated;
        self.stalled += other.stalled;
        self.timed_out += other.timed_out;
        self.forgotten += other.forgotten;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { delivered, lost, reordered, duplicated, stalled, timed_out, forgotten } = self;
        write!(
            formatter,
            "{delivered} parcels, of which {lost} lost, {reordered} overtaken, {stalled} held up by \
             a cut; {duplicated} dials doubled, {timed_out} connections ended by silence, \
             {forgotten} forgotten by a restart"
        )
    }
}

/// The weather, and the chance that makes it.
#[derive(Debug)]
pub(super) struct Sky {
    pub(super) weather: Weather,
    pub(super) counts: Counts,
    cuts: BTreeSet<(IpAddr, IpAddr)>,
    state: u64,
}

impl Sky {
    pub(super) fn new(seed: u64, weather: Weather) -> Self {
        Self { weather, counts: Counts::default(), cuts: BTreeSet::new(), state: seed }
    }

    pub(super) fn cut(&mut self, from: IpAddr, to: IpAddr) {
        self.cuts.insert((from, to));
    }

    pub(super) fn heal(&mut self) {
        self.cuts.clear();
    }

    pub(super) fn is_cut(&self, from: IpAddr, to: IpAddr) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// How long the next parcel is on its way.
    pub(super) fn way(&mut self) -> Duration {
        let Weather { latency_min, latency_max, loss, reorder, .. } = self.weather;
        let spread = latency_max.saturating_sub(latency_min).as_millis();
        let mut ms = self.below(u64::try_from(spread).unwrap_or(0) + 1);
        if self.happens(loss) {
            self.counts.lost += 1;
            ms += self.repetition();
        }
        if self.happens(reorder) {
            self.counts.reordered += 1;
            ms += 1 + self.below(50);
        }
        latency_min + Duration::from_millis(ms)
    }

    /// What it costs to send a packet again.
    pub(super) fn repetition(&mut self) -> u64 {
        REPEAT_MS.0 + self.below(REPEAT_MS.1 - REPEAT_MS.0)
    }

    /// Whether something of this chance, out of a thousand, happens.
    pub(super) fn happens(&mut self, chance: u64) -> bool {
        // Without a draw for what cannot happen, a fault that is off changes nothing else.
        chance > 0 && self.below(1_000) < chance
    }

    /// A number below `bound`: splitmix64.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}

/// What was delivered: all of it as one number, the newest in words.
#[derive(Debug)]
pub(super) struct Trace {
    started: Instant,
    hash: u64,
    tail: VecDeque<Delivery>,
}

#[derive(Debug)]
struct Delivery {
    at: Duration,
    from: IpAddr,
    to: IpAddr,
    connection: u64,
    what: &'static str,
    stream: u64,
    bytes: usize,
}

impl Trace {
    pub(super) fn new(started: Instant) -> Self {
        Self { started, hash: 0, tail: VecDeque::new() }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn note(
        &mut self,
        now: Instant,
        (from, to, connection): (IpAddr, IpAddr, u64),
        (what, stream): (&'static str, u64),
        bytes: &[u8],
    ) {
        let at = now.saturating_duration_since(self.started);
        let place = [at.as_millis() as u64, connection, stream, xxh3_64_with_seed(bytes, 0)];
        for part in place {
            self.hash = xxh3_64_with_seed(&part.to_le_bytes(), self.hash);
        }
        self.hash = xxh3_64_with_seed(what.as_bytes(), self.hash);
        if self.tail.len() == TAIL_MAX {
            self.tail.pop_front();
        }
        let bytes = bytes.len();
        self.tail.push_back(Delivery { at, from, to, connection, what, stream, bytes });
    }

    pub(super) fn tail(&self) -> Vec<String> {
        let line = |delivery: &Delivery| {
            let Delivery { at, from, to, connection, what, stream, bytes } = delivery;
            format!(
                "{:>9.3} {from} → {to} connection {connection} {what} stream {stream} {bytes} B",
                at.as_secs_f64()
            )
        };
        self.tail.iter().map(line).collect()
    }
}
