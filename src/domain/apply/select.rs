//! Add a select or deselect entry to a scope of the caller's session.

use super::{Context, Decision, Effects};
use crate::domain::effect::Effect;
use crate::domain::limits;
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
    if scope.starts_with('$') || scope.len() > limits::SCOPE_BYTES_MAX {
        return Err(Rejection::InvalidScope);
    }
    let selector = Selector::parse(selector).map_err(|_| Rejection::InvalidSelector)?;
    let session = context.origin.session;
    sessions.select(session, scope, select, selector).map_err(rejection)?;
    // Also when the entry changes nothing: a select resubscribes what back-pressure had ended.
    effects.push(Effect::SelectionsChanged { session });
    Ok(Outcome::Done)
}

/// Why an entry was not taken.
pub(super) fn rejection(error: SelectionsError) -> Rejection {
    match error {
        SelectionsError::TooMany => Rejection::TooMany,
        SelectionsError::IllegalScope => Rejection::InvalidScope,
        SelectionsError::Selector(_) => Rejection::InvalidSelector,
    }
}
