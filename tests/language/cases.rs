//! Reads case files: statements at the start of a line, what is expected of each indented below.

use std::fs;
use std::path::Path;

/// One statement and its expectations.
pub(crate) struct Case {
    /// File and line, for messages.
    pub(crate) place: String,
    /// First word of the statement.
    pub(crate) kind: String,
    /// The rest of it.
    pub(crate) text: String,
    /// First words and rests of the indented lines.
    pub(crate) expected: Vec<(String, String)>,
}

/// All cases of the text files in a folder beside this file, in order of their names.
pub(crate) fn read(folder: &str) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/language").join(folder);
    let mut paths: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    paths.sort();
    let mut cases: Vec<Case> = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let place = format!("{name}:{}", number + 1);
            let statement = line.trim();
            if statement.is_empty() || line.starts_with("# ") || line == "#" {
                continue;
            }
            let (kind, text) = statement.split_once(' ').unwrap_or((statement, ""));
            let (kind, text) = (kind.to_owned(), unquoted(text.trim_start(), &place));
            if line.starts_with(' ') {
                let Some(case) = cases.last_mut() else {
                    panic!("{place}: an expectation without a case");
                };
                case.expected.push((kind, text));
            } else {
                cases.push(Case { place, kind, text, expected: Vec::new() });
            }
        }
    }
    cases
}

/// A text in double quotes is a JSON string: for white space at its ends and odd characters.
fn unquoted(text: &str, place: &str) -> String {
    if !text.starts_with('"') {
        return text.to_owned();
    }
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{place}: {error}"))
}

/// A regression in the reader must not pass as a smaller number of cases.
#[test]
fn there_are_enough_cases() {
    let (selectors, constraints) = (read("selector_cases"), read("constraint_cases"));
    let expectations = |cases: &[Case]| cases.iter().map(|case| case.expected.len()).sum::<usize>();
    println!(
        "{} selectors with {} expectations, {} constraints with {}",
        selectors.len(),
        expectations(&selectors),
        constraints.len(),
        expectations(&constraints),
    );
    assert!(selectors.len() >= 80 && constraints.len() >= 60);
    for case in selectors.iter().chain(&constraints) {
        assert!(!case.expected.is_empty(), "{}: nothing is expected", case.place);
    }
}
