//! One pattern: a text, texts with gaps between, or a regular expression. What a regular
//! expression says plainly is found out once, when it is parsed, so that matching seldom runs one.

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::literal::Extractor;
use regex_syntax::hir::{Class, Hir, HirKind};
use regex_syntax::utf8::Utf8Sequences;

use super::dialect::{self, DialectError};
use super::error::SelectorProblem;
use crate::domain::limits;

/// What the lazily built automaton of one expression may take, beside the compiled form itself.
const AUTOMATON_BYTES_MAX: usize = 64 * 1024;

/// What a pattern is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// One segment of a path: it is never empty and has no slash.
    Segment,
    /// A whole path.
    Path,
}

/// One compiled pattern. It always matches the whole text.
#[derive(Debug, Clone)]
pub(super) enum Pattern {
    /// No text at all.
    Nothing,
    /// Any text.
    Anything,
    /// Exactly this text.
    Literal(Box<str>),
    /// `head`, anything, each of `middle` with anything behind it, `tail`.
    Gaps { head: Box<str>, middle: Box<[Box<str>]>, tail: Box<str> },
    /// Everything else. All that it matches begins with `beginning`.
    Expression { regex: Regex, beginning: Box<str> },
}

impl Pattern {
    /// Compiles an expression in the selectors' dialect. Also gives the estimated size of what had
    /// to be compiled, in bytes, which is at most [`limits::REGEX_BYTES_MAX`].
    pub(super) fn compile(text: &str, unit: Unit) -> Result<(Self, usize), DialectError> {
        // Plain text is by far the most frequent: no need to parse it.
        if !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "_- ,:;=@%!".contains(c))
        {
            return Ok((Self::Literal(text.into()), 0));
        }
        let expression = dialect::read(text)?;
        if let Some(plain) = plain_form(&expression.form, unit) {
            return Ok((plain, 0));
        }
        let too_complex = DialectError { at: 0, problem: SelectorProblem::TooComplex };
        let bytes = compiled_bytes(&expression.form);
        if bytes > limits::REGEX_BYTES_MAX {
            return Err(too_complex);
        }
        let compiled = RegexBuilder::new(&format!(r"\A(?:{})\z", expression.text))
            .dot_matches_new_line(true)
            .size_limit(limits::REGEX_BYTES_MAX)
            .dfa_size_limit(AUTOMATON_BYTES_MAX)
            .build();
        let Ok(regex) = compiled else { return Err(too_complex) };
        let mut beginning = beginning(&expression.form);
        if unit == Unit::Segment
            && let Some(slash) = beginning.find('/')
        {
            beginning.truncate(slash);
        }
        Ok((Self::Expression { regex, beginning: beginning.into() }, bytes))
    }

    /// It matches the whole of `text`.
    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Anything => true,
            Self::Literal(literal) => **literal == *text,
            Self::Gaps { head, middle, tail } => {
                let Some(mut rest) = text.strip_prefix(&**head) else { return false };
                for piece in middle {
                    let Some(at) = rest.find(&**piece) else { return false };
                    rest = rest.get(at + piece.len()..).unwrap_or("");
                }
                rest.ends_with(&**tail)
            }
            Self::Expression { regex, beginning } => {
                text.starts_with(&**beginning) && regex.is_match(text)
            }
        }
    }

    /// What all that it matches begins with.
    pub(super) fn beginning(&self) -> &str {
        match self {
            Self::Nothing | Self::Anything => "",
            Self::Literal(text) => text,
            Self::Gaps { head, .. } => head,
            Self::Expression { beginning, .. } => beginning,
        }
    }
}

/// The pattern without a regular expression, where there is one.
fn plain_form(form: &Hir, unit: Unit) -> Option<Pattern> {
    if let HirKind::Repetition(repetition) = form.kind() {
        // There are no empty segments or paths: one or more is as good as any number.
        if repetition.min <= 1 && repetition.max.is_none() && is_any(&repetition.sub, unit) {
            return Some(Pattern::Anything);
        }
    }
    let mut pieces = vec![Vec::new()];
    collect_pieces(form, unit, &mut pieces).then_some(())?;
    let mut texts = Vec::with_capacity(pieces.len());
    for piece in pieces {
        texts.push(String::from_utf8(piece).ok()?.into_boxed_str());
    }
    if unit == Unit::Segment && texts.iter().any(|text| text.contains('/')) {
        return Some(Pattern::Nothing);
    }
    let tail = texts.pop()?;
    if texts.is_empty() {
        return Some(if tail.is_empty() { Pattern::Nothing } else { Pattern::Literal(tail) });
    }
    let head = texts.remove(0);
    texts.retain(|text| !text.is_empty());
    if head.is_empty() && texts.is_empty() && tail.is_empty() {
        return Some(Pattern::Anything);
    }
    Some(Pattern::Gaps { head, middle: texts.into(), tail })
}

/// Adds what `form` says to the last of `pieces`, a new piece for each `.*`. False: it says more.
fn collect_pieces(form: &Hir, unit: Unit, pieces: &mut Vec<Vec<u8>>) -> bool {
    match form.kind() {
        HirKind::Empty => true,
        HirKind::Literal(literal) => {
            if let Some(piece) = pieces.last_mut() {
                piece.extend_from_slice(&literal.0);
            }
            true
        }
        HirKind::Capture(capture) => collect_pieces(&capture.sub, unit, pieces),
        HirKind::Concat(parts) => parts.iter().all(|part| collect_pieces(part, unit, pieces)),
        HirKind::Repetition(repetition)
            if repetition.min == 0 && repetition.max.is_none() && is_any(&repetition.sub, unit) =>
        {
            pieces.push(Vec::new());
            true
        }
        _ => false,
    }
}

/// One character, whichever can stand there.
fn is_any(form: &Hir, unit: Unit) -> bool {
    let form = match form.kind() {
        HirKind::Capture(capture) => &capture.sub,
        _ => form,
    };
    let HirKind::Class(Class::Unicode(class)) = form.kind() else { return false };
    let ranges: Vec<_> = class.ranges().iter().map(|range| (range.start(), range.end())).collect();
    match ranges.as_slice() {
        [('\0', char::MAX)] => true,
        [('\0', '.'), ('0', char::MAX)] => unit == Unit::Segment,
        _ => false,
    }
}

/// The longest text that all matches are known to begin with.
fn beginning(form: &Hir) -> String {
    let matches = Extractor::new().extract(form);
    let bytes = matches.longest_common_prefix().unwrap_or(&[]);
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        // It ends within a character.
        Err(error) => {
            String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or(&[])).into_owned()
        }
    }
}

/// An upper estimate of the compiled form, found without compiling it.
fn compiled_bytes(form: &Hir) -> usize {
    const STATE_BYTES: usize = 48;
    let sum = |parts: &[Hir]| {
        parts
            .iter()
            .fold(STATE_BYTES * parts.len(), |sum, part| sum.saturating_add(compiled_bytes(part)))
    };
    match form.kind() {
        HirKind::Empty | HirKind::Look(_) => STATE_BYTES,
        HirKind::Literal(literal) => STATE_BYTES * literal.0.len(),
        // One state for each byte of each sequence of byte ranges that spells the characters.
        HirKind::Class(Class::Unicode(class)) => class
            .ranges()
            .iter()
            .flat_map(|range| Utf8Sequences::new(range.start(), range.end()))
            .fold(STATE_BYTES, |sum, sequence| sum + STATE_BYTES * sequence.len()),
        HirKind::Class(Class::Bytes(class)) => STATE_BYTES * class.ranges().len().max(1),
        HirKind::Repetition(repetition) => {
            let copies = repetition.max.unwrap_or(repetition.min).max(repetition.min).max(1);
            compiled_bytes(&repetition.sub)
                .saturating_add(2 * STATE_BYTES)
                .saturating_mul(copies as usize)
        }
        HirKind::Capture(capture) => compiled_bytes(&capture.sub).saturating_add(4 * STATE_BYTES),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => sum(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(text: &str, unit: Unit) -> Pattern {
        Pattern::compile(text, unit).unwrap_or_else(|error| panic!("{text}: {error:?}")).0
    }

    #[test]
    fn what_is_plain_runs_no_regular_expression() {
        for (text, unit, expected) in [
            ("abc", Unit::Segment, "Literal(abc)"),
            (r"a\.b", Unit::Segment, "Literal(a.b)"),
            (r"\Qa.b\E", Unit::Segment, "Literal(a.b)"),
            ("(ab)c", Unit::Segment, "Literal(abc)"),
            (".*", Unit::Segment, "Anything"),
            (".+", Unit::Segment, "Anything"),
            ("(.*)", Unit::Segment, "Anything"),
            (".*?", Unit::Path, "Anything"),
            ("[^/]+", Unit::Segment, "Anything"),
            ("[^/]+", Unit::Path, "Expression()"),
            ("a.*", Unit::Segment, "Gaps(a||)"),
            (".*b", Unit::Segment, "Gaps(||b)"),
            ("a.*b.*.*c.*d", Unit::Path, "Gaps(a|b,c|d)"),
            ("a/.*", Unit::Path, "Gaps(a/||)"),
            ("a/b", Unit::Path, "Literal(a/b)"),
            (r"a\x2fb", Unit::Segment, "Nothing"),
            ("()", Unit::Segment, "Nothing"),
            ("abc[0-9]", Unit::Segment, "Expression(abc)"),
            ("(ab|ac)d", Unit::Segment, "Expression(a)"),
            ("(?i)ab", Unit::Segment, "Expression()"),
            ("é[0-9]", Unit::Segment, "Expression(é)"),
            ("[éè]", Unit::Segment, "Expression()"),
            ("a.+", Unit::Segment, "Expression(a)"),
        ] {
            let shown = match compiled(text, unit) {
                Pattern::Nothing => "Nothing".to_owned(),
                Pattern::Anything => "Anything".to_owned(),
                Pattern::Literal(text) => format!("Literal({text})"),
                Pattern::Gaps { head, middle, tail } => {
                    format!("Gaps({head}|{}|{tail})", middle.join(","))
                }
                Pattern::Expression { beginning, .. } => format!("Expression({beginning})"),
            };
            assert_eq!(shown, expected, "{text}");
        }
    }

    #[test]
    fn gaps_match_what_their_expression_would() {
        for (text, matching, others) in [
            ("a.*b", &["ab", "aab", "axb"][..], &["a", "b", "abc", ""][..]),
            ("ab.*ba", &["abba", "abxba"], &["aba", "ab"]),
            (".*b.*b.*", &["bb", "abab"], &["b", "a"]),
            ("a.*é.*c", &["aéc", "aéécc"], &["ac", "aec"]),
        ] {
            let pattern = compiled(text, Unit::Segment);
            assert!(matches!(pattern, Pattern::Gaps { .. }), "{text}");
            for found in matching {
                assert!(pattern.matches(found), "{text} {found}");
            }
            for other in others {
                assert!(!pattern.matches(other), "{text} {other}");
            }
        }
    }

    #[test]
    fn bombs_are_refused_before_they_are_compiled() {
        for text in ["((a{100}){100}){100}", ".{9999}", r"(\p{L}{20}){20}", "(x+x+){900}y{900,999}"]
        {
            let error = Pattern::compile(text, Unit::Segment).unwrap_err();
            assert_eq!(error.problem, SelectorProblem::TooComplex, "{text}");
        }
    }

    #[test]
    fn the_estimate_is_not_below_the_compiled_form() {
        for text in [
            "a|b|cd",
            "(a|b)*c{3,7}",
            r"\p{L}+",
            r"\p{Greek}[^a-z]",
            ".{20}",
            "[^x]{30}",
            "(?i)straße",
            r"[\w.]+@[\w.]+",
            "((a?){3}b){5}",
            "(a|é|😀){9}",
            "a{0,50}",
            r"\P{L}",
            "(?i)[a-zé]{12}",
        ] {
            let form = dialect::read(text).unwrap();
            let estimate = compiled_bytes(&form.form);
            let built = RegexBuilder::new(&format!(r"\A(?s:{})\z", form.text))
                // What the two anchors and the group around the whole take.
                .size_limit(estimate + 1024)
                .build();
            assert!(built.is_ok(), "{text}: {estimate} bytes are too few");
        }
    }
}
