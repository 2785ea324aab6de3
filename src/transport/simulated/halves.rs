//! The halves of streams of a simulated network.

use std::fmt;
use std::future::poll_fn;
use std::task::{Poll, Waker};

use bytes::Bytes;

use super::handle::{End, Held};
use super::stream::{Direction, Segment, wait};
use super::world::{Load, Standing, connection_window, stream_window};
use crate::transport::connection::CloseCode;
use crate::transport::error::{Closed, ReceiveError, SendError};

/// The sending half of a stream.
pub(in crate::transport) struct SendHalf {
    end: End,
    stream: u64,
}

impl SendHalf {
    pub(super) fn new(end: &End, stream: u64) -> Self {
        Self { end: end.clone(), stream }
    }

    /// Takes as many bytes as the windows allow, at least one; says how many and how many whole
    /// pieces. What was taken is cut off the pieces.
    pub(in crate::transport) async fn write(
        &mut self,
        pieces: &mut [Bytes],
    ) -> Result<(usize, usize), SendError> {
        poll_fn(|context| match self.try_write(pieces, context.waker()) {
            Ok(None) => Poll::Pending,
            Ok(Some(written)) => Poll::Ready(Ok(written)),
            Err(error) => Poll::Ready(Err(error)),
        })
        .await
    }

    fn try_write(
        &mut self,
        pieces: &mut [Bytes],
        waker: &Waker,
    ) -> Result<Option<(usize, usize)>, SendError> {
        let Held { network, id, side } = &*self.end.held;
        network.with(|world| {
            let split = {
                let chance = world.sky.weather.split;
                world.sky.happens(chance)
            };
            let Some(connection) = world.connections.get_mut(id) else {
                return Err(Closed::Here.into());
            };
            let edge = connection.edge;
            let party = connection.parties.of_mut(*side);
            let Some(directions) = connection.streams.get_mut(&self.stream) else {
                return Err(SendError::Finished);
            };
            let direction = directions.of_mut(*side);
            if let Some(code) = direction.sender.stopped {
                return Err(SendError::Stopped { code });
            }
            if let Standing::Over(closed) = &party.standing {
                return Err(closed.clone().into());
            }
            if direction.sender.over {
                return Err(SendError::Finished);
            }
            let by_stream = stream_window(edge).saturating_sub(direction.unread);
            let room = by_stream.min(connection_window(edge).saturating_sub(party.unread));
            if room == 0 {
                wait(&mut direction.writers, waker);
                return Ok(None);
            }
            let (taken, bytes, whole) = take(pieces, room);
            direction.unread += bytes;
            party.unread += bytes;
            if split && bytes > 1 {
                let (first, second) = cut(taken, bytes / 2);
                world.send(*id, *side, self.stream, Segment::Data(first));
                world.send(*id, *side, self.stream, Segment::Data(second));
            } else {
                world.send(*id, *side, self.stream, Segment::Data(taken));
            }
            Ok(Some((bytes, whole)))
        })
    }

    /// Marks the end. False if it was marked before.
    pub(in crate::transport) fn finish(&mut self) -> bool {
        self.end_with(|_| Segment::Finish)
    }

    /// Gives the stream up; what has not arrived is dropped.
    pub(in crate::transport) fn reset(&mut self, code: CloseCode) {
        self.end_with(|direction| {
            direction.way.clear();
            Segment::Reset(code)
        });
    }

    fn end_with(&mut self, last: impl FnOnce(&mut Direction) -> Segment) -> bool {
        let Held { network, id, side } = &*self.end.held;
        network.with(|world| {
            let Some(connection) = world.connections.get_mut(id) else { return false };
            let Some(directions) = connection.streams.get_mut(&self.stream) else { return false };
            let direction = directions.of_mut(*side);
            if direction.sender.over {
                return false;
            }
            direction.sender.over = true;
            let under_way = |direction: &Direction| -> usize {
                let bytes = |segment: &Segment| match segment {
                    Segment::Data(pieces) => pieces.iter().map(Bytes::len).sum(),
                    Segment::Finish | Segment::Reset(_) => 0,
                };
                direction.way.iter().map(bytes).sum()
            };
            let before = under_way(direction);
            let segment = last(direction);
            let dropped = before - under_way(direction);
            direction.unread = direction.unread.saturating_sub(dropped);
            let party = connection.parties.of_mut(*side);
            party.unread = party.unread.saturating_sub(dropped);
            world.send(*id, *side, self.stream, segment);
            true
        })
    }

    /// Waits until the other side has everything (true), or wants no more or is gone (false).
    pub(in crate::transport) async fn acknowledged(&self) -> bool {
        poll_fn(|context| {
            let known = self.end.with(|_, connection, side| {
                let party = connection.parties.of(side);
                let over = matches!(party.standing, Standing::Over(_));
                let Some(directions) = connection.streams.get_mut(&self.stream) else {
                    return Some(true);
                };
                let direction = directions.of_mut(side);
                if direction.sender.acknowledged {
                    return Some(true);
                }
                if over || direction.sender.stopped.is_some() {
                    return Some(false);
                }
                wait(&mut direction.writers, context.waker());
                None
            });
            match known.unwrap_or(Some(false)) {
                Some(known) => Poll::Ready(known),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        self.finish();
        let Held { network, id, side } = &*self.end.held;
        network.with(|world| {
            if let Some(connection) = world.connections.get_mut(id)
                && let Some(directions) = connection.streams.get_mut(&self.stream)
            {
                directions.of_mut(*side).sender.held = false;
            }
            world.let_go(*id, self.stream);
        });
    }
}

/// Cuts up to `room` bytes off the pieces: what was taken, its bytes, and how many whole pieces.
fn take(pieces: &mut [Bytes], mut room: usize) -> (Vec<Bytes>, usize, usize) {
    let (mut taken, mut bytes, mut whole) = (Vec::new(), 0, 0);
    for piece in pieces {
        if room == 0 {
            break;
        }
        let part = piece.split_to(piece.len().min(room));
        room -= part.len();
        bytes += part.len();
        whole += usize::from(piece.is_empty());
        taken.push(part);
    }
    (taken, bytes, whole)
}

/// The first `bytes` bytes and the rest.
fn cut(mut pieces: Vec<Bytes>, bytes: usize) -> (Vec<Bytes>, Vec<Bytes>) {
    let (first, _, whole) = take(&mut pieces, bytes);
    (first, pieces.split_off(whole))
}

/// The receiving half of a stream.
pub(in crate::transport) struct ReceiveHalf {
    end: End,
    stream: u64,
}

impl ReceiveHalf {
    pub(super) fn new(end: &End, stream: u64) -> Self {
        Self { end: end.clone(), stream }
    }

    /// Fills places with pieces that have come and says how many, none at the clean end.
    pub(in crate::transport) async fn read(
        &mut self,
        places: &mut [Bytes],
    ) -> Result<Option<usize>, ReceiveError> {
        poll_fn(|context| match self.try_read(places, context.waker()) {
            Some(read) => Poll::Ready(read),
            None => Poll::Pending,
        })
        .await
    }

    fn try_read(
        &mut self,
        places: &mut [Bytes],
        waker: &Waker,
    ) -> Option<Result<Option<usize>, ReceiveError>> {
        let Held { network, id, side } = &*self.end.held;
        network.with(|world| {
            let Some(connection) = world.connections.get_mut(id) else {
                return Some(Err(Closed::Here.into()));
            };
            let Some(directions) = connection.streams.get_mut(&self.stream) else {
                return Some(Err(ReceiveError::Stopped));
            };
            let direction = directions.of_mut(side.other());
            if direction.receiver.stopped {
                return Some(Err(ReceiveError::Stopped));
            }
            if let Some(code) = direction.receiver.reset {
                world.direction_done(*id, *side, self.stream);
                return Some(Err(ReceiveError::Reset { code }));
            }
            if !direction.inbox.is_empty() {
                let (mut bytes, mut filled) = (0, 0);
                for place in places {
                    let Some(piece) = direction.inbox.pop_front() else { break };
                    bytes += piece.len();
                    filled += 1;
                    *place = piece;
                }
                world.post(*id, side.other(), Load::Credit(self.stream, bytes));
                return Some(Ok(Some(filled)));
            }
            if direction.receiver.finished {
                world.direction_done(*id, *side, self.stream);
                return Some(Ok(None));
            }
            if let Standing::Over(closed) = &connection.parties.of(*side).standing {
                return Some(Err(closed.clone().into()));
            }
            wait(&mut direction.readers, waker);
            None
        })
    }

    /// Wants no more.
    pub(in crate::transport) fn stop(&mut self, code: CloseCode) {
        let Held { network, id, side } = &*self.end.held;
        network.with(|world| world.stop(*id, *side, self.stream, code));
    }
}

impl Drop for ReceiveHalf {
    fn drop(&mut self) {
        self.stop(CloseCode(0));
        let Held { network, id, side } = &*self.end.held;
        network.with(|world| {
            if let Some(connection) = world.connections.get_mut(id)
                && let Some(directions) = connection.streams.get_mut(&self.stream)
            {
                directions.of_mut(side.other()).receiver.held = false;
            }
            world.let_go(*id, self.stream);
        });
    }
}

impl fmt::Debug for SendHalf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SendHalf({:?} {})", self.end, self.stream)
    }
}

impl fmt::Debug for ReceiveHalf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ReceiveHalf({:?} {})", self.end, self.stream)
    }
}
