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
