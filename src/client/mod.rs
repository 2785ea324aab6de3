//! The client library: one session of a cluster, over whichever node can serve it.
//!
//! A [`Client`] connects to the first of several addresses that answers, and from then on keeps its
//! session going by itself: when a node dies, stops or loses its quorum, the client goes on with
//! another one, where it sends what is unanswered again under the same request numbers (so nothing
//! is lost or applied twice) and its streams of events go on where they had come to (so nothing is
//! missing or repeated). The program notices a pause, and a [`Event::Moved`] if it cares.
//!
//! ```no_run
//! use quorate::client::{Client, ClientConfig, Event, Value};
//! use quorate::domain::topic::path::TopicPath;
//! use quorate::domain::topic::specification::{Specification, TopicType};
//! use quorate::transport::tls::Authority;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let authority = Authority::load("ca.pem".as_ref())?;
//! let config = ClientConfig::new(["127.0.0.1:7400", "127.0.0.1:7410"], authority)
//!     .password("admin", "secret");
//! let client = Client::connect(config).await?;
//!
//! let path = TopicPath::parse("rooms/attic/temperature")?;
//! client.add_topic(&path, &Specification::plain(TopicType::Double)).await?;
//! let mut events = client.subscribe("?rooms/").await?;
//! client.set(&path, Value::Double(21.5)).await?;
//! while let Some(event) = events.next().await {
//!     if let Event::Value { position, topic, value, .. } = event {
//!         println!("{position} {} {value:?}", topic.path);
//!         break;
//!     }
//! }
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! **Many updates.** Each call lays its frame into one buffer that the connection sends as it can;
//! no call costs a task or a system call. [`Client::update`] waits for a place in the window and
//! gives a [`Pending`] to await; [`Client::publisher`] collects answers for programs that do not want
//! to hold a future for each of many thousands.
//!
//! **Time.** A command is never given up while its session lasts. A call that waits at most so long
//! says [`RequestError::OutcomeUnknown`] with the command's number when it stops waiting. When no
//! node can be reached for [`Patience::reconnect`], the session is over: every waiting call says so,
//! every stream ends, and [`Client::states`] tells why.

mod config;
mod connection;
mod deliveries;
mod error;
mod event;
mod outbox;
mod pending;
mod publisher;
mod reading;
mod shared;
mod update_stream;
mod value;
mod writing;

#[cfg(all(test, feature = "server"))]
mod tests;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

pub use config::{ClientConfig, Patience};
pub use connection::dial::ClientEndpoint;
pub use connection::look::{LookFailed, Onlooker};
pub use error::{AttemptFailed, ConnectFailed, RequestError, SessionEnded};
pub use event::{Event, EventStream, Topic};
pub use pending::{Acknowledgement, Answered, Detail, Pending};
pub use publisher::{Acknowledgements, Publisher};
pub use reading::{Fetched, FetchedTopic, Freshness, ReadOptions};
pub use shared::{ConnectionState, Statistics};
pub use update_stream::UpdateStream;
pub use value::Value;
pub use writing::{AddedTopic, SetTopic};

pub use crate::protocol::ErrorCode;
pub use crate::protocol::delivery::UnsubscribeReason;
pub use crate::protocol::handshake::{Credentials, NodeAddress, ResetReason, StartFrom};
pub use crate::protocol::read::{Bound as PathBound, Fetch, Level as ReadLevel};
pub use crate::protocol::record::Target;
pub use crate::protocol::topic::{ConstraintNode, JsonCondition, Operator, WireValue};

use connection::dial::Dialer;
use connection::driver::{self, Purpose, RoundFailed};
use deliveries::Sort;
use event::Guard;
use shared::{Shared, scope_of};

use crate::domain::id::{ClusterId, Index, Lineage, SessionId};
use crate::domain::selector::Selector;
use crate::protocol::command::ClientCommand;
use crate::supervisor::Supervisor;

/// A session of a cluster; clones share it. The session ends with [`close`](Self::close) or when
/// the last clone is dropped; streams of events alone do not keep it.
#[derive(Debug, Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop.send_replace(true);
    }
}

impl Client {
    /// Opens a session. All addresses are tried, again and again, until one welcomes the client.
    ///
    /// # Errors
    /// [`ConnectFailed`]: at once where another try would not help (wrong credentials, certificates
    /// that are not trusted), else when [`Patience::connect`] is over.
    pub async fn connect(config: ClientConfig) -> Result<Self, ConnectFailed> {
        let endpoint = ClientEndpoint::bind(&config.addresses)?;
        Self::connect_from(&endpoint, config).await
    }

    /// As [`connect`](Self::connect), from a socket that several clients share.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_from(
        endpoint: &ClientEndpoint,
        config: ClientConfig,
    ) -> Result<Self, ConnectFailed> {
        if config.addresses.is_empty() {
            return Err(ConnectFailed::NoAddress);
        }
        let dialer = Dialer::new(endpoint.clone(), &config)?;
        let welcomed = open(&dialer, &config).await?;
        let shared = Arc::new(Shared::new(config, &welcomed.link.welcome));
        let supervisor = Supervisor::new("client");
        // The task ends by itself with the session; nobody waits for it.
        drop(
            supervisor
                .spawn("client session", driver::drive(Arc::clone(&shared), dialer, welcomed.link)),
        );
        Ok(Self { handle: Arc::new(Handle { shared }) })
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// Waits for a command's answer; when the time is over it says why the node takes none, if the
    /// node has said so.
    async fn answer_of(&self, pending: Pending) -> Result<Answered, RequestError> {
        match pending.within(self.shared().config.patience.request).await {
            Err(RequestError::OutcomeUnknown { request, .. }) => {
                let parked = match &*self.shared().state.borrow() {
                    ConnectionState::Parked { code, .. } => Some(*code),
                    _ => None,
                };
                Err(RequestError::OutcomeUnknown { request, parked })
            }
            answer => answer,
        }
    }

    /// The session's identifier.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.shared().facts().session
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.shared().facts().cluster
    }

    /// The history that positions belong to, as the newest welcome told it.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        self.shared().facts().lineage
    }

    /// Name of the node that serves the session, or did last.
    #[must_use]
    pub fn node(&self) -> Arc<str> {
        Arc::clone(&self.shared().facts().node)
    }

    /// The cluster's nodes, as the newest welcome told them.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeAddress> {
        self.shared().facts().nodes.clone()
    }

    /// The highest index that the session was told of; reads are at least as new.
    #[must_use]
    pub fn seen(&self) -> Index {
        self.shared().outbox().seen()
    }

    /// Where the connection stands, now and from now on.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<ConnectionState> {
        self.shared().state.subscribe()
    }

    /// What the client has counted.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.shared().statistics()
    }

    /// Subscribes to the topics that `selector` matches, now and in future. The stream begins with
    /// the topics that exist and their values, then [`Event::Current`].
    ///
    /// Streams of one client whose selectors overlap each get every event.
    ///
    /// # Errors
    /// [`RequestError`]; [`RequestError::OutcomeUnknown`] after [`Patience::request`], the
    /// subscription is then given up.
    pub async fn subscribe(&self, selector: &str) -> Result<EventStream, RequestError> {
        let parsed = Arc::new(Selector::parse(selector)?);
        let stream = self.local_stream(Sort::Topics(parsed));
        let number = stream.guard.subscription;
        let command = ClientCommand::Select {
            scope: scope_of(number),
            selector: selector.to_owned(),
            select: true,
        };
        let pending = self.command(&command, Some(number)).await?;
        self.answer_of(pending).await?;
        Ok(stream)
    }

    /// Listens for topics being added and removed where `selector` matches. The stream begins with
    /// [`Event::Selected`] for the topics that exist.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub async fn listen(&self, selector: &str) -> Result<EventStream, RequestError> {
        Selector::parse(selector)?;
        let stream = self.local_stream(Sort::Listener);
        let command = ClientCommand::Listen {
            // Streams are counted from 1; a session does not make four milliards of them.
            listener: stream.guard.subscription as u32,
            selector: selector.to_owned(),
            select: true,
        };
        let pending = self.command(&command, Some(stream.guard.subscription)).await?;
        self.answer_of(pending).await?;
        Ok(stream)
    }

    fn local_stream(&self, sort: Sort) -> EventStream {
        let shared = Arc::clone(self.shared());
        let (sender, batches) = mpsc::channel(shared.config.event_batches.max(1));
        let subscription = shared.deliveries().subscribe(sort, sender);
        shared.to_deliver.notify_one();
        // Beats are owed from now on.
        shared.to_send.notify_one();
        let guard = Guard { shared, subscription };
        EventStream { batches, batch: Vec::new().into_iter(), guard }
    }

    /// Ends the session. Commands that were taken before are still sent, and their answers awaited
    /// for up to two seconds; await them first to be sure of them.
    pub async fn close(&self) {
        self.shared().stop.send_replace(true);
        let mut states = self.states();
        // The sender lives in `shared`.
        let _ = states.wait_for(|state| matches!(state, ConnectionState::Ended(_))).await;
    }
}

/// Rounds over the addresses until one gives a session.
async fn open(dialer: &Dialer, config: &ClientConfig) -> Result<driver::Welcomed, ConnectFailed> {
    let clock = crate::clock::Clock::system();
    let deadline = clock.now() + config.patience.connect;
    let mut backoff = driver::Backoff::default();
    loop {
        let tried = driver::round(dialer, config, &Purpose::Open, &config.addresses).await;
        let failures = match tried {
            Ok(welcomed) => return Ok(welcomed),
            Err(RoundFailed::All(failures)) => failures,
            // Only a session that exists can be over.
            Err(RoundFailed::Over(_)) => Vec::new(),
        };
        let refused =
            failures.iter().find(|failure| failure.code().is_some() && failure.is_final());
        if let Some(AttemptFailed::Refused { address, code, text, .. }) = refused {
            let (address, text) = (address.clone(), text.clone());
            return Err(ConnectFailed::Refused { address, code: *code, text });
        }
        let hopeless = failures.iter().all(AttemptFailed::is_final);
        let last = driver::most_telling(failures);
        if hopeless {
            return Err(ConnectFailed::Unreachable { last });
        }
        let pause = backoff.next();
        if clock.now() + pause >= deadline {
            return Err(ConnectFailed::TimedOut { addresses: config.addresses.len(), last });
        }
        tokio::time::sleep(pause).await;
    }
}
