//! Every key once, with its meaning, its default and how to read its value back out of settings.
//!
//! `config print` is this table applied to settings; what it prints is a file that means the same.

use std::fmt::Write;
use std::path::Path;

use toml::Value;

use super::quantity::{bytes_text, duration_text};
use super::settings::{LogFormat, NodeSettings, OnQuorumLoss};

struct Key {
    /// With its section, as in `cluster.expect`.
    path: &'static str,
    meaning: &'static str,
    default: &'static str,
    /// None for what is not set.
    read: fn(&NodeSettings) -> Option<Value>,
}

/// Keys that are known and not shown: what is written there has no effect yet.
const HIDDEN: [&str; 1] = ["replication.topics.exclude"];

#[rustfmt::skip]
const KEYS: &[Key] = &[
    key("name", "the node's name, as in its certificate", "n1", |s| text(s.name.as_str())),
    key("dir", "the node's own directory", "data/NAME", |s| path(&s.dir)),
    key("client.listen", "UDP address for clients", "127.0.0.1:7400", |s| text(s.listen.client)),
    key("client.advertise", "where clients are told to come", "as listen", |s| s.listen.client_advertise.as_ref().and_then(text)),
    key("client.start_when", "what must hold before clients are let in", "all three", start_when),
    key("client.proxies", "addresses or networks that many clients have in common (load balancers, NAT): no limits by address hold there", "none", proxies),
    key("peer.listen", "UDP address for peers", "127.0.0.1:7401", |s| text(s.listen.peer)),
    key("peer.advertise", "where peers are told to come", "as listen", |s| s.listen.peer_advertise.as_ref().and_then(text)),
    key("http.listen", "TCP address for health, metrics and status", "127.0.0.1:7402", |s| text(s.listen.http)),
    key("cluster.seeds", "peer addresses to look for others; this node's own may be among them", "none", seeds),
    key("cluster.expect", "how many nodes found the cluster; required with seeds", "1", |s| count(s.cluster.expect)),
    key("cluster.quorum", "voters that must be there for the cluster to serve", "a majority", |s| s.cluster.quorum.and_then(count)),
    key("cluster.on_quorum_loss", "suspend or shutdown", "suspend", on_quorum_loss),
    key("cluster.heartbeat", "between two beats of a leader", "50ms", |s| text(duration_text(s.cluster.timing.heartbeat))),
    key("cluster.election_min", "a follower campaigns after at least this silence", "150ms", |s| text(duration_text(s.cluster.timing.election_min))),
    key("cluster.election_max", "a follower campaigns after at most this silence", "300ms", |s| text(duration_text(s.cluster.timing.election_max))),
    key("cluster.quorum_timeout", "after this silence a node stops serving", "twice election_max", |s| text(duration_text(s.cluster.timing.quorum_timeout))),
    key("cluster.node_lost_timeout", "after this silence a node's sessions are taken from it", "2s", |s| text(duration_text(s.cluster.timing.node_lost_timeout))),
    key("tls.ca", "the cluster's certificate authority", "generated, on loopback only", |s| s.tls.as_ref().and_then(|tls| path(&tls.ca))),
    key("tls.certificate", "the node's certificate", "generated, on loopback only", |s| s.tls.as_ref().and_then(|tls| path(&tls.certificate))),
    key("tls.key", "its private key", "generated, on loopback only", |s| s.tls.as_ref().and_then(|tls| path(&tls.key))),
    key("log.retain_bytes", "log kept beyond what snapshots need", "2GiB", |s| text(bytes_text(s.log.retain_bytes))),
    key("log.retain_age", "log kept beyond what snapshots need", "1d", |s| text(duration_text(s.log.retain_age))),
    key("log.segment_bytes", "one file of the log", "64MiB", |s| text(bytes_text(s.log.segment_bytes))),
    key("log.snapshot_bytes", "a snapshot is taken after four times its size of log, this much at the most", "512MiB", |s| text(bytes_text(s.log.snapshot_bytes))),
    key("security.admin_password_file", "the first password of admin; used once, when the cluster is founded", "generated and printed once", |s| s.security.admin_password_file.as_deref().and_then(path)),
    key("security.anonymous", "whether clients without credentials are let in", "false", |s| Some(s.security.anonymous.into())),
    key("limits.connections", "connections of clients", "20000", |s| count(s.limits.connections)),
    key("limits.permits", "proposals under way on this node", "16384", |s| count(s.limits.permits)),
    key("limits.session_in_flight", "requests under way per session", "1024", |s| count(s.limits.session_in_flight)),
    key("limits.session_queue_events", "events that wait for one session before it lags", "4096", |s| count(s.limits.session_queue_events)),
    key("limits.session_reconnect_timeout", "how long a session waits for its client", "1m", |s| text(duration_text(s.limits.session_reconnect_timeout))),
    key("limits.journal_bytes", "recent events kept in memory", "64MiB", |s| text(bytes_text(s.limits.journal_bytes))),
    key("telemetry.log_format", "human or json", "human", log_format),
    key("telemetry.log_filter", "a level, or directives such as info,quorate::peer=debug", "info", |s| text(&s.telemetry.log_filter)),
];

const fn key(
    path: &'static str,
    meaning: &'static str,
    default: &'static str,
    read: fn(&NodeSettings) -> Option<Value>,
) -> Key {
    Key { path, meaning, default, read }
}

/// Every key, with its section.
pub(super) fn known_keys() -> Vec<&'static str> {
    KEYS.iter().map(|key| key.path).chain(HIDDEN).collect()
}

impl NodeSettings {
    /// A `node.toml` that means these settings, each key with its meaning and default.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let mut section = "";
        for key in KEYS {
            let (of, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
            if of != section {
                section = of;
                // Writing to a string cannot fail, here and below.
                let _ = writeln!(out, "\n[{section}]");
            }
            let _ = writeln!(out, "# {}; default: {}", key.meaning, key.default);
            let _ = match (key.read)(self) {
                Some(value) => writeln!(out, "{name} = {value}"),
                None => writeln!(out, "# {name} is not set"),
            };
        }
        out
    }
}

fn text(value: impl ToString) -> Option<Value> {
    Some(Value::String(value.to_string()))
}

fn path(path: &Path) -> Option<Value> {
    text(path.display())
}

fn count(count: u32) -> Option<Value> {
    Some(i64::from(count).into())
}

fn texts<T: Into<Value>>(texts: impl Iterator<Item = T>) -> Option<Value> {
    Some(Value::Array(texts.map(Into::into).collect()))
}

fn seeds(settings: &NodeSettings) -> Option<Value> {
    if settings.cluster.seeds.is_empty() {
        return None;
    }
    texts(settings.cluster.seeds.iter().map(|seed| seed.as_str()))
}

fn proxies(settings: &NodeSettings) -> Option<Value> {
    if settings.listen.proxies.is_empty() {
        return None;
    }
    texts(settings.listen.proxies.iter().map(ToString::to_string))
}

fn start_when(settings: &NodeSettings) -> Option<Value> {
    let conditions = settings.listen.start_when;
    let all = [
        (conditions.configuration_restored, "configuration-restored"),
        (conditions.topics_restored, "topics-restored"),
        (conditions.quorum, "quorum"),
    ];
    texts(all.into_iter().filter_map(|(set, name)| set.then_some(name)))
}

fn on_quorum_loss(settings: &NodeSettings) -> Option<Value> {
    text(match settings.cluster.on_quorum_loss {
        OnQuorumLoss::Suspend => "suspend",
        OnQuorumLoss::Shutdown => "shutdown",
    })
}

fn log_format(settings: &NodeSettings) -> Option<Value> {
    text(match settings.telemetry.log_format {
        LogFormat::Human => "human",
        LogFormat::Json => "json",
    })
}
