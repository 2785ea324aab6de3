//! What one log entry carries: the time it was proposed at and the commands that waited.
//!
//! ```text
//! payload = version u8 · log time u64 · wall time u64 · count u16 · command*
//! command = session u64 · epoch u32 · role version u32 · request u64 · answered below u64
//!         · length u32 · command bytes
//! ```
//!
//! All integers are little-endian. The entry's index and term live in the storage record; blank and
//! membership entries carry no payload of this kind.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::domain::id::SessionId;
use crate::domain::limits;

/// The only version there is.
pub const VERSION: u8 = 1;
/// Bytes before the first command.
pub const HEAD_BYTES: usize = 1 + 8 + 8 + 2;
/// Bytes before each command's own.
pub const ORIGIN_BYTES: usize = 8 + 4 + 4 + 8 + 8 + 4;

/// Who sent a command, and what its host had checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// The session; [`SessionId::CLUSTER`] for the cluster's own commands and `open session`.
    pub session: SessionId,
    /// The session's epoch as its host knew it.
    pub epoch: u32,
    /// The version of the session's roles that the host checked the command against.
    pub role_version: u32,
    /// Consecutive per session from 1. For the cluster's own commands a correlation number that
    /// the proposing node chose; the machine only echoes it.
    pub request: u64,
    /// The client holds every answer below this number; the ring may drop them.
    pub answered_below: u64,
}

/// One command as it travels to the leader and stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Who sent it.
    pub origin: Origin,
    /// The command's bytes, checked where they entered the cluster.
    pub command: Bytes,
}

/// What one log entry carries, decoded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Payload {
    /// Milliseconds of quorate leadership since the cluster was founded; drives expiry.
    pub log_time_ms: u64,
    /// The leader's wall clock, milliseconds since 1970; for absolute times only.
    pub wall_time_ms: u64,
    /// In the order in which they are applied.
    pub proposals: Vec<Proposal>,
}

/// Bytes that are no entry payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// It ends before the field that starts at this offset.
    #[error("the entry payload is cut short at byte {at}")]
    Short {
        /// Where.
        at: usize,
    },
    /// A version that this node cannot read.
    #[error("entry payload version {version} is not known; this node reads version {VERSION}")]
    Version {
        /// What was found.
        version: u8,
    },
    /// A command longer than the limit.
    #[error("a command of {bytes} bytes is over the limit of {}", limits::COMMAND_BYTES_MAX)]
    CommandTooLong {
        /// What was found.
        bytes: usize,
    },
    /// Bytes after the last command.
    #[error("{bytes} bytes follow the last command")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

/// Writes one command of a payload: its origin, its length and its bytes. Peers forward proposals in
/// the same form.
pub fn put_proposal(buffer: &mut BytesMut, proposal: &Proposal) {
    let Origin { session, epoch, role_version, request, answered_below } = proposal.origin;
    buffer.put_u64_le(session.0);
    buffer.put_u32_le(epoch);
    buffer.put_u32_le(role_version);
    buffer.put_u64_le(request);
    buffer.put_u64_le(answered_below);
    buffer.put_u32_le(proposal.command.len() as u32);
    buffer.put_slice(&proposal.command);
}

/// Reads one command of a payload; its bytes are a slice of `bytes`.
///
/// # Errors
/// [`PayloadError::Short`] or [`PayloadError::CommandTooLong`], with offsets relative to `bytes`.
pub fn take_proposal(bytes: &mut Bytes) -> Result<Proposal, PayloadError> {
    if bytes.len() < ORIGIN_BYTES {
        return Err(PayloadError::Short { at: bytes.len() });
    }
    let origin = Origin {
        session: SessionId(bytes.get_u64_le()),
        epoch: bytes.get_u32_le(),
        role_version: bytes.get_u32_le(),
        request: bytes.get_u64_le(),
        answered_below: bytes.get_u64_le(),
    };
    let length = bytes.get_u32_le() as usize;
    if length > limits::COMMAND_BYTES_MAX {
        return Err(PayloadError::CommandTooLong { bytes: length });
    }
    if bytes.len() < length {
        return Err(PayloadError::Short { at: ORIGIN_BYTES + bytes.len() });
    }
    Ok(Proposal { origin, command: bytes.split_to(length) })
}

/// The bytes of each command of a payload, in order, without decoding it; ends where the payload
/// does, or is no payload.
pub fn commands_of(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = match payload.first() {
        Some(&VERSION) => payload.get(HEAD_BYTES..).unwrap_or_default(),
        _ => &[],
    };
    std::iter::from_fn(move || {
        let (origin, behind) = rest.split_at_checked(ORIGIN_BYTES)?;
        let length = origin.last_chunk().copied().map(u32::from_le_bytes)?;
        let (command, behind) = behind.split_at_checked(length as usize)?;
        rest = behind;
        Some(command)
    })
}

impl Payload {
    /// The bytes of this payload.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let bytes = self.proposals.iter().map(|p| ORIGIN_BYTES + p.command.len()).sum::<usize>();
        let mut buffer = BytesMut::with_capacity(HEAD_BYTES + bytes);
        buffer.put_u8(VERSION);
        buffer.put_u64_le(self.log_time_ms);
        buffer.put_u64_le(self.wall_time_ms);
        buffer.put_u16_le(self.proposals.len() as u16);
        for proposal in &self.proposals {
            put_proposal(&mut buffer, proposal);
        }
        buffer.freeze()
    }

    /// Reads a payload; command bytes are slices of `bytes`.
    ///
    /// # Errors
    /// [`PayloadError`] for anything that [`Payload::encode`] would not have written.
    pub fn decode(mut bytes: Bytes) -> Result<Self, PayloadError> {
        if bytes.len() < HEAD_BYTES {
            return Err(PayloadError::Short { at: bytes.len() });
        }
        let version = bytes.get_u8();
        if version != VERSION {
            return Err(PayloadError::Version { version });
        }
        let log_time_ms = bytes.get_u64_le();
        let wall_time_ms = bytes.get_u64_le();
        let count = usize::from(bytes.get_u16_le());
        // Capacity by what the bytes can hold, so a hostile count allocates nothing.
        let mut proposals = Vec::with_capacity(count.min(bytes.len() / ORIGIN_BYTES));
        for _ in 0..count {
            proposals.push(take_proposal(&mut bytes)?);
        }
        if !bytes.is_empty() {
            return Err(PayloadError::Trailing { bytes: bytes.len() });
        }
        Ok(Self { log_time_ms, wall_time_ms, proposals })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload() -> Payload {
        let proposal = |request, command: &'static [u8]| Proposal {
            origin: Origin {
                session: SessionId(7),
                epoch: 1,
                role_version: 2,
                request,
                answered_below: 3,
            },
            command: Bytes::from_static(command),
        };
        Payload {
            log_time_ms: 5,
            wall_time_ms: 6,
            proposals: vec![proposal(4, b"one"), proposal(5, b"")],
        }
    }

    #[test]
    fn payloads_come_back() {
        assert_eq!(Payload::decode(payload().encode()), Ok(payload()));
        assert_eq!(Payload::decode(Payload::default().encode()), Ok(Payload::default()));
    }

    #[test]
    fn commands_are_found_without_decoding() {
        let bytes = payload().encode();
        assert_eq!(commands_of(&bytes).collect::<Vec<_>>(), [&b"one"[..], b""]);
        // Cut anywhere, what is whole before the cut is found and no more.
        for length in 0..bytes.len() {
            let cut = bytes.get(..length).unwrap();
            let first = HEAD_BYTES + ORIGIN_BYTES + 3;
            let whole = usize::from(length >= first);
            assert_eq!(commands_of(cut).count(), whole, "{length} bytes");
        }
        assert_eq!(commands_of(&[VERSION + 1; 100]).count(), 0);
    }

    #[test]
    fn golden_bytes() {
        let bytes = payload().encode();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "010500000000000000060000000000000002000700000000000000010000000200000004000000\
             00000000030000000000000003000000\
             6f6e65070000000000000001000000020000000500000000000000030000000000000000000000"
        );
    }

    #[test]
    fn every_cut_is_an_error() {
        let bytes = payload().encode();
        for cut in 0..bytes.len() {
            assert!(Payload::decode(bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
        let mut longer = BytesMut::from(&bytes[..]);
        longer.put_u8(0);
        assert_eq!(Payload::decode(longer.freeze()), Err(PayloadError::Trailing { bytes: 1 }));
    }
}
