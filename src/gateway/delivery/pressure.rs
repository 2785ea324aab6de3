//! How long sessions wait for their turn on this node: the one sign by which writers decide to wait
//! a little and send more at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// From this average on the node counts as saturated.
const SATURATED_US: u64 = 3_000;
/// A writer's first wait.
const LINGER_MIN: Duration = Duration::from_millis(1);
/// A writer's longest wait.
const LINGER_MAX: Duration = Duration::from_millis(5);
/// One observation moves the average by 1/2^this of the difference.
const SMOOTHING: u32 = 6;

/// A running average of the time between the wake-up of a writer and its turn.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Pressure {
    average_us: AtomicU64,
}

impl Pressure {
    /// A writer that was woken had its turn after this time.
    pub(in crate::gateway) fn observe(&self, waited: Duration) {
        let sample = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        // Lost updates between threads only smooth a little more.
        let before = self.average_us.load(Ordering::Relaxed);
        let after = if sample >= before {
            before + ((sample - before) >> SMOOTHING)
        } else {
            before - ((before - sample) >> SMOOTHING).max(1)
        };
        self.average_us.store(after, Ordering::Relaxed);
    }

    /// Writers wait too long for their turn: more per turn would serve all better.
    #[must_use]
    pub(in crate::gateway) fn is_saturated(&self) -> bool {
        self.average_us.load(Ordering::Relaxed) >= SATURATED_US
    }

    /// How long a writer that last waited for `before` should wait now, after it has written.
    #[must_use]
    pub(in crate::gateway) fn linger(&self, before: Duration) -> Duration {
        if self.is_saturated() {
            (before * 2).clamp(LINGER_MIN, LINGER_MAX)
        } else {
            Duration::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_only_while_turns_come_late() {
        let pressure = Pressure::default();
        for _ in 0..1_000 {
            pressure.observe(Duration::from_micros(200));
        }
        assert!(!pressure.is_saturated());
        assert_eq!(pressure.linger(LINGER_MAX), Duration::ZERO);
        for _ in 0..1_000 {
            pressure.observe(Duration::from_millis(12));
        }
        let waits: Vec<_> = (0..5)
            .scan(Duration::ZERO, |wait, _| {
                *wait = pressure.linger(*wait);
                Some(wait.as_millis())
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        for _ in 0..10_000 {
            pressure.observe(Duration::ZERO);
        }
        assert!(!pressure.is_saturated());
    }
}
