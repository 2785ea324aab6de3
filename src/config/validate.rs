//! From what is written to what is meant: every value is checked, and none is repaired.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::defaults;
use super::error::ConfigError;
use super::file::{ClusterSection, LimitsSection, LogSection, NodeFile, TlsSection};
use super::quantity::{bytes_text, duration_text, parse_bytes, parse_duration};
use super::settings::{
    ClusterSettings, ClusterTiming, LimitSettings, ListenSettings, LogFormat, LogSettings,
    NodeSettings, OnQuorumLoss, SecuritySettings, StartWhen, TelemetrySettings, TlsFiles,
};
use crate::domain::node_address::NodeAddress;
use crate::domain::node_name::NodeName;

/// Founders of a cluster.
const FOUNDERS_MAX: u32 = 7;
/// Seed addresses.
const SEEDS_MAX: usize = 64;
/// Addresses and networks of proxies: every packet of a stranger is held against them.
const PROXIES_MAX: usize = 64;

/// The settings that a file, joined with the flags, means.
pub(super) fn meant(file: NodeFile) -> Result<NodeSettings, ConfigError> {
    let mut warnings = Vec::new();
    let name = file.name.as_deref().unwrap_or(defaults::NAME);
    let name = NodeName::parse(name).map_err(|error| ConfigError::Value {
        key: "name",
        value: name.to_owned(),
        limit: error.to_string(),
        fix: "choose another name",
    })?;
    let dir = file.dir.unwrap_or_else(|| file.base.join(defaults::DIR_PARENT).join(name.as_str()));
    let listen = ListenSettings {
        client: socket("client.listen", file.client.listen, defaults::CLIENT_PORT)?,
        client_advertise: address("client.advertise", file.client.advertise)?,
        start_when: start_when(file.client.start_when)?,
        proxies: proxies(file.client.proxies.unwrap_or_default())?,
        peer: socket("peer.listen", file.peer.listen, defaults::PEER_PORT)?,
        peer_advertise: address("peer.advertise", file.peer.advertise)?,
        http: socket("http.listen", file.http.listen, defaults::HTTP_PORT)?,
    };
    let cluster = cluster(file.cluster, &mut warnings)?;
    let tls = tls(file.tls)?;
    check_doors(&listen, &cluster, tls.is_some(), &mut warnings)?;
    if file.replication.topics.exclude.is_some_and(|branches| !branches.is_empty()) {
        warnings.push(
            "replication.topics.exclude has no effect in this version: every branch is \
             replicated"
                .to_owned(),
        );
    }
    let log_filter = file.telemetry.log_filter;
    Ok(NodeSettings {
        name,
        dir,
        listen,
        cluster,
        tls,
        log: log(file.log)?,
        security: SecuritySettings {
            admin_password_file: file.security.admin_password_file,
            anonymous: file.security.anonymous.unwrap_or(false),
        },
        limits: limits(file.limits)?,
        telemetry: TelemetrySettings {
            log_format: log_format(file.telemetry.log_format)?,
            log_filter: log_filter.unwrap_or_else(|| defaults::LOG_FILTER.to_owned()),
        },
        warnings,
    })
}

fn cluster(
    section: ClusterSection,
    warnings: &mut Vec<String>,
) -> Result<ClusterSettings, ConfigError> {
    let seeds = seeds(section.seeds.unwrap_or_default())?;
    let expect = founders(section.expect, seeds.len())?;
    if expect == 2 {
        warnings.push(
            "cluster.expect = 2: with two voters the loss of either stops the cluster; use 1 or 3"
                .to_owned(),
        );
    }
    let majority = expect / 2 + 1;
    let quorum = section
        .quorum
        .map(|quorum| {
            within("cluster.quorum", quorum, majority, expect, "leave it out for a majority")
        })
        .transpose()?;
    let on_quorum_loss = match section.on_quorum_loss.as_deref() {
        None | Some("suspend") => OnQuorumLoss::Suspend,
        Some("shutdown") => OnQuorumLoss::Shutdown,
        Some(other) => {
            return Err(value(
                "cluster.on_quorum_loss",
                other,
                "suspend or shutdown",
                "choose one",
            ));
        }
    };
    let heartbeat = duration("cluster.heartbeat", section.heartbeat, defaults::HEARTBEAT)?;
    let election_min =
        duration("cluster.election_min", section.election_min, defaults::ELECTION_MIN)?;
    let election_max =
        duration("cluster.election_max", section.election_max, defaults::ELECTION_MAX)?;
    let quorum_timeout =
        duration("cluster.quorum_timeout", section.quorum_timeout, election_max * 2)?;
    let node_lost_timeout = duration(
        "cluster.node_lost_timeout",
        section.node_lost_timeout,
        defaults::NODE_LOST_TIMEOUT.max(election_max * 2),
    )?;
    let timing =
        ClusterTiming { heartbeat, election_min, election_max, quorum_timeout, node_lost_timeout };
    check_timing(timing)?;
    Ok(ClusterSettings { seeds, expect, quorum, on_quorum_loss, timing })
}

fn seeds(written: Vec<String>) -> Result<Vec<NodeAddress>, ConfigError> {
    let mut seen = BTreeSet::new();
    let mut seeds = Vec::new();
    for text in written {
        let seed = required_address("cluster.seeds", text)?;
        if seen.insert(seed.clone()) {
            seeds.push(seed);
        }
    }
    if seeds.len() > SEEDS_MAX {
        return Err(value(
            "cluster.seeds",
            format!("{} addresses", seeds.len()),
            format!("at most {SEEDS_MAX}"),
            "a few are enough to find the rest",
        ));
    }
    Ok(seeds)
}

fn founders(expect: Option<i64>, seeds: usize) -> Result<u32, ConfigError> {
    let key = "cluster.expect";
    let Some(written) = expect else {
        if seeds == 0 {
            return Ok(1);
        }
        return Err(ConfigError::Missing {
            key,
            fix: "with seeds, say how many nodes found the cluster, this one included",
        });
    };
    let expect = within(key, written, 1, FOUNDERS_MAX, "found it with 1 or 3 to 7 nodes")?;
    if seeds == 0 && expect > 1 {
        return Err(ConfigError::Missing {
            key: "cluster.seeds",
            fix: "list the peer addresses of the nodes that found the cluster with this one",
        });
    }
    // Otherwise two halves of the seeds could found two clusters.
    if expect as usize * 2 <= seeds {
        return Err(value(
            key,
            written,
            format!("more than half of the {seeds} seed addresses"),
            "raise expect, or list only the founders as seeds",
        ));
    }
    Ok(expect)
}

/// The floor below which a busy machine alone costs the leader its place.
const HEARTBEAT_MIN: Duration = Duration::from_millis(25);
const HEARTBEAT_MAX: Duration = Duration::from_secs(5);
const TIMEOUT_MAX: Duration = Duration::from_secs(600);

fn check_timing(timing: ClusterTiming) -> Result<(), ConfigError> {
    let ClusterTiming { heartbeat, election_min, election_max, quorum_timeout, node_lost_timeout } =
        timing;
    let fix = "elections take 3 heartbeats or more, the longest half as long again as the shortest, \
               and the timeouts twice the longest";
    let bounds = [
        ("cluster.heartbeat", heartbeat, HEARTBEAT_MIN, HEARTBEAT_MAX),
        ("cluster.election_min", election_min, heartbeat * 3, TIMEOUT_MAX),
        ("cluster.election_max", election_max, election_min * 3 / 2, TIMEOUT_MAX),
        ("cluster.quorum_timeout", quorum_timeout, election_max * 2, TIMEOUT_MAX),
        ("cluster.node_lost_timeout", node_lost_timeout, election_max * 2, TIMEOUT_MAX),
    ];
    for (key, given, least, most) in bounds {
        if given < least || given > most {
            let limit = format!("from {} to {}", duration_text(least), duration_text(most));
            return Err(value(key, duration_text(given), limit, fix));
        }
    }
    Ok(())
}

fn check_doors(
    listen: &ListenSettings,
    cluster: &ClusterSettings,
    has_tls: bool,
    warnings: &mut Vec<String>,
) -> Result<(), ConfigError> {
    if listen.client == listen.peer && listen.client.port() != 0 {
        return Err(value(
            "peer.listen",
            listen.peer,
            "not the address of client.listen",
            "clients and peers need a UDP port each",
        ));
    }
    if !has_tls {
        for (key, door) in [("client.listen", listen.client), ("peer.listen", listen.peer)] {
            if !door.ip().is_loopback() {
                return Err(value(
                    key,
                    door,
                    "loopback only, without [tls]",
                    "make certificates with `quorate cert` and name them in [tls]",
                ));
            }
        }
        if !cluster.seeds.is_empty() {
            return Err(ConfigError::Missing {
                key: "tls.ca",
                fix: "peers trust each other by certificates: make them with `quorate cert`",
            });
        }
    }
    if !listen.http.ip().is_loopback() {
        warnings.push(format!(
            "http.listen = {}: HTTP asks for no credentials; keep it behind a firewall",
            listen.http
        ));
    }
    Ok(())
}

fn tls(section: TlsSection) -> Result<Option<TlsFiles>, ConfigError> {
    let missing = |key| ConfigError::Missing {
        key,
        fix: "[tls] needs ca, certificate and key; `quorate cert` makes them",
    };
    match (section.ca, section.certificate, section.key) {
        (None, None, None) => Ok(None),
        (Some(ca), Some(certificate), Some(key)) => Ok(Some(TlsFiles { ca, certificate, key })),
        (None, ..) => Err(missing("tls.ca")),
        (_, None, _) => Err(missing("tls.certificate")),
        (.., None) => Err(missing("tls.key")),
    }
}

fn log(section: LogSection) -> Result<LogSettings, ConfigError> {
    let segment_bytes = size(
        "log.segment_bytes",
        section.segment_bytes,
        defaults::LOG_SEGMENT_BYTES,
        4 << 20,
        1 << 30,
    )?;
    let most = 1 << 50;
    Ok(LogSettings {
        retain_bytes: size(
            "log.retain_bytes",
            section.retain_bytes,
            defaults::LOG_RETAIN_BYTES,
            segment_bytes,
            most,
        )?,
        retain_age: duration("log.retain_age", section.retain_age, defaults::LOG_RETAIN_AGE)?,
        segment_bytes,
        snapshot_bytes: size(
            "log.snapshot_bytes",
            section.snapshot_bytes,
            defaults::LOG_SNAPSHOT_BYTES,
            segment_bytes,
            most,
        )?,
    })
}

fn limits(section: LimitsSection) -> Result<LimitSettings, ConfigError> {
    let count = |key, written: Option<i64>, default, most| match written {
        None => Ok(default),
        Some(written) => within(key, written, 1, most, "leave it out for the default"),
    };
    Ok(LimitSettings {
        connections: count(
            "limits.connections",
            section.connections,
            defaults::CONNECTIONS_MAX,
            1_000_000,
        )?,
        permits: count("limits.permits", section.permits, defaults::PERMITS, 1 << 20)?,
        session_in_flight: count(
            "limits.session_in_flight",
            section.session_in_flight,
            defaults::SESSION_IN_FLIGHT,
            defaults::SESSION_IN_FLIGHT,
        )?,
        session_queue_events: count(
            "limits.session_queue_events",
            section.session_queue_events,
            defaults::SESSION_QUEUE_EVENTS,
            1 << 20,
        )?,
        session_reconnect_timeout: duration(
            "limits.session_reconnect_timeout",
            section.session_reconnect_timeout,
            defaults::SESSION_RECONNECT_TIMEOUT,
        )?,
        journal_bytes: size(
            "limits.journal_bytes",
            section.journal_bytes,
            defaults::JOURNAL_BYTES,
            1 << 20,
            1 << 40,
        )?,
    })
}

/// A single address is the network of that one.
fn proxies(written: Vec<String>) -> Result<Vec<IpNet>, ConfigError> {
    if written.len() > PROXIES_MAX {
        let (given, limit) =
            (format!("{} entries", written.len()), format!("at most {PROXIES_MAX}"));
        return Err(value("client.proxies", given, limit, "name networks instead of addresses"));
    }
    let parse = |text: String| {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map_err(|_| {
            let limit = "an IP address or network, such as 10.0.3.7 or 10.1.0.0/16";
            value("client.proxies", text, limit, "write it so")
        })
    };
    written.into_iter().map(parse).collect()
}

fn start_when(written: Option<Vec<String>>) -> Result<StartWhen, ConfigError> {
    let Some(written) = written else { return Ok(StartWhen::ALL) };
    let mut conditions =
        StartWhen { configuration_restored: false, topics_restored: false, quorum: false };
    for condition in written {
        match condition.as_str() {
            "configuration-restored" => conditions.configuration_restored = true,
            "topics-restored" => conditions.topics_restored = true,
            "quorum" => conditions.quorum = true,
            other => {
                return Err(value(
                    "client.start_when",
                    other,
                    "configuration-restored, topics-restored, quorum",
                    "list those that must hold before clients are let in",
                ));
            }
        }
    }
    Ok(conditions)
}

fn log_format(written: Option<String>) -> Result<LogFormat, ConfigError> {
    match written.as_deref() {
        None | Some("human") => Ok(LogFormat::Human),
        Some("json") => Ok(LogFormat::Json),
        Some(other) => Err(value("telemetry.log_format", other, "human or json", "choose one")),
    }
}

fn socket(
    key: &'static str,
    written: Option<String>,
    port: u16,
) -> Result<SocketAddr, ConfigError> {
    let Some(text) = written else { return Ok(defaults::loopback(port)) };
    text.parse().map_err(|_| {
        let limit = "an IP address and a port";
        value(key, text, limit, "write it as in 127.0.0.1:7400 or [::]:7400")
    })
}

fn address(key: &'static str, written: Option<String>) -> Result<Option<NodeAddress>, ConfigError> {
    written.map(|text| required_address(key, text)).transpose()
}

fn required_address(key: &'static str, text: String) -> Result<NodeAddress, ConfigError> {
    NodeAddress::parse(&text).map_err(|error| {
        value(key, text, error.to_string(), "write it as in 10.0.0.1:7401 or n1.example:7401")
    })
}

fn duration(
    key: &'static str,
    written: Option<String>,
    default: Duration,
) -> Result<Duration, ConfigError> {
    let Some(text) = written else { return Ok(default) };
    parse_duration(&text)
        .ok_or_else(|| value(key, text, "a duration", "write it as in \"50ms\", \"2s\" or \"24h\""))
}

fn size(
    key: &'static str,
    written: Option<String>,
    default: u64,
    least: u64,
    most: u64,
) -> Result<u64, ConfigError> {
    let Some(text) = written else { return Ok(default.max(least)) };
    let Some(bytes) = parse_bytes(&text) else {
        return Err(value(key, text, "a size", "write it as in \"64MiB\" or \"2GiB\""));
    };
    if (least..=most).contains(&bytes) {
        return Ok(bytes);
    }
    let limit = format!("from {} to {}", bytes_text(least), bytes_text(most));
    Err(value(key, text, limit, "leave it out for the default"))
}

fn within(
    key: &'static str,
    written: i64,
    least: u32,
    most: u32,
    fix: &'static str,
) -> Result<u32, ConfigError> {
    u32::try_from(written)
        .ok()
        .filter(|count| (least..=most).contains(count))
        .ok_or_else(|| value(key, written, format!("from {least} to {most}"), fix))
}

fn value(
    key: &'static str,
    value: impl ToString,
    limit: impl Into<String>,
    fix: &'static str,
) -> ConfigError {
    ConfigError::Value { key, value: value.to_string(), limit: limit.into(), fix }
}
