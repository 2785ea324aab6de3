//! A session outlives the loss of its connection for as long as it was promised: in these runs nobody
//! closes a session of somebody else, and outages do not count.

use super::Violation;
use crate::history::History;

const NAME: &str = "sessions last";
/// A node may notice a lost connection so much earlier than the client.
const SLACK_US: u64 = 6_000_000;

pub(crate) fn check(history: &History) -> Result<(), Violation> {
    for end in &history.sessions {
        let until = (end.lost.0 + end.reconnect_us).saturating_sub(SLACK_US);
        if end.by_cluster.is_some() && end.ended.0 < until {
            return Err(Violation::new(NAME, format!("it was ended too early: {end:?}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use quorate::domain::id::SessionId;

    use super::check;
    use crate::history::{ClientId, History, SessionEnd, Time};

    #[test]
    fn a_session_that_is_ended_too_early() {
        let seconds = |seconds: u64| seconds * 1_000_000;
        for (ended, by_cluster, right) in [
            (60, true, true),
            (55, true, true),
            (53, true, false),
            (10, true, false),
            (10, false, true),
        ] {
            let end = SessionEnd {
                client: ClientId(1),
                session: SessionId(1),
                lost: Time(seconds(10)),
                ended: Time(seconds(ended)),
                reconnect_us: seconds(50),
                by_cluster: by_cluster.then(|| "the session is unknown".to_owned()),
            };
            let history = History { sessions: vec![end], ..History::default() };
            assert_eq!(check(&history).is_ok(), right, "{ended} {by_cluster}");
        }
    }
}
