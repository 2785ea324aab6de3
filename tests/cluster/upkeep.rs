//! What the cluster does by itself: sessions of a lost node, expiry in log time, handing over.

use quorate::domain::id::SessionId;
use quorate::domain::session::lifecycle::SessionState;

use crate::stage::{PATIENCE, Stage, Writer, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_a_lost_node_are_detached_and_expire() {
    let mut stage = Stage::three().await;
    let lost = stage.follower().await;
    let session = SessionId(77);
    let _writer = Writer::open_for(stage.node(&lost), session.0, 300).await;
    let leader = stage.leader().await;
    stage.settle().await;
    let node = stage.node(&leader).clone();
    assert_eq!(node.view().session(session).unwrap().state(), SessionState::Active);
    stage.stop(&lost).await;
    until("the session is detached, then gone", || node.view().session(session).is_none()).await;
    // It was the log's doing: the same on the other node.
    stage.settle().await;
    assert!(stage.up.values().all(|up| up.node.view().session(session).is_none()));
    stage.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_run_of_a_node_detaches_the_sessions_of_the_last_one() {
    let mut stage = Stage::new(1, &["n1"]);
    stage.start_all().await;
    let session = SessionId(5);
    let _writer = Writer::open(stage.node("n1"), session.0).await;
    stage.stop_all().await;
    stage.start_all().await;
    let view = stage.node("n1").view();
    let state = view.session(session).unwrap().state();
    assert!(matches!(state, SessionState::Detached { .. }), "{state:?}");
    assert_eq!(stage.node("n1").member().incarnation, 2);
    stage.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_in_one_step() {
    let mut stage = Stage::three().await;
    let leader = stage.leader().await;
    assert!(stage.node(&leader).hand_over(PATIENCE).await);
    until("another leads", || {
        let named = stage.node(&leader).leader();
        named.is_some_and(|name| name.as_str() != leader)
    })
    .await;
    let next = stage.leader().await;
    let mut writer = Writer::open(stage.node(&leader), 7).await;
    writer.add_topic("through the new one").await;
    assert_ne!(next, leader);
    stage.stop_all().await;
}
