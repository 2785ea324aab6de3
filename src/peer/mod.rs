//! One QUIC connection to each peer, and streams and calls on it; payloads are opaque.
//!
//! Owns who is connected: dials seeds and known addresses, accepts, exchanges hellos, and keeps
//! exactly one live connection for each pair of nodes. It does not know what a lane carries, and
//! whether a peer belongs to the cluster is for `replication` to say: it sees every hello.

mod acceptor;
mod book;
mod dialer;
mod directory;
mod error;
mod handshake;
mod link;
mod mesh;
#[cfg(test)]
mod tests;

pub use directory::{MeshEvent, PeerInfo, Peers};
pub use error::{CallError, MeshError, OpenError, Refusal};
pub use mesh::{IncomingStream, Lane, Mesh, MeshSettings};

pub use crate::transport::tls::{Authority, Identity};
pub use crate::transport::{
    Frame, FrameReceiver, FrameSender, Priority, ReceiveError, ResetKey, SendError,
};
