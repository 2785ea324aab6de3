//! A node's configuration as written: every key optional, every value as its text.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::ConfigError;
use super::keys::refuse_unknown;
use super::render::known_keys;

/// `node.toml` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeFile {
    /// What relative paths in the file are relative to; empty without a file.
    #[serde(skip)]
    pub(super) base: PathBuf,
    pub(super) name: Option<String>,
    pub(super) dir: Option<PathBuf>,
    pub(super) client: ClientSection,
    pub(super) peer: PeerSection,
    pub(super) http: HttpSection,
    pub(super) cluster: ClusterSection,
    pub(super) tls: TlsSection,
    pub(super) log: LogSection,
    pub(super) replication: ReplicationSection,
    pub(super) security: SecuritySection,
    pub(super) limits: LimitsSection,
    pub(super) telemetry: TelemetrySection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ClientSection {
    pub(super) listen: Option<String>,
    pub(super) advertise: Option<String>,
    pub(super) start_when: Option<Vec<String>>,
    pub(super) proxies: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PeerSection {
    pub(super) listen: Option<String>,
    pub(super) advertise: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct HttpSection {
    pub(super) listen: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ClusterSection {
    pub(super) seeds: Option<Vec<String>>,
    pub(super) expect: Option<i64>,
    pub(super) quorum: Option<i64>,
    pub(super) on_quorum_loss: Option<String>,
    pub(super) heartbeat: Option<String>,
    pub(super) election_min: Option<String>,
    pub(super) election_max: Option<String>,
    pub(super) quorum_timeout: Option<String>,
    pub(super) node_lost_timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TlsSection {
    pub(super) ca: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LogSection {
    pub(super) retain_bytes: Option<String>,
    pub(super) retain_age: Option<String>,
    pub(super) segment_bytes: Option<String>,
    pub(super) snapshot_bytes: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ReplicationSection {
    pub(super) topics: TopicsSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TopicsSection {
    pub(super) exclude: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SecuritySection {
    pub(super) admin_password_file: Option<PathBuf>,
    pub(super) anonymous: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LimitsSection {
    pub(super) connections: Option<i64>,
    pub(super) permits: Option<i64>,
    pub(super) session_in_flight: Option<i64>,
    pub(super) session_queue_events: Option<i64>,
    pub(super) session_reconnect_timeout: Option<String>,
    pub(super) journal_bytes: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TelemetrySection {
    pub(super) log_format: Option<String>,
    pub(super) log_filter: Option<String>,
}

/// What the command line of `run` says; each wins over the file.
#[derive(Debug, Clone, Default)]
pub struct RunFlags {
    /// `--name`
    pub name: Option<String>,
    /// `--dir`, relative to the working directory.
    pub dir: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<String>,
    /// `--peer-listen`
    pub peer_listen: Option<String>,
    /// `--http`
    pub http: Option<String>,
    /// `--seeds`
    pub seeds: Option<Vec<String>>,
    /// `--expect`
    pub expect: Option<i64>,
}

impl NodeFile {
    /// Reads `node.toml`; its relative paths become relative to what it is relative to.
    pub(super) fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        };
        // Twice: once for the keys there are, once for values, whose faults then have a line.
        let table: toml::Table = toml::from_str(text).map_err(syntax)?;
        refuse_unknown(path, &table, &known_keys())?;
        let mut file: Self = toml::from_str(text).map_err(syntax)?;
        let base = path.parent().unwrap_or_else(|| Path::new(""));
        for written in [
            &mut file.dir,
            &mut file.tls.ca,
            &mut file.tls.certificate,
            &mut file.tls.key,
            &mut file.security.admin_password_file,
        ] {
            *written = written.take().map(|relative| base.join(relative));
        }
        file.base = base.to_owned();
        Ok(file)
    }

    /// Lets the flags win.
    pub(super) fn with(mut self, flags: &RunFlags) -> Self {
        fn win<T: Clone>(flag: Option<&T>, written: &mut Option<T>) {
            if let Some(flag) = flag {
                *written = Some(flag.clone());
            }
        }
        win(flags.name.as_ref(), &mut self.name);
        win(flags.dir.as_ref(), &mut self.dir);
        win(flags.listen.as_ref(), &mut self.client.listen);
        win(flags.peer_listen.as_ref(), &mut self.peer.listen);
        win(flags.http.as_ref(), &mut self.http.listen);
        win(flags.seeds.as_ref(), &mut self.cluster.seeds);
        win(flags.expect.as_ref(), &mut self.cluster.expect);
        self
    }
}
