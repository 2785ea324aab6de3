//! JSON texts as bytes: whether they are well-formed, and what stands at a pointer. No tree is
//! built, nothing is allocated in proportion to the input, and one pass is enough for either.
//!
//! The grammar is that of RFC 8259, with two rules for the sake of every reader: nesting ends at
//! [`limits::JSON_DEPTH_MAX`], and a `\u` escape of half a surrogate pair is refused, since no
//! UTF-8 text can hold it. Of a name that an object has twice the last one counts.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::domain::limits;

/// Why bytes are no JSON text, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {at}")]
pub struct JsonError {
    /// Offset of the first byte that cannot stand there.
    pub at: usize,
    /// What is wrong with it.
    pub problem: JsonProblem,
}

/// What can be wrong with a JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonProblem {
    /// The bytes are not UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// The text ends too early.
    #[error("the text ends where more must follow")]
    CutShort,
    /// No value starts like that.
    #[error("a value was expected")]
    NoValue,
    /// A member of an object starts with its name.
    #[error("a name in double quotes was expected")]
    NoName,
    /// Between a name and its value.
    #[error("a colon was expected")]
    NoColon,
    /// After a value in an object or an array.
    #[error("a comma or the closing bracket was expected")]
    NoComma,
    /// A string holds a raw control character.
    #[error("a control character in a string must be escaped")]
    ControlCharacter,
    /// A backslash and what follows mean nothing.
    #[error("the escape sequence is not legal")]
    Escape,
    /// Half of a surrogate pair.
    #[error("the escape sequence is half of a surrogate pair")]
    LoneSurrogate,
    /// Digits are missing, or there is a leading zero.
    #[error("the number is not legal")]
    Number,
    /// More levels than [`limits::JSON_DEPTH_MAX`].
    #[error("the value is nested deeper than {} levels", limits::JSON_DEPTH_MAX)]
    TooDeep,
    /// Something after the value.
    #[error("something follows the value")]
    Trailing,
}

/// Whether `bytes` are exactly one well-formed JSON value, with white space around it or not.
///
/// # Errors
/// [`JsonError`] with the place.
pub fn check(bytes: &[u8]) -> Result<(), JsonError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| JsonError { at: error.valid_up_to(), problem: JsonProblem::NotUtf8 })?;
    let mut scan = Scan::new(text);
    while scan.step()?.is_some() {}
    Ok(())
}

/// Where the value that `text` begins with starts and ends; anything may follow it.
pub(crate) fn first_value(text: &str) -> Result<(usize, usize), JsonError> {
    let mut scan = Scan::new(text);
    scan.step()?;
    let start = scan.start;
    while scan.expect != Expect::Nothing {
        scan.step()?;
    }
    Ok((start, scan.at))
}

/// One step through a text: a value, or the beginning or end of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// `{` or `[`.
    Open(Container),
    /// `}` or `]`.
    Close(Container),
    /// The name of a member, without its quotes, still escaped.
    Name(&'a str),
    /// A string without its quotes, still escaped.
    String(&'a str),
    /// A number as written.
    Number(&'a str),
    /// `true` or `false`.
    Boolean(bool),
    /// `null`.
    Null,
}

/// What holds other values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Container {
    /// In braces.
    Object,
    /// In brackets.
    Array,
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    ValueOrEnd,
    Name,
    NameOrEnd,
    CommaOrEnd,
    Nothing,
}

/// A checking walk over a text. The kinds of the open containers are bits of one number.
#[derive(Debug, Clone)]
pub(crate) struct Scan<'a> {
    text: &'a str,
    at: usize,
    /// Where the step that was given last begins.
    start: usize,
    depth: usize,
    /// Bit n: the container at depth n is an object.
    objects: u128,
    expect: Expect,
}

const _: () = assert!(limits::JSON_DEPTH_MAX <= 128, "one bit per level");

impl<'a> Scan<'a> {
    /// At the beginning of `text`.
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, start: 0, depth: 0, objects: 0, expect: Expect::Value }
    }

    /// Where the step that was given last begins and ends.
    fn span(&self) -> (usize, usize) {
        (self.start, self.at)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn wrong(&self, problem: JsonProblem) -> JsonError {
        let problem = if self.at >= self.text.len() { JsonProblem::CutShort } else { problem };
        JsonError { at: self.at, problem }
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// The next step; none at the end of a well-formed text.
    pub(crate) fn step(&mut self) -> Result<Option<Step<'a>>, JsonError> {
        self.skip_space();
        if self.expect == Expect::Nothing {
            return match self.peek() {
                None => Ok(None),
                Some(_) => Err(self.wrong(JsonProblem::Trailing)),
            };
        }
        if self.expect == Expect::CommaOrEnd {
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    self.skip_space();
                    self.expect = if self.in_object() { Expect::Name } else { Expect::Value };
                }
                Some(b'}') if self.in_object() => return Ok(Some(self.close())),
                Some(b']') if !self.in_object() => return Ok(Some(self.close())),
                _ => return Err(self.wrong(JsonProblem::NoComma)),
            }
        }
        match (self.expect, self.peek()) {
            (Expect::ValueOrEnd, Some(b']')) | (Expect::NameOrEnd, Some(b'}')) => {
                Ok(Some(self.close()))
            }
            (Expect::Name | Expect::NameOrEnd, _) => self.name().map(Some),
            _ => self.value().map(Some),
        }
    }

    fn in_object(&self) -> bool {
        self.depth > 0 && self.objects >> (self.depth - 1) & 1 == 1
    }

    fn close(&mut self) -> Step<'a> {
        let container = if self.in_object() { Container::Object } else { Container::Array };
        self.start = self.at;
        self.at += 1;
        self.depth -= 1;
        self.value_done();
        Step::Close(container)
    }

    fn value_done(&mut self) {
        self.expect = if self.depth == 0 { Expect::Nothing } else { Expect::CommaOrEnd };
    }

    fn name(&mut self) -> Result<Step<'a>, JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.wrong(JsonProblem::NoName));
        }
        let name = self.string()?;
        let start = self.start;
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err(self.wrong(JsonProblem::NoColon));
        }
        self.at += 1;
        self.start = start;
        self.expect = Expect::Value;
        Ok(Step::Name(name))
    }

    fn value(&mut self) -> Result<Step<'a>, JsonError> {
        self.start = self.at;
        let step = match self.peek() {
            Some(b'{') => return self.open(Container::Object),
            Some(b'[') => return self.open(Container::Array),
            Some(b'"') => Step::String(self.string()?),
            Some(b't') => self.word("true", Step::Boolean(true))?,
            Some(b'f') => self.word("false", Step::Boolean(false))?,
            Some(b'n') => self.word("null", Step::Null)?,
            Some(b'-' | b'0'..=b'9') => Step::Number(self.number()?),
            _ => return Err(self.wrong(JsonProblem::NoValue)),
        };
        self.value_done();
        Ok(step)
    }

    fn open(&mut self, container: Container) -> Result<Step<'a>, JsonError> {
        if self.depth == limits::JSON_DEPTH_MAX {
            return Err(self.wrong(JsonProblem::TooDeep));
        }
        let bit = 1_u128 << self.depth;
        self.at += 1;
        self.depth += 1;
        match container {
            Container::Object => {
                self.objects |= bit;
                self.expect = Expect::NameOrEnd;
            }
            Container::Array => {
                self.objects &= !bit;
                self.expect = Expect::ValueOrEnd;
            }
        }
        Ok(Step::Open(container))
    }

    fn word(&mut self, word: &str, step: Step<'a>) -> Result<Step<'a>, JsonError> {
        for byte in word.bytes() {
            if self.peek() != Some(byte) {
                return Err(self.wrong(JsonProblem::NoValue));
            }
            self.at += 1;
        }
        Ok(step)
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.wrong(JsonProblem::Number));
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<&'a str, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                return Err(self.wrong(JsonProblem::Number));
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(self.text.get(start..self.at).unwrap_or(""))
    }

    fn string(&mut self) -> Result<&'a str, JsonError> {
        self.start = self.at;
        self.at += 1;
        let bytes = self.text.as_bytes();
        loop {
            let rest = bytes.get(self.at..).unwrap_or(&[]);
            let plain = rest.iter().position(|byte| matches!(byte, 0..0x20 | b'"' | b'\\'));
            self.at += plain.unwrap_or(rest.len());
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                _ => return Err(self.wrong(JsonProblem::ControlCharacter)),
            }
        }
        self.at += 1;
        Ok(self.text.get(self.start + 1..self.at - 1).unwrap_or(""))
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                let unit = self.hex()?;
                let lone = JsonError { at: start, problem: JsonProblem::LoneSurrogate };
                if (0xdc00..0xe000).contains(&unit) {
                    return Err(lone);
                }
                if (0xd800..0xdc00).contains(&unit) {
                    if !self.text.as_bytes().get(self.at..).is_some_and(|b| b.starts_with(b"\\u")) {
                        return Err(lone);
                    }
                    self.at += 2;
                    if !(0xdc00..0xe000).contains(&self.hex()?) {
                        return Err(lone);
                    }
                }
            }
            _ => return Err(self.wrong(JsonProblem::Escape)),
        }
        Ok(())
    }

    fn hex(&mut self) -> Result<u32, JsonError> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            unit = unit << 4 | digit.ok_or_else(|| self.wrong(JsonProblem::Escape))?;
            self.at += 1;
        }
        Ok(unit)
    }
}

/// What an escaped string without its quotes stands for. The text comes from a [`Scan`].
pub(crate) fn unescape(escaped: &str) -> Cow<'_, str> {
    if !escaped.contains('\\') {
        return Cow::Borrowed(escaped);
    }
    let mut plain = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let mut characters = after.chars();
        match characters.next() {
            Some('b') => plain.push('\u{8}'),
            Some('f') => plain.push('\u{c}'),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('t') => plain.push('\t'),
            Some('u') => {
                let unit = |from: usize| {
                    after.get(from..from + 4).and_then(|hex| u32::from_str_radix(hex, 16).ok())
                };
                let first = unit(1).unwrap_or(0xfffd);
                let is_pair = (0xd800..0xdc00).contains(&first);
                let code = match unit(7).filter(|_| is_pair) {
                    Some(second) => 0x10000 + ((first & 0x3ff) << 10 | second & 0x3ff),
                    None => first,
                };
                plain.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                characters = after.get(if is_pair { 11 } else { 5 }..).unwrap_or("").chars();
            }
            Some(other) => plain.push(other),
            None => {}
        }
        rest = characters.as_str();
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// The two texts are the same sequence of tokens: white space and the way a string is escaped make
/// no difference, the order of members and the spelling of numbers do. False when either is not
/// well-formed.
pub(crate) fn same_tokens(left: &str, right: &str) -> bool {
    let (mut left, mut right) = (Scan::new(left), Scan::new(right));
    loop {
        let same = match (left.step(), right.step()) {
            (Ok(None), Ok(None)) => return true,
            (Ok(Some(Step::String(one))), Ok(Some(Step::String(other))))
            | (Ok(Some(Step::Name(one))), Ok(Some(Step::Name(other)))) => {
                unescape(one) == unescape(other)
            }
            (Ok(Some(one)), Ok(Some(other))) => one == other,
            _ => false,
        };
        if !same {
            return false;
        }
    }
}

/// A place in a JSON value (RFC 6901): empty for the whole, else `/` before each name or index,
/// with `~0` for `~` and `~1` for `/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pointer {
    text: String,
    steps: Vec<String>,
}

/// A text that is no JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// It starts with something else than a slash.
    #[error("a JSON pointer is empty or starts with a slash; {text:?} does not")]
    NoSlash {
        /// What was given.
        text: String,
    },
    /// A tilde that is followed by neither 0 nor 1.
    #[error("in a JSON pointer ~ is written ~0 and / inside a name ~1; {text:?} has another ~")]
    Tilde {
        /// What was given.
        text: String,
    },
    /// Longer than [`limits::POINTER_BYTES_MAX`], or deeper than a JSON value can be.
    #[error(
        "a JSON pointer has at most {} bytes and {} steps",
        limits::POINTER_BYTES_MAX,
        limits::JSON_DEPTH_MAX
    )]
    TooLong,
}

impl Pointer {
    /// The pointer's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text of the value at this place; none when there is none or `text` is not well-formed.
    #[must_use]
    pub fn find<'a>(&self, text: &'a str) -> Option<&'a str> {
        let mut scan = Scan::new(text);
        // Containers 1 to `followed` of the open ones lie on the way; `counts` are their positions.
        let (mut depth, mut followed) = (0_usize, 0_usize);
        let mut counts: Vec<usize> = Vec::with_capacity(self.steps.len());
        // The next value is the one that the last followed container was searched for.
        let mut on_the_way = true;
        let mut found: Option<(usize, usize)> = None;
        // The target is open: where it starts, and the depth outside of it.
        let mut target: Option<(usize, usize)> = None;
        while let Some(step) = scan.step().ok()? {
            let (start, end) = scan.span();
            if let Step::Name(name) = step {
                let searched = self.steps.get(followed.wrapping_sub(1));
                on_the_way =
                    depth == followed && searched.is_some_and(|step| unescape(name) == *step);
                continue;
            }
            if let Step::Close(_) = step {
                if followed == depth {
                    followed -= 1;
                    counts.pop();
                }
                depth -= 1;
                if let Some((begun, _)) = target.take_if(|(_, outside)| *outside == depth) {
                    found = Some((begun, end));
                }
                on_the_way = false;
                continue;
            }
            if depth > 0
                && depth == followed
                && let Some(count) = counts.last_mut().filter(|count| **count != usize::MAX)
            {
                let searched = self.steps.get(followed - 1);
                on_the_way = searched.is_some_and(|step| is_index(step, *count));
                *count += 1;
            }
            let is_target = on_the_way && followed == self.steps.len();
            if on_the_way {
                // An earlier member of the same name no longer counts.
                found = is_target.then_some((start, end));
            }
            if let Step::Open(container) = step {
                if is_target {
                    found = None;
                    target = Some((start, depth));
                } else if on_the_way {
                    followed += 1;
                    counts.push(if container == Container::Array { 0 } else { usize::MAX });
                }
                depth += 1;
            }
            on_the_way = false;
        }
        found.and_then(|(start, end)| text.get(start..end))
    }
}

/// `step` is the decimal text of `index`, without leading zeros.
fn is_index(step: &str, index: usize) -> bool {
    let plain = step == "0" || !step.starts_with('0');
    plain && step.bytes().all(|byte| byte.is_ascii_digit()) && step.parse() == Ok(index)
}

impl FromStr for Pointer {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Self, PointerError> {
        if text.len() > limits::POINTER_BYTES_MAX {
            return Err(PointerError::TooLong);
        }
        let mut steps = Vec::new();
        if !text.is_empty() {
            let Some(rest) = text.strip_prefix('/') else {
                return Err(PointerError::NoSlash { text: text.to_owned() });
            };
            for step in rest.split('/') {
                let tildes = step.matches('~').count();
                if tildes != step.matches("~0").count() + step.matches("~1").count() {
                    return Err(PointerError::Tilde { text: text.to_owned() });
                }
                steps.push(step.replace("~1", "/").replace("~0", "~"));
            }
        }
        if steps.len() > limits::JSON_DEPTH_MAX {
            return Err(PointerError::TooLong);
        }
        Ok(Self { text: text.to_owned(), steps })
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn well_formed_texts_are_accepted() {
        for text in [
            "0",
            "-0",
            "1.5e+10",
            "1E400",
            "\"\"",
            "\"a\\u00e9\\ud83d\\ude00\\/\"",
            "null",
            " true\n",
            "[]",
            "{}",
            "[1,[2,{\"a\":[]}]]",
            "{\"a\":1,\"a\":2}",
            "{\"\":null}",
            "[ 1 , 2 ]",
            "\"é\u{7f}\"",
        ] {
            assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
        }
    }

    #[test]
    fn errors_name_the_place() {
        use JsonProblem as P;
        for (text, at, problem) in [
            ("", 0, P::CutShort),
            ("  ", 2, P::CutShort),
            ("nul", 3, P::CutShort),
            ("nulL", 3, P::NoValue),
            ("[1,]", 3, P::NoValue),
            ("[1 2]", 3, P::NoComma),
            ("[1}", 2, P::NoComma),
            ("{1:2}", 1, P::NoName),
            ("{\"a\":1,}", 7, P::NoName),
            ("{\"a\" 1}", 5, P::NoColon),
            ("{\"a\":}", 5, P::NoValue),
            ("01", 1, P::Number),
            ("-", 1, P::CutShort),
            ("-a", 1, P::Number),
            ("1.", 2, P::CutShort),
            ("1.e5", 2, P::Number),
            ("1e", 2, P::CutShort),
            ("+1", 0, P::NoValue),
            ("\"a", 2, P::CutShort),
            ("\"\u{1}\"", 1, P::ControlCharacter),
            ("\"\\x\"", 2, P::Escape),
            ("\"\\u12g4\"", 5, P::Escape),
            ("\"\\ud800\"", 1, P::LoneSurrogate),
            ("\"\\ud800\\u0041\"", 1, P::LoneSurrogate),
            ("\"\\udc00\"", 1, P::LoneSurrogate),
            ("1 2", 2, P::Trailing),
            ("\u{feff}1", 0, P::NoValue),
            ("NaN", 0, P::NoValue),
            ("'a'", 0, P::NoValue),
            ("// a", 0, P::NoValue),
        ] {
            assert_eq!(check(text.as_bytes()), Err(JsonError { at, problem }), "{text}");
        }
        let cut = JsonError { at: 2, problem: P::NotUtf8 };
        assert_eq!(check(b"\"a\xff\""), Err(cut));
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert_eq!(check(nested(limits::JSON_DEPTH_MAX).as_bytes()), Ok(()));
        let error = check(nested(limits::JSON_DEPTH_MAX + 1).as_bytes()).unwrap_err();
        assert_eq!(error.problem, JsonProblem::TooDeep);
        assert_eq!(error.at, limits::JSON_DEPTH_MAX);
        let objects =
            "{\"a\":".repeat(limits::JSON_DEPTH_MAX) + "1" + &"}".repeat(limits::JSON_DEPTH_MAX);
        assert_eq!(check(objects.as_bytes()), Ok(()));
        assert!(check("[".repeat(1 << 20).as_bytes()).is_err());
    }

    #[test]
    fn pointers_find_values() {
        let text = r#" {"a": {"b": [10, {"c": null}, "x"]}, "": 1, "m/n": 2, "q~r": 3, "é": 4,
            "d": 1, "d": {"e": 5}, "f": {"g": 6}, "f": 7} "#;
        for (pointer, expected) in [
            ("/a/b/0", Some("10")),
            ("/a/b/1", Some(r#"{"c": null}"#)),
            ("/a/b/1/c", Some("null")),
            ("/a/b/2", Some(r#""x""#)),
            ("/a/b/3", None),
            ("/a/b/01", None),
            ("/a/b/+1", None),
            ("/a/b/-", None),
            ("/a/b", Some(r#"[10, {"c": null}, "x"]"#)),
            ("/", Some("1")),
            ("/m~1n", Some("2")),
            ("/q~0r", Some("3")),
            ("/é", Some("4")),
            ("/d", Some(r#"{"e": 5}"#)),
            ("/d/e", Some("5")),
            ("/f", Some("7")),
            ("/f/g", None),
            ("/a/b/0/x", None),
            ("/b", None),
            ("/x", None),
        ] {
            let found = pointer.parse::<Pointer>().unwrap().find(text);
            assert_eq!(found, expected, "{pointer}");
        }
        assert_eq!("".parse::<Pointer>().unwrap().find(text), Some(text.trim()));
        assert_eq!("".parse::<Pointer>().unwrap().find(" 5 "), Some("5"));
        assert_eq!("/a".parse::<Pointer>().unwrap().find("5"), None);
        assert_eq!("/1".parse::<Pointer>().unwrap().find("[1,[2],3"), None);
        assert_eq!("/1/0".parse::<Pointer>().unwrap().find("[1,[2],3]"), Some("2"));
        assert_eq!("/a".parse::<Pointer>().unwrap().find(r#"{"\u0061":1}"#), Some("1"));
    }

    #[test]
    fn illegal_pointers_are_refused() {
        for text in ["a", "a/b", "/~", "/~2", "/a~"] {
            assert!(text.parse::<Pointer>().is_err(), "{text}");
        }
        assert_eq!("/a".repeat(129).parse::<Pointer>(), Err(PointerError::TooLong));
        assert_eq!(
            ("/".to_owned() + &"a".repeat(1024)).parse::<Pointer>(),
            Err(PointerError::TooLong)
        );
    }

    #[test]
    fn the_same_tokens_may_be_spaced_and_escaped_otherwise() {
        for (left, right, expected) in [
            ("[1, 2]", "[1,2]", true),
            ("\"a\"", "\"\\u0061\"", true),
            ("{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":1}", false),
            ("1", "1.0", false),
            ("[1]", "[1,2]", false),
            ("{}", "[]", false),
            ("\"a\"", "\"b\"", false),
            ("[", "[", false),
        ] {
            assert_eq!(same_tokens(left, right), expected, "{left} {right}");
        }
    }

    /// Texts near the grammar: pieces of JSON in any order.
    fn nearly_json() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"a\"",
            "\"\\n\"",
            "\"\\ud83d\\ude00\"",
            "\"\\ud83d\"",
            "0",
            "-1",
            "1.5",
            "1e-5",
            "true",
            "false",
            "null",
            " ",
            "\"",
            "\\",
            "é",
            "01",
            "\u{1}",
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            // Quarters: serde_json reads not every number back exactly.
            any::<i32>().prop_map(|quarters| (f64::from(quarters) / 4.0).into()),
            "[a-c~/\"\\\\\\n é😀]{0,3}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map("[a-c~/0-2\"]{0,2}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// It refuses numbers over 1e308 too; the strategies here make none.
    fn accepted_by_serde(bytes: &[u8]) -> bool {
        serde_json::from_slice::<serde_json::Value>(bytes).is_ok()
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(text in nearly_json()) {
            prop_assert_eq!(check(text.as_bytes()).is_ok(), accepted_by_serde(text.as_bytes()));
        }

        #[test]
        fn accepts_what_serde_json_writes(value in any_json(), pretty: bool) {
            let text = if pretty {
                serde_json::to_string_pretty(&value).unwrap()
            } else {
                value.to_string()
            };
            prop_assert_eq!(check(text.as_bytes()), Ok(()));
            for cut in (0..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
                let bytes = &text.as_bytes()[..cut];
                prop_assert_eq!(check(bytes).is_ok(), accepted_by_serde(bytes));
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(check(&bytes).is_ok(), accepted_by_serde(&bytes));
        }

        #[test]
        fn pointers_agree_with_serde_json(value in any_json(), pretty: bool) {
            let text = if pretty {
                serde_json::to_string_pretty(&value).unwrap()
            } else {
                value.to_string()
            };
            let mut open = vec![(String::new(), &value)];
            while let Some((pointer, expected)) = open.pop() {
                let found = pointer.parse::<Pointer>().unwrap().find(&text);
                let found: Option<serde_json::Value> = found.map(|t| serde_json::from_str(t).unwrap());
                prop_assert_eq!(found.as_ref(), Some(expected), "{} in {}", pointer, text);
                let missing = format!("{pointer}/none");
                prop_assert_eq!(missing.parse::<Pointer>().unwrap().find(&text), None);
                match expected {
                    serde_json::Value::Array(items) => {
                        for (index, item) in items.iter().enumerate() {
                            open.push((format!("{pointer}/{index}"), item));
                        }
                    }
                    serde_json::Value::Object(members) => {
                        for (name, member) in members {
                            let name = name.replace('~', "~0").replace('/', "~1");
                            open.push((format!("{pointer}/{name}"), member));
                        }
                    }
                    _ => {}
                }
            }
        }

        #[test]
        fn strings_are_unescaped(text in any::<String>()) {
            let written = serde_json::to_string(&text).unwrap();
            let mut scan = Scan::new(&written);
            let Ok(Some(Step::String(escaped))) = scan.step() else { panic!("{written}") };
            prop_assert_eq!(unescape(escaped), text.as_str());
            let wide: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            prop_assert_eq!(unescape(&wide), text.as_str());
        }
    }
}
