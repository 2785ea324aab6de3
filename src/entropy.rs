//! The only reader of randomness.
//!
//! A seam of the same kind as [`crate::clock`]: identifiers, secrets and jitter are drawn here, from
//! the operating system, and in a simulated run from that run's seed instead, so that the same seed
//! gives the same run. A seed holds for one thread, on which the whole simulated world runs.

use std::cell::Cell;
use std::hash::{BuildHasher, DefaultHasher, Hasher};

thread_local! {
    /// Where the sequence of a simulated run stands; none: the operating system is asked.
    static SEQUENCE: Cell<Option<u64>> = const { Cell::new(None) };
    /// The key of this thread's hash maps, once one was made.
    static HASH_KEY: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Fills `bytes` with random ones.
///
/// # Errors
/// The operating system gives none.
pub fn fill(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    let Some(state) = SEQUENCE.get() else { return getrandom::fill(bytes) };
    let mut state = state;
    for piece in bytes.chunks_mut(8) {
        let word = next(&mut state).to_le_bytes();
        for (byte, random) in piece.iter_mut().zip(word) {
            *byte = random;
        }
    }
    SEQUENCE.set(Some(state));
    Ok(())
}

/// A random number.
///
/// # Errors
/// As [`fill`].
pub fn number() -> Result<u64, getrandom::Error> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// From now on this thread's randomness is the sequence of `seed`: for simulated runs only, whoever
/// knows the seed knows every secret. None: the operating system is asked again.
#[doc(hidden)]
pub fn seed_this_thread(seed: Option<u64>) {
    SEQUENCE.set(seed);
    HASH_KEY.set(None);
}

/// A hash map whose order is by chance, so that nobody can choose keys that collide, and by the
/// seed's chance in a simulated run.
pub type HashMap<K, V> = std::collections::HashMap<K, V, Keyed>;

/// Makes hashers with a secret key.
#[derive(Debug, Clone, Copy)]
pub struct Keyed(u64);

impl Default for Keyed {
    fn default() -> Self {
        let key = HASH_KEY.get().unwrap_or_else(|| {
            // Without randomness maps still work.
            let key = number().unwrap_or_default();
            HASH_KEY.set(Some(key));
            key
        });
        Self(key)
    }
}

impl BuildHasher for Keyed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

/// splitmix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seeded_thread_repeats_itself_and_another_thread_does_not_follow() {
        let drawn = || -> Vec<u64> { (0..4).map(|_| number().unwrap()).collect() };
        seed_this_thread(Some(7));
        let first = drawn();
        seed_this_thread(Some(7));
        assert_eq!(drawn(), first);
        seed_this_thread(Some(8));
        assert_ne!(drawn(), first);
        let elsewhere = std::thread::spawn(|| SEQUENCE.get()).join().unwrap();
        assert_eq!(elsewhere, None);
        seed_this_thread(None);
        assert_ne!(drawn(), drawn());
    }

    #[test]
    fn the_order_of_a_map_is_the_seed_s() {
        let order = |seed| -> Vec<u32> {
            seed_this_thread(Some(seed));
            let map: HashMap<u32, ()> = (0..64).map(|key| (key, ())).collect();
            map.into_keys().collect()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        seed_this_thread(None);
    }
}
