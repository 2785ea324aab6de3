//! Constraints as people write them.
//!
//! ```text
//! constraint = conjunction ( "or" conjunction )*
//! conjunction = part ( "and" part )*
//! part = "(" constraint ")" | "unconstrained" | "noValue" | "noTopic"
//!      | "value" ( "is" type literal | sign scalar )
//!      | "jsonValue" [ "(" condition ( "," condition )* ")" ]
//! condition = "with" pointer ( "is" json | sign scalar ) | "without" pointer
//! sign = "=" | "!=" | ">" | ">=" | "<" | "<="
//! scalar = JSON string, number, true, false or null
//! pointer = JSON string
//! literal = JSON string (string) | JSON value (json) | JSON number (int64, double)
//!         | "base64" JSON string (json with white space around it, byte for byte)
//!         | JSON string of base64 (binary)
//!         | JSON string "NaN", "Infinity", "-Infinity" or 16 hex digits of its bits (double)
//! ```

use std::fmt::{self, Write as _};

use bytes::Bytes;

use super::ConstraintError;
use super::evaluate::number;
use super::form::{Form, JsonCondition, Lenient, Operator, PlaceTest, Scalar, ValueTest};
use crate::domain::limits;
use crate::domain::topic::json::{self, Scan, Step};
use crate::domain::topic::specification::TopicType;
use crate::domain::topic::value;

pub(super) fn parse(text: &str) -> Result<Form, ConstraintError> {
    if text.len() > limits::CONSTRAINT_BYTES_MAX {
        return Err(ConstraintError::TooLong { bytes: text.len() });
    }
    let mut parser = Parser { text, at: 0 };
    let form = parser.alternatives(0)?;
    parser.skip_space();
    if parser.at < text.len() {
        return Err(parser.expected("\"and\", \"or\" or the end"));
    }
    Ok(form)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn expected(&self, what: &'static str) -> ConstraintError {
        ConstraintError::Text { at: self.at, expected: what }
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(sign);
        if found {
            self.at += sign.len();
        }
        found
    }

    fn peek_word(&mut self) -> &'a str {
        self.skip_space();
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        rest.get(..end).unwrap_or("")
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.peek_word() == word;
        if found {
            self.at += word.len();
        }
        found
    }

    fn alternatives(&mut self, depth: usize) -> Result<Form, ConstraintError> {
        let mut parts = vec![self.conjunction(depth)?];
        while self.take_word("or") {
            parts.push(self.conjunction(depth)?);
        }
        combined(parts, Form::Or)
    }

    fn conjunction(&mut self, depth: usize) -> Result<Form, ConstraintError> {
        let mut parts = vec![self.part(depth)?];
        while self.take_word("and") {
            parts.push(self.part(depth)?);
        }
        combined(parts, Form::And)
    }

    fn part(&mut self, depth: usize) -> Result<Form, ConstraintError> {
        if self.take_sign("(") {
            if depth == limits::CONSTRAINT_NODES_MAX {
                return Err(ConstraintError::TooManyParts);
            }
            let form = self.alternatives(depth + 1)?;
            if !self.take_sign(")") {
                return Err(self.expected("\"and\", \"or\" or \")\""));
            }
            return Ok(form);
        }
        for (word, form) in [
            ("unconstrained", Form::Unconstrained),
            ("noValue", Form::NoValue),
            ("noTopic", Form::NoTopic),
        ] {
            if self.take_word(word) {
                return Ok(form);
            }
        }
        if self.take_word("value") {
            let test = match self.operator()? {
                Operator::Is => self.typed_value()?,
                operator => ValueTest::Lenient(self.lenient(operator)?),
            };
            return Ok(Form::Value(test));
        }
        if self.take_word("jsonValue") {
            return Form::Json(self.conditions()?).checked();
        }
        Err(self.expected("value, noValue, noTopic, jsonValue, unconstrained or \"(\""))
    }

    fn conditions(&mut self) -> Result<Vec<JsonCondition>, ConstraintError> {
        let mut conditions = Vec::new();
        if !self.take_sign("(") || self.take_sign(")") {
            return Ok(conditions);
        }
        loop {
            if conditions.len() == limits::CONSTRAINT_NODES_MAX {
                return Err(ConstraintError::TooManyParts);
            }
            let with = self.take_word("with");
            if !with && !self.take_word("without") {
                return Err(self.expected("with or without"));
            }
            let pointer = self.string()?.parse()?;
            let test = if !with {
                PlaceTest::Absent
            } else {
                match self.operator()? {
                    Operator::Is => PlaceTest::Is(self.json()?.into()),
                    operator => PlaceTest::Lenient(self.lenient(operator)?),
                }
            };
            conditions.push(JsonCondition { pointer, test });
            if self.take_sign(")") {
                return Ok(conditions);
            }
            if !self.take_sign(",") {
                return Err(self.expected("\",\" or \")\""));
            }
        }
    }

    fn operator(&mut self) -> Result<Operator, ConstraintError> {
        if self.take_word("is") {
            return Ok(Operator::Is);
        }
        Operator::LENIENT
            .into_iter()
            .find(|(_, sign)| self.take_sign(sign))
            .map(|(operator, _)| operator)
            .ok_or_else(|| self.expected("is, =, !=, >, >=, < or <="))
    }

    /// The text of the JSON value that comes next.
    fn json(&mut self) -> Result<&'a str, ConstraintError> {
        let (start, end) = json::first_value(self.rest())
            .map_err(|error| ConstraintError::Json { at: self.at, error })?;
        let found = self.rest().get(start..end).unwrap_or("");
        self.at += end;
        Ok(found)
    }

    fn string(&mut self) -> Result<String, ConstraintError> {
        let start = self.at;
        match Scan::new(self.json()?).step() {
            Ok(Some(Step::String(escaped))) => Ok(json::unescape(escaped).into_owned()),
            _ => Err(ConstraintError::Text { at: start, expected: "a string in double quotes" }),
        }
    }

    fn lenient(&mut self, operator: Operator) -> Result<Lenient, ConstraintError> {
        let start = self.at;
        let scalar = match Scan::new(self.json()?).step() {
            Ok(Some(Step::String(escaped))) => Scalar::Text(json::unescape(escaped).into_owned()),
            Ok(Some(Step::Number(text))) => number(text).unwrap_or(Scalar::Double(f64::INFINITY)),
            Ok(Some(Step::Boolean(boolean))) => Scalar::Boolean(boolean),
            Ok(Some(Step::Null)) => Scalar::Null,
            _ => {
                let expected = "a string, a number, true, false or null";
                return Err(ConstraintError::Text { at: start, expected });
            }
        };
        Lenient::new(operator, scalar)
    }

    fn typed_value(&mut self) -> Result<ValueTest, ConstraintError> {
        let Ok(topic_type) = self.peek_word().parse::<TopicType>() else {
            return Err(self.expected("string, json, binary, int64 or double"));
        };
        self.at += topic_type.name().len();
        let bytes = match topic_type {
            TopicType::String | TopicType::Binary => value::from_text(topic_type, &self.string()?)?,
            TopicType::Json if self.take_word("base64") => {
                let bytes = value::from_text(TopicType::Binary, &self.string()?)?;
                value::check(topic_type, Some(&bytes))?;
                bytes
            }
            TopicType::Json | TopicType::Int64 => value::from_text(topic_type, self.json()?)?,
            TopicType::Double => {
                self.skip_space();
                if self.rest().starts_with('"') {
                    let text = self.string()?;
                    match u64::from_str_radix(&text, 16) {
                        Ok(bits) if text.len() == 16 => Bytes::copy_from_slice(&bits.to_le_bytes()),
                        _ => value::from_text(topic_type, &text)?,
                    }
                } else {
                    value::from_text(topic_type, self.json()?)?
                }
            }
        };
        Ok(ValueTest::Is { topic_type, bytes })
    }
}

pub(super) fn combined(
    mut parts: Vec<Form>,
    combine: impl FnOnce(Vec<Form>) -> Form,
) -> Result<Form, ConstraintError> {
    match parts.pop() {
        Some(only) if parts.is_empty() => Ok(only),
        Some(last) => {
            parts.push(last);
            combine(parts).checked()
        }
        None => Err(ConstraintError::TooFewParts),
    }
}

/// Writes what [`parse`] reads.
pub(super) fn print(form: &Form, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    match form {
        Form::Unconstrained => formatter.write_str("unconstrained"),
        Form::NoValue => formatter.write_str("noValue"),
        Form::NoTopic => formatter.write_str("noTopic"),
        Form::Value(ValueTest::Lenient(lenient)) => {
            formatter.write_str("value ")?;
            print_lenient(lenient, formatter)
        }
        Form::Value(ValueTest::Is { topic_type, bytes }) => {
            write!(formatter, "value is {topic_type} ")?;
            print_typed(*topic_type, bytes, formatter)
        }
        Form::Json(conditions) => {
            formatter.write_str("jsonValue")?;
            for (at, JsonCondition { pointer, test }) in conditions.iter().enumerate() {
                formatter.write_str(if at == 0 { "(" } else { ", " })?;
                let pointer = quoted(pointer.as_str());
                match test {
                    PlaceTest::Absent => write!(formatter, "without {pointer}")?,
                    PlaceTest::Is(text) => write!(formatter, "with {pointer} is {text}")?,
                    PlaceTest::Lenient(lenient) => {
                        write!(formatter, "with {pointer} ")?;
                        print_lenient(lenient, formatter)?;
                    }
                }
            }
            if conditions.is_empty() { Ok(()) } else { formatter.write_char(')') }
        }
        Form::And(parts) | Form::Or(parts) => {
            let word = if matches!(form, Form::And(_)) { " and " } else { " or " };
            for (at, part) in parts.iter().enumerate() {
                if at > 0 {
                    formatter.write_str(word)?;
                }
                if matches!(part, Form::And(_) | Form::Or(_)) {
                    formatter.write_char('(')?;
                    print(part, formatter)?;
                    formatter.write_char(')')?;
                } else {
                    print(part, formatter)?;
                }
            }
            Ok(())
        }
    }
}

fn print_lenient(lenient: &Lenient, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(formatter, "{} ", lenient.operator.sign())?;
    match &lenient.scalar {
        Scalar::Text(text) => formatter.write_str(&quoted(text)),
        Scalar::Integer(number) => write!(formatter, "{number}"),
        Scalar::Double(number) => formatter.write_str(&value::double_text(*number)),
        Scalar::Boolean(boolean) => write!(formatter, "{boolean}"),
        Scalar::Null => formatter.write_str("null"),
    }
}

fn print_typed(
    topic_type: TopicType,
    bytes: &Bytes,
    formatter: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let text = value::to_text(topic_type, Some(bytes));
    match topic_type {
        TopicType::Json if json::first_value(&text) != Ok((0, text.len())) => {
            let encoded = value::to_text(TopicType::Binary, Some(bytes));
            write!(formatter, "base64 {}", quoted(&encoded))
        }
        TopicType::Json | TopicType::Int64 => formatter.write_str(&text),
        TopicType::String | TopicType::Binary => formatter.write_str(&quoted(&text)),
        TopicType::Double => match value::double(bytes) {
            Some(number) if number.is_finite() => formatter.write_str(&text),
            Some(number) => write!(formatter, "\"{:016x}\"", number.to_bits()),
            None => Ok(()),
        },
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
