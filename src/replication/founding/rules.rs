//! How empty nodes become a cluster: the pledge, as pure rules over what each node publishes.
//!
//! Every node shows where it stands in its hello, and stores it (fsynced) before it shows it. The
//! lowest name proposes once it sees as many empty nodes as the cluster is to have; each of the
//! others pledges itself to one proposal; with all pledges in hand the proposer calls the cluster
//! formed, and so does whoever sees that. A proposer that meets a lower name withdraws first,
//! never after it holds all pledges, and who pledged to it is free once it sees that. A crash
//! anywhere in between goes on from what is stored.
//!
//! ```text
//! standing  = version u8 · phase u8: 0 empty | 1 proposing · proposal
//!             | 2 pledged · proposer name · proposal | 3 formed · begun u8 · proposal
//! proposal  = cluster u64 · lineage u64 · founders u8 · { name · node u64 · nonce u64 }*
//! name      = length u8 · text
//! ```

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::domain::id::{ClusterId, Lineage, NodeId};
use crate::domain::node_name::NodeName;
use crate::replication::consensus::raft_codec::{CodecError, need, take_flag};

const VERSION: u8 = 1;
/// Founders of one cluster.
pub const FOUNDERS_MAX: usize = 7;

/// One member of the initial voter set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::replication) struct Founder {
    pub(in crate::replication) name: NodeName,
    pub(in crate::replication) id: NodeId,
    /// Of its directory: another directory under the same name is another node.
    pub(in crate::replication) nonce: u64,
}

/// A cluster to be: who belongs to it, and what everything in it is named by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::replication) struct Proposal {
    pub(in crate::replication) cluster: ClusterId,
    pub(in crate::replication) lineage: Lineage,
    /// In the order of their names.
    pub(in crate::replication) founders: Vec<Founder>,
}

impl Proposal {
    pub(in crate::replication) fn founder(&self, name: &NodeName) -> Option<&Founder> {
        self.founders.iter().find(|founder| founder.name == *name)
    }
}

/// Where a node stands in the founding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::replication) enum Standing {
    /// It belongs to nothing.
    Empty,
    /// It asks for pledges.
    Proposing(Proposal),
    /// It has given its pledge and gives no other.
    Pledged {
        /// To whom.
        proposer: NodeName,
        /// For what.
        proposal: Proposal,
    },
    /// The cluster is there.
    Formed {
        /// Which.
        proposal: Proposal,
        /// This node's log has its first entry: from now on an empty log is a lost one.
        begun: bool,
    },
}

/// What this node sees of a connected peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::replication) struct Seen {
    pub(in crate::replication) nonce: u64,
    /// The cluster that its hello names.
    pub(in crate::replication) cluster: Option<ClusterId>,
    pub(in crate::replication) standing: Standing,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::replication) enum Next {
    /// Nothing, until the peers show something new.
    Wait,
    /// Store this standing, then show it.
    Stand(Standing),
    /// This node cannot belong here.
    Refuse(FoundingFault),
}

/// Why a node cannot be part of what it sees.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoundingFault {
    /// There is a cluster already, and this node is not of its founders.
    #[error("{peer} belongs to cluster {cluster}, which this node was not founded with")]
    OtherCluster {
        /// Who.
        peer: NodeName,
        /// Its cluster.
        cluster: ClusterId,
    },
    /// A proposal counts other founders than this node's settings.
    #[error("{peer} founds a cluster of {found} nodes, this node expects {expected}")]
    OtherCount {
        /// Who.
        peer: NodeName,
        /// Its founders.
        found: usize,
        /// Ours.
        expected: usize,
    },
}

/// This node, as the rules need it.
#[derive(Debug, Clone)]
pub(in crate::replication) struct Own {
    pub(in crate::replication) name: NodeName,
    pub(in crate::replication) nonce: u64,
    /// The initial voter set's size.
    pub(in crate::replication) expect: usize,
}

/// Decides what an unformed node does about what it sees. `draw` gives random numbers.
pub(in crate::replication) fn decide(
    own: &Own,
    standing: &Standing,
    seen: &BTreeMap<NodeName, Seen>,
    draw: &mut dyn FnMut() -> u64,
) -> Next {
    if let Some(next) = meet_formed(own, standing, seen) {
        return next;
    }
    match standing {
        Standing::Formed { .. } => Next::Wait,
        Standing::Proposing(proposal) => gather(own, proposal, seen),
        Standing::Pledged { proposer, proposal } => hold(own, proposer, proposal, seen),
        Standing::Empty => begin(own, seen, draw),
    }
}

/// A formed cluster in sight: this node's own, or one that it has no place in.
fn meet_formed(own: &Own, standing: &Standing, seen: &BTreeMap<NodeName, Seen>) -> Option<Next> {
    let (peer, cluster, formed) = seen.iter().find_map(|(peer, seen)| match &seen.standing {
        Standing::Formed { proposal, .. } => Some((peer, proposal.cluster, Some(proposal))),
        _ => seen.cluster.map(|cluster| (peer, cluster, None)),
    })?;
    // It was formed with a pledge of this very directory, which was given back since: an older hello of
    // the proposer, over another connection, can come after the newer one and look like a withdrawal.
    let pledged = formed.filter(|proposal| {
        proposal.founder(&own.name).is_some_and(|founder| founder.nonce == own.nonce)
    });
    match (standing, pledged) {
        (Standing::Empty, Some(proposal)) => {
            let proposal = proposal.clone();
            Some(Next::Stand(Standing::Formed { proposal, begun: false }))
        }
        (Standing::Proposing(proposal) | Standing::Pledged { proposal, .. }, _)
            if proposal.cluster == cluster =>
        {
            Some(Next::Stand(Standing::Formed { proposal: proposal.clone(), begun: false }))
        }
        (Standing::Formed { proposal, .. }, _) if proposal.cluster == cluster => None,
        _ => Some(Next::Refuse(FoundingFault::OtherCluster { peer: peer.clone(), cluster })),
    }
}

/// A proposer counts its pledges.
fn gather(own: &Own, proposal: &Proposal, seen: &BTreeMap<NodeName, Seen>) -> Next {
    let pledged = |founder: &Founder| {
        let Some(peer) = seen.get(&founder.name) else { return founder.name == own.name };
        let given = matches!(&peer.standing, Standing::Pledged { proposal: given, .. }
            if given == proposal);
        given && peer.nonce == founder.nonce
    };
    if proposal.founders.iter().all(pledged) {
        let proposal = proposal.clone();
        return Next::Stand(Standing::Formed { proposal, begun: false });
    }
    let lower = seen.keys().any(|name| *name < own.name);
    let wiped =
        |founder: &Founder| seen.get(&founder.name).is_some_and(|peer| peer.nonce != founder.nonce);
    let stale = own.expect != proposal.founders.len() || proposal.founders.iter().any(wiped);
    if lower || stale { Next::Stand(Standing::Empty) } else { Next::Wait }
}

/// A pledged node waits for its proposer, or is released by it.
fn hold(
    own: &Own,
    proposer: &NodeName,
    proposal: &Proposal,
    seen: &BTreeMap<NodeName, Seen>,
) -> Next {
    let Some(peer) = seen.get(proposer) else { return Next::Wait };
    let known = proposal.founder(proposer).is_some_and(|founder| founder.nonce == peer.nonce);
    if known {
        // It stores a withdrawal before it shows it, so whatever else it shows releases us.
        let asks = matches!(&peer.standing, Standing::Proposing(asked) if asked == proposal);
        return if asks { Next::Wait } else { Next::Stand(Standing::Empty) };
    }
    // The proposer's directory is another one: what it had proposed is lost with it. Had it
    // called the cluster formed, some founder could have followed; when all are in sight and none
    // has, nobody ever will.
    let all_in_sight = proposal.founders.iter().all(|founder| {
        founder.name == own.name
            || founder.name == *proposer
            || seen.get(&founder.name).is_some_and(|peer| peer.nonce == founder.nonce)
    });
    if all_in_sight { Next::Stand(Standing::Empty) } else { Next::Wait }
}

/// An empty node pledges to a lower name, or proposes as the lowest.
fn begin(own: &Own, seen: &BTreeMap<NodeName, Seen>, draw: &mut dyn FnMut() -> u64) -> Next {
    for (peer, shown) in seen {
        let Standing::Proposing(proposal) = &shown.standing else { continue };
        let includes_us = proposal.founder(&own.name).is_some_and(|us| us.nonce == own.nonce);
        if !includes_us || *peer > own.name {
            continue;
        }
        let found = proposal.founders.len();
        if found != own.expect {
            let expected = own.expect;
            let peer = peer.clone();
            return Next::Refuse(FoundingFault::OtherCount { peer, found, expected });
        }
        let (proposer, proposal) = (peer.clone(), proposal.clone());
        return Next::Stand(Standing::Pledged { proposer, proposal });
    }
    let is_lowest = seen.keys().all(|name| own.name < *name);
    if !is_lowest || seen.len() + 1 < own.expect {
        return Next::Wait;
    }
    let others = seen.iter().map(|(name, shown)| (name.clone(), shown.nonce));
    let members = std::iter::once((own.name.clone(), own.nonce)).chain(others).take(own.expect);
    let mut drawn = Vec::new();
    // 63 bits, never zero, never twice: the top bit marks ids that the log gives later.
    let mut id = || loop {
        let id = draw() & (u64::MAX >> 1);
        if id != 0 && !drawn.contains(&id) {
            drawn.push(id);
            return id;
        }
    };
    let cluster = ClusterId(id());
    let lineage = Lineage(id());
    let founders = members.map(|(name, nonce)| Founder { name, id: NodeId(id()), nonce }).collect();
    let proposal = Proposal { cluster, lineage, founders };
    // A founder alone holds all pledges there are.
    Next::Stand(if own.expect == 1 {
        Standing::Formed { proposal, begun: false }
    } else {
        Standing::Proposing(proposal)
    })
}

impl Standing {
    pub(in crate::replication) fn put(&self, buffer: &mut BytesMut) {
        buffer.put_u8(VERSION);
        match self {
            Self::Empty => buffer.put_u8(0),
            Self::Proposing(proposal) => {
                buffer.put_u8(1);
                put_proposal(buffer, proposal);
            }
            Self::Pledged { proposer, proposal } => {
                buffer.put_u8(2);
                put_name(buffer, proposer);
                put_proposal(buffer, proposal);
            }
            Self::Formed { proposal, begun } => {
                buffer.put_u8(3);
                buffer.put_u8(u8::from(*begun));
                put_proposal(buffer, proposal);
            }
        }
    }

    pub(in crate::replication) fn take(buffer: &mut Bytes) -> Result<Self, CodecError> {
        need(buffer, 2, "standing")?;
        let version = buffer.get_u8();
        if version != VERSION {
            let value = u64::from(version);
            return Err(CodecError::Illegal { what: "standing version", value });
        }
        match buffer.get_u8() {
            0 => Ok(Self::Empty),
            1 => Ok(Self::Proposing(take_proposal(buffer)?)),
            2 => {
                let proposer = take_name(buffer)?;
                Ok(Self::Pledged { proposer, proposal: take_proposal(buffer)? })
            }
            3 => {
                let begun = take_flag(buffer, "begun flag")?;
                Ok(Self::Formed { begun, proposal: take_proposal(buffer)? })
            }
            phase => Err(CodecError::Illegal { what: "phase", value: u64::from(phase) }),
        }
    }

    /// The standing's bytes.
    pub(in crate::replication) fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::with_capacity(64);
        self.put(&mut buffer);
        buffer.freeze()
    }
}

fn put_proposal(buffer: &mut BytesMut, proposal: &Proposal) {
    buffer.put_u64_le(proposal.cluster.0);
    buffer.put_u64_le(proposal.lineage.0);
    buffer.put_u8(proposal.founders.len() as u8);
    for founder in &proposal.founders {
        put_name(buffer, &founder.name);
        buffer.put_u64_le(founder.id.0);
        buffer.put_u64_le(founder.nonce);
    }
}

fn take_proposal(buffer: &mut Bytes) -> Result<Proposal, CodecError> {
    const WHAT: &str = "proposal";
    need(buffer, 17, WHAT)?;
    let cluster = ClusterId(buffer.get_u64_le());
    let lineage = Lineage(buffer.get_u64_le());
    let count = usize::from(buffer.get_u8());
    if count > FOUNDERS_MAX {
        return Err(CodecError::Illegal { what: "count of founders", value: count as u64 });
    }
    let mut founders = Vec::with_capacity(count);
    for _ in 0..count {
        let name = take_name(buffer)?;
        need(buffer, 16, WHAT)?;
        let id = NodeId(buffer.get_u64_le());
        founders.push(Founder { name, id, nonce: buffer.get_u64_le() });
    }
    Ok(Proposal { cluster, lineage, founders })
}

fn put_name(buffer: &mut BytesMut, name: &NodeName) {
    buffer.put_u8(name.as_str().len() as u8);
    buffer.put_slice(name.as_str().as_bytes());
}

fn take_name(buffer: &mut Bytes) -> Result<NodeName, CodecError> {
    need(buffer, 1, "name")?;
    let length = usize::from(buffer.get_u8());
    need(buffer, length, "name")?;
    let text = buffer.split_to(length);
    let illegal = CodecError::Illegal { what: "name", value: length as u64 };
    let text = std::str::from_utf8(&text).map_err(|_| illegal)?;
    NodeName::parse(text).map_err(|_| illegal)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Empty nodes that see each other as `links` says, each with what it has stored.
    struct World {
        expect: usize,
        nodes: BTreeMap<NodeName, (u64, Standing)>,
        up: Vec<NodeName>,
        drawn: u64,
    }

    fn name(text: &str) -> NodeName {
        NodeName::parse(text).unwrap()
    }

    impl World {
        fn new(expect: usize, names: &[&str]) -> Self {
            let nodes = names
                .iter()
                .zip(100..)
                .map(|(text, nonce)| (name(text), (nonce, Standing::Empty)))
                .collect();
            Self { expect, nodes, up: Vec::new(), drawn: 0 }
        }

        fn start(&mut self, text: &str) {
            self.up.push(name(text));
        }

        fn stop(&mut self, text: &str) {
            self.up.retain(|up| *up != name(text));
        }

        /// One node looks around once.
        fn step(&mut self, text: &str) -> Next {
            let own_name = name(text);
            let (nonce, standing) = self.nodes[&own_name].clone();
            let seen = self
                .up
                .iter()
                .filter(|up| **up != own_name)
                .map(|up| {
                    let (nonce, standing) = self.nodes[up].clone();
                    let cluster = match &standing {
                        Standing::Formed { proposal, .. } => Some(proposal.cluster),
                        _ => None,
                    };
                    (up.clone(), Seen { nonce, cluster, standing })
                })
                .collect();
            let own = Own { name: own_name.clone(), nonce, expect: self.expect };
            let drawn = &mut self.drawn;
            let next = decide(&own, &standing, &seen, &mut || {
                *drawn += 1;
                *drawn
            });
            if let Next::Stand(standing) = &next {
                self.nodes.get_mut(&own_name).unwrap().1 = standing.clone();
            }
            next
        }

        /// All running nodes look around until nothing changes.
        fn settle(&mut self) {
            for _ in 0..100 {
                let before = self.nodes.clone();
                for node in self.up.clone() {
                    self.step(node.as_str());
                }
                if before == self.nodes {
                    return;
                }
            }
            panic!("no end: {:?}", self.nodes);
        }

        fn formed(&self, text: &str) -> Option<ClusterId> {
            match &self.nodes[&name(text)].1 {
                Standing::Formed { proposal, .. } => Some(proposal.cluster),
                _ => None,
            }
        }
    }

    #[test]
    fn one_expected_node_founds_alone() {
        let mut world = World::new(1, &["n1"]);
        world.start("n1");
        world.settle();
        assert!(world.formed("n1").is_some());
    }

    #[test]
    fn three_nodes_found_one_cluster_in_every_start_order() {
        for order in [
            ["n1", "n2", "n3"],
            ["n1", "n3", "n2"],
            ["n2", "n1", "n3"],
            ["n2", "n3", "n1"],
            ["n3", "n1", "n2"],
            ["n3", "n2", "n1"],
        ] {
            let mut world = World::new(3, &["n1", "n2", "n3"]);
            for (started, node) in order.into_iter().enumerate() {
                world.start(node);
                world.settle();
                if started < 2 {
                    assert!(world.formed(node).is_none(), "{order:?}");
                }
            }
            let cluster = world.formed("n1");
            assert!(cluster.is_some(), "{order:?}");
            assert_eq!([world.formed("n2"), world.formed("n3")], [cluster; 2], "{order:?}");
            let Standing::Formed { proposal, .. } = &world.nodes[&name("n2")].1 else { panic!() };
            let ids: std::collections::BTreeSet<_> =
                proposal.founders.iter().map(|founder| founder.id).collect();
            assert_eq!(ids.len(), 3);
        }
    }

    #[test]
    fn a_crash_after_every_step_changes_nothing() {
        // What is stored is what is shown, so a crash is a node that is down for a while.
        for cut in 0..12 {
            let mut world = World::new(3, &["n1", "n2", "n3"]);
            ["n1", "n2", "n3"].into_iter().for_each(|node| world.start(node));
            for step in 0..cut {
                world.step(["n1", "n2", "n3"][step % 3]);
            }
            for down in ["n1", "n2", "n3"] {
                world.stop(down);
                world.settle();
                world.start(down);
            }
            world.settle();
            let cluster = world.formed("n1");
            assert!(cluster.is_some(), "cut {cut}");
            assert_eq!([world.formed("n2"), world.formed("n3")], [cluster; 2], "cut {cut}");
        }
    }

    #[test]
    fn a_founder_that_took_its_pledge_back_by_mistake_belongs_to_the_cluster() {
        let mut world = World::new(3, &["n1", "n2", "n3"]);
        ["n1", "n2", "n3"].into_iter().for_each(|node| world.start(node));
        for node in ["n1", "n2", "n3", "n1"] {
            world.step(node);
        }
        let cluster = world.formed("n1");
        assert!(cluster.is_some());
        // What it saw last of its proposer was older than what it had pledged itself to.
        let third = name("n3");
        world.nodes.get_mut(&third).unwrap().1 = Standing::Empty;
        let mut wiped = world.nodes.clone();
        world.settle();
        assert_eq!([world.formed("n2"), world.formed("n3")], [cluster; 2]);
        // Another directory under the same name has given no pledge.
        wiped.get_mut(&third).unwrap().0 += 50;
        world.nodes = wiped;
        assert!(matches!(world.step("n3"), Next::Refuse(FoundingFault::OtherCluster { .. })));
    }

    #[test]
    fn a_proposer_withdraws_for_a_lower_name_but_not_once_it_holds_all() {
        let mut world = World::new(3, &["n1", "n2", "n3", "n4"]);
        ["n2", "n3", "n4"].into_iter().for_each(|node| world.start(node));
        assert!(matches!(world.step("n2"), Next::Stand(Standing::Proposing(_))));
        assert!(matches!(world.step("n3"), Next::Stand(Standing::Pledged { .. })));
        world.start("n1");
        assert_eq!(world.step("n2"), Next::Stand(Standing::Empty));
        assert_eq!(world.step("n3"), Next::Stand(Standing::Empty));
        world.settle();
        let cluster = world.formed("n1");
        assert!(cluster.is_some());
        assert_eq!([world.formed("n2"), world.formed("n3")], [cluster; 2]);
        // The fourth has no place.
        let refused = world.step("n4");
        assert!(matches!(refused, Next::Refuse(FoundingFault::OtherCluster { .. })));

        let mut world = World::new(3, &["n1", "n2", "n3", "n4"]);
        ["n2", "n3", "n4"].into_iter().for_each(|node| world.start(node));
        for node in ["n2", "n3", "n4", "n2"] {
            world.step(node);
        }
        assert!(world.formed("n2").is_some());
        world.start("n1");
        assert!(matches!(world.step("n1"), Next::Refuse(FoundingFault::OtherCluster { .. })));
    }

    #[test]
    fn a_wiped_founder_makes_the_proposer_begin_again() {
        let mut world = World::new(3, &["n1", "n2", "n3"]);
        ["n1", "n2", "n3"].into_iter().for_each(|node| world.start(node));
        world.step("n1");
        world.step("n2");
        world.nodes.insert(name("n2"), (999, Standing::Empty));
        world.settle();
        assert!(world.formed("n2").is_some() && world.formed("n2") == world.formed("n1"));
        // A wiped proposer: who pledged is free once all founders are in sight and none formed.
        let mut world = World::new(3, &["n1", "n2", "n3"]);
        ["n1", "n2", "n3"].into_iter().for_each(|node| world.start(node));
        for node in ["n1", "n2", "n3"] {
            world.step(node);
        }
        world.nodes.insert(name("n1"), (998, Standing::Empty));
        world.stop("n3");
        assert_eq!(world.step("n2"), Next::Wait);
        world.start("n3");
        world.settle();
        assert!(world.formed("n3").is_some() && world.formed("n3") == world.formed("n1"));
    }

    #[test]
    fn another_count_of_founders_is_refused() {
        let mut world = World::new(2, &["n1", "n2"]);
        ["n1", "n2"].into_iter().for_each(|node| world.start(node));
        world.step("n1");
        world.expect = 3;
        let refused = world.step("n2");
        assert!(matches!(refused, Next::Refuse(FoundingFault::OtherCount { found: 2, .. })));
    }

    #[test]
    fn standings_come_back_and_keep_their_bytes() {
        let founder = Founder { name: name("n1"), id: NodeId(3), nonce: 4 };
        let proposal =
            Proposal { cluster: ClusterId(1), lineage: Lineage(2), founders: vec![founder] };
        let standings = [
            Standing::Empty,
            Standing::Proposing(proposal.clone()),
            Standing::Pledged { proposer: name("n1"), proposal: proposal.clone() },
            Standing::Formed { proposal, begun: true },
        ];
        for standing in standings {
            let bytes = standing.encode();
            assert_eq!(Standing::take(&mut bytes.clone()), Ok(standing));
            for cut in 0..bytes.len() {
                assert!(Standing::take(&mut bytes.slice(..cut)).is_err());
            }
        }
        let bytes = Standing::Formed {
            proposal: Proposal { cluster: ClusterId(1), lineage: Lineage(2), founders: vec![] },
            begun: false,
        }
        .encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "0103000100000000000000020000000000000000");
    }
}
