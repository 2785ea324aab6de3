//! One hosted session's queue as the fan-out, the session task and the event writer share it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::session_queue::SessionQueue;
use crate::domain::id::SessionId;

/// One session's queue, its lock and its bell.
///
/// Locks are taken in this order: fan-out, queue, the machine's view. None is held over an await.
#[derive(Debug)]
pub struct Outbox {
    session: SessionId,
    queue: Mutex<SessionQueue>,
    wake: Notify,
}

impl Outbox {
    /// Around a queue that nobody knows yet.
    #[must_use]
    pub fn new(session: SessionId, queue: SessionQueue) -> Self {
        Self { session, queue: Mutex::new(queue), wake: Notify::new() }
    }

    /// Whose it is.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The queue; for a moment only.
    pub fn lock(&self) -> MutexGuard<'_, SessionQueue> {
        // No code that can leave the queue half changed panics.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the writer that there is something to do.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits for [`wake`](Self::wake); returns at once if it came since the last wait.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }
}
