//! QUIC endpoints, TLS, and streams of frames: the network seam, and the only folder that names
//! the QUIC library.
//!
//! Owns sockets, handshakes, the parameter sets of both edges (clients, peers) and the cutting of
//! streams into frames. It does not know what a frame says, who a peer is or when to dial. No type
//! of the library leaves this folder, so that a simulated network can stand in behind
//! [`Endpoint`], [`Connection`], [`FrameSender`] and [`FrameReceiver`].

#[cfg(feature = "server")]
pub mod certificate;
mod connection;
mod endpoint;
mod error;
mod frame_receiver;
mod frame_sender;
mod front_door;
mod load;
pub mod profile;
#[doc(hidden)]
pub mod simulated;
mod strangers;
pub mod tls;
mod waiting_room;

#[cfg(all(test, feature = "server"))]
mod tests;

pub use connection::{CloseCode, Connection, ConnectionStats};
pub use endpoint::{Accepting, Endpoint, ResetKey, SocketBuffers};
pub use error::{AcceptError, BindError, Closed, ConnectError, ReceiveError, SendError, TlsError};
pub use frame_receiver::{Frame, FrameReceiver};
pub use frame_sender::{ABANDONED, FrameSender, Priority, QUEUED_BYTES_MAX};
pub use load::EndpointLimits;
