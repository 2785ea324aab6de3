//! Replays the committed corpora and every input that once failed, on stable.

use std::fs;
use std::path::Path;

#[test]
fn corpora_and_regressions_pass() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, target) in quorate_fuzz::TARGETS {
        let mut seeds = 0;
        for folder in ["corpus", "regressions"] {
            let Ok(entries) = fs::read_dir(root.join(folder).join(name)) else { continue };
            for entry in entries {
                let path = entry.unwrap().path();
                let bytes = fs::read(&path).unwrap();
                // The name is printed when the target panics.
                let result = std::panic::catch_unwind(|| target(&bytes));
                assert!(result.is_ok(), "{name} fails on {}", path.display());
                seeds += 1;
            }
        }
        assert!(seeds > 0, "{name} has no corpus: an empty checkout must not pass");
    }
}

#[test]
fn every_target_has_its_line() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, _) in quorate_fuzz::TARGETS {
        let path = root.join("fuzz_targets").join(format!("{name}.rs"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(&format!("quorate_fuzz::run({name:?}, data)")), "{name}");
    }
}
