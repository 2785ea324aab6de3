//! The frames of one block as one group of sessions wants them: encoded once, referred to by all.

use std::ops::Range;

use bytes::Bytes;

use crate::domain::id::TopicId;
use crate::gateway::delivery::outgoing::Outgoing;

/// What one block holds for sessions of equal interest, in position order.
#[derive(Debug)]
pub struct Batch {
    entry: u64,
    mark: u64,
    frames: Bytes,
    /// Neighbouring frames that are all wanted, joined.
    runs: Vec<Range<usize>>,
    events: usize,
    /// Frame by frame, only if at least one of them may be replaced by a newer one.
    pieces: Vec<Piece>,
}

/// One frame of a batch in which some may be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its bytes in the block's frames.
    pub range: Range<usize>,
    /// The topic whose newer value replaces this one while it waits (conflation `always`).
    pub replaceable: Option<TopicId>,
}

/// Which frames of a block one group wants, collected while the block is walked.
#[derive(Debug, Default)]
pub struct BatchDraft {
    pieces: Vec<Piece>,
}

impl BatchDraft {
    /// Adds the next frame.
    pub fn add(&mut self, range: Range<usize>, replaceable: Option<TopicId>) {
        self.pieces.push(Piece { range, replaceable });
    }

    /// The batch, over the frozen frames of the block. `mark` counts the bytes of all blocks that
    /// were fanned out up to this one: how old the batch is in terms of the ring.
    #[must_use]
    pub fn finish(self, entry: u64, mark: u64, frames: Bytes) -> Batch {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for piece in &self.pieces {
            match runs.last_mut() {
                Some(run) if run.end == piece.range.start => run.end = piece.range.end,
                _ => runs.push(piece.range.clone()),
            }
        }
        let events = self.pieces.len();
        let replaceable = self.pieces.iter().any(|piece| piece.replaceable.is_some());
        let pieces = if replaceable { self.pieces } else { Vec::new() };
        Batch { entry, mark, frames, runs, events, pieces }
    }
}

impl Batch {
    /// The entry whose events these are.
    #[must_use]
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Bytes of all blocks fanned out up to and including this one.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// How many events.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events
    }

    /// Frame by frame; empty if none of them can be replaced.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Appends all frames.
    pub fn put_all(&self, outgoing: &mut Outgoing) {
        for run in &self.runs {
            outgoing.put(&self.frames.slice(run.clone()));
        }
    }

    /// Appends one frame.
    pub fn put_piece(&self, piece: &Piece, outgoing: &mut Outgoing) {
        outgoing.put(&self.frames.slice(piece.range.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_frames_are_one_run() {
        let mut draft = BatchDraft::default();
        for range in [0..2, 2..4, 6..8] {
            draft.add(range, None);
        }
        let batch = draft.finish(3, 10, Bytes::from_static(b"aabbccdd"));
        assert_eq!(batch.runs, [0..4, 6..8]);
        assert_eq!((batch.entry(), batch.events(), batch.mark()), (3, 3, 10));
        assert!(batch.pieces().is_empty());
        let mut outgoing = Outgoing::default();
        batch.put_all(&mut outgoing);
        assert_eq!(outgoing.take(), [Bytes::from_static(b"aabbdd")]);
    }
}
