//! A disk in memory that keeps what is durable apart from what is only written, and can crash.
//!
//! What survives [`SimulatedDisk::crash`]: bytes that were synced, names whose folder was synced,
//! and of everything younger a subset that the seed picks: nothing, all, a prefix, or any mixture
//! of 512-byte sectors and name changes, in any order. That is stricter than any real file system.
//! Folders are durable as soon as they are made.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile, OpenMode};

const SECTOR_BYTES: usize = 512;

/// A disk in memory; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct SimulatedDisk {
    world: Arc<Mutex<World>>,
}

#[derive(Debug, Default)]
struct World {
    files: BTreeMap<u64, Inode>,
    names: Names,
    dirs: BTreeSet<PathBuf>,
    power: Power,
}

/// What the names point to, now and after a crash.
#[derive(Debug, Default)]
struct Names {
    current: BTreeMap<PathBuf, u64>,
    durable: BTreeMap<PathBuf, u64>,
    pending: Vec<NameChange>,
}

/// Changes of names in one folder that happen together.
#[derive(Debug)]
struct NameChange {
    dir: PathBuf,
    updates: Vec<(PathBuf, Option<u64>)>,
}

#[derive(Debug, Default)]
struct Inode {
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Resize(usize),
}

#[derive(Debug, Default)]
struct Power {
    /// Handles of an earlier generation are dead.
    generation: u64,
    /// Changing operations since the disk was made.
    operations: u64,
    /// The operation during which the machine goes down.
    down_at: Option<u64>,
    down: bool,
    /// Flushes report success and do nothing.
    lies: bool,
    /// Flushes until one fails.
    flushes_left: Option<u64>,
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changing operations (everything but reading and listing) so far.
    pub fn operations(&self) -> u64 {
        self.lock().power.operations
    }

    /// The machine goes down during the `count`th changing operation from now, 1 being the next.
    /// From then on every call fails until [`Self::crash`].
    pub fn go_down_after(&self, count: u64) {
        let mut world = self.lock();
        world.power.down_at = Some(world.power.operations + count);
    }

    /// Whether the machine went down.
    pub fn is_down(&self) -> bool {
        self.lock().power.down
    }

    /// The `count`th flush of a file from now, 1 being the next, fails as Linux does it: the bytes
    /// stay readable, but no later flush will write them unless they are written anew.
    pub fn fail_flush_after(&self, count: u64) {
        self.lock().power.flushes_left = Some(count);
    }

    /// The process ends and another begins: open handles die, everything stays readable, and what
    /// was not durable still is not.
    pub fn kill_process(&self) {
        let mut world = self.lock();
        world.power.generation += 1;
        world.power.down = false;
        world.power.down_at = None;
        world.power.flushes_left = None;
    }

    /// From now on flushes of files report success and do nothing: the planted fault that a check of
    /// durability must notice.
    pub fn lie_about_flushes(&self) {
        self.lock().power.lies = true;
    }

    /// The power goes and comes back: all open handles die, and what was not durable survives as
    /// `seed` decides.
    pub fn crash(&self, seed: u64) {
        let mut random = Random(seed);
        let mut world = self.lock();
        let world = &mut *world;
        for change in pick(&mut random, std::mem::take(&mut world.names.pending)) {
            for (path, inode) in change.updates {
                apply_name(&mut world.names.durable, path, inode);
            }
        }
        world.names.current = world.names.durable.clone();
        let alive = world.names.durable.values().copied().collect::<BTreeSet<_>>();
        world.files.retain(|inode, _| alive.contains(inode));
        for file in world.files.values_mut() {
            let pending = std::mem::take(&mut file.pending);
            let pieces = tear(&mut random, pending);
            for change in pick(&mut random, pieces) {
                apply_change(&mut file.durable, &change);
            }
            file.current.clone_from(&file.durable);
        }
        world.power.generation += 1;
        world.power.down = false;
        world.power.down_at = None;
        world.power.flushes_left = None;
    }

    /// The bytes of a file as a reader sees them now; for tests that damage or compare files.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let world = self.lock();
        let inode = world.names.current.get(path)?;
        world.files.get(inode).map(|file| file.current.clone())
    }

    /// Puts a file there, durable; for tests that damage files.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut world = self.lock();
        let inode = world.files.last_key_value().map_or(1, |(last, _)| last + 1);
        world
            .files
            .insert(inode, Inode { current: bytes.clone(), durable: bytes, pending: Vec::new() });
        world.names.current.insert(path.to_owned(), inode);
        world.names.durable.insert(path.to_owned(), inode);
    }

    /// Another disk with the same files, all durable; for tests that try many damages of one state.
    pub fn fork(&self) -> Self {
        let world = self.lock();
        let copy = Self::new();
        for (path, inode) in &world.names.current {
            if let Some(file) = world.files.get(inode) {
                copy.put(path, file.current.clone());
            }
        }
        copy.lock().dirs = world.dirs.clone();
        copy
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The world, if the machine is up; counts a changing operation. The second part says that the
    /// machine goes down during it: the effect is begun, the caller hears of a failure.
    fn change(&self) -> io::Result<(MutexGuard<'_, World>, bool)> {
        let mut world = self.lock();
        world.power.check(world.power.generation)?;
        let goes_down = world.power.count();
        Ok((world, goes_down))
    }

    fn rename_one(world: &mut World, updates: Vec<(PathBuf, Option<u64>)>) {
        let mut by_dir: BTreeMap<PathBuf, Vec<(PathBuf, Option<u64>)>> = BTreeMap::new();
        for (path, inode) in updates {
            apply_name(&mut world.names.current, path.clone(), inode);
            by_dir.entry(parent(&path)).or_default().push((path, inode));
        }
        for (dir, updates) in by_dir {
            world.names.pending.push(NameChange { dir, updates });
        }
    }
}

impl Power {
    fn check(&self, generation: u64) -> io::Result<()> {
        if self.down || generation != self.generation { Err(down()) } else { Ok(()) }
    }

    fn flush_fails(&mut self) -> bool {
        let fails = self.flushes_left == Some(1);
        self.flushes_left = self.flushes_left.and_then(|left| left.checked_sub(1));
        fails
    }

    fn count(&mut self) -> bool {
        self.operations += 1;
        self.down = self.down_at.is_some_and(|at| self.operations >= at);
        self.down
    }
}

fn down() -> io::Error {
    io::Error::other("the simulated machine is down")
}

fn done(goes_down: bool) -> io::Result<()> {
    if goes_down { Err(down()) } else { Ok(()) }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}

fn apply_name(names: &mut BTreeMap<PathBuf, u64>, path: PathBuf, inode: Option<u64>) {
    match inode {
        Some(inode) => names.insert(path, inode),
        None => names.remove(&path),
    };
}

fn apply_change(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Resize(len) => content.resize(*len, 0),
        Change::Write { offset, bytes } => {
            let end = offset + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            if let Some(place) = content.get_mut(*offset..end) {
                place.copy_from_slice(bytes);
            }
        }
    }
}

/// Writes in pieces that never cross a sector.
fn tear(random: &mut Random, changes: Vec<Change>) -> Vec<Change> {
    let mut pieces = Vec::new();
    for change in changes {
        let Change::Write { mut offset, bytes } = change else {
            pieces.push(change);
            continue;
        };
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let room = SECTOR_BYTES - offset % SECTOR_BYTES;
            let (piece, after) = rest.split_at(room.min(rest.len()));
            pieces.push(Change::Write { offset, bytes: piece.to_vec() });
            offset += piece.len();
            rest = after;
        }
    }
    // Once in a while the last sector is torn in itself, as on a disk with smaller sectors.
    if random.below(4) == 0
        && let Some(Change::Write { bytes, .. }) = pieces.last_mut()
    {
        bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
    }
    pieces
}

/// The part of `changes` that survives.
fn pick<T>(random: &mut Random, changes: Vec<T>) -> Vec<T> {
    let count = changes.len() as u64;
    match random.below(5) {
        0 => Vec::new(),
        1 => changes,
        2 | 3 => {
            let kept = random.below(count + 1) as usize;
            changes.into_iter().take(kept).collect()
        }
        _ => changes.into_iter().filter(|_| random.below(2) == 0).collect(),
    }
}

/// splitmix64: small, seeded, good enough to pick subsets.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}

impl Disk for SimulatedDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let (mut world, goes_down) = self.change()?;
        world.dirs.extend(path.ancestors().map(Path::to_owned));
        done(goes_down)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.lock();
        world.power.check(world.power.generation)?;
        let inode = match (world.names.current.get(path).copied(), mode) {
            (Some(inode), OpenMode::Read | OpenMode::Write) => inode,
            (None, OpenMode::Read | OpenMode::Write) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            (found, OpenMode::Replace) => {
                if !world.dirs.contains(&parent(path)) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let goes_down = world.power.count();
                let inode = found.unwrap_or_else(|| {
                    let inode = world.files.last_key_value().map_or(1, |(last, _)| last + 1);
                    world.files.insert(inode, Inode::default());
                    Self::rename_one(&mut world, vec![(path.to_owned(), Some(inode))]);
                    inode
                });
                if let Some(file) = world.files.get_mut(&inode) {
                    file.current.clear();
                    file.pending.push(Change::Resize(0));
                }
                done(goes_down)?;
                inode
            }
        };
        let generation = world.power.generation;
        drop(world);
        Ok(Arc::new(SimulatedFile { disk: self.clone(), inode, generation }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let world = self.lock();
        world.power.check(world.power.generation)?;
        if !world.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let names = world.names.current.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut world, goes_down) = self.change()?;
        let Some(inode) = world.names.current.get(from).copied() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let updates = vec![(from.to_owned(), None), (to.to_owned(), Some(inode))];
        Self::rename_one(&mut world, updates);
        done(goes_down)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (mut world, goes_down) = self.change()?;
        if !world.names.current.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Self::rename_one(&mut world, vec![(path.to_owned(), None)]);
        done(goes_down)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let (mut world, goes_down) = self.change()?;
        done(goes_down)?;
        let names = &mut world.names;
        for change in names.pending.extract_if(.., |change| change.dir == dir) {
            for (path, inode) in change.updates {
                apply_name(&mut names.durable, path, inode);
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    inode: u64,
    generation: u64,
}

impl SimulatedFile {
    fn look<T>(&self, look: impl FnOnce(&Inode) -> T) -> io::Result<T> {
        let world = self.disk.lock();
        world.power.check(self.generation)?;
        world.files.get(&self.inode).map(look).ok_or_else(down)
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut world = self.disk.lock();
        world.power.check(self.generation)?;
        let goes_down = world.power.count();
        let file = world.files.get_mut(&self.inode).ok_or_else(down)?;
        apply_change(&mut file.current, &change);
        file.pending.push(change);
        done(goes_down)
    }
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.look(|file| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(file.current.len());
            let bytes = file.current.get(start..).unwrap_or_default();
            let count = bytes.len().min(buffer.len());
            for (to, from) in buffer.iter_mut().zip(bytes) {
                *to = *from;
            }
            count
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        self.change(Change::Write { offset, bytes: bytes.to_vec() })?;
        Ok(bytes.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.disk.lock();
        world.power.check(self.generation)?;
        let goes_down = world.power.count();
        done(goes_down)?;
        if world.power.lies {
            return Ok(());
        }
        let fails = world.power.flush_fails();
        let file = world.files.get_mut(&self.inode).ok_or_else(down)?;
        if fails {
            file.pending.clear();
            return Err(rustix::io::Errno::IO.into());
        }
        for change in std::mem::take(&mut file.pending) {
            apply_change(&mut file.durable, &change);
        }
        Ok(())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.change(Change::Resize(usize::try_from(bytes).map_err(io::Error::other)?))
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        if bytes > self.size()? { self.truncate(bytes) } else { Ok(()) }
    }

    fn size(&self) -> io::Result<u64> {
        self.look(|file| file.current.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(disk: &SimulatedDisk, path: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
        disk.create_dir(Path::new("d")).unwrap();
        let file = disk.open(Path::new(path), OpenMode::Replace).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    #[test]
    fn synced_bytes_under_a_synced_name_survive_every_seed() {
        for seed in 0..200 {
            let disk = SimulatedDisk::new();
            write(&disk, "d/a", b"kept").sync_data().unwrap();
            disk.sync_dir(Path::new("d")).unwrap();
            disk.crash(seed);
            assert_eq!(disk.bytes(Path::new("d/a")).unwrap(), b"kept");
        }
    }

    #[test]
    fn a_missing_sync_of_file_or_folder_loses_under_some_seed() {
        let lost = |sync_file: bool, sync_dir: bool| {
            (0..200).any(|seed| {
                let disk = SimulatedDisk::new();
                let file = write(&disk, "d/a", b"kept");
                if sync_file {
                    file.sync_data().unwrap();
                }
                if sync_dir {
                    disk.sync_dir(Path::new("d")).unwrap();
                }
                disk.crash(seed);
                disk.bytes(Path::new("d/a")).is_none_or(|bytes| bytes != b"kept")
            })
        };
        assert!(lost(false, true));
        assert!(lost(true, false));
        assert!(!lost(true, true));
    }

    #[test]
    fn a_write_can_be_torn() {
        let torn = (0..200).any(|seed| {
            let disk = SimulatedDisk::new();
            let file = write(&disk, "d/a", &[0; 2048]);
            file.sync_data().unwrap();
            disk.sync_dir(Path::new("d")).unwrap();
            file.write_all_at(&[1; 2048], 0).unwrap();
            disk.crash(seed);
            let bytes = disk.bytes(Path::new("d/a")).unwrap();
            bytes.contains(&0) && bytes.contains(&1)
        });
        assert!(torn);
    }

    #[test]
    fn after_going_down_every_call_fails_until_the_crash_and_old_handles_stay_dead() {
        let disk = SimulatedDisk::new();
        let file = write(&disk, "d/a", b"x");
        disk.go_down_after(1);
        assert!(file.sync_data().is_err());
        assert!(disk.is_down());
        assert!(disk.list(Path::new("d")).is_err());
        disk.crash(1);
        assert!(disk.list(Path::new("d")).is_ok());
        assert!(file.size().is_err());
    }

    #[test]
    fn a_rename_is_whole_or_not_at_all() {
        for seed in 0..200 {
            let disk = SimulatedDisk::new();
            write(&disk, "d/a", b"old").sync_data().unwrap();
            write(&disk, "d/b", b"new").sync_data().unwrap();
            disk.sync_dir(Path::new("d")).unwrap();
            disk.rename(Path::new("d/b"), Path::new("d/a")).unwrap();
            disk.crash(seed);
            let a = disk.bytes(Path::new("d/a")).unwrap();
            assert_eq!(a == b"new", disk.bytes(Path::new("d/b")).is_none());
        }
    }
}
