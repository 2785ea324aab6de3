//! The directory of a node: its lock, and what it says there of its process.

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_storage::Disk as _;
use quorate_storage::disk::{RealDisk, is_full};

use super::{Doors, NodeError, file_error};
use crate::clock::Clock;
use crate::supervisor::Supervisor;
use crate::telemetry::event;

/// How long a directory that another process holds is waited for, and how often it is looked at.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
const LOCK_INTERVAL: Duration = Duration::from_millis(50);
/// How often a note for which the disk has no space is tried again.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

const PROCESS: &str = "pid";
const DOORS: &str = "ports.json";

/// The node's directory, held by this process alone as long as the lock lives.
#[derive(Debug)]
pub(super) struct LockedDirectory {
    dir: PathBuf,
    _lock: File,
}

impl LockedDirectory {
    /// Takes the directory. A process that was killed a moment ago may still hold it: its end is
    /// waited for a little.
    pub(super) async fn take(dir: &Path, clock: Clock) -> Result<Self, NodeError> {
        std::fs::create_dir_all(dir).map_err(|source| file_error(dir, source))?;
        // Whatever becomes durable in it would be lost with its name.
        if let Some(parent) = dir.parent() {
            RealDisk.sync_dir(parent).map_err(|source| file_error(parent, source))?;
        }
        let path = dir.join("lock");
        let lock = File::create(&path).map_err(|source| file_error(&path, source))?;
        let give_up = clock.now() + LOCK_PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if clock.now() < give_up => {
                    tokio::time::sleep(LOCK_INTERVAL).await;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(NodeError::DirectoryInUse { dir: dir.to_owned() });
                }
                Err(TryLockError::Error(source)) => return Err(file_error(&path, source)),
            }
        }
        let directory = Self { dir: dir.to_owned(), _lock: lock };
        // What a killed one said of itself is not true of this process.
        directory.leave();
        Ok(directory)
    }

    /// `pid`: the process that runs on this directory.
    pub(super) fn note_process(&self, supervisor: &Supervisor) -> Result<(), NodeError> {
        self.note(PROCESS, format!("{}\n", std::process::id()), supervisor)
    }

    /// `ports.json`: where a node that was told to take any free port listens.
    pub(super) fn note_doors(
        &self,
        doors: &Doors,
        supervisor: &Supervisor,
    ) -> Result<(), NodeError> {
        let text = serde_json::json!({
            "client": doors.client.to_string(),
            "peer": doors.peer.to_string(),
            "http": doors.http.to_string(),
        });
        self.note(DOORS, format!("{text}\n"), supervisor)
    }

    /// A full disk is no reason not to run: the note is made when there is space.
    fn note(
        &self,
        name: &'static str,
        text: String,
        supervisor: &Supervisor,
    ) -> Result<(), NodeError> {
        let path = self.dir.join(name);
        match replace(&path, &text) {
            Err(error) if is_full(&error) => {
                tracing::warn!(event = event::DISK_FULL, %error, "no space to write {name}");
                let mut stop = supervisor.stop_signal();
                supervisor.spawn("notes", async move {
                    tokio::select! {
                        () = stop.stopped() => {}
                        () = replace_in_time(&path, &text) => {}
                    }
                });
                Ok(())
            }
            written => written.map_err(|source| file_error(&path, source)),
        }
    }

    /// What is true only of a process that runs goes with it.
    pub(super) fn leave(&self) {
        for name in [PROCESS, DOORS] {
            // A file that stays behind is replaced by the next start.
            let _left = std::fs::remove_file(self.dir.join(name));
        }
    }
}

/// Replaces a small file as a whole: who waits for it never reads half of it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let next = path.with_extension("new");
    let written = File::create(&next).and_then(|mut file| file.write_all(text.as_bytes()));
    let replaced = written.and_then(|()| std::fs::rename(&next, path));
    if replaced.is_err() {
        // Half of it is of no use to anybody.
        let _left = std::fs::remove_file(&next);
    }
    replaced
}

async fn replace_in_time(path: &Path, text: &str) {
    loop {
        tokio::time::sleep(NOTE_INTERVAL).await;
        match replace(path, text) {
            Ok(()) => return,
            Err(error) if is_full(&error) => {}
            Err(error) => {
                let path = path.display();
                tracing::warn!(event = event::NOTE_NOT_WRITTEN, %error, "{path} is not written");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_directory_is_held_by_one_process_and_says_which() {
        let dir = tempfile::tempdir().unwrap();
        let supervisor = Supervisor::new("test");
        let held = LockedDirectory::take(dir.path(), Clock::system()).await.unwrap();
        held.note_process(&supervisor).unwrap();
        let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
        assert_eq!(pid.trim(), std::process::id().to_string());
        let second = LockedDirectory::take(dir.path(), Clock::system()).await;
        assert!(matches!(second, Err(NodeError::DirectoryInUse { .. })));
        assert!(dir.path().join("pid").exists(), "of the one that runs");
        held.leave();
        assert!(!dir.path().join("pid").exists());
        drop(held);
        LockedDirectory::take(dir.path(), Clock::system()).await.unwrap();
    }

    #[tokio::test]
    async fn what_a_killed_one_said_of_itself_goes() {
        let dir = tempfile::tempdir().unwrap();
        for name in [PROCESS, DOORS] {
            std::fs::write(dir.path().join(name), "1").unwrap();
        }
        let _held = LockedDirectory::take(dir.path(), Clock::system()).await.unwrap();
        assert!(!dir.path().join(PROCESS).exists() && !dir.path().join(DOORS).exists());
    }

    #[tokio::test]
    async fn ports_are_reported_as_json() {
        let dir = tempfile::tempdir().unwrap();
        let held = LockedDirectory::take(dir.path(), Clock::system()).await.unwrap();
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let doors = Doors { client: address(1), peer: address(2), http: address(3) };
        held.note_doors(&doors, &Supervisor::new("test")).unwrap();
        let text = std::fs::read_to_string(dir.path().join("ports.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["client"], "127.0.0.1:1");
        assert_eq!(json["http"], "127.0.0.1:3");
    }
}
