//! The names inside of a node's folder, in one place.
//!
//! ```text
//! DIR/identity.a, identity.b        who the node is, in two copies
//! DIR/log/                          segments, hard state, standing
//! DIR/snapshots/                    snapshots; quarantine/ for damaged ones
//! DIR/index/                        the index; index.damaged-N/ beside it
//! ```

use std::path::{Path, PathBuf};

/// The log's folder of a node.
#[must_use]
pub fn log_dir(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// The folder of a node's snapshots.
#[must_use]
pub fn snapshot_dir(dir: &Path) -> PathBuf {
    dir.join("snapshots")
}

/// The folder of a node's index.
#[must_use]
pub fn index_dir(dir: &Path) -> PathBuf {
    dir.join("index")
}
