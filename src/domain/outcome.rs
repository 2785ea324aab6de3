//! What became of a command: the replicated answer to whoever asked.

use bytes::{Buf, BufMut};

use super::id::{StreamId, TopicId};
use super::topic::path::TopicPath;

/// What became of one command. The same on every node; kept in the session's answer ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done; nothing else to tell.
    Done,
    /// The value equals the topic's value: acknowledged, not published.
    Unchanged,
    /// The topic that was added, opened or set by path.
    Topic {
        /// Its cluster-wide identifier.
        id: TopicId,
        /// False: it was there before.
        created: bool,
    },
    /// The update stream that was opened.
    Stream {
        /// Names the stream in update records.
        id: StreamId,
        /// The topic that it writes.
        topic: TopicId,
        /// False: the topic was there before.
        created: bool,
    },
    /// One page of a removal.
    Removed {
        /// Topics removed by this page.
        count: u32,
        /// Where the next page starts; none when the removal is complete.
        next: Option<TopicPath>,
    },
    /// The session was opened or moved: its epoch now.
    Session {
        /// Raised by every open and move.
        epoch: u32,
    },
    /// One page of sessions that were detached or ended.
    Sessions {
        /// How many by this page.
        count: u32,
        /// The same command has more to do: propose it again.
        more: bool,
    },
    /// Nothing was changed, for this reason.
    Rejected(Rejection),
}

/// Bytes that are no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no stored outcome")]
pub struct OutcomeError;

/// Tags of stored outcomes: never reused, never changed.
mod tag {
    pub(super) const DONE: u8 = 0;
    pub(super) const UNCHANGED: u8 = 1;
    pub(super) const REJECTED: u8 = 2;
    pub(super) const TOPIC: u8 = 3;
    pub(super) const STREAM: u8 = 4;
    pub(super) const REMOVED: u8 = 5;
    pub(super) const SESSION: u8 = 6;
    pub(super) const SESSIONS: u8 = 7;
}

impl Outcome {
    /// Its bytes: `tag u8 · fields`, little-endian, booleans as bytes, the path to the end. One
    /// sequence per outcome.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(24);
        match self {
            Self::Done => bytes.put_u8(tag::DONE),
            Self::Unchanged => bytes.put_u8(tag::UNCHANGED),
            Self::Rejected(reason) => {
                bytes.put_u8(tag::REJECTED);
                bytes.put_u16_le(reason.code());
            }
            Self::Topic { id, created } => {
                bytes.put_u8(tag::TOPIC);
                bytes.put_u64_le(id.0);
                bytes.put_u8(u8::from(*created));
            }
            Self::Stream { id, topic, created } => {
                bytes.put_u8(tag::STREAM);
                bytes.put_u64_le(id.0);
                bytes.put_u64_le(topic.0);
                bytes.put_u8(u8::from(*created));
            }
            Self::Removed { count, next } => {
                bytes.put_u8(tag::REMOVED);
                bytes.put_u32_le(*count);
                // No path is empty, so nothing means none.
                let next = next.as_ref().map_or("", TopicPath::as_str);
                bytes.put_slice(next.as_bytes());
            }
            Self::Session { epoch } => {
                bytes.put_u8(tag::SESSION);
                bytes.put_u32_le(*epoch);
            }
            Self::Sessions { count, more } => {
                bytes.put_u8(tag::SESSIONS);
                bytes.put_u32_le(*count);
                bytes.put_u8(u8::from(*more));
            }
        }
        bytes
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`OutcomeError`] for anything else; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, OutcomeError> {
        Self::read(bytes).ok_or(OutcomeError)
    }

    fn read(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        let outcome = match bytes.try_get_u8().ok()? {
            tag::DONE => Self::Done,
            tag::UNCHANGED => Self::Unchanged,
            tag::REJECTED => Self::Rejected(Rejection::from_code(bytes.try_get_u16_le().ok()?)?),
            tag::TOPIC => Self::Topic {
                id: TopicId(bytes.try_get_u64_le().ok()?),
                created: read_bool(bytes)?,
            },
            tag::STREAM => Self::Stream {
                id: StreamId(bytes.try_get_u64_le().ok()?),
                topic: TopicId(bytes.try_get_u64_le().ok()?),
                created: read_bool(bytes)?,
            },
            tag::REMOVED => {
                let count = bytes.try_get_u32_le().ok()?;
                let path = std::str::from_utf8(std::mem::take(bytes)).ok()?;
                let next = if path.is_empty() { None } else { Some(TopicPath::parse(path).ok()?) };
                Self::Removed { count, next }
            }
            tag::SESSION => Self::Session { epoch: bytes.try_get_u32_le().ok()? },
            tag::SESSIONS => {
                Self::Sessions { count: bytes.try_get_u32_le().ok()?, more: read_bool(bytes)? }
            }
            _ => return None,
        };
        bytes.is_empty().then_some(outcome)
    }
}

fn read_bool(bytes: &mut &[u8]) -> Option<bool> {
    match bytes.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// Why a command changed nothing. Numbers are wire error codes: by area, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[repr(u16)]
pub enum Rejection {
    /// The command's bytes could not be decoded.
    #[error("the command could not be decoded")]
    Undecodable = 110,
    /// No such session, or it has ended.
    #[error("the session is unknown or has ended")]
    NoSuchSession = 201,
    /// The session has moved: its host's command came too late and is void.
    #[error("the session has moved to another host")]
    StaleEpoch = 202,
    /// The session's roles have changed since its host checked the command.
    #[error("the session's roles have changed; the command is void")]
    StaleRoles = 203,
    /// A request number is missing before this one; the host sends again from the first unanswered.
    #[error("a request number is missing before this one")]
    Gap = 204,
    /// The answer to this request number has been dropped on the client's word.
    #[error("the answer to this request is no longer kept")]
    Forgotten = 205,
    /// The secret does not open this session.
    #[error("the session secret is wrong")]
    WrongSecret = 206,
    /// The host refused the command for good before it was proposed.
    #[error("refused by the host")]
    RefusedByHost = 207,
    /// More of these than one session, one command or the cluster may hold, or a longer one.
    #[error("more items, or longer ones, than the limit allows")]
    TooMany = 208,
    /// A claim for a node that has started again since.
    #[error("the claiming node has started again since")]
    StaleHost = 209,
    /// Another session has this identifier already.
    #[error("another session has this identifier")]
    SessionExists = 210,
    /// Not a legal scope name: too long, or it begins with `$`.
    #[error("the selection scope is not legal")]
    InvalidScope = 211,
    /// No topic at that path or of that identifier.
    #[error("no such topic")]
    NoSuchTopic = 301,
    /// The topic exists with another type or other properties.
    #[error("the topic exists with another specification")]
    ExistsMismatch = 302,
    /// The path is not a legal topic path.
    #[error("the path is not a legal topic path")]
    InvalidPath = 303,
    /// The specification has an illegal property or value.
    #[error("the topic specification is not legal")]
    InvalidSpecification = 304,
    /// The value is not one of the topic's type.
    #[error("the value is not of the topic's type")]
    IncompatibleValue = 305,
    /// The update's constraint does not hold.
    #[error("the constraint is not satisfied")]
    UnsatisfiedConstraint = 306,
    /// The update stream has been superseded.
    #[error("the update stream is no longer valid")]
    InvalidStream = 307,
    /// The value is larger than the limit.
    #[error("the value is too large")]
    ValueTooLarge = 308,
    /// The selector cannot be parsed.
    #[error("the selector is not legal")]
    InvalidSelector = 309,
    /// The update constraint is not legal.
    #[error("the constraint is not legal")]
    InvalidConstraint = 310,
    /// The caller may not do this.
    #[error("permission denied")]
    PermissionDenied = 401,
    /// The cluster has been founded already.
    #[error("the cluster has been founded already")]
    AlreadyFounded = 501,
}

impl Rejection {
    /// Every reason there is.
    pub const ALL: [Self; 24] = [
        Self::Undecodable,
        Self::NoSuchSession,
        Self::StaleEpoch,
        Self::StaleRoles,
        Self::Gap,
        Self::Forgotten,
        Self::WrongSecret,
        Self::RefusedByHost,
        Self::TooMany,
        Self::StaleHost,
        Self::SessionExists,
        Self::InvalidScope,
        Self::NoSuchTopic,
        Self::ExistsMismatch,
        Self::InvalidPath,
        Self::InvalidSpecification,
        Self::IncompatibleValue,
        Self::UnsatisfiedConstraint,
        Self::InvalidStream,
        Self::ValueTooLarge,
        Self::InvalidSelector,
        Self::InvalidConstraint,
        Self::PermissionDenied,
        Self::AlreadyFounded,
    ];

    /// The stable number of this reason on the wire and in the log.
    #[must_use]
    pub fn code(self) -> u16 {
        self as u16
    }

    /// The reason of a number.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_outcomes() {
        let path = TopicPath::parse("a/b").unwrap();
        for (outcome, hex) in [
            (Outcome::Done, "00"),
            (Outcome::Unchanged, "01"),
            (Outcome::Rejected(Rejection::Gap), "02cc00"),
            (Outcome::Topic { id: TopicId(1), created: true }, "03010000000000000001"),
            (
                Outcome::Stream { id: StreamId(1), topic: TopicId(2), created: false },
                "040100000000000000020000000000000000",
            ),
            (Outcome::Removed { count: 3, next: None }, "0503000000"),
            (Outcome::Removed { count: 3, next: Some(path) }, "0503000000612f62"),
            (Outcome::Session { epoch: 2 }, "0602000000"),
            (Outcome::Sessions { count: 4, more: true }, "070400000001"),
        ] {
            let bytes = outcome.encode();
            let found: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, hex, "{outcome:?}");
            assert_eq!(Outcome::decode(&bytes), Ok(outcome.clone()));
            for cut in 0..bytes.len() {
                // A path that is cut may be a shorter path.
                let read = Outcome::decode(&bytes[..cut]);
                assert_ne!(read, Ok(outcome.clone()), "cut at {cut}");
            }
            if !matches!(outcome, Outcome::Removed { .. }) {
                assert_eq!(Outcome::decode(&[&bytes[..], b"x"].concat()), Err(OutcomeError));
            }
        }
        for bytes in [&b""[..], b"\x08", b"\x02\x01\x00", b"\x03\0\0\0\0\0\0\0\0\x02"] {
            assert_eq!(Outcome::decode(bytes), Err(OutcomeError));
        }
    }

    #[test]
    fn codes_are_distinct_and_come_back() {
        let mut codes: Vec<u16> = Rejection::ALL.iter().map(|reason| reason.code()).collect();
        codes.dedup();
        assert_eq!(codes.len(), Rejection::ALL.len());
        for reason in Rejection::ALL {
            assert_eq!(Rejection::from_code(reason.code()), Some(reason));
        }
        assert_eq!(Rejection::from_code(0), None);
    }
}
