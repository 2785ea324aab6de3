//! How much of what is dear and seldom meant well somebody is forgiven before he has to wait. Pure.
//!
//! A leaky bucket, kept as the time at which it will be empty (the generic cell rate algorithm,
//! ITU-T I.371).

use std::time::Duration;

use tokio::time::Instant;

/// How much is forgiven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) struct Allowance {
    /// So many at once.
    pub(in crate::gateway) count: u32,
    /// And so many in a second.
    pub(in crate::gateway) per_s: u32,
}

/// What somebody has been forgiven.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Tolerance {
    /// When all will be forgiven; none: nothing is to be.
    even_at: Option<Instant>,
}

impl Allowance {
    fn each(self) -> Duration {
        Duration::from_secs(1) / self.per_s
    }
}

impl Tolerance {
    /// One more is to be forgiven.
    pub(in crate::gateway) fn count(&mut self, allowance: Allowance, now: Instant) {
        let even_at = self.even_at.map_or(now, |even_at| even_at.max(now));
        self.even_at = Some(even_at + allowance.each());
    }

    /// Until when he waits; none: he does not.
    pub(in crate::gateway) fn waits_until(
        &self,
        allowance: Allowance,
        now: Instant,
    ) -> Option<Instant> {
        let until = self.even_at?.checked_sub(allowance.each() * allowance.count)?;
        (until > now).then_some(until)
    }

    /// There is nothing to forgive.
    pub(in crate::gateway) fn is_even(&self, now: Instant) -> bool {
        self.even_at.is_none_or(|even_at| even_at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn one_waits_for_what_is_over_the_allowance_and_no_longer() {
        let allowance = Allowance { count: 64, per_s: 32 };
        let now = Clock::system().now() + Duration::from_secs(60);
        let mut tolerance = Tolerance::default();
        assert!(tolerance.is_even(now));
        assert_eq!(tolerance.waits_until(allowance, now), None);
        for _ in 0..allowance.count {
            tolerance.count(allowance, now);
            assert_eq!(tolerance.waits_until(allowance, now), None);
        }
        assert!(!tolerance.is_even(now));
        tolerance.count(allowance, now);
        let until = tolerance.waits_until(allowance, now).unwrap();
        assert_eq!(until - now, Duration::from_secs(1) / allowance.per_s);
        assert_eq!(tolerance.waits_until(allowance, until), None);
        // Forgiven with time, and not more than there was.
        let later = now + Duration::from_secs(3_600);
        assert!(tolerance.is_even(later));
        tolerance.count(allowance, later);
        assert_eq!(tolerance.waits_until(allowance, later), None);
        assert!(!tolerance.is_even(later));
    }
}
