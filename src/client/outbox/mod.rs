//! What the client has asked and not yet been answered: numbers, frames, waiters.
//!
//! Plain state without I/O. Commands are numbered here and their frames laid straight into the
//! buffer that the connection sends; what was sent is kept, whole batches at a time, until it is
//! answered, so that it can be sent again with the same numbers over the next connection.

mod selects;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::oneshot;
use tokio::time::Instant;

use selects::Selects;

use super::error::{RequestError, SessionEnded};
use super::pending::{Answered, Completions, Detail, Waiter};
use crate::domain::id::Index;
use crate::protocol::delivery::BulkMessage;
use crate::protocol::frame::LENGTH_BYTES;
use crate::protocol::read::{Answer, Level, Query, Read, ReadReply, Row};
use crate::protocol::server_message::{Acknowledged, Acknowledgement, Reply};
use crate::protocol::{ClientMessage, ErrorCode};

/// Answers after which the node is told that it may forget them.
const ANSWERED_STEP: u64 = 256;
/// Bytes of a command that weigh as much as one place in the window.
const PLACE_BYTES: usize = 64 * 1024;
/// Correlation of the library's own pings; callers' reads count from 1.
const PING_CORRELATION: u64 = 0;
/// Rows of one fetch that are gathered from a bulk stream; what is over it is cut off as `more`.
const ROWS_MAX: usize = 1 << 20;

/// Places in the window that a command takes: one, and one more for each 64 KiB, so that the window
/// bounds the bytes that are kept for sending again too.
pub(super) fn weight(bytes: usize) -> u32 {
    1 + (bytes / PLACE_BYTES) as u32
}

/// The unanswered commands and reads of one session.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    next: u64,
    /// Commands from the first unanswered one to the newest.
    slots: VecDeque<Slot>,
    /// Frames that no connection has taken yet.
    fresh: BytesMut,
    /// Frames that a connection has taken; the front one holds the first unanswered command.
    sent: VecDeque<Batch>,
    /// The next number to send again, while there are such.
    again: Option<u64>,
    /// Nothing numbered is sent before this time: the node shed it.
    paused: Option<Instant>,
    told_below: u64,
    seen: Index,
    reads: Reads,
    pub(super) selects: Selects,
    /// Goodbye is said once everything else has been.
    goodbye: Goodbye,
    ended: Option<Arc<SessionEnded>>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Goodbye {
    #[default]
    No,
    Wanted,
    Said,
}

#[derive(Debug)]
struct Slot {
    /// None: answered, or nobody waits.
    waiter: Option<Waiter>,
    weight: u32,
    answered: bool,
}

#[derive(Debug)]
struct Batch {
    last: u64,
    frames: Bytes,
    sent_at: Instant,
}

/// The unanswered reads.
#[derive(Debug, Default)]
struct Reads {
    next: u64,
    open: BTreeMap<u64, OpenRead>,
    /// Frames of reads and other unnumbered messages to send.
    fresh: BytesMut,
}

#[derive(Debug)]
struct OpenRead {
    read: Read,
    waiter: oneshot::Sender<Result<ReadReply, RequestError>>,
    reply: Option<ReadReply>,
    rows: Vec<Row>,
    rows_end: Option<bool>,
    sent_at: Instant,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self { next: 1, reads: Reads { next: 1, ..Reads::default() }, ..Self::default() }
    }

    /// Numbers a command, lays its frame, and keeps who waits for it. The caller holds `weight`
    /// places of the window, which come back from the answer.
    pub(super) fn command(
        &mut self,
        weight: u32,
        waiter: Waiter,
        lay: impl FnOnce(&mut BytesMut, u64),
    ) -> Result<u64, RequestError> {
        self.number(weight, Some(waiter), lay)
    }

    /// As [`command`](Self::command), but nobody waits for the answer.
    pub(super) fn quietly(
        &mut self,
        weight: u32,
        lay: impl FnOnce(&mut BytesMut, u64),
    ) -> Result<u64, RequestError> {
        self.number(weight, None, lay)
    }

    fn number(
        &mut self,
        weight: u32,
        waiter: Option<Waiter>,
        lay: impl FnOnce(&mut BytesMut, u64),
    ) -> Result<u64, RequestError> {
        self.refuse_if_over()?;
        let request = self.next;
        self.next += 1;
        lay(&mut self.fresh, request);
        self.slots.push_back(Slot { waiter, weight, answered: false });
        Ok(request)
    }

    /// Keeps a read and lays its frame.
    pub(super) fn read(
        &mut self,
        read: Read,
        waiter: oneshot::Sender<Result<ReadReply, RequestError>>,
        now: Instant,
    ) -> Result<u64, RequestError> {
        self.refuse_if_over()?;
        let correlation = self.reads.next;
        self.reads.next += 1;
        let message = ClientMessage::Read { correlation, read: Ok(read.clone()) };
        message.put(&mut self.reads.fresh);
        let open =
            OpenRead { read, waiter, reply: None, rows: Vec::new(), rows_end: None, sent_at: now };
        self.reads.open.insert(correlation, open);
        Ok(correlation)
    }

    /// Nobody waits for this read any more.
    pub(super) fn forget_read(&mut self, correlation: u64) {
        self.reads.open.remove(&correlation);
    }

    /// Lays a read whose answer only shows that the node lives; it is not kept.
    pub(super) fn ping(&mut self) {
        let ping =
            Read { level: Level::Stale, at_least: None, deadline_ms: None, query: Query::Ping };
        let message = ClientMessage::Read { correlation: PING_CORRELATION, read: Ok(ping) };
        message.put(&mut self.reads.fresh);
    }

    /// The lowest number that is unanswered, or the next one.
    pub(super) fn first(&self) -> u64 {
        self.next - self.slots.len() as u64
    }

    /// The highest index that the session was told of.
    pub(super) fn seen(&self) -> Index {
        self.seen
    }

    /// The session has seen this index.
    pub(super) fn saw(&mut self, index: Index) {
        self.seen = self.seen.max(index);
    }

    #[cfg(test)]
    fn unanswered(&self) -> usize {
        self.slots.len()
    }

    /// When the longest-waiting request that has been sent was sent.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        let commands = self.sent.front().filter(|_| self.paused.is_none());
        let reads = self.reads.open.values().map(|read| read.sent_at).min();
        commands.map(|batch| batch.sent_at).into_iter().chain(reads).min()
    }

    /// Takes the next bytes to send. Commands to be sent again go before fresh ones.
    pub(super) fn take(&mut self, now: Instant) -> Option<Bytes> {
        if self.first() > self.told_below + ANSWERED_STEP {
            self.told_below = self.first();
            ClientMessage::Answered { below: self.told_below }.put(&mut self.reads.fresh);
        }
        if !self.reads.fresh.is_empty() {
            return Some(self.reads.fresh.split().freeze());
        }
        if self.paused.is_some_and(|until| now < until) {
            return None;
        }
        self.paused = None;
        if let Some(frames) = self.take_again(now) {
            return Some(frames);
        }
        if self.fresh.is_empty() {
            return self.take_goodbye();
        }
        let frames = self.fresh.split().freeze();
        self.sent.push_back(Batch { last: self.next - 1, frames: frames.clone(), sent_at: now });
        Some(frames)
    }

    /// Nothing more is taken; once all that was taken is sent, goodbye is said.
    pub(super) fn close(&mut self) {
        if self.goodbye == Goodbye::No {
            self.goodbye = Goodbye::Wanted;
        }
    }

    fn take_goodbye(&mut self) -> Option<Bytes> {
        if self.goodbye != Goodbye::Wanted {
            return None;
        }
        self.goodbye = Goodbye::Said;
        let mut frame = BytesMut::new();
        ClientMessage::Goodbye.put(&mut frame);
        Some(frame.freeze())
    }

    fn refuse_if_over(&self) -> Result<(), RequestError> {
        match &self.ended {
            Some(ended) => Err(RequestError::SessionEnded(Arc::clone(ended))),
            None if self.goodbye != Goodbye::No => {
                Err(RequestError::SessionEnded(Arc::new(SessionEnded::Closed)))
            }
            None => Ok(()),
        }
    }

    /// When a pause that the node asked for is over.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused
    }

    fn take_again(&mut self, now: Instant) -> Option<Bytes> {
        let from = self.again?;
        let Some(batch) = self.sent.iter_mut().find(|batch| batch.last >= from) else {
            self.again = None;
            return None;
        };
        batch.sent_at = now;
        let frames = frames_from(batch.frames.clone(), from);
        self.again = Some(batch.last + 1);
        Some(frames)
    }

    /// A new connection of the session: everything unanswered is sent again over it.
    pub(super) fn reconnected(&mut self, last_request: u64, initial_owed: bool, now: Instant) {
        self.paused = None;
        self.told_below = 0;
        if self.goodbye == Goodbye::Said {
            self.goodbye = Goodbye::Wanted;
        }
        self.again = (!self.sent.is_empty()).then(|| self.first());
        self.reads.fresh.clear();
        for (correlation, open) in &mut self.reads.open {
            open.reply = None;
            open.rows.clear();
            open.rows_end = None;
            open.sent_at = now;
            let message =
                ClientMessage::Read { correlation: *correlation, read: Ok(open.read.clone()) };
            message.put(&mut self.reads.fresh);
        }
        self.selects.reconnected(last_request, initial_owed);
    }

    /// The node did not take this request and all above it.
    pub(super) fn shed(&mut self, first: u64, retry: Duration, now: Instant) {
        // An answered number cannot be shed; a late word about one changes nothing.
        let first = first.max(self.first());
        if first < self.next {
            self.again = Some(self.again.map_or(first, |again| again.min(first)));
            self.paused = Some(now + retry);
        }
    }

    /// Takes in outcomes without detail; returns the places of the window that they give back.
    pub(super) fn acknowledged(
        &mut self,
        entries: &[Acknowledgement],
        completions: &mut Completions,
    ) -> u32 {
        let mut places = 0;
        for entry in entries {
            match *entry {
                Acknowledgement::Run { first_request, first_index, count } => {
                    for step in 0..u64::from(count) {
                        let index = Index(first_index.0 + step);
                        let done = Answered { index, detail: Detail::Done };
                        places += self.answer(first_request + step, Ok(done), completions);
                    }
                }
                Acknowledgement::One { request, index, result } => {
                    let outcome = match result {
                        Acknowledged::Done => Ok(Answered { index, detail: Detail::Done }),
                        Acknowledged::Unchanged => {
                            Ok(Answered { index, detail: Detail::Unchanged })
                        }
                        Acknowledged::Refused(code) => Err(RequestError::refused(code)),
                    };
                    places += self.answer(request, outcome, completions);
                }
            }
        }
        places
    }

    /// Takes in one outcome with detail; as [`acknowledged`](Self::acknowledged).
    pub(super) fn replied(
        &mut self,
        request: u64,
        index: Index,
        reply: Reply,
        completions: &mut Completions,
    ) -> u32 {
        let detail = match reply {
            Reply::Topic { topic, created } => Detail::Topic { topic, created },
            Reply::Stream { stream, topic, created } => Detail::Stream { stream, topic, created },
            Reply::Removed { count, next } => Detail::Removed { count, next },
            Reply::Refused { code, text } => {
                let refused = RequestError::Refused { code: code.into(), text: text.into() };
                return self.answer(request, Err(refused), completions);
            }
        };
        self.answer(request, Ok(Answered { index, detail }), completions)
    }

    fn answer(
        &mut self,
        request: u64,
        outcome: Result<Answered, RequestError>,
        completions: &mut Completions,
    ) -> u32 {
        if let Ok(answered) = &outcome {
            self.seen = self.seen.max(answered.index);
        }
        // A number that is not open was answered before: the node answers what it is sent again.
        let Some(place) = request.checked_sub(self.first()) else { return 0 };
        let Some(slot) = self.slots.get_mut(place as usize) else { return 0 };
        if std::mem::replace(&mut slot.answered, true) {
            return 0;
        }
        let weight = slot.weight;
        let waiter = slot.waiter.take();
        self.selects.answered(request, outcome.as_ref().ok().map(|answered| answered.index));
        if let Some(waiter) = waiter {
            completions.push(waiter, request, outcome);
        }
        while self.slots.front().is_some_and(|slot| slot.answered) {
            self.slots.pop_front();
        }
        let first = self.first();
        while self.sent.front().is_some_and(|batch| batch.last < first) {
            self.sent.pop_front();
        }
        weight
    }

    /// Takes in the answer to a read.
    pub(super) fn read_replied(&mut self, correlation: u64, reply: ReadReply) {
        self.saw(reply.index);
        if let Some(open) = self.reads.open.get_mut(&correlation) {
            open.reply = Some(reply);
            self.finish_read(correlation);
        }
    }

    /// Takes in a frame of the bulk stream with a read's rows.
    pub(super) fn read_bulk(&mut self, correlation: u64, message: BulkMessage) {
        let Some(open) = self.reads.open.get_mut(&correlation) else { return };
        match message {
            BulkMessage::Row(row) if open.rows.len() < ROWS_MAX => open.rows.push(row),
            BulkMessage::End { more, .. } => {
                open.rows_end = Some(more || open.rows.len() == ROWS_MAX);
                self.finish_read(correlation);
            }
            BulkMessage::Row(_) | BulkMessage::Begin(_) | BulkMessage::Item { .. } => {}
        }
    }

    fn finish_read(&mut self, correlation: u64) {
        let complete = self.reads.open.get(&correlation).is_some_and(|open| {
            open.reply.as_ref().is_some_and(|reply| {
                !matches!(reply.answer, Answer::Bulk { .. }) || open.rows_end.is_some()
            })
        });
        if !complete {
            return;
        }
        let Some(open) = self.reads.open.remove(&correlation) else { return };
        let Some(mut reply) = open.reply else { return };
        if let (Answer::Bulk { .. }, Some(more)) = (&reply.answer, open.rows_end) {
            reply.answer = Answer::Rows { rows: open.rows, more };
        }
        // A caller that has gone away wants no answer.
        let _ = open.waiter.send(Ok(reply));
    }

    /// The session is over: everybody who waits is told. Returns the places of the window.
    pub(super) fn end(&mut self, reason: &Arc<SessionEnded>, completions: &mut Completions) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(Arc::clone(reason));
        let first = self.first();
        for (request, slot) in (first..).zip(self.slots.drain(..)) {
            if let Some(waiter) = slot.waiter {
                let reason = Arc::clone(reason);
                let unknown = RequestError::SessionEndedMeanwhile { request, reason };
                completions.push(waiter, request, Err(unknown));
            }
        }
        for (_, open) in std::mem::take(&mut self.reads.open) {
            let _ = open.waiter.send(Err(RequestError::SessionEnded(Arc::clone(reason))));
        }
        self.fresh.clear();
        self.sent.clear();
        self.again = None;
    }
}

/// The frames of a batch from the command `from` on.
fn frames_from(mut frames: Bytes, from: u64) -> Bytes {
    // Each frame is `length u32 · kind u8 · request u64 · …`: this file laid them.
    let request_of = |frames: &Bytes| {
        let request = frames.get(LENGTH_BYTES + 1..)?.first_chunk::<8>()?;
        Some(u64::from_le_bytes(*request))
    };
    while request_of(&frames).is_some_and(|request| request < from) {
        let Some(length) = frames.first_chunk::<LENGTH_BYTES>() else { break };
        frames.advance(LENGTH_BYTES + u32::from_le_bytes(*length) as usize);
    }
    frames
}

/// The error of a node that refused a read, and when to ask again if that may help.
pub(super) fn read_refusal(answer: &Answer) -> Option<(RequestError, Option<Duration>)> {
    let Answer::Refused { code, text, retry_ms } = answer else { return None };
    let code = ErrorCode::from(*code);
    let retry = retry_ms.filter(|_| code.is_transient());
    let error = RequestError::Refused { code, text: text.as_str().into() };
    Some((error, retry.map(|ms| Duration::from_millis(ms.into()))))
}
