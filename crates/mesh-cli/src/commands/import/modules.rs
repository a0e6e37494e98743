//! Settings as clan serializes them.
//!
//! clan keeps a role's settings as modules until the service reads them, so that its serialized inventory has
//! `{"imports": [{"_file": "flake.nix", "imports": [{"endpoints": ["a:1"]}]}]}` for `{"endpoints": ["a:1"]}`.

use serde_json::{Map, Value};

/// What the modules inside a value say together: attribute sets are merged and lists appended, as the module
/// system does; of two other values the later one counts.
pub(super) fn plain(value: Value) -> Value {
    match value {
        Value::Object(mut own) => {
            let imports = match (own.remove("imports"), own.remove("_file")) {
                (Some(Value::Array(imports)), _) => imports,
                (None, None) => Vec::new(),
                // Keys of somebody's own.
                (imports, file) => {
                    own.extend(imports.map(|value| ("imports".to_owned(), value)));
                    own.extend(file.map(|value| ("_file".to_owned(), value)));
                    Vec::new()
                }
            };
            let own = own.into_iter().map(|(key, value)| (key, plain(value)));
            let start = Value::Object(Map::from_iter(own));
            imports.into_iter().map(plain).fold(start, merged)
        }
        Value::Array(list) => list.into_iter().map(plain).collect(),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => other,
    }
}

fn merged(first: Value, second: Value) -> Value {
    match (first, second) {
        (Value::Object(mut first), Value::Object(second)) => {
            for (key, value) in second {
                let value = match first.remove(&key) {
                    Some(before) => merged(before, value),
                    None => value,
                };
                first.insert(key, value);
            }
            Value::Object(first)
        }
        (Value::Array(mut first), Value::Array(second)) => {
            first.extend(second);
            Value::Array(first)
        }
        (_, second) => second,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn modules_become_what_they_say_together() {
        let serialized = json!({ "roles": { "moon": {
            "machines": { "a": { "settings": { "imports": [
                { "_file": "flake.nix, via option x", "imports": [{ "stableEndpoints": ["1.2.3.4"], "network": { "id": "0" } }] },
                { "stableEndpoints": ["5.6.7.8"], "network": { "name": "n" } },
                {},
            ] } } },
            "settings": { "imports": [{ "imports": [{}] }] },
        } } });
        assert_eq!(
            plain(serialized),
            json!({ "roles": { "moon": {
                "machines": { "a": { "settings": {
                    "stableEndpoints": ["1.2.3.4", "5.6.7.8"],
                    "network": { "id": "0", "name": "n" },
                } } },
                "settings": {},
            } } })
        );
    }

    #[test]
    fn what_is_no_module_stays_as_it_is() {
        let own = json!({ "imports": 3, "_file": "x", "list": [{ "a": null }], "yes": true });
        assert_eq!(plain(own.clone()), own);
    }
}
