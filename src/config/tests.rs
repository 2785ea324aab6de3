//! Whole files, good and bad.

use std::path::Path;
use std::time::Duration;

use super::settings::{LogFormat, OnQuorumLoss, StartWhen};
use super::{NodeSettings, RunFlags};

const DESIGN: &str = r#"
name = "n1"
dir  = "data/n1"
[client]
listen = "127.0.0.1:7400"
start_when = ["configuration-restored", "topics-restored", "quorum"]
[peer]
listen = "127.0.0.1:7401"
[http]
listen = "127.0.0.1:7402"
[cluster]
seeds = ["127.0.0.1:7401", "127.0.0.1:7411", "127.0.0.1:7421"]
expect = 3
on_quorum_loss = "suspend"
[tls]
ca = "ca.pem"
certificate = "n1.pem"
key = "n1.key"
[log]
retain_bytes = "2GiB"
[replication]
topics = { exclude = ["local"] }
"#;

const EVERYTHING: &str = r#"
name = "eu-1"
dir = "/var/lib/quorate"
[client]
listen = "0.0.0.0:0"
advertise = "n1.example:7400"
start_when = ["quorum"]
proxies = ["10.0.3.7", "fd00::/8"]
[peer]
listen = "[::]:9401"
advertise = "n1.example:7401"
[http]
listen = "0.0.0.0:7402"
[cluster]
seeds = ["a:1", "b:1", "c:1", "d:1", "a:1"]
expect = 4
quorum = 4
on_quorum_loss = "shutdown"
heartbeat = "100ms"
election_min = "300ms"
election_max = "600ms"
quorum_timeout = "3s"
node_lost_timeout = "5s"
[tls]
ca = "/etc/ca.pem"
certificate = "own.pem"
key = "own.key"
[log]
retain_bytes = "1TiB"
retain_age = "7d"
segment_bytes = "16MiB"
snapshot_bytes = "1GiB"
[security]
admin_password_file = "admin.password"
anonymous = true
[limits]
connections = 7
permits = 8
session_in_flight = 9
session_queue_events = 10
session_reconnect_timeout = "11s"
journal_bytes = "12MiB"
[telemetry]
log_format = "json"
log_filter = "info,quorate::peer=debug"
"#;

fn parse(text: &str) -> Result<NodeSettings, String> {
    with_flags(text, &RunFlags::default())
}

fn with_flags(text: &str, flags: &RunFlags) -> Result<NodeSettings, String> {
    NodeSettings::parse(text, Path::new("/etc/q/node.toml"), flags)
        .map_err(|error| error.to_string())
}

#[test]
fn the_file_of_the_design_is_understood() {
    let settings = parse(DESIGN).unwrap();
    assert_eq!(settings.name.as_str(), "n1");
    assert_eq!(settings.dir, Path::new("/etc/q/data/n1"));
    assert_eq!(settings.listen.start_when, StartWhen::ALL);
    assert_eq!(settings.cluster.seeds.len(), 3);
    assert_eq!((settings.cluster.expect, settings.cluster.quorum), (3, None));
    assert_eq!(settings.tls.as_ref().unwrap().key, Path::new("/etc/q/n1.key"));
    assert_eq!(settings.log.retain_bytes, 2 << 30);
    assert_eq!(settings.cluster.timing.heartbeat, Duration::from_millis(50));
    assert_eq!(settings.cluster.timing.quorum_timeout, Duration::from_millis(600));
    // What cannot be had yet is said.
    assert_eq!(settings.warnings.len(), 1);
    assert!(settings.warnings[0].starts_with("replication.topics.exclude has no effect"));
}

#[test]
fn every_key_is_understood() {
    let settings = parse(EVERYTHING).unwrap();
    assert_eq!(settings.listen.peer.port(), 9_401);
    assert_eq!(settings.listen.client_advertise.as_ref().unwrap().host(), "n1.example");
    assert!(settings.listen.start_when.quorum && !settings.listen.start_when.topics_restored);
    let proxies: Vec<String> = settings.listen.proxies.iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["10.0.3.7/32", "fd00::/8"]);
    assert_eq!(settings.cluster.seeds.len(), 4, "one was said twice");
    assert_eq!(settings.cluster.quorum, Some(4));
    assert_eq!(settings.cluster.on_quorum_loss, OnQuorumLoss::Shutdown);
    assert_eq!(settings.cluster.timing.node_lost_timeout, Duration::from_secs(5));
    assert_eq!(settings.log.retain_age, Duration::from_secs(7 * 86_400));
    assert!(settings.security.anonymous);
    assert_eq!(settings.limits.session_queue_events, 10);
    assert_eq!(settings.telemetry.log_format, LogFormat::Json);
    assert!(settings.warnings[0].contains("http.listen = 0.0.0.0:7402"), "{:?}", settings.warnings);
    // Every key that can be printed stands in this file: none is forgotten by the test.
    let printed = settings.to_toml();
    assert!(!printed.contains("is not set"), "{printed}");
}

#[test]
fn nothing_at_all_is_a_single_node_on_loopback() {
    let settings = parse("").unwrap();
    assert_eq!(settings.dir, Path::new("/etc/q/data/n1"));
    assert_eq!((settings.cluster.expect, settings.cluster.seeds.len()), (1, 0));
    assert_eq!(settings.listen.client.to_string(), "127.0.0.1:7400");
    assert_eq!(settings.listen.peer.to_string(), "127.0.0.1:7401");
    assert_eq!(settings.listen.http.to_string(), "127.0.0.1:7402");
    assert_eq!((settings.tls.as_ref(), settings.security.anonymous), (None, false));
    assert!(settings.warnings.is_empty());
    // And without a file its directory is below the working directory.
    let bare = NodeSettings::load(None, &RunFlags::default()).unwrap();
    assert_eq!(bare, NodeSettings { dir: "data/n1".into(), ..settings });
}

#[test]
fn what_is_printed_means_the_same() {
    for text in ["", DESIGN, EVERYTHING] {
        let settings = parse(text).unwrap();
        let again = parse(&settings.to_toml()).unwrap();
        let without_warnings = NodeSettings { warnings: again.warnings.clone(), ..settings };
        assert_eq!(again, without_warnings);
    }
    let printed = parse("").unwrap().to_toml();
    assert!(
        printed
            .starts_with("# the node's name, as in its certificate; default: n1\nname = \"n1\"\n")
    );
    assert!(printed.contains("\n[cluster]\n"));
    assert!(printed.contains("# seeds is not set\n"));
}

#[test]
fn defaults_that_are_printed_are_the_defaults() {
    // The text beside each key is for people; where it is a value it must be the real one.
    let printed = parse("").unwrap().to_toml();
    let mut checked = 0;
    let mut default = "";
    for line in printed.lines() {
        if let Some((_, text)) = line.split_once("; default: ") {
            default = text;
        } else if let Some((key, value)) = line.split_once(" = ") {
            let value = value.trim_matches('"');
            let in_words = ["data/NAME", "twice election_max", "all three"].contains(&default);
            assert!(in_words || default == value, "{key}: {default} is not {value}");
            checked += 1;
        }
    }
    assert!(checked > 20);
}

#[test]
fn flags_win() {
    let flags = RunFlags {
        name: Some("n7".to_owned()),
        dir: Some("here".into()),
        listen: Some("127.0.0.1:0".to_owned()),
        peer_listen: Some("127.0.0.1:1".to_owned()),
        http: Some("127.0.0.1:2".to_owned()),
        seeds: Some(vec!["a:1".to_owned(), "b:1".to_owned()]),
        expect: Some(2),
    };
    let settings = with_flags(DESIGN, &flags).unwrap();
    assert_eq!(settings.name.as_str(), "n7");
    // A flag is relative to the working directory, not to the file.
    assert_eq!(settings.dir, Path::new("here"));
    assert_eq!(settings.listen.client.port(), 0);
    assert_eq!((settings.listen.peer.port(), settings.listen.http.port()), (1, 2));
    assert_eq!((settings.cluster.seeds.len(), settings.cluster.expect), (2, 2));
    assert!(settings.warnings.iter().any(|warning| warning.contains("expect = 2")));
    let seeds_alone = RunFlags { seeds: flags.seeds, ..RunFlags::default() };
    assert!(with_flags("", &seeds_alone).unwrap_err().starts_with("cluster.expect is missing"));
}

#[test]
fn what_is_wrong_is_refused_with_key_value_limit_and_a_way_out() {
    let tls = "[tls]\nca='a'\ncertificate='b'\nkey='c'\n";
    let cases = [
        // Not TOML, wrong types: with a line.
        ("name = ", "line 1"),
        ("\n[cluster]\nexpect = 'three'", "line 3"),
        ("client = 7", "there is no key client"),
        // Unknown keys, with the nearest.
        ("nmae = 'x'", "there is no key nmae; did you mean name?"),
        ("[cluster]\nexpcet = 3", "no key cluster.expcet; did you mean cluster.expect?"),
        ("[clutser]\nexpect = 3", "no key clutser; did you mean"),
        ("[cluster]\nretain_bytes = '2GiB'", "did you mean log.retain_bytes?"),
        ("[weather]\nrain = true", "there is no key weather"),
        ("[replication]\nsessions = false", "there is no key replication.sessions"),
        // Names and addresses.
        ("name = 'N 1'", "name = N 1:"),
        ("[client]\nlisten = 'localhost:7400'", "client.listen = localhost:7400"),
        ("[client]\nadvertise = 'somewhere'", "client.advertise = somewhere"),
        ("[client]\nproxies = ['10.0.0.0/33']", "client.proxies = 10.0.0.0/33: an IP address or"),
        ("[client]\nstart_when = ['moon']", "client.start_when = moon"),
        ("[client]\nlisten='127.0.0.1:7'\n[peer]\nlisten='127.0.0.1:7'", "a UDP port each"),
        ("[client]\nlisten = '0.0.0.0:7400'", "loopback only, without [tls]"),
        ("[peer]\nlisten = '0.0.0.0:7401'", "loopback only, without [tls]"),
        // Founding.
        ("[cluster]\nseeds = ['a']", "cluster.seeds = a:"),
        ("[cluster]\nseeds = ['a:1', 'b:1', 'c:1']", "cluster.expect is missing"),
        ("[cluster]\nexpect = 3", "cluster.seeds is missing"),
        ("[cluster]\nexpect = 0", "cluster.expect = 0: from 1 to 7"),
        ("[cluster]\nexpect = 8\nseeds = ['a:1']", "cluster.expect = 8: from 1 to 7"),
        ("[cluster]\nexpect = -1", "cluster.expect = -1"),
        ("[cluster]\nexpect = 2\nseeds = ['a:1','b:1','c:1','d:1']", "more than half of the 4"),
        ("[cluster]\nexpect = 1\nseeds = ['a:1','b:1']", "more than half of the 2"),
        ("[cluster]\nexpect = 3\nseeds = ['a:1','b:1','c:1']", "tls.ca is missing"),
        ("[cluster]\nquorum = 2", "cluster.quorum = 2: from 1 to 1"),
        ("[cluster]\non_quorum_loss = 'panic'", "suspend or shutdown"),
        // Timing.
        ("[cluster]\nheartbeat = '10ms'", "cluster.heartbeat = 10ms: from 25ms to 5s"),
        ("[cluster]\nheartbeat = '50'", "cluster.heartbeat = 50: a duration"),
        ("[cluster]\nheartbeat = '100ms'", "cluster.election_min = 150ms: from 300ms"),
        ("[cluster]\nelection_max = '200ms'", "cluster.election_max = 200ms: from 225ms"),
        ("[cluster]\nquorum_timeout = '500ms'", "cluster.quorum_timeout = 500ms: from 600ms"),
        ("[cluster]\nnode_lost_timeout = '500ms'", "cluster.node_lost_timeout = 500ms"),
        // The rest.
        ("[tls]\nca = 'a'", "tls.certificate is missing"),
        ("[tls]\ncertificate = 'a'", "tls.ca is missing"),
        ("[tls]\nca = 'a'\ncertificate = 'b'", "tls.key is missing"),
        ("[log]\nretain_bytes = '2GB'", "log.retain_bytes = 2GB: a size"),
        ("[log]\nretain_bytes = '1MiB'", "log.retain_bytes = 1MiB: from 64MiB"),
        ("[log]\nsegment_bytes = '1KiB'", "log.segment_bytes = 1KiB: from 4MiB to 1GiB"),
        ("[log]\nsnapshot_bytes = '5MiB'", "log.snapshot_bytes = 5MiB: from 64MiB"),
        ("[limits]\npermits = 0", "limits.permits = 0: from 1"),
        ("[limits]\nsession_in_flight = 2000", "limits.session_in_flight = 2000: from 1 to 1024"),
        ("[limits]\njournal_bytes = '1KiB'", "limits.journal_bytes = 1KiB: from 1MiB"),
        ("[telemetry]\nlog_format = 'xml'", "human or json"),
    ];
    for (text, words) in cases {
        let error = parse(text).unwrap_err();
        assert!(error.contains(words), "{text:?}\n  gives {error:?}\n  not   {words:?}");
    }
    // Doors may stand open with certificates.
    assert!(parse(&format!("[client]\nlisten = '0.0.0.0:7400'\n{tls}")).is_ok());
    let founded = "[cluster]\nexpect = 1\nseeds = ['a:1']\n";
    assert!(parse(&format!("{founded}{tls}")).is_ok());
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = NodeSettings::load(Some(Path::new("/nowhere/node.toml")), &RunFlags::default());
    assert!(error.unwrap_err().to_string().contains("cannot read /nowhere/node.toml"));
}
