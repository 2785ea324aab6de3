//! Remove a topic notification listener. One that is not there is removed already.

use super::{Context, Decision, Effects};
use crate::domain::effect::Effect;
use crate::domain::outcome::Outcome;
use crate::domain::session::table::SessionTable;

pub(in crate::domain) fn apply(
    sessions: &mut SessionTable,
    context: &Context,
    effects: &mut Effects<'_>,
    listener: u32,
) -> Decision {
    let session = context.origin.session;
    if sessions.unlisten(session, listener) {
        effects.push(Effect::SelectionsChanged { session });
    }
    Ok(Outcome::Done)
}
