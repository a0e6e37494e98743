use mesh_inventory::roster::Roster;
use mesh_wire::control::{ErrorCode, Notice, Reply, Request};

use crate::{fleet::*, node::*};

const FLEET: Machines<'static> = &[
    ("electrum", 2, true),
    ("galena", 3, true),
    ("stibnite", 4, true),
    ("pyrite", 5, true),
];

/// A controller without inventory or roster that got [`FLEET`] at serial 7.
async fn pushed(dir: &std::path::Path) -> (TestController, Roster) {
    let controller = TestController::start(dir, "").await;
    let first = roster(7, None, FLEET);
    controller.push_well(&first).await;
    (controller, first)
}

#[tokio::test]
async fn an_empty_controller_waits_for_its_first_push() {
    let dir = tempfile::tempdir().unwrap();
    let controller = TestController::start(dir.path(), "").await;
    let early = controller.connect(Some(2)).await;
    let reason = "the controller has no roster yet".to_owned();
    assert_eq!(early.hello(2, None).await, Reply::Refused { reason });
    let status = controller.get("/v1/status").await;
    assert_eq!(status["roster"], serde_json::Value::Null);
    assert_eq!(status["mode"], "push");
    let pending = controller.get("/v1/pending").await;
    assert_eq!(pending["pending"].as_array().unwrap().len(), 1);

    let first = roster(7, None, FLEET);
    controller.push_well(&first).await;
    controller.join(2, None).await;
    let pending = controller.get("/v1/pending").await;
    assert_eq!(pending["pending"], serde_json::json!([]));
}

#[tokio::test]
async fn a_push_that_is_not_what_it_should_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (controller, first) = pushed(dir.path()).await;
    let member = controller.join(2, None).await;
    let refused = |roster: &Roster, words: &'static str| {
        let (file, controller) = (roster.to_file(), &controller);
        async move {
            let reply = controller.push(&file, true).await;
            assert_error(reply, ErrorCode::RosterRefused, words);
        }
    };
    refused(&roster(6, Some(&first), FLEET), "lower than 7").await;
    let stranger = signed_by(99, 8, Some(&first), FLEET);
    refused(&stranger, "none of the 1 trusted signers").await;
    let twin = roster(7, None, &FLEET[1..]);
    refused(&twin, "another roster with serial 7").await;

    let good = roster(8, Some(&first), FLEET);
    let text = String::from_utf8(good.to_file()).unwrap();
    for forged in [
        text.replace("\"serial\":8", "\"serial\":9"),
        text.replace("galena", "galenb"),
        text.replace("\"enabled\":true", "\"enabled\":false"),
        text.replace("\"name\":\"test\"", "\"name\":\"tset\""),
        text[..text.len() / 2].to_owned(),
        "garbage".to_owned(),
        String::new(),
    ] {
        let reply = controller.push(forged.as_bytes(), true).await;
        assert_error(reply, ErrorCode::RosterRefused, "");
    }
    // Whatever came, what is in force stayed, and nobody was told otherwise.
    let have = Some(serial(7));
    assert_eq!(
        member.ask(&Request::Roster { have }, &[]).await,
        Reply::UpToDate
    );
    controller.push_well(&good).await;
    assert_eq!(member.notice().await, Notice::Roster { serial: serial(8) });
    let audit = controller.get("/v1/audit?limit=1000").await;
    let entries = audit["entries"].as_array().unwrap();
    let refused = entries
        .iter()
        .filter(|entry| entry["event"] == "roster-refused");
    assert_eq!(refused.count(), 10);
    let accepted = entries
        .iter()
        .find(|entry| entry["event"] == "roster-accepted")
        .unwrap();
    assert_eq!(accepted["serial"], 8);
    assert_eq!(accepted["signer"], identity(ADMIN).public().to_string());
    assert!(
        accepted["by"]
            .as_str()
            .unwrap()
            .starts_with("push from 127.0.0.1:")
    );
}

#[tokio::test]
async fn what_an_admin_may_not_have_meant_needs_force() {
    let dir = tempfile::tempdir().unwrap();
    let (controller, first) = pushed(dir.path()).await;
    let elsewhere = roster(5, None, FLEET);
    for (roster, words) in [
        (roster(8, Some(&elsewhere), FLEET), "follows another roster"),
        (roster(8, None, FLEET), "names no predecessor"),
        (
            roster(8, Some(&first), &FLEET[..1]),
            "removes 3 of 5 members",
        ),
        (roster(2_000_000, Some(&first), FLEET), "over 1000000 above"),
    ] {
        let reply = controller.push(&roster.to_file(), false).await;
        assert_error(reply, ErrorCode::ForceNeeded, words);
    }
    let small = roster(8, None, &FLEET[..1]);
    let reply = controller.push(&small.to_file(), true).await;
    let accepted = Reply::Accepted {
        serial: serial(8),
        members: 2,
    };
    assert_eq!(reply, accepted);
    // The same again is no error, and no change.
    assert_eq!(controller.push(&small.to_file(), false).await, accepted);
}

#[tokio::test]
async fn a_push_that_is_too_large_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let (controller, _) = pushed(dir.path()).await;
    let client = controller.connect(None).await;
    let huge = vec![b' '; mesh_wire::control::ATTACHMENT_BYTES_MAX + 1];
    let request = Request::Push { force: true };
    // The client's own side refuses to send it; the frame's bound is tested where frames are.
    assert!(client.connection.request(&request, &huge).await.is_err());
    let large = vec![b' '; 1024 * 1024];
    let reply = controller.push(&large, true).await;
    assert_error(reply, ErrorCode::RosterRefused, "not a roster");
}

#[tokio::test]
async fn pushes_that_are_refused_are_limited_and_accepted_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let (controller, mut last) = pushed(dir.path()).await;
    for serial in 8..40 {
        last = roster(serial, Some(&last), FLEET);
        controller.push_well(&last).await;
    }
    let client = controller.connect(None).await;
    let mut limited = None;
    for _ in 0..100 {
        let reply = client.ask(&Request::Push { force: true }, b"garbage").await;
        let Reply::Error { code, .. } = &reply else {
            panic!("{reply:?}");
        };
        if *code == ErrorCode::RateLimited {
            limited = Some(reply);
            break;
        }
    }
    assert_error(limited.unwrap(), ErrorCode::RateLimited, "too many pushes");
}
