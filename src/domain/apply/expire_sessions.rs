//! End detached sessions whose reconnect timeout has run out in log time.
//!
//! The leader names candidates; each is looked at again, since it may have been claimed meanwhile.

use super::{Context, Decision, Effects};
use crate::domain::effect::{CloseReason, Effect, SessionChange};
use crate::domain::id::SessionId;
use crate::domain::limits::PAGE_ITEMS_MAX;
use crate::domain::outcome::{Outcome, Rejection};
use crate::domain::session::lifecycle::{Next, SessionStep};
use crate::domain::session::record::Session;
use crate::domain::session::table::SessionTable;

pub(in crate::domain) fn apply(
    sessions: &mut SessionTable,
    context: &Context,
    effects: &mut Effects<'_>,
    candidates: &[SessionId],
) -> Decision {
    if candidates.len() > PAGE_ITEMS_MAX {
        return Err(Rejection::TooMany);
    }
    let at_ms = context.log_time_ms;
    let mut count = 0;
    for &session in candidates {
        let timeout = sessions.get(session).map(Session::reconnect_timeout_ms);
        let Some(reconnect_timeout_ms) = timeout else { continue };
        let step = SessionStep::Expire { at_ms, reconnect_timeout_ms };
        if sessions.step(session, step) == Next::Ended {
            let change = SessionChange::Closed(CloseReason::Expired);
            effects.push(Effect::Session { session, change });
            count += 1;
        }
    }
    let more = sessions.next_expiry_ms().is_some_and(|next_ms| next_ms <= at_ms);
    Ok(Outcome::Sessions { count, more })
}
