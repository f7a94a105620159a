//! The section `online_serving` of `feature_store.yaml`: how features are answered online, on all paths.
//!
//! Feast ignores the section, so that a repository with it still works there.

use std::sync::Arc;
use std::time::Duration;

use feast_core::{Error, Result, did_you_mean};
use feast_online::{Fallback, TtlPolicy};
use serde_json::{Map, Value};

const KEYS: &[&str] = &[
    "ttl_policy",
    "timeout_seconds",
    "max_concurrent_requests",
    "max_queued_requests",
    "max_connections",
    "fallback_views",
];

/// How features are answered online.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnlineServing {
    /// What happens to values that are older than the ttl of their view. Default: nothing, as in Feast.
    pub ttl_policy: TtlPolicy,
    /// Longest time for one request to the server; a client can ask for less.
    pub timeout: Duration,
    /// Requests that the server works on at the same time.
    pub max_concurrent_requests: usize,
    /// Requests that wait for their turn; more are refused.
    pub max_queued_requests: usize,
    /// Open connections to the server; more are refused.
    pub max_connections: usize,
    /// Which views become null when the store fails. Default: none, the request fails.
    pub fallback: Fallback,
}

impl Default for OnlineServing {
    fn default() -> Self {
        Self {
            ttl_policy: TtlPolicy::Ignore,
            timeout: Duration::from_secs(60),
            max_concurrent_requests: 512,
            max_queued_requests: 1024,
            max_connections: 16_384,
            fallback: Fallback::None,
        }
    }
}

impl OnlineServing {
    /// Reads the section; null is "not given".
    ///
    /// # Errors
    /// `InvalidConfiguration` naming the key, and what it can be.
    pub(crate) fn parse(section: Option<&Value>) -> Result<Self> {
        let given = match section {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(Value::Object(given)) => given,
            Some(_) => {
                return Err(Error::invalid_configuration("`online_serving` is not a mapping")
                    .with_hint("write its keys below it, indented, such as `ttl_policy: status`"));
            }
        };
        if let Some(key) = given.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(Error::invalid_configuration(format!(
                "`online_serving.{key}` is not a key of the configuration"
            ))
            .with_hint_opt(did_you_mean(key, KEYS.iter().copied())));
        }
        let default = Self::default();
        Ok(Self {
            ttl_policy: ttl_policy(given)?,
            timeout: match given.get("timeout_seconds") {
                None | Some(Value::Null) => default.timeout,
                Some(value) => value
                    .as_f64()
                    .filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0)
                    .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                    .ok_or_else(|| wrong("timeout_seconds", "a number of seconds, such as 0.25"))?,
            },
            max_concurrent_requests: count(given, "max_concurrent_requests", 1)?
                .unwrap_or(default.max_concurrent_requests),
            max_queued_requests: count(given, "max_queued_requests", 0)?.unwrap_or(default.max_queued_requests),
            max_connections: count(given, "max_connections", 1)?.unwrap_or(default.max_connections),
            fallback: fallback(given)?,
        })
    }
}

fn wrong(key: &str, expected: &str) -> Error {
    Error::invalid_configuration(format!("`online_serving.{key}` is not {expected}"))
        .with_hint(format!("give `{key}` {expected}, or leave it out"))
}

fn ttl_policy(given: &Map<String, Value>) -> Result<TtlPolicy> {
    match given.get("ttl_policy") {
        None => Ok(TtlPolicy::Ignore),
        Some(Value::String(name)) if name == "ignore" => Ok(TtlPolicy::Ignore),
        Some(Value::String(name)) if name == "status" => Ok(TtlPolicy::Status),
        Some(Value::String(name)) if name == "hide" => Ok(TtlPolicy::Hide),
        // A bare `null` in YAML may be meant as the policy.
        Some(_) => Err(wrong("ttl_policy", "one of `ignore`, `status` and `hide`")),
    }
}

fn count(given: &Map<String, Value>, key: &str, least: u64) -> Result<Option<usize>> {
    match given.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let count = value.as_u64().filter(|count| *count >= least).and_then(|count| usize::try_from(count).ok());
            count.map(Some).ok_or_else(|| wrong(key, &format!("a whole number of at least {least}")))
        }
    }
}

fn fallback(given: &Map<String, Value>) -> Result<Fallback> {
    let expected = "`all` or a list of names of feature views";
    match given.get("fallback_views") {
        None | Some(Value::Null) => Ok(Fallback::None),
        Some(Value::String(all)) if all == "all" => Ok(Fallback::All),
        Some(Value::Array(names)) => {
            let names: Option<Vec<String>> = names.iter().map(|name| name.as_str().map(str::to_owned)).collect();
            let names: Arc<[String]> = names.ok_or_else(|| wrong("fallback_views", expected))?.into();
            Ok(if names.is_empty() { Fallback::None } else { Fallback::Views(names) })
        }
        Some(_) => Err(wrong("fallback_views", expected)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_given_is_as_in_feast() {
        assert_eq!(OnlineServing::parse(None).unwrap(), OnlineServing::default());
        assert_eq!(OnlineServing::parse(Some(&json!({"timeout_seconds": null}))).unwrap(), OnlineServing::default());
        assert_eq!(OnlineServing::default().ttl_policy, TtlPolicy::Ignore);
    }

    #[test]
    fn every_key_is_read() {
        let given = json!({"ttl_policy": "hide", "timeout_seconds": 0.25, "max_concurrent_requests": 3,
                           "max_queued_requests": 0, "max_connections": 5, "fallback_views": ["a"]});
        let expected = OnlineServing {
            ttl_policy: TtlPolicy::Hide,
            timeout: Duration::from_millis(250),
            max_concurrent_requests: 3,
            max_queued_requests: 0,
            max_connections: 5,
            fallback: Fallback::Views(["a".to_owned()].into()),
        };
        assert_eq!(OnlineServing::parse(Some(&given)).unwrap(), expected);
        let all = OnlineServing::parse(Some(&json!({"fallback_views": "all", "ttl_policy": "status"}))).unwrap();
        assert_eq!((all.fallback, all.ttl_policy), (Fallback::All, TtlPolicy::Status));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (json!([]), "`online_serving` is not a mapping"),
            (json!({"ttl_polcy": "hide"}), "`online_serving.ttl_polcy` is not a key of the configuration"),
            (json!({"ttl_policy": null}), "`online_serving.ttl_policy` is not one of `ignore`, `status` and `hide`"),
            (
                json!({"timeout_seconds": 0}),
                "`online_serving.timeout_seconds` is not a number of seconds, such as 0.25",
            ),
            (
                json!({"max_concurrent_requests": 0}),
                "`online_serving.max_concurrent_requests` is not a whole number of at least 1",
            ),
            (
                json!({"fallback_views": "some"}),
                "`online_serving.fallback_views` is not `all` or a list of names of feature views",
            ),
        ];
        for (section, message) in cases {
            assert_eq!(OnlineServing::parse(Some(&section)).unwrap_err().message(), message);
        }
    }
}
