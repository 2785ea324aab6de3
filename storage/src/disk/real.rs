//! The operating system's files.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::{Disk, DiskFile, OpenMode, rest};

/// Files of the operating system; stateless.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if path.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        let parent = path.parent();
        if let Some(parent) = parent {
            self.create_dir(parent)?;
        }
        match std::fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        parent.map_or(Ok(()), |parent| self.sync_dir(parent))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = File::options();
        match mode {
            OpenMode::Read => options.read(true),
            OpenMode::Write => options.read(true).write(true),
            OpenMode::Replace => options.read(true).write(true).create(true).truncate(true),
        };
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                // A name that is not UTF-8 is none of ours.
                names.extend(entry.file_name().into_string().ok());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        File::open(dir)?.sync_all()
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&self.0, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(&self.0, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, bytes) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        // The file's own position, which this moves, is used by nothing else.
        let start = match rustix::fs::seek(&self.0, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            // A file system that does not know.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(rest(offset, self.size()?)),
            Err(error) => return Err(error.into()),
        };
        Ok(Some(start..rustix::fs::seek(&self.0, SeekFrom::Hole(start))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_skipped_as_a_hole_holds_nothing_but_zeros() {
        const BYTES: usize = 1 << 20;
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&dir.path().join("holes"), OpenMode::Replace).unwrap();
        file.allocate(BYTES as u64).unwrap();
        for place in [0, 300_000, BYTES - 1] {
            file.write_at(b"x", place as u64).unwrap();
        }
        // Both before and after a flush: what has not come to the disk is no hole.
        for _ in 0..2 {
            let mut content = vec![0; BYTES];
            file.read_exact_at(&mut content, 0).unwrap();
            for offset in [0, 1, 5_000, 299_999, 300_000, 300_001, 700_000, BYTES - 1, BYTES] {
                let mut at = offset;
                while let Some(data) = file.next_data(at as u64).unwrap() {
                    let (start, end) = (data.start as usize, data.end as usize);
                    assert!(at <= start && start < end && end <= BYTES, "{data:?} from {at}");
                    assert!(content[at..start].iter().all(|byte| *byte == 0), "from {at}");
                    at = end;
                }
                assert!(content[at..].iter().all(|byte| *byte == 0), "from {at}");
            }
            assert_eq!(file.next_data(BYTES as u64).unwrap(), None);
            file.sync_data().unwrap();
        }
    }
}
