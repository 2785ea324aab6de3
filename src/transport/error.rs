//! What can go wrong with endpoints, connections and streams, as facts.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::connection::CloseCode;
use crate::domain::node_name::NodeName;
use crate::protocol::frame::FrameError;

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// This side closed it, or its endpoint.
    #[error("closed by this side")]
    Here,
    /// The other side closed it and said why.
    #[error("closed by the other side with code {}: {reason}", code.0)]
    There {
        /// The other side's code; which codes there are is the business of the layer above.
        code: CloseCode,
        /// The other side's words, at most some hundred bytes.
        reason: String,
    },
    /// Nothing came for longer than the idle timeout.
    #[error("nothing was heard for the idle timeout")]
    TimedOut,
    /// The other side does not know the connection any more: it restarted.
    #[error("the other side restarted")]
    Restarted,
    /// The other side will take no connection now.
    #[error("refused by the other side")]
    Refused,
    /// TLS failed: certificate, protocol name (ALPN) or version; the alert is TLS's number.
    #[error("TLS failed with alert {alert}: {reason}")]
    Tls {
        /// The alert of RFC 8446 §6, such as 48 unknown authority, 116 certificate required, 120
        /// no application protocol.
        alert: u8,
        /// The library's words.
        reason: String,
    },
    /// A violation of QUIC, by either side.
    #[error("QUIC error {code:#x}: {reason}")]
    Protocol {
        /// The transport error code of RFC 9000 §20.1.
        code: u64,
        /// The library's words.
        reason: String,
    },
}

impl From<quinn::ConnectionError> for Closed {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as E;
        match error {
            E::LocallyClosed => Self::Here,
            E::TimedOut => Self::TimedOut,
            E::Reset => Self::Restarted,
            E::ApplicationClosed(close) => Self::There {
                code: CloseCode(u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX)),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            E::ConnectionClosed(close) => Self::from_transport_code(
                close.error_code,
                String::from_utf8_lossy(&close.reason).into_owned(),
            ),
            E::TransportError(error) => Self::from_transport_code(error.code, error.reason),
            E::VersionMismatch => {
                Self::Protocol { code: 0, reason: "no common QUIC version".to_owned() }
            }
            E::CidsExhausted => {
                Self::Protocol { code: 0, reason: "no connection id is left".to_owned() }
            }
        }
    }
}

/// Transport codes 0x100 to 0x1ff carry a TLS alert in their low byte.
const TLS_ALERTS: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;
/// The transport code of a server that does not want the connection.
const CONNECTION_REFUSED: u64 = 0x02;

impl Closed {
    /// What it is counted as.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Here => "closed_here",
            Self::There { .. } => "closed_there",
            Self::TimedOut => "timed_out",
            Self::Restarted => "restarted",
            Self::Refused => "refused",
            Self::Tls { .. } => "tls",
            Self::Protocol { .. } => "protocol",
        }
    }

    fn from_transport_code(code: impl Into<u64>, reason: String) -> Self {
        let code = code.into();
        if code == CONNECTION_REFUSED {
            Self::Refused
        } else if TLS_ALERTS.contains(&code) {
            Self::Tls { alert: (code & 0xff) as u8, reason }
        } else {
            Self::Protocol { code, reason }
        }
    }
}

/// Why an endpoint could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be bound: in use, not ours, or not allowed.
    #[error("cannot listen on UDP {address}")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// The socket is there, but not usable.
    #[error("cannot set up the UDP socket on {address}")]
    Socket {
        /// What was asked for.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
}

/// Why a connection could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The handshake did not end in time.
    #[error("no answer from {address} in time")]
    TimedOut {
        /// Who was asked.
        address: SocketAddr,
    },
    /// The name to check the certificate against is no server name.
    #[error("{name:?} is no server name")]
    ServerName {
        /// What was given.
        name: String,
    },
    /// This endpoint is closed.
    #[error("this endpoint is closed")]
    EndpointClosed,
    /// The address cannot be connected to from this endpoint, such as IPv6 from an IPv4 socket.
    #[error("{address} cannot be reached from this endpoint")]
    Address {
        /// Who was asked.
        address: SocketAddr,
    },
    /// The handshake failed, or the other side refused.
    #[error("the handshake with {address} failed")]
    Handshake {
        /// Who was asked.
        address: SocketAddr,
        /// How it ended.
        source: Closed,
    },
}

/// Why an incoming connection did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// The handshake did not end in time.
    #[error("the handshake from {address} did not end in time")]
    TimedOut {
        /// Who knocked.
        address: SocketAddr,
    },
    /// The handshake failed.
    #[error("the handshake from {address} failed")]
    Handshake {
        /// Who knocked.
        address: SocketAddr,
        /// How it ended.
        source: Closed,
    },
}

/// Why bytes could not be sent on a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// A frame over the stream's limit; nothing of it was queued.
    #[error("a frame of {bytes} bytes is over the limit of {bytes_max}")]
    TooLong {
        /// Kind and body.
        bytes: usize,
        /// The stream's limit.
        bytes_max: usize,
    },
    /// More is queued than may be before a flush; nothing of this frame was queued.
    #[error("{bytes} bytes wait to be flushed, the limit is {bytes_max}")]
    Full {
        /// What waits.
        bytes: usize,
        /// What may.
        bytes_max: usize,
    },
    /// The other side wants no more of this stream.
    #[error("the other side stopped the stream with code {}", code.0)]
    Stopped {
        /// The other side's code.
        code: CloseCode,
    },
    /// This side finished or reset the stream before.
    #[error("the stream was finished by this side")]
    Finished,
    /// The connection is over.
    #[error("the connection is over")]
    Closed(#[from] Closed),
}

/// Why no further frame comes from a stream. A clean end is not an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// A frame of no length, over the stream's limit, or cut off by the end of the stream.
    #[error("the stream breaks the framing")]
    Frame(#[from] FrameError),
    /// The other side gave the stream up.
    #[error("the other side reset the stream with code {}", code.0)]
    Reset {
        /// The other side's code.
        code: CloseCode,
    },
    /// This side stopped the stream before.
    #[error("the stream was stopped by this side")]
    Stopped,
    /// The connection is over.
    #[error("the connection is over")]
    Closed(#[from] Closed),
}

/// What is wrong with certificates, keys or a TLS configuration made of them.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A file that holds no PEM block of the kind wanted, or a broken one.
    #[error("{} holds no usable {wanted} in PEM form", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// `certificate` or `private key`.
        wanted: &'static str,
    },
    /// The certificate authority's file is not usable as one.
    #[error("the certificate authority is not usable")]
    Authority {
        /// The library's words.
        source: rustls::Error,
    },
    /// The certificate and its key do not go together or are not usable.
    #[error("the certificate or its key is not usable")]
    Identity {
        /// The library's words.
        source: rustls::Error,
    },
    /// The certificate is for another node, or for none.
    #[error("the certificate is not for the node {name}: it names {}", found.join(", "))]
    WrongNode {
        /// The node that it should be for.
        name: NodeName,
        /// The DNS names in it.
        found: Vec<String>,
    },
    /// The authority did not sign the certificate, or not for both ends of a connection.
    #[error("the certificate authority does not vouch for the certificate")]
    Untrusted {
        /// The library's words.
        source: rustls::Error,
    },
    /// The verifier of client certificates could not be made.
    #[error("the certificate authority cannot verify clients: {reason}")]
    Verifier {
        /// The library's words.
        reason: String,
    },
    /// A certificate could not be made.
    #[error("the certificate could not be made: {reason}")]
    Make {
        /// The library's words.
        reason: String,
    },
    /// A name that cannot stand in a certificate.
    #[error("{name:?} cannot stand in a certificate")]
    Name {
        /// What was given.
        name: String,
    },
    /// The TLS settings allow no cipher suite for QUIC.
    #[error("the TLS settings have no cipher suite that QUIC can use")]
    NoCipherSuite,
}
