//! Repair of a log while it is open: damage that a read has found in a running node.
//!
//! The damaged record is never handed on. Whoever met it asks for the segment to be mended with a
//! peer's entries and reads again; if that cannot be, the node leaves in good order and repairs its
//! log at the next start.

use std::sync::Arc;

use quorate_storage::{Filling, LiveMendError, Log, ReadError, Wound};
use tokio::sync::Mutex;

use crate::replication::members::repair::Repair;
use crate::supervisor::{Exit, ExitCode};
use crate::telemetry::event;

/// Rounds over all peers before a damage that a read waits for counts as lasting.
const ROUNDS: u32 = 20;
/// Damages in one segment that one call mends.
const WOUNDS_MAX: usize = 64;

/// Mends one segment at a time; clones share the turn.
#[derive(Debug, Clone)]
pub(in crate::replication) struct Mender {
    repair: Repair,
    log: Log,
    turn: Arc<Mutex<()>>,
}

impl Mender {
    pub(in crate::replication) fn new(repair: Repair, log: Log) -> Self {
        Self { repair, log, turn: Arc::default() }
    }

    /// Whether `error` is a damage that has been mended, so that the read may be tried again.
    pub(in crate::replication) async fn mended(&self, error: &ReadError) -> bool {
        let ReadError::Damaged { segment, offset, damage } = error else { return false };
        tracing::error!(
            event = event::LOG_HOLE,
            segment,
            offset,
            %damage,
            "a record that was once durable is damaged"
        );
        let _turn = self.turn.lock().await;
        for _ in 0..WOUNDS_MAX {
            let (log, segment) = (self.log.clone(), *segment);
            let looking = move || log.wound(segment);
            match self.repair.supervisor.blocking("log wound", looking).await {
                Ok(Ok(None)) => return true,
                Ok(Ok(Some(wound))) => {
                    if !self.mend(&wound).await {
                        return false;
                    }
                }
                // Purged meanwhile.
                Ok(Err(LiveMendError::Read(_))) => return true,
                Ok(Err(_)) | Err(_) => return false,
            }
        }
        false
    }

    /// As [`Self::mended`]; asks for the node's end when it cannot be: what is damaged is repaired
    /// before the node takes part again.
    pub(in crate::replication) async fn mended_or_leave(&self, error: &ReadError) -> bool {
        if self.mended(error).await {
            return true;
        }
        if matches!(error, ReadError::Damaged { .. }) {
            let alone = self.repair.peers.roster().members().count() == 1;
            let dir = self.repair.dir.display();
            let advice = if alone {
                format!("; `quorate log repair --accept-loss {dir}` goes on without what is lost")
            } else {
                "; it is repaired from the other nodes at the next start".to_owned()
            };
            self.repair
                .supervisor
                .request_exit(Exit { code: ExitCode::DAMAGED, reason: format!("{error}{advice}") });
        }
        false
    }

    async fn mend(&self, wound: &Wound) -> bool {
        if let Some(chain_before) = wound.chain.filter(|_| wound.needed.is_empty()) {
            return self.put(wound, Filling { chain_before, records: Vec::new() }).await;
        }
        for _ in 0..ROUNDS {
            for peer in self.repair.peers.connected() {
                let Some((wound, filling)) = self.repair.filling_from(wound, peer.0).await else {
                    continue;
                };
                let entries = filling.records.len();
                if self.put(&wound, filling).await {
                    tracing::warn!(
                        event = event::LOG_REPAIRED,
                        segment = wound.hole.segment,
                        offset = wound.hole.offset,
                        from = wound.needed.start,
                        entries,
                        peer = self.repair.name_of(peer.0),
                        "a hole in the log was filled"
                    );
                    return true;
                }
            }
            if self.repair.peers.roster().members().count() == 1 {
                return false;
            }
            tokio::time::sleep(super::repair::ROUND_PAUSE).await;
        }
        false
    }

    async fn put(&self, wound: &Wound, filling: Filling) -> bool {
        let (log, wound) = (self.log.clone(), wound.clone());
        let mending = move || log.mend(&wound, &filling);
        match self.repair.supervisor.blocking("log mend", mending).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                tracing::warn!(event = event::REPAIR_WAITS, %error, "a damage was not mended");
                false
            }
            Err(_) => false,
        }
    }
}
