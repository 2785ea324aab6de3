//! Reads without a session: what any node of a cluster that can be reached shows, with or without a
//! quorum.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::dial::{ClientEndpoint, Dialer};
use super::driver::{self, Backoff};
use crate::client::config::ClientConfig;
use crate::client::error::{AttemptFailed, ConnectFailed, RequestError};
use crate::client::outbox::read_refusal;
use crate::client::reading::{Fetched, fetched};
use crate::clock::Clock;
use crate::domain::selector::Selector;
use crate::protocol::handshake::Look;
use crate::protocol::read::{Answer, Fetch, Level, Query, Read, ReadReply};
use crate::protocol::{ClientMessage, VERSION};

/// How long an address is waited for before the next one is asked beside it.
const STAGGER: Duration = Duration::from_millis(150);

/// Looks at a cluster without opening a session. Each look is a connection of its own to the first
/// node that answers; what it shows is as new as that node, which may have lost its quorum:
/// [`Freshness`](crate::client::Freshness) says so.
#[derive(Debug, Clone)]
pub struct Onlooker {
    dialer: Dialer,
    config: ClientConfig,
}

/// Why a look showed nothing.
#[derive(Debug, thiserror::Error)]
pub enum LookFailed {
    /// No node answered.
    #[error(transparent)]
    Connect(#[from] ConnectFailed),
    /// A node answered otherwise.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl Onlooker {
    /// Looks with a client's settings.
    ///
    /// # Errors
    /// [`ConnectFailed`] if there is no address, no socket, or the certificates are of no use.
    pub fn new(config: ClientConfig) -> Result<Self, ConnectFailed> {
        if config.addresses.is_empty() {
            return Err(ConnectFailed::NoAddress);
        }
        let endpoint = ClientEndpoint::bind(&config.addresses)?;
        Ok(Self { dialer: Dialer::new(endpoint, &config)?, config })
    }

    /// The cluster as a node sees it, as JSON text.
    ///
    /// # Errors
    /// [`LookFailed`].
    pub async fn cluster_status(&self) -> Result<Bytes, LookFailed> {
        match self.read(Query::ClusterStatus).await?.answer {
            Answer::ClusterStatus { json } => Ok(json),
            _ => Err(RequestError::Mismatched.into()),
        }
    }

    /// Reads topics at the level `stale`; one page of them: `more` says that there are others.
    ///
    /// # Errors
    /// [`LookFailed`].
    pub async fn fetch(&self, fetch: Fetch) -> Result<Fetched, LookFailed> {
        Selector::parse(&fetch.selector).map_err(RequestError::from)?;
        Ok(fetched(self.read(Query::Fetch(fetch)).await?)?)
    }

    /// Rounds over the addresses until one answers.
    async fn read(&self, query: Query) -> Result<ReadReply, LookFailed> {
        let clock = Clock::system();
        let patience = self.config.patience.connect;
        let deadline = clock.now() + patience;
        let deadline_ms = u32::try_from(self.config.patience.attempt.as_millis() / 2).ok();
        let read = Read { level: Level::Stale, at_least: None, deadline_ms, query };
        let mut backoff = Backoff::default();
        loop {
            let failures = match self.round(&read).await {
                Ok(reply) => {
                    return match read_refusal(&reply.answer) {
                        Some((error, _)) => Err(error.into()),
                        None => Ok(reply),
                    };
                }
                Err(failures) => failures,
            };
            let refused =
                failures.iter().find(|failure| failure.code().is_some() && failure.is_final());
            if let Some(AttemptFailed::Refused { address, code, text, .. }) = refused {
                let (address, code, text) = (address.clone(), *code, text.clone());
                return Err(ConnectFailed::Refused { address, code, text }.into());
            }
            let hopeless = failures.iter().all(AttemptFailed::is_final);
            let last = driver::most_telling(failures);
            if hopeless {
                return Err(ConnectFailed::Unreachable { last }.into());
            }
            let pause = backoff.next();
            if clock.now() + pause >= deadline {
                let addresses = self.config.addresses.len();
                return Err(ConnectFailed::TimedOut { addresses, last }.into());
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks each address once, a new one beside the others after each [`STAGGER`].
    async fn round(&self, read: &Read) -> Result<ReadReply, Vec<AttemptFailed>> {
        let mut failures = Vec::new();
        let mut rest = self.config.addresses.iter();
        let mut asking = FuturesUnordered::new();
        asking.extend(rest.next().map(|address| self.ask(address, read)));
        loop {
            let more = rest.len() > 0;
            tokio::select! {
                Some(answered) = asking.next() => match answered {
                    Ok(reply) => return Ok(reply),
                    Err(failure) => {
                        failures.push(failure);
                        asking.extend(rest.next().map(|address| self.ask(address, read)));
                    }
                },
                () = tokio::time::sleep(STAGGER), if more => {
                    asking.extend(rest.next().map(|address| self.ask(address, read)));
                }
                else => return Err(failures),
            }
        }
    }

    async fn ask(&self, address: &str, read: &Read) -> Result<ReadReply, AttemptFailed> {
        let reached = self.dialer.reach(address, &self.config).await?;
        let look = ClientMessage::Look(Look {
            version: VERSION,
            client: self.config.name.clone(),
            credentials: self.config.credentials.clone(),
            read: read.clone(),
        });
        let mut frame = BytesMut::new();
        look.put(&mut frame);
        reached.look(frame.freeze(), self.config.patience.attempt).await
    }
}
