//! What an arriving parcel changes.

use std::net::IpAddr;

use tokio::time::Instant;

use super::stream::{Direction, Segment};
use super::world::{Load, Parcel, Party, Side, Sort, Standing, World};
use crate::host::Host;
use crate::transport::connection::CloseCode;
use crate::transport::error::Closed;

/// TLS's number for: no application protocol.
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// The sort of a stream, by its number.
fn sort_of(stream: u64) -> Sort {
    if stream & 2 == 0 { Sort::TwoWay } else { Sort::OneWay }
}

/// Who opened a stream, by its number.
fn opener_of(stream: u64) -> Side {
    if stream & 1 == 0 { Side::Dialer } else { Side::Acceptor }
}

impl World {
    /// Delivers what is due, and says when the next parcel is.
    pub(super) fn deliver(&mut self, now: Instant) -> Option<Instant> {
        loop {
            let (due, _) = *self.queue.first_key_value()?.0;
            if due > now {
                return Some(due);
            }
            if let Some((_, parcel)) = self.queue.pop_first() {
                self.arrive(now, parcel);
            }
        }
    }

    fn arrive(&mut self, now: Instant, parcel: Parcel) {
        let Parcel { connection: id, towards, load } = parcel;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let from = connection.parties.of(towards.other()).address.ip();
        let party = connection.parties.of_mut(towards);
        let to = party.address.ip();
        if self.sky.is_cut(from, to) {
            self.sky.counts.stalled += 1;
            self.stalled.push(Parcel { connection: id, towards, load });
            return;
        }
        self.sky.counts.delivered += 1;
        let way = (from, to, id);
        if let Load::Dial { again } = load {
            self.trace.note(now, way, ("dial", u64::from(again)), &[]);
            self.knock(id, again);
            return;
        }
        if let Standing::Over(_) = party.standing {
            self.trace.note(now, way, ("nobody", 0), &[]);
            self.nobody(id, towards);
            return;
        }
        party.heard = now;
        match load {
            Load::Segment(stream) => self.segment(now, way, towards, stream),
            Load::Credit(stream, bytes) => {
                self.trace.note(now, way, ("credit", stream), &bytes.to_le_bytes());
                self.credit(id, towards, stream, bytes);
            }
            Load::StreamOver(sort) => {
                self.trace.note(now, way, ("stream over", 0), &[]);
                let open = party.open.of(sort);
                *open = open.saturating_sub(1);
                self.to_wake.append(&mut party.wakers);
            }
            Load::Acknowledged(stream) | Load::Stop(stream, _) => {
                self.trace.note(now, way, ("end of stream", stream), &[]);
                let Some(directions) = connection.streams.get_mut(&stream) else { return };
                let direction = directions.of_mut(towards);
                match load {
                    Load::Stop(_, code) => direction.sender.stopped = Some(code),
                    _ => direction.sender.acknowledged = true,
                }
                self.to_wake.append(&mut direction.writers);
            }
            Load::Accepted => {
                self.trace.note(now, way, ("accepted", 0), &[]);
                party.standing = Standing::Open;
                self.to_wake.append(&mut party.wakers);
                self.post(id, Side::Acceptor, Load::Established);
            }
            Load::Established => {
                self.trace.note(now, way, ("established", 0), &[]);
                party.standing = Standing::Open;
                self.to_wake.append(&mut party.wakers);
            }
            Load::Refused(closed) => {
                self.trace.note(now, way, ("refused", 0), &[]);
                self.end(id, towards, closed);
            }
            Load::Close(code, reason) => {
                self.trace.note(now, way, ("close", u64::from(code.0)), reason.as_bytes());
                self.end(id, towards, Closed::There { code, reason });
            }
            Load::Forgotten => {
                self.trace.note(now, way, ("forgotten", 0), &[]);
                self.sky.counts.forgotten += 1;
                self.end(id, towards, Closed::Restarted);
            }
            Load::Dial { .. } => {}
        }
    }

    /// A dial reaches an address: somebody listens there, or nothing happens.
    fn knock(&mut self, id: u64, again: bool) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let address = connection.parties.acceptor.address;
        let Some(listener) = self.endpoints.get_mut(&address) else { return };
        if !listener.listens || listener.host.as_ref().is_some_and(|host| !host.is_on()) {
            return;
        }
        if again {
            // What came first counts; the second one is a handshake that nobody goes on with.
            let (edge, dialer) = (connection.edge, connection.parties.dialer.address);
            let ghost = self.dial_from_nobody(dialer, edge, address);
            if let Some(listener) = self.endpoints.get_mut(&address) {
                listener.incoming.push_back(ghost);
                self.to_wake.append(&mut listener.wakers);
            }
            return;
        }
        let acceptor = &mut connection.parties.acceptor;
        acceptor.host.clone_from(&listener.host);
        acceptor.endpoint = listener.number;
        acceptor.names.clone_from(&listener.names);
        if listener.edge != connection.edge {
            let closed = Closed::Tls {
                alert: NO_APPLICATION_PROTOCOL,
                reason: "no common application protocol".to_owned(),
            };
            acceptor.released = true;
            acceptor.standing = Standing::Over(closed.clone());
            self.post(id, Side::Dialer, Load::Refused(closed));
            return;
        }
        listener.incoming.push_back(id);
        self.to_wake.append(&mut listener.wakers);
    }

    /// A parcel finds that its connection is over here. Whoever remembers it says why; a host that
    /// runs again at the address has forgotten it and says that; nobody says nothing.
    fn nobody(&mut self, id: u64, side: Side) {
        let Some(connection) = self.connections.get(&id) else { return };
        let there = connection.parties.of(side.other());
        if matches!(there.standing, Standing::Over(_)) {
            return;
        }
        let party = connection.parties.of(side);
        let is_on = |party: &Party| party.host.as_ref().is_none_or(Host::is_on);
        let answer = match &party.farewell {
            Some((code, reason)) if is_on(party) => Load::Close(*code, reason.clone()),
            _ if is_on(party) || self.endpoints.contains_key(&party.address) => Load::Forgotten,
            _ => return,
        };
        self.post(id, side.other(), answer);
    }

    fn segment(&mut self, now: Instant, way: (IpAddr, IpAddr, u64), towards: Side, stream: u64) {
        let (_, _, id) = way;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(directions) = connection.streams.get_mut(&stream) else { return };
        let direction = directions.of_mut(towards.other());
        // Nothing is left when the stream was reset in between.
        let Some(segment) = direction.way.pop_front() else { return };
        match &segment {
            Segment::Data(pieces) => {
                for piece in pieces {
                    self.trace.note(now, way, ("data", stream), piece);
                }
            }
            Segment::Finish => self.trace.note(now, way, ("finish", stream), &[]),
            Segment::Reset(code) => {
                self.trace.note(now, way, ("reset", stream), &code.0.to_le_bytes());
            }
        }
        let is_new = !std::mem::replace(&mut direction.announced, true);
        let mut unwanted = 0;
        let mut acknowledged = false;
        match segment {
            Segment::Data(pieces) if direction.receiver.stopped => {
                unwanted = pieces.iter().map(bytes::Bytes::len).sum();
            }
            Segment::Data(pieces) => direction.inbox.extend(pieces),
            Segment::Finish => {
                direction.receiver.finished = true;
                acknowledged = true;
            }
            Segment::Reset(code) => {
                unwanted = direction.inbox.drain(..).map(|piece| piece.len()).sum();
                direction.receiver.reset = Some(code);
            }
        }
        self.to_wake.append(&mut direction.readers);
        if is_new && opener_of(stream) != towards {
            let party = connection.parties.of_mut(towards);
            party.arrived.of(sort_of(stream)).push_back(stream);
            self.to_wake.append(&mut party.wakers);
        }
        if acknowledged {
            self.post(id, towards.other(), Load::Acknowledged(stream));
        }
        if unwanted > 0 {
            self.post(id, towards.other(), Load::Credit(stream, unwanted));
        }
    }

    fn credit(&mut self, id: u64, side: Side, stream: u64, bytes: usize) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let party = connection.parties.of_mut(side);
        party.unread = party.unread.saturating_sub(bytes);
        if let Some(directions) = connection.streams.get_mut(&stream) {
            let direction = directions.of_mut(side);
            direction.unread = direction.unread.saturating_sub(bytes);
        }
        // The window of the connection may have held any of them.
        for directions in connection.streams.values_mut() {
            self.to_wake.append(&mut directions.of_mut(side).writers);
        }
    }

    /// A direction has been read to its end, or nothing more of it will be. The opener may open
    /// another stream when all of this one is over.
    pub(super) fn direction_done(&mut self, id: u64, reader: Side, stream: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(directions) = connection.streams.get_mut(&stream) else { return };
        let direction = directions.of_mut(reader.other());
        if std::mem::replace(&mut direction.receiver.done, true) {
            return;
        }
        let over = |direction: &Direction| !direction.exists || direction.receiver.done;
        if over(&directions.dialer) && over(&directions.acceptor) {
            self.post(id, opener_of(stream), Load::StreamOver(sort_of(stream)));
        }
    }

    /// Forgets a stream that is over and that nobody holds.
    pub(super) fn let_go(&mut self, id: u64, stream: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(directions) = connection.streams.get(&stream) else { return };
        let gone = |direction: &Direction| {
            let held = direction.sender.held || direction.receiver.held;
            !direction.exists || (direction.receiver.done && !held)
        };
        if gone(&directions.dialer) && gone(&directions.acceptor) {
            connection.streams.remove(&stream);
        }
    }

    /// The reader wants no more of a stream.
    pub(super) fn stop(&mut self, id: u64, reader: Side, stream: u64, code: CloseCode) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(directions) = connection.streams.get_mut(&stream) else { return };
        let direction = directions.of_mut(reader.other());
        if direction.receiver.done || direction.receiver.stopped {
            return;
        }
        direction.receiver.stopped = true;
        let unread: usize = direction.inbox.drain(..).map(|piece| piece.len()).sum();
        self.direction_done(id, reader, stream);
        self.post(id, reader.other(), Load::Stop(stream, code));
        if unread > 0 {
            self.post(id, reader.other(), Load::Credit(stream, unread));
        }
    }
}
