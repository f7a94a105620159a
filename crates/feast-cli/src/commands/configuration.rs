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
                let key = key.to_lowercase();
                if entry.is_string() && SECRET.iter().any(|secret| key.contains(secret)) {
                    *entry = MASK.into();
                } else {
                    mask(entry);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::String(text) => {
            if let Some(masked) = without_password(text) {
                *text = masked;
            }
        }
        _ => {}
    }
}

/// A URL such as `postgresql://user:password@host/db` without its password; `None` when it has none.
fn without_password(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (login, host) = rest[..authority_end].rsplit_once('@')?;
    let (user, _) = login.split_once(':')?;
    Some(format!("{scheme}://{user}:{MASK}@{host}{}", &rest[authority_end..]))
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
            "auth": {"type": "oidc", "client_secret": "hunter2"},
            "stores": [{"Password": "hunter2"}],
        });
        mask(&mut config);
        let text = config.to_string();
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(config["registry"]["path"], "postgresql://feast:********@db:5432/feast?x=1");
        assert_eq!(config["online_store"]["key_ttl_seconds"], 5);
    }
}
