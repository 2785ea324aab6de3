//! What remains after a failed flush.
//!
//! When `fdatasync` fails, the kernel may drop the dirty pages and report success the next time, so
//! nothing that was in flight can be proven ever again by this process. The log keeps the first
//! fault, refuses every later change with it, and completes every waiter with it. Only opening the
//! log anew, which rewrites what it can read past the last durable mark, ends the state.

use crate::error::DiskFault;

/// The first fault that made the log unable to acknowledge anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the log is poisoned: {fault}")]
pub struct Poisoned {
    /// What failed.
    pub fault: DiskFault,
}
