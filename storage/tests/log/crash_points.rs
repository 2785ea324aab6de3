//! Thousands of crashes on the simulated disk: random operations, the machine goes down during a
//! random disk operation, the log is opened (which is interrupted too), compared with a model, and
//! used again.

use quorate_storage::disk::SimulatedDisk;
use quorate_storage::fuzzing::{Statistics, log_operations, log_operations_on};

/// splitmix64.
pub(crate) fn random_bytes(mut seed: u64, count: usize) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    (0..count.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect()
}

/// Power cuts on the simulated disk, ends of the process alone not counted.
const CRASHES: u64 = 10_000;

#[test]
fn ten_thousand_crash_points_lose_nothing_acknowledged_and_invent_nothing() {
    let mut total = Statistics::default();
    let mut seed = 0;
    while total.crashes < CRASHES {
        let run = log_operations(&random_bytes(seed, 800));
        total.crashes += run.crashes;
        total.kills += run.kills;
        total.crashes_in_opening += run.crashes_in_opening;
        total.opened_twice += run.opened_twice;
        total.cuts += run.cuts;
        total.prepared += run.prepared;
        total.acknowledged += run.acknowledged;
        seed += 1;
    }
    println!("{seed} runs: {total:?}");
    // The runs went through what they are for.
    assert!(total.crashes_in_opening > 2_000, "{total:?}");
    assert!(total.opened_twice > 1_000, "{total:?}");
    assert!(total.cuts > 250, "{total:?}");
    assert!(total.prepared > 500, "{total:?}");
    assert!(total.acknowledged > 5_000, "{total:?}");
}

/// The model is trusted because it notices a disk that lies.
#[test]
fn a_disk_that_lies_about_flushes_is_noticed() {
    let lied_to = |seed: u64| {
        let disk = SimulatedDisk::new();
        disk.lie_about_flushes();
        std::panic::catch_unwind(|| log_operations_on(disk, &random_bytes(seed, 800))).is_err()
    };
    assert!((0..10).filter(|seed| lied_to(*seed)).count() >= 9);
}
