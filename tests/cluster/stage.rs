//! A cluster to test on: nodes in folders of a temporary directory, writers, waiting by condition.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate::clock::Clock;
use quorate::domain::command::{Command, OpenSession, TypedValue};
use quorate::domain::id::{Index, SessionId, TopicId};
use quorate::domain::machine::Answered;
use quorate::domain::node_address::NodeAddress;
use quorate::domain::node_name::NodeName;
use quorate::domain::outcome::Outcome;
use quorate::domain::topic::path::TopicPath;
use quorate::domain::topic::specification::{Specification, TopicType};
use quorate::peer::{Authority, Identity};
use quorate::replication::{
    FoundingSettings, PeerSettings, Replication, ReplicationSettings, Retention, SessionProposer,
    StartError, Timing,
};
use quorate::supervisor::Supervisor;
use quorate::transport::certificate::{Pem, make_ca, make_node};
use quorate_storage::disk::{FaultyDisk, RealDisk};
use quorate_storage::index::{IndexPlace, MemoryStore};
use tokio::sync::mpsc;

/// The longest that any condition is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A node that runs.
pub(crate) struct Running {
    pub(crate) node: Replication,
    pub(crate) supervisor: Supervisor,
}

/// A cluster's folders, certificates and ports, and the nodes that run.
pub(crate) struct Stage {
    dir: tempfile::TempDir,
    pub(crate) ca: Pem,
    ports: BTreeMap<String, u16>,
    expect: usize,
    pub(crate) retention: Retention,
    /// Index by sled in each node's folder, as the product does; in memory otherwise.
    pub(crate) index_on_disk: bool,
    /// The one that every node indexes into, where a test wants to break it.
    index_store: Option<MemoryStore>,
    /// Disks of nodes that have one of their own; the real one otherwise.
    pub(crate) disks: BTreeMap<String, FaultyDisk>,
    pub(crate) clock: Clock,
    pub(crate) up: BTreeMap<String, Running>,
}

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

impl Stage {
    /// Folders and ports for these nodes; none runs.
    pub(crate) fn new(expect: usize, names: &[&str]) -> Self {
        // Held together until all are known, so that no two are the same.
        let sockets: Vec<UdpSocket> =
            names.iter().map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let ports = names
            .iter()
            .zip(&sockets)
            .map(|(name, socket)| ((*name).to_owned(), socket.local_addr().unwrap().port()))
            .collect();
        Self {
            dir: tempfile::tempdir().unwrap(),
            ca: make_ca("test").unwrap(),
            ports,
            expect,
            retention: Retention { segment_bytes: 1 << 20, ..Retention::default() },
            index_on_disk: false,
            index_store: None,
            disks: BTreeMap::new(),
            clock: Clock::system(),
            up: BTreeMap::new(),
        }
    }

    fn index_of(&self, dir: &Path) -> IndexPlace {
        if self.index_on_disk {
            IndexPlace::Folder(dir.join("index"))
        } else {
            IndexPlace::Memory(self.index_store.clone().unwrap_or_default())
        }
    }

    /// The index of the only node, in memory, to be broken.
    pub(crate) fn index_in_memory(&mut self) -> MemoryStore {
        self.index_store.get_or_insert_with(MemoryStore::new).clone()
    }

    /// Three nodes that run and are founded.
    pub(crate) async fn three() -> Self {
        let mut stage = Self::new(3, &["n1", "n2", "n3"]);
        stage.start_all().await;
        stage
    }

    pub(crate) fn dir_of(&self, node: &str) -> PathBuf {
        self.dir.path().join(node)
    }

    fn address(&self, node: &str) -> SocketAddr {
        ([127, 0, 0, 1], self.ports.get(node).copied().unwrap_or(0)).into()
    }

    fn settings(&self, node: &str, dir: &Path) -> ReplicationSettings {
        let certificate = make_node(&self.ca, &name(node), &[]).unwrap();
        let seed = |name: &String| NodeAddress::from_socket(self.address(name)).unwrap();
        ReplicationSettings {
            name: name(node),
            dir: dir.to_owned(),
            disk: match self.disks.get(node) {
                Some(disk) => Arc::new(disk.clone()),
                None => Arc::new(RealDisk),
            },
            index: self.index_of(dir),
            expect: self.expect,
            peer: PeerSettings {
                listen: self.address(node),
                advertise: None,
                seeds: self.ports.keys().map(seed).collect(),
                identity: Identity::from_pem(&certificate.certificate, &certificate.key).unwrap(),
                authority: Authority::from_pem(&self.ca.certificate).unwrap(),
            },
            timing: Timing::default(),
            retention: self.retention,
            founding: FoundingSettings {
                admin_password: Some("secret".to_owned()),
                anonymous: true,
            },
            permits: quorate::replication::PERMITS,
        }
    }

    /// Starts a node in a folder, whatever comes of it.
    pub(crate) async fn try_start(&self, node: &str, dir: PathBuf) -> Result<Running, StartError> {
        // The socket of a node that has just stopped is closed by a task of its own.
        let address = self.address(node);
        until("the port is free", || UdpSocket::bind(address).is_ok()).await;
        let supervisor = Supervisor::new(node.to_owned());
        let settings = self.settings(node, &dir);
        let node = Replication::start(settings, &supervisor, self.clock).await?;
        Ok(Running { node, supervisor })
    }

    /// Starts these nodes together and waits until each has started.
    pub(crate) async fn start(&mut self, nodes: &[&str]) {
        let starts = nodes.iter().map(|node| self.try_start(node, self.dir_of(node)));
        let started = tokio::time::timeout(PATIENCE, futures::future::join_all(starts));
        let started = started.await.expect("the nodes find each other");
        for (node, running) in nodes.iter().zip(started) {
            self.up.insert((*node).to_owned(), running.unwrap());
        }
        for node in nodes {
            let started = tokio::time::timeout(PATIENCE, self.up[*node].node.started()).await;
            started.unwrap_or_else(|_| panic!("{node} starts"));
        }
    }

    pub(crate) async fn start_all(&mut self) {
        let nodes: Vec<String> = self.ports.keys().cloned().collect();
        let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
        self.start(&nodes).await;
    }

    /// Stops a node in good order.
    pub(crate) async fn stop(&mut self, node: &str) {
        let running = self.up.remove(node).unwrap();
        running.node.stop(Duration::from_millis(200)).await;
        assert_eq!(running.supervisor.exit(), None, "{node} stopped in good order");
    }

    pub(crate) async fn stop_all(&mut self) {
        while let Some(node) = self.up.keys().next().cloned() {
            self.stop(&node).await;
        }
    }

    pub(crate) fn node(&self, node: &str) -> &Replication {
        &self.up[node].node
    }

    /// The leader's name, once all running nodes agree on it and it runs.
    pub(crate) async fn leader(&self) -> String {
        let mut leader = None;
        until("the nodes agree on a leader", || {
            let named: Vec<_> = self.up.values().map(|running| running.node.leader()).collect();
            leader = named[0].clone();
            named.iter().all(|one| *one == leader)
                && leader.as_ref().is_some_and(|name| self.up.contains_key(name.as_str()))
        })
        .await;
        leader.unwrap().as_str().to_owned()
    }

    /// A running node that does not lead.
    pub(crate) async fn follower(&self) -> String {
        let leader = self.leader().await;
        self.up.keys().find(|name| **name != leader).unwrap().clone()
    }

    /// Waits until all running nodes have applied the same entry and hold the same state there.
    pub(crate) async fn settle(&self) -> u64 {
        let mut entry = 0;
        until("the nodes hold one state", || {
            let states: Vec<(u64, u64)> = self
                .up
                .values()
                .map(|running| running.node.view())
                .map(|machine| (machine.applied(), machine.hash()))
                .collect();
            entry = states[0].0;
            let applied_alike = states.iter().all(|(applied, _)| *applied == entry);
            if applied_alike {
                assert!(states.iter().all(|state| *state == states[0]), "hashes: {states:?}");
            }
            applied_alike
        })
        .await;
        entry
    }
}

/// Waits for a condition, up to [`PATIENCE`].
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

pub(crate) fn path(text: &str) -> TopicPath {
    TopicPath::parse(text).unwrap()
}

/// A session on one node that writes numbered commands.
pub(crate) struct Writer {
    proposer: SessionProposer,
    answers: mpsc::Receiver<Vec<Answered>>,
    next: u64,
    pub(crate) answered: Vec<Answered>,
}

impl Writer {
    /// Opens a session of this id.
    pub(crate) async fn open(node: &Replication, id: u64) -> Self {
        Self::open_for(node, id, 60_000).await
    }

    /// Opens a session that outlives its host by so many milliseconds of log time.
    pub(crate) async fn open_for(node: &Replication, id: u64, reconnect_timeout_ms: u64) -> Self {
        let session = SessionId(id);
        let open = Command::OpenSession(OpenSession {
            session,
            secret_hash: [1; 32],
            principal: String::new(),
            roles: Vec::new(),
            properties: BTreeMap::new(),
            reconnect_timeout_ms,
            host: node.member().id,
            incarnation: node.member().incarnation,
        });
        let (outcome, _) = node.propose(&open, PATIENCE).await.unwrap();
        let Outcome::Session { epoch, .. } = outcome else { panic!("{outcome:?}") };
        Self::attach(node, session, epoch, 1)
    }

    /// Goes on with a session at `next`.
    pub(crate) fn attach(node: &Replication, session: SessionId, epoch: u32, next: u64) -> Self {
        let role_version = node.view().session(session).unwrap().role_version();
        let (proposer, answers) = node.attach(session, epoch, role_version);
        Self { proposer, answers, next, answered: Vec::new() }
    }

    /// Sends one command; its number.
    pub(crate) async fn send(&mut self, command: &Command) -> u64 {
        let request = self.next;
        let answered_below = self.answered.last().map_or(1, |last| last.origin.request + 1);
        let bytes = command.encode();
        let sending = async {
            while self.proposer.submit(request, answered_below, bytes.clone()).is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, sending).await.expect("the command is taken");
        self.next += 1;
        request
    }

    /// Commands without an answer.
    pub(crate) fn in_flight(&self) -> usize {
        (self.next - 1) as usize - self.answered.len()
    }

    /// Takes one batch of answers, which must be the next ones in order.
    pub(crate) async fn hear(&mut self) {
        let batch = tokio::time::timeout(PATIENCE, self.answers.recv()).await;
        for answered in batch.expect("an answer comes").expect("the session is attached") {
            let expected = self.answered.last().map_or(1, |last| last.origin.request + 1);
            assert_eq!(answered.origin.request, expected, "answers come in order, each once");
            if let Some(last) = self.answered.last() {
                assert!(answered.index > last.index, "{answered:?} after {last:?}");
            }
            self.answered.push(answered);
        }
    }

    /// Sends one command and waits for its answer.
    pub(crate) async fn ask(&mut self, command: &Command) -> (Outcome, Index) {
        let request = self.send(command).await;
        while self.answered.last().is_none_or(|last| last.origin.request < request) {
            self.hear().await;
        }
        let last = self.answered.last().unwrap();
        (last.outcome.clone(), last.index)
    }

    /// Adds a topic of int64 values.
    pub(crate) async fn add_topic(&mut self, text: &str) -> TopicId {
        let specification = Specification::plain(TopicType::Int64);
        let (outcome, _) = self.ask(&Command::AddTopic { path: path(text), specification }).await;
        match outcome {
            Outcome::Topic { id, .. } => id,
            other => panic!("{other:?}"),
        }
    }
}

/// Sets a topic to a number.
pub(crate) fn update(topic: TopicId, number: u64) -> Command {
    let bytes = Some(Bytes::copy_from_slice(&number.to_be_bytes()));
    Command::Update {
        topic,
        stream: None,
        value: TypedValue { value_type: TopicType::Int64, bytes },
    }
}

/// The number that a topic holds on a node.
pub(crate) fn number(node: &Replication, text: &str) -> Option<u64> {
    let machine = node.view();
    let value = machine.topic_at(&path(text))?.value()?.clone();
    Some(u64::from_be_bytes(value[..].try_into().ok()?))
}
