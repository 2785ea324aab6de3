//! Add a select or deselect entry to a scope of the caller's session.

use std::sync::Arc;

use super::{Context, Decision, Effects};
use crate::domain::effect::Effect;
use crate::domain::outcome::{Outcome, Rejection};
use crate::domain::selector::{SelectionsError, Selector};
use crate::domain::session::table::SessionTable;

pub(in crate::domain) fn apply(
    sessions: &mut SessionTable,
    context: &Context,
    effects: &mut Effects<'_>,
    scope: &str,
    selector: &str,
    select: bool,
) -> Decision {
    let selector = Selector::parse(selector).map_err(|_| Rejection::InvalidSelector)?;
    let session = context.origin.session;
    let before = Arc::new(sessions.selected(session));
    sessions.select(session, scope, select, selector).map_err(rejection)?;
    // Also when the entry changes nothing: a select resubscribes what back-pressure had ended.
    effects.push(Effect::SelectionsChanged { session, before });
    Ok(Outcome::Done)
}

/// Why an entry was not taken.
pub(super) fn rejection(error: SelectionsError) -> Rejection {
    match error {
        SelectionsError::TooMany | SelectionsError::TooComplex => Rejection::TooMany,
        SelectionsError::IllegalScope { .. } => Rejection::InvalidScope,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::domain::apply::stage::{ONE, Stage, path};
    use crate::domain::command::Command;
    use crate::domain::effect::Effect;
    use crate::domain::limits;
    use crate::domain::outcome::{Outcome, Rejection};

    fn select(scope: &str, selector: &str, select: bool) -> Command {
        Command::Select { scope: scope.to_owned(), selector: selector.to_owned(), select }
    }

    #[test]
    fn entries_are_kept_in_order_per_scope() {
        let mut stage = Stage::new();
        let mut send = |command| {
            let before = Arc::new(stage.machine.session(ONE).unwrap().selected());
            let changed = vec![Effect::SelectionsChanged { session: ONE, before }];
            assert_eq!(stage.send(ONE, command), (Outcome::Done, changed));
        };
        send(select("", "?a//", true));
        send(select("", ">a/b", false));
        send(select("other", ">c", true));
        // Nothing new, but what back-pressure had ended is resubscribed.
        send(select("other", ">c", true));
        let selections = stage.machine.session(ONE).unwrap().selections();
        for (at, expected) in
            [("a", true), ("a/b", false), ("a/c", true), ("c", true), ("d", false)]
        {
            assert_eq!(selections.matches(&path(at)), expected, "{at}");
        }
    }

    #[test]
    fn refusals() {
        let mut stage = Stage::new();
        let long = "x".repeat(limits::SCOPE_BYTES_MAX + 1);
        for (scope, selector, reason) in [
            ("$mine", ">a", Rejection::InvalidScope),
            (long.as_str(), ">a", Rejection::InvalidScope),
            ("", "?(", Rejection::InvalidSelector),
        ] {
            let (outcome, _) = stage.send(ONE, select(scope, selector, true));
            assert_eq!(outcome, Outcome::Rejected(reason));
        }
        assert!(stage.machine.session(ONE).unwrap().selections().is_empty());
    }
}
