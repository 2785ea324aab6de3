//! What must be true of any selector, held against a slow matcher that is written by the manual.

use std::ops::RangeBounds;

use proptest::prelude::*;
use quorate::domain::selector::{Selector, fuzz_selector};
use quorate::domain::topic::path::TopicPath;
use regex::Regex;

/// One member of a set: its first character, its expressions, the slashes behind it.
#[derive(Debug, Clone)]
struct Written {
    kind: char,
    parts: Vec<&'static str>,
    reach: &'static str,
}

impl Written {
    fn text(&self) -> String {
        let reach = if self.kind == '>' { "" } else { self.reach };
        format!("{}{}{reach}", self.kind, self.parts.join("/"))
    }

    /// The manual, word by word: every prefix of the path is tried, each part with its own regex.
    fn matches(&self, path: &str) -> bool {
        let segments: Vec<&str> = path.split('/').collect();
        (1..=segments.len()).any(|depth| {
            let reached = match self.reach {
                _ if self.kind == '>' => depth == segments.len(),
                "" => depth == segments.len(),
                "/" => depth < segments.len(),
                _ => true,
            };
            let matched = match self.kind {
                '>' => self.parts == segments[..depth],
                '?' => {
                    self.parts.len() == depth
                        && self
                            .parts
                            .iter()
                            .zip(&segments)
                            .all(|(part, segment)| whole(part).is_match(segment))
                }
                _ => whole(&self.parts.join("/")).is_match(&segments[..depth].join("/")),
            };
            reached && matched
        })
    }
}

fn whole(expression: &str) -> Regex {
    Regex::new(&format!(r"\A(?s:{expression})\z")).unwrap()
}

fn written() -> impl Strategy<Value = Written> {
    let literal = prop::sample::select(vec!["a", "b", "ab", "é", "a.b", "a "]);
    let expression = prop::sample::select(vec![
        "a",
        "b",
        r"a\.b",
        ".*",
        ".+",
        "a.*",
        ".*b",
        "a.*b",
        "[ab]",
        "[^a]+",
        "(a|b)b?",
        "a?b*",
        ".",
        "..",
        "a{1,2}",
        "é|a",
        "(?i)A",
        r"[^\x2f]*",
        ".*a.*",
        "(ab|a.b)",
        "",
    ]);
    let path = prop::collection::vec(literal, 1..4).prop_map(|parts| Written {
        kind: '>',
        parts,
        reach: "",
    });
    let reach = || prop::sample::select(vec!["", "/", "//"]);
    let split = (prop::collection::vec(expression.clone(), 1..4), reach())
        .prop_map(|(parts, reach)| Written { kind: '?', parts, reach });
    let full = (prop::collection::vec(expression, 1..3), reach())
        .prop_map(|(parts, reach)| Written { kind: '*', parts, reach });
    prop_oneof![path, split, full]
        .prop_filter("an empty expression", |written| written.parts.iter().all(|p| !p.is_empty()))
}

fn path() -> impl Strategy<Value = String> {
    let segment =
        prop::sample::select(vec!["a", "b", "ab", "aa", "abb", "é", "a.b", "a ", "\u{0}"]);
    prop::collection::vec(segment, 1..5).prop_map(|segments| segments.join("/"))
}

fn set() -> impl Strategy<Value = (String, Vec<Written>)> {
    prop::collection::vec(written(), 1..4).prop_map(|members| {
        let texts: Vec<String> = members.iter().map(Written::text).collect();
        let text = match texts.as_slice() {
            [only] => only.clone(),
            several => format!("#{}", several.join("////")),
        };
        (text, members)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn matching_is_the_manuals((text, members) in set(), paths in prop::collection::vec(path(), 8)) {
        let selector = Selector::parse(&text).unwrap();
        for path in paths {
            let expected = members.iter().any(|member| member.matches(&path));
            prop_assert_eq!(selector.matches_str(&path), expected, "{} {:?}", selector, path);
        }
    }

    #[test]
    fn ranges_and_prefixes_hold_every_match(
        (text, _) in set(), paths in prop::collection::vec(path(), 8),
    ) {
        let selector = Selector::parse(&text).unwrap();
        let (range, ranges) = (selector.range(), selector.ranges());
        for path in paths {
            let path = TopicPath::parse(&path).unwrap();
            let of_parts = ranges.iter().filter(|range| range.contains(&path)).count();
            prop_assert!(of_parts <= 1, "{} twice in {:?}", path, ranges);
            prop_assert!(of_parts == 0 || range.contains(&path), "{:?} {:?}", range, ranges);
            if selector.matches(&path) {
                prop_assert_eq!(of_parts, 1, "{} {:?} {:?}", selector, ranges, path);
                if let Some(prefix) = selector.prefix() {
                    prop_assert!(path.is_in_branch(prefix), "{} {} {}", selector, prefix, path);
                }
            }
        }
    }

    #[test]
    fn the_canonical_text_is_its_own((text, _) in set()) {
        let selector = Selector::parse(&text).unwrap();
        let again = Selector::parse(selector.as_str()).unwrap();
        prop_assert_eq!(again.as_str(), selector.as_str());
        prop_assert_eq!(again, selector);
    }

    #[test]
    fn covering_is_never_claimed_wrongly(
        (one, _) in set(), (two, _) in set(), paths in prop::collection::vec(path(), 16),
    ) {
        let (one, two) = (Selector::parse(&one).unwrap(), Selector::parse(&two).unwrap());
        prop_assert!(one.covers(&one));
        if one.covers(&two) {
            for path in paths {
                prop_assert!(one.matches_str(&path) || !two.matches_str(&path), "{one} {two} {path}");
            }
        }
    }

    #[test]
    fn a_branch_selector_selects_its_branch(root in path(), path in path()) {
        let (root, path) = (TopicPath::parse(&root).unwrap(), TopicPath::parse(&path).unwrap());
        let branch = Selector::branch(&root);
        prop_assert_eq!(branch.matches(&path), path.is_in_branch(&root));
        prop_assert_eq!(Selector::parse(branch.as_str()).unwrap().matches(&path), branch.matches(&path));
        prop_assert_eq!(Selector::path(&root).matches(&path), root == path);
    }

    #[test]
    fn any_text_is_survived(text in "[#?*>/ab.(){}|+\\\\\\[\\]0-9,é^$QE-]{0,24}", paths in "[ab/\n]{0,12}") {
        fuzz_selector(format!("{text}\n{paths}").as_bytes());
    }
}
