//! The `registry` part of `feature_store.yaml` for SQL registries: SQLAlchemy's URLs and what goes with them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use feast_core::{Error, Result, did_you_mean, list_names};
use serde_json::{Map, Value};

/// What the URL of a database says. Passwords are shown to nobody.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct DatabaseUrl {
    pub(super) engine: Engine,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    /// Empty for the default.
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// Name of the database, or path of the file.
    pub(super) database: String,
    /// What stands behind the `?`, decoded.
    pub(super) options: Vec<(String, String)>,
}

/// Which database a URL is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Engine {
    #[default]
    Sqlite,
    Postgres,
    MySql,
}

/// Shown without user, password and options.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.engine {
            Engine::Sqlite => return write!(f, "SQL registry `sqlite:///{}`", self.database),
            Engine::Postgres => "postgresql",
            Engine::MySql => "mysql",
        };
        write!(f, "SQL registry `{scheme}://{}", self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "/{}`", self.database)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl DatabaseUrl {
    /// Reads a URL in SQLAlchemy's grammar, `dialect+driver://user:password@host:port/database?option=value`. Which
    /// Python driver it names does not matter.
    ///
    /// # Errors
    /// `InvalidConfiguration`, without the URL: it may hold a password. `Unsupported` for other databases.
    pub(super) fn parse(url: &str) -> Result<Self> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(Error::invalid_configuration("the `path` of the SQL registry is not the URL of a database")
                .with_hint(GRAMMAR));
        };
        let dialect = scheme.split('+').next().unwrap_or_default();
        let engine = match dialect {
            "postgresql" | "postgres" => Engine::Postgres,
            "mysql" | "mariadb" => Engine::MySql,
            "sqlite" => Engine::Sqlite,
            other => {
                return Err(Error::unsupported(format!("SQL registries in `{other}` databases are not supported"))
                    .with_hint("use `postgresql`, `mysql`, `mariadb` or `sqlite`"));
            }
        };
        let invalid = |what: &str| {
            Error::invalid_configuration(format!("the `path` of the SQL registry has {what}")).with_hint(GRAMMAR)
        };
        let decoded = |text: &str| percent_decoded(text).ok_or_else(|| invalid("a `%` that encodes no character"));
        let mut parsed = Self { engine, ..Self::default() };
        let mut rest = rest;
        // A user has no `/`, so that an `@` in the path of a file is none of an account.
        if let Some((account, behind)) = rest.split_once('@')
            && !account.split(':').next().unwrap_or_default().contains('/')
        {
            let (user, password) = match account.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (account, None),
            };
            parsed.user = Some(decoded(user)?);
            parsed.password = password.map(decoded).transpose()?;
            rest = behind;
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (server, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match server.strip_prefix('[').and_then(|server| server.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':').unwrap_or(port)),
            None => server.split_once(':').unwrap_or((server, "")),
        };
        parsed.host = host.to_owned();
        if !port.is_empty() {
            parsed.port = Some(port.parse().map_err(|_| invalid("a port that is not a number up to 65535"))?);
        }
        parsed.database = database.to_owned();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            parsed.options.push((decoded(&key.replace('+', " "))?, decoded(&value.replace('+', " "))?));
        }
        Ok(parsed)
    }

    /// The file of a SQLite registry. Relative paths start in the repository.
    pub(super) fn file(&self, repo_path: &Path) -> Result<PathBuf> {
        if !self.host.is_empty() {
            return Err(Error::invalid_configuration("the URL of a SQLite registry names a host, expected a file")
                .with_hint("write `sqlite:///data/registry.db`, or four slashes for an absolute path"));
        }
        if self.database.is_empty() || self.database == ":memory:" {
            return Err(Error::unsupported("a SQLite registry in memory would be gone with each command")
                .with_hint("write `sqlite:///data/registry.db`, or four slashes for an absolute path"));
        }
        Ok(repo_path.join(&self.database))
    }
}

const GRAMMAR: &str = "write `postgresql://user:password@host:5432/database`, `mysql://…`, or \
     `sqlite:///data/registry.db`; write special characters of a password as `%40`";

/// `None` when a `%` is not followed by two hexadecimal digits, or the result is not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        decoded.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(decoded).ok()
}

/// Who makes the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SchemaMode {
    /// The first commit creates what is missing.
    Auto,
    /// Tables are made by others; missing ones are an error.
    Verify,
    /// Tables are made by others, and nobody looks.
    Skip,
}

/// Everything a SQL registry can be told.
#[derive(Debug, Clone)]
pub(super) struct SqlOptions {
    pub(super) url: DatabaseUrl,
    /// Where reads go; the same database, or a replica of it.
    pub(super) read_url: Option<DatabaseUrl>,
    pub(super) schema_mode: SchemaMode,
    /// Whether the rows of `feast_metadata` are left out and removed.
    pub(super) purge_metadata: bool,
    pub(super) pool: PoolOptions,
}

/// How many connections there are. Names and defaults are SQLAlchemy's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PoolOptions {
    /// Connections kept open.
    pub(super) size: usize,
    /// Connections opened beyond those when needed.
    pub(super) overflow: usize,
    /// How long to wait for one.
    pub(super) timeout: Duration,
    /// After how long a connection is opened anew; `None`: never.
    pub(super) recycle: Option<Duration>,
    /// Whether statements are logged.
    pub(super) echo: bool,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self { size: 5, overflow: 10, timeout: Duration::from_secs(30), recycle: None, echo: false }
    }
}

/// Keys of `sqlalchemy_config_kwargs`. Connections are always tried before they are used, whatever `pool_pre_ping` is.
const ENGINE_KEYS: &[&str] =
    &["echo", "pool_size", "max_overflow", "pool_timeout", "pool_recycle", "pool_pre_ping", "connect_args"];

impl SqlOptions {
    /// Reads `path` and the other keys below `registry`.
    ///
    /// # Errors
    /// `InvalidConfiguration` naming the key.
    pub(super) fn parse(path: &str, options: &Map<String, Value>) -> Result<Self> {
        let mut url = DatabaseUrl::parse(path)?;
        let mut read_url = match options.get("read_path") {
            None | Some(Value::Null) => None,
            Some(Value::String(path)) => Some(DatabaseUrl::parse(path)?),
            Some(_) => return Err(wrong("read_path", "the URL of a database")),
        };
        if read_url.as_ref().is_some_and(|read| read.engine != url.engine) {
            return Err(Error::invalid_configuration("`registry.read_path` is for another database than `path`")
                .with_hint("let it name a replica of the database of `path`, or leave it out"));
        }
        let schema_mode = match options.get("schema_mode") {
            None | Some(Value::Null) => SchemaMode::Auto,
            Some(Value::String(mode)) if mode == "auto" => SchemaMode::Auto,
            Some(Value::String(mode)) if mode == "verify" => SchemaMode::Verify,
            Some(Value::String(mode)) if mode == "skip" => SchemaMode::Skip,
            Some(_) => return Err(wrong("schema_mode", "`auto`, `verify` or `skip`")),
        };
        let purge_metadata = match options.get("purge_feast_metadata") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(purge)) => *purge,
            Some(_) => return Err(wrong("purge_feast_metadata", "true or false")),
        };
        let mut pool = PoolOptions::default();
        match options.get("sqlalchemy_config_kwargs") {
            None | Some(Value::Null) => {}
            Some(Value::Object(engine)) => {
                let arguments = pool.read(engine)?;
                for url in std::iter::once(&mut url).chain(&mut read_url) {
                    url.options.extend(arguments.iter().cloned());
                }
            }
            Some(_) => return Err(wrong("sqlalchemy_config_kwargs", "a mapping")),
        }
        Ok(Self { url, read_url, schema_mode, purge_metadata, pool })
    }
}

impl PoolOptions {
    /// Takes the keys of `sqlalchemy_config_kwargs`; returns the arguments for the driver.
    fn read(&mut self, engine: &Map<String, Value>) -> Result<Vec<(String, String)>> {
        if let Some(key) = engine.keys().find(|key| !ENGINE_KEYS.contains(&key.as_str())) {
            let valid = format!("valid keys are {}", list_names(ENGINE_KEYS.iter().copied()));
            let hint = did_you_mean(key, ENGINE_KEYS.iter().copied()).filter(|hint| hint.starts_with("did you mean"));
            return Err(Error::invalid_configuration(format!(
                "`registry.sqlalchemy_config_kwargs.{key}` is not supported"
            ))
            .with_hint(hint.map_or(valid.clone(), |hint| format!("{hint} {valid}"))));
        }
        let path = |key: &str| format!("sqlalchemy_config_kwargs.{key}");
        let number = |key: &str, least: i64| match engine.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64().map(|number| number as i64) {
                Some(number) if number >= least => Ok(Some(number)),
                _ => Err(wrong(&path(key), &format!("a number from {least} on"))),
            },
        };
        let flag = |key: &str| match engine.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(wrong(&path(key), "true or false")),
        };
        let natural = |number: i64| usize::try_from(number).unwrap_or_default();
        if let Some(size) = number("pool_size", 1)? {
            self.size = natural(size);
        }
        if let Some(overflow) = number("max_overflow", 0)? {
            self.overflow = natural(overflow);
        }
        if let Some(seconds) = number("pool_timeout", 1)? {
            self.timeout = Duration::from_secs(natural(seconds) as u64);
        }
        if let Some(seconds) = number("pool_recycle", -1)? {
            self.recycle = (seconds >= 0).then(|| Duration::from_secs(natural(seconds) as u64));
        }
        flag("pool_pre_ping")?;
        self.echo = flag("echo")?.unwrap_or_default();
        match engine.get("connect_args") {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Object(arguments)) => arguments
                .iter()
                .map(|(key, value)| match value {
                    Value::String(text) => Ok((key.clone(), text.clone())),
                    Value::Number(number) => Ok((key.clone(), number.to_string())),
                    Value::Bool(flag) => Ok((key.clone(), flag.to_string())),
                    _ => Err(wrong(&path(&format!("connect_args.{key}")), "one value")),
                })
                .collect(),
            Some(_) => Err(wrong(&path("connect_args"), "a mapping")),
        }
    }
}

fn wrong(key: &str, expected: &str) -> Error {
    Error::invalid_configuration(format!("`registry.{key}` is not {expected}"))
        .with_hint(format!("write {expected}, or leave the key out"))
}

/// The error for an option of a driver that has no meaning here.
pub(super) fn unknown_option(key: &str, valid: &[&str]) -> Error {
    Error::invalid_configuration(format!("the option `{key}` of the SQL registry's connection is not supported"))
        .with_hint(format!("supported are {}", list_names(valid.iter().copied())))
}

/// The seconds that an option gives.
pub(super) fn seconds(key: &str, value: &str) -> Result<Duration> {
    value.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(|| {
        Error::invalid_configuration(format!("the option `{key}` of the SQL registry's connection is not a number"))
            .with_hint("write a number of seconds")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use feast_core::ErrorCode;
    use serde_json::json;

    use super::*;

    #[test]
    fn urls_are_read_as_sqlalchemy_reads_them() {
        let url = DatabaseUrl::parse("postgresql+psycopg://us%40er:p/a%3Ass@db.example:5433/feast?sslmode=require");
        let url = url.unwrap();
        assert_eq!(url.user.as_deref(), Some("us@er"));
        assert_eq!(url.password.as_deref(), Some("p/a:ss"));
        assert_eq!((url.host.as_str(), url.port, url.database.as_str()), ("db.example", Some(5433), "feast"));
        assert_eq!(url.options, [("sslmode".to_owned(), "require".to_owned())]);
        let url = DatabaseUrl::parse("mysql+pymysql://root@[::1]/feast").unwrap();
        assert_eq!((url.engine, url.host.as_str(), url.port), (Engine::MySql, "::1", None));
        let of = |url: &str| DatabaseUrl::parse(url).unwrap().file(Path::new("/repo")).unwrap();
        assert_eq!(of("sqlite:///data/a@b.db"), Path::new("/repo/data/a@b.db"));
        assert_eq!(of("sqlite+pysqlite:////data/registry.db"), Path::new("/data/registry.db"));
    }

    #[test]
    fn secrets_are_in_no_message() {
        let shown = |url: &str| match DatabaseUrl::parse(url) {
            Ok(url) => format!("{url} {url:?}"),
            Err(error) => format!("{error:?} {error}"),
        };
        for url in [
            "postgresql://user:hush@host/db",
            "oracle://user:hush@host/db",
            "postgresql://user:hush@host:port/db",
            "user:hush@host",
            "mysql://user:%zzhush@host/db",
        ] {
            assert!(!shown(url).contains("hush"), "{}", shown(url));
        }
    }

    #[test]
    fn unknown_and_wrong_keys_are_named() {
        let parse = |options: Value| SqlOptions::parse("sqlite:///r.db", options.as_object().unwrap());
        let options = parse(json!({"sqlalchemy_config_kwargs": {"pool_size": 2, "pool_recycle": -1, "echo": false}}));
        assert_eq!(options.unwrap().pool.size, 2);
        let error = parse(json!({"sqlalchemy_config_kwargs": {"poolsize": 2}})).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidConfiguration);
        assert!(error.hint().unwrap().contains("`pool_size`"));
        assert!(parse(json!({"schema_mode": "sometimes"})).is_err());
        assert!(parse(json!({"read_path": "mysql://host/db"})).is_err());
    }
}
