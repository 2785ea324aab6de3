//! Handshakes that nobody ends.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use quorate::transport::Endpoint;
use quorate::transport::tls::{ANY_NODE, ClientTls};

use super::attacks::TICK;
use super::victim::{Target, socket};

/// Handshakes that the attacker keeps half open.
const HALF_OPEN: usize = 10_000;

/// Passes datagrams on to the node and none back: every handshake through it stays half open.
struct BlackHole {
    socket: Arc<UdpSocket>,
    node: SocketAddr,
    passed: Arc<Mutex<Vec<Passed>>>,
    /// Nobody reads what the node answers any more: the system drops it.
    deaf: Arc<AtomicBool>,
}

/// A datagram that went through, and when.
struct Passed {
    at: Instant,
    datagram: Vec<u8>,
}

impl BlackHole {
    fn dig(node: SocketAddr) -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let passed = Arc::new(Mutex::new(Vec::new()));
        let hole = Self { socket, node, passed, deaf: Arc::default() };
        let (socket, passed) = (Arc::clone(&hole.socket), Arc::clone(&hole.passed));
        let deaf = Arc::clone(&hole.deaf);
        std::thread::spawn(move || {
            let mut buffer = [0; 2_048];
            while let Ok((bytes, from)) = socket.recv_from(&mut buffer)
                && !deaf.load(Ordering::Relaxed)
            {
                if from != node {
                    let datagram = buffer[..bytes].to_vec();
                    let _ = socket.send_to(&datagram, node);
                    passed.lock().unwrap().push(Passed { at: Instant::now(), datagram });
                }
            }
        });
        hole
    }

    /// What passed within a time, again and again at the same pace. Says each time how much it was.
    async fn repeat(&self, start: Instant, period: Duration, mut sent: impl FnMut(u64)) {
        self.deaf.store(true, Ordering::Relaxed);
        let all = std::mem::take(&mut *self.passed.lock().unwrap());
        let within: Vec<(Duration, Vec<u8>)> = (all.into_iter())
            .filter_map(|Passed { at, datagram }| {
                Some((at.checked_duration_since(start)?, datagram))
            })
            .filter(|(after, _)| *after < period)
            .collect();
        let mut tick = tokio::time::interval(TICK);
        loop {
            let begun = Instant::now();
            let mut next = within.iter().peekable();
            while next.peek().is_some() {
                tick.tick().await;
                let mut count = 0;
                while let Some((_, datagram)) = next.next_if(|(after, _)| *after <= begun.elapsed())
                {
                    let _ = self.socket.send_to(datagram, self.node);
                    count += 1;
                }
                sent(count);
            }
            tokio::time::sleep(period.saturating_sub(begun.elapsed())).await;
        }
    }
}

/// Two thousand new ones a second, each given up after five seconds: ten thousand stand. The
/// datagrams of the second after they do are what goes on, so that no client computes ten thousand
/// handshakes on the node's cores. To the node they are as new, but for the few that it let in
/// without asking for their address.
pub(super) async fn half_open(target: &Target, count: &AtomicU64) {
    const PER_TICK: usize = HALF_OPEN / 1_000;
    const GIVEN_UP: Duration = Duration::from_secs(5);
    const PERIOD: Duration = Duration::from_secs(1);
    let hole = BlackHole::dig(target.client);
    let address = hole.socket.local_addr().unwrap();
    let begun = Instant::now();
    let client = async {
        let endpoints: Vec<Endpoint> = (0..16).map(|_| socket("127.0.0.1")).collect();
        let tls = ClientTls::for_client(&target.authority(), None).unwrap();
        let mut turns = endpoints.iter().cycle();
        let mut tries = futures::stream::FuturesUnordered::new();
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                _ = tick.tick() => for endpoint in (&mut turns).take(PER_TICK) {
                    tries.push(endpoint.connect(address, ANY_NODE, &tls, GIVEN_UP));
                },
                Some(_given_up) = tries.next() => {}
            }
        }
    };
    let _they_stand = tokio::time::timeout(GIVEN_UP + PERIOD, client).await;
    hole.repeat(begun + GIVEN_UP, PERIOD, |sent| {
        count.fetch_add(sent, Ordering::Relaxed);
    })
    .await;
}
