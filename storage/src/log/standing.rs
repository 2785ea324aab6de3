//! Where the log begins and what it owes, in two fsynced copies ([`TwinFile`]).
//!
//! ```text
//! content = first segment u64
//!         · purged? u8 · index u64 · term u64 · chain u64
//!         · cut? u8 · from index u64 · segment u64 · offset u64
//!         · hard state unproven? u8
//! ```
//!
//! The purge point stands here and not in the identity, so that a purge rewrites nothing that names
//! the node. Doubts stand here because opening repairs what caused them: a second start after a
//! crash would otherwise find a sound log and forget that it must not vote yet.

use crate::disk::Folder;
use crate::error::{DiskFault, OpenError};
use crate::format::{read_u8, read_u64};
use crate::log::twin_file::TwinFile;
use crate::recovery::Cut;

const NAME: &str = "standing";

/// The last entry before the part of the log that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) chain: u64,
}

/// The content of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Segments with a lower id are leftovers of a purge.
    pub(crate) first_segment: u64,
    pub(crate) purged: Option<Bound>,
    pub(crate) cut: Option<Cut>,
    pub(crate) hard_state_unproven: bool,
}

impl Standing {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.first_segment.to_le_bytes().to_vec();
        let purged = self.purged.map(|bound| [bound.index, bound.term, bound.chain]);
        let cut = self.cut.map(|cut| [cut.from_index, cut.segment, cut.offset]);
        for numbers in [purged, cut] {
            bytes.push(u8::from(numbers.is_some()));
            for number in numbers.unwrap_or_default() {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        bytes.push(u8::from(self.hard_state_unproven));
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let triple = |at: usize| {
            let numbers =
                [read_u64(bytes, at + 1)?, read_u64(bytes, at + 9)?, read_u64(bytes, at + 17)?];
            Some((read_u8(bytes, at)? != 0).then_some(numbers))
        };
        Some(Self {
            first_segment: read_u64(bytes, 0)?,
            purged: triple(8)?.map(|[index, term, chain]| Bound { index, term, chain }),
            cut: triple(33)?.map(|[from_index, segment, offset]| Cut {
                from_index,
                segment,
                offset,
            }),
            hard_state_unproven: read_u8(bytes, 58)? != 0,
        })
    }
}

/// The files, and what they hold.
#[derive(Debug)]
pub(crate) struct StandingFile {
    twins: TwinFile,
    current: Option<Standing>,
}

impl StandingFile {
    pub(crate) fn open(folder: &Folder) -> Result<Self, OpenError> {
        let (twins, content) = TwinFile::open(folder.disk(), folder.path(), NAME)?;
        let damaged = || OpenError::TwinsDamaged { path: folder.path_of(NAME) };
        let current =
            content.map(|content| Standing::decode(&content).ok_or_else(damaged)).transpose()?;
        Ok(Self { twins, current })
    }

    /// `None` before the first save: the log was never made.
    pub(crate) fn current(&self) -> Option<Standing> {
        self.current
    }

    pub(crate) fn save(&mut self, standing: Standing) -> Result<(), DiskFault> {
        if self.current != Some(standing) {
            self.twins.save(&standing.encode())?;
            self.current = Some(standing);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_round_trips() {
        let bound = Bound { index: 1, term: 2, chain: 3 };
        let cut = Cut { from_index: 4, segment: 5, offset: 6 };
        for purged in [None, Some(bound)] {
            for cut in [None, Some(cut)] {
                let standing =
                    Standing { first_segment: 7, purged, cut, hard_state_unproven: true };
                assert_eq!(Standing::decode(&standing.encode()), Some(standing));
            }
        }
        assert_eq!(Standing::decode(&[0; 58]), None);
    }
}
