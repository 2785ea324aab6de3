//! What several selectors have in common: the prefix of a set, its stretches, and which selector
//! selects all that another does.

use super::matching::{Form, Member, Reach};
use super::pattern::Pattern;
use crate::domain::topic::path::{self, TopicPath};
use crate::domain::topic::path_range::PathRange;

/// The longest path that everything which the members select is at or below; none is the root.
pub(super) fn common_prefix(members: &[Member]) -> Option<TopicPath> {
    let mut prefixes = members.iter().map(Member::prefix);
    let mut common = prefixes.next()??;
    for prefix in prefixes {
        let prefix = prefix?;
        let shared = common.segments().zip(prefix.segments()).take_while(|(a, b)| a == b).count();
        common = common.ancestor(shared)?;
    }
    Some(common)
}

/// The stretches of the members, merged where they overlap.
pub(super) fn ranges(members: &[Member]) -> Vec<PathRange> {
    PathRange::merged(members.iter().map(Member::range).collect())
}

/// Each of `others` is certainly selected by one of `members` alone.
pub(super) fn cover(members: &[Member], others: &[Member]) -> bool {
    others.iter().all(|other| members.iter().any(|member| covers(member, other)))
}

/// `member` certainly selects all that `other` selects.
fn covers(member: &Member, other: &Member) -> bool {
    if member.text == other.text {
        return true;
    }
    if let Form::Path(path) = &other.form {
        return member.matches(path.as_str());
    }
    if let Form::Branch { root, reach: Reach::Itself } = &other.form {
        return member.matches(root);
    }
    match &member.form {
        Form::Path(_) | Form::Branch { reach: Reach::Itself, .. } => false,
        Form::Branch { root, reach } => match &other.form {
            Form::Branch { root: inner, reach: inner_reach } => {
                path::is_in_branch(inner, root)
                    && (*reach == Reach::Branch || inner != root || *inner_reach == Reach::Below)
            }
            // Its lead ends with a slash: it is strictly below when the root is in it.
            Form::Split { lead, .. } => {
                lead.strip_suffix('/').is_some_and(|lead| path::is_in_branch(lead, root))
            }
            Form::Full { pattern, .. } => {
                pattern.beginning().strip_prefix(&**root).is_some_and(|rest| rest.starts_with('/'))
            }
            Form::Path(_) => false,
        },
        Form::Split { lead, rest, reach } => covers_by_segments(lead, rest, *reach, &other.form),
        Form::Full { pattern: Pattern::Anything, reach } => *reach != Reach::Below,
        Form::Full { .. } => false,
    }
}

/// Patterns for the first segments cover other patterns for the first segments.
fn covers_by_segments(lead: &str, rest: &[Pattern], reach: Reach, other: &Form) -> bool {
    let literal = |text: &str| Pattern::Literal(text.into());
    let own: Vec<Pattern> =
        lead.split_terminator('/').map(literal).chain(rest.iter().cloned()).collect();
    let (theirs, their_reach): (Vec<Pattern>, Reach) = match other {
        Form::Branch { root, reach } => (root.split('/').map(literal).collect(), *reach),
        Form::Split { lead, rest, reach } => {
            (lead.split_terminator('/').map(literal).chain(rest.iter().cloned()).collect(), *reach)
        }
        Form::Full { .. } => {
            // Any path at all has at least one segment.
            return reach == Reach::Branch && matches!(own.as_slice(), [Pattern::Anything]);
        }
        Form::Path(_) => return false,
    };
    // How many segments a path selected by either has at least; only `Itself` limits it above.
    let least = |count: usize, reach: Reach| count + usize::from(reach == Reach::Below);
    let deep_enough = match reach {
        Reach::Itself => own.len() == theirs.len() && their_reach == Reach::Itself,
        Reach::Below | Reach::Branch => {
            theirs.len() >= own.len() && least(theirs.len(), their_reach) >= least(own.len(), reach)
        }
    };
    deep_enough && own.iter().zip(&theirs).all(|(own, theirs)| covers_segment(own, theirs))
}

fn covers_segment(own: &Pattern, theirs: &Pattern) -> bool {
    match (own, theirs) {
        (Pattern::Anything, _) | (_, Pattern::Nothing) => true,
        (own, Pattern::Literal(text)) => own.matches(text),
        (Pattern::Gaps { head, middle, tail }, Pattern::Gaps { head: h, middle: m, tail: t }) => {
            head == h && middle == m && tail == t
        }
        (Pattern::Expression { regex, .. }, Pattern::Expression { regex: other, .. }) => {
            regex.as_str() == other.as_str()
        }
        _ => false,
    }
}
