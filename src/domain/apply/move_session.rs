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
