//! The leader dies under load, three times.

use std::time::{Duration, Instant};

use super::harness::{Cluster, Workload, say, wait};

/// How soon a watcher whose node was killed has to be served by another.
const MOVED_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn nothing_is_lost_or_doubled_when_leaders_die() {
    let dir = tempfile::tempdir().unwrap();
    let workload = Workload::flights(dir.path(), 30_000);
    let cluster = Cluster::start(dir.path(), &[]);
    let watchers = ["n1", "n2", "n3"].map(|node| cluster.watch(node, "?.*//"));
    let rate = if super::harness::is_full() { "4000" } else { "1500" };
    let loader = cluster.load(&workload, &["--rate", rate]);
    for round in 1..=3 {
        // Each kill waits until the stream has moved on.
        let goal = watchers[0].events().len() + workload.events() / 12;
        let moved = wait(Duration::from_secs(60), || {
            (watchers.iter().map(|w| w.events().len()).max()? >= goal).then_some(())
        });
        assert!(moved.is_some(), "the stream stands still\n{}", cluster.logs());
        let leader = cluster.leader();
        let orphans: Vec<_> = watchers.iter().filter(|w| w.host() == leader).collect();
        assert!(round > 1 || !orphans.is_empty(), "nobody watches {leader}");
        let killed_at = Instant::now();
        cluster.kill(&leader);
        say(&format!("round {round}: killed {leader}"));
        for watcher in orphans {
            let took = watcher.moved_after(killed_at);
            let in_time = took.is_some_and(|took| took <= MOVED_WITHIN);
            assert!(in_time, "a watcher of {leader} moved after {took:?}\n{}", cluster.logs());
            say(&format!("round {round}: its watcher moved to {} in {took:?}", watcher.host()));
        }
        // All three must be there again before the next kill, or the quorum would be the question.
        cluster_of_three(&cluster, &leader);
    }
    let report = loader.finish(&cluster);
    say(&report.to_string());
    assert_eq!(report["acknowledged"], workload.updates);
    for watcher in watchers {
        watcher.verify(&workload, &cluster);
    }
    cluster.converge();
}

fn cluster_of_three(cluster: &Cluster, killed: &str) {
    let live = wait(Duration::from_secs(60), || {
        let status = cluster.status()?;
        (status["quorum"]["live"] == 3).then_some(())
    });
    assert!(live.is_some(), "{killed} did not come back\n{}", cluster.logs());
}
