//! Topics as messages name them: specifications, typed values, update constraints.
//!
//! Texts are checked by the node, not here: an illegal path or property is a refusal of one request,
//! not a broken protocol.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use minicbor::{Decode, Encode};

use super::DecodeError;
use super::codec::cbor;
use super::codec::cbor::{blob, blob_option};
use super::codec::laid::{Laid, put_text};
use crate::domain::limits;

/// Properties that a specification in a message may have.
pub const SPECIFICATION_PROPERTIES_MAX: usize = 32;

/// A topic's type and properties as they travel. The type is a number so that a client can meet
/// types newer than itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct WireSpecification {
    /// A [`TopicType`](crate::domain::topic::specification::TopicType)'s number.
    #[n(0)]
    pub topic_type: u8,
    /// Properties by name, at most [`SPECIFICATION_PROPERTIES_MAX`].
    #[cbor(n(1), default, decode_with = "cbor::texts::<_, SPECIFICATION_PROPERTIES_MAX>")]
    pub properties: BTreeMap<String, String>,
}

/// A value of a claimed type.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct WireValue {
    /// A [`TopicType`](crate::domain::topic::specification::TopicType)'s number.
    #[n(0)]
    pub value_type: u8,
    /// The bytes; none is the null value of `string`, `int64` and `double`.
    #[cbor(n(1), with = "blob_option", has_nil)]
    pub bytes: Option<Bytes>,
}

/// One node of an update constraint. A constraint is a list in prefix order: `and` and `or` are
/// followed by as many whole constraints as they count. An empty list always holds.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ConstraintNode {
    /// Always holds.
    #[n(0)]
    Unconstrained,
    /// There is no topic at the path.
    #[n(1)]
    NoTopic,
    /// There is a topic, and it has no value.
    #[n(2)]
    NoValue,
    /// There is a topic with a value, and the comparison holds.
    #[n(3)]
    #[cbor(map)]
    Value {
        /// How to compare.
        #[n(0)]
        operator: Operator,
        /// With what.
        #[n(1)]
        value: WireValue,
    },
    /// There is a JSON topic with a value, and every condition holds.
    #[n(4)]
    #[cbor(map)]
    Json {
        /// At most [`limits::CONSTRAINT_NODES_MAX`].
        #[cbor(n(0), decode_with = "cbor::list::<_, _, { limits::CONSTRAINT_NODES_MAX }>")]
        conditions: Vec<JsonCondition>,
    },
    /// All of the next `count` constraints hold.
    #[n(5)]
    #[cbor(map)]
    And {
        /// How many.
        #[n(0)]
        count: u8,
    },
    /// One of the next `count` constraints holds.
    #[n(6)]
    #[cbor(map)]
    Or {
        /// How many.
        #[n(0)]
        count: u8,
    },
}

/// One condition on a part of a JSON value.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct JsonCondition {
    /// A JSON pointer (RFC 6901).
    #[n(0)]
    pub pointer: String,
    /// How to compare; none: there must be nothing at the pointer.
    #[n(1)]
    pub operator: Option<Operator>,
    /// With what, as JSON text; empty without an operator.
    #[cbor(n(2), with = "blob", default)]
    pub value: Bytes,
}

/// How a constraint compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Operator {
    /// Equal bytes.
    #[n(1)]
    Is,
    /// Equal as text or number.
    #[n(2)]
    Equal,
    /// Not equal.
    #[n(3)]
    NotEqual,
    /// Greater.
    #[n(4)]
    Greater,
    /// Greater or equal.
    #[n(5)]
    GreaterOrEqual,
    /// Less.
    #[n(6)]
    Less,
    /// Less or equal.
    #[n(7)]
    LessOrEqual,
}

/// Hand-laid form: `type u8 · count u16 · { key, value }*`, texts behind 16-bit lengths.
pub(super) fn put_specification(buffer: &mut BytesMut, specification: &WireSpecification) {
    buffer.put_u8(specification.topic_type);
    buffer.put_u16_le(specification.properties.len() as u16);
    for (key, value) in &specification.properties {
        put_text(buffer, key);
        put_text(buffer, value);
    }
}

/// Reads what [`put_specification`] wrote.
pub(super) fn take_specification(laid: &mut Laid) -> Result<WireSpecification, DecodeError> {
    let topic_type = laid.u8()?;
    let count = usize::from(laid.u16()?);
    if count > SPECIFICATION_PROPERTIES_MAX {
        return Err(DecodeError::Field { field: "properties" });
    }
    let mut properties = BTreeMap::new();
    for _ in 0..count {
        properties.insert(laid.text("property key")?, laid.text("property value")?);
    }
    Ok(WireSpecification { topic_type, properties })
}
