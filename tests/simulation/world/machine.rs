//! One machine of the cluster: its disk, and the node that runs on it when its power is on.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use quorate::clock::Clock;
use quorate::domain::node_address::NodeAddress;
use quorate::domain::node_name::NodeName;
use quorate::gateway::Gateway;
use quorate::host::Host;
use quorate::peer::{Authority, Identity};
use quorate::protocol::handshake;
use quorate::replication::{
    FoundingSettings, PeerSettings, Replication, ReplicationSettings, Retention, Timing,
};
use quorate::supervisor::{Exit, Supervisor};
use quorate::transport::certificate::{Pem, make_ca, make_node};
use quorate::transport::tls::ServerTls;
use quorate::transport::{Endpoint, EndpointLimits, ResetKey};
use quorate_storage::disk::SimulatedDisk;
use quorate_storage::index::{IndexPlace, MemoryStore};
use tokio::sync::watch;

use crate::history::{Happening, Node, Recorder};

/// Where every node listens for clients and for peers.
pub(crate) const CLIENT_PORT: u16 = 7_400;
const PEER_PORT: u16 = 7_401;
/// Nodes of the largest cluster.
pub(crate) const NODES_MAX: u8 = 5;
/// How often the addresses of clients are looked at, as the product does it.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A machine of the cluster, on or off.
pub(crate) struct Machine {
    pub(crate) node: Node,
    pub(crate) disk: SimulatedDisk,
    index: MemoryStore,
    /// Counts the starts.
    pub(crate) life: u32,
    /// A flush of its disk was made to fail: it may give up.
    pub(crate) is_hurt: bool,
    power: Option<Powered>,
}

/// What is there while the power is on.
struct Powered {
    host: Host,
    running: Arc<Mutex<Option<Running>>>,
    /// Why the node gave up, if it did.
    ended: Arc<Mutex<Option<Exit>>>,
}

/// A node that serves.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) replication: Replication,
    pub(crate) gateway: Arc<Gateway>,
}

/// Everything that all machines of a cluster are told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) nodes: u8,
    pub(crate) clock: Clock,
    /// What a flush takes, at least and at most.
    pub(crate) flush: (Duration, Duration),
}

/// Where a node is.
pub(crate) fn address_of(node: Node) -> IpAddr {
    [10, 0, 0, node.0].into()
}

/// Where a node's clients go.
pub(crate) fn door_of(node: Node) -> String {
    SocketAddr::new(address_of(node), CLIENT_PORT).to_string()
}

/// The certificate authority of all simulated clusters of this process, and the nodes' certificates.
struct Papers {
    ca: Pem,
    nodes: Vec<Pem>,
}

fn papers() -> &'static Papers {
    static PAPERS: OnceLock<Papers> = OnceLock::new();
    PAPERS.get_or_init(|| {
        let ca = make_ca("simulation").unwrap();
        let nodes = (1..=NODES_MAX).map(|k| make_node(&ca, &name_of(Node(k)), &[]).unwrap());
        Papers { nodes: nodes.collect(), ca }
    })
}

/// Whom clients believe.
pub(crate) fn authority() -> Authority {
    Authority::from_pem(&papers().ca.certificate).unwrap()
}

fn name_of(node: Node) -> NodeName {
    NodeName::parse(&node.to_string()).unwrap()
}

impl Machine {
    pub(crate) fn new(node: Node) -> Self {
        let (disk, index) = (SimulatedDisk::new(), MemoryStore::new());
        Self { node, disk, index, life: 0, is_hurt: false, power: None }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.power.is_some()
    }

    /// The node, if it serves.
    pub(crate) fn running(&self) -> Option<Running> {
        let power = self.power.as_ref()?;
        power.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn host(&self) -> Option<&Host> {
        self.power.as_ref().map(|power| &power.host)
    }

    /// Why the node gave up, if it did.
    pub(crate) fn ended(&self) -> Option<Exit> {
        let power = self.power.as_ref()?;
        power.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Turns the power on: the node starts.
    pub(crate) fn start(&mut self, plan: Plan, recorder: &Recorder) {
        assert!(!self.is_on(), "{} is on", self.node);
        self.is_hurt = false;
        self.life += 1;
        let host = Host::new(self.node.to_string(), address_of(self.node));
        host.set_step_time(plan.flush.0, plan.flush.1);
        let power = Powered { host, running: Arc::default(), ended: Arc::default() };
        recorder.happened(Happening::Started { node: self.node, life: self.life });
        let settings = self.settings(plan);
        let (running, ended) = (Arc::clone(&power.running), Arc::clone(&power.ended));
        power.host.enter(|| {
            let supervisor = Supervisor::new(self.node.to_string());
            let inner = supervisor.clone();
            supervisor.spawn("node", async move {
                let serving = serve(settings, &inner, plan.clock);
                let exit = tokio::select! {
                    started = serving => match started {
                        Ok(node) => {
                            *running.lock().unwrap_or_else(PoisonError::into_inner) = Some(node);
                            inner.exit_requested().await
                        }
                        Err(exit) => exit,
                    },
                    exit = inner.exit_requested() => exit,
                };
                *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(exit);
            });
        });
        self.power = Some(power);
    }

    /// Takes the power away. `seed` decides what of the unflushed bytes is on the disk.
    pub(crate) fn crash(&mut self, seed: u64) {
        if let Some(power) = self.power.take() {
            power.host.lose_power();
        }
        self.disk.crash(seed);
        self.index.crash();
    }

    /// Ends the process; the disk keeps everything, flushed or not.
    pub(crate) fn kill(&mut self) {
        if let Some(power) = self.power.take() {
            power.host.lose_power();
        }
        self.disk.kill_process();
    }

    /// Stops the node in good order.
    pub(crate) async fn stop(&mut self, patience: Duration) {
        let Some(power) = self.power.take() else { return };
        // Who is to stop must be able to.
        power.host.resume();
        let running = power.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(node) = running {
            let stopping = power.host.attach(async move {
                node.gateway.stop(patience).await;
                node.replication.stop(patience).await;
            });
            stopping.await;
        }
        power.host.lose_power();
        self.disk.kill_process();
    }

    fn settings(&self, plan: Plan) -> ReplicationSettings {
        let papers = papers();
        let own = &papers.nodes[usize::from(self.node.0) - 1];
        let seed =
            |k| NodeAddress::from_socket(SocketAddr::new(address_of(Node(k)), PEER_PORT)).unwrap();
        ReplicationSettings {
            name: name_of(self.node),
            dir: "node".into(),
            disk: Arc::new(self.disk.clone()),
            index: IndexPlace::Memory(self.index.clone()),
            expect: usize::from(plan.nodes),
            peer: PeerSettings {
                listen: SocketAddr::new(address_of(self.node), PEER_PORT),
                advertise: None,
                seeds: (1..=plan.nodes).map(seed).collect(),
                identity: Identity::from_pem(&own.certificate, &own.key).unwrap(),
                authority: authority(),
            },
            timing: Timing::default(),
            // Small, so that a minute sees segments sealed, snapshots taken and logs purged.
            retention: Retention {
                segment_bytes: 64 << 10,
                snapshot_every_bytes: 256 << 10,
                retain_bytes: 512 << 10,
                retain_age: Duration::from_secs(20),
                journal_bytes: 32 << 10,
            },
            founding: FoundingSettings {
                // Argon2 is slow on purpose, and nobody here shows a password.
                admin_password: Some("simulated".to_owned()),
                anonymous: true,
            },
            permits: quorate::replication::PERMITS,
        }
    }
}

/// Builds a node as the product does, without its console and its directory's lock.
async fn serve(
    settings: ReplicationSettings,
    supervisor: &Supervisor,
    clock: Clock,
) -> Result<Running, Exit> {
    let failed = |code, reason: &dyn std::fmt::Display| Exit { code, reason: reason.to_string() };
    let identity = settings.peer.identity.clone();
    let listen = SocketAddr::new(settings.peer.listen.ip(), CLIENT_PORT);
    let replication = Replication::start(settings, supervisor, clock)
        .await
        .map_err(|error| failed(error.exit_code(), &error))?;
    replication.started().await;
    let tls = ServerTls::for_clients(&identity, None).unwrap();
    let reset_key = ResetKey::from_bytes(replication.client_reset_key());
    let limits = EndpointLimits::default();
    let endpoint = Endpoint::listen(listen, &tls, &reset_key, limits).unwrap();
    replication.show_addresses(NodeAddress::from_socket(endpoint.local_address()), None);
    let addresses = addresses(supervisor, &replication);
    let gateway = Gateway::start(endpoint, replication.clone(), supervisor, clock, addresses);
    Ok(Running { replication, gateway: Arc::new(gateway.unwrap()) })
}

/// Keeps telling the gateway where clients may go.
fn addresses(
    supervisor: &Supervisor,
    replication: &Replication,
) -> watch::Receiver<Vec<handshake::NodeAddress>> {
    let replication = replication.clone();
    let current = move || -> Vec<handshake::NodeAddress> {
        let one = |(name, address): (NodeName, NodeAddress)| handshake::NodeAddress {
            name: name.as_str().to_owned(),
            address: address.as_str().to_owned(),
        };
        replication.client_addresses().into_iter().map(one).collect()
    };
    let (sender, receiver) = watch::channel(current());
    supervisor.spawn("addresses", async move {
        while !sender.is_closed() {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = current();
            sender.send_if_modified(|before| {
                let changed = *before != now;
                *before = now;
                changed
            });
        }
    });
    receiver
}
