//! Many updates with little ado: answers are collected, not awaited one by one.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::Client;
use super::error::RequestError;
use super::pending::{Acknowledgement, Collector, Waiter};
use super::value::Value;
use crate::protocol::record::Target;

/// Sends updates whose answers arrive at the [`Acknowledgements`] that were made with it.
#[derive(Debug)]
pub struct Publisher {
    client: Client,
    collector: Arc<Collector>,
    /// Updates that may be unanswered or whose answers may not have been taken yet.
    window: Arc<Semaphore>,
}

/// The answers to the updates of one [`Publisher`].
#[derive(Debug)]
pub struct Acknowledgements {
    collector: Arc<Collector>,
    window: Arc<Semaphore>,
    window_max: usize,
}

impl Client {
    /// A pair to publish many updates with: at most `window` of them are unanswered, or answered
    /// and not taken yet. The session's own window holds beside it.
    ///
    /// ```no_run
    /// # use quorate::client::{Client, RequestError, Value};
    /// # use quorate::protocol::record::Target;
    /// # async fn example(client: Client, target: Target) -> Result<(), RequestError> {
    /// let (mut publisher, mut answers) = client.publisher(1_024);
    /// let mut taken = Vec::new();
    /// for number in 0..1_000_000 {
    ///     while publisher.is_full() {
    ///         answers.next_into(&mut taken).await;
    ///         for answer in taken.drain(..) {
    ///             answer.outcome?;
    ///         }
    ///     }
    ///     publisher.send(&target, Value::Int64(number), number as u64).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn publisher(&self, window: usize) -> (Publisher, Acknowledgements) {
        let window_max = window.clamp(1, Semaphore::MAX_PERMITS);
        let collector = Arc::new(Collector::default());
        let window = Arc::new(Semaphore::new(window_max));
        let publisher = Publisher {
            client: self.clone(),
            collector: Arc::clone(&collector),
            window: Arc::clone(&window),
        };
        (publisher, Acknowledgements { collector, window, window_max })
    }
}

impl Publisher {
    /// A send would wait for answers to be taken.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.window.available_permits() == 0
    }

    /// Sends an update under the caller's own `tag`; waits only for a place in the windows. Returns
    /// the request number.
    ///
    /// # Errors
    /// [`RequestError`] if the value is too large or the session is over; nothing was sent then.
    pub async fn send(
        &mut self,
        target: &Target,
        value: Value<'_>,
        tag: u64,
    ) -> Result<u64, RequestError> {
        let weight = self.client.admit_value(&value)?;
        let Ok(own) = self.window.acquire().await else { return Err(self.client.shared().over()) };
        self.client.shared().place(weight).await?;
        let waiter = Waiter::Collector(Arc::clone(&self.collector), tag);
        let request = self.client.lay_update(target, &value, weight, waiter)?;
        own.forget();
        Ok(request)
    }

    /// As [`send`](Self::send), without waiting.
    ///
    /// # Errors
    /// [`RequestError::WindowFull`] where `send` would wait; else as it.
    pub fn try_send(
        &mut self,
        target: &Target,
        value: Value<'_>,
        tag: u64,
    ) -> Result<u64, RequestError> {
        let weight = self.client.admit_value(&value)?;
        let Ok(own) = self.window.try_acquire() else { return Err(RequestError::WindowFull) };
        self.client.shared().try_place(weight)?;
        let waiter = Waiter::Collector(Arc::clone(&self.collector), tag);
        let request = self.client.lay_update(target, &value, weight, waiter)?;
        own.forget();
        Ok(request)
    }
}

impl Acknowledgements {
    /// Waits until answers have arrived and moves all of them to the end of `into`. Every update
    /// that was sent is answered once, when the session ends at the latest. Cancel-safe.
    pub async fn next_into(&mut self, into: &mut Vec<Acknowledgement>) {
        while self.take_into(into) == 0 {
            self.collector.arrived().await;
        }
    }

    /// Moves the answers that have arrived to the end of `into`; how many there were.
    pub fn take_into(&mut self, into: &mut Vec<Acknowledgement>) -> usize {
        let count = self.collector.take(into);
        self.window.add_permits(count);
        count
    }

    /// Updates that are unanswered, or answered and not taken yet.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.window_max - self.window.available_permits().min(self.window_max)
    }
}
