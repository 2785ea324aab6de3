//! One hosted session's queue as the fan-out, the session task and the event writer share it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::id::SessionId;
use crate::gateway::fanout::session_queue::SessionQueue;

/// One session's queue, its lock and its bell.
///
/// Locks are taken in this order: fan-out, queue, the machine's view. None is held over an await.
#[derive(Debug)]
pub struct Outbox {
    session: SessionId,
    queue: Mutex<SessionQueue>,
    wake: Notify,
    /// When the fan-out rang first since the writer's last turn, in microseconds of the node's run;
    /// zero: it did not.
    rung_us: AtomicU64,
}

impl Outbox {
    /// Around a queue that nobody knows yet.
    #[must_use]
    pub fn new(session: SessionId, queue: SessionQueue) -> Self {
        Self { session, queue: Mutex::new(queue), wake: Notify::new(), rung_us: AtomicU64::new(0) }
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

    /// Tells the writer that a block has come, at this time.
    pub fn ring(&self, now_us: u64) {
        self.rung_us.store(now_us, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// When it was rung for the events that the writer has its turn for now.
    pub fn take_rung(&self) -> Option<u64> {
        match self.rung_us.swap(0, Ordering::Relaxed) {
            0 => None,
            rung_us => Some(rung_us),
        }
    }

    /// Waits for [`wake`](Self::wake); returns at once if it came since the last wait.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }
}
