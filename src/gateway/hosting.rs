//! What all connections of this node share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::gateway::delivery::pressure::Pressure;
use crate::gateway::entrance::password::Passwords;
use crate::gateway::entrance::secret::NoEntropy;
use crate::gateway::fanout::Fanout;
use crate::gateway::registry::Registry;
use crate::protocol::handshake::{NODES_MAX, NodeAddress};
use crate::replication::Replication;
use crate::supervisor::Supervisor;

/// How many clients a node takes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayLimits {
    /// Sessions that the node serves; 20,000.
    pub sessions_max: usize,
    /// Handshakes under way, from the first stream to the welcome; 256.
    pub handshakes_max: usize,
    /// What a handshake may take, the opening or moving of the session included; 10 s.
    pub handshake_timeout: Duration,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            sessions_max: 20_000,
            handshakes_max: 256,
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

/// Bulk streams that are written at once, over all sessions.
pub(super) const BULK_STREAMS_MAX: usize = 64;
/// Large fetches that are evaluated at once, over all sessions.
pub(super) const FETCHES_MAX: usize = 2;
/// Fetches whose expressions may take milliseconds that are evaluated at once, over all sessions.
pub(super) const DEAR_FETCHES_MAX: usize = 1;
/// Reads of one session that may be unanswered.
pub(super) const READS_MAX: usize = 64;
/// What a read may take unless it says less.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that a session may outlive its connection.
pub(super) const RECONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Between two signs of life to a session with subscriptions.
pub(super) const BEAT: Duration = Duration::from_secs(2);
/// The shortest interval that a client may ask for instead.
pub(super) const BEAT_MIN: Duration = Duration::from_millis(250);
/// The longest.
pub(super) const BEAT_MAX: Duration = Duration::from_secs(60);

/// What all connections of this node share.
#[derive(Debug)]
pub(super) struct Hosting {
    /// Log, state and journal.
    pub(super) replication: Replication,
    /// Spawns every task of the gateway.
    pub(super) supervisor: Supervisor,
    /// Time.
    pub(super) clock: Clock,
    /// Who is connected.
    pub(super) registry: Arc<Registry>,
    /// Checks passwords.
    pub(super) passwords: Passwords,
    /// How busy the writers are.
    pub(super) pressure: Pressure,
    /// Permits for bulk streams.
    pub(super) bulk: Semaphore,
    /// Permits for large fetches.
    pub(super) fetches: Semaphore,
    /// Permits for fetches by dear selectors.
    pub(super) dear_fetches: Semaphore,
    /// Permits for handshakes.
    pub(super) handshakes: Semaphore,
    /// How many clients the node takes.
    pub(super) limits: GatewayLimits,
    /// Every node that a client may try.
    pub(super) nodes: watch::Receiver<Vec<NodeAddress>>,
    /// Numbers connections in log lines.
    pub(super) connections: AtomicU64,
    /// When the quorum was last lost from sight, in microseconds of the gateway's run; zero while it
    /// is in sight.
    quorum_lost_us: AtomicU64,
    fanout: Mutex<Fanout>,
    started: Instant,
}

impl Hosting {
    /// For a node whose journal is read from here on.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub(super) fn new(
        replication: Replication,
        supervisor: Supervisor,
        clock: Clock,
        nodes: watch::Receiver<Vec<NodeAddress>>,
        limits: GatewayLimits,
    ) -> Result<Self, NoEntropy> {
        let fanout = Fanout::new(replication.journal().applied_now());
        let registry = Arc::new(Registry::new(replication.member().id, limits.sessions_max));
        Ok(Self {
            replication,
            supervisor,
            clock,
            registry,
            passwords: Passwords::new(clock)?,
            pressure: Pressure::default(),
            bulk: Semaphore::new(BULK_STREAMS_MAX),
            fetches: Semaphore::new(FETCHES_MAX),
            dear_fetches: Semaphore::new(DEAR_FETCHES_MAX),
            handshakes: Semaphore::new(limits.handshakes_max),
            limits,
            nodes,
            connections: AtomicU64::new(0),
            quorum_lost_us: AtomicU64::new(0),
            fanout: Mutex::new(fanout),
            started: clock.now(),
        })
    }

    /// The fan-out; for a moment only, and before any queue.
    pub(super) fn fanout(&self) -> MutexGuard<'_, Fanout> {
        // A panic in a task ends the node; what could be seen then is served no more.
        self.fanout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Microseconds since the gateway began, never zero.
    #[must_use]
    pub(super) fn now_us(&self) -> u64 {
        let run = self.clock.since(self.started).as_micros();
        u64::try_from(run).unwrap_or(u64::MAX).max(1)
    }

    /// The quorum has come into sight or has gone out of it.
    pub(super) fn note_quorum(&self, quorate: bool) {
        let lost_us = if quorate { 0 } else { self.now_us() };
        self.quorum_lost_us.store(lost_us, Ordering::Relaxed);
    }

    /// Milliseconds since the node was last sure to be current; zero while it sees the quorum.
    #[must_use]
    pub(super) fn age_ms(&self) -> u64 {
        match self.quorum_lost_us.load(Ordering::Relaxed) {
            0 => 0,
            lost_us => self.now_us().saturating_sub(lost_us) / 1_000,
        }
    }

    /// Every node that a client may try, as many as a message names.
    #[must_use]
    pub(super) fn node_addresses(&self) -> Vec<NodeAddress> {
        self.nodes.borrow().iter().take(NODES_MAX).cloned().collect()
    }
}
