//! What has been set aside as damaged: how much of it there is.
//!
//! The rule: what doubt has set aside, no code removes. It may be the last copy of something, and
//! only a person can know that it is not. So it is bounded by being told: the caller looks at
//! [`held_bytes`] now and then, and whoever runs the node makes room.

use std::io;
use std::path::Path;

use crate::disk::{Disk, OpenMode};
use crate::layout;
use crate::snapshot;

/// Bytes of the files that were set aside in a node's folder.
///
/// # Errors
/// When the disk refuses; a folder that is not there holds nothing.
pub fn held_bytes(disk: &dyn Disk, dir: &Path) -> io::Result<u64> {
    let log = layout::log_dir(dir).join(crate::log::twin_file::QUARANTINE);
    let snapshots = layout::snapshot_dir(dir).join(snapshot::QUARANTINE);
    let mut bytes = 0;
    for folder in [log, snapshots] {
        let names = match disk.list(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            names => names?,
        };
        for name in names {
            bytes += disk.open(&folder.join(name), OpenMode::Read)?.size()?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimulatedDisk;

    #[test]
    fn both_folders_count_and_neither_need_exist() {
        let disk = SimulatedDisk::new();
        let dir = Path::new("n1");
        assert_eq!(held_bytes(&disk, dir).unwrap(), 0);
        for (folder, bytes) in [("n1/log/quarantine", 3), ("n1/snapshots/quarantine", 40)] {
            disk.create_dir(Path::new(folder)).unwrap();
            disk.put(&Path::new(folder).join("x"), vec![1; bytes]);
        }
        disk.put(Path::new("n1/log/sound"), vec![1; 500]);
        assert_eq!(held_bytes(&disk, dir).unwrap(), 43);
    }
}
