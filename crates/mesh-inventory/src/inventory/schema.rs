use schemars::{Schema, generate::SchemaSettings};

use super::Document;

/// The JSON Schema (draft 2020-12) of the native form, as `docs/inventory.schema.json` has it.
pub fn json_schema() -> Schema {
    SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<Document>()
}
