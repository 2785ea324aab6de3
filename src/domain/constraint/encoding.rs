//! Constraints as bytes, as they stand in commands of the log.
//!
//! ```text
//! constraint = version u8 (1) · node
//! node = 0                                   unconstrained
//!      | 1 · operator u8 · operand           value
//!      | 2                                   no value
//!      | 3                                   no topic
//!      | 4 · count u8 · condition*           JSON value
//!      | 5 · count u8 (2…) · node*           and
//!      | 6 · count u8 (2…) · node*           or
//! condition = pointer text · 0               absent
//!           | pointer text · operator u8 · operand
//! operand = 1 · type u8 · length u32 · bytes     typed value, with operator 1 of a topic
//!         | 2 · text                             JSON text, with operator 1 of a place
//!         | 3 · text | 4 · i64 | 5 · f64 | 6 · u8 | 7     string, numbers, boolean, null, with 2…7
//! text = length u32 · UTF-8
//! ```
//!
//! All integers are little-endian. Equal constraints have equal bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::ConstraintError;
use super::form::{Form, JsonCondition, Lenient, Operator, PlaceTest, Scalar, ValueTest};
use crate::domain::limits;
use crate::domain::topic::specification::TopicType;
use crate::domain::topic::value;

/// The only version there is.
const VERSION: u8 = 1;

pub(super) fn encode(form: &Form) -> Bytes {
    let mut buffer = BytesMut::new();
    buffer.put_u8(VERSION);
    put_form(&mut buffer, form);
    buffer.freeze()
}

fn put_form(buffer: &mut BytesMut, form: &Form) {
    match form {
        Form::Unconstrained => buffer.put_u8(0),
        Form::Value(test) => {
            buffer.put_u8(1);
            match test {
                ValueTest::Is { topic_type, bytes } => {
                    buffer.put_slice(&[Operator::Is.code(), 1, topic_type.code()]);
                    buffer.put_u32_le(bytes.len() as u32);
                    buffer.put_slice(bytes);
                }
                ValueTest::Lenient(lenient) => put_lenient(buffer, lenient),
            }
        }
        Form::NoValue => buffer.put_u8(2),
        Form::NoTopic => buffer.put_u8(3),
        Form::Json(conditions) => {
            buffer.put_slice(&[4, conditions.len() as u8]);
            for JsonCondition { pointer, test } in conditions {
                put_text(buffer, pointer.as_str());
                match test {
                    PlaceTest::Absent => buffer.put_u8(0),
                    PlaceTest::Is(text) => {
                        buffer.put_slice(&[Operator::Is.code(), 2]);
                        put_text(buffer, text);
                    }
                    PlaceTest::Lenient(lenient) => put_lenient(buffer, lenient),
                }
            }
        }
        Form::And(parts) | Form::Or(parts) => {
            let kind = if matches!(form, Form::And(_)) { 5 } else { 6 };
            buffer.put_slice(&[kind, parts.len() as u8]);
            parts.iter().for_each(|part| put_form(buffer, part));
        }
    }
}

fn put_lenient(buffer: &mut BytesMut, lenient: &Lenient) {
    buffer.put_u8(lenient.operator.code());
    match &lenient.scalar {
        Scalar::Text(text) => {
            buffer.put_u8(3);
            put_text(buffer, text);
        }
        Scalar::Integer(number) => {
            buffer.put_u8(4);
            buffer.put_i64_le(*number);
        }
        Scalar::Double(number) => {
            buffer.put_u8(5);
            buffer.put_f64_le(*number);
        }
        Scalar::Boolean(boolean) => buffer.put_slice(&[6, u8::from(*boolean)]),
        Scalar::Null => buffer.put_u8(7),
    }
}

fn put_text(buffer: &mut BytesMut, text: &str) {
    buffer.put_u32_le(text.len() as u32);
    buffer.put_slice(text.as_bytes());
}

pub(super) fn decode(bytes: &Bytes) -> Result<Form, ConstraintError> {
    if bytes.len() > limits::CONSTRAINT_BYTES_MAX {
        return Err(ConstraintError::TooLong { bytes: bytes.len() });
    }
    let mut reader = Reader { bytes: bytes.clone(), total: bytes.len() };
    let version = reader.byte()?;
    if version != VERSION {
        return Err(ConstraintError::Version { version });
    }
    let form = reader.form(0)?;
    if !reader.bytes.is_empty() {
        return Err(reader.malformed());
    }
    form.checked()
}

struct Reader {
    bytes: Bytes,
    total: usize,
}

impl Reader {
    fn malformed(&self) -> ConstraintError {
        ConstraintError::Malformed { at: self.total - self.bytes.len() }
    }

    fn take(&mut self, length: usize) -> Result<Bytes, ConstraintError> {
        if self.bytes.len() < length {
            return Err(self.malformed());
        }
        Ok(self.bytes.split_to(length))
    }

    fn byte(&mut self) -> Result<u8, ConstraintError> {
        Ok(self.take(1)?.get_u8())
    }

    fn text(&mut self) -> Result<String, ConstraintError> {
        let length = self.take(4)?.get_u32_le() as usize;
        let bytes = self.take(length)?;
        std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| self.malformed())
    }

    fn form(&mut self, depth: usize) -> Result<Form, ConstraintError> {
        if depth > limits::CONSTRAINT_NODES_MAX {
            return Err(ConstraintError::TooManyParts);
        }
        let kind = self.byte()?;
        Ok(match kind {
            0 => Form::Unconstrained,
            1 => Form::Value(self.value_test()?),
            2 => Form::NoValue,
            3 => Form::NoTopic,
            4 => {
                let count = self.count(0)?;
                Form::Json((0..count).map(|_| self.condition()).collect::<Result<_, _>>()?)
            }
            5 | 6 => {
                let count = self.count(2)?;
                let parts = (0..count).map(|_| self.form(depth + 1)).collect::<Result<_, _>>()?;
                if kind == 5 { Form::And(parts) } else { Form::Or(parts) }
            }
            _ => return Err(self.malformed()),
        })
    }

    fn count(&mut self, least: usize) -> Result<usize, ConstraintError> {
        let count = usize::from(self.byte()?);
        if count < least {
            return Err(self.malformed());
        }
        if count > limits::CONSTRAINT_NODES_MAX {
            return Err(ConstraintError::TooManyParts);
        }
        Ok(count)
    }

    fn value_test(&mut self) -> Result<ValueTest, ConstraintError> {
        let operator = self.operator()?;
        if operator != Operator::Is {
            return Ok(ValueTest::Lenient(self.lenient(operator)?));
        }
        if self.byte()? != 1 {
            return Err(self.malformed());
        }
        let topic_type = TopicType::from_code(self.byte()?).ok_or_else(|| self.malformed())?;
        let length = self.take(4)?.get_u32_le() as usize;
        let bytes = self.take(length)?;
        value::check(topic_type, Some(&bytes))?;
        // Its own allocation: a slice would pin the whole entry that it came in.
        let bytes = Bytes::copy_from_slice(&bytes);
        Ok(ValueTest::Is { topic_type, bytes })
    }

    fn condition(&mut self) -> Result<JsonCondition, ConstraintError> {
        let pointer = self.text()?.parse()?;
        if self.bytes.first() == Some(&0) {
            self.byte()?;
            return Ok(JsonCondition::absent(pointer));
        }
        let operator = self.operator()?;
        if operator != Operator::Is {
            let test = PlaceTest::Lenient(self.lenient(operator)?);
            return Ok(JsonCondition { pointer, test });
        }
        if self.byte()? != 2 {
            return Err(self.malformed());
        }
        let text = self.text()?;
        let condition = JsonCondition::is(pointer, &text)?;
        // White space around it would be another spelling of the same.
        match &condition.test {
            PlaceTest::Is(kept) if **kept == *text => Ok(condition),
            _ => Err(self.malformed()),
        }
    }

    fn operator(&mut self) -> Result<Operator, ConstraintError> {
        Operator::from_code(self.byte()?).ok_or_else(|| self.malformed())
    }

    fn lenient(&mut self, operator: Operator) -> Result<Lenient, ConstraintError> {
        let scalar = match self.byte()? {
            3 => Scalar::Text(self.text()?),
            4 => Scalar::Integer(self.take(8)?.get_i64_le()),
            5 => {
                let number = self.take(8)?.get_f64_le();
                if number == 0.0 && number.is_sign_negative() {
                    return Err(self.malformed());
                }
                Scalar::Double(number)
            }
            6 => match self.byte()? {
                0 => Scalar::Boolean(false),
                1 => Scalar::Boolean(true),
                _ => return Err(self.malformed()),
            },
            7 => Scalar::Null,
            _ => return Err(self.malformed()),
        };
        Lenient::new(operator, scalar)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Constraint;
    use super::*;

    #[test]
    fn golden_bytes() {
        for (text, expected) in [
            ("unconstrained", "0100"),
            ("noValue", "0102"),
            ("noTopic", "0103"),
            ("value is string \"ab\"", "01010101010200000061 62"),
            ("value is int64 -2", "0101010104 08000000 feffffffffffffff"),
            ("value is binary \"AP8=\"", "01010101 03 02000000 00ff"),
            ("value = \"a\"", "0101 02 03 0100000061"),
            ("value != null", "0101 03 07"),
            ("value > 5", "0101 04 04 0500000000000000"),
            ("value >= 0.5", "0101 05 05 000000000000e03f"),
            ("value < 1", "0101 06 04 0100000000000000"),
            ("value <= 1", "0101 07 04 0100000000000000"),
            ("value = true", "0101 02 06 01"),
            ("jsonValue", "010400"),
            (
                "jsonValue(with \"/a\" is [1], without \"/b\")",
                "010402 020000002f61 01 02 030000005b315d 020000002f62 00",
            ),
            ("noTopic or noValue and value = 1", ""),
            ("noTopic or noValue", "0106 02 03 02"),
            ("unconstrained and noTopic", "0105 02 00 03"),
        ] {
            let Ok(constraint) = Constraint::parse(text) else {
                assert_eq!(expected, "", "{text}");
                continue;
            };
            let encoded = constraint.encode();
            let hex: String = encoded.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected.replace(' ', ""), "{text}");
            assert_eq!(Constraint::decode(&encoded), Ok(constraint), "{text}");
            for cut in 0..encoded.len() {
                assert!(Constraint::decode(&encoded.slice(..cut)).is_err(), "{text} to {cut}");
            }
            let longer: Bytes = encoded.iter().copied().chain([0]).collect();
            assert!(Constraint::decode(&longer).is_err(), "{text} and more");
        }
    }

    #[test]
    fn illegal_bytes_are_refused() {
        for (bytes, expected) in [
            (&[][..], ConstraintError::Malformed { at: 0 }),
            (&[2, 0], ConstraintError::Version { version: 2 }),
            (&[1, 9], ConstraintError::Malformed { at: 2 }),
            (&[1, 5, 1, 0], ConstraintError::Malformed { at: 3 }),
            (&[1, 6, 255], ConstraintError::TooManyParts),
            (&[1, 5, 2, 2, 3], ConstraintError::Impossible),
            (&[1, 6, 2, 0, 5, 2, 2, 3], ConstraintError::Impossible),
            (&[1, 1, 8, 7], ConstraintError::Malformed { at: 3 }),
            (&[1, 1, 2, 5, 0, 0, 0, 0, 0, 0, 0, 128], ConstraintError::Malformed { at: 12 }),
            (&[1, 1, 1, 1, 1, 255, 255, 255, 255], ConstraintError::Malformed { at: 9 }),
        ] {
            assert_eq!(Constraint::decode(&Bytes::from_static(bytes)), Err(expected), "{bytes:?}");
        }
        let nested: Bytes = std::iter::once(1).chain([6, 2, 0].repeat(1000)).collect();
        assert_eq!(Constraint::decode(&nested), Err(ConstraintError::TooManyParts));
        let long = Bytes::from(vec![1; limits::CONSTRAINT_BYTES_MAX + 1]);
        assert_eq!(
            Constraint::decode(&long),
            Err(ConstraintError::TooLong { bytes: limits::CONSTRAINT_BYTES_MAX + 1 })
        );
    }
}
