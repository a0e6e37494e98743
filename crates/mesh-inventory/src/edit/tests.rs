use proptest::prelude::*;
use serde_json::json;

use super::*;

const TOML: &str = include_str!("../../tests/edited/fleet.toml");
const JSON: &str = include_str!("../../tests/edited/fleet.json");

fn name(text: &str) -> MachineName {
    text.parse().unwrap()
}

fn key(byte: u8) -> MemberKey {
    let seed = mesh_types::IdentitySeed::from_bytes([byte; 32]);
    MemberKey::Mesh(seed.public())
}

/// The lines that differ: `-` of the old text, `+` of the new one. What both have in order stays out.
fn changed(before: &str, after: &str) -> String {
    let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let (mut i, mut j) = (0, 0);
    let mut changes = String::new();
    while i < before.len() || j < after.len() {
        if i < before.len() && j < after.len() && before[i] == after[j] {
            (i, j) = (i + 1, j + 1);
            continue;
        }
        // The nearest pair of equal lines from here on.
        let mut nearest = (before.len() - i, after.len() - j);
        for (skip, line) in before[i..].iter().enumerate() {
            let there = after[j..].iter().position(|other| other == line);
            if let Some(there) = there
                && skip + there < nearest.0 + nearest.1
            {
                nearest = (skip, there);
            }
        }
        let nearest = (nearest.0, nearest.1);
        before[i..i + nearest.0]
            .iter()
            .for_each(|line| changes += &format!("-{line}\n"));
        after[j..j + nearest.1]
            .iter()
            .for_each(|line| changes += &format!("+{line}\n"));
        (i, j) = (i + nearest.0, j + nearest.1);
    }
    changes
}

fn both(change: &Edit) -> String {
    let edited = |file, text| edit(file, text, change).unwrap();
    format!(
        "{}\n{}",
        changed(TOML, &edited("fleet.toml", TOML)),
        changed(JSON, &edited("fleet.json", JSON))
    )
}

#[test]
fn a_key_goes_where_it_belongs_and_nothing_else_changes() {
    insta::assert_snapshot!(both(&Edit::Key(name("galena"), Some(key(1)))));
    insta::assert_snapshot!(both(&Edit::Key(name("cinnabar"), Some(key(1)))));
    insta::assert_snapshot!(both(&Edit::Key(name("newcomer"), Some(key(1)))));
    insta::assert_snapshot!(both(&Edit::Key(name("cinnabar"), None)));
}

#[test]
fn a_machine_is_switched_off_and_on() {
    insta::assert_snapshot!(both(&Edit::Enabled(name("galena"), false)));
    let off = edit("a.toml", TOML, &Edit::Enabled(name("galena"), false)).unwrap();
    insta::assert_snapshot!(changed(
        &off,
        &edit("a.toml", &off, &Edit::Enabled(name("galena"), true)).unwrap()
    ));
}

#[test]
fn a_machine_that_retires_is_named_nowhere() {
    insta::assert_snapshot!(both(&Edit::Retire(name("galena"))));
    for (file, text) in [("a.toml", TOML), ("a.json", JSON)] {
        let retired = edit(file, text, &Edit::Retire(name("galena"))).unwrap();
        let named = retired.lines().filter(|line| !line.trim().starts_with('#'));
        assert!(!named.collect::<String>().contains("galena"), "{retired}");
    }
}

#[test]
fn what_is_so_already_changes_nothing() {
    for (file, text) in [("a.toml", TOML), ("a.json", JSON)] {
        for same in [
            Edit::Enabled(name("galena"), true),
            Edit::Key(name("galena"), None),
        ] {
            assert_eq!(edit(file, text, &same).unwrap(), text);
        }
        let nobody = edit(file, text, &Edit::Retire(name("nobody"))).unwrap_err();
        assert!(matches!(nobody, EditError::NoMachine(_)));
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i32>().prop_map(|number| json!(number)),
        "[a-c\"\\\\é ]{0,4}".prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map("[a-c]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Every place in a value, with whether it is an item of a list.
fn places(value: &Value, path: Vec<String>, found: &mut Vec<Step>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let path = [path.clone(), vec![key.clone()]].concat();
                found.push(Step::Remove(path.clone()));
                places(inner, path, found);
            }
        }
        Value::Array(items) => {
            found.extend((0..items.len()).map(|number| Step::RemoveItem(path.clone(), number)));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn reach<'v>(value: &'v mut Value, path: &[String]) -> &'v mut Value {
    path.iter()
        .fold(value, |value, key| &mut value[key.as_str()])
}

proptest! {
    #[test]
    fn json_becomes_what_the_tree_becomes(
        value in prop::collection::btree_map("[a-c]", value(), 0..4),
        pretty in any::<bool>(),
        at in any::<prop::sample::Index>(),
        set in prop::collection::vec("[a-d]", 1..4),
    ) {
        let mut value = Value::Object(value.into_iter().collect());
        let text = match pretty {
            true => serde_json::to_string_pretty(&value).unwrap(),
            false => value.to_string(),
        };
        let root = read("a.json", &text).unwrap();
        let mut steps = vec![Step::Set(set, Value::Bool(true))];
        places(&value, Vec::new(), &mut steps);
        let step = at.get(&steps);
        let edited = json::apply(&text, &root, step);
        match step {
            Step::Set(path, new) => {
                let mut place = &mut value;
                for key in path {
                    if place.is_null() {
                        *place = json!({});
                    }
                    if !place.is_object() {
                        prop_assert_eq!(edited, None);
                        return Ok(());
                    }
                    place = &mut place[key.as_str()];
                }
                *place = new.clone();
            }
            Step::Remove(path) => {
                let (key, parent) = path.split_last().unwrap();
                reach(&mut value, parent).as_object_mut().unwrap().remove(key);
            }
            Step::RemoveItem(path, number) => {
                reach(&mut value, path).as_array_mut().unwrap().remove(*number);
            }
        }
        let edited = read("a.json", &edited.unwrap()).unwrap().to_value();
        prop_assert_eq!(edited, value);
    }
}
