//! Add an entry to one of the caller's topic notification listeners; the first registers it.

use std::sync::Arc;

use super::select::rejection;
use super::{Context, Decision, Effects};
use crate::domain::effect::Effect;
use crate::domain::outcome::{Outcome, Rejection};
use crate::domain::selector::Selector;
use crate::domain::session::table::SessionTable;

pub(in crate::domain) fn apply(
    sessions: &mut SessionTable,
    context: &Context,
    effects: &mut Effects<'_>,
    listener: u32,
    selector: &str,
    select: bool,
) -> Decision {
    let selector = Selector::parse(selector).map_err(|_| Rejection::InvalidSelector)?;
    let session = context.origin.session;
    let before = Arc::new(sessions.selected(session));
    sessions.listen(session, listener, select, selector).map_err(rejection)?;
    effects.push(Effect::SelectionsChanged { session, before });
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::domain::apply::stage::{ONE, Stage};
    use crate::domain::command::Command;
    use crate::domain::effect::Effect;
    use crate::domain::limits;
    use crate::domain::outcome::{Outcome, Rejection};

    fn listen(listener: u32, selector: &str, select: bool) -> Command {
        Command::Listen { listener, selector: selector.to_owned(), select }
    }

    fn listeners(stage: &Stage) -> Vec<u32> {
        stage.machine.session(ONE).unwrap().listeners().map(|(listener, _)| listener).collect()
    }

    #[test]
    fn the_first_entry_registers() {
        let mut stage = Stage::new();
        for command in [listen(7, ">a", true), listen(7, ">b", true), listen(3, ">b", true)] {
            let before = Arc::new(stage.machine.session(ONE).unwrap().selected());
            let changed = vec![Effect::SelectionsChanged { session: ONE, before }];
            assert_eq!(stage.send(ONE, command), (Outcome::Done, changed));
        }
        assert_eq!(listeners(&stage), [3, 7]);
    }

    #[test]
    fn a_listener_without_entries_is_gone() {
        let mut stage = Stage::new();
        stage.send(ONE, listen(7, ">a", true));
        stage.send(ONE, listen(7, "?.*//", false));
        assert!(listeners(&stage).is_empty());
    }

    #[test]
    fn refusals() {
        let mut stage = Stage::new();
        let (outcome, _) = stage.send(ONE, listen(1, "?(", true));
        assert_eq!(outcome, Outcome::Rejected(Rejection::InvalidSelector));
        for listener in 0..limits::LISTENERS_MAX as u32 {
            assert_eq!(stage.send(ONE, listen(listener, ">a", true)).0, Outcome::Done);
        }
        let (outcome, _) = stage.send(ONE, listen(999, ">a", true));
        assert_eq!(outcome, Outcome::Rejected(Rejection::TooMany));
        assert_eq!(stage.send(ONE, listen(0, ">b", true)).0, Outcome::Done);
    }
}
