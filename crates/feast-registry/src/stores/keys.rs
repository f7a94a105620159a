//! The keys below `registry` in `feature_store.yaml`, type by type. Names and types are Feast's; one that means nothing
//! for a type is refused instead of having no effect.

use feast_core::{Error, Result, did_you_mean};
use serde_json::{Map, Value};

use super::KNOWN_REGISTRIES;

/// What may stand behind a key. Texts and mappings are looked at by the store that they are for.
#[derive(Clone, Copy)]
enum Form {
    Any,
    Flag,
    Count,
}

/// A key and the types that know it; none: all of them.
struct Key {
    name: &'static str,
    form: Form,
    types: &'static [&'static str],
}

const fn key(name: &'static str, form: Form, types: &'static [&'static str]) -> Key {
    Key { name, form, types }
}

const SNOWFLAKE: &[&str] = &["snowflake.registry"];

const KEYS: &[Key] = &[
    key("registry_type", Form::Any, &[]),
    key("path", Form::Any, &[]),
    key("cache_ttl_seconds", Form::Any, &[]),
    key("cache_mode", Form::Any, &[]),
    key("purge_feast_metadata", Form::Flag, &[]),
    key("enable_online_feature_view_versioning", Form::Flag, &[]),
    // Views are served all the while, whatever it says.
    key("serve_features_while_materializing", Form::Flag, &[]),
    key("mcp", Form::Any, &[]),
    key("registry_store_type", Form::Any, &["file"]),
    key("s3_additional_kwargs", Form::Any, &["file"]),
    key("read_path", Form::Any, &["sql"]),
    key("sqlalchemy_config_kwargs", Form::Any, &["sql"]),
    key("schema_mode", Form::Any, &["sql"]),
    // Projects are read in one go, whatever it says.
    key("thread_pool_executor_worker_count", Form::Count, &["sql"]),
    key("is_tls", Form::Flag, &["remote"]),
    key("cert", Form::Any, &["remote"]),
    key("client_cert", Form::Any, &["remote"]),
    key("client_key", Form::Any, &["remote"]),
    key("authority", Form::Any, &["remote"]),
    key("account", Form::Any, SNOWFLAKE),
    key("user", Form::Any, SNOWFLAKE),
    key("password", Form::Any, SNOWFLAKE),
    key("role", Form::Any, SNOWFLAKE),
    key("warehouse", Form::Any, SNOWFLAKE),
    key("database", Form::Any, SNOWFLAKE),
    key("schema", Form::Any, SNOWFLAKE),
    key("project", Form::Any, SNOWFLAKE),
];

/// The classes by which Feast lets a registry file be named, and where the paths of their files start.
const STORE_CLASSES: &[(&str, &[&str])] =
    &[("FileRegistryStore", &["file"]), ("S3RegistryStore", &["s3"]), ("GCSRegistryStore", &["gs"])];

/// Checks what stands below `registry` for a type and a path; gives what is worth telling the user.
///
/// # Errors
/// `InvalidConfiguration` for a key that there is not, that means nothing for this type, or whose value has another
/// form; `Unsupported` for what is not there yet.
pub fn check_options(registry_type: &str, path: &str, options: &Map<String, Value>) -> Result<Vec<String>> {
    let known = |name: &String| KEYS.iter().find(|key| key.name == name);
    if let Some(name) = options.keys().find(|name| known(name).is_none()) {
        let of_type = KEYS.iter().filter(|key| is_for(key, registry_type)).map(|key| key.name);
        return Err(Error::invalid_configuration(format!(
            "`registry.{name}` is not a key of the registry configuration"
        ))
        .with_hint_opt(did_you_mean(name, of_type)));
    }
    for (key, value) in options.iter().filter_map(|(name, value)| Some((known(name)?, value))) {
        let name = key.name;
        // Null is "not given": Feast's classes write all their fields.
        if value.is_null() {
            continue;
        }
        if !is_for(key, registry_type) {
            let owner = key.types.first().copied().unwrap_or_default();
            return Err(Error::invalid_configuration(format!(
                "`registry.{name}` is for registries of type `{owner}`, and this one is of type `{registry_type}`"
            ))
            .with_hint(format!("leave it out, or set `registry_type: {owner}`")));
        }
        let (fits, expected) = match key.form {
            Form::Any => (true, ""),
            Form::Flag => (value.is_boolean(), "true or false"),
            Form::Count => (value.is_u64(), "a whole number"),
        };
        if !fits {
            return Err(Error::invalid_configuration(format!("`registry.{name}` is not {expected}"))
                .with_hint(format!("write {expected}, or leave the key out")));
        }
    }
    check_store_class(path, options.get("registry_store_type"))?;
    let mut warnings = Vec::new();
    if wants_mcp(options.get("mcp"))? {
        warnings.push("`registry.mcp` is not there yet: the registry is served over gRPC and REST".to_owned());
    }
    Ok(warnings)
}

/// Of a type that there is not, no key is wrong: that is told when it is connected.
fn is_for(key: &Key, registry_type: &str) -> bool {
    key.types.is_empty()
        || key.types.contains(&registry_type)
        || KNOWN_REGISTRIES.iter().all(|known| known.name != registry_type)
}

/// Feast finds the store of a file by this class or by the start of its path; here the path says it, and a class has to
/// agree.
fn check_store_class(path: &str, class: Option<&Value>) -> Result<()> {
    let class = match class {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::String(class)) => class,
        Some(_) => {
            return Err(Error::invalid_configuration("`registry.registry_store_type` is not the name of a class")
                .with_hint("leave it out: the path says where the file is"));
        }
    };
    let scheme = path.split_once("://").map_or("file", |(scheme, _)| scheme);
    let name = class.rsplit('.').next().unwrap_or(class);
    match STORE_CLASSES.iter().find(|(known, _)| *known == name) {
        Some((_, schemes)) if schemes.contains(&scheme) => Ok(()),
        Some((_, schemes)) => Err(Error::invalid_configuration(format!(
            "`registry.registry_store_type` is `{name}`, and the path is not one of its files"
        ))
        .with_hint(match schemes.first() {
            Some(&"file") | None => "leave it out: the path says where the file is".to_owned(),
            Some(scheme) => format!("write the path as `{scheme}://bucket/registry.db`, or leave the class out"),
        })),
        None => Err(Error::unsupported(format!("registry files of the class `{name}` are not supported")).with_hint(
            "use a path on this machine, `s3://bucket/registry.db` or `gs://bucket/registry.db`, without \
             `registry_store_type`",
        )),
    }
}

/// Whether the registry server is to answer agents, too.
fn wants_mcp(mcp: Option<&Value>) -> Result<bool> {
    match mcp {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Object(mcp)) if mcp.get("enabled").is_none_or(|on| on.is_boolean() || on.is_null()) => {
            Ok(mcp.get("enabled") == Some(&Value::Bool(true)))
        }
        Some(_) => Err(Error::invalid_configuration("`registry.mcp` is not a mapping with `enabled: true` or `false`")
            .with_hint("leave it out")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use feast_core::ErrorCode;
    use serde_json::json;

    use super::*;

    fn checked(registry_type: &str, path: &str, options: Value) -> Result<Vec<String>> {
        check_options(registry_type, path, options.as_object().unwrap())
    }

    /// Every key of the configuration classes of Feast 0.67.0.
    #[test]
    fn every_key_of_feast_is_taken_by_its_type() {
        let common = json!({
            "registry_type": "x", "path": "r", "cache_ttl_seconds": 1, "cache_mode": "thread", "mcp": {"enabled": false},
            "purge_feast_metadata": true, "enable_online_feature_view_versioning": false,
            "serve_features_while_materializing": true,
        });
        let of_type = [
            (
                "file",
                "s3://b/r",
                json!({"registry_store_type": "S3RegistryStore", "s3_additional_kwargs": {"ACL": "x"}}),
            ),
            (
                "sql",
                "sqlite:///r",
                json!({"read_path": "sqlite:///s", "sqlalchemy_config_kwargs": {"echo": false},
                    "thread_pool_executor_worker_count": 2, "schema_mode": "skip"}),
            ),
            (
                "remote",
                "h:1",
                json!({"is_tls": true, "cert": "a", "client_cert": "b", "client_key": "c", "authority": "d"}),
            ),
        ];
        for (registry_type, path, keys) in &of_type {
            let all: Map<String, Value> =
                common.as_object().into_iter().chain(keys.as_object()).flat_map(|keys| keys.clone()).collect();
            assert_eq!(check_options(registry_type, path, &all).unwrap(), Vec::<String>::new(), "{registry_type}");
            for (other, _, _) in of_type.iter().filter(|(other, _, _)| other != registry_type) {
                for (name, value) in keys.as_object().unwrap() {
                    let error = checked(other, "r", json!({ (name.as_str()): value })).unwrap_err();
                    let expected = format!("`registry.{name}` is for registries of type `{registry_type}`");
                    assert!(error.message().starts_with(&expected), "{error}");
                    assert!(error.hint().is_some());
                }
            }
        }
    }

    #[test]
    fn what_is_wrong_or_not_there_yet_is_told_in_one_sentence() {
        for (path, options, code) in [
            ("r", json!({"pth": 1}), ErrorCode::InvalidConfiguration),
            ("r", json!({"purge_feast_metadata": "yes"}), ErrorCode::InvalidConfiguration),
            ("r", json!({"mcp": true}), ErrorCode::InvalidConfiguration),
            ("r", json!({"registry_store_type": 1}), ErrorCode::InvalidConfiguration),
            ("r", json!({"registry_store_type": "S3RegistryStore"}), ErrorCode::InvalidConfiguration),
            ("s3://b/r", json!({"registry_store_type": "FileRegistryStore"}), ErrorCode::InvalidConfiguration),
            ("r", json!({"registry_store_type": "AzureRegistryStore"}), ErrorCode::Unsupported),
            ("r", json!({"registry_store_type": "my.HDFSRegistryStore"}), ErrorCode::Unsupported),
        ] {
            let error = checked("file", path, options.clone()).unwrap_err();
            assert_eq!(error.code(), code, "{options}: {error}");
            assert!(error.hint().is_some(), "{error}");
        }
        let classes = json!({"registry_store_type": "feast.infra.registry.file.FileRegistryStore"});
        assert!(checked("file", "data/registry.db", classes).unwrap().is_empty());
        let later = json!({"mcp": {"enabled": true}, "enable_online_feature_view_versioning": true});
        assert_eq!(checked("file", "r", later).unwrap().len(), 1);
    }
}
