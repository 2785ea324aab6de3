//! A single node that goes on without what its disk has lost: a new lineage of its cluster.
//!
//! The order makes each crash either a node that still refuses to start, or one that is done: it is
//! first tried without writing; then the snapshot that the state begins from is written for the new
//! lineage, then the identity takes that lineage, and only then the log is cut.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_storage::identity::IdentityFile;
use quorate_storage::inspect::OverlayDisk;
use quorate_storage::snapshot::{Catalogue, Kept, SnapshotHead, SnapshotReader};
use quorate_storage::{
    Diagnosis, Disk, LogOptions, Loss, LossError, OpenError, SnapshotEnd, layout, survey,
};

use crate::domain::id::Lineage;
use crate::replication::error::StartError;
use crate::replication::founding::directory::{Directory, random_number};
use crate::replication::founding::rules::{Proposal, Standing};

/// What going on costs.
#[derive(Debug)]
pub struct AcceptedLoss {
    /// The history that begins now.
    pub lineage: Lineage,
    /// The last entry of the snapshot that the state begins from, if there is one.
    pub snapshot: Option<u64>,
    /// What is lost, what is kept, and where the damaged files are.
    pub loss: Loss,
}

/// Why a loss cannot be accepted. Nothing has changed then, or a repetition goes on.
#[derive(Debug, thiserror::Error)]
pub enum AcceptLossError {
    /// The folder belongs to no formed cluster.
    #[error("{} is not the directory of a node that belongs to a cluster", dir.display())]
    NotAMember {
        /// The node's directory.
        dir: PathBuf,
    },
    /// Its peers have what it lost.
    #[error(
        "{} belongs to a cluster of {founders} nodes: start it, and it is repaired from the others",
        dir.display()
    )]
    HasPeers {
        /// The node's directory.
        dir: PathBuf,
        /// How many.
        founders: usize,
    },
    /// The log that would be left does not reach down to any snapshot that is whole.
    #[error(
        "nothing can be kept: the log would begin at entry {first}, and the newest whole snapshot \
         ends at {}",
        snapshot.map_or_else(|| "none".to_owned(), |index| index.to_string())
    )]
    StateLost {
        /// The first entry that would be left.
        first: u64,
        /// The last entry of the snapshot.
        snapshot: Option<u64>,
    },
    /// Neither log nor snapshot is left.
    #[error(transparent)]
    Loss(#[from] LossError),
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] StartError),
    /// A snapshot cannot be written for the new lineage.
    #[error("the snapshot cannot be written anew")]
    Snapshot(#[source] io::Error),
}

impl From<OpenError> for AcceptLossError {
    fn from(error: OpenError) -> Self {
        Self::Directory(error.into())
    }
}

/// Makes a stopped single node start again at the price of what is lost. `None` when its log has no
/// hole. With `dry_run` nothing is written. The caller holds the directory's lock.
///
/// # Errors
/// [`AcceptLossError`].
pub fn accept_loss(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    dry_run: bool,
) -> Result<Option<AcceptedLoss>, AcceptLossError> {
    let dry: Arc<dyn Disk> = Arc::new(OverlayDisk::new(Arc::clone(disk)));
    let tried = carry_out(&dry, dir)?;
    if dry_run || tried.is_none() {
        return Ok(tried);
    }
    carry_out(disk, dir)
}

fn carry_out(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Option<AcceptedLoss>, AcceptLossError> {
    let not_a_member = || AcceptLossError::NotAMember { dir: dir.to_owned() };
    if IdentityFile::open(Arc::clone(disk), dir)?.1.is_none() {
        return Err(not_a_member());
    }
    let mut directory = Directory::open(Arc::clone(disk), dir.to_owned())?;
    let Standing::Formed { proposal, begun } = directory.standing().clone() else {
        return Err(not_a_member());
    };
    let [founder] = &proposal.founders[..] else {
        let founders = proposal.founders.len();
        return Err(AcceptLossError::HasPeers { dir: dir.to_owned(), founders });
    };
    let name = founder.name.clone();
    let log_dir = layout::log_dir(dir);
    let old = LogOptions::new(proposal.cluster.0, proposal.lineage.0);
    if survey(Arc::clone(disk), &log_dir, &old)? == Diagnosis::Sound {
        return Ok(None);
    }
    let lineage = Lineage(random_number()?);
    let kept = renew_snapshot(disk, dir, &proposal, lineage)?;
    let proposal = Proposal { lineage, ..proposal };
    let options = LogOptions::new(proposal.cluster.0, lineage.0);
    directory.stand(Standing::Formed { proposal, begun }, &name)?;
    let end = kept.as_ref().map(|kept| SnapshotEnd {
        index: kept.id.index,
        term: kept.id.term,
        chain: kept.head.chain,
    });
    let loss = quorate_storage::accept_loss(disk, &log_dir, &options, end)?;
    let snapshot = kept.map(|kept| kept.id.index);
    let next = snapshot.map_or(0, |index| index + 1);
    if loss.kept.start > next || (loss.kept.is_empty() && snapshot.is_none()) {
        return Err(AcceptLossError::StateLost { first: loss.kept.start, snapshot });
    }
    Ok(Some(AcceptedLoss { lineage, snapshot, loss }))
}

/// Writes the newest whole snapshot, of whichever lineage, once more for the new one.
fn renew_snapshot(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    proposal: &Proposal,
    lineage: Lineage,
) -> Result<Option<Kept>, AcceptLossError> {
    let refused = |error| AcceptLossError::Directory(StartError::Snapshots(error));
    let dir = layout::snapshot_dir(dir);
    let (catalogue, _) = Catalogue::open(Arc::clone(disk), &dir, None).map_err(refused)?;
    let (reader, _) = catalogue.newest_verified().map_err(refused)?;
    let Some(reader) = reader.filter(|found| found.head().cluster_id == proposal.cluster.0) else {
        return Ok(None);
    };
    let renewed = copy(&catalogue, &reader, lineage).map_err(AcceptLossError::Snapshot)?;
    Ok(Some(renewed))
}

fn copy(catalogue: &Catalogue, reader: &SnapshotReader, lineage: Lineage) -> io::Result<Kept> {
    let head = SnapshotHead { lineage: lineage.0, ..reader.head().clone() };
    let mut writer = catalogue.begin(head).map_err(io::Error::other)?;
    for record in reader.records() {
        let record = record.map_err(io::Error::other)?;
        writer.extend([record]).map_err(io::Error::other)?;
    }
    catalogue.finish(writer).map_err(io::Error::other)
}
