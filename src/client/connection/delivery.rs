//! Reads the event stream and the bulk streams of one connection and hands events to local streams.
//!
//! When a local stream is full, events wait, and through flow control the node does; rows of
//! fetches go on, so a program may fetch while it does not take events.

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, select_all};
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::life::Heard;
use super::live::End;
use crate::client::deliveries::{Deliveries, Flushed, Taken};
use crate::client::event::Event;
use crate::client::shared::Shared;
use crate::domain::id::Position;
use crate::protocol::delivery::{BulkMessage, BulkPurpose, EventMessage};
use crate::protocol::{DecodeError, ErrorCode, kind};
use crate::transport::{Connection, Frame, FrameReceiver, ReceiveError};

/// Frames taken from one stream before others have their turn.
const TURN_FRAMES_MAX: usize = 1_024;

/// What a one-way stream of the node carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Its first frame will tell.
    New,
    Events,
    Initial(u64, Position),
    Rows(u64),
}

/// What is next for a stream after a turn.
enum Next {
    /// More of it.
    Read(Source),
    /// It waits for a bulk stream with this event.
    Hold(EventMessage),
    /// It is a bulk stream that has not been announced yet.
    Await(u64, Position),
    /// It has ended.
    Finished,
}

type Arrival = (Source, FrameReceiver, Result<Option<Frame>, ReceiveError>);

/// The streams of one connection.
struct Streams<'a> {
    shared: &'a Shared,
    arriving: FuturesUnordered<BoxFuture<'static, Arrival>>,
    /// Streams with events that go on once what they brought has been handed on far enough.
    resting: Vec<(Source, FrameReceiver)>,
    held: Option<(EventMessage, FrameReceiver)>,
    /// Bulk streams that have come before their announcement: what they bring may belong behind a
    /// reset. At most as many as the node may open.
    unannounced: Vec<(u64, Position, FrameReceiver)>,
}

/// Delivers until the connection ends.
pub(in crate::client) async fn deliver(
    shared: &Shared,
    heard: &Heard,
    connection: &Connection,
) -> End {
    let arriving = FuturesUnordered::new();
    let mut streams =
        Streams { shared, arriving, resting: Vec::new(), held: None, unannounced: Vec::new() };
    loop {
        let Flushed { stalled, blocked } = shared.deliveries().flush();
        if !blocked {
            streams.wake();
        }
        tokio::select! {
            accepted = connection.accept_uni() => match accepted {
                Ok(receiver) => streams.read(Source::New, receiver),
                Err(_) => return End::Lost,
            },
            Some((source, receiver, result)) = streams.arriving.next() => {
                let Ok(Some(frame)) = result else { return End::Lost };
                heard.now(shared.clock.now());
                shared.not_still().await;
                if let Err(end) = streams.turn(source, receiver, frame) {
                    return end;
                }
            }
            () = room(&stalled), if !stalled.is_empty() => {}
            () = shared.to_deliver.notified() => {}
        }
    }
}

/// Waits until one of these local streams has room, or is gone.
async fn room(stalled: &[mpsc::Sender<Vec<Event>>]) {
    let rooms = stalled.iter().map(|sender| Box::pin(sender.reserve()));
    // The place that was found is given back, and taken by the next flush.
    drop(select_all(rooms).await);
}

impl Streams<'_> {
    /// Waits for the next frame of a stream.
    fn read(&self, source: Source, mut receiver: FrameReceiver) {
        self.arriving.push(Box::pin(async move {
            let result = receiver.next().await;
            (source, receiver, result)
        }));
    }

    /// Everything has been handed on: streams with events go on.
    fn wake(&mut self) {
        for (source, receiver) in std::mem::take(&mut self.resting) {
            self.read(source, receiver);
        }
    }

    /// Takes in a frame and those that have come behind it.
    fn turn(
        &mut self,
        source: Source,
        mut receiver: FrameReceiver,
        frame: Frame,
    ) -> Result<(), End> {
        match self.take(source, frame, &mut receiver)? {
            Next::Read(source @ (Source::New | Source::Rows(_))) => self.read(source, receiver),
            Next::Read(source) => self.resting.push((source, receiver)),
            Next::Hold(event) => self.held = Some((event, receiver)),
            Next::Await(bulk, position) => self.unannounced.push((bulk, position, receiver)),
            Next::Finished => {}
        }
        self.read_announced();
        // A bulk stream has come further: the event that waits may have its topic now.
        let held = if source == Source::Events { None } else { self.held.take() };
        if let Some((event, mut receiver)) = held {
            let shared = self.shared;
            let waits = take_event(shared, &mut shared.deliveries(), event)?;
            match waits {
                Some(event) => self.held = Some((event, receiver)),
                None => match receiver.buffered() {
                    Ok(Some(frame)) => self.turn(Source::Events, receiver, frame)?,
                    Ok(None) => self.resting.push((Source::Events, receiver)),
                    Err(_) => return Err(End::Lost),
                },
            }
        }
        Ok(())
    }

    /// Begins to read bulk streams that have been announced meanwhile.
    fn read_announced(&mut self) {
        if self.unannounced.is_empty() {
            return;
        }
        let deliveries = self.shared.deliveries();
        for (bulk, position, receiver) in std::mem::take(&mut self.unannounced) {
            if deliveries.is_announced(bulk) {
                self.read(Source::Initial(bulk, position), receiver);
            } else {
                self.unannounced.push((bulk, position, receiver));
            }
        }
    }

    fn take(
        &self,
        mut source: Source,
        frame: Frame,
        receiver: &mut FrameReceiver,
    ) -> Result<Next, End> {
        let mut deliveries = self.shared.deliveries();
        let mut next = Some(frame);
        for _ in 0..TURN_FRAMES_MAX {
            let Some(Frame { kind, body }) = next else { break };
            match self.frame(source, kind, body, &mut deliveries)? {
                Next::Read(now) => source = now,
                other => return Ok(other),
            }
            next = receiver.buffered().map_err(|_| End::Lost)?;
        }
        if let Some(Frame { kind, body }) = next {
            // The turn is over; the frame that was taken out last still belongs to it.
            return self.frame(source, kind, body, &mut deliveries);
        }
        Ok(Next::Read(source))
    }

    fn frame(
        &self,
        source: Source,
        kind: u8,
        body: Bytes,
        deliveries: &mut Deliveries,
    ) -> Result<Next, End> {
        let shared = self.shared;
        match source {
            Source::New if kind == kind::EVENTS => {
                let begin = EventMessage::decode(kind, body).map_err(broken)?;
                take_event(shared, deliveries, begin)?;
                Ok(Next::Read(Source::Events))
            }
            Source::New => match BulkMessage::decode(kind, body).map_err(broken)? {
                BulkMessage::Begin(begin) => Ok(match begin.purpose {
                    BulkPurpose::Initial(_) if !deliveries.is_announced(begin.bulk) => {
                        Next::Await(begin.bulk, begin.position)
                    }
                    BulkPurpose::Initial(_) => {
                        Next::Read(Source::Initial(begin.bulk, begin.position))
                    }
                    BulkPurpose::Fetch(correlation) => Next::Read(Source::Rows(correlation)),
                }),
                _ => Err(End::Broken(ErrorCode::OutOfPlace)),
            },
            Source::Events => {
                let event = EventMessage::decode(kind, body).map_err(broken)?;
                Ok(match take_event(shared, deliveries, event)? {
                    Some(held) => Next::Hold(held),
                    None => Next::Read(source),
                })
            }
            Source::Initial(bulk, position) => {
                let message = BulkMessage::decode(kind, body).map_err(broken)?;
                let is_end = matches!(message, BulkMessage::End { .. });
                let taken = deliveries.bulk(bulk, position, message).map_err(|_| out_of_place())?;
                settle(shared, deliveries, &taken);
                Ok(if is_end { Next::Finished } else { Next::Read(source) })
            }
            Source::Rows(correlation) => {
                let message = BulkMessage::decode(kind, body).map_err(broken)?;
                let is_end = matches!(message, BulkMessage::End { .. });
                shared.outbox().read_bulk(correlation, message);
                Ok(if is_end { Next::Finished } else { Next::Read(source) })
            }
        }
    }
}

/// Gives the event back if it has to wait.
fn take_event(
    shared: &Shared,
    deliveries: &mut Deliveries,
    event: EventMessage,
) -> Result<Option<EventMessage>, End> {
    match deliveries.event(event).map_err(|_| out_of_place())? {
        Taken::Later(event) => Ok(Some(event)),
        taken => {
            settle(shared, deliveries, &taken);
            Ok(None)
        }
    }
}

/// What follows for selections. The outbox is locked inside the deliveries, never the other way.
fn settle(shared: &Shared, deliveries: &mut Deliveries, taken: &Taken) {
    match taken {
        Taken::Complete(requests) => {
            let mut outbox = shared.outbox();
            let delivered = requests.iter().map(|request| outbox.selects.delivered(*request));
            let current: Vec<u64> = delivered.flatten().collect();
            let finished = !outbox.selects.is_any_unfinished();
            drop(outbox);
            deliveries.tell_current(&current, finished);
        }
        Taken::Reset(position) => shared.outbox().selects.reset(*position),
        Taken::Done | Taken::Later(_) => {}
    }
}

fn broken(error: DecodeError) -> End {
    End::Broken(error.code())
}

fn out_of_place() -> End {
    End::Broken(ErrorCode::OutOfPlace)
}
