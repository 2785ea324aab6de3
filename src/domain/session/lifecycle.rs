//! The states of a session and the legal ways between them, as one table.

/// Where a session is in its life. After the end there is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// A node serves its client.
    Active,
    /// Its client is gone; it waits for it.
    Detached {
        /// Since when, in log time.
        at_ms: u64,
    },
}

/// What can happen to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::domain) enum SessionStep {
    /// A node claims it for its client.
    Move,
    /// Its client, or its host, is gone.
    Detach {
        /// When, in log time.
        at_ms: u64,
    },
    /// Its reconnect timeout may have run out.
    Expire {
        /// When it is looked at, in log time.
        at_ms: u64,
        /// How long it may be detached.
        reconnect_timeout_ms: u64,
    },
    /// It ends at once.
    Close,
}

/// Where a step leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::domain) enum Next {
    /// It is in this state now.
    State(SessionState),
    /// It has ended.
    Ended,
    /// The step does not apply; nothing changes.
    Stay,
}

impl SessionState {
    /// The table: every state, every step.
    pub(in crate::domain) fn next(self, step: SessionStep) -> Next {
        match (self, step) {
            (Self::Active | Self::Detached { .. }, SessionStep::Move) => Next::State(Self::Active),
            (Self::Active, SessionStep::Detach { at_ms }) => Next::State(Self::Detached { at_ms }),
            // The clock runs from the first time: a second word about it buys no time.
            (Self::Detached { .. }, SessionStep::Detach { .. }) => Next::Stay,
            (Self::Active, SessionStep::Expire { .. }) => Next::Stay,
            (
                Self::Detached { at_ms: since },
                SessionStep::Expire { at_ms, reconnect_timeout_ms },
            ) => {
                if at_ms >= since.saturating_add(reconnect_timeout_ms) {
                    Next::Ended
                } else {
                    Next::Stay
                }
            }
            (Self::Active | Self::Detached { .. }, SessionStep::Close) => Next::Ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        use SessionState::{Active, Detached};
        let detached = Detached { at_ms: 100 };
        let expire = |at_ms| SessionStep::Expire { at_ms, reconnect_timeout_ms: 60 };
        for (state, step, next) in [
            (Active, SessionStep::Move, Next::State(Active)),
            (Active, SessionStep::Detach { at_ms: 5 }, Next::State(Detached { at_ms: 5 })),
            (Active, expire(u64::MAX), Next::Stay),
            (Active, SessionStep::Close, Next::Ended),
            (detached, SessionStep::Move, Next::State(Active)),
            (detached, SessionStep::Detach { at_ms: 120 }, Next::Stay),
            (detached, expire(99), Next::Stay),
            (detached, expire(159), Next::Stay),
            (detached, expire(160), Next::Ended),
            (detached, expire(161), Next::Ended),
            (detached, SessionStep::Close, Next::Ended),
        ] {
            assert_eq!(state.next(step), next, "{state:?} {step:?}");
        }
        let forever = SessionStep::Expire { at_ms: u64::MAX - 1, reconnect_timeout_ms: u64::MAX };
        assert_eq!(detached.next(forever), Next::Stay);
    }
}
