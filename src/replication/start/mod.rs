//! Puts replication together: directory, log, mesh, founding, consensus, and the tasks around it.
//!
//! | task or thread | group | owns | ends when |
//! |---|---|---|---|
//! | `log writer` (thread) | storage | the log's writer: group commit | the log is closed |
//! | `log preparer` (thread) | storage | the file of the log's next segment, the footer of the last | the log is closed |
//! | `index` (thread) | storage | the index of the log | its group stops |
//! | mesh tasks | mesh | connections to peers | the mesh is stopped |
//! | `lanes`, one `lane` per stream | consensus | what other members ask | its group stops, or the stream ends |
//! | `proposer` | consensus | the way of commands into entries | its group stops |
//! | `quorum watch` | consensus | whether a quorum is in sight | its group stops |
//! | `lifecycle` | consensus | the node's state, admission of peers, the vote gate | its group stops |
//! | `caretaker` | consensus | founding, node starts and losses, expiry | its group stops |
//! | `snapshotter` | consensus | snapshots and purge | its group stops |
//! | `comparison` | consensus | state hashes against the peers', healing of a wrong state | its group stops |
//! | the engine's own tasks | – | elections, replication, apply | the engine is shut down |
//!
//! Stop order: leadership moves away, the door for commands closes, the consensus group stops, the
//! engine shuts down, the log is closed and flushed, the mesh says farewell.

pub(in crate::replication) mod disk_side;
mod measured_disk;
mod space;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use disk_side::{Store, repair_of};
use openraft::errors::{InitializeError, RaftError};
use openraft::{Config, SnapshotPolicy};
use quorate_storage::OpenError;
use quorate_storage::index::IndexPlace;
use quorate_storage::snapshot::Owner;
use space::{open_directory, open_store};
use tokio::sync::{mpsc, watch};

use crate::clock::{Clock, milliseconds};
use crate::peer::{IncomingStream, Mesh, MeshSettings, ResetKey};
use crate::protocol::peer_message::Hello;
use crate::replication::consensus::applied::Applied;
use crate::replication::consensus::log_store::LogStore;
use crate::replication::consensus::network::Network;
use crate::replication::consensus::state_store::{Raft, StateStore};
use crate::replication::consensus::vote_gate::VoteGate;
use crate::replication::core::Core;
use crate::replication::error::StartError;
use crate::replication::founding::bootstrap::{Introduction, found, introduce, membership};
use crate::replication::founding::directory::{Directory, random_number};
use crate::replication::founding::rules::{Proposal, Standing};
use crate::replication::handle::{Member, Replication};
use crate::replication::history::indexing::{self, IndexSources};
use crate::replication::history::reader::History;
use crate::replication::journal::Journal;
use crate::replication::members::ask::Answerer;
use crate::replication::members::divergence::Comparison;
use crate::replication::members::healing::Healer;
use crate::replication::members::lanes::Lanes;
use crate::replication::members::mender::Mender;
use crate::replication::members::peers::{Peers, Roster};
use crate::replication::proposing::log_time::LogTime;
use crate::replication::proposing::pending::Pending;
use crate::replication::proposing::proposer::{Forwarded, Proposer};
use crate::replication::settings::{ReplicationSettings, Retention, Timing};
use crate::replication::status::NodeState;
use crate::replication::upkeep::caretaker::{Caretaker, Progress};
use crate::replication::upkeep::lifecycle::Lifecycle;
use crate::replication::upkeep::quorum_watch::{LeaderContact, QuorumView, QuorumWatch};
use crate::replication::upkeep::snapshotter::Snapshotter;
use crate::supervisor::Supervisor;

/// How long tasks have to end when the start fails.
const GIVE_UP_PATIENCE: Duration = Duration::from_secs(1);
/// Entries in one append request; bytes bound it before this does.
const REQUEST_ENTRIES: u64 = 1_024;
/// Behind this many entries a blocking `add_learner` still waits; purge alone decides between log
/// and snapshot.
const LAG_ENTRIES: u64 = 100;
/// What the installation of a snapshot may take.
const INSTALL_PATIENCE: Duration = Duration::from_secs(600);

/// The groups of tasks, in the order in which they stop.
#[derive(Debug, Clone)]
pub(in crate::replication) struct Groups {
    pub(in crate::replication) consensus: Supervisor,
    pub(in crate::replication) storage: Supervisor,
    pub(in crate::replication) mesh: Supervisor,
}

impl Replication {
    /// Starts this node's part of the cluster, founding the cluster first if it is to be. Waits for
    /// the other founders as long as it takes; dropping the future gives up.
    ///
    /// # Errors
    /// [`StartError`] with the exit code that goes with it.
    pub async fn start(
        settings: ReplicationSettings,
        supervisor: &Supervisor,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let groups = Groups {
            consensus: supervisor.group("consensus"),
            storage: supervisor.group("storage"),
            mesh: supervisor.group("mesh"),
        };
        let ReplicationSettings { name, dir, disk, expect, peer, timing, .. } = settings;
        let ReplicationSettings { retention, founding, permits, index, .. } = settings;
        let state = watch::Sender::new(NodeState::Starting);
        let mut directory = open_directory(&disk, dir).await?;
        // A member opens its log before it says hello: the hello tells whether its end is sound.
        let mut wounded = false;
        let mut store = match directory.standing() {
            Standing::Formed { proposal, .. } if proposal.founder(&name).is_none() => {
                return Err(StartError::NotAFounder { name, cluster: proposal.cluster });
            }
            Standing::Formed { proposal, .. } => {
                match open_store(&directory, &retention, &groups).await {
                    Err(StartError::Storage(OpenError::Hole(hole))) => {
                        if proposal.founders.len() == 1 {
                            return Err(StartError::Hole { hole, dir: directory.dir.clone() });
                        }
                        wounded = true;
                        None
                    }
                    opened => Some(opened?),
                }
            }
            _ => None,
        };
        let mut hello = Hello::new(name.clone(), directory.nonce(), directory.incarnation());
        let cut = store.as_ref().is_some_and(|store| store.cut);
        introduce(&mut hello, &Introduction { cut, standing: directory.standing().clone() });
        let mesh_settings = MeshSettings {
            listen: peer.listen,
            advertise: peer.advertise,
            seeds: peer.seeds,
            identity: peer.identity,
            authority: peer.authority,
            reset_key: ResetKey::from_bytes(directory.reset_keys().0),
        };
        let (mesh, mut streams) = Mesh::start(mesh_settings, hello, &groups.mesh)?;
        let started = async {
            if wounded {
                state.send_replace(NodeState::Replaying);
                let repair = repair_of(&directory, &retention, &groups, &mesh, clock)?;
                Box::pin(repair.run(&mut streams)).await?;
                let opened = open_store(&directory, &retention, &groups).await?;
                let standing = directory.standing().clone();
                let introduction = Introduction { cut: opened.cut, standing };
                mesh.change_hello(|hello| introduce(hello, &introduction));
                store = Some(opened);
            }
            if store.is_none() {
                state.send_replace(NodeState::Joining);
                found(&mut directory, &mesh, expect, clock).await?;
                store = Some(open_store(&directory, &retention, &groups).await?);
            }
            let Standing::Formed { proposal, .. } = directory.standing().clone() else {
                return Err(StartError::Stopped);
            };
            let (Some((cluster, id)), Some(store)) =
                (membership(directory.standing(), &name), store)
            else {
                return Err(StartError::NotAFounder { name, cluster: proposal.cluster });
            };
            let lineage = proposal.lineage;
            let incarnation = directory.incarnation();
            let assembly = Assembly {
                member: Member { name, id, cluster, lineage, incarnation },
                proposal,
                directory,
                store,
                mesh: mesh.clone(),
                groups: groups.clone(),
                timing,
                retention,
                index,
                permits,
                state,
                clock,
            };
            Box::pin(assembly.run(founding, streams)).await
        };
        let started = started.await;
        if started.is_err() {
            groups.consensus.stop(GIVE_UP_PATIENCE).await;
            groups.storage.stop(GIVE_UP_PATIENCE).await;
            mesh.stop().await;
            groups.mesh.stop(GIVE_UP_PATIENCE).await;
        }
        started
    }
}

/// Everything that is there before consensus runs.
struct Assembly {
    member: Member,
    proposal: Proposal,
    directory: Directory,
    store: Store,
    mesh: Mesh,
    groups: Groups,
    timing: Timing,
    retention: Retention,
    index: IndexPlace,
    permits: usize,
    state: watch::Sender<NodeState>,
    clock: Clock,
}

impl Assembly {
    async fn run(
        mut self,
        founding: super::settings::FoundingSettings,
        mut streams: mpsc::Receiver<IncomingStream>,
    ) -> Result<Replication, StartError> {
        let (member, clock) = (self.member.clone(), self.clock);
        self.state.send_replace(NodeState::Replaying);
        let pending = Pending::new(random_number()?, self.permits);
        let journal = Journal::new(0, self.retention.journal_bytes);
        let owner = Owner { cluster_id: member.cluster.0, lineage: member.lineage.0 };
        let mut store = StateStore {
            applied: Applied::default(),
            journal: journal.clone(),
            pending: Arc::clone(&pending),
            catalogue: Arc::clone(&self.store.catalogue),
            log: self.store.log.clone(),
            owner,
            supervisor: self.groups.consensus.clone(),
            index: None,
        };
        self.restore(&store, &mut streams).await?;
        let sources = IndexSources {
            place: self.index.clone(),
            log: self.store.log.clone(),
            catalogue: Arc::clone(&self.store.catalogue),
            journal: journal.clone(),
            owner,
        };
        let index = indexing::start(sources, &self.groups.storage)?;
        store.index = Some(index.clone());
        self.state.send_replace(NodeState::Joining);
        let roster = Roster::new(&self.proposal, member.id);
        let peers = Peers::new(self.mesh.clone(), roster, clock);
        let gate = VoteGate::new(self.store.cut);
        let repair =
            repair_of(&self.directory, &self.retention, &self.groups, &self.mesh, self.clock)?;
        let mender = Mender::new(repair, self.store.log.clone());
        let raft = self.engine(&store, &peers, &gate, mender.clone()).await?;
        let quorum = QuorumView::new(clock);
        let contact = LeaderContact::new(clock);
        let forwarded = Forwarded::new();
        let log_time = LogTime::new(quorum.clone(), clock);
        let answerer = Answerer {
            raft: raft.clone(),
            applied: store.applied.clone(),
            state: self.state.subscribe(),
            own: member.id,
            log: self.store.log.clone(),
            supervisor: self.groups.consensus.clone(),
        };
        let progress = watch::Sender::new(Progress::Waiting);
        let core = Arc::new(Core {
            member: member.clone(),
            raft: raft.clone(),
            applied: store.applied.clone(),
            journal: journal.clone(),
            history: History::new(
                journal.clone(),
                self.store.log.clone(),
                Arc::clone(&self.store.catalogue),
                self.groups.consensus.clone(),
                clock,
                mender,
            ),
            pending: Arc::clone(&pending),
            peers: peers.clone(),
            quorum: quorum.clone(),
            log_time: log_time.clone(),
            state: self.state.clone(),
            answerer: answerer.clone(),
            progress: progress.subscribe(),
            log: self.store.log.clone(),
            index: index.clone(),
            groups: self.groups.clone(),
            client_reset_key: self.directory.reset_keys().1,
        });
        let group = self.groups.consensus.clone();
        let lanes = Arc::new(Lanes {
            raft: raft.clone(),
            store: store.clone(),
            forwarded: Arc::clone(&forwarded),
            peers: peers.clone(),
            contact: contact.clone(),
            gate: gate.clone(),
            answerer,
            supervisor: group.clone(),
        });
        group.spawn("lanes", lanes.run(streams, group.stop_signal()));
        self.begin(&raft).await?;
        let watch = QuorumWatch {
            raft: raft.clone(),
            contact,
            view: quorum.clone(),
            clock,
            lease: self.timing.election_max,
            patience: self.timing.quorum_timeout,
            gate: self.timing.quorum,
        };
        group.spawn("quorum watch", watch.run(group.stop_signal()));
        let proposer = Proposer {
            pending,
            forwarded,
            raft: raft.clone(),
            applied: store.applied.clone(),
            journal: journal.clone(),
            peers: peers.clone(),
            quorum,
            log_time,
            clock,
        };
        group.spawn("proposer", proposer.run(group.stop_signal()));
        let snapshotter = Snapshotter {
            history: core.history.clone(),
            index,
            raft,
            disk: Arc::clone(&self.directory.disk),
            dir: self.directory.dir.clone(),
            log: self.store.log.clone(),
            catalogue: Arc::clone(&self.store.catalogue),
            retention: self.retention,
            clock,
            supervisor: group.clone(),
        };
        group.spawn("snapshotter", snapshotter.run(group.stop_signal()));
        let healer = Healer {
            applied: store.applied.clone(),
            journal: journal.clone(),
            log: self.store.log.clone(),
            catalogue: Arc::clone(&self.store.catalogue),
            peers: peers.clone(),
            history: core.history.clone(),
            index: core.index.clone(),
            supervisor: group.clone(),
        };
        let comparison = Comparison {
            applied: store.applied.clone(),
            journal,
            peers: peers.clone(),
            healer,
            diverged: watch::Sender::new(false),
        };
        let lifecycle = Lifecycle {
            core: Arc::clone(&core),
            gate,
            standing: self.directory.standing().clone(),
            supervisor: group.clone(),
            clock,
        };
        group.spawn("lifecycle", lifecycle.run(comparison, group.stop_signal()));
        let caretaker = Caretaker {
            core: Arc::clone(&core),
            proposal: self.proposal,
            settings: founding,
            node_lost_timeout: self.timing.node_lost_timeout,
            progress,
            clock,
            supervisor: group.clone(),
        };
        group.spawn("caretaker", caretaker.run(group.stop_signal()));
        Ok(Replication { core })
    }

    /// Loads the newest snapshot; the log after it is applied once its commitment is known. A member
    /// that has no whole snapshot left which its log goes on from gets one from a peer.
    async fn restore(
        &self,
        store: &StateStore,
        streams: &mut mpsc::Receiver<IncomingStream>,
    ) -> Result<(), StartError> {
        let dir = self.directory.dir.clone();
        let state_fault = |source| StartError::State { dir: dir.clone(), source };
        loop {
            let loading = store.clone();
            let loaded = self
                .groups
                .consensus
                .blocking("snapshot load", move || loading.load_newest())
                .await
                .map_err(|_| StartError::Stopped)?
                .map_err(state_fault)?;
            let first = self.store.log.first_index();
            let next = loaded.map_or(0, |index| index + 1);
            if first <= next {
                return Ok(());
            }
            if self.proposal.founders.len() == 1 {
                let what = format!(
                    "the log begins at entry {first} and the newest snapshot ends at {}",
                    loaded.map_or_else(|| "none".to_owned(), |index| index.to_string()),
                );
                return Err(state_fault(std::io::Error::other(what)));
            }
            let repair =
                repair_of(&self.directory, &self.retention, &self.groups, &self.mesh, self.clock)?;
            let catalogue = &self.store.catalogue;
            Box::pin(repair.fetch_missing_snapshot(catalogue, first - 1, streams)).await?;
        }
    }

    async fn engine(
        &self,
        store: &StateStore,
        peers: &Peers,
        gate: &VoteGate,
        mender: Mender,
    ) -> Result<Raft, StartError> {
        let refused =
            |reason: &dyn std::fmt::Display| StartError::Consensus { reason: reason.to_string() };
        let election_max = milliseconds(self.timing.election_max);
        let config = Config {
            cluster_name: self.member.cluster.to_string(),
            heartbeat_interval: milliseconds(self.timing.heartbeat),
            election_timeout_min: milliseconds(self.timing.election_min),
            election_timeout_max: election_max,
            install_snapshot_timeout: milliseconds(INSTALL_PATIENCE),
            max_payload_entries: REQUEST_ENTRIES,
            replication_lag_threshold: LAG_ENTRIES,
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            enable_pre_vote: Some(true),
            enable_elect: !gate.is_closed(),
            // The state is rebuilt from the log; a restarted leader must be elected again.
            enable_leader_restore: Some(false),
            quorum_loss_probe_interval: Some(election_max * 2),
            ..Config::default()
        };
        let config = config.validate().map_err(|error| refused(&error))?;
        let log_store = LogStore::new(
            self.store.log.clone(),
            Arc::clone(&self.store.catalogue),
            self.groups.consensus.clone(),
        )
        .with_mender(mender);
        let network = Network {
            peers: peers.clone(),
            catalogue: Arc::clone(&self.store.catalogue),
            clock: self.clock,
            supervisor: self.groups.consensus.clone(),
        };
        let id = self.member.id.0;
        let raft = Raft::new(id, Arc::new(config), network, log_store, store.clone()).await;
        raft.map_err(|error| refused(&error))
    }

    /// Gives an empty log of a founder its first entry. All founders write the same one, so it does
    /// not matter which of them are there.
    async fn begin(&mut self, raft: &Raft) -> Result<(), StartError> {
        let Standing::Formed { proposal, begun: false } = self.directory.standing().clone() else {
            return Ok(());
        };
        if self.store.is_empty {
            let voters: BTreeMap<u64, ()> =
                proposal.founders.iter().map(|founder| (founder.id.0, ())).collect();
            match raft.initialize(voters).await {
                Ok(()) => {}
                // Another founder was faster and this node follows it already.
                Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(error) => {
                    return Err(StartError::Consensus { reason: error.to_string() });
                }
            }
        }
        let durable = Standing::Formed { proposal, begun: true };
        self.directory.stand(durable, &self.member.name)
    }
}
