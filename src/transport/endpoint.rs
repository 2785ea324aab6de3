//! A UDP socket with QUIC on it: accepts, dials, limits.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quinn::Runtime as _;
use quinn::crypto::HmacKey;
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use socket2::{Domain, Protocol, Socket, Type};

use super::connection::{CloseCode, Connection};
use super::error::{AcceptError, BindError, Closed, ConnectError};
use super::front_door::{FrontDoor, VERSION};
use super::load::{EndpointLimits, Load, Slot};
use super::profile::{Edge, HANDSHAKE_TIMEOUT, PACKET_BYTES_MAX};
use super::simulated;
use super::strangers::Standing;
use super::tls::{ClientTls, ServerTls};
use crate::telemetry::{event, metrics};

/// What is asked of the kernel for each direction of a socket; with its default of some 200 KiB one
/// bulk packet in a hundred was lost.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// TLS's numbers for certificates that are not good, not trusted or not there (RFC 8446 §6).
const CERTIFICATE_ALERTS: [u8; 7] = [42, 43, 44, 45, 46, 48, 116];

/// A secret that outlives the process: with it a restarted node tells the peers of its former
/// connections at once that it has forgotten them.
#[derive(Clone)]
pub struct ResetKey([u8; 32]);

impl ResetKey {
    /// A key that was persisted.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes to persist.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Debug for ResetKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ResetKey(secret)")
    }
}

/// What the kernel granted a socket, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketBuffers {
    /// Of incoming datagrams.
    pub receive: usize,
    /// Of outgoing datagrams.
    pub send: usize,
}

/// A socket that connections share; clones share it too.
#[derive(Debug, Clone)]
pub struct Endpoint {
    inner: Inner,
    local: SocketAddr,
    buffers: SocketBuffers,
    edge: Edge,
    load: Arc<Load>,
}

#[derive(Debug, Clone)]
enum Inner {
    Quic(quinn::Endpoint),
    Simulated(simulated::Socket),
}

impl Endpoint {
    /// Listens on `address` (port 0 for any free one) and can dial from the same socket. Needs a
    /// runtime.
    ///
    /// # Errors
    /// [`BindError`] if the address cannot be had.
    pub fn listen(
        address: SocketAddr,
        tls: &ServerTls,
        reset_key: &ResetKey,
        limits: EndpointLimits,
    ) -> Result<Self, BindError> {
        Self::new(address, Some(tls), Some(reset_key), tls.edge(), limits)
    }

    /// A socket that only dials; bind `0.0.0.0:0` or `[::]:0` (which reaches both families). Needs
    /// a runtime.
    ///
    /// # Errors
    /// [`BindError`] if the address cannot be had.
    pub fn dial_only(address: SocketAddr, edge: Edge) -> Result<Self, BindError> {
        Self::new(address, None, None, edge, EndpointLimits::default())
    }

    fn new(
        address: SocketAddr,
        tls: Option<&ServerTls>,
        reset_key: Option<&ResetKey>,
        edge: Edge,
        limits: EndpointLimits,
    ) -> Result<Self, BindError> {
        let load = Arc::new(Load::new(limits));
        if let Some(network) = simulated::Network::current() {
            let names = tls.map(ServerTls::names);
            let taken = || BindError::Bind { address, source: io::ErrorKind::AddrInUse.into() };
            let socket =
                simulated::Socket::bind(&network, address, edge, names).ok_or_else(taken)?;
            let local = socket.address();
            let buffers = SocketBuffers { receive: 0, send: 0 };
            return Ok(Self { inner: Inner::Simulated(socket), local, buffers, edge, load });
        }
        let unusable = |source| BindError::Socket { address, source };
        let (socket, buffers) = bind(address)?;
        let mut config = match reset_key {
            Some(key) => endpoint_config(key),
            None => quinn::EndpointConfig::default(),
        };
        config.max_udp_payload_size(PACKET_BYTES_MAX).map_err(|_| unusable(packet_size()))?;
        config.supported_versions(vec![VERSION]);
        let runtime = Arc::new(quinn::TokioRuntime);
        let mut socket = runtime.wrap_udp_socket(socket).map_err(unusable)?;
        if let Some(key) = reset_key {
            let door = FrontDoor::new(socket, edge, Arc::clone(&load), connection_ids(key));
            socket = Arc::new(door);
        }
        let config_of_server = tls.map(ServerTls::config);
        let inner =
            quinn::Endpoint::new_with_abstract_socket(config, config_of_server, socket, runtime)
                .map_err(unusable)?;
        let local = inner.local_addr().map_err(unusable)?;
        tracing::info!(
            event = event::SOCKET_BOUND,
            %local,
            ?edge,
            asked_bytes = SOCKET_BUFFER_BYTES,
            receive_bytes = buffers.receive,
            send_bytes = buffers.send,
            "UDP socket bound"
        );
        Ok(Self { inner: Inner::Quic(inner), local, buffers, edge, load })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// What the kernel granted of the 4 MiB asked for in each direction.
    #[must_use]
    pub fn socket_buffers(&self) -> SocketBuffers {
        self.buffers
    }

    /// Connections that came in and are not gone, half-open ones included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.load.connections.load(Ordering::Relaxed)
    }

    /// Waits for the next knock that the limits let in; none once the endpoint is closed. Refusals
    /// are counted and not returned. Cancel-safe. The handshake is run by the caller, in a task of
    /// its own, so that one slow stranger keeps nobody waiting.
    pub async fn accept(&self) -> Option<Accepting> {
        loop {
            let (incoming, standing) = match &self.inner {
                Inner::Quic(endpoint) => {
                    let incoming = endpoint.accept().await?;
                    let standing = self.load.standing(incoming.remote_address());
                    let half_open = self.load.half_open.load(Ordering::Relaxed);
                    let asked = half_open >= self.load.limits.unvalidated_max
                        || standing == Standing::Crowded;
                    // A crowd is held against an address only once it has shown to be its own.
                    if asked && standing != Standing::Barred && incoming.may_retry() {
                        metrics::address_validation_asked(self.edge.label());
                        // Fails only where a retry is not allowed, which was asked.
                        let _ = incoming.retry();
                        continue;
                    }
                    (Incoming::Quic(Box::new(incoming)), standing)
                }
                Inner::Simulated(socket) => {
                    (Incoming::Simulated(socket.accept().await?), Standing::Welcome)
                }
            };
            let slot = match standing {
                Standing::Welcome => self.load.slot(incoming.remote()),
                Standing::Crowded | Standing::Barred => None,
            };
            let Some(slot) = slot else {
                metrics::connection_refused(self.edge.label());
                if self.load.strangers().tells(self.load.clock.now()) {
                    incoming.refuse();
                } else {
                    incoming.ignore();
                }
                continue;
            };
            return Some(Accepting { incoming, edge: self.edge, slot });
        }
    }

    /// Dials `address` and verifies that its certificate is for `server_name`.
    ///
    /// # Errors
    /// [`ConnectError`]; `TimedOut` after `patience`.
    pub async fn connect(
        &self,
        address: SocketAddr,
        server_name: &str,
        tls: &ClientTls,
        patience: Duration,
    ) -> Result<Connection, ConnectError> {
        use quinn::ConnectError as E;
        let endpoint = match &self.inner {
            Inner::Quic(endpoint) => endpoint,
            Inner::Simulated(socket) => {
                let dialed = socket
                    .dial(address, tls.edge(), tls.names(), server_name)
                    .ok_or(ConnectError::EndpointClosed)?;
                return match tokio::time::timeout(patience, dialed.established()).await {
                    Ok(Ok(end)) => Ok(Connection::simulated(end, tls.edge())),
                    Ok(Err(source)) => Err(ConnectError::Handshake { address, source }),
                    Err(_) => Err(ConnectError::TimedOut { address }),
                };
            }
        };
        let connecting =
            endpoint.connect_with(tls.config(), address, server_name).map_err(|e| match e {
                E::EndpointStopping => ConnectError::EndpointClosed,
                E::InvalidServerName(name) => ConnectError::ServerName { name },
                E::CidsExhausted
                | E::InvalidRemoteAddress(_)
                | E::NoDefaultClientConfig
                | E::UnsupportedVersion => ConnectError::Address { address },
            })?;
        match tokio::time::timeout(patience, connecting).await {
            Ok(Ok(connection)) => Ok(Connection::new(connection, tls.edge())),
            Ok(Err(error)) => Err(ConnectError::Handshake { address, source: Closed::from(error) }),
            Err(_) => Err(ConnectError::TimedOut { address }),
        }
    }

    /// Closes every connection with code and reason and takes no more.
    pub fn close(&self, code: CloseCode, reason: &str) {
        match &self.inner {
            Inner::Quic(endpoint) => endpoint.close(code.0.into(), reason.as_bytes()),
            Inner::Simulated(socket) => socket.close(code, reason),
        }
    }

    /// Takes no more connections; those that are there go on.
    pub fn stop_listening(&self) {
        match &self.inner {
            Inner::Quic(endpoint) => endpoint.set_server_config(None),
            Inner::Simulated(socket) => socket.stop_listening(),
        }
    }

    /// Waits until the farewells of all closed connections are on their way.
    pub async fn drained(&self) {
        match &self.inner {
            Inner::Quic(endpoint) => endpoint.wait_idle().await,
            Inner::Simulated(socket) => socket.drained().await,
        }
    }
}

/// A handshake that has not been run yet.
#[derive(Debug)]
pub struct Accepting {
    incoming: Incoming,
    edge: Edge,
    slot: Slot,
}

#[derive(Debug)]
enum Incoming {
    Quic(Box<quinn::Incoming>),
    Simulated(simulated::Incoming),
}

impl Incoming {
    fn remote(&self) -> SocketAddr {
        match self {
            Self::Quic(incoming) => incoming.remote_address(),
            Self::Simulated(incoming) => incoming.remote(),
        }
    }

    fn refuse(self) {
        match self {
            Self::Quic(incoming) => incoming.refuse(),
            Self::Simulated(incoming) => incoming.refuse(),
        }
    }

    /// Turns it away without a word.
    fn ignore(self) {
        match self {
            Self::Quic(incoming) => incoming.ignore(),
            Self::Simulated(incoming) => incoming.refuse(),
        }
    }

    async fn complete(self, edge: Edge) -> Result<Connection, Closed> {
        match self {
            Self::Quic(incoming) => Ok(Connection::new((*incoming).await?, edge)),
            Self::Simulated(incoming) => {
                Ok(Connection::simulated(incoming.complete().await?, edge))
            }
        }
    }
}

impl Accepting {
    /// Who knocks; the address may be forged until the handshake is done.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.incoming.remote()
    }

    /// Turns the stranger away.
    pub fn refuse(self) {
        metrics::connection_refused(self.edge.label());
        self.incoming.refuse();
    }

    /// Runs the handshake to its end.
    ///
    /// # Errors
    /// [`AcceptError`]; `TimedOut` after five seconds.
    pub async fn complete(self) -> Result<Connection, AcceptError> {
        let Self { incoming, edge, mut slot } = self;
        let address = incoming.remote();
        let handshake = Box::pin(incoming.complete(edge));
        let result = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(connection)) => {
                slot.handshake_done();
                Ok(connection.in_slot(slot))
            }
            Ok(Err(source)) => {
                // Whoever comes to show a certificate has shown that the address is its own.
                if matches!(source, Closed::Tls { alert, .. } if CERTIFICATE_ALERTS.contains(&alert))
                {
                    slot.at_fault();
                }
                Err(AcceptError::Handshake { address, source })
            }
            Err(_) => Err(AcceptError::TimedOut { address }),
        };
        match &result {
            Ok(_) => metrics::connection_accepted(edge.label()),
            Err(_) => metrics::handshake_failed(edge.label()),
        }
        result
    }
}

fn bind(address: SocketAddr) -> Result<(UdpSocket, SocketBuffers), BindError> {
    let unusable = |source| BindError::Socket { address, source };
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))
        .map_err(unusable)?;
    if address.is_ipv6() {
        // One socket for both families; where the system forbids it IPv6 alone must do.
        let _ = socket.set_only_v6(false);
    }
    // The kernel cuts these down to its limits; what it granted is logged.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&address.into()).map_err(|source| BindError::Bind { address, source })?;
    let buffers = SocketBuffers {
        receive: granted(socket.recv_buffer_size().unwrap_or(0)),
        send: granted(socket.send_buffer_size().unwrap_or(0)),
    };
    Ok((socket.into(), buffers))
}

/// Linux reports twice what it grants, the other half being its own bookkeeping.
fn granted(reported: usize) -> usize {
    if cfg!(target_os = "linux") { reported / 2 } else { reported }
}

/// What cannot be: the library refuses sizes under 1,200 only.
fn packet_size() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the packet size is out of range")
}

fn endpoint_config(key: &ResetKey) -> quinn::EndpointConfig {
    let reset_key: Arc<dyn HmacKey> = Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &key.0));
    let mut config = quinn::EndpointConfig::new(reset_key);
    let key = key.clone();
    config.cid_generator(move || Box::new(connection_ids(&key)));
    config
}

/// By default the key of the connection ids is drawn per process, and a restarted node would take
/// every older id for noise and never send a reset for it.
fn connection_ids(key: &ResetKey) -> HashedConnectionIdGenerator {
    let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key.0), b"connection ids");
    let id_key = derived.as_ref().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    HashedConnectionIdGenerator::from_key(id_key)
}
