//! Opening: what on disk may be believed.

use std::path::PathBuf;

use crate::record::Damage;

/// Something that was proven to be on disk is damaged or missing. It is never cut away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "hole in segment {segment} ({}) at offset {offset}, the first unreadable entry is {index}: {damage}",
    path.display()
)]
pub struct Hole {
    /// The segment's id.
    pub segment: u64,
    /// Its file.
    pub path: PathBuf,
    /// Offset of the damage in bytes.
    pub offset: u64,
    /// The first index that cannot be read.
    pub index: u64,
    /// What is wrong there.
    pub damage: Damage,
}

/// What was cut off the end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The first index that may have been lost, though it may never have existed.
    pub from_index: u64,
    /// The segment.
    pub segment: u64,
    /// Offset of the damage in bytes.
    pub offset: u64,
}

/// What the end of the log looked like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Everything that was ever acknowledged is there.
    Proven,
    /// The end was damaged above the last durable mark, now or at an earlier opening that has not
    /// been settled. A group that was acknowledged may be missing: a member must not vote before
    /// its log has reached a leader's commit index.
    Cut(Cut),
}

/// What opening found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    /// The end of the log.
    pub tail: Tail,
    /// Whether the newest hard state is known to be the newest. When not, the node must rejoin
    /// under a new id.
    pub hard_state_proven: bool,
    /// Records checked.
    pub records: u64,
    /// Bytes checked.
    pub bytes: u64,
    /// Segments on disk now.
    pub segments: usize,
    /// Files set aside by this opening.
    pub quarantined: Vec<PathBuf>,
}
