//! What can go wrong for a caller of the client library, as facts.

use std::sync::Arc;

use crate::domain::selector::SelectorError;
use crate::protocol::ErrorCode;
use crate::transport::{BindError, TlsError};

/// Why no session came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailed {
    /// The configuration names no address.
    #[error("no address to connect to")]
    NoAddress,
    /// No socket to dial from.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The certificates are not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A node refused for a reason that another try would not change: wrong credentials above all.
    #[error("{address} refused the session: {code}{}{text}", if text.is_empty() { "" } else { ": " })]
    Refused {
        /// Which node, as configured.
        address: String,
        /// Why.
        code: ErrorCode,
        /// The node's words.
        text: String,
    },
    /// No address gave a session within the connect timeout.
    #[error("no session from any of {addresses} addresses in time: {last}")]
    TimedOut {
        /// How many addresses were tried.
        addresses: usize,
        /// What the last attempt failed by.
        last: AttemptFailed,
    },
    /// No address can ever give a session: certificates that are not trusted above all.
    #[error("no address can be connected to; the last attempt: {last}")]
    Unreachable {
        /// What the last attempt failed by.
        last: AttemptFailed,
    },
}

/// Why one attempt at one address gave no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttemptFailed {
    /// The address is no `host:port`, or its host has no address.
    #[error("{address}: no such host")]
    NoSuchHost {
        /// As configured.
        address: String,
    },
    /// No connection.
    #[error("{address}: {reason}")]
    NoConnection {
        /// As configured.
        address: String,
        /// The transport's words.
        reason: String,
        /// Another try at this address cannot do better: TLS failed.
        is_final: bool,
    },
    /// A connection, but no welcome in time or no legal one.
    #[error("{address}: no welcome")]
    NoWelcome {
        /// As configured.
        address: String,
    },
    /// The node refused.
    #[error("{address} refused: {code}{}{text}", if text.is_empty() { "" } else { ": " })]
    Refused {
        /// As configured.
        address: String,
        /// Why.
        code: ErrorCode,
        /// The node's words.
        text: String,
        /// Try again after so many milliseconds.
        retry_ms: Option<u32>,
    },
}

impl AttemptFailed {
    /// The node's code, if it was a node that refused.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::NoSuchHost { .. } | Self::NoWelcome { .. } => false,
            Self::NoConnection { is_final, .. } => *is_final,
            Self::Refused { code, .. } => !code.is_transient(),
        }
    }
}

/// Why a session is over, as its client sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionEnded {
    /// The client closed it, or the last handle was dropped.
    #[error("the session was closed by its client")]
    Closed,
    /// The cluster ended it, or does not know it any more.
    #[error("the session was ended: {code}{}{text}", if text.is_empty() { "" } else { ": " })]
    ByCluster {
        /// Why.
        code: ErrorCode,
        /// The node's words.
        text: String,
    },
    /// No node could be reached for the reconnect timeout.
    #[error("no node could be reached for {seconds} s; the last attempt: {last}")]
    Unreachable {
        /// The reconnect timeout.
        seconds: u64,
        /// What the last attempt failed by.
        last: AttemptFailed,
    },
    /// The library's own task ended: a fault of the library.
    #[error("the client's task ended unexpectedly")]
    Lost,
}

/// Why a request did not get what it asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Nothing was changed or read, for this reason.
    #[error("{code}{}{text}", if text.is_empty() { "" } else { ": " })]
    Refused {
        /// Why.
        code: ErrorCode,
        /// The node's words; may be empty.
        text: Box<str>,
    },
    /// The caller's wait is over, the command is not: the library goes on with it under its number
    /// until it is resolved or the session ends.
    #[error("no answer to request {request} in time; its outcome is unknown{}", Why(*parked))]
    OutcomeUnknown {
        /// The command's request number.
        request: u64,
        /// Why the node takes no commands for now, if it has said so.
        parked: Option<ErrorCode>,
    },
    /// The session ended before the answer came; whether the command was applied is not known.
    #[error("request {request} was not answered, its outcome is unknown: {reason}")]
    SessionEndedMeanwhile {
        /// The command's request number.
        request: u64,
        /// Why the session ended.
        reason: Arc<SessionEnded>,
    },
    /// The session is over; nothing was sent.
    #[error(transparent)]
    SessionEnded(Arc<SessionEnded>),
    /// The read was not answered in time. It changed nothing.
    #[error("no answer to the read in time")]
    ReadTimedOut,
    /// The value is longer than the session's limit; nothing was sent.
    #[error("a value of {bytes} bytes is over the limit of {bytes_max}")]
    ValueTooLarge {
        /// How long it is.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// The command is longer than a frame; nothing was sent.
    #[error("a command of {bytes} bytes is over the limit of {bytes_max}")]
    CommandTooLarge {
        /// How long it is.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// The selector is not legal; nothing was sent.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// The window is full; nothing was sent. Only from calls that do not wait.
    #[error("the window of unanswered commands is full")]
    WindowFull,
    /// The node answered with something else than was asked for.
    #[error("the node's answer does not fit the question")]
    Mismatched,
}

impl RequestError {
    pub(super) fn refused(code: ErrorCode) -> Self {
        Self::Refused { code, text: "".into() }
    }

    /// The wire code, if a node or the cluster refused.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// Prints a reason, if there is one.
struct Why(Option<ErrorCode>);

impl std::fmt::Display for Why {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |code| write!(formatter, ": {code}"))
    }
}
