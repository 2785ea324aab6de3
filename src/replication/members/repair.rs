//! Repair from peers, before this node takes part in consensus.
//!
//! A member whose log has a hole asks the others for the entries that are missing and takes them
//! only if their chain leads from what stands before the hole to what stands behind it. Where they
//! have purged them, or too little is left around the hole, a snapshot that covers the whole log
//! takes its place. Until the log is whole the node answers no candidate and refuses every stream.
//!
//! Where the end of the log itself is lost, no chain tells what stood there. Then committed entries
//! may stand there and nothing else: whatever this node acknowledged there is committed, or was
//! given up by a leader that a quorum has confirmed since, and whose own log ends before.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_storage::record::chain_of;
use quorate_storage::snapshot::{Catalogue, Kept, Owner};
use quorate_storage::{
    Beyond, Diagnosis, Disk, Filling, Hole, LogOptions, MendError, OpenError, Record, Wound,
    begin_after, layout, mend, survey,
};
use tokio::sync::mpsc;

use crate::peer::IncomingStream;
use crate::replication::consensus::snapshot_transfer::fetch_snapshot;
use crate::replication::error::StartError;
use crate::replication::members::peers::Peers;
use crate::replication::members::records::{Given, ask_extent, ask_for};
use crate::supervisor::Supervisor;
use crate::telemetry::event;

/// Pause between two rounds over all peers.
pub(super) const ROUND_PAUSE: Duration = Duration::from_millis(250);
/// Entries that one repair of one hole holds in memory, bytes; a longer hole takes a snapshot.
const ENTRIES_BYTES_MAX: usize = 256 << 20;

/// What a repair needs.
#[derive(Debug, Clone)]
pub(in crate::replication) struct Repair {
    pub(in crate::replication) disk: Arc<dyn Disk>,
    /// The node's folder.
    pub(in crate::replication) dir: PathBuf,
    pub(in crate::replication) options: LogOptions,
    pub(in crate::replication) peers: Peers,
    pub(in crate::replication) supervisor: Supervisor,
}

/// Why a peer did not help.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refused {
    /// It has purged the entries, or they do not suffice: a snapshot may.
    NeedsSnapshot,
    /// Not now: it does not answer, or has not committed what is needed.
    NotNow,
    /// This node must not go on under its id.
    VoteUnproven,
    /// The node's own disk refuses.
    Disk(OpenError),
}

impl Repair {
    /// Fills holes until there is none, however long it takes. Streams that peers open meanwhile
    /// end unanswered.
    pub(in crate::replication) async fn run(
        &self,
        streams: &mut mpsc::Receiver<IncomingStream>,
    ) -> Result<(), StartError> {
        tokio::select! {
            () = refuse(streams) => Err(StartError::Stopped),
            repaired = self.until_sound() => repaired,
        }
    }

    async fn until_sound(&self) -> Result<(), StartError> {
        let mut told: Option<Hole> = None;
        loop {
            // Where a wound cannot be filled, a snapshot takes the place of the log all the same.
            let (wound, lost) = match self.survey().await? {
                Diagnosis::Sound => return Ok(()),
                Diagnosis::Wound(wound) => {
                    let (hole, next_index) = (wound.hole.clone(), wound.next_index);
                    (Some(wound), Beyond { hole, next_index, is_open_ended: false })
                }
                Diagnosis::Beyond(beyond) => (None, beyond),
            };
            if told.as_ref() != Some(&lost.hole) {
                tell(&lost.hole, wound.as_ref());
            }
            if self.round(wound.as_ref(), &lost).await? {
                continue;
            }
            let hole = lost.hole;
            if told.replace(hole.clone()).as_ref() != Some(&hole) {
                tracing::warn!(
                    event = event::REPAIR_WAITS,
                    segment = hole.segment,
                    offset = hole.offset,
                    index = hole.index,
                    "no peer in sight can fill the hole yet"
                );
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }

    async fn survey(&self) -> Result<Diagnosis, StartError> {
        let (disk, dir) = (Arc::clone(&self.disk), layout::log_dir(&self.dir));
        let options = self.options.clone();
        let surveyed = self.supervisor.blocking("log survey", move || survey(disk, &dir, &options));
        Ok(surveyed.await.map_err(|_| StartError::Stopped)??)
    }

    /// Asks each peer in sight once; true when something was repaired.
    async fn round(&self, wound: Option<&Wound>, lost: &Beyond) -> Result<bool, StartError> {
        let mut needs_snapshot = wound.is_none();
        let peers = self.peers.connected();
        if let Some(wound) = wound {
            // Lost marks need no peer.
            if wound.needed.is_empty()
                && let Some(chain_before) = wound.chain
            {
                let filling = Filling { chain_before, records: Vec::new() };
                match self.mend(wound, filling).await {
                    Ok(()) => return Ok(true),
                    Err(Refused::Disk(error)) => return Err(own_disk(error)),
                    Err(Refused::VoteUnproven) => return Err(self.vote_unproven()),
                    Err(_) => needs_snapshot = true,
                }
            }
            for peer in &peers {
                match self.fill_from(wound, peer.0).await {
                    Ok(()) => return Ok(true),
                    Err(Refused::NeedsSnapshot) => needs_snapshot = true,
                    Err(Refused::NotNow) => {}
                    Err(Refused::VoteUnproven) => return Err(self.vote_unproven()),
                    Err(Refused::Disk(error)) => return Err(own_disk(error)),
                }
            }
        }
        if needs_snapshot && !peers.is_empty() {
            let catalogue = self.catalogue()?;
            for peer in &peers {
                match self.replace_from(&catalogue, lost, peer.0).await {
                    Ok(()) => return Ok(true),
                    Err(Refused::VoteUnproven) => return Err(self.vote_unproven()),
                    Err(Refused::Disk(error)) => return Err(own_disk(error)),
                    Err(_) => {}
                }
            }
        }
        Ok(false)
    }

    fn vote_unproven(&self) -> StartError {
        StartError::VoteUnproven { dir: self.dir.clone() }
    }

    /// Fills a hole with one peer's entries.
    async fn fill_from(&self, wound: &Wound, peer: u64) -> Result<(), Refused> {
        let wound = match wound.chain {
            Some(_) => wound.clone(),
            None => self.with_committed_end(wound, peer).await?,
        };
        let end = wound.needed.end;
        let mut from = wound.needed.start;
        let mut step = 1;
        loop {
            let filling = match wound.chain {
                Some(chain_before) if from == end => Filling { chain_before, records: Vec::new() },
                _ => self.entries(peer, from..end).await?,
            };
            let entries = filling.records.len();
            match self.mend(&wound, filling).await {
                // The damage took a truncation with it: they link further back.
                Err(Refused::NotNow) if from > wound.lowest() => {
                    from = from.saturating_sub(step).max(wound.lowest());
                    step *= 2;
                }
                Ok(()) => {
                    tracing::warn!(
                        event = event::LOG_REPAIRED,
                        segment = wound.hole.segment,
                        offset = wound.hole.offset,
                        from,
                        entries,
                        peer = self.name_of(peer),
                        "a hole in the log was filled"
                    );
                    return Ok(());
                }
                Err(Refused::NotNow) => return Err(Refused::NeedsSnapshot),
                Err(refused) => return Err(refused),
            }
        }
    }

    /// One peer's entries for a wound of an open log.
    pub(super) async fn filling_from(&self, wound: &Wound, peer: u64) -> Option<(Wound, Filling)> {
        let wound = match wound.chain {
            Some(_) => wound.clone(),
            None => self.with_committed_end(wound, peer).await.ok()?,
        };
        let filling = match wound.chain.filter(|_| wound.needed.is_empty()) {
            Some(chain_before) => Filling { chain_before, records: Vec::new() },
            None => self.entries(peer, wound.needed.clone()).await.ok()?,
        };
        Some((wound, filling))
    }

    /// The chain that the log's lost end has, from a peer that knows it to be committed.
    async fn with_committed_end(&self, wound: &Wound, peer: u64) -> Result<Wound, Refused> {
        let extent = ask_extent(&self.peers, peer).await.map_err(|_| Refused::NotNow)?;
        let wound = if extent.leads { wound.ending_at(extent.next) } else { wound.clone() };
        let end = wound.needed.end;
        if extent.committed_next < end {
            return Err(Refused::NotNow);
        }
        let Some(last) = end.checked_sub(1) else { return Err(Refused::NeedsSnapshot) };
        let filling = self.entries(peer, last..end).await?;
        let chain = filling
            .records
            .iter()
            .fold(filling.chain_before, |chain, record| chain_of(record, chain));
        Ok(wound.with_chain(chain))
    }

    /// All entries of a range, page by page.
    async fn entries(&self, peer: u64, range: std::ops::Range<u64>) -> Result<Filling, Refused> {
        let mut whole: Option<Filling> = None;
        let mut next = range.start;
        let mut bytes = 0;
        while next < range.end {
            let given = ask_for(&self.peers, peer, next..range.end).await;
            let (chain_before, records) = match given.map_err(|_| Refused::NotNow)? {
                Given::Entries { chain_before, records } => (chain_before, records),
                // A leader whose log ends before has given up what this node's held beyond it.
                Given::Purged { .. } | Given::Short { .. } => return Err(Refused::NeedsSnapshot),
            };
            next += records.len() as u64;
            bytes += records.iter().map(Record::disk_bytes).sum::<usize>();
            if bytes > ENTRIES_BYTES_MAX {
                return Err(Refused::NeedsSnapshot);
            }
            match &mut whole {
                Some(filling) => filling.records.extend(records),
                None => whole = Some(Filling { chain_before, records }),
            }
        }
        whole.ok_or(Refused::NotNow)
    }

    async fn mend(&self, wound: &Wound, filling: Filling) -> Result<(), Refused> {
        let (disk, dir) = (Arc::clone(&self.disk), layout::log_dir(&self.dir));
        let wound = wound.clone();
        let mending = move || mend(disk, &dir, &wound, &filling);
        let mended = self.supervisor.blocking("log mend", mending).await;
        match mended.map_err(|_| Refused::NotNow)? {
            Ok(_) => Ok(()),
            Err(MendError::DoesNotFollow { .. }) => Err(Refused::NotNow),
            Err(MendError::HardStateUnproven) => Err(Refused::VoteUnproven),
            Err(MendError::Open(error)) => Err(Refused::Disk(error)),
            Err(error) => {
                tracing::warn!(event = event::REPAIR_WAITS, %error, "a peer's entries do not fill the hole");
                Err(Refused::NeedsSnapshot)
            }
        }
    }

    /// Puts one peer's snapshot in the place of a log that is lost.
    async fn replace_from(
        &self,
        catalogue: &Arc<Catalogue>,
        lost: &Beyond,
        peer: u64,
    ) -> Result<(), Refused> {
        let Beyond { next_index, is_open_ended, .. } = *lost;
        let extent = ask_extent(&self.peers, peer).await.map_err(|_| Refused::NotNow)?;
        let end = if extent.leads { next_index.min(extent.next) } else { next_index };
        let Some(entry) = end.checked_sub(1).filter(|_| extent.committed_next >= end) else {
            return Err(Refused::NotNow);
        };
        let kept = self.fetch(catalogue, peer, entry).await?;
        let (disk, dir) = (Arc::clone(&self.disk), layout::log_dir(&self.dir));
        let options = self.options.clone();
        let (index, term, chain) = (kept.id.index, kept.id.term, kept.head.chain);
        let beginning =
            move || begin_after(disk, &dir, &options, index, term, chain, is_open_ended);
        let begun = self.supervisor.blocking("log replace", beginning).await;
        match begun.map_err(|_| Refused::NotNow)? {
            Ok(aside) => {
                tracing::warn!(
                    event = event::LOG_REPLACED,
                    entry = index,
                    segments = aside.len(),
                    peer = self.name_of(peer),
                    "the log begins anew behind a peer's snapshot"
                );
                Ok(())
            }
            Err(MendError::HardStateUnproven) => Err(Refused::VoteUnproven),
            Err(MendError::Open(error)) => Err(Refused::Disk(error)),
            Err(_) => Err(Refused::NotNow),
        }
    }

    /// The folder of snapshots, for a node that has not opened it yet.
    fn catalogue(&self) -> Result<Arc<Catalogue>, StartError> {
        let (disk, dir) = (Arc::clone(&self.disk), layout::snapshot_dir(&self.dir));
        let LogOptions { cluster_id, lineage, .. } = self.options;
        let (catalogue, _) = Catalogue::open(disk, &dir, Some(Owner { cluster_id, lineage }))?;
        Ok(Arc::new(catalogue))
    }

    /// A peer's snapshot that ends at `entry` or behind it.
    async fn fetch(
        &self,
        catalogue: &Arc<Catalogue>,
        peer: u64,
        entry: u64,
    ) -> Result<Kept, Refused> {
        let fetched = fetch_snapshot(&self.peers, catalogue, &self.supervisor, peer, entry).await;
        fetched.map_err(|error| {
            tracing::debug!(%error, "a peer's snapshot was not received");
            Refused::NotNow
        })
    }

    /// Fetches a snapshot that ends at `entry` or behind it from any peer, however long it takes:
    /// this node has none left that its log goes on from.
    pub(in crate::replication) async fn fetch_missing_snapshot(
        &self,
        catalogue: &Arc<Catalogue>,
        entry: u64,
        streams: &mut mpsc::Receiver<IncomingStream>,
    ) -> Result<(), StartError> {
        let fetching = async {
            let mut told = false;
            loop {
                for peer in self.peers.connected() {
                    if let Ok(kept) = self.fetch(catalogue, peer.0, entry).await {
                        tracing::warn!(
                            event = event::SNAPSHOT_INSTALLED,
                            entry = kept.id.index,
                            peer = self.name_of(peer.0),
                            "a peer's snapshot takes the place of a damaged one"
                        );
                        return Ok(());
                    }
                }
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(
                        event = event::REPAIR_WAITS,
                        entry,
                        "no peer in sight has a snapshot that the log goes on from"
                    );
                }
                tokio::time::sleep(ROUND_PAUSE).await;
            }
        };
        tokio::select! {
            () = refuse(streams) => Err(StartError::Stopped),
            fetched = fetching => fetched,
        }
    }

    pub(super) fn name_of(&self, peer: u64) -> String {
        let name = self.peers.roster().name(crate::domain::id::NodeId(peer));
        name.map_or_else(|| peer.to_string(), ToString::to_string)
    }
}

/// The node's own disk stands in the way: nothing is known to be damaged by that.
fn own_disk(error: OpenError) -> StartError {
    match error {
        OpenError::Disk(fault) => StartError::Disk(fault),
        other => StartError::Storage(other),
    }
}

/// Ends every stream; returns when the mesh does.
async fn refuse(streams: &mut mpsc::Receiver<IncomingStream>) {
    while let Some(stream) = streams.recv().await {
        drop(stream);
    }
}

fn tell(hole: &Hole, wound: Option<&Wound>) {
    tracing::error!(
        event = event::LOG_HOLE,
        segment = hole.segment,
        path = %hole.path.display(),
        offset = hole.offset,
        index = hole.index,
        damage = %hole.damage,
        needed = wound.map(|wound| format!("{}..{}", wound.needed.start, wound.needed.end)),
        "records that were once durable are damaged; the node takes part again when they are repaired"
    );
}
