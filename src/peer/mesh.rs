//! The handle to all peers, and the one place that changes who is connected.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;

use super::directory::{Candidate, MeshEvent, PEERS_MAX, PeerInfo, Peers, Standing, admit};
use super::error::{CallError, MeshError, OpenError, Refusal};
use super::{acceptor, dialer};
use crate::domain::node_address::NodeAddress;
use crate::domain::node_name::NodeName;
use crate::protocol::peer_message::{CONTROL_LANE, Hello};
use crate::supervisor::Supervisor;
use crate::telemetry::{event, metrics};
use crate::transport::tls::{Authority, ClientTls, Identity, ServerTls, node_server_name};
use crate::transport::{
    Closed, Connection, Endpoint, EndpointLimits, FrameReceiver, FrameSender, Priority,
    ReceiveError, ResetKey, SendError,
};

/// Streams from all peers that wait to be taken; past it the peers wait.
const INCOMING_STREAMS_MAX: usize = 1_024;
/// Events that a slow receiver may be behind.
const EVENTS_MAX: usize = 256;
/// Addresses that are dialled, of seeds and learnt ones.
const ADDRESSES_MAX: usize = 128;
/// Incoming connections of the peer port: members, and those that wait to be told off.
const CONNECTIONS_MAX: usize = 256;
/// Handshakes under way on the peer port from which on addresses must be validated.
const UNVALIDATED_MAX: usize = 32;
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
    /// Which connection it came over; see [`PeerInfo::connection`].
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

/// What the mesh's tasks share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) name: NodeName,
    pub(super) endpoint: Endpoint,
    pub(super) dial_tls: ClientTls,
    pub(super) supervisor: Supervisor,
    pub(super) hello: watch::Sender<Hello>,
    pub(super) incoming: mpsc::Sender<IncomingStream>,
    peers: watch::Sender<Peers>,
    events: broadcast::Sender<MeshEvent>,
    book: Mutex<Book>,
}

/// The connections that stand, and what must change together with them.
#[derive(Debug, Default)]
struct Book {
    links: BTreeMap<NodeName, Link>,
    /// Peers that this node is shaking hands with as the dialler.
    dialing: BTreeSet<NodeName>,
    addresses: BTreeSet<NodeAddress>,
    connections: u64,
    last_refusal: BTreeMap<Option<NodeName>, Refusal>,
}

#[derive(Debug)]
struct Link {
    connection: Connection,
    number: u64,
    directory_nonce: u64,
    incarnation: u64,
    dialed_by_us: bool,
}

impl Link {
    fn standing(&self) -> Standing {
        Standing {
            directory_nonce: self.directory_nonce,
            incarnation: self.incarnation,
            dialed_by_us: self.dialed_by_us,
            alive: self.connection.close_reason().is_none(),
        }
    }
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
        let limits =
            EndpointLimits { connections_max: CONNECTIONS_MAX, unvalidated_max: UNVALIDATED_MAX };
        let endpoint = Endpoint::listen(settings.listen, &server_tls, &settings.reset_key, limits)?;
        hello.peer_address =
            settings.advertise.or_else(|| NodeAddress::from_socket(endpoint.local_address()));
        let (incoming, streams) = mpsc::channel(INCOMING_STREAMS_MAX);
        let shared = Arc::new(Shared {
            name,
            endpoint,
            dial_tls,
            supervisor: supervisor.clone(),
            hello: watch::channel(hello).0,
            incoming,
            peers: watch::channel(Peers::default()).0,
            events: broadcast::channel(EVENTS_MAX).0,
            book: Mutex::default(),
        });
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
            *hello != before
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

impl Shared {
    /// Begins to dial an address, unless that is done already. `hint` is who is believed to be
    /// there.
    pub(super) fn dial(shared: &Arc<Self>, address: NodeAddress, hint: Option<NodeName>) {
        let new = {
            let mut book = shared.book();
            book.addresses.len() < ADDRESSES_MAX && book.addresses.insert(address.clone())
        };
        if new {
            let task = dialer::run(Arc::clone(shared), address.clone(), hint);
            shared.supervisor.spawn(format!("peer dialler {address}"), task);
        }
    }

    /// The live connection to a peer.
    pub(super) fn connection(&self, peer: &NodeName) -> Option<Connection> {
        let book = self.book();
        let connection = &book.links.get(peer)?.connection;
        connection.close_reason().is_none().then(|| connection.clone())
    }

    /// Claims the right to shake hands with a peer as the dialler; none if there is a connection
    /// already or another handshake under way.
    pub(super) fn claim_dial(self: &Arc<Self>, peer: &NodeName) -> Option<DialClaim> {
        let mut book = self.book();
        let connected = book.links.get(peer).is_some_and(|link| link.standing().alive);
        (!connected && book.dialing.insert(peer.clone()))
            .then(|| DialClaim { shared: Arc::clone(self), peer: peer.clone() })
    }

    /// Makes `connection` the one to its peer, or says why not. The one that it replaces is closed.
    ///
    /// Gives the connection's number.
    pub(super) fn take_place(
        self: &Arc<Self>,
        connection: &Connection,
        hello: &Hello,
        dialed_by_us: bool,
    ) -> Result<u64, Refusal> {
        let peer = &hello.name;
        let mut book = self.book();
        let standing = book.links.get(peer).map(Link::standing);
        admit(&self.name, standing, Candidate { hello, dialed_by_us })?;
        if !self.peers.borrow().contains_key(peer) && self.peers.borrow().len() >= PEERS_MAX {
            return Err(Refusal::TooManyPeers);
        }
        book.connections += 1;
        let number = book.connections;
        let link = Link {
            connection: connection.clone(),
            number,
            directory_nonce: hello.directory_nonce,
            incarnation: hello.incarnation,
            dialed_by_us,
        };
        if let Some(former) = book.links.insert(peer.clone(), link) {
            Refusal::Superseded.close(&former.connection);
        }
        book.last_refusal.remove(&Some(peer.clone()));
        let hello = seen_from_here(hello, connection.remote());
        let info = PeerInfo {
            hello: hello.clone(),
            connected: true,
            remote: connection.remote(),
            connection: number,
        };
        // Under the lock, so that what is published follows the order of the book.
        self.peers.send_modify(|peers| {
            Arc::make_mut(peers).insert(peer.clone(), info);
        });
        metrics::peers_connected(book.links.len());
        drop(book);
        tracing::info!(
            event = event::PEER_CONNECTED,
            %peer,
            remote = %connection.remote(),
            dialed = dialed_by_us,
            incarnation = hello.incarnation,
            "peer connected"
        );
        if let Some(address) = hello.peer_address.clone() {
            Self::dial(self, address, Some(peer.clone()));
        }
        self.emit(MeshEvent::Connected { peer: peer.clone(), hello });
        Ok(number)
    }

    /// Takes a connection off the book, unless another took its place before.
    pub(super) fn leave_place(&self, peer: &NodeName, number: u64, closed: &Closed) {
        let mut book = self.book();
        if book.links.get(peer).is_none_or(|link| link.number != number) {
            return;
        }
        book.links.remove(peer);
        self.peers.send_modify(|peers| {
            if let Some(info) = Arc::make_mut(peers).get_mut(peer) {
                info.connected = false;
            }
        });
        metrics::peers_connected(book.links.len());
        drop(book);
        tracing::info!(
            event = event::PEER_DISCONNECTED,
            %peer,
            reason = %closed,
            "peer disconnected"
        );
        self.emit(MeshEvent::Disconnected { peer: peer.clone(), refusal: refusal_of(closed) });
    }

    /// Publishes another hello of a connected peer.
    pub(super) fn hello_changed(self: &Arc<Self>, number: u64, hello: &Hello) {
        let peer = &hello.name;
        let book = self.book();
        let Some(link) = book.links.get(peer).filter(|link| link.number == number) else { return };
        let hello = seen_from_here(hello, link.connection.remote());
        self.peers.send_modify(|peers| {
            if let Some(info) = Arc::make_mut(peers).get_mut(peer) {
                info.hello = hello.clone();
            }
        });
        drop(book);
        if let Some(address) = hello.peer_address.clone() {
            Self::dial(self, address, Some(peer.clone()));
        }
        self.emit(MeshEvent::HelloChanged { peer: peer.clone(), hello });
    }

    /// Counts and tells a refusal; one that repeats the peer's last is logged quietly.
    pub(super) fn refused(
        &self,
        remote: SocketAddr,
        peer: Option<&NodeName>,
        refusal: Refusal,
        by_us: bool,
    ) {
        metrics::peer_refused(refusal.label(), by_us);
        let ordinary = matches!(
            refusal,
            Refusal::Duplicate | Refusal::Superseded | Refusal::Stopping | Refusal::Itself
        );
        let news = !ordinary && {
            let mut book = self.book();
            // Only names under our authority come here, yet nothing bounds how many it made.
            if book.last_refusal.len() > PEERS_MAX {
                book.last_refusal.clear();
            }
            book.last_refusal.insert(peer.cloned(), refusal) != Some(refusal)
        };
        let peer_name = peer.map_or("unknown", NodeName::as_str);
        if news {
            let code = match refusal {
                Refusal::NameInUse => event::NAME_IN_USE,
                _ => event::PEER_REFUSED,
            };
            tracing::warn!(
                event = code,
                peer = peer_name,
                %remote,
                reason = %refusal,
                by_us,
                "peer refused"
            );
        } else {
            tracing::debug!(peer = peer_name, %remote, reason = %refusal, by_us, "peer refused");
        }
        if !ordinary {
            self.emit(MeshEvent::Refused { remote, peer: peer.cloned(), refusal, by_us });
        }
    }

    /// Tells those who listen; that nobody does is no fault.
    pub(super) fn emit(&self, event: MeshEvent) {
        let _ = self.events.send(event);
    }

    /// Waits while there is a connection to this peer.
    pub(super) async fn disconnected(&self, peer: &NodeName) {
        let mut peers = self.peers.subscribe();
        let gone = |peers: &Peers| !peers.get(peer).is_some_and(|info| info.connected);
        // The sender lives in `self`.
        let _ = peers.wait_for(gone).await;
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to shake hands with a peer as the dialler, given back on drop.
#[derive(Debug)]
pub(super) struct DialClaim {
    shared: Arc<Shared>,
    peer: NodeName,
}

impl Drop for DialClaim {
    fn drop(&mut self) {
        self.shared.book().dialing.remove(&self.peer);
    }
}

/// What the other side meant by closing.
pub(super) fn refusal_of(closed: &Closed) -> Option<Refusal> {
    match closed {
        Closed::There { code, .. } => Refusal::from_code(*code),
        _ => None,
    }
}

/// The hello with its wildcard addresses replaced by the one that its node was reached at.
fn seen_from_here(hello: &Hello, remote: SocketAddr) -> Hello {
    let seen = |address: &Option<NodeAddress>| {
        address.as_ref().map(|address| address.reached_at(remote.ip()))
    };
    Hello {
        peer_address: seen(&hello.peer_address),
        client_address: seen(&hello.client_address),
        http_address: seen(&hello.http_address),
        ..hello.clone()
    }
}

/// The lane that is the mesh's own.
pub(super) const CONTROL: Lane = Lane(CONTROL_LANE);
