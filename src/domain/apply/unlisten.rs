//! Remove a topic notification listener. One that is not there is removed already.

use std::sync::Arc;

use super::{Context, Decision, Effects};
use crate::domain::effect::Effect;
use crate::domain::outcome::Outcome;
use crate::domain::session::table::SessionTable;

pub(in crate::domain) fn apply(
    sessions: &mut SessionTable,
    context: &Context,
    effects: &mut Effects<'_>,
    listener: u32,
) -> Decision {
    let session = context.origin.session;
    let before = sessions.selected(session);
    if sessions.unlisten(session, listener) {
        let before = Arc::new(before);
        effects.push(Effect::SelectionsChanged { session, before });
    }
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::domain::apply::stage::{ONE, Stage};
    use crate::domain::command::Command;
    use crate::domain::effect::Effect;
    use crate::domain::outcome::Outcome;

    #[test]
    fn it_removes_once() {
        let mut stage = Stage::new();
        let selector = ">a".to_owned();
        stage.send(ONE, Command::Listen { listener: 7, selector, select: true });
        let before = Arc::new(stage.machine.session(ONE).unwrap().selected());
        assert_eq!(before.listeners.len(), 1);
        let unlisten = Command::Unlisten { listener: 7 };
        let (outcome, effects) = stage.send(ONE, unlisten.clone());
        assert_eq!(outcome, Outcome::Done);
        assert_eq!(effects, [Effect::SelectionsChanged { session: ONE, before }]);
        assert_eq!(stage.machine.session(ONE).unwrap().listeners().count(), 0);
        assert_eq!(stage.send(ONE, unlisten), (Outcome::Done, vec![]));
    }
}
