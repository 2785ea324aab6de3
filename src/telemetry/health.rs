//! What the node says of its own health; set by the node, asked by load balancers and operators.

use std::fmt;

use tokio::sync::watch;

/// The node's health at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The word for where the node stands in its life, such as `replaying` or `ready`.
    pub state: &'static str,
    /// Whether the process does its work at all; if not it should be started anew.
    pub live: Verdict,
    /// Whether clients are served.
    pub ready: Verdict,
    /// Whether the cluster keeps its quorum if this node stops now.
    pub safe_to_stop: Verdict,
}

/// Yes, or no and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Yes,
    /// No, for this reason, in words for people.
    No(String),
}

impl Verdict {
    /// No, for this reason.
    pub fn no(reason: impl Into<String>) -> Self {
        Self::No(reason.into())
    }

    /// Whether it is a yes.
    #[must_use]
    pub fn is_yes(&self) -> bool {
        matches!(self, Self::Yes)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes => formatter.write_str("yes"),
            Self::No(reason) => write!(formatter, "no: {reason}"),
        }
    }
}

/// The shared board on which health stands; cheap to clone.
#[derive(Debug, Clone)]
pub struct Health {
    facts: watch::Sender<Facts>,
}

impl Health {
    /// A node that starts: live, not ready, and nobody would miss it.
    #[must_use]
    pub fn starting() -> Self {
        let facts = Facts {
            state: "starting",
            live: Verdict::Yes,
            ready: Verdict::no("starting"),
            safe_to_stop: Verdict::Yes,
        };
        Self { facts: watch::channel(facts).0 }
    }

    /// The health now.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.facts.borrow().clone()
    }

    /// Changes what is said.
    pub fn set(&self, change: impl FnOnce(&mut Facts)) {
        self.facts.send_if_modified(|facts| {
            let before = facts.clone();
            change(facts);
            *facts != before
        });
    }

    /// What is said from now on.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Facts> {
        self.facts.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_begins_as_starting_and_tells_changes_only() {
        let health = Health::starting();
        let mut watch = health.watch();
        assert_eq!(health.facts().ready.to_string(), "no: starting");
        assert!(health.facts().live.is_yes());
        health.set(|facts| facts.state = "starting");
        assert!(!watch.has_changed().unwrap());
        health.set(|facts| {
            facts.state = "ready";
            facts.ready = Verdict::Yes;
        });
        assert!(watch.has_changed().unwrap());
        assert_eq!(watch.borrow_and_update().state, "ready");
    }
}
