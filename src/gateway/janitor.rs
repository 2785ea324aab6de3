//! Finds sessions that the log gives to this node and that no connection here serves: the client
//! vanished between claim and welcome, or the word of its end was lost. They are detached, so that
//! they expire.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::farewell;
use super::hosting::Hosting;
use crate::domain::id::SessionId;
use crate::supervisor::StopSignal;

/// Between two looks; a session that is unserved at both is nobody's. Longer than a handshake.
const PERIOD: Duration = Duration::from_secs(15);

/// Runs until `stop`.
pub(super) async fn run(hosting: Arc<Hosting>, mut stop: StopSignal) {
    let mut before = BTreeSet::new();
    loop {
        tokio::select! {
            () = stop.stopped() => return,
            () = tokio::time::sleep(PERIOD) => {}
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
