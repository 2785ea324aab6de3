//! The frame: the one shape in which anything crosses a stream.
//!
//! ```text
//! frame   = length u32 · payload             length = bytes of the payload, 1 to the stream's limit
//! payload = kind u8 · body
//! ```
//!
//! Peers use the same length prefix; what their payloads hold is not known here.

pub mod kind;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::DecodeError;
use crate::domain::limits;

/// The length prefix.
pub const LENGTH_BYTES: usize = 4;
/// What a frame adds to a body: the length prefix and the kind.
pub const OVERHEAD_BYTES: usize = LENGTH_BYTES + 1;
/// Bytes of a client frame's payload: a value of full size with everything around it.
pub const PAYLOAD_BYTES_MAX: usize = limits::VALUE_BYTES_MAX + 64 * 1024;

/// A length prefix that no frame of this stream can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than the stream's limit; nothing was allocated for it.
    #[error("a frame of {bytes} bytes is over the limit of {bytes_max}")]
    TooLong {
        /// What the prefix says.
        bytes: usize,
        /// What the stream allows.
        bytes_max: usize,
    },
    /// A frame of no bytes has no kind.
    #[error("a frame of no bytes")]
    Empty,
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame, {missing} bytes short")]
    Cut {
        /// How many bytes were still to come.
        missing: usize,
    },
}

/// Appends one frame whose body `write` appends to the buffer in place.
///
/// # Panics
/// Never for bodies below 4 GiB, which the callers' limits ensure; debug builds assert it.
pub fn put_frame(buffer: &mut BytesMut, kind: u8, write: impl FnOnce(&mut BytesMut)) {
    let start = buffer.len();
    buffer.put_u32_le(0);
    buffer.put_u8(kind);
    write(buffer);
    let length = (buffer.len() - start - LENGTH_BYTES) as u32;
    if let Some(prefix) = buffer.get_mut(start..start + LENGTH_BYTES) {
        prefix.copy_from_slice(&length.to_le_bytes());
    }
}

/// Reads a length prefix.
///
/// # Errors
/// [`FrameError::TooLong`] over `bytes_max`, [`FrameError::Empty`] for zero.
pub fn payload_bytes(prefix: [u8; LENGTH_BYTES], bytes_max: usize) -> Result<usize, FrameError> {
    match u32::from_le_bytes(prefix) as usize {
        0 => Err(FrameError::Empty),
        bytes if bytes > bytes_max => Err(FrameError::TooLong { bytes, bytes_max }),
        bytes => Ok(bytes),
    }
}

/// Takes the next whole frame's payload off the front of `buffer`, a shared slice of it; none if
/// more bytes are needed.
///
/// # Errors
/// As [`payload_bytes`]; the buffer is then of no further use.
pub fn take_payload(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = payload_bytes(*prefix, bytes_max)?;
    if buffer.len() < LENGTH_BYTES + length {
        return Ok(None);
    }
    buffer.advance(LENGTH_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// Parts a payload into its kind and its body.
///
/// # Errors
/// [`DecodeError::Empty`] for no bytes.
pub fn kind_and_body(mut payload: Bytes) -> Result<(u8, Bytes), DecodeError> {
    if payload.is_empty() {
        return Err(DecodeError::Empty);
    }
    let kind = payload.get_u8();
    Ok((kind, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_at_any_cut() {
        let mut whole = BytesMut::new();
        put_frame(&mut whole, 7, |body| body.put_slice(b"abc"));
        put_frame(&mut whole, 8, |_| ());
        assert_eq!(&whole[..], b"\x04\0\0\0\x07abc\x01\0\0\0\x08");
        for cut in 0..=whole.len() {
            let mut buffer = BytesMut::from(&whole[..cut]);
            let mut found = Vec::new();
            while let Some(payload) = take_payload(&mut buffer, 4).unwrap() {
                found.push(kind_and_body(payload).unwrap());
            }
            buffer.extend_from_slice(&whole[cut..]);
            while let Some(payload) = take_payload(&mut buffer, 4).unwrap() {
                found.push(kind_and_body(payload).unwrap());
            }
            assert_eq!(found, [(7, Bytes::from_static(b"abc")), (8, Bytes::new())]);
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn bad_lengths_are_refused_before_anything_is_read() {
        let take = |bytes: &[u8]| take_payload(&mut BytesMut::from(bytes), 4);
        assert_eq!(take(b"\x05\0\0\0"), Err(FrameError::TooLong { bytes: 5, bytes_max: 4 }));
        assert_eq!(take(b"\xff\xff\xff\xff"), {
            Err(FrameError::TooLong { bytes: 0xffff_ffff, bytes_max: 4 })
        });
        assert_eq!(take(b"\0\0\0\0"), Err(FrameError::Empty));
        assert_eq!(take(b"\x04\0\0"), Ok(None));
        assert_eq!(kind_and_body(Bytes::new()), Err(DecodeError::Empty));
    }
}
