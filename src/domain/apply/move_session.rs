//! Claim a session for another host, or for a new connection to the same one.

use super::{Decision, Effects};
use crate::domain::configuration::Configuration;
use crate::domain::effect::{Effect, SessionChange};
use crate::domain::id::SessionId;
use crate::domain::outcome::{Outcome, Rejection};
use crate::domain::session::lifecycle::{SessionState, SessionStep};
use crate::domain::session::record::Host;
use crate::domain::session::table::SessionTable;

/// What a node claims.
#[derive(Debug)]
pub(in crate::domain) struct Claim {
    /// Which session.
    pub(in crate::domain) session: SessionId,
    /// Hash of the secret that the client showed.
    pub(in crate::domain) shown: [u8; 32],
    /// Hash of the secret that it will show next time.
    pub(in crate::domain) next: [u8; 32],
    /// Who claims it.
    pub(in crate::domain) host: Host,
}

pub(in crate::domain) fn apply(
    sessions: &mut SessionTable,
    configuration: &Configuration,
    effects: &mut Effects<'_>,
    claim: &Claim,
) -> Decision {
    let session = sessions.get(claim.session).ok_or(Rejection::NoSuchSession)?;
    if session.was_moved_by(claim) {
        // A second copy of the claim. If the session was detached since, it must not wake it.
        return match session.state() {
            SessionState::Active => Ok(Outcome::Session { epoch: session.epoch() }),
            SessionState::Detached { .. } => Err(Rejection::StaleEpoch),
        };
    }
    if !session.secrets().admit(&claim.shown) {
        return Err(Rejection::WrongSecret);
    }
    if claim.host.incarnation < configuration.incarnation(claim.host.node) {
        return Err(Rejection::StaleHost);
    }
    // An epoch is 32 bits; a session that used them all up cannot move any more.
    let epoch = session.epoch().checked_add(1).ok_or(Rejection::TooMany)?;
    sessions.step(claim.session, SessionStep::Move);
    sessions.change(claim.session, |session| session.claimed(claim, epoch));
    let change = SessionChange::Moved { host: claim.host.node, epoch };
    effects.push(Effect::Session { session: claim.session, change });
    Ok(Outcome::Session { epoch })
}

#[cfg(test)]
mod tests {
    use crate::domain::apply::stage::{NODE, ONE, Stage};
    use crate::domain::command::Command;
    use crate::domain::effect::{Effect, SessionChange};
    use crate::domain::id::NodeId;
    use crate::domain::outcome::{Outcome, Rejection};
    use crate::domain::session::lifecycle::SessionState;

    const OTHER: NodeId = NodeId(12);

    fn claim(shown: u8, next: u8) -> Command {
        Command::MoveSession {
            session: ONE,
            secret_hash: [shown; 32],
            next_secret_hash: [next; 32],
            host: OTHER,
            incarnation: 1,
        }
    }

    #[test]
    fn it_takes_over_and_raises_the_epoch() {
        let mut stage = Stage::new();
        stage.cluster(Command::DetachSession { session: ONE, epoch: 1 });
        let (outcome, effects) = stage.cluster(claim(1, 50));
        assert_eq!(outcome, Outcome::Session { epoch: 2 });
        let change = SessionChange::Moved { host: OTHER, epoch: 2 };
        assert_eq!(effects, [Effect::Session { session: ONE, change }]);
        let session = stage.machine.session(ONE).unwrap();
        assert_eq!((session.epoch(), session.host()), (2, OTHER));
        assert_eq!(session.state(), SessionState::Active);
        assert_eq!(stage.machine.sessions_hosted_by(NODE).count(), 1);
        assert_eq!(stage.machine.sessions_hosted_by(OTHER).count(), 1);
    }

    #[test]
    fn the_previous_secret_is_good_until_the_new_one_is_used() {
        let mut stage = Stage::new();
        for (shown, next, outcome) in [
            (1, 50, Outcome::Session { epoch: 2 }),
            // The answer with 50 was lost: the client shows the first once more.
            (1, 51, Outcome::Session { epoch: 3 }),
            // 50 was replaced before anybody saw it.
            (50, 52, Outcome::Rejected(Rejection::WrongSecret)),
            (51, 53, Outcome::Session { epoch: 4 }),
            // 51 was used, so the first is over.
            (1, 54, Outcome::Rejected(Rejection::WrongSecret)),
            (51, 55, Outcome::Session { epoch: 5 }),
            (55, 56, Outcome::Session { epoch: 6 }),
            (9, 57, Outcome::Rejected(Rejection::WrongSecret)),
        ] {
            assert_eq!(stage.cluster(claim(shown, next)).0, outcome, "{shown} for {next}");
        }
    }

    #[test]
    fn the_same_claim_twice_moves_once() {
        let mut stage = Stage::new();
        stage.cluster(claim(1, 50));
        assert_eq!(stage.cluster(claim(1, 50)), (Outcome::Session { epoch: 2 }, vec![]));
        stage.cluster(Command::DetachSession { session: ONE, epoch: 2 });
        let late = stage.cluster(claim(1, 50));
        assert_eq!(late, (Outcome::Rejected(Rejection::StaleEpoch), vec![]));
    }

    #[test]
    fn refusals() {
        let mut stage = Stage::empty();
        let (outcome, _) = stage.cluster(claim(1, 50));
        assert_eq!(outcome, Outcome::Rejected(Rejection::NoSuchSession));
        let mut stage = Stage::new();
        stage.cluster(Command::NodeStarted { node: OTHER, incarnation: 2 });
        let (outcome, _) = stage.cluster(claim(1, 50));
        assert_eq!(outcome, Outcome::Rejected(Rejection::StaleHost));
    }
}
