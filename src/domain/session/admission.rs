//! Whether a numbered command may be applied: the one order of checks that makes a session's
//! commands apply exactly once and in order.

use super::answered::Turn;
use super::table::SessionTable;
use crate::domain::entry::Origin;
use crate::domain::id::Index;
use crate::domain::outcome::{Outcome, Rejection};

/// What to do with a numbered command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::domain) enum Admission {
    /// It has its turn.
    Apply,
    /// It is void, but uses its number.
    Spend(Rejection),
    /// It was applied before, with this answer.
    Repeat(Index, Outcome),
    /// It is void and its number stays open, or has been used before.
    Void(Rejection),
}

/// Looks at a command's origin; changes nothing.
pub(in crate::domain) fn admit(sessions: &SessionTable, origin: &Origin) -> Admission {
    let Some(session) = sessions.get(origin.session) else {
        return Admission::Void(Rejection::NoSuchSession);
    };
    if origin.epoch != session.epoch() {
        return Admission::Void(Rejection::StaleEpoch);
    }
    match session.answered().turn(origin.request) {
        Turn::Repeat(index, outcome) => Admission::Repeat(index, outcome),
        Turn::Forgotten => Admission::Void(Rejection::Forgotten),
        Turn::Gap => Admission::Void(Rejection::Gap),
        Turn::Next if origin.role_version != session.role_version() => {
            Admission::Spend(Rejection::StaleRoles)
        }
        Turn::Next => Admission::Apply,
    }
}
