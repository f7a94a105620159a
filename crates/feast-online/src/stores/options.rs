//! The `online_store` part of `feature_store.yaml`, for stores with several keys.

use std::fmt;

use feast_core::{Error, Result, did_you_mean, list_names};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// A text that is never shown.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub(super) struct Secret(pub(super) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Says in the log that a key of Feast, which was given, does nothing here, and why.
pub(crate) fn without_effect(store: &str, key: &str, why: &str) {
    tracing::warn!("`online_store.{key}` of online store `{store}` has no effect: {why}");
}

/// Reads the options of a store. Null is "not given", as in Feast; whole numbers may be in quotes, as in Feast.
///
/// # Errors
/// `InvalidConfiguration` for unknown keys, listing the valid ones, for missing ones, and for values of another type.
pub(super) fn parse<T: DeserializeOwned>(
    store: &str,
    keys: &[&str],
    required: &[&str],
    numbers: &[&str],
    options: &Value,
) -> Result<T> {
    let none = Map::new();
    let given = match options {
        Value::Null => &none,
        Value::Object(given) => given,
        _ => {
            let message = format!("the options of online store `{store}` are not a mapping");
            return Err(Error::invalid_configuration(message)
                .with_hint(format!("its keys are {}", list_names(keys.iter().copied()))));
        }
    };
    if let Some(key) = given.keys().find(|key| !keys.contains(&key.as_str())) {
        let valid = format!("its keys are {}", list_names(keys.iter().copied()));
        let hint = match did_you_mean(key, keys.iter().copied()) {
            Some(closest) if closest.starts_with("did you mean") => format!("{closest} {valid}"),
            _ => valid,
        };
        return Err(Error::invalid_configuration(format!(
            "`online_store.{key}` is not a key of online store `{store}`"
        ))
        .with_hint(hint));
    }
    let mut wanted = Map::new();
    for (key, value) in given.iter().filter(|(_, value)| !value.is_null()) {
        let number = value.as_str().filter(|_| numbers.contains(&key.as_str())).and_then(|text| text.parse().ok());
        wanted.insert(key.clone(), number.map_or_else(|| value.clone(), |number: i64| Value::from(number)));
    }
    let missing: Vec<&str> = required.iter().copied().filter(|key| !wanted.contains_key(*key)).collect();
    if !missing.is_empty() {
        return Err(Error::invalid_configuration(format!("online store `{store}` lacks {}", list_names(missing)))
            .with_hint("add it below `online_store` in feature_store.yaml"));
    }
    for (key, value) in &wanted {
        // One key at a time, because an error does not name the key. The required ones go along.
        let mut alone = Map::new();
        for other in required.iter().filter(|other| **other != key.as_str()) {
            alone.insert((*other).to_owned(), Value::from(""));
        }
        alone.insert(key.clone(), value.clone());
        if let Err(error) = T::deserialize(Value::Object(alone)) {
            // The text of the error repeats the value, which may be a secret.
            let found = match value {
                Value::Bool(_) => "a truth value",
                Value::Number(_) => "a number",
                Value::String(_) => "a text",
                Value::Array(_) => "a list",
                Value::Object(_) => "a mapping",
                Value::Null => "null",
            };
            let text = error.to_string();
            let error = Error::invalid_configuration(format!("`online_store.{key}` is wrong, found {found}"));
            return Err(match (found, text.split_once("expected ")) {
                ("a number", Some((_, "a string"))) => error.with_hint("put it in quotes"),
                (_, Some((_, expected))) => error.with_hint(format!("expected {expected}")),
                _ => error.with_hint("correct it, or leave it out"),
            });
        }
    }
    T::deserialize(Value::Object(wanted))
        .map_err(|_| Error::internal("options that are right one by one are wrong together"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::{Arc, Mutex};

    use serde_json::json;
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use crate::stores::postgres::PostgresConfig;
    use crate::stores::redis::RedisConfig;
    use crate::stores::sqlite::SqliteConfig;

    /// Keeps what is logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<String>>>);

    impl Visit for Log {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            if field.name() == "message" {
                self.0.lock().unwrap().push(format!("{value:?}"));
            }
        }
    }

    impl Subscriber for Log {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            event.record(&mut self.clone());
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    fn logged(work: impl FnOnce()) -> Vec<String> {
        let log = Log::default();
        tracing::subscriber::with_default(log.clone(), work);
        std::mem::take(&mut log.0.lock().unwrap())
    }

    #[test]
    fn keys_without_effect_are_told_where_they_are_given() {
        let postgres = |more: serde_json::Value| {
            let mut options = json!({"host": "h", "database": "d", "user": "u", "password": "p"});
            options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            drop(PostgresConfig::parse(&options).unwrap());
        };
        let all = logged(|| {
            postgres(json!({"max_batched_result_rows": 10, "similarity": "cosine"}));
            drop(SqliteConfig::parse(&json!({"similarity": "cosine", "text_search_enabled": true})).unwrap());
            drop(RedisConfig::parse(&json!({"client": "glide"})).unwrap());
        });
        let keys = [
            ("postgres", "similarity"),
            ("postgres", "max_batched_result_rows"),
            ("sqlite", "similarity"),
            ("sqlite", "text_search_enabled"),
            ("redis", "client"),
        ];
        assert_eq!(all.len(), keys.len(), "{all:?}");
        for ((store, key), told) in keys.iter().zip(&all) {
            let start = format!("`online_store.{key}` of online store `{store}` has no effect: ");
            assert!(told.starts_with(&start), "{told}");
        }
        let nothing = logged(|| {
            postgres(json!({"max_batched_result_rows": null}));
            drop(SqliteConfig::parse(&json!({"similarity": null, "text_search_enabled": false})).unwrap());
            drop(RedisConfig::parse(&json!({"client": "redis"})).unwrap());
        });
        assert!(nothing.is_empty(), "{nothing:?}");
    }
}
