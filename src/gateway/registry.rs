//! Which sessions are connected to this node.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::domain::effect::SessionChange;
use crate::domain::id::{NodeId, SessionId};
use crate::entropy::HashMap;
use crate::protocol::ErrorCode;

/// The sessions whose connections this node holds.
#[derive(Debug)]
pub(super) struct Registry {
    node: NodeId,
    sessions: Mutex<HashMap<SessionId, Entry>>,
    sessions_max: usize,
}

#[derive(Debug)]
struct Entry {
    epoch: u32,
    /// Tells this entry from a later one of the same session.
    number: u64,
    end: watch::Sender<Option<Ending>>,
}

/// Why a connection is to end, and what becomes of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ending {
    /// What the client is told.
    pub(super) code: ErrorCode,
    /// When it may try again, in milliseconds.
    pub(super) retry_ms: u32,
    /// The session lives on elsewhere or has ended: nothing is to be proposed about it.
    pub(super) settled: bool,
}

/// One connection's place in the registry; it is given up when this is dropped.
#[derive(Debug)]
pub(super) struct Registration {
    registry: std::sync::Arc<Registry>,
    session: SessionId,
    number: u64,
    end: watch::Receiver<Option<Ending>>,
}

impl Registry {
    /// An empty registry of the node `node`.
    #[must_use]
    pub(super) fn new(node: NodeId, sessions_max: usize) -> Self {
        Self { node, sessions: Mutex::default(), sessions_max }
    }

    /// Sessions connected here.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// A connection of this session is here.
    pub(super) fn has(&self, session: SessionId) -> bool {
        self.lock().contains_key(&session)
    }

    /// The node holds as many sessions as it may.
    #[must_use]
    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.sessions_max
    }

    /// Registers a connection of a session; an earlier one of a lower epoch is told to end. None: a
    /// connection of this or a higher epoch is there already.
    #[must_use]
    pub(super) fn register(
        self: &std::sync::Arc<Self>,
        session: SessionId,
        epoch: u32,
    ) -> Option<Registration> {
        let (sender, end) = watch::channel(None);
        let mut sessions = self.lock();
        let mut number = 0;
        if let Some(earlier) = sessions.get(&session) {
            if earlier.epoch >= epoch {
                return None;
            }
            number = earlier.number + 1;
            earlier.end.send_replace(Some(Ending::taken_over()));
        }
        sessions.insert(session, Entry { epoch, number, end: sender });
        drop(sessions);
        Some(Registration { registry: std::sync::Arc::clone(self), session, number, end })
    }

    /// A session changed in the log: a connection here that no longer belongs is told to end.
    pub(super) fn changed(&self, session: SessionId, change: SessionChange) {
        let sessions = self.lock();
        let Some(entry) = sessions.get(&session) else { return };
        let ending = match change {
            SessionChange::Moved { host, epoch } | SessionChange::Opened { host, epoch } => {
                if epoch <= entry.epoch && host == self.node {
                    return;
                }
                Ending::taken_over()
            }
            SessionChange::Closed(reason) => Ending {
                code: crate::gateway::reply_code::close_reason(reason),
                retry_ms: 0,
                settled: true,
            },
            // The cluster took this node for lost. The client resumes by itself, here or elsewhere.
            SessionChange::Detached => {
                Ending { code: ErrorCode::Inquorate, retry_ms: 0, settled: true }
            }
        };
        entry.end.send_if_modified(|current| {
            current.is_none().then(|| *current = Some(ending)).is_some()
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Entry>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ending {
    fn taken_over() -> Self {
        Self { code: ErrorCode::TakenOver, retry_ms: 0, settled: true }
    }
}

impl Registration {
    /// Waits until the connection is told to end. Cancel-safe.
    pub(super) async fn ending(&mut self) -> Ending {
        loop {
            if let Some(ending) = *self.end.borrow_and_update() {
                return ending;
            }
            if self.end.changed().await.is_err() {
                // The entry was replaced, which says the same.
                return Ending::taken_over();
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut sessions = self.registry.lock();
        if sessions.get(&self.session).is_some_and(|entry| entry.number == self.number) {
            sessions.remove(&self.session);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::effect::CloseReason;

    const HERE: NodeId = NodeId(1);
    const SESSION: SessionId = SessionId(7);

    #[tokio::test]
    async fn a_later_connection_ends_the_earlier_one() {
        let registry = Arc::new(Registry::new(HERE, 2));
        let mut first = registry.register(SESSION, 1).unwrap();
        assert!(registry.register(SESSION, 1).is_none());
        let mut second = registry.register(SESSION, 2).unwrap();
        assert_eq!(first.ending().await, Ending::taken_over());
        drop(first);
        assert_eq!(registry.len(), 1);

        // News about the connection that is there already changes nothing.
        registry.changed(SESSION, SessionChange::Moved { host: HERE, epoch: 2 });
        assert!(second.end.borrow().is_none());
        registry.changed(SESSION, SessionChange::Moved { host: NodeId(2), epoch: 3 });
        assert_eq!(second.ending().await.code, ErrorCode::TakenOver);
        drop(second);
        assert_eq!(registry.len(), 0);
    }

    #[tokio::test]
    async fn the_end_of_a_session_ends_its_connection() {
        let registry = Arc::new(Registry::new(HERE, 1));
        for (change, code) in [
            (SessionChange::Closed(CloseReason::Expired), ErrorCode::Expired),
            (SessionChange::Closed(CloseReason::ByController), ErrorCode::ClosedByController),
            (SessionChange::Detached, ErrorCode::Inquorate),
        ] {
            let mut registration = registry.register(SESSION, 1).unwrap();
            assert!(registry.is_full());
            registry.changed(SessionId(8), change);
            registry.changed(SESSION, change);
            let ending = registration.ending().await;
            assert_eq!((ending.code, ending.settled), (code, true));
        }
        assert!(!registry.is_full());
    }
}
