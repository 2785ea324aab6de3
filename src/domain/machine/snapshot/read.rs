//! From records to a machine. Everything is checked: the bytes may come from anywhere.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};

use super::{VERSION, kind};
use crate::domain::command::OpenSession;
use crate::domain::configuration::Founding;
use crate::domain::id::{ClusterId, Index, Lineage, NodeId, SessionId, StreamId, TopicId};
use crate::domain::limits;
use crate::domain::machine::Machine;
use crate::domain::outcome::Outcome;
use crate::domain::selector::{Selections, Selector};
use crate::domain::session::answered::{ANSWERS_MAX, AnsweredRing};
use crate::domain::session::lifecycle::SessionState;
use crate::domain::session::record::{Restored, Secrets, Session};
use crate::domain::topic::path::TopicPath;
use crate::domain::topic::record::StreamHold;
use crate::domain::topic::specification::{Specification, TopicType};
use crate::domain::topic::tree::RestoredTopic;
use crate::domain::topic::value::own;

/// Why records are no machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A record of a version that this node cannot read.
    #[error("snapshot record version {version} is not known; this node reads version {VERSION}")]
    Version {
        /// What was found.
        version: u8,
    },
    /// A kind of item that this node cannot read, or one out of its order.
    #[error("snapshot item kind {kind} cannot follow kind {after}")]
    Kind {
        /// What was found.
        kind: u8,
        /// What stood before it; zero at the beginning.
        after: u8,
    },
    /// An item that ends before its fields do, or goes on after them.
    #[error("a snapshot item of kind {kind} has the wrong length")]
    Length {
        /// Which kind.
        kind: u8,
    },
    /// A field with a value that it cannot have.
    #[error("a snapshot item of kind {kind} has an illegal {field}")]
    Illegal {
        /// Which kind.
        kind: u8,
        /// Which field.
        field: &'static str,
    },
    /// The same topic, session, node or principal twice.
    #[error("a snapshot item of kind {kind} comes twice")]
    Double {
        /// Which kind.
        kind: u8,
    },
    /// The records end before the end item.
    #[error("the snapshot has no end")]
    NoEnd,
    /// Another number of topics, sessions or applied entries than the end item says.
    #[error("the snapshot says {expected} {what} and holds {found}")]
    Count {
        /// Of what.
        what: &'static str,
        /// What the end item says.
        expected: u64,
        /// What was found.
        found: u64,
    },
    /// The recomputed state hash is another one.
    #[error("the snapshot's state hash is {expected:016x}, but its state has {found:016x}")]
    Hash {
        /// What the end item says.
        expected: u64,
        /// What was computed.
        found: u64,
    },
}

/// Takes records in and builds the machine.
#[derive(Debug, Default)]
pub(super) struct Reader {
    machine: Machine,
    /// The kind of the item before; zero at the beginning.
    after: u8,
    /// The session whose items are being read.
    session: Option<Unfinished>,
    end: Option<End>,
}

/// A session whose items are still coming.
#[derive(Debug)]
struct Unfinished {
    session: Session,
    selections: Selections,
    listeners: Vec<(u32, Selections)>,
}

#[derive(Debug, Clone, Copy)]
struct End {
    topics: u64,
    sessions: u64,
    hash: u64,
    applied: u64,
}

impl Reader {
    pub(super) fn record(&mut self, mut record: Bytes) -> Result<(), RestoreError> {
        let version = record.try_get_u8().unwrap_or(0);
        if version != VERSION {
            return Err(RestoreError::Version { version });
        }
        while record.has_remaining() {
            let kind = record.get_u8();
            let length = record.try_get_u32_le().map_err(|_| RestoreError::Length { kind })?;
            if (length as usize) > record.len() {
                return Err(RestoreError::Length { kind });
            }
            let mut body = Body { kind, bytes: record.split_to(length as usize) };
            self.item(&mut body)?;
            if body.bytes.has_remaining() {
                return Err(RestoreError::Length { kind });
            }
            self.after = kind;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Machine, RestoreError> {
        let end = self.end.ok_or(RestoreError::NoEnd)?;
        let machine = self.machine;
        let topics = machine.topics().len() as u64;
        let sessions = machine.sessions().len() as u64;
        for (what, expected, found) in [
            ("topics", end.topics, topics),
            ("sessions", end.sessions, sessions),
            // The state hash is of the state alone, so this number is written twice.
            ("applied entries", end.applied, machine.applied()),
        ] {
            if expected != found {
                return Err(RestoreError::Count { what, expected, found });
            }
        }
        let (expected, found) = (end.hash, machine.hash());
        if expected != found {
            return Err(RestoreError::Hash { expected, found });
        }
        Ok(machine)
    }

    fn item(&mut self, body: &mut Body) -> Result<(), RestoreError> {
        let (kind, after) = (body.kind, self.after);
        let of_session = matches!(kind, kind::SELECTION | kind::LISTENING | kind::ANSWER);
        let in_order = match (after, kind) {
            (0, kind::HEAD) => true,
            (0 | kind::END, _) | (_, kind::HEAD) => false,
            (_, kind::SESSION) => after >= kind::HEAD,
            _ if of_session => after >= kind::SESSION && after <= kind,
            (_, kind::FOUNDING..=kind::TOPIC) => after <= kind,
            (_, kind) => kind == kind::END,
        };
        if !in_order {
            return Err(RestoreError::Kind { kind, after });
        }
        if !of_session {
            self.finish_session()?;
        }
        match kind {
            kind::HEAD => self.head(body),
            kind::FOUNDING..=kind::PRINCIPAL => self.configuration(body),
            kind::TOPIC => self.topic(body),
            kind::SESSION => self.session(body),
            kind::SELECTION | kind::LISTENING | kind::ANSWER => self.of_session(body),
            _ => {
                let (topics, sessions) = (body.u64()?, body.u64()?);
                let (hash, applied) = (body.u64()?, body.u64()?);
                self.end = Some(End { topics, sessions, hash, applied });
                Ok(())
            }
        }
    }

    fn head(&mut self, body: &mut Body) -> Result<(), RestoreError> {
        self.machine.clock.applied = body.u64()?;
        self.machine.clock.log_time_ms = body.u64()?;
        self.machine.clock.wall_time_ms = body.u64()?;
        self.machine.topics.restore_next_id(body.u64()?);
        let anonymous = body.flags(1, "anonymous")? == 1;
        self.machine.configuration.set_anonymous(anonymous);
        Ok(())
    }

    fn configuration(&mut self, body: &mut Body) -> Result<(), RestoreError> {
        let configuration = &mut self.machine.configuration;
        let is_double = match body.kind {
            kind::FOUNDING => {
                let founding =
                    Founding { cluster: ClusterId(body.u64()?), lineage: Lineage(body.u64()?) };
                let is_double = configuration.founding().is_some();
                configuration.found(founding);
                is_double
            }
            kind::NAME => {
                let (node, name) = (NodeId(body.u64()?), body.text()?);
                let is_double = configuration.name(node).is_some();
                configuration.set_name(node, name);
                is_double
            }
            kind::RUN => {
                let (node, incarnation) = (NodeId(body.u64()?), body.u64()?);
                let is_double = configuration.incarnations().any(|(other, _)| other == node);
                configuration.set_incarnation(node, incarnation);
                is_double
            }
            _ => {
                let (principal, password) = (body.text()?, body.text()?);
                let is_double = configuration.password(&principal).is_some();
                configuration.set_password(principal, Some(password));
                is_double
            }
        };
        if is_double { Err(RestoreError::Double { kind: body.kind }) } else { Ok(()) }
    }

    fn topic(&mut self, body: &mut Body) -> Result<(), RestoreError> {
        let id = TopicId(body.u64()?);
        let (added, version) = (Index(body.u64()?), Index(body.u64()?));
        let flags = body.flags(3, "flags")?;
        let topic_type = TopicType::from_code(body.u8()?).ok_or_else(|| body.illegal("type"))?;
        let pairs = body.pairs()?;
        let specification =
            Specification::new(topic_type, pairs).map_err(|_| body.illegal("specification"))?;
        let path = TopicPath::parse(&body.text()?).map_err(|_| body.illegal("path"))?;
        let stream = match flags & 2 {
            0 => None,
            _ => Some(StreamHold {
                id: StreamId(body.u64()?),
                session: SessionId(body.u64()?),
                epoch: body.u32()?,
            }),
        };
        // An own allocation: a slice would keep the whole record alive for as long as the topic.
        let value = (flags & 1 != 0).then(|| own(&body.rest()));
        let too_large = value.as_ref().is_some_and(|value| value.len() > limits::VALUE_BYTES_MAX);
        if too_large || (value.is_some() && specification.dont_retain_value()) {
            return Err(body.illegal("value"));
        }
        if version < added {
            return Err(body.illegal("version"));
        }
        if id.0 >= self.machine.topics.next_id() {
            return Err(body.illegal("identifier"));
        }
        let topic = RestoredTopic { id, path, specification, added, version, value, stream };
        if self.machine.topics.restore(topic) {
            Ok(())
        } else {
            Err(RestoreError::Double { kind: body.kind })
        }
    }

    fn session(&mut self, body: &mut Body) -> Result<(), RestoreError> {
        let session = SessionId(body.u64()?);
        let (epoch, role_version) = (body.u32()?, body.u32()?);
        let current = body.hash()?;
        let flags = body.flags(3, "flags")?;
        let previous = if flags & 1 != 0 { Some(body.hash()?) } else { None };
        let state = match flags & 2 {
            0 => SessionState::Active,
            _ => SessionState::Detached { at_ms: body.u64()? },
        };
        let (host, incarnation) = (NodeId(body.u64()?), body.u64()?);
        let opened = Index(body.u64()?);
        let reconnect_timeout_ms = body.u64()?;
        let last = body.u64()?;
        if last >= 1 << 62 || session == SessionId::CLUSTER {
            return Err(body.illegal("number"));
        }
        let principal = body.text()?;
        let roles = body.texts()?;
        let properties = body.pairs()?.into_iter().collect::<BTreeMap<_, _>>();
        let secret_hash = current;
        let open = OpenSession {
            session,
            secret_hash,
            principal,
            roles,
            properties,
            reconnect_timeout_ms,
            host,
            incarnation,
        };
        let restored = Restored {
            epoch,
            role_version,
            secrets: Secrets { current, previous },
            state,
            ring: AnsweredRing::restored(last),
        };
        let session = Session::restored(open, opened, restored);
        let selections = Selections::default();
        self.session = Some(Unfinished { session, selections, listeners: Vec::new() });
        Ok(())
    }

    fn of_session(&mut self, body: &mut Body) -> Result<(), RestoreError> {
        let misplaced = RestoreError::Kind { kind: body.kind, after: self.after };
        let unfinished = self.session.as_mut().ok_or(misplaced)?;
        match body.kind {
            kind::SELECTION => {
                let select = body.flags(1, "select")? == 1;
                let scope = body.text()?;
                let selector = body.selector()?;
                let restored = unfinished.selections.restore(&scope, select, selector);
                restored.map_err(|_| body.illegal("selection"))
            }
            kind::LISTENING => {
                let listener = body.u32()?;
                let select = body.flags(1, "select")? == 1;
                let selector = body.selector()?;
                let entries = unfinished.listener(listener);
                entries.restore("", select, selector).map_err(|_| body.illegal("listener"))
            }
            _ => {
                let index = Index(body.u64()?);
                let outcome = Outcome::decode(&body.rest()).map_err(|_| body.illegal("outcome"))?;
                let ring = unfinished.session.restored_ring();
                if ring.len() as u64 >= ring.last() || ring.len() >= ANSWERS_MAX {
                    return Err(body.illegal("number of answers"));
                }
                ring.restore(index, outcome);
                Ok(())
            }
        }
    }

    /// A session is put in when all that belongs to it has been read.
    fn finish_session(&mut self) -> Result<(), RestoreError> {
        let Some(unfinished) = self.session.take() else { return Ok(()) };
        let Unfinished { mut session, selections, listeners } = unfinished;
        if self.machine.session(session.id()).is_some() {
            return Err(RestoreError::Double { kind: kind::SESSION });
        }
        if !session.restore_interests(selections, listeners) {
            return Err(RestoreError::Illegal {
                kind: kind::LISTENING,
                field: "list of listeners",
            });
        }
        self.machine.sessions.insert(session);
        Ok(())
    }
}

impl Unfinished {
    /// The entries of a listener, which is the last one or new.
    fn listener(&mut self, listener: u32) -> &mut Selections {
        if self.listeners.last().is_none_or(|(last, _)| *last != listener) {
            self.listeners.push((listener, Selections::default()));
        }
        let last = self.listeners.last_mut();
        &mut last.expect("the listener was pushed if it was not there").1
    }
}

/// One item's body.
struct Body {
    kind: u8,
    bytes: Bytes,
}

impl Body {
    fn short(&self) -> RestoreError {
        RestoreError::Length { kind: self.kind }
    }

    fn illegal(&self, field: &'static str) -> RestoreError {
        RestoreError::Illegal { kind: self.kind, field }
    }

    fn u8(&mut self) -> Result<u8, RestoreError> {
        self.bytes.try_get_u8().map_err(|_| self.short())
    }

    fn u32(&mut self) -> Result<u32, RestoreError> {
        self.bytes.try_get_u32_le().map_err(|_| self.short())
    }

    fn u64(&mut self) -> Result<u64, RestoreError> {
        self.bytes.try_get_u64_le().map_err(|_| self.short())
    }

    fn hash(&mut self) -> Result<[u8; 32], RestoreError> {
        let mut hash = [0; 32];
        self.bytes.try_copy_to_slice(&mut hash).map_err(|_| self.short())?;
        Ok(hash)
    }

    fn flags(&mut self, legal: u8, field: &'static str) -> Result<u8, RestoreError> {
        let flags = self.u8()?;
        if flags & !legal == 0 { Ok(flags) } else { Err(self.illegal(field)) }
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.bytes)
    }

    fn text(&mut self) -> Result<String, RestoreError> {
        let length = self.u32()? as usize;
        if length > self.bytes.len() {
            return Err(self.short());
        }
        let text = self.bytes.split_to(length);
        match std::str::from_utf8(&text) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.illegal("text")),
        }
    }

    fn texts(&mut self) -> Result<Vec<String>, RestoreError> {
        // Grows by what is there: a claimed count allocates nothing.
        (0..self.u32()?).map(|_| self.text()).collect()
    }

    fn pairs(&mut self) -> Result<Vec<(String, String)>, RestoreError> {
        (0..self.u32()?).map(|_| Ok((self.text()?, self.text()?))).collect()
    }

    fn selector(&mut self) -> Result<Selector, RestoreError> {
        let text = self.text()?;
        Selector::parse(&text).map_err(|_| self.illegal("selector"))
    }
}
