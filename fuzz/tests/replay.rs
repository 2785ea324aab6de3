//! Replays the committed corpora and every input that once failed, on stable; then the same inputs
//! with a few changes, so that a run of the tests is a short run of every target.
//!
//! `QUORATE_FUZZ_CHANGES` sets how many changed inputs are made of each (4), `QUORATE_FUZZ_TARGET`
//! picks one target.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helper may fail by panicking"
)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use quorate_fuzz::{TARGETS, Target};

const CHANGES_OF_EACH: usize = 4;

#[test]
fn corpora_and_regressions_pass() {
    for (name, target) in TARGETS {
        let inputs = inputs(name);
        assert!(!inputs.is_empty(), "{name} has no corpus: an empty checkout must not pass");
        for (file, bytes) in &inputs {
            check(*target, bytes, &format!("{name} fails on {file}"));
        }
    }
}

#[test]
fn changed_inputs_pass() {
    let changes = std::env::var("QUORATE_FUZZ_CHANGES").ok();
    let changes = changes.map_or(CHANGES_OF_EACH, |text| text.parse().unwrap());
    let only = std::env::var("QUORATE_FUZZ_TARGET").ok();
    for (name, target) in TARGETS.iter().filter(|(name, _)| only.as_ref().is_none_or(|o| o == name))
    {
        let inputs = inputs(name);
        let mut random = Random(1);
        for (file, bytes) in &inputs {
            for change in 0..changes {
                let (_, other) = &inputs[random.below(inputs.len())];
                let bytes = random.changed(bytes, other);
                check(*target, &bytes, &format!("{name} fails on change {change} of {file}"));
            }
        }
    }
}

#[test]
fn every_target_has_its_line() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, _) in TARGETS {
        let path = root.join("fuzz_targets").join(format!("{name}.rs"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(&format!("quorate_fuzz::run({name:?}, data)")), "{name}");
    }
}

/// The kept inputs of a target, by name, in order.
fn inputs(name: &str) -> Vec<(String, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["corpus", "regressions"] {
        let Ok(entries) = fs::read_dir(root.join(folder).join(name)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// The input is printed when the target panics: it belongs into `regressions/`.
fn check(target: Target, bytes: &[u8], message: &str) {
    let result = catch_unwind(AssertUnwindSafe(|| target(bytes)));
    assert!(result.is_ok(), "{message}: {}", bytes.escape_ascii());
}

/// Numbers from a seed: the same changes in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % bound.max(1)
    }

    /// The input with one to four changes: a byte, a number, a cut, or a piece of another input.
    fn changed(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            let end = (at + self.below(9)).min(bytes.len());
            match self.below(6) {
                0 | 1 => {
                    let (bit, value) = (1 << self.below(8), self.below(256) as u8);
                    let value = if value % 2 == 0 { bit } else { value };
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= value;
                    }
                }
                2 => bytes[at..end].fill([0, 1, 0x7f, 0x80, 0xff][self.below(5)]),
                3 => drop(bytes.drain(at..end)),
                4 => bytes.truncate(at),
                _ => {
                    let from = self.below(other.len() + 1);
                    let to = (from + self.below(33)).min(other.len());
                    drop(bytes.splice(at..end, other[from..to].iter().copied()));
                }
            }
        }
        bytes
    }
}
