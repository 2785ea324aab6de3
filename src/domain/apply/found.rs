//! Found the cluster: the first command of its log. Idempotent by content.

use std::collections::BTreeMap;

use super::{Decision, Effects};
use crate::domain::configuration::{ADMINISTRATOR, Configuration, Founding};
use crate::domain::effect::Effect;
use crate::domain::id::NodeId;
use crate::domain::limits;
use crate::domain::outcome::{Outcome, Rejection};

/// What the founding fixes, and what it sets for a start.
#[derive(Debug)]
pub(in crate::domain) struct Charter {
    /// Cluster and lineage.
    pub(in crate::domain) founding: Founding,
    /// Names of the founders.
    pub(in crate::domain) names: BTreeMap<NodeId, String>,
    /// The administrator's password, as an argon2id PHC string.
    pub(in crate::domain) admin_password: String,
    /// Clients may connect without credentials.
    pub(in crate::domain) anonymous: bool,
}

pub(in crate::domain) fn apply(
    configuration: &mut Configuration,
    effects: &mut Effects<'_>,
    charter: Charter,
) -> Decision {
    if let Some(founding) = configuration.founding() {
        let repeated = founding == charter.founding;
        return if repeated { Ok(Outcome::Done) } else { Err(Rejection::AlreadyFounded) };
    }
    let fits = charter.names.len() <= limits::FOUNDERS_MAX
        && charter.names.values().all(|name| name.len() <= limits::NODE_NAME_BYTES_MAX)
        && charter.admin_password.len() <= limits::PASSWORD_HASH_BYTES_MAX;
    if !fits {
        return Err(Rejection::TooMany);
    }
    configuration.found(charter.founding);
    for (node, name) in charter.names {
        configuration.set_name(node, name);
    }
    configuration.set_password(ADMINISTRATOR.to_owned(), Some(charter.admin_password));
    configuration.set_anonymous(charter.anonymous);
    effects.push(Effect::Configuration);
    Ok(Outcome::Done)
}
