//! Everything that can be proposed.
//!
//! ```text
//! command = kind u8 · …
//! kind 1 (update)          flags u8 · topic id u64 · value
//! kind 2 (stream update)   flags u8 · topic id u64 · stream id u64 · value
//! kind 3 (set by path)     flags u8 · path length u16 · path · value
//! kind 4 (refused)         0 · code u16
//! kind 128 (archive)       0 · command kind u16 · version u16 · rkyv archive
//! flags = value type (bits 0–2, as TopicType; 0 is illegal) · null (bit 3) · rest zero
//! ```
//!
//! The value type is what the client claims and its host has checked the bytes against; apply only
//! compares it with the topic's. A released archive never changes: new fields are a new version.

mod archive;
pub mod entry;

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::domain::constraint::{Constraint, ConstraintError};
use crate::domain::effect::CloseReason;
use crate::domain::id::{ClusterId, Lineage, NodeId, SessionId, StreamId, TopicId};
use crate::domain::outcome::Rejection;
use crate::domain::topic::path::{PathError, TopicPath};
use crate::domain::topic::specification::{Specification, SpecificationError, TopicType};

/// Kinds of command bytes. Stored: never reused, never changed.
mod kind {
    pub(super) const UPDATE: u8 = 1;
    pub(super) const STREAM_UPDATE: u8 = 2;
    pub(super) const SET_BY_PATH: u8 = 3;
    pub(super) const REFUSED: u8 = 4;
    pub(super) const ARCHIVE: u8 = 128;
}

/// The bits of the flags that hold the value type.
const FLAGS_TYPE: u8 = 0b0000_0111;
/// The bit of the flags that says null.
const FLAGS_NULL: u8 = 0b0000_1000;

/// A value as it travels: of a claimed type that its bytes were checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypedValue {
    /// What the bytes are.
    pub value_type: TopicType,
    /// The bytes; none is the null value of `string`, `int64` and `double`.
    pub bytes: Option<Bytes>,
}

/// Everything that can be proposed.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Set a topic by its identifier: the update record.
    Update {
        /// Which topic.
        topic: TopicId,
        /// Through this update stream; refused when it has been superseded.
        stream: Option<StreamId>,
        /// What to set.
        value: TypedValue,
    },
    /// Set an existing topic by its path.
    SetByPath {
        /// Which topic.
        path: TopicPath,
        /// What to set.
        value: TypedValue,
    },
    /// The host refused this request number for good; it only uses the number.
    Refused {
        /// The wire code of the reason.
        code: u16,
    },
    /// Add a topic: created, or there already with an equal specification.
    AddTopic {
        /// Where.
        path: TopicPath,
        /// What kind.
        specification: Specification,
    },
    /// Learn the identifier of an existing topic.
    OpenTopic {
        /// Which.
        path: TopicPath,
    },
    /// Set under a constraint, adding the topic first where a specification is given.
    SetTopic {
        /// Which topic.
        path: TopicPath,
        /// Add it like this when it is missing.
        specification: Option<Specification>,
        /// Must hold at the moment of the update.
        constraint: Constraint,
        /// What to set.
        value: TypedValue,
    },
    /// Open an update stream, optionally adding the topic, under a constraint, with a first value.
    OpenStream {
        /// Which topic.
        path: TopicPath,
        /// Add it like this when it is missing.
        specification: Option<Specification>,
        /// Must hold at the moment of opening.
        constraint: Constraint,
        /// First value, if any.
        value: Option<TypedValue>,
    },
    /// Remove one page of the topics that a selector matches.
    RemoveTopics {
        /// Text of the selector, checked where it entered.
        selector: String,
        /// Start here; none is the beginning.
        from: Option<TopicPath>,
    },
    /// Open a session. Proposed by its host under [`SessionId::CLUSTER`]; idempotent by content.
    OpenSession(OpenSession),
    /// Claim a session for another host, or for a new connection to the same host.
    MoveSession {
        /// Which.
        session: SessionId,
        /// Hash of the secret that the client showed.
        secret_hash: [u8; 32],
        /// Hash of the secret that it will show next time.
        next_secret_hash: [u8; 32],
        /// The claiming node.
        host: NodeId,
        /// Its incarnation.
        incarnation: u64,
    },
    /// The session's client is gone.
    DetachSession {
        /// Which.
        session: SessionId,
        /// Only this epoch: a late word about an older one changes nothing.
        epoch: u32,
    },
    /// End a session.
    CloseSession {
        /// Which.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// End detached sessions whose reconnect timeout has run out in log time; the machine checks
    /// each again. At most [`PAGE_ITEMS_MAX`](crate::domain::limits::PAGE_ITEMS_MAX).
    ExpireSessions {
        /// Candidates.
        sessions: Vec<SessionId>,
    },
    /// A node has started: sessions of its earlier incarnations are detached.
    NodeStarted {
        /// Which.
        node: NodeId,
        /// Rises with each start of the node.
        incarnation: u64,
    },
    /// The leader has not heard a node for `node_lost_timeout`: its sessions are detached.
    NodeLost {
        /// Which.
        node: NodeId,
        /// Only this incarnation.
        incarnation: u64,
    },
    /// Add a select or deselect entry to a scope of the caller's session.
    Select {
        /// Empty is the default scope.
        scope: String,
        /// Text of the selector, checked where it entered.
        selector: String,
        /// False: deselect.
        select: bool,
    },
    /// Add a select or deselect entry to one of the caller's topic notification listeners; the
    /// first one registers the listener.
    Listen {
        /// Chosen by the client, unique in its session.
        listener: u32,
        /// Text of the selector.
        selector: String,
        /// False: deselect.
        select: bool,
    },
    /// Remove a topic notification listener.
    Unlisten {
        /// Which.
        listener: u32,
    },
    /// Found the cluster: the first command of its log.
    Found {
        /// The cluster.
        cluster: ClusterId,
        /// Its first lineage.
        lineage: Lineage,
        /// Names of the founders.
        names: BTreeMap<NodeId, String>,
        /// The administrator's password, as an argon2id PHC string.
        admin_password: String,
        /// Clients may connect without credentials.
        anonymous: bool,
    },
    /// Set the password of a principal.
    SetPassword {
        /// Whose.
        principal: String,
        /// As an argon2id PHC string; none removes the principal.
        password: Option<String>,
    },
    /// Let clients connect without credentials, or not.
    SetAnonymous {
        /// Whether they may.
        allowed: bool,
    },
}

/// What a session is opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSession {
    /// Drawn by the host; 63 random bits, never zero.
    pub session: SessionId,
    /// Hash of the secret that resumes it.
    pub secret_hash: [u8; 32],
    /// Empty is anonymous.
    pub principal: String,
    /// Sorted, without doubles.
    pub roles: Vec<String>,
    /// Fixed (`$…`) and user properties.
    pub properties: BTreeMap<String, String>,
    /// How long it outlives its connection, in log time.
    pub reconnect_timeout_ms: u64,
    /// The node that serves it.
    pub host: NodeId,
    /// Of that node.
    pub incarnation: u64,
}

/// Who may send a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// Sessions, under their request numbers.
    Session,
    /// The cluster itself, under [`SessionId::CLUSTER`].
    Cluster,
    /// Both.
    Either,
}

/// Bytes that are no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It ends before its fixed fields do.
    #[error("the command is cut short")]
    Short,
    /// A kind that this version does not know.
    #[error("command kind {kind} is not known")]
    Kind {
        /// What was found.
        kind: u8,
    },
    /// An archive of a kind or version that this version does not know.
    #[error("archived command kind {kind} version {version} is not known")]
    Archive {
        /// What was found.
        kind: u16,
        /// What was found.
        version: u16,
    },
    /// An archive that does not pass its checks.
    #[error("the archived command is malformed")]
    Malformed,
    /// Bits that must be zero are not, or a null value has bytes.
    #[error("the command's flags {flags:#04x} are not legal here")]
    Flags {
        /// What was found.
        flags: u8,
    },
    /// No such value type.
    #[error("value type {code} is not known")]
    ValueType {
        /// What was found.
        code: u8,
    },
    /// No such close reason.
    #[error("close reason {code} is not known")]
    CloseReason {
        /// What was found.
        code: u8,
    },
    /// Bytes after the end of a command of fixed length.
    #[error("{bytes} bytes follow the command")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The path is not UTF-8.
    #[error("the path is not UTF-8")]
    PathEncoding,
    /// The path is not legal.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The specification is not legal.
    #[error(transparent)]
    Specification(#[from] SpecificationError),
    /// The constraint is not legal.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
}

impl CommandError {
    /// What the asker is told.
    #[must_use]
    pub fn rejection(&self) -> Rejection {
        match self {
            Self::PathEncoding | Self::Path(_) => Rejection::InvalidPath,
            Self::Specification(_) => Rejection::InvalidSpecification,
            Self::Constraint(_) => Rejection::InvalidConstraint,
            Self::Short
            | Self::Kind { .. }
            | Self::Archive { .. }
            | Self::Malformed
            | Self::Flags { .. }
            | Self::ValueType { .. }
            | Self::CloseReason { .. }
            | Self::Trailing { .. } => Rejection::Undecodable,
        }
    }
}

impl Command {
    /// Who may send it. What a session may do by its roles is its host's to check before.
    #[must_use]
    pub fn sender(&self) -> Sender {
        match self {
            Self::Update { .. }
            | Self::SetByPath { .. }
            | Self::Refused { .. }
            | Self::AddTopic { .. }
            | Self::OpenTopic { .. }
            | Self::SetTopic { .. }
            | Self::OpenStream { .. }
            | Self::RemoveTopics { .. }
            | Self::Select { .. }
            | Self::Listen { .. }
            | Self::Unlisten { .. } => Sender::Session,
            Self::CloseSession { .. } => Sender::Either,
            Self::OpenSession(_)
            | Self::MoveSession { .. }
            | Self::DetachSession { .. }
            | Self::ExpireSessions { .. }
            | Self::NodeStarted { .. }
            | Self::NodeLost { .. }
            | Self::Found { .. }
            | Self::SetPassword { .. }
            | Self::SetAnonymous { .. } => Sender::Cluster,
        }
    }

    /// The command's bytes. A value is copied into them.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        match self {
            Self::Update { topic, stream, value } => {
                put_update(&mut bytes, *topic, *stream, value);
            }
            Self::SetByPath { path, value } => {
                bytes.reserve(4 + path.as_str().len() + value.len());
                bytes.put_u8(kind::SET_BY_PATH);
                bytes.put_u8(value.flags());
                bytes.put_u16_le(path.as_str().len() as u16);
                bytes.put_slice(path.as_str().as_bytes());
                bytes.put_slice(value.bytes.as_deref().unwrap_or_default());
            }
            Self::Refused { code } => {
                bytes.put_u8(kind::REFUSED);
                bytes.put_u8(0);
                bytes.put_u16_le(*code);
            }
            structured => {
                if let Some((kind, version, archive)) = archive::write(structured) {
                    bytes.reserve(6 + archive.len());
                    bytes.put_u8(kind::ARCHIVE);
                    bytes.put_u8(0);
                    bytes.put_u16_le(kind);
                    bytes.put_u16_le(version);
                    bytes.put_slice(&archive);
                }
            }
        }
        bytes.freeze()
    }

    /// Reads a command; its value is a slice of `bytes`.
    ///
    /// # Errors
    /// [`CommandError`]; never panics, whatever the bytes.
    pub fn decode(mut bytes: Bytes) -> Result<Self, CommandError> {
        let kind = bytes.try_get_u8().map_err(|_| CommandError::Short)?;
        let flags = bytes.try_get_u8().map_err(|_| CommandError::Short)?;
        match kind {
            kind::UPDATE | kind::STREAM_UPDATE => {
                let topic = TopicId(bytes.try_get_u64_le().map_err(|_| CommandError::Short)?);
                let stream = match kind {
                    kind::UPDATE => None,
                    _ => Some(StreamId(bytes.try_get_u64_le().map_err(|_| CommandError::Short)?)),
                };
                Ok(Self::Update { topic, stream, value: TypedValue::of(flags, bytes)? })
            }
            kind::SET_BY_PATH => {
                let length = bytes.try_get_u16_le().map_err(|_| CommandError::Short)?;
                if bytes.len() < usize::from(length) {
                    return Err(CommandError::Short);
                }
                let path = bytes.split_to(usize::from(length));
                let path = std::str::from_utf8(&path).map_err(|_| CommandError::PathEncoding)?;
                let path = TopicPath::parse(path)?;
                Ok(Self::SetByPath { path, value: TypedValue::of(flags, bytes)? })
            }
            kind::REFUSED if flags == 0 => {
                let code = bytes.try_get_u16_le().map_err(|_| CommandError::Short)?;
                match bytes.len() {
                    0 => Ok(Self::Refused { code }),
                    bytes => Err(CommandError::Trailing { bytes }),
                }
            }
            kind::ARCHIVE if flags == 0 => {
                let kind = bytes.try_get_u16_le().map_err(|_| CommandError::Short)?;
                let version = bytes.try_get_u16_le().map_err(|_| CommandError::Short)?;
                archive::read(kind, version, &bytes)
            }
            kind::REFUSED | kind::ARCHIVE => Err(CommandError::Flags { flags }),
            kind => Err(CommandError::Kind { kind }),
        }
    }

    /// The topic that an update record names; none for any other command, and for no command.
    #[must_use]
    pub fn updated_topic(bytes: &[u8]) -> Option<TopicId> {
        let (&[kind, _flags], behind) = bytes.split_first_chunk()?;
        let is_update = matches!(kind, kind::UPDATE | kind::STREAM_UPDATE);
        is_update.then(|| behind.first_chunk().copied().map(u64::from_le_bytes).map(TopicId))?
    }
}

/// Writes an update record, as [`Command::encode`] does, into a buffer of the caller's.
pub fn put_update(
    bytes: &mut BytesMut,
    topic: TopicId,
    stream: Option<StreamId>,
    value: &TypedValue,
) {
    bytes.reserve(18 + value.len());
    bytes.put_u8(if stream.is_some() { kind::STREAM_UPDATE } else { kind::UPDATE });
    bytes.put_u8(value.flags());
    bytes.put_u64_le(topic.0);
    if let Some(stream) = stream {
        bytes.put_u64_le(stream.0);
    }
    bytes.put_slice(value.bytes.as_deref().unwrap_or_default());
}

impl TypedValue {
    fn len(&self) -> usize {
        self.bytes.as_ref().map_or(0, Bytes::len)
    }

    fn flags(&self) -> u8 {
        self.value_type.code() | if self.bytes.is_none() { FLAGS_NULL } else { 0 }
    }

    fn of(flags: u8, bytes: Bytes) -> Result<Self, CommandError> {
        if flags & !(FLAGS_TYPE | FLAGS_NULL) != 0 {
            return Err(CommandError::Flags { flags });
        }
        let code = flags & FLAGS_TYPE;
        let value_type = TopicType::from_code(code).ok_or(CommandError::ValueType { code })?;
        match (flags & FLAGS_NULL != 0, bytes.is_empty()) {
            (false, _) => Ok(Self { value_type, bytes: Some(bytes) }),
            (true, true) => Ok(Self { value_type, bytes: None }),
            (true, false) => Err(CommandError::Flags { flags }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::fuzzing;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn commands_come_back() {
        for command in fuzzing::every_command() {
            assert_eq!(Command::decode(command.encode()), Ok(command));
        }
    }

    /// The bytes of every kind, as they were when it was released.
    #[test]
    fn golden_bytes() {
        let golden = include_str!("../../../tests/fixtures/commands/v1.txt");
        let golden: Vec<&str> = golden.lines().filter(|line| !line.starts_with('#')).collect();
        let commands = fuzzing::every_command();
        let now: Vec<String> = commands.iter().map(|command| hex(&command.encode())).collect();
        assert_eq!(now, golden);
    }

    #[test]
    fn hand_laid_bytes() {
        let value = |bytes: &'static [u8]| TypedValue {
            value_type: TopicType::String,
            bytes: Some(Bytes::from_static(bytes)),
        };
        let path = TopicPath::parse("a").unwrap();
        let null = TypedValue { value_type: TopicType::Double, bytes: None };
        let stream = Some(StreamId(3));
        for (command, bytes) in [
            (
                Command::Update { topic: TopicId(2), stream: None, value: value(b"xy") },
                "010102000000000000007879",
            ),
            (
                Command::Update { topic: TopicId(2), stream, value: null },
                "020d02000000000000000300000000000000",
            ),
            (Command::SetByPath { path, value: value(b"") }, "0301010061"),
            (Command::Refused { code: 401 }, "04009101"),
        ] {
            assert_eq!(hex(&command.encode()), bytes);
        }
    }

    #[test]
    fn values_are_slices_of_what_is_read() {
        for command in fuzzing::every_command() {
            let bytes = command.encode();
            let (Command::Update { value: TypedValue { bytes: Some(value), .. }, .. }
            | Command::SetByPath { value: TypedValue { bytes: Some(value), .. }, .. }
            | Command::SetTopic { value: TypedValue { bytes: Some(value), .. }, .. }) =
                Command::decode(bytes.clone()).unwrap()
            else {
                continue;
            };
            let start = bytes.as_ptr() as usize;
            assert!((start..start + bytes.len()).contains(&(value.as_ptr() as usize)));
        }
    }

    #[test]
    fn errors_have_names() {
        for (bytes, error) in [
            (&b""[..], CommandError::Short),
            (b"\x01", CommandError::Short),
            (b"\x01\x01\0\0\0\0\0\0\0", CommandError::Short),
            (b"\x02\x01\0\0\0\0\0\0\0\0\0", CommandError::Short),
            (b"\x01\x00\0\0\0\0\0\0\0\0", CommandError::ValueType { code: 0 }),
            (b"\x01\x07\0\0\0\0\0\0\0\0", CommandError::ValueType { code: 7 }),
            (b"\x01\x11\0\0\0\0\0\0\0\0", CommandError::Flags { flags: 0x11 }),
            (b"\x01\x09\0\0\0\0\0\0\0\0x", CommandError::Flags { flags: 9 }),
            (b"\x03\x01\x02\0a", CommandError::Short),
            (b"\x03\x01\x01\0\xff", CommandError::PathEncoding),
            (b"\x03\x01\0\0", CommandError::Path(PathError::Empty)),
            (b"\x04\0\x01", CommandError::Short),
            (b"\x04\0\x01\0\0", CommandError::Trailing { bytes: 1 }),
            (b"\x04\x01\x01\0", CommandError::Flags { flags: 1 }),
            (b"\x05\0", CommandError::Kind { kind: 5 }),
            (b"\x80\x01", CommandError::Flags { flags: 1 }),
            (b"\x80\0\x01\0\x01", CommandError::Short),
            (b"\x80\0\x63\0\x01\0", CommandError::Archive { kind: 99, version: 1 }),
            (b"\x80\0\x01\0\x02\0", CommandError::Archive { kind: 1, version: 2 }),
            (b"\x80\0\x01\0\x01\0", CommandError::Malformed),
        ] {
            assert_eq!(Command::decode(Bytes::from_static(bytes)), Err(error), "{bytes:x?}");
        }
    }

    #[test]
    fn damaged_commands_are_read_without_panic() {
        for command in fuzzing::every_command() {
            let bytes = command.encode();
            for cut in 0..bytes.len() {
                fuzzing::command_bytes(&bytes[..cut]);
            }
            for at in 0..bytes.len() {
                for flip in [1, 0x80, 0xff] {
                    let mut damaged = bytes.to_vec();
                    damaged[at] ^= flip;
                    fuzzing::command_bytes(&damaged);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_command_or_an_error(
            kind in any::<u16>(),
            archive in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            fuzzing::command_bytes(&archive);
            let mut bytes = BytesMut::new();
            bytes.put_u16_le(128);
            bytes.put_u16_le(kind % 20);
            bytes.put_u16_le(1);
            bytes.put_slice(&archive);
            fuzzing::command_bytes(&bytes);
        }
    }
}
