//! Why a text is no selector.

use std::fmt;

use crate::domain::limits;

/// Why a text is no selector: the text, the place in it, what is wrong there and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectorError {
    /// What was given, at most its first 256 characters.
    pub text: String,
    /// The byte of the text at which the trouble starts.
    pub at: usize,
    /// What is wrong there.
    pub problem: SelectorProblem,
}

/// What can be wrong with a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorProblem {
    /// Nothing at all, or nothing behind the character that says which kind it is.
    #[error("the expression is empty; write >a/b for one topic or ?.*// for all")]
    Empty,
    /// Over [`limits::SELECTOR_BYTES_MAX`].
    #[error("{bytes} bytes are over the limit of {}", limits::SELECTOR_BYTES_MAX)]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// An abbreviated path begins with a character that is kept for other kinds of selectors.
    #[error(
        "no kind of selector begins with {character}; for a path that does, write >{character}…"
    )]
    Reserved {
        /// Which.
        character: char,
    },
    /// Two slashes with nothing between.
    #[error("a segment is empty; leave one slash out")]
    EmptySegment,
    /// Over [`limits::PATH_BYTES_MAX`].
    #[error("no topic path is longer than {} bytes", limits::PATH_BYTES_MAX)]
    PathTooLong,
    /// A path that ends in `//`.
    #[error(
        "a path selects one topic; for everything below it write ?path/, with the topic ?path//"
    )]
    QualifiedPath,
    /// More than `//` at the end.
    #[error("at most two slashes can end a selector: / for what is below, // for both")]
    TooManySlashes,
    /// Something like `////` with nothing before or behind.
    #[error("a member of the set is empty; //// stands between two selectors")]
    EmptyMember,
    /// `////` in a regular expression: in a set it would end the member.
    #[error("no path has four slashes in a row; leave them out")]
    Separator,
    /// Over [`limits::SELECTOR_SET_MAX`].
    #[error("a set has at most {} members", limits::SELECTOR_SET_MAX)]
    TooManyMembers,
    /// The regular expression needs what this server's matcher does not have.
    #[error("regular expressions here have no {feature}; say it without")]
    Unsupported {
        /// Which feature.
        feature: &'static str,
    },
    /// The regular expression cannot be read.
    #[error("the regular expression cannot be read: {reason}")]
    Expression {
        /// In the words of its parser.
        reason: String,
    },
    /// The compiled form would be over [`limits::REGEX_BYTES_MAX`] or, with the others of the
    /// selector, over [`limits::SELECTOR_COMPILED_BYTES_MAX`].
    #[error("the regular expression is too large when compiled; use fewer or smaller repetitions")]
    TooComplex,
}

impl fmt::Display for SelectorError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "selector {:?} at byte {}: {}", self.text, self.at, self.problem)
    }
}

impl std::error::Error for SelectorError {}
