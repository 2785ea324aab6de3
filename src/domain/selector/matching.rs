//! Whether one selector that is no set selects a path, and where such paths can stand.

use super::pattern::Pattern;
use crate::domain::topic::path::{self, TopicPath};
use crate::domain::topic::path_range::PathRange;

/// What a selector selects of the paths that its pattern matches. The pattern is held against
/// paths: no topic needs to stand at a path for those below it to be selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// No suffix: the matching paths.
    Itself,
    /// `/`: what is below them.
    Below,
    /// `//`: both.
    Branch,
}

/// One selector that is no set.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// Its canonical text.
    pub(super) text: Box<str>,
    pub(super) form: Form,
}

/// What it says.
#[derive(Debug, Clone)]
pub(super) enum Form {
    /// One path.
    Path(TopicPath),
    /// An expression that is plain text: it may be no legal path, and then selects nothing.
    Branch { root: Box<str>, reach: Reach },
    /// `lead` is empty or ends with a slash; a pattern for each segment behind it, at least one.
    Split { lead: Box<str>, rest: Box<[Pattern]>, reach: Reach },
    /// A pattern for whole paths.
    Full { pattern: Pattern, reach: Reach },
}

impl Member {
    /// It selects the topic at `path`.
    pub(super) fn matches(&self, path: &str) -> bool {
        match &self.form {
            Form::Path(selected) => selected.as_str() == path,
            Form::Branch { root, reach } => match path.strip_prefix(&**root) {
                Some("") => *reach != Reach::Below,
                Some(rest) => *reach != Reach::Itself && rest.starts_with('/'),
                None => false,
            },
            Form::Split { lead, rest, reach } => {
                path.strip_prefix(&**lead).is_some_and(|path| matches_segments(path, rest, *reach))
            }
            Form::Full { pattern, reach } => {
                (*reach != Reach::Below && pattern.matches(path))
                    || (*reach != Reach::Itself && matches_ancestor(path, pattern))
            }
        }
    }

    /// The literal path that everything selected is at or below; none is the root.
    pub(super) fn prefix(&self) -> Option<TopicPath> {
        let text = match &self.form {
            Form::Path(path) => return Some(path.clone()),
            Form::Branch { root, .. } => Some(&**root),
            Form::Split { lead, .. } => lead.strip_suffix('/'),
            Form::Full { pattern, .. } => {
                // The last segment of the beginning may go on.
                pattern.beginning().rsplit_once('/').map(|(whole, _)| whole)
            }
        };
        text.and_then(|text| TopicPath::parse(text).ok())
    }

    /// The smallest stretch of the path order that holds everything which begins like what it
    /// selects.
    pub(super) fn range(&self) -> PathRange {
        match &self.form {
            Form::Path(path) => PathRange::exactly(path),
            Form::Branch { root, reach } => match (TopicPath::parse(root), reach) {
                (Ok(root), Reach::Itself) => PathRange::exactly(&root),
                (Ok(root), Reach::Below) => PathRange::below(&root),
                (Ok(root), Reach::Branch) => PathRange::branch(&root),
                (Err(_), _) => PathRange::empty(),
            },
            Form::Split { rest, .. } if rest.iter().any(|p| matches!(p, Pattern::Nothing)) => {
                PathRange::empty()
            }
            Form::Split { lead, rest, .. } => {
                let beginning = rest.first().map_or("", Pattern::beginning);
                PathRange::beginning_with(&format!("{lead}{beginning}"))
            }
            Form::Full { pattern: Pattern::Nothing, .. } => PathRange::empty(),
            Form::Full { pattern, .. } => PathRange::beginning_with(pattern.beginning()),
        }
    }
}

fn matches_segments(path: &str, patterns: &[Pattern], reach: Reach) -> bool {
    let mut segments = path.split('/');
    for pattern in patterns {
        if !segments.next().is_some_and(|segment| pattern.matches(segment)) {
            return false;
        }
    }
    match reach {
        Reach::Itself => segments.next().is_none(),
        Reach::Below => segments.next().is_some(),
        Reach::Branch => true,
    }
}

/// A path strictly above `path` matches.
fn matches_ancestor(path: &str, pattern: &Pattern) -> bool {
    if matches!(pattern, Pattern::Anything) {
        return path::depth(path) > 1;
    }
    path.match_indices('/')
        .any(|(at, _)| path.get(..at).is_some_and(|above| pattern.matches(above)))
}
