//! The one task per node that reads the journal for all live sessions.

use std::sync::Arc;

use crate::domain::effect::SessionChange;
use crate::domain::id::Position;
use crate::gateway::fanout::ChangedSession;
use crate::gateway::hosting::Hosting;
use crate::replication::Read;
use crate::supervisor::StopSignal;

/// Blocks fanned out before the other tasks of the thread have a turn.
const BLOCKS_PER_TURN: usize = 64;

/// Runs until `stop`.
pub(in crate::gateway) async fn run(hosting: Arc<Hosting>, mut stop: StopSignal) {
    let journal = hosting.replication.journal().clone();
    let mut applied = journal.applied();
    loop {
        let newest = *applied.borrow_and_update();
        let fanned = hosting.fanout().fanned();
        match journal.after(Position::end_of_entry(fanned), BLOCKS_PER_TURN) {
            Read::Blocks(blocks) => {
                for block in blocks {
                    let changed = hosting.fanout().fan_out(&block, hosting.now_us());
                    pass_on(&hosting, &changed);
                }
                // Writers that were woken come before the next blocks.
                tokio::task::yield_now().await;
            }
            Read::CaughtUp => {
                hosting.fanout().pass(newest);
                tokio::select! {
                    () = stop.stopped() => return,
                    changed = applied.changed() => if changed.is_err() { return },
                }
            }
            Read::Gone { oldest } => hosting.fanout().skip_to(oldest),
        }
    }
}

fn pass_on(hosting: &Hosting, changed: &[ChangedSession]) {
    for ChangedSession { session, change } in changed {
        // An older word about a session that has been claimed again since changes nothing.
        let is_old = *change == SessionChange::Detached
            && hosting
                .replication
                .view()
                .session(*session)
                .is_some_and(|session| session.detached_at_ms().is_none());
        if !is_old {
            hosting.registry.changed(*session, *change);
        }
    }
}
