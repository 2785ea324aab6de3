//! A disk whose flushes are measured: what of an update's time is the disk's, and whether the disk
//! is what slows a node down.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use quorate_storage::disk::{Disk, DiskFile, OpenMode};

use crate::clock::Clock;
use crate::telemetry::metrics::disk_flushed;

/// Another disk; each flush of a file goes into `quorate_disk_flush_seconds`.
#[derive(Debug)]
pub(super) struct MeasuredDisk {
    inner: Arc<dyn Disk>,
    clock: Clock,
}

#[derive(Debug)]
struct MeasuredFile {
    inner: Arc<dyn DiskFile>,
    clock: Clock,
}

impl MeasuredDisk {
    /// Measures the flushes of `inner`.
    pub(super) fn new(inner: Arc<dyn Disk>) -> Self {
        Self { inner, clock: Clock::system() }
    }
}

impl Disk for MeasuredDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(MeasuredFile { inner, clock: self.clock }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }
}

impl DiskFile for MeasuredFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.inner.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        let started = self.clock.now();
        self.inner.sync_data()?;
        disk_flushed(self.clock.since(started));
        Ok(())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.inner.truncate(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.inner.allocate(bytes)
    }

    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.inner.next_data(offset)
    }
}

#[cfg(test)]
mod tests {
    use quorate_storage::disk::RealDisk;

    use super::*;

    #[test]
    fn it_does_what_the_disk_below_does_and_measures_flushes() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let dir = tempfile::tempdir().unwrap();
        let path = |name| dir.path().join(name);
        metrics::with_local_recorder(&recorder, || {
            let disk = MeasuredDisk::new(Arc::new(RealDisk));
            disk.create_dir(&path("d")).unwrap();
            let file = disk.open(&path("d/a"), OpenMode::Replace).unwrap();
            file.allocate(1 << 20).unwrap();
            file.write_at(b"abc", 5).unwrap();
            file.sync_data().unwrap();
            file.sync_data().unwrap();
            assert_eq!(file.next_data(1 << 20).unwrap(), None);
            assert_eq!(
                file.next_data(5).unwrap(),
                RealDisk.open(&path("d/a"), OpenMode::Read).unwrap().next_data(5).unwrap()
            );
            file.truncate(8).unwrap();
            assert_eq!(file.size().unwrap(), 8);
            disk.rename(&path("d/a"), &path("d/b")).unwrap();
            disk.sync_dir(&path("d")).unwrap();
            assert_eq!(disk.list(&path("d")).unwrap(), ["b"]);
            let mut bytes = [0; 16];
            assert_eq!(
                disk.open(&path("d/b"), OpenMode::Read).unwrap().read_at(&mut bytes, 0).unwrap(),
                8
            );
            assert_eq!(&bytes[..8], b"\0\0\0\0\0abc");
            disk.remove(&path("d/b")).unwrap();
            assert!(disk.list(&path("d")).unwrap().is_empty());
        });
        let text = handle.render();
        assert!(text.contains("quorate_disk_flush_seconds_count 2"), "{text}");
    }
}
