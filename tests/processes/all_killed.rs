//! Everything dies at once, and is started again in any order.

use std::time::Duration;

use super::harness::{Cluster, Workload, is_full, say, wait};

const ORDERS: [[&str; 3]; 6] = [
    ["n1", "n2", "n3"],
    ["n3", "n1", "n2"],
    ["n1", "n3", "n2"],
    ["n2", "n1", "n3"],
    ["n2", "n3", "n1"],
    ["n3", "n2", "n1"],
];

#[test]
fn the_loader_finishes_after_all_nodes_died() {
    let orders = if is_full() { &ORDERS[..] } else { &ORDERS[..2] };
    for order in orders {
        let dir = tempfile::tempdir().unwrap();
        let workload = Workload::flights(dir.path(), 8_000);
        let mut cluster = Cluster::start(dir.path(), &["--no-restart"]);
        let watchers = ["n1", "n2", "n3"].map(|node| cluster.watch(node, "?.*//"));
        let rate = if is_full() { "4000" } else { "1500" };
        let loader = cluster.load(&workload, &["--rate", rate]);
        let goal = workload.events() / 2;
        let moved =
            wait(Duration::from_secs(60), || (watchers[0].events().len() >= goal).then_some(()));
        assert!(moved.is_some(), "the stream stands still\n{}", cluster.logs());
        for node in order {
            cluster.kill(node);
        }
        for node in order {
            cluster.run_node(node);
        }
        let report = loader.finish(&cluster);
        say(&format!("{order:?}: {report}"));
        assert_eq!(report["acknowledged"], workload.updates);
        for watcher in watchers {
            watcher.verify(&workload, &cluster);
        }
        cluster.converge();
    }
}
