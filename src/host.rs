//! The machines of a simulated world: which of them the running code is on.
//!
//! In the product there are none, and everything here comes down to one look at an empty place. In
//! a simulated run each node and each client lives on a [`Host`]; what it spawns is spawned there
//! too. A host can lose its power (its tasks are never polled again, and then dropped) and can be
//! paused (its tasks are polled again later, while time goes on). Work that would go to a thread is
//! done in place instead, and the network knows by the host who it is that dials.

use std::cell::RefCell;
use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::AbortHandle;

thread_local! {
    static CURRENT: RefCell<Option<Host>> = const { RefCell::new(None) };
}

/// Handles of tasks from which on those of ended tasks are forgotten.
const TASKS_SWEPT_AT: usize = 1_024;

/// A machine of a simulated world; clones are the same machine.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    address: IpAddr,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    power: Power,
    /// Tasks that were to be polled while the host was paused.
    waiting: Vec<Waker>,
    tasks: Vec<AbortHandle>,
    swept_at: usize,
    /// What one step of work on a thread takes, at least and at most.
    step: (Duration, Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Power {
    #[default]
    On,
    Paused,
    Off,
}

impl Host {
    /// A machine that is on. After a loss of power a new one takes its place.
    #[must_use]
    pub fn new(name: impl Into<String>, address: IpAddr) -> Self {
        let state = State { swept_at: TASKS_SWEPT_AT, ..State::default() };
        let inner = Inner { name: name.into(), address, state: Mutex::new(state) };
        Self { inner: Arc::new(inner) }
    }

    /// The host that the running task is on; none outside of simulated runs.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Where it is in the simulated network.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.inner.address
    }

    /// Whether it has not lost its power.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.state().power != Power::Off
    }

    /// Whether its tasks are polled.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.state().power == Power::On
    }

    /// Runs something on this host that does not wait.
    pub fn enter<T>(&self, run: impl FnOnce() -> T) -> T {
        let _there = Entered::on(Some(self.clone()));
        run()
    }

    /// A future that runs on this host.
    pub fn attach<F: Future>(&self, future: F) -> Attached<Pin<Box<F>>> {
        Attached { host: Some(self.clone()), future: Box::pin(future) }
    }

    /// Takes the power away for good: nothing runs here any more, and what ran is dropped.
    pub fn lose_power(&self) {
        let (tasks, waiting) = {
            let mut state = self.state();
            state.power = Power::Off;
            (std::mem::take(&mut state.tasks), std::mem::take(&mut state.waiting))
        };
        drop(waiting);
        for task in tasks {
            task.abort();
        }
    }

    /// Stops polling the tasks of this host until [`resume`](Self::resume).
    pub fn pause(&self) {
        let mut state = self.state();
        if state.power == Power::On {
            state.power = Power::Paused;
        }
    }

    /// Goes on after a pause.
    pub fn resume(&self) {
        let waiting = {
            let mut state = self.state();
            if state.power == Power::Paused {
                state.power = Power::On;
            }
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Sets what one step of work on a thread takes, such as a flush, at least and at most.
    pub fn set_step_time(&self, least: Duration, most: Duration) {
        self.state().step = (least, most);
    }

    /// What the next step of work on a thread takes.
    #[must_use]
    pub fn step_time(&self) -> Duration {
        let (least, most) = self.state().step;
        let spread = u64::try_from(most.saturating_sub(least).as_millis()).unwrap_or(u64::MAX);
        // Only a seeded thread has hosts, and its randomness does not end.
        let drawn = crate::entropy::number().unwrap_or(0) % spread.saturating_add(1);
        least + Duration::from_millis(drawn)
    }

    /// Remembers a task that ends with the host's power.
    pub fn owns(&self, task: AbortHandle) {
        let mut state = self.state();
        if state.power == Power::Off {
            task.abort();
            return;
        }
        if state.tasks.len() >= state.swept_at {
            state.tasks.retain(|task| !task.is_finished());
            state.swept_at = (2 * state.tasks.len()).max(TASKS_SWEPT_AT);
        }
        state.tasks.push(task);
    }

    /// Whether a task may run now; if not, it is woken when the host goes on.
    fn admits(&self, waker: &Waker) -> bool {
        let mut state = self.state();
        match state.power {
            Power::On => true,
            Power::Paused => {
                state.waiting.push(waker.clone());
                false
            }
            Power::Off => false,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Host({} {})", self.inner.name, self.inner.address)
    }
}

/// A future that runs on the host that the caller is on, if any. It can be moved: whoever spawns has
/// boxed it once, and once is enough.
pub fn attach<F: Future + Unpin>(future: F) -> Attached<F> {
    Attached { host: Host::current(), future }
}

/// A future on a host.
pub struct Attached<F> {
    host: Option<Host>,
    future: F,
}

impl<F: Future + Unpin> Future for Attached<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let future = Pin::new(&mut this.future);
        let Some(host) = &this.host else { return future.poll(context) };
        if !host.admits(context.waker()) {
            return Poll::Pending;
        }
        let _there = Entered::on(Some(host.clone()));
        future.poll(context)
    }
}

/// The host before this one is current again when this is dropped, also by a panic.
struct Entered {
    before: Option<Host>,
}

impl Entered {
    fn on(host: Option<Host>) -> Self {
        Self { before: CURRENT.replace(host) }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.before.take());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn counting(host: &Host) -> Arc<AtomicU32> {
        let count = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&count);
        let body = host.attach(async move {
            loop {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        #[expect(clippy::disallowed_methods, reason = "the supervisor stands on this module")]
        host.owns(tokio::spawn(body).abort_handle());
        count
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_host_goes_on_later_and_one_without_power_never() {
        let host = Host::new("h", [10, 0, 0, 1].into());
        let count = counting(&host);
        tokio::time::sleep(Duration::from_millis(95)).await;
        assert_eq!(count.load(Ordering::Relaxed), 10);
        host.pause();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(count.load(Ordering::Relaxed), 10);
        host.resume();
        tokio::time::sleep(Duration::from_millis(95)).await;
        assert_eq!(count.load(Ordering::Relaxed), 20);
        host.lose_power();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(count.load(Ordering::Relaxed), 20);
        assert_eq!(Arc::strong_count(&count), 1, "what ran is dropped");
        assert!(Host::current().is_none());
    }
}
