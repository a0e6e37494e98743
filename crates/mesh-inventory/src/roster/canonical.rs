//! Canonical JSON (RFC 8785), restricted so that every implementation agrees on it: numbers are whole
//! and below 2^53, keys are ASCII and never twice.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// The largest whole number that every JSON reader tells from its neighbours.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// Reads JSON and refuses what canonical JSON here does not have.
///
/// # Errors
///
/// The position and the reason, as text: broken JSON, a key twice in one object or not ASCII, a number
/// that is not whole or not below 2^53, more than 128 levels, anything after the value.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Checks a value that was made by this program, as [`parse`] checks one that was read.
pub(super) fn check(value: &Value) -> Result<(), String> {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(0..=NUMBER_MAX), _) => Ok(()),
            (None, Some(negative)) if negative.unsigned_abs() <= NUMBER_MAX => Ok(()),
            _ => Err(format!("`{number}` is not a whole number below 2^53")),
        },
        Value::Array(items) => items.iter().try_for_each(check),
        Value::Object(map) => map.iter().try_for_each(|(key, value)| {
            if !key.is_ascii() {
                return Err(format!("the key `{}` is not ASCII", key.escape_debug()));
            }
            check(value)
        }),
    }
}

/// The canonical bytes of a value: keys sorted, no white space, strings with the fewest escapes.
pub(super) fn to_bytes(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        Value::Object(map) => {
            // Keys are ASCII, so byte order is the order of UTF-16 code units that RFC 8785 asks for.
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| key.as_str());
            out.push(b'{');
            for (index, (key, item)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_scalar(key, out);
                out.push(b':');
                write(item, out);
            }
            out.push(b'}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            write_scalar(value, out);
        }
    }
}

/// `serde_json` writes strings with exactly the escapes of RFC 8785 section 3.2.2.2.
fn write_scalar<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("memory takes every scalar");
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON with whole numbers below 2^53")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        if value > NUMBER_MAX {
            return Err(E::custom(format_args!("`{value}` is not below 2^53")));
        }
        Ok(value.into())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        if value.unsigned_abs() > NUMBER_MAX {
            return Err(E::custom(format_args!("`{value}` is not above -2^53")));
        }
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if !key.is_ascii() {
                let key = key.escape_debug();
                return Err(A::Error::custom(format_args!(
                    "the key `{key}` is not ASCII"
                )));
            }
            if map.contains_key(&key) {
                let key = key.escape_debug();
                return Err(A::Error::custom(format_args!(
                    "the key `{key}` is given twice"
                )));
            }
            let value = entries.next_value_seed(Self)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        String::from_utf8(to_bytes(&parse(text.as_bytes()).unwrap())).unwrap()
    }

    #[test]
    fn keys_are_sorted_and_white_space_goes() {
        assert_eq!(
            canonical(" { \"b\" : [ 1 , -2, true ], \"a\": null, \"B\": {} } "),
            r#"{"B":{},"a":null,"b":[1,-2,true]}"#
        );
    }

    #[test]
    fn strings_have_the_escapes_of_rfc_8785() {
        // The example of section 3.2.2.2, with a delete character added: it stays as it is.
        let text = "\"\\u20ac$\\u000F\\u000aA'\\u0042\\u0022\\u005c\\\\\\\"\\/\\u007f\"";
        assert_eq!(
            canonical(text),
            "\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\u{7f}\""
        );
    }

    #[test]
    fn what_implementations_disagree_about_is_refused() {
        for bad in [
            "1.0",
            "1e2",
            "-0",
            "0.5",
            "9007199254740992",
            "-9007199254740992",
            "18446744073709551616",
            r#"{"a":1,"a":1}"#,
            r#"{"a":{"b":1,"\u0062":2}}"#,
            r#"{"ä":1}"#,
            r#""\ud800""#,
            "1 2",
            "[1,]",
            "{} {}",
            "NaN",
            "",
            "\u{feff}{}",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(b"9007199254740991").is_ok());
        assert!(parse(b"-9007199254740991").is_ok());
        assert!(parse(b"\"\xff\"").is_err());
        let deep = "[".repeat(100_000);
        assert!(parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn made_values_are_checked_as_read_ones_are() {
        assert!(check(&serde_json::json!({ "a": [1, -1, "ä"] })).is_ok());
        assert!(check(&serde_json::json!({ "a": 0.5 })).is_err());
        assert!(check(&serde_json::json!({ "a": 1u64 << 53 })).is_err());
        assert!(check(&serde_json::json!({ "ä": 1 })).is_err());
    }

    proptest! {
        #[test]
        fn canonical_form_is_read_back_as_itself(text in "\\PC*", number in -1000i64..1000) {
            let value = serde_json::json!({ "text": text, "numbers": [number], "empty": {} });
            let bytes = to_bytes(&value);
            prop_assert_eq!(parse(&bytes).unwrap(), value);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
