//! The snapshots of one folder: which there are, which is the newest, which may go.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::format::{FormatError, SnapshotHead, SnapshotId};
use super::reader::{SnapshotError, SnapshotFault, SnapshotReader, read};
use super::transfer::{PARTIAL_SUFFIX, SnapshotReceiver, TransferError, partial_id};
use super::writer::{SnapshotWriter, TEMPORARY_SUFFIX, Written};
use crate::disk::{Disk, OpenMode};

/// The folder, inside the catalogue's, that damaged files are moved to.
pub const QUARANTINE: &str = "quarantine";
/// Most bytes that one call of [`Catalogue::read_range`] answers with.
pub const RANGE_BYTES_MAX: usize = 1 << 20;

/// Which cluster and which of its histories a folder belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The cluster.
    pub cluster_id: u64,
    /// Its unbroken history.
    pub lineage: u64,
}

/// The snapshots of one folder. Shared by reference; every method may be called from any thread,
/// and none holds the lock over disk work other than renames.
#[derive(Debug)]
pub struct Catalogue {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    owner: Option<Owner>,
    shared: Mutex<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    kept: BTreeMap<SnapshotId, Kept>,
    generation: u64,
}

/// A snapshot in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Which one.
    pub id: SnapshotId,
    /// What it says about itself.
    pub head: SnapshotHead,
    /// Number of records.
    pub records: u64,
    /// Length of the file.
    pub file_bytes: u64,
    /// Whether all of it was read back and found whole since the catalogue was opened.
    pub verified: bool,
}

/// A file that is not served any more, and why.
#[derive(Debug)]
pub struct SetAside {
    /// Its name.
    pub name: String,
    /// Where it is now; `None` when it stayed where it was, unlisted: a later version's file.
    pub moved_to: Option<PathBuf>,
    /// What was wrong.
    pub error: SnapshotError,
}

/// An operation on the catalogue that failed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The disk refused.
    #[error("snapshot folder {}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A snapshot could not be written or read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The catalogue does not hold it (any more).
    #[error("there is no snapshot at index {} here", id.index)]
    Unknown {
        /// What was asked for.
        id: SnapshotId,
    },
}

impl CatalogueError {
    /// Whether space ran out, which passes.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Disk { source, .. } => crate::disk::is_full(source),
            Self::Snapshot(error) => error.is_full(),
            Self::Unknown { .. } => false,
        }
    }
}

impl Catalogue {
    /// Opens a folder, or makes it. Leftovers of interrupted writing are removed; damaged files,
    /// and those of another owner if one is given, are moved to [`QUARANTINE`] and reported.
    /// Pages are not read yet: see [`Catalogue::newest_verified`].
    ///
    /// # Errors
    /// [`CatalogueError::Disk`] when the disk refuses.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        owner: Option<Owner>,
    ) -> Result<(Self, Vec<SetAside>), CatalogueError> {
        let refused = |source| CatalogueError::Disk { path: dir.to_owned(), source };
        disk.create_dir(dir).map_err(refused)?;
        let names = disk.list(dir).map_err(refused)?;
        let catalogue =
            Self { disk, dir: dir.to_owned(), owner, shared: Mutex::new(Shared::default()) };
        let mut set_aside = Vec::new();
        for name in names {
            if name.ends_with(TEMPORARY_SUFFIX) {
                let path = dir.join(&name);
                catalogue.disk.remove(&path).map_err(refused)?;
            } else if SnapshotId::from_file_name(&name).is_some() {
                match catalogue.look_at(&name) {
                    Ok(kept) => {
                        catalogue.lock().kept.insert(kept.id, kept);
                    }
                    Err(error) if error.is_damage() => {
                        set_aside.push(catalogue.move_aside(&name, error)?);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok((catalogue, set_aside))
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All snapshots, newest first.
    #[must_use]
    pub fn list(&self) -> Vec<Kept> {
        self.lock().kept.values().rev().cloned().collect()
    }

    /// The newest snapshot, its pages perhaps not yet read.
    #[must_use]
    pub fn newest(&self) -> Option<Kept> {
        self.lock().kept.values().next_back().cloned()
    }

    /// The oldest snapshot, its pages perhaps not yet read.
    #[must_use]
    pub fn oldest(&self) -> Option<Kept> {
        self.lock().kept.values().next().cloned()
    }

    /// A number that grows with every change of the list.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// The newest snapshot of which every byte was just read and found whole. Damaged ones on the
    /// way are moved aside and reported.
    ///
    /// # Errors
    /// [`CatalogueError`] when the disk refuses.
    pub fn newest_verified(
        &self,
    ) -> Result<(Option<SnapshotReader>, Vec<SetAside>), CatalogueError> {
        let mut set_aside = Vec::new();
        for kept in self.list() {
            match self.verify(kept.id)? {
                Ok(reader) => return Ok((Some(reader), set_aside)),
                Err(aside) => set_aside.push(aside),
            }
        }
        Ok((None, set_aside))
    }

    /// Reads all of one, before it is given to anybody. One that is damaged is moved aside; the
    /// answer is the report.
    ///
    /// # Errors
    /// [`CatalogueError`] when it is not here, or the disk refuses.
    pub fn check(&self, id: SnapshotId) -> Result<Option<SetAside>, CatalogueError> {
        if !self.lock().kept.contains_key(&id) {
            return Err(CatalogueError::Unknown { id });
        }
        Ok(self.verify(id)?.err())
    }

    /// Moves aside every snapshot but this one: what a state that was found wrong has written.
    ///
    /// # Errors
    /// [`CatalogueError::Disk`] when the disk refuses.
    pub fn keep_only(&self, id: SnapshotId) -> Result<Vec<PathBuf>, CatalogueError> {
        let others: Vec<SnapshotId> =
            self.lock().kept.keys().filter(|other| **other != id).copied().collect();
        others.into_iter().map(|other| self.give_up(other)).collect()
    }

    /// Moves one aside whose bytes are whole and whose content is not believed.
    ///
    /// # Errors
    /// [`CatalogueError::Disk`] when the disk refuses; it is out of the list then nevertheless.
    pub fn give_up(&self, id: SnapshotId) -> Result<PathBuf, CatalogueError> {
        {
            let mut shared = self.lock();
            shared.kept.remove(&id);
            shared.generation += 1;
        }
        self.to_quarantine(&id.file_name())
    }

    /// Opens one for reading; its pages are checked as they are read.
    ///
    /// # Errors
    /// [`CatalogueError`] when it is not here, or cannot be opened any more.
    pub fn reader(&self, id: SnapshotId) -> Result<SnapshotReader, CatalogueError> {
        if !self.lock().kept.contains_key(&id) {
            return Err(CatalogueError::Unknown { id });
        }
        Ok(SnapshotReader::open(&*self.disk, &self.path(id))?)
    }

    /// Takes a snapshot out that a reader found damaged, and moves its file aside.
    ///
    /// # Errors
    /// [`CatalogueError::Disk`] when the disk refuses; it is out of the list then nevertheless.
    pub fn set_aside(
        &self,
        id: SnapshotId,
        error: SnapshotError,
    ) -> Result<SetAside, CatalogueError> {
        {
            let mut shared = self.lock();
            shared.kept.remove(&id);
            shared.generation += 1;
        }
        self.move_aside(&id.file_name(), error)
    }

    /// Begins a snapshot; [`Catalogue::finish`] ends it.
    ///
    /// # Errors
    /// [`SnapshotError`] when the head is too large or the disk refuses.
    pub fn begin(&self, head: SnapshotHead) -> Result<SnapshotWriter, SnapshotError> {
        SnapshotWriter::create(Arc::clone(&self.disk), &self.dir, head)
    }

    /// Makes a begun snapshot durable and lists it.
    ///
    /// # Errors
    /// [`SnapshotError`] when the disk refuses; it is not listed then.
    pub fn finish(&self, writer: SnapshotWriter) -> Result<Kept, SnapshotError> {
        debug_assert_eq!(writer.dir(), self.dir, "a writer of another folder");
        let Written { id, head, records, file_bytes } = writer.finish()?;
        Ok(self.insert(Kept { id, head, records, file_bytes, verified: false }))
    }

    /// Writes a whole snapshot.
    ///
    /// # Errors
    /// As [`Catalogue::begin`], [`SnapshotWriter::push`] and [`Catalogue::finish`].
    pub fn write(
        &self,
        head: SnapshotHead,
        records: impl IntoIterator<Item = Bytes>,
    ) -> Result<Kept, SnapshotError> {
        let mut writer = self.begin(head)?;
        writer.extend(records)?;
        self.finish(writer)
    }

    /// Removes all but the `keep` newest (at least one) snapshots, and the unfinished transfers
    /// that are older than the newest. Those that stay are read and verified first; damaged ones
    /// are moved aside and do not count. So nothing is removed unless a whole newer one exists.
    ///
    /// # Errors
    /// [`CatalogueError`] when the disk refuses.
    pub fn prune(&self, keep: usize) -> Result<(Vec<SnapshotId>, Vec<SetAside>), CatalogueError> {
        let (mut whole, mut removed, mut set_aside) = (0, Vec::new(), Vec::new());
        for kept in self.list() {
            if whole >= keep.max(1) {
                self.remove(kept.id)?;
                removed.push(kept.id);
            } else if kept.verified {
                whole += 1;
            } else {
                match self.verify(kept.id)? {
                    Ok(_) => whole += 1,
                    Err(aside) => set_aside.push(aside),
                }
            }
        }
        self.prune_partials()?;
        Ok((removed, set_aside))
    }

    /// Reads part of a snapshot's file, to be sent: at most `bytes_max` and [`RANGE_BYTES_MAX`]
    /// bytes from `offset` on, empty at and past the end.
    ///
    /// # Errors
    /// [`CatalogueError`] when it is not here (any more), or cannot be read.
    pub fn read_range(
        &self,
        id: SnapshotId,
        offset: u64,
        bytes_max: usize,
    ) -> Result<Bytes, CatalogueError> {
        let file_bytes = {
            let shared = self.lock();
            shared.kept.get(&id).ok_or(CatalogueError::Unknown { id })?.file_bytes
        };
        let rest = usize::try_from(file_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let bytes = rest.min(bytes_max).min(RANGE_BYTES_MAX);
        if bytes == 0 {
            return Ok(Bytes::new());
        }
        let path = self.path(id);
        self.disk
            .open(&path, OpenMode::Read)
            .and_then(|file| read(&*file, offset, bytes))
            .map_err(|source| CatalogueError::Disk { path, source })
    }

    /// Begins or resumes receiving a snapshot whose file has so many bytes.
    ///
    /// # Errors
    /// [`TransferError`] when the disk refuses.
    pub fn receive(
        &self,
        id: SnapshotId,
        file_bytes: u64,
    ) -> Result<SnapshotReceiver, TransferError> {
        SnapshotReceiver::open(Arc::clone(&self.disk), &self.dir, id, file_bytes)
    }

    /// Verifies a received snapshot, gives it its name, and lists it.
    ///
    /// # Errors
    /// [`TransferError`] when bytes are missing or wrong, or when it belongs to another owner; it
    /// is not listed then.
    pub fn accept(&self, receiver: SnapshotReceiver) -> Result<Kept, TransferError> {
        let mut kept = receiver.finish(|head| self.check_owner(head))?;
        kept.verified = true;
        Ok(self.insert(kept))
    }

    fn insert(&self, kept: Kept) -> Kept {
        let mut shared = self.lock();
        shared.kept.insert(kept.id, kept.clone());
        shared.generation += 1;
        kept
    }

    fn look_at(&self, name: &str) -> Result<Kept, SnapshotError> {
        let path = self.dir.join(name);
        let reader = SnapshotReader::open(&*self.disk, &path)?;
        self.check_owner(reader.head()).map_err(|error| SnapshotError::format(&path, error))?;
        Ok(Kept {
            id: reader.id(),
            head: reader.head().clone(),
            records: reader.record_count(),
            file_bytes: reader.file_bytes(),
            verified: false,
        })
    }

    fn check_owner(&self, head: &SnapshotHead) -> Result<(), FormatError> {
        let found = Owner { cluster_id: head.cluster_id, lineage: head.lineage };
        if self.owner.is_some_and(|owner| owner != found) {
            let Owner { cluster_id, lineage } = found;
            return Err(FormatError::Foreign { cluster_id, lineage });
        }
        Ok(())
    }

    /// Reads all of one; the inner error is the report of a damaged one that was moved aside.
    fn verify(&self, id: SnapshotId) -> Result<Result<SnapshotReader, SetAside>, CatalogueError> {
        let opened = SnapshotReader::open(&*self.disk, &self.path(id));
        match opened.and_then(|reader| reader.verify().map(|()| reader)) {
            Ok(reader) => {
                if let Some(kept) = self.lock().kept.get_mut(&id) {
                    kept.verified = true;
                }
                Ok(Ok(reader))
            }
            Err(error) if error.is_damage() => Ok(Err(self.set_aside(id, error)?)),
            Err(error) => Err(error.into()),
        }
    }

    fn remove(&self, id: SnapshotId) -> Result<(), CatalogueError> {
        {
            let mut shared = self.lock();
            shared.kept.remove(&id);
            shared.generation += 1;
        }
        let path = self.path(id);
        self.disk.remove(&path).map_err(|source| CatalogueError::Disk { path, source })
    }

    fn prune_partials(&self) -> Result<(), CatalogueError> {
        let Some(newest) = self.newest() else {
            return Ok(());
        };
        let refused = |source| CatalogueError::Disk { path: self.dir.clone(), source };
        for name in self.disk.list(&self.dir).map_err(refused)? {
            let superseded = partial_id(&name).is_some_and(|(id, _)| id.index <= newest.id.index);
            debug_assert!(!superseded || name.ends_with(PARTIAL_SUFFIX));
            if superseded {
                self.disk.remove(&self.dir.join(&name)).map_err(refused)?;
            }
        }
        Ok(())
    }

    fn move_aside(&self, name: &str, error: SnapshotError) -> Result<SetAside, CatalogueError> {
        if matches!(error.fault, SnapshotFault::Format(FormatError::UnknownVersion { .. })) {
            return Ok(SetAside { name: name.to_owned(), moved_to: None, error });
        }
        let target = self.to_quarantine(name)?;
        Ok(SetAside { name: name.to_owned(), moved_to: Some(target), error })
    }

    /// Moves a file to the quarantine, under a name that nothing has there.
    fn to_quarantine(&self, name: &str) -> Result<PathBuf, CatalogueError> {
        let quarantine = self.dir.join(QUARANTINE);
        let refused = |source| CatalogueError::Disk { path: quarantine.clone(), source };
        self.disk.create_dir(&quarantine).map_err(refused)?;
        let taken = self.disk.list(&quarantine).map_err(refused)?;
        let target = (0_u64..)
            .map(|number| if number == 0 { name.to_owned() } else { format!("{name}.{number}") })
            .find(|candidate| !taken.contains(candidate))
            .map_or_else(|| quarantine.join(name), |free| quarantine.join(free));
        self.disk
            .rename(&self.dir.join(name), &target)
            .and_then(|()| self.disk.sync_dir(&quarantine))
            .and_then(|()| self.disk.sync_dir(&self.dir))
            .map_err(refused)?;
        Ok(target)
    }

    fn path(&self, id: SnapshotId) -> PathBuf {
        self.dir.join(id.file_name())
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Every change under the lock is complete before the lock can be poisoned.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
