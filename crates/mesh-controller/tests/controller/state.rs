use mesh_control::{CloseCode, Closed};
use mesh_wire::control::{ErrorCode, Notice, Reply, Request};

use crate::{fleet::*, node::*};

const TWO: Machines<'static> = &[("electrum", 2, true), ("galena", 3, true)];

fn events(audit: &serde_json::Value) -> Vec<&str> {
    let entries = audit["entries"].as_array().unwrap();
    let events = entries.iter().map(|entry| entry["event"].as_str().unwrap());
    events.collect()
}

fn problems(status: &serde_json::Value) -> Vec<&str> {
    let problems = status["problems"].as_array().unwrap();
    let problems = problems.iter().map(|problem| problem["what"].as_str());
    problems.flatten().collect()
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let controller = TestController::start(dir.path(), "").await;
    let first = roster(7, None, TWO);
    controller.push_well(&first).await;
    let electrum = controller.join(2, None).await;
    controller.connect(Some(99)).await.hello(99, None).await;
    let before = controller.get("/v1/pending").await;
    controller.stop().await;
    let closed = electrum.closed().await;
    assert!(
        matches!(
            &closed,
            Closed::ByPeer {
                code: CloseCode::GoingAway,
                ..
            }
        ),
        "{closed:?}"
    );

    let controller = TestController::start(dir.path(), "").await;
    let status = controller.get("/v1/status").await;
    assert_eq!(status["roster"]["serial"], 7);
    assert_eq!(status["machines"][1]["name"], "electrum");
    assert!(status["machines"][1]["last_seen"].is_string());
    assert_eq!(status["machines"][1]["release"], "0.1.0");
    assert_eq!(status["problems"], serde_json::json!([]));
    let after = controller.get("/v1/pending").await;
    for field in ["key", "name", "source", "first_seen", "attempts"] {
        assert_eq!(after["pending"][0][field], before["pending"][0][field]);
    }
    let audit = controller.get("/v1/audit").await;
    assert_eq!(events(&audit), ["refused", "admitted", "roster-accepted"]);
    // The next roster follows the stored one.
    controller.push_well(&roster(8, Some(&first), TWO)).await;
}

#[tokio::test]
async fn a_controller_reinstalled_without_state_serves_on_from_its_roster_file() {
    let dir = tempfile::tempdir().unwrap();
    let first = roster(7, None, TWO);
    std::fs::write(dir.path().join("roster"), first.to_file()).unwrap();
    let controller = TestController::start(dir.path(), "roster = 'roster'").await;
    controller.join(2, None).await;
    controller.stop().await;
    std::fs::remove_dir_all(dir.path().join("state")).unwrap();

    let controller = TestController::start(dir.path(), "roster = 'roster'").await;
    let electrum = controller.join(2, Some(7)).await;
    let have = Some(serial(7));
    assert_eq!(
        electrum.ask(&Request::Roster { have }, &[]).await,
        Reply::UpToDate
    );
    let second = roster(8, Some(&first), TWO);
    controller.push_well(&second).await;
    assert_eq!(
        electrum.notice().await,
        Notice::Roster { serial: serial(8) }
    );
    controller.stop().await;

    // What was pushed is newer than the file, and stays.
    let controller = TestController::start(dir.path(), "roster = 'roster'").await;
    let status = controller.get("/v1/status").await;
    assert_eq!(status["roster"]["serial"], 8);
}

#[tokio::test]
async fn a_torn_store_is_reported_and_the_roster_file_serves() {
    let dir = tempfile::tempdir().unwrap();
    let first = roster(7, None, TWO);
    std::fs::write(dir.path().join("roster"), first.to_file()).unwrap();
    let controller = TestController::start(dir.path(), "roster = 'roster'").await;
    controller.stop().await;
    std::fs::write(dir.path().join("state/store.redb"), "garbage".repeat(999)).unwrap();

    let controller = TestController::start(dir.path(), "roster = 'roster'").await;
    let status = controller.get("/v1/status").await;
    assert_eq!(status["problems"][0]["what"], "damage");
    let problem = status["problems"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("store.redb.damaged"), "{problem}");
    controller.join(2, None).await;
    controller.push_well(&roster(8, Some(&first), TWO)).await;
    controller.stop().await;
    let controller = TestController::start(dir.path(), "roster = 'roster'").await;
    let status = controller.get("/v1/status").await;
    assert_eq!(status["roster"]["serial"], 8);
    // All that is left to say is that the file is older than what was pushed.
    assert_eq!(problems(&status), ["roster"]);
}

#[tokio::test]
async fn without_a_store_a_controller_serves_and_takes_no_push() {
    let dir = tempfile::tempdir().unwrap();
    let first = roster(7, None, TWO);
    std::fs::write(dir.path().join("roster"), first.to_file()).unwrap();
    // A file where the directory should be: nothing can be stored, as on a full disk.
    std::fs::write(dir.path().join("state"), "in the way").unwrap();
    let controller = TestController::start(dir.path(), "roster = 'roster'").await;
    controller.join(2, None).await;
    let second = roster(8, Some(&first), TWO);
    let reply = controller.push(&second.to_file(), false).await;
    assert_error(reply, ErrorCode::Internal, "cannot store the roster");
    let status = controller.get("/v1/status").await;
    assert_eq!(status["problems"][0]["what"], "store");
    assert_eq!(status["roster"]["serial"], 7);

    // Room again: the next attempt is kept.
    std::fs::remove_file(dir.path().join("state")).unwrap();
    controller.push_well(&second).await;
    controller
        .status_when(|status| problems(status) == ["roster"])
        .await;
    controller.stop().await;
    let controller = TestController::start(dir.path(), "roster = 'roster'").await;
    assert_eq!(controller.get("/v1/status").await["roster"]["serial"], 8);
}

#[tokio::test]
async fn a_store_of_another_running_controller_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let first = TestController::start(dir.path(), "").await;
    first.push_well(&roster(7, None, TWO)).await;
    let mut config = config(dir.path(), "");
    config.socket = dir.path().join("other-socket");
    let second = TestController::run(config).await;
    let status = second.get("/v1/status").await;
    let problem = status["problems"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("another process has it"), "{problem}");
    first
        .push_well(&roster(8, Some(&roster(7, None, TWO)), TWO))
        .await;
}

/// A small file system of its own, gone with this value.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// `None` where this user may not mount.
    fn mount(path: &std::path::Path) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"])
            .arg(path)
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then(|| Self(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}

#[tokio::test]
async fn a_full_disk_is_reported_and_the_service_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("state")) else {
        println!("skipped: mounting a file system needs root");
        return;
    };
    let controller = TestController::start(dir.path(), "").await;
    let mut last = roster(7, None, TWO);
    controller.push_well(&last).await;
    let electrum = controller.join(2, None).await;
    // Something else takes all that is left.
    let filler = disk.0.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    drop(file);

    // Rosters that need more room than the store's file has.
    let names: Vec<_> = (0..5000).map(|number| format!("m{number}")).collect();
    let many = with_declared(8, &last, TWO, &names);
    let reply = controller.push(&many.to_file(), false).await;
    assert_error(reply, ErrorCode::Internal, "cannot store the roster");
    let have = Some(serial(7));
    assert_eq!(
        electrum.ask(&Request::Roster { have }, &[]).await,
        Reply::UpToDate
    );
    controller.join(3, None).await;
    let status = controller.get("/v1/status").await;
    assert_eq!(problems(&status), ["store"]);
    let problem = status["problems"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("No space left"), "{problem}");

    std::fs::remove_file(&filler).unwrap();
    last = roster(8, Some(&last), TWO);
    controller.push_well(&last).await;
    controller
        .status_when(|status| problems(status).is_empty())
        .await;
    controller.stop().await;
    let controller = TestController::start(dir.path(), "").await;
    assert_eq!(controller.get("/v1/status").await["roster"]["serial"], 8);
    controller.stop().await;
}
