//! A topic's value: whether bytes are one, and how people write and read it.

use bytes::Bytes;

use super::specification::TopicType;

/// Why bytes or a text are no value of a type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Null, for a type that has none.
    #[error("a {topic_type} topic cannot be null")]
    Null {
        /// The type.
        topic_type: TopicType,
    },
}

/// Whether `bytes` (none is null) are a value of a `topic_type` topic. Allocates nothing.
///
/// # Errors
/// [`ValueError`] says what is wrong and where.
pub fn check(topic_type: TopicType, bytes: Option<&[u8]>) -> Result<(), ValueError> {
    unimplemented!("{topic_type} {bytes:?}")
}

/// The value that a text stands for: the text itself (`string`), a JSON text, base64 (`binary`), a
/// number in decimal digits. None is null.
///
/// # Errors
/// [`ValueError`] says what is wrong and where.
pub fn from_text(topic_type: TopicType, text: &str) -> Result<Bytes, ValueError> {
    unimplemented!("{topic_type} {text:?}")
}

/// The text that [`from_text`] reads; of a null value `null`.
#[must_use]
pub fn to_text(topic_type: TopicType, bytes: Option<&[u8]>) -> String {
    unimplemented!("{topic_type} {bytes:?}")
}

/// The value as one line of JSON.
#[must_use]
pub fn to_json(topic_type: TopicType, bytes: Option<&[u8]>) -> String {
    unimplemented!("{topic_type} {bytes:?}")
}
