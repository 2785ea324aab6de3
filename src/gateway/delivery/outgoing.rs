//! What is about to be written: few large chunks out of many small frames.
//!
//! The transport's cost is per chunk, so small frames are copied into one buffer; a run of frames
//! that is large already goes as the shared slice that it is.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// A batch of frames is closed once it has reached this.
pub const BATCH_BYTES_SOFT: usize = 64 * 1024;
/// A run of shared bytes from this size is passed on instead of copied.
const SHARED_BYTES_MIN: usize = 16 * 1024;
/// What the copying buffer is given when it grows.
const BUFFER_BYTES_MIN: usize = 4 * 1024;

/// Chunks in the order in which they are written.
#[derive(Debug, Default)]
pub struct Outgoing {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    /// Of all chunks and the tail.
    bytes: usize,
}

impl Outgoing {
    /// Nothing is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// No more should be added before some was written.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES_SOFT
    }

    /// Appends shared bytes: copied when small, passed on when large.
    pub fn put(&mut self, frames: &Bytes) {
        self.bytes += frames.len();
        if frames.len() >= SHARED_BYTES_MIN {
            self.seal();
            self.chunks.push_back(frames.clone());
        } else {
            self.reserve(frames.len());
            self.tail.extend_from_slice(frames);
        }
    }

    /// Appends what `write` appends to the buffer that it is given.
    pub fn write(&mut self, write: impl FnOnce(&mut BytesMut)) {
        self.reserve(0);
        let before = self.tail.len();
        write(&mut self.tail);
        self.bytes += self.tail.len().saturating_sub(before);
    }

    /// Takes everything that waits.
    pub fn take(&mut self) -> Vec<Bytes> {
        self.seal();
        self.bytes = 0;
        self.chunks.drain(..).collect()
    }

    fn reserve(&mut self, bytes: usize) {
        if self.tail.capacity() - self.tail.len() < bytes.max(256) {
            self.tail.reserve(bytes.max(BUFFER_BYTES_MIN));
        }
    }

    fn seal(&mut self) {
        // The rest of the buffer goes too: an idle session keeps none.
        if !self.tail.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.tail).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_frames_are_joined_and_large_ones_shared() {
        let mut outgoing = Outgoing::default();
        let large = Bytes::from(vec![7u8; SHARED_BYTES_MIN]);
        outgoing.put(&Bytes::from_static(b"ab"));
        outgoing.write(|buffer| buffer.extend_from_slice(b"cd"));
        outgoing.put(&large);
        outgoing.put(&Bytes::from_static(b"ef"));
        assert_eq!(outgoing.bytes(), 6 + SHARED_BYTES_MIN);
        let chunks = outgoing.take();
        assert_eq!(chunks, [Bytes::from_static(b"abcd"), large.clone(), Bytes::from_static(b"ef")]);
        assert_eq!(chunks[1].as_ptr(), large.as_ptr());
        assert!(outgoing.is_empty());
        assert!(outgoing.take().is_empty());
    }

    #[test]
    fn it_is_full_at_the_soft_bound() {
        let mut outgoing = Outgoing::default();
        while !outgoing.is_full() {
            outgoing.put(&Bytes::from_static(&[0; 1000]));
        }
        assert!(outgoing.bytes() < BATCH_BYTES_SOFT + 1000);
    }
}
