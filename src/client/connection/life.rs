//! Whether the node still lives: what is due from it, and for how long it has been silent.
//!
//! Plain state without I/O. Something is *due* while a request or a ping is unanswered, or when a
//! beat should have come. A node that owes something and says nothing at all is pinged after half
//! the patience, suspected after the whole, and given up after `dead`. Any frame is a sign of life:
//! a node whose cluster elects a leader answers pings, and nobody leaves it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// A beat may be late by a quarter of its interval before the node is asked.
const BEAT_SLACK_NUMERATOR: u32 = 5;
const BEAT_SLACK_DENOMINATOR: u32 = 4;

/// How patient to be with one node.
#[derive(Debug, Clone, Copy)]
pub(in crate::client) struct Thresholds {
    pub(in crate::client) unanswered: Duration,
    pub(in crate::client) beat: Duration,
    pub(in crate::client) dead: Duration,
}

/// When the node was heard last; written by the readers, read by the watcher.
#[derive(Debug)]
pub(in crate::client) struct Heard {
    base: Instant,
    micros: AtomicU64,
}

impl Heard {
    pub(in crate::client) fn new(now: Instant) -> Self {
        Self { base: now, micros: AtomicU64::new(0) }
    }

    pub(in crate::client) fn now(&self, now: Instant) {
        let micros = now.saturating_duration_since(self.base).as_micros() as u64;
        self.micros.fetch_max(micros, Ordering::Relaxed);
    }

    pub(in crate::client) fn last(&self) -> Instant {
        self.base + Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }
}

/// What the watcher should do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::client) enum Verdict {
    /// Nothing.
    Well,
    /// Ask the node for a sign of life.
    Ping,
    /// Try other nodes while this one may still answer.
    Suspect,
    /// Leave it.
    Dead,
}

/// Watches one connection.
#[derive(Debug)]
pub(in crate::client) struct Watcher {
    thresholds: Thresholds,
    pinged: Option<Instant>,
}

impl Watcher {
    pub(in crate::client) fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, pinged: None }
    }

    /// What to do now, and when to ask again if nothing happens before.
    ///
    /// `waiting_since` is when the longest-waiting request was sent; `listening`: beats are owed.
    pub(in crate::client) fn check(
        &mut self,
        now: Instant,
        heard: Instant,
        waiting_since: Option<Instant>,
        listening: bool,
    ) -> (Verdict, Option<Instant>) {
        if self.pinged.is_some_and(|pinged| heard > pinged) {
            self.pinged = None;
        }
        let due_since = waiting_since.into_iter().chain(self.pinged).min();
        let Some(due_since) = due_since else {
            if !listening {
                return (Verdict::Well, None);
            }
            let beat = self.thresholds.beat * BEAT_SLACK_NUMERATOR / BEAT_SLACK_DENOMINATOR;
            if now < heard + beat {
                return (Verdict::Well, Some(heard + beat));
            }
            self.pinged = Some(now);
            return (Verdict::Ping, Some(now + self.thresholds.unanswered));
        };
        let quiet_since = due_since.max(heard);
        let ping_at = quiet_since + self.thresholds.unanswered / 2;
        let suspect_at = quiet_since + self.thresholds.unanswered;
        let dead_at = quiet_since + self.thresholds.dead;
        if now >= dead_at {
            (Verdict::Dead, None)
        } else if self.pinged.is_none() {
            if now < ping_at {
                return (Verdict::Well, Some(ping_at));
            }
            self.pinged = Some(now);
            (Verdict::Ping, Some(suspect_at.max(now)))
        } else if now >= suspect_at {
            (Verdict::Suspect, Some(dead_at))
        } else {
            (Verdict::Well, Some(suspect_at))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn watcher() -> Watcher {
        Watcher::new(Thresholds { unanswered: MS(250), beat: MS(2_000), dead: MS(5_000) })
    }

    #[tokio::test(start_paused = true)]
    async fn an_unanswered_request_is_pinged_suspected_and_given_up() {
        let start = crate::clock::Clock::system().now();
        let at = |ms| start + MS(ms);
        let mut watcher = watcher();
        let mut check = |ms, heard, waiting: Option<u64>| {
            watcher.check(at(ms), at(heard), waiting.map(at), false)
        };
        assert_eq!(check(0, 0, None), (Verdict::Well, None));
        assert_eq!(check(100, 0, Some(100)), (Verdict::Well, Some(at(225))));
        assert_eq!(check(225, 0, Some(100)), (Verdict::Ping, Some(at(350))));
        assert_eq!(check(300, 0, Some(100)), (Verdict::Well, Some(at(350))));
        assert_eq!(check(350, 0, Some(100)), (Verdict::Suspect, Some(at(5_100))));
        // The pong: the node lives though the request waits on.
        assert_eq!(check(360, 355, Some(100)), (Verdict::Well, Some(at(480))));
        assert_eq!(check(480, 355, Some(100)), (Verdict::Ping, Some(at(605))));
        assert_eq!(check(605, 355, Some(100)), (Verdict::Suspect, Some(at(5_355))));
        assert_eq!(check(5_355, 355, Some(100)), (Verdict::Dead, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_missed_beat_is_asked_for_and_suspected_before_three_seconds() {
        let start = crate::clock::Clock::system().now();
        let at = |ms| start + MS(ms);
        let mut watcher = watcher();
        let mut check = |ms, heard, listening| watcher.check(at(ms), at(heard), None, listening);
        assert_eq!(check(10_000, 0, false), (Verdict::Well, None));
        assert_eq!(check(10_000, 9_000, true), (Verdict::Well, Some(at(11_500))));
        assert_eq!(check(11_500, 9_000, true), (Verdict::Ping, Some(at(11_750))));
        assert_eq!(check(11_750, 9_000, true), (Verdict::Suspect, Some(at(16_500))));
        assert_eq!(check(11_800, 11_790, true), (Verdict::Well, Some(at(14_290))));
    }
}
