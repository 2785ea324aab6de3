//! One authenticated connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::error::Closed;
use super::frame_receiver::{FrameReceiver, ReceiveHalf};
use super::frame_sender::{FrameSender, SendHalf};
use super::load::Slot;
use super::profile::Edge;
use super::simulated;

/// Why a connection or stream was closed, as a number of the layer above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u32);

/// Words that go with a close; longer ones are cut.
const REASON_BYTES_MAX: usize = 256;
/// What a simulated connection says of its round trips.
const SIMULATED_RTT: Duration = Duration::from_millis(4);

/// A connection whose handshake is done; clones share it. It ends when it is closed, by either
/// side, or when the last clone and the last stream are gone.
#[derive(Debug, Clone)]
pub struct Connection {
    inner: Inner,
    edge: Edge,
    /// Given back when the connection is gone.
    slot: Option<Arc<Slot>>,
}

#[derive(Debug, Clone)]
enum Inner {
    Quic(quinn::Connection),
    Simulated(simulated::End),
}

/// What the network does to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionStats {
    /// The estimate of a round trip.
    pub rtt: Duration,
    /// Bytes that may be in flight.
    pub congestion_window_bytes: u64,
    /// Datagrams sent.
    pub packets_sent: u64,
    /// Datagrams taken for lost.
    pub packets_lost: u64,
    /// How often a stream could send nothing because its reader is slow.
    pub stream_stalls: u64,
}

impl Connection {
    pub(super) fn new(connection: quinn::Connection, edge: Edge) -> Self {
        Self { inner: Inner::Quic(connection), edge, slot: None }
    }

    pub(super) fn simulated(end: simulated::End, edge: Edge) -> Self {
        Self { inner: Inner::Simulated(end), edge, slot: None }
    }

    /// The same, holding its place under the endpoint's limit.
    pub(super) fn in_slot(self, slot: Slot) -> Self {
        Self { slot: Some(Arc::new(slot)), ..self }
    }

    /// The other side has shown who it is: it no longer counts against what strangers of its
    /// address may have open.
    pub fn introduced(&self) {
        if let Some(slot) = &self.slot {
            slot.introduced();
        }
    }

    /// What the other side did is held against its address: one of many faults is turned away for a
    /// while.
    pub fn at_fault(&self) {
        if let Some(slot) = &self.slot {
            slot.at_fault();
        }
    }

    /// Whom its faults are held against: its address, or in IPv6 the network of 2^64 that it is one of;
    /// none where many have the address in common.
    #[must_use]
    pub fn network(&self) -> Option<IpAddr> {
        self.slot.as_ref()?.network()
    }

    /// Where the other side is now; a client may move.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        match &self.inner {
            Inner::Quic(connection) => connection.remote_address(),
            Inner::Simulated(end) => end.remote(),
        }
    }

    /// The DNS names in the certificate that the other side proved to hold; empty if it showed
    /// none. The chain was verified by the handshake.
    #[cfg(feature = "server")]
    #[must_use]
    pub fn certificate_names(&self) -> Vec<String> {
        let connection = match &self.inner {
            Inner::Quic(connection) => connection,
            Inner::Simulated(end) => return end.certificate_names(),
        };
        let identity = connection.peer_identity();
        let chain = identity
            .and_then(|any| any.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().ok());
        chain
            .and_then(|chain| chain.first().map(|leaf| super::certificate::dns_names(leaf)))
            .unwrap_or_default()
    }

    /// Opens a stream both ways. The other side learns of it with the first flushed byte. Waits
    /// while the other side permits no more streams. Cancel-safe.
    ///
    /// # Errors
    /// [`Closed`] if the connection is over.
    pub async fn open_bi(&self) -> Result<(FrameSender, FrameReceiver), Closed> {
        match &self.inner {
            Inner::Quic(connection) => {
                let (send, receive) = connection.open_bi().await?;
                Ok(self.framed(SendHalf::Quic(send), ReceiveHalf::Quic(receive)))
            }
            Inner::Simulated(end) => {
                let (send, receive) = end.open_two_way().await?;
                Ok(self.framed(SendHalf::Simulated(send), ReceiveHalf::Simulated(receive)))
            }
        }
    }

    /// Opens a stream towards the other side only. As [`open_bi`](Self::open_bi).
    ///
    /// # Errors
    /// [`Closed`] if the connection is over.
    pub async fn open_uni(&self) -> Result<FrameSender, Closed> {
        let send = match &self.inner {
            Inner::Quic(connection) => SendHalf::Quic(connection.open_uni().await?),
            Inner::Simulated(end) => SendHalf::Simulated(end.open_one_way().await?),
        };
        Ok(FrameSender::new(send, self.edge.frame_bytes_max()))
    }

    /// Waits for the other side's next stream both ways. Cancel-safe.
    ///
    /// # Errors
    /// [`Closed`] if the connection is over.
    pub async fn accept_bi(&self) -> Result<(FrameSender, FrameReceiver), Closed> {
        match &self.inner {
            Inner::Quic(connection) => {
                let (send, receive) = connection.accept_bi().await?;
                Ok(self.framed(SendHalf::Quic(send), ReceiveHalf::Quic(receive)))
            }
            Inner::Simulated(end) => {
                let (send, receive) = end.accept_two_way().await?;
                Ok(self.framed(SendHalf::Simulated(send), ReceiveHalf::Simulated(receive)))
            }
        }
    }

    /// Waits for the other side's next one-way stream. Cancel-safe.
    ///
    /// # Errors
    /// [`Closed`] if the connection is over.
    pub async fn accept_uni(&self) -> Result<FrameReceiver, Closed> {
        let receive = match &self.inner {
            Inner::Quic(connection) => ReceiveHalf::Quic(connection.accept_uni().await?),
            Inner::Simulated(end) => ReceiveHalf::Simulated(end.accept_one_way().await?),
        };
        Ok(FrameReceiver::new(receive, self.edge.frame_bytes_max()))
    }

    /// Ends the connection at once: what is queued on streams is lost. The other side sees code
    /// and reason. A second close changes nothing.
    pub fn close(&self, code: CloseCode, reason: &str) {
        match &self.inner {
            Inner::Quic(connection) => {
                let reason = reason.as_bytes();
                let cut = reason.get(..REASON_BYTES_MAX).unwrap_or(reason);
                connection.close(code.0.into(), cut);
            }
            Inner::Simulated(end) => {
                end.close(code, reason.get(..REASON_BYTES_MAX).unwrap_or(reason));
            }
        }
    }

    /// Waits for the end of the connection. Cancel-safe.
    pub async fn closed(&self) -> Closed {
        match &self.inner {
            Inner::Quic(connection) => connection.closed().await.into(),
            Inner::Simulated(end) => end.closed().await,
        }
    }

    /// Why the connection is over, if it is.
    #[must_use]
    pub fn close_reason(&self) -> Option<Closed> {
        match &self.inner {
            Inner::Quic(connection) => connection.close_reason().map(Closed::from),
            Inner::Simulated(end) => end.close_reason(),
        }
    }

    /// The estimate of a round trip.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        match &self.inner {
            Inner::Quic(connection) => connection.rtt(),
            Inner::Simulated(_) => SIMULATED_RTT,
        }
    }

    /// What the network does to this connection.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        let connection = match &self.inner {
            Inner::Quic(connection) => connection,
            Inner::Simulated(_) => {
                return ConnectionStats {
                    rtt: SIMULATED_RTT,
                    congestion_window_bytes: u64::MAX,
                    packets_sent: 0,
                    packets_lost: 0,
                    stream_stalls: 0,
                };
            }
        };
        let stats = connection.stats();
        ConnectionStats {
            rtt: stats.path.rtt,
            congestion_window_bytes: stats.path.cwnd,
            packets_sent: stats.path.sent_packets,
            packets_lost: stats.path.lost_packets,
            stream_stalls: stats.frame_tx.stream_data_blocked,
        }
    }

    /// A number that tells this connection from all others of its endpoint while it lives.
    #[must_use]
    pub fn stable_id(&self) -> usize {
        match &self.inner {
            Inner::Quic(connection) => connection.stable_id(),
            Inner::Simulated(end) => end.number(),
        }
    }

    /// Lets the other side have `count` streams of each sort open; memory goes with the number, so
    /// raise it only for those that have shown who they are.
    pub fn permit_streams(&self, count: u32) {
        match &self.inner {
            Inner::Quic(connection) => {
                connection.set_max_concurrent_bi_streams(count.into());
                connection.set_max_concurrent_uni_streams(count.into());
            }
            Inner::Simulated(end) => end.permit_streams(count),
        }
    }

    fn framed(&self, send: SendHalf, receive: ReceiveHalf) -> (FrameSender, FrameReceiver) {
        let bytes_max = self.edge.frame_bytes_max();
        (FrameSender::new(send, bytes_max), FrameReceiver::new(receive, bytes_max))
    }
}
