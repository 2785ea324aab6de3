//! The sending half of a stream.
//!
//! Frames are laid into one buffer and handed to the QUIC library as few large pieces: it walks its
//! unacknowledged pieces for every packet, so many small ones cost up to 13 times the work.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use super::connection::CloseCode;
use super::error::SendError;
use super::simulated;
use crate::protocol::frame;

/// What may wait for a flush; a sender over it has a caller that does not flush.
pub const QUEUED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A body from here on is queued as it is; below it is copied beside its neighbours.
const SHARED_BODY_BYTES_MIN: usize = 8 * 1024;

/// Which stream of a connection goes first; the library serves higher ones before lower ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Bulk: snapshots, initial values.
    Low,
    /// Everything else.
    #[default]
    Normal,
    /// Heartbeats, votes.
    High,
}

/// The code of a stream whose sender was dropped with frames still to be flushed.
pub const ABANDONED: CloseCode = CloseCode(0);

/// The stream below.
#[derive(Debug)]
pub(super) enum SendHalf {
    Quic(quinn::SendStream),
    Simulated(simulated::SendHalf),
}

impl SendHalf {
    /// Hands over a prefix of the pieces; says how many bytes and how many whole pieces.
    async fn write(&mut self, pieces: &mut [Bytes]) -> Result<(usize, usize), SendError> {
        match self {
            Self::Quic(stream) => {
                let written = stream.write_chunks(pieces).await.map_err(send_error)?;
                Ok((written.bytes, written.chunks))
            }
            Self::Simulated(stream) => stream.write(pieces).await,
        }
    }
}

/// Sends frames on one stream, in order. Dropping it finishes the stream, and the other side sees a
/// clean end after all that was flushed; if something was not, the stream is reset with
/// [`ABANDONED`] instead, so that a missing rest is never taken for the end.
#[derive(Debug)]
pub struct FrameSender {
    stream: SendHalf,
    /// Frames and pieces that the stream has not taken yet, in order; `tail` follows `queue`.
    queue: VecDeque<Bytes>,
    tail: BytesMut,
    queued_bytes: usize,
    bytes_max: usize,
}

impl FrameSender {
    pub(super) fn new(stream: SendHalf, bytes_max: usize) -> Self {
        Self { stream, queue: VecDeque::new(), tail: BytesMut::new(), queued_bytes: 0, bytes_max }
    }

    /// Queues one frame and flushes all that is queued. Cancel-safe in the sense that matters for
    /// a stream: once polled, the frame is queued whole, and if the call is dropped before its end
    /// the rest goes out with the next [`flush`](Self::flush) or send; it must not be sent again.
    ///
    /// # Errors
    /// As [`queue`](Self::queue) and [`flush`](Self::flush).
    pub async fn send(&mut self, kind: u8, body: &[u8]) -> Result<(), SendError> {
        self.queue(kind, body)?;
        self.flush().await
    }

    /// Queues a buffer of whole frames that were laid before, and flushes. Cancel-safe as
    /// [`send`](Self::send).
    ///
    /// # Errors
    /// As [`queue_frames`](Self::queue_frames) and [`flush`](Self::flush).
    pub async fn send_frames(&mut self, frames: Bytes) -> Result<(), SendError> {
        self.queue_frames(frames)?;
        self.flush().await
    }

    /// Queues one frame, its body copied.
    ///
    /// # Errors
    /// [`SendError::TooLong`] over the stream's frame limit, [`SendError::Full`] if
    /// [`QUEUED_BYTES_MAX`] wait already; the frame is not queued then.
    pub fn queue(&mut self, kind: u8, body: &[u8]) -> Result<(), SendError> {
        self.admit(1 + body.len())?;
        self.add(frame::LENGTH_BYTES + 1 + body.len());
        frame::put_frame(&mut self.tail, kind, |buffer| buffer.put_slice(body));
        Ok(())
    }

    /// Queues one frame, a large body shared and not copied.
    ///
    /// # Errors
    /// As [`queue`](Self::queue).
    pub fn queue_shared(&mut self, kind: u8, body: Bytes) -> Result<(), SendError> {
        if body.len() < SHARED_BODY_BYTES_MIN {
            return self.queue(kind, &body);
        }
        self.admit(1 + body.len())?;
        self.add(frame::LENGTH_BYTES + 1 + body.len());
        // The stream's limit is far below 4 GiB, so the length fits.
        self.tail.put_u32_le((1 + body.len()) as u32);
        self.tail.put_u8(kind);
        self.cut_tail();
        self.queue.push_back(body);
        Ok(())
    }

    /// Queues a buffer of whole frames that were laid before, such as a batch of events that many
    /// senders share.
    ///
    /// # Errors
    /// [`SendError::Full`] if [`QUEUED_BYTES_MAX`] wait already; nothing is queued then. That the
    /// buffer holds whole frames within the limit is the caller's promise.
    pub fn queue_frames(&mut self, frames: Bytes) -> Result<(), SendError> {
        self.admit(0)?;
        self.queue_raw(frames);
        Ok(())
    }

    /// Queues bytes that are no frame: the lane byte at the head of a peer stream.
    pub(crate) fn queue_raw(&mut self, bytes: Bytes) {
        self.add(bytes.len());
        if bytes.len() < SHARED_BODY_BYTES_MIN {
            self.tail.put_slice(&bytes);
        } else {
            self.cut_tail();
            self.queue.push_back(bytes);
        }
    }

    /// Hands all that is queued to the stream; waits while the other side is slow or the network
    /// is. Cancel-safe: what the stream did not take stays queued, in order.
    ///
    /// # Errors
    /// [`SendError::Stopped`], [`SendError::Finished`] or [`SendError::Closed`]; the stream is of
    /// no further use then.
    pub async fn flush(&mut self) -> Result<(), SendError> {
        self.cut_tail();
        while !self.queue.is_empty() {
            let pieces = self.queue.make_contiguous();
            let (bytes, whole) = self.stream.write(pieces).await?;
            self.queue.drain(..whole);
            self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
        }
        Ok(())
    }

    /// Bytes that the stream has not taken yet.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Sets which streams of the connection go before this one.
    pub fn set_priority(&self, priority: Priority) {
        let level = match priority {
            Priority::Low => -10,
            Priority::Normal => 0,
            Priority::High => 10,
        };
        if let SendHalf::Quic(stream) = &self.stream {
            // Fails only on a stream that has ended, where it does not matter.
            let _ = stream.set_priority(level);
        }
    }

    /// Flushes and marks the clean end of the stream. Does not wait for the other side.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub async fn finish(&mut self) -> Result<(), SendError> {
        self.flush().await?;
        let first = match &mut self.stream {
            SendHalf::Quic(stream) => stream.finish().is_ok(),
            SendHalf::Simulated(stream) => stream.finish(),
        };
        if first { Ok(()) } else { Err(SendError::Finished) }
    }

    /// Gives the stream up: what was not delivered is dropped, the other side sees `code`.
    pub fn reset(&mut self, code: CloseCode) {
        self.queue.clear();
        self.tail.clear();
        self.queued_bytes = 0;
        match &mut self.stream {
            // Fails only on a stream that has ended already.
            SendHalf::Quic(stream) => drop(stream.reset(code.0.into())),
            SendHalf::Simulated(stream) => stream.reset(code),
        }
    }

    /// Waits until the other side has everything of a finished stream (true), or wants no more of
    /// it or is gone (false). Cancel-safe.
    pub async fn acknowledged(&self) -> bool {
        match &self.stream {
            SendHalf::Quic(stream) => matches!(stream.stopped().await, Ok(None)),
            SendHalf::Simulated(stream) => stream.acknowledged().await,
        }
    }

    fn admit(&self, payload_bytes: usize) -> Result<(), SendError> {
        if payload_bytes > self.bytes_max {
            return Err(SendError::TooLong { bytes: payload_bytes, bytes_max: self.bytes_max });
        }
        if self.queued_bytes >= QUEUED_BYTES_MAX {
            return Err(SendError::Full { bytes: self.queued_bytes, bytes_max: QUEUED_BYTES_MAX });
        }
        Ok(())
    }

    fn add(&mut self, bytes: usize) {
        self.queued_bytes += bytes;
    }

    fn cut_tail(&mut self) {
        if !self.tail.is_empty() {
            self.queue.push_back(self.tail.split().freeze());
        }
    }
}

impl Drop for FrameSender {
    fn drop(&mut self) {
        if self.queued_bytes > 0 {
            self.reset(ABANDONED);
        }
    }
}

fn send_error(error: quinn::WriteError) -> SendError {
    match error {
        quinn::WriteError::Stopped(code) => SendError::Stopped {
            code: CloseCode(u32::try_from(code.into_inner()).unwrap_or(u32::MAX)),
        },
        quinn::WriteError::ConnectionLost(error) => SendError::Closed(error.into()),
        // 0-RTT is off, so a stream of that kind does not exist.
        quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected => SendError::Finished,
    }
}
