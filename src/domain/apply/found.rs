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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::apply::stage::Stage;
    use crate::domain::command::Command;
    use crate::domain::id::{ClusterId, Lineage};

    fn found(cluster: u64) -> Command {
        Command::Found {
            cluster: ClusterId(cluster),
            lineage: Lineage(5),
            names: BTreeMap::from([(NodeId(1), "n1".to_owned()), (NodeId(2), "n2".to_owned())]),
            admin_password: "$argon2id$".to_owned(),
            anonymous: true,
        }
    }

    #[test]
    fn it_is_done_once() {
        let mut stage = Stage::empty();
        assert_eq!(stage.cluster(found(4)), (Outcome::Done, vec![Effect::Configuration]));
        let configuration = stage.machine.configuration();
        let founding = Founding { cluster: ClusterId(4), lineage: Lineage(5) };
        assert_eq!(configuration.founding(), Some(founding));
        assert_eq!(configuration.name(NodeId(2)), Some("n2"));
        assert_eq!(configuration.names().count(), 2);
        assert_eq!(configuration.password(ADMINISTRATOR), Some("$argon2id$"));
        assert!(configuration.anonymous());
        assert_eq!(stage.cluster(found(4)), (Outcome::Done, vec![]));
        let (outcome, _) = stage.cluster(found(6));
        assert_eq!(outcome, Outcome::Rejected(Rejection::AlreadyFounded));
    }

    #[test]
    fn limits_hold() {
        let mut stage = Stage::empty();
        let Command::Found { cluster, lineage, .. } = found(4) else { panic!() };
        let name = "x".repeat(limits::NODE_NAME_BYTES_MAX + 1);
        let (outcome, _) = stage.cluster(Command::Found {
            cluster,
            lineage,
            names: BTreeMap::from([(NodeId(1), name)]),
            admin_password: String::new(),
            anonymous: false,
        });
        assert_eq!(outcome, Outcome::Rejected(Rejection::TooMany));
        assert_eq!(stage.machine.configuration().founding(), None);
    }
}
