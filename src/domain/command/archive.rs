//! The structured commands as they stand in the log: rkyv archives, one type per kind and version.
//!
//! A released archive never changes. What is new is a new version with a type of its own, and its
//! reader beside the old one; `tests/fixtures/commands` keeps the bytes of every version. These
//! types are therefore apart from the commands of [`command`](super), however alike.
//!
//! Archives are read by checked access only, and what they hold is parsed again into types that
//! cannot be wrong.

use bytes::Bytes;
use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Portable, Serialize};

use super::{Command, CommandError, OpenSession, TypedValue};
use crate::domain::constraint::Constraint;
use crate::domain::effect::CloseReason;
use crate::domain::id::{ClusterId, Lineage, NodeId, SessionId};
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::specification::{Specification, TopicType};

/// Kinds of archives. Stored: never reused, never changed.
pub(super) mod kind {
    pub(in crate::domain::command) const ADD_TOPIC: u16 = 1;
    pub(in crate::domain::command) const OPEN_TOPIC: u16 = 2;
    pub(in crate::domain::command) const SET_TOPIC: u16 = 3;
    pub(in crate::domain::command) const OPEN_STREAM: u16 = 4;
    pub(in crate::domain::command) const REMOVE_TOPICS: u16 = 5;
    pub(in crate::domain::command) const OPEN_SESSION: u16 = 6;
    pub(in crate::domain::command) const MOVE_SESSION: u16 = 7;
    pub(in crate::domain::command) const DETACH_SESSION: u16 = 8;
    pub(in crate::domain::command) const CLOSE_SESSION: u16 = 9;
    pub(in crate::domain::command) const EXPIRE_SESSIONS: u16 = 10;
    pub(in crate::domain::command) const NODE_STARTED: u16 = 11;
    pub(in crate::domain::command) const NODE_LOST: u16 = 12;
    pub(in crate::domain::command) const SELECT: u16 = 13;
    pub(in crate::domain::command) const LISTEN: u16 = 14;
    pub(in crate::domain::command) const UNLISTEN: u16 = 15;
    pub(in crate::domain::command) const FOUND: u16 = 16;
    pub(in crate::domain::command) const SET_PASSWORD: u16 = 17;
    pub(in crate::domain::command) const SET_ANONYMOUS: u16 = 18;
}

#[derive(Archive, Serialize)]
struct PairV1 {
    key: String,
    value: String,
}

#[derive(Archive, Serialize)]
struct SpecificationV1 {
    topic_type: u8,
    properties: Vec<PairV1>,
}

#[derive(Archive, Serialize)]
struct ValueV1 {
    value_type: u8,
    bytes: Option<Vec<u8>>,
}

#[derive(Archive, Serialize)]
struct AddTopicV1 {
    path: String,
    specification: SpecificationV1,
}

#[derive(Archive, Serialize)]
struct OpenTopicV1 {
    path: String,
}

#[derive(Archive, Serialize)]
struct SetTopicV1 {
    path: String,
    specification: Option<SpecificationV1>,
    constraint: Vec<u8>,
    value: ValueV1,
}

#[derive(Archive, Serialize)]
struct OpenStreamV1 {
    path: String,
    specification: Option<SpecificationV1>,
    constraint: Vec<u8>,
    value: Option<ValueV1>,
}

#[derive(Archive, Serialize)]
struct RemoveTopicsV1 {
    selector: String,
    from: Option<String>,
}

#[derive(Archive, Serialize)]
struct OpenSessionV1 {
    session: u64,
    secret_hash: [u8; 32],
    principal: String,
    roles: Vec<String>,
    properties: Vec<PairV1>,
    reconnect_timeout_ms: u64,
    host: u64,
    incarnation: u64,
}

#[derive(Archive, Serialize)]
struct MoveSessionV1 {
    session: u64,
    secret_hash: [u8; 32],
    next_secret_hash: [u8; 32],
    host: u64,
    incarnation: u64,
}

#[derive(Archive, Serialize)]
struct DetachSessionV1 {
    session: u64,
    epoch: u32,
}

#[derive(Archive, Serialize)]
struct CloseSessionV1 {
    session: u64,
    reason: u8,
}

#[derive(Archive, Serialize)]
struct ExpireSessionsV1 {
    sessions: Vec<u64>,
}

#[derive(Archive, Serialize)]
struct NodeStartedV1 {
    node: u64,
    incarnation: u64,
}

#[derive(Archive, Serialize)]
struct NodeLostV1 {
    node: u64,
    incarnation: u64,
}

#[derive(Archive, Serialize)]
struct SelectV1 {
    scope: String,
    selector: String,
    select: bool,
}

#[derive(Archive, Serialize)]
struct ListenV1 {
    listener: u32,
    selector: String,
    select: bool,
}

#[derive(Archive, Serialize)]
struct UnlistenV1 {
    listener: u32,
}

#[derive(Archive, Serialize)]
struct NameV1 {
    node: u64,
    name: String,
}

#[derive(Archive, Serialize)]
struct FoundV1 {
    cluster: u64,
    lineage: u64,
    names: Vec<NameV1>,
    admin_password: String,
    anonymous: bool,
}

#[derive(Archive, Serialize)]
struct SetPasswordV1 {
    principal: String,
    password: Option<String>,
}

#[derive(Archive, Serialize)]
struct SetAnonymousV1 {
    allowed: bool,
}

/// Kind, version and archive of a structured command; none for the hand-laid ones.
pub(super) fn write(command: &Command) -> Option<(u16, u16, AlignedVec)> {
    let (kind, archive) = match command {
        Command::Update { .. } | Command::SetByPath { .. } | Command::Refused { .. } => {
            return None;
        }
        Command::AddTopic { path, specification } => {
            let specification = specification_v1(specification);
            (kind::ADD_TOPIC, pack(&AddTopicV1 { path: path.to_string(), specification }))
        }
        Command::OpenTopic { path } => {
            (kind::OPEN_TOPIC, pack(&OpenTopicV1 { path: path.to_string() }))
        }
        Command::SetTopic { path, specification, constraint, value } => {
            let archive = SetTopicV1 {
                path: path.to_string(),
                specification: specification.as_ref().map(specification_v1),
                constraint: constraint.encode().to_vec(),
                value: value_v1(value),
            };
            (kind::SET_TOPIC, pack(&archive))
        }
        Command::OpenStream { path, specification, constraint, value } => {
            let archive = OpenStreamV1 {
                path: path.to_string(),
                specification: specification.as_ref().map(specification_v1),
                constraint: constraint.encode().to_vec(),
                value: value.as_ref().map(value_v1),
            };
            (kind::OPEN_STREAM, pack(&archive))
        }
        Command::RemoveTopics { selector, from } => {
            let from = from.as_ref().map(TopicPath::to_string);
            (kind::REMOVE_TOPICS, pack(&RemoveTopicsV1 { selector: selector.clone(), from }))
        }
        Command::Select { scope, selector, select } => {
            let (scope, selector) = (scope.clone(), selector.clone());
            (kind::SELECT, pack(&SelectV1 { scope, selector, select: *select }))
        }
        Command::Listen { listener, selector, select } => {
            let (listener, select) = (*listener, *select);
            (kind::LISTEN, pack(&ListenV1 { listener, selector: selector.clone(), select }))
        }
        Command::Unlisten { listener } => {
            (kind::UNLISTEN, pack(&UnlistenV1 { listener: *listener }))
        }
        other => write_of_cluster(other)?,
    };
    Some((kind, 1, archive))
}

/// The commands about sessions, nodes and configuration.
fn write_of_cluster(command: &Command) -> Option<(u16, AlignedVec)> {
    let (kind, archive) = match command {
        Command::OpenSession(open) => (kind::OPEN_SESSION, pack(&open_session_v1(open))),
        Command::MoveSession { session, secret_hash, next_secret_hash, host, incarnation } => {
            let archive = MoveSessionV1 {
                session: session.0,
                secret_hash: *secret_hash,
                next_secret_hash: *next_secret_hash,
                host: host.0,
                incarnation: *incarnation,
            };
            (kind::MOVE_SESSION, pack(&archive))
        }
        Command::DetachSession { session, epoch } => {
            let archive = DetachSessionV1 { session: session.0, epoch: *epoch };
            (kind::DETACH_SESSION, pack(&archive))
        }
        Command::CloseSession { session, reason } => {
            let archive = CloseSessionV1 { session: session.0, reason: reason.code() };
            (kind::CLOSE_SESSION, pack(&archive))
        }
        Command::ExpireSessions { sessions } => {
            let sessions = sessions.iter().map(|session| session.0).collect();
            (kind::EXPIRE_SESSIONS, pack(&ExpireSessionsV1 { sessions }))
        }
        Command::NodeStarted { node, incarnation } => {
            let archive = NodeStartedV1 { node: node.0, incarnation: *incarnation };
            (kind::NODE_STARTED, pack(&archive))
        }
        Command::NodeLost { node, incarnation } => {
            (kind::NODE_LOST, pack(&NodeLostV1 { node: node.0, incarnation: *incarnation }))
        }
        Command::Found { cluster, lineage, names, admin_password, anonymous } => {
            let names = names.iter();
            let archive = FoundV1 {
                cluster: cluster.0,
                lineage: lineage.0,
                names: names
                    .map(|(node, name)| NameV1 { node: node.0, name: name.clone() })
                    .collect(),
                admin_password: admin_password.clone(),
                anonymous: *anonymous,
            };
            (kind::FOUND, pack(&archive))
        }
        Command::SetPassword { principal, password } => {
            let (principal, password) = (principal.clone(), password.clone());
            (kind::SET_PASSWORD, pack(&SetPasswordV1 { principal, password }))
        }
        Command::SetAnonymous { allowed } => {
            (kind::SET_ANONYMOUS, pack(&SetAnonymousV1 { allowed: *allowed }))
        }
        _ => return None,
    };
    Some((kind, archive))
}

/// Reads an archive of a kind and version; what it holds is checked like fresh input. A value is a
/// slice of `bytes`.
pub(super) fn read(kind: u16, version: u16, bytes: &Bytes) -> Result<Command, CommandError> {
    if version != 1 {
        return Err(CommandError::Archive { kind, version });
    }
    match kind {
        kind::ADD_TOPIC => {
            let archive = access::<ArchivedAddTopicV1, Error>(bytes)?;
            let specification = read_specification(&archive.specification)?;
            Ok(Command::AddTopic { path: TopicPath::parse(&archive.path)?, specification })
        }
        kind::OPEN_TOPIC => {
            let archive = access::<ArchivedOpenTopicV1, Error>(bytes)?;
            Ok(Command::OpenTopic { path: TopicPath::parse(&archive.path)? })
        }
        kind::SET_TOPIC => {
            let archive = access::<ArchivedSetTopicV1, Error>(bytes)?;
            let specification = archive.specification.as_ref().map(read_specification);
            Ok(Command::SetTopic {
                path: TopicPath::parse(&archive.path)?,
                specification: specification.transpose()?,
                constraint: Constraint::decode(&bytes.slice_ref(&archive.constraint))?,
                value: read_value(&archive.value, bytes)?,
            })
        }
        kind::OPEN_STREAM => {
            let archive = access::<ArchivedOpenStreamV1, Error>(bytes)?;
            let specification = archive.specification.as_ref().map(read_specification);
            let value = archive.value.as_ref().map(|value| read_value(value, bytes));
            Ok(Command::OpenStream {
                path: TopicPath::parse(&archive.path)?,
                specification: specification.transpose()?,
                constraint: Constraint::decode(&bytes.slice_ref(&archive.constraint))?,
                value: value.transpose()?,
            })
        }
        kind::REMOVE_TOPICS => {
            let archive = access::<ArchivedRemoveTopicsV1, Error>(bytes)?;
            let from = archive.from.as_ref().map(|from| TopicPath::parse(from)).transpose()?;
            Ok(Command::RemoveTopics { selector: archive.selector.to_string(), from })
        }
        kind::SELECT => {
            let archive = access::<ArchivedSelectV1, Error>(bytes)?;
            Ok(Command::Select {
                scope: archive.scope.to_string(),
                selector: archive.selector.to_string(),
                select: archive.select,
            })
        }
        kind::LISTEN => {
            let archive = access::<ArchivedListenV1, Error>(bytes)?;
            Ok(Command::Listen {
                listener: archive.listener.to_native(),
                selector: archive.selector.to_string(),
                select: archive.select,
            })
        }
        kind::UNLISTEN => {
            let archive = access::<ArchivedUnlistenV1, Error>(bytes)?;
            Ok(Command::Unlisten { listener: archive.listener.to_native() })
        }
        _ => read_of_cluster(kind, version, bytes),
    }
}

/// The commands about sessions, nodes and configuration.
fn read_of_cluster(kind: u16, version: u16, bytes: &Bytes) -> Result<Command, CommandError> {
    match kind {
        kind::OPEN_SESSION => {
            let archive = access::<ArchivedOpenSessionV1, Error>(bytes)?;
            Ok(Command::OpenSession(read_open_session(archive)))
        }
        kind::MOVE_SESSION => {
            let archive = access::<ArchivedMoveSessionV1, Error>(bytes)?;
            Ok(Command::MoveSession {
                session: SessionId(archive.session.to_native()),
                secret_hash: archive.secret_hash,
                next_secret_hash: archive.next_secret_hash,
                host: NodeId(archive.host.to_native()),
                incarnation: archive.incarnation.to_native(),
            })
        }
        kind::DETACH_SESSION => {
            let archive = access::<ArchivedDetachSessionV1, Error>(bytes)?;
            Ok(Command::DetachSession {
                session: SessionId(archive.session.to_native()),
                epoch: archive.epoch.to_native(),
            })
        }
        kind::CLOSE_SESSION => {
            let archive = access::<ArchivedCloseSessionV1, Error>(bytes)?;
            let reason = CloseReason::from_code(archive.reason);
            Ok(Command::CloseSession {
                session: SessionId(archive.session.to_native()),
                reason: reason.ok_or(CommandError::CloseReason { code: archive.reason })?,
            })
        }
        kind::EXPIRE_SESSIONS => {
            let archive = access::<ArchivedExpireSessionsV1, Error>(bytes)?;
            let sessions = archive.sessions.iter().map(|id| SessionId(id.to_native())).collect();
            Ok(Command::ExpireSessions { sessions })
        }
        kind::NODE_STARTED => {
            let archive = access::<ArchivedNodeStartedV1, Error>(bytes)?;
            Ok(Command::NodeStarted {
                node: NodeId(archive.node.to_native()),
                incarnation: archive.incarnation.to_native(),
            })
        }
        kind::NODE_LOST => {
            let archive = access::<ArchivedNodeLostV1, Error>(bytes)?;
            Ok(Command::NodeLost {
                node: NodeId(archive.node.to_native()),
                incarnation: archive.incarnation.to_native(),
            })
        }
        kind::FOUND => {
            let archive = access::<ArchivedFoundV1, Error>(bytes)?;
            let names = archive.names.iter();
            let names = names.map(|name| (NodeId(name.node.to_native()), name.name.to_string()));
            Ok(Command::Found {
                cluster: ClusterId(archive.cluster.to_native()),
                lineage: Lineage(archive.lineage.to_native()),
                names: names.collect(),
                admin_password: archive.admin_password.to_string(),
                anonymous: archive.anonymous,
            })
        }
        kind::SET_PASSWORD => {
            let archive = access::<ArchivedSetPasswordV1, Error>(bytes)?;
            let password = archive.password.as_ref().map(ToString::to_string);
            Ok(Command::SetPassword { principal: archive.principal.to_string(), password })
        }
        kind::SET_ANONYMOUS => {
            let archive = access::<ArchivedSetAnonymousV1, Error>(bytes)?;
            Ok(Command::SetAnonymous { allowed: archive.allowed })
        }
        _ => Err(CommandError::Archive { kind, version }),
    }
}

fn pack(
    archive: &impl for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Error>>,
) -> AlignedVec {
    rkyv::to_bytes::<Error>(archive).expect("a command is far below the 2 GiB of an archive")
}

fn specification_v1(specification: &Specification) -> SpecificationV1 {
    let properties = specification.properties().into_iter();
    SpecificationV1 {
        topic_type: specification.topic_type().code(),
        properties: properties.map(|(key, value)| PairV1 { key, value }).collect(),
    }
}

fn value_v1(value: &TypedValue) -> ValueV1 {
    ValueV1 {
        value_type: value.value_type.code(),
        bytes: value.bytes.as_ref().map(|bytes| bytes.to_vec()),
    }
}

fn open_session_v1(open: &OpenSession) -> OpenSessionV1 {
    let properties = open.properties.iter();
    OpenSessionV1 {
        session: open.session.0,
        secret_hash: open.secret_hash,
        principal: open.principal.clone(),
        roles: open.roles.clone(),
        properties: properties
            .map(|(key, value)| PairV1 { key: key.clone(), value: value.clone() })
            .collect(),
        reconnect_timeout_ms: open.reconnect_timeout_ms,
        host: open.host.0,
        incarnation: open.incarnation,
    }
}

fn read_type(code: u8) -> Result<TopicType, CommandError> {
    TopicType::from_code(code).ok_or(CommandError::ValueType { code })
}

fn read_specification(archive: &ArchivedSpecificationV1) -> Result<Specification, CommandError> {
    let properties = archive.properties.iter();
    let pairs = properties.map(|pair| (pair.key.as_str(), pair.value.as_str()));
    Ok(Specification::new(read_type(archive.topic_type)?, pairs)?)
}

fn read_value(archive: &ArchivedValueV1, bytes: &Bytes) -> Result<TypedValue, CommandError> {
    Ok(TypedValue {
        value_type: read_type(archive.value_type)?,
        bytes: archive.bytes.as_ref().map(|value| bytes.slice_ref(value)),
    })
}

fn read_open_session(archive: &ArchivedOpenSessionV1) -> OpenSession {
    let properties = archive.properties.iter();
    OpenSession {
        session: SessionId(archive.session.to_native()),
        secret_hash: archive.secret_hash,
        principal: archive.principal.to_string(),
        roles: archive.roles.iter().map(ToString::to_string).collect(),
        properties: properties.map(|pair| (pair.key.to_string(), pair.value.to_string())).collect(),
        reconnect_timeout_ms: archive.reconnect_timeout_ms.to_native(),
        host: NodeId(archive.host.to_native()),
        incarnation: archive.incarnation.to_native(),
    }
}

/// Checked access, with the one error that it has.
fn access<'a, A, E>(bytes: &'a Bytes) -> Result<&'a A, CommandError>
where
    A: Portable + for<'b> CheckBytes<HighValidator<'b, E>>,
    E: rkyv::rancor::Source,
{
    rkyv::access::<A, E>(bytes).map_err(|_| CommandError::Malformed)
}
