//! One attempt at one address: resolve, connect, say hello, be welcomed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::client::config::ClientConfig;
use crate::client::error::{AttemptFailed, ConnectFailed};
use crate::protocol::conversation::Conversation;
use crate::protocol::handshake::{Hello, Resume, Welcome};
use crate::protocol::read::ReadReply;
use crate::protocol::{ClientMessage, ErrorCode, ServerMessage, VERSION};
use crate::transport::profile::Edge;
use crate::transport::tls::ClientTls;
use crate::transport::{
    CloseCode, Closed, ConnectError, Connection, Endpoint, FrameReceiver, FrameSender,
};

/// A connection over which a node serves the session.
#[derive(Debug)]
pub(in crate::client) struct Link {
    pub(in crate::client) address: String,
    pub(in crate::client) connection: Connection,
    pub(in crate::client) sender: FrameSender,
    pub(in crate::client) receiver: FrameReceiver,
    pub(in crate::client) conversation: Conversation,
    pub(in crate::client) welcome: Welcome,
}

/// A connection over which nothing was said yet.
#[derive(Debug)]
pub(in crate::client) struct Reached {
    address: String,
    connection: Connection,
}

/// Dials with one client's settings.
#[derive(Debug, Clone)]
pub(in crate::client) struct Dialer {
    endpoint: Endpoint,
    tls: ClientTls,
}

/// A UDP socket to dial from. Clients that are given the same one share it.
#[derive(Debug, Clone)]
pub struct ClientEndpoint {
    endpoint: Endpoint,
}

impl ClientEndpoint {
    /// A socket that can reach these addresses: on the loopback interface if all of them are.
    ///
    /// # Errors
    /// [`ConnectFailed::Bind`] if no socket can be had.
    pub fn bind(addresses: &[String]) -> Result<Self, ConnectFailed> {
        let known: Vec<Option<IpAddr>> = addresses
            .iter()
            .map(|address| address.parse::<SocketAddr>().ok().map(|address| address.ip()))
            .collect();
        let all = |holds: fn(IpAddr) -> bool| known.iter().all(|ip| ip.is_some_and(holds));
        let own: IpAddr = if all(|ip| ip.is_ipv4() && ip.is_loopback()) {
            Ipv4Addr::LOCALHOST.into()
        } else if all(|ip| ip.is_ipv6() && ip.is_loopback()) {
            Ipv6Addr::LOCALHOST.into()
        } else if all(|ip| ip.is_ipv4()) {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let endpoint = match Endpoint::dial_only(SocketAddr::new(own, 0), Edge::Client) {
            // A machine without IPv6 can still reach the IPv4 addresses behind names.
            Err(_) if own == Ipv6Addr::UNSPECIFIED => {
                Endpoint::dial_only((Ipv4Addr::UNSPECIFIED, 0).into(), Edge::Client)?
            }
            result => result?,
        };
        Ok(Self { endpoint })
    }
}

impl Dialer {
    pub(in crate::client) fn new(
        endpoint: ClientEndpoint,
        config: &ClientConfig,
    ) -> Result<Self, ConnectFailed> {
        let tls = ClientTls::for_client(&config.authority, config.identity.as_ref())?;
        Ok(Self { endpoint: endpoint.endpoint, tls })
    }

    /// A connection to the node at `address`, nothing said yet.
    pub(in crate::client) async fn reach(
        &self,
        address: &str,
        config: &ClientConfig,
    ) -> Result<Reached, AttemptFailed> {
        let no_such_host = || AttemptFailed::NoSuchHost { address: address.to_owned() };
        let (host, _) = address.rsplit_once(':').ok_or_else(no_such_host)?;
        let resolved = match address.parse() {
            Ok(resolved) => resolved,
            Err(_) => {
                let patience = config.patience.attempt;
                let lookup = tokio::time::timeout(patience, tokio::net::lookup_host(address)).await;
                let mut found = lookup.map_err(|_| no_such_host())?.map_err(|_| no_such_host())?;
                found.next().ok_or_else(no_such_host)?
            }
        };
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let patience = config.patience.attempt;
        let connection = self
            .endpoint
            .connect(resolved, name, &self.tls, patience)
            .await
            .map_err(|error| no_connection(address, &error))?;
        Ok(Reached { address: address.to_owned(), connection })
    }
}

fn no_connection(address: &str, error: &ConnectError) -> AttemptFailed {
    let is_final = match error {
        ConnectError::Handshake { source, .. } => matches!(source, Closed::Tls { .. }),
        ConnectError::ServerName { .. }
        | ConnectError::Address { .. }
        | ConnectError::EndpointClosed => true,
        ConnectError::TimedOut { .. } => false,
    };
    let reason = match error {
        ConnectError::Handshake { source, .. } => source.to_string(),
        other => other.to_string(),
    };
    AttemptFailed::NoConnection { address: address.to_owned(), reason, is_final }
}

impl Reached {
    /// Says hello and waits for the welcome.
    pub(in crate::client) async fn greet(
        self,
        config: &ClientConfig,
        resume: Option<Resume>,
    ) -> Result<Link, AttemptFailed> {
        let patience = config.patience.attempt;
        let Self { address, connection } = self;
        let greeting = greet(address.clone(), connection.clone(), hello(config, resume));
        let result = match tokio::time::timeout(patience, greeting).await {
            Ok(result) => result,
            Err(_) => Err(AttemptFailed::NoWelcome { address }),
        };
        if result.is_err() {
            connection.close(CloseCode(0), "no session");
        }
        result
    }
}

impl Reached {
    /// Says one frame that is answered by a read's reply, and ends the connection.
    pub(in crate::client) async fn look(
        self,
        frame: Bytes,
        patience: Duration,
    ) -> Result<ReadReply, AttemptFailed> {
        let Self { address, connection } = self;
        let no_welcome = || AttemptFailed::NoWelcome { address: address.clone() };
        let asking = async {
            let (mut sender, mut receiver) =
                connection.open_bi().await.map_err(|_| no_welcome())?;
            sender.send_frames(frame).await.map_err(|_| no_welcome())?;
            let frame = receiver.next().await.map_err(|_| no_welcome())?.ok_or_else(no_welcome)?;
            match ServerMessage::decode(frame.kind, frame.body).map_err(|_| no_welcome())? {
                ServerMessage::ReadReply { reply, .. } => Ok(reply),
                ServerMessage::Refused(refused) => Err(AttemptFailed::Refused {
                    address: address.clone(),
                    code: ErrorCode::from(refused.code),
                    text: refused.text,
                    retry_ms: refused.retry_ms,
                }),
                _ => Err(no_welcome()),
            }
        };
        let result = tokio::time::timeout(patience, asking).await;
        connection.close(CloseCode(0), "looked");
        result.unwrap_or_else(|_| Err(no_welcome()))
    }
}

fn hello(config: &ClientConfig, resume: Option<Resume>) -> Hello {
    Hello {
        version: VERSION,
        client: config.name.clone(),
        credentials: config.credentials.clone(),
        resume,
        reconnect_timeout_ms: crate::clock::milliseconds(config.patience.reconnect),
        properties: config.properties.clone(),
        beat_ms: u32::try_from(config.patience.beat.as_millis()).unwrap_or(u32::MAX),
        from: config.from,
    }
}

async fn greet(
    address: String,
    connection: Connection,
    hello: Hello,
) -> Result<Link, AttemptFailed> {
    let no_welcome = || AttemptFailed::NoWelcome { address: address.clone() };
    let (mut sender, mut receiver) = connection.open_bi().await.map_err(|_| no_welcome())?;
    let mut frame = BytesMut::new();
    let hello = ClientMessage::Hello(hello);
    hello.put(&mut frame);
    let mut conversation = Conversation::default();
    conversation.client_says(hello.kind()).map_err(|_| no_welcome())?;
    sender.send_frames(frame.freeze()).await.map_err(|_| no_welcome())?;
    let frame = receiver.next().await.map_err(|_| no_welcome())?.ok_or_else(no_welcome)?;
    conversation.node_says(frame.kind).map_err(|_| no_welcome())?;
    match ServerMessage::decode(frame.kind, frame.body).map_err(|_| no_welcome())? {
        ServerMessage::Welcome(welcome) => {
            Ok(Link { address, connection, sender, receiver, conversation, welcome })
        }
        ServerMessage::Refused(refused) => Err(AttemptFailed::Refused {
            address,
            code: ErrorCode::from(refused.code),
            text: refused.text,
            retry_ms: refused.retry_ms,
        }),
        _ => Err(no_welcome()),
    }
}
