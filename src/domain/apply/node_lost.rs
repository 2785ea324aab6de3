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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::apply::stage::{NODE, ONE, Stage, TWO, opening};
    use crate::domain::command::{Command, OpenSession};
    use crate::domain::effect::{Effect, SessionChange};

    #[test]
    fn sessions_of_that_run_alone_are_detached() {
        let mut stage = Stage::new();
        let three = OpenSession { incarnation: 2, ..opening(SessionId(3)) };
        stage.cluster(Command::OpenSession(three));
        let lost = Command::NodeLost { node: NODE, incarnation: 1 };
        let (outcome, effects) = stage.cluster(lost.clone());
        assert_eq!(outcome, Outcome::Sessions { count: 2, more: false });
        let detached = |session| Effect::Session { session, change: SessionChange::Detached };
        assert_eq!(effects, [detached(ONE), detached(TWO)]);
        let again = stage.cluster(lost);
        assert_eq!(again, (Outcome::Sessions { count: 0, more: false }, vec![]));
    }

    #[test]
    fn a_node_that_was_only_cut_off_may_claim_again() {
        let mut stage = Stage::new();
        stage.cluster(Command::NodeLost { node: NODE, incarnation: 1 });
        let (outcome, _) = stage.cluster(Command::MoveSession {
            session: ONE,
            secret_hash: [1; 32],
            next_secret_hash: [2; 32],
            host: NODE,
            incarnation: 1,
        });
        assert_eq!(outcome, Outcome::Session { epoch: 2 });
    }
}
