//! Body of the fuzz target of snapshots: any bytes as a snapshot's file.

use std::path::Path;

use bytes::Bytes;

use super::format::{decode_footer, decode_header, decode_page};
use super::reader::SnapshotReader;
use crate::disk::{Disk, SimulatedDisk};

/// Reads the bytes as a whole file and as each part of one.
///
/// # Panics
/// When an accepted file has other records or another length than it says.
pub fn snapshot_decode(bytes: &[u8]) {
    let shared = Bytes::copy_from_slice(bytes);
    let _ = decode_header(&shared);
    let _ = decode_footer(bytes);
    let _ = decode_page(&shared, 0);

    let (disk, path) = (SimulatedDisk::new(), Path::new("snapshots/fuzz"));
    if disk.create_dir(Path::new("snapshots")).is_err() {
        return;
    }
    disk.put(path, bytes.to_vec());
    let Ok(reader) = SnapshotReader::open(&disk, path) else {
        return;
    };
    let records: Result<Vec<Bytes>, _> = reader.records().collect();
    if let Ok(records) = records {
        assert_eq!(records.len() as u64, reader.record_count(), "an accepted file has all records");
        assert_eq!(reader.file_bytes(), bytes.len() as u64, "an accepted file is whole");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::{Catalogue, SnapshotHead};

    fn sample() -> Vec<u8> {
        let disk = SimulatedDisk::new();
        let dir = Path::new("snapshots");
        let (catalogue, _) = Catalogue::open(Arc::new(disk.clone()), dir, None).unwrap();
        let head = SnapshotHead {
            lineage: 1,
            cluster_id: 2,
            index: 3,
            term: 4,
            chain: 5,
            state_hash: 6,
            meta: Bytes::from_static(b"m"),
        };
        let kept = catalogue.write(head, (0..9).map(|n| Bytes::from(vec![n; 40]))).unwrap();
        disk.bytes(&dir.join(kept.id.file_name())).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            snapshot_decode(&bytes);
        }

        #[test]
        fn mutations_of_a_good_file(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = sample();
            for (place, value) in changes {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            snapshot_decode(&bytes);
            bytes.truncate(cut.index(bytes.len()));
            snapshot_decode(&bytes);
        }
    }
}
