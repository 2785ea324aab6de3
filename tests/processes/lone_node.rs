//! One node by `quorate run`, perhaps under strace, and a client of this process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use quorate::client::{Client, ClientConfig, Patience};
use quorate::transport::tls::Authority;
use serde_json::Value;

use super::harness::{Owned, say, wait};

const BINARY: &str = env!("CARGO_BIN_EXE_quorate");
/// A debug build under strace on a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A node's folder and its configuration.
pub(crate) struct LoneNode {
    pub(crate) dir: PathBuf,
    configuration: PathBuf,
}

impl LoneNode {
    /// Its configuration and what it says stand in `dir`, its data below `disk`.
    pub(crate) fn new(dir: &Path, disk: &Path) -> Self {
        fs::write(dir.join("password"), "secret").unwrap();
        let configuration = dir.join("node.toml");
        let data = disk.join("n1");
        let text = format!(
            "name = \"n1\"\ndir = {data:?}\n[client]\nlisten = \"127.0.0.1:0\"\n[peer]\n\
             listen = \"127.0.0.1:0\"\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\n\
             segment_bytes = \"4MiB\"\nsnapshot_bytes = \"4MiB\"\nretain_bytes = \"4MiB\"\n\
             [security]\nadmin_password_file = \"password\"\n"
        );
        fs::write(&configuration, text).unwrap();
        Self { dir: data, configuration }
    }

    /// Starts it, under `strace` with these arguments if there are any.
    pub(crate) fn start(&self, strace: &[&str]) -> Running {
        let mut command = match strace {
            [] => Command::new(BINARY),
            arguments => {
                let mut command = Command::new("strace");
                command.args(["-f", "-qq"]).args(arguments).arg(BINARY);
                command
            }
        };
        command.args(["run", "--config"]).arg(&self.configuration).stdin(Stdio::null());
        let log = self.configuration.with_extension("log");
        command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        for left_by_a_killed_one in ["ports.json", "pid"] {
            let _was_not_there = fs::remove_file(self.dir.join(left_by_a_killed_one));
        }
        Running { child: Owned(command.spawn().unwrap()), dir: self.dir.clone(), log }
    }
}

/// The process.
pub(crate) struct Running {
    child: Owned,
    dir: PathBuf,
    log: PathBuf,
}

impl Running {
    /// Waits until it serves.
    pub(crate) fn serves(mut self) -> Self {
        let ports = self.dir.join("ports.json");
        let served = wait(START_PATIENCE, || {
            self.goes_on();
            ports.exists().then_some(())
        });
        assert!(served.is_some(), "it does not serve:\n{}", self.log());
        self
    }

    /// It has not ended.
    pub(crate) fn goes_on(&mut self) {
        let ended = self.child.0.try_wait().unwrap();
        assert_eq!(ended, None, "it ended:\n{}", self.log());
    }

    fn door(&self, name: &str) -> String {
        let text = fs::read_to_string(self.dir.join("ports.json")).unwrap();
        let ports: Value = serde_json::from_str(&text).unwrap();
        ports[name].as_str().unwrap().to_owned()
    }

    pub(crate) async fn client(&self, patience: Patience) -> Client {
        let authority = Authority::load(&self.dir.join("tls/ca.pem")).unwrap();
        let config = ClientConfig::new([self.door("client")], authority)
            .password("admin", "secret")
            .patience(patience);
        Client::connect(config).await.unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// A page of its console: status line and body.
    pub(crate) fn page(&self, path: &str) -> String {
        page_at(&self.door("http"), path)
    }

    /// Its exit, which must come by itself.
    pub(crate) fn ends(&mut self) -> ExitStatus {
        wait(START_PATIENCE, || self.child.0.try_wait().unwrap())
            .unwrap_or_else(|| panic!("it goes on:\n{}", self.log()))
    }

    /// Sends it a signal; not to strace, which would leave it behind.
    fn signal(&self, signal: &str) -> bool {
        let Ok(pid) = fs::read_to_string(self.dir.join("pid")) else { return false };
        let status = Command::new("kill").args([signal, pid.trim()]).status();
        status.is_ok_and(|status| status.success())
    }

    /// Stops it in good order.
    pub(crate) fn stop(mut self) {
        assert!(self.signal("-TERM"), "{}", self.log());
        let status = self.ends();
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.0.try_wait(), Ok(None)) {
            self.signal("-KILL");
        }
    }
}

/// A page of the console at an address: status line and body.
pub(crate) fn page_at(http: &str, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(http).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: n1\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Whether strace can be used here; says why if not.
pub(crate) fn can_trace(dir: &Path) -> bool {
    let probe = dir.join("probe");
    match Command::new("strace").args(["-f", "-o"]).arg(probe).arg("true").output() {
        Ok(output) if output.status.success() => true,
        other => {
            say(&format!("skipped: strace cannot be used here: {other:?}"));
            false
        }
    }
}
