//! A real stream through a cluster, watched on every node.

use super::harness::{Cluster, Workload, say};

#[test]
fn three_watchers_see_every_change_and_the_nodes_agree() {
    let dir = tempfile::tempdir().unwrap();
    let workload = Workload::flights(dir.path(), 12_000);
    let cluster = Cluster::start(dir.path(), &[]);
    let watchers = ["n1", "n2", "n3"].map(|node| cluster.watch(node, "?.*//"));
    let report = cluster.load(&workload, &[]).finish(&cluster);
    say(&report.to_string());
    assert_eq!(report["acknowledged"], workload.updates);
    assert_eq!(report["sent"], workload.updates);
    for watcher in watchers {
        watcher.verify(&workload, &cluster);
    }
    let status = cluster.converge();
    for node in status["nodes"].as_array().unwrap() {
        assert_eq!(node["topics"], workload.changes.len());
    }
    for node in ["n1", "n2", "n3"] {
        let values = cluster.values(node);
        assert_eq!(values.len(), workload.changes.len());
        for (topic, changes) in &workload.changes {
            assert_eq!(values.get(topic), changes.last(), "{topic} on {node}");
        }
    }
}
