//! Update constraints: conditions on a topic at the moment of an update.
//!
//! | text | holds when |
//! |---|---|
//! | `unconstrained` | always |
//! | `value is json {"a":1}` | the topic has this type and exactly these bytes |
//! | `value > 5` | it has a value that compares so, leniently ([`evaluate`]) |
//! | `noValue` | the topic exists and has no value, or null |
//! | `noTopic` | there is no topic at the path |
//! | `jsonValue(with "/a" = 5, without "/b")` | it is a JSON topic with a value, and every condition holds |
//! | `A and B or (C and D)` | as in logic; `and` binds closer |
//!
//! The condition on a session lock is not built. The whole text form is in [`parse`], the stored
//! form in [`encoding`].

mod encoding;
mod evaluate;
mod form;
mod parse;

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use self::form::{Form, Lenient, ValueTest};
pub use self::form::{JsonCondition, Operator, Scalar};
use super::limits;
use super::topic::json::{JsonError, PointerError};
use super::topic::specification::TopicType;
use super::topic::value::{self, ValueError};

/// A condition on the topic at the moment of an update. It is made by parsing or by its builders,
/// so an `and` that nothing can satisfy, or one with too many parts, does not exist.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Constraint(Form);

/// What a constraint is evaluated against: a topic that exists.
#[derive(Debug, Clone, Copy)]
pub struct TopicView<'a> {
    /// Its type.
    pub topic_type: TopicType,
    /// Its value; none when it has none.
    pub value: Option<&'a [u8]>,
}

/// Why there is no such constraint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// The text is none.
    #[error("the constraint needs {expected} at byte {at}")]
    Text {
        /// Where.
        at: usize,
        /// What could stand there.
        expected: &'static str,
    },
    /// A JSON value in it is none.
    #[error("the constraint needs a JSON value at byte {at}: {error} of it")]
    Json {
        /// Where the value starts.
        at: usize,
        /// What is wrong with it.
        error: JsonError,
    },
    /// A typed value in it is none.
    #[error("the constraint's value is none: {0}")]
    Value(#[from] ValueError),
    /// A pointer in it is none.
    #[error("the constraint's pointer is none: {0}")]
    Pointer(#[from] PointerError),
    /// The operator means nothing for what it compares with.
    #[error(
        "{sign} does not compare with {kind}: strings and null have = and !=, booleans =, \
         finite numbers =, !=, >, >=, < and <="
    )]
    Operator {
        /// Of the operator.
        sign: &'static str,
        /// Of what it compares with.
        kind: &'static str,
    },
    /// Two parts of an `and`, or of a JSON constraint, that are never true together.
    #[error("the constraint can never hold: two of its parts exclude each other")]
    Impossible,
    /// Over [`limits::CONSTRAINT_NODES_MAX`] parts or levels.
    #[error("a constraint has at most {} parts and levels", limits::CONSTRAINT_NODES_MAX)]
    TooManyParts,
    /// An `and` or `or` of nothing.
    #[error("a combination of constraints has at least one part")]
    TooFewParts,
    /// Over [`limits::CONSTRAINT_BYTES_MAX`].
    #[error("a constraint of {bytes} bytes is over the limit of {}", limits::CONSTRAINT_BYTES_MAX)]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// A version of the stored form that this node cannot read.
    #[error("constraint version {version} is not known; this node reads version 1")]
    Version {
        /// What was found.
        version: u8,
    },
    /// The bytes are none.
    #[error("the bytes are no constraint at byte {at}")]
    Malformed {
        /// Where.
        at: usize,
    },
}

impl Constraint {
    /// Always holds.
    #[must_use]
    pub fn unconstrained() -> Self {
        Self(Form::Unconstrained)
    }

    /// The topic has this type, and exactly these bytes as its value.
    ///
    /// # Errors
    /// [`ConstraintError::Value`] when the bytes are no such value.
    pub fn value_is(topic_type: TopicType, bytes: Bytes) -> Result<Self, ConstraintError> {
        value::check(topic_type, Some(&bytes))?;
        Ok(Self(Form::Value(ValueTest::Is { topic_type, bytes })))
    }

    /// The topic has a value that compares so, leniently.
    ///
    /// # Errors
    /// [`ConstraintError::Operator`] when the operator means nothing for the scalar.
    pub fn value_compares(operator: Operator, scalar: Scalar) -> Result<Self, ConstraintError> {
        Ok(Self(Form::Value(ValueTest::Lenient(Lenient::new(operator, scalar)?))))
    }

    /// The topic exists and has no value, or null.
    #[must_use]
    pub fn no_value() -> Self {
        Self(Form::NoValue)
    }

    /// There is no topic at the path.
    #[must_use]
    pub fn no_topic() -> Self {
        Self(Form::NoTopic)
    }

    /// It is a JSON topic with a value, and every condition holds.
    ///
    /// # Errors
    /// [`ConstraintError::Impossible`] or [`ConstraintError::TooManyParts`].
    pub fn json(conditions: Vec<JsonCondition>) -> Result<Self, ConstraintError> {
        Ok(Self(Form::Json(conditions).checked()?))
    }

    /// All of them hold.
    ///
    /// # Errors
    /// [`ConstraintError::TooFewParts`], [`ConstraintError::Impossible`] or
    /// [`ConstraintError::TooManyParts`].
    pub fn all(parts: impl IntoIterator<Item = Self>) -> Result<Self, ConstraintError> {
        Self::combined(parts, Form::And)
    }

    /// At least one of them holds.
    ///
    /// # Errors
    /// [`ConstraintError::TooFewParts`] or [`ConstraintError::TooManyParts`].
    pub fn any(parts: impl IntoIterator<Item = Self>) -> Result<Self, ConstraintError> {
        Self::combined(parts, Form::Or)
    }

    fn combined(
        parts: impl IntoIterator<Item = Self>,
        combine: impl FnOnce(Vec<Form>) -> Form,
    ) -> Result<Self, ConstraintError> {
        let forms = parts.into_iter().map(|part| part.0).collect();
        Ok(Self(parse::combined(forms, combine)?))
    }

    /// Always holds, whatever the topic is.
    #[must_use]
    pub fn is_unconstrained(&self) -> bool {
        self.0 == Form::Unconstrained
    }

    /// Parses the text form.
    ///
    /// # Errors
    /// [`ConstraintError`] names the place and what could stand there.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        Ok(Self(parse::parse(text)?))
    }

    /// It holds for this topic; none is: there is no topic at the path.
    #[must_use]
    pub fn holds(&self, topic: Option<TopicView<'_>>) -> bool {
        evaluate::holds(&self.0, topic)
    }

    /// Its bytes, the same for equal constraints.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encoding::encode(&self.0)
    }

    /// Reads what [`Self::encode`] wrote, and checks everything. Nothing of the result is a slice
    /// of `bytes`.
    ///
    /// # Errors
    /// [`ConstraintError`]; never panics.
    pub fn decode(bytes: &Bytes) -> Result<Self, ConstraintError> {
        Ok(Self(encoding::decode(bytes)?))
    }
}

impl FromStr for Constraint {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        Self::parse(text)
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        parse::print(&self.0, formatter)
    }
}

/// A fuzz target: bytes that may be a stored constraint or the text of one.
#[doc(hidden)]
pub fn fuzz_constraint(bytes: &[u8]) {
    let stored = Bytes::copy_from_slice(bytes);
    let decoded = Constraint::decode(&stored).ok();
    if let Some(constraint) = &decoded {
        assert_eq!(constraint.encode(), stored, "there is one encoding only");
    }
    let parsed = std::str::from_utf8(bytes).ok().and_then(|text| Constraint::parse(text).ok());
    for constraint in decoded.into_iter().chain(parsed) {
        let text = constraint.to_string();
        assert_eq!(Constraint::parse(&text).as_ref(), Ok(&constraint), "{text}");
        assert_eq!(Constraint::decode(&constraint.encode()).as_ref(), Ok(&constraint), "{text}");
        for topic_type in TopicType::ALL {
            for value in [None, Some(bytes)] {
                let _ = constraint.holds(Some(TopicView { topic_type, value }));
            }
        }
        let missing = constraint.holds(None);
        assert!(missing || !constraint.is_unconstrained());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::topic::json::Pointer;

    fn any_scalar() -> impl Strategy<Value = Scalar> {
        prop_oneof![
            "[a\"é1]{0,3}".prop_map(Scalar::Text),
            any::<i64>().prop_map(Scalar::Integer),
            any::<f64>().prop_map(Scalar::Double),
            any::<bool>().prop_map(Scalar::Boolean),
            Just(Scalar::Null),
        ]
    }

    fn any_operator() -> impl Strategy<Value = Operator> {
        (1_u8..=7).prop_map(|code| Operator::from_code(code).unwrap())
    }

    fn any_json() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["1", "1.0", "null", "\"a\"", "{\"a\":[1, 2]}", " [ ] ", "true"])
    }

    fn any_condition() -> impl Strategy<Value = JsonCondition> {
        let pointer = prop::sample::select(vec!["", "/a", "/a/0", "/b~1"])
            .prop_map(|text| text.parse::<Pointer>().unwrap());
        (pointer, any_json(), any_operator(), any_scalar(), 0..3).prop_filter_map(
            "the operator means nothing for the scalar",
            |(pointer, json, operator, scalar, kind)| match kind {
                0 => Some(JsonCondition::absent(pointer)),
                1 => JsonCondition::is(pointer, json).ok(),
                _ => JsonCondition::compare(pointer, operator, scalar).ok(),
            },
        )
    }

    fn any_constraint() -> impl Strategy<Value = Constraint> {
        let leaf = prop_oneof![
            Just(Constraint::unconstrained()),
            Just(Constraint::no_value()),
            Just(Constraint::no_topic()),
            any_json().prop_map(|text| {
                Constraint::value_is(TopicType::Json, Bytes::from_static(text.as_bytes())).unwrap()
            }),
            any::<[u8; 8]>().prop_map(|bytes| {
                Constraint::value_is(TopicType::Double, Bytes::copy_from_slice(&bytes)).unwrap()
            }),
            "[a\"é]{0,3}"
                .prop_map(|text| { Constraint::value_is(TopicType::String, text.into()).unwrap() }),
            (any_operator(), any_scalar()).prop_filter_map("no such comparison", |(o, s)| {
                Constraint::value_compares(o, s).ok()
            }),
            prop::collection::vec(any_condition(), 0..3)
                .prop_filter_map("impossible", |conditions| Constraint::json(conditions).ok()),
        ];
        leaf.prop_recursive(4, 16, 3, |inner| {
            (prop::collection::vec(inner, 1..4), any::<bool>()).prop_filter_map(
                "impossible",
                |(parts, all)| {
                    let combined =
                        if all { Constraint::all(parts) } else { Constraint::any(parts) };
                    combined.ok()
                },
            )
        })
    }

    /// Topics of every type, with and without values.
    fn topics() -> Vec<Option<(TopicType, Option<Bytes>)>> {
        let values = [
            (TopicType::String, vec!["", "a", "1", "null", "true"]),
            (TopicType::Json, vec!["1", "1.0", "null", "\"a\"", "{\"a\":[1, 2]}", "true", "[]"]),
            (TopicType::Binary, vec!["", "AA=="]),
            (TopicType::Int64, vec!["0", "1", "-1"]),
            (TopicType::Double, vec!["0.0", "1.0", "NaN", "-0.0"]),
        ];
        let mut topics = vec![None];
        for (topic_type, texts) in values {
            topics.push(Some((topic_type, None)));
            for text in texts {
                topics.push(Some((topic_type, Some(value::from_text(topic_type, text).unwrap()))));
            }
        }
        topics
    }

    fn holds(constraint: &Constraint, topic: &Option<(TopicType, Option<Bytes>)>) -> bool {
        constraint.holds(topic.as_ref().map(|(topic_type, value)| TopicView {
            topic_type: *topic_type,
            value: value.as_deref(),
        }))
    }

    proptest! {
        #[test]
        fn constraints_come_back_from_text_and_bytes(constraint in any_constraint()) {
            let text = constraint.to_string();
            prop_assert_eq!(Constraint::parse(&text), Ok(constraint.clone()), "{}", text);
            let bytes = constraint.encode();
            fuzz_constraint(&bytes);
            prop_assert_eq!(Constraint::decode(&bytes), Ok(constraint), "{}", text);
        }

        /// Only what no topic satisfies is refused as impossible.
        #[test]
        fn what_is_refused_as_impossible_never_holds(
            one in any_constraint(), two in any_constraint(),
        ) {
            if Constraint::all([one.clone(), two.clone()]) == Err(ConstraintError::Impossible) {
                for topic in topics() {
                    let both = holds(&one, &topic) && holds(&two, &topic);
                    prop_assert!(!both, "{} and {} hold for {:?}", one, two, topic);
                }
            }
        }

        #[test]
        fn combinations_are_logic(one in any_constraint(), two in any_constraint()) {
            let (any, all) = (
                Constraint::any([one.clone(), two.clone()]).unwrap(),
                Constraint::all([one.clone(), two.clone()]),
            );
            for topic in topics() {
                let (first, second) = (holds(&one, &topic), holds(&two, &topic));
                prop_assert_eq!(holds(&any, &topic), first || second);
                if let Ok(all) = &all {
                    prop_assert_eq!(holds(all, &topic), first && second);
                }
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(0_u8..9, 0..24), text: String) {
            let bytes: Vec<u8> = std::iter::once(1).chain(bytes).collect();
            fuzz_constraint(&bytes);
            fuzz_constraint(text.as_bytes());
        }
    }

    #[test]
    fn size_is_limited() {
        let parts = |count: usize| vec![Constraint::no_topic(); count];
        assert!(Constraint::any(parts(limits::CONSTRAINT_NODES_MAX - 1)).is_ok());
        let too_many = Constraint::any(parts(limits::CONSTRAINT_NODES_MAX));
        assert_eq!(too_many, Err(ConstraintError::TooManyParts));
        assert_eq!(Constraint::any([]), Err(ConstraintError::TooFewParts));
        assert_eq!(Constraint::all([Constraint::no_topic()]), Ok(Constraint::no_topic()));
        let deep = "(".repeat(100_000);
        assert_eq!(Constraint::parse(&deep), Err(ConstraintError::TooManyParts));
    }
}
