//! Add an entry to one of the caller's topic notification listeners; the first registers it.

use super::select::rejection;
use super::{Context, Decision, Effects};
use crate::domain::effect::Effect;
use crate::domain::outcome::{Outcome, Rejection};
use crate::domain::selector::Selector;
use crate::domain::session::table::SessionTable;

pub(in crate::domain) fn apply(
    sessions: &mut SessionTable,
    context: &Context,
    effects: &mut Effects<'_>,
    listener: u32,
    selector: &str,
    select: bool,
) -> Decision {
    let selector = Selector::parse(selector).map_err(|_| Rejection::InvalidSelector)?;
    let session = context.origin.session;
    sessions.listen(session, listener, select, selector).map_err(rejection)?;
    effects.push(Effect::SelectionsChanged { session });
    Ok(Outcome::Done)
}
