//! Runs the constraint cases.

use quorate::domain::constraint::{Constraint, TopicView};
use quorate::domain::topic::specification::TopicType;
use quorate::domain::topic::value;

use crate::cases::{Case, read};

#[test]
fn constraint_cases() {
    for case in read("constraint_cases") {
        match case.kind.as_str() {
            "constraint" => check_constraint(&case),
            "error" => {
                let place = &case.place;
                let Err(error) = Constraint::parse(&case.text) else {
                    panic!("{place}: it was parsed");
                };
                for (kind, text) in &case.expected {
                    assert_eq!(kind, "says", "{place}");
                    assert!(error.to_string().contains(text.as_str()), "{place}: {error}");
                }
            }
            other => panic!("{}: {other:?} is no kind of case", case.place),
        }
    }
}

fn check_constraint(case: &Case) {
    let place = &case.place;
    let parsed = Constraint::parse(&case.text);
    let constraint = parsed.unwrap_or_else(|error| panic!("{place}: {error}"));
    let printed = constraint.to_string();
    assert_eq!(Constraint::parse(&printed).as_ref(), Ok(&constraint), "{place}: {printed}");
    assert_eq!(Constraint::decode(&constraint.encode()).as_ref(), Ok(&constraint), "{place}");
    for (kind, text) in &case.expected {
        let expected = match kind.as_str() {
            "holds" => true,
            "fails" => false,
            "prints" => {
                assert_eq!(printed, *text, "{place}");
                continue;
            }
            other => panic!("{place}: {other:?} is no expectation"),
        };
        assert_eq!(holds(&constraint, text, place), expected, "{place}: {kind} {text}");
    }
}

/// `-` is no topic; `TYPE -` a topic without a value; `string` values are JSON strings.
fn holds(constraint: &Constraint, topic: &str, place: &str) -> bool {
    if topic == "-" {
        return constraint.holds(None);
    }
    let (name, text) = topic.split_once(' ').unwrap_or((topic, "-"));
    let topic_type: TopicType = name.parse().unwrap_or_else(|error| panic!("{place}: {error}"));
    let text = match topic_type {
        TopicType::String if text != "-" => serde_json::from_str(text).unwrap(),
        _ => text.to_owned(),
    };
    let bytes = (text != "-").then(|| {
        value::from_text(topic_type, &text).unwrap_or_else(|error| panic!("{place}: {error}"))
    });
    constraint.holds(Some(TopicView { topic_type, value: bytes.as_deref() }))
}
