//! The only reader of time.
//!
//! One of the three seams of the design: everything above takes a [`Clock`], so that a simulation
//! under tokio's paused time sees one virtual time for timers, monotonic readings and wall stamps
//! alike. Sleeping needs no seam of its own; `tokio::time` follows the paused clock by itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A source of monotonic and wall time; cheap to copy and to share between tasks.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    source: Source,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    /// The machine's own clocks.
    System,
    /// Wall time that starts at a chosen stamp and moves with the monotonic clock.
    Virtual { started: Instant, wall_ms: u64 },
}

impl Clock {
    /// The machine's own clocks.
    #[must_use]
    pub fn system() -> Self {
        Self { source: Source::System }
    }

    /// A clock whose wall time is `wall_ms` now and moves only with the monotonic time of the
    /// runtime; under paused tokio time it is wholly virtual.
    #[must_use]
    pub fn starting_at(wall_ms: u64) -> Self {
        Self { source: Source::Virtual { started: now(), wall_ms } }
    }

    /// The monotonic time: never goes back, unrelated to the wall, virtual under paused time.
    #[must_use]
    pub fn now(&self) -> Instant {
        now()
    }

    /// Milliseconds since the Unix epoch as the wall clock claims; it may jump either way.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        match self.source {
            Source::System => system_wall_ms(),
            Source::Virtual { started, wall_ms } => {
                wall_ms.saturating_add(milliseconds(now().saturating_duration_since(started)))
            }
        }
    }

    /// How long ago `earlier` was; zero if it is still to come.
    #[must_use]
    pub fn since(&self, earlier: Instant) -> Duration {
        now().saturating_duration_since(earlier)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

/// The whole milliseconds of `duration`, at most `u64::MAX`.
#[must_use]
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "this file is the reader of time")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this file is the reader of time")]
fn system_wall_ms() -> u64 {
    // A wall clock before 1970 reads as the epoch itself: nothing may depend on the wall alone.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn virtual_wall_time_moves_with_the_runtime() {
        let clock = Clock::starting_at(1_000_000);
        let before = clock.now();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(clock.wall_ms(), 1_001_500);
        assert_eq!(clock.since(before), Duration::from_millis(1_500));
    }

    #[test]
    fn the_system_clock_is_past_2020_and_does_not_run_backwards() {
        let clock = Clock::system();
        let before = clock.now();
        assert!(clock.wall_ms() > 1_577_836_800_000);
        assert!(clock.now() >= before);
        assert_eq!(clock.since(before + Duration::from_secs(60)), Duration::ZERO);
    }
}
