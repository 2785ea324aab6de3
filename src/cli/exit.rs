//! Exit codes that scripts can use.

use std::process::ExitCode;

/// Why the process ends, as a number that never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// The command line or a configuration file is wrong.
    Usage = 2,
    /// No connection, or the credentials were refused.
    Connection = 3,
    /// The deadline passed.
    TimedOut = 4,
    /// A flush failed, or applying the log panicked.
    Poisoned = 70,
    /// Storage is damaged and cannot be proven.
    Damaged = 73,
    /// The quorum was lost and `on_quorum_loss = "shutdown"`.
    QuorumShutdown = 75,
    /// The name is in use, or the node met a cluster it was not founded with.
    WrongCluster = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that knows its exit code; wrap it with `anyhow` context freely.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What the process exits with.
    pub exit: Exit,
    /// The thing, its value and the fix.
    pub message: String,
}

impl Failure {
    /// An error that ends the process with `exit`.
    pub fn new(exit: Exit, message: impl Into<String>) -> anyhow::Error {
        Self { exit, message: message.into() }.into()
    }

    /// A wrong command line or file.
    pub fn usage(message: impl Into<String>) -> anyhow::Error {
        Self::new(Exit::Usage, message)
    }
}

/// The exit code of an error: that of the first [`Failure`] among its causes, else 1.
#[must_use]
pub fn code_of(error: &anyhow::Error) -> Exit {
    let failure = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    failure.map_or(Exit::Failed, |failure| failure.exit)
}
