//! One authenticated connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::Slot;
use super::error::Closed;
use super::frame_receiver::FrameReceiver;
use super::frame_sender::FrameSender;
use super::profile::Edge;

/// Why a connection or stream was closed, as a number of the layer above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u32);

/// Words that go with a close; longer ones are cut.
const REASON_BYTES_MAX: usize = 256;

/// A connection whose handshake is done; clones share it. It ends when it is closed, by either
/// side, or when the last clone and the last stream are gone.
#[derive(Debug, Clone)]
pub struct Connection {
    inner: quinn::Connection,
    edge: Edge,
    /// Given back when the connection is gone.
    _slot: Option<Arc<Slot>>,
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
    pub(super) fn new(inner: quinn::Connection, edge: Edge, slot: Option<Slot>) -> Self {
        Self { inner, edge, _slot: slot.map(Arc::new) }
    }

    /// Where the other side is now; a client may move.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.inner.remote_address()
    }

    /// The DNS names in the certificate that the other side proved to hold; empty if it showed
    /// none. The chain was verified by the handshake.
    #[cfg(feature = "server")]
    #[must_use]
    pub fn certificate_names(&self) -> Vec<String> {
        let identity = self.inner.peer_identity();
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
        let (send, receive) = self.inner.open_bi().await?;
        Ok(self.framed(send, receive))
    }

    /// Opens a stream towards the other side only. As [`open_bi`](Self::open_bi).
    ///
    /// # Errors
    /// [`Closed`] if the connection is over.
    pub async fn open_uni(&self) -> Result<FrameSender, Closed> {
        let send = self.inner.open_uni().await?;
        Ok(FrameSender::new(send, self.edge.frame_bytes_max()))
    }

    /// Waits for the other side's next stream both ways. Cancel-safe.
    ///
    /// # Errors
    /// [`Closed`] if the connection is over.
    pub async fn accept_bi(&self) -> Result<(FrameSender, FrameReceiver), Closed> {
        let (send, receive) = self.inner.accept_bi().await?;
        Ok(self.framed(send, receive))
    }

    /// Waits for the other side's next one-way stream. Cancel-safe.
    ///
    /// # Errors
    /// [`Closed`] if the connection is over.
    pub async fn accept_uni(&self) -> Result<FrameReceiver, Closed> {
        let receive = self.inner.accept_uni().await?;
        Ok(FrameReceiver::new(receive, self.edge.frame_bytes_max()))
    }

    /// Ends the connection at once: what is queued on streams is lost. The other side sees code
    /// and reason. A second close changes nothing.
    pub fn close(&self, code: CloseCode, reason: &str) {
        let reason = reason.as_bytes();
        let cut = reason.get(..REASON_BYTES_MAX).unwrap_or(reason);
        self.inner.close(code.0.into(), cut);
    }

    /// Waits for the end of the connection. Cancel-safe.
    pub async fn closed(&self) -> Closed {
        self.inner.closed().await.into()
    }

    /// Why the connection is over, if it is.
    #[must_use]
    pub fn close_reason(&self) -> Option<Closed> {
        self.inner.close_reason().map(Closed::from)
    }

    /// The estimate of a round trip.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.inner.rtt()
    }

    /// What the network does to this connection.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        let stats = self.inner.stats();
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
        self.inner.stable_id()
    }

    /// Lets the other side have `count` streams of each sort open; memory goes with the number, so
    /// raise it only for those that have shown who they are.
    pub fn permit_streams(&self, count: u32) {
        self.inner.set_max_concurrent_bi_streams(count.into());
        self.inner.set_max_concurrent_uni_streams(count.into());
    }

    fn framed(
        &self,
        send: quinn::SendStream,
        receive: quinn::RecvStream,
    ) -> (FrameSender, FrameReceiver) {
        let bytes_max = self.edge.frame_bytes_max();
        (FrameSender::new(send, bytes_max), FrameReceiver::new(receive, bytes_max))
    }
}
