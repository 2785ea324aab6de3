//! First packets of connections that have not been taken up yet. Pure.
//!
//! The first packet of a connection costs the endpoint ten times what a packet of a known one does
//! (keys, and an answer), and everybody can send one. So they wait here: so many a second go in, the
//! networks that they come from in turn, and one that sends more than its share waits for itself.
//!
//! What follows a first packet from the same address waits behind it and goes in with it, so that
//! nothing overtakes the beginning of its own connection.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use quinn::udp::RecvMeta;
use tokio::time::Instant;

use crate::entropy::HashMap;

/// First packets that go in, in a second: some tenth of a core.
pub(super) const ENTRIES_PER_S: u32 = 4_000;
/// So many go in at once after a while in which nobody waited: what one call of the system hands
/// over.
pub(super) const ENTRIES_AT_ONCE: u32 = 32;
/// Where more wait than may go in: so many at once when the endpoint comes back late to them. Others
/// have waited for it as well.
const LATE_ENTRIES_AT_ONCE: u32 = 8;
/// Datagrams of one network that wait; what it sends beyond is dropped, as a full socket would drop
/// it, and whoever means to come in sends it again.
pub(super) const WAITING_PER_NETWORK_MAX: usize = 256;
/// Bytes that wait, a datagram counted as no less than a first packet has to be: else tiny ones would
/// fill the memory with what is kept beside their bytes.
pub(super) const WAITING_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of a datagram that begins a connection, at least (RFC 9000 §14.1).
pub(super) const FIRST_DATAGRAM_BYTES_MIN: usize = 1_200;

/// A datagram that waits.
#[derive(Debug)]
pub(super) struct Knock {
    pub(super) meta: RecvMeta,
    pub(super) datagram: Box<[u8]>,
    /// It begins a connection; else it follows one that does.
    is_first: bool,
}

/// What is here of an address; never nothing.
#[derive(Debug, Default)]
struct Here {
    waiting: usize,
    entering: usize,
}

fn cost(datagram: &[u8]) -> usize {
    datagram.len().max(FIRST_DATAGRAM_BYTES_MIN)
}

/// Whom an address is held against; none: many that have one in common.
pub(super) type Network = Option<IpAddr>;

/// The first packets that wait.
#[derive(Debug)]
pub(super) struct WaitingRoom {
    /// No network stays with none. The oldest of each is a first packet.
    knocks: HashMap<Network, VecDeque<Knock>>,
    /// What is among them, and among those that enter, of each address.
    addresses: HashMap<SocketAddr, Here>,
    /// Those whose turn has come: first packets, each with what follows it.
    entering: VecDeque<Knock>,
    /// The networks of `knocks`, in the order of their turns.
    turns: VecDeque<Network>,
    bytes: usize,
    /// How long ago the first of those that may go in now could have, at most.
    credit_since: Instant,
    /// Since nobody waited, somebody had to wait for credit.
    is_rush: bool,
}

impl WaitingRoom {
    /// Nobody waits.
    pub(super) fn new(now: Instant) -> Self {
        let credit_since = now.checked_sub(pace() * ENTRIES_AT_ONCE).unwrap_or(now);
        Self {
            knocks: HashMap::default(),
            addresses: HashMap::default(),
            entering: VecDeque::new(),
            turns: VecDeque::new(),
            bytes: 0,
            credit_since,
            is_rush: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.entering.is_empty()
    }

    /// Whether something from this address waits.
    pub(super) fn holds(&self, address: SocketAddr) -> bool {
        self.addresses.contains_key(&address)
    }

    /// A first packet has come, or one from an address that has something here: whether there is
    /// room for it.
    pub(super) fn came(
        &mut self,
        network: Network,
        meta: RecvMeta,
        datagram: &[u8],
        is_first: bool,
    ) -> bool {
        if self.bytes + cost(datagram) > WAITING_BYTES_MAX {
            return false;
        }
        let waits = is_first || self.addresses.get(&meta.addr).is_some_and(|here| here.waiting > 0);
        let ahead = match waits {
            true => self.knocks.get(&network).map_or(0, VecDeque::len),
            false => self.entering.len(),
        };
        if network.is_some() && ahead >= WAITING_PER_NETWORK_MAX {
            return false;
        }
        let meta = RecvMeta { len: datagram.len(), stride: datagram.len(), ..meta };
        let knock = Knock { meta, datagram: datagram.into(), is_first };
        let here = self.addresses.entry(meta.addr).or_default();
        self.bytes += cost(datagram);
        if waits {
            here.waiting += 1;
            if ahead == 0 {
                self.turns.push_back(network);
            }
            self.knocks.entry(network).or_default().push_back(knock);
        } else {
            here.entering += 1;
            self.entering.push_back(knock);
        }
        true
    }

    /// Whose turn it is, if one may go in now.
    pub(super) fn next(&mut self, now: Instant) -> Option<Knock> {
        if self.entering.is_empty() {
            if now >= self.next_entry() {
                self.enter(now);
            } else {
                self.is_rush |= !self.turns.is_empty();
            }
        }
        let knock = self.entering.pop_front()?;
        self.bytes -= cost(&knock.datagram);
        if let Some(here) = self.addresses.get_mut(&knock.meta.addr) {
            here.entering -= 1;
            if here.waiting + here.entering == 0 {
                self.addresses.remove(&knock.meta.addr);
            }
        }
        Some(knock)
    }

    /// One goes in, and with it those that follow directly.
    fn enter(&mut self, now: Instant) {
        let Some(network) = self.turns.pop_front() else { return };
        let Some(knocks) = self.knocks.get_mut(&network) else { return };
        let mut is_next = true;
        while let Some(knock) = knocks.pop_front_if(|knock| is_next || !knock.is_first) {
            is_next = false;
            if let Some(here) = self.addresses.get_mut(&knock.meta.addr) {
                here.waiting -= 1;
                here.entering += 1;
            }
            self.entering.push_back(knock);
        }
        if knocks.is_empty() {
            self.knocks.remove(&network);
        } else {
            self.turns.push_back(network);
        }
        let at_once = if self.is_rush { LATE_ENTRIES_AT_ONCE } else { ENTRIES_AT_ONCE };
        let oldest = now.checked_sub(pace() * at_once).unwrap_or(now);
        self.credit_since = self.credit_since.max(oldest) + pace();
        self.is_rush &= !self.turns.is_empty();
    }

    /// When a first packet may go in again.
    pub(super) fn next_entry(&self) -> Instant {
        self.credit_since + pace()
    }
}

fn pace() -> Duration {
    Duration::from_secs(1) / ENTRIES_PER_S
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn network(number: u32) -> Network {
        Some(IpAddr::V4(number.into()))
    }

    fn come(room: &mut WaitingRoom, number: u32, datagram: &[u8]) -> bool {
        room.came(network(number), from(number, 1), datagram, true)
    }

    fn from(number: u32, port: u16) -> RecvMeta {
        let addr = SocketAddr::new(IpAddr::V4(number.into()), port);
        RecvMeta { addr, ..RecvMeta::default() }
    }

    /// All that go in now, one after the other.
    fn entering(room: &mut WaitingRoom, now: Instant) -> Vec<u8> {
        std::iter::from_fn(|| room.next(now)).flat_map(|knock| knock.datagram.to_vec()).collect()
    }

    #[test]
    fn networks_take_turns() {
        let now = Clock::system().now();
        let mut room = WaitingRoom::new(now);
        for datagram in [b"1a", b"1b", b"1c"] {
            assert!(come(&mut room, 1, datagram));
        }
        assert!(come(&mut room, 2, b"2a"));
        assert_eq!(entering(&mut room, now), b"1a2a1b1c");
        assert!(room.is_empty() && room.knocks.is_empty() && room.addresses.is_empty());
        assert_eq!(room.bytes, 0);
    }

    #[test]
    fn what_follows_goes_in_with_what_it_follows_and_costs_no_turn() {
        let now = Clock::system().now();
        let mut room = WaitingRoom::new(now);
        for number in 0..ENTRIES_AT_ONCE {
            assert!(come(&mut room, number, b"-"));
        }
        assert_eq!(entering(&mut room, now).len(), ENTRIES_AT_ONCE as usize);
        let follow = |room: &mut WaitingRoom, port, datagram: &[u8]| {
            assert!(room.holds(from(1, port).addr));
            assert!(room.came(network(1), from(1, port), datagram, false));
        };
        assert!(room.came(network(1), from(1, 1), b"a", true));
        assert!(room.came(network(1), from(1, 2), b"b", true));
        assert!(!room.holds(from(1, 3).addr));
        follow(&mut room, 1, b"A");
        follow(&mut room, 2, b"B");
        assert_eq!(entering(&mut room, now), b"", "nothing overtakes");
        let later = room.next_entry();
        assert_eq!(&*room.next(later).unwrap().datagram, b"a");
        assert_eq!(entering(&mut room, later), b"");
        let later = room.next_entry();
        assert_eq!(&*room.next(later).unwrap().datagram, b"b");
        // The others are on their way, and so is what comes now.
        follow(&mut room, 2, b"C");
        assert_eq!(entering(&mut room, later), b"ABC");
        assert!(!room.holds(from(1, 2).addr));
        assert!(room.is_empty() && room.addresses.is_empty());
        assert_eq!(room.bytes, 0);
    }

    #[test]
    fn so_many_go_in_at_once_and_so_many_a_second() {
        let now = Clock::system().now();
        let mut room = WaitingRoom::new(now);
        let entered = |room: &mut WaitingRoom, now| {
            while come(room, 1, b"x") {}
            std::iter::from_fn(|| room.next(now)).count()
        };
        assert_eq!(entered(&mut room, now), ENTRIES_AT_ONCE as usize);
        assert_eq!(entered(&mut room, now), 0);
        assert!(room.next_entry() > now);
        let next = room.next_entry();
        assert_eq!(entered(&mut room, next), 1);
        // Whoever looks each millisecond lets in as many in a second as it should.
        let ms = |ms| next + Duration::from_millis(ms);
        let second: usize = (1..=1_000).map(|at| entered(&mut room, ms(at))).sum();
        assert_eq!(second, ENTRIES_PER_S as usize);
        // No more is saved up: less by those who wait than by nobody.
        assert_eq!(entered(&mut room, ms(60_000)), LATE_ENTRIES_AT_ONCE as usize);
        let all_in = ms(61_000 + 1_000 * u64::from(ENTRIES_PER_S));
        let mut at = ms(60_000);
        while !room.is_empty() && at < all_in {
            at += pace();
            entering(&mut room, at);
        }
        assert_eq!(entered(&mut room, all_in), ENTRIES_AT_ONCE as usize);
    }

    /// However small they are, and whether they wait or only follow.
    #[test]
    fn tiny_datagrams_are_as_few_as_others() {
        let now = Clock::system().now();
        let mut room = WaitingRoom::new(now);
        let most = WAITING_BYTES_MAX / FIRST_DATAGRAM_BYTES_MIN;
        assert_eq!((0..100_000).filter(|number| come(&mut room, *number, b"x")).count(), most);
        let mut room = WaitingRoom::new(now);
        assert!(come(&mut room, 1, b"x") && come(&mut room, 1, b"y"));
        assert!(room.came(network(1), from(1, 2), b"z", true));
        assert!(room.next(now).is_some() && room.next(now).is_some());
        // Of what has gone in; nothing of it waits any more.
        assert!(room.came(network(1), from(1, 2), b"f", false));
        assert!(room.next(now).is_some());
        let follow = |room: &mut WaitingRoom| room.came(network(1), from(1, 2), b"f", false);
        assert_eq!((0..10_000).filter(|_| follow(&mut room)).count(), WAITING_PER_NETWORK_MAX - 1);
    }

    #[test]
    fn one_network_fills_its_share_and_all_of_them_the_room() {
        let now = Clock::system().now();
        let mut room = WaitingRoom::new(now);
        let taken = (0..2 * WAITING_PER_NETWORK_MAX).filter(|_| come(&mut room, 1, b"x")).count();
        assert_eq!(taken, WAITING_PER_NETWORK_MAX);
        assert!(come(&mut room, 2, b"x"));
        // Those behind a proxy are many.
        for _ in 0..2 * WAITING_PER_NETWORK_MAX {
            assert!(room.came(None, from(u32::MAX, 1), b"x", true));
        }
        let datagram = [0; 1_200];
        let taken = (3..10_000).filter(|number| come(&mut room, *number, &datagram)).count();
        assert!((900..1_000).contains(&taken), "{taken}");
        assert!(room.bytes <= WAITING_BYTES_MAX);
        assert_eq!(room.turns.len(), room.knocks.len());
        // Whoever was turned away left nothing behind.
        let waiting: usize = room.knocks.values().map(VecDeque::len).sum();
        assert_eq!(waiting, taken + 3 * WAITING_PER_NETWORK_MAX + 1);
    }
}
