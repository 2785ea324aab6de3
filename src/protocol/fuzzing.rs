//! Bodies of the fuzz targets: any bytes in, no panic, and what decodes survives a round trip.

use bytes::{Bytes, BytesMut};

use super::command::ClientCommand;
use super::delivery::{BulkMessage, EventMessage};
use super::frame::{self, PAYLOAD_BYTES_MAX};
use super::peer_message::{self, Hello};
use super::{ClientMessage, ServerMessage};

/// A client's control stream.
pub fn client_frames(bytes: &[u8]) {
    each_frame(bytes, |kind, body| {
        let Ok(message) = ClientMessage::decode(kind, body) else { return };
        if let ClientMessage::Command { body: command, .. } = &message {
            let _ = ClientCommand::decode(command);
        }
        if matches!(&message, ClientMessage::Read { read: Err(_), .. }) {
            return;
        }
        again(&message, ClientMessage::put, ClientMessage::decode);
    });
}

/// A node's control stream.
pub fn server_frames(bytes: &[u8]) {
    each_frame(bytes, |kind, body| {
        if let Ok(message) = ServerMessage::decode(kind, body) {
            again(&message, ServerMessage::put, ServerMessage::decode);
        }
    });
}

/// A node's event stream.
pub fn event_frames(bytes: &[u8]) {
    each_frame(bytes, |kind, body| {
        if let Ok(message) = EventMessage::decode(kind, body) {
            again(&message, EventMessage::put, EventMessage::decode);
        }
    });
}

/// A node's bulk stream.
pub fn bulk_frames(bytes: &[u8]) {
    each_frame(bytes, |kind, body| {
        if let Ok(message) = BulkMessage::decode(kind, body) {
            again(&message, BulkMessage::put, BulkMessage::decode);
        }
    });
}

/// A peer's hellos.
pub fn peer_frames(bytes: &[u8]) {
    each_frame(bytes, |kind, body| {
        if kind != peer_message::HELLO {
            return;
        }
        if let Ok(hello) = Hello::decode(&body) {
            let again = Hello::decode(&hello.encode());
            assert_eq!(again.as_ref(), Ok(&hello), "what decodes must survive a round trip");
        }
    });
}

fn each_frame(bytes: &[u8], mut each: impl FnMut(u8, Bytes)) {
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(payload)) = frame::take_payload(&mut buffer, PAYLOAD_BYTES_MAX) {
        if let Ok((kind, body)) = frame::kind_and_body(payload) {
            each(kind, body);
        }
    }
}

fn again<M: PartialEq + std::fmt::Debug, E: PartialEq + std::fmt::Debug>(
    message: &M,
    put: impl Fn(&M, &mut BytesMut),
    decode: impl Fn(u8, Bytes) -> Result<M, E>,
) {
    let mut buffer = BytesMut::new();
    put(message, &mut buffer);
    let payload = frame::take_payload(&mut buffer, usize::MAX);
    let Ok(Some(Ok((kind, body)))) = payload.map(|found| found.map(frame::kind_and_body)) else {
        unreachable!("a message that was put is one whole frame");
    };
    assert_eq!(decode(kind, body).as_ref(), Ok(message), "what decodes must survive a round trip");
}
