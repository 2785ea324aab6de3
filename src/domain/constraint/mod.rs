//! Update constraints: conditions on a topic at the moment of an update (`locked` is not built).

use bytes::Bytes;

use super::topic::specification::TopicType;

/// A condition on the topic at the moment of an update; made by parsing or by its builders, so an
/// impossible or oversized one does not exist.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Constraint(Form);

#[derive(Debug, Clone, PartialEq, Default)]
enum Form {
    #[default]
    Unconstrained,
}

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
    /// The bytes are none.
    #[error("the bytes are no constraint")]
    Malformed,
}

impl Constraint {
    /// Always holds.
    #[must_use]
    pub fn unconstrained() -> Self {
        Self(Form::Unconstrained)
    }

    /// Always holds.
    #[must_use]
    pub fn is_unconstrained(&self) -> bool {
        self.0 == Form::Unconstrained
    }

    /// Parses the text form.
    ///
    /// # Errors
    /// [`ConstraintError`] names the place.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        unimplemented!("{text}")
    }

    /// It holds for this topic; none is: there is no topic at the path.
    #[must_use]
    pub fn holds(&self, topic: Option<TopicView<'_>>) -> bool {
        unimplemented!("{topic:?}")
    }

    /// Its bytes, the same for equal constraints.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        unimplemented!()
    }

    /// Reads what [`Self::encode`] wrote; checks everything.
    ///
    /// # Errors
    /// [`ConstraintError`]; never panics.
    pub fn decode(bytes: &Bytes) -> Result<Self, ConstraintError> {
        unimplemented!("{bytes:?}")
    }
}
