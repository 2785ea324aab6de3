//! What `transport/` holds of a simulated network: an endpoint's socket, one end of a connection.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::Network;
use super::halves::{ReceiveHalf, SendHalf};
use super::stream::{Direction, wait};
use super::world::{Caller, Connection, Listener, Load, Pair, Side, Sort, Standing, World};
use crate::host::Host;
use crate::transport::connection::CloseCode;
use crate::transport::error::Closed;
use crate::transport::profile::Edge;

/// The first port that is given out where any will do.
const PORT_FIRST: u16 = 40_000;
/// TLS's number for a certificate that does not fit.
const BAD_CERTIFICATE: u8 = 42;
/// How long farewells are on their way.
const FAREWELL: Duration = Duration::from_millis(5);

/// A socket; clones are the same one.
#[derive(Clone)]
pub(in crate::transport) struct Socket {
    bound: Arc<Bound>,
}

struct Bound {
    network: Network,
    address: SocketAddr,
    number: u64,
    host: Option<Host>,
}

/// A connection that was dialled and may not be there yet.
pub(in crate::transport) struct Dialed {
    end: End,
}

/// Somebody knocks.
#[derive(Debug)]
pub(in crate::transport) struct Incoming {
    end: End,
}

/// One end of a connection; clones are the same end.
#[derive(Clone)]
pub(in crate::transport) struct End {
    pub(super) held: Arc<Held>,
}

/// Ends the connection when it is dropped.
pub(super) struct Held {
    pub(super) network: Network,
    pub(super) id: u64,
    pub(super) side: Side,
}

impl Socket {
    /// Takes an address of the host that the caller is on; none if it is taken.
    pub(in crate::transport) fn bind(
        network: &Network,
        mut address: SocketAddr,
        edge: Edge,
        names: Option<Vec<String>>,
    ) -> Option<Self> {
        let host = Host::current();
        if let Some(host) = &host
            && (address.ip().is_unspecified() || address.ip().is_loopback())
        {
            address.set_ip(host.address());
        }
        let (address, number) = network.with(|world| {
            if address.port() == 0 {
                let free = |port: &u16| {
                    !world.endpoints.contains_key(&SocketAddr::new(address.ip(), *port))
                };
                address.set_port((PORT_FIRST..u16::MAX).find(free)?);
            }
            if world.endpoints.contains_key(&address) {
                return None;
            }
            let number = world.number();
            let listener = Listener {
                number,
                edge,
                host: host.clone(),
                listens: names.is_some(),
                names: names.unwrap_or_default(),
                incoming: std::collections::VecDeque::new(),
                wakers: Vec::new(),
            };
            world.endpoints.insert(address, listener);
            Some((address, number))
        })?;
        let bound = Bound { network: network.clone(), address, number, host };
        Some(Self { bound: Arc::new(bound) })
    }

    pub(in crate::transport) fn address(&self) -> SocketAddr {
        self.bound.address
    }

    /// The next dial; none once the socket is closed. Cancel-safe.
    pub(in crate::transport) async fn accept(&self) -> Option<Incoming> {
        poll_fn(|context| {
            self.bound.network.with(|world| {
                let Some(listener) = self.bound.listener(world) else { return Poll::Ready(None) };
                let Some(id) = listener.incoming.pop_front() else {
                    wait(&mut listener.wakers, context.waker());
                    return Poll::Pending;
                };
                Poll::Ready(Some(Incoming { end: self.bound.end(id, Side::Acceptor) }))
            })
        })
        .await
    }

    /// Dials; `names` is what the certificate says that is shown.
    pub(in crate::transport) fn dial(
        &self,
        to: SocketAddr,
        edge: Edge,
        names: Vec<String>,
        server_name: &str,
    ) -> Option<Dialed> {
        let Bound { network, address, number, host } = &*self.bound;
        let id = network.with(|world| {
            self.bound.listener(world)?;
            let (host, names) = (host.clone(), names);
            let caller = Caller { host, address: *address, endpoint: *number, names };
            Some(world.dial(caller, edge, to, server_name))
        })?;
        Some(Dialed { end: self.bound.end(id, Side::Dialer) })
    }

    /// Closes every connection of this socket, and the socket.
    pub(in crate::transport) fn close(&self, code: CloseCode, reason: &str) {
        let Bound { network, address, number, .. } = &*self.bound;
        network.with(|world| {
            if self.bound.listener(world).is_none() {
                return;
            }
            let of = |connection: &Connection, side| {
                let party = connection.parties.of(side);
                party.endpoint == *number
            };
            let ends: Vec<(u64, Side)> = world
                .connections
                .iter()
                .flat_map(|(id, connection)| {
                    let sides = [Side::Dialer, Side::Acceptor].into_iter();
                    sides.filter(|side| of(connection, *side)).map(|side| (*id, side))
                })
                .collect();
            for (id, side) in ends {
                world.close(id, side, code, reason);
            }
            if let Some(mut listener) = world.endpoints.remove(address) {
                world.to_wake.append(&mut listener.wakers);
            }
        });
    }

    pub(in crate::transport) fn stop_listening(&self) {
        self.bound.network.with(|world| {
            if let Some(listener) = self.bound.listener(world) {
                listener.listens = false;
            }
        });
    }

    pub(in crate::transport) async fn drained(&self) {
        tokio::time::sleep(FAREWELL).await;
    }
}

impl Bound {
    fn listener<'a>(&self, world: &'a mut World) -> Option<&'a mut Listener> {
        world.endpoints.get_mut(&self.address).filter(|listener| listener.number == self.number)
    }

    fn end(&self, id: u64, side: Side) -> End {
        End { held: Arc::new(Held { network: self.network.clone(), id, side }) }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.network.with(|world| {
            if self.listener(world).is_some() {
                world.endpoints.remove(&self.address);
            }
        });
    }
}

impl Dialed {
    /// Waits for the end of the handshake. Dropping it gives up.
    pub(in crate::transport) async fn established(self) -> Result<End, Closed> {
        self.end.opened().await?;
        Ok(self.end)
    }
}

impl Incoming {
    pub(in crate::transport) fn remote(&self) -> SocketAddr {
        self.end.remote()
    }

    /// Turns the dial away.
    pub(in crate::transport) fn refuse(self) {
        self.end.refuse(Closed::Refused);
    }

    /// Runs the handshake.
    pub(in crate::transport) async fn complete(self) -> Result<End, Closed> {
        let fits = self.end.with(|_, connection, _| {
            let Pair { dialer, acceptor } = &connection.parties;
            let name = &connection.server_name;
            // What is no name is an address, of which certificates are not asked here.
            let known = name.parse::<std::net::IpAddr>().is_ok()
                || dialer.released
                || acceptor.names.contains(name);
            known
                && (connection.edge == Edge::Client || !dialer.names.is_empty() || dialer.released)
        });
        if fits != Some(true) {
            let reason = "the certificate does not fit".to_owned();
            let closed = Closed::Tls { alert: BAD_CERTIFICATE, reason };
            self.end.refuse(closed.clone());
            return Err(closed);
        }
        let Held { network, id, .. } = &*self.end.held;
        network.with(|world| world.post(*id, Side::Dialer, Load::Accepted));
        self.end.opened().await?;
        Ok(self.end)
    }
}

impl End {
    /// Looks at the connection, if it is not forgotten.
    pub(super) fn with<T>(
        &self,
        look: impl FnOnce(&mut Vec<Waker>, &mut Connection, Side) -> T,
    ) -> Option<T> {
        let Held { network, id, side } = &*self.held;
        network.with(|world| {
            let World { connections, to_wake, .. } = world;
            connections.get_mut(id).map(|connection| look(to_wake, connection, *side))
        })
    }

    /// Waits until the handshake is over.
    async fn opened(&self) -> Result<(), Closed> {
        self.poll(|party_is| match party_is {
            Standing::Handshake => None,
            Standing::Open => Some(Ok(())),
            Standing::Over(closed) => Some(Err(closed.clone())),
        })
        .await
    }

    /// Waits until the standing of this end gives an answer.
    async fn poll<T>(&self, mut answer: impl FnMut(&Standing) -> Option<T>) -> T {
        poll_fn(|context| {
            let polled = self.with(|_, connection, side| {
                let party = connection.parties.of_mut(side);
                let answered = answer(&party.standing);
                if answered.is_none() {
                    wait(&mut party.wakers, context.waker());
                }
                answered
            });
            match polled.unwrap_or_else(|| answer(&Standing::Over(Closed::Here))) {
                Some(answered) => Poll::Ready(answered),
                None => Poll::Pending,
            }
        })
        .await
    }

    fn refuse(&self, closed: Closed) {
        let Held { network, id, side } = &*self.held;
        network.with(|world| {
            world.end(*id, *side, Closed::Here);
            world.post(*id, side.other(), Load::Refused(closed));
        });
    }

    pub(in crate::transport) fn remote(&self) -> SocketAddr {
        let remote = self.with(|_, connection, side| connection.parties.of(side.other()).address);
        remote.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// The names in the certificate that the other side showed.
    #[cfg(feature = "server")]
    pub(in crate::transport) fn certificate_names(&self) -> Vec<String> {
        let names =
            self.with(|_, connection, side| connection.parties.of(side.other()).names.clone());
        names.unwrap_or_default()
    }

    async fn open(&self, sort: Sort) -> Result<u64, Closed> {
        poll_fn(|context| {
            let opened = self.with(|_, connection, side| {
                let permitted = *connection.parties.of_mut(side.other()).permits.of(sort);
                let party = connection.parties.of_mut(side);
                if let Standing::Over(closed) = &party.standing {
                    return Some(Err(closed.clone()));
                }
                if *party.open.of(sort) >= permitted {
                    wait(&mut party.wakers, context.waker());
                    return None;
                }
                *party.open.of(sort) += 1;
                let bits =
                    u64::from(side == Side::Acceptor) | (u64::from(sort == Sort::OneWay) << 1);
                let stream = (connection.next_stream << 2) | bits;
                connection.next_stream += 1;
                let mut directions = Pair::<Direction>::default();
                directions.of_mut(side).exists = true;
                directions.of_mut(side).sender.held = true;
                let back = directions.of_mut(side.other());
                back.exists = sort == Sort::TwoWay;
                back.announced = true;
                back.receiver.held = back.exists;
                connection.streams.insert(stream, directions);
                Some(Ok(stream))
            });
            match opened {
                None => Poll::Ready(Err(Closed::Here)),
                Some(None) => Poll::Pending,
                Some(Some(stream)) => Poll::Ready(stream),
            }
        })
        .await
    }

    async fn arrived(&self, sort: Sort) -> Result<u64, Closed> {
        poll_fn(|context| {
            let arrived = self.with(|_, connection, side| {
                let party = connection.parties.of_mut(side);
                let Some(stream) = party.arrived.of(sort).pop_front() else {
                    if let Standing::Over(closed) = &party.standing {
                        return Some(Err(closed.clone()));
                    }
                    wait(&mut party.wakers, context.waker());
                    return None;
                };
                if let Some(directions) = connection.streams.get_mut(&stream) {
                    directions.of_mut(side.other()).receiver.held = true;
                    let back = directions.of_mut(side);
                    back.sender.held = back.exists;
                }
                Some(Ok(stream))
            });
            match arrived {
                None => Poll::Ready(Err(Closed::Here)),
                Some(None) => Poll::Pending,
                Some(Some(stream)) => Poll::Ready(stream),
            }
        })
        .await
    }

    pub(in crate::transport) async fn open_two_way(
        &self,
    ) -> Result<(SendHalf, ReceiveHalf), Closed> {
        let stream = self.open(Sort::TwoWay).await?;
        Ok((SendHalf::new(self, stream), ReceiveHalf::new(self, stream)))
    }

    pub(in crate::transport) async fn open_one_way(&self) -> Result<SendHalf, Closed> {
        Ok(SendHalf::new(self, self.open(Sort::OneWay).await?))
    }

    pub(in crate::transport) async fn accept_two_way(
        &self,
    ) -> Result<(SendHalf, ReceiveHalf), Closed> {
        let stream = self.arrived(Sort::TwoWay).await?;
        Ok((SendHalf::new(self, stream), ReceiveHalf::new(self, stream)))
    }

    pub(in crate::transport) async fn accept_one_way(&self) -> Result<ReceiveHalf, Closed> {
        Ok(ReceiveHalf::new(self, self.arrived(Sort::OneWay).await?))
    }

    pub(in crate::transport) fn close(&self, code: CloseCode, reason: &str) {
        let Held { network, id, side } = &*self.held;
        network.with(|world| world.close(*id, *side, code, reason));
    }

    pub(in crate::transport) async fn closed(&self) -> Closed {
        self.poll(over).await
    }

    pub(in crate::transport) fn close_reason(&self) -> Option<Closed> {
        let reason = self.with(|_, connection, side| over(&connection.parties.of(side).standing));
        reason.unwrap_or(Some(Closed::Here))
    }

    pub(in crate::transport) fn number(&self) -> usize {
        let side = usize::from(self.held.side == Side::Acceptor);
        usize::try_from(self.held.id).unwrap_or(usize::MAX / 2) * 2 + side
    }

    pub(in crate::transport) fn permit_streams(&self, count: u32) {
        self.with(|to_wake, connection, side| {
            let party = connection.parties.of_mut(side);
            *party.permits.of(Sort::TwoWay) = count;
            *party.permits.of(Sort::OneWay) = count;
            to_wake.append(&mut connection.parties.of_mut(side.other()).wakers);
        });
    }
}

fn over(standing: &Standing) -> Option<Closed> {
    match standing {
        Standing::Over(closed) => Some(closed.clone()),
        Standing::Handshake | Standing::Open => None,
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.network.with(|world| world.release(self.id, self.side));
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Socket({})", self.bound.address)
    }
}

impl fmt::Debug for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "End({} {:?})", self.held.id, self.held.side)
    }
}
