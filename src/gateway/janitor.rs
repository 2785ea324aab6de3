//! Finds sessions that the log gives to this node and that no connection here serves: the client
//! vanished between claim and welcome, or the word of its end was lost. They are detached, so that
//! they expire. Also takes down when the quorum was lost from sight, for the age of stale reads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::domain::id::SessionId;
use crate::gateway::farewell;
use crate::gateway::hosting::Hosting;
use crate::supervisor::StopSignal;

/// Between two looks; a session that is unserved at both is nobody's. Longer than a handshake.
const PERIOD: Duration = Duration::from_secs(15);

/// Runs until `stop`.
pub(super) async fn run(hosting: Arc<Hosting>, mut stop: StopSignal) {
    let mut before = BTreeSet::new();
    let mut quorum = hosting.replication.quorum();
    let mut look = tokio::time::interval(PERIOD);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.stopped() => return,
            changed = quorum.changed() => {
                let quorate = quorum.borrow_and_update().is_quorate();
                hosting.note_quorum(quorate);
                if changed.is_err() {
                    return;
                }
                continue;
            }
            _ = look.tick() => {}
        }
        let now = unserved(&hosting);
        for (session, epoch) in now.intersection(&before) {
            farewell::detach(&hosting, *session, *epoch);
        }
        before = now;
    }
}

/// Active sessions of this node without a connection, with their epochs.
fn unserved(hosting: &Hosting) -> BTreeSet<(SessionId, u32)> {
    let view = hosting.replication.view();
    let mine = view.sessions_hosted_by(hosting.replication.member().id);
    mine.filter(|session| !hosting.registry.has(session.id()))
        .map(|session| (session.id(), session.epoch()))
        .collect()
}
