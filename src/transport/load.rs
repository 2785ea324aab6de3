//! What an endpoint has let in, and how much of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use super::strangers::{Standing, Strangers, network_of};
use crate::clock::Clock;

/// How many strangers and friends an endpoint takes.
#[derive(Debug, Clone)]
pub struct EndpointLimits {
    /// Connections, half-open ones included; more are refused.
    pub connections_max: usize,
    /// Handshakes under way from which on an address must show that it can receive (retry). Less
    /// than what the layer above takes at once, or forged addresses alone could fill it.
    pub unvalidated_max: usize,
    /// Connections of one address, or one IPv6 network, that are not introduced yet. More than
    /// `unvalidated_max`, or forged addresses could shut a true one out; less than what the layer
    /// above takes at once, or one address could.
    pub strangers_per_address_max: usize,
    /// Addresses that many have in common (load balancers, address translation): what one behind them
    /// does is not held against the others, so nothing is counted by these.
    pub proxies: Vec<IpNet>,
}

impl Default for EndpointLimits {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            unvalidated_max: 64,
            strangers_per_address_max: 128,
            proxies: Vec::new(),
        }
    }
}

/// Connections that an endpoint has let in.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) limits: EndpointLimits,
    pub(super) connections: AtomicUsize,
    pub(super) half_open: AtomicUsize,
    strangers: Mutex<Strangers>,
    pub(super) clock: Clock,
}

impl Load {
    pub(super) fn new(limits: EndpointLimits) -> Self {
        Self {
            connections: AtomicUsize::new(0),
            half_open: AtomicUsize::new(0),
            strangers: Mutex::new(Strangers::new(limits.strangers_per_address_max)),
            limits,
            clock: Clock::system(),
        }
    }

    pub(super) fn strangers(&self) -> MutexGuard<'_, Strangers> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom an address is held against; none: nobody, as many have it in common.
    pub(super) fn network(&self, address: SocketAddr) -> Option<IpAddr> {
        let is_shared =
            self.limits.proxies.iter().any(|proxy| proxy.contains(&address.ip().to_canonical()));
        (!is_shared).then(|| network_of(address))
    }

    pub(super) fn standing(&self, address: SocketAddr) -> Standing {
        let network = self.network(address);
        network.map_or(Standing::Welcome, |network| {
            self.strangers().standing(network, self.clock.now())
        })
    }

    /// A place for a connection from there, if there is one.
    pub(super) fn slot(self: &Arc<Self>, address: SocketAddr) -> Option<Slot> {
        let network = self.network(address);
        let max = self.limits.connections_max;
        let taken = self.connections.fetch_add(1, Ordering::Relaxed);
        self.half_open.fetch_add(1, Ordering::Relaxed);
        if let Some(network) = network {
            self.strangers().came(network);
        }
        let load = Arc::clone(self);
        let slot = Slot { load, half_open: true, network, is_stranger: AtomicBool::new(true) };
        // Over the limit the slot is given back by its drop.
        (taken < max).then_some(slot)
    }
}

/// One connection's place under the endpoint's limit, given back on drop.
#[derive(Debug)]
pub(super) struct Slot {
    load: Arc<Load>,
    half_open: bool,
    /// None: one of those behind a proxy.
    network: Option<IpAddr>,
    is_stranger: AtomicBool,
}

impl Slot {
    /// The layer above knows who it is.
    pub(super) fn introduced(&self) {
        if self.is_stranger.swap(false, Ordering::Relaxed)
            && let Some(network) = self.network
        {
            self.load.strangers().is_stranger_no_more(network);
        }
    }

    /// Whom it is held against.
    pub(super) fn network(&self) -> Option<IpAddr> {
        self.network
    }

    /// What came over the connection was wrong.
    pub(super) fn at_fault(&self) {
        if let Some(network) = self.network {
            self.load.strangers().at_fault(network, self.load.clock.now());
        }
    }

    pub(super) fn handshake_done(&mut self) {
        if std::mem::take(&mut self.half_open) {
            self.load.half_open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.handshake_done();
        self.introduced();
        self.load.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
