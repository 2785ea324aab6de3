//! Frame kinds. A number belongs to one message on one kind of stream and is never reused.

use super::PAYLOAD_BYTES_MAX;
use crate::protocol::DecodeError;

/// Client to node: the first frame of a connection.
pub const HELLO: u8 = 1;
/// Client to node: an update record under its request number.
pub const UPDATE: u8 = 2;
/// Client to node: any other numbered command.
pub const COMMAND: u8 = 3;
/// Client to node: a read under its correlation id.
pub const READ: u8 = 4;
/// Client to node: every answer below this request number has arrived.
pub const ANSWERED: u8 = 5;
/// Client to node: end the session.
pub const GOODBYE: u8 = 6;
/// Reserved for the head of a client's publish stream; version 1 nodes refuse such streams.
pub const PUBLISH: u8 = 7;
/// Client to node: the first frame of a connection that reads once and opens no session.
pub const LOOK: u8 = 8;

/// Node to client: the session is open or resumed.
pub const WELCOME: u8 = 33;
/// Node to client: the session is not opened; the connection ends.
pub const REFUSED: u8 = 34;
/// Node to client: outcomes of commands that have nothing more to tell.
pub const ACKNOWLEDGED: u8 = 35;
/// Node to client: the outcome of one command, with detail.
pub const REPLY: u8 = 36;
/// Node to client: the answer to a read.
pub const READ_REPLY: u8 = 37;
/// Node to client: this request number and all above it were not taken; send them again.
pub const SHED: u8 = 38;
/// Node to client: the node takes no commands for now.
pub const PARKED: u8 = 39;
/// Node to client: the node serves again.
pub const UNPARKED: u8 = 40;
/// Node to client: a sign of life.
pub const BEAT: u8 = 41;
/// Node to client: the last frame of a connection.
pub const CLOSE: u8 = 42;

/// Events: head of the event stream.
pub const EVENTS: u8 = 65;
/// Events: the session is now subscribed to a topic.
pub const SUBSCRIBED: u8 = 66;
/// Events: a topic was given a value.
pub const VALUE: u8 = 67;
/// Events: the session is no longer subscribed to a topic.
pub const UNSUBSCRIBED: u8 = 68;
/// Events: a topic notification.
pub const NOTIFIED: u8 = 69;
/// Events: what went before is void; current values follow.
pub const RESET: u8 = 70;
/// Events: everything up to here has been sent.
pub const PROGRESS: u8 = 71;
/// Events: initial values follow on a bulk stream, or there are none.
pub const INITIAL: u8 = 72;
/// Events: the session lagged and was moved on to newest values.
pub const LAGGED: u8 = 73;

/// Bulk: head of a bulk stream.
pub const BULK: u8 = 97;
/// Bulk: a subscription with its initial value.
pub const ITEM: u8 = 98;
/// Bulk: one topic of a fetch.
pub const ROW: u8 = 99;
/// Bulk: everything has been sent.
pub const BULK_END: u8 = 100;

/// Bytes of a body whose message carries no value.
pub const SMALL_BODY_BYTES_MAX: usize = 64 * 1024;

/// The longest body that a frame of this kind may have.
#[must_use]
pub fn body_bytes_max(kind: u8) -> usize {
    match kind {
        UPDATE | COMMAND | READ_REPLY | VALUE | ITEM | ROW => PAYLOAD_BYTES_MAX - 1,
        _ => SMALL_BODY_BYTES_MAX,
    }
}

/// Refuses a body that is too long for its kind.
pub(in crate::protocol) fn check(kind: u8, bytes: usize) -> Result<(), DecodeError> {
    match body_bytes_max(kind) {
        bytes_max if bytes > bytes_max => Err(DecodeError::TooLong { kind, bytes, bytes_max }),
        _ => Ok(()),
    }
}
