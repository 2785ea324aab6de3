//! A `quorate dev` cluster, its loaders and watchers, as child processes of the test.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_quorate");
const FLIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/flights-2013-01.ndjson.gz");

/// A child that is killed when the test lets go of it.
pub(crate) struct Owned(pub(crate) Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// What is streamed, and what each watcher must see of it.
pub(crate) struct Workload {
    pub(crate) file: PathBuf,
    pub(crate) updates: u64,
    /// Topic → its values in order, without those that repeat the one before.
    pub(crate) changes: BTreeMap<String, Vec<Value>>,
}

impl Workload {
    /// The first `lines` of the flights file, or all of it with `QUORATE_FULL=1`.
    pub(crate) fn flights(dir: &Path, lines: usize) -> Self {
        let full = is_full();
        let mut text = String::new();
        flate2::read::GzDecoder::new(File::open(FLIGHTS).unwrap())
            .read_to_string(&mut text)
            .unwrap();
        let lines = if full { usize::MAX } else { lines };
        let kept: Vec<&str> = text.lines().take(lines).collect();
        let file = dir.join("updates.ndjson");
        fs::write(&file, kept.join("\n")).unwrap();
        let mut changes: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for line in &kept {
            let update: Value = serde_json::from_str(line).unwrap();
            let values = changes.entry(update["topic"].as_str().unwrap().to_owned()).or_default();
            if values.last() != Some(&update["value"]) {
                values.push(update["value"].clone());
            }
        }
        Self { file, updates: kept.len() as u64, changes }
    }

    pub(crate) fn events(&self) -> usize {
        self.changes.values().map(Vec::len).sum()
    }
}

/// Whether the whole acceptance is wanted.
pub(crate) fn is_full() -> bool {
    std::env::var_os("QUORATE_FULL").is_some_and(|value| value == "1")
}

/// Two cores carry one cluster at a time; the others wait for it.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A `quorate dev` cluster of three.
pub(crate) struct Cluster {
    pub(crate) dir: PathBuf,
    dev: Owned,
    /// Nodes that the test started itself.
    runs: Vec<Owned>,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    pub(crate) fn start(dir: &Path, flags: &[&str]) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = dir.join("cluster");
        let dev = Command::new(BINARY)
            .args(["dev", "--nodes", "3", "--base-port", &free_base_port().to_string(), "--dir"])
            .arg(&dir)
            .args(flags)
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut dev = Owned(dev);
        let mut lines = BufReader::new(dev.0.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line == "ready");
        // The rest of its output is drained so that it never blocks on a full pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let cluster = Self { dir, dev, runs: Vec::new(), _turn: turn };
        assert!(ready, "the cluster did not become ready:\n{}", cluster.logs());
        cluster
    }

    /// A quorate command with this cluster's profile.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(arguments).env("QUORATE_PROFILE", self.dir.join("client.toml"));
        command
    }

    pub(crate) fn load(&self, workload: &Workload, flags: &[&str]) -> Loader {
        let mut command = self.command(&["topics", "load", "--json"]);
        command.arg(&workload.file).args(flags).stdout(Stdio::piped()).stdin(Stdio::null());
        Loader(Owned(command.spawn().unwrap()))
    }

    pub(crate) fn watch(&self, node: &str, selector: &str) -> Watcher {
        let path = self.dir.join(format!("watch-{node}.ndjson"));
        let mut command = self.command(&["topics", "watch", "--json", selector, "--node", node]);
        command.stdout(File::create(&path).unwrap()).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = Owned(command.spawn().unwrap());
        // It says so when it is subscribed: from then on nothing may be missing.
        let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        assert!(first.starts_with("watching"), "{first}\n{}", self.logs());
        let served = Arc::new(Mutex::new(vec![(Instant::now(), node.to_owned())]));
        let moves = Arc::clone(&served);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(node) = line.strip_suffix(" serves this session") {
                    moves.lock().unwrap().push((Instant::now(), node.to_owned()));
                }
            }
        });
        Watcher { path, child, served }
    }

    pub(crate) fn status(&self) -> Option<Value> {
        let output = self.command(&["cluster", "status", "--json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Kills a node with SIGKILL by its pid file.
    pub(crate) fn kill(&self, node: &str) {
        let pid = fs::read_to_string(self.dir.join(node).join("pid")).unwrap();
        let status = Command::new("kill").args(["-9", pid.trim()]).status().unwrap();
        assert!(status.success(), "kill -9 of {node}, pid {pid}");
    }

    /// Starts a node as an operator would.
    pub(crate) fn run_node(&mut self, node: &str) {
        let configuration = self.dir.join(node).join("node.toml");
        let log =
            File::options().append(true).create(true).open(self.dir.join(node).join("node.log"));
        let mut command = Command::new(BINARY);
        command.args(["run", "--config"]).arg(configuration);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.unwrap());
        self.runs.push(Owned(command.spawn().unwrap()));
    }

    /// Waits until all three nodes show one hash at the last entry, and returns the status.
    pub(crate) fn converge(&self) -> Value {
        let mut last = None;
        let converged = wait(Duration::from_secs(60), || {
            last = self.status();
            let status = last.as_ref()?;
            let nodes = status["nodes"].as_array()?;
            let hash = nodes.first()?["state_hash"].as_str()?;
            let equal = nodes.len() == 3
                && nodes.iter().all(|node| {
                    node["state_hash"] == hash && node["last_index"] == status["hash_index"]
                });
            equal.then(|| status.clone())
        });
        converged.unwrap_or_else(|| panic!("no convergence: {last:#?}\n{}", self.logs()))
    }

    pub(crate) fn leader(&self) -> String {
        wait(Duration::from_secs(30), || Some(self.status()?["leader"].as_str()?.to_owned()))
            .unwrap_or_else(|| panic!("no leader:\n{}", self.logs()))
    }

    /// Every topic's value as one node serves it, by path.
    pub(crate) fn values(&self, node: &str) -> BTreeMap<String, Value> {
        let arguments = ["topics", "list", "?.*//", "--values", "--json", "--node", node];
        let output = self.command(&arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let topic = |line: &[u8]| {
            let mut topic: Value = serde_json::from_slice(line).unwrap();
            (topic["topic"].as_str().unwrap().to_owned(), topic["value"].take())
        };
        lines.map(topic).collect()
    }

    /// The end of each node's log, for a failed assertion.
    pub(crate) fn logs(&self) -> String {
        ["n1", "n2", "n3"]
            .map(|node| {
                let text =
                    fs::read_to_string(self.dir.join(node).join("node.log")).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                format!("--- {node}\n{}\n", lines[lines.len().saturating_sub(15)..].join("\n"))
            })
            .concat()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Its children end with it: each has a pipe to it as standard input.
        let pid = self.dev.0.id().to_string();
        let _ended_already = Command::new("kill").args(["-TERM", &pid]).status();
        let _reaped = wait(Duration::from_secs(15), || self.dev.0.try_wait().ok().flatten());
    }
}

/// A running `topics load`.
pub(crate) struct Loader(Owned);

impl Loader {
    /// Waits for its end and returns its last line.
    pub(crate) fn finish(mut self, cluster: &Cluster) -> Value {
        let mut text = String::new();
        self.0.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let status = self.0.0.wait().unwrap();
        assert!(status.success(), "the loader failed: {status}\n{}", cluster.logs());
        serde_json::from_str(text.lines().last().unwrap()).unwrap()
    }
}

/// A running `topics watch`, printing to a file.
pub(crate) struct Watcher {
    pub(crate) path: PathBuf,
    child: Owned,
    /// The nodes that have served it, and since when.
    served: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Watcher {
    /// The node that serves it now, as far as it has said.
    pub(crate) fn host(&self) -> String {
        self.served.lock().unwrap().last().unwrap().1.clone()
    }

    /// Waits for a node to serve it anew after `since`; how long that took.
    pub(crate) fn moved_after(&self, since: Instant) -> Option<Duration> {
        wait(Duration::from_secs(30), || {
            let served = self.served.lock().unwrap();
            let (at, _) = served.iter().find(|(at, _)| *at > since)?;
            Some(at.duration_since(since))
        })
    }

    /// The whole lines that it has printed so far.
    pub(crate) fn events(&self) -> Vec<Value> {
        let bytes = fs::read(&self.path).unwrap();
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines = bytes[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    /// Waits until it has printed as many value events as the workload has, then ends it and checks
    /// that they are exactly the workload's: none missing, none twice, in position order.
    pub(crate) fn verify(mut self, workload: &Workload, cluster: &Cluster) {
        let count = || {
            let lines =
                BufReader::new(File::open(&self.path).unwrap()).lines().map_while(Result::ok);
            lines.filter(|line| line.contains("\"kind\":\"value\"")).count()
        };
        let complete =
            wait(Duration::from_secs(60), || (count() >= workload.events()).then_some(()));
        assert!(
            complete.is_some(),
            "{}: {} of {} value events\n{}",
            self.path.display(),
            count(),
            workload.events(),
            cluster.logs()
        );
        self.child.0.kill().unwrap();
        let mut seen: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        let mut last = (0_u64, 0_u64);
        for mut event in self.events() {
            if event["kind"] != "value" {
                assert_ne!(event["kind"], "reset", "{event}");
                continue;
            }
            let index = event["index"].as_str().unwrap().parse().unwrap();
            let position = (index, event["ordinal"].as_u64().unwrap());
            assert!(position > last, "{event} comes after {last:?}");
            last = position;
            let topic = event["topic"].as_str().unwrap().to_owned();
            seen.entry(topic).or_default().push(event["value"].take());
        }
        assert!(seen == workload.changes, "{}: other values than loaded", self.path.display());
    }
}

/// Polls until there is an answer or the time is over.
pub(crate) fn wait<T>(timeout: Duration, mut poll: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + timeout;
    loop {
        if let Some(answer) = poll() {
            return Some(answer);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Ports that were free a moment ago; each cluster of this process looks at another range.
pub(crate) fn free_base_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 20_000 + (std::process::id() % 200) as u16 * 40;
    loop {
        let base = start + NEXT.fetch_add(30, Ordering::Relaxed);
        let free = |port| {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok()
        };
        if (0..30).all(|offset| offset % 10 > 2 || free(base + offset)) {
            return base;
        }
    }
}

/// Says where a long test is; shown with `--nocapture` and when the test fails.
pub(crate) fn say(text: &str) {
    let _unheard = writeln!(std::io::stdout(), "{text}");
}

/// One node with nothing but its directory, as `quorate run` starts it.
pub(crate) struct Lone {
    pub(crate) dir: PathBuf,
    pub(crate) client: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) http: SocketAddr,
    /// The administrator's, as it was printed.
    pub(crate) password: String,
    child: Owned,
}

impl Lone {
    /// Starts it; `QUORATE_BINARY` names another binary than the one under test.
    pub(crate) fn start(dir: &Path) -> Self {
        let binary = std::env::var("QUORATE_BINARY").unwrap_or_else(|_| BINARY.to_owned());
        let any = "127.0.0.1:0";
        let child = Command::new(binary)
            .args(["run", "--name", "n1", "--listen", any, "--peer-listen", any, "--http", any])
            .arg("--dir")
            .arg(dir)
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut child = Owned(child);
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let printed = lines.by_ref().map_while(Result::ok).find_map(|line| {
            line.contains("admin password")
                .then(|| line.split_whitespace().last().map(str::to_owned))
        });
        let password = printed.flatten().unwrap();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let ports = wait(Duration::from_secs(20), || {
            serde_json::from_str::<Value>(&fs::read_to_string(dir.join("ports.json")).ok()?).ok()
        });
        let ports = ports.unwrap();
        let port = |of: &str| ports[of].as_str().unwrap().parse().unwrap();
        let (client, peer, http) = (port("client"), port("peer"), port("http"));
        Self { dir: dir.to_owned(), client, peer, http, password, child }
    }

    /// Memory that the node occupies.
    pub(crate) fn rss_kib(&self) -> u64 {
        self.memory().rss_kib()
    }

    /// To look at its memory from another thread.
    pub(crate) fn memory(&self) -> Memory {
        Memory(self.child.0.id())
    }
}

/// A process whose memory is looked at.
pub(crate) struct Memory(pub(crate) u32);

impl Memory {
    /// What it occupies; zero once the process is gone.
    pub(crate) fn rss_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        line.map_or(0, |line| line.split_whitespace().nth(1).unwrap().parse().unwrap())
    }
}
