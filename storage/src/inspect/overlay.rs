//! A disk over another disk that keeps every change to itself.
//!
//! Opening a log repairs what it may. An inspection wants to know what opening would find and do
//! without any of it being done, so it opens over this: reads come from below, changes stay in
//! memory (pages of changed bytes only, so a reserved segment costs nothing).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile, OpenMode};

const PAGE_BYTES: u64 = 4096;

/// See the module's head. Clones are handles of one disk.
#[derive(Debug, Clone)]
pub struct OverlayDisk {
    below: Arc<dyn Disk>,
    changes: Arc<Mutex<Changes>>,
}

#[derive(Debug, Default)]
struct Changes {
    /// Files that differ from those below; `None` where one was removed.
    files: BTreeMap<PathBuf, Option<Arc<OverlayFile>>>,
    folders: BTreeSet<PathBuf>,
}

#[derive(Debug)]
struct OverlayFile {
    below: Option<Arc<dyn DiskFile>>,
    content: Mutex<Content>,
}

#[derive(Debug)]
struct Content {
    size: u64,
    /// Bytes of the file below that are still visible where no page hides them.
    visible: u64,
    pages: BTreeMap<u64, Vec<u8>>,
    changed: bool,
}

impl OverlayDisk {
    /// Lays itself over a disk.
    pub fn new(below: Arc<dyn Disk>) -> Self {
        Self { below, changes: Arc::default() }
    }

    /// Whether a file was changed, renamed or removed up here.
    pub fn has_changed(&self, path: &Path) -> bool {
        match self.lock().files.get(path) {
            None => false,
            Some(None) => true,
            Some(Some(file)) => file.below.is_none() || file.lock().changed,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file, made changeable.
    fn file(&self, changes: &mut Changes, path: &Path) -> io::Result<Arc<OverlayFile>> {
        match changes.files.get(path) {
            Some(Some(file)) => Ok(Arc::clone(file)),
            Some(None) => Err(io::ErrorKind::NotFound.into()),
            None => {
                let below = self.below.open(path, OpenMode::Read)?;
                let size = below.size()?;
                let file = Arc::new(OverlayFile::new(Some(below), size));
                changes.files.insert(path.to_owned(), Some(Arc::clone(&file)));
                Ok(file)
            }
        }
    }
}

impl Disk for OverlayDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.lock().folders.insert(path.to_owned());
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut changes = self.lock();
        if mode != OpenMode::Replace {
            return Ok(self.file(&mut changes, path)?);
        }
        let file = Arc::new(OverlayFile::new(None, 0));
        changes.files.insert(path.to_owned(), Some(Arc::clone(&file)));
        Ok(file)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let changes = self.lock();
        let mut names: BTreeSet<String> = match self.below.list(dir) {
            Ok(names) => names.into_iter().collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !changes.folders.contains(dir) {
                    return Err(error);
                }
                BTreeSet::new()
            }
            Err(error) => return Err(error),
        };
        for (path, file) in changes.files.iter().filter(|(path, _)| path.parent() == Some(dir)) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if file.is_some() {
                names.insert(name.to_owned());
            } else {
                names.remove(name);
            }
        }
        Ok(names.into_iter().collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut changes = self.lock();
        let file = self.file(&mut changes, from)?;
        changes.files.insert(from.to_owned(), None);
        changes.files.insert(to.to_owned(), Some(file));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut changes = self.lock();
        self.file(&mut changes, path)?;
        changes.files.insert(path.to_owned(), None);
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl OverlayFile {
    fn new(below: Option<Arc<dyn DiskFile>>, size: u64) -> Self {
        let content = Content { size, visible: size, pages: BTreeMap::new(), changed: false };
        Self { below, content: Mutex::new(content) }
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills a buffer from the file below, zeros where it ends.
    fn read_below(&self, buffer: &mut [u8], offset: u64, visible: u64) -> io::Result<()> {
        buffer.fill(0);
        let left = usize::try_from(visible.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        match (&self.below, buffer.get_mut(..wanted)) {
            (Some(below), Some(part)) if !part.is_empty() => below.read_exact_at(part, offset),
            _ => Ok(()),
        }
    }
}

impl DiskFile for OverlayFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.lock();
        let left = usize::try_from(content.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let Some(buffer) = buffer.get_mut(..wanted).filter(|buffer| !buffer.is_empty()) else {
            return Ok(0);
        };
        self.read_below(buffer, offset, content.visible)?;
        let end = offset + wanted as u64;
        for (number, page) in content.pages.range(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)) {
            copy_overlap(buffer, offset, page, number * PAGE_BYTES);
        }
        Ok(wanted)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut content = self.lock();
        let end = offset + bytes.len() as u64;
        for number in offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
            let start = number * PAGE_BYTES;
            let mut page = match content.pages.remove(&number) {
                Some(page) => page,
                None => {
                    let mut page = vec![0; PAGE_BYTES as usize];
                    self.read_below(&mut page, start, content.visible)?;
                    page
                }
            };
            let before = page.clone();
            copy_overlap(&mut page, start, bytes, offset);
            // Opening writes some bytes once more as they are; that changes nothing.
            content.changed |= page != before;
            content.pages.insert(number, page);
        }
        content.changed |= content.size < end;
        content.size = content.size.max(end);
        Ok(bytes.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        let mut content = self.lock();
        content.changed |= content.size != bytes;
        content.size = bytes;
        content.visible = content.visible.min(bytes);
        content.pages.split_off(&bytes.div_ceil(PAGE_BYTES));
        if let Some(page) = content.pages.get_mut(&(bytes / PAGE_BYTES)) {
            let kept = usize::try_from(bytes % PAGE_BYTES).unwrap_or(0);
            page.get_mut(kept..).unwrap_or_default().fill(0);
        }
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut content = self.lock();
        content.size = content.size.max(bytes);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.lock().size)
    }
}

/// Copies the bytes that two pieces of a file have in common.
fn copy_overlap(target: &mut [u8], target_at: u64, source: &[u8], source_at: u64) {
    let start = target_at.max(source_at);
    let end = (target_at + target.len() as u64).min(source_at + source.len() as u64);
    if start >= end {
        return;
    }
    let part = |at: u64| (start - at) as usize..(end - at) as usize;
    if let (Some(target), Some(source)) =
        (target.get_mut(part(target_at)), source.get(part(source_at)))
    {
        target.copy_from_slice(source);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::SimulatedDisk;

    fn below() -> SimulatedDisk {
        let disk = SimulatedDisk::new();
        disk.create_dir(Path::new("d")).unwrap();
        disk.put(Path::new("d/a"), (0..10_000).map(|n| n as u8).collect());
        disk.put(Path::new("d/b"), b"bee".to_vec());
        disk
    }

    fn whole(disk: &dyn Disk, path: &str) -> Vec<u8> {
        disk.open(Path::new(path), OpenMode::Read).unwrap().read_whole(1 << 20).unwrap()
    }

    #[test]
    fn names_change_above_and_not_below() {
        let disk = below();
        let over = OverlayDisk::new(Arc::new(disk.clone()));
        over.rename(Path::new("d/a"), Path::new("d/b")).unwrap();
        over.open(Path::new("d/c"), OpenMode::Replace).unwrap();
        over.create_dir(Path::new("d/q")).unwrap();
        assert_eq!(over.list(Path::new("d")).unwrap(), ["b", "c"]);
        assert!(over.list(Path::new("d/q")).unwrap().is_empty());
        assert!(over.list(Path::new("elsewhere")).is_err());
        assert_eq!(whole(&over, "d/b").len(), 10_000);
        over.remove(Path::new("d/b")).unwrap();
        assert!(over.open(Path::new("d/b"), OpenMode::Read).is_err());
        assert!(over.remove(Path::new("d/b")).is_err());
        assert_eq!(disk.list(Path::new("d")).unwrap(), ["a", "b"]);
        assert_eq!(whole(&disk, "d/b"), b"bee");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_file_behaves_as_a_file_and_nothing_changes_below(
            steps in prop::collection::vec((0..3_u8, 0..20_000_u64, 1..9_000_usize), 1..20)
        ) {
            let disk = below();
            let mut model = whole(&disk, "d/a");
            let over = OverlayDisk::new(Arc::new(disk.clone()));
            let file = over.open(Path::new("d/a"), OpenMode::Write).unwrap();
            for (number, (kind, offset, length)) in steps.into_iter().enumerate() {
                let at = offset as usize;
                match kind {
                    0 => {
                        let bytes = vec![number as u8 + 1; length];
                        file.write_all_at(&bytes, offset).unwrap();
                        model.resize(model.len().max(at + length), 0);
                        model[at..at + length].copy_from_slice(&bytes);
                    }
                    1 => {
                        file.truncate(offset).unwrap();
                        model.resize(at, 0);
                    }
                    _ => {
                        file.allocate(offset).unwrap();
                        model.resize(model.len().max(at), 0);
                    }
                }
                prop_assert_eq!(file.size().unwrap(), model.len() as u64);
                prop_assert_eq!(&whole(&over, "d/a"), &model);
            }
            prop_assert_eq!(whole(&disk, "d/a").len(), 10_000);
        }
    }
}
