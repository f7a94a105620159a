//! The text of the file as JSON values. Of YAML it takes what JSON can hold.

use feast_core::{Error, Result};
use serde_json::{Map, Value};

/// Larger files are not configurations.
const MOST_BYTES: usize = 1 << 20;

pub(super) fn read_yaml(text: &str) -> Result<Value> {
    // Editors on Windows put a byte order mark before it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > MOST_BYTES {
        return Err(Error::invalid_configuration("the configuration is larger than 1 MiB")
            .with_hint("check that this is the right file"));
    }
    let not_yaml = |error: yaml_serde::Error| {
        Error::invalid_configuration(format!("the configuration is not valid YAML: {error}")).with_hint(
            "write `key: value` lines, nested ones indented with spaces, and quote text with special characters",
        )
    };
    let mut value: yaml_serde::Value = yaml_serde::from_str(text).map_err(not_yaml)?;
    value.apply_merge().map_err(not_yaml)?;
    json_of(value, "")
}

/// YAML as JSON. Tags say nothing here; what JSON cannot hold is refused.
fn json_of(value: yaml_serde::Value, path: &str) -> Result<Value> {
    use yaml_serde::Value as Yaml;

    let here = || if path.is_empty() { "the configuration".to_owned() } else { format!("`{path}`") };
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => Value::Bool(value),
        Yaml::Number(number) => serde_json::to_value(&number).ok().filter(Value::is_number).ok_or_else(|| {
            Error::invalid_configuration(format!("{} is {number}, expected a finite number", here()))
                .with_hint("put it in quotes if it is text")
        })?,
        Yaml::String(text) if text.contains('\0') => {
            return Err(Error::invalid_configuration(format!("{} contains a NUL character", here()))
                .with_hint("remove it; a `\\` in double quotes is written `\\\\`"));
        }
        Yaml::String(text) => Value::String(text),
        Yaml::Sequence(items) => {
            let items = items.into_iter().enumerate();
            Value::Array(items.map(|(at, item)| json_of(item, &child(path, &at.to_string()))).collect::<Result<_>>()?)
        }
        Yaml::Mapping(entries) => {
            let mut map = Map::new();
            for (key, value) in entries {
                let name = match key {
                    Yaml::String(name) => name,
                    Yaml::Number(number) => number.to_string(),
                    Yaml::Bool(value) => value.to_string(),
                    _ => {
                        return Err(Error::invalid_configuration(format!("{} has a key that is not text", here()))
                            .with_hint("a key is a name; put values with braces or brackets in quotes"));
                    }
                };
                let value = json_of(value, &child(path, &name))?;
                map.insert(name, value);
            }
            Value::Object(map)
        }
        Yaml::Tagged(tagged) => json_of(tagged.value, path)?,
    })
}

/// The path of an entry, as messages name it.
pub(super) fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
