//! Text to selector.
//!
//! ```text
//! selector   = "#" members | member
//! members    = member ( "////" member )*            nested sets are flattened
//! member     = [ ">" ] path | "?" split | "*" full
//! path       = [ "/" ] segment ( "/" segment )* [ "/" ]
//! split      = regex ( "/" regex )* reach           one expression for each segment
//! full       = regex reach                          one expression for the whole path
//! reach      = "" | "/" | "//"                      itself, what is below, both
//! ```
//!
//! Without `>` a path begins with none of `# ? > * $ % & <`. In a run of more than four slashes the
//! last four stand between two members.

use super::dialect::DialectError;
use super::error::{SelectorError, SelectorProblem};
use super::matching::{Form, Member, Reach};
use super::pattern::{Pattern, Unit};
use crate::domain::limits;
use crate::domain::topic::path::{PathError, TopicPath};

/// Characters that no abbreviated path begins with, beside those that name a kind.
const RESERVED: [char; 4] = ['$', '%', '&', '<'];
/// What stands between two members of a set.
pub(super) const SEPARATOR: &str = "////";

/// What is wrong, and at which byte of the selector.
struct Trouble {
    at: usize,
    problem: SelectorProblem,
}

/// Parses a selector into its members: one, or those of a set without doubles. Also gives the
/// estimated size of what was compiled, in bytes.
pub(super) fn parse(text: &str) -> Result<(Vec<Member>, usize), SelectorError> {
    members(text).map_err(|Trouble { at, problem }| SelectorError {
        text: text.chars().take(256).collect(),
        at,
        problem,
    })
}

fn members(text: &str) -> Result<(Vec<Member>, usize), Trouble> {
    if text.len() > limits::SELECTOR_BYTES_MAX {
        let problem = SelectorProblem::TooLong { bytes: text.len() };
        return Err(Trouble { at: limits::SELECTOR_BYTES_MAX, problem });
    }
    let mut compiled_bytes = 0_usize;
    let Some(inside) = text.strip_prefix('#') else {
        return Ok((vec![member(text, 0, &mut compiled_bytes)?], compiled_bytes));
    };
    if inside.is_empty() {
        return Err(Trouble { at: 1, problem: SelectorProblem::Empty });
    }
    let mut members: Vec<Member> = Vec::new();
    for (at, part) in split_members(inside) {
        // A nested set means the same as its members.
        let nested = part.trim_start_matches('#');
        let at = 1 + at + (part.len() - nested.len());
        if nested.is_empty() {
            return Err(Trouble { at, problem: SelectorProblem::EmptyMember });
        }
        let member = member(nested, at, &mut compiled_bytes)?;
        if members.iter().any(|other| other.text == member.text) {
            continue;
        }
        if members.len() == limits::SELECTOR_SET_MAX {
            return Err(Trouble { at, problem: SelectorProblem::TooManyMembers });
        }
        members.push(member);
    }
    Ok((members, compiled_bytes))
}

/// The members' texts with their offsets. Of a run of slashes only the last four separate, so a
/// member keeps its own.
fn split_members(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut run) = (0, 0);
    for (at, byte) in text.bytes().enumerate() {
        if byte == b'/' {
            run += 1;
            continue;
        }
        if run >= SEPARATOR.len() {
            parts.push((start, text.get(start..at - SEPARATOR.len()).unwrap_or("")));
            start = at;
        }
        run = 0;
    }
    if run >= SEPARATOR.len() {
        let end = text.len() - SEPARATOR.len();
        parts.push((start, text.get(start..end).unwrap_or("")));
        start = text.len();
    }
    parts.push((start, text.get(start..).unwrap_or("")));
    parts
}

/// One selector that is no set; it starts at byte `at` of the whole.
fn member(text: &str, at: usize, compiled_bytes: &mut usize) -> Result<Member, Trouble> {
    let Some(first) = text.chars().next() else {
        return Err(Trouble { at, problem: SelectorProblem::Empty });
    };
    let form = match first {
        '>' => path(text.get(1..).unwrap_or(""), at + 1)?,
        '?' | '*' => {
            let (expression, reach) = reach(text.get(1..).unwrap_or(""), at + 1)?;
            if first == '?' {
                split(expression, at + 1, reach, compiled_bytes)?
            } else {
                full(expression, at + 1, reach, compiled_bytes)?
            }
        }
        character if RESERVED.contains(&character) => {
            return Err(Trouble { at, problem: SelectorProblem::Reserved { character } });
        }
        _ => path(text, at)?,
    };
    let text = match &form {
        Form::Path(path) => format!(">{path}"),
        _ => text.to_owned(),
    };
    Ok(Member { text: text.into(), form })
}

fn path(text: &str, at: usize) -> Result<Form, Trouble> {
    let trouble = |at: usize, problem: SelectorProblem| Err(Trouble { at, problem });
    let inner = text.strip_prefix('/').unwrap_or(text);
    let start = at + text.len() - inner.len();
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    if inner.ends_with('/') {
        let end = inner.trim_end_matches('/').len();
        return trouble(start + end, SelectorProblem::QualifiedPath);
    }
    match TopicPath::parse(inner) {
        Ok(path) => Ok(Form::Path(path)),
        Err(PathError::Empty) => trouble(at, SelectorProblem::Empty),
        Err(PathError::TooLong { .. }) => trouble(at, SelectorProblem::PathTooLong),
        Err(PathError::EmptySegment { at, .. }) => {
            trouble(start + at, SelectorProblem::EmptySegment)
        }
    }
}

/// Cuts off the slashes at the end that say what is selected.
fn reach(text: &str, at: usize) -> Result<(&str, Reach), Trouble> {
    let expression = text.trim_end_matches('/');
    let reach = match text.len() - expression.len() {
        0 => Reach::Itself,
        1 => Reach::Below,
        2 => Reach::Branch,
        _ => {
            let at = at + expression.len();
            return Err(Trouble { at, problem: SelectorProblem::TooManySlashes });
        }
    };
    if expression.is_empty() {
        return Err(Trouble { at, problem: SelectorProblem::Empty });
    }
    if let Some(found) = expression.find(SEPARATOR) {
        return Err(Trouble { at: at + found, problem: SelectorProblem::Separator });
    }
    Ok((expression, reach))
}

/// Leading segments that are plain text are put together; patterns remain for the others.
fn split(text: &str, at: usize, reach: Reach, compiled_bytes: &mut usize) -> Result<Form, Trouble> {
    let mut lead = String::new();
    let mut rest: Vec<Pattern> = Vec::new();
    let mut start = at;
    for segment in text.split('/') {
        if segment.is_empty() {
            return Err(Trouble { at: start, problem: SelectorProblem::EmptySegment });
        }
        match compile(segment, start, Unit::Segment, compiled_bytes)? {
            Pattern::Literal(literal) if rest.is_empty() => {
                if !lead.is_empty() {
                    lead.push('/');
                }
                lead.push_str(&literal);
            }
            pattern => rest.push(pattern),
        }
        start += segment.len() + 1;
    }
    if rest.is_empty() {
        return Ok(Form::Branch { root: lead.into(), reach });
    }
    if !lead.is_empty() {
        lead.push('/');
    }
    Ok(Form::Split { lead: lead.into(), rest: rest.into(), reach })
}

fn full(text: &str, at: usize, reach: Reach, compiled_bytes: &mut usize) -> Result<Form, Trouble> {
    Ok(match compile(text, at, Unit::Path, compiled_bytes)? {
        Pattern::Literal(root) => Form::Branch { root, reach },
        pattern => Form::Full { pattern, reach },
    })
}

fn compile(
    text: &str,
    at: usize,
    unit: Unit,
    compiled_bytes: &mut usize,
) -> Result<Pattern, Trouble> {
    let (pattern, bytes) = Pattern::compile(text, unit)
        .map_err(|DialectError { at: inside, problem }| Trouble { at: at + inside, problem })?;
    *compiled_bytes += bytes;
    if *compiled_bytes > limits::SELECTOR_COMPILED_BYTES_MAX {
        return Err(Trouble { at, problem: SelectorProblem::TooComplex });
    }
    Ok(pattern)
}
