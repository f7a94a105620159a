//! `feature_store.yaml`: the configuration of a feature store, checked.

mod sections;
mod variables;
mod yaml;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use feast_core::{ENTITY_KEY_VERSION, Error, ErrorCode, Result, did_you_mean};
use serde_json::{Map, Value};

use crate::OnlineServing;
pub use sections::{OfflinePushBatching, TransformationsConfig};
use sections::{check_sections, is_class, offline_push_batching, online_write_batch_size, section, transformations};
use variables::interpolate;
use yaml::read_yaml;

/// Name of the configuration file of a feature repository.
pub const CONFIG_FILE: &str = "feature_store.yaml";

const KEYS: &[&str] = &[
    "project",
    "project_description",
    "provider",
    "registry",
    "online_store",
    "offline_store",
    "batch_engine",
    "auth",
    "feature_server",
    "online_serving",
    "materialization",
    "entity_key_serialization_version",
    "coerce_tz_aware",
    "flags",
    "embedding_model",
    "openlineage",
    "mlflow",
    "data_quality_monitoring",
    "transformations",
    "repo_path",
];

/// Where definitions rest.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryConfig {
    /// `file` by default.
    pub registry_type: String,
    /// Path, URL or `host:port`, as the type wants it.
    pub path: String,
    /// How long a snapshot is taken as current; `None`: until it is refreshed by hand.
    pub cache_ttl: Option<Duration>,
    /// Whether each version of a view has a table of its own in the online store.
    pub versions_have_tables: bool,
    /// Every other key.
    pub options: Map<String, Value>,
}

/// A checked `feature_store.yaml`.
#[derive(Clone)]
pub struct RepoConfig {
    /// Name of the project.
    pub project: String,
    /// Used where the repository defines no project object.
    pub project_description: String,
    /// Kept and shown; it decides nothing.
    pub provider: String,
    /// Where definitions rest.
    pub registry: RegistryConfig,
    /// Type and options of the online store; `None` when there is none.
    pub online_store: Option<(String, Value)>,
    /// Type and options of the offline store.
    pub offline_store: (String, Value),
    /// Type and options of what computes materializations: `local`, or the path of a Python class.
    pub batch_engine: (String, Value),
    /// How features are answered online.
    pub online_serving: OnlineServing,
    /// Rows per write of a materialization; `None`: what the store prefers.
    pub online_write_batch_size: Option<usize>,
    /// How users' Python runs beside servers.
    pub transformations: TransformationsConfig,
    /// How a server gathers pushes to the offline store; `None`: each is written at once.
    pub offline_push_batching: Option<OfflinePushBatching>,
    /// Version of the entity key serialization.
    pub entity_key_serialization_version: u8,
    /// Where relative paths start; absolute.
    pub repo_path: PathBuf,
    /// Who changes the registry, as its history names them: `user@host`; empty when the system does not say.
    pub author: String,
    /// The whole configuration with defaults filled in.
    pub effective: Value,
    /// Things worth telling the user, such as keys nobody reads.
    pub warnings: Vec<String>,
}

/// Values may be secrets: only the shape is shown.
impl fmt::Debug for RegistryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryConfig").field("registry_type", &self.registry_type).finish_non_exhaustive()
    }
}

/// Values may be secrets: only the shape is shown.
impl fmt::Debug for RepoConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RepoConfig")
            .field("project", &self.project)
            .field("registry", &self.registry)
            .field("online_store", &self.online_store.as_ref().map(|(name, _)| name))
            .field("offline_store", &self.offline_store.0)
            .field("repo_path", &self.repo_path)
            .finish_non_exhaustive()
    }
}

impl RepoConfig {
    /// Reads the configuration file of a repository.
    ///
    /// # Errors
    /// `FileNotFound` when there is none, `InvalidConfiguration` as [`RepoConfig::parse`].
    pub fn load(repo_path: &Path, file: Option<&Path>) -> Result<Self> {
        let path = file.map_or_else(|| repo_path.join(CONFIG_FILE), Path::to_path_buf);
        let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::new(
                ErrorCode::FileNotFound,
                format!("there is no configuration file `{}`", path.display()),
            )
            .with_hint(
                "run `feast` inside a feature repository, name one with `--chdir`, or make one with `feast init`",
            ),
            std::io::ErrorKind::InvalidData => {
                Error::invalid_configuration(format!("`{}` is not UTF-8 text", path.display()))
                    .with_hint("save it as UTF-8; `feast init` writes a complete one")
            }
            std::io::ErrorKind::IsADirectory => {
                Error::invalid_configuration(format!("`{}` is a folder, not a configuration file", path.display()))
                    .with_hint("name the file in it; to work in another folder, name that with `--chdir`")
            }
            _ => Error::invalid_configuration(format!("`{}` cannot be read", path.display()))
                .with_source(error)
                .with_hint("it has to be a file that this user may read"),
        })?;
        Self::parse(&text, repo_path).map_err(|error| error.with_context("file", path.display()))
    }

    /// Parses the text of a configuration, fills in environment variables and checks it.
    ///
    /// # Errors
    /// `InvalidConfiguration` naming the key, what was found and what is valid; `RegistryNotSet` without a registry.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn parse(text: &str, repo_path: &Path) -> Result<Self> {
        Self::parse_with(text, repo_path, &|name| std::env::var(name).ok())
    }

    /// Parses a configuration that a program made: a `$` in it is a `$`.
    ///
    /// # Errors
    /// As [`RepoConfig::parse`].
    pub fn parse_literal(text: &str, repo_path: &Path) -> Result<Self> {
        Self::from_value(read_yaml(text)?, repo_path)
    }

    /// [`RepoConfig::parse`] with the environment as a function.
    ///
    /// # Errors
    /// As [`RepoConfig::parse`].
    pub fn parse_with(text: &str, repo_path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let mut value = read_yaml(text)?;
        interpolate(&mut value, "", environment)?;
        Self::from_value(value, repo_path)
    }

    fn from_value(value: Value, repo_path: &Path) -> Result<Self> {
        match value {
            Value::Object(map) => Self::from_map(map, repo_path),
            other => Err(Error::invalid_configuration(format!(
                "the configuration is {}, expected a mapping of keys to values",
                kind(&other)
            ))
            .with_hint("it needs at least `project:` and `registry:`; `feast init` writes a complete one")),
        }
    }

    fn from_map(map: Map<String, Value>, repo_path: &Path) -> Result<Self> {
        let mut warnings = unknown_keys(&map)?;
        let project = text_of(&map, "project")?
            .ok_or_else(|| Error::invalid_configuration("`project` is missing").with_hint("add `project: <name>`"))?;
        check_project_name(&project)?;
        let registry = registry_config(&map, &mut warnings)?;
        let online_store = match map.get("online_store") {
            None => Some(("sqlite".to_owned(), Value::Object(Map::new()))),
            Some(Value::Null) => None,
            Some(Value::String(none)) if none == "none" => None,
            Some(_) => Some(typed(&map, "online_store", "sqlite")?),
        };
        let offline_store = match map.get("offline_store") {
            None | Some(Value::Null) => ("dask".to_owned(), Value::Object(Map::new())),
            Some(_) => typed(&map, "offline_store", "dask")?,
        };
        let version = match map.get("entity_key_serialization_version") {
            None | Some(Value::Null) => ENTITY_KEY_VERSION,
            Some(value) => value.as_u64().and_then(|v| u8::try_from(v).ok()).filter(|v| *v <= 3).ok_or_else(|| {
                Error::invalid_configuration(format!(
                    "`entity_key_serialization_version` is {}, expected a number up to 3",
                    amount(value)
                ))
                .with_hint("use 3; older versions are only for data that was written with them")
            })?,
        };
        if version < ENTITY_KEY_VERSION {
            warnings.push(format!("entity key serialization version {version} is outdated; 3 is the current one"));
        }
        check_sections(&map, &mut warnings)?;
        let online_write_batch_size = online_write_batch_size(&map)?;
        let online_serving = OnlineServing::parse(map.get("online_serving"))?;
        let provider = text_of(&map, "provider")?.unwrap_or_else(|| "local".to_owned());
        let effective = effective(&map, &registry, online_store.as_ref(), &offline_store, version);
        Ok(Self {
            project,
            project_description: text_of(&map, "project_description")?.unwrap_or_default(),
            provider,
            registry,
            online_store,
            offline_store,
            batch_engine: section(&map, "batch_engine", "local")?.unwrap_or_else(|| ("local".to_owned(), Value::Null)),
            online_serving,
            online_write_batch_size,
            transformations: transformations(&map)?,
            offline_push_batching: offline_push_batching(&map, &mut warnings)?,
            entity_key_serialization_version: version,
            // Whoever changes the working directory later still means this folder.
            repo_path: std::path::absolute(repo_path).unwrap_or_else(|_| repo_path.to_path_buf()),
            author: author(),
            effective,
            warnings,
        })
    }
}

impl RepoConfig {
    /// Whether `batch_engine` names a class of the user's own.
    pub fn has_python_engine(&self) -> bool {
        is_class(&self.batch_engine.0)
    }

    /// The path of the Python class that `online_store` names, where it is one of the user's own.
    pub fn python_online_store(&self) -> Option<&str> {
        let (name, _) = self.online_store.as_ref()?;
        let own = is_class(name) && !name.starts_with("feast.") && feast_online::stores::known_store(name).is_err();
        own.then_some(name)
    }

    /// The host and port of a server that runs functions of on-demand views, where one is named.
    pub fn transformation_service_endpoint(&self) -> Option<&str> {
        self.effective["feature_server"]["transformation_service_endpoint"].as_str().filter(|place| !place.is_empty())
    }
}

/// Who runs this process. `FEAST_AUTHOR` is for jobs that act for somebody.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn author() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let user = || ["USER", "LOGNAME", "USERNAME"].into_iter().find_map(variable);
    let host = || variable("HOSTNAME").or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    let author = variable("FEAST_AUTHOR").or_else(|| match (user(), host()) {
        (Some(user), Some(host)) => Some(format!("{user}@{}", host.trim())),
        (user, _) => user,
    });
    // As much as the history keeps.
    author.unwrap_or_default().chars().take(255).collect()
}

/// Unknown keys that look like a misspelt one are errors, others are reported and ignored as Feast does.
fn unknown_keys(map: &Map<String, Value>) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for key in map.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        let hint = did_you_mean(key, KEYS.iter().copied());
        if hint.as_deref().is_some_and(|hint| hint.starts_with("did you mean")) {
            return Err(
                Error::invalid_configuration(format!("`{key}` is not a key of the configuration")).with_hint_opt(hint)
            );
        }
        warnings.push(format!("`{key}` is not a key of the configuration and is ignored"));
    }
    Ok(warnings)
}

fn check_project_name(name: &str) -> Result<()> {
    let valid = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if valid {
        return Ok(());
    }
    let found = if name.is_empty() { "empty".to_owned() } else { format!("`{name}`") };
    Err(Error::invalid_configuration(format!("`project` is {found}, which is not a valid project name"))
        .with_hint("use letters, digits, `_` and `-`, starting with a letter or digit"))
}

fn registry_config(map: &Map<String, Value>, warnings: &mut Vec<String>) -> Result<RegistryConfig> {
    let not_set = || {
        Error::new(ErrorCode::RegistryNotSet, "`registry` is missing")
            .with_hint("add `registry: data/registry.db`, or a mapping with `registry_type` and `path`")
    };
    let mut options = match map.get("registry") {
        None | Some(Value::Null) => return Err(not_set()),
        Some(Value::String(path)) => [("path".to_owned(), Value::String(path.clone()))].into_iter().collect(),
        Some(Value::Object(options)) => options.clone(),
        Some(other) => {
            return Err(Error::invalid_configuration(format!(
                "`registry` is {}, expected a path or a mapping",
                kind(other)
            ))
            .with_hint("write `registry: data/registry.db`"));
        }
    };
    let registry_type = text_at(&options, "registry_type", "registry.registry_type")?;
    let registry_type = registry_type.unwrap_or_else(|| "file".to_owned());
    let path = text_at(&options, "path", "registry.path")?.unwrap_or_default();
    warnings.extend(feast_registry::check_options(&registry_type, &path, &options)?);
    if path.is_empty() {
        return Err(not_set());
    }
    let seconds = match options.get("cache_ttl_seconds") {
        None | Some(Value::Null) => 600,
        Some(value) => value.as_u64().ok_or_else(|| {
            Error::invalid_configuration(format!(
                "`registry.cache_ttl_seconds` is {}, expected a whole number of seconds",
                amount(value)
            ))
            .with_hint("600 is the default, 0 never refreshes by itself")
        })?,
    };
    for key in ["registry_type", "path", "cache_ttl_seconds"] {
        options.remove(key);
    }
    match options.get("cache_mode") {
        None | Some(Value::Null) => {}
        // Refreshes always are in the background, and readers never wait for them: the modes differ in Feast only.
        Some(Value::String(mode)) if mode == "sync" || mode == "thread" => {}
        Some(_) => {
            return Err(Error::invalid_configuration("`registry.cache_mode` is neither `sync` nor `thread`")
                .with_hint("write one of them, or leave the key out"));
        }
    }
    let cache_ttl = (seconds > 0).then(|| Duration::from_secs(seconds));
    let versions_have_tables = options.get("enable_online_feature_view_versioning") == Some(&Value::Bool(true));
    Ok(RegistryConfig { registry_type, path, cache_ttl, versions_have_tables, options })
}

/// Type and options of a store that is given as a mapping with `type`, or as the type alone.
fn typed(map: &Map<String, Value>, key: &str, default: &str) -> Result<(String, Value)> {
    match map.get(key) {
        Some(Value::String(name)) => Ok((name.clone(), Value::Object(Map::new()))),
        Some(Value::Object(options)) => {
            let mut options = options.clone();
            let name = match options.remove("type") {
                None | Some(Value::Null) => default.to_owned(),
                Some(Value::String(name)) => name,
                Some(other) => {
                    return Err(Error::invalid_configuration(format!(
                        "`{key}.type` is {}, expected a name",
                        kind(&other)
                    ))
                    .with_hint(format!("`{default}` is the default")));
                }
            };
            Ok((name, Value::Object(options)))
        }
        other => Err(Error::invalid_configuration(format!(
            "`{key}` is {}, expected a name or a mapping with `type`",
            other.map_or("missing", kind)
        ))
        .with_hint(format!("write `{key}: {default}`, or leave it out"))),
    }
}

fn text_of(map: &Map<String, Value>, key: &str) -> Result<Option<String>> {
    text_at(map, key, key)
}

/// The text under `key`; messages call it `path`.
fn text_at(map: &Map<String, Value>, key: &str, path: &str) -> Result<Option<String>> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => {
            let hint = match other {
                Value::Array(_) | Value::Object(_) => format!("give one value: `{key}: ...`"),
                _ => "put the value in quotes".to_owned(),
            };
            Err(Error::invalid_configuration(format!("`{path}` is {}, expected text", kind(other))).with_hint(hint))
        }
    }
}

fn object_of(map: &Map<String, Value>, key: &str) -> Result<Map<String, Value>> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(object)) => Ok(object.clone()),
        Some(other) => Err(Error::invalid_configuration(format!("`{key}` is {}, expected a mapping", kind(other)))
            .with_hint("write its keys below it, indented, or leave it out")),
    }
}

fn flag(map: &Map<String, Value>, key: &str, path: &str) -> Result<Option<bool>> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(other) => {
            Err(Error::invalid_configuration(format!("`{path}` is {}, expected true or false", kind(other)))
                .with_hint("write `true` or `false`, without quotes"))
        }
    }
}

/// What was found where a number belongs.
fn amount(value: &Value) -> String {
    if value.is_number() { value.to_string() } else { kind(value).to_owned() }
}

/// The kind of a value, never the value: it may be a secret.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

fn effective(
    map: &Map<String, Value>,
    registry: &RegistryConfig,
    online: Option<&(String, Value)>,
    offline: &(String, Value),
    version: u8,
) -> Value {
    let mut all = map.clone();
    let store = |(name, options): &(String, Value)| {
        let mut object = Map::from_iter([("type".to_owned(), Value::String(name.clone()))]);
        object.extend(options.as_object().cloned().unwrap_or_default());
        Value::Object(object)
    };
    let mut entry = registry.options.clone();
    entry.insert("registry_type".to_owned(), registry.registry_type.clone().into());
    entry.insert("path".to_owned(), registry.path.clone().into());
    entry.insert("cache_ttl_seconds".to_owned(), registry.cache_ttl.map_or(0, |ttl| ttl.as_secs()).into());
    all.insert("registry".to_owned(), Value::Object(entry));
    all.insert("online_store".to_owned(), online.map_or(Value::Null, store));
    all.insert("offline_store".to_owned(), store(offline));
    all.insert("entity_key_serialization_version".to_owned(), version.into());
    for (key, default) in [
        ("provider", Value::String("local".to_owned())),
        ("batch_engine", serde_json::json!({"type": "local"})),
        ("auth", serde_json::json!({"type": "no_auth"})),
    ] {
        all.entry(key).or_insert(default);
    }
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn parse(text: &str) -> Result<RepoConfig> {
        let environment = |name: &str| match name {
            "TTL" => Some("60".to_owned()),
            "SECRET" => Some("a: b\nproject: evil".to_owned()),
            _ => None,
        };
        RepoConfig::parse_with(text, Path::new("/repo"), &environment)
    }

    #[test]
    fn defaults_are_feasts() {
        let config = parse("project: p\nregistry: data/registry.db\n").unwrap();
        assert_eq!(config.registry.registry_type, "file");
        assert_eq!(config.registry.cache_ttl, Some(Duration::from_secs(600)));
        assert_eq!(config.online_store.unwrap().0, "sqlite");
        assert_eq!(config.offline_store.0, "dask");
        assert_eq!(config.entity_key_serialization_version, 3);
    }

    #[test]
    fn the_repository_stays_where_it_was_found() {
        let config = RepoConfig::parse_literal("project: p\nregistry: r.db\n", Path::new("repo")).unwrap();
        assert_eq!(config.repo_path, std::env::current_dir().unwrap().join("repo"));
    }

    #[test]
    fn variables_keep_their_type_and_cannot_add_structure() {
        let text = "project: p\nregistry:\n  path: ${SECRET}\n  cache_ttl_seconds: ${TTL}\n\
                    online_store:\n  type: redis\n  password: pa$word\n  connection_string: ${URL:-localhost:6379},db=0\n";
        let config = parse(text).unwrap();
        assert_eq!(config.project, "p");
        assert_eq!(config.registry.path, "a: b\nproject: evil");
        assert_eq!(config.registry.cache_ttl, Some(Duration::from_secs(60)));
        let (_, options) = config.online_store.unwrap();
        assert_eq!(options["connection_string"], "localhost:6379,db=0");
        assert_eq!(options["password"], "pa$word");
    }

    #[test]
    fn pushes_are_gathered_when_both_bounds_are_given() {
        let parse = |more: &str| {
            let text = format!(
                "project: p\nregistry: r\nfeature_server:\n  offline_push_batching_enabled: true\n  \
                 offline_push_batching_batch_size: 100\n{more}"
            );
            RepoConfig::parse(&text, Path::new("/")).unwrap()
        };
        let both = parse("  offline_push_batching_batch_interval_seconds: 0\n");
        let expected = OfflinePushBatching { rows: 100, interval: std::time::Duration::from_secs(1) };
        assert_eq!((both.offline_push_batching, both.warnings), (Some(expected), Vec::new()));
        let half = parse("");
        assert_eq!(half.offline_push_batching, None);
        assert!(half.warnings[0].contains("batch_interval_seconds`: pushes to the offline store are written at once"));
    }

    #[test]
    fn wrong_configurations_say_what_is_wrong() {
        let cases = [
            ("", "the configuration is empty, expected a mapping"),
            ("[a]", "the configuration is a list, expected a mapping"),
            ("project: p\nproject: q\nregistry: r", "the configuration is not valid YAML: duplicate entry"),
            ("project: p\nregistry: .inf", "`registry` is .inf, expected a finite number"),
            ("project: p\nregistry: \"a\\0\"", "`registry` contains a NUL character"),
            ("project: p\nregistry: ${A B}", "`registry` has `${A B}`, which is not the name of an environment"),
            ("project: p\nregistry: {path: 5}", "`registry.path` is a number, expected text"),
            ("project: p\nregistry: r\nauth: {type: nope}", "`auth` has the type `nope`, which does not exist"),
            ("project: p\nregistry: r\nbatch_engine: [a]", "`batch_engine` is a list, expected a name or a mapping"),
            ("project: p\nregistry: r\nmaterialization: {a: 1}", "`materialization.a` is not a key"),
            ("project: p\nregistry: r\ntransformations: {wrkers: 2}", "`transformations.wrkers` is not a key"),
            (
                "project: p\nregistry: r\ntransformations: {workers: 0}",
                "`transformations.workers` is 0, expected a positive",
            ),
            (
                "project: p\nregistry: r\nfeature_server: {offline_push_batching_enabled: true, \
                 offline_push_batching_batch_size: many}",
                "`feature_server.offline_push_batching_batch_size` is text, expected a whole number",
            ),
            ("project: p", "`registry` is missing"),
            ("registry: r", "`project` is missing"),
            ("project: 5\nregistry: r", "`project` is a number, expected text"),
            ("project: a b\nregistry: r", "`project` is `a b`, which is not a valid project name"),
            ("project: p\nregistry: ${UNSET}", "`registry` needs the environment variable `UNSET`, which is not set"),
            ("project: p\nregistry: r\nonline_stor: x", "`online_stor` is not a key of the configuration"),
            ("project: p\nregistry: {path: r, pth: x}", "`registry.pth` is not a key of the registry configuration"),
            ("project: [", "the configuration is not valid YAML"),
        ];
        for (text, expected) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{text:?}: {error}");
            assert!(error.hint().is_some(), "{text:?}: {error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = parse("project: p\nregistry: r\nonline_store: {type: redis, connection_string: hunter2}").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
