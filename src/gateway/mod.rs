//! Client connections: the node's side of the client protocol.
//!
//! Requests come in on a session's control stream, become commands and go into the log; what comes
//! of them arrives as answers from the local apply. Events come from the journal: one fan-out task
//! pushes them to the sessions that are live, those that are behind read the journal by themselves,
//! and each session's writer has its own stream. Nothing here decides what a command does.
//!
//! ```text
//!  control stream ─► session task ─► translate, authorize ─► SessionProposer ─► log
//!        ▲               ▲  └─ change of interest ─► subscriber ─► queue, bulk stream
//!        └── answers ────┘
//!  journal ─► fan-out ─► session queues ─► event writers ─► event streams
//! ```
//!
//! | task | how many | ends with |
//! |---|---|---|
//! | listener | one | the gateway |
//! | fan-out | one | the gateway |
//! | session janitor | one | the gateway |
//! | client: handshake, then session task | per connection | its connection |
//! | event writer | per session that hears of something | its session task |
//! | bulk stream, read | as many as the limits allow | its work, or its connection |
//! | farewell | per session whose end the log must hear of | its work, or the gateway |

pub mod audience;
mod authorize;
pub mod batch;
mod bulk_stream;
#[cfg(test)]
mod delivery_model;
pub mod event_frames;
mod event_writer;
pub mod fanout;
mod fanout_task;
mod farewell;
mod fetch;
mod handshake;
mod hosting;
mod initial_values;
pub mod interest;
mod janitor;
mod journal_cursor;
mod listener;
pub mod outbox;
pub mod outgoing;
mod password;
mod pressure;
mod reads;
mod registry;
mod reply_code;
mod requests;
mod secret;
pub mod session_queue;
mod session_task;
mod status_json;
mod subscriber;
pub mod topic_walk;
mod translate;
mod translate_constraint;
pub mod turn;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::protocol::handshake::NodeAddress;
use crate::replication::Replication;
use crate::supervisor::Supervisor;
use crate::telemetry::event;
use crate::transport::Endpoint;

pub use secret::NoEntropy;
pub use status_json::status_json;

/// The gateway of a running node.
#[derive(Debug)]
pub struct Gateway {
    hosting: Arc<hosting::Hosting>,
    endpoint: Endpoint,
    supervisor: Supervisor,
}

impl Gateway {
    /// Opens for clients on `endpoint`. `supervisor` is the parent of the gateway's own group;
    /// `nodes` are the addresses that clients are told to try.
    ///
    /// # Errors
    /// [`NoEntropy`]: the operating system gave no random bytes.
    pub fn start(
        endpoint: Endpoint,
        replication: Replication,
        supervisor: &Supervisor,
        clock: Clock,
        nodes: watch::Receiver<Vec<NodeAddress>>,
    ) -> Result<Self, NoEntropy> {
        let supervisor = supervisor.group("gateway");
        let hosting = hosting::Hosting::new(replication, supervisor.clone(), clock, nodes)?;
        let hosting = Arc::new(hosting);
        let stop = || supervisor.stop_signal();
        supervisor.spawn("fan-out", fanout_task::run(Arc::clone(&hosting), stop()));
        supervisor.spawn("session janitor", janitor::run(Arc::clone(&hosting), stop()));
        let listener = listener::run(Arc::clone(&hosting), endpoint.clone(), stop());
        supervisor.spawn("client listener", listener);
        tracing::info!(
            event = event::CLIENTS_WELCOME,
            address = %endpoint.local_address(),
            "the listener for clients is open"
        );
        Ok(Self { hosting, endpoint, supervisor })
    }

    /// Where clients are listened for.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.endpoint.local_address()
    }

    /// Sessions that are connected here.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.hosting.registry.len()
    }

    /// Tells every client to go elsewhere and waits for their connections to end, for at most
    /// `patience`. Gives the names of tasks that outlived it.
    pub async fn stop(&self, patience: Duration) -> Vec<String> {
        self.endpoint.stop_listening();
        let left = self.supervisor.stop(patience).await;
        tracing::info!(event = event::CLIENTS_CLOSED, "the listener for clients is closed");
        left
    }
}
