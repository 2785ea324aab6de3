//! A start that waits for space: opening writes, and a full disk is no reason to give up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_storage::Disk;

use super::Groups;
use super::disk_side::Store;
use crate::replication::error::StartError;
use crate::replication::founding::directory::Directory;
use crate::replication::settings::Retention;
use crate::telemetry::event;

/// How often space is looked for.
const SPACE_INTERVAL: Duration = Duration::from_secs(1);

/// Opens the directory; where the disk is full, as soon as there is space.
pub(super) async fn open_directory(
    disk: &Arc<dyn Disk>,
    dir: PathBuf,
) -> Result<Directory, StartError> {
    let mut space = Space::default();
    loop {
        let opened = Directory::open(Arc::clone(disk), dir.clone());
        if space.sufficed(&opened).await {
            return opened;
        }
    }
}

/// Opens the log; where the disk is full, as soon as there is space.
pub(super) async fn open_store(
    directory: &Directory,
    retention: &Retention,
    groups: &Groups,
) -> Result<Store, StartError> {
    let mut space = Space::default();
    loop {
        let opened = Store::open(directory, retention, groups).await;
        if space.sufficed(&opened).await {
            return opened;
        }
    }
}

/// Whether there was space.
#[derive(Debug, Default)]
struct Space {
    is_missing: bool,
}

impl Space {
    /// Whether there was space for what was tried; if not it can be tried again now.
    async fn sufficed<T>(&mut self, tried: &Result<T, StartError>) -> bool {
        match tried {
            Err(error) if error.is_disk_full() => {
                if !std::mem::replace(&mut self.is_missing, true) {
                    tracing::warn!(event = event::DISK_FULL, %error, "no space to start");
                }
                tokio::time::sleep(SPACE_INTERVAL).await;
                false
            }
            _ => {
                if self.is_missing {
                    tracing::info!(event = event::DISK_RECOVERED, "there is space to start");
                }
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_storage::disk::{FaultyDisk, SimulatedDisk};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_full_disk_is_waited_for_and_starts_are_still_counted_upwards() {
        let faulty = FaultyDisk::new(Arc::new(SimulatedDisk::new()));
        let disk: Arc<dyn Disk> = Arc::new(faulty.clone());
        let before = open_directory(&disk, "n1".into()).await.unwrap();
        faulty.set_full(true);
        let open = open_directory(&disk, "n1".into());
        tokio::pin!(open);
        let waited = tokio::time::timeout(10 * SPACE_INTERVAL, &mut open).await;
        assert!(waited.is_err(), "it is full");
        faulty.set_full(false);
        let opened = open.await.unwrap();
        assert!(opened.incarnation() > before.incarnation());
        assert_eq!(opened.nonce(), before.nonce());
    }
}
