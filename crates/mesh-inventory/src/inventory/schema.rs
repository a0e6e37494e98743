use schemars::{Schema, generate::SchemaSettings};

use super::Document;

/// The JSON Schema (draft 2020-12) of the native form, as `docs/inventory.schema.json` has it.
pub fn json_schema() -> Schema {
    SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<Document>()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{
        super::{decode, rules},
        *,
    };

    fn properties(definition: Option<&str>) -> BTreeSet<String> {
        let schema = json_schema().to_value();
        let object = match definition {
            Some(name) => &schema["$defs"][name],
            None => &schema,
        };
        let properties = object["properties"].as_object().unwrap();
        properties.keys().cloned().collect()
    }

    #[test]
    fn the_schema_has_the_keys_that_are_read() {
        let read = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
        for (definition, keys) in [
            (None, &decode::DOCUMENT[..]),
            (Some("Network"), &decode::NETWORK),
            (Some("Machine"), &decode::MACHINE),
            (Some("MachineMesh"), &decode::MACHINE_MESH),
            (Some("Instance"), &decode::INSTANCE),
            (Some("Module"), &decode::MODULE),
            (Some("Role"), &decode::ROLE),
            (Some("Assignment"), &decode::ASSIGNMENT),
            (Some("Rules"), &rules::RULES),
            (Some("Rule"), &rules::RULE),
            (Some("RuleTest"), &rules::RULE_TEST),
        ] {
            assert_eq!(properties(definition), read(keys), "{definition:?}");
        }
    }

    #[test]
    fn the_schema_in_the_docs_is_this_one() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../docs/inventory.schema.json"
        );
        let schema = serde_json::to_string_pretty(&json_schema()).unwrap() + "\n";
        if std::env::var_os("MESH_UPDATE_DOCS").is_some() {
            std::fs::write(path, &schema).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == schema,
            "docs/inventory.schema.json is stale: run the tests once with MESH_UPDATE_DOCS=1"
        );
    }
}
