//! Founding, carried out: shows where this node stands, looks at where the others stand, stores
//! each step before it is shown.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::sync::broadcast;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::clock::Clock;
use crate::domain::id::{ClusterId, NodeId};
use crate::domain::node_name::NodeName;
use crate::peer::{Mesh, MeshEvent, Peers, Refusal};
use crate::protocol::peer_message::Hello;
use crate::replication::consensus::raft_codec::{CodecError, need, take_flag};
use crate::replication::error::StartError;
use crate::replication::founding::directory::{Directory, random};
use crate::replication::founding::rules::{Next, Own, Seen, Standing, decide};
use crate::telemetry::event;

/// A name counts as taken when it has been refused for this long: a node whose directory was wiped
/// is refused until the connections of its predecessor have timed out.
const NAME_IN_USE_PATIENCE: Duration = Duration::from_secs(6);

const VERSION: u8 = 1;

/// What replication adds to a hello: `version u8 · cut u8 · standing`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::replication) struct Introduction {
    /// The end of this node's log was cut, and what is missing has not been made up for.
    pub(in crate::replication) cut: bool,
    pub(in crate::replication) standing: Standing,
}

impl Introduction {
    pub(in crate::replication) fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::with_capacity(128);
        buffer.put_u8(VERSION);
        buffer.put_u8(u8::from(self.cut));
        self.standing.put(&mut buffer);
        buffer.freeze()
    }

    pub(in crate::replication) fn decode(mut bytes: Bytes) -> Result<Self, CodecError> {
        need(&bytes, 2, "introduction")?;
        let version = bytes.get_u8();
        if version != VERSION {
            let value = u64::from(version);
            return Err(CodecError::Illegal { what: "introduction version", value });
        }
        let cut = take_flag(&mut bytes, "cut flag")?;
        Ok(Self { cut, standing: Standing::take(&mut bytes)? })
    }
}

/// Puts where this node stands into its hello.
pub(in crate::replication) fn introduce(hello: &mut Hello, introduction: &Introduction) {
    hello.extra = introduction.encode();
    if let Standing::Formed { proposal, .. } = &introduction.standing {
        hello.cluster = Some(proposal.cluster);
        hello.node = proposal.founder(&hello.name).map(|founder| founder.id);
    }
}

/// Waits until this node belongs to a formed cluster. The waiting has no end of its own.
pub(in crate::replication) async fn found(
    directory: &mut Directory,
    mesh: &Mesh,
    expect: usize,
    clock: Clock,
) -> Result<(), StartError> {
    let own = Own { name: mesh.name().clone(), nonce: directory.nonce(), expect };
    let mut peers = mesh.peers();
    let mut events = mesh.events();
    let mut refused_since = None;
    loop {
        let seen = seen(&peers.borrow_and_update().clone());
        let seed = random::<32>()?;
        let mut count = 0_u64;
        let mut draw = || {
            count += 1;
            xxh3_64_with_seed(&seed, count)
        };
        let next = if refused_since.is_some() {
            Next::Wait
        } else {
            decide(&own, directory.standing(), &seen, &mut draw)
        };
        match next {
            Next::Stand(standing) => {
                tracing::info!(
                    event = event::PLEDGE_GIVEN,
                    standing = phase(&standing),
                    "founding"
                );
                directory.stand(standing.clone(), &own.name)?;
                let introduction = Introduction { cut: false, standing };
                mesh.change_hello(|hello| introduce(hello, &introduction));
                if let Standing::Formed { proposal, .. } = introduction.standing {
                    let cluster = proposal.cluster;
                    tracing::info!(event = event::CLUSTER_FOUNDED, %cluster, "the cluster is formed");
                    return Ok(());
                }
            }
            Next::Refuse(fault) => return Err(fault.into()),
            Next::Wait => {
                tokio::select! {
                    changed = peers.changed() => {
                        changed.map_err(|_| StartError::Stopped)?;
                        refused_since = None;
                    }
                    event = events.recv() => {
                        if name_in_use(&event) {
                            let since = *refused_since.get_or_insert_with(|| clock.now());
                            if clock.since(since) >= NAME_IN_USE_PATIENCE {
                                return Err(StartError::NameInUse { name: own.name });
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Whether another node told us that our name is taken.
fn name_in_use(event: &Result<MeshEvent, broadcast::error::RecvError>) -> bool {
    matches!(event, Ok(MeshEvent::Refused { refusal: Refusal::NameInUse, by_us: false, .. }))
}

/// The connected peers as the rules see them; one that says nothing legible is not seen.
fn seen(peers: &Peers) -> BTreeMap<NodeName, Seen> {
    let connected = peers.iter().filter(|(_, info)| info.connected);
    connected
        .filter_map(|(name, info)| {
            let introduction = Introduction::decode(info.hello.extra.clone()).ok()?;
            let nonce = info.hello.directory_nonce;
            let cluster = info.hello.cluster;
            Some((name.clone(), Seen { nonce, cluster, standing: introduction.standing }))
        })
        .collect()
}

fn phase(standing: &Standing) -> &'static str {
    match standing {
        Standing::Empty => "withdrawn",
        Standing::Proposing(_) => "proposing",
        Standing::Pledged { .. } => "pledged",
        Standing::Formed { .. } => "formed",
    }
}

/// The cluster and this node's id in it, once formed.
pub(in crate::replication) fn membership(
    standing: &Standing,
    name: &NodeName,
) -> Option<(ClusterId, NodeId)> {
    let Standing::Formed { proposal, .. } = standing else { return None };
    Some((proposal.cluster, proposal.founder(name)?.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn introductions_come_back_and_keep_their_bytes() {
        for cut in [false, true] {
            let introduction = Introduction { cut, standing: Standing::Empty };
            let bytes = introduction.encode();
            assert_eq!(&bytes[..], &[1, u8::from(cut), 1, 0]);
            assert_eq!(Introduction::decode(bytes), Ok(introduction));
        }
        assert!(Introduction::decode(Bytes::from_static(&[1, 2, 1, 0])).is_err());
        assert!(Introduction::decode(Bytes::from_static(&[2, 0, 1, 0])).is_err());
    }
}
