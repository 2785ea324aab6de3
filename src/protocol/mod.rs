//! What clients and nodes say to each other: frames, messages, error codes, and who may say what when.
//!
//! Owns the bytes between a client and a node and the meaning of every number in them;
//! `docs/protocol.md` is the same for other languages. Knows no sockets, no clock and no tasks:
//! everything here is a function from bytes to a value or back.
//!
//! ```text
//! frame = length u32 · kind u8 · body        length counts kind and body; integers little-endian
//! ```
//!
//! Updates, events and acknowledgements are laid by hand; every other body is CBOR (RFC 8949) with
//! numbered fields. Decoding takes hostile bytes: every length is checked against what is there and
//! against a named limit before anything is allocated, and every failure is a [`DecodeError`].

pub mod client_message;
mod codec;
pub mod command;
pub mod conversation;
pub mod delivery;
pub mod error_code;
pub mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod handshake;
pub mod peer_message;
pub mod read;
pub mod record;
pub mod server_message;
pub mod topic;

pub use client_message::ClientMessage;
pub use error_code::ErrorCode;
pub use frame::kind;
pub use server_message::ServerMessage;

/// The client protocol's version, in the hello and in [`ALPN`].
pub const VERSION: u16 = 1;
/// The client protocol's name in the TLS handshake.
pub const ALPN: &[u8] = b"quorate/1";
/// The peer protocol's name in the TLS handshake.
pub const PEER_ALPN: &[u8] = b"quorate-peer/1";

/// Why bytes are no message of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A frame without a kind.
    #[error("a frame without a kind")]
    Empty,
    /// A kind that does not belong on this stream, or that this version does not know.
    #[error("kind {kind} is not known on this stream")]
    UnknownKind {
        /// What was found.
        kind: u8,
    },
    /// A body longer than its kind allows.
    #[error("a body of {bytes} bytes is over the limit of {bytes_max} for kind {kind}")]
    TooLong {
        /// Which kind.
        kind: u8,
        /// What was found.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// A hand-laid body that ends before the field at this offset.
    #[error("the body is cut short at byte {at}")]
    Short {
        /// Where.
        at: usize,
    },
    /// A hand-laid body with bytes after its last field, or a CBOR item with bytes after it.
    #[error("{bytes} bytes follow the message")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A field with a value that it may not have.
    #[error("the field {field} has a value that it may not have")]
    Field {
        /// Its name on the protocol page.
        field: &'static str,
    },
    /// A body that is not the CBOR that its kind asks for.
    #[error("the CBOR body is wrong at byte {at}: {fault}")]
    Cbor {
        /// Where, if the parser could tell; else 0.
        at: usize,
        /// How.
        fault: CborFault,
    },
}

/// What is wrong with a CBOR body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CborFault {
    /// It ends in the middle.
    #[error("it is cut short")]
    Short,
    /// An item of another type than the field's.
    #[error("an item of the wrong type")]
    Type,
    /// A variant that this version does not know.
    #[error("an unknown variant")]
    Variant,
    /// A field that must be there is not.
    #[error("a required field is missing")]
    Missing,
    /// A value over its limit, or not well-formed.
    #[error("an illegal value")]
    Value,
}

impl DecodeError {
    /// The wire code under which a node tells the sender.
    #[must_use]
    pub fn code(self) -> ErrorCode {
        match self {
            Self::UnknownKind { .. } => ErrorCode::UnknownKind,
            Self::TooLong { .. } => ErrorCode::FrameTooLong,
            Self::Empty
            | Self::Short { .. }
            | Self::Trailing { .. }
            | Self::Field { .. }
            | Self::Cbor { .. } => ErrorCode::Malformed,
        }
    }
}
