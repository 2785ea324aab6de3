//! A single node's disk has lost what nobody else has: what the operator is told, and what follows.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::harness::{BINARY, Owned, free_base_port, wait};

fn quorate(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).env("QUORATE_PROFILE", dir.join("client.toml"));
    command.stdin(Stdio::null()).output().unwrap()
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(output)))
}

/// Starts `quorate dev` with one node and waits until it is ready.
fn dev(dir: &Path, base_port: u16) -> Owned {
    let mut command = Command::new(BINARY);
    command.args(["dev", "--nodes", "1", "--base-port", &base_port.to_string(), "--dir"]).arg(dir);
    let child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let mut dev = Owned(child);
    let mut lines = BufReader::new(dev.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.by_ref().any(|line| line == "ready"), "it did not become ready");
    std::thread::spawn(move || lines.for_each(drop));
    dev
}

fn end(mut dev: Owned) {
    let pid = dev.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = wait(Duration::from_secs(20), || dev.0.try_wait().ok().flatten());
    assert!(ended.is_some(), "it ends");
}

/// Flips one bit in the middle of the only segment.
fn damage(node: &Path) {
    let log = fs::read_dir(node.join("log")).unwrap().flatten().map(|file| file.path());
    let path = log.into_iter().find(|path| path.extension().is_some_and(|end| end == "seg"));
    let path = path.unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes[written * 2 / 3] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn the_operator_is_told_what_is_lost_and_clients_are_reset() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("cluster");
    let base_port = free_base_port();
    let running = dev(&dir, base_port);
    assert!(quorate(&dir, &["topics", "add", "kept", "json"]).status.success());
    for number in 1..=12 {
        let set = quorate(&dir, &["topics", "set", "kept", &number.to_string()]);
        assert!(set.status.success(), "{}", text(&set));
    }
    let status = json(&quorate(&dir, &["cluster", "status", "--json"]));
    let lineage = status["lineage"].as_str().unwrap().to_owned();
    end(running);
    let node = dir.join("n1");
    let name = node.to_str().unwrap();
    damage(&node);

    // It refuses, with everything that is needed to look at it and to go on.
    let error = File::create(dir.join("refused.log")).unwrap();
    let configuration = node.join("node.toml");
    let status = Command::new(BINARY)
        .args(["run", "--config"])
        .arg(&configuration)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(error)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(73));
    let told = fs::read_to_string(dir.join("refused.log")).unwrap();
    for word in ["hole in segment 1", "offset", "unreadable entry", "log repair --accept-loss"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    for looking in ["inspect", "verify"] {
        let looked = quorate(&dir, &["log", looking, name]);
        assert_eq!(looked.status.code(), Some(73), "{}", text(&looked));
        assert!(text(&looked).contains("log repair --accept-loss"), "{}", text(&looked));
    }
    // Not without the word.
    let refused = quorate(&dir, &["log", "repair", name]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));

    let dry = quorate(&dir, &["log", "repair", "--accept-loss", name, "--dry-run", "--json"]);
    assert_eq!(dry.status.code(), Some(0), "{}", text(&dry));
    let dry = json(&dry);
    assert_eq!(dry["lineage"], Value::Null);
    let lost = dry["parts"][0]["lost"].clone();
    let (from, end_of_loss) = (lost["from"].as_u64().unwrap(), lost["end"].as_u64().unwrap());
    assert!(from < end_of_loss, "{dry}");
    let still = quorate(&dir, &["log", "verify", name]);
    assert_eq!(still.status.code(), Some(73), "a dry run changes nothing");

    let done = quorate(&dir, &["log", "repair", "--accept-loss", name]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    let said = text(&done);
    for word in ["hole in segment 1", &format!("lost: entries {from} to"), "kept aside", "lineage"]
    {
        assert!(said.contains(word), "{word}: {said}");
    }
    let again = quorate(&dir, &["log", "repair", "--accept-loss", name, "--json"]);
    assert_eq!(json(&again)["damaged"], false);

    // It serves again; a position of the old lineage is answered with a reset, never with silence.
    let running = dev(&dir, base_port);
    let kept = quorate(&dir, &["topics", "get", "kept"]);
    assert!(kept.status.success(), "{}", text(&kept));
    let status = json(&quorate(&dir, &["cluster", "status", "--json"]));
    assert_ne!(status["lineage"].as_str().unwrap(), lineage);
    let from = format!("{lineage}:{}.0", end_of_loss - 1);
    let told = dir.join("watch.ndjson");
    let mut watch = Command::new(BINARY);
    watch.args(["topics", "watch", "--json", "--from", &from, "kept"]);
    watch.env("QUORATE_PROFILE", dir.join("client.toml")).stdin(Stdio::null());
    watch.stdout(File::create(&told).unwrap()).stderr(Stdio::null());
    let watching = Owned(watch.spawn().unwrap());
    let reset = wait(Duration::from_secs(20), || {
        let text = fs::read_to_string(&told).unwrap();
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.into_iter().find(|event| event["kind"] == "reset")
    });
    let reset = reset.unwrap_or_else(|| panic!("{}", fs::read_to_string(&told).unwrap()));
    assert_eq!(reset["reason"], "other-lineage", "{reset}");
    drop(watching);
    let repaired = quorate(&dir, &["log", "repair", "--accept-loss", name]);
    assert_eq!(
        repaired.status.code(),
        Some(1),
        "a running node is left alone: {}",
        text(&repaired)
    );
    end(running);
}
