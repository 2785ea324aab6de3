//! Tasks and threads with names, one stop signal, an ordered drain, and no silent death.
//!
//! The only place that spawns. A panic in any task or thread is caught, logged with the task's
//! name, and becomes the node's end with exit code 70: a part that died must not leave the rest
//! running as if nothing had happened. Parts that stop at different times live in groups: the
//! owner stops one group after the other, in the order that it needs.
//!
//! It knows nothing of what the tasks do. The client library uses it as well.

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt;
use futures::future::CatchUnwind;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use crate::host::{self, Host};
use crate::telemetry::event;

/// What is added to the `nice` value of a thread that gives way: a tenth of the time of one that does
/// not, when both want the same core.
#[cfg(feature = "server")]
const GIVES_WAY: i32 = 10;

/// The exit codes of the process, as the design's table gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExitCode(pub u8);

impl ExitCode {
    /// All went well.
    pub const DONE: Self = Self(0);
    /// The work failed.
    pub const FAILED: Self = Self(1);
    /// The command line or the configuration is wrong.
    pub const USAGE: Self = Self(2);
    /// No connection, or the credentials were refused.
    pub const CONNECTION: Self = Self(3);
    /// A deadline passed.
    pub const TIMED_OUT: Self = Self(4);
    /// A flush failed, or a part of the node panicked.
    pub const POISONED: Self = Self(70);
    /// Storage is damaged and may not be opened.
    pub const DAMAGED: Self = Self(73);
    /// The quorum was lost and the operator chose `shutdown`.
    pub const QUORUM_LOST: Self = Self(75);
    /// The node's name is in use, or the cluster is another one.
    pub const WRONG_CLUSTER: Self = Self(78);
}

/// Why the whole must end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// What the process exits with.
    pub code: ExitCode,
    /// One line for the operator.
    pub reason: String,
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (exit code {})", self.reason, self.code.0)
    }
}

/// The owner of a group of tasks and threads; clones share the group.
#[derive(Clone)]
pub struct Supervisor {
    group: Arc<Group>,
}

struct Group {
    name: Cow<'static, str>,
    stop: watch::Sender<bool>,
    /// Shared by all groups of a process: the first exit asked for.
    exit: Arc<watch::Sender<Option<Exit>>>,
    running: Mutex<Running>,
    /// Wakes whoever waits for the group to be empty.
    count: watch::Sender<usize>,
    next_id: AtomicU64,
}

/// What has been spawned and has not ended, so that a drain can name and abort it.
#[derive(Default)]
struct Running {
    entries: BTreeMap<u64, Entry>,
    /// Set when the group was stopped for good: what is spawned after that ends at once.
    closed: bool,
}

struct Entry {
    name: Cow<'static, str>,
    /// None for a thread, which cannot be aborted.
    abort: Option<AbortHandle>,
}

impl Supervisor {
    /// A root group with its own stop signal and its own exit request.
    #[must_use]
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self::with_exit(name.into(), Arc::new(watch::channel(None).0))
    }

    /// A group that is stopped on its own and shares the exit request. Stopping this group does
    /// not stop the other: the owner stops each, in its order.
    #[must_use]
    pub fn group(&self, name: impl Into<Cow<'static, str>>) -> Self {
        Self::with_exit(name.into(), Arc::clone(&self.group.exit))
    }

    fn with_exit(name: Cow<'static, str>, exit: Arc<watch::Sender<Option<Exit>>>) -> Self {
        Self {
            group: Arc::new(Group {
                name,
                stop: watch::channel(false).0,
                exit,
                running: Mutex::default(),
                count: watch::channel(0).0,
                next_id: AtomicU64::new(0),
            }),
        }
    }

    /// Spawns a named task on the current runtime. A panic in it ends the node. Once the group is
    /// stopped and drained nothing starts any more and the task counts as finished.
    pub fn spawn<F>(&self, name: impl Into<Cow<'static, str>>, future: F) -> Task
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let name = name.into();
        let (finished, handle) = oneshot::channel();
        let Some(registration) = self.register(name.clone()) else {
            return Task { abort: None, finished: handle };
        };
        let id = registration.id;
        let host = Host::current();
        // Boxed here and nowhere else: what is moved from hand to hand is a pointer.
        let future = AssertUnwindSafe(Box::pin(future)).catch_unwind();
        let body = host::attach(Body { future, name, _finished: finished, registration });
        #[expect(clippy::disallowed_methods, reason = "this file is the one that spawns")]
        let abort = tokio::spawn(body).abort_handle();
        if let Some(host) = host {
            host.owns(abort.clone());
        }
        if let Some(entry) = self.group.running().entries.get_mut(&id) {
            entry.abort = Some(abort.clone());
        }
        Task { abort: Some(abort), finished: handle }
    }

    /// Starts a named thread and hands it the stop signal, which it must look at. A panic in it
    /// ends the node.
    ///
    /// # Errors
    /// [`SpawnError`] if the operating system refuses the thread or the group has been stopped.
    pub fn spawn_thread<F>(
        &self,
        name: impl Into<Cow<'static, str>>,
        body: F,
    ) -> Result<(), SpawnError>
    where
        F: FnOnce(StopSignal) + Send + 'static,
    {
        let name = name.into();
        let Some(registration) = self.register(name.clone()) else {
            return Err(SpawnError::Stopped { name });
        };
        let supervisor = self.clone();
        let stop = self.stop_signal();
        let thread_name = name.clone();
        std::thread::Builder::new()
            .name(name.clone().into_owned())
            .spawn(move || {
                let _registration = registration;
                if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| body(stop))) {
                    supervisor.panicked(&thread_name, panic.as_ref());
                }
            })
            .map(drop)
            .map_err(|source| SpawnError::Refused { name, source })
    }

    /// Does work in steps until one says [`Next::Done`]: on a named thread, or as a task where the
    /// work stands on a simulated host. Each step is told whether it may wait. A panic ends the node.
    ///
    /// # Errors
    /// As [`spawn_thread`](Self::spawn_thread).
    pub fn spawn_steps<F>(
        &self,
        name: impl Into<Cow<'static, str>>,
        mut step: F,
    ) -> Result<(), SpawnError>
    where
        F: FnMut(&StopSignal, Waiting) -> Next + Send + 'static,
    {
        let Some(host) = Host::current() else {
            return self.spawn_thread(name, move |stop| {
                loop {
                    match step(&stop, Waiting::Allowed) {
                        Next::Again | Next::Idle(_) => {}
                        Next::Pause(pause) => std::thread::sleep(pause),
                        Next::Done => return,
                    }
                }
            });
        };
        let stop = self.stop_signal();
        self.spawn(name, async move {
            loop {
                let pause = match step(&stop, Waiting::Forbidden) {
                    Next::Again => host.step_time(),
                    Next::Idle(pause) | Next::Pause(pause) => pause,
                    Next::Done => return,
                };
                tokio::time::sleep(pause).await;
            }
        });
        Ok(())
    }

    /// Runs `body` on the runtime's blocking threads, for short work that waits on files or burns
    /// a core, such as hashing a password. The caller bounds how many run at once.
    ///
    /// # Errors
    /// [`Lost`] if it panicked (which ends the node) or the runtime is shutting down.
    pub async fn blocking<F, T>(
        &self,
        name: impl Into<Cow<'static, str>>,
        body: F,
    ) -> Result<T, Lost>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let name = name.into();
        if let Some(host) = Host::current() {
            tokio::time::sleep(host.step_time()).await;
            return std::panic::catch_unwind(AssertUnwindSafe(body)).map_err(|panic| {
                self.panicked(&name, panic.as_ref());
                Lost { name }
            });
        }
        #[expect(clippy::disallowed_methods, reason = "this file is the one that spawns")]
        let running = tokio::task::spawn_blocking(body);
        match running.await {
            Ok(value) => Ok(value),
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    self.panicked(&name, panic.as_ref());
                }
                Err(Lost { name })
            }
        }
    }

    /// Runs `body` on a thread of its own that gives way to all others, for work that burns a core for
    /// milliseconds and that nobody else is to wait for. The caller bounds how many run at once.
    ///
    /// # Errors
    /// [`Lost`] if it panicked (which ends the node), or no thread is to be had.
    #[cfg(feature = "server")]
    pub async fn patiently<F, T>(
        &self,
        name: impl Into<Cow<'static, str>>,
        body: F,
    ) -> Result<T, Lost>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let name = name.into();
        if Host::current().is_some() {
            return self.blocking(name, body).await;
        }
        let (done, result) = oneshot::channel();
        let thread = self.spawn_thread(name.clone(), move |_| {
            // Refused, it is as quick as any other.
            let _ = rustix::process::nice(GIVES_WAY);
            let _nobody_waits = done.send(body());
        });
        if let Err(error) = thread {
            tracing::warn!(%error, "no thread");
            return Err(Lost { name });
        }
        result.await.map_err(|_| Lost { name })
    }

    /// The group's stop signal.
    #[must_use]
    pub fn stop_signal(&self) -> StopSignal {
        StopSignal { stopped: self.group.stop.subscribe() }
    }

    /// Raises the group's stop signal; returns at once.
    pub fn signal_stop(&self) {
        self.group.stop.send_replace(true);
    }

    /// Raises the stop signal and waits until every task and thread of the group has ended. Tasks
    /// that are still there after `patience` are aborted; threads cannot be, and are named in the
    /// answer if they outlive a second `patience`.
    ///
    /// Empty means that the group is gone.
    pub async fn stop(&self, patience: Duration) -> Vec<String> {
        self.signal_stop();
        let mut count = self.group.count.subscribe();
        if tokio::time::timeout(patience, count.wait_for(|count| *count == 0)).await.is_err() {
            self.abort_all();
            // Both outcomes are seen in what is left.
            let _ = tokio::time::timeout(patience, count.wait_for(|count| *count == 0)).await;
        }
        let mut running = self.group.running();
        running.closed = true;
        running.entries.values().map(|entry| entry.name.clone().into_owned()).collect()
    }

    fn abort_all(&self) {
        let mut running = self.group.running();
        running.closed = true;
        for entry in running.entries.values() {
            tracing::warn!(
                event = event::TASK_ABORTED,
                group = %self.group.name,
                task = %entry.name,
                "task did not end in time"
            );
            if let Some(abort) = &entry.abort {
                abort.abort();
            }
        }
    }

    /// Asks for the end of the whole; the first request stands.
    pub fn request_exit(&self, exit: Exit) {
        self.group.exit.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(exit);
            }
            first
        });
    }

    /// Waits until someone asks for the end, by [`request_exit`](Self::request_exit) or a panic.
    pub async fn exit_requested(&self) -> Exit {
        let mut exit = self.group.exit.subscribe();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or_else(unreachable_exit),
            // The sender lives in the group that `self` holds.
            Err(_) => unreachable_exit(),
        }
    }

    /// The end that was asked for, if it was.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.group.exit.borrow().clone()
    }

    /// How many tasks and threads of this group are running.
    #[must_use]
    pub fn running(&self) -> usize {
        *self.group.count.borrow()
    }

    fn register(&self, name: Cow<'static, str>) -> Option<Registration> {
        let id = self.group.next_id.fetch_add(1, Ordering::Relaxed);
        let mut running = self.group.running();
        if running.closed {
            return None;
        }
        running.entries.insert(id, Entry { name, abort: None });
        self.group.count.send_replace(running.entries.len());
        Some(Registration { group: Arc::clone(&self.group), id })
    }

    fn panicked(&self, task: &str, panic: &(dyn Any + Send)) {
        let message = panic_message(panic);
        tracing::error!(
            event = event::TASK_PANICKED,
            group = %self.group.name,
            task,
            message,
            "task panicked"
        );
        self.request_exit(Exit {
            code: ExitCode::POISONED,
            reason: format!("{task} panicked: {message}"),
        });
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Supervisor")
            .field("group", &self.group.name)
            .field("running", &self.running())
            .finish_non_exhaustive()
    }
}

impl Group {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the group's list, given back on drop.
struct Registration {
    group: Arc<Group>,
    id: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut running = self.group.running();
        running.entries.remove(&self.id);
        self.group.count.send_replace(running.entries.len());
    }
}

/// What runs as a task. An aborted one leaves the group by its drop, after all that it held.
struct Body<F> {
    future: CatchUnwind<AssertUnwindSafe<Pin<Box<F>>>>,
    name: Cow<'static, str>,
    _finished: oneshot::Sender<()>,
    registration: Registration,
}

impl<F: Future<Output = ()>> Future for Body<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let ended = ready!(self.future.poll_unpin(context));
        if let Err(panic) = ended {
            let supervisor = Supervisor { group: Arc::clone(&self.registration.group) };
            supervisor.panicked(&self.name, panic.as_ref());
        }
        Poll::Ready(())
    }
}

/// A spawned task. Dropping the handle leaves the task running.
#[derive(Debug)]
pub struct Task {
    abort: Option<AbortHandle>,
    finished: oneshot::Receiver<()>,
}

impl Task {
    /// Ends the task at its next await.
    pub fn abort(&self) {
        if let Some(abort) = &self.abort {
            abort.abort();
        }
    }

    /// Waits until the task has ended, in whatever way. Cancel-safe.
    pub async fn finished(&mut self) {
        // The sender is only ever dropped; a closed channel is the signal.
        let _ = (&mut self.finished).await;
    }

    /// A handle that aborts the task when it is dropped.
    #[must_use]
    pub fn abort_on_drop(self) -> OwnedTask {
        OwnedTask { task: self }
    }
}

/// A task that ends with its owner.
#[derive(Debug)]
pub struct OwnedTask {
    task: Task,
}

impl Drop for OwnedTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether a step of work may wait for more work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// It has a thread of its own.
    Allowed,
    /// It shares its thread with a simulated world and must come back at once.
    Forbidden,
}

/// What follows a step of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The next step.
    Again,
    /// The next step; one that was not allowed to wait is not needed before this time is over.
    Idle(Duration),
    /// The next step, in any case not before this time is over.
    Pause(Duration),
    /// Nothing: the work is over.
    Done,
}

/// Says that the group is to stop; cheap to clone.
#[derive(Debug, Clone)]
pub struct StopSignal {
    stopped: watch::Receiver<bool>,
}

impl StopSignal {
    /// Waits for the signal; returns at once if it was given. Cancel-safe.
    pub async fn stopped(&mut self) {
        // A supervisor that is gone cannot be asked to go on.
        let _ = self.stopped.wait_for(|stopped| *stopped).await;
    }

    /// Whether the signal was given; for loops on threads.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        *self.stopped.borrow() || self.stopped.has_changed().is_err()
    }
}

/// Why a thread did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The operating system refused it.
    #[error("the thread {name} could not be started")]
    Refused {
        /// The thread's name.
        name: Cow<'static, str>,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The group has been stopped and starts nothing any more.
    #[error("the thread {name} was not started: its group has been stopped")]
    Stopped {
        /// The thread's name.
        name: Cow<'static, str>,
    },
}

/// Blocking work that did not come to its end.
#[derive(Debug, thiserror::Error)]
#[error("{name} ended without a result")]
pub struct Lost {
    /// The name of the work.
    pub name: Cow<'static, str>,
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

fn unreachable_exit() -> Exit {
    Exit { code: ExitCode::FAILED, reason: "the supervisor is gone".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_panicking_task_ends_the_whole_with_code_70_and_its_name() {
        let root = Supervisor::new("node");
        let group = root.group("gateway");
        let mut task = group.spawn("session 7", async { panic!("boom {}", 1) });
        let exit = tokio::time::timeout(PATIENCE, root.exit_requested()).await.unwrap();
        assert_eq!(exit.code, ExitCode::POISONED);
        assert_eq!(exit.reason, "session 7 panicked: boom 1");
        task.finished().await;
        // A later request does not replace the first.
        root.request_exit(Exit { code: ExitCode::QUORUM_LOST, reason: "late".to_owned() });
        assert_eq!(root.exit(), Some(exit));
    }

    #[tokio::test]
    async fn a_panicking_thread_and_blocking_work_end_the_whole() {
        let root = Supervisor::new("node");
        root.spawn_thread("log writer", |_| panic!("disk")).unwrap();
        let exit = tokio::time::timeout(PATIENCE, root.exit_requested()).await.unwrap();
        assert_eq!(
            (exit.code, exit.reason.as_str()),
            (ExitCode::POISONED, "log writer panicked: disk")
        );

        let other = Supervisor::new("client");
        assert!(other.blocking("hash", || -> u8 { panic!("argon") }).await.is_err());
        assert_eq!(other.exit().unwrap().reason, "hash panicked: argon");
        assert_eq!(other.blocking("add", || 1 + 1).await.unwrap(), 2);
    }

    #[cfg(feature = "server")]
    #[tokio::test]
    async fn patient_work_gives_way() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let (root, before) = (Supervisor::new("node"), priority());
        let inside = root.patiently("hash", priority).await.unwrap();
        assert_eq!(inside, (before + GIVES_WAY).min(19));
        assert_eq!(priority(), before);
        assert!(root.patiently("hash", || -> u8 { panic!("argon") }).await.is_err());
        let exit = tokio::time::timeout(PATIENCE, root.exit_requested()).await.unwrap();
        assert_eq!(exit.reason, "hash panicked: argon");
    }

    #[tokio::test]
    async fn groups_drain_on_their_own() {
        let root = Supervisor::new("node");
        let first = root.group("first");
        let second = root.group("second");
        let mut stop = first.stop_signal();
        first.spawn("waits", async move { stop.stopped().await });
        let mut stop = second.stop_signal();
        second.spawn("waits too", async move { stop.stopped().await });
        second
            .spawn_thread("steps", |stop| {
                while !stop.is_stopped() {
                    std::thread::yield_now();
                }
            })
            .unwrap();
        assert!(first.stop(PATIENCE).await.is_empty());
        assert_eq!((first.running(), second.running()), (0, 2));
        assert!(second.stop(PATIENCE).await.is_empty());
        assert_eq!(second.running(), 0);
        assert!(root.exit().is_none());
        // Nothing starts in a group that is gone.
        let mut late = first.spawn("late", async { panic!("must not run") });
        late.finished().await;
        assert!(first.spawn_thread("late", |_| ()).is_err());
        assert!(root.exit().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ignores_the_signal_is_aborted() {
        let root = Supervisor::new("node");
        root.spawn("deaf", std::future::pending());
        let _kept = root.spawn("owned", std::future::pending());
        assert!(root.stop(Duration::from_secs(1)).await.is_empty());
        assert_eq!(root.running(), 0);
    }

    #[tokio::test]
    async fn an_owned_task_ends_with_its_owner() {
        let root = Supervisor::new("node");
        let (held, released) = oneshot::channel::<()>();
        let owned = root
            .spawn("owned", async move {
                let _held = held;
                std::future::pending::<()>().await;
            })
            .abort_on_drop();
        drop(owned);
        assert!(tokio::time::timeout(PATIENCE, released).await.unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_spawned_on_a_simulated_host_is_there_and_blocks_no_thread() {
        let host = Host::new("h", [10, 0, 0, 1].into());
        let supervisor = Supervisor::new("test");
        let thread = std::thread::current().id();
        let body = async move {
            let inner = supervisor.blocking("work", || std::thread::current().id()).await.unwrap();
            assert_eq!(inner, thread);
            let (sender, receiver) = oneshot::channel();
            let mut sender = Some((sender, 3));
            let step = move |_: &StopSignal, waiting| {
                assert_eq!(waiting, Waiting::Forbidden);
                let Some((sender, steps)) = sender.take_if(|(_, steps)| *steps == 0) else {
                    sender.iter_mut().for_each(|(_, steps)| *steps -= 1);
                    return Next::Idle(Duration::from_secs(1));
                };
                assert_eq!(steps, 0);
                sender.send(Host::current().map(|host| host.name().to_owned())).unwrap();
                Next::Done
            };
            supervisor.spawn_steps("child", step).unwrap();
            receiver.await.unwrap()
        };
        assert_eq!(host.attach(body).await.as_deref(), Some("h"));
    }

    #[tokio::test]
    async fn steps_on_a_thread_may_wait_and_go_on_until_done() {
        let supervisor = Supervisor::new("test");
        let (sender, receiver) = oneshot::channel();
        let mut sender = Some(sender);
        let mut steps = 0;
        let step = move |_: &StopSignal, waiting| {
            assert_eq!(waiting, Waiting::Allowed);
            steps += 1;
            match steps {
                1 => Next::Again,
                2 => Next::Idle(Duration::from_secs(3_600)),
                3 => Next::Pause(Duration::from_millis(1)),
                _ => {
                    sender.take().unwrap().send(steps).unwrap();
                    Next::Done
                }
            }
        };
        supervisor.spawn_steps("steps", step).unwrap();
        assert_eq!(receiver.await.unwrap(), 4);
        assert!(supervisor.stop(Duration::from_secs(10)).await.is_empty());
    }
}
