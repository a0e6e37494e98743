use std::time::{Duration, Instant};

use mesh_control::{CloseCode, Closed};
use mesh_inventory::roster::Roster;
use mesh_wire::control::{ErrorCode, Notice, Reply, Request};

use crate::{fleet::*, node::*};

const FLEET: Machines<'static> = &[
    ("electrum", 2, true),
    ("galena", 3, true),
    ("scheelite", 4, false),
];

/// A controller with [`FLEET`] in force, at serial 7.
async fn serving(dir: &std::path::Path) -> (TestController, Roster) {
    let roster = roster(7, None, FLEET);
    std::fs::write(dir.join("roster"), roster.to_file()).unwrap();
    let controller = TestController::start(dir, "roster = 'roster'").await;
    (controller, roster)
}

#[tokio::test]
async fn members_are_admitted_by_key_and_get_the_roster() {
    let dir = tempfile::tempdir().unwrap();
    let (controller, roster) = serving(dir.path()).await;
    let client = controller.connect(Some(2)).await;
    let Reply::Welcome {
        name,
        serial: in_force,
        time_millis,
        observed,
    } = client.hello(2, None).await
    else {
        panic!("not welcome");
    };
    assert_eq!(name.as_str(), "electrum");
    assert_eq!(in_force, serial(7));
    assert!(time_millis > 1_700_000_000_000);
    assert_eq!(observed.port(), client.connection.local_port().unwrap());

    let (reply, file) = client
        .ask_for_file(&Request::Roster { have: None }, &[])
        .await;
    assert_eq!(reply, Reply::Roster { serial: serial(7) });
    assert_eq!(file, roster.to_file());
    let have = Some(serial(7));
    assert_eq!(
        client.ask(&Request::Roster { have }, &[]).await,
        Reply::UpToDate
    );
    let status = controller.get("/v1/status").await;
    assert_eq!(status["machines"][1]["name"], "electrum");
    assert_eq!(status["machines"][1]["online"], true);
    assert_eq!(status["machines"][2]["online"], false);
    assert_eq!(status["roster"]["serial"], 7);
    assert_eq!(status["problems"], serde_json::json!([]));
}

#[tokio::test]
async fn strangers_are_refused_with_a_reason_and_listed() {
    let dir = tempfile::tempdir().unwrap();
    let (controller, _) = serving(dir.path()).await;
    for _ in 0..2 {
        let stranger = controller.connect(Some(99)).await;
        let reply = stranger.hello(99, None).await;
        let reason = "this key is not in the roster (serial 7)".to_owned();
        assert_eq!(
            reply,
            Reply::Refused {
                reason: reason.clone()
            }
        );
        assert_eq!(
            stranger.closed().await,
            Closed::ByPeer {
                code: CloseCode::NotAdmitted,
                reason
            }
        );
    }
    let pending = controller.get("/v1/pending").await;
    assert_eq!(pending["pending"].as_array().unwrap().len(), 1);
    let key = &pending["pending"][0];
    assert_eq!(key["key"], identity(99).public().to_string());
    assert_eq!(key["name"], "claims-99");
    assert_eq!(key["attempts"], 2);
    assert!(key["source"].as_str().unwrap().starts_with("127.0.0.1:"));
    let audit = controller.get("/v1/audit").await;
    let refused = audit["entries"].as_array().unwrap();
    let refused = refused.iter().filter(|entry| entry["event"] == "refused");
    assert_eq!(refused.count(), 1, "one entry stands for both");
    assert_eq!(controller.get("/v1/status").await["counters"]["refused"], 2);
}

#[tokio::test]
async fn a_machine_that_is_switched_off_is_refused_and_not_pending() {
    let dir = tempfile::tempdir().unwrap();
    let (controller, _) = serving(dir.path()).await;
    let off = controller.connect(Some(4)).await;
    let reason = "`scheelite` is switched off in the roster (serial 7)".to_owned();
    assert_eq!(off.hello(4, None).await, Reply::Refused { reason });
    let pending = controller.get("/v1/pending").await;
    assert_eq!(pending["pending"], serde_json::json!([]));
}

#[tokio::test]
async fn nobody_borrows_an_identity() {
    let dir = tempfile::tempdir().unwrap();
    let (controller, _) = serving(dir.path()).await;
    for own in [Some(99), Some(3), None] {
        let thief = controller.connect(own).await;
        let reply = thief.hello(2, None).await;
        assert!(matches!(reply, Reply::Refused { .. }), "{reply:?}");
    }
    let pending = controller.get("/v1/pending").await;
    assert_eq!(pending["pending"], serde_json::json!([]));
}

#[tokio::test]
async fn whoever_is_not_admitted_is_told_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (controller, _) = serving(dir.path()).await;
    for number in [Some(99), Some(2), None] {
        let client = controller.connect(number).await;
        for request in [
            Request::Roster { have: None },
            Request::Report { endpoints: vec![] },
            Request::Endpoints {
                peer: "galena".parse().unwrap(),
            },
        ] {
            let reply = client.ask(&request, &[]).await;
            assert_error(reply, ErrorCode::NotAdmitted, "only an admitted machine");
        }
    }
}

#[tokio::test]
async fn peers_are_introduced_with_what_the_controller_sees() {
    let dir = tempfile::tempdir().unwrap();
    let (controller, _) = serving(dir.path()).await;
    let electrum = controller.join(2, None).await;
    let ask = |peer: &str| Request::Endpoints {
        peer: peer.parse().unwrap(),
    };
    let offline = Reply::Endpoints {
        online: false,
        endpoints: vec![],
    };
    assert_eq!(electrum.ask(&ask("galena"), &[]).await, offline);
    assert_eq!(electrum.ask(&ask("unheard-of"), &[]).await, offline);

    let galena = controller.join(3, None).await;
    // Its own word first, then the address that the controller sees with the port of its word.
    let of = |number: u8| {
        vec![
            std::net::SocketAddr::from(([192, 0, 2, number], 4193)),
            std::net::SocketAddr::from(([127, 0, 0, 1], 4193)),
        ]
    };
    assert_eq!(
        electrum.ask(&ask("galena"), &[]).await,
        Reply::Endpoints {
            online: true,
            endpoints: of(3)
        }
    );
    assert_eq!(
        galena.notice().await,
        Notice::Introduce {
            peer: "electrum".parse().unwrap(),
            endpoints: of(2)
        }
    );

    // What nobody can send to, or lies inside the mesh, is passed over.
    let endpoints = [
        "[fdc3:582e:db61::1]:1",
        "0.0.0.0:2",
        "192.0.2.9:0",
        "192.0.2.9:7",
    ];
    let endpoints = endpoints.map(|text| text.parse().unwrap()).to_vec();
    let report = Request::Report { endpoints };
    assert_eq!(galena.ask(&report, &[]).await, Reply::Done);
    let reply = electrum.ask(&ask("galena"), &[]).await;
    let endpoints = ["192.0.2.9:7", "127.0.0.1:7"];
    let endpoints = endpoints.map(|text| text.parse().unwrap()).to_vec();
    assert_eq!(
        reply,
        Reply::Endpoints {
            online: true,
            endpoints
        }
    );
}

#[tokio::test]
async fn questions_are_limited() {
    let dir = tempfile::tempdir().unwrap();
    let (controller, _) = serving(dir.path()).await;
    let electrum = controller.join(2, None).await;
    let ask = Request::Report { endpoints: vec![] };
    let mut limited = None;
    for _ in 0..3000 {
        let reply = electrum.ask(&ask, &[]).await;
        if reply != Reply::Done {
            limited = Some(reply);
            break;
        }
    }
    assert_error(
        limited.unwrap(),
        ErrorCode::RateLimited,
        "too many questions",
    );
    // Others are not held up.
    let galena = controller.join(3, None).await;
    assert_eq!(galena.ask(&ask, &[]).await, Reply::Done);
}

#[tokio::test]
async fn a_node_that_connects_again_replaces_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (controller, _) = serving(dir.path()).await;
    let first = controller.join(2, None).await;
    let second = controller.join(2, None).await;
    let closed = first.closed().await;
    assert!(
        matches!(
            &closed,
            Closed::ByPeer {
                code: CloseCode::Replaced,
                ..
            }
        ),
        "{closed:?}"
    );
    let reply = second.ask(&Request::Roster { have: None }, &[]).await;
    assert!(matches!(reply, Reply::Roster { .. }));
    let online = |status: &serde_json::Value| status["machines"][1]["online"] == true;
    controller.status_when(online).await;
}

#[tokio::test]
async fn whoever_leaves_the_roster_is_cut_off_at_once_and_the_others_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (controller, first) = serving(dir.path()).await;
    let (electrum, galena) = (
        controller.join(2, None).await,
        controller.join(3, None).await,
    );
    // One is gone, one is switched off.
    let second = roster(
        8,
        Some(&first),
        &[("galena", 3, true), ("scheelite", 4, false)],
    );
    let third = roster(
        9,
        Some(&second),
        &[("galena", 3, false), ("scheelite", 4, true)],
    );

    let started = Instant::now();
    controller.push_well(&second).await;
    let reason = "this key is not in the roster (serial 8)".to_owned();
    assert_eq!(
        electrum.notice().await,
        Notice::Refused {
            reason: reason.clone()
        }
    );
    let code = CloseCode::NotAdmitted;
    assert_eq!(electrum.closed().await, Closed::ByPeer { code, reason });
    assert_eq!(galena.notice().await, Notice::Roster { serial: serial(8) });
    assert!(started.elapsed() < Duration::from_secs(1));

    controller.push_well(&third).await;
    let reason = "`galena` is switched off in the roster (serial 9)".to_owned();
    assert_eq!(galena.notice().await, Notice::Refused { reason });
    controller.join(4, None).await;
    let audit = controller.get("/v1/audit?limit=1000").await;
    let events: Vec<_> = audit["entries"].as_array().unwrap().iter().collect();
    let removed = events.iter().filter(|entry| entry["event"] == "removed");
    assert_eq!(removed.count(), 2);
}

#[tokio::test]
async fn unknown_questions_are_answered_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let (controller, _) = serving(dir.path()).await;
    let odd = controller.get("/v1/teleport").await;
    assert_eq!(odd["error"], "there is no such question");
}

#[tokio::test]
async fn many_strangers_are_bounded_and_members_still_get_in() {
    let dir = tempfile::tempdir().unwrap();
    let (controller, _) = serving(dir.path()).await;
    // Strangers of one address who connect and say nothing.
    let mut silent = Vec::new();
    for _ in 0..63 {
        silent.push(controller.connect(None).await);
    }
    controller.join(2, None).await;
    silent.push(controller.connect(None).await);
    let key = identity(CONTROLLER).public().node_id();
    let expected = mesh_control::Expect::OneOf(vec![key]);
    let refused = mesh_control::connect_to(&[controller.address], None, expected).await;
    assert!(refused.is_err());
    // Room comes back as they leave.
    drop(silent);
    let joined = async {
        loop {
            let expected = mesh_control::Expect::OneOf(vec![key]);
            let seed = identity(3);
            match mesh_control::connect_to(&[controller.address], Some(&seed), expected).await {
                Ok(connection) => return TestClient { connection },
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let client = tokio::time::timeout(DEADLINE, joined).await.unwrap();
    let reply = client.hello(3, None).await;
    assert!(matches!(reply, Reply::Welcome { .. }));
}
