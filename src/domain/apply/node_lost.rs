//! A node is not heard any more: the sessions of that incarnation are detached.
//!
//! One page; the outcome says whether the command is to be proposed again. The node may come back
//! without a new start and claim sessions again, so nothing is taken down against it.

use super::detach_session::detach;
use super::{Context, Decision, Effects};
use crate::domain::id::SessionId;
use crate::domain::limits::PAGE_ITEMS_MAX;
use crate::domain::outcome::Outcome;
use crate::domain::session::record::{Host, Session};
use crate::domain::session::table::SessionTable;

pub(in crate::domain) fn apply(
    sessions: &mut SessionTable,
    context: &Context,
    effects: &mut Effects<'_>,
    host: Host,
) -> Decision {
    let lost = sessions.hosted_at(host);
    let page: Vec<SessionId> = lost.map(Session::id).take(PAGE_ITEMS_MAX).collect();
    for &session in &page {
        detach(sessions, context, effects, session);
    }
    let more = sessions.hosted_at(host).next().is_some();
    Ok(Outcome::Sessions { count: page.len() as u32, more })
}
