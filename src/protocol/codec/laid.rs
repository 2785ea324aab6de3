//! Reading hand-laid bodies: little-endian fields, each checked before it is taken.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::domain::id::{Index, Position};
use crate::protocol::DecodeError;

/// A body being read from its front; slices that it gives out share the frame's memory.
#[derive(Debug)]
pub(in crate::protocol) struct Laid {
    bytes: Bytes,
    whole: usize,
}

impl Laid {
    pub(in crate::protocol) fn new(bytes: Bytes) -> Self {
        let whole = bytes.len();
        Self { bytes, whole }
    }

    fn need(&self, count: usize) -> Result<(), DecodeError> {
        if self.bytes.len() < count {
            return Err(DecodeError::Short { at: self.whole - self.bytes.len() });
        }
        Ok(())
    }

    pub(in crate::protocol) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.need(1)?;
        Ok(self.bytes.get_u8())
    }

    pub(in crate::protocol) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.need(2)?;
        Ok(self.bytes.get_u16_le())
    }

    pub(in crate::protocol) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.need(4)?;
        Ok(self.bytes.get_u32_le())
    }

    pub(in crate::protocol) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.need(8)?;
        Ok(self.bytes.get_u64_le())
    }

    pub(in crate::protocol) fn position(&mut self) -> Result<Position, DecodeError> {
        Ok(Position { index: Index(self.u64()?), ordinal: self.u32()? })
    }

    /// The next `count` bytes.
    pub(in crate::protocol) fn slice(&mut self, count: usize) -> Result<Bytes, DecodeError> {
        self.need(count)?;
        Ok(self.bytes.split_to(count))
    }

    /// UTF-8 text behind a 16-bit length.
    pub(in crate::protocol) fn text(&mut self, field: &'static str) -> Result<String, DecodeError> {
        let count = usize::from(self.u16()?);
        let bytes = self.slice(count)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(DecodeError::Field { field }),
        }
    }

    pub(in crate::protocol) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Everything that is left.
    pub(in crate::protocol) fn rest(self) -> Bytes {
        self.bytes
    }

    /// Nothing may be left.
    pub(in crate::protocol) fn end(self) -> Result<(), DecodeError> {
        match self.bytes.len() {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing { bytes }),
        }
    }
}

/// Writes a position as [`Laid::position`] reads it.
pub(in crate::protocol) fn put_position(buffer: &mut BytesMut, position: Position) {
    buffer.put_u64_le(position.index.0);
    buffer.put_u32_le(position.ordinal);
}

/// Writes text behind a 16-bit length; text over 65,535 bytes is cut at a character, which no legal
/// path, key or value reaches.
pub(in crate::protocol) fn put_text(buffer: &mut BytesMut, text: &str) {
    let mut end = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let (kept, _) = text.split_at(end);
    buffer.put_u16_le(end as u16);
    buffer.put_slice(kept.as_bytes());
}
