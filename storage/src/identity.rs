//! Who this node is, in two fsynced copies ([`TwinFile`]).
//!
//! ```text
//! content = cluster id u64 · lineage u64 · node id u64 · nonce u64 · incarnation u64
//!         · stateless reset key 64 bytes · extra
//! ```

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::Disk;
use crate::error::{DiskFault, OpenError};
use crate::format::{array, read_u64};
use crate::log::twin_file::TwinFile;

const NAME: &str = "identity";
const KEY_AT: usize = 40;
const EXTRA_AT: usize = KEY_AT + 64;

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

impl Identity {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(EXTRA_AT + self.extra.len());
        let numbers = [self.cluster_id, self.lineage, self.node_id, self.nonce, self.incarnation];
        for number in numbers {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.stateless_reset_key);
        bytes.extend_from_slice(&self.extra);
        bytes
    }

    fn decode(bytes: &Bytes) -> Option<Self> {
        Some(Self {
            cluster_id: read_u64(bytes, 0)?,
            lineage: read_u64(bytes, 8)?,
            node_id: read_u64(bytes, 16)?,
            nonce: read_u64(bytes, 24)?,
            incarnation: read_u64(bytes, 32)?,
            stateless_reset_key: array(bytes, KEY_AT)?,
            extra: bytes.slice(EXTRA_AT..),
        })
    }
}

/// The identity's files.
#[derive(Debug)]
pub struct IdentityFile {
    twins: TwinFile,
}

impl IdentityFile {
    /// Opens the files in `dir`; the second part is `None` when there was never an identity.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<(Self, Option<Identity>), OpenError> {
        let (twins, content) = TwinFile::open(disk, dir, NAME)?;
        let identity = content
            .map(|content| {
                let damaged = || OpenError::TwinsDamaged { path: dir.join(NAME) };
                Identity::decode(&content).ok_or_else(damaged)
            })
            .transpose()?;
        Ok((Self { twins }, identity))
    }

    /// Replaces the identity; durable in both copies when this returns.
    pub fn save(&mut self, identity: &Identity) -> Result<(), DiskFault> {
        self.twins.save(&identity.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimulatedDisk;

    #[test]
    fn it_comes_back() {
        let disk = SimulatedDisk::new();
        let open = || IdentityFile::open(Arc::new(disk.clone()), Path::new("n1")).unwrap();
        let (mut file, none) = open();
        assert_eq!(none, None);
        let identity = Identity {
            cluster_id: 1,
            lineage: 2,
            node_id: u64::MAX,
            nonce: 4,
            incarnation: 5,
            stateless_reset_key: [6; 64],
            extra: Bytes::from_static(b"n1"),
        };
        file.save(&identity).unwrap();
        assert_eq!(open().1, Some(identity));
    }

    #[test]
    fn every_flip_of_one_copy_is_mended_and_of_both_refused() {
        let identity = Identity {
            cluster_id: 1,
            lineage: 2,
            node_id: 3,
            nonce: 4,
            incarnation: 5,
            stateless_reset_key: [6; 64],
            extra: Bytes::from_static(b"standing"),
        };
        let disk = SimulatedDisk::new();
        let open = |disk: &SimulatedDisk| {
            IdentityFile::open(Arc::new(disk.clone()), Path::new("n1")).map(|(_, found)| found)
        };
        let (mut file, _) = IdentityFile::open(Arc::new(disk.clone()), Path::new("n1")).unwrap();
        file.save(&identity).unwrap();
        let copies = ["n1/identity.a", "n1/identity.b"].map(Path::new);
        let whole = disk.bytes(copies[0]).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            for copy in copies {
                let damaged = disk.fork();
                damaged.put(copy, bytes.clone());
                assert_eq!(open(&damaged).unwrap(), Some(identity.clone()), "bit {bit}");
                assert_eq!(damaged.bytes(copy).unwrap(), whole, "bit {bit}");
            }
            let lost = disk.fork();
            for copy in copies {
                lost.put(copy, bytes.clone());
            }
            let refused = open(&lost);
            assert!(matches!(refused, Err(OpenError::TwinsDamaged { .. })), "bit {bit}");
        }
    }
}
