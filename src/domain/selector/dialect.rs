//! The regular expressions of selectors: Java's notation, as far as a matcher without backtracking
//! can give it the same meaning, written over into that of the `regex` crate.
//!
//! | notation | meaning here |
//! |---|---|
//! | `\d \w \s \h \v` and their capitals, `\p{Alpha}` and the other POSIX names | Java's sets (ASCII where Java's are) |
//! | `\Q…\E`, `\e`, `\cX`, `\0n`, `\xhh`, `\uhhhh`, `\` before any punctuation | that text or character |
//! | `[a[bc]]`, `[a-z&&[^x]]` | union and intersection of sets |
//! | `.` | any character, line breaks too |
//! | `(?i)`, `(?s)`, `(?m)` and their negations | as in Java, `i` for all of Unicode |
//! | `(?=` `(?!` `(?<=` `(?<!` `(?>`, `a*+`, `\1`, `\k<n>`, `\G`, `\X`, `\Z`, `\N{…}`, `\p{In…}`, flags `d u x U` | refused by name |

use regex_syntax::ParserBuilder;
use regex_syntax::hir::Hir;

use super::error::SelectorProblem;

/// How deeply groups and sets may be nested.
const NESTING_MAX: u32 = 64;

/// What is wrong with an expression, and at which of its bytes.
#[derive(Debug)]
pub(super) struct DialectError {
    pub(super) at: usize,
    pub(super) problem: SelectorProblem,
}

/// An expression in the notation of the `regex` crate, and its form.
#[derive(Debug)]
pub(super) struct Expression {
    pub(super) text: String,
    pub(super) form: Hir,
}

/// Reads an expression in Java's notation.
pub(super) fn read(pattern: &str) -> Result<Expression, DialectError> {
    let mut writer = Writer {
        pattern,
        at: 0,
        text: String::with_capacity(pattern.len()),
        places: Vec::new(),
        after_quantifier: false,
    };
    writer.expression()?;
    let Writer { text, places, .. } = writer;
    let parsed = ParserBuilder::new()
        .dot_matches_new_line(true)
        .nest_limit(NESTING_MAX)
        .build()
        .parse(&text);
    let (reason, offset) = match parsed {
        Ok(form) => return Ok(Expression { text, form }),
        Err(regex_syntax::Error::Parse(error)) => {
            (error.kind().to_string(), error.span().start.offset)
        }
        Err(regex_syntax::Error::Translate(error)) => {
            (error.kind().to_string(), error.span().start.offset)
        }
        Err(_) => ("it cannot be read".to_owned(), 0),
    };
    let token = places.partition_point(|(written, _)| *written <= offset);
    let at = token.checked_sub(1).and_then(|token| places.get(token)).map_or(0, |place| place.1);
    Err(DialectError { at, problem: SelectorProblem::Expression { reason } })
}

const HORIZONTAL: &str = r" \t\x{A0}\x{1680}\x{180e}\x{2000}-\x{200a}\x{202f}\x{205f}\x{3000}";
const VERTICAL: &str = r"\n\x0B\f\r\x{85}\x{2028}\x{2029}";

/// Copies an expression over, token by token.
struct Writer<'a> {
    pattern: &'a str,
    at: usize,
    text: String,
    /// Where each token was written to, and where it came from.
    places: Vec<(usize, usize)>,
    after_quantifier: bool,
}

impl Writer<'_> {
    fn rest(&self) -> &str {
        self.pattern.get(self.at..).unwrap_or("")
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn take_if(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    fn wrong(&self, at: usize, reason: &str) -> DialectError {
        let problem = SelectorProblem::Expression { reason: reason.to_owned() };
        DialectError { at: at.min(self.pattern.len()), problem }
    }

    fn unsupported(at: usize, feature: &'static str) -> DialectError {
        DialectError { at, problem: SelectorProblem::Unsupported { feature } }
    }

    fn literal(&mut self, character: char) {
        self.text.push_str(&regex_syntax::escape(character.encode_utf8(&mut [0; 4])));
    }

    fn expression(&mut self) -> Result<(), DialectError> {
        while let Some(next) = self.peek() {
            let start = self.at;
            self.places.push((self.text.len(), start));
            let was_quantifier = std::mem::take(&mut self.after_quantifier);
            self.at += next.len_utf8();
            match next {
                '\\' => self.escape(start, false)?,
                '[' => self.class(start)?,
                '(' => self.group(start)?,
                '*' | '+' | '?' | '{' => self.quantifier(start, next, was_quantifier)?,
                other => self.text.push(other),
            }
        }
        Ok(())
    }

    fn quantifier(&mut self, start: usize, first: char, again: bool) -> Result<(), DialectError> {
        if again && first == '+' {
            return Err(Self::unsupported(start, "possessive quantifiers"));
        }
        if again {
            return Err(self.wrong(start, "a quantifier follows a quantifier"));
        }
        self.text.push(first);
        if first == '{' {
            let Some((inside, _)) = self.rest().split_once('}') else {
                return Err(self.wrong(start, "a repetition has no closing brace"));
            };
            let inside = inside.to_owned();
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let legal = match inside.split_once(',') {
                Some((least, most)) => digits(least) && (most.is_empty() || digits(most)),
                None => digits(&inside),
            };
            if !legal {
                return Err(self.wrong(start, "a repetition is written {n}, {n,} or {n,m}"));
            }
            self.text.push_str(&inside);
            self.text.push('}');
            self.at += inside.len() + 1;
        }
        if self.take_if("?") {
            self.text.push('?');
        }
        self.after_quantifier = true;
        Ok(())
    }

    fn group(&mut self, start: usize) -> Result<(), DialectError> {
        self.text.push('(');
        if !self.take_if("?") {
            return Ok(());
        }
        self.text.push('?');
        for (opening, feature) in [
            ("=", "look-ahead"),
            ("!", "look-ahead"),
            ("<=", "look-behind"),
            ("<!", "look-behind"),
            (">", "atomic groups"),
        ] {
            if self.rest().starts_with(opening) {
                return Err(Self::unsupported(start, feature));
            }
        }
        if self.peek() == Some('<') {
            return Ok(());
        }
        while let Some(flag) = self.take() {
            match flag {
                ':' | ')' => {
                    self.text.push(flag);
                    return Ok(());
                }
                'i' | 's' | 'm' | '-' => self.text.push(flag),
                'd' | 'u' | 'x' | 'U' => {
                    return Err(Self::unsupported(self.at - 1, "the flags d, u, x and U"));
                }
                _ => return Err(self.wrong(self.at - flag.len_utf8(), "no such flag")),
            }
        }
        Err(self.wrong(start, "a group has no end"))
    }

    /// A set in brackets, its opening one taken, with all sets inside it.
    fn class(&mut self, start: usize) -> Result<(), DialectError> {
        self.text.push('[');
        let mut depth = 1_usize;
        let mut first = true;
        if self.take_if("^") {
            self.text.push('^');
        }
        while depth > 0 {
            let token = self.at;
            self.places.push((self.text.len(), token));
            let was_first = std::mem::take(&mut first);
            match self.take() {
                None => {
                    return Err(self.wrong(
                        start,
                        "a set has no closing bracket; in a ? selector a slash ends the expression",
                    ));
                }
                Some(']') if was_first => self.text.push_str(r"\]"),
                Some(']') => {
                    self.text.push(']');
                    depth -= 1;
                }
                Some('[') => {
                    self.text.push('[');
                    if self.take_if("^") {
                        self.text.push('^');
                    }
                    depth += 1;
                    first = true;
                }
                Some('\\') => self.escape(token, true)?,
                Some('&') if self.take_if("&") => self.text.push_str("&&"),
                Some('-') if self.peek() == Some('-') => {
                    return Err(self.wrong(token, r"write \- for a hyphen beside a hyphen"));
                }
                // Plain in Java, operators in the other notation.
                Some(plain @ ('~' | '^' | ':' | '&')) => {
                    self.text.push('\\');
                    self.text.push(plain);
                }
                Some(other) => self.text.push(other),
            }
        }
        Ok(())
    }

    /// An escape sequence that starts at `start`, its backslash taken.
    fn escape(&mut self, start: usize, in_class: bool) -> Result<(), DialectError> {
        let Some(kind) = self.take() else {
            return Err(self.wrong(start, "it ends with a lone backslash"));
        };
        let set = match kind {
            'd' => Some("[0-9]".to_owned()),
            'D' => Some("[^0-9]".to_owned()),
            'w' => Some("[0-9A-Z_a-z]".to_owned()),
            'W' => Some("[^0-9A-Z_a-z]".to_owned()),
            's' => Some(r"[ \t\n\x0B\f\r]".to_owned()),
            'S' => Some(r"[^ \t\n\x0B\f\r]".to_owned()),
            'h' => Some(format!("[{HORIZONTAL}]")),
            'H' => Some(format!("[^{HORIZONTAL}]")),
            'v' => Some(format!("[{VERTICAL}]")),
            'V' => Some(format!("[^{VERTICAL}]")),
            'R' if !in_class => Some(format!(r"(?:\r\n|[{VERTICAL}])")),
            'b' | 'B' | 'A' | 'z' if !in_class => Some(format!("\\{kind}")),
            't' | 'n' | 'r' | 'f' | 'a' => Some(format!("\\{kind}")),
            'e' => Some(r"\x1B".to_owned()),
            _ => None,
        };
        if let Some(set) = set {
            self.text.push_str(&set);
            return Ok(());
        }
        match kind {
            'Q' => self.quoted(),
            'c' => match self.take() {
                Some(letter) if letter.is_ascii() => {
                    self.literal(char::from(letter as u8 ^ 64));
                }
                _ => return Err(self.wrong(start, r"\c must be followed by a letter")),
            },
            '0' | 'x' | 'u' => {
                let character = self.numbered(kind);
                self.literal(character.ok_or_else(|| {
                    self.wrong(start, r"a character is written \0n, \xhh, \x{h…h} or \uhhhh")
                })?);
            }
            'p' | 'P' => self.property(start, kind == 'P')?,
            '1'..='9' | 'k' => return Err(Self::unsupported(start, "back-references")),
            'G' | 'X' | 'Z' => return Err(Self::unsupported(start, r"\G, \X and \Z")),
            'N' => return Err(Self::unsupported(start, "named characters")),
            letter if letter.is_ascii_alphabetic() => {
                return Err(self.wrong(start, "no such escape sequence"));
            }
            other => self.literal(other),
        }
        Ok(())
    }

    /// What stands between `\Q` and `\E`, or the end.
    fn quoted(&mut self) {
        while !self.rest().is_empty() && !self.take_if(r"\E") {
            if let Some(next) = self.take() {
                self.literal(next);
            }
        }
    }

    /// The character of an octal or hexadecimal escape sequence.
    fn numbered(&mut self, kind: char) -> Option<char> {
        let digits = |writer: &mut Self, radix: u32, most: usize| {
            let text: String =
                writer.rest().chars().take_while(|c| c.is_digit(radix)).take(most).collect();
            writer.at += text.len();
            (text.len(), u32::from_str_radix(&text, radix).ok())
        };
        let code = match kind {
            '0' => {
                let most = if matches!(self.peek(), Some('0'..='3')) { 3 } else { 2 };
                digits(self, 8, most).1?
            }
            'x' if self.take_if("{") => {
                let code = digits(self, 16, 8).1?;
                self.take_if("}").then_some(code)?
            }
            'x' => digits(self, 16, 2).1?,
            _ => {
                let (4, Some(first)) = digits(self, 16, 4) else { return None };
                if (0xd800..0xdc00).contains(&first) && self.take_if(r"\u") {
                    let (4, Some(second)) = digits(self, 16, 4) else { return None };
                    let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                    0x10000 + ((first - 0xd800) << 10 | low)
                } else {
                    first
                }
            }
        };
        char::from_u32(code)
    }

    /// A named set: `\pL`, `\p{Alpha}`, `\p{IsGreek}`.
    fn property(&mut self, start: usize, negated: bool) -> Result<(), DialectError> {
        let name = if self.take_if("{") {
            let Some((name, _)) = self.rest().split_once('}') else {
                return Err(self.wrong(start, "a named set has no closing brace"));
            };
            let name = name.to_owned();
            self.at += name.len() + 1;
            name
        } else {
            self.take().map(String::from).unwrap_or_default()
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '=');
        if name.is_empty() || !name.chars().all(legal) {
            return Err(self.wrong(start, "no such named set"));
        }
        const POSIX: [&str; 12] = [
            "Lower", "Upper", "ASCII", "Alpha", "Digit", "Alnum", "Punct", "Graph", "Print",
            "Blank", "Cntrl", "XDigit",
        ];
        let posix = (name == "Space")
            .then_some("Space")
            .or_else(|| POSIX.into_iter().find(|posix| *posix == name));
        if let Some(posix) = posix {
            let sign = if negated { "^" } else { "" };
            self.text.push_str(&format!("[[:{sign}{}:]]", posix.to_ascii_lowercase()));
            return Ok(());
        }
        if name.starts_with("In") || name.starts_with("blk=") || name.starts_with("block=") {
            return Err(Self::unsupported(start, "sets named by Unicode block"));
        }
        if name.starts_with("java") {
            return Err(Self::unsupported(start, "sets named by Java methods"));
        }
        let name = name.strip_prefix("Is").unwrap_or(&name);
        self.text.push_str(&format!("\\{}{{{name}}}", if negated { 'P' } else { 'p' }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        let expression = read(pattern).unwrap_or_else(|error| panic!("{pattern}: {error:?}"));
        let anchored = format!(r"\A(?s:{})\z", expression.text);
        regex::Regex::new(&anchored).unwrap().is_match(text)
    }

    #[test]
    fn javas_notation_has_javas_meaning() {
        for (pattern, matching, other) in [
            (r"\d+", "42", "٤٢"),
            (r"\w*", "a_1", "é"),
            (r"\W", "é", "a"),
            (r"[\w.-]+", "a.b-c", "a b"),
            (r"[^\d]", "a", "1"),
            (r"[\D]", "a", "1"),
            (r"\Qa.b*\E+", "a.b**", "aXb"),
            (r"a\Q", "a", "aQ"),
            (r"[a-z&&[^m-p]]", "b", "n"),
            (r"[a-d[m-p]]", "n", "f"),
            (r"[a&b]", "&", "&&"),
            (r"[]a]", "]", "b"),
            (r"[^]a]", "b", "]"),
            (r"[a~~b]", "~", "c"),
            (r"[[:alpha:]]", "h", "z"),
            (r"\p{Alpha}+", "aZ", "é"),
            (r"\P{Digit}", "é", "1"),
            (r"\p{Space}", "\t", "a"),
            (r"\p{L}", "é", "1"),
            (r"\pL", "é", "1"),
            (r"\p{IsGreek}", "π", "p"),
            (r"[\p{Lu}\p{Digit}]+", "A1", "a1"),
            (r"\x41\u0042\x{43}\0104", "ABCD", "abcd"),
            (r"\ud83d\ude00", "😀", "😁"),
            (r"\cA", "\u{1}", "A"),
            (r"\<\>\%\é", "<>%é", "x"),
            (r"a.c", "a\nc", "ac"),
            (r"(?i)abc", "aBc", "abd"),
            (r"(?<name>a|b)", "b", "c"),
            (r"a{2,3}?", "aaa", "aaaa"),
            (r"a\h\v", "a\u{a0}\u{85}", "a  "),
            (r"a\R", "a\r\n", "ab"),
            (r"x y#", "x y#", "xy"),
        ] {
            assert!(matches(pattern, matching), "{pattern} {matching:?}");
            assert!(!matches(pattern, other), "{pattern} {other:?}");
        }
    }

    #[test]
    fn errors_name_the_feature_and_the_place() {
        for (pattern, at, expected) in [
            ("a(?=b)", 1, "look-ahead"),
            ("a(?!b)", 1, "look-ahead"),
            ("a(?<=b)", 1, "look-behind"),
            ("a(?<!b)", 1, "look-behind"),
            ("(?>a)", 0, "atomic groups"),
            ("ab*+", 3, "possessive"),
            ("a{2}+", 4, "possessive"),
            ("a**", 2, "a quantifier follows a quantifier"),
            (r"(a)\1", 3, "back-references"),
            (r"\k<a>", 0, "back-references"),
            (r"a\Z", 1, r"\G, \X and \Z"),
            (r"\p{InGreek}", 0, "Unicode block"),
            (r"\p{javaLowerCase}", 0, "Java methods"),
            ("(?x)a b", 2, "the flags d, u, x and U"),
            ("(?q)", 2, "no such flag"),
            (r"é\y", 2, "no such escape"),
            (r"a\", 1, "lone backslash"),
            ("a[b", 1, "no closing bracket"),
            ("[a--b]", 2, r"write \-"),
            ("a{x}", 1, "{n}, {n,} or {n,m}"),
            ("a{,2}", 1, "{n}, {n,} or {n,m}"),
            (r"\w(b", 2, "unclosed group"),
            (r"\w\wb)", 5, "unopened group"),
            (r"\d*a|*", 5, "repetition operator missing expression"),
            (r"\p{Nonsense}", 0, "property not found"),
            (r"\u12", 0, r"\uhhhh"),
            (r"[b-a]", 1, "invalid character class range"),
        ] {
            let error = read(pattern).err().unwrap_or_else(|| panic!("{pattern} was read"));
            let message = error.problem.to_string();
            assert!(message.contains(expected), "{pattern}: {message}");
            assert_eq!(error.at, at, "{pattern}: {message}");
        }
    }

    #[test]
    fn nesting_is_limited() {
        let nested = "(".repeat(100) + &")".repeat(100);
        assert!(read(&nested).is_err());
        assert!(read(&"[".repeat(4000)).is_err());
    }
}
