//! How many unfit and dear requests a session is forgiven before it has to wait. Pure.
//!
//! To find out that a selector, a path or a value is none costs the node what a good one costs, and
//! to compile an expression may cost a thousand times more; whoever sends such in good faith sends
//! few. A session over the limit is not cut off: nothing more
//! is read of it until enough is forgiven, and the stream's window holds it back.

use std::time::Duration;

use tokio::time::Instant;

/// Such requests of one session from which on it waits.
const COUNT_MAX: u32 = 64;
/// What is forgiven in a second.
const FORGIVEN_PER_S: u32 = 32;

/// What a session has been forgiven.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Tolerance {
    /// When all will be forgiven; none: nothing is to be.
    even_at: Option<Instant>,
}

impl Tolerance {
    /// A request was unfit, or dear.
    pub(in crate::gateway) fn count(&mut self, now: Instant) {
        let each = Duration::from_secs(1) / FORGIVEN_PER_S;
        self.even_at = Some(self.even_at.map_or(now, |even_at| even_at.max(now)) + each);
    }

    /// When the session is heard again; none: it is heard now.
    pub(in crate::gateway) fn waits_until(&self) -> Option<Instant> {
        let tolerated = Duration::from_secs(1) / FORGIVEN_PER_S * COUNT_MAX;
        self.even_at?.checked_sub(tolerated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_session_waits_for_what_is_over_the_limit_and_no_longer() {
        let now = Clock::system().now() + Duration::from_secs(60);
        let mut tolerance = Tolerance::default();
        assert_eq!(tolerance.waits_until(), None);
        for _ in 0..COUNT_MAX {
            tolerance.count(now);
            assert!(tolerance.waits_until().is_none_or(|until| until <= now));
        }
        tolerance.count(now);
        let until = tolerance.waits_until().unwrap();
        assert_eq!(until - now, Duration::from_secs(1) / FORGIVEN_PER_S);
        // Forgiven with time, and not more than there was.
        let later = now + Duration::from_secs(3_600);
        assert!(until < later);
        tolerance.count(later);
        assert!(tolerance.waits_until().unwrap() < later);
    }
}
