//! Who this node is, in two fsynced copies.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::Disk;
use crate::error::{DiskFault, OpenError};

/// Who this node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: u64,
    /// The history of the log; changes with a restore or an accepted loss.
    pub lineage: u64,
    /// This node's id, never reused.
    pub node_id: u64,
    /// Drawn when the folder was made: tells this disk from a copy or a successor.
    pub nonce: u64,
    /// Counts the starts of this node.
    pub incarnation: u64,
    /// Lets a restarted server reset its predecessor's connections at once.
    pub stateless_reset_key: [u8; 64],
    /// The owner's own bytes (the name, the founders…).
    pub extra: Bytes,
}

/// The identity's files.
#[derive(Debug)]
pub struct IdentityFile {}

impl IdentityFile {
    /// Opens the files in `dir`; the second part is `None` when there was never an identity.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<(Self, Option<Identity>), OpenError> {
        todo!()
    }

    /// Replaces the identity; durable in both copies when this returns.
    pub fn save(&mut self, identity: &Identity) -> Result<(), DiskFault> {
        todo!()
    }
}
