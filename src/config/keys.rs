//! Which keys there are: unknown ones are found, and the nearest known one is named.

use std::path::Path;

use super::error::ConfigError;

/// A key that is wrong in more places than this is not taken for a slip.
const SLIPS_MAX: usize = 3;

/// Refuses the first key of `table` that is not among `known`. Keys are written with their section,
/// as in `cluster.expect`.
pub(super) fn refuse_unknown(
    path: &Path,
    table: &toml::Table,
    known: &[&'static str],
) -> Result<(), ConfigError> {
    let mut found = Vec::new();
    collect("", table, known, &mut found);
    match found.into_iter().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            let nearest = nearest(&key, known);
            Err(ConfigError::UnknownKey { path: path.to_owned(), key, nearest })
        }
    }
}

/// Every key that holds a value, and every section that is none.
fn collect(prefix: &str, table: &toml::Table, known: &[&str], found: &mut Vec<String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let section = format!("{key}.");
        match value {
            toml::Value::Table(inner) if known.iter().any(|known| known.starts_with(&section)) => {
                collect(&key, inner, known, found);
            }
            _ => found.push(key),
        }
    }
}

/// The known key with the fewest slips; one with the right name in another section counts as near.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let last = |key: &str| key.rsplit('.').next().map(str::to_owned).unwrap_or_default();
    let misplaced = known.iter().copied().find(|known| last(known) == last(key));
    let sections = known.iter().filter_map(|known| Some(known.split_once('.')?.0));
    let slipped = known
        .iter()
        .copied()
        .chain(sections)
        .map(|known| (slips(key, known), known))
        .min()
        .filter(|(slips, _)| *slips <= SLIPS_MAX)
        .map(|(_, known)| known);
    slipped.or(misplaced)
}

/// Letters to change, add or leave out to get from one text to the other (Levenshtein).
fn slips(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, left) in from.chars().enumerate() {
        let mut next = vec![above + 1];
        for ((diagonal, up), right) in row.iter().zip(row.iter().skip(1)).zip(&to) {
            let change = diagonal + usize::from(left != *right);
            let before = next.last().copied().unwrap_or_default();
            next.push(change.min(up + 1).min(before + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_counted() {
        for (from, to, count) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "ab", 2),
            ("expect", "expct", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(slips(from, to), count, "{from} {to}");
        }
    }

    #[test]
    fn the_nearest_key_is_found() {
        let known = ["name", "cluster.expect", "cluster.seeds", "log.retain_bytes"];
        assert_eq!(nearest("cluster.expcet", &known), Some("cluster.expect"));
        assert_eq!(nearest("nam", &known), Some("name"));
        assert_eq!(nearest("clutser", &known), Some("cluster"));
        assert_eq!(nearest("retain_bytes", &known), Some("log.retain_bytes"));
        assert_eq!(nearest("cluster.something_else", &known), None);
    }
}
