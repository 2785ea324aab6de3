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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::apply::stage::{NODE, ONE, Stage};
    use crate::domain::command::Command;

    #[test]
    fn it_detaches_in_log_time_once() {
        let mut stage = Stage::new();
        let detach = Command::DetachSession { session: ONE, epoch: 1 };
        let (outcome, effects) = stage.cluster(detach.clone());
        assert_eq!(outcome, Outcome::Done);
        assert_eq!(effects, [Effect::Session { session: ONE, change: SessionChange::Detached }]);
        assert_eq!(stage.machine.session(ONE).unwrap().detached_at_ms(), Some(1_000));
        assert_eq!(stage.machine.sessions_hosted_by(NODE).count(), 1);
        stage.log_time_ms += 10;
        assert_eq!(stage.cluster(detach), (Outcome::Done, vec![]));
        assert_eq!(stage.machine.session(ONE).unwrap().detached_at_ms(), Some(1_000));
    }

    #[test]
    fn refusals() {
        let mut stage = Stage::new();
        for (session, epoch, reason) in [
            (SessionId(9), 1, Rejection::NoSuchSession),
            (ONE, 2, Rejection::StaleEpoch),
            (ONE, 0, Rejection::StaleEpoch),
        ] {
            let (outcome, _) = stage.cluster(Command::DetachSession { session, epoch });
            assert_eq!(outcome, Outcome::Rejected(reason));
        }
    }
}
