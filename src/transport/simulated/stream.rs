//! One direction of one stream: what is on its way, what has arrived, who waits.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::Bytes;

use crate::transport::connection::CloseCode;

/// What is sent on a stream, in order.
#[derive(Debug)]
pub(super) enum Segment {
    Data(Vec<Bytes>),
    Finish,
    Reset(CloseCode),
}

/// One direction of a stream.
#[derive(Debug, Default)]
pub(super) struct Direction {
    /// Exists: the answering direction of a one-way stream does not.
    pub(super) exists: bool,
    /// Something of it has arrived.
    pub(super) announced: bool,
    /// On its way. Each arriving parcel of this direction brings the first of it, so that the
    /// order holds whatever the parcels do.
    pub(super) way: VecDeque<Segment>,
    /// Arrived and not read.
    pub(super) inbox: VecDeque<Bytes>,
    /// Sent bytes for which no credit has come back.
    pub(super) unread: usize,
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    pub(super) writers: Vec<Waker>,
    pub(super) readers: Vec<Waker>,
}

/// What the sending side knows.
#[derive(Debug, Default)]
pub(super) struct Sender {
    /// Somebody can still write.
    pub(super) held: bool,
    /// It finished or reset the stream.
    pub(super) over: bool,
    /// Everything with the end has arrived.
    pub(super) acknowledged: bool,
    /// The other side wants no more.
    pub(super) stopped: Option<CloseCode>,
}

/// What the receiving side knows.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each with an event of its own"
)]
#[derive(Debug, Default)]
pub(super) struct Receiver {
    /// Somebody can still read.
    pub(super) held: bool,
    /// The end has arrived.
    pub(super) finished: bool,
    pub(super) reset: Option<CloseCode>,
    /// It wants no more.
    pub(super) stopped: bool,
    /// The end was read, or nothing more will be.
    pub(super) done: bool,
}

/// Puts a waker among others, once.
pub(super) fn wait(wakers: &mut Vec<Waker>, waker: &Waker) {
    if !wakers.iter().any(|other| other.will_wake(waker)) {
        wakers.push(waker.clone());
    }
}
