//! What kind of topic: its type and its properties.

use std::collections::BTreeMap;

/// What values a topic takes. Numbers are stored and sent, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TopicType {
    /// UTF-8 text, or null.
    String = 1,
    /// A JSON text, kept byte for byte as it was written; `null` is a value like any other.
    Json = 2,
    /// Bytes.
    Binary = 3,
    /// A signed 64-bit number in 8 little-endian bytes, or null.
    Int64 = 4,
    /// An IEEE 754 number in 8 little-endian bytes, or null.
    Double = 5,
}

/// A topic's type and properties, checked. Two specifications are equal when type and all
/// effective properties are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Specification {
    /// What values it takes.
    pub topic_type: TopicType,
    /// As given, normalised: only known keys, only legal values, defaults left out.
    pub properties: BTreeMap<String, String>,
}
