//! What an endpoint knows of the addresses that connections come from: how many of each are not
//! introduced yet, and how often those that came from it were at fault. Pure.
//!
//! A fault is what a client or peer does wrong once it has shown that the address is its own, so
//! that nobody can bring another into disrepute. Each handshake costs the node some hundred
//! microseconds that its other clients wait for; an address that spends them on garbage gets as many
//! as its faults are forgiven, and the rest are turned away at their first packet.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use crate::entropy::HashMap;

/// Faults of one address from which on it is turned away.
pub(super) const FAULTS_MAX: u32 = 64;
/// Faults that are forgiven in a second.
pub(super) const FAULTS_FORGIVEN_PER_S: u32 = 8;
/// Strangers that are told in a second that they are turned away; the others hear nothing, as an
/// answer to each would cost as much as what it is to spare.
const TOLD_PER_S: u32 = 256;
/// Addresses whose faults are remembered; those of others are not while all of these are fresh.
const FAULTY_ADDRESSES_MAX: usize = 4_096;

const SECOND: Duration = Duration::from_secs(1);

/// How an address stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Another connection of it may come in.
    Welcome,
    /// It has as many strangers here as it may.
    Crowded,
    /// Too many that came from it were at fault of late.
    Barred,
}

/// The addresses.
#[derive(Debug)]
pub(super) struct Strangers {
    per_address_max: usize,
    /// Connections that are not introduced yet; no address stays with none.
    open: HashMap<IpAddr, usize>,
    faults: HashMap<IpAddr, Faults>,
    /// How many were told since then, within a second.
    told: Option<(Instant, u32)>,
}

/// The faults that were not forgiven at a time.
#[derive(Debug, Clone, Copy)]
struct Faults {
    count: f64,
    at: Instant,
}

impl Faults {
    fn now(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.count - passed * f64::from(FAULTS_FORGIVEN_PER_S)).max(0.0)
    }
}

impl Strangers {
    /// An endpoint that nobody has come to.
    pub(super) fn new(per_address_max: usize) -> Self {
        Self { per_address_max, open: HashMap::default(), faults: HashMap::default(), told: None }
    }

    /// How an address stands now.
    pub(super) fn standing(&self, network: IpAddr, now: Instant) -> Standing {
        let faults = self.faults.get(&network).map_or(0.0, |faults| faults.now(now));
        let open = self.open.get(&network).copied().unwrap_or(0);
        // Where there were faults, those that may still be at fault count as if they were: else as
        // many as come at once would come in for each that is forgiven.
        if faults > 0.0 && faults + open as f64 > f64::from(FAULTS_MAX) - 1.0 {
            Standing::Barred
        } else if open >= self.per_address_max {
            Standing::Crowded
        } else {
            Standing::Welcome
        }
    }

    /// One is turned away: whether it is told.
    pub(super) fn tells(&mut self, now: Instant) -> bool {
        let (since, told) =
            self.told.filter(|(since, _)| now < *since + SECOND).unwrap_or((now, 0));
        self.told = Some((since, told.saturating_add(1)));
        told < TOLD_PER_S
    }

    /// A connection of this address has come.
    pub(super) fn came(&mut self, network: IpAddr) {
        *self.open.entry(network).or_default() += 1;
    }

    /// One that has come is introduced, or gone.
    pub(super) fn is_stranger_no_more(&mut self, network: IpAddr) {
        if let Some(open) = self.open.get_mut(&network) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                self.open.remove(&network);
            }
        }
    }

    /// One of this address was at fault.
    pub(super) fn at_fault(&mut self, network: IpAddr, now: Instant) {
        if self.faults.len() >= FAULTY_ADDRESSES_MAX && !self.faults.contains_key(&network) {
            self.faults.retain(|_, faults| faults.now(now) > 0.0);
            if self.faults.len() >= FAULTY_ADDRESSES_MAX {
                return;
            }
        }
        let faults = self.faults.entry(network).or_insert(Faults { count: 0.0, at: now });
        let count = (faults.now(now) + 1.0).min(f64::from(FAULTS_MAX));
        *faults = Faults { count, at: now };
    }
}

/// Whom an address is held against: itself, or in IPv6 the network of 2^64 that it is one of.
pub(super) fn network_of(address: SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn network(address: &str) -> IpAddr {
        network_of(SocketAddr::new(address.parse().unwrap(), 1))
    }

    #[test]
    fn addresses_that_one_host_can_have_many_of_are_one() {
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), network("2001:db8:1:2::9"));
        assert_ne!(network("2001:db8:1:2::9"), network("2001:db8:1:3::9"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
        assert_ne!(network("10.0.0.1"), network("10.0.0.2"));
    }

    #[test]
    fn an_address_is_crowded_until_one_of_it_is_introduced_or_gone() {
        let now = Clock::system().now();
        let (here, there) = (network("10.0.0.1"), network("10.0.0.2"));
        let mut strangers = Strangers::new(2);
        strangers.came(here);
        assert_eq!(strangers.standing(here, now), Standing::Welcome);
        strangers.came(here);
        assert_eq!(strangers.standing(here, now), Standing::Crowded);
        assert_eq!(strangers.standing(there, now), Standing::Welcome);
        strangers.is_stranger_no_more(here);
        assert_eq!(strangers.standing(here, now), Standing::Welcome);
        strangers.is_stranger_no_more(here);
        assert!(strangers.open.is_empty());
    }

    #[test]
    fn faults_bar_an_address_and_are_forgiven() {
        let now = Clock::system().now();
        let (here, there) = (network("10.0.0.1"), network("10.0.0.2"));
        let mut strangers = Strangers::new(2);
        for _ in 0..FAULTS_MAX {
            assert_eq!(strangers.standing(here, now), Standing::Welcome);
            strangers.at_fault(here, now);
        }
        assert_eq!(strangers.standing(here, now), Standing::Barred);
        assert_eq!(strangers.standing(there, now), Standing::Welcome);
        let later = |ms| now + Duration::from_millis(ms);
        assert_eq!(strangers.standing(here, later(10)), Standing::Barred);
        // One is forgiven, and one more may try.
        assert_eq!(strangers.standing(here, later(130)), Standing::Welcome);
        strangers.came(here);
        assert_eq!(strangers.standing(here, later(130)), Standing::Barred);
        strangers.is_stranger_no_more(here);
        assert_eq!(strangers.standing(here, later(130)), Standing::Welcome);
        strangers.at_fault(here, later(130));
        assert_eq!(strangers.standing(here, later(130)), Standing::Barred);
        // However long it went on, all is forgiven as soon as ever.
        for _ in 0..10_000 {
            strangers.at_fault(here, now);
        }
        let all_ms = u64::from(FAULTS_MAX) * 1_000 / u64::from(FAULTS_FORGIVEN_PER_S);
        assert_eq!(strangers.faults[&here].now(later(all_ms)), 0.0);
    }

    #[test]
    fn so_many_are_told_in_a_second() {
        let now = Clock::system().now();
        let mut strangers = Strangers::new(2);
        let told = (0..2 * TOLD_PER_S).filter(|_| strangers.tells(now)).count();
        assert_eq!(told, TOLD_PER_S as usize);
        assert!(!strangers.tells(now + Duration::from_millis(999)));
        assert!(strangers.tells(now + SECOND));
    }

    #[test]
    fn the_faults_of_so_many_addresses_are_remembered() {
        let now = Clock::system().now();
        let mut strangers = Strangers::new(2);
        let address = |number: u32| IpAddr::V4(number.into());
        for number in 0..2 * FAULTY_ADDRESSES_MAX as u32 {
            strangers.at_fault(address(number), now);
        }
        assert_eq!(strangers.faults.len(), FAULTY_ADDRESSES_MAX);
        // Those that are forgiven make room.
        let later = now + Duration::from_secs(60);
        strangers.at_fault(address(u32::MAX), later);
        assert_eq!(strangers.faults.len(), 1);
    }
}
