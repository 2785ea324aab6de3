//! Events on their way to one local stream.

use std::collections::VecDeque;

use crate::client::event::Event;

/// Events in one batch; a longer one is cut.
pub(super) const BATCH_EVENTS_MAX: usize = 256;
/// Bytes of values in one batch; a larger one is cut, but for a value that is larger by itself.
pub(super) const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Events that wait for a local stream that is full before nothing more is taken from the node.
pub(super) const WAITING_EVENTS_MAX: usize = 4_096;
/// Bytes of values that wait so.
pub(super) const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// Events that a local stream has no room for yet.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) events: VecDeque<Event>,
    bytes: usize,
}

impl Waiting {
    pub(super) fn push(&mut self, event: Event) {
        self.bytes += event.bytes();
        self.events.push_back(event);
    }

    pub(super) fn is_full(&self) -> bool {
        self.events.len() >= WAITING_EVENTS_MAX || self.bytes >= WAITING_BYTES_MAX
    }

    pub(super) fn take_batch(&mut self) -> Vec<Event> {
        let mut batch = Vec::with_capacity(self.events.len().min(BATCH_EVENTS_MAX));
        let mut bytes = 0;
        while batch.len() < BATCH_EVENTS_MAX && bytes < BATCH_BYTES_MAX {
            let Some(event) = self.events.pop_front() else { break };
            bytes += event.bytes();
            batch.push(event);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        batch
    }
}
