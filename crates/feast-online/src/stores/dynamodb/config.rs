//! The options of the store, and the names of its tables.

use std::collections::BTreeMap;
use std::time::Duration;

use feast_core::{Error, OnlineTable, Result};
use hyper::Uri;
use serde::Deserialize;
use serde_json::Value;

use crate::stores::options;

/// The most items that DynamoDB gives out at once.
const MOST_ITEMS: usize = 100;

/// How long a call may take, whatever the options say.
const LONGEST_CALL: Duration = Duration::from_secs(60);

/// Which of botocore's ways of trying again Feast would use; all are the same here: a random pause that doubles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryMode {
    /// botocore's first.
    Legacy,
    /// That of all AWS clients.
    Standard,
    /// The same, and slower where the server throttles.
    Adaptive,
}

/// The `online_store` part of `feature_store.yaml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DynamoConfig {
    /// `dynamodb`.
    #[serde(rename = "type")]
    store_type: String,
    /// The AWS region of the tables; required.
    pub region: String,
    /// Where DynamoDB is, when not at the region's own address.
    pub endpoint_url: Option<String>,
    /// How tables are called; default `{project}.{table_name}`.
    pub table_name_template: String,
    /// Entities in one request, 100 at most; default 100.
    pub batch_size: usize,
    /// Requests of one read at the same time; default 10.
    pub max_read_workers: usize,
    /// Idle connections that are kept, and rows that are written at the same time; default 50.
    pub max_pool_connections: usize,
    /// Whether a read sees all writes that ended before it; costs twice as much. Default false.
    pub consistent_reads: bool,
    /// Labels of all tables; those of a view come first.
    pub tags: BTreeMap<String, String>,
    /// Seconds after which an idle connection is closed; default 30.
    pub keepalive_timeout: f64,
    /// Seconds that opening a connection may take; default 5.
    pub connect_timeout: f64,
    /// Seconds that one answer may take; default 10.
    pub read_timeout: f64,
    /// How often a request is sent at most; default 3.
    pub total_max_retry_attempts: u32,
    /// Feast's way of trying again, without effect here.
    pub retry_mode: RetryMode,
    /// Whether Feast opens a session of its own, without effect here.
    pub session_based_auth: bool,
    /// Whether Feast opens a connection when it starts, without effect here.
    pub warmup_connections: bool,
}

const KEYS: &[&str] = &[
    "type",
    "region",
    "endpoint_url",
    "table_name_template",
    "batch_size",
    "max_read_workers",
    "max_pool_connections",
    "consistent_reads",
    "tags",
    "keepalive_timeout",
    "connect_timeout",
    "read_timeout",
    "total_max_retry_attempts",
    "retry_mode",
    "session_based_auth",
    "warmup_connections",
];

const NUMBERS: &[&str] = &[
    "batch_size",
    "max_read_workers",
    "max_pool_connections",
    "keepalive_timeout",
    "connect_timeout",
    "read_timeout",
    "total_max_retry_attempts",
];

impl Default for DynamoConfig {
    fn default() -> Self {
        Self {
            store_type: "dynamodb".to_owned(),
            region: String::new(),
            endpoint_url: None,
            table_name_template: "{project}.{table_name}".to_owned(),
            batch_size: MOST_ITEMS,
            max_read_workers: 10,
            max_pool_connections: 50,
            consistent_reads: false,
            tags: BTreeMap::new(),
            keepalive_timeout: 30.0,
            connect_timeout: 5.0,
            read_timeout: 10.0,
            total_max_retry_attempts: 3,
            retry_mode: RetryMode::Adaptive,
            session_based_auth: false,
            warmup_connections: false,
        }
    }
}

impl DynamoConfig {
    /// Reads the options.
    ///
    /// # Errors
    /// `InvalidConfiguration` for unknown keys, listing the valid ones, for a missing region, and for values that are
    /// none.
    pub fn parse(given: &Value) -> Result<Self> {
        let config: Self = options::parse("dynamodb", KEYS, &["region"], NUMBERS, given)?;
        let wrong = |key: &str, found: String, expected: &str| {
            let message = format!("`online_store.{key}` is {found}");
            Err(Error::invalid_configuration(message).with_hint(format!("expected {expected}")))
        };
        for (key, is_set, why) in [
            (
                "retry_mode",
                config.retry_mode != RetryMode::Adaptive,
                "failed calls are repeated after a random pause that doubles, in every mode",
            ),
            ("session_based_auth", config.session_based_auth, "credentials are always those of one session"),
            ("warmup_connections", config.warmup_connections, "connections are opened when they are needed"),
        ] {
            if is_set {
                options::without_effect("dynamodb", key, why);
            }
        }
        let named =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if config.region.is_empty() || !named(&config.region) {
            return wrong("region", "not the name of an AWS region".to_owned(), "one such as `eu-west-1`");
        }
        if !(1..=MOST_ITEMS).contains(&config.batch_size) {
            let found = config.batch_size.to_string();
            return wrong("batch_size", found, "1 to 100, which is as many items as DynamoDB gives out at once");
        }
        for (key, found) in [
            ("max_read_workers", config.max_read_workers),
            ("max_pool_connections", config.max_pool_connections),
            ("total_max_retry_attempts", config.total_max_retry_attempts as usize),
        ] {
            if found == 0 {
                return wrong(key, "0".to_owned(), "1 or more");
            }
        }
        for (key, found) in [
            ("keepalive_timeout", config.keepalive_timeout),
            ("connect_timeout", config.connect_timeout),
            ("read_timeout", config.read_timeout),
        ] {
            if !(found > 0.0 && found <= 86_400.0) {
                return wrong(key, found.to_string(), "a number of seconds above 0");
            }
        }
        if let Some(url) = &config.endpoint_url {
            let uri: Option<Uri> = url.parse().ok();
            let scheme = uri.as_ref().and_then(Uri::scheme_str);
            if !matches!(scheme, Some("http" | "https")) || uri.as_ref().and_then(Uri::host).is_none() {
                return wrong("endpoint_url", "not an address".to_owned(), "one such as `http://localhost:8000`");
            }
        }
        match expand(&config.table_name_template, "project", "name") {
            Some(_) if config.table_name_template.contains("{table_name}") => Ok(config),
            _ => wrong(
                "table_name_template",
                format!("`{}`", config.table_name_template),
                "a text with `{table_name}`, so that each view has a table of its own, and perhaps `{project}`",
            ),
        }
    }

    /// Where requests go, without a slash at the end.
    pub(super) fn endpoint(&self) -> String {
        if let Some(url) = &self.endpoint_url {
            return url.trim_end_matches('/').to_owned();
        }
        // The partitions of AWS have domains of their own.
        let domain = match self.region.split('-').collect::<Vec<_>>().as_slice() {
            ["cn", ..] => "amazonaws.com.cn",
            ["us", "iso", ..] => "c2s.ic.gov",
            ["us", "isob", ..] => "sc2s.sgov.gov",
            ["us", "isof", ..] => "csp.hci.ic.gov",
            ["eu", "isoe", ..] => "cloud.adc-e.uk",
            ["eusc", ..] => "amazonaws.eu",
            _ => "amazonaws.com",
        };
        format!("https://dynamodb.{}.{domain}", self.region)
    }

    /// How the table of a view is called.
    pub(super) fn table_name(&self, table: &OnlineTable) -> String {
        self.named(&table.project, &table.view)
    }

    /// The view whose table has this name.
    pub(super) fn view_of<'a>(&self, project: &str, name: &'a str) -> Option<&'a str> {
        // A character that no name has.
        let pattern = self.named(project, "\0");
        let (before, after) = pattern.split_once('\0')?;
        let view = name.strip_prefix(before)?.strip_suffix(after)?;
        (self.named(project, view) == name).then_some(view)
    }

    fn named(&self, project: &str, view: &str) -> String {
        expand(&self.table_name_template, project, view).unwrap_or_default()
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.connect_timeout)
    }

    pub(super) fn keepalive_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.keepalive_timeout)
    }

    /// How long one attempt may take.
    pub(super) fn attempt_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.connect_timeout + self.read_timeout)
    }

    /// How long a call may take, with all attempts.
    pub(super) fn call_timeout(&self) -> Duration {
        (self.attempt_timeout() * self.total_max_retry_attempts.min(1000)).min(LONGEST_CALL)
    }
}

/// Python's `template.format(project=..., table_name=...)`; `None` where that would fail.
fn expand(template: &str, project: &str, view: &str) -> Option<String> {
    let mut name = String::with_capacity(template.len() + project.len() + view.len());
    let mut rest = template;
    while let Some(position) = rest.find(['{', '}']) {
        name.push_str(&rest[..position]);
        rest = &rest[position..];
        for (written, meant) in [("{{", "{"), ("}}", "}"), ("{project}", project), ("{table_name}", view), ("", "")] {
            if written.is_empty() {
                return None;
            }
            if let Some(left) = rest.strip_prefix(written) {
                name.push_str(meant);
                rest = left;
                break;
            }
        }
    }
    name.push_str(rest);
    Some(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn options_are_those_of_feast() {
        let config = DynamoConfig::parse(&json!({"type": "dynamodb", "region": "us-west-2"})).unwrap();
        assert_eq!(config, DynamoConfig { region: "us-west-2".to_owned(), ..DynamoConfig::default() });
        assert_eq!(config.endpoint(), "https://dynamodb.us-west-2.amazonaws.com");
        assert_eq!(config.call_timeout(), Duration::from_secs(45));
        let error = DynamoConfig::parse(&json!({"region": "us-west-2", "regoin": 1})).unwrap_err();
        assert_eq!(error.message(), "`online_store.regoin` is not a key of online store `dynamodb`");
        assert!(error.hint().unwrap().starts_with("did you mean `region`?"), "{error:?}");
        assert_eq!(DynamoConfig::parse(&Value::Null).unwrap_err().message(), "online store `dynamodb` lacks `region`");
        for (key, value) in [
            ("region", json!("US West")),
            ("region", json!("")),
            ("batch_size", json!(101)),
            ("batch_size", json!(0)),
            ("max_read_workers", json!(0)),
            ("read_timeout", json!(0)),
            ("retry_mode", json!("often")),
            ("endpoint_url", json!("localhost:8000")),
            ("table_name_template", json!("features")),
            ("table_name_template", json!("{projet}.{table_name}")),
            ("table_name_template", json!("{table_name}}")),
            ("tags", json!(["a"])),
        ] {
            let mut options = json!({"region": "eu-west-1"});
            options[key] = value;
            let error = DynamoConfig::parse(&options).unwrap_err();
            assert!(error.message().contains(&format!("`online_store.{key}`")), "{error}");
        }
    }

    #[test]
    fn tables_are_called_as_the_template_says() {
        let config = |template: &str| {
            let options = json!({"region": "eu-west-1", "table_name_template": template});
            DynamoConfig::parse(&options).unwrap()
        };
        for (template, name) in [
            ("{project}.{table_name}", "shop.orders"),
            ("prod_{table_name}-{project}", "prod_orders-shop"),
            ("{table_name}", "orders"),
            ("{{x}}{table_name}", "{x}orders"),
        ] {
            let config = config(template);
            assert_eq!(config.named("shop", "orders"), name);
            assert_eq!(config.view_of("shop", name), Some("orders"), "{template}");
        }
        let config = config("{project}.{table_name}");
        assert_eq!(config.view_of("shop", "shopping.orders"), None);
    }

    #[test]
    fn partitions_have_domains_of_their_own() {
        let endpoint = |region: &str| DynamoConfig::parse(&json!({ "region": region })).unwrap().endpoint();
        assert_eq!(endpoint("cn-north-1"), "https://dynamodb.cn-north-1.amazonaws.com.cn");
        assert_eq!(endpoint("us-gov-west-1"), "https://dynamodb.us-gov-west-1.amazonaws.com");
    }
}
