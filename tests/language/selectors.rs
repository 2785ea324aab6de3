//! Runs the selector cases.

use std::ops::RangeBounds;

use quorate::domain::selector::Selector;
use quorate::domain::topic::path::TopicPath;

use crate::cases::{Case, read};

#[test]
fn selector_cases() {
    for case in read("selector_cases") {
        match case.kind.as_str() {
            "selector" => check_selector(&case),
            "error" => check_error(&case),
            other => panic!("{}: {other:?} is no kind of case", case.place),
        }
    }
}

fn check_selector(case: &Case) {
    let place = &case.place;
    let parsed = Selector::parse(&case.text);
    let selector = parsed.unwrap_or_else(|error| panic!("{place}: {error}"));
    let again =
        Selector::parse(selector.as_str()).unwrap_or_else(|error| panic!("{place}: {error}"));
    assert_eq!(again, selector, "{place}: the canonical text");
    for (kind, text) in &case.expected {
        match kind.as_str() {
            "canonical" => assert_eq!(selector.as_str(), text, "{place}"),
            "prefix" => {
                let prefix = selector.prefix().map_or("-", TopicPath::as_str);
                assert_eq!(prefix, text, "{place}: prefix");
            }
            "range" => assert_eq!(format!("{:?}", selector.range()), *text, "{place}: range"),
            "covers" => assert!(selector.covers(&text.parse().unwrap()), "{place}: covers {text}"),
            "spares" => assert!(!selector.covers(&text.parse().unwrap()), "{place}: spares {text}"),
            "yes" | "no" => {
                let path =
                    TopicPath::parse(text).unwrap_or_else(|error| panic!("{place}: {error}"));
                let expected = kind == "yes";
                assert_eq!(selector.matches(&path), expected, "{place}: {path}");
                if expected {
                    assert!(selector.range().contains(&path), "{place}: the range lacks {path}");
                    let in_prefix =
                        selector.prefix().is_none_or(|prefix| path.is_in_branch(prefix));
                    assert!(in_prefix, "{place}: {path} is outside of the prefix");
                }
            }
            other => panic!("{place}: {other:?} is no expectation"),
        }
    }
}

fn check_error(case: &Case) {
    let place = &case.place;
    let Err(error) = Selector::parse(&case.text) else { panic!("{place}: it was parsed") };
    assert_eq!(error.text, case.text, "{place}");
    for (kind, text) in &case.expected {
        match kind.as_str() {
            "at" => assert_eq!(error.at.to_string(), *text, "{place}: {error}"),
            "says" => assert!(error.to_string().contains(text.as_str()), "{place}: {error}"),
            other => panic!("{place}: {other:?} is no expectation"),
        }
    }
}
