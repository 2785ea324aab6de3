//! Sessions: who gets one, and how it outlives its connections.

use quorate::client::{ClientConfig, ConnectFailed, Value};
use quorate::domain::command::Command;
use quorate::domain::id::Position;
use quorate::domain::topic::specification::{Specification, TopicType};
use quorate::protocol::delivery::{Event, EventMessage};
use quorate::protocol::handshake::{Credentials, Resume, Verdict};
use quorate::protocol::record::Target;
use quorate::protocol::{ClientMessage, ErrorCode, ServerMessage, kind};

use crate::harness::{Node, PATIENCE, path, soon};
use crate::hostile::Raw;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_are_refused_by_name() {
    let node = Node::start().await;
    for (principal, password) in [("admin", "wrong"), ("nobody", "wrong"), ("", "")] {
        let refused = node.try_client(|config| config.password(principal, password)).await;
        let Err(ConnectFailed::Refused { code, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(code, ErrorCode::BadCredentials, "{principal}");
    }
    let anonymous =
        |config: ClientConfig| ClientConfig { credentials: Credentials::Anonymous, ..config };
    let refused = node.try_client(anonymous).await;
    let Err(ConnectFailed::Refused { code, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(code, ErrorCode::AnonymousRefused);
    let set = Command::SetAnonymous { allowed: true };
    soon(node.replication.propose(&set, PATIENCE)).await.unwrap();
    let nobody = node.try_client(anonymous).await.unwrap();
    assert_eq!(nobody.session_info().await.unwrap().roles, ["ANONYMOUS"]);
    nobody.close().await;
    let admin = node.try_client(|config| config).await.unwrap();
    let info = admin.session_info().await.unwrap();
    assert_eq!(info.principal, "admin");
    assert_eq!(info.session, admin.session());
    admin.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_session_takes_its_place_and_goes_on_with_its_numbers() {
    let node = Node::start().await;
    let writer = node.client().await;
    writer.add_topic(&path("r"), &Specification::plain(TopicType::String)).await.unwrap();

    let mut first = Raw::connect(&node).await;
    let welcome = first.welcome(&node.hello()).await;
    assert_eq!((welcome.epoch, welcome.last_request), (1, 0));
    first.send(&first.select(1, ">r")).await;
    first.until(|message| matches!(message, ServerMessage::Acknowledged(_))).await;

    // A second connection takes the session over; the first is told so.
    let mut second = Raw::connect(&node).await;
    let mut hello = node.hello();
    hello.resume = Some(Resume {
        session: welcome.session,
        secret: welcome.secret,
        lineage: welcome.lineage,
        position: None,
        initial_missing: false,
        seen: None,
        replaying: false,
    });
    let resumed = second.welcome(&hello).await;
    assert_eq!((resumed.session, resumed.epoch), (welcome.session, 2));
    assert_eq!(resumed.last_request, 1);
    assert!(matches!(resumed.verdict, Verdict::Reset { .. }), "{:?}", resumed.verdict);
    let closed = first.until(|message| matches!(message, ServerMessage::Close { .. })).await;
    assert!(matches!(closed, ServerMessage::Close { code: ErrorCode::TakenOver, .. }));

    // The number that was applied already is answered again, and not applied again.
    second.send(&second.select(1, ">r")).await;
    second.until(|message| matches!(message, ServerMessage::Acknowledged(_))).await;

    // The old secret opened the session once; now the new one does, and a wrong one never.
    let mut third = Raw::connect(&node).await;
    if let Some(resume) = &mut hello.resume {
        resume.secret = [9; 32];
    }
    let refused = third.refused(&hello).await;
    assert_eq!(refused.code, ErrorCode::WrongSecret.number());
    if let Some(resume) = &mut hello.resume {
        resume.session = quorate::domain::id::SessionId(77);
    }
    let refused = Raw::connect(&node).await.refused(&hello).await;
    assert_eq!(refused.code, ErrorCode::NoSuchSession.number());
    writer.set(&path("r"), Value::String("on")).await.unwrap();
    writer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_detaches_its_session() {
    let node = Node::start().await;
    let mut raw = Raw::connect(&node).await;
    let welcome = raw.welcome(&node.hello()).await;
    assert_eq!(node.gateway.sessions(), 1);
    raw.cut();
    let mut applied = node.replication.journal().applied();
    let detached = applied.wait_for(|_| {
        let view = node.replication.view();
        view.session(welcome.session).is_some_and(|session| session.detached_at_ms().is_some())
    });
    soon(detached).await.unwrap();
    assert_eq!(node.gateway.sessions(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_cut_again_and_again_hears_every_event_once() {
    const COUNT: u64 = 3_500;
    let node = Node::start().await;
    let writer = node.client().await;
    let off = Specification::new(TopicType::Int64, [("CONFLATION", "off")]).unwrap();
    let topic = writer.add_topic(&path("r"), &off).await.unwrap().topic;
    let mut raw = Raw::connect(&node).await;
    let mut hello = node.hello();
    let mut welcome = raw.welcome(&hello).await;
    raw.send(&raw.select(1, ">r")).await;
    raw.until(|message| matches!(message, ServerMessage::Acknowledged(_))).await;

    let publish = async {
        let (mut publisher, mut answers) = writer.publisher(32);
        let mut taken = Vec::new();
        for number in 1..=COUNT {
            while publisher.is_full() {
                soon(answers.next_into(&mut taken)).await;
                taken.clear();
            }
            let value = Value::Int64(i64::try_from(number).unwrap());
            soon(publisher.send(&Target::Topic(topic), value, 0)).await.unwrap();
        }
    };
    let read = async {
        let (mut heard, mut newest, mut complete) = (0, Position::START, None);
        let mut connections = 0;
        while heard < COUNT {
            connections += 1;
            let mut events = raw.events().await;
            for frames in 1.. {
                let frame = soon(events.next()).await.unwrap().unwrap();
                let frame_kind = frame.kind;
                let message = EventMessage::decode(frame.kind, frame.body).unwrap();
                let EventMessage::Event { position, last, event } = message else { panic!() };
                match event {
                    Event::Value { value: Some(value), .. } if position > newest => {
                        heard += 1;
                        assert_eq!(value[..], heard.to_le_bytes(), "at {position}");
                    }
                    Event::Value { .. } | Event::Initial { .. } | Event::Progress => {}
                    other => panic!("{other:?}"),
                }
                newest = newest.max(position);
                if last || frame_kind == kind::PROGRESS {
                    complete = Some(position);
                }
                if heard == COUNT || frames % 700 == 0 {
                    break;
                }
            }
            raw.cut();
            raw = Raw::connect(&node).await;
            hello.resume = Some(Resume {
                session: welcome.session,
                secret: welcome.secret,
                lineage: welcome.lineage,
                position: complete,
                initial_missing: false,
                seen: None,
                replaying: false,
            });
            welcome = raw.welcome(&hello).await;
            let position = complete.unwrap();
            assert_eq!(welcome.verdict, Verdict::Continuous { position });
        }
        connections
    };
    let ((), connections) = tokio::join!(publish, read);
    assert!(connections > 3, "{connections}");
    writer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goodbye_ends_the_session() {
    let node = Node::start().await;
    let mut raw = Raw::connect(&node).await;
    let welcome = raw.welcome(&node.hello()).await;
    raw.send(&ClientMessage::Goodbye).await;
    let closed = raw.until(|message| matches!(message, ServerMessage::Close { .. })).await;
    assert!(matches!(closed, ServerMessage::Close { code: ErrorCode::None, .. }));
    let mut hello = node.hello();
    hello.resume = Some(Resume {
        session: welcome.session,
        secret: welcome.secret,
        lineage: welcome.lineage,
        position: None,
        initial_missing: false,
        seen: None,
        replaying: false,
    });
    // The word of the end travels through the log.
    loop {
        let mut again = Raw::connect(&node).await;
        match soon(again.hello(&hello)).await {
            ServerMessage::Refused(refused) => {
                assert_eq!(refused.code, ErrorCode::NoSuchSession.number());
                return;
            }
            ServerMessage::Welcome(welcome) => {
                if let Some(resume) = &mut hello.resume {
                    resume.secret = welcome.secret;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}
