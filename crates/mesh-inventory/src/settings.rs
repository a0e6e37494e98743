//! Merging of settings: objects deeply, scalars and lists replace, null unsets.

use serde_json::{Map, Value};

use crate::syntax::{Datum, Node, Span};

/// Lays `over` on `base`.
pub(crate) fn merge(base: &mut Value, over: &Value) {
    let (Value::Object(base), Value::Object(over)) = (&mut *base, over) else {
        *base = without_nulls(over);
        return;
    };
    for (key, value) in over {
        if value.is_null() {
            base.remove(key);
        } else {
            merge(base.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut clean = Value::Object(Map::new());
            merge(&mut clean, &Value::Object(map.clone()));
            clean
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            value.clone()
        }
    }
}

/// One value that settings set, null included, with the keys that lead to it.
pub(crate) struct Leaf {
    pub(crate) path: Vec<String>,
    pub(crate) value: Value,
    pub(crate) span: Span,
}

impl Leaf {
    /// Whether both cannot be in force: they set one value differently, or one sets a value where the
    /// other has an object.
    pub(crate) fn contradicts(&self, other: &Self) -> bool {
        let common = self.path.len().min(other.path.len());
        self.path[..common] == other.path[..common]
            && (self.path.len() != other.path.len() || self.value != other.value)
    }
}

/// Everything that settings set.
pub(crate) fn leaves(settings: &Node) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    collect(settings, &mut Vec::new(), &mut leaves);
    leaves
}

fn collect(node: &Node, path: &mut Vec<String>, leaves: &mut Vec<Leaf>) {
    if let Datum::Map(entries) = &node.datum {
        for entry in entries {
            path.push(entry.key.clone());
            collect(&entry.value, path, leaves);
            path.pop();
        }
        return;
    }
    leaves.push(Leaf {
        path: path.clone(),
        value: node.to_value(),
        span: node.span.clone(),
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(layers: &[Value]) -> Value {
        let mut base = json!({});
        for layer in layers {
            merge(&mut base, layer);
        }
        base
    }

    #[test]
    fn objects_merge_deeply_and_the_rest_replaces() {
        assert_eq!(
            merged(&[
                json!({ "a": { "x": 1, "y": [1, 2] }, "b": 1 }),
                json!({ "a": { "y": [3] }, "b": { "c": 2 } }),
            ]),
            json!({ "a": { "x": 1, "y": [3] }, "b": { "c": 2 } })
        );
    }

    #[test]
    fn null_unsets_and_leaves_no_trace() {
        assert_eq!(
            merged(&[
                json!({ "a": { "x": 1, "y": 2 }, "b": 1 }),
                json!({ "a": { "x": null }, "b": null, "c": null, "d": { "e": null } }),
            ]),
            json!({ "a": { "y": 2 }, "d": {} })
        );
    }
}
