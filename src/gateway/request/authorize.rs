//! May this session do that? The one place that decides; the security stores will live behind it.
//!
//! Until they exist the rules are a table by role. A session's roles are fixed when it is opened.

use crate::domain::command::Command;
use crate::domain::configuration::ADMINISTRATOR;

/// The role of the principal that the founding made.
const ROLE_ADMINISTRATOR: &str = "ADMINISTRATOR";
/// The role of every other principal that has shown its password.
const ROLE_CLIENT: &str = "CLIENT";
/// The role of sessions without credentials.
const ROLE_ANONYMOUS: &str = "ANONYMOUS";

/// What a session may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Action {
    /// Fetch topics and their values.
    Read,
    /// Subscribe, listen.
    Select,
    /// Set topics, open update streams.
    Update,
    /// Add and remove topics.
    Modify,
    /// Look at the cluster.
    Observe,
}

/// The roles of a new session, sorted; `principal` is empty for an anonymous one.
#[must_use]
pub(in crate::gateway) fn roles_of(principal: &str) -> Vec<String> {
    let role = match principal {
        "" => ROLE_ANONYMOUS,
        ADMINISTRATOR => ROLE_ADMINISTRATOR,
        _ => ROLE_CLIENT,
    };
    vec![role.to_owned()]
}

/// Whether a session with these roles may do that.
#[must_use]
pub(in crate::gateway) fn may(roles: &[String], action: Action) -> bool {
    roles.iter().any(|role| {
        matches!((role.as_str(), action), (ROLE_ADMINISTRATOR | ROLE_CLIENT | ROLE_ANONYMOUS, _))
    })
}

/// What a command asks for; none for those that need no permission.
#[must_use]
pub(in crate::gateway) fn action_of(command: &Command) -> Option<Action> {
    match command {
        Command::Update { .. } | Command::SetByPath { .. } => Some(Action::Update),
        Command::SetTopic { specification, .. } | Command::OpenStream { specification, .. } => {
            Some(if specification.is_some() { Action::Modify } else { Action::Update })
        }
        Command::AddTopic { .. } | Command::RemoveTopics { .. } => Some(Action::Modify),
        Command::OpenTopic { .. } => Some(Action::Read),
        Command::Select { select, .. } | Command::Listen { select, .. } => {
            // One's own deselection needs no permission.
            select.then_some(Action::Select)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::command::TypedValue;
    use crate::domain::id::TopicId;
    use crate::domain::topic::specification::TopicType;

    #[test]
    fn every_opened_session_has_a_role_that_may_work() {
        for principal in ["", "admin", "someone"] {
            let roles = roles_of(principal);
            for action in
                [Action::Read, Action::Select, Action::Update, Action::Modify, Action::Observe]
            {
                assert!(may(&roles, action), "{principal:?} {action:?}");
            }
        }
        assert!(!may(&[], Action::Read));
        assert!(!may(&["UNHEARD_OF".to_owned()], Action::Update));
    }

    #[test]
    fn deselecting_needs_no_permission() {
        let select =
            |select| Command::Select { scope: String::new(), selector: ">a".to_owned(), select };
        assert_eq!(action_of(&select(true)), Some(Action::Select));
        assert_eq!(action_of(&select(false)), None);
        let update = Command::Update {
            topic: TopicId(1),
            stream: None,
            value: TypedValue { value_type: TopicType::String, bytes: None },
        };
        assert_eq!(action_of(&update), Some(Action::Update));
    }
}
