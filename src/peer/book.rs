//! What the mesh's tasks share: the book of connections that stand, and what is published of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{broadcast, mpsc, watch};

use super::dialer;
use super::directory::{Candidate, MeshEvent, PEERS_MAX, PeerInfo, Peers, Standing, admit};
use super::error::Refusal;
use super::mesh::{IncomingStream, Lane};
use crate::domain::node_address::NodeAddress;
use crate::domain::node_name::NodeName;
use crate::protocol::peer_message::{CONTROL_LANE, Hello};
use crate::supervisor::Supervisor;
use crate::telemetry::{event, metrics};
use crate::transport::tls::ClientTls;
use crate::transport::{Closed, Connection, Endpoint};

/// The lane that is the mesh's own.
pub(super) const CONTROL: Lane = Lane(CONTROL_LANE);
/// Addresses that are dialled, of seeds and learnt ones.
const ADDRESSES_MAX: usize = 128;
/// Events that a slow receiver may be behind.
const EVENTS_MAX: usize = 256;

/// What the mesh's tasks share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) name: NodeName,
    pub(super) endpoint: Endpoint,
    pub(super) dial_tls: ClientTls,
    pub(super) supervisor: Supervisor,
    pub(super) hello: watch::Sender<Hello>,
    pub(super) incoming: mpsc::Sender<IncomingStream>,
    pub(super) peers: watch::Sender<Peers>,
    pub(super) events: broadcast::Sender<MeshEvent>,
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
    /// The last stranger whose certificate was of no use, and TLS's number for why.
    last_stranger: Option<(IpAddr, u8)>,
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

impl Shared {
    pub(super) fn new(
        name: NodeName,
        endpoint: Endpoint,
        dial_tls: ClientTls,
        supervisor: &Supervisor,
        hello: Hello,
        incoming: mpsc::Sender<IncomingStream>,
    ) -> Self {
        Self {
            name,
            endpoint,
            dial_tls,
            supervisor: supervisor.clone(),
            hello: watch::channel(hello).0,
            incoming,
            peers: watch::channel(Peers::default()).0,
            events: broadcast::channel(EVENTS_MAX).0,
            book: Mutex::default(),
        }
    }

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
        let hello = self.newer_than(&hello).unwrap_or(hello);
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

    /// Publishes another hello of a connected peer, unless a newer one was heard before.
    pub(super) fn hello_changed(self: &Arc<Self>, number: u64, hello: &Hello) {
        let peer = &hello.name;
        let book = self.book();
        let Some(link) = book.links.get(peer).filter(|link| link.number == number) else { return };
        let hello = seen_from_here(hello, link.connection.remote());
        if self.newer_than(&hello).is_some() {
            return;
        }
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

    /// What was heard of a peer before, if `hello` was said before it: of two connections the one
    /// that stands may be the one whose hello is the older. Called under the lock of the book.
    fn newer_than(&self, hello: &Hello) -> Option<Hello> {
        let peers = self.peers.borrow();
        let heard = peers.get(&hello.name).map(|info| &info.hello);
        heard.filter(|heard| hello.is_older_than(heard)).cloned()
    }

    /// A stranger was kept out by TLS: no certificate, or none of this cluster's authority. Told once
    /// for each address and reason in a row; all are counted.
    pub(super) fn kept_out(&self, remote: SocketAddr, alert: u8, reason: &str) {
        metrics::peer_refused("certificate", true);
        let stranger = Some((remote.ip(), alert));
        let news = std::mem::replace(&mut self.book().last_stranger, stranger) != stranger;
        if news {
            tracing::warn!(
                event = event::PEER_REFUSED,
                peer = "unknown",
                %remote,
                alert,
                reason,
                by_us = true,
                "peer refused"
            );
        } else {
            tracing::debug!(%remote, alert, reason, "peer refused");
        }
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
