//! A node in this process: replication of one on a temporary directory, and a gateway in front.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quorate::client::{Client, ClientConfig, ConnectFailed};
use quorate::clock::Clock;
use quorate::domain::node_name::NodeName;
use quorate::domain::topic::path::TopicPath;
use quorate::gateway::{Gateway, GatewayLimits};
use quorate::protocol::handshake::{Credentials, Hello};
use quorate::protocol::{ErrorCode, VERSION};
use quorate::replication::{
    FoundingSettings, NodeState, PERMITS, PeerSettings, Replication, ReplicationSettings,
    Retention, Timing,
};
use quorate::supervisor::Supervisor;
use quorate::telemetry::recorder::Recorder;
use quorate::transport::certificate::{make_ca, make_node};
use quorate::transport::profile::Edge;
use quorate::transport::tls::{ANY_NODE, Authority, ClientTls, Identity, ServerTls};
use quorate::transport::{ConnectError, Connection, Endpoint, EndpointLimits, ResetKey};
use quorate_storage::disk::RealDisk;
use tokio::sync::watch;

/// The longest that any condition is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running node; its tasks end with the test's runtime.
pub(crate) struct Node {
    pub(crate) replication: Replication,
    pub(crate) gateway: Gateway,
    authority: Authority,
    _supervisor: Supervisor,
    _nodes: watch::Sender<Vec<quorate::protocol::handshake::NodeAddress>>,
    _dir: tempfile::TempDir,
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}

pub(crate) fn path(text: &str) -> TopicPath {
    TopicPath::parse(text).unwrap()
}

/// A counter as `/metrics` shows it. All tests of this process count together, so that it may only
/// be expected to rise.
pub(crate) struct Counter {
    name: &'static str,
    /// A label as it is shown, or nothing.
    label: String,
    before: f64,
}

impl Counter {
    pub(crate) fn of(name: &'static str, label: impl Into<String>) -> Self {
        let mut counter = Self { name, label: label.into(), before: 0.0 };
        counter.before = counter.now();
        counter
    }

    /// Of requests, sessions or connections that were refused or ended under a wire error.
    pub(crate) fn of_code(name: &'static str, code: ErrorCode) -> Self {
        Self::of(name, format!("code=\"{}\"", code.number()))
    }

    /// Waits until it has risen since it was made, by at least this.
    pub(crate) async fn rises_by(&self, least: f64) {
        let risen = async {
            while self.now() < self.before + least {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, risen).await.is_ok();
        assert!(in_time, "{} {} is {}, was {}", self.name, self.label, self.now(), self.before);
    }

    fn now(&self) -> f64 {
        let text = recorder().render();
        let lines = text.lines().filter(|line| {
            let rest = line.strip_prefix(self.name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(&self.label)
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

fn recorder() -> &'static Recorder {
    static RECORDER: OnceLock<Recorder> = OnceLock::new();
    RECORDER.get_or_init(|| Recorder::install().unwrap())
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

impl Node {
    /// A founded node that serves.
    pub(crate) async fn start() -> Self {
        Self::start_with(GatewayLimits::default()).await
    }

    /// The same for no more clients than this.
    pub(crate) async fn start_with(limits: GatewayLimits) -> Self {
        Self::build(limits, PERMITS).await
    }

    /// One that takes no more commands at once than this.
    pub(crate) async fn start_within(permits: usize) -> Self {
        Self::build(GatewayLimits::default(), permits).await
    }

    async fn build(limits: GatewayLimits, permits: usize) -> Self {
        recorder();
        let dir = tempfile::tempdir().unwrap();
        let ca = make_ca("test").unwrap();
        let name = NodeName::parse("n1").unwrap();
        let certificate = make_node(&ca, &name, &[]).unwrap();
        let identity = || Identity::from_pem(&certificate.certificate, &certificate.key).unwrap();
        let authority = Authority::from_pem(&ca.certificate).unwrap();
        let supervisor = Supervisor::new("node");
        let settings = ReplicationSettings {
            name: name.clone(),
            dir: dir.path().to_owned(),
            index: quorate_storage::index::IndexPlace::Memory(
                quorate_storage::index::MemoryStore::new(),
            ),
            disk: Arc::new(RealDisk),
            expect: 1,
            peer: PeerSettings {
                listen: loopback(),
                advertise: None,
                seeds: Vec::new(),
                identity: identity(),
                authority: authority.clone(),
            },
            timing: Timing::default(),
            retention: Retention { segment_bytes: 4 << 20, ..Retention::default() },
            founding: FoundingSettings {
                admin_password: Some("secret".to_owned()),
                anonymous: false,
            },
            permits,
        };
        let start = Replication::start(settings, &supervisor, Clock::system());
        let replication = soon(start).await.unwrap();
        soon(replication.started()).await;
        let mut state = replication.state();
        soon(state.wait_for(|state| *state == NodeState::Ready)).await.unwrap();
        let tls = ServerTls::for_clients(&identity(), Some(&authority)).unwrap();
        let key = ResetKey::from_bytes([1; 32]);
        let endpoint = Endpoint::listen(loopback(), &tls, &key, EndpointLimits::default()).unwrap();
        let (nodes, known) = watch::channel(Vec::new());
        let (shared, clock) = (replication.clone(), Clock::system());
        let gateway = Gateway::start_with(endpoint, shared, &supervisor, clock, known, limits);
        let gateway = gateway.unwrap();
        Self { replication, gateway, authority, _supervisor: supervisor, _nodes: nodes, _dir: dir }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.gateway.local_address()
    }

    /// A client of the administrator.
    pub(crate) async fn client(&self) -> Client {
        self.client_with(|config| config).await
    }

    pub(crate) async fn client_with(
        &self,
        change: impl FnOnce(ClientConfig) -> ClientConfig,
    ) -> Client {
        self.try_client(change).await.unwrap()
    }

    pub(crate) async fn try_client(
        &self,
        change: impl FnOnce(ClientConfig) -> ClientConfig,
    ) -> Result<Client, ConnectFailed> {
        let config = ClientConfig::new([self.address().to_string()], self.authority.clone())
            .password("admin", "secret");
        soon(Client::connect(change(config))).await
    }

    /// A connection without any protocol on it.
    pub(crate) async fn connect(&self) -> Connection {
        self.connect_from(&Self::endpoint()).await.unwrap()
    }

    /// A socket to dial from.
    pub(crate) fn endpoint() -> Endpoint {
        Endpoint::dial_only(loopback(), Edge::Client).unwrap()
    }

    /// A connection from a socket that others share.
    pub(crate) async fn connect_from(
        &self,
        endpoint: &Endpoint,
    ) -> Result<Connection, ConnectError> {
        let tls = ClientTls::for_client(&self.authority, None).unwrap();
        soon(endpoint.connect(self.address(), ANY_NODE, &tls, PATIENCE)).await
    }

    /// The administrator's first words.
    pub(crate) fn hello(&self) -> Hello {
        Hello {
            version: VERSION,
            client: "raw".to_owned(),
            credentials: Credentials::Password {
                principal: "admin".to_owned(),
                password: "secret".to_owned(),
            },
            resume: None,
            reconnect_timeout_ms: 60_000,
            properties: BTreeMap::new(),
            beat_ms: 0,
            from: None,
        }
    }
}
