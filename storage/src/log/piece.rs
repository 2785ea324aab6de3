//! Reading entries back from segment files.

use crate::error::ReadError;
use crate::log::log_state::{SegmentHandle, State};
use crate::log::points::Extent;
use crate::log::visible::Visible;
use crate::record::{Damage, Position};
use crate::segment::{Located, ScanFault, Scanner};

/// Read at a time where the end of a piece is not known.
const LAST_PIECE_BYTES: usize = 64 << 10;

/// Entries that stand behind each other in one segment, and how to reach them.
pub(crate) struct Piece {
    handle: SegmentHandle,
    extent: Extent,
    /// Where the piece ends.
    pub(crate) end: u64,
}

impl Piece {
    /// The piece that holds the entry `at` and reaches up to `end` at most.
    pub(crate) fn find(state: &State, at: u64, end: u64) -> Result<Self, ReadError> {
        let Visible { points, durable_next, .. } = &state.visible;
        if at < state.visible.first_index() || at >= *durable_next {
            return Err(state.visible.outside(at));
        }
        let extent = points.find(at).ok_or_else(|| state.visible.outside(at))?;
        let handle = state.segment(extent.position.segment)?;
        let end = extent.end_index.map_or(end, |next| next.min(end));
        Ok(Self { handle, extent, end })
    }

    /// Hands over the entries from `start` on until `visit` has enough.
    pub(crate) fn walk(
        &self,
        start: u64,
        bytes_hint: usize,
        mut visit: impl FnMut(Located) -> bool,
    ) -> Result<(), ReadError> {
        let Self { handle, extent, end } = self;
        let Position { segment, offset } = extent.position;
        let limit = extent.end_offset.unwrap_or(handle.bytes).min(handle.bytes);
        // Not more than the piece holds, nor, where that is not known, than is likely wanted.
        let likely = match extent.end_offset {
            Some(end) => usize::try_from(end - offset).unwrap_or(usize::MAX),
            None => bytes_hint.min(LAST_PIECE_BYTES),
        };
        let mut scanner =
            Scanner::new(handle.file.clone(), segment, offset, limit).with_window(likely);
        let mut expected = extent.first_index;
        while expected < *end {
            let offset = scanner.offset();
            let position = Position { segment: handle.id, offset };
            let Some(located) = advance(&mut scanner, handle.id)? else {
                return Err(damaged(position, Damage::Missing));
            };
            if !located.record.kind.is_entry() {
                continue;
            }
            let found = located.record.index;
            if found != expected {
                return Err(damaged(position, Damage::Index { expected, found }));
            }
            expected += 1;
            if found >= start && !visit(located) {
                break;
            }
        }
        Ok(())
    }

    pub(crate) fn entry(&self, index: u64) -> Result<Located, ReadError> {
        let mut entry = None;
        self.walk(index, 0, |located| {
            entry = Some(located);
            false
        })?;
        entry.ok_or_else(|| damaged(self.extent.position, Damage::Missing))
    }
}

pub(crate) fn advance(scanner: &mut Scanner, segment: u64) -> Result<Option<Located>, ReadError> {
    let offset = scanner.offset();
    scanner.advance().map_err(|fault| match fault {
        ScanFault::Disk(fault) => ReadError::Disk(fault),
        ScanFault::Damage(damage) => damaged(Position { segment, offset }, damage),
    })
}

pub(crate) fn damaged(position: Position, damage: Damage) -> ReadError {
    ReadError::Damaged { segment: position.segment, offset: position.offset, damage }
}
