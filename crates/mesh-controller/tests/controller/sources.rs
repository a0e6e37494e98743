use mesh_control::Expect;
use mesh_controller::Running;
use mesh_inventory::roster::{Roster, Signer};
use mesh_wire::control::{Notice, Reply, Request};

use crate::{fleet::*, node::*};

const TWO: Machines<'static> = &[("electrum", 2, true), ("galena", 3, true)];
const ONE: Machines<'static> = &[("electrum", 2, true)];

/// A configuration of a controller that signs `inventory.json`.
fn signing(dir: &std::path::Path) -> mesh_controller::Config {
    let mut config = config(dir, "inventory = 'inventory.json'");
    config.signers = vec![Signer::from(identity(CONTROLLER).public())];
    config
}

fn write_inventory(dir: &std::path::Path, machines: Machines<'_>) {
    let text = inventory_of(machines, CONTROLLER).to_string();
    mesh_os::file::write_atomic(&dir.join("inventory.json"), text.as_bytes(), 0o644).unwrap();
}

async fn roster_of(client: &TestClient) -> Roster {
    let (_, file) = client
        .ask_for_file(&Request::Roster { have: None }, &[])
        .await;
    let signers = [
        Signer::from(identity(CONTROLLER).public()),
        Signer::from(identity(ADMIN).public()),
    ];
    Roster::verify(&file, &network(), &signers).unwrap()
}

#[tokio::test]
async fn a_changed_inventory_is_signed_with_the_next_serial() {
    let dir = tempfile::tempdir().unwrap();
    write_inventory(dir.path(), TWO);
    let controller = TestController::run(signing(dir.path())).await;
    let electrum = controller.join(2, None).await;
    let galena = controller.join(3, None).await;
    let first = roster_of(&electrum).await;
    assert_eq!(first.head().serial, serial(1));
    assert_eq!(first.head().previous, None);

    write_inventory(dir.path(), ONE);
    assert!(matches!(galena.notice().await, Notice::Refused { .. }));
    assert_eq!(
        electrum.notice().await,
        Notice::Roster { serial: serial(2) }
    );
    let second = roster_of(&electrum).await;
    assert_eq!(second.head().previous, Some(first.head_hash()));
    assert!(second.head().time >= first.head().time);
    let status = controller.get("/v1/status").await;
    assert_eq!(status["roster"]["signed_by_controller"], true);
    assert_eq!(status["mode"], "inventory");
}

#[tokio::test]
async fn a_broken_inventory_changes_nothing_and_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    write_inventory(dir.path(), TWO);
    let controller = TestController::run(signing(dir.path())).await;
    let electrum = controller.join(2, None).await;
    let path = dir.path().join("inventory.json");
    for broken in ["{", "{\"version\": \"mesh/v1\"}", ""] {
        std::fs::write(&path, broken).unwrap();
        let status = controller
            .status_when(|status| status["problems"] != serde_json::json!([]))
            .await;
        assert_eq!(status["problems"][0]["what"], "inventory");
        assert_eq!(status["roster"]["serial"], 1);
        write_inventory(dir.path(), TWO);
        controller
            .status_when(|status| status["problems"] == serde_json::json!([]))
            .await;
    }
    // What says the same is not signed again.
    assert_eq!(roster_of(&electrum).await.head().serial, serial(1));
    assert_eq!(controller.get("/v1/status").await["counters"]["rosters"], 1);
}

#[tokio::test]
async fn a_controller_that_may_not_sign_does_not_start_with_an_inventory() {
    let dir = tempfile::tempdir().unwrap();
    write_inventory(dir.path(), TWO);
    let config = config(dir.path(), "inventory = 'inventory.json'");
    let error = Running::start(config).await.err().unwrap().to_string();
    assert!(error.contains("is not among `signers`"), "{error}");
}

#[tokio::test]
async fn a_reinstalled_signing_controller_goes_above_what_its_members_hold() {
    let dir = tempfile::tempdir().unwrap();
    write_inventory(dir.path(), TWO);
    let controller = TestController::run(signing(dir.path())).await;
    // A member that outlived the old state says so.
    let electrum = controller.join(2, Some(41)).await;
    assert_eq!(
        electrum.notice().await,
        Notice::Roster { serial: serial(42) }
    );
    // One that never heard of the old rosters is no reason, nor is one that got this one here.
    let galena = controller.join(3, None).await;
    roster_of(&galena).await;
    drop(galena);
    controller.join(3, Some(42)).await;
    assert_eq!(roster_of(&electrum).await.head().serial, serial(42));
}

#[tokio::test]
async fn a_reinstalled_signing_controller_tells_its_first_serial_from_an_old_one() {
    let dir = tempfile::tempdir().unwrap();
    write_inventory(dir.path(), TWO);
    let controller = TestController::run(signing(dir.path())).await;
    // One that holds what this controller signed, also after a restart, is no reason to sign again.
    let galena = controller.join(3, None).await;
    let head = roster_of(&galena).await.head_hash().to_string();
    controller.stop().await;
    let controller = TestController::run(signing(dir.path())).await;
    let galena = controller.connect(Some(3)).await;
    galena.hello_holding(3, Some(1), Some(head)).await;
    // Serial 1 of an earlier life is not the serial 1 that this controller signed.
    let electrum = controller.connect(Some(2)).await;
    let old = "ab".repeat(32);
    electrum.hello_holding(2, Some(1), Some(old)).await;
    assert_eq!(
        electrum.notice().await,
        Notice::Roster { serial: serial(2) }
    );
}

#[tokio::test]
async fn a_serial_that_nobody_can_have_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    write_inventory(dir.path(), TWO);
    let controller = TestController::run(signing(dir.path())).await;
    controller.join(2, Some(9_007_199_254_740_991)).await;
    let status = controller.get("/v1/status").await;
    assert_eq!(status["problems"][0]["what"], "serial");
    assert_eq!(status["roster"]["serial"], 1);
}

#[tokio::test]
async fn an_inventory_that_loses_over_half_of_its_members_waits_for_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let all = &[
        ("electrum", 2, true),
        ("galena", 3, true),
        ("pyrite", 4, true),
    ];
    write_inventory(dir.path(), all);
    let mut config = signing(dir.path());
    config.http_listen = Some("127.0.0.1:0".parse().unwrap());
    let controller = TestController::run(config).await;
    let galena = controller.join(3, None).await;
    write_inventory(dir.path(), &[]);
    let status = controller
        .status_when(|status| status["problems"] != serde_json::json!([]))
        .await;
    let problem = status["problems"][0]["problem"].as_str().unwrap();
    assert!(
        problem.contains("removes 3 of 4 members")
            && problem.contains("`mesh controller accept-shrink`"),
        "{problem}"
    );
    assert_eq!(status["roster"]["serial"], 1);
    // It is not confirmed over TCP, where anyone on this machine may ask.
    let stream = tokio::net::TcpStream::connect(controller.http.unwrap()).await;
    let refused = http_ask(stream.unwrap(), "POST", "/v1/accept-shrink").await;
    assert!(refused["error"].is_string(), "{refused}");

    // A word that comes when the file is whole again confirms nothing to come.
    write_inventory(dir.path(), all);
    let accepted = controller.post("/v1/accept-shrink").await;
    assert_eq!(accepted["serial"], 1, "{accepted}");
    write_inventory(dir.path(), &[]);
    controller
        .status_when(|status| status["problems"] != serde_json::json!([]))
        .await;
    let accepted = controller.post("/v1/accept-shrink").await;
    assert_eq!(
        accepted,
        serde_json::json!({"version": 1, "serial": 2, "members": 1})
    );
    assert!(matches!(galena.notice().await, Notice::Refused { .. }));
    let status = controller.get("/v1/status").await;
    assert_eq!(status["problems"], serde_json::json!([]));
}

#[tokio::test]
async fn a_controller_without_an_inventory_has_nothing_to_confirm() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("roster");
    std::fs::write(&path, roster(7, None, TWO).to_file()).unwrap();
    let controller = TestController::start(dir.path(), "roster = 'roster'").await;
    let reply = controller.post("/v1/accept-shrink").await;
    let error = reply["error"].as_str().unwrap();
    assert!(error.contains("watches no inventory"), "{error}");
}

#[tokio::test]
async fn a_pushed_roster_stays_until_the_inventory_changes() {
    let dir = tempfile::tempdir().unwrap();
    write_inventory(dir.path(), TWO);
    let mut config = signing(dir.path());
    config.signers.push(Signer::from(identity(ADMIN).public()));
    let controller = TestController::run(config.clone()).await;
    let electrum = controller.join(2, None).await;
    let first = roster_of(&electrum).await;
    controller.push_well(&roster(2, Some(&first), ONE)).await;
    assert_eq!(
        electrum.notice().await,
        Notice::Roster { serial: serial(2) }
    );
    controller.stop().await;

    let controller = TestController::run(config).await;
    let status = controller.get("/v1/status").await;
    assert_eq!(status["roster"]["serial"], 2);
    assert_eq!(status["roster"]["signed_by_controller"], false);
    write_inventory(dir.path(), &[("electrum", 2, true), ("galena", 9, true)]);
    controller
        .status_when(|status| status["roster"]["serial"] == 3)
        .await;
}

#[tokio::test]
async fn a_watched_roster_file_takes_effect_and_a_bad_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("roster");
    let first = roster(7, None, TWO);
    std::fs::write(&path, first.to_file()).unwrap();
    let controller = TestController::start(dir.path(), "roster = 'roster'").await;
    let electrum = controller.join(2, None).await;

    let stranger = signed_by(99, 8, Some(&first), ONE);
    for bad in [
        &b"{"[..],
        &stranger.to_file(),
        &roster(6, None, ONE).to_file(),
    ] {
        std::fs::write(&path, bad).unwrap();
        let status = controller
            .status_when(|status| status["problems"] != serde_json::json!([]))
            .await;
        assert_eq!(status["problems"][0]["what"], "roster");
        assert_eq!(status["roster"]["serial"], 7);
        std::fs::write(&path, first.to_file()).unwrap();
        controller
            .status_when(|status| status["problems"] == serde_json::json!([]))
            .await;
    }
    // The controller may have missed what lies between.
    std::fs::write(&path, roster(12, None, ONE).to_file()).unwrap();
    assert_eq!(
        electrum.notice().await,
        Notice::Roster { serial: serial(12) }
    );
}

#[tokio::test]
async fn a_missing_roster_file_is_a_problem_until_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let controller = TestController::start(dir.path(), "roster = 'roster'").await;
    let status = controller.get("/v1/status").await;
    assert_eq!(status["problems"][0]["what"], "roster");
    let path = dir.path().join("roster");
    mesh_os::file::write_atomic(&path, &roster(7, None, TWO).to_file(), 0o644).unwrap();
    controller
        .status_when(|status| status["roster"]["serial"] == 7)
        .await;
    controller.join(2, None).await;
}

#[tokio::test]
async fn a_member_with_a_newer_roster_than_the_controller_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("roster"), roster(7, None, TWO).to_file()).unwrap();
    let controller = TestController::start(dir.path(), "roster = 'roster'").await;
    let electrum = controller.join(2, Some(9)).await;
    let have = Some(serial(9));
    let reply = electrum.ask(&Request::Roster { have }, &[]).await;
    assert_eq!(reply, Reply::UpToDate);
    let status = controller.get("/v1/status").await;
    let problem = status["problems"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("push the newer roster"), "{problem}");
}

#[tokio::test]
async fn a_member_with_another_roster_of_the_same_serial_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("roster"), roster(7, None, TWO).to_file()).unwrap();
    let controller = TestController::start(dir.path(), "roster = 'roster'").await;
    let electrum = controller.connect(Some(2)).await;
    let other = roster(7, None, ONE).head_hash().to_string();
    electrum.hello_holding(2, Some(7), Some(other)).await;
    let status = controller.get("/v1/status").await;
    let problem = status["problems"][0]["problem"].as_str().unwrap();
    assert!(
        problem.contains("another roster with serial 7"),
        "{problem}"
    );
}

#[tokio::test]
async fn the_json_api_is_served_over_tcp_where_configured() {
    let dir = tempfile::tempdir().unwrap();
    let controller = TestController::start(dir.path(), "http_listen = '127.0.0.1:0'").await;
    let stream = tokio::net::TcpStream::connect(controller.http.unwrap()).await;
    let status = http_get(stream.unwrap(), "/v1/status").await;
    assert_eq!(status["version"], 1);
    assert_eq!(status["network"], network().to_string());
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let first = TestController::start(dir.path(), "").await;
    let other = tempfile::tempdir().unwrap();
    let mut config = config(other.path(), "");
    config.listen = first.address;
    let error = Running::start(config).await.err().unwrap().to_string();
    let port = format!("UDP port {} is in use by", first.address.port());
    assert!(
        error.to_lowercase().contains(&port.to_lowercase()),
        "{error}"
    );
}

#[tokio::test]
async fn a_client_that_expects_another_controller_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let controller = TestController::start(dir.path(), "").await;
    let expected = Expect::OneOf(vec![identity(50).public().node_id()]);
    let refused = mesh_control::connect_to(&[controller.address], None, expected).await;
    assert!(refused.is_err());
}
