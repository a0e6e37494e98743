//! `nix-modules/lib.nix` against the program's own resolution, which is the reference.
#![expect(clippy::unwrap_used, reason = "a failing unwrap fails the test")]

#[path = "nix_lib/generate.rs"]
mod generate;

use std::{collections::BTreeSet, fs, io::Write, path::PathBuf};

use mesh_inventory::{HeadFields, Report, Resolution, Roster, inventory, resolve};
use mesh_tests::nix;
use mesh_types::{IdentitySeed, MachineName, Serial};
use serde_json::{Value, json};

/// What each implementation says of one inventory: its JSON text, or everything that is wrong with it.
type Answer = Result<String, BTreeSet<String>>;

fn in_rust(file_name: &str, bytes: &[u8], previous: Option<&Roster>) -> Result<Resolution, Report> {
    inventory::parse(file_name, bytes).and_then(|inventory| resolve(&inventory, previous))
}

fn answer(result: Result<Resolution, Report>) -> Answer {
    match result {
        Ok(resolution) => Ok(resolution.to_json().to_string()),
        Err(report) => Err(report
            .problems()
            .iter()
            .map(|problem| problem.message().to_owned())
            .collect()),
    }
}

/// Resolves `cases`, a list in Nix of objects with an `inventory` and perhaps the `previous` roster, in one
/// evaluation. `None`: there is no Nix.
fn in_nix(cases: &str) -> Option<Vec<Answer>> {
    let expression = format!(
        "let
           lib = import {};
           one = {{ inventory, previous ? null }}:
             let problems = lib.problemsOf inventory; in {{
               problems = map (problem: problem.message) problems;
               text = if problems == [ ] then
                 builtins.toJSON (lib.resolveWith {{ inherit previous; }} inventory)
               else null;
             }};
         in map one ({cases})",
        library().display()
    );
    let answers = nix::evaluate(&expression)?;
    let answer = |answer: &Value| match answer["text"].as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(serde_json::from_value(answer["problems"].clone()).unwrap()),
    };
    Some(answers.as_array().unwrap().iter().map(answer).collect())
}

fn library() -> PathBuf {
    nix::root().join("nix-modules/lib.nix")
}

/// As [`in_nix`], with the cases by way of a file.
fn read_by_nix(cases: &[Value]) -> Option<Vec<Answer>> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(json!(cases).to_string().as_bytes()).unwrap();
    in_nix(&format!(
        "builtins.fromJSON (builtins.readFile {})",
        file.path().display()
    ))
}

fn assert_same(inventories: &[Value]) -> Option<Vec<Answer>> {
    let cases: Vec<_> = inventories
        .iter()
        .map(|inventory| json!({ "inventory": inventory }))
        .collect();
    let answers = read_by_nix(&cases)?;
    assert_eq!(answers.len(), inventories.len());
    for (inventory, in_nix) in inventories.iter().zip(&answers) {
        let text = inventory.to_string();
        let in_rust = answer(in_rust("inventory.json", text.as_bytes(), None));
        assert_eq!(*in_nix, in_rust, "{text}");
    }
    Some(answers)
}

#[test]
fn generated_inventories_resolve_to_the_same_bytes() {
    let native = generate::inventories(450);
    let Some(answers) = assert_same(&native) else {
        return;
    };
    let good = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!(good > 250, "only {good} of them were valid");
    // What they are made of must be seen in some, or the comparison shows nothing about it.
    let texts: String = answers.iter().flatten().map(String::as_str).collect();
    for seen in [
        r#""roles":["controller","moon","peer"]"#,
        r#""ipv4":"10."#,
        r#""ciphers":["chacha"]"#,
        r#""gateways":[""#,
        r#""routes":[""#,
        r#""enabled":false"#,
        r#"wireguard:"#,
        r#""sshHostKeys":["ssh-ed25519"#,
        r#""*.apps-of-"#,
        r#"größe"#,
    ] {
        assert!(texts.contains(seen), "no inventory has `{seen}`");
    }
    let problems: BTreeSet<_> = answers
        .iter()
        .filter_map(|a| a.as_ref().err())
        .flatten()
        .collect();
    assert!(
        problems
            .iter()
            .any(|problem| problem.contains("differently")),
        "no two tags contradict each other: {problems:?}"
    );
}

#[test]
fn generated_inventories_of_clan_resolve_to_the_same_bytes() {
    let native = generate::inventories(150);
    let clans: Vec<_> = native.iter().map(generate::as_clans).collect();
    assert_same(&clans);
}

#[test]
fn the_reference_fleet_resolves_to_the_same_bytes_in_both_forms() {
    let fleet = nix::root().join("tests/fleet");
    let read = |name| serde_json::from_slice(&fs::read(fleet.join(name)).unwrap()).unwrap();
    let inventories = [read("inventory.json"), read("inventory-clan.json")];
    let Some(answers) = assert_same(&inventories) else {
        return;
    };
    assert_eq!(answers[0], answers[1]);
    assert!(answers[0].is_ok());
}

#[test]
fn a_file_in_toml_is_read_by_its_extension() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("inventory.toml");
    let text = r#"
        version = "mesh/v1"
        network = { id = "000102030405060708090a0b0c0d0e0f", name = "fleet", signers = [] }
        [machines.cinnabar]
        tags = ["cloud"]
        [machines.galena.mesh]
        endpoints = ["192.0.2.1:4193"]
        [instances.mesh.roles]
        controller.machines.cinnabar = {}
        peer.tags.all = {}
    "#;
    fs::write(&path, text).unwrap();
    let Some(answers) = in_nix(&format!("[ {{ inventory = {}; }} ]", path.display())) else {
        return;
    };
    assert!(answers[0].is_ok());
    assert_eq!(
        answers[0],
        answer(in_rust("inventory.toml", text.as_bytes(), None))
    );
}

#[test]
fn ipv4_addresses_are_kept_from_the_previous_roster() {
    let mut cases = Vec::new();
    let mut expected = Vec::new();
    for old in generate::inventories(100) {
        let Ok(resolution) = in_rust("inventory.json", old.to_string().as_bytes(), None) else {
            continue;
        };
        if resolution.network().ipv4.is_none() {
            continue;
        }
        let fields = HeadFields {
            serial: Serial::try_from(1).unwrap(),
            time: 1_800_000_000,
            revision: None,
            previous: None,
        };
        let seed = IdentitySeed::from_bytes([200; 32]);
        let roster = resolution
            .unsigned(fields)
            .and_then(|unsigned| unsigned.sign_with_seed(&seed));
        // What has more than a roster may hold is another test's.
        let Ok(roster) = roster else { continue };
        let mut new = old;
        // Before all others in the order of the names: without the roster, it would shift them.
        new["machines"]["0-first"] = json!({});
        let text = new.to_string();
        let in_rust = in_rust("inventory.json", text.as_bytes(), Some(&roster));
        if let Ok(resolution) = in_rust {
            let roster: Value = serde_json::from_slice(&roster.to_file()).unwrap();
            cases.push(json!({ "inventory": new, "previous": roster }));
            expected.push(Ok(resolution.to_json().to_string()));
        }
    }
    assert!(cases.len() > 10, "only {} cases", cases.len());
    let Some(answers) = read_by_nix(&cases) else {
        return;
    };
    assert_eq!(answers, expected);
}

/// The broken inventories that the program's own messages are tested with.
fn broken() -> Vec<PathBuf> {
    let directory = nix::root().join("crates/mesh-inventory/tests/broken");
    let mut paths: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

#[test]
fn broken_inventories_are_refused_for_the_same_reasons() {
    // What is broken in the text itself never becomes a value; keys given twice are no error to Nix.
    let is_value = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let by_nix = ["key-given-twice.json", "unknown-key.toml"];
        let name = path.file_name().unwrap().to_str().unwrap();
        serde_json::from_str::<Value>(&text).is_ok() && name != by_nix[0] || name == by_nix[1]
    };
    let paths: Vec<_> = broken().into_iter().filter(is_value).collect();
    assert!(paths.len() > 30);
    let cases: Vec<_> = paths
        .iter()
        .map(|path| format!("{{ inventory = lib.readInventory {}; }}", path.display()))
        .collect();
    let Some(answers) = in_nix(&format!("[ {} ]", cases.join(" "))) else {
        return;
    };
    for (path, in_nix) in paths.iter().zip(answers) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let in_rust = answer(in_rust(name, &fs::read(path).unwrap(), None));
        assert!(in_rust.is_err(), "{name}");
        assert_eq!(in_nix, in_rust, "{name}");
    }
}

#[test]
fn inventories_with_a_part_of_the_wrong_kind_are_refused_for_the_same_reasons() {
    let mut damaged = generate::damaged(150);
    damaged.extend(generate::damaged(80).iter().map(generate::as_clans));
    let Some(answers) = assert_same(&damaged) else {
        return;
    };
    let refused = answers.iter().filter(|answer| answer.is_err()).count();
    assert!(refused > 100, "only {refused} of them were refused");
}

#[test]
fn every_key_of_the_schema_is_known_to_nix() {
    let path = nix::root().join("docs/inventory.schema.json");
    let schema: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let nulls = |definition: &Value| -> Value {
        let properties = definition["properties"].as_object().unwrap();
        properties
            .keys()
            .map(|key| (key.clone(), Value::Null))
            .collect()
    };
    let part = |name: &str| nulls(&schema["$defs"][name]);
    let mut machine = part("Machine");
    machine["mesh"] = part("MachineMesh");
    let mut assignment = part("Assignment");
    assignment["settings"] = json!({});
    let mut role = part("Role");
    role["machines"] = json!({ "cinnabar": assignment });
    let mut instance = part("Instance");
    instance["module"] = part("Module");
    instance["roles"] = json!({ "controller": role });
    let mut inventory = nulls(&schema);
    inventory["network"] = part("Network");
    inventory["machines"] = json!({ "cinnabar": machine });
    inventory["instances"] = json!({ "mesh": instance });
    let Some(answers) = assert_same(&[inventory]) else {
        return;
    };
    let problems = answers[0].as_ref().unwrap_err();
    assert!(
        !problems
            .iter()
            .any(|problem| problem.contains("unknown key")),
        "{problems:?}"
    );
}

#[test]
fn an_error_begins_as_the_programs_does() {
    let path = nix::root().join("crates/mesh-inventory/tests/broken/no-controller.json");
    let expression = format!(
        "(import {}).resolve {}",
        library().display(),
        path.display()
    );
    let Some(refused) = nix::try_evaluate(&expression) else {
        return;
    };
    let errors = refused.unwrap_err();
    let report = in_rust("inventory.json", &fs::read(path).unwrap(), None).unwrap_err();
    let first = report.to_string().lines().next().unwrap().to_owned();
    assert!(errors.contains(&first), "{errors}");
    assert!(
        errors.contains("hint: give an always-on machine the role"),
        "{errors}"
    );
}

#[test]
fn wrong_names_are_corrected_in_the_same_way() {
    let texts = generate::texts(500);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(json!(texts).to_string().as_bytes()).unwrap();
    let expression = format!(
        "let lib = import {}; in
         map (text: if lib.isName text then text else lib.correctedName text)
           (builtins.fromJSON (builtins.readFile {}))",
        library().display(),
        file.path().display()
    );
    let Some(in_nix) = nix::evaluate(&expression) else {
        return;
    };
    let in_rust: Vec<_> = texts
        .iter()
        .map(|text| match text.parse::<MachineName>() {
            Ok(name) => Some(name.to_string()),
            Err(error) => error.suggestion,
        })
        .collect();
    assert_eq!(in_nix, json!(in_rust));
}

/// The blocks of code in a page, each without its fences.
fn blocks(page: &str) -> Vec<&str> {
    page.split("```nix\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

#[test]
fn the_examples_of_the_documentation_are_true() {
    let page = fs::read_to_string(nix::root().join("docs/nix-lib.md")).unwrap();
    let blocks = blocks(&page);
    let (inventory, examples) = blocks.split_first().unwrap();
    let pairs: Vec<_> = examples
        .iter()
        .map(|block| {
            let (example, result) = block.split_once("# => ").unwrap();
            // A result of several lines goes on in comments.
            let result = result.replace("\n# ", "\n");
            format!("{{ is = ({example}); documented = ({result}); }}")
        })
        .collect();
    assert!(pairs.len() > 12);
    let expression = format!(
        "let lib = import {}; inventory = {inventory}; in [ {} ]",
        library().display(),
        pairs.join(" ")
    );
    let Some(answers) = nix::evaluate(&expression) else {
        return;
    };
    for (answer, block) in answers.as_array().unwrap().iter().zip(examples) {
        assert_eq!(answer["is"], answer["documented"], "{block}");
    }
}

#[test]
fn every_function_is_documented() {
    let page = fs::read_to_string(nix::root().join("docs/nix-lib.md")).unwrap();
    let Some(names) = nix::evaluate(&format!(
        "builtins.attrNames (import {})",
        library().display()
    )) else {
        return;
    };
    for name in names.as_array().unwrap() {
        let name = name.as_str().unwrap();
        let is_there =
            page.contains(&format!("`{name}`")) || page.contains(&format!("lib.{name} "));
        assert!(is_there, "docs/nix-lib.md does not tell of `{name}`");
    }
}
