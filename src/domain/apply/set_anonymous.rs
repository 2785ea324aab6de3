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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::apply::stage::Stage;
    use crate::domain::command::Command;

    #[test]
    fn on_and_off() {
        let mut stage = Stage::empty();
        let set = |allowed| Command::SetAnonymous { allowed };
        assert_eq!(stage.cluster(set(false)), (Outcome::Unchanged, vec![]));
        assert_eq!(stage.cluster(set(true)), (Outcome::Done, vec![Effect::Configuration]));
        assert!(stage.machine.configuration().anonymous());
        assert_eq!(stage.cluster(set(true)), (Outcome::Unchanged, vec![]));
        assert_eq!(stage.cluster(set(false)), (Outcome::Done, vec![Effect::Configuration]));
    }
}
