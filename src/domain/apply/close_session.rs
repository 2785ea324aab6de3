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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::apply::stage::{NODE, ONE, Stage, TWO};
    use crate::domain::command::Command;

    fn close(session: SessionId) -> Command {
        Command::CloseSession { session, reason: CloseReason::ByClient }
    }

    #[test]
    fn by_itself_or_by_the_cluster() {
        let mut stage = Stage::new();
        let change = SessionChange::Closed(CloseReason::ByClient);
        let closed = stage.send(ONE, close(ONE));
        assert_eq!(closed, (Outcome::Done, vec![Effect::Session { session: ONE, change }]));
        let closed = stage.cluster(close(TWO));
        assert_eq!(closed, (Outcome::Done, vec![Effect::Session { session: TWO, change }]));
        assert!(stage.machine.sessions().is_empty());
        assert_eq!(stage.machine.sessions_hosted_by(NODE).count(), 0);
        let (outcome, _) = stage.cluster(close(ONE));
        assert_eq!(outcome, Outcome::Rejected(Rejection::NoSuchSession));
        let (outcome, _) = stage.send(ONE, close(ONE));
        assert_eq!(outcome, Outcome::Rejected(Rejection::NoSuchSession));
    }

    #[test]
    fn not_by_another_session() {
        let mut stage = Stage::new();
        let (outcome, _) = stage.send(ONE, close(TWO));
        assert_eq!(outcome, Outcome::Rejected(Rejection::PermissionDenied));
        assert_eq!(stage.machine.sessions().len(), 2);
    }

    #[test]
    fn a_detached_session_too() {
        let mut stage = Stage::new();
        stage.cluster(Command::DetachSession { session: ONE, epoch: 1 });
        assert_eq!(stage.cluster(close(ONE)).0, Outcome::Done);
        assert_eq!(stage.machine.sessions().next_expiry_ms(), None);
    }
}
