//! Founding over real connections, and who is turned away.

use std::time::Duration;

use quorate::replication::StartError;
use quorate::supervisor::ExitCode;

use crate::stage::{PATIENCE, Stage, Writer, number, update};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_found_a_cluster_and_commit_through_every_node() {
    let mut stage = Stage::three().await;
    let members: Vec<_> = stage.up.values().map(|up| up.node.member().clone()).collect();
    assert!(members.iter().all(|one| one.cluster == members[0].cluster));
    for (place, node) in ["n1", "n2", "n3"].into_iter().enumerate() {
        let mut writer = Writer::open(stage.node(node), 100 + place as u64).await;
        let topic = writer.add_topic(node).await;
        writer.ask(&update(topic, 5)).await;
    }
    stage.settle().await;
    for node in ["n1", "n2", "n3"] {
        for topic in ["n1", "n2", "n3"] {
            assert_eq!(number(stage.node(node), topic), Some(5));
        }
    }
    let status = stage.node("n2").status(PATIENCE).await;
    assert_eq!((status.voters, status.needed, status.live), (3, 2, 3));
    assert_eq!(status.cluster_id, members[0].cluster);
    let hashes: Vec<_> = status.nodes.iter().map(|node| node.state_hash.unwrap()).collect();
    assert!(status.hash_index.is_some() && hashes.iter().all(|hash| *hash == hashes[0]));
    assert_eq!(
        status.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(),
        ["n1", "n2", "n3"]
    );
    assert!(status.leader.is_some());
    let read = stage.node(&stage.follower().await).read_index(PATIENCE).await.unwrap();
    assert!(read >= status.hash_index.unwrap());
    stage.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_directory_does_not_take_a_members_place() {
    let mut stage = Stage::three().await;
    stage.stop("n3").await;
    let empty = stage.dir_of("other");
    let refused = tokio::time::timeout(PATIENCE, stage.try_start("n3", empty)).await.unwrap();
    let Err(error) = refused else { panic!("an empty node has joined") };
    assert!(matches!(error, StartError::Founding(_)), "{error}");
    assert_eq!(error.exit_code(), ExitCode::WRONG_CLUSTER);
    // The member itself is welcome.
    stage.start(&["n3"]).await;
    stage.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_another_cluster_is_turned_away_with_78() {
    let mut theirs = Stage::three().await;
    theirs.stop_all().await;
    let mut ours = Stage::three().await;
    ours.stop("n3").await;
    // Under our authority and with our seeds, but with the directory of another cluster.
    let stranger = ours.try_start("n3", theirs.dir_of("n3")).await.unwrap();
    let exit = tokio::time::timeout(PATIENCE, stranger.supervisor.exit_requested()).await.unwrap();
    assert_eq!(exit.code, ExitCode::WRONG_CLUSTER, "{exit}");
    stranger.node.stop(Duration::from_millis(100)).await;
    drop(stranger);
    assert!(ours.up.values().all(|up| up.supervisor.exit().is_none()));
    ours.start(&["n3"]).await;
    ours.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_under_another_name_is_refused() {
    let mut stage = Stage::three().await;
    stage.stop_all().await;
    let refused = stage.try_start("n4", stage.dir_of("n3")).await;
    let Err(error) = refused else { panic!("a node has taken another's directory") };
    assert!(matches!(error, StartError::NotAFounder { .. }), "{error}");
    assert_eq!(error.exit_code(), ExitCode::WRONG_CLUSTER);
}
