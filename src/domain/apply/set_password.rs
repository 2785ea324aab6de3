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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::apply::stage::Stage;
    use crate::domain::command::Command;

    fn set(principal: &str, password: Option<&str>) -> Command {
        let password = password.map(str::to_owned);
        Command::SetPassword { principal: principal.to_owned(), password }
    }

    #[test]
    fn set_change_remove() {
        let mut stage = Stage::empty();
        let changed = (Outcome::Done, vec![Effect::Configuration]);
        let unchanged = (Outcome::Unchanged, vec![]);
        assert_eq!(stage.cluster(set("ann", None)), unchanged);
        assert_eq!(stage.cluster(set("ann", Some("one"))), changed);
        assert_eq!(stage.cluster(set("ann", Some("one"))), unchanged);
        assert_eq!(stage.cluster(set("ann", Some("two"))), changed);
        assert_eq!(stage.machine.configuration().password("ann"), Some("two"));
        assert_eq!(stage.cluster(set("ann", None)), changed);
        assert_eq!(stage.machine.configuration().password("ann"), None);
    }

    #[test]
    fn refusals() {
        let mut stage = Stage::empty();
        let long = "x".repeat(limits::PASSWORD_HASH_BYTES_MAX + 1);
        for (principal, password, reason) in [
            ("", "x", Rejection::PermissionDenied),
            (long.as_str(), "x", Rejection::TooMany),
            ("ann", long.as_str(), Rejection::TooMany),
        ] {
            let (outcome, _) = stage.cluster(set(principal, Some(password)));
            assert_eq!(outcome, Outcome::Rejected(reason));
        }
    }
}
