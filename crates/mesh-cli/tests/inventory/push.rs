//! `mesh inventory push`.

use std::process::Output;

use mesh_control::Server;
use mesh_types::IdentitySeed;
use mesh_wire::control::{ATTACHMENT_BYTES_MAX, ErrorCode, Reply, Request};

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
    place.write("roster", "{}");
    push(1);
    place.good("inventory init --out keyless.json --controller cinnabar");
    place.good("inventory sign keyless.json --key cinnabar.id --serial 1 --out roster");
    assert!(push(1).contains("no controller with a key"));
}
