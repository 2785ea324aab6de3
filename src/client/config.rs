//! What a client is made with.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::protocol::handshake::{Credentials, StartFrom};
use crate::transport::tls::{Authority, Identity};

/// Everything that a client is made with; `new` gives the defaults.
///
/// ```no_run
/// # use quorate::client::ClientConfig;
/// # use quorate::transport::tls::Authority;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let authority = Authority::load("ca.pem".as_ref())?;
/// let config = ClientConfig::new(["127.0.0.1:7400", "127.0.0.1:7410"], authority)
///     .password("admin", "secret");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Nodes to try, as `host:port`, the first one first. The client learns the others from the
    /// node that welcomes it.
    pub addresses: Vec<String>,
    /// Whom to believe.
    pub authority: Authority,
    /// A certificate to show, if any.
    pub identity: Option<Identity>,
    /// Who asks.
    pub credentials: Credentials,
    /// Name and version of the program, for people.
    pub name: String,
    /// Proposed user properties of the session.
    pub properties: BTreeMap<String, String>,
    /// Where a new session's events start; none: with the values at its first selection.
    pub from: Option<StartFrom>,
    /// Keep each subscribed topic's newest value, so that a later subscription to the same topics
    /// starts with it. Costs one copy of each value.
    pub retain_values: bool,
    /// Commands that may be unanswered; the node's own limit may be lower. Large values weigh more.
    pub window: u32,
    /// Batches, of up to 256 events or 256 KiB, that a stream of events holds before its events wait.
    pub event_batches: usize,
    /// How patient the client is.
    pub patience: Patience,
}

/// How patient a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For the first session: how long all addresses are tried. 10 s.
    pub connect: Duration,
    /// How long a lost session's nodes are tried again, and how long the session outlives its
    /// connection in the cluster. 60 s.
    pub reconnect: Duration,
    /// How long calls that wait for an outcome or an answer wait. 10 s.
    pub request: Duration,
    /// A node that leaves a request unanswered for so long without a sign of life is raced against
    /// the next address. 250 ms; on slow networks at least four round trips.
    pub unanswered: Duration,
    /// The wanted interval between a node's beats while there are subscriptions. 2 s.
    pub beat: Duration,
    /// A node without any sign of life for so long, while one was due, is given up even if no other
    /// can be reached. 5 s.
    pub dead: Duration,
    /// How long one attempt at one address may take. 3 s.
    pub attempt: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            reconnect: Duration::from_secs(60),
            request: Duration::from_secs(10),
            unanswered: Duration::from_millis(250),
            beat: Duration::from_secs(2),
            dead: Duration::from_secs(5),
            attempt: Duration::from_secs(3),
        }
    }
}

impl ClientConfig {
    /// An anonymous client of these nodes, everything else at its default.
    pub fn new<A: Into<String>>(
        addresses: impl IntoIterator<Item = A>,
        authority: Authority,
    ) -> Self {
        Self {
            addresses: addresses.into_iter().map(Into::into).collect(),
            authority,
            identity: None,
            credentials: Credentials::Anonymous,
            name: concat!("quorate/", env!("CARGO_PKG_VERSION")).to_owned(),
            properties: BTreeMap::new(),
            from: None,
            retain_values: true,
            window: 1_024,
            event_batches: 16,
            patience: Patience::default(),
        }
    }

    /// With a principal and its password.
    #[must_use]
    pub fn password(self, principal: impl Into<String>, password: impl Into<String>) -> Self {
        let (principal, password) = (principal.into(), password.into());
        Self { credentials: Credentials::Password { principal, password }, ..self }
    }

    /// With a certificate of the client's own.
    #[must_use]
    pub fn identity(self, identity: Identity) -> Self {
        Self { identity: Some(identity), ..self }
    }

    /// With events from a past position on, instead of present values.
    #[must_use]
    pub fn from(self, from: StartFrom) -> Self {
        Self { from: Some(from), ..self }
    }

    /// With other waiting times.
    #[must_use]
    pub fn patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }
}
