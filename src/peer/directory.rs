//! Who is connected and by which connection: the rules, apart from the doing.
//!
//! Both sides of a pair apply the same rules to the same facts and so keep the same one of two
//! connections: the one dialled by the lower name.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::error::Refusal;
use crate::domain::node_address::NodeAddress;
use crate::domain::node_name::NodeName;
use crate::protocol::peer_message::Hello;

/// Peers that a node knows by name, connected or not. Each has shown a certificate of the
/// cluster's authority.
pub(super) const PEERS_MAX: usize = 64;

/// What is known of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its newest hello, from the present connection or the last one.
    pub hello: Hello,
    /// Whether there is a connection now.
    pub connected: bool,
    /// Where it was reached, or came from.
    pub remote: SocketAddr,
    /// Grows with each connection to any peer: tells a new connection from the one before.
    pub connection: u64,
}

/// All peers by name; the node itself is not among them.
pub type Peers = Arc<BTreeMap<NodeName, PeerInfo>>;

/// What happened to the mesh. A receiver that is too slow loses the oldest; the state of things is
/// always in [`Peers`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeshEvent {
    /// A peer is connected, for the first time or anew.
    Connected {
        /// Who.
        peer: NodeName,
        /// Its hello.
        hello: Hello,
    },
    /// The connection to a peer is over and no other took its place.
    Disconnected {
        /// Who.
        peer: NodeName,
        /// Why, if the peer said so.
        refusal: Option<Refusal>,
    },
    /// A connected peer said hello again.
    HelloChanged {
        /// Who.
        peer: NodeName,
        /// Its new hello.
        hello: Hello,
    },
    /// A connection came to nothing: we refused it, or the other side did.
    Refused {
        /// The address that was dialled or that knocked.
        remote: SocketAddr,
        /// The other's name, if its certificate told.
        peer: Option<NodeName>,
        /// Why.
        refusal: Refusal,
        /// Whether this node refused; otherwise the other did.
        by_us: bool,
    },
    /// An address could not be reached; sent when the reason is new.
    Unreachable {
        /// Where.
        address: NodeAddress,
        /// Why, for people.
        reason: String,
    },
}

/// A connection that has exchanged hellos and asks to be *the* connection to its peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub(super) hello: &'a Hello,
    /// Whether this node dialled it.
    pub(super) dialed_by_us: bool,
}

/// The connection that stands in the directory for a peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) directory_nonce: u64,
    pub(super) incarnation: u64,
    pub(super) dialed_by_us: bool,
    /// False once the connection is over, though nobody has tidied up yet.
    pub(super) alive: bool,
}

/// Whether a hello may come over this connection at all.
pub(super) fn check_hello(
    ours: &Hello,
    theirs: &Hello,
    certificate: Option<&NodeName>,
) -> Result<(), Refusal> {
    if certificate != Some(&theirs.name) {
        return Err(Refusal::CertificateName);
    }
    if ours.common_version(theirs).is_none() {
        return Err(Refusal::Version);
    }
    if theirs.name == ours.name {
        let same_process = theirs.directory_nonce == ours.directory_nonce
            && theirs.incarnation == ours.incarnation;
        return Err(if same_process { Refusal::Itself } else { Refusal::NameInUse });
    }
    Ok(())
}

/// Whether a candidate may take the place of the connection that stands, if one does.
pub(super) fn admit(
    ours: &NodeName,
    standing: Option<Standing>,
    candidate: Candidate<'_>,
) -> Result<(), Refusal> {
    let Some(standing) = standing.filter(|standing| standing.alive) else { return Ok(()) };
    let theirs = candidate.hello;
    if theirs.directory_nonce != standing.directory_nonce {
        // A wiped node comes in as soon as its former connection has timed out; until then this
        // cannot be told from two nodes of one name.
        return Err(Refusal::NameInUse);
    }
    match theirs.incarnation.cmp(&standing.incarnation) {
        Ordering::Greater => return Ok(()),
        Ordering::Less => return Err(Refusal::NameInUse),
        Ordering::Equal => {}
    }
    let stays = if candidate.dialed_by_us == standing.dialed_by_us {
        // The same side dialled twice. If it was us, ours is alive and the second is needless; if
        // it was the peer, it has given up the first.
        candidate.dialed_by_us
    } else {
        let dialed_by_lower = (*ours < theirs.name) == candidate.dialed_by_us;
        !dialed_by_lower
    };
    if stays { Err(Refusal::Duplicate) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::parse(text).unwrap()
    }

    fn standing(dialed_by_us: bool) -> Standing {
        Standing { directory_nonce: 1, incarnation: 5, dialed_by_us, alive: true }
    }

    fn admitted(
        ours: &str,
        standing: Option<Standing>,
        theirs: (&str, u64, u64),
        dialed_by_us: bool,
    ) -> Result<(), Refusal> {
        let hello = Hello::new(name(theirs.0), theirs.1, theirs.2);
        admit(&name(ours), standing, Candidate { hello: &hello, dialed_by_us })
    }

    #[test]
    fn both_sides_keep_the_connection_that_the_lower_name_dialled() {
        // n1 sees n2: n1's own dial (true) wins over n2's (false), whichever came first.
        let n2 = ("n2", 1, 5);
        assert_eq!(admitted("n1", Some(standing(false)), n2, true), Ok(()));
        assert_eq!(admitted("n1", Some(standing(true)), n2, false), Err(Refusal::Duplicate));
        // n2 sees n1: n1's dial comes in (false) and wins over its own (true).
        let n1 = ("n1", 1, 5);
        assert_eq!(admitted("n2", Some(standing(true)), n1, false), Ok(()));
        assert_eq!(admitted("n2", Some(standing(false)), n1, true), Err(Refusal::Duplicate));
    }

    #[test]
    fn a_second_dial_of_the_same_side_replaces_only_what_that_side_gave_up() {
        let n2 = ("n2", 1, 5);
        assert_eq!(admitted("n1", Some(standing(false)), n2, false), Ok(()));
        assert_eq!(admitted("n1", Some(standing(true)), n2, true), Err(Refusal::Duplicate));
    }

    #[test]
    fn a_restarted_node_comes_in_at_once_and_a_stranger_of_its_name_does_not() {
        for by_us in [false, true] {
            for stands in [false, true] {
                let stands = Some(standing(stands));
                assert_eq!(admitted("n1", stands, ("n2", 1, 6), by_us), Ok(()));
                assert_eq!(admitted("n1", stands, ("n2", 1, 4), by_us), Err(Refusal::NameInUse));
                assert_eq!(admitted("n1", stands, ("n2", 2, 9), by_us), Err(Refusal::NameInUse));
            }
            let dead = Some(Standing { alive: false, ..standing(true) });
            assert_eq!(admitted("n1", dead, ("n2", 2, 1), by_us), Ok(()));
            assert_eq!(admitted("n1", None, ("n2", 1, 5), by_us), Ok(()));
        }
    }

    #[test]
    fn hellos_are_checked_against_certificate_version_and_ourselves() {
        let ours = Hello::new(name("n1"), 1, 1);
        let hello = |text, nonce, incarnation| Hello::new(name(text), nonce, incarnation);
        let check = |theirs: &Hello, certificate: &str| {
            check_hello(&ours, theirs, NodeName::parse(certificate).ok().as_ref())
        };
        assert_eq!(check(&hello("n2", 2, 1), "n2"), Ok(()));
        assert_eq!(check(&hello("n2", 2, 1), "n3"), Err(Refusal::CertificateName));
        assert_eq!(check(&hello("n2", 2, 1), ""), Err(Refusal::CertificateName));
        assert_eq!(check(&hello("n1", 1, 1), "n1"), Err(Refusal::Itself));
        assert_eq!(check(&hello("n1", 1, 2), "n1"), Err(Refusal::NameInUse));
        assert_eq!(check(&hello("n1", 2, 1), "n1"), Err(Refusal::NameInUse));
        let newer = Hello { version_min: 90, version_max: 91, ..hello("n2", 2, 1) };
        assert_eq!(check(&newer, "n2"), Err(Refusal::Version));
    }
}
