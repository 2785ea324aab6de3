//! The handle to all peers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;

use super::acceptor;
use super::book::Shared;
use super::directory::{MeshEvent, Peers};
use super::error::{CallError, MeshError, OpenError, Refusal};
use crate::domain::node_address::NodeAddress;
use crate::domain::node_name::NodeName;
use crate::protocol::peer_message::Hello;
use crate::supervisor::Supervisor;
use crate::telemetry::metrics;
use crate::transport::tls::{Authority, ClientTls, Identity, ServerTls, node_server_name};
use crate::transport::{
    Endpoint, EndpointLimits, FrameReceiver, FrameSender, Priority, ReceiveError, ResetKey,
    SendError,
};

/// Streams from all peers that wait to be taken; past it the peers wait.
const INCOMING_STREAMS_MAX: usize = 1_024;
/// Incoming connections of the peer port: members, and those that wait to be told off.
const CONNECTIONS_MAX: usize = 256;
/// Handshakes under way on the peer port from which on addresses must be validated.
const UNVALIDATED_MAX: usize = 32;
/// Connections of one address that have not said a hello yet; nodes may share an address.
const STRANGERS_PER_ADDRESS_MAX: usize = 64;
/// The kind of the single frame that a call sends each way.
const CALL: u8 = 1;
/// What saying farewell may take.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// What a stream between peers is for: its first byte. 0 is the mesh's own; the others belong to
/// the layer above, which names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub u8);

/// What a mesh needs to know.
#[derive(Debug)]
pub struct MeshSettings {
    /// The UDP address of the peer port; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Where other nodes reach it, if that is not `listen`.
    pub advertise: Option<NodeAddress>,
    /// Addresses to dial from the start. The node's own may be among them.
    pub seeds: Vec<NodeAddress>,
    /// The node's certificate and key.
    pub identity: Identity,
    /// The cluster's authority.
    pub authority: Authority,
    /// Kept in the node's directory.
    pub reset_key: ResetKey,
}

/// A stream that a peer opened, its lane byte already read.
#[derive(Debug)]
pub struct IncomingStream {
    /// Who opened it.
    pub peer: NodeName,
    /// Which connection it came over; see [`PeerInfo::connection`](super::PeerInfo::connection).
    pub connection: u64,
    /// What it is for.
    pub lane: Lane,
    /// Towards the peer.
    pub sender: FrameSender,
    /// From the peer.
    pub receiver: FrameReceiver,
}

impl IncomingStream {
    /// The request, where the lane is one of calls; none if the peer gave it up.
    ///
    /// # Errors
    /// [`ReceiveError`] if the stream is broken.
    pub async fn request(&mut self) -> Result<Option<Bytes>, ReceiveError> {
        Ok(self.receiver.next().await?.map(|frame| frame.body))
    }

    /// Answers a call and ends the stream.
    ///
    /// # Errors
    /// [`SendError`] if the peer does not wait any more or the answer is too long.
    pub async fn reply(mut self, answer: Bytes) -> Result<(), SendError> {
        self.sender.queue_shared(CALL, answer)?;
        self.sender.finish().await
    }
}

/// The handle to all peers; cheap to clone. It lives until [`stop`](Self::stop).
#[derive(Debug, Clone)]
pub struct Mesh {
    shared: Arc<Shared>,
}

impl Mesh {
    /// Opens the peer port and starts to dial. `hello` is said to every peer; the mesh fills in the
    /// peer address. Streams that peers open come out of the receiver, which must be served.
    ///
    /// # Errors
    /// [`MeshError`] if the port cannot be had or the certificate is not for this node.
    pub fn start(
        settings: MeshSettings,
        mut hello: Hello,
        supervisor: &Supervisor,
    ) -> Result<(Self, mpsc::Receiver<IncomingStream>), MeshError> {
        let found = settings.identity.names();
        let name = hello.name.clone();
        if !found.contains(&node_server_name(name.as_str())) {
            return Err(MeshError::CertificateName { name, found });
        }
        let server_tls = ServerTls::for_peers(&settings.identity, &settings.authority)?;
        let dial_tls = ClientTls::for_peer(&settings.authority, &settings.identity)?;
        let limits = EndpointLimits {
            connections_max: CONNECTIONS_MAX,
            unvalidated_max: UNVALIDATED_MAX,
            strangers_per_address_max: STRANGERS_PER_ADDRESS_MAX,
            proxies: Vec::new(),
        };
        let endpoint = Endpoint::listen(settings.listen, &server_tls, &settings.reset_key, limits)?;
        hello.peer_address =
            settings.advertise.or_else(|| NodeAddress::from_socket(endpoint.local_address()));
        let (incoming, streams) = mpsc::channel(INCOMING_STREAMS_MAX);
        let shared = Arc::new(Shared::new(name, endpoint, dial_tls, supervisor, hello, incoming));
        supervisor.spawn("peer acceptor", acceptor::run(Arc::clone(&shared)));
        for address in settings.seeds {
            Shared::dial(&shared, address, None);
        }
        Ok((Self { shared }, streams))
    }

    /// This node's name.
    #[must_use]
    pub fn name(&self) -> &NodeName {
        &self.shared.name
    }

    /// Where the peer port is.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.shared.endpoint.local_address()
    }

    /// What this node says to its peers.
    #[must_use]
    pub fn hello(&self) -> Hello {
        self.shared.hello.borrow().clone()
    }

    /// Changes what this node says and says it to every connected peer. Name, directory and
    /// incarnation cannot change while it runs; a change of them is ignored.
    pub fn change_hello(&self, change: impl FnOnce(&mut Hello)) {
        self.shared.hello.send_if_modified(|hello| {
            let before = hello.clone();
            change(hello);
            hello.name = before.name.clone();
            hello.directory_nonce = before.directory_nonce;
            hello.incarnation = before.incarnation;
            hello.revision = before.revision;
            let changed = *hello != before;
            hello.revision += u64::from(changed);
            changed
        });
    }

    /// Says another name than the certificate has, to be refused.
    #[cfg(test)]
    pub(super) fn lie_about_name(&self, name: NodeName) {
        self.shared.hello.send_modify(|hello| hello.name = name);
    }

    /// Dials these addresses too, from now on. At most 128 are dialled in all; more are ignored.
    pub fn add_addresses(&self, addresses: impl IntoIterator<Item = NodeAddress>) {
        for address in addresses {
            Shared::dial(&self.shared, address, None);
        }
    }

    /// Everyone who has been met, connected or not.
    #[must_use]
    pub fn peers(&self) -> watch::Receiver<Peers> {
        self.shared.peers.subscribe()
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<MeshEvent> {
        self.shared.events.subscribe()
    }

    /// Whether there is a connection to this peer now.
    #[must_use]
    pub fn is_connected(&self, peer: &NodeName) -> bool {
        self.shared.connection(peer).is_some()
    }

    /// The estimate of a round trip to a connected peer.
    #[must_use]
    pub fn rtt(&self, peer: &NodeName) -> Option<Duration> {
        self.shared.connection(peer).map(|connection| connection.rtt())
    }

    /// Opens a stream to a connected peer, which learns of it with the first flushed frame.
    ///
    /// # Errors
    /// [`OpenError`] if there is no connection; it is not waited for.
    pub async fn open(
        &self,
        peer: &NodeName,
        lane: Lane,
        priority: Priority,
    ) -> Result<(FrameSender, FrameReceiver), OpenError> {
        let connection = self
            .shared
            .connection(peer)
            .ok_or_else(|| OpenError::NotConnected { peer: peer.clone() })?;
        let (mut sender, receiver) = connection.open_bi().await?;
        sender.set_priority(priority);
        sender.queue_raw(Bytes::copy_from_slice(&[lane.0]));
        Ok((sender, receiver))
    }

    /// Sends one frame to a connected peer on a stream of its own and waits for the one that comes
    /// back.
    ///
    /// # Errors
    /// [`CallError`]; only after `NotConnected` is it certain that the peer did nothing.
    pub async fn call(
        &self,
        peer: &NodeName,
        lane: Lane,
        request: Bytes,
        deadline: Instant,
    ) -> Result<Bytes, CallError> {
        let conversation = async {
            let (mut sender, mut receiver) = self.open(peer, lane, Priority::Normal).await?;
            sender.queue_shared(CALL, request)?;
            sender.finish().await?;
            receiver.next().await?.map(|frame| frame.body).ok_or(CallError::NoAnswer)
        };
        let answer = tokio::time::timeout_at(deadline, conversation)
            .await
            .unwrap_or(Err(CallError::TimedOut));
        if answer.is_err() {
            metrics::peer_call_failed();
        }
        answer
    }

    /// Ends the connection to a peer for a reason that it will see. It may come again; whether to
    /// let it is asked anew then.
    pub fn refuse(&self, peer: &NodeName, refusal: Refusal) {
        if let Some(connection) = self.shared.connection(peer) {
            let remote = connection.remote();
            self.shared.refused(remote, Some(peer), refusal, true);
            refusal.close(&connection);
        }
    }

    /// Says farewell to every peer and closes the port.
    pub async fn stop(&self) {
        let refusal = Refusal::Stopping;
        self.shared.supervisor.signal_stop();
        self.shared.endpoint.close(refusal.code(), &refusal.to_string());
        // A peer that does not acknowledge the farewell finds out by itself.
        let _ = tokio::time::timeout(FAREWELL_TIMEOUT, self.shared.endpoint.drained()).await;
    }
}
