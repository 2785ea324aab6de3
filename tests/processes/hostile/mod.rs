//! What hostile clients and peers cost the others, measured from outside: the node's memory before,
//! during and after, the latency of a well-behaved client with and without the attack in interleaved
//! pairs, how long another client takes to get in meanwhile, and what the node counted.
//!
//! The bar is the ratio of the two latencies. An attacker computes, and here it does so on the cores
//! of the node that it attacks. So that this is not taken for what the node lets it do to others, each
//! attack is followed by its control: a process of the same priority that computes for the same share
//! of the time and attacks nobody. The ratio to that is told beside.
//!
//! By hand, on a quiet machine, one at a time: `cargo test --release --test processes
//! hostile::attack_NAME -- --ignored --nocapture --exact`; `QUORATE_BINARY` names another node's
//! binary.

mod attacks;
mod half_open;
mod overload;
mod victim;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate::client::Value;
use quorate::domain::topic::path::TopicPath;
use quorate::domain::topic::specification::{Specification, TopicType};

use crate::harness::{Lone, say};
use attacks::Attacker;
use victim::{Target, p99_us, socket};

/// How long the good client is measured at a time, and how often.
const MEASURE: Duration = Duration::from_secs(3);
const PAIRS: usize = 5;
/// What the 99th percentile of the others may become.
const RATIO_MAX: f64 = 1.5;
/// What the node's memory may grow by.
const GROWTH_KIB_MAX: u64 = 192 * 1024;
/// What another client may take to get in while the attack is under way.
const LET_IN_MAX: Duration = Duration::from_secs(5);

/// What an attack is, and what the node is to have counted of it.
struct Attack {
    name: &'static str,
    /// The name of a metric, and labels that it has.
    counted: &'static [(&'static str, &'static [&'static str])],
    /// It is under way from so many strikes on.
    under_way: u64,
    /// What the attack leaves behind is gone after so long.
    settles: Duration,
    /// The node's other clients write values that the attackers might hear of.
    with_events: bool,
    /// What the 99th percentile of the others may become.
    ratio_max: f64,
}

impl Default for Attack {
    fn default() -> Self {
        Self {
            name: "",
            counted: &[],
            under_way: 1,
            settles: Duration::from_millis(500),
            with_events: false,
            ratio_max: RATIO_MAX,
        }
    }
}

/// Looks at the node's memory while it lives.
struct MemoryWatch {
    most_kib: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl MemoryWatch {
    fn start(node: &Lone) -> Self {
        let (most_kib, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (most, stopped, memory) = (Arc::clone(&most_kib), Arc::clone(&stop), node.memory());
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                most.fetch_max(memory.rss_kib(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self { most_kib, stop }
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn target(node: &Lone) -> Target {
    Target {
        client: node.client,
        peer: node.peer,
        http: node.http,
        tls: Path::new(&node.dir).join("tls"),
        password: node.password.clone(),
    }
}

/// Values that whoever listens to everything hears of: a hundred of 16 KiB a second.
async fn write_events(target: Target) {
    let writer = target.good().await;
    let topic = TopicPath::parse("big").unwrap();
    let mut value = vec![0; 16 * 1024];
    for number in 0_u64.. {
        value[..8].copy_from_slice(&number.to_le_bytes());
        let _ = writer.set(&topic, Value::Binary(&value)).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One attack against a node of its own, and what it did to the others.
async fn measure(attack: Attack) {
    let dir = tempfile::tempdir().unwrap();
    let node = Lone::start(dir.path());
    let target = target(&node);
    let good = target.good().await;
    for (topic, kind) in [("good", TopicType::Int64), ("big", TopicType::Binary)] {
        let topic = TopicPath::parse(topic).unwrap();
        good.add_topic(&topic, &Specification::plain(kind)).await.unwrap();
    }
    let tasks = quorate::supervisor::Supervisor::new("events");
    if attack.with_events {
        tasks.spawn("events", write_events(target.clone()));
    }
    let mut number = 0;
    // Memory that the good client alone makes the node take is not the attack's.
    p99_us(&good, &mut number, MEASURE).await;
    let (before_kib, before) = (node.rss_kib(), target.metrics());
    let watch = MemoryWatch::start(&node);
    let (mut quiet, mut loud, mut beside) = (vec![], vec![], vec![]);
    let (mut shares, mut strikes, mut let_in) = (vec![], 0, Duration::ZERO);
    for _ in 0..PAIRS {
        quiet.push(p99_us(&good, &mut number, MEASURE).await);
        let attacker = Attacker::start(attack.name, &target, dir.path());
        let end = Instant::now() + Duration::from_secs(20);
        while attacker.count() < attack.under_way {
            assert!(Instant::now() < end, "the attacker did not begin");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (cpu, started) = (attacker.cpu(), Instant::now());
        loud.push(p99_us(&good, &mut number, MEASURE).await);
        let share = (attacker.cpu() - cpu).as_secs_f64() / started.elapsed().as_secs_f64();
        // Somebody who was not there before, from another address.
        let (started, elsewhere) = (Instant::now(), socket("127.0.0.2"));
        let opened = target.known_in_time(&elsewhere).await;
        assert!(opened.is_some(), "{}: nobody else is let in", attack.name);
        let_in = let_in.max(started.elapsed());
        strikes += attacker.count();
        drop(attacker);
        tokio::time::sleep(attack.settles).await;
        let control = Attacker::start_control(share, &target, dir.path());
        while control.count() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        beside.push(p99_us(&good, &mut number, MEASURE).await);
        drop(control);
        shares.push(share);
    }
    let most_kib = watch.most_kib.load(Ordering::Relaxed);
    drop(watch);
    let ratio = median_ratio(&loud, &quiet);
    let to_control = median_ratio(&loud, &beside);
    shares.sort_by(f64::total_cmp);
    for p99s in [&mut quiet, &mut loud, &mut beside] {
        p99s.sort_unstable();
    }
    let after = target.metrics();
    let counted: Vec<(String, f64)> = (attack.counted.iter())
        .map(|(name, labels)| {
            let rise = after.sum(name, labels) - before.sum(name, labels);
            (format!("{name}{{{}}}", labels.join(",")), rise)
        })
        .collect();
    say(&format!(
        "{}: {strikes} strikes; p99 {} us, {} us attacked, {} us beside as much computing ({:.2} \
         cores); x {ratio:.2}, and x {to_control:.2} of that (medians of {PAIRS}); \
         another client in after at most {} ms; node {before_kib} -> at most {most_kib} -> {} KiB; \
         counted {counted:?}",
        attack.name,
        quiet[PAIRS / 2],
        loud[PAIRS / 2],
        beside[PAIRS / 2],
        shares[PAIRS / 2],
        let_in.as_millis(),
        node.rss_kib(),
    ));
    for (what, rise) in &counted {
        assert!(*rise > 0.0, "{}: {what} has not risen", attack.name);
    }
    assert!(most_kib < before_kib + GROWTH_KIB_MAX, "{}: {most_kib} KiB", attack.name);
    assert!(let_in < LET_IN_MAX, "{}: let in after {let_in:?}", attack.name);
    assert!(ratio <= attack.ratio_max, "{}: x {ratio:.2}", attack.name);
    good.close().await;
}

/// The median of the ratios of what was measured one after the other.
fn median_ratio(of: &[u64], to: &[u64]) -> f64 {
    let mut ratios: Vec<f64> = of.iter().zip(to).map(|(of, to)| *of as f64 / *to as f64).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

const REFUSED: &str = "quorate_sessions_refused_total";
const UNKNOWN: &str = "quorate_datagrams_unknown_total";
const CLOSED: &str = "quorate_connections_closed_total";
const REQUESTS: &str = "quorate_requests_refused_total";

macro_rules! attacks {
    ($($(#[doc = $doc:literal])* $test:ident: $attack:expr;)+) => {
        $($(#[doc = $doc])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
        #[ignore = "a measurement, by hand on a quiet machine"]
        async fn $test() {
            measure($attack).await;
        })+
    };
}

attacks! {
    attack_half_open: Attack {
        name: "half-open",
        counted: &[
            ("quorate_address_validations_total", &["edge=\"client\""]),
            ("quorate_handshakes_failed_total", &["edge=\"client\""]),
        ],
        settles: Duration::from_millis(5_500),
        ..Attack::default()
    };
    attack_silent: Attack {
        name: "silent",
        counted: &[
            (REFUSED, &["code=\"220\""]),
            ("quorate_connections_refused_total", &["edge=\"client\""]),
        ],
        ..Attack::default()
    };
    attack_noise: Attack {
        name: "noise",
        counted: &[
            (UNKNOWN, &["edge=\"client\"", "connection_id"]),
            (UNKNOWN, &["edge=\"client\"", "version"]),
            (UNKNOWN, &["edge=\"peer\"", "connection_id"]),
            (UNKNOWN, &["edge=\"peer\"", "version"]),
        ],
        ..Attack::default()
    };
    /// As much noise as one sender makes: more than a socket can be read clean of.
    attack_flood: Attack {
        name: "flood",
        counted: &[(UNKNOWN, &[])],
        ratio_max: 20.0,
        ..Attack::default()
    };
    attack_crowd: Attack {
        name: "crowd",
        counted: &[
            (UNKNOWN, &["edge=\"client\"", "length"]),
            ("quorate_first_packets_dropped_total", &["edge=\"client\""]),
        ],
        ..Attack::default()
    };
    attack_garbage: Attack {
        name: "garbage",
        counted: &[(REFUSED, &["code=\"101\""]), (REFUSED, &["code=\"10"])],
        ..Attack::default()
    };
    attack_violations: Attack {
        name: "violations",
        counted: &[
            (CLOSED, &["code=\"204\""]),
            (CLOSED, &["code=\"104\""]),
            (CLOSED, &["code=\"103\""]),
            (CLOSED, &["code=\"101\""]),
            (REFUSED, &["code=\"105\""]),
        ],
        ..Attack::default()
    };
    attack_unfit: Attack {
        name: "unfit",
        counted: &[
            (REQUESTS, &["code=\"303\""]),
            (REQUESTS, &["code=\"309\""]),
            (REQUESTS, &["code=\"305\""]),
            (REQUESTS, &["code=\"110\""]),
        ],
        ..Attack::default()
    };
    attack_bombs: Attack {
        name: "bombs",
        counted: &[(REQUESTS, &["code=\"309\""])],
        ..Attack::default()
    };
    attack_gibibyte: Attack {
        name: "gibibyte",
        counted: &[(REFUSED, &["code=\"101\""]), (CLOSED, &["code=\"101\""])],
        ..Attack::default()
    };
    attack_streams: Attack {
        name: "streams",
        counted: &[(CLOSED, &["code=\"104\""])],
        ..Attack::default()
    };
    attack_passwords: Attack {
        name: "passwords",
        counted: &[("quorate_authentications_failed_total", &["kind=\"password\""])],
        ..Attack::default()
    };
    attack_deaf: Attack {
        name: "deaf",
        counted: &[("quorate_sessions_lagged_total", &[])],
        under_way: 50,
        with_events: true,
        ..Attack::default()
    };
    attack_mute: Attack {
        name: "mute",
        counted: &[("quorate_connections_lost_total", &["how=\"timed_out\""])],
        // The last ones are given up by then.
        settles: Duration::from_secs(20),
        under_way: 50,
        with_events: true,
        ..Attack::default()
    };
    attack_answers: Attack {
        name: "answers",
        counted: &[
            (REQUESTS, &["code=\"502\""]),
            (CLOSED, &["code=\"106\""]),
        ],
        ..Attack::default()
    };
    attack_peer_strangers: Attack {
        name: "peer-strangers",
        counted: &[("quorate_peer_refusals_total", &["reason=\"certificate\"", "by=\"us\""])],
        ..Attack::default()
    };
    attack_peer_garbage: Attack {
        name: "peer-garbage",
        counted: &[("quorate_peer_refusals_total", &["by=\"us\""])],
        ..Attack::default()
    };
}
