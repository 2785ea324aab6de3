//! The socket of an endpoint that listens: strangers wait, those who are known go ahead.
//!
//! All packets of an endpoint go through one task. Some dozens of first packets that come at once
//! would hold up whatever comes behind them, so they are taken out of what was received, and a few of
//! them go in at a time. What belongs to no connection of this endpoint is counted here, since the
//! library drops it without a word.

use std::future::Future as _;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use quinn_proto::{ConnectionId, ConnectionIdGenerator as _, HashedConnectionIdGenerator};
use tokio::time::{Instant, Sleep};

use super::load::Load;
use super::profile::Edge;
use super::waiting_room::{ENTRIES_AT_ONCE, FIRST_DATAGRAM_BYTES_MIN, WaitingRoom};
use crate::telemetry::metrics;

/// Bytes of the connection ids that this endpoint gives.
const ID_BYTES: usize = 8;
/// The only version of QUIC that is spoken here.
pub(super) const VERSION: u32 = 1;

/// A socket behind which strangers wait.
#[derive(Debug)]
pub(super) struct FrontDoor {
    socket: Arc<dyn AsyncUdpSocket>,
    edge: Edge,
    load: Arc<Load>,
    ids: Ids,
    /// Of the one task that receives.
    hall: Mutex<Hall>,
}

#[derive(Debug)]
struct Hall {
    room: WaitingRoom,
    /// Rings when the next one may go in; none before somebody had to wait.
    bell: Option<Pin<Box<Sleep>>>,
}

/// Knows the connection ids of this endpoint from others.
struct Ids(HashedConnectionIdGenerator);

impl std::fmt::Debug for Ids {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Ids(secret)")
    }
}

/// What a datagram is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Of a connection that is or was here, as far as can be told.
    Known,
    /// It would begin a connection.
    First,
    /// Of a version that is not spoken here, and answered with the one that is.
    OtherVersion,
    /// Of no connection of this endpoint: noise, or how a peer that has forgotten one says so.
    Unknown,
    /// Too short to be told, or to begin a connection.
    CutOff,
}

impl Kind {
    /// By its header (RFC 9000 §17.2 and 17.3).
    fn of(datagram: &[u8], ids: &Ids) -> Self {
        const LONG: u8 = 0x80;
        const TYPE: u8 = 0x30;
        let Some((first, rest)) = datagram.split_first() else { return Self::CutOff };
        if first & LONG == 0 {
            let id = rest.first_chunk::<ID_BYTES>().map(|id| ConnectionId::new(id));
            return match id.map(|id| ids.0.validate(&id)) {
                Some(Ok(())) => Self::Known,
                Some(Err(_)) => Self::Unknown,
                None => Self::CutOff,
            };
        }
        match rest.first_chunk().map(|version| u32::from_be_bytes(*version)) {
            Some(VERSION) if first & TYPE != 0 => Self::Known,
            Some(VERSION) if datagram.len() >= FIRST_DATAGRAM_BYTES_MIN => Self::First,
            // Whom this endpoint has called may answer with less.
            Some(VERSION) if is_to_own_id(rest, ids) => Self::First,
            Some(VERSION) | None => Self::CutOff,
            Some(_) if datagram.len() >= FIRST_DATAGRAM_BYTES_MIN => Self::OtherVersion,
            Some(_) => Self::CutOff,
        }
    }

    /// Whether it is for the waiting room.
    fn is_first(self) -> bool {
        matches!(self, Self::First | Self::OtherVersion)
    }
}

/// Whether a long header, without its first byte, is addressed to a connection id of this endpoint.
fn is_to_own_id(header: &[u8], ids: &Ids) -> bool {
    const LENGTH_AT: usize = 4;
    let id = header.get(LENGTH_AT..).and_then(|rest| match rest.split_first() {
        Some((&length, rest)) if usize::from(length) == ID_BYTES => rest.first_chunk::<ID_BYTES>(),
        _ => None,
    });
    id.is_some_and(|id| ids.0.validate(&ConnectionId::new(id)).is_ok())
}

/// Datagrams that are of nobody here, and first packets that found no room.
#[derive(Debug, Default)]
struct Strange {
    other_version: usize,
    unknown: usize,
    cut_off: usize,
    dropped: usize,
}

impl Strange {
    fn count(&mut self, kind: Kind) {
        match kind {
            Kind::Known | Kind::First => {}
            Kind::OtherVersion => self.other_version += 1,
            Kind::Unknown => self.unknown += 1,
            Kind::CutOff => self.cut_off += 1,
        }
    }

    fn tell(&self, edge: Edge) {
        let unknown = [
            (self.other_version, "version"),
            (self.unknown, "connection_id"),
            (self.cut_off, "length"),
        ];
        for (count, why) in unknown.into_iter().filter(|(count, _)| *count > 0) {
            metrics::datagrams_unknown(edge.label(), why, count);
        }
        if self.dropped > 0 {
            metrics::first_packets_dropped(edge.label(), self.dropped);
        }
    }
}

impl FrontDoor {
    /// `ids` makes the connection ids of the endpoint.
    pub(super) fn new(
        socket: Arc<dyn AsyncUdpSocket>,
        edge: Edge,
        load: Arc<Load>,
        ids: HashedConnectionIdGenerator,
    ) -> Self {
        let hall = Hall { room: WaitingRoom::new(load.clock.now()), bell: None };
        Self { socket, edge, load, ids: Ids(ids), hall: Mutex::new(hall) }
    }

    /// Takes first packets out of what was received: how many buffers are left, which are moved to
    /// the front.
    fn sort_out(
        &self,
        room: &mut WaitingRoom,
        received: usize,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> usize {
        let (mut kept, mut strange) = (0, Strange::default());
        for at in 0..received {
            let (Some(buffer), Some(&meta)) = (buffers.get(at), metas.get(at)) else { break };
            let Some(bytes) = buffer.get(..meta.len) else { break };
            let datagrams = bytes.chunks(meta.stride.max(1));
            let datagrams = datagrams.map(|datagram| (datagram, Kind::of(datagram, &self.ids)));
            let mut waits = room.holds(meta.addr);
            for (_, kind) in datagrams.clone() {
                strange.count(kind);
                waits |= kind.is_first();
            }
            if waits {
                // Several of one sender can come as one: each waits for itself.
                let network = self.load.network(meta.addr);
                for (datagram, kind) in datagrams {
                    let has_room = room.came(network, meta, datagram, kind.is_first());
                    strange.dropped += usize::from(!has_room);
                }
            } else {
                buffers.swap(kept, at);
                metas.swap(kept, at);
                kept += 1;
            }
        }
        strange.tell(self.edge);
        kept
    }
}

impl AsyncUdpSocket for FrontDoor {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut hall = self.hall.lock().unwrap_or_else(PoisonError::into_inner);
        let Hall { room, bell } = &mut *hall;
        // However many others come, there is room for those whose turn it is.
        let reserved = if room.is_empty() { 0 } else { ENTRIES_AT_ONCE as usize };
        let most = buffers.len().min(metas.len());
        let others = most - reserved.min(most / 2);
        let of_others = (buffers.split_at_mut(others).0, metas.split_at_mut(others).0);
        let received = self.socket.poll_recv(context, of_others.0, of_others.1);
        let (mut filled, is_clean) = match received {
            Poll::Ready(Ok(received)) => (self.sort_out(room, received, buffers, metas), false),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => (0, true),
        };
        if room.is_empty() && is_clean {
            return Poll::Pending;
        }
        let now = self.load.clock.now();
        for (buffer, meta) in buffers.iter_mut().zip(metas).skip(filled) {
            let Some(knock) = room.next(now) else { break };
            // It came in one of these, and they are all of one size.
            let Some(space) = buffer.get_mut(..knock.datagram.len()) else { continue };
            space.copy_from_slice(&knock.datagram);
            *meta = knock.meta;
            filled += 1;
        }
        if filled > 0 {
            return Poll::Ready(Ok(filled));
        }
        if !is_clean {
            // Strangers only: this thread's other tasks first, then what is left in the socket.
            context.waker().wake_by_ref();
        } else if !room.is_empty() {
            ring(bell, room.next_entry(), context);
        }
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

/// Wakes the task at a time.
fn ring(bell: &mut Option<Pin<Box<Sleep>>>, at: Instant, context: &mut Context<'_>) {
    let bell = bell.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
    bell.as_mut().reset(at);
    if bell.as_mut().poll(context).is_ready() {
        context.waker().wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use futures::task::noop_waker;

    use super::*;
    use crate::transport::EndpointLimits;

    const FIRST: u8 = 0xc0;
    const KNOWN: u8 = 0x40;
    const BUFFERS: usize = 3 * ENTRIES_AT_ONCE as usize;

    type Batch = Vec<(RecvMeta, Vec<u8>)>;

    /// What came, one batch at a time.
    #[derive(Debug, Default)]
    struct Script(Mutex<VecDeque<Batch>>);

    impl AsyncUdpSocket for Script {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            unreachable!("nothing is sent")
        }

        fn try_send(&self, _: &Transmit<'_>) -> io::Result<()> {
            unreachable!("nothing is sent")
        }

        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            buffers: &mut [IoSliceMut<'_>],
            metas: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            let mut batches = self.0.lock().unwrap();
            let Some(batch) = batches.front_mut() else { return Poll::Pending };
            let count = batch.len().min(buffers.len());
            for (at, (meta, bytes)) in batch.drain(..count).enumerate() {
                buffers[at][..bytes.len()].copy_from_slice(&bytes);
                metas[at] = meta;
            }
            if batch.is_empty() {
                batches.pop_front();
            }
            Poll::Ready(Ok(count))
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(([127, 0, 0, 1], 1).into())
        }
    }

    fn ids() -> HashedConnectionIdGenerator {
        HashedConnectionIdGenerator::from_key(7)
    }

    /// Bytes of its own kind and number, from an address.
    fn datagram(kind: u8, address: u8, number: u8) -> (RecvMeta, Vec<u8>) {
        let mut bytes = vec![kind, 0, 0, 0, 1, number];
        bytes.resize(FIRST_DATAGRAM_BYTES_MIN, 0);
        let addr = ([10, 0, 0, address], 1).into();
        (RecvMeta { addr, len: bytes.len(), stride: bytes.len(), ..RecvMeta::default() }, bytes)
    }

    fn door() -> (FrontDoor, Arc<Script>) {
        let script = Arc::new(Script::default());
        let load = Arc::new(Load::new(EndpointLimits::default()));
        let socket: Arc<dyn AsyncUdpSocket> = Arc::<Script>::clone(&script);
        (FrontDoor::new(socket, Edge::Client, load, ids()), script)
    }

    /// What one call hands over; none: it is to be woken.
    fn receive(door: &FrontDoor) -> Option<Vec<(SocketAddr, Vec<u8>)>> {
        let mut space = vec![vec![0; 64 << 10]; BUFFERS];
        let mut buffers: Vec<IoSliceMut<'_>> =
            space.iter_mut().map(|space| IoSliceMut::new(space)).collect();
        let mut metas = [RecvMeta::default(); BUFFERS];
        let waker = noop_waker();
        let mut context = Context::from_waker(&waker);
        match door.poll_recv(&mut context, &mut buffers, &mut metas) {
            Poll::Ready(result) => {
                let received = buffers.iter().zip(&metas).take(result.unwrap());
                Some(received.map(|(it, meta)| (meta.addr, it[..meta.len].to_vec())).collect())
            }
            Poll::Pending => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_are_known_go_ahead_of_strangers_who_came_before() {
        let (door, script) = door();
        let mut came: Vec<_> = (0..60).map(|number| datagram(FIRST, 1, number)).collect();
        came.push(datagram(KNOWN, 2, 0));
        let more = (0..100).map(|number| datagram(FIRST, 1, 60 + number));
        let last = vec![datagram(KNOWN, 2, 1), datagram(FIRST, 3, 0)];
        script.0.lock().unwrap().extend([came, more.collect(), last]);
        let at_once = ENTRIES_AT_ONCE as usize;
        let first = receive(&door).unwrap();
        assert_eq!(first[0].1, datagram(KNOWN, 2, 0).1);
        assert_eq!(first.len(), 1 + at_once);
        // Strangers alone: the call hands over nothing, and is made again.
        let second = (0..10).find_map(|_| receive(&door)).unwrap();
        assert_eq!(second, [datagram(KNOWN, 2, 1)].map(|(meta, bytes)| (meta.addr, bytes)));
        assert_eq!(receive(&door), None);
        // In time they go in, and whoever came last from elsewhere does not wait for all of them.
        let mut order = Vec::new();
        while !door.hall.lock().unwrap().room.is_empty() {
            tokio::time::advance(Duration::from_millis(1)).await;
            order.extend(receive(&door).into_iter().flatten().map(|(from, _)| from));
        }
        assert_eq!(order.len(), 160 - at_once + 1);
        let elsewhere = order.iter().position(|from| from.ip().to_string() == "10.0.0.3").unwrap();
        assert_eq!(elsewhere, 1);
        assert_eq!(receive(&door), None);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_overtakes_the_beginning_of_its_own_connection() {
        let (door, script) = door();
        let of_one = |number| [datagram(FIRST, 1, number), datagram(KNOWN, 1, number)];
        let came: Vec<_> = (0..20).flat_map(of_one).collect();
        let expected: Vec<_> =
            came.iter().map(|(meta, bytes)| (meta.addr, bytes.clone())).collect();
        script.0.lock().unwrap().extend([came]);
        let mut order = Vec::new();
        while order.len() < expected.len() {
            order.extend(receive(&door).into_iter().flatten());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(order, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn several_in_one_buffer_wait_one_by_one() {
        let (door, script) = door();
        let (meta, first) = datagram(FIRST, 1, 0);
        let bytes = first.repeat(ENTRIES_AT_ONCE as usize + 2);
        let meta = RecvMeta { len: bytes.len(), ..meta };
        script.0.lock().unwrap().push_back(vec![(meta, bytes)]);
        let received = receive(&door).unwrap();
        assert_eq!(received.len(), ENTRIES_AT_ONCE as usize);
        assert!(received.iter().all(|(_, bytes)| *bytes == first));
        assert_eq!(receive(&door), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(receive(&door).unwrap().len(), 2);
    }

    #[test]
    fn datagrams_are_told_apart_by_their_first_bytes() {
        let id = ids().generate_cid();
        let short = |id: &[u8]| [&[0x40][..], id, &[0; 20]].concat();
        let long = |first: u8, version: u8, id: &[u8]| {
            [&[first, 0, 0, 0, version, id.len() as u8][..], id, &[0; 20]].concat()
        };
        let padded = |first, version| {
            let mut datagram = long(first, version, &[1; ID_BYTES]);
            datagram.resize(FIRST_DATAGRAM_BYTES_MIN, 0);
            datagram
        };
        for (datagram, kind) in [
            (padded(0xc0, 1), Kind::First),
            (padded(0xe0, 1), Kind::Known),
            (padded(0xe0, 2), Kind::OtherVersion),
            (padded(0xc0, 0), Kind::OtherVersion),
            (long(0xe0, 1, &[1; ID_BYTES]), Kind::Known),
            // What is too small to begin a connection, unless it is an answer to one begun here.
            (long(0xc0, 1, &[1; ID_BYTES]), Kind::CutOff),
            (long(0xc0, 1, &id[..ID_BYTES - 1]), Kind::CutOff),
            (long(0xc0, 1, &id), Kind::First),
            (long(0xc0, 2, &id), Kind::CutOff),
            (short(&id), Kind::Known),
            (short(&[1; ID_BYTES]), Kind::Unknown),
            (vec![0xc0, 0, 0, 0], Kind::CutOff),
            (vec![0x40; ID_BYTES], Kind::CutOff),
            (vec![], Kind::CutOff),
        ] {
            assert_eq!(Kind::of(&datagram, &Ids(ids())), kind, "{datagram:?}");
        }
        assert_eq!(id.len(), ID_BYTES);
    }
}
