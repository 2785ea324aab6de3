//! Why peers are refused, and what can go wrong with calls, as facts.

use crate::domain::node_name::NodeName;
use crate::transport::{
    BindError, CloseCode, Closed, Connection, ReceiveError, SendError, TlsError,
};

macro_rules! refusals {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $label:literal, $text:literal;)+) => {
        /// Why a node ended the connection to another, as both see it: the number is the close
        /// code on the wire and never means anything else.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
        #[non_exhaustive]
        pub enum Refusal {
            $($(#[doc = $doc])+ #[error($text)] $name,)+
        }

        impl Refusal {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The number on the wire.
            #[must_use]
            pub fn code(self) -> CloseCode {
                match self {
                    $(Self::$name => CloseCode($code),)+
                }
            }

            /// What a close code means, if this version knows it.
            #[must_use]
            pub fn from_code(code: CloseCode) -> Option<Self> {
                match code.0 {
                    $($code => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// Ends a connection for this reason.
            pub(super) fn close(self, connection: &Connection) {
                connection.close(self.code(), &self.to_string());
            }

            /// What metrics call it.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }
        }
    };
}

refusals! {
    /// The node is stopping.
    Stopping = 1, "stopping", "the node is stopping";
    /// A newer or preferred connection between the two took this one's place.
    Superseded = 2, "superseded", "another connection took this one's place";
    /// The two are connected already.
    Duplicate = 3, "duplicate", "the two nodes are connected already";
    /// The node reached itself.
    Itself = 4, "itself", "the node reached itself";
    /// Another live process uses this name.
    NameInUse = 5, "name_in_use", "another live node uses this name";
    /// The hello's name is not the one in the certificate, or the certificate is not a node's.
    CertificateName = 6, "certificate_name", "the name is not the one in the certificate";
    /// No version that both speak.
    Version = 7, "version", "the two nodes speak no common version";
    /// Not a hello, or not where one must be.
    BadHello = 8, "bad_hello", "the hello is missing or malformed";
    /// No hello came in time.
    Silent = 9, "silent", "no hello came in time";
    /// The node knows as many peers as it may.
    TooManyPeers = 10, "too_many_peers", "the node knows as many peers as it may";
    /// The two belong to different clusters; said by `replication`.
    WrongCluster = 11, "wrong_cluster", "the two nodes belong to different clusters";
    /// The peer's identity does not fit the cluster's books; said by `replication`.
    WrongIdentity = 12, "wrong_identity", "the node's id or directory is not the one on record";
}

/// Why a mesh could not start.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The address cannot be had.
    #[error("the peer port cannot be opened")]
    Bind(#[from] BindError),
    /// The certificate, its key or the authority are not usable.
    #[error("the node's certificate is not usable")]
    Tls(#[from] TlsError),
    /// The node's certificate is not for the node's name.
    #[error("the certificate is not for the node {name}: it names {found:?}")]
    CertificateName {
        /// The node's name.
        name: NodeName,
        /// The DNS names in the certificate.
        found: Vec<String>,
    },
}

/// Why no stream to a peer could be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no connection to it now.
    #[error("not connected to {peer}")]
    NotConnected {
        /// Who was wanted.
        peer: NodeName,
    },
    /// The connection ended meanwhile.
    #[error("the connection is over")]
    Closed(#[from] Closed),
}

/// Why a call brought no answer. The peer may have acted on it all the same, except after
/// `NotConnected`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no connection to the peer now; nothing was sent.
    #[error("not connected to {peer}")]
    NotConnected {
        /// Who was called.
        peer: NodeName,
    },
    /// No answer before the deadline.
    #[error("no answer in time")]
    TimedOut,
    /// The connection ended.
    #[error("the connection is over")]
    Closed(#[from] Closed),
    /// The request could not be sent.
    #[error("the request could not be sent")]
    Send(#[from] SendError),
    /// The answer could not be read.
    #[error("the answer could not be read")]
    Receive(#[from] ReceiveError),
    /// The peer ended the stream without an answer: it does not serve this lane.
    #[error("the peer gave no answer")]
    NoAnswer,
}

impl From<OpenError> for CallError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::NotConnected { peer } => Self::NotConnected { peer },
            OpenError::Closed(closed) => Self::Closed(closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_come_back() {
        for (at, refusal) in Refusal::ALL.iter().enumerate() {
            assert_eq!(Refusal::from_code(refusal.code()), Some(*refusal));
            assert_eq!(refusal.code().0 as usize, at + 1);
        }
        assert_eq!(Refusal::from_code(CloseCode(0)), None);
    }
}
