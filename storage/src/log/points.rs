//! Where entries stand on disk: a sparse map from index to place.
//!
//! From one point to the next, entries follow each other in one segment, marks between them. So an
//! entry is found by walking from the last point at or below it.

use std::collections::BTreeMap;

use crate::record::Position;

/// Bytes of a segment that one point serves.
const SPACING_BYTES: u64 = 32 << 10;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Points {
    map: BTreeMap<u64, Position>,
    /// The walk from the last point would meet entries that were taken away.
    broken: bool,
}

/// Entries that one walk from `position` meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) position: Position,
    pub(crate) first_index: u64,
    /// Where the next point's entries begin, if there is a next point.
    pub(crate) end_index: Option<u64>,
    /// No entry of the extent stands at or behind this offset, as far as is known.
    pub(crate) end_offset: Option<u64>,
}

impl Points {
    /// Notes that the next entry, `index`, stands at `position`.
    pub(crate) fn note(&mut self, index: u64, position: Position) {
        let near = self.map.last_key_value().is_some_and(|(_, last)| {
            last.segment == position.segment && position.offset - last.offset < SPACING_BYTES
        });
        if self.broken || !near {
            self.map.insert(index, position);
            self.broken = false;
        }
    }

    /// Forgets entries from `index` on.
    pub(crate) fn truncate(&mut self, index: u64) {
        self.map.split_off(&index);
        self.broken = true;
    }

    /// What is written from here on is no continuation: dead entries stand in between.
    pub(crate) fn break_off(&mut self) {
        self.broken = true;
    }

    /// Forgets points that serve only entries below `index`.
    pub(crate) fn purge(&mut self, index: u64) {
        if let Some((first, _)) = self.map.range(..=index).next_back() {
            self.map = self.map.split_off(&{ *first });
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The extent that holds `index`, if it is on disk.
    pub(crate) fn find(&self, index: u64) -> Option<Extent> {
        let (first_index, position) = self.map.range(..=index).next_back()?;
        let next = self.map.range(index.checked_add(1)?..).next();
        let end_index = next.map(|(end, _)| *end);
        let end_offset =
            next.filter(|(_, end)| end.segment == position.segment).map(|(_, end)| end.offset);
        Some(Extent { position: *position, first_index: *first_index, end_index, end_offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(segment: u64, offset: u64) -> Position {
        Position { segment, offset }
    }

    #[test]
    fn near_entries_share_a_point_and_a_truncation_forces_a_new_one() {
        let mut points = Points::default();
        points.note(1, at(1, 100));
        points.note(2, at(1, 200));
        points.note(3, at(1, 300));
        points.truncate(3);
        points.note(3, at(1, 400));
        points.note(4, at(2, 100));
        points.note(5, at(2, 100 + SPACING_BYTES));
        let extent = |index| points.find(index).map(|extent| (extent.position, extent.end_index));
        assert_eq!(extent(0), None);
        assert_eq!(extent(2), Some((at(1, 100), Some(3))));
        assert_eq!(extent(3), Some((at(1, 400), Some(4))));
        assert_eq!(extent(4), Some((at(2, 100), Some(5))));
        assert_eq!(extent(5), Some((at(2, 100 + SPACING_BYTES), None)));
        points.purge(4);
        assert_eq!(points.find(3), None);
        assert!(points.find(4).is_some());
    }
}
