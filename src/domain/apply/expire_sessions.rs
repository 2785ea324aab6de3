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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::apply::stage::{NODE, ONE, Stage, TWO, open};
    use crate::domain::command::Command;

    fn expire(sessions: &[SessionId]) -> Command {
        Command::ExpireSessions { sessions: sessions.to_vec() }
    }

    #[test]
    fn only_what_has_run_out_in_log_time_ends() {
        let mut stage = Stage::new();
        stage.cluster(Command::DetachSession { session: ONE, epoch: 1 });
        stage.log_time_ms += 59_999;
        let nothing = (Outcome::Sessions { count: 0, more: false }, vec![]);
        assert_eq!(stage.cluster(expire(&[ONE, TWO, SessionId(9)])), nothing);
        assert!(stage.machine.expired_sessions(stage.log_time_ms, 10).is_empty());
        stage.log_time_ms += 1;
        assert_eq!(stage.machine.expired_sessions(stage.log_time_ms, 10), [ONE]);
        let (outcome, effects) = stage.cluster(expire(&[ONE, TWO, ONE]));
        assert_eq!(outcome, Outcome::Sessions { count: 1, more: false });
        let change = SessionChange::Closed(CloseReason::Expired);
        assert_eq!(effects, [Effect::Session { session: ONE, change }]);
        assert!(stage.machine.session(TWO).is_some(), "an active session does not expire");
    }

    #[test]
    fn a_session_that_was_claimed_meanwhile_stays() {
        let mut stage = Stage::new();
        stage.cluster(Command::DetachSession { session: ONE, epoch: 1 });
        stage.log_time_ms += 60_000;
        stage.cluster(Command::MoveSession {
            session: ONE,
            secret_hash: [1; 32],
            next_secret_hash: [2; 32],
            host: NODE,
            incarnation: 1,
        });
        let (outcome, _) = stage.cluster(expire(&[ONE]));
        assert_eq!(outcome, Outcome::Sessions { count: 0, more: false });
    }

    #[test]
    fn it_says_when_more_have_run_out() {
        let mut stage = Stage::new();
        for session in [ONE, TWO] {
            stage.cluster(Command::DetachSession { session, epoch: 1 });
        }
        stage.log_time_ms += 60_000;
        let (outcome, _) = stage.cluster(expire(&[TWO]));
        assert_eq!(outcome, Outcome::Sessions { count: 1, more: true });
    }

    #[test]
    fn a_page_has_a_bound() {
        let mut stage = Stage::empty();
        stage.cluster(open(ONE));
        let (outcome, _) = stage.cluster(expire(&vec![ONE; PAGE_ITEMS_MAX + 1]));
        assert_eq!(outcome, Outcome::Rejected(Rejection::TooMany));
        let (outcome, _) = stage.cluster(expire(&vec![ONE; PAGE_ITEMS_MAX]));
        assert_eq!(outcome, Outcome::Sessions { count: 0, more: false });
    }
}
