//! Topic selectors: which topics somebody means.
//!
//! | text | selects |
//! |---|---|
//! | `>a/b`, `a/b` | the topic at that path |
//! | `?a/.*/c` | topics whose segments each match their expression |
//! | `*a.*c` | topics whose whole path matches |
//! | `#>a/b////?c/.*//` | what any of the members selects |
//!
//! `?` and `*` selectors that end in `/` select what is below the matching paths, in `//` both.
//! Expressions are in Java's notation, with the same meaning as far as a matcher without
//! backtracking can give it; matching takes time in proportion to the path:
//!
//! | notation | meaning here |
//! |---|---|
//! | `\d \w \s \h \v` and their capitals, `\p{Alpha}` and the other POSIX names | Java's sets (ASCII where Java's are) |
//! | `\Q…\E`, `\e`, `\cX`, `\0n`, `\xhh`, `\uhhhh`, `\` before any punctuation | that text or character |
//! | `[a[bc]]`, `[a-z&&[^x]]` | union and intersection of sets |
//! | `.` | any character, line breaks too |
//! | `(?i)`, `(?s)`, `(?m)` and their negations | as in Java, `i` for all of Unicode |
//! | `(?=` `(?!` `(?<=` `(?<!` `(?>`, `a*+`, `\1`, `\k<n>`, `\G`, `\X`, `\Z`, `\N{…}`, `\p{In…}`, flags `d u x U` | refused by name |
//!
//! Which characters belong to a Unicode class is a matter of the `regex` crate's tables: a change of
//! its version is a change of the cluster's feature level.

mod dialect;
mod error;
mod matching;
mod parse;
mod pattern;
mod selections;
mod set;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

pub use self::error::{SelectorError, SelectorProblem};
use self::matching::{Form, Member};
use self::parse::SEPARATOR;
pub use self::selections::{Selection, Selections, SelectionsError};
use super::limits;
use super::topic::path::TopicPath;
use super::topic::path_range::PathRange;

/// The longest text of an expression that is quick whatever it says.
const QUICK_BYTES_MAX: usize = 256;

/// A parsed selector. Cheap to clone; equal and ordered by its canonical text.
#[derive(Clone)]
pub struct Selector(Arc<Inner>);

struct Inner {
    text: Box<str>,
    /// One, or those of a set without doubles.
    members: Box<[Member]>,
    prefix: Option<TopicPath>,
    compiled_bytes: usize,
}

/// What kind a selector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SelectorKind {
    /// One path.
    Path,
    /// An expression for each segment.
    Split,
    /// An expression for the whole path.
    Full,
    /// Several selectors.
    Set,
}

impl Selector {
    /// Parses a selector in any of its forms.
    ///
    /// # Errors
    /// [`SelectorError`] names the text, the place and the way out.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let (members, compiled_bytes) = parse::parse(text)?;
        Ok(Self::of(members, compiled_bytes))
    }

    /// To compile a selector of this text and to hold it against a path takes microseconds: it is short,
    /// and neither counts repetitions nor names classes of characters.
    #[must_use]
    pub fn is_quick(text: &str) -> bool {
        text.starts_with('>') || text.len() <= QUICK_BYTES_MAX && !text.contains(['{', '\\', '('])
    }

    fn of(members: Vec<Member>, compiled_bytes: usize) -> Self {
        let text = match members.as_slice() {
            [member] => member.text.clone(),
            members => {
                let texts: Vec<&str> = members.iter().map(|member| &*member.text).collect();
                format!("#{}", texts.join(SEPARATOR)).into()
            }
        };
        let prefix = set::common_prefix(&members);
        Self(Arc::new(Inner { text, members: members.into(), prefix, compiled_bytes }))
    }

    /// The whole tree: `?.*//`.
    #[must_use]
    pub fn everything() -> Self {
        Self::parse("?.*//").expect("the selector of the whole tree is legal")
    }

    /// One topic: `>path`.
    #[must_use]
    pub fn path(path: &TopicPath) -> Self {
        let member = Member { text: format!(">{path}").into(), form: Form::Path(path.clone()) };
        Self::of(vec![member], 0)
    }

    /// A topic and all below it.
    #[must_use]
    pub fn branch(path: &TopicPath) -> Self {
        let quoted: Vec<String> = path.segments().map(regex_syntax::escape).collect();
        let text = format!("?{}//", quoted.join("/"));
        let form = Form::Branch { root: path.as_str().into(), reach: matching::Reach::Branch };
        Self::of(vec![Member { text: text.into(), form }], 0)
    }

    /// What any of these selects: a set, or the one alone.
    ///
    /// # Errors
    /// [`SelectorError`] when there are none or too many, or their text is too long.
    pub fn any_of<'a>(
        selectors: impl IntoIterator<Item = &'a Self>,
    ) -> Result<Self, SelectorError> {
        let texts: Vec<&str> = selectors.into_iter().map(Self::as_str).collect();
        Self::parse(&format!("#{}", texts.join(SEPARATOR)))
    }

    /// The canonical text; parsing it gives an equal selector.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> SelectorKind {
        match &*self.0.members {
            [member] if member.text.starts_with('>') => SelectorKind::Path,
            [member] if member.text.starts_with('?') => SelectorKind::Split,
            [_] => SelectorKind::Full,
            _ => SelectorKind::Set,
        }
    }

    /// It selects this topic.
    #[must_use]
    pub fn matches(&self, path: &TopicPath) -> bool {
        self.matches_str(path.as_str())
    }

    /// It selects the topic at `path`, the text of a legal path.
    #[must_use]
    pub fn matches_str(&self, path: &str) -> bool {
        self.0.members.iter().any(|member| member.matches(path))
    }

    /// The longest literal path that everything it selects is at or below; none is the root.
    #[must_use]
    pub fn prefix(&self) -> Option<&TopicPath> {
        self.0.prefix.as_ref()
    }

    /// The smallest stretch of the path order that holds all which begins like what it can select.
    /// Empty when it certainly selects nothing.
    #[must_use]
    pub fn range(&self) -> PathRange {
        self.ranges().into_iter().fold(PathRange::empty(), |hull, range| hull.hull(&range))
    }

    /// Disjoint stretches in path order that hold all it can select, at most one per member.
    #[must_use]
    pub fn ranges(&self) -> Vec<PathRange> {
        set::ranges(&self.0.members)
    }

    /// It certainly selects every topic that `other` selects. False means: not proven.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        set::cover(&self.0.members, &other.0.members)
    }

    /// What its compiled expressions take, as estimated, in bytes; at most
    /// [`limits::SELECTOR_COMPILED_BYTES_MAX`].
    #[must_use]
    pub fn compiled_bytes(&self) -> usize {
        self.0.compiled_bytes
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for Selector {}

impl PartialOrd for Selector {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Selector {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.text.cmp(&other.0.text)
    }
}

impl Hash for Selector {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0.text)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Selector({})", self.0.text)
    }
}

/// A fuzz target: lines of bytes, the first a selector, the others paths.
#[doc(hidden)]
pub fn fuzz_selector(bytes: &[u8]) {
    use std::ops::RangeBounds;

    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.split('\n');
    let parsed = Selector::parse(lines.next().unwrap_or(""));
    let selector = match parsed {
        Ok(selector) => selector,
        Err(error) => {
            assert!(error.at <= text.len(), "the place is in the text");
            return;
        }
    };
    assert!(selector.compiled_bytes() <= limits::SELECTOR_COMPILED_BYTES_MAX);
    let again = Selector::parse(selector.as_str()).expect("the canonical text is a selector");
    assert_eq!(selector.as_str(), again.as_str(), "the canonical text is its own");
    let (range, ranges) = (selector.range(), selector.ranges());
    for path in lines.filter_map(|line| TopicPath::parse(line).ok()) {
        if selector.matches(&path) {
            assert!(range.contains(&path), "{range:?} lacks {path}");
            assert!(ranges.iter().any(|range| range.contains(&path)), "{ranges:?} lacks {path}");
            assert!(selector.prefix().is_none_or(|prefix| path.is_in_branch(prefix)));
            let text = path.as_str();
            assert!(Selector::everything().matches_str(text));
            assert!(selector.covers(&Selector::path(&path)));
        }
    }
}
