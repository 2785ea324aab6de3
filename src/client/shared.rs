//! What the handles of a client and its task share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore, watch};

use super::config::ClientConfig;
use super::deliveries::{Deliveries, Sort};
use super::error::SessionEnded;
use super::outbox::Outbox;
use super::pending::Completions;
use crate::clock::Clock;
use crate::domain::id::{ClusterId, Lineage, SessionId};
use crate::protocol::ErrorCode;
use crate::protocol::command::ClientCommand;
use crate::protocol::handshake::{NodeAddress, SECRET_BYTES, SessionLimits, Verdict, Welcome};

/// Commands that clean up after dropped streams and wait for a place in the window; over it the
/// oldest is left undone until the session ends.
const CLEANUPS_MAX: usize = 1_024;

/// Where the client's connection stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionState {
    /// A node serves the session.
    Connected {
        /// Its name.
        node: Arc<str>,
    },
    /// The node takes no commands for now; they wait, here or on the way to another node.
    Parked {
        /// Its name.
        node: Arc<str>,
        /// Why: it has lost its quorum and answers only `stale` reads, or its disk is full.
        code: ErrorCode,
    },
    /// No node serves the session; the addresses are tried in turn.
    Reconnecting,
    /// The session is over.
    Ended(Arc<SessionEnded>),
}

/// What a client has counted since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Connections that took the session over from another one.
    pub reconnects: u64,
    /// Times that a node shed commands.
    pub sheds: u64,
    /// Times that a silent node was raced against another address.
    pub races: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) reconnects: AtomicU64,
    pub(super) sheds: AtomicU64,
    pub(super) races: AtomicU64,
}

/// What the newest welcome told.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) session: SessionId,
    pub(super) cluster: ClusterId,
    pub(super) lineage: Lineage,
    pub(super) node: Arc<str>,
    pub(super) nodes: Vec<NodeAddress>,
    pub(super) limits: SessionLimits,
    /// The newest secret, and the one before it: a move that was given up may have been carried
    /// out after all, and then the older one is what the cluster still takes.
    pub(super) secrets: [[u8; SECRET_BYTES]; 2],
    /// Secrets that were refused since the newest welcome.
    refused: u8,
}

impl Facts {
    pub(super) fn new(welcome: &Welcome) -> Self {
        Self {
            session: welcome.session,
            cluster: welcome.cluster,
            lineage: welcome.lineage,
            node: welcome.node.as_str().into(),
            nodes: welcome.nodes.clone(),
            limits: welcome.limits,
            secrets: [welcome.secret; 2],
            refused: 0,
        }
    }

    pub(super) fn renew(&mut self, welcome: &Welcome, shown: [u8; SECRET_BYTES]) {
        *self = Self { secrets: [welcome.secret, shown], ..Self::new(welcome) };
    }

    /// The secret that was shown is refused: shows the other one next. False if that was it.
    pub(super) fn turn_secrets(&mut self) -> bool {
        let [newest, older] = &self.secrets;
        let another = self.refused == 0 && newest != older;
        self.refused += 1;
        self.secrets.swap(0, 1);
        another
    }
}

pub(super) struct Shared {
    pub(super) config: ClientConfig,
    pub(super) clock: Clock,
    pub(super) outbox: Mutex<Outbox>,
    pub(super) deliveries: Mutex<Deliveries>,
    pub(super) facts: Mutex<Facts>,
    cleanups: Mutex<Vec<ClientCommand>>,
    /// Places for unanswered commands.
    pub(super) window: Semaphore,
    /// All of them.
    pub(super) window_places: u32,
    /// Places for unanswered reads.
    pub(super) reads: Semaphore,
    /// The outbox has something to send.
    pub(super) to_send: Notify,
    /// The deliveries have something for a local stream.
    pub(super) to_deliver: Notify,
    pub(super) state: watch::Sender<ConnectionState>,
    /// The client is to end.
    pub(super) stop: watch::Sender<bool>,
    pub(super) counters: Counters,
    /// A hello has told another node how far the session has come.
    moving: watch::Sender<bool>,
}

/// While it lives, nothing is taken from and nothing numbered is sent over the connection that stands.
#[derive(Debug)]
pub(super) struct Stillness<'a>(&'a watch::Sender<bool>);

impl Drop for Stillness<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Client")
            .field("session", &self.facts().session)
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere must not become one in the caller's program.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(config: ClientConfig, welcome: &Welcome) -> Self {
        let facts = Facts::new(welcome);
        let places = config.window.clamp(1, facts.limits.in_flight_max.max(1));
        let reads = facts.limits.reads_max.clamp(1, 1_024);
        let from = config.from.map(|from| from.position);
        let mut deliveries = Deliveries::new(config.retain_values, facts.lineage, from);
        if let Verdict::Reset { reason, position } = welcome.verdict {
            deliveries.refuse_start(position, reason);
        }
        Self {
            outbox: Mutex::new(Outbox::new()),
            deliveries: Mutex::new(deliveries),
            cleanups: Mutex::default(),
            window: Semaphore::new(places as usize),
            window_places: places,
            reads: Semaphore::new(reads as usize),
            to_send: Notify::new(),
            to_deliver: Notify::new(),
            state: watch::Sender::new(ConnectionState::Connected { node: Arc::clone(&facts.node) }),
            stop: watch::Sender::new(false),
            counters: Counters::default(),
            moving: watch::Sender::new(false),
            facts: Mutex::new(facts),
            clock: Clock::system(),
            config,
        }
    }

    pub(super) fn outbox(&self) -> MutexGuard<'_, Outbox> {
        lock(&self.outbox)
    }

    pub(super) fn deliveries(&self) -> MutexGuard<'_, Deliveries> {
        lock(&self.deliveries)
    }

    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        lock(&self.facts)
    }

    /// Keeps what the session has been told as it is.
    pub(super) fn hold_still(&self) -> Stillness<'_> {
        self.moving.send_replace(true);
        Stillness(&self.moving)
    }

    /// Waits while the session holds still.
    pub(super) async fn not_still(&self) {
        if *self.moving.borrow() {
            // The sender lives as long as this.
            let _ = self.moving.subscribe().wait_for(|moving| !moving).await;
        }
    }

    pub(super) fn statistics(&self) -> Statistics {
        Statistics {
            reconnects: self.counters.reconnects.load(Ordering::Relaxed),
            sheds: self.counters.sheds.load(Ordering::Relaxed),
            races: self.counters.races.load(Ordering::Relaxed),
        }
    }

    pub(super) fn ended(&self) -> Option<Arc<SessionEnded>> {
        match &*self.state.borrow() {
            ConnectionState::Ended(reason) => Some(Arc::clone(reason)),
            _ => None,
        }
    }

    /// Ends a local stream of events and, when there is room, what the cluster keeps for it.
    pub(super) fn unsubscribe(&self, subscription: u64) {
        let Some(sort) = self.deliveries().unsubscribe(subscription) else { return };
        let command = match sort {
            Sort::Topics(_) => ClientCommand::Select {
                scope: scope_of(subscription),
                selector: "?.*//".to_owned(),
                select: false,
            },
            Sort::Listener => ClientCommand::Unlisten { listener: subscription as u32 },
        };
        let mut cleanups = lock(&self.cleanups);
        if cleanups.len() < CLEANUPS_MAX {
            cleanups.push(command);
        }
        drop(cleanups);
        self.to_send.notify_one();
    }

    /// Takes a clean-up command if there is one; the caller has a place in the window for it.
    pub(super) fn take_cleanup(&self) -> Option<ClientCommand> {
        lock(&self.cleanups).pop()
    }

    pub(super) fn has_cleanups(&self) -> bool {
        !lock(&self.cleanups).is_empty()
    }

    /// The session is over: everybody who waits is told, every stream ends.
    pub(super) fn end(&self, reason: SessionEnded) {
        let reason = Arc::new(reason);
        let mut completions = Completions::default();
        self.outbox().end(&reason, &mut completions);
        self.state.send_replace(ConnectionState::Ended(Arc::clone(&reason)));
        self.deliveries().end();
        // Callers that wait for a place find the session over.
        self.window.close();
        self.reads.close();
        completions.deliver();
    }
}

/// The scope of the selections of one local stream of events.
pub(super) fn scope_of(subscription: u64) -> String {
    format!("stream-{subscription}")
}
