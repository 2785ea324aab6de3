//! The node that is attacked, as a client reaches it and as its metrics and its memory show it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quorate::client::{Client, ClientConfig, Value};
use quorate::domain::topic::path::TopicPath;
use quorate::protocol::handshake::{Credentials, Hello};
use quorate::protocol::{ClientMessage, ServerMessage, VERSION};
use quorate::transport::profile::Edge;
use quorate::transport::tls::{ANY_NODE, Authority, ClientTls};
use quorate::transport::{Connection, Endpoint, FrameReceiver, FrameSender};

/// Where the node is, and who may say hello to it.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) client: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) http: SocketAddr,
    /// The folder of the certificates that it made for itself.
    pub(crate) tls: PathBuf,
    pub(crate) password: String,
}

/// A connection, and its control stream.
pub(crate) struct Known {
    pub(crate) connection: Connection,
    pub(crate) sender: FrameSender,
    pub(crate) receiver: FrameReceiver,
}

/// A socket to dial from.
pub(crate) fn socket(ip: &str) -> Endpoint {
    Endpoint::dial_only(SocketAddr::new(ip.parse().unwrap(), 0), Edge::Client).unwrap()
}

impl Target {
    pub(crate) fn to_text(&self) -> String {
        let Self { client, peer, http, tls, password } = self;
        format!("{client}\n{peer}\n{http}\n{}\n{password}", tls.display())
    }

    pub(crate) fn from_text(text: &str) -> Self {
        let mut lines = text.lines();
        let mut next = || lines.next().unwrap();
        Self {
            client: next().parse().unwrap(),
            peer: next().parse().unwrap(),
            http: next().parse().unwrap(),
            tls: next().into(),
            password: next().to_owned(),
        }
    }

    pub(crate) fn authority(&self) -> Authority {
        Authority::load(&self.tls.join("ca.pem")).unwrap()
    }

    pub(crate) async fn good(&self) -> Client {
        let config = ClientConfig::new([self.client.to_string()], self.authority())
            .password("admin", self.password.clone());
        Client::connect(config).await.unwrap()
    }

    pub(crate) fn hello(&self) -> Hello {
        Hello {
            version: VERSION,
            client: "hostile".to_owned(),
            credentials: Credentials::Password {
                principal: "admin".to_owned(),
                password: self.password.clone(),
            },
            resume: None,
            reconnect_timeout_ms: 1_000,
            properties: [].into(),
            beat_ms: 0,
            from: None,
        }
    }

    pub(crate) async fn connect(&self, endpoint: &Endpoint) -> Option<Connection> {
        self.connect_at(endpoint, self.client).await
    }

    async fn connect_at(&self, endpoint: &Endpoint, address: SocketAddr) -> Option<Connection> {
        let tls = ClientTls::for_client(&self.authority(), None).unwrap();
        endpoint.connect(address, ANY_NODE, &tls, Duration::from_secs(1)).await.ok()
    }

    /// A connection whose control stream has said nothing yet.
    pub(crate) async fn stranger(&self, endpoint: &Endpoint) -> Option<Known> {
        self.stranger_at(endpoint, self.client).await
    }

    async fn stranger_at(&self, endpoint: &Endpoint, address: SocketAddr) -> Option<Known> {
        let connection = self.connect_at(endpoint, address).await?;
        let (sender, receiver) = connection.open_bi().await.ok()?;
        Some(Known { connection, sender, receiver })
    }

    /// A connection that has been welcomed.
    pub(crate) async fn known(&self, endpoint: &Endpoint) -> Option<Known> {
        self.known_at(endpoint, self.client).await
    }

    pub(crate) async fn known_at(&self, endpoint: &Endpoint, address: SocketAddr) -> Option<Known> {
        let mut known = self.stranger_at(endpoint, address).await?;
        let mut frame = BytesMut::new();
        ClientMessage::Hello(self.hello()).put(&mut frame);
        known.sender.send_frames(frame.freeze()).await.ok()?;
        let answer = known.receiver.next().await.ok()??;
        let welcomed = ServerMessage::decode(answer.kind, answer.body);
        matches!(welcomed, Ok(ServerMessage::Welcome(_))).then_some(known)
    }

    /// As [`known`](Self::known), tried until it comes about or half a minute is over.
    pub(crate) async fn known_in_time(&self, endpoint: &Endpoint) -> Option<Known> {
        let tries = async {
            loop {
                if let Some(known) = self.known(endpoint).await {
                    return known;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), tries).await.ok()
    }

    /// The node's metrics as it shows them.
    pub(crate) fn metrics(&self) -> Metrics {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        Metrics(text)
    }
}

/// What `/metrics` said.
pub(crate) struct Metrics(String);

impl Metrics {
    /// The sum of the values of a name over the labels that contain each of `labels`.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let lines = self.0.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// Writes one at a time; the 99th percentile of the time that each takes, in microseconds.
pub(crate) async fn p99_us(good: &Client, number: &mut i64, time: Duration) -> u64 {
    let topic = TopicPath::parse("good").unwrap();
    let end = Instant::now() + time;
    let mut took = Vec::new();
    while Instant::now() < end {
        *number += 1;
        let started = Instant::now();
        good.set(&topic, Value::Int64(*number)).await.unwrap();
        took.push(u64::try_from(started.elapsed().as_micros()).unwrap());
    }
    percentile(&mut took, 99)
}

/// Of the times that it is given.
pub(crate) fn percentile(took: &mut [u64], percent: usize) -> u64 {
    took.sort_unstable();
    took.get(took.len() * percent / 100).copied().unwrap_or(0)
}
