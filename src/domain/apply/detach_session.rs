//! A session's client is gone. A late word about an earlier epoch changes nothing.

use super::{Context, Decision, Effects};
use crate::domain::effect::{Effect, SessionChange};
use crate::domain::id::SessionId;
use crate::domain::outcome::{Outcome, Rejection};
use crate::domain::session::lifecycle::{Next, SessionStep};
use crate::domain::session::table::SessionTable;

pub(in crate::domain) fn apply(
    sessions: &mut SessionTable,
    context: &Context,
    effects: &mut Effects<'_>,
    session: SessionId,
    epoch: u32,
) -> Decision {
    let found = sessions.get(session).ok_or(Rejection::NoSuchSession)?;
    if found.epoch() != epoch {
        return Err(Rejection::StaleEpoch);
    }
    detach(sessions, context, effects, session);
    Ok(Outcome::Done)
}

/// Detaches one session; false when it was detached already.
pub(super) fn detach(
    sessions: &mut SessionTable,
    context: &Context,
    effects: &mut Effects<'_>,
    session: SessionId,
) -> bool {
    let step = SessionStep::Detach { at_ms: context.log_time_ms };
    let detached = sessions.step(session, step) != Next::Stay;
    if detached {
        effects.push(Effect::Session { session, change: SessionChange::Detached });
    }
    detached
}
