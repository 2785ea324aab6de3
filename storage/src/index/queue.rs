//! The bounded queue between apply, which never waits for the index, and the index's thread.
//!
//! When the queue is full, offers are dropped, not delayed: the worker sees the gap and fills it
//! by replay. The queue remembers how far entries were offered at all, dropped or not.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::rows::{Applied, AppliedError};

/// Most bytes that wait in the queue, by [`Applied`]'s own estimate.
pub const QUEUE_BYTES_MAX: usize = 16 << 20;
/// Bytes in the queue from which the worker leaves other work and does not wait.
const URGENT_BYTES: usize = QUEUE_BYTES_MAX / 2;

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It waits for the worker.
    Queued,
    /// The queue is full. The worker will replay this entry.
    Dropped,
    /// An entry at or above this one was offered before.
    Repeated,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    spans: VecDeque<Span>,
    bytes: usize,
    /// One past the highest entry that was offered.
    offered_end: u64,
    dropped: u64,
    wake: bool,
    closed: bool,
}

/// Consecutive entries, of which some left something behind.
#[derive(Debug)]
struct Span {
    start: u64,
    end: u64,
    applied: VecDeque<Applied>,
}

/// What the worker may write next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Everything that the entries up to `end` left behind, from where the worker asked.
    Entries { applied: Vec<Applied>, end: u64 },
    /// The next entry in the queue is this, or will be; those before it were dropped, never
    /// offered, or taken by a worker whose store was lost.
    Gap { end: u64 },
    /// Nothing yet.
    Nothing,
}

impl Queue {
    pub(super) fn offer(&self, applied: Applied) -> Result<Offered, AppliedError> {
        let checked = applied.check();
        let mut state = self.lock();
        let entry = applied.entry;
        if entry < state.offered_end {
            return Ok(Offered::Repeated);
        }
        let end = entry.saturating_add(1);
        let expected = state.offered_end;
        state.offered_end = end;
        checked?;
        let cost = if applied.is_empty() { 0 } else { applied.cost() };
        if state.bytes + cost > QUEUE_BYTES_MAX {
            state.dropped += 1;
            return Ok(Offered::Dropped);
        }
        state.bytes += cost;
        let begins = state.spans.back().is_none_or(|span| entry != expected || span.end != entry);
        if begins {
            state.spans.push_back(Span { start: entry, end: entry, applied: VecDeque::new() });
        }
        if let Some(span) = state.spans.back_mut() {
            span.end = end;
            if !applied.is_empty() {
                span.applied.push_back(applied);
            }
        }
        if state.bytes >= URGENT_BYTES {
            self.changed.notify_all();
        }
        Ok(Offered::Queued)
    }

    /// What entries from `start` on, below `below`, left behind: at most `applied_max` of them.
    pub(super) fn take(&self, start: u64, below: u64, applied_max: usize) -> Taken {
        let mut state = self.lock();
        let state = &mut *state;
        while let Some(span) = state.spans.front_mut() {
            span.forget_below(start, &mut state.bytes);
            if span.start < span.end {
                break;
            }
            state.spans.pop_front();
        }
        let Some(span) = state.spans.front_mut() else {
            let end = state.offered_end;
            return if end > start { Taken::Gap { end } } else { Taken::Nothing };
        };
        if span.start > start {
            return Taken::Gap { end: span.start };
        }
        let mut applied = Vec::new();
        let mut end = span.end.min(below);
        while let Some(next) = span.applied.front() {
            if next.entry >= end {
                break;
            }
            if applied.len() >= applied_max {
                end = next.entry;
                break;
            }
            state.bytes -= next.cost();
            applied.extend(span.applied.pop_front());
        }
        if end <= start {
            return Taken::Nothing;
        }
        span.start = end;
        Taken::Entries { applied, end }
    }

    /// Waits until there is much to do, someone calls [`Queue::wake`], or the time is over.
    pub(super) fn wait(&self, time: Duration) {
        let state = self.lock();
        let idle = |state: &mut State| !state.wake && !state.closed && state.bytes < URGENT_BYTES;
        let waited = self.changed.wait_timeout_while(state, time, idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.wake = false;
    }

    pub(super) fn wake(&self) {
        self.lock().wake = true;
        self.changed.notify_all();
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.lock().bytes >= URGENT_BYTES
    }

    pub(super) fn offered_end(&self) -> u64 {
        self.lock().offered_end
    }

    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is complete before the lock can be poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Span {
    fn forget_below(&mut self, start: u64, bytes: &mut usize) {
        while self.applied.front().is_some_and(|applied| applied.entry < start) {
            if let Some(applied) = self.applied.pop_front() {
                *bytes -= applied.cost();
            }
        }
        self.start = self.start.max(start.min(self.end));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn with_effects(entry: u64, bytes: usize) -> Applied {
        Applied { entry, effects: Some(Bytes::from(vec![0; bytes])), histories: vec![] }
    }

    fn nothing(entry: u64) -> Applied {
        Applied { entry, ..Applied::default() }
    }

    fn entries(taken: Taken) -> (Vec<u64>, u64) {
        match taken {
            Taken::Entries { applied, end } => (applied.iter().map(|a| a.entry).collect(), end),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn entries_without_effects_move_the_end_and_cost_nothing() {
        let queue = Queue::default();
        for entry in 0..1_000_000 {
            assert_eq!(queue.offer(nothing(entry)), Ok(Offered::Queued));
        }
        assert_eq!(queue.bytes(), 0);
        assert_eq!(queue.take(0, 400, 10), Taken::Entries { applied: vec![], end: 400 });
        assert_eq!(queue.take(400, 400, 10), Taken::Nothing);
        assert_eq!(
            queue.take(400, u64::MAX, 10),
            Taken::Entries { applied: vec![], end: 1_000_000 }
        );
        assert_eq!(queue.take(1_000_000, u64::MAX, 10), Taken::Nothing);
    }

    #[test]
    fn takes_in_order_at_most_what_is_asked() {
        let queue = Queue::default();
        for entry in 5..20 {
            let applied = if entry % 3 == 0 { with_effects(entry, 10) } else { nothing(entry) };
            queue.offer(applied).unwrap();
        }
        assert_eq!(queue.take(0, 100, 10), Taken::Gap { end: 5 });
        assert_eq!(entries(queue.take(5, 100, 2)), (vec![6, 9], 12));
        assert_eq!(entries(queue.take(12, 14, 10)), (vec![12], 14));
        assert_eq!(entries(queue.take(14, 100, 10)), (vec![15, 18], 20));
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn what_is_covered_already_is_forgotten() {
        let queue = Queue::default();
        for entry in 0..10 {
            queue.offer(with_effects(entry, 1)).unwrap();
        }
        assert_eq!(entries(queue.take(8, 100, 10)), (vec![8, 9], 10));
        assert_eq!(queue.bytes(), 0);
        assert_eq!(queue.offer(nothing(9)), Ok(Offered::Repeated));
        assert_eq!(queue.take(10, 100, 10), Taken::Nothing);
        assert_eq!(queue.take(3, 100, 10), Taken::Gap { end: 10 }, "taken once, wanted again");
    }

    #[test]
    fn a_full_queue_drops_and_leaves_a_gap() {
        let queue = Queue::default();
        let mut entry = 0;
        while queue.offer(with_effects(entry, 1 << 20)).unwrap() == Offered::Queued {
            entry += 1;
        }
        assert_eq!(entry, 15, "the bound is {QUEUE_BYTES_MAX}");
        assert!(queue.is_urgent());
        queue.wait(Duration::from_secs(3_600));
        let (taken, end) = entries(queue.take(0, 100, 3));
        assert_eq!((taken.len(), end), (3, 3));
        assert_eq!(queue.offer(with_effects(16, 10)), Ok(Offered::Queued));
        assert_eq!(entries(queue.take(3, 100, 100)).1, 15);
        assert_eq!(queue.take(15, 100, 100), Taken::Gap { end: 16 });
        assert_eq!(entries(queue.take(16, 100, 100)), (vec![16], 17));
        assert_eq!((queue.dropped(), queue.offered_end()), (1, 17));
    }

    #[test]
    fn what_breaks_a_limit_is_a_gap_too() {
        let queue = Queue::default();
        queue.offer(nothing(0)).unwrap();
        assert!(queue.offer(with_effects(1, super::super::rows::EFFECTS_BYTES_MAX + 1)).is_err());
        queue.offer(nothing(2)).unwrap();
        assert_eq!(entries(queue.take(0, 100, 100)).1, 1);
        assert_eq!(queue.take(1, 100, 100), Taken::Gap { end: 2 });
    }
}
