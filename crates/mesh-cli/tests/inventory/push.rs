//! `mesh inventory push`.

use std::{
    io::Write as _,
    process::{Output, Stdio},
};

use mesh_control::Server;
use mesh_types::IdentitySeed;
use mesh_wire::control::{ATTACHMENT_BYTES_MAX, ErrorCode, Reply, Request};
use serde_json::Value;

use crate::workplace::{Workplace, errors};

/// A controller's side of one push, to which it says `reply`; what it was handed.
async fn controller(server: &Server, reply: Reply) -> Option<Vec<u8>> {
    let client = server.accept().await?.complete().await.ok()?;
    let mut question = client.next_question().await.ok()?;
    let Request::Push { force: false } = question.request().await.ok()? else {
        return None;
    };
    let pushed = question.attachment(ATTACHMENT_BYTES_MAX).await.ok()?;
    // Whoever has its answer may hang up before this side knows.
    let _ = question.answer(&reply, &[]).await;
    client.closed().await;
    Some(pushed)
}

/// Pushes to a controller in this process that has the identity of `name`.
fn push(place: &Workplace, name: &str, reply: Reply) -> (Output, Option<Vec<u8>>) {
    let identity = IdentitySeed::parse(&place.read(&format!("{name}.id"))).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), &identity).unwrap();
        let port = server.local_address().port();
        let mut command = place.command(env!("CARGO_BIN_EXE_mesh"));
        command.args(["inventory", "push", "roster", "--controller"]);
        command.arg(format!("127.0.0.1:{port}"));
        let pushed = tokio::task::spawn_blocking(move || command.output().unwrap());
        let (output, received) = tokio::join!(pushed, controller(&server, reply));
        (output.unwrap(), received)
    })
}

#[test]
fn a_push_hands_the_roster_to_a_controller_that_it_names() {
    let place = Workplace::new();
    place.fleet();
    place.good("inventory sign inventory.json --key cinnabar.id --serial 7 --out roster");
    let serial = "7".parse().unwrap();
    let (output, received) = push(&place, "cinnabar", Reply::Accepted { serial, members: 3 });
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "serial 7 is in force, with 3 members\n"
    );
    assert_eq!(received.unwrap(), place.read("roster").into_bytes());

    let refusal = Reply::Error {
        code: ErrorCode::ForceNeeded,
        message: "it removes 3 of 4 members".to_owned(),
    };
    let (output, _) = push(&place, "cinnabar", refusal);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors(&output).contains("hint: pass `--force`"),
        "{}",
        errors(&output)
    );
}

#[test]
fn a_push_to_a_server_with_another_key_hands_over_nothing() {
    let place = Workplace::new();
    place.fleet();
    place.good("inventory sign inventory.json --key cinnabar.id --serial 7 --out roster");
    let serial = "7".parse().unwrap();
    // A member, but no controller.
    let (output, received) = push(&place, "galena", Reply::Accepted { serial, members: 3 });
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    assert!(
        errors(&output).contains("no controller's"),
        "{}",
        errors(&output)
    );
    assert_eq!(received, None);
}

#[test]
fn a_push_of_what_is_no_roster_never_leaves_this_machine() {
    let place = Workplace::new();
    place.fleet();
    let push = |code| place.bad("inventory push roster --controller 127.0.0.1:9", code);
    push(2);
    let portless = place.bad("inventory push roster --controller cinnabar", 2);
    assert!(portless.contains("not a `host:port`"), "{portless}");
    place.write("roster", "{}");
    push(1);
    place.good("inventory init --out keyless.json --controller cinnabar");
    place.good("inventory sign keyless.json --key cinnabar.id --serial 1 --out roster");
    assert!(push(1).contains("no controller with a key"));
}

/// Runs a push on a terminal of its own, types `typed`, and gives what was shown and what the controller,
/// which has roster `one` in force, was handed.
fn push_on_a_terminal(place: &Workplace, typed: &str) -> Option<(Output, Option<Vec<u8>>)> {
    let identity = IdentitySeed::parse(&place.read("cinnabar.id")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), &identity).unwrap();
        let line = format!(
            "{} inventory push two --controller 127.0.0.1:{}",
            env!("CARGO_BIN_EXE_mesh"),
            server.local_address().port()
        );
        let spawned = place
            .command("script")
            .args(["-qec", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut terminal) = spawned else {
            eprintln!("skipped: script(1) is missing");
            return None;
        };
        let mut keyboard = terminal.stdin.take().unwrap();
        let in_force = place.read("one").into_bytes();
        let mut ended = tokio::task::spawn_blocking(move || terminal.wait_with_output().unwrap());
        let serve = async {
            let client = server.accept().await.unwrap().complete().await.unwrap();
            let mut question = client.next_question().await.unwrap();
            assert_eq!(
                question.request().await.unwrap(),
                Request::Roster { have: None }
            );
            let serial = "7".parse().unwrap();
            let _ = question.answer(&Reply::Roster { serial }, &in_force).await;
            keyboard.write_all(typed.as_bytes()).unwrap();
            let serial = "8".parse().unwrap();
            controller(&server, Reply::Accepted { serial, members: 2 }).await
        };
        tokio::pin!(serve);
        tokio::select! {
            output = &mut ended => {
                let output = output.unwrap();
                // Without a yes there is no second connection to wait for.
                let handed = if output.status.success() { serve.await } else { None };
                Some((output, handed))
            }
            handed = &mut serve => Some((ended.await.unwrap(), handed)),
        }
    })
}

#[test]
fn a_push_on_a_terminal_shows_what_changes_and_asks() {
    let place = Workplace::new();
    place.fleet();
    place.good("inventory sign inventory.json --key cinnabar.id --serial 7 --out one");
    let mut inventory: Value = serde_json::from_str(&place.read("inventory.json")).unwrap();
    inventory["machines"]
        .as_object_mut()
        .unwrap()
        .remove("galena");
    place.write("inventory.json", &inventory.to_string());
    place.good("inventory sign inventory.json --key cinnabar.id --previous one --out two");

    let Some((output, handed)) = push_on_a_terminal(&place, "n\n") else {
        return;
    };
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("- galena"), "{shown}");
    assert!(
        shown.contains("push serial 8 of network `fleet` with 2 members"),
        "{shown}"
    );
    assert_eq!((output.status.code(), handed), (Some(1), None), "{shown}");

    let Some((output, handed)) = push_on_a_terminal(&place, "y\n") else {
        return;
    };
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(handed.unwrap(), place.read("two").into_bytes());
}
