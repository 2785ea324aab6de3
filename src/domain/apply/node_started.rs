//! A node has started: its earlier incarnations are over, and their sessions detached.
//!
//! One page; the outcome says whether the command is to be proposed again. The incarnation is taken
//! down by the first, so nothing of an earlier one can open or claim a session any more.

use super::detach_session::detach;
use super::{Context, Decision, Effects};
use crate::domain::configuration::Configuration;
use crate::domain::id::SessionId;
use crate::domain::limits::PAGE_ITEMS_MAX;
use crate::domain::outcome::{Outcome, Rejection};
use crate::domain::session::record::{Host, Session};
use crate::domain::session::table::SessionTable;

pub(in crate::domain) fn apply(
    sessions: &mut SessionTable,
    configuration: &mut Configuration,
    context: &Context,
    effects: &mut Effects<'_>,
    host: Host,
) -> Decision {
    let newest = configuration.incarnation(host.node);
    if host.incarnation < newest {
        return Err(Rejection::StaleHost);
    }
    if host.incarnation > newest {
        configuration.set_incarnation(host.node, host.incarnation);
    }
    let gone = sessions.hosted_before(host.node, host.incarnation);
    let page: Vec<SessionId> = gone.map(Session::id).take(PAGE_ITEMS_MAX).collect();
    for &session in &page {
        detach(sessions, context, effects, session);
    }
    let more = sessions.hosted_before(host.node, host.incarnation).next().is_some();
    Ok(Outcome::Sessions { count: page.len() as u32, more })
}
