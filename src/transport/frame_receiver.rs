//! The receiving half of a stream.
//!
//! A frame that lies within one packet is a slice of that packet's buffer; one that spans several
//! is put together in a buffer of its own, which grows only with the bytes that have come: a claimed
//! length costs its sender as much as it costs us.

use bytes::{Buf, Bytes, BytesMut};

use super::connection::CloseCode;
use super::error::ReceiveError;
use super::simulated;
use crate::protocol::frame::{self, FrameError};

/// Pieces taken from the library in one turn.
const PIECES_MAX: usize = 8;
/// What is set aside for a frame before more of it has come.
const ASSEMBLY_BYTES_MIN: usize = 16 * 1024;

/// One frame. The body shares the read buffer: a caller that keeps it for long copies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the body is.
    pub kind: u8,
    /// The rest.
    pub body: Bytes,
}

/// The stream below.
#[derive(Debug)]
pub(super) enum ReceiveHalf {
    Quic(quinn::RecvStream),
    Simulated(simulated::ReceiveHalf),
}

/// Receives frames from one stream, in order. Dropping it tells the other side to stop.
#[derive(Debug)]
pub struct FrameReceiver {
    stream: ReceiveHalf,
    /// Pieces as they came: `pieces[next..filled]` are still to be read.
    pieces: [Bytes; PIECES_MAX],
    next: usize,
    filled: usize,
    /// The frame that is being put together, with its length prefix; empty between frames.
    assembly: BytesMut,
    bytes_max: usize,
}

impl FrameReceiver {
    pub(super) fn new(stream: ReceiveHalf, bytes_max: usize) -> Self {
        Self {
            stream,
            pieces: [const { Bytes::new() }; PIECES_MAX],
            next: 0,
            filled: 0,
            assembly: BytesMut::new(),
            bytes_max,
        }
    }

    /// Sets the longest frame (kind and body) that is taken from here on; a first message from a
    /// stranger deserves less room than a member's.
    pub fn limit_frames(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// The next frame, or none after the clean end of the stream. Cancel-safe: nothing that has
    /// come is lost.
    ///
    /// # Errors
    /// [`ReceiveError`]; the stream is of no further use then, whatever follows is garbage.
    pub async fn next(&mut self) -> Result<Option<Frame>, ReceiveError> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            if !self.fill().await? {
                return match self.missing() {
                    0 => Ok(None),
                    missing => Err(FrameError::Cut { missing }.into()),
                };
            }
        }
    }

    /// The next frame if it has come already; does not wait. For batching what is there.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn buffered(&mut self) -> Result<Option<Frame>, ReceiveError> {
        self.take()
    }

    /// The next single byte outside any frame: the lane byte at the head of a peer stream. None at
    /// the end of the stream. Cancel-safe.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    #[cfg(feature = "server")]
    pub(crate) async fn next_byte(&mut self) -> Result<Option<u8>, ReceiveError> {
        loop {
            if let Some(piece) = self.piece() {
                return Ok(Some(piece.get_u8()));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// Tells the other side that nothing more of this stream is wanted.
    pub fn stop(&mut self, code: CloseCode) {
        match &mut self.stream {
            // Fails only on a stream that has ended already.
            ReceiveHalf::Quic(stream) => drop(stream.stop(code.0.into())),
            ReceiveHalf::Simulated(stream) => stream.stop(code),
        }
    }

    /// The first piece that is not empty.
    fn piece(&mut self) -> Option<&mut Bytes> {
        while self.pieces.get(self.next..self.filled)?.first()?.is_empty() {
            // Even an empty piece holds on to its packet's buffer.
            *self.pieces.get_mut(self.next)? = Bytes::new();
            self.next += 1;
        }
        self.pieces.get_mut(self.next)
    }

    /// A whole frame out of what has come, if there is one.
    fn take(&mut self) -> Result<Option<Frame>, ReceiveError> {
        let bytes_max = self.bytes_max;
        loop {
            let started = !self.assembly.is_empty();
            let Some(piece) = self.piece() else { return Ok(None) };
            if !started && let Some(prefix) = piece.first_chunk::<{ frame::LENGTH_BYTES }>() {
                let length = frame::payload_bytes(*prefix, bytes_max)?;
                if piece.len() >= frame::LENGTH_BYTES + length {
                    piece.advance(frame::LENGTH_BYTES);
                    return Ok(Some(part(piece.split_to(length))));
                }
            }
            if let Some(frame) = self.assemble()? {
                return Ok(Some(frame));
            }
        }
    }

    /// Moves bytes of the first piece into the frame that is being put together.
    fn assemble(&mut self) -> Result<Option<Frame>, ReceiveError> {
        let wanted = match self.assembly.first_chunk::<{ frame::LENGTH_BYTES }>() {
            Some(prefix) => frame::LENGTH_BYTES + frame::payload_bytes(*prefix, self.bytes_max)?,
            None => frame::LENGTH_BYTES,
        };
        let have = self.assembly.len();
        let Some(piece) = self.piece() else { return Ok(None) };
        let taken = piece.split_to(piece.len().min(wanted - have));
        if self.assembly.capacity() < have + taken.len() {
            // Doubles with what has come, never past the frame.
            let room = (have * 2).max(ASSEMBLY_BYTES_MIN).min(wanted);
            self.assembly.reserve(room.max(have + taken.len()) - have);
        }
        self.assembly.extend_from_slice(&taken);
        if have < frame::LENGTH_BYTES
            && let Some(prefix) = self.assembly.first_chunk()
        {
            // A bad length is refused now, not when the next byte comes.
            frame::payload_bytes(*prefix, self.bytes_max)?;
        }
        if self.assembly.len() < wanted || wanted == frame::LENGTH_BYTES {
            return Ok(None);
        }
        let mut whole = std::mem::take(&mut self.assembly).freeze();
        whole.advance(frame::LENGTH_BYTES);
        Ok(Some(part(whole)))
    }

    /// How many bytes the unfinished frame still needs; 0 between frames.
    fn missing(&self) -> usize {
        match self.assembly.first_chunk::<{ frame::LENGTH_BYTES }>() {
            Some(prefix) => {
                let length = u32::from_le_bytes(*prefix) as usize;
                (frame::LENGTH_BYTES + length).saturating_sub(self.assembly.len())
            }
            None if self.assembly.is_empty() => 0,
            None => frame::LENGTH_BYTES - self.assembly.len(),
        }
    }

    /// Waits for more pieces; false at the clean end of the stream. Only called when all pieces
    /// have been read.
    async fn fill(&mut self) -> Result<bool, ReceiveError> {
        self.next = 0;
        self.filled = 0;
        let read = match &mut self.stream {
            ReceiveHalf::Quic(stream) => {
                stream.read_chunks(&mut self.pieces).await.map_err(receive_error)?
            }
            ReceiveHalf::Simulated(stream) => stream.read(&mut self.pieces).await?,
        };
        self.filled = read.unwrap_or(0);
        Ok(read.is_some())
    }
}

/// Parts a payload, of at least one byte, into kind and body.
fn part(mut payload: Bytes) -> Frame {
    let kind = payload.get_u8();
    Frame { kind, body: payload }
}

fn receive_error(error: quinn::ReadError) -> ReceiveError {
    match error {
        quinn::ReadError::Reset(code) => ReceiveError::Reset {
            code: CloseCode(u32::try_from(code.into_inner()).unwrap_or(u32::MAX)),
        },
        quinn::ReadError::ConnectionLost(error) => ReceiveError::Closed(error.into()),
        // Reads are ordered and 0-RTT is off, so a stopped stream is all that is left.
        quinn::ReadError::ClosedStream
        | quinn::ReadError::IllegalOrderedRead
        | quinn::ReadError::ZeroRttRejected => ReceiveError::Stopped,
    }
}
