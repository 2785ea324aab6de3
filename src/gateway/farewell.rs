//! What the log is told when a connection ends: the session waits for its client, or it is over.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::command::Command;
use crate::domain::effect::CloseReason;
use crate::domain::id::SessionId;
use crate::gateway::hosting::Hosting;
use crate::replication::{ProposeError, Refusal};

/// What one proposal may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells the log that a session's client is gone, again and again until it is known or the node
/// stops; a session that moves on meanwhile has a higher epoch and is not touched.
pub(super) fn detach(hosting: &Arc<Hosting>, session: SessionId, epoch: u32) {
    tell(hosting, Command::DetachSession { session, epoch });
}

/// Tells the log that a session is over.
pub(super) fn close(hosting: &Arc<Hosting>, session: SessionId, reason: CloseReason) {
    tell(hosting, Command::CloseSession { session, reason });
}

fn tell(hosting: &Arc<Hosting>, command: Command) {
    let shared = Arc::clone(hosting);
    hosting.supervisor.spawn("farewell", async move {
        let mut stop = shared.supervisor.stop_signal();
        tokio::select! {
            () = insist(&shared, &command) => {}
            // Sessions of a stopped node are detached by its next start, or by its loss.
            () = stop.stopped() => {}
        }
    });
}

async fn insist(hosting: &Hosting, command: &Command) {
    loop {
        match hosting.replication.propose(command, PATIENCE).await {
            Ok(_) | Err(ProposeError::Refused(Refusal::Stopped)) => return,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
