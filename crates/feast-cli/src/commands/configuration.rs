//! `feast configuration`.

use clap::Args;
use serde_json::Value;

use crate::exit::{Exit, Outcome};
use crate::session::Session;
use crate::terminal::Format;

/// Show the configuration with defaults filled in and secrets masked
#[derive(Debug, Args)]
pub(crate) struct Configuration {}

/// Parts of the names of keys whose values are secrets.
const SECRET: &[&str] = &[
    "password",
    "passwd",
    "secret",
    "token",
    "connection_string",
    "access_key",
    "private_key",
    "api_key",
    "credential",
];

/// Stands for a secret.
const MASK: &str = "********";

impl Configuration {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let mut effective = session.config()?.effective;
        mask(&mut effective);
        let format = session.terminal().format().unwrap_or(Format::Yaml);
        session.terminal().print_value(&effective, if format == Format::Table { Format::Yaml } else { format });
        Ok(Exit::Done)
    }
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, entry) in map.iter_mut() {
                match entry {
                    Value::String(_) if is_secret(key) => *entry = MASK.into(),
                    // `password: 1234`, but not `token_lifetime_seconds: 30`.
                    Value::Number(_) if SECRET.iter().any(|secret| key.to_lowercase().ends_with(secret)) => {
                        *entry = MASK.into();
                    }
                    entry => mask(entry),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::String(text) => *text = without_secrets(text),
        _ => {}
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    SECRET.iter().any(|secret| key.contains(secret))
}

/// A text without the password of a URL such as `postgresql://user:password@host/db`, and without the values of
/// parameters such as `password=…`.
fn without_secrets(text: &str) -> String {
    let is_end = |c: char| matches!(c, '?' | '&' | ';' | ',') || c.is_whitespace();
    let (mut shown, mut rest) = (String::new(), text);
    // A password may hold every character: all before the last `@` is the login.
    if let Some((scheme, after)) = text.split_once("://")
        && let Some((login, place)) = after.rsplit_once('@')
        && let Some((user, _)) = login.split_once(':')
    {
        shown = format!("{scheme}://{user}:{MASK}@");
        rest = place;
    }
    for part in rest.split_inclusive(is_end) {
        match part.split_once('=') {
            Some((key, value)) if is_secret(key) => {
                let ending = &value[value.trim_end_matches(is_end).len()..];
                shown.push_str(&format!("{key}={MASK}{ending}"));
            }
            _ => shown.push_str(part),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_masked_wherever_they_are() {
        let mut config = json!({
            "registry": {"path": "postgresql://feast:hunter2@db:5432/feast?x=1"},
            "online_store": {"type": "redis", "connection_string": "redis:6379,password=hunter2", "key_ttl_seconds": 5},
            "auth": {"type": "oidc", "client_secret": "hunter2", "token_lifetime_seconds": 443},
            "stores": [{"Password": "hunter2"}, {"password": 10_142_002}],
            "places": ["mysql://u:hunter2/@?x@db/feast", "jdbc:x://db/feast?user=u&password=hunter2&ssl=true"],
        });
        mask(&mut config);
        let text = config.to_string();
        assert!(!text.contains("hunter2") && !text.contains("10142002"), "{text}");
        assert_eq!(config["places"][0], "mysql://u:********@db/feast");
        assert_eq!(config["places"][1], "jdbc:x://db/feast?user=u&password=********&ssl=true");
        assert_eq!(config["auth"]["token_lifetime_seconds"], 443);
        assert_eq!(config["registry"]["path"], "postgresql://feast:********@db:5432/feast?x=1");
        assert_eq!(config["online_store"]["key_ttl_seconds"], 5);
    }
}
