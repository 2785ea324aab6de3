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

pub mod delivery;
mod entrance;
pub mod fanout;
mod farewell;
mod hosting;
mod janitor;
mod listener;
mod registry;
mod reply_code;
mod request;
mod session_task;
mod tolerance;

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

pub use entrance::NoEntropy;
pub use hosting::GatewayLimits;
pub use request::status_json;

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
        let limits = GatewayLimits::default();
        Self::start_with(endpoint, replication, supervisor, clock, nodes, limits)
    }

    /// As [`start`](Self::start), with other limits.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(
        endpoint: Endpoint,
        replication: Replication,
        supervisor: &Supervisor,
        clock: Clock,
        nodes: watch::Receiver<Vec<NodeAddress>>,
        limits: GatewayLimits,
    ) -> Result<Self, NoEntropy> {
        let supervisor = supervisor.group("gateway");
        let hosting = hosting::Hosting::new(replication, supervisor.clone(), clock, nodes, limits)?;
        let hosting = Arc::new(hosting);
        let stop = || supervisor.stop_signal();
        supervisor.spawn("fan-out", fanout::task::run(Arc::clone(&hosting), stop()));
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
