//! Dials one address for as long as the mesh lives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::acceptor::turn_away;
use super::book::Shared;
use super::directory::MeshEvent;
use super::error::Refusal;
use super::handshake::{Failure, certified_name, greet};
use super::link::{self, Link};
use crate::domain::node_address::NodeAddress;
use crate::domain::node_name::NodeName;
use crate::telemetry::{event, metrics};
use crate::transport::tls::ANY_NODE;
use crate::transport::{Closed, ConnectError};

/// The shortest pause before an address is dialled again. Constant on purpose: a peer that comes
/// back after an hour is found as fast as one that comes back after a second.
const PAUSE_MS_MIN: u64 = 100;
/// Added by chance, so that a cluster does not dial in step.
const PAUSE_SPREAD_MS: u64 = 50;
/// Added by the higher name of a pair: mostly the lower one, whose connection would win, is there
/// first and the second is never made.
const YIELD_MS: u64 = 50;
/// The pause after the other side said no for a reason that will not pass by itself soon.
const REFUSED_PAUSE_MS: u64 = 500;
/// What an unanswered dial may take; a node that comes up meanwhile is dialled anew after it.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// What the resolution of a host name may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

/// How an attempt ended.
enum Attempt {
    /// The peer is connected, by this attempt or otherwise.
    Reached(NodeName),
    /// The address is this node's own.
    Ourselves,
    /// The peer said no, or we did.
    Refused(Refusal),
    /// There is nobody, or nobody to trust.
    Failed(DialFailure),
}

/// Why an address could not be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum DialFailure {
    #[error("the host name cannot be resolved")]
    Unresolved,
    #[error("{error}{}", cause(.error))]
    Connect { error: ConnectError },
    #[error("its certificate is for no node or for several")]
    NoName,
    #[error("{0}")]
    Closed(Closed),
}

fn cause(error: &ConnectError) -> String {
    std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default()
}

/// Dials until the mesh stops or the address turns out to be this node's own. While the peer that
/// was last found there is connected, by whichever connection, it rests.
pub(super) async fn run(shared: Arc<Shared>, address: NodeAddress, hint: Option<NodeName>) {
    let mut stop = shared.supervisor.stop_signal();
    tokio::select! {
        () = stop.stopped() => {}
        () = dial_forever(&shared, &address, hint) => {}
    }
}

async fn dial_forever(shared: &Arc<Shared>, address: &NodeAddress, hint: Option<NodeName>) {
    let mut peer = hint;
    let mut complaint = None;
    for round in 0_u64.. {
        if let Some(peer) = &peer {
            shared.disconnected(peer).await;
        }
        let mut pause_ms = pause_ms(&shared.name, peer.as_ref(), address, round);
        match attempt(shared, address, round).await {
            Attempt::Reached(name) => {
                peer = Some(name);
                complaint = None;
                // Rests at the top of the loop.
            }
            Attempt::Ourselves => return,
            Attempt::Refused(refusal) => {
                complaint = None;
                if !matches!(refusal, Refusal::Duplicate | Refusal::Superseded | Refusal::Stopping)
                {
                    pause_ms += REFUSED_PAUSE_MS;
                }
            }
            Attempt::Failed(failure) => {
                metrics::peer_dial_failed();
                if complaint.as_ref() != Some(&failure) {
                    tracing::info!(
                        event = event::PEER_UNREACHABLE,
                        %address,
                        reason = %failure,
                        "peer cannot be reached"
                    );
                    let reason = failure.to_string();
                    shared.emit(MeshEvent::Unreachable { address: address.clone(), reason });
                    complaint = Some(failure);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
}

async fn attempt(shared: &Arc<Shared>, address: &NodeAddress, round: u64) -> Attempt {
    let Some(socket) = resolve(address, shared.endpoint.local_address(), round).await else {
        return Attempt::Failed(DialFailure::Unresolved);
    };
    let dialed = shared.endpoint.connect(socket, ANY_NODE, &shared.dial_tls, DIAL_TIMEOUT).await;
    let connection = match dialed {
        Ok(connection) => connection,
        Err(error) => return Attempt::Failed(DialFailure::Connect { error }),
    };
    let Some(peer) = certified_name(&connection) else {
        let refusal = Refusal::CertificateName;
        shared.refused(socket, None, refusal, true);
        refusal.close(&connection);
        return Attempt::Failed(DialFailure::NoName);
    };
    let Some(claim) = shared.claim_dial(&peer) else {
        Refusal::Duplicate.close(&connection);
        return Attempt::Reached(peer);
    };
    // Before the hello is said: what changes from here on is said again on the control lane.
    let ours = shared.hello.subscribe();
    let greeted = async {
        let greeting = greet(shared, &connection, &peer).await?;
        let number =
            shared.take_place(&connection, &greeting.theirs, true).map_err(Failure::RefusedHere)?;
        Ok(Link { connection: connection.clone(), number, greeting, ours })
    }
    .await;
    drop(claim);
    match greeted {
        Ok(link) => {
            let task = link::run(Arc::clone(shared), link);
            shared.supervisor.spawn(format!("peer link {peer}"), task);
            Attempt::Reached(peer)
        }
        Err(failure) => {
            turn_away(shared, &connection, Some(&peer), &failure);
            match failure.refusal() {
                Some((Refusal::Itself, _)) => Attempt::Ourselves,
                Some((refusal, _)) => Attempt::Refused(refusal),
                None => Attempt::Failed(match failure {
                    Failure::Closed(closed) => DialFailure::Closed(closed),
                    Failure::RefusedHere(_) => DialFailure::NoName,
                }),
            }
        }
    }
}

/// A socket address behind `address` that the endpoint can reach; another one each round where a
/// host has several.
async fn resolve(address: &NodeAddress, local: SocketAddr, round: u64) -> Option<SocketAddr> {
    if let Some(socket) = address.socket() {
        return Some(socket);
    }
    let looked_up = tokio::time::timeout(
        RESOLVE_TIMEOUT,
        tokio::net::lookup_host((address.host(), address.port())),
    );
    let reachable: Vec<SocketAddr> =
        looked_up.await.ok()?.ok()?.filter(|socket| local.is_ipv6() || socket.is_ipv4()).collect();
    let turn = usize::try_from(round).unwrap_or(0).checked_rem(reachable.len())?;
    reachable.get(turn).copied()
}

/// The pause before the next round; it differs by node, address and round, and not by chance, so
/// that a simulated run can be repeated.
fn pause_ms(ours: &NodeName, peer: Option<&NodeName>, address: &NodeAddress, round: u64) -> u64 {
    let spread = xxh3_64_with_seed(address.as_str().as_bytes(), round)
        ^ xxh3_64_with_seed(ours.as_str().as_bytes(), round);
    let yielding = if peer.is_some_and(|peer| peer < ours) { YIELD_MS } else { 0 };
    PAUSE_MS_MIN + spread % PAUSE_SPREAD_MS + yielding
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_short_and_spread() {
        let ours = NodeName::parse("n2").unwrap();
        let (lower, higher) = (NodeName::parse("n1").unwrap(), NodeName::parse("n3").unwrap());
        let address = NodeAddress::parse("127.0.0.1:7401").unwrap();
        let pauses: Vec<u64> =
            (0..100).map(|round| pause_ms(&ours, Some(&higher), &address, round)).collect();
        assert!(pauses.iter().all(|pause| (100..150).contains(pause)));
        assert!(pauses.iter().collect::<std::collections::BTreeSet<_>>().len() > 20);
        let yielding = pause_ms(&ours, Some(&lower), &address, 0);
        assert_eq!(yielding, pauses[0] + YIELD_MS);
    }

    #[tokio::test]
    async fn addresses_and_names_are_resolved_for_the_family_of_the_socket() {
        let local: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let literal = NodeAddress::parse("127.0.0.2:7").unwrap();
        assert_eq!(resolve(&literal, local, 0).await, Some("127.0.0.2:7".parse().unwrap()));
        let named = NodeAddress::parse("localhost:7").unwrap();
        assert!(resolve(&named, local, 3).await.unwrap().is_ipv4());
    }
}
