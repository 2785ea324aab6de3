//! Answers on their way: who waits for one, and how it reaches him.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::error::{RequestError, SessionEnded};
use crate::domain::id::{Index, StreamId, TopicId};

/// A command that was applied, or refused by the cluster, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Where the command stands in the log.
    pub index: Index,
    /// What it did.
    pub detail: Detail,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detail {
    /// What it was asked to.
    Done,
    /// Nothing: the value was the topic's already. Acknowledged, not published.
    Unchanged,
    /// It added, opened or set this topic.
    Topic {
        /// Its identifier.
        topic: TopicId,
        /// False: it was there before.
        created: bool,
    },
    /// It opened this update stream.
    Stream {
        /// Names the stream.
        stream: StreamId,
        /// The topic that it writes.
        topic: TopicId,
        /// False: the topic was there before.
        created: bool,
    },
    /// It removed one page of topics.
    Removed {
        /// How many.
        count: u32,
        /// Where the next page starts.
        next: Option<String>,
    },
}

/// A command on its way; await it for its outcome.
///
/// Dropping it gives up the wait, not the command. It resolves when the command is answered or the
/// session ends, however long that takes; [`within`](Self::within) bounds the wait.
#[derive(Debug)]
#[must_use = "a command's outcome is known only when its pending answer is awaited"]
pub struct Pending {
    pub(super) request: u64,
    pub(super) answer: oneshot::Receiver<Result<Answered, RequestError>>,
}

impl Pending {
    /// The command's request number in its session.
    #[must_use]
    pub fn request(&self) -> u64 {
        self.request
    }

    /// Waits for at most `patience`.
    ///
    /// # Errors
    /// As awaiting it; [`RequestError::OutcomeUnknown`] when the time is over. The library goes on
    /// with the command.
    pub async fn within(self, patience: Duration) -> Result<Answered, RequestError> {
        let request = self.request;
        match tokio::time::timeout(patience, self).await {
            Ok(answer) => answer,
            Err(_) => Err(RequestError::OutcomeUnknown { request, parked: None }),
        }
    }
}

impl Future for Pending {
    type Output = Result<Answered, RequestError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let request = self.request;
        Pin::new(&mut self.answer).poll(context).map(|received| match received {
            Ok(answer) => answer,
            // Every waiter is answered when a session ends; only a fault drops one unanswered.
            Err(_) => Err(RequestError::SessionEndedMeanwhile {
                request,
                reason: Arc::new(SessionEnded::Lost),
            }),
        })
    }
}

/// One answer out of many, for callers that collect them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// What the caller sent the update with.
    pub tag: u64,
    /// The command's request number.
    pub request: u64,
    /// Its outcome.
    pub outcome: Result<Answered, RequestError>,
}

/// Collected answers that nobody has taken yet. Bounded by its publisher's window: an answer gives
/// its place back only when it is taken.
#[derive(Debug, Default)]
pub(super) struct Collector {
    answers: Mutex<Vec<Acknowledgement>>,
    arrived: Notify,
}

impl Collector {
    fn lock(&self) -> MutexGuard<'_, Vec<Acknowledgement>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves all that has arrived to the end of `into`; returns how many there were.
    pub(super) fn take(&self, into: &mut Vec<Acknowledgement>) -> usize {
        let mut answers = self.lock();
        let count = answers.len();
        into.append(&mut answers);
        count
    }

    /// Waits until something has arrived. Cancel-safe.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }
}

/// Who waits for an answer.
#[derive(Debug)]
pub(super) enum Waiter {
    /// One caller.
    One(oneshot::Sender<Result<Answered, RequestError>>),
    /// A collector, under the caller's tag.
    Collector(Arc<Collector>, u64),
}

/// Answers found under the outbox's lock, to be handed out after it.
#[derive(Debug, Default)]
pub(super) struct Completions {
    found: Vec<(Waiter, u64, Result<Answered, RequestError>)>,
}

impl Completions {
    pub(super) fn push(
        &mut self,
        waiter: Waiter,
        request: u64,
        outcome: Result<Answered, RequestError>,
    ) {
        self.found.push((waiter, request, outcome));
    }

    /// Wakes everybody; one lock and one wake-up for each run of answers to the same collector.
    pub(super) fn deliver(&mut self) {
        let mut found = self.found.drain(..).peekable();
        while let Some((waiter, request, outcome)) = found.next() {
            match waiter {
                // A caller that has gone away wants no answer.
                Waiter::One(sender) => drop(sender.send(outcome)),
                Waiter::Collector(collector, tag) => {
                    let mut answers = collector.lock();
                    answers.push(Acknowledgement { tag, request, outcome });
                    while let Some((Waiter::Collector(_, tag), request, outcome)) = found.next_if(
                        |(next, ..)| matches!(next, Waiter::Collector(other, _) if Arc::ptr_eq(other, &collector)),
                    ) {
                        answers.push(Acknowledgement { tag, request, outcome });
                    }
                    drop(answers);
                    collector.arrived.notify_one();
                }
            }
        }
    }
}
