//! The sections beside registry and stores: checked, whether this product reads them or keeps them for others.

use feast_core::{Error, Result, did_you_mean};
use serde_json::{Map, Value};

use super::{amount, flag, object_of, text_of, typed};

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
    if let Some((name, _)) = section(map, "feature_server", "local")? {
        known_type("feature_server", &name, FEATURE_SERVERS)?;
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
