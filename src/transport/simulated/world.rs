//! Endpoints, connections, and the parcels that are on their way.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::task::Waker;

use tokio::time::Instant;

use super::stream::{Direction, Segment};
use super::weather::{Sky, Trace, Weather};
use crate::host::Host;
use crate::transport::connection::CloseCode;
use crate::transport::error::Closed;
use crate::transport::profile::{
    CLIENT_IDLE_TIMEOUT, CLIENT_RECEIVE_WINDOW_BYTES, CLIENT_SEND_WINDOW_BYTES,
    CLIENT_STREAM_WINDOW_BYTES, CLIENT_STREAMS_MAX, Edge, PEER_IDLE_TIMEOUT,
    PEER_RECEIVE_WINDOW_BYTES, PEER_SEND_WINDOW_BYTES, PEER_STREAM_WINDOW_BYTES, PEER_STREAMS_MAX,
    SERVER_STREAMS_MAX,
};

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Dialer,
    Acceptor,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Acceptor,
            Self::Acceptor => Self::Dialer,
        }
    }
}

/// Something for each side.
#[derive(Debug, Default)]
pub(super) struct Pair<T> {
    pub(super) dialer: T,
    pub(super) acceptor: T,
}

impl<T> Pair<T> {
    pub(super) fn of(&self, side: Side) -> &T {
        match side {
            Side::Dialer => &self.dialer,
            Side::Acceptor => &self.acceptor,
        }
    }

    pub(super) fn of_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::Dialer => &mut self.dialer,
            Side::Acceptor => &mut self.acceptor,
        }
    }
}

/// A sort of stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    TwoWay,
    OneWay,
}

/// A number for each sort of stream.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PerSort<T> {
    two_way: T,
    one_way: T,
}

impl<T> PerSort<T> {
    pub(super) fn of(&mut self, sort: Sort) -> &mut T {
        match sort {
            Sort::TwoWay => &mut self.two_way,
            Sort::OneWay => &mut self.one_way,
        }
    }
}

/// One endpoint, by its address.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) number: u64,
    pub(super) edge: Edge,
    pub(super) host: Option<Host>,
    pub(super) names: Vec<String>,
    pub(super) listens: bool,
    /// Dials that nobody has accepted yet.
    pub(super) incoming: VecDeque<u64>,
    pub(super) wakers: Vec<Waker>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    Handshake,
    Open,
    Over(Closed),
}

/// What one end of a connection knows.
#[derive(Debug)]
pub(super) struct Party {
    pub(super) host: Option<Host>,
    pub(super) address: SocketAddr,
    pub(super) endpoint: u64,
    pub(super) names: Vec<String>,
    pub(super) standing: Standing,
    /// What it said when it closed.
    pub(super) farewell: Option<(CloseCode, String)>,
    /// Nothing holds it any more.
    pub(super) released: bool,
    pub(super) heard: Instant,
    /// Streams that it opened and that are not over.
    pub(super) open: PerSort<u32>,
    /// Streams that the other side may have open.
    pub(super) permits: PerSort<u32>,
    /// Sent bytes for which no credit has come back.
    pub(super) unread: usize,
    /// Streams that the other side opened and nobody has accepted yet.
    pub(super) arrived: PerSort<VecDeque<u64>>,
    pub(super) wakers: Vec<Waker>,
}

/// Who dials.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) host: Option<Host>,
    pub(super) address: SocketAddr,
    pub(super) endpoint: u64,
    pub(super) names: Vec<String>,
}

impl Party {
    fn new(caller: Caller, permitted: u32) -> Self {
        let Caller { host, address, endpoint, names } = caller;
        Self {
            host,
            address,
            endpoint,
            names,
            standing: Standing::Handshake,
            farewell: None,
            released: false,
            heard: super::now(),
            open: PerSort::default(),
            permits: PerSort { two_way: permitted, one_way: permitted },
            unread: 0,
            arrived: PerSort::default(),
            wakers: Vec::new(),
        }
    }
}

/// A connection, from the dial until both ends are gone.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) edge: Edge,
    pub(super) server_name: String,
    pub(super) parties: Pair<Party>,
    /// Directions by the side that sends.
    pub(super) streams: BTreeMap<u64, Pair<Direction>>,
    pub(super) next_stream: u64,
}

/// Something on its way to one end of a connection.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) connection: u64,
    pub(super) towards: Side,
    pub(super) load: Load,
}

#[derive(Debug)]
pub(super) enum Load {
    Dial {
        again: bool,
    },
    Accepted,
    Refused(Closed),
    Established,
    /// The next segment of a stream.
    Segment(u64),
    Credit(u64, usize),
    StreamOver(Sort),
    Acknowledged(u64),
    Stop(u64, CloseCode),
    Close(CloseCode, String),
    /// The other side knows nothing of this connection.
    Forgotten,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) sky: Sky,
    pub(super) trace: Trace,
    pub(super) endpoints: BTreeMap<SocketAddr, Listener>,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) queue: BTreeMap<(Instant, u64), Parcel>,
    /// Waiting at a cut.
    pub(super) stalled: Vec<Parcel>,
    numbers: u64,
    pub(super) to_wake: Vec<Waker>,
    /// Something was posted that may be due before everything else.
    pub(super) posted: bool,
}

/// Unread bytes of one stream.
pub(super) fn stream_window(edge: Edge) -> usize {
    match edge {
        Edge::Client => CLIENT_STREAM_WINDOW_BYTES as usize,
        Edge::Peer => PEER_STREAM_WINDOW_BYTES as usize,
    }
}

/// Unread bytes of one direction of a connection.
pub(super) fn connection_window(edge: Edge) -> usize {
    match edge {
        Edge::Client => CLIENT_RECEIVE_WINDOW_BYTES.min(CLIENT_SEND_WINDOW_BYTES as u32) as usize,
        Edge::Peer => PEER_RECEIVE_WINDOW_BYTES.min(PEER_SEND_WINDOW_BYTES as u32) as usize,
    }
}

impl World {
    pub(super) fn new(seed: u64, weather: Weather) -> Self {
        Self {
            sky: Sky::new(seed, weather),
            trace: Trace::new(super::now()),
            endpoints: BTreeMap::new(),
            connections: BTreeMap::new(),
            queue: BTreeMap::new(),
            stalled: Vec::new(),
            numbers: 0,
            to_wake: Vec::new(),
            posted: false,
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Puts a parcel on its way.
    pub(super) fn post(&mut self, connection: u64, towards: Side, load: Load) {
        let due = super::now() + self.sky.way();
        self.post_at(due, Parcel { connection, towards, load });
    }

    pub(super) fn post_at(&mut self, due: Instant, parcel: Parcel) {
        let number = self.number();
        self.queue.insert((due, number), parcel);
        self.posted = true;
    }

    /// Starts a connection and sends its dial.
    pub(super) fn dial(
        &mut self,
        dialer: Caller,
        edge: Edge,
        to: SocketAddr,
        server_name: &str,
    ) -> u64 {
        let id = self.connect(dialer, edge, to, server_name);
        self.post(id, Side::Acceptor, Load::Dial { again: false });
        let chance = self.sky.weather.duplication;
        if self.sky.happens(chance) {
            self.sky.counts.duplicated += 1;
            self.post(id, Side::Acceptor, Load::Dial { again: true });
        }
        id
    }

    /// A dial from `dialer` of which that knows nothing.
    pub(super) fn dial_from_nobody(
        &mut self,
        dialer: SocketAddr,
        edge: Edge,
        to: SocketAddr,
    ) -> u64 {
        let caller = Caller { host: None, address: dialer, endpoint: 0, names: Vec::new() };
        let id = self.connect(caller, edge, to, "");
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.parties.dialer.standing = Standing::Over(Closed::Here);
            connection.parties.dialer.released = true;
        }
        id
    }

    fn connect(&mut self, dialer: Caller, edge: Edge, to: SocketAddr, server_name: &str) -> u64 {
        let id = self.number();
        let acceptor = Caller { host: None, address: to, endpoint: 0, names: Vec::new() };
        let (by_dialer, by_acceptor) = match edge {
            Edge::Client => (SERVER_STREAMS_MAX, CLIENT_STREAMS_MAX),
            Edge::Peer => (PEER_STREAMS_MAX, PEER_STREAMS_MAX),
        };
        let parties = Pair {
            dialer: Party::new(dialer, by_dialer),
            acceptor: Party::new(acceptor, by_acceptor),
        };
        let connection = Connection {
            edge,
            server_name: server_name.to_owned(),
            parties,
            streams: BTreeMap::new(),
            next_stream: 0,
        };
        self.connections.insert(id, connection);
        id
    }

    /// Ends one end of a connection and wakes everyone who waits for it.
    pub(super) fn end(&mut self, id: u64, side: Side, closed: Closed) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let party = connection.parties.of_mut(side);
        if matches!(party.standing, Standing::Over(_)) {
            return;
        }
        party.standing = Standing::Over(closed);
        self.to_wake.append(&mut party.wakers);
        for directions in connection.streams.values_mut() {
            self.to_wake.append(&mut directions.of_mut(side).writers);
            self.to_wake.append(&mut directions.of_mut(side.other()).readers);
        }
    }

    /// Ends one end with a word to the other.
    pub(super) fn close(&mut self, id: u64, side: Side, code: CloseCode, reason: &str) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let party = connection.parties.of_mut(side);
        if matches!(party.standing, Standing::Over(_)) {
            return;
        }
        party.farewell = Some((code, reason.to_owned()));
        self.end(id, side, Closed::Here);
        self.post(id, side.other(), Load::Close(code, reason.to_owned()));
    }

    /// Nothing holds this end any more: it is closed if it was not, and forgotten with the other.
    pub(super) fn release(&mut self, id: u64, side: Side) {
        self.close(id, side, CloseCode(0), "");
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.parties.of_mut(side).released = true;
        if connection.parties.of(side.other()).released {
            self.connections.remove(&id);
        }
    }

    /// Sends what a stream is to bring next.
    pub(super) fn send(&mut self, id: u64, side: Side, stream: u64, segment: Segment) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(directions) = connection.streams.get_mut(&stream) else { return };
        directions.of_mut(side).way.push_back(segment);
        self.post(id, side.other(), Load::Segment(stream));
    }

    pub(super) fn heal(&mut self, now: Instant) {
        self.sky.heal();
        for parcel in std::mem::take(&mut self.stalled) {
            // QUIC tries again less and less often while nothing is answered.
            let late = std::time::Duration::from_millis(self.sky.repetition());
            let due = now + self.sky.way() + late;
            self.post_at(due, parcel);
        }
    }

    /// Forgets all that a host held.
    pub(super) fn unplug(&mut self, host: IpAddr) {
        self.endpoints.retain(|address, _| address.ip() != host);
        let held: Vec<(u64, Side)> = self
            .connections
            .iter()
            .flat_map(|(id, connection)| {
                [Side::Dialer, Side::Acceptor]
                    .into_iter()
                    .filter(|side| connection.parties.of(*side).address.ip() == host)
                    .map(|side| (*id, side))
            })
            .collect();
        for (id, side) in held {
            self.end(id, side, Closed::Here);
        }
    }

    /// Ends the connections on which nothing was heard for too long. A side that is quiet but there
    /// is heard all the same: it keeps the connection alive, or acknowledges what does.
    pub(super) fn end_silent(&mut self, now: Instant) {
        let mut silent = Vec::new();
        for (id, connection) in &mut self.connections {
            let patience = match connection.edge {
                Edge::Client => CLIENT_IDLE_TIMEOUT,
                Edge::Peer => PEER_IDLE_TIMEOUT,
            };
            for side in [Side::Dialer, Side::Acceptor] {
                let (here, there) =
                    (connection.parties.of(side), connection.parties.of(side.other()));
                let (own, their) = (here.address.ip(), there.address.ip());
                let runs = |party: &Party| party.host.as_ref().is_none_or(Host::runs);
                if here.standing != Standing::Open || !runs(here) {
                    continue;
                }
                let beats = connection.edge == Edge::Peer
                    || side == Side::Acceptor
                    || !self.sky.is_cut(own, their);
                let is_there = there.standing == Standing::Open && runs(there);
                let is_heard = is_there && beats && !self.sky.is_cut(their, own);
                let here = connection.parties.of_mut(side);
                if is_heard {
                    here.heard = now;
                } else if now.saturating_duration_since(here.heard) > patience {
                    silent.push((*id, side));
                }
            }
        }
        for (id, side) in silent {
            self.sky.counts.timed_out += 1;
            self.end(id, side, Closed::TimedOut);
        }
    }
}
