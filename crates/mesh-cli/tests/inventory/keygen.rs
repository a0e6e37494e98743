//! `mesh keygen`.

use std::{fs, os::unix::fs::PermissionsExt as _};

use mesh_types::PublicIdentity;
use serde_json::Value;

use crate::workplace::{Workplace, mode};

#[test]
fn an_identity_is_written_once_and_for_its_owner_alone() {
    let place = Workplace::new();
    let public = place.good("keygen --out id");
    assert!(public.trim().parse::<PublicIdentity>().is_ok());
    assert_eq!(mode(&place.path("id")), 0o600);
    let seed = place.read("id");
    assert_eq!(place.good("keygen --public id"), public);

    let error = place.bad("keygen --out id", 1);
    assert!(
        error.contains("not overwritten") && error.contains("hint:"),
        "{error}"
    );
    assert_eq!(place.read("id"), seed);
    // Nothing is left behind beside it.
    assert_eq!(place.count(), 1);
    assert!(!error.contains("mesh1-seed-"));
}

#[test]
fn a_public_identity_is_shown_in_every_form() {
    let place = Workplace::new();
    let snippet = place.good("keygen --machine galena --out id");
    let public = place.good("keygen --public id");
    let public = public.trim();
    let entry: Value = serde_json::from_str(&format!("{{{snippet}}}")).unwrap();
    assert_eq!(entry["galena"]["publicKey"], public);
    let json = place.json("keygen --public id --machine galena --json");
    assert_eq!(json["publicKey"], public);
    assert_eq!(json["machine"], "galena");
    let ssh = place.good("keygen --public id --ssh");
    assert!(ssh.starts_with("ssh-ed25519 AAAA"));
    assert_eq!(json["ssh"], ssh.trim());
    assert!(
        place
            .bad("keygen --out other --machine My_Mac", 2)
            .contains("my-mac")
    );
    assert!(!place.path("other").exists());
}

#[test]
fn an_unusable_identity_file_is_named_with_its_fault() {
    let place = Workplace::new();
    place.good("keygen --out id");
    fs::set_permissions(place.path("id"), fs::Permissions::from_mode(0o640)).unwrap();
    let error = place.bad("keygen --public id", 2);
    assert!(
        error.contains("0640") && error.contains("chmod 600 id"),
        "{error}"
    );

    for (name, content) in [
        ("empty", ""),
        ("short", "mesh1-seed-AAAA\n"),
        (
            "long",
            "mesh1-seed-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8AAAA\n",
        ),
        ("other", "hello\n"),
        ("huge", &"a".repeat(100_000)),
    ] {
        place.write(name, content);
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        let error = place.bad(&format!("keygen --public {name}"), 2);
        assert!(error.contains("is not an identity"), "{error}");
    }
    fs::create_dir(place.path("directory")).unwrap();
    assert!(
        place
            .bad("keygen --out directory", 1)
            .contains("is a directory")
    );
    assert!(
        place
            .bad("keygen --public directory", 2)
            .contains("not a regular file")
    );
    assert!(
        place
            .bad("keygen --out missing/id", 1)
            .contains("missing/id")
    );
    place.bad("keygen", 2);
}
