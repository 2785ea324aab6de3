//! Why replication refused, gave up or cannot tell.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use quorate_storage::snapshot::CatalogueError;
use quorate_storage::{DiskFault, Hole, OpenError};

use super::founding::rules::FoundingFault;
use crate::domain::id::ClusterId;
use crate::domain::node_name::NodeName;
use crate::peer::MeshError;
use crate::supervisor::{ExitCode, SpawnError};

/// A session's command was not taken; nothing of it has reached the log.
///
/// It holds for this request number and all above it: the client sends again from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The node or the session has as many commands in flight as it may.
    #[error("overloaded; try again in {retry_ms} ms")]
    Overloaded {
        /// A hint; milliseconds.
        retry_ms: u32,
    },
    /// The node cannot see a quorum.
    #[error("the node does not see a quorum")]
    Inquorate,
    /// The node's disk is full.
    #[error("the node's disk is full")]
    DiskFull,
    /// The node stops, or the session has been detached from it.
    #[error("the node no longer takes commands of this session")]
    Stopped,
}

/// A command of the cluster's own could not be proposed, or nobody knows what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not taken; nothing has reached the log.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// The deadline passed first. The command may still be applied.
    #[error("the deadline passed before the outcome was known")]
    OutcomeUnknown,
}

/// A linearizable read could not be placed in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader confirmed the index before the deadline.
    #[error("no leader confirmed a read index within {}", Millis(*waited))]
    Deadline {
        /// How long it was tried.
        waited: Duration,
    },
    /// The node does not see a quorum.
    #[error("the node does not see a quorum")]
    Inquorate,
}

/// Replication cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The operating system gives no randomness.
    #[error("no randomness: {error}")]
    Randomness {
        /// What it says.
        error: getrandom::Error,
    },
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskFault),
    /// The directory's files cannot be opened; names what is damaged.
    #[error(transparent)]
    Storage(#[from] OpenError),
    /// The log has a hole and there is no other node to repair it from.
    #[error(
        "{hole}; a single node cannot repair it: `quorate log repair --accept-loss {}` goes on \
         without what is lost",
        dir.display()
    )]
    Hole {
        /// What is damaged, and where.
        hole: Hole,
        /// The node's directory.
        dir: PathBuf,
    },
    /// The snapshots cannot be opened.
    #[error(transparent)]
    Snapshots(#[from] CatalogueError),
    /// The identity is whole but says what this version cannot read.
    #[error("the identity in {} is of another version or was never written by this program", dir.display())]
    IdentityUnreadable {
        /// Where.
        dir: PathBuf,
    },
    /// A log without an identity: an empty identity must never speak for it.
    #[error("{} holds a log but no identity", dir.display())]
    IdentityMissing {
        /// Where.
        dir: PathBuf,
    },
    /// The log of a member is gone: it may have acknowledged what nobody else holds.
    #[error("the log in {} is empty, though this node's was begun", dir.display())]
    LogMissing {
        /// Where.
        dir: PathBuf,
    },
    /// The newest vote cannot be proven: this node might vote twice in a term.
    #[error("the newest vote in {} cannot be proven", dir.display())]
    VoteUnproven {
        /// Where.
        dir: PathBuf,
    },
    /// The newest snapshot cannot be loaded, or the log does not reach down to it.
    #[error("the state in {} cannot be restored: {source}", dir.display())]
    State {
        /// Where.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// This directory belongs to a node of another name.
    #[error("{name} is no founder of cluster {cluster}; the directory belongs to another node")]
    NotAFounder {
        /// The name in the settings.
        name: NodeName,
        /// The directory's cluster.
        cluster: ClusterId,
    },
    /// There is no place for this node in what it sees.
    #[error(transparent)]
    Founding(#[from] FoundingFault),
    /// Another live node has this name.
    #[error("the name {name} is in use by another node")]
    NameInUse {
        /// Which.
        name: NodeName,
    },
    /// The peer port cannot be opened.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// A thread cannot be started.
    #[error(transparent)]
    Thread(#[from] SpawnError),
    /// The consensus engine refuses to start.
    #[error("consensus cannot start: {reason}")]
    Consensus {
        /// What it says.
        reason: String,
    },
    /// The node was told to stop before it had started.
    #[error("stopped before it had started")]
    Stopped,
}

impl StartError {
    /// Whether space ran out, which passes.
    pub(in crate::replication) fn is_disk_full(&self) -> bool {
        match self {
            Self::Disk(fault) | Self::Storage(OpenError::Disk(fault)) => fault.is_full(),
            Self::Snapshots(error) => error.is_full(),
            _ => false,
        }
    }

    /// What the process exits with.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            // Nothing is damaged: with space it starts.
            Self::Storage(OpenError::Disk(fault)) if fault.is_full() => ExitCode::FAILED,
            Self::Storage(_)
            | Self::Hole { .. }
            | Self::Snapshots(_)
            | Self::IdentityUnreadable { .. }
            | Self::IdentityMissing { .. }
            | Self::LogMissing { .. }
            | Self::VoteUnproven { .. }
            | Self::State { .. } => ExitCode::DAMAGED,
            Self::NotAFounder { .. } | Self::Founding(_) | Self::NameInUse { .. } => {
                ExitCode::WRONG_CLUSTER
            }
            Self::Mesh(_) => ExitCode::USAGE,
            Self::Randomness { .. }
            | Self::Disk(_)
            | Self::Thread(_)
            | Self::Consensus { .. }
            | Self::Stopped => ExitCode::FAILED,
        }
    }
}

/// Prints a duration in whole milliseconds.
struct Millis(Duration);

impl std::fmt::Display for Millis {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} ms", self.0.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use quorate_storage::DiskOperation;

    use super::*;

    #[test]
    fn a_full_disk_is_not_damage() {
        for (kind, code) in [
            (io::ErrorKind::StorageFull, ExitCode::FAILED),
            (io::ErrorKind::Other, ExitCode::DAMAGED),
        ] {
            let fault = DiskFault::new(DiskOperation::Write, Path::new("x"), &kind.into());
            let error = StartError::from(OpenError::from(fault));
            assert_eq!(error.exit_code(), code);
            assert_eq!(error.is_disk_full(), kind == io::ErrorKind::StorageFull);
        }
    }
}
