//! Streams of their own for much at once: initial values, fetched rows.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use crate::domain::id::Position;
use crate::gateway::delivery::initial_values::InitialValues;
use crate::gateway::delivery::outgoing::Outgoing;
use crate::gateway::hosting::Hosting;
use crate::protocol::ErrorCode;
use crate::protocol::delivery::{BulkBegin, BulkMessage, BulkPurpose};
use crate::protocol::read::Row;
use crate::transport::{CloseCode, Connection, FrameSender, Priority, SendError};

/// A client that takes nothing of a bulk stream for so long loses its connection: the permits are
/// few, and others wait for them.
const STALL_MAX: Duration = Duration::from_secs(30);

/// Sends initial values to their end.
///
/// # Errors
/// [`SendError`] if the connection is over or the client stopped the stream.
pub(in crate::gateway) async fn send_initial_values(
    hosting: &Arc<Hosting>,
    connection: &Connection,
    begin: BulkBegin,
    mut values: InitialValues,
) -> Result<(), SendError> {
    let mut stream = open(connection, begin).await?;
    let _permit = hosting.bulk.acquire().await;
    let mut outgoing = Outgoing::default();
    loop {
        let done = values.write(&mut outgoing);
        if done || outgoing.is_full() {
            for chunk in outgoing.take() {
                stream.queue_frames(chunk)?;
            }
            flush(connection, &mut stream).await?;
        }
        if done {
            return stream.finish().await;
        }
        // The walk does not wait for anything by itself.
        tokio::task::yield_now().await;
    }
}

/// Sends fetched rows to their end.
///
/// # Errors
/// As [`send_initial_values`].
pub(in crate::gateway) async fn send_rows(
    hosting: &Arc<Hosting>,
    connection: &Connection,
    begin: BulkBegin,
    rows: Vec<Row>,
    more: bool,
) -> Result<(), SendError> {
    let mut stream = open(connection, begin).await?;
    let _permit = hosting.bulk.acquire().await;
    let count = rows.len() as u64;
    let mut buffer = BytesMut::new();
    for row in rows {
        BulkMessage::Row(row).put(&mut buffer);
        if buffer.len() >= crate::gateway::delivery::outgoing::BATCH_BYTES_SOFT {
            stream.queue_frames(buffer.split().freeze())?;
            flush(connection, &mut stream).await?;
        }
    }
    BulkMessage::End { count, more }.put(&mut buffer);
    stream.queue_frames(buffer.freeze())?;
    flush(connection, &mut stream).await?;
    stream.finish().await
}

/// The head of a bulk stream with what a state that has applied `entry` holds.
#[must_use]
pub(in crate::gateway) fn begin(bulk: u64, purpose: BulkPurpose, entry: u64) -> BulkBegin {
    BulkBegin { bulk, purpose, position: Position::end_of_entry(entry) }
}

/// Opens a stream. Comes before the permit: a client that grants no stream holds up only itself.
async fn open(connection: &Connection, begin: BulkBegin) -> Result<FrameSender, SendError> {
    let mut stream = connection.open_uni().await?;
    stream.set_priority(Priority::Low);
    let mut head = BytesMut::new();
    BulkMessage::Begin(begin).put(&mut head);
    stream.queue_frames(head.freeze())?;
    Ok(stream)
}

/// Flushes, unless the client does not read.
async fn flush(connection: &Connection, stream: &mut FrameSender) -> Result<(), SendError> {
    if let Ok(flushed) = tokio::time::timeout(STALL_MAX, stream.flush()).await {
        return flushed;
    }
    let code = ErrorCode::TooManyRequests;
    connection.close(CloseCode(u32::from(code.number())), "a bulk stream was not read");
    stream.flush().await
}
