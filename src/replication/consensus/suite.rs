//! The Raft library's storage suite over the real log and the real state store, on a real folder
//! and on the simulated disk.
//!
//! The suite writes what no cluster ever writes: logs that begin anywhere, purges of what was never
//! there, snapshots of entries that no log holds. The adapters here fill in what our log insists
//! on, and hide it from the suite; everything else goes straight to the stores.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::Stream;
use openraft::entry::RaftEntry;
use openraft::storage::{
    EntryResponder, IOFlushed, LogState, RaftLogReader, RaftLogStorage, RaftSnapshotBuilder,
    RaftStateMachine,
};
use openraft::testing::log::{StoreBuilder, Suite};
use quorate_storage::disk::{RealDisk, SimulatedDisk};
use quorate_storage::snapshot::{Catalogue, Owner, RANGE_BYTES_MAX, SnapshotId};
use quorate_storage::{Disk, Log, LogOptions};

use crate::replication::consensus::applied::Applied;
use crate::replication::consensus::log_store::LogStore;
use crate::replication::consensus::raft_types::{
    Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, Types, Vote, log_id, parts,
};
use crate::replication::consensus::snapshot_transfer::SnapshotFile;
use crate::replication::consensus::state_store::StateStore;
use crate::replication::journal::Journal;
use crate::replication::proposing::pending::Pending;
use crate::replication::start::disk_side::WriterDriver;
use crate::supervisor::{StopSignal, Supervisor};

/// Makes stores, each in a folder of its own.
struct Builder {
    disk: Arc<dyn Disk>,
    dir: std::path::PathBuf,
    made: AtomicU64,
    /// Of all stores: a snapshot that one has built is installed on another.
    catalogues: Arc<Mutex<Vec<Arc<Catalogue>>>>,
}

/// Closes a store's log when its test is over.
struct Guard(Log);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl StoreBuilder<Types, SuiteLog, SuiteState, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, SuiteLog, SuiteState), openraft::StorageError<Types>> {
        let dir = self.dir.join(self.made.fetch_add(1, Ordering::Relaxed).to_string());
        let options = LogOptions { segment_bytes: 64 << 10, ..LogOptions::new(1, 2) };
        let disk = Arc::clone(&self.disk);
        let (log, writer, _) = Log::open(disk, &dir.join("log"), options).unwrap();
        let owner = Owner { cluster_id: 1, lineage: 2 };
        let disk = Arc::clone(&self.disk);
        let opened = Catalogue::open(disk, &dir.join("snapshots"), Some(owner)).unwrap();
        let catalogue = Arc::new(opened.0);
        self.catalogues.lock().unwrap().push(Arc::clone(&catalogue));
        let supervisor = Supervisor::new("suite");
        let mut driver = WriterDriver::new(writer, supervisor.clone());
        let work = move |stop: &StopSignal, waiting| driver.step(stop, waiting);
        supervisor.spawn_steps("log writer", work).unwrap();
        let store = StateStore {
            applied: Applied::default(),
            journal: Journal::new(0, 1 << 20),
            pending: Pending::new(0, 16),
            catalogue: Arc::clone(&catalogue),
            log: log.clone(),
            owner,
            supervisor: supervisor.clone(),
            index: None,
        };
        let inner = LogStore::new(log.clone(), catalogue, supervisor);
        let suite_log = SuiteLog { inner, log: log.clone(), floor: Arc::default() };
        let catalogues = Arc::clone(&self.catalogues);
        let state = SuiteState { store, log: suite_log.clone(), catalogues };
        Ok((Guard(log), suite_log, state))
    }
}

/// The log store, for a suite whose logs begin anywhere.
#[derive(Debug, Clone)]
struct SuiteLog {
    inner: LogStore,
    log: Log,
    /// Entries below were filled in and are not shown.
    floor: Arc<AtomicU64>,
}

impl SuiteLog {
    /// Fills the log with blank entries up to `next`, exclusive.
    async fn fill(&mut self, next: u64, term: u64) -> io::Result<()> {
        let from = self.log.next_index();
        if from >= next {
            return Ok(());
        }
        self.floor.fetch_max(next, Ordering::Relaxed);
        let blanks: Vec<Entry> =
            (from..next).map(|index| Entry::new_blank(log_id(term, index))).collect();
        self.inner.append(blanks, IOFlushed::noop()).await
    }

    fn shown(&self, range: &impl RangeBounds<u64>) -> Range<u64> {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => *index + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => *index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        start.max(self.floor.load(Ordering::Relaxed))..end
    }
}

impl RaftLogReader<Types> for SuiteLog {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        let shown = self.shown(&range);
        self.inner.try_get_log_entries(shown).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.inner.limited_get_log_entries(start, end).await
    }

    async fn entries_stream<R>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + Send
    where
        R: RangeBounds<u64> + Clone + Debug + Send,
    {
        let shown = self.shown(&range);
        self.inner.entries_stream(shown).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.inner.read_vote().await
    }
}

impl RaftLogStorage<Types> for SuiteLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        self.inner.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.inner.save_vote(vote).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        if let Some(first) = entries.first() {
            self.fill(first.index(), first.term()).await?;
        }
        self.inner.append(entries, callback).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.inner.truncate_after(last).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let (term, index) = parts(&upto);
        if index < self.log.next_index() {
            return self.inner.purge(upto).await;
        }
        // Nothing of the kind happens without a snapshot that ends there.
        let (done, durable) = tokio::sync::oneshot::channel();
        let completion = Box::new(move |result| {
            let _gone = done.send(result);
        });
        self.log.reset_to(index, term, 0, completion).map_err(io::Error::other)?;
        durable.await.map_err(io::Error::other)?.map_err(io::Error::other)
    }
}

/// The state store, for a suite that applies what no log holds.
#[derive(Debug, Clone)]
struct SuiteState {
    store: StateStore,
    log: SuiteLog,
    catalogues: Arc<Mutex<Vec<Arc<Catalogue>>>>,
}

impl RaftStateMachine<Types> for SuiteState {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        self.store.applied_state().await
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        self.store.apply(entries).await
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        self.fetch(&snapshot);
        self.store.install_snapshot(meta, snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<SnapshotFile>>, io::Error> {
        self.store.get_current_snapshot().await
    }
}

impl SuiteState {
    /// What the transfer between nodes does: brings the file into this store's catalogue.
    fn fetch(&self, snapshot: &SnapshotFile) {
        let catalogues = self.catalogues.lock().unwrap();
        let holds = |one: &&Arc<Catalogue>| one.list().iter().any(|kept| kept.id == snapshot.id);
        let source = catalogues.iter().find(holds).unwrap();
        let mut receiver = self.store.catalogue.receive(snapshot.id, snapshot.file_bytes).unwrap();
        while !receiver.is_complete() {
            let offset = receiver.status().received;
            let range = source.read_range(snapshot.id, offset, RANGE_BYTES_MAX).unwrap();
            receiver.write(offset, &range).unwrap();
        }
        self.store.catalogue.accept(receiver).unwrap();
    }
}

impl RaftSnapshotBuilder<Types> for SuiteState {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot<SnapshotFile>, io::Error> {
        let Some(last) = self.store.applied.last() else {
            // The suite purges before anything is applied; the library then wants a snapshot.
            let id = SnapshotId { index: 0, term: 0, content_hash: 0 };
            let meta = SnapshotMeta::default();
            return Ok(Snapshot { meta, snapshot: SnapshotFile { id, file_bytes: 0 } });
        };
        let (term, index) = parts(&last);
        self.log.fill(index + 1, term).await?;
        self.store.build_snapshot().await
    }
}

async fn suite_on(disk: Arc<dyn Disk>, dir: &Path) {
    let builder =
        Builder { disk, dir: dir.to_owned(), made: AtomicU64::new(0), catalogues: Arc::default() };
    Suite::<Types, SuiteLog, SuiteState, Builder, Guard>::test_all(builder).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_librarys_suite_on_a_real_folder() {
    let dir = tempfile::tempdir().unwrap();
    suite_on(Arc::new(RealDisk), dir.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_librarys_suite_on_the_simulated_disk() {
    suite_on(Arc::new(SimulatedDisk::new()), Path::new("suite")).await;
}
