//! The node's own directory: who it is, and where it stands in the founding.
//!
//! ```text
//! DIR/identity.*      cluster, node id, directory nonce, incarnation, standing: in two copies
//! DIR/log/            segments
//! DIR/snapshots/      snapshots
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use quorate_storage::identity::IdentityFile;
use quorate_storage::{Disk, Identity};

use crate::domain::node_name::NodeName;
use crate::replication::error::StartError;
use crate::replication::founding::rules::Standing;

/// Draws random bytes from the operating system.
pub(in crate::replication) fn random<const N: usize>() -> Result<[u8; N], StartError> {
    let mut bytes = [0; N];
    crate::entropy::fill(&mut bytes).map_err(|error| StartError::Randomness { error })?;
    Ok(bytes)
}

/// A random number.
pub(in crate::replication) fn random_number() -> Result<u64, StartError> {
    random::<8>().map(u64::from_le_bytes)
}

/// The directory, open.
#[derive(Debug)]
pub(in crate::replication) struct Directory {
    pub(in crate::replication) disk: Arc<dyn Disk>,
    pub(in crate::replication) dir: PathBuf,
    file: IdentityFile,
    identity: Identity,
    standing: Standing,
}

impl Directory {
    /// Opens the directory, or makes it, and counts a start.
    pub(in crate::replication) fn open(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
    ) -> Result<Self, StartError> {
        let (file, found) = IdentityFile::open(Arc::clone(&disk), &dir)?;
        let mut directory = if let Some(identity) = found {
            let mut extra = identity.extra.clone();
            let standing = Standing::take(&mut extra)
                .map_err(|_| StartError::IdentityUnreadable { dir: dir.clone() })?;
            Self { disk, dir, file, identity, standing }
        } else {
            let log = dir.join("log");
            // A folder that does not exist yet holds nothing either.
            if disk.list(&log).is_ok_and(|files| !files.is_empty()) {
                return Err(StartError::IdentityMissing { dir });
            }
            let identity = Identity {
                cluster_id: 0,
                lineage: 0,
                node_id: 0,
                nonce: random_number()?,
                incarnation: 0,
                stateless_reset_key: random()?,
                extra: Standing::Empty.encode(),
            };
            Self { disk, dir, file, identity, standing: Standing::Empty }
        };
        directory.identity.incarnation += 1;
        directory.file.save(&directory.identity)?;
        Ok(directory)
    }

    /// Stores a standing; durable when this returns. `own` is this node's name.
    pub(in crate::replication) fn stand(
        &mut self,
        standing: Standing,
        own: &NodeName,
    ) -> Result<(), StartError> {
        if let Standing::Formed { proposal, .. } = &standing {
            let founder = proposal.founder(own).ok_or_else(|| StartError::NotAFounder {
                name: own.clone(),
                cluster: proposal.cluster,
            })?;
            self.identity.cluster_id = proposal.cluster.0;
            self.identity.lineage = proposal.lineage.0;
            self.identity.node_id = founder.id.0;
        }
        self.identity.extra = standing.encode();
        self.file.save(&self.identity)?;
        self.standing = standing;
        Ok(())
    }

    pub(in crate::replication) fn standing(&self) -> &Standing {
        &self.standing
    }

    pub(in crate::replication) fn nonce(&self) -> u64 {
        self.identity.nonce
    }

    pub(in crate::replication) fn incarnation(&self) -> u64 {
        self.identity.incarnation
    }

    /// The stateless-reset keys of the peer port and of the client port.
    pub(in crate::replication) fn reset_keys(&self) -> ([u8; 32], [u8; 32]) {
        let (mut peer, mut client) = ([0; 32], [0; 32]);
        let (first, second) = self.identity.stateless_reset_key.split_at(32);
        peer.copy_from_slice(first);
        client.copy_from_slice(second);
        (peer, client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_storage::disk::SimulatedDisk;

    use crate::domain::id::{ClusterId, Lineage, NodeId};
    use crate::replication::founding::rules::{Founder, Proposal};

    #[test]
    fn identity_and_standing_survive_and_incarnations_rise() {
        let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new());
        let name = NodeName::parse("n1").unwrap();
        let mut first = Directory::open(Arc::clone(&disk), "n1".into()).unwrap();
        assert_eq!((first.incarnation(), first.standing()), (1, &Standing::Empty));
        let founder = Founder { name: name.clone(), id: NodeId(7), nonce: first.nonce() };
        let proposal =
            Proposal { cluster: ClusterId(5), lineage: Lineage(6), founders: vec![founder] };
        let formed = Standing::Formed { proposal, begun: false };
        first.stand(formed.clone(), &name).unwrap();
        let again = Directory::open(Arc::clone(&disk), "n1".into()).unwrap();
        assert_eq!((again.incarnation(), again.standing()), (2, &formed));
        assert_eq!(again.nonce(), first.nonce());
        assert_eq!(again.reset_keys(), first.reset_keys());
        assert_ne!(again.reset_keys().0, again.reset_keys().1);
        let stranger = NodeName::parse("n9").unwrap();
        assert!(matches!(first.stand(formed, &stranger), Err(StartError::NotAFounder { .. })));
    }
}
