//! Environment variables in the texts of a configuration.

use feast_core::{Error, Result};
use serde_json::Value;

use super::yaml::child;

/// Fills `${NAME}`, `${NAME:-default}` and `$NAME` into every text of the configuration.
///
/// A text that is nothing but one `${...}` gets the type its value has as YAML, so that numbers and booleans stay
/// what they are. Values never become structure: a value with line breaks cannot add keys.
pub(super) fn interpolate(value: &mut Value, path: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<()> {
    match value {
        Value::Object(map) => {
            for (name, entry) in map.iter_mut() {
                interpolate(entry, &child(path, name), environment)?;
            }
        }
        Value::Array(items) => {
            for (position, item) in items.iter_mut().enumerate() {
                interpolate(item, &child(path, &position.to_string()), environment)?;
            }
        }
        Value::String(text) if text.contains('$') => {
            let (filled, whole) = fill(text, path, environment)?;
            let scalar = whole.then(|| yaml_serde::from_str::<Value>(&filled).ok()).flatten();
            *value = match scalar {
                Some(scalar @ (Value::Bool(_) | Value::Number(_) | Value::Null)) => scalar,
                _ => Value::String(filled),
            };
        }
        _ => {}
    }
    Ok(())
}

/// Returns the filled text and whether the text was one single `${...}`.
fn fill(text: &str, path: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<(String, bool)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut filled = String::new();
    let mut rest = text;
    let mut whole = false;
    while let Some(at) = rest.find('$') {
        filled.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(inner) = after.strip_prefix('{')
            && let Some(end) = inner.find('}')
        {
            let (name, default) = match inner[..end].split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (&inner[..end], None),
            };
            if name.is_empty() || !name.chars().all(is_name) {
                return Err(Error::invalid_configuration(format!(
                    "`{path}` has `${{{name}}}`, which is not the name of an environment variable"
                ))
                .with_hint("write `${NAME}` or `${NAME:-default}`, with letters, digits and `_` in the name"));
            }
            let found = environment(name).filter(|found| default.is_none() || !found.is_empty());
            let found = found.or_else(|| default.map(str::to_owned)).ok_or_else(|| {
                Error::invalid_configuration(format!(
                    "`{path}` needs the environment variable `{name}`, which is not set"
                ))
                .with_hint(format!("set it, or give a default with `${{{name}:-default}}`"))
            })?;
            filled.push_str(&found);
            whole = at == 0 && rest.len() == text.len() && end + 1 == inner.len();
            rest = &inner[end + 1..];
        } else {
            let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
            match environment(&after[..end]).filter(|_| end > 0) {
                Some(found) => filled.push_str(&found),
                // A lone `$name` is as likely a part of a password as a variable: it stays, as in Feast.
                None => filled.push_str(&rest[at..=at + end]),
            }
            rest = &after[end..];
        }
    }
    filled.push_str(rest);
    Ok((filled, whole))
}
