//! Open a session. A command of the cluster, so idempotent by its content.

use super::{Context, Decision, Effects};
use crate::domain::command::OpenSession;
use crate::domain::configuration::Configuration;
use crate::domain::effect::{Effect, SessionChange};
use crate::domain::id::SessionId;
use crate::domain::limits;
use crate::domain::outcome::{Outcome, Rejection};
use crate::domain::session::record::Session;
use crate::domain::session::table::SessionTable;

pub(in crate::domain) fn apply(
    sessions: &mut SessionTable,
    configuration: &Configuration,
    context: &Context,
    effects: &mut Effects<'_>,
    mut open: OpenSession,
) -> Decision {
    if open.session == SessionId::CLUSTER {
        return Err(Rejection::PermissionDenied);
    }
    open.roles.sort();
    open.roles.dedup();
    check_limits(&open)?;
    if let Some(session) = sessions.get(open.session) {
        return if session.was_opened_by(&open) {
            Ok(Outcome::Session { epoch: session.epoch() })
        } else {
            Err(Rejection::SessionExists)
        };
    }
    if open.incarnation < configuration.incarnation(open.host) {
        return Err(Rejection::StaleHost);
    }
    let session = Session::opened(open, context.index);
    let (id, host, epoch) = (session.id(), session.host(), session.epoch());
    sessions.insert(session);
    effects.push(Effect::Session { session: id, change: SessionChange::Opened { host, epoch } });
    Ok(Outcome::Session { epoch })
}

fn check_limits(open: &OpenSession) -> Result<(), Rejection> {
    let fits = open.principal.len() <= limits::PRINCIPAL_BYTES_MAX
        && open.roles.len() <= limits::ROLES_MAX
        && open.roles.iter().all(|role| role.len() <= limits::ROLE_BYTES_MAX)
        && open.properties.len() <= limits::PROPERTIES_MAX
        && (open.properties.iter())
            .all(|(key, value)| key.len() + value.len() <= limits::PROPERTY_BYTES_MAX);
    if fits { Ok(()) } else { Err(Rejection::TooMany) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::apply::stage::{NODE, ONE, Stage, open, opening};
    use crate::domain::command::Command;
    use crate::domain::session::lifecycle::SessionState;

    #[test]
    fn it_opens_with_what_it_was_given() {
        let mut stage = Stage::empty();
        let roles = ["b", "a", "b"].map(str::to_owned).to_vec();
        let command = Command::OpenSession(OpenSession { roles, ..opening(ONE) });
        let (outcome, effects) = stage.cluster(command);
        assert_eq!(outcome, Outcome::Session { epoch: 1 });
        let change = SessionChange::Opened { host: NODE, epoch: 1 };
        assert_eq!(effects, [Effect::Session { session: ONE, change }]);
        let session = stage.machine.session(ONE).unwrap();
        assert_eq!(session.state(), SessionState::Active);
        assert_eq!(session.roles(), ["a", "b"]);
        assert_eq!(session.principal(), "principal 1");
        assert_eq!(session.properties()["$Transport"], "OTHER");
        assert_eq!((session.host(), session.incarnation()), (NODE, 1));
        assert_eq!((session.reconnect_timeout_ms(), session.opened_at().entry()), (60_000, 1));
        assert_eq!(stage.machine.sessions_hosted_by(NODE).count(), 1);
    }

    #[test]
    fn the_same_again_changes_nothing() {
        let mut stage = Stage::new();
        let again = stage.cluster(open(ONE));
        assert_eq!(again, (Outcome::Session { epoch: 1 }, vec![]));
        let other = OpenSession { principal: "other".to_owned(), ..opening(ONE) };
        let (outcome, _) = stage.cluster(Command::OpenSession(other));
        assert_eq!(outcome, Outcome::Rejected(Rejection::SessionExists));
    }

    #[test]
    fn an_earlier_run_of_a_node_opens_nothing() {
        let mut stage = Stage::empty();
        stage.cluster(Command::NodeStarted { node: NODE, incarnation: 2 });
        let (outcome, _) = stage.cluster(open(ONE));
        assert_eq!(outcome, Outcome::Rejected(Rejection::StaleHost));
        let newer = OpenSession { incarnation: 2, ..opening(ONE) };
        let (outcome, _) = stage.cluster(Command::OpenSession(newer));
        assert_eq!(outcome, Outcome::Session { epoch: 1 });
    }

    #[test]
    fn limits_hold() {
        let mut stage = Stage::empty();
        let long = |bytes: usize| "x".repeat(bytes + 1);
        let texts = |count: usize| (0..=count).map(|i| i.to_string());
        for open in [
            OpenSession { principal: long(limits::PRINCIPAL_BYTES_MAX), ..opening(ONE) },
            OpenSession { roles: texts(limits::ROLES_MAX).collect(), ..opening(ONE) },
            OpenSession { roles: vec![long(limits::ROLE_BYTES_MAX)], ..opening(ONE) },
            OpenSession {
                properties: texts(limits::PROPERTIES_MAX).map(|i| (i, String::new())).collect(),
                ..opening(ONE)
            },
            OpenSession {
                properties: [("k".to_owned(), "x".repeat(limits::PROPERTY_BYTES_MAX))].into(),
                ..opening(ONE)
            },
        ] {
            let (outcome, _) = stage.cluster(Command::OpenSession(open));
            assert_eq!(outcome, Outcome::Rejected(Rejection::TooMany));
        }
        let (outcome, _) = stage.cluster(open(SessionId::CLUSTER));
        assert_eq!(outcome, Outcome::Rejected(Rejection::PermissionDenied));
        assert!(stage.machine.sessions().is_empty());
    }
}
