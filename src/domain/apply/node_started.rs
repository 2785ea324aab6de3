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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::apply::stage::{NODE, ONE, Stage, TWO, opening};
    use crate::domain::command::{Command, OpenSession};
    use crate::domain::effect::{Effect, SessionChange};
    use crate::domain::id::NodeId;

    fn started(incarnation: u64) -> Command {
        Command::NodeStarted { node: NODE, incarnation }
    }

    #[test]
    fn sessions_of_earlier_runs_are_detached() {
        let mut stage = Stage::new();
        let three = OpenSession { incarnation: 2, ..opening(SessionId(3)) };
        stage.cluster(Command::OpenSession(three));
        let four = OpenSession { host: NodeId(12), ..opening(SessionId(4)) };
        stage.cluster(Command::OpenSession(four));
        let (outcome, effects) = stage.cluster(started(2));
        assert_eq!(outcome, Outcome::Sessions { count: 2, more: false });
        let detached = |session| Effect::Session { session, change: SessionChange::Detached };
        assert_eq!(effects, [detached(ONE), detached(TWO)]);
        assert_eq!(stage.machine.configuration().incarnation(NODE), 2);
        let again = stage.cluster(started(2));
        assert_eq!(again, (Outcome::Sessions { count: 0, more: false }, vec![]));
        let (outcome, _) = stage.cluster(started(1));
        assert_eq!(outcome, Outcome::Rejected(Rejection::StaleHost));
    }

    #[test]
    fn a_page_has_a_bound_and_says_so() {
        let mut stage = Stage::empty();
        let all = 1..=PAGE_ITEMS_MAX as u64 + 3;
        let all = all.map(|session| Command::OpenSession(opening(SessionId(session))));
        stage.send_all(SessionId::CLUSTER, all);
        let (outcome, effects) = stage.cluster(started(2));
        let count = PAGE_ITEMS_MAX as u32;
        assert_eq!(outcome, Outcome::Sessions { count, more: true });
        assert_eq!(effects.len(), PAGE_ITEMS_MAX);
        let (outcome, _) = stage.cluster(started(2));
        assert_eq!(outcome, Outcome::Sessions { count: 3, more: false });
    }
}
