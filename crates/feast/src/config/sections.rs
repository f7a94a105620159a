//! The sections beside registry and stores: checked, whether this product reads them or keeps them for others.

use std::time::Duration;

use feast_core::{Error, Result, did_you_mean};
use serde_json::{Map, Value};

use super::{amount, flag, object_of, text_of, typed};

/// The section `transformations`: how users' Python runs beside servers; `None`: the default.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TransformationsConfig {
    /// Number of processes.
    pub workers: Option<usize>,
    /// Longest time for one call.
    pub timeout: Option<Duration>,
    /// Most memory for one process, in bytes.
    pub memory_limit: Option<u64>,
}

/// How a server gathers the rows of pushes to the offline store (`feature_server.offline_push_batching_…`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfflinePushBatching {
    /// So many rows are written together.
    pub rows: usize,
    /// The longest time that rows wait.
    pub interval: Duration,
}

/// More Python processes than that are a slip of the pen.
const MOST_WORKERS: f64 = 1024.0;
/// Longest time that can be configured for one call.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest time that pushed rows wait for others.
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

const MATERIALIZATION_KEYS: &[&str] = &["pull_latest_features", "online_write_batch_size"];

const BATCH_ENGINES: &[&str] = &[
    "local",
    "snowflake.engine",
    "lambda",
    "k8s",
    "spark.engine",
    "ray.engine",
    "flink.engine",
    "spark_application",
    "trino.engine",
    "trino",
];

const FEATURE_SERVERS: &[&str] = &["local", "mcp"];

const AUTHENTICATIONS: &[&str] = &["no_auth", "kubernetes", "oidc"];

/// Checks what is kept for others to read, and tells what nobody reads yet.
pub(super) fn check_sections(map: &Map<String, Value>, warnings: &mut Vec<String>) -> Result<()> {
    for key in ["openlineage", "mlflow", "data_quality_monitoring", "embedding_model"] {
        object_of(map, key)?;
    }
    text_of(map, "repo_path")?;
    flag(map, "coerce_tz_aware", "coerce_tz_aware")?;
    if let Some((name, _)) = section(map, "batch_engine", "local")?
        && name != "local"
        && !is_class(&name)
    {
        known_type("batch_engine", &name, BATCH_ENGINES)?;
        warnings.push(format!("`batch_engine` `{name}` is not there yet: `materialize` runs in this process"));
    }
    if let Some((name, options)) = section(map, "feature_server", "local")? {
        known_type("feature_server", &name, FEATURE_SERVERS)?;
        let asks_for = |option: &Value| option.as_bool() == Some(true);
        if asks_for(&options["mcp_enabled"]) {
            warnings.push("`feature_server.mcp_enabled` is not there yet: features are served over HTTP".to_owned());
        }
        let audit = [
            ("feature_server.audit_logging", &options["audit_logging"]["enabled"]),
            ("feature_server.metrics.audit_logging", &options["metrics"]["audit_logging"]),
        ];
        for (key, _) in audit.into_iter().filter(|(_, option)| asks_for(option)) {
            warnings.push(format!("`{key}` is not there yet: nobody writes down who reads what"));
        }
    }
    if let Some((name, _)) = section(map, "auth", "no_auth")? {
        known_type("auth", &name, AUTHENTICATIONS)?;
        if name != "no_auth" {
            warnings.push(format!("`auth` of type `{name}` is not enforced yet: nobody is asked who they are"));
        }
    }
    Ok(())
}

pub(super) fn section(map: &Map<String, Value>, key: &str, default: &str) -> Result<Option<(String, Value)>> {
    map.get(key).filter(|value| !value.is_null()).map(|_| typed(map, key, default)).transpose()
}

/// Whether a name is the path of a Python class, such as `engines.NightlyEngine`.
pub(super) fn is_class(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, class)| class.starts_with(|c: char| c.is_uppercase()))
}

/// One of ours, or the path of a class of the user's own.
fn known_type(key: &str, name: &str, known: &[&str]) -> Result<()> {
    if known.contains(&name) || name.matches('.').count() > 1 {
        return Ok(());
    }
    Err(Error::invalid_configuration(format!("`{key}` has the type `{name}`, which does not exist"))
        .with_hint_opt(did_you_mean(name, known.iter().copied())))
}

pub(super) fn transformations(map: &Map<String, Value>) -> Result<TransformationsConfig> {
    const KEYS: [&str; 3] = ["workers", "timeout_seconds", "memory_limit_mb"];
    let section = object_of(map, "transformations")?;
    if let Some(key) = section.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(Error::invalid_configuration(format!("`transformations.{key}` is not a key of the configuration"))
            .with_hint_opt(did_you_mean(key, KEYS)));
    }
    let number = |key: &str| match section.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(given) => match given.as_f64().filter(|number| number.is_finite() && *number > 0.0) {
            Some(number) => Ok(Some(number)),
            None => {
                let message = format!("`transformations.{key}` is {}, expected a positive number", amount(given));
                Err(Error::invalid_configuration(message).with_hint("give a positive number, or leave it out"))
            }
        },
    };
    let workers = number("workers")?;
    if let Some(workers) = workers.filter(|workers| *workers > MOST_WORKERS) {
        let message = format!(
            "`transformations.workers` is {workers}, which is more Python processes than a machine has room for"
        );
        return Err(Error::invalid_configuration(message).with_hint(format!("give at most {MOST_WORKERS}")));
    }
    let timeout = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_TIMEOUT).min(LONGEST_TIMEOUT);
    Ok(TransformationsConfig {
        workers: workers.map(|workers| workers.ceil() as usize),
        timeout: number("timeout_seconds")?.map(timeout),
        memory_limit: number("memory_limit_mb")?.map(|megabytes| (megabytes * f64::from(1 << 20)) as u64),
    })
}

pub(super) fn offline_push_batching(
    map: &Map<String, Value>,
    warnings: &mut Vec<String>,
) -> Result<Option<OfflinePushBatching>> {
    let section = section(map, "feature_server", "local")?;
    let Some(options) = section.as_ref().and_then(|(_, options)| options.as_object()) else { return Ok(None) };
    let path = |key: &str| format!("feature_server.offline_push_batching_{key}");
    if flag(options, "offline_push_batching_enabled", &path("enabled"))? != Some(true) {
        return Ok(None);
    }
    let number = |key: &str| match options.get(&format!("offline_push_batching_{key}")) {
        None | Some(Value::Null) => Ok(None),
        // Less than one is at once, as for Feast.
        Some(given) => given.as_i64().map(|number| Some(number.max(1) as u64)).ok_or_else(|| {
            let message = format!("`{}` is {}, expected a whole number", path(key), amount(given));
            Error::invalid_configuration(message).with_hint("give a number such as 100")
        }),
    };
    let (Some(rows), Some(seconds)) = (number("batch_size")?, number("batch_interval_seconds")?) else {
        warnings.push(format!(
            "`{}` needs `{}` and `{}`: pushes to the offline store are written at once",
            path("enabled"),
            path("batch_size"),
            path("batch_interval_seconds")
        ));
        return Ok(None);
    };
    Ok(Some(OfflinePushBatching {
        rows: usize::try_from(rows).unwrap_or(usize::MAX),
        interval: Duration::from_secs(seconds).min(LONGEST_INTERVAL),
    }))
}

pub(super) fn online_write_batch_size(map: &Map<String, Value>) -> Result<Option<usize>> {
    let materialization = object_of(map, "materialization")?;
    if let Some(key) = materialization.keys().find(|key| !MATERIALIZATION_KEYS.contains(&key.as_str())) {
        return Err(Error::invalid_configuration(format!("`materialization.{key}` is not a key of the configuration"))
            .with_hint_opt(did_you_mean(key, MATERIALIZATION_KEYS.iter().copied())));
    }
    flag(&materialization, "pull_latest_features", "materialization.pull_latest_features")?;
    match materialization.get("online_write_batch_size") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let rows = value.as_u64().filter(|rows| *rows > 0).ok_or_else(|| {
                Error::invalid_configuration(format!(
                    "`materialization.online_write_batch_size` is {}, expected a positive number of rows",
                    amount(value)
                ))
                .with_hint("write a number such as 10000, or leave it out for what the store prefers")
            })?;
            Ok(Some(usize::try_from(rows).unwrap_or(usize::MAX)))
        }
    }
}
