//! Let clients connect without credentials, or not.

use super::{Decision, Effects};
use crate::domain::configuration::Configuration;
use crate::domain::effect::Effect;
use crate::domain::outcome::Outcome;

pub(in crate::domain) fn apply(
    configuration: &mut Configuration,
    effects: &mut Effects<'_>,
    allowed: bool,
) -> Decision {
    if configuration.anonymous() == allowed {
        return Ok(Outcome::Unchanged);
    }
    configuration.set_anonymous(allowed);
    effects.push(Effect::Configuration);
    Ok(Outcome::Done)
}
