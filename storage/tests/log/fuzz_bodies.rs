//! The bodies of the fuzz targets, on stable, with made-up and with mutilated kept bytes.

use std::path::Path;

use quorate_storage::fuzzing::{log_operations, record_decode, segment_open};

use crate::crash_points::random_bytes;

#[test]
fn any_bytes_are_borne() {
    for seed in 0..300 {
        let bytes = random_bytes(seed, 16 + seed as usize % 200);
        record_decode(&bytes);
        segment_open(&bytes);
        log_operations(&bytes);
    }
}

#[test]
fn mutilated_segments_are_borne() {
    // Its last mark stands behind the entries, so that a wrong chain before it is a hole.
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1/log-marked-seal");
    for name in ["0000000000000001.seg", "0000000000000002.seg", "0000000000000003.seg"] {
        let whole = std::fs::read(kept.join(name)).unwrap();
        for seed in 0..300 {
            let noise = random_bytes(seed, 64);
            let mut bytes = whole.clone();
            for place in noise.chunks(4).take(1 + seed as usize % 8) {
                let at = (usize::from(place[0]) << 8 | usize::from(place[1])) % bytes.len();
                match place[2] % 4 {
                    0 => bytes[at] ^= place[3],
                    1 => bytes.truncate(at.max(1)),
                    2 => drop(bytes.splice(at..at, noise[..8].iter().copied())),
                    _ => bytes[at..].fill(place[3]),
                }
            }
            record_decode(bytes.get(72..).unwrap_or_default());
            // As it is, and what follows the first durable mark behind a sound head.
            bytes.insert(0, 0);
            segment_open(&bytes);
            for mode in 1..4 {
                let mut behind = vec![mode];
                behind.extend(bytes.get(114..).unwrap_or_default());
                segment_open(&behind);
            }
        }
    }
}

/// A body that refused everything would prove nothing.
#[test]
fn sealed_segments_open_with_their_entries() {
    // Its last mark stands behind the entries, so that a wrong chain before it is a hole.
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1/log-marked-seal");
    let whole = std::fs::read(kept.join("0000000000000001.seg")).unwrap();
    let mut behind = vec![3];
    behind.extend(&whole[113..]);
    assert_eq!(segment_open(&behind), Some(3));
    // The kept log is of another cluster: its chain has to be made right.
    behind[0] = 2;
    assert_eq!(segment_open(&behind), None);
    let as_it_is: Vec<u8> = std::iter::once(0).chain(whole).collect();
    assert_eq!(segment_open(&as_it_is), None);
}
