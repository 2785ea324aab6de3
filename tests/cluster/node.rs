//! The whole node by its settings, as `quorate run` starts it.

use std::path::Path;
use std::time::Duration;

use quorate::config::{NodeSettings, RunFlags};
use quorate::node::{Node, NodeError};
use quorate::supervisor::ExitCode;
use quorate::transport::certificate::{self, make_ca, make_node};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::stage::PATIENCE;

fn settings(dir: &Path) -> NodeSettings {
    let text = format!(
        "name = \"n1\"\ndir = {dir:?}\n[client]\nlisten = \"127.0.0.1:0\"\n\
         [peer]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nsegment_bytes = \"4MiB\"\n"
    );
    NodeSettings::parse(&text, &dir.join("node.toml"), &RunFlags::default()).unwrap()
}

async fn start(dir: &Path) -> Result<Node, NodeError> {
    tokio::time::timeout(PATIENCE, Node::start(settings(dir), None)).await.unwrap()
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_configuration_serves_and_stops_in_good_order() {
    let dir = tempfile::tempdir().unwrap();
    // An earlier first start ended while it made its certificates.
    std::fs::create_dir(dir.path().join("tls.new")).unwrap();
    std::fs::write(dir.path().join("tls.new/ca.key"), "half").unwrap();
    let node = start(dir.path()).await.unwrap();
    // Drawn by the founding, once.
    let password = node.generated_password().unwrap().to_owned();
    assert!(password.len() >= 20);
    let ports = std::fs::read_to_string(dir.path().join("ports.json")).unwrap();
    assert!(ports.contains(&node.doors().client.to_string()), "{ports}");
    let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
    assert_eq!(pid.trim(), std::process::id().to_string());
    assert!(matches!(start(dir.path()).await, Err(NodeError::DirectoryInUse { .. })));
    let deadline = tokio::time::sleep(PATIENCE);
    tokio::pin!(deadline);
    loop {
        let ready = get(node.doors().http, "/ready").await;
        if ready.starts_with("HTTP/1.1 200") {
            break;
        }
        tokio::select! {
            () = &mut deadline => panic!("never ready: {ready}"),
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
    }
    let status = get(node.doors().http, "/status").await;
    assert!(status.contains("\"leader\":\"n1\""), "{status}");
    assert!(get(node.doors().http, "/safe-to-stop").await.starts_with("HTTP/1.1 503"));
    let exit = node.run_until_stopped(std::future::ready(())).await;
    assert_eq!(exit.code, ExitCode::DONE, "{exit}");
    assert!(!dir.path().join("pid").exists() && !dir.path().join("ports.json").exists());
    let again = start(dir.path()).await.unwrap();
    assert_eq!(again.generated_password(), None, "the password was told once");
    assert_eq!(again.run_until_stopped(std::future::ready(())).await.code, ExitCode::DONE);
}

/// Two nodes that found a cluster together and end when they lose sight of the quorum.
fn pair(dir: &Path, ports: [u16; 2]) -> [NodeSettings; 2] {
    let ca = make_ca("test").unwrap();
    let (ca_file, ca_key) = certificate::paths(dir, "ca");
    ca.store(&ca_file, &ca_key).unwrap();
    ["n1", "n2"].map(|name| {
        let (file, key) = certificate::paths(dir, name);
        make_node(&ca, &crate::stage::name(name), &[]).unwrap().store(&file, &key).unwrap();
        let own = if name == "n1" { ports[0] } else { ports[1] };
        let text = format!(
            "name = \"{name}\"\ndir = \"{name}\"\n[client]\nlisten = \"127.0.0.1:0\"\n\
             [peer]\nlisten = \"127.0.0.1:{own}\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
             [cluster]\nseeds = [\"127.0.0.1:{}\", \"127.0.0.1:{}\"]\nexpect = 2\n\
             on_quorum_loss = \"shutdown\"\n[log]\nsegment_bytes = \"4MiB\"\n\
             [tls]\nca = {ca_file:?}\ncertificate = {file:?}\nkey = {key:?}\n",
            ports[0], ports[1]
        );
        NodeSettings::parse(&text, &dir.join("node.toml"), &RunFlags::default()).unwrap()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_to_shut_down_without_a_quorum_does_so_once_it_had_one() {
    let dir = tempfile::tempdir().unwrap();
    let ports = {
        let sockets = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        sockets.map(|socket| socket.local_addr().unwrap().port())
    };
    let [first, second] = pair(dir.path(), ports);
    let both = async {
        tokio::try_join!(Node::start(first.clone(), None), Node::start(second, None)).unwrap()
    };
    let (first_node, second_node) =
        tokio::time::timeout(PATIENCE * 3, Box::pin(both)).await.unwrap();
    let running = first_node.run_until_stopped(std::future::pending());
    let ending = second_node.run_until_stopped(std::future::ready(()));
    let both = async { tokio::join!(running, ending) };
    // Both drain: on a busy machine that takes all the patience that each part has.
    let (exit, stopped) = tokio::time::timeout(PATIENCE * 3, Box::pin(both)).await.unwrap();
    assert_eq!(stopped.code, ExitCode::DONE, "{stopped}");
    assert_eq!(exit.code, ExitCode::QUORUM_LOST, "{exit}");
    // Not armed before a quorum was met: alone it waits for the other.
    let free = || std::net::UdpSocket::bind(("127.0.0.1", ports[0])).is_ok();
    crate::stage::until("the peer port is free", free).await;
    let alone = tokio::time::timeout(Duration::from_secs(2), Node::start(first, None)).await;
    assert!(alone.is_err(), "it neither serves nor ends");
}
