//! Whether a constraint holds. The lenient comparisons, by the kind of what is supplied:
//!
//! | supplied | operators | holds against |
//! |---|---|---|
//! | string | `= !=` | the text form: a string itself, a number as it is written, `true`, `false`, `null` |
//! | number | all | a number, or a string that is a JSON number; compared exactly, not as doubles |
//! | boolean | `=` | a JSON boolean |
//! | null | `= !=` | the JSON null |
//!
//! What cannot be compared (an object with a number, bytes with anything) is not equal: `!=` holds,
//! the others do not. No value at all satisfies none of them, `!=` included.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::TopicView;
use super::form::{Form, JsonCondition, Lenient, Operator, PlaceTest, Scalar, ValueTest};
use crate::domain::topic::json::{self, Scan, Step};
use crate::domain::topic::specification::TopicType;
use crate::domain::topic::value;

pub(super) fn holds(form: &Form, topic: Option<TopicView<'_>>) -> bool {
    match form {
        Form::Unconstrained => true,
        Form::NoTopic => topic.is_none(),
        Form::NoValue => topic.is_some_and(|topic| topic.value.is_none()),
        Form::Value(test) => topic.is_some_and(|topic| holds_value(test, topic)),
        Form::Json(conditions) => topic.is_some_and(|topic| holds_json(conditions, topic)),
        Form::And(parts) => parts.iter().all(|part| holds(part, topic)),
        Form::Or(parts) => parts.iter().any(|part| holds(part, topic)),
    }
}

fn holds_value(test: &ValueTest, topic: TopicView<'_>) -> bool {
    match test {
        ValueTest::Is { topic_type, bytes } => {
            *topic_type == topic.topic_type && topic.value.is_some_and(|value| **bytes == *value)
        }
        ValueTest::Lenient(lenient) => {
            Subject::of(topic).is_some_and(|subject| holds_lenient(lenient, &subject))
        }
    }
}

fn holds_json(conditions: &[JsonCondition], topic: TopicView<'_>) -> bool {
    let TopicView { topic_type: TopicType::Json, value: Some(bytes) } = topic else {
        return false;
    };
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    conditions.iter().all(|condition| {
        let found = condition.pointer.find(text);
        match (&condition.test, found) {
            (PlaceTest::Absent, found) => found.is_none(),
            (_, None) => false,
            (PlaceTest::Is(expected), Some(found)) => json::same_tokens(expected, found),
            (PlaceTest::Lenient(lenient), Some(found)) => {
                holds_lenient(lenient, &Subject::of_json(found))
            }
        }
    })
}

/// A value as the lenient comparisons see it.
#[derive(Debug)]
pub(super) enum Subject<'a> {
    Text(Cow<'a, str>),
    Number {
        number: Scalar,
        text: Cow<'a, str>,
    },
    Boolean(bool),
    Null,
    /// Bytes, an object, an array.
    Other,
}

impl<'a> Subject<'a> {
    /// The topic's value; none when it has none.
    pub(super) fn of(topic: TopicView<'a>) -> Option<Self> {
        let bytes = topic.value?;
        let shown = || Cow::Owned(value::to_text(topic.topic_type, Some(bytes)));
        Some(match topic.topic_type {
            TopicType::Binary => Self::Other,
            TopicType::String => Self::Text(String::from_utf8_lossy(bytes)),
            TopicType::Json => std::str::from_utf8(bytes).map_or(Self::Other, Self::of_json),
            TopicType::Int64 => {
                Self::Number { number: Scalar::Integer(value::int64(bytes)?), text: shown() }
            }
            TopicType::Double => {
                Self::Number { number: Scalar::Double(value::double(bytes)?), text: shown() }
            }
        })
    }

    /// The JSON value that `text` writes.
    pub(super) fn of_json(text: &'a str) -> Self {
        match Scan::new(text).step() {
            Ok(Some(Step::String(escaped))) => Self::Text(json::unescape(escaped)),
            Ok(Some(Step::Number(text))) => match number(text) {
                Some(number) => Self::Number { number, text: Cow::Borrowed(text) },
                None => Self::Other,
            },
            Ok(Some(Step::Boolean(boolean))) => Self::Boolean(boolean),
            Ok(Some(Step::Null)) => Self::Null,
            _ => Self::Other,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Number { text, .. } => Some(text),
            Self::Boolean(boolean) => Some(if *boolean { "true" } else { "false" }),
            Self::Null => Some("null"),
            Self::Other => None,
        }
    }

    fn number(&self) -> Option<Scalar> {
        match self {
            Self::Text(text) => number(text),
            Self::Number { number, .. } => Some(number.clone()),
            _ => None,
        }
    }
}

pub(super) fn holds_lenient(lenient: &Lenient, subject: &Subject<'_>) -> bool {
    let operator = lenient.operator;
    let equal = match &lenient.scalar {
        Scalar::Text(expected) => subject.text() == Some(expected),
        Scalar::Boolean(expected) => {
            matches!(subject, Subject::Boolean(found) if found == expected)
        }
        Scalar::Null => matches!(subject, Subject::Null),
        expected => {
            let found = subject.number();
            return match found.and_then(|found| compare_numbers(&found, expected)) {
                Some(ordering) => operator.accepts(ordering),
                None => operator == Operator::NotEqual,
            };
        }
    };
    equal == (operator == Operator::Equal)
}

/// The number that a text is, by JSON's grammar. One that no double holds is infinite.
pub(super) fn number(text: &str) -> Option<Scalar> {
    match Scan::new(text).step() {
        Ok(Some(Step::Number(found))) if found.len() == text.len() => {}
        _ => return None,
    }
    let integer = text.parse().ok().map(Scalar::Integer);
    integer.or_else(|| text.parse().ok().map(Scalar::Double))
}

/// The order of two numbers, exactly. None when one is no number.
pub(super) fn compare_numbers(left: &Scalar, right: &Scalar) -> Option<Ordering> {
    match (left, right) {
        (Scalar::Integer(left), Scalar::Integer(right)) => Some(left.cmp(right)),
        (Scalar::Double(left), Scalar::Double(right)) => left.partial_cmp(right),
        (Scalar::Integer(left), Scalar::Double(right)) => compare_mixed(*left, *right),
        (Scalar::Double(left), Scalar::Integer(right)) => {
            compare_mixed(*right, *left).map(Ordering::reverse)
        }
        _ => None,
    }
}

fn compare_mixed(integer: i64, double: f64) -> Option<Ordering> {
    // 2^63, the first double behind all integers; its negative is one.
    const BEHIND: f64 = 9_223_372_036_854_775_808.0;
    if double.is_nan() {
        None
    } else if double >= BEHIND {
        Some(Ordering::Less)
    } else if double < -BEHIND {
        Some(Ordering::Greater)
    } else {
        let whole = double.trunc();
        let fraction = 0.0.partial_cmp(&(double - whole)).unwrap_or(Ordering::Equal);
        Some(integer.cmp(&(whole as i64)).then(fraction))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_exactly() {
        let big = 9_007_199_254_740_993_i64;
        for (integer, double, expected) in [
            (5, 5.0, Ordering::Equal),
            (5, 5.5, Ordering::Less),
            (-5, -5.5, Ordering::Greater),
            (big, 9_007_199_254_740_992.0, Ordering::Greater),
            (i64::MAX, 9_223_372_036_854_775_807.0, Ordering::Less),
            (i64::MIN, -9_223_372_036_854_775_808.0, Ordering::Equal),
            (i64::MIN, f64::NEG_INFINITY, Ordering::Greater),
            (0, -0.0, Ordering::Equal),
        ] {
            assert_eq!(compare_mixed(integer, double), Some(expected), "{integer} {double}");
        }
        assert_eq!(compare_mixed(0, f64::NAN), None);
    }

    #[test]
    fn texts_are_numbers_by_jsons_grammar() {
        for text in ["", " 1", "1 ", "+1", "01", "1.", ".5", "0x1", "NaN", "1e", "١"] {
            assert_eq!(number(text), None, "{text}");
        }
        assert_eq!(number("-0"), Some(Scalar::Integer(0)));
        assert_eq!(number("1e2"), Some(Scalar::Double(100.0)));
        assert_eq!(number("1e999"), Some(Scalar::Double(f64::INFINITY)));
        assert_eq!(
            number("9223372036854775808"),
            Some(Scalar::Double(9_223_372_036_854_775_808.0))
        );
    }
}
