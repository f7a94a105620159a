//! The options of the store, and Feast's connection strings.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use feast_core::{Error, Result, did_you_mean, list_names};
use feast_net::{TlsOptions, Verify};
use serde::Deserialize;
use serde_json::Value;

use crate::stores::options::without_effect;

const DEFAULT_PORT: u16 = 6379;

/// How long a call may take, from connecting to the last reply.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What stands behind the addresses of the connection string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedisType {
    /// One server.
    Redis,
    /// A cluster, of which the addresses are some nodes.
    RedisCluster,
    /// Sentinels, which know the server.
    RedisSentinel,
}

/// The client that Feast would use; all are the same here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedisClient {
    /// redis-py.
    Redis,
    /// Valkey GLIDE.
    Glide,
}

/// The `online_store` part of `feature_store.yaml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// `redis`.
    #[serde(rename = "type")]
    store_type: String,
    /// What stands behind the addresses. Default `redis`.
    pub redis_type: RedisType,
    /// Name of the server at the sentinels. Default `mymaster`.
    pub sentinel_master: String,
    /// Addresses and settings, set apart by commas. Default `localhost:6379`.
    connection_string: ConnectionString,
    /// Feast's choice of a client library, without effect here.
    pub client: RedisClient,
    /// Seconds after its last write at which an entity vanishes, in all views. Default: never.
    pub key_ttl_seconds: Option<u32>,
    /// Whether rows of a dropped view are looked for in the whole database and removed. Default true.
    pub full_scan_for_deletion: bool,
    /// Whether rows are written without looking at the event times that are stored. Default false.
    pub skip_dedup: bool,
}

/// What may hold a password.
#[derive(Clone, PartialEq, Deserialize)]
struct ConnectionString(String);

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

const KEYS: &[&str] = &[
    "type",
    "redis_type",
    "sentinel_master",
    "connection_string",
    "client",
    "key_ttl_seconds",
    "full_scan_for_deletion",
    "skip_dedup",
];

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            store_type: "redis".to_owned(),
            redis_type: RedisType::Redis,
            sentinel_master: "mymaster".to_owned(),
            connection_string: ConnectionString("localhost:6379".to_owned()),
            client: RedisClient::Redis,
            key_ttl_seconds: None,
            full_scan_for_deletion: true,
            skip_dedup: false,
        }
    }
}

impl RedisConfig {
    /// Reads the options; none are the defaults.
    ///
    /// # Errors
    /// `InvalidConfiguration` for unknown keys, listing the valid ones, and for values of another type.
    pub fn parse(options: &Value) -> Result<Self> {
        if options.is_null() {
            return Ok(Self::default());
        }
        let Some(given) = options.as_object() else {
            return Err(Error::invalid_configuration("the options of online store `redis` are not a mapping")
                .with_hint("write `online_store: {type: redis, connection_string: \"localhost:6379\"}`"));
        };
        if let Some(key) = given.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(Error::invalid_configuration(format!(
                "`online_store.{key}` is not a key of online store `redis`"
            ))
            .with_hint_opt(did_you_mean(key, KEYS.iter().copied()).map(|near| {
                match near.starts_with("did you mean") {
                    true => format!("{near} valid keys are {}", list_names(KEYS.iter().copied())),
                    false => near,
                }
            })));
        }
        // Null is "not given", as in Feast.
        let given: serde_json::Map<_, _> = given.clone().into_iter().filter(|(_, value)| !value.is_null()).collect();
        for (key, value) in &given {
            if key == "connection_string" && !value.is_string() {
                return Err(Error::invalid_configuration("`online_store.connection_string` is not a text")
                    .with_hint("put it in quotes: `connection_string: \"localhost:6379\"`"));
            }
            // One key at a time, because an error does not name the key.
            if let Err(error) = Self::deserialize(serde_json::json!({ (key.as_str()): value })) {
                return Err(Error::invalid_configuration(format!("`online_store.{key}` is wrong"))
                    .with_source(error)
                    .with_hint("correct it, or leave it out"));
            }
        }
        let config = Self::deserialize(Value::Object(given))
            .map_err(|error| Error::internal("options that are right one by one are wrong").with_source(error))?;
        if config.client == RedisClient::Glide {
            without_effect("redis", "client", "there is one client, for Redis and Valkey");
        }
        Ok(config)
    }

    /// What the connection string says.
    pub(super) fn connection(&self) -> Result<ConnectionOptions> {
        let options = ConnectionOptions::parse(&self.connection_string.0)?;
        if self.redis_type == RedisType::RedisCluster && options.database != 0 {
            return Err(wrong("`db` is not 0, but a cluster has only that database"));
        }
        Ok(options)
    }
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Address {
    /// `host:port`, `host`, `[::1]:port`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => match text.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = port.map_or(Some(DEFAULT_PORT), |port| port.parse().ok())?;
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port })
    }
}

/// Who connects.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.as_ref().map(|_| "(hidden)");
        f.debug_struct("Login").field("username", &self.username).field("password", &password).finish()
    }
}

/// What a connection string says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ConnectionOptions {
    pub(super) nodes: Vec<Address>,
    pub(super) database: u32,
    pub(super) login: Login,
    pub(super) client_name: Option<String>,
    pub(super) tls: Option<TlsOptions>,
    pub(super) connect_timeout: Duration,
    pub(super) response_timeout: Duration,
    /// Who asks the sentinels; they are asked without TLS and password unless this says otherwise.
    pub(super) sentinel_login: Login,
    pub(super) sentinel_tls: Option<TlsOptions>,
}

/// The settings, under the names that redis-py gives its parameters.
const SETTINGS: &[&str] = &[
    "db",
    "username",
    "password",
    "client_name",
    "ssl",
    "ssl_cert_reqs",
    "ssl_check_hostname",
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "socket_timeout",
    "socket_connect_timeout",
    "sentinel_kwargs",
];

/// Settings of redis-py about its insides, and what takes their place here.
const NEEDLESS: &[(&str, &str)] = &[
    ("decode_responses", "values are always read as bytes"),
    ("health_check_interval", "a broken connection is noticed when it is used, and the call made again"),
    ("max_connections", "all calls share one connection per server"),
    ("protocol", "the commands of a feature store are the same in all versions of the protocol"),
    ("retry_on_timeout", "a call is made again within its time limit where that cannot change its outcome"),
    ("skip_full_coverage_check", "slots without a node concern only calls for their keys"),
    ("socket_keepalive", "a connection that does not answer within `socket_timeout` is opened anew"),
];

fn wrong(what: impl fmt::Display) -> Error {
    Error::invalid_configuration(format!("`online_store.connection_string` is wrong: {what}"))
        .with_hint("write for instance `redis.example.com:6379,ssl=true,password=${REDIS_PASSWORD}`")
}

/// What stands between commas. Those in the JSON of `sentinel_kwargs` separate nothing, unlike in Feast, where it can have
/// one key only: who needs password and TLS for the sentinels has no other way to say it.
fn parts(text: &str) -> Vec<&str> {
    const OBJECT: &str = "sentinel_kwargs=";
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let before = rest.len() - rest.trim_start().len();
        let object = rest[before..].strip_prefix(OBJECT).and_then(|json| {
            let mut objects = serde_json::Deserializer::from_str(json).into_iter::<Value>();
            objects.next()?.ok()?;
            Some(before + OBJECT.len() + objects.byte_offset())
        });
        let from = object.unwrap_or_default();
        let Some(comma) = rest[from..].find(',') else {
            parts.push(rest);
            return parts;
        };
        parts.push(&rest[..from + comma]);
        rest = &rest[from + comma + 1..];
    }
}

impl ConnectionOptions {
    fn parse(text: &str) -> Result<Self> {
        let mut options = Self {
            nodes: Vec::new(),
            database: 0,
            login: Login::default(),
            client_name: None,
            tls: None,
            connect_timeout: CONNECT_TIMEOUT,
            response_timeout: RESPONSE_TIMEOUT,
            sentinel_login: Login::default(),
            sentinel_tls: None,
        };
        let (mut verify, mut check_hostname) = (true, true);
        let (mut authorities, mut certificate, mut key) = (None, None, None);
        let (mut encrypted, mut sentinels_encrypted) = (false, false);
        for part in parts(text).into_iter().map(str::trim).filter(|part| !part.is_empty()) {
            let Some((name, value)) = part.split_once('=') else {
                // Not quoted in the message: what lacks its `=` may be the rest of a password with a comma.
                options
                    .nodes
                    .push(Address::parse(part).ok_or_else(|| wrong("a part is neither `host:port` nor `name=value`"))?);
                continue;
            };
            let value = Setting { name, value };
            match name {
                "db" => options.database = value.number()?,
                "username" => options.login.username = Some(value.text()),
                "password" => options.login.password = Some(value.text()),
                "client_name" => options.client_name = Some(value.text()),
                "ssl" => encrypted = value.truth()?,
                "ssl_cert_reqs" => verify = !matches!(value.text().as_str(), "none" | "CERT_NONE" | "null"),
                "ssl_check_hostname" => check_hostname = value.truth()?,
                "ssl_ca_certs" => authorities = Some(PathBuf::from(value.text())),
                "ssl_certfile" => certificate = Some(PathBuf::from(value.text())),
                "ssl_keyfile" => key = Some(PathBuf::from(value.text())),
                "socket_timeout" => options.response_timeout = value.seconds()?,
                "socket_connect_timeout" => options.connect_timeout = value.seconds()?,
                "sentinel_kwargs" => {
                    let given: SentinelSettings = serde_json::from_str(value.value)
                        .map_err(|_| value.wrong("a JSON object with `username`, `password` or `ssl`"))?;
                    options.sentinel_login = Login { username: given.username, password: given.password };
                    sentinels_encrypted = given.ssl;
                }
                _ => {
                    if let Some((_, instead)) = NEEDLESS.iter().find(|(needless, _)| *needless == name) {
                        tracing::warn!("`{name}` in `online_store.connection_string` has no effect: {instead}");
                        continue;
                    }
                    let valid = format!("valid settings are {}", list_names(SETTINGS.iter().copied()));
                    // A name close to nothing is not quoted: it may be the rest of a password with a comma.
                    let near = did_you_mean(name, SETTINGS.iter().copied());
                    return Err(match near.filter(|near| near.starts_with("did you mean")) {
                        Some(near) => wrong(format!("`{name}` is not a setting")).with_hint(format!("{near} {valid}")),
                        None => wrong("it has a setting that does not exist").with_hint(valid),
                    });
                }
            }
        }
        if certificate.is_some() != key.is_some() {
            return Err(wrong("`ssl_certfile` and `ssl_keyfile` need each other"));
        }
        let verify = match (verify, check_hostname) {
            (false, _) => Verify::Nothing,
            (true, false) => Verify::Authority,
            (true, true) => Verify::Host,
        };
        let tls = TlsOptions { verify, authorities, identity: certificate.zip(key) };
        options.sentinel_tls = sentinels_encrypted.then(|| tls.clone());
        options.tls = encrypted.then_some(tls);
        if options.nodes.is_empty() {
            return Err(wrong("it names no server"));
        }
        Ok(options)
    }
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct SentinelSettings {
    username: Option<String>,
    password: Option<String>,
    ssl: bool,
}

/// One `name=value`. Values are JSON where they can be.
struct Setting<'a> {
    name: &'a str,
    value: &'a str,
}

impl Setting<'_> {
    fn wrong(&self, expected: &str) -> Error {
        wrong(format!("`{}` is not {expected}", self.name))
    }

    /// A JSON text in quotes without them; anything else as it stands, also a password of digits.
    fn text(&self) -> String {
        serde_json::from_str::<String>(self.value).unwrap_or_else(|_| self.value.to_owned())
    }

    fn number(&self) -> Result<u32> {
        self.value.parse().map_err(|_| self.wrong("a number"))
    }

    fn truth(&self) -> Result<bool> {
        match self.value {
            "true" | "True" | "1" => Ok(true),
            "false" | "False" | "0" | "null" => Ok(false),
            _ => Err(self.wrong("`true` or `false`")),
        }
    }

    fn seconds(&self) -> Result<Duration> {
        let seconds = self.value.parse().ok().and_then(|seconds: f64| Duration::try_from_secs_f64(seconds).ok());
        seconds.filter(|duration| !duration.is_zero()).ok_or_else(|| self.wrong("a number of seconds above zero"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use feast_core::ErrorCode;
    use serde_json::json;

    use super::*;

    fn connection(text: &str) -> Result<ConnectionOptions> {
        RedisConfig::parse(&json!({"type": "redis", "connection_string": text})).unwrap().connection()
    }

    #[test]
    fn unknown_options_are_named_with_the_valid_ones() {
        let error = RedisConfig::parse(&json!({"type": "redis", "conection_string": "x"})).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidConfiguration);
        assert_eq!(error.message(), "`online_store.conection_string` is not a key of online store `redis`");
        let hint = error.hint().unwrap();
        assert!(hint.starts_with("did you mean `connection_string`?") && hint.contains("`skip_dedup`"), "{hint}");
        let error = RedisConfig::parse(&json!({"redis_type": "redis_clustre"})).unwrap_err();
        assert!(error.to_string().starts_with("`online_store.redis_type` is wrong: unknown variant"), "{error}");
        let error = RedisConfig::parse(&json!({"connection_string": 5})).unwrap_err();
        assert!(error.to_string().contains("not a text"), "{error}");
    }

    #[test]
    fn options_have_feasts_names_and_defaults() {
        let config = RedisConfig::parse(&json!({"type": "redis"})).unwrap();
        assert_eq!(config, RedisConfig::default());
        let options = json!({
            "type": "redis", "redis_type": "redis_sentinel", "sentinel_master": "m", "client": "glide",
            "connection_string": "a:1", "key_ttl_seconds": 60, "full_scan_for_deletion": false, "skip_dedup": true,
        });
        let config = RedisConfig::parse(&options).unwrap();
        assert_eq!((config.redis_type, config.client), (RedisType::RedisSentinel, RedisClient::Glide));
        assert_eq!((config.key_ttl_seconds, config.full_scan_for_deletion, config.skip_dedup), (Some(60), false, true));
    }

    #[test]
    fn connection_strings_are_read_as_in_feast() {
        let options =
            connection("a:1,b:2, [::1]:3,c,db=4,ssl=true,username=\"u\",password=a=b,socket_timeout=0.5").unwrap();
        let nodes: Vec<String> = options.nodes.iter().map(Address::to_string).collect();
        assert_eq!(nodes, ["a:1", "b:2", "[::1]:3", "c:6379"]);
        assert_eq!((options.database, options.response_timeout), (4, Duration::from_millis(500)));
        assert_eq!(options.tls.unwrap().verify, Verify::Host);
        assert_eq!(options.login.username.as_deref(), Some("u"));
        assert_eq!(options.login.password.as_deref(), Some("a=b"));
        let digits = connection("a:1,password=0123,ssl=false").unwrap();
        assert_eq!((digits.login.password.as_deref(), digits.tls), (Some("0123"), None));
        let sentinel = connection("a:1,sentinel_kwargs={\"password\": \"p\"}").unwrap();
        assert_eq!(sentinel.sentinel_login.password.as_deref(), Some("p"));
        let json = r#"{"username": "u", "password": "a,}b", "ssl": true}"#;
        let sentinel = connection(&format!("a:1, sentinel_kwargs={json},db=2,b:2")).unwrap();
        assert_eq!(sentinel.sentinel_login.username.as_deref(), Some("u"));
        assert_eq!(sentinel.sentinel_login.password.as_deref(), Some("a,}b"));
        assert!(sentinel.sentinel_tls.is_some());
        assert_eq!((sentinel.database, sentinel.nodes.len()), (2, 2));
    }

    #[test]
    fn wrong_connection_strings_are_explained_without_their_secrets() {
        let cases = [
            ("", "names no server"),
            ("a:port,password=secret", "neither `host:port`"),
            ("a:1,password=secret,ssl=perhaps", "`ssl` is not `true` or `false`"),
            ("a:1,db=secret", "`db` is not a number"),
            ("a:1,socket_timeout=0", "`socket_timeout` is not a number of seconds"),
            ("a:1,passwort=secret", "`passwort` is not a setting"),
            ("a:1,password=se,secret=c", "a setting that does not exist"),
            ("a:1,ssl=true,ssl_certfile=secret", "need each other"),
            ("a:1,sentinel_kwargs={\"password\": \"secret", "`sentinel_kwargs` is not a JSON object"),
            ("a:1,sentinel_kwargs={\"pass\": \"secret\"}", "`sentinel_kwargs` is not a JSON object"),
        ];
        for (text, expected) in cases {
            let error = connection(text).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidConfiguration);
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(expected) && !shown.contains("secret"), "{shown}");
        }
        let config = RedisConfig::parse(&json!({"connection_string": "a:1,password=secret"})).unwrap();
        let shown = format!("{config:?} {:?}", config.connection().unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }
}
