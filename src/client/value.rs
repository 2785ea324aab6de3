//! Values as a program has them, and as they travel.

use bytes::Bytes;

use crate::domain::topic::specification::TopicType;
use crate::protocol::topic::WireValue;

/// A value to set. The node checks it against the topic's type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// UTF-8 text.
    String(&'a str),
    /// A JSON text, kept byte for byte.
    Json(&'a [u8]),
    /// Bytes.
    Binary(&'a [u8]),
    /// A signed 64-bit number.
    Int64(i64),
    /// An IEEE 754 number.
    Double(f64),
    /// The null value of a topic of this type: `string`, `int64` or `double`.
    Null(TopicType),
}

impl Value<'_> {
    /// The type of topic that takes it.
    #[must_use]
    pub fn value_type(&self) -> TopicType {
        match self {
            Self::String(_) => TopicType::String,
            Self::Json(_) => TopicType::Json,
            Self::Binary(_) => TopicType::Binary,
            Self::Int64(_) => TopicType::Int64,
            Self::Double(_) => TopicType::Double,
            Self::Null(value_type) => *value_type,
        }
    }

    /// Hands the bytes to `with`; none is null.
    pub(super) fn with_bytes<R>(&self, with: impl FnOnce(Option<&[u8]>) -> R) -> R {
        match self {
            Self::String(text) => with(Some(text.as_bytes())),
            Self::Json(bytes) | Self::Binary(bytes) => with(Some(bytes)),
            Self::Int64(number) => with(Some(&number.to_le_bytes())),
            Self::Double(number) => with(Some(&number.to_le_bytes())),
            Self::Null(_) => with(None),
        }
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::String(text) => text.len(),
            Self::Json(bytes) | Self::Binary(bytes) => bytes.len(),
            Self::Int64(_) | Self::Double(_) => 8,
            Self::Null(_) => 0,
        }
    }

    pub(super) fn to_wire(self) -> WireValue {
        let bytes = self.with_bytes(|bytes| bytes.map(Bytes::copy_from_slice));
        WireValue { value_type: self.value_type() as u8, bytes }
    }
}
