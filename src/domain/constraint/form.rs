//! What a constraint says, and which combinations cannot be true.

use std::cmp::Ordering;

use bytes::Bytes;

use super::evaluate::{Subject, compare_numbers, holds_lenient};
use super::{ConstraintError, TopicView};
use crate::domain::limits;
use crate::domain::topic::json::{self, Pointer};
use crate::domain::topic::specification::TopicType;

/// How a value is compared. Numbers are stored and sent, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Operator {
    /// The same bytes; of a part of a JSON value the same tokens.
    Is = 1,
    /// Equal, leniently.
    Equal = 2,
    /// Not equal, leniently: there is a value, and [`Self::Equal`] does not hold.
    NotEqual = 3,
    /// Greater, as numbers.
    Greater = 4,
    /// Greater or equal, as numbers.
    GreaterOrEqual = 5,
    /// Less, as numbers.
    Less = 6,
    /// Less or equal, as numbers.
    LessOrEqual = 7,
}

impl Operator {
    /// Operators that compare leniently, with their signs in texts.
    pub(super) const LENIENT: [(Self, &str); 6] = [
        (Self::NotEqual, "!="),
        (Self::GreaterOrEqual, ">="),
        (Self::LessOrEqual, "<="),
        (Self::Equal, "="),
        (Self::Greater, ">"),
        (Self::Less, "<"),
    ];

    /// Its sign in texts.
    #[must_use]
    pub fn sign(self) -> &'static str {
        Self::LENIENT.iter().find(|(operator, _)| *operator == self).map_or("is", |(_, sign)| sign)
    }

    /// The stable number of this operator.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        std::iter::once(Self::Is)
            .chain(Self::LENIENT.map(|(operator, _)| operator))
            .find(|operator| operator.code() == code)
    }

    /// An ordering that it accepts.
    pub(super) fn accepts(self, ordering: Ordering) -> bool {
        match self {
            Self::Is | Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
        }
    }

    fn orders(self) -> bool {
        !matches!(self, Self::Is | Self::Equal | Self::NotEqual)
    }
}

/// What a value is leniently compared with; its kind decides how.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// Compared with the text form of the value; equal or not equal only.
    Text(String),
    /// Compared with a number, or a text that is one.
    Integer(i64),
    /// Likewise; always finite.
    Double(f64),
    /// Compared with a JSON boolean; equal only.
    Boolean(bool),
    /// Compared with the JSON null; equal or not equal only.
    Null,
}

impl Scalar {
    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) | Self::Double(_) => "a number",
            Self::Boolean(_) => "a boolean",
            Self::Null => "null",
        }
    }
}

/// A lenient comparison that makes sense.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lenient {
    pub(super) operator: Operator,
    pub(super) scalar: Scalar,
}

impl Lenient {
    pub(super) fn new(operator: Operator, scalar: Scalar) -> Result<Self, ConstraintError> {
        let legal = match &scalar {
            Scalar::Text(_) | Scalar::Null => !operator.orders(),
            Scalar::Boolean(_) => operator == Operator::Equal,
            Scalar::Integer(_) => true,
            Scalar::Double(number) => number.is_finite(),
        };
        if !legal || operator == Operator::Is {
            return Err(ConstraintError::Operator { sign: operator.sign(), kind: scalar.kind() });
        }
        // There is only one zero, so that equal constraints have equal bytes.
        let scalar = match scalar {
            Scalar::Double(number) => Scalar::Double(number + 0.0),
            other => other,
        };
        Ok(Self { operator, scalar })
    }

    /// No value satisfies both.
    fn excludes(&self, other: &Self) -> bool {
        match (&self.scalar, &other.scalar) {
            (Scalar::Text(one), Scalar::Text(two)) => {
                excludes_ordered(self.operator, other.operator, one.cmp(two))
            }
            (Scalar::Boolean(one), Scalar::Boolean(two)) => one != two,
            (Scalar::Null, Scalar::Null) => self.operator != other.operator,
            (Scalar::Null, Scalar::Boolean(_) | Scalar::Integer(_) | Scalar::Double(_)) => {
                self.operator == Operator::Equal && other.operator != Operator::NotEqual
            }
            (Scalar::Boolean(_), Scalar::Integer(_) | Scalar::Double(_)) => {
                other.operator != Operator::NotEqual
            }
            (Scalar::Integer(_) | Scalar::Double(_), Scalar::Null | Scalar::Boolean(_))
            | (Scalar::Boolean(_), Scalar::Null) => other.excludes(self),
            (one, two) => match compare_numbers(one, two) {
                Some(ordering) => excludes_ordered(self.operator, other.operator, ordering),
                None => false,
            },
        }
    }
}

/// No x satisfies `x one a` and `x two b`, where `a` to `b` is as `ordering` says.
fn excludes_ordered(one: Operator, two: Operator, ordering: Ordering) -> bool {
    use Operator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
    match (one, two) {
        (Equal, two) => !two.accepts(ordering),
        (one, Equal) => !one.accepts(ordering.reverse()),
        (GreaterOrEqual, LessOrEqual) => ordering.is_gt(),
        (LessOrEqual, GreaterOrEqual) => ordering.is_lt(),
        (Greater | GreaterOrEqual, Less | LessOrEqual) => ordering.is_ge(),
        (Less | LessOrEqual, Greater | GreaterOrEqual) => ordering.is_le(),
        _ => false,
    }
}

/// What a constraint says of the topic's value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ValueTest {
    Is { topic_type: TopicType, bytes: Bytes },
    Lenient(Lenient),
}

impl ValueTest {
    fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Is { .. }, Self::Is { .. }) => self != other,
            (Self::Lenient(one), Self::Lenient(two)) => one.excludes(two),
            (Self::Is { topic_type, bytes }, Self::Lenient(lenient))
            | (Self::Lenient(lenient), Self::Is { topic_type, bytes }) => {
                let view = TopicView { topic_type: *topic_type, value: Some(bytes) };
                !Subject::of(view).is_some_and(|subject| holds_lenient(lenient, &subject))
            }
        }
    }
}

/// What a constraint says of one place in a JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum PlaceTest {
    Absent,
    /// The text of one JSON value.
    Is(Box<str>),
    Lenient(Lenient),
}

impl PlaceTest {
    fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Absent, Self::Absent) => false,
            (Self::Absent, _) | (_, Self::Absent) => true,
            (Self::Is(one), Self::Is(two)) => !json::same_tokens(one, two),
            (Self::Lenient(one), Self::Lenient(two)) => one.excludes(two),
            (Self::Is(text), Self::Lenient(lenient)) | (Self::Lenient(lenient), Self::Is(text)) => {
                !holds_lenient(lenient, &Subject::of_json(text))
            }
        }
    }
}

/// A condition on one place in a JSON value.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonCondition {
    pub(super) pointer: Pointer,
    pub(super) test: PlaceTest,
}

impl JsonCondition {
    /// There is no value at this place.
    #[must_use]
    pub fn absent(pointer: Pointer) -> Self {
        Self { pointer, test: PlaceTest::Absent }
    }

    /// The value at this place is the one that `text` writes: white space and the way a string is
    /// escaped make no difference, the order of members and the spelling of numbers do.
    ///
    /// # Errors
    /// [`ConstraintError::Json`] when the text is no JSON value.
    pub fn is(pointer: Pointer, text: &str) -> Result<Self, ConstraintError> {
        json::check(text.as_bytes()).map_err(|error| ConstraintError::Json { at: 0, error })?;
        Ok(Self { pointer, test: PlaceTest::Is(text.trim_matches([' ', '\n', '\r', '\t']).into()) })
    }

    /// There is a value at this place that compares so.
    ///
    /// # Errors
    /// [`ConstraintError::Operator`] when the operator means nothing for the scalar.
    pub fn compare(
        pointer: Pointer,
        operator: Operator,
        scalar: Scalar,
    ) -> Result<Self, ConstraintError> {
        Ok(Self { pointer, test: PlaceTest::Lenient(Lenient::new(operator, scalar)?) })
    }
}

/// What a constraint says.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Form {
    #[default]
    Unconstrained,
    Value(ValueTest),
    NoValue,
    NoTopic,
    Json(Vec<JsonCondition>),
    /// At least two.
    And(Vec<Self>),
    /// At least two.
    Or(Vec<Self>),
}

impl Form {
    /// Checks the limits and that no `and` is impossible in itself.
    pub(super) fn checked(self) -> Result<Self, ConstraintError> {
        let (nodes, depth) = self.size();
        if nodes > limits::CONSTRAINT_NODES_MAX || depth > limits::CONSTRAINT_NODES_MAX {
            return Err(ConstraintError::TooManyParts);
        }
        if !self.is_possible() {
            return Err(ConstraintError::Impossible);
        }
        Ok(self)
    }

    /// No two things that must hold at once exclude each other, here or in a part.
    fn is_possible(&self) -> bool {
        let mut parts = Vec::new();
        self.collect(&mut parts);
        let mut pairs = parts
            .iter()
            .enumerate()
            .flat_map(|(at, one)| parts.iter().skip(at + 1).map(move |two| (one, two)));
        let parts_are_possible = match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().all(Self::is_possible),
            _ => true,
        };
        parts_are_possible && !pairs.any(|(one, two)| one.excludes(two))
    }

    fn size(&self) -> (usize, usize) {
        match self {
            Self::Json(conditions) => (1 + conditions.len(), 1),
            Self::And(parts) | Self::Or(parts) => parts
                .iter()
                .map(Self::size)
                .fold((1, 1), |(nodes, depth), (more, below)| (nodes + more, depth.max(below + 1))),
            _ => (1, 1),
        }
    }

    /// All that must hold at once; what alternatives say is left out.
    fn collect<'a>(&'a self, parts: &mut Vec<Part<'a>>) {
        match self {
            Self::Unconstrained | Self::Or(_) => {}
            Self::Value(test) => parts.push(Part::Value(test)),
            Self::NoValue => parts.push(Part::NoValue),
            Self::NoTopic => parts.push(Part::NoTopic),
            Self::Json(conditions) => {
                parts.push(Part::Json);
                parts.extend(conditions.iter().map(Part::Place));
            }
            Self::And(forms) => forms.iter().for_each(|form| form.collect(parts)),
        }
    }
}

/// One of the things that must hold at once.
enum Part<'a> {
    Value(&'a ValueTest),
    NoValue,
    NoTopic,
    Json,
    Place(&'a JsonCondition),
}

impl Part<'_> {
    fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Value(one), Self::Value(two)) => one.excludes(two),
            (Self::Place(one), Self::Place(two)) => {
                one.pointer == two.pointer && one.test.excludes(&two.test)
            }
            (Self::Value(ValueTest::Is { topic_type, .. }), Self::Json)
            | (Self::Json, Self::Value(ValueTest::Is { topic_type, .. })) => {
                *topic_type != TopicType::Json
            }
            (Self::NoValue, Self::NoValue) | (Self::NoTopic, Self::NoTopic) => false,
            (Self::NoValue | Self::NoTopic, _) | (_, Self::NoValue | Self::NoTopic) => true,
            _ => false,
        }
    }
}
