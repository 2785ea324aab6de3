//! The two edges and their QUIC parameter sets.
//!
//! Measured in the lab: memory is allocated per *permitted* stream, so the numbers stay small where
//! connections are many; the windows are bounds, not allocations. `send_window` is what protects a
//! server from a client that grants gigabytes and reads nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::protocol::frame::PAYLOAD_BYTES_MAX;
use crate::protocol::{ALPN, PEER_ALPN};

/// Which edge of the cluster a connection is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// Between a client and a node.
    Client,
    /// Between two nodes.
    Peer,
}

/// Streams that a client may have open towards a node, of each sort: the control stream, and one
/// that is too many and of which it is told so.
pub const CLIENT_STREAMS_MAX: u32 = 2;
/// First packets that wait to be taken up; those beyond are dropped, and their senders knock again.
pub const KNOCKS_MAX: usize = 4_096;
/// Bytes kept of one that knocks and is not taken up yet, beyond its first packet.
pub const KNOCK_BYTES_MAX: u64 = 64 * 1024;
/// Such bytes of all that knock.
pub const KNOCKS_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Streams of one sort that a node may have open towards a client; bulk replies come on their own.
pub const SERVER_STREAMS_MAX: u32 = 16;
/// Streams that a peer may have open, of each sort: lanes and calls.
pub const PEER_STREAMS_MAX: u32 = 256;

/// Unread bytes of one stream on the client edge: how stale a slow reader can be.
pub const CLIENT_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Unread bytes of a whole connection on the client edge.
pub const CLIENT_RECEIVE_WINDOW_BYTES: u32 = 512 * 1024;
/// Unacknowledged bytes that a node keeps for one client.
pub const CLIENT_SEND_WINDOW_BYTES: u64 = 512 * 1024;
/// Unread bytes of one stream between peers.
pub const PEER_STREAM_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// Unread bytes of a whole connection between peers.
pub const PEER_RECEIVE_WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// Unacknowledged bytes kept for one peer.
pub const PEER_SEND_WINDOW_BYTES: u64 = 16 * 1024 * 1024;

/// The longest packet, UDP payload: what a path carries is found out by probes between the 1,200
/// bytes that every path does and this. A byte costs half as much in packets of 6,000 as in those
/// of 1,452; longer ones fail, since the library hands ten at a time to the kernel, which takes 64
/// KiB (measured in the lab).
pub const PACKET_BYTES_MAX: u16 = 6_000;
/// A probe that would gain less is not sent: a handful of them finds what a path carries.
const PACKET_BYTES_STEP: u16 = 96;

/// A client is asked for a sign of life; a dead *server* is noticed by other means, in seconds.
pub const CLIENT_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Sent by the client, never by the server: at 10,000 sessions each beat costs.
pub const CLIENT_KEEP_ALIVE: Duration = Duration::from_secs(18);
/// A silent peer is gone after this.
pub const PEER_IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Sent by both peers.
pub const PEER_KEEP_ALIVE: Duration = Duration::from_millis(250);

/// A peer is on the same network or the next: a lost handshake packet is sent again after 300 ms
/// rather than a second.
const PEER_INITIAL_RTT: Duration = Duration::from_millis(100);
/// What an unanswered handshake may take, on either side.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Kind and body of one frame between peers: a megabyte of entries with everything around it.
pub const PEER_FRAME_BYTES_MAX: usize = 2 * 1024 * 1024;

impl Edge {
    /// The protocol's name in the TLS handshake; it carries the version.
    #[must_use]
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Client => ALPN,
            Self::Peer => PEER_ALPN,
        }
    }

    /// What metrics call the edge.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Peer => "peer",
        }
    }

    /// Kind and body of the longest frame on this edge.
    #[must_use]
    pub fn frame_bytes_max(self) -> usize {
        match self {
            Self::Client => PAYLOAD_BYTES_MAX,
            Self::Peer => PEER_FRAME_BYTES_MAX,
        }
    }

    /// The parameters of the side that listens.
    pub(super) fn server_parameters(self) -> Arc<quinn::TransportConfig> {
        let mut config = self.common();
        match self {
            Self::Client => {
                config.max_concurrent_bidi_streams(CLIENT_STREAMS_MAX.into());
                config.max_concurrent_uni_streams(CLIENT_STREAMS_MAX.into());
            }
            Self::Peer => peer_streams(&mut config),
        }
        Arc::new(config)
    }

    /// The parameters of the side that dials.
    pub(super) fn client_parameters(self) -> Arc<quinn::TransportConfig> {
        let mut config = self.common();
        match self {
            Self::Client => {
                config.keep_alive_interval(Some(CLIENT_KEEP_ALIVE));
                config.max_concurrent_bidi_streams(SERVER_STREAMS_MAX.into());
                config.max_concurrent_uni_streams(SERVER_STREAMS_MAX.into());
            }
            Self::Peer => peer_streams(&mut config),
        }
        Arc::new(config)
    }

    fn common(self) -> quinn::TransportConfig {
        let mut config = quinn::TransportConfig::default();
        // Datagrams are neither sent nor taken.
        config.datagram_receive_buffer_size(None);
        let (stream, receive, send, idle) = match self {
            Self::Client => (
                CLIENT_STREAM_WINDOW_BYTES,
                CLIENT_RECEIVE_WINDOW_BYTES,
                CLIENT_SEND_WINDOW_BYTES,
                CLIENT_IDLE_TIMEOUT,
            ),
            Self::Peer => (
                PEER_STREAM_WINDOW_BYTES,
                PEER_RECEIVE_WINDOW_BYTES,
                PEER_SEND_WINDOW_BYTES,
                PEER_IDLE_TIMEOUT,
            ),
        };
        config.stream_receive_window(stream.into());
        config.receive_window(receive.into());
        config.send_window(send);
        let mut discovery = quinn::MtuDiscoveryConfig::default();
        discovery.upper_bound(PACKET_BYTES_MAX).minimum_change(PACKET_BYTES_STEP);
        config.mtu_discovery_config(Some(discovery));
        // Out of range only above 2^62 ms.
        config.max_idle_timeout(idle.try_into().ok());
        config
    }
}

fn peer_streams(config: &mut quinn::TransportConfig) {
    config.keep_alive_interval(Some(PEER_KEEP_ALIVE));
    config.initial_rtt(PEER_INITIAL_RTT);
    config.max_concurrent_bidi_streams(PEER_STREAMS_MAX.into());
    config.max_concurrent_uni_streams(PEER_STREAMS_MAX.into());
}
