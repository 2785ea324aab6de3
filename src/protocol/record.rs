//! Update records: the bytes of an update exactly as they will stand in the log.
//!
//! ```text
//! kind 1 (update)          flags u8 · topic id u64 · value
//! kind 2 (stream update)   flags u8 · topic id u64 · stream id u64 · value
//! kind 3 (set by path)     flags u8 · path length u16 · path · value
//! flags = value type (bits 0–2) · null (bit 3) · rest zero
//! ```
//!
//! The layout belongs to [`domain::command`](crate::domain::command); this file only writes it
//! without building a command first, for the client's hot path.

use bytes::{BufMut, BytesMut};

use crate::domain::id::{StreamId, TopicId};
use crate::domain::topic::path::TopicPath;

const UPDATE: u8 = 1;
const STREAM_UPDATE: u8 = 2;
const SET_BY_PATH: u8 = 3;
const NULL: u8 = 1 << 3;

/// What an update record names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A topic by its identifier.
    Topic(TopicId),
    /// A topic through an update stream.
    Stream(TopicId, StreamId),
    /// A topic by its path.
    Path(TopicPath),
}

/// Bytes of a record around its value.
#[must_use]
pub fn head_bytes(target: &Target) -> usize {
    2 + match target {
        Target::Topic(_) => 8,
        Target::Stream(..) => 16,
        Target::Path(path) => 2 + path.as_str().len(),
    }
}

/// Appends a record. `value_type` is the number of a
/// [`TopicType`](crate::domain::topic::specification::TopicType); `value` none is the null value.
pub fn put_record(buffer: &mut BytesMut, target: &Target, value_type: u8, value: Option<&[u8]>) {
    let flags = value_type | if value.is_none() { NULL } else { 0 };
    match target {
        Target::Topic(topic) => {
            buffer.put_slice(&[UPDATE, flags]);
            buffer.put_u64_le(topic.0);
        }
        Target::Stream(topic, stream) => {
            buffer.put_slice(&[STREAM_UPDATE, flags]);
            buffer.put_u64_le(topic.0);
            buffer.put_u64_le(stream.0);
        }
        Target::Path(path) => {
            buffer.put_slice(&[SET_BY_PATH, flags]);
            // A path is at most 1 KiB by its type.
            buffer.put_u16_le(path.as_str().len() as u16);
            buffer.put_slice(path.as_str().as_bytes());
        }
    }
    buffer.put_slice(value.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let laid = |target: Target, value_type, value: Option<&[u8]>| {
            let mut buffer = BytesMut::new();
            put_record(&mut buffer, &target, value_type, value);
            assert_eq!(buffer.len(), head_bytes(&target) + value.map_or(0, <[u8]>::len));
            buffer.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        assert_eq!(
            laid(Target::Topic(TopicId(0x0102)), 2, Some(b"{}")),
            "010202010000000000007b7d"
        );
        assert_eq!(
            laid(Target::Stream(TopicId(1), StreamId(2)), 4, None),
            "020c01000000000000000200000000000000"
        );
        let path = TopicPath::parse("a/b").unwrap();
        assert_eq!(laid(Target::Path(path), 1, Some(b"x")), "03010300612f6278");
    }
}
