//! What a node says on a session's control stream.

use bytes::{BufMut, Bytes, BytesMut};
use minicbor::{Decode, Encode};

use super::codec::cbor;
use super::codec::laid::Laid;
use super::frame::put_frame;
use super::handshake::{Refused, Welcome};
use super::read::ReadReply;
use super::{DecodeError, ErrorCode, kind};
use crate::domain::id::{Index, StreamId, TopicId};

/// Requests that one run of an acknowledgement frame may cover.
pub const RUN_MAX: u32 = 65_536;

const FORM_RUN: u8 = 0;
const FORM_ONE: u8 = 1;
const CODE_DONE: u16 = 0;
const CODE_UNCHANGED: u16 = 1;

/// One frame from node to client on the control stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerMessage {
    /// The session is open.
    Welcome(Welcome),
    /// The session is not opened.
    Refused(Refused),
    /// Outcomes without detail: `{ run | one }*`, see [`Acknowledgement`].
    Acknowledged(Vec<Acknowledgement>),
    /// `request u64 · index u64 · CBOR`: the outcome of one command, with detail.
    Reply {
        /// Whose outcome.
        request: u64,
        /// Where the command stands in the log; zero if it was refused before it got there.
        index: Index,
        /// The outcome.
        reply: Reply,
    },
    /// `correlation u64 · CBOR`.
    ReadReply {
        /// Of the read.
        correlation: u64,
        /// Its answer.
        reply: ReadReply,
    },
    /// `request u64 · code u16 · retry u32`: this request and all above it were not taken. The node
    /// drops higher numbers until this one comes again.
    Shed {
        /// The first request that was refused.
        first: u64,
        /// Why: overloaded, inquorate, draining.
        code: ErrorCode,
        /// Send again after so many milliseconds.
        retry_ms: u32,
    },
    /// `code u16 · retry u32`: the node waits for its quorum; it sheds commands and refuses reads
    /// other than `stale`.
    Parked {
        /// Why.
        code: ErrorCode,
        /// Another node may be tried after so many milliseconds.
        retry_ms: u32,
    },
    /// No body: the node serves again.
    Unparked,
    /// `index u64`: the node lives and has applied everything up to this index.
    Beat {
        /// Newest applied.
        applied: Index,
    },
    /// `code u16 · retry u32 · text`: the last frame; the connection ends. The session ends too if
    /// the code is not transient.
    Close {
        /// Why.
        code: ErrorCode,
        /// Connect again after so many milliseconds; meant only where the code is transient.
        retry_ms: u32,
        /// For people.
        text: String,
    },
}

/// Outcomes without detail.
///
/// ```text
/// run = 0 · first request u64 · first index u64 · count u32     1 to 65,536 requests, all `done`
/// one = 1 · request u64 · index u64 · code u16                  0 done, 1 unchanged, else an error
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledgement {
    /// `count` consecutive requests are done, at consecutive indices.
    Run {
        /// The lowest.
        first_request: u64,
        /// Its index.
        first_index: Index,
        /// At least 1, at most [`RUN_MAX`].
        count: u32,
    },
    /// One request.
    One {
        /// Which.
        request: u64,
        /// Where it stands; zero if it was refused before it got there.
        index: Index,
        /// What became of it.
        result: Acknowledged,
    },
}

/// What became of a request that has nothing more to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledged {
    /// Done.
    Done,
    /// The value was the topic's already: not published.
    Unchanged,
    /// Nothing was changed.
    Refused(ErrorCode),
}

/// The outcome of one command, with detail.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// The topic that was added, opened or set by path.
    #[n(0)]
    #[cbor(map)]
    Topic {
        /// Its cluster-wide identifier.
        #[n(0)]
        topic: TopicId,
        /// False: it was there before.
        #[n(1)]
        created: bool,
    },
    /// The update stream that was opened.
    #[n(1)]
    #[cbor(map)]
    Stream {
        /// Names the stream in update records.
        #[n(0)]
        stream: StreamId,
        /// The topic that it writes.
        #[n(1)]
        topic: TopicId,
        /// False: the topic was there before.
        #[n(2)]
        created: bool,
    },
    /// One page of a removal.
    #[n(2)]
    #[cbor(map)]
    Removed {
        /// Topics removed by this page.
        #[n(0)]
        count: u32,
        /// Where the next page starts; none when the removal is complete.
        #[n(1)]
        next: Option<String>,
    },
    /// Nothing was changed.
    #[n(3)]
    #[cbor(map)]
    Refused {
        /// An [`ErrorCode`]'s number.
        #[n(0)]
        code: u16,
        /// For people: what exactly is wrong.
        #[cbor(n(1), default)]
        text: String,
    },
}

/// Gathers outcomes into one acknowledgement frame, joining neighbours into runs.
#[derive(Debug, Default)]
pub struct AcknowledgementWriter {
    body: BytesMut,
    run: Option<(u64, u64, u32)>,
}

impl AcknowledgementWriter {
    /// Bytes of body at which a writer should be put into a frame; one more entry always fits.
    pub const BODY_BYTES_FULL: usize = 16 * 1024;

    /// Adds the outcome of one request.
    pub fn push(&mut self, request: u64, index: Index, result: Acknowledged) {
        if result == Acknowledged::Done {
            if let Some((first, first_index, count)) = &mut self.run {
                let next = u64::from(*count);
                if *first + next == request && *first_index + next == index.0 && *count < RUN_MAX {
                    *count += 1;
                    return;
                }
            }
            self.end_run();
            self.run = Some((request, index.0, 1));
            return;
        }
        self.end_run();
        put_one(&mut self.body, request, index, result);
    }

    /// Nothing was added since the last frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.body.is_empty() && self.run.is_none()
    }

    /// A frame should be written before more is added.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.body.len() >= Self::BODY_BYTES_FULL
    }

    /// Appends what was gathered as one frame, if anything was, and starts anew.
    pub fn put(&mut self, buffer: &mut BytesMut) {
        self.end_run();
        if !self.body.is_empty() {
            put_frame(buffer, kind::ACKNOWLEDGED, |body| body.put_slice(&self.body));
            self.body.clear();
        }
    }

    fn end_run(&mut self) {
        if let Some((first_request, first_index, count)) = self.run.take() {
            put_run(&mut self.body, first_request, Index(first_index), count);
        }
    }
}

fn put_run(body: &mut BytesMut, first_request: u64, first_index: Index, count: u32) {
    body.put_u8(FORM_RUN);
    body.put_u64_le(first_request);
    body.put_u64_le(first_index.0);
    body.put_u32_le(count);
}

fn put_one(body: &mut BytesMut, request: u64, index: Index, result: Acknowledged) {
    body.put_u8(FORM_ONE);
    body.put_u64_le(request);
    body.put_u64_le(index.0);
    body.put_u16_le(match result {
        Acknowledged::Done => CODE_DONE,
        Acknowledged::Unchanged => CODE_UNCHANGED,
        Acknowledged::Refused(code) => code.number(),
    });
}

fn take_acknowledgements(body: Bytes) -> Result<Vec<Acknowledgement>, DecodeError> {
    let mut laid = Laid::new(body);
    let mut found = Vec::new();
    while !laid.is_empty() {
        found.push(match laid.u8()? {
            FORM_RUN => {
                let (first_request, first_index) = (laid.u64()?, Index(laid.u64()?));
                let count = laid.u32()?;
                let last = u64::from(count);
                let fits = first_request.checked_add(last).is_some()
                    && first_index.0.checked_add(last).is_some();
                if count == 0 || count > RUN_MAX || !fits {
                    return Err(DecodeError::Field { field: "count" });
                }
                Acknowledgement::Run { first_request, first_index, count }
            }
            FORM_ONE => Acknowledgement::One {
                request: laid.u64()?,
                index: Index(laid.u64()?),
                result: match laid.u16()? {
                    CODE_DONE => Acknowledged::Done,
                    CODE_UNCHANGED => Acknowledged::Unchanged,
                    code => Acknowledged::Refused(code.into()),
                },
            },
            _ => return Err(DecodeError::Field { field: "form" }),
        });
    }
    Ok(found)
}

impl ServerMessage {
    /// Appends this message as one frame.
    pub fn put(&self, buffer: &mut BytesMut) {
        put_frame(buffer, self.kind(), |body| self.put_body(body));
    }

    fn put_body(&self, body: &mut BytesMut) {
        match self {
            Self::Welcome(welcome) => cbor::put(body, welcome),
            Self::Refused(refused) => cbor::put(body, refused),
            Self::Acknowledged(entries) => {
                for entry in entries {
                    match *entry {
                        Acknowledgement::Run { first_request, first_index, count } => {
                            put_run(body, first_request, first_index, count);
                        }
                        Acknowledgement::One { request, index, result } => {
                            put_one(body, request, index, result);
                        }
                    }
                }
            }
            Self::Reply { request, index, reply } => {
                body.put_u64_le(*request);
                body.put_u64_le(index.0);
                cbor::put(body, reply);
            }
            Self::ReadReply { correlation, reply } => {
                body.put_u64_le(*correlation);
                cbor::put(body, reply);
            }
            Self::Shed { first, code, retry_ms } => {
                body.put_u64_le(*first);
                body.put_u16_le(code.number());
                body.put_u32_le(*retry_ms);
            }
            Self::Parked { code, retry_ms } => {
                body.put_u16_le(code.number());
                body.put_u32_le(*retry_ms);
            }
            Self::Unparked => {}
            Self::Beat { applied } => body.put_u64_le(applied.0),
            Self::Close { code, retry_ms, text } => {
                body.put_u16_le(code.number());
                body.put_u32_le(*retry_ms);
                body.put_slice(text.as_bytes());
            }
        }
    }

    /// Reads one frame's body.
    ///
    /// # Errors
    /// [`DecodeError`]; the client leaves the connection.
    pub fn decode(kind: u8, body: Bytes) -> Result<Self, DecodeError> {
        kind::check(kind, body.len())?;
        match kind {
            kind::WELCOME => return Ok(Self::Welcome(cbor::take(&body)?)),
            kind::REFUSED => return Ok(Self::Refused(cbor::take(&body)?)),
            kind::ACKNOWLEDGED => return Ok(Self::Acknowledged(take_acknowledgements(body)?)),
            _ => {}
        }
        let mut laid = Laid::new(body);
        let message = match kind {
            kind::REPLY => {
                let (request, index) = (laid.u64()?, Index(laid.u64()?));
                return Ok(Self::Reply { request, index, reply: cbor::take(&laid.rest())? });
            }
            kind::READ_REPLY => {
                let correlation = laid.u64()?;
                return Ok(Self::ReadReply { correlation, reply: cbor::take(&laid.rest())? });
            }
            kind::CLOSE => {
                let (code, retry_ms) = (laid.u16()?.into(), laid.u32()?);
                let text = std::str::from_utf8(&laid.rest())
                    .map_err(|_| DecodeError::Field { field: "text" })?
                    .to_owned();
                return Ok(Self::Close { code, retry_ms, text });
            }
            kind::SHED => {
                Self::Shed { first: laid.u64()?, code: laid.u16()?.into(), retry_ms: laid.u32()? }
            }
            kind::PARKED => Self::Parked { code: laid.u16()?.into(), retry_ms: laid.u32()? },
            kind::UNPARKED => Self::Unparked,
            kind::BEAT => Self::Beat { applied: Index(laid.u64()?) },
            kind => return Err(DecodeError::UnknownKind { kind }),
        };
        laid.end()?;
        Ok(message)
    }

    /// This message's frame kind.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Self::Welcome(_) => kind::WELCOME,
            Self::Refused(_) => kind::REFUSED,
            Self::Acknowledged(_) => kind::ACKNOWLEDGED,
            Self::Reply { .. } => kind::REPLY,
            Self::ReadReply { .. } => kind::READ_REPLY,
            Self::Shed { .. } => kind::SHED,
            Self::Parked { .. } => kind::PARKED,
            Self::Unparked => kind::UNPARKED,
            Self::Beat { .. } => kind::BEAT,
            Self::Close { .. } => kind::CLOSE,
        }
    }
}
