//! Peers that do not belong: refused by name, told of once, and the cluster goes on.

use std::sync::{Arc, Mutex, OnceLock};

use bytes::{BufMut, BytesMut};
use quorate::domain::id::{ClusterId, NodeId};
use quorate::peer::{Authority, Identity, Refusal};
use quorate::protocol::frame::put_frame;
use quorate::protocol::peer_message::{CONTROL_LANE, HELLO, Hello};
use quorate::telemetry::recorder::Recorder;
use quorate::transport::certificate::{Pem, make_ca, make_node};
use quorate::transport::profile::Edge;
use quorate::transport::tls::{ANY_NODE, ClientTls};
use quorate::transport::{Closed, Connection, Endpoint};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::clients::soon;
use crate::stage::{PATIENCE, Stage, Writer, name, update};

/// What was logged under a code: the fields `event` and `reason`.
#[derive(Clone, Default)]
struct Audit(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Audit {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        #[derive(Default)]
        struct Fields {
            code: Option<String>,
            reason: String,
        }
        impl tracing::field::Visit for Fields {
            fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
                match field.name() {
                    "event" => self.code = Some(value.to_owned()),
                    "reason" => value.clone_into(&mut self.reason),
                    _ => {}
                }
            }

            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "reason" {
                    self.reason = format!("{value:?}");
                }
            }
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(code) = fields.code {
            self.0.lock().unwrap().push(format!("{code} {}", fields.reason));
        }
    }
}

impl Audit {
    fn has(&self, code: &str, reason: &str) -> bool {
        let told = self.0.lock().unwrap();
        told.iter().any(|line| line.starts_with(code) && line.contains(reason))
    }
}

/// Refusals of peers that this process has counted under a reason; all its tests count together.
fn refusals(reason: &str) -> f64 {
    static RECORDER: OnceLock<Recorder> = OnceLock::new();
    let text = RECORDER.get_or_init(|| Recorder::install().unwrap()).render();
    let (reason, by) = (format!("reason=\"{reason}\""), "by=\"us\"");
    let counted = text.lines().filter(|line| {
        line.starts_with("quorate_peer_refusals_total{")
            && line.contains(&reason)
            && line.contains(by)
    });
    counted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// A connection to a node's peer port under a certificate of `ca` for this name.
async fn dial(stage: &Stage, trusted: &Pem, ca: &Pem, certificate: &str) -> (Connection, Endpoint) {
    let pem = make_node(ca, &name(certificate), &[]).unwrap();
    let identity = Identity::from_pem(&pem.certificate, &pem.key).unwrap();
    let authority = Authority::from_pem(&trusted.certificate).unwrap();
    let tls = ClientTls::for_peer(&authority, &identity).unwrap();
    let endpoint = Endpoint::dial_only("127.0.0.1:0".parse().unwrap(), Edge::Peer).unwrap();
    let target = stage.node("n1").peer_address();
    let connection = soon(endpoint.connect(target, ANY_NODE, &tls, PATIENCE)).await.unwrap();
    (connection, endpoint)
}

/// Says this hello; the refusal with which the node ends the connection.
async fn refusal(connection: &Connection, hello: &Hello) -> Option<Refusal> {
    let (mut sender, _receiver) = soon(connection.open_bi()).await.unwrap();
    let mut bytes = BytesMut::new();
    bytes.put_u8(CONTROL_LANE);
    put_frame(&mut bytes, HELLO, |body| body.put_slice(&hello.encode()));
    soon(sender.send_frames(bytes.freeze())).await.unwrap();
    match soon(connection.closed()).await {
        Closed::There { code, .. } => Refusal::from_code(code),
        other => panic!("not told why: {other:?}"),
    }
}

#[tokio::test]
async fn peers_that_do_not_belong_are_refused_named_and_audited() {
    let audit = Audit::default();
    let reasons = ["certificate", "wrong_cluster", "wrong_identity", "certificate_name"];
    let before = reasons.map(refusals);
    // One thread: the node's tasks log here too.
    let _guard =
        tracing::subscriber::set_default(tracing_subscriber::registry().with(audit.clone()));
    // With a single dispatcher in the process, the thread that comes to an event first decides for
    // all whether anyone wants it: here another test's, which listens to nothing.
    let _another = tracing::Dispatch::new(tracing_subscriber::registry());
    let mut stage = Stage::new(1, &["n1"]);
    stage.start(&["n1"]).await;
    let mut writer = Writer::open(stage.node("n1"), 7).await;
    let topic = writer.add_topic("a").await;
    let member = stage.node("n1").member().clone();

    // A certificate of another authority gets nowhere.
    let other = make_ca("other").unwrap();
    let (connection, _endpoint) = dial(&stage, &stage.ca, &other, "n2").await;
    match soon(connection.closed()).await {
        Closed::Tls { alert, .. } => assert!([42, 48].contains(&alert), "{alert}"),
        closed => panic!("{closed:?}"),
    }

    // Another cluster's node, though under the same authority.
    let (connection, _endpoint) = dial(&stage, &stage.ca, &stage.ca, "n2").await;
    let mut hello = Hello::new(name("n2"), 5, 1);
    hello.cluster = Some(ClusterId(member.cluster.0 ^ 1));
    hello.node = Some(NodeId(9));
    assert_eq!(refusal(&connection, &hello).await, Some(Refusal::WrongCluster));

    // A node that claims a member's id, or a name that is not in its certificate.
    let (connection, _endpoint) = dial(&stage, &stage.ca, &stage.ca, "n2").await;
    hello.cluster = Some(member.cluster);
    hello.node = Some(member.id);
    assert_eq!(refusal(&connection, &hello).await, Some(Refusal::WrongIdentity));
    let (connection, _endpoint) = dial(&stage, &stage.ca, &stage.ca, "n2").await;
    let as_member = Hello { name: name("n1"), ..hello.clone() };
    assert_eq!(refusal(&connection, &as_member).await, Some(Refusal::CertificateName));

    for (code, reason) in [
        ("Q-303", "certificate"),
        ("Q-303", "different clusters"),
        ("Q-303", "not the one on record"),
        ("Q-303", "not the one in the certificate"),
    ] {
        assert!(audit.has(code, reason), "{code} {reason}: {:?}", audit.0.lock().unwrap());
    }
    for (reason, before) in reasons.into_iter().zip(before) {
        assert!(refusals(reason) > before, "{reason} was not counted");
    }
    // Nothing of it touched the cluster.
    writer.ask(&update(topic, 1)).await;
    assert!(stage.node("n1").is_leader());
    let status = stage.node("n1").status(PATIENCE).await;
    assert_eq!((status.voters, status.nodes.len()), (1, 1), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_peer_port_ends_its_own_connection() {
    let mut stage = Stage::new(1, &["n1"]);
    stage.start(&["n1"]).await;
    let mut writer = Writer::open(stage.node("n1"), 7).await;
    let topic = writer.add_topic("a").await;
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut roll = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let (before, mut refused) = (refusals("bad_hello"), 0);
    for round in 0..24 {
        let (connection, _endpoint) = dial(&stage, &stage.ca, &stage.ca, "n2").await;
        let (mut sender, _receiver) = soon(connection.open_bi()).await.unwrap();
        let mut bytes = BytesMut::new();
        match round % 4 {
            // Anything at all.
            0 => (0..roll() % 2_000).for_each(|_| bytes.put_u8(roll() as u8)),
            // A hello of random bytes.
            1 => {
                bytes.put_u8(CONTROL_LANE);
                let count = 1 + roll() % 500;
                put_frame(&mut bytes, HELLO, |body| {
                    (0..count).for_each(|_| body.put_u8(roll() as u8))
                });
            }
            // A good hello with a changed byte.
            2 => {
                bytes.put_u8(CONTROL_LANE);
                let hello = Hello::new(name("n2"), 5, 1).encode();
                put_frame(&mut bytes, HELLO, |body| body.put_slice(&hello));
                let at = 6 + (roll() % hello.len() as u64) as usize;
                bytes[at] ^= 1 << (roll() % 8);
            }
            // A frame of a gibibyte.
            _ => {
                bytes.put_u8(CONTROL_LANE);
                bytes.put_u32_le(1 << 30);
                bytes.put_bytes(HELLO, 64 * 1024);
            }
        }
        // A node that has closed the connection takes nothing more, which is the point.
        let _ = soon(sender.send_frames(bytes.freeze())).await;
        let _ = sender.finish().await;
        if round % 4 != 2 {
            match soon(connection.closed()).await {
                Closed::There { code, .. } => {
                    assert_eq!(Refusal::from_code(code), Some(Refusal::BadHello), "round {round}");
                    refused += 1;
                }
                other => panic!("round {round}: not told why: {other:?}"),
            }
        }
        writer.ask(&update(topic, round + 1)).await;
    }
    assert!(refusals("bad_hello") >= before + f64::from(refused), "{refused}");
    assert!(stage.node("n1").is_leader());
}
