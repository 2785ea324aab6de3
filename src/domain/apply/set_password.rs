//! Set the password of a principal, or remove the principal.

use super::{Decision, Effects};
use crate::domain::configuration::Configuration;
use crate::domain::effect::Effect;
use crate::domain::limits;
use crate::domain::outcome::{Outcome, Rejection};

pub(in crate::domain) fn apply(
    configuration: &mut Configuration,
    effects: &mut Effects<'_>,
    principal: String,
    password: Option<String>,
) -> Decision {
    if principal.is_empty() {
        // The empty principal is the anonymous one: it has a policy, not a password.
        return Err(Rejection::PermissionDenied);
    }
    let is_new = password.is_some() && configuration.password(&principal).is_none();
    let fits = principal.len() <= limits::PRINCIPAL_BYTES_MAX
        && (password.as_ref()).is_none_or(|hash| hash.len() <= limits::PASSWORD_HASH_BYTES_MAX)
        && !(is_new && configuration.principals_len() >= limits::PRINCIPALS_MAX);
    if !fits {
        return Err(Rejection::TooMany);
    }
    if configuration.password(&principal) == password.as_deref() {
        return Ok(Outcome::Unchanged);
    }
    configuration.set_password(principal, password);
    effects.push(Effect::Configuration);
    Ok(Outcome::Done)
}
