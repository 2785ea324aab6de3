//! Every wire error, numbered by area, never reused.
//!
//! Codes that also stand in the log are those of [`Rejection`](crate::domain::outcome::Rejection),
//! with the same numbers; `tests/protocol.rs` holds the two lists together.

use std::fmt;

macro_rules! error_codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $text:literal;)+) => {
        /// What went wrong, as a number that means the same in every version.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[doc = $doc])+ $name,)+
            /// A code that this version does not know.
            Unknown(u16),
        }

        impl ErrorCode {
            /// All that this version knows, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The number on the wire.
            #[must_use]
            pub fn number(self) -> u16 {
                match self {
                    $(Self::$name => $number,)+
                    Self::Unknown(number) => number,
                }
            }

            fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                    Self::Unknown(_) => "an error that this version does not know",
                }
            }
        }

        impl From<u16> for ErrorCode {
            fn from(number: u16) -> Self {
                match number {
                    $($number => Self::$name,)+
                    other => Self::Unknown(other),
                }
            }
        }
    };
}

error_codes! {
    /// No error: a close that was asked for.
    None = 0, "no error";

    // 1xx: frames and messages.
    /// A frame over the limit of its stream or kind.
    FrameTooLong = 101, "a frame is too long";
    /// A kind that does not belong on this stream.
    UnknownKind = 102, "a frame kind is not known on this stream";
    /// A body that cannot be read.
    Malformed = 103, "a message could not be read";
    /// A message that may not be said now.
    OutOfPlace = 104, "a message came where it has no place";
    /// A protocol version that this node does not speak.
    Version = 105, "the protocol version is not spoken here";
    /// More streams or unanswered reads than allowed.
    TooManyRequests = 106, "too many requests are open at once";
    /// A numbered command's bytes could not be decoded.
    Undecodable = 110, "the command could not be decoded";

    // 2xx: sessions.
    /// No such session, or it has ended.
    NoSuchSession = 201, "the session is unknown or has ended";
    /// The session has moved to another host.
    StaleEpoch = 202, "the session has moved to another host";
    /// The session's roles have changed since the command was checked.
    StaleRoles = 203, "the session's roles have changed; the command is void";
    /// A request number is missing before this one.
    Gap = 204, "a request number is missing before this one";
    /// The answer to this request number is no longer kept.
    Forgotten = 205, "the answer to this request is no longer kept";
    /// The secret does not open this session.
    WrongSecret = 206, "the session secret is wrong";
    /// The host refused the command for good before it was proposed.
    RefusedByHost = 207, "refused by the host";
    /// The session holds as many of these as it may.
    TooMany = 208, "the session holds too many selections, listeners or properties";
    /// The host has started again since it sent the command.
    StaleHost = 209, "the host has started again since";
    /// The session's identifier is in use.
    SessionExists = 210, "the session's identifier is in use";
    /// A scope name that is too long or begins with `$`.
    InvalidScope = 211, "the scope name is not legal";
    /// No hello in time.
    HelloTimeout = 220, "no hello came in time";
    /// The session has been ended by another session or an operator.
    ClosedByController = 221, "the session was closed by a controller";
    /// The session's reconnect timeout has run out.
    Expired = 222, "the session has expired";
    /// The session goes on over another connection.
    TakenOver = 223, "the session goes on over another connection";

    // 3xx: topics.
    /// No topic at that path or of that identifier.
    NoSuchTopic = 301, "no such topic";
    /// The topic exists with another type or other properties.
    ExistsMismatch = 302, "the topic exists with another specification";
    /// Not a legal topic path.
    InvalidPath = 303, "the path is not a legal topic path";
    /// The specification has an illegal property or value.
    InvalidSpecification = 304, "the topic specification is not legal";
    /// The value is not one of the topic's type.
    IncompatibleValue = 305, "the value is not of the topic's type";
    /// The update's constraint does not hold.
    UnsatisfiedConstraint = 306, "the constraint is not satisfied";
    /// The update stream has been superseded.
    InvalidStream = 307, "the update stream is no longer valid";
    /// The value is larger than the limit.
    ValueTooLarge = 308, "the value is too large";
    /// The selector cannot be parsed.
    InvalidSelector = 309, "the selector is not legal";
    /// A constraint that is malformed or can never hold.
    InvalidConstraint = 310, "the constraint is not legal";
    /// A fetch with options that contradict each other or are out of range.
    InvalidFetch = 311, "the fetch request is not legal";

    // 4xx: security.
    /// The caller may not do this.
    PermissionDenied = 401, "permission denied";
    /// Wrong principal or password.
    BadCredentials = 402, "the principal or the password is wrong";
    /// Clients without credentials are not let in.
    AnonymousRefused = 403, "anonymous sessions are not allowed";

    // 5xx: cluster.
    /// The cluster has been founded already.
    AlreadyFounded = 501, "the cluster has been founded already";
    /// The node has no permit free; send again after the hint.
    Overloaded = 502, "the node is overloaded";
    /// The node does not see a quorum; send again after the hint.
    Inquorate = 503, "the node does not see a quorum";
    /// The node does not serve clients yet.
    NotReady = 504, "the node is not ready";
    /// The node is about to stop; go to another one.
    Draining = 505, "the node is stopping";
    /// The deadline passed before the answer was known.
    Deadline = 506, "the deadline has passed";
    /// The node's state differs from the majority's; go to another one.
    Quarantined = 507, "the node is quarantined";
    /// The node holds as many sessions as it may.
    TooManySessions = 508, "the node holds too many sessions";
    /// The node's disk is full: it answers reads, and takes commands when there is space again.
    DiskFull = 509, "the node's disk is full";
    /// The node failed in a way that is not the client's fault.
    Internal = 599, "the node failed internally";
}

impl ErrorCode {
    /// Another node, or the same one later, may well do what this one refused now.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::HelloTimeout
                | Self::TooManyRequests
                | Self::Overloaded
                | Self::Inquorate
                | Self::NotReady
                | Self::Draining
                | Self::Deadline
                | Self::Quarantined
                | Self::TooManySessions
                | Self::DiskFull
                | Self::Internal
        )
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.text(), self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_rising_and_come_back() {
        for pair in ErrorCode::ALL.windows(2) {
            assert!(pair[0].number() < pair[1].number(), "{:?} {:?}", pair[0], pair[1]);
        }
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from(code.number()), *code);
        }
        assert_eq!(ErrorCode::from(65_000), ErrorCode::Unknown(65_000));
    }
}
