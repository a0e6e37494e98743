//! The examples in `docs/inventory.md` and `docs/formats.md`.
#![expect(clippy::unwrap_used, reason = "a failing unwrap fails the test")]

use mesh_inventory::{HeadFields, Roster, inventory, resolve};
use mesh_types::{IdentitySeed, Serial};

const INVENTORY: &str = include_str!("../../../docs/inventory.md");
const FORMATS: &str = include_str!("../../../docs/formats.md");

/// The fenced blocks of one language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    let after = page.split(fence.as_str()).skip(1);
    after
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

#[test]
fn the_inventories_on_the_page_are_good() {
    let json = blocks(INVENTORY, "json");
    let toml = blocks(INVENTORY, "toml");
    assert_eq!((json.len(), toml.len()), (2, 1));
    for (name, text) in [
        ("a.json", json[0]),
        ("b.json", json[1]),
        ("c.toml", toml[0]),
    ] {
        let inventory = inventory::parse(name, text.as_bytes()).unwrap();
        let resolution = resolve(&inventory, None).unwrap_or_else(|report| panic!("{report}"));
        let cinnabar = &resolution.members()["cinnabar"];
        assert_eq!(
            cinnabar.address.to_string(),
            "fdc3:582e:db61:0:f785:d658:d2e9:df7d"
        );
    }
}

#[test]
fn the_roster_on_the_page_is_the_one_that_is_made() {
    let text = r#"
        version = "mesh/v1"
        network = { id = "000102030405060708090a0b0c0d0e0f", name = "fleet", signers = [] }
        instances.mesh.roles = { controller.machines.cinnabar = {}, peer.tags.all = {} }
        [machines.cinnabar]
        publicKey = "mesh1jgRLFARuzRLUbqsDWYHiAPhvQF5USuFYhNEJIQgcVW5zUB-CBqOIm62GtFtFgvfqgq5fmqqunbmepZJPT8DODA"
    "#;
    let inventory = inventory::parse("x.toml", text.as_bytes()).unwrap();
    let fields = HeadFields {
        serial: Serial::FIRST,
        time: 1_800_000_000,
        revision: None,
        previous: None,
    };
    let made = resolve(&inventory, None)
        .unwrap()
        .unsigned(fields)
        .unwrap()
        .sign_with_seed(&IdentitySeed::from_bytes(std::array::from_fn(|i| i as u8)))
        .unwrap();
    let shown = blocks(FORMATS, "json")[0];
    // Ed25519 signatures are the same every time, so the whole file is.
    assert_eq!(String::from_utf8(made.to_file()).unwrap(), shown);
    assert!(FORMATS.contains(&format!("`{}`", made.head_hash())));
    assert_eq!(Roster::open(shown.as_bytes()).unwrap(), made);
}
