//! End a session: on its own word or the cluster's.

use super::{Context, Decision, Effects};
use crate::domain::effect::{CloseReason, Effect, SessionChange};
use crate::domain::id::SessionId;
use crate::domain::outcome::{Outcome, Rejection};
use crate::domain::session::lifecycle::{Next, SessionStep};
use crate::domain::session::table::SessionTable;

pub(in crate::domain) fn apply(
    sessions: &mut SessionTable,
    context: &Context,
    effects: &mut Effects<'_>,
    session: SessionId,
    reason: CloseReason,
) -> Decision {
    let sender = context.origin.session;
    if sender != session && sender != SessionId::CLUSTER {
        return Err(Rejection::PermissionDenied);
    }
    match sessions.step(session, SessionStep::Close) {
        Next::Ended => {
            effects.push(Effect::Session { session, change: SessionChange::Closed(reason) });
            Ok(Outcome::Done)
        }
        Next::State(_) | Next::Stay => Err(Rejection::NoSuchSession),
    }
}
