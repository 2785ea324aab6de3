//! A topic's value: whether bytes are one, and how people write and read it.
//!
//! ```text
//! string   the UTF-8 text
//! json     the JSON text as it was written
//! binary   any bytes
//! int64    8 bytes, two's complement, little-endian
//! double   8 bytes, IEEE 754, little-endian; every bit pattern is a value
//! ```
//!
//! Values are always checked where they enter, whatever the property `VALIDATE_VALUES` says.
//!
//! A topic's value is an allocation of its own ([`own`]): a slice would keep a whole entry alive for
//! as long as the topic keeps the value.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use super::json::{self, JsonError};
use super::specification::TopicType;
use crate::domain::limits;

/// Why bytes or a text are no value of a type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Null, for a type that has none.
    #[error("a {topic_type} topic cannot be null")]
    Null {
        /// The type.
        topic_type: TopicType,
    },
    /// Over [`limits::VALUE_BYTES_MAX`].
    #[error("a value of {bytes} bytes is over the limit of {}", limits::VALUE_BYTES_MAX)]
    TooLarge {
        /// How long it is.
        bytes: usize,
    },
    /// A string that is not UTF-8.
    #[error("the string is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// Where.
        at: usize,
    },
    /// A JSON value that is not well-formed.
    #[error("the JSON value is not well-formed: {0}")]
    Json(#[from] JsonError),
    /// A number of another length.
    #[error("a {topic_type} value has 8 bytes, not {bytes}")]
    Length {
        /// The type.
        topic_type: TopicType,
        /// How long it is.
        bytes: usize,
    },
    /// A text that is no number.
    #[error("{text:?} is no {topic_type} number")]
    Number {
        /// The type.
        topic_type: TopicType,
        /// What was given, at most its first 64 characters.
        text: String,
    },
    /// A text that is not base64.
    #[error("a binary value is written in base64: {reason}")]
    Base64 {
        /// What is wrong with it.
        reason: base64::DecodeError,
    },
}

/// Whether `bytes` (none is null) are a value of a `topic_type` topic. Allocates nothing.
///
/// # Errors
/// [`ValueError`] says what is wrong and where.
pub fn check(topic_type: TopicType, bytes: Option<&[u8]>) -> Result<(), ValueError> {
    let Some(bytes) = bytes else {
        return if topic_type.allows_null() {
            Ok(())
        } else {
            Err(ValueError::Null { topic_type })
        };
    };
    if bytes.len() > limits::VALUE_BYTES_MAX {
        return Err(ValueError::TooLarge { bytes: bytes.len() });
    }
    match topic_type {
        TopicType::Binary => Ok(()),
        TopicType::String => match std::str::from_utf8(bytes) {
            Ok(_) => Ok(()),
            Err(error) => Err(ValueError::NotUtf8 { at: error.valid_up_to() }),
        },
        TopicType::Json => Ok(json::check(bytes)?),
        TopicType::Int64 | TopicType::Double => match bytes.len() {
            8 => Ok(()),
            bytes => Err(ValueError::Length { topic_type, bytes }),
        },
    }
}

/// A copy of a value in one allocation, however many come to share it.
///
/// Bytes that were a vector have a second allocation once they are shared, for the count of their
/// holders: 32 bytes, a quarter of what a short value takes, times a million topics. Here the count
/// stands before the bytes, in room whose sizes are those that an allocator hands out.
#[must_use]
pub fn own(bytes: &[u8]) -> Bytes {
    if bytes.is_empty() {
        return Bytes::new();
    }
    match (bytes.len() + ALLOCATION_BYTES).div_ceil(ALLOCATION_STEP) {
        1 => in_room::<{ room(1) }>(bytes),
        2 => in_room::<{ room(2) }>(bytes),
        3 => in_room::<{ room(3) }>(bytes),
        4 => in_room::<{ room(4) }>(bytes),
        5 => in_room::<{ room(5) }>(bytes),
        6 => in_room::<{ room(6) }>(bytes),
        7 => in_room::<{ room(7) }>(bytes),
        8 => in_room::<{ room(8) }>(bytes),
        9 => in_room::<{ room(9) }>(bytes),
        10 => in_room::<{ room(10) }>(bytes),
        11 | 12 => in_room::<{ room(12) }>(bytes),
        13 | 14 => in_room::<{ room(14) }>(bytes),
        15 | 16 => in_room::<{ room(16) }>(bytes),
        // The second allocation is lost in the first.
        _ => Bytes::copy_from_slice(bytes),
    }
}

/// Between two sizes of allocation, bytes: of glibc on machines of 64 bits, and of most others.
const ALLOCATION_STEP: usize = 16;
/// What an allocator keeps beside each allocation, bytes: glibc's.
const ALLOCATION_BYTES: usize = 8;

/// The room for a value, bytes, so that with the count before it (16 bytes) and what the allocator
/// keeps it takes a whole number of steps.
const fn room(steps: usize) -> usize {
    steps * ALLOCATION_STEP - ALLOCATION_BYTES
}

fn in_room<const ROOM: usize>(bytes: &[u8]) -> Bytes {
    let mut room = [0; ROOM];
    room.get_mut(..bytes.len()).expect("the room was chosen for these").copy_from_slice(bytes);
    let mut owned = Bytes::from_owner(room);
    owned.truncate(bytes.len());
    owned
}

/// The number of an `int64` value; none when the bytes are none.
#[must_use]
pub fn int64(bytes: &[u8]) -> Option<i64> {
    bytes.try_into().ok().map(i64::from_le_bytes)
}

/// The number of a `double` value; none when the bytes are none.
#[must_use]
pub fn double(bytes: &[u8]) -> Option<f64> {
    bytes.try_into().ok().map(f64::from_le_bytes)
}

/// The value that a text stands for: the text itself (`string`), a JSON text, base64 (`binary`), a
/// decimal number (`int64`, `double`; also `NaN`, `Infinity`, `-Infinity`).
///
/// # Errors
/// [`ValueError`] says what is wrong and where.
pub fn from_text(topic_type: TopicType, text: &str) -> Result<Bytes, ValueError> {
    let not_a_number = || ValueError::Number { topic_type, text: text.chars().take(64).collect() };
    let bytes = match topic_type {
        TopicType::String | TopicType::Json => Bytes::copy_from_slice(text.as_bytes()),
        TopicType::Binary => {
            BASE64.decode(text).map_err(|reason| ValueError::Base64 { reason })?.into()
        }
        TopicType::Int64 => {
            let number: i64 = text.parse().map_err(|_| not_a_number())?;
            Bytes::copy_from_slice(&number.to_le_bytes())
        }
        TopicType::Double => {
            let number: f64 = text.parse().map_err(|_| not_a_number())?;
            // Digits that overflow are no spelling of infinity.
            if number.is_infinite() && text.contains(|letter: char| letter.is_ascii_digit()) {
                return Err(not_a_number());
            }
            Bytes::copy_from_slice(&number.to_le_bytes())
        }
    };
    check(topic_type, Some(&bytes))?;
    Ok(bytes)
}

/// The text that [`from_text`] reads; of a null value `null`. Bytes that are no value of the type
/// are shown as well as they can be.
#[must_use]
pub fn to_text(topic_type: TopicType, bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else { return "null".to_owned() };
    let number = match topic_type {
        TopicType::String | TopicType::Json => {
            return String::from_utf8_lossy(bytes).into_owned();
        }
        TopicType::Binary => None,
        TopicType::Int64 => int64(bytes).map(|number| number.to_string()),
        TopicType::Double => double(bytes).map(double_text),
    };
    number.unwrap_or_else(|| BASE64.encode(bytes))
}

/// The shortest text that reads back as the same number, always with a point or an exponent.
pub(crate) fn double_text(number: f64) -> String {
    if number.is_finite() {
        format!("{number:?}")
    } else if number.is_nan() {
        "NaN".to_owned()
    } else {
        format!("{}Infinity", if number < 0.0 { "-" } else { "" })
    }
}

/// The value as JSON on one line: a JSON value is itself (line breaks between its tokens left out),
/// a string and a binary value (base64) are JSON strings, a number is a number; numbers that JSON
/// does not have are the strings `NaN`, `Infinity` and `-Infinity`; null is `null`.
#[must_use]
pub fn to_json(topic_type: TopicType, bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else { return "null".to_owned() };
    match topic_type {
        TopicType::Json if json::check(bytes).is_ok() => {
            // Inside a string a line break must be escaped, so these stand between tokens.
            to_text(topic_type, Some(bytes)).replace(['\n', '\r'], "")
        }
        TopicType::Int64 if bytes.len() == 8 => to_text(topic_type, Some(bytes)),
        TopicType::Double if double(bytes).is_some_and(f64::is_finite) => {
            to_text(topic_type, Some(bytes))
        }
        _ => serde_json::Value::from(to_text(topic_type, Some(bytes))).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn null_is_for_types_that_have_it() {
        for (topic_type, expected) in [
            (TopicType::String, true),
            (TopicType::Json, false),
            (TopicType::Binary, false),
            (TopicType::Int64, true),
            (TopicType::Double, true),
        ] {
            assert_eq!(check(topic_type, None).is_ok(), expected, "{topic_type}");
        }
    }

    #[test]
    fn bytes_are_checked() {
        for (topic_type, bytes, expected) in [
            (TopicType::String, &b""[..], ""),
            (TopicType::String, b"a\xc3", "the string is not UTF-8 at byte 1"),
            (TopicType::Json, b"{}", ""),
            (
                TopicType::Json,
                b"",
                "not well-formed: the text ends where more must follow at byte 0",
            ),
            (TopicType::Json, b"[1,]", "a value was expected at byte 3"),
            (TopicType::Binary, b"\xff", ""),
            (TopicType::Int64, b"12345678", ""),
            (TopicType::Int64, b"1234567", "an int64 value has 8 bytes, not 7"),
            (TopicType::Double, b"123456789", "a double value has 8 bytes, not 9"),
        ] {
            match check(topic_type, Some(bytes)) {
                Ok(()) => assert_eq!(expected, "", "{topic_type} {bytes:?}"),
                Err(error) => {
                    let (message, expected) =
                        (error.to_string(), expected.replace("an int64", "a int64"));
                    assert!(!expected.is_empty() && message.contains(&expected), "{message}");
                }
            }
        }
    }

    #[test]
    fn size_is_limited() {
        let long = vec![b' '; limits::VALUE_BYTES_MAX + 1];
        for topic_type in TopicType::ALL {
            let error = check(topic_type, Some(&long)).unwrap_err();
            assert_eq!(error, ValueError::TooLarge { bytes: long.len() });
        }
        assert_eq!(check(TopicType::Binary, Some(&long[1..])), Ok(()));
    }

    #[test]
    fn texts_are_read_and_written() {
        for (topic_type, text, json) in [
            (TopicType::String, "a \"b\"\n", r#""a \"b\"\n""#),
            (TopicType::Json, "{\"a\":\r\n 1}", r#"{"a": 1}"#),
            (TopicType::Binary, "AP8=", r#""AP8=""#),
            (TopicType::Int64, "-9223372036854775808", "-9223372036854775808"),
            (TopicType::Double, "1.0", "1.0"),
            (TopicType::Double, "-1e300", "-1e300"),
            (TopicType::Double, "NaN", r#""NaN""#),
            (TopicType::Double, "-Infinity", r#""-Infinity""#),
        ] {
            let value = from_text(topic_type, text).unwrap();
            assert_eq!(check(topic_type, Some(&value)), Ok(()));
            assert_eq!(to_text(topic_type, Some(&value)), text);
            assert_eq!(to_json(topic_type, Some(&value)), json);
        }
        assert_eq!(to_json(TopicType::String, None), "null");
        assert_eq!(to_text(TopicType::Int64, None), "null");
        for (topic_type, text) in [
            (TopicType::Json, "{"),
            (TopicType::Binary, "?"),
            (TopicType::Int64, "1.5"),
            (TopicType::Int64, "9223372036854775808"),
            (TopicType::Double, "one"),
            (TopicType::Double, "1e400"),
        ] {
            assert!(from_text(topic_type, text).is_err(), "{topic_type} {text}");
        }
    }

    #[test]
    fn an_own_copy_is_equal_at_every_length_and_elsewhere() {
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(20 * ALLOCATION_STEP).collect();
        for length in 0..bytes.len() {
            let given = Bytes::copy_from_slice(&bytes[..length]);
            let owned = own(&given);
            assert_eq!(owned, given);
            assert!(length == 0 || owned.as_ptr() != given.as_ptr());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_shown_as_one_line_of_json(
            bytes in prop::collection::vec(any::<u8>(), 0..16), code in 1_u8..=5,
        ) {
            let topic_type = TopicType::from_code(code).unwrap();
            let shown = to_json(topic_type, Some(&bytes));
            prop_assert_eq!(json::check(shown.as_bytes()), Ok(()));
            prop_assert!(!shown.contains('\n'));
        }

        #[test]
        fn doubles_come_back(bits: u64) {
            let number = f64::from_bits(bits);
            let text = to_text(TopicType::Double, Some(&number.to_le_bytes()));
            let back = double(&from_text(TopicType::Double, &text).unwrap()).unwrap();
            prop_assert!(back == number || (back.is_nan() && number.is_nan()), "{}", text);
        }
    }
}
