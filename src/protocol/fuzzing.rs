//! Bodies of the fuzz targets: any bytes in, no panic, and what decodes survives a round trip.

use bytes::{Bytes, BytesMut};

use super::command::ClientCommand;
use super::delivery::{BulkMessage, EventMessage};
use super::frame::{self, PAYLOAD_BYTES_MAX};
use super::{ClientMessage, ServerMessage};

/// A client's control stream.
pub fn client_frames(bytes: &[u8]) {
    each_payload(bytes, |payload| {
        let Ok(message) = ClientMessage::decode(payload) else { return };
        if let ClientMessage::Command { body, .. } = &message {
            let _ = ClientCommand::decode(body);
        }
        if matches!(&message, ClientMessage::Read { read: Err(_), .. }) {
            return;
        }
        again(&message, ClientMessage::put, ClientMessage::decode);
    });
}

/// A node's control stream.
pub fn server_frames(bytes: &[u8]) {
    each_payload(bytes, |payload| {
        if let Ok(message) = ServerMessage::decode(payload) {
            again(&message, ServerMessage::put, ServerMessage::decode);
        }
    });
}

/// A node's event stream.
pub fn event_frames(bytes: &[u8]) {
    each_payload(bytes, |payload| {
        if let Ok(message) = EventMessage::decode(payload) {
            again(&message, EventMessage::put, EventMessage::decode);
        }
    });
}

/// A node's bulk stream.
pub fn bulk_frames(bytes: &[u8]) {
    each_payload(bytes, |payload| {
        if let Ok(message) = BulkMessage::decode(payload) {
            again(&message, BulkMessage::put, BulkMessage::decode);
        }
    });
}

fn each_payload(bytes: &[u8], mut body: impl FnMut(Bytes)) {
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(payload)) = frame::take_payload(&mut buffer, PAYLOAD_BYTES_MAX) {
        body(payload);
    }
}

fn again<M: PartialEq + std::fmt::Debug, E: PartialEq + std::fmt::Debug>(
    message: &M,
    put: impl Fn(&M, &mut BytesMut),
    decode: impl Fn(Bytes) -> Result<M, E>,
) {
    let mut buffer = BytesMut::new();
    put(message, &mut buffer);
    let payload = frame::take_payload(&mut buffer, usize::MAX);
    let Ok(Some(payload)) = payload else {
        unreachable!("a message that was put is one whole frame: {payload:?}");
    };
    assert_eq!(decode(payload).as_ref(), Ok(message), "what decodes must survive a round trip");
}
