//! What a node delivers: the event stream, and bulk streams with initial values and fetched rows.
//!
//! ```text
//! event  = index u64 · ordinal u32 · flags u8 · …      flags: bit 0 last of its command, bit 1 null
//! value  = event · topic id u64 · bytes
//! item   = version u64 · flags u8 · topic id u64 · specification · path · bytes
//! ```
//!
//! On the event stream positions rise; every event means the same on every node. Initial values
//! travel on a bulk stream of their own and are announced in the event stream by `initial`, so a
//! client knows which topics it may still have to learn.

use bytes::{BufMut, Bytes, BytesMut};
use minicbor::{Decode, Encode};

use super::codec::cbor;
use super::codec::laid::{Laid, put_position, put_text};
use super::frame::put_frame;
use super::handshake::ResetReason;
use super::read::Row;
use super::topic::{WireSpecification, put_specification, take_specification};
use super::{DecodeError, kind};
use crate::domain::id::{Index, Lineage, Position, TopicId};
use crate::domain::topic::path::TopicPath;

const LAST: u8 = 1;
const NULL: u8 = 1 << 1;
const HAS_VALUE: u8 = 1;

/// One frame of the event stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventMessage {
    /// Head of the stream, once: `lineage u64 · index u64 · ordinal u32`. Events after this
    /// position follow.
    Begin {
        /// Whose positions.
        lineage: Lineage,
        /// Where the stream starts.
        after: Position,
    },
    /// An event.
    Event {
        /// Where it stands.
        position: Position,
        /// No later event has the same index.
        last: bool,
        /// What happened.
        event: Event,
    },
}

/// What happened, as a session hears it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// `topic id u64 · specification · path`: the session is now subscribed. The topic has no value
    /// yet, or its value follows.
    Subscribed {
        /// The topic's identifier in later events.
        topic: TopicId,
        /// Type and properties.
        specification: WireSpecification,
        /// Where it stands.
        path: TopicPath,
    },
    /// `topic id u64 · bytes`.
    Value {
        /// Which topic.
        topic: TopicId,
        /// As it was written; none is the null value.
        value: Option<Bytes>,
    },
    /// `topic id u64 · reason u8`.
    Unsubscribed {
        /// Which topic.
        topic: TopicId,
        /// Why.
        reason: UnsubscribeReason,
    },
    /// `listener u32 · change u8 · topic id u64 · specification · path`: a topic notification.
    Notified {
        /// The client's own number of the listener.
        listener: u32,
        /// What happened to the topic.
        change: NotifiedChange,
        /// Which topic.
        topic: TopicId,
        /// Type and properties.
        specification: WireSpecification,
        /// Where it stands.
        path: TopicPath,
    },
    /// `reason u8 · lineage u64`: nothing that was said of topics before holds; an `initial` event
    /// follows.
    Reset {
        /// Why.
        reason: ResetReason,
        /// Positions from here on are of this lineage.
        lineage: Lineage,
    },
    /// Everything up to and including this position has been sent.
    Progress,
    /// `request u64 · bulk u64`: initial values as of this position travel on a bulk stream.
    Initial {
        /// The `select` that asked, or 0 after a reset or a resume.
        request: u64,
        /// The bulk stream's number, or 0: there is nothing to send.
        bulk: u64,
    },
    /// `skipped u64`: the session lagged; so many events of conflatable topics were left out.
    Lagged {
        /// How many, as far as the node counted.
        skipped: u64,
    },
}

/// Why a session is no longer subscribed. Numbers are sent, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum UnsubscribeReason {
    /// Its own deselection.
    Requested,
    /// Another session or the node did it.
    Control,
    /// The topic was removed.
    Removed,
    /// It may no longer read the topic.
    Authorization,
    /// A reason that this version does not know.
    Unknown,
    /// The topic's policy is to unsubscribe slow sessions.
    BackPressure,
}

impl UnsubscribeReason {
    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Requested => 0,
            Self::Control => 1,
            Self::Removed => 2,
            Self::Authorization => 3,
            Self::Unknown => 4,
            Self::BackPressure => 5,
        }
    }

    fn of_number(number: u8) -> Self {
        match number {
            0 => Self::Requested,
            1 => Self::Control,
            2 => Self::Removed,
            3 => Self::Authorization,
            5 => Self::BackPressure,
            _ => Self::Unknown,
        }
    }
}

/// What a topic notification tells. Numbers are sent, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotifiedChange {
    /// The topic was added.
    Added,
    /// The topic was there when the listener's selection came to match it.
    Selected,
    /// The topic was removed.
    Removed,
    /// The listener's selection no longer matches the topic.
    Deselected,
}

impl NotifiedChange {
    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Added => 0,
            Self::Selected => 1,
            Self::Removed => 2,
            Self::Deselected => 3,
        }
    }

    fn of_number(number: u8) -> Result<Self, DecodeError> {
        match number {
            0 => Ok(Self::Added),
            1 => Ok(Self::Selected),
            2 => Ok(Self::Removed),
            3 => Ok(Self::Deselected),
            _ => Err(DecodeError::Field { field: "change" }),
        }
    }
}

/// Appends a value event's frame: the hot path of fan-out, without building a message first.
pub fn put_value(
    buffer: &mut BytesMut,
    position: Position,
    last: bool,
    topic: TopicId,
    value: Option<&[u8]>,
) {
    put_frame(buffer, kind::VALUE, |body| {
        put_head(body, position, last, value.is_none());
        body.put_u64_le(topic.0);
        body.put_slice(value.unwrap_or_default());
    });
}

/// Bytes of a value event's frame around the value.
pub const VALUE_FRAME_BYTES: usize = super::frame::OVERHEAD_BYTES + 8 + 4 + 1 + 8;

fn put_head(body: &mut BytesMut, position: Position, last: bool, null: bool) {
    put_position(body, position);
    body.put_u8(if last { LAST } else { 0 } | if null { NULL } else { 0 });
}

fn put_topic(
    body: &mut BytesMut,
    topic: TopicId,
    specification: &WireSpecification,
    path: &TopicPath,
) {
    body.put_u64_le(topic.0);
    put_specification(body, specification);
    put_text(body, path.as_str());
}

fn take_topic(laid: &mut Laid) -> Result<(TopicId, WireSpecification, TopicPath), DecodeError> {
    let topic = TopicId(laid.u64()?);
    let specification = take_specification(laid)?;
    let text = laid.text("path")?;
    let path = TopicPath::parse(&text).map_err(|_| DecodeError::Field { field: "path" })?;
    Ok((topic, specification, path))
}

impl Event {
    fn kind(&self) -> u8 {
        match self {
            Self::Subscribed { .. } => kind::SUBSCRIBED,
            Self::Value { .. } => kind::VALUE,
            Self::Unsubscribed { .. } => kind::UNSUBSCRIBED,
            Self::Notified { .. } => kind::NOTIFIED,
            Self::Reset { .. } => kind::RESET,
            Self::Progress => kind::PROGRESS,
            Self::Initial { .. } => kind::INITIAL,
            Self::Lagged { .. } => kind::LAGGED,
        }
    }

    fn put_body(&self, body: &mut BytesMut) {
        match self {
            Self::Subscribed { topic, specification, path } => {
                put_topic(body, *topic, specification, path);
            }
            Self::Value { topic, value } => {
                body.put_u64_le(topic.0);
                body.put_slice(value.as_deref().unwrap_or_default());
            }
            Self::Unsubscribed { topic, reason } => {
                body.put_u64_le(topic.0);
                body.put_u8(reason.number());
            }
            Self::Notified { listener, change, topic, specification, path } => {
                body.put_u32_le(*listener);
                body.put_u8(change.number());
                put_topic(body, *topic, specification, path);
            }
            Self::Reset { reason, lineage } => {
                body.put_u8(reason.number());
                body.put_u64_le(lineage.0);
            }
            Self::Progress => {}
            Self::Initial { request, bulk } => {
                body.put_u64_le(*request);
                body.put_u64_le(*bulk);
            }
            Self::Lagged { skipped } => body.put_u64_le(*skipped),
        }
    }

    fn decode(kind: u8, null: bool, mut laid: Laid) -> Result<Self, DecodeError> {
        let event = match kind {
            kind::SUBSCRIBED => {
                let (topic, specification, path) = take_topic(&mut laid)?;
                Self::Subscribed { topic, specification, path }
            }
            kind::VALUE => {
                let topic = TopicId(laid.u64()?);
                if null {
                    laid.end()?;
                    return Ok(Self::Value { topic, value: None });
                }
                return Ok(Self::Value { topic, value: Some(laid.rest()) });
            }
            kind::UNSUBSCRIBED => Self::Unsubscribed {
                topic: TopicId(laid.u64()?),
                reason: UnsubscribeReason::of_number(laid.u8()?),
            },
            kind::NOTIFIED => {
                let listener = laid.u32()?;
                let change = NotifiedChange::of_number(laid.u8()?)?;
                let (topic, specification, path) = take_topic(&mut laid)?;
                Self::Notified { listener, change, topic, specification, path }
            }
            kind::RESET => Self::Reset {
                reason: ResetReason::of_number(laid.u8()?)
                    .ok_or(DecodeError::Field { field: "reason" })?,
                lineage: Lineage(laid.u64()?),
            },
            kind::PROGRESS => Self::Progress,
            kind::INITIAL => Self::Initial { request: laid.u64()?, bulk: laid.u64()? },
            kind::LAGGED => Self::Lagged { skipped: laid.u64()? },
            kind => return Err(DecodeError::UnknownKind { kind }),
        };
        laid.end()?;
        Ok(event)
    }
}

impl EventMessage {
    /// Appends this message as one frame.
    pub fn put(&self, buffer: &mut BytesMut) {
        match self {
            Self::Begin { lineage, after } => put_frame(buffer, kind::EVENTS, |body| {
                body.put_u64_le(lineage.0);
                put_position(body, *after);
            }),
            Self::Event { position, last, event } => put_frame(buffer, event.kind(), |body| {
                let null = matches!(event, Event::Value { value: None, .. });
                put_head(body, *position, *last, null);
                event.put_body(body);
            }),
        }
    }

    /// Reads one frame's body; values are slices of it.
    ///
    /// # Errors
    /// [`DecodeError`]; the client leaves the connection.
    pub fn decode(kind: u8, body: Bytes) -> Result<Self, DecodeError> {
        kind::check(kind, body.len())?;
        if !(kind::EVENTS..=kind::LAGGED).contains(&kind) {
            return Err(DecodeError::UnknownKind { kind });
        }
        let mut laid = Laid::new(body);
        if kind == kind::EVENTS {
            let (lineage, after) = (Lineage(laid.u64()?), laid.position()?);
            laid.end()?;
            return Ok(Self::Begin { lineage, after });
        }
        let position = laid.position()?;
        let flags = laid.u8()?;
        let null = flags & NULL != 0;
        if flags & !(LAST | NULL) != 0 || (null && kind != kind::VALUE) {
            return Err(DecodeError::Field { field: "flags" });
        }
        let event = Event::decode(kind, null, laid)?;
        Ok(Self::Event { position, last: flags & LAST != 0, event })
    }
}

/// One frame of a bulk stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BulkMessage {
    /// Head of the stream.
    Begin(BulkBegin),
    /// A subscription with its initial value.
    Item {
        /// The command that set the value; zero without one. Later value events of this topic up to
        /// it are already in the value.
        version: Index,
        /// Which topic.
        topic: TopicId,
        /// Type and properties.
        specification: WireSpecification,
        /// Where it stands.
        path: TopicPath,
        /// Its value; none: it has none, and no value event follows the subscription.
        value: Option<Bytes>,
    },
    /// One topic of a fetch, in path order.
    Row(Row),
    /// Everything has been sent.
    End {
        /// How many items or rows there were.
        count: u64,
        /// Of a fetch: the result was cut by a limit.
        more: bool,
    },
}

/// Head of a bulk stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BulkBegin {
    /// Unique in the connection, from 1.
    #[n(0)]
    pub bulk: u64,
    /// What it is for.
    #[n(1)]
    pub purpose: BulkPurpose,
    /// The state that was read had applied everything up to this position.
    #[n(2)]
    pub position: Position,
}

/// What a bulk stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum BulkPurpose {
    /// Initial values, for this `select` or (0) after a reset or a resume.
    #[n(0)]
    Initial(#[n(0)] u64),
    /// Rows of the read with this correlation id.
    #[n(1)]
    Fetch(#[n(0)] u64),
}

impl BulkMessage {
    /// Appends this message as one frame.
    pub fn put(&self, buffer: &mut BytesMut) {
        match self {
            Self::Begin(begin) => put_frame(buffer, kind::BULK, |body| cbor::put(body, begin)),
            Self::Item { version, topic, specification, path, value } => {
                put_item(buffer, *version, *topic, specification, path, value.as_deref());
            }
            Self::Row(row) => put_frame(buffer, kind::ROW, |body| cbor::put(body, row)),
            Self::End { count, more } => put_frame(buffer, kind::BULK_END, |body| {
                body.put_u64_le(*count);
                body.put_u8(u8::from(*more));
            }),
        }
    }

    /// Reads one frame's body; an item's value is a slice of it.
    ///
    /// # Errors
    /// [`DecodeError`]; the client leaves the connection.
    pub fn decode(kind: u8, body: Bytes) -> Result<Self, DecodeError> {
        kind::check(kind, body.len())?;
        match kind {
            kind::BULK => Ok(Self::Begin(cbor::take(&body)?)),
            kind::ROW => Ok(Self::Row(cbor::take(&body)?)),
            kind::ITEM => {
                let mut laid = Laid::new(body);
                let version = Index(laid.u64()?);
                let flags = laid.u8()?;
                if flags & !HAS_VALUE != 0 {
                    return Err(DecodeError::Field { field: "flags" });
                }
                let (topic, specification, path) = take_topic(&mut laid)?;
                let value = if flags & HAS_VALUE == 0 {
                    laid.end()?;
                    None
                } else {
                    Some(laid.rest())
                };
                Ok(Self::Item { version, topic, specification, path, value })
            }
            kind::BULK_END => {
                let mut laid = Laid::new(body);
                let count = laid.u64()?;
                let more = match laid.u8()? {
                    0 => false,
                    1 => true,
                    _ => return Err(DecodeError::Field { field: "more" }),
                };
                laid.end()?;
                Ok(Self::End { count, more })
            }
            kind => Err(DecodeError::UnknownKind { kind }),
        }
    }
}

/// Appends an item's frame: `version u64 · flags u8 · topic id u64 · specification · path · bytes`.
pub fn put_item(
    buffer: &mut BytesMut,
    version: Index,
    topic: TopicId,
    specification: &WireSpecification,
    path: &TopicPath,
    value: Option<&[u8]>,
) {
    put_frame(buffer, kind::ITEM, |body| {
        body.put_u64_le(version.0);
        body.put_u8(if value.is_some() { HAS_VALUE } else { 0 });
        put_topic(body, topic, specification, path);
        body.put_slice(value.unwrap_or_default());
    });
}
