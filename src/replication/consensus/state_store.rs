//! The Raft library's state machine, over the domain's.
//!
//! Applies committed entries one by one under the state's lock, hands outcomes to whoever waits
//! here and events to the journal, and turns O(1) clones into snapshots beside it.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use quorate_storage::Log;
use quorate_storage::index::Index;
use quorate_storage::snapshot::{Catalogue, Kept, SetAside, SnapshotHead};

use crate::domain::effect::Event;
use crate::domain::entry::Payload;
use crate::domain::machine::{Answered, Machine};
use crate::replication::consensus::applied::Applied;
use crate::replication::consensus::raft_codec::{
    CodecError, put_log_id, put_membership, take_log_id, take_membership,
};
use crate::replication::consensus::raft_types::{
    Entry, Kind, LogId, Snapshot, SnapshotMeta, StoredMembership, Types, log_id, parts,
};
use crate::replication::consensus::snapshot_transfer::SnapshotFile;
use crate::replication::history::indexing::left_behind;
use crate::replication::history::scratch::restore;
use crate::replication::journal::{Block, Journal};
use crate::replication::proposing::pending::Pending;
use crate::supervisor::{Exit, ExitCode, Supervisor};
use crate::telemetry::event;

/// The consensus engine of this node.
pub(in crate::replication) type Raft = openraft::Raft<Types, StateStore>;

/// How often a snapshot looks whether its last entry has become durable.
const DURABLE_POLL: Duration = Duration::from_millis(5);
/// How long a snapshot waits for space before it tries again.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// Everything that apply and snapshots touch; clones share it.
#[derive(Debug, Clone)]
pub(in crate::replication) struct StateStore {
    pub(in crate::replication) applied: Applied,
    pub(in crate::replication) journal: Journal,
    pub(in crate::replication) pending: Arc<Pending>,
    pub(in crate::replication) catalogue: Arc<Catalogue>,
    pub(in crate::replication) log: Log,
    pub(in crate::replication) owner: quorate_storage::snapshot::Owner,
    pub(in crate::replication) supervisor: Supervisor,
    /// Hears of every applied entry; none where there is no index.
    pub(in crate::replication) index: Option<Index>,
}

/// What applying one entry gave.
#[derive(Debug, Default)]
struct Outcome {
    answers: Vec<Answered>,
    events: Vec<Event>,
    log_time_ms: u64,
}

impl StateStore {
    /// Applies one entry; the lock is held for it alone.
    fn apply_entry(&self, entry: &Entry) -> Result<(), io::Error> {
        let id = entry.id();
        let index = id.index();
        let outcome = {
            let mut state = self.applied.lock();
            let machine = &mut state.machine;
            let result = match entry.payload().kind() {
                Kind::Commands => apply_commands(machine, index, entry.payload().bytes())?,
                Kind::Blank | Kind::Membership => {
                    machine.pass(index);
                    Outcome::default()
                }
            };
            if let Some(membership) = openraft::entry::RaftEntry::get_membership(entry) {
                state.membership = StoredMembership::new(Some(id), membership);
            }
            state.applied(id);
            result
        };
        if let Some(listener) = &self.index
            && let Err(error) = listener.offer(left_behind(index, &outcome.events))
        {
            tracing::debug!(entry = index, %error, "the index does not take an entry");
        }
        self.journal.push(index, Block::of(index, outcome.log_time_ms, outcome.events));
        if !outcome.answers.is_empty() {
            self.pending.answer(outcome.answers);
        }
        Ok(())
    }

    /// Stops the node: what cannot be applied here would be skipped otherwise.
    fn stop(&self, index: u64, reason: &io::Error) {
        self.supervisor.request_exit(Exit {
            code: ExitCode::POISONED,
            reason: format!("entry {index} cannot be applied: {reason}"),
        });
    }

    /// Loads the newest whole snapshot, if there is one, before anything else is applied.
    pub(in crate::replication) fn load_newest(&self) -> Result<Option<u64>, io::Error> {
        let (reader, set_aside) = self.catalogue.newest_verified().map_err(io::Error::other)?;
        tell_set_aside(&set_aside);
        let Some(reader) = reader else { return Ok(None) };
        let index = reader.head().index;
        self.load(&reader)?;
        Ok(Some(index))
    }

    /// Writes a snapshot; a full disk is waited out, since nothing depends on this one.
    async fn write_snapshot(&self, head: SnapshotHead, machine: Machine) -> io::Result<Kept> {
        let mut told = false;
        loop {
            let catalogue = Arc::clone(&self.catalogue);
            let (head, machine) = (head.clone(), machine.clone());
            let write = move || catalogue.write(head, machine.to_records());
            let written = self.supervisor.blocking("snapshot", write).await;
            match written.map_err(io::Error::other)? {
                Err(error) if error.is_full() => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(event = event::DISK_FULL, %error, "no space for a snapshot");
                    }
                    tokio::time::sleep(FULL_PAUSE).await;
                }
                written => return written.map_err(io::Error::other),
            }
        }
    }

    fn load(&self, reader: &quorate_storage::snapshot::SnapshotReader) -> Result<(), io::Error> {
        let head = reader.head().clone();
        let machine = restore(reader)?;
        let membership = membership_of(&head).map_err(io::Error::other)?;
        self.applied.lock().replace(machine, Some(log_id(head.term, head.index)), membership);
        self.journal.reset(head.index);
        Ok(())
    }
}

/// Tells of snapshots that were found damaged.
pub(in crate::replication) fn tell_set_aside(set_aside: &[SetAside]) {
    for aside in set_aside {
        tracing::warn!(
            event = event::SNAPSHOT_SET_ASIDE,
            file = aside.name,
            error = %aside.error,
            "a damaged snapshot was set aside"
        );
    }
}

fn apply_commands(machine: &mut Machine, index: u64, bytes: &Bytes) -> io::Result<Outcome> {
    let payload = Payload::decode(bytes.clone()).map_err(io::Error::other)?;
    let applied = std::panic::catch_unwind(AssertUnwindSafe(|| machine.apply(index, &payload)))
        .map_err(|panic| io::Error::other(format!("apply panicked: {}", panic_text(&*panic))))?;
    Ok(Outcome {
        answers: applied.outcomes,
        events: applied.events,
        log_time_ms: payload.log_time_ms,
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

impl RaftStateMachine<Types> for StateStore {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let state = self.applied.lock();
        Ok((state.last, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            self.apply_entry(&entry).inspect_err(|error| self.stop(entry.id().index(), error))?;
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        if self.applied.last() == meta.last_log_id && meta.last_log_id.is_some() {
            return Ok(());
        }
        let store = self.clone();
        let id = snapshot.id;
        let loaded = self.supervisor.blocking("snapshot install", move || {
            let reader = store.catalogue.reader(id).map_err(io::Error::other)?;
            store.load(&reader)
        });
        loaded.await.map_err(io::Error::other)??;
        // What was applied inside of the snapshot was never answered here: the rings answer it.
        self.pending.requeue_all();
        tracing::info!(
            event = event::SNAPSHOT_INSTALLED,
            entry = id.index,
            bytes = snapshot.file_bytes,
            "a snapshot was installed"
        );
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<SnapshotFile>>, io::Error> {
        // Those that reached down to the log were found damaged and set aside. The library takes the
        // want of a snapshot below a purged log for the end of the node.
        let next = self.catalogue.newest().map_or(0, |kept| kept.id.index + 1);
        if self.log.first_index() > next && self.applied.last().is_some() {
            return self.build_snapshot().await.map(Some);
        }
        self.catalogue.newest().map(|kept| snapshot_of(&kept)).transpose()
    }
}

impl RaftSnapshotBuilder<Types> for StateStore {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot<SnapshotFile>, io::Error> {
        let (machine, last, membership, healings) = {
            let state = self.applied.lock();
            (state.machine.clone(), state.last, state.membership.clone(), state.healings)
        };
        let Some(last) = last else {
            return Err(io::Error::other("nothing has been applied yet"));
        };
        let (term, index) = parts(&last);
        if let Some(kept) = self.catalogue.newest().filter(|kept| kept.id.index >= index) {
            return snapshot_of(&kept);
        }
        // Entries may be applied before this node has flushed them; a snapshot never covers more
        // than what its own disk holds.
        if index >= self.log.next_index() {
            return Err(io::Error::other(format!("entry {index} is not in this node's log")));
        }
        while self.log.durable().is_none_or(|durable| durable < index) {
            if let Some(poison) = self.log.poisoned() {
                return Err(io::Error::other(poison));
            }
            tokio::time::sleep(DURABLE_POLL).await;
        }
        let head = SnapshotHead {
            lineage: self.owner.lineage,
            cluster_id: self.owner.cluster_id,
            index,
            term,
            chain: self.log.chain_at(index).map_err(io::Error::other)?,
            state_hash: machine.hash(),
            meta: membership_bytes(&membership),
        };
        let written = self.write_snapshot(head, machine).await?;
        if self.applied.lock().healings != healings {
            // The state that it shows was found wrong meanwhile.
            self.catalogue.give_up(written.id).map_err(io::Error::other)?;
            let newest = self.catalogue.newest();
            let newest = newest.ok_or_else(|| io::Error::other("the state was found wrong"))?;
            return snapshot_of(&newest);
        }
        tracing::info!(
            event = event::SNAPSHOT_WRITTEN,
            entry = written.id.index,
            bytes = written.file_bytes,
            records = written.records,
            "a snapshot was written"
        );
        snapshot_of(&written)
    }
}

/// The membership that stands in a snapshot's head: its entry and its voters.
fn membership_bytes(membership: &StoredMembership) -> Bytes {
    let mut buffer = BytesMut::with_capacity(96);
    put_log_id(&mut buffer, membership.log_id().as_ref());
    put_membership(&mut buffer, membership.membership());
    buffer.freeze()
}

fn membership_of(head: &SnapshotHead) -> Result<StoredMembership, CodecError> {
    let mut buffer = head.meta.clone();
    let id = take_log_id(&mut buffer)?;
    Ok(StoredMembership::new(id, take_membership(&mut buffer)?))
}

/// A snapshot of the catalogue as the Raft library knows it.
pub(in crate::replication) fn snapshot_of(
    kept: &Kept,
) -> Result<Snapshot<SnapshotFile>, io::Error> {
    let meta = SnapshotMeta {
        last_log_id: Some(log_id(kept.id.term, kept.id.index)),
        last_membership: membership_of(&kept.head).map_err(io::Error::other)?,
    };
    Ok(Snapshot { meta, snapshot: SnapshotFile { id: kept.id, file_bytes: kept.file_bytes } })
}
