//! What a client says on its control stream.

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::cbor;
use super::codec::laid::Laid;
use super::command::ClientCommand;
use super::frame::put_frame;
use super::handshake::{Hello, Look};
use super::read::Read;
use super::{DecodeError, kind};

/// One frame from client to node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage {
    /// The first frame of a connection.
    Hello(Hello),
    /// `request u64 · record`: an update record under its number.
    Update {
        /// Consecutive per session, from 1.
        request: u64,
        /// As it will stand in the log; see [`record`](super::record). Not checked here.
        record: Bytes,
    },
    /// `request u64 · CBOR`: any other numbered command.
    Command {
        /// Consecutive per session, from 1.
        request: u64,
        /// For [`ClientCommand::decode`], apart so that a bad one can be refused by number.
        body: Bytes,
    },
    /// `correlation u64 · CBOR`.
    Read {
        /// Chosen by the client, unique among its unanswered reads.
        correlation: u64,
        /// What to read; an error is answered under the correlation id.
        read: Result<Read, DecodeError>,
    },
    /// `request u64`: every answer below this number has arrived.
    Answered {
        /// The lowest number whose answer may still be wanted.
        below: u64,
    },
    /// No body: end the session.
    Goodbye,
    /// The first and only frame of a connection without a session.
    Look(Look),
}

impl ClientMessage {
    /// Appends this message as one frame. A read that could not be decoded cannot be encoded: it
    /// becomes a frame with an empty body.
    pub fn put(&self, buffer: &mut BytesMut) {
        match self {
            Self::Hello(hello) => put_frame(buffer, kind::HELLO, |body| cbor::put(body, hello)),
            Self::Update { request, record } => put_frame(buffer, kind::UPDATE, |body| {
                body.put_u64_le(*request);
                body.put_slice(record);
            }),
            Self::Command { request, body: command } => {
                put_frame(buffer, kind::COMMAND, |body| {
                    body.put_u64_le(*request);
                    body.put_slice(command);
                });
            }
            Self::Read { correlation, read } => put_frame(buffer, kind::READ, |body| {
                body.put_u64_le(*correlation);
                if let Ok(read) = read {
                    cbor::put(body, read);
                }
            }),
            Self::Answered { below } => {
                put_frame(buffer, kind::ANSWERED, |body| body.put_u64_le(*below));
            }
            Self::Goodbye => put_frame(buffer, kind::GOODBYE, |_| ()),
            Self::Look(look) => put_frame(buffer, kind::LOOK, |body| cbor::put(body, look)),
        }
    }

    /// Appends a command frame without building its body first.
    pub fn put_command(buffer: &mut BytesMut, request: u64, command: &ClientCommand) {
        put_frame(buffer, kind::COMMAND, |body| {
            body.put_u64_le(request);
            cbor::put(body, command);
        });
    }

    /// Reads one frame's body; byte fields are slices of it.
    ///
    /// # Errors
    /// [`DecodeError`]; the node closes the connection with its code.
    pub fn decode(kind: u8, body: Bytes) -> Result<Self, DecodeError> {
        kind::check(kind, body.len())?;
        match kind {
            kind::HELLO => Ok(Self::Hello(cbor::take(&body)?)),
            kind::UPDATE => {
                let mut laid = Laid::new(body);
                Ok(Self::Update { request: laid.u64()?, record: laid.rest() })
            }
            kind::COMMAND => {
                let mut laid = Laid::new(body);
                Ok(Self::Command { request: laid.u64()?, body: laid.rest() })
            }
            kind::READ => {
                let mut laid = Laid::new(body);
                Ok(Self::Read { correlation: laid.u64()?, read: cbor::take(&laid.rest()) })
            }
            kind::ANSWERED => {
                let mut laid = Laid::new(body);
                let below = laid.u64()?;
                laid.end()?;
                Ok(Self::Answered { below })
            }
            kind::GOODBYE => {
                Laid::new(body).end()?;
                Ok(Self::Goodbye)
            }
            kind::LOOK => Ok(Self::Look(cbor::take(&body)?)),
            kind => Err(DecodeError::UnknownKind { kind }),
        }
    }

    /// This message's frame kind.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => kind::HELLO,
            Self::Update { .. } => kind::UPDATE,
            Self::Command { .. } => kind::COMMAND,
            Self::Read { .. } => kind::READ,
            Self::Answered { .. } => kind::ANSWERED,
            Self::Goodbye => kind::GOODBYE,
            Self::Look(_) => kind::LOOK,
        }
    }
}
