//! The Raft library's log, over the log of `quorate-storage`.
//!
//! *Readable* is when `append` returns, *durable* is when the library's callback runs, from the
//! writer's completion. Votes go through the same ordered queue as entries, so a vote can never be
//! durable after an entry that was written later.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use quorate_storage::snapshot::Catalogue;
use quorate_storage::{Completion, Log, LogError, Poisoned, Record, RecordKind};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::replication::consensus::raft_codec::{take_vote, vote_bytes};
use crate::replication::consensus::raft_types::{
    Entry, Kind, LogId, Payload, Types, Vote, log_id, parts,
};
use crate::replication::members::mender::Mender;
use crate::supervisor::Supervisor;
use crate::telemetry::{event, metrics};

/// Bytes of entries in one append request; a longer entry travels alone.
const REQUEST_BYTES: usize = 1024 * 1024;
/// Bytes of entries read at a time where the library asks for a range of any length.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Pause before an append that found the writer's queue full is tried again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(2);

/// The log as the Raft library sees it; clones read and write the same log.
#[derive(Debug, Clone)]
pub(in crate::replication) struct LogStore {
    log: Log,
    catalogue: Arc<Catalogue>,
    supervisor: Supervisor,
    mender: Option<Mender>,
}

impl LogStore {
    pub(in crate::replication) fn new(
        log: Log,
        catalogue: Arc<Catalogue>,
        supervisor: Supervisor,
    ) -> Self {
        Self { log, catalogue, supervisor, mender: None }
    }

    /// Mends what it finds damaged with the other members' entries.
    pub(in crate::replication) fn with_mender(self, mender: Mender) -> Self {
        Self { mender: Some(mender), ..self }
    }

    /// The part of `range` that the log holds.
    fn held(&self, range: &impl RangeBounds<u64>) -> std::ops::Range<u64> {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        start.max(self.log.first_index())..end.min(self.log.next_index())
    }

    async fn read(&self, range: std::ops::Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        loop {
            match (self.log.read(range.clone(), bytes_max), &self.mender) {
                (Ok(records), _) => return records.into_iter().map(entry_of).collect(),
                (Err(error), Some(mender)) if mender.mended_or_leave(&error).await => {}
                (Err(error), _) => return Err(io::Error::other(error)),
            }
        }
    }

    fn stored_vote(&self) -> io::Result<Option<Vote>> {
        let Some(mut bytes) = self.log.hard_state() else { return Ok(None) };
        take_vote(&mut bytes).map(Some).map_err(io::Error::other)
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        let mut held = self.held(&range);
        let mut entries = Vec::new();
        while held.start < held.end {
            let page = self.read(held.clone(), PAGE_BYTES).await?;
            held.start += page.len() as u64;
            entries.extend(page);
        }
        Ok(entries)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(start..end, REQUEST_BYTES).await
    }

    async fn entries_stream<R>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + Send
    where
        R: RangeBounds<u64> + Clone + Debug + Send,
    {
        // A start after a full stop applies the whole log through one stream: page by page.
        let store = self.clone();
        let held = store.held(&range);
        futures::stream::unfold((store, held), |(store, mut held)| async move {
            if held.start >= held.end {
                return None;
            }
            let page = store.read(held.clone(), PAGE_BYTES).await;
            match &page {
                Ok(entries) => held.start += entries.len() as u64,
                Err(_) => held.start = held.end,
            }
            Some((page, (store, held)))
        })
        .map(|page| match page {
            Ok(entries) => futures::stream::iter(entries.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(error) => futures::stream::iter(vec![Err(error)]),
        })
        .flatten()
        .boxed()
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.stored_vote()
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let id = |(index, term)| log_id(term, index);
        Ok(LogState {
            last_purged_log_id: self.log.purged().map(id),
            last_log_id: self.log.last().map(id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let bytes = vote_bytes(vote);
        durably(|done| self.log.save_hard_state(bytes.clone(), done)).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let records: Vec<Record> = entries.into_iter().map(record_of).collect();
        let given = Clock::system().now();
        let mut waiting = Some((records, callback));
        while let Some((records, callback)) = waiting.take() {
            // The log takes all or nothing, so what it refuses may be offered again; the callback
            // is kept outside of the completion until then.
            let slot = Arc::new(std::sync::Mutex::new(Some(callback)));
            let inside = Arc::clone(&slot);
            let done: Completion = Box::new(move |result: Result<(), Poisoned>| {
                let callback = inside.lock().ok().and_then(|mut slot| slot.take());
                metrics::log_flushed(Clock::system().since(given));
                if let Some(callback) = callback {
                    callback.io_completed(result.map_err(io::Error::other));
                }
            });
            match self.log.append(records.clone(), done) {
                Ok(()) => return Ok(()),
                Err(LogError::QueueFull { .. }) => {
                    let callback = slot.lock().ok().and_then(|mut slot| slot.take());
                    waiting = callback.map(|callback| (records, callback));
                    tokio::time::sleep(QUEUE_FULL_PAUSE).await;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let kept = last.map(|id| id.index());
        if kept.is_some_and(|kept| kept.saturating_add(1) >= self.log.next_index()) {
            return Ok(());
        }
        durably(|done| self.log.truncate_after(kept, done)).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let (term, index) = parts(&upto);
        if index >= self.log.next_index() {
            // A snapshot was installed past the end of the log: the log starts anew behind it.
            let snapshots = self.catalogue.list();
            let found =
                snapshots.iter().find(|kept| kept.id.index == index && kept.id.term == term);
            let chain = found.map(|kept| kept.head.chain).ok_or_else(|| {
                io::Error::other(format!("no snapshot ends at entry {index} of term {term}"))
            })?;
            return durably(|done| self.log.reset_to(index, term, chain, done)).await;
        }
        let log = self.log.clone();
        match self.supervisor.blocking("purge", move || log.purge(index)).await {
            // Nothing was purged and nothing depends on it: the next purge makes up for it.
            Ok(Err(LogError::DiskFull(fault))) => {
                tracing::warn!(event = event::DISK_FULL, %fault, "no space to note a purge");
                Ok(())
            }
            Ok(result) => result.map_err(io::Error::other),
            Err(lost) => Err(io::Error::other(lost)),
        }
    }
}

/// Queues a change and waits until it is durable.
async fn durably(
    mut change: impl FnMut(Completion) -> Result<(), LogError>,
) -> Result<(), io::Error> {
    loop {
        let (sender, receiver) = oneshot::channel();
        let done: Completion = Box::new(move |result| {
            // Nobody listens only when the node stops.
            let _gone = sender.send(result);
        });
        match change(done) {
            Ok(()) => {
                return match receiver.await {
                    Ok(result) => result.map_err(io::Error::other),
                    Err(_) => Err(io::Error::other("the log's writer has ended")),
                };
            }
            Err(LogError::QueueFull { .. }) => tokio::time::sleep(QUEUE_FULL_PAUSE).await,
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

fn record_of(entry: Entry) -> Record {
    let (term, index) = parts(&entry.id());
    let kind = match entry.payload().kind() {
        Kind::Blank => RecordKind::Blank,
        Kind::Commands => RecordKind::Commands,
        Kind::Membership => RecordKind::Membership,
    };
    Record { kind, index, term, payload: entry.payload().bytes().clone() }
}

fn entry_of(record: Record) -> io::Result<Entry> {
    let kind = match record.kind {
        RecordKind::Blank => Kind::Blank,
        RecordKind::Commands => Kind::Commands,
        RecordKind::Membership => Kind::Membership,
        other => {
            let what = format!("entry {} has the kind of a mark: {other:?}", record.index);
            return Err(io::Error::other(what));
        }
    };
    let payload = Payload::checked(kind, record.payload).map_err(io::Error::other)?;
    Ok(Entry::new(log_id(record.term, record.index), payload))
}
