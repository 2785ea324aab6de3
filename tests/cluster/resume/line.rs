//! A line between a client and its node that goes dead at a chosen frame: what was let through has
//! arrived, nothing else ever does, and neither side is told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::{BufMut, BytesMut};
use quorate::protocol::delivery::{Event, EventMessage, NotifiedChange, UnsubscribeReason};
use quorate::protocol::frame::put_frame;
use quorate::protocol::kind;
use quorate::supervisor::Supervisor;
use quorate::transport::certificate::{Pem, make_node};
use quorate::transport::profile::Edge;
use quorate::transport::tls::{ANY_NODE, Authority, ClientTls, Identity, ServerTls};
use quorate::transport::{
    CloseCode, Connection, Endpoint, EndpointLimits, Frame, FrameReceiver, FrameSender, ResetKey,
};
use tokio::sync::watch;

use crate::stage::{PATIENCE, name};

/// Where a line goes dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// At a frame of this kind, as [`kind_of`] names it.
    pub(crate) what: &'static str,
    /// Counted from 1.
    pub(crate) nth: usize,
    /// The frame itself still arrives.
    pub(crate) after: bool,
}

/// Connects clients to one node until it goes dead.
pub(crate) struct Line {
    address: SocketAddr,
    gate: Arc<Gate>,
    _supervisor: Supervisor,
}

struct Gate {
    cut: Cut,
    seen: Mutex<usize>,
    dead: watch::Sender<bool>,
}

#[derive(PartialEq, Eq)]
enum Lets {
    Through,
    ThroughAndDies,
    Nothing,
}

impl Line {
    /// A line to the node at `node`, under a certificate of this authority.
    pub(crate) fn open(ca: &Pem, node: SocketAddr, cut: Cut) -> Self {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let pem = make_node(ca, &name("line"), &[]).unwrap();
        let identity = Identity::from_pem(&pem.certificate, &pem.key).unwrap();
        let tls = ServerTls::for_clients(&identity, None).unwrap();
        let key = ResetKey::from_bytes([3; 32]);
        let listener = Endpoint::listen(any, &tls, &key, EndpointLimits::default()).unwrap();
        let address = listener.local_address();
        let dialer = Endpoint::dial_only(any, Edge::Client).unwrap();
        let authority = Authority::from_pem(&ca.certificate).unwrap();
        let gate = Gate { cut, seen: Mutex::new(0), dead: watch::Sender::new(false) };
        let (gate, supervisor) = (Arc::new(gate), Supervisor::new("line"));
        let (shared, tasks) = (Arc::clone(&gate), supervisor.clone());
        supervisor.spawn("line", async move {
            while let Some(accepting) = listener.accept().await {
                if *shared.dead.borrow() {
                    accepting.refuse();
                    continue;
                }
                let Ok(client) = accepting.complete().await else { continue };
                let tls = ClientTls::for_client(&authority, None).unwrap();
                let Ok(node) = dialer.connect(node, ANY_NODE, &tls, PATIENCE).await else {
                    client.close(CloseCode(0), "no node");
                    continue;
                };
                tasks.spawn("call", call(tasks.clone(), Arc::clone(&shared), client, node));
            }
        });
        Self { address, gate, _supervisor: supervisor }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// It has gone dead.
    pub(crate) fn is_dead(&self) -> bool {
        *self.gate.dead.borrow()
    }
}

impl Gate {
    fn lets(&self, what: &str) -> Lets {
        if *self.dead.borrow() {
            return Lets::Nothing;
        }
        if what != self.cut.what {
            return Lets::Through;
        }
        let mut seen = self.seen.lock().unwrap();
        *seen += 1;
        if *seen != self.cut.nth {
            return Lets::Through;
        }
        self.dead.send_replace(true);
        if self.cut.after { Lets::ThroughAndDies } else { Lets::Nothing }
    }

    /// Waits for ever once the line is dead, so that no stream is seen to end.
    async fn dies(&self) {
        // The sender lives in `self`.
        let _ = self.dead.subscribe().wait_for(|dead| *dead).await;
    }
}

/// Carries one connection.
async fn call(tasks: Supervisor, gate: Arc<Gate>, client: Connection, node: Connection) {
    let Ok((to_client, from_client)) = client.accept_bi().await else { return };
    let Ok((to_node, from_node)) = node.open_bi().await else { return };
    tasks.spawn("requests", carry(Arc::clone(&gate), from_client, to_node, false));
    tasks.spawn("answers", carry(Arc::clone(&gate), from_node, to_client, true));
    loop {
        tokio::select! {
            stream = node.accept_uni() => {
                let Ok(stream) = stream else { break };
                let Ok(onward) = client.open_uni().await else { break };
                tasks.spawn("stream", carry(Arc::clone(&gate), stream, onward, true));
            }
            _ = client.closed() => break,
        }
    }
    // The end of either side is the other's, once the node is gone for good.
    let code = CloseCode(0);
    node.close(code, "the line is down");
    client.close(code, "the line is down");
}

async fn carry(gate: Arc<Gate>, mut from: FrameReceiver, mut to: FrameSender, tells: bool) {
    loop {
        let frame = tokio::select! {
            biased;
            () = gate.dies() => break,
            frame = from.next() => frame,
        };
        let Ok(Some(frame)) = frame else {
            let _ = to.finish().await;
            return;
        };
        let lets = gate.lets(if tells { kind_of(&frame) } else { "" });
        if lets == Lets::Nothing {
            break;
        }
        let mut buffer = BytesMut::new();
        put_frame(&mut buffer, frame.kind, |body| body.put_slice(&frame.body));
        if to.send_frames(buffer.freeze()).await.is_err() || lets == Lets::ThroughAndDies {
            break;
        }
    }
    // A stream that was dropped would be seen to end.
    std::future::pending::<()>().await;
    drop((from, to));
}

/// What a frame of the node's is.
fn kind_of(frame: &Frame) -> &'static str {
    match frame.kind {
        kind::ACKNOWLEDGED => return "acknowledged",
        kind::BEAT => return "beat",
        kind::EVENTS => return "events",
        kind::BULK => return "bulk",
        kind::ITEM => return "item",
        kind::BULK_END => return "bulk end",
        _ => {}
    }
    let Ok(EventMessage::Event { event, .. }) =
        EventMessage::decode(frame.kind, frame.body.clone())
    else {
        return "other";
    };
    match event {
        Event::Subscribed { .. } => "subscribed",
        Event::Value { .. } => "value",
        Event::Unsubscribed { reason: UnsubscribeReason::Removed, .. } => "unsubscribed: removed",
        Event::Unsubscribed { .. } => "unsubscribed: requested",
        Event::Notified { change: NotifiedChange::Added, .. } => "notified: added",
        Event::Notified { change: NotifiedChange::Removed, .. } => "notified: removed",
        Event::Notified { change: NotifiedChange::Selected, .. } => "notified: selected",
        Event::Notified { change: NotifiedChange::Deselected, .. } => "notified: deselected",
        Event::Reset { .. } => "reset",
        Event::Progress => "progress",
        Event::Initial { .. } => "initial",
        Event::Lagged { .. } => "lagged",
    }
}
