//! Sends at a rate: how many updates are due by now.

use std::time::Duration;

use tokio::time::Instant;

/// An even rate from a start on; what was missed while waiting is not made up in one burst beyond
/// [`BURST`].
pub(in crate::cli) struct Pace {
    per_second: f64,
    next: Instant,
}

/// How much of a delay is made up at once.
const BURST: Duration = Duration::from_millis(20);

impl Pace {
    /// So many a second, from `now` on.
    pub(in crate::cli) fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second: f64::from(per_second.max(1)), next: now }
    }

    /// When the next one is due; takes its place in the row.
    pub(in crate::cli) fn take(&mut self, now: Instant) -> Instant {
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let due = self.next.max(earliest);
        self.next = due + Duration::from_secs_f64(1.0 / self.per_second);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_pause_is_not_made_up_in_one_burst() {
        let start = Clock::system().now();
        let mut pace = Pace::new(1000, start);
        assert_eq!(pace.take(start), start);
        assert_eq!(pace.take(start), start + Duration::from_millis(1));
        let later = start + Duration::from_secs(10);
        let due_now = (0..1000).take_while(|_| pace.take(later) <= later).count();
        assert_eq!(due_now, 21);
    }
}
