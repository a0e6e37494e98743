//! Words of newer releases in a member, read by this one. The hash was taken over what was written, so
//! nothing is lost by passing over them.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{MachineClass, Role};

pub(super) fn class<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MachineClass, D::Error> {
    let name = String::deserialize(deserializer)?;
    Ok(MachineClass::deserialize(Value::String(name)).unwrap_or(MachineClass::External))
}

pub(super) fn roles<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Role>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let known = |name| Role::deserialize(Value::String(name)).ok();
    Ok(names.into_iter().filter_map(known).collect())
}
