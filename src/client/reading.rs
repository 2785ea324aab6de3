//! Reads of a client: fetch, ping, session, cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Client;
use super::error::RequestError;
use super::outbox::read_refusal;
use super::shared::Shared;
use crate::domain::id::{Index, TopicId};
use crate::domain::selector::Selector;
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::specification::TopicType;
use crate::protocol::read::{Answer, Fetch, Level, Query, Read, ReadReply, SessionInfo};

/// The pause before a refused read is sent again, at most.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// How new an answer has to be, and how long to wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadOptions {
    /// How new.
    pub level: Level,
    /// How long to wait; none: [`Patience::request`](super::Patience::request).
    pub deadline: Option<Duration>,
}

impl From<Level> for ReadOptions {
    fn from(level: Level) -> Self {
        Self { level, deadline: None }
    }
}

/// How new an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// The state that was read had applied everything up to this index.
    pub index: Index,
    /// How long ago the node was last sure to be current.
    pub age: Duration,
    /// The node had no quorum.
    pub stale: bool,
}

/// The result of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// In path order.
    pub topics: Vec<FetchedTopic>,
    /// The result was cut by a limit; fetch again from after the last path.
    pub more: bool,
    /// How new it is.
    pub freshness: Freshness,
}

/// One topic of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedTopic {
    /// Where it stands.
    pub path: TopicPath,
    /// Its identifier.
    pub topic: TopicId,
    /// Its type; none is one that this version does not know.
    pub topic_type: Option<TopicType>,
    /// Its properties, if they were asked for.
    pub properties: BTreeMap<String, String>,
    /// Its value, if it has one and values were asked for.
    pub value: Option<Bytes>,
    /// The command that set the value.
    pub version: Option<Index>,
    /// Bytes of the value, if it has one and sizes were asked for.
    pub size: Option<u64>,
}

impl Client {
    /// Reads topics.
    ///
    /// ```no_run
    /// # use quorate::client::{Client, RequestError};
    /// # use quorate::protocol::read::{Fetch, Level};
    /// # async fn example(client: Client) -> Result<(), RequestError> {
    /// let fetch = Fetch { selector: "?rooms//".into(), values: Some(0), ..Fetch::default() };
    /// for topic in client.fetch(fetch, Level::Linearizable).await?.topics {
    ///     println!("{} {:?}", topic.path, topic.value);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RequestError`]; a refusal that is worth another try is tried again until the deadline.
    pub async fn fetch(
        &self,
        fetch: Fetch,
        options: impl Into<ReadOptions>,
    ) -> Result<Fetched, RequestError> {
        Selector::parse(&fetch.selector)?;
        fetched(self.read(Query::Fetch(fetch), options.into()).await?)
    }

    /// Asks the node for a sign of life; how new its state is.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn ping(&self, options: impl Into<ReadOptions>) -> Result<Freshness, RequestError> {
        let reply = self.read(Query::Ping, options.into()).await?;
        match reply.answer {
            Answer::Pong => Ok(freshness(&reply)),
            _ => Err(RequestError::Mismatched),
        }
    }

    /// The session as the cluster knows it.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn session_info(&self) -> Result<SessionInfo, RequestError> {
        match self.read(Query::SessionInfo, ReadOptions::default()).await?.answer {
            Answer::Session(session) => Ok(session),
            _ => Err(RequestError::Mismatched),
        }
    }

    /// The cluster as the node sees it, as JSON text. Answered without a quorum too.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn cluster_status(&self) -> Result<Bytes, RequestError> {
        match self.read(Query::ClusterStatus, Level::Stale.into()).await?.answer {
            Answer::ClusterStatus { json } => Ok(json),
            _ => Err(RequestError::Mismatched),
        }
    }

    /// Sends a read until it is answered otherwise than by a refusal that may pass.
    async fn read(&self, query: Query, options: ReadOptions) -> Result<ReadReply, RequestError> {
        let shared = self.shared();
        let patience = options.deadline.unwrap_or(shared.config.patience.request);
        let deadline_ms = u32::try_from(patience.as_millis()).ok();
        let mut refused = None;
        let tries = async {
            loop {
                let read = Read {
                    level: options.level,
                    at_least: Some(self.seen()),
                    deadline_ms,
                    query: query.clone(),
                };
                let reply = self.read_once(read).await?;
                let Some((error, retry)) = read_refusal(&reply.answer) else { return Ok(reply) };
                let Some(retry) = retry else { return Err(error) };
                refused = Some(error);
                tokio::time::sleep(retry.clamp(Duration::from_millis(1), RETRY_MAX)).await;
            }
        };
        match tokio::time::timeout(patience, tries).await {
            Ok(result) => result,
            Err(_) => Err(refused.unwrap_or(RequestError::ReadTimedOut)),
        }
    }

    async fn read_once(&self, read: Read) -> Result<ReadReply, RequestError> {
        let shared = self.shared();
        let place = shared.reads.acquire().await.map_err(|_| shared.over())?;
        let (sender, answer) = oneshot::channel();
        let correlation = shared.outbox().read(read, sender, shared.clock.now())?;
        shared.to_send.notify_one();
        // A caller that stops waiting leaves nothing behind.
        let _waiting = Waiting { shared, correlation };
        let answer = answer.await.unwrap_or_else(|_| Err(shared.over()));
        drop(place);
        answer
    }
}

/// The topics of a reply.
pub(super) fn fetched(reply: ReadReply) -> Result<Fetched, RequestError> {
    let freshness = freshness(&reply);
    let Answer::Rows { rows, more } = reply.answer else {
        return Err(RequestError::Mismatched);
    };
    let mut topics = Vec::with_capacity(rows.len());
    for row in rows {
        topics.push(FetchedTopic {
            path: TopicPath::parse(&row.path).map_err(|_| RequestError::Mismatched)?,
            topic: row.topic,
            topic_type: TopicType::from_code(row.specification.topic_type),
            properties: row.specification.properties,
            value: row.value,
            version: row.version,
            size: row.size,
        });
    }
    Ok(Fetched { topics, more, freshness })
}

struct Waiting<'a> {
    shared: &'a Shared,
    correlation: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.outbox().forget_read(self.correlation);
    }
}

fn freshness(reply: &ReadReply) -> Freshness {
    let age = Duration::from_millis(reply.age_ms);
    Freshness { index: reply.index, age, stale: reply.stale }
}
