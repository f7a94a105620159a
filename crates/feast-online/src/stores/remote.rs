//! Another feature server, Feast's or ours, over HTTP: it owns the tables, here only rows go in and out.
//!
//! Reads: one `POST /get-online-features` for all tables of a request. The protocol knows rows of entities, each with
//! all join keys, while a request has a list of keys per table. Lists over different join keys share rows, side by side;
//! lists that share a join key follow each other. What falls into a gap of this layout is read in vain and ignored.
//! Values and times come back as JSON, and become what the table declares.
//!
//! Writes: `POST /write-to-online-store`. The protocol fixes the names `event_timestamp` and `created` for the times, so
//! that the view's source has to call them so, as with Feast's client. Which of two rows wins is the server's decision:
//! ours lets the newest event win, Feast's does so in some of its stores only.
//!
//! Loads: `POST /materialize` and `/materialize-incremental`; the server reads its own history.
//!
//! Tables are made by `feast apply` where the server's store is; changing them from here changes nothing.
//!
//! Limits: `SCALAR_MAP` values do not exist in the protocol, reading gives null and writing is refused. Of a
//! `ZONED_TIMESTAMP` the moment and its offset arrive, not the name of the zone. Feast's server takes bytes for text. It
//! answers times of whole rows, and of rows that are null a time of 1970.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, BinaryBuilder, TimestampMicrosecondArray};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use feast_core::{
    Error, ErrorCode, Field, LoadOrder, LoadingServer, OnlineRead, OnlineRows, OnlineStore, OnlineWrite, Result,
    TableChange, ValueType, Wait, Window,
};
use feast_net::{TlsOptions, Verify};
use feast_proto::value_codec::{encode_column, json_to_value, value_to_json};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::newest::newest_rows;
use super::options;
use super::per_process::PerProcess;
use super::retry::{Attempts, Failure};
use crate::write::record_batch;
use crate::{EntityColumn, EntityRows, EntityValue};

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a silent connection is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How long a call may take, with all attempts.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest answer that is taken.
const MOST_ANSWER_BYTES: usize = 1 << 30;

/// Rows in one request that writes.
const MOST_ROWS: usize = 1_000;

/// The `online_store` part of `feature_store.yaml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemoteConfig {
    /// `remote`.
    #[serde(rename = "type")]
    store_type: String,
    /// Where the server is; default `http://localhost:6566`.
    pub path: String,
    /// Certificates that are trusted in place of the system's, for `https`; relative paths start at the folder of
    /// `feature_store.yaml`.
    pub cert: String,
    /// Idle connections that are kept; default 50.
    pub connection_pool_size: usize,
    /// Seconds after which an idle connection is closed; default 300, 0 never.
    pub connection_idle_timeout: u64,
    /// How often a request is repeated when the server cannot be reached or is not ready; default 3.
    pub connection_retries: u32,
}

const KEYS: &[&str] =
    &["type", "path", "cert", "connection_pool_size", "connection_idle_timeout", "connection_retries"];

impl Default for RemoteConfig {
    fn default() -> Self {
        Self {
            store_type: "remote".to_owned(),
            path: "http://localhost:6566".to_owned(),
            cert: String::new(),
            connection_pool_size: 50,
            connection_idle_timeout: 300,
            connection_retries: 3,
        }
    }
}

impl RemoteConfig {
    /// Reads the options; none are the defaults.
    ///
    /// # Errors
    /// `InvalidConfiguration` for unknown keys, listing the valid ones, and for values that are none.
    pub fn parse(given: &Value) -> Result<Self> {
        let numbers = ["connection_pool_size", "connection_idle_timeout", "connection_retries"];
        let config: Self = options::parse("remote", KEYS, &[], &numbers, given)?;
        let uri: Option<Uri> = config.path.parse().ok();
        let scheme = uri.as_ref().and_then(Uri::scheme_str);
        if !matches!(scheme, Some("http" | "https")) || uri.as_ref().and_then(Uri::host).is_none() {
            return Err(Error::invalid_configuration(format!(
                "`online_store.path` is `{}`, expected the address of a feature server",
                config.path
            ))
            .with_hint("write `path: http://host:6566`"));
        }
        Ok(config)
    }
}

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Another feature server.
pub struct RemoteStore {
    config: RemoteConfig,
    certificates: Option<PathBuf>,
    client: PerProcess<HttpClient>,
}

impl RemoteStore {
    /// A store behind the server that the options name. Nothing is opened before the first call.
    ///
    /// # Errors
    /// `InvalidConfiguration`.
    pub fn connect(options: &Value, base: &Path) -> Result<Self> {
        let config = RemoteConfig::parse(options)?;
        let certificates = (!config.cert.is_empty()).then(|| base.join(&config.cert));
        Ok(Self { config, certificates, client: PerProcess::default() })
    }
}

impl fmt::Debug for RemoteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteStore").field("config", &self.config).finish_non_exhaustive()
    }
}

impl fmt::Display for RemoteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "remote at `{}`", self.config.path)
    }
}

#[async_trait]
impl OnlineStore for RemoteStore {
    async fn read(&self, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>> {
        let layout = Layout::of(reads)?;
        let mut features: Vec<Value> = Vec::new();
        for read in reads.iter().filter(|read| !read.keys.is_empty()) {
            for field in read.wanted.fields() {
                let reference = Value::from(format!("{}:{}", read.wanted.table.view, field.name));
                if !features.contains(&reference) {
                    features.push(reference);
                }
            }
        }
        if features.is_empty() {
            return reads.iter().map(|read| Answer::default().rows(read, 0)).collect();
        }
        let body = serde_json::json!({"features": features, "entities": layout.entities, "full_feature_names": true});
        let text = self.send(Method::POST, "get-online-features", Some(&body)).await?;
        let answer: Answer<'_> =
            serde_json::from_slice(&text).map_err(|error| self.misunderstood().with_source(error))?;
        let rows = reads.iter().zip(&layout.starts).map(|(read, start)| answer.rows(read, *start));
        rows.map(|rows| rows.map_err(|error| error.with_context("online store", self))).collect()
    }

    async fn write(&self, write: OnlineWrite<'_>) -> Result<()> {
        // In order of their times: some servers let the last row of a key win.
        let rows = newest_rows(&write);
        let keys = write.keys.columns.schema();
        let key_names = keys.fields().iter().map(|field| field.name().as_str());
        let keys = write.table.join_keys.iter().filter_map(|field| {
            let position = key_names.clone().position(|name| name == field.name)?;
            Some((field, write.keys.columns.column(position)))
        });
        let features = write.table.columns.iter().zip(write.rows.columns());
        let columns = keys.chain(features).map(|(field, column)| Ok((&field.name, json_values(field, column)?)));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        for rows in rows.chunks(MOST_ROWS) {
            let mut frame = Map::new();
            for (name, values) in &columns {
                frame.insert((*name).clone(), rows.iter().map(|row| values[*row].clone()).collect());
            }
            let event = |row: &usize| naive(write.event_timestamps.value(*row));
            frame.insert("event_timestamp".to_owned(), rows.iter().map(event).collect());
            let created = |row: &usize| {
                let times = write.created_timestamps.filter(|times| times.is_valid(*row));
                times.map_or(Value::Null, |times| naive(times.value(*row)))
            };
            frame.insert("created".to_owned(), rows.iter().map(created).collect());
            let body = serde_json::json!({
                "feature_view_name": write.table.view, "df": frame, "allow_registry_cache": false,
            });
            self.send(Method::POST, "write-to-online-store", Some(&body)).await?;
        }
        Ok(())
    }

    async fn update(&self, _: &[TableChange]) -> Result<()> {
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        self.send(Method::GET, "health", None).await.map(drop)
    }

    /// The other server knows where its versions are, and is asked for the current one.
    fn has_tables_of_versions(&self) -> bool {
        false
    }

    fn loading_server(&self) -> Option<&dyn LoadingServer> {
        Some(self)
    }

    fn preferred_batch_rows(&self) -> usize {
        MOST_ROWS
    }
}

#[async_trait]
impl LoadingServer for RemoteStore {
    async fn load(&self, order: &LoadOrder<'_>) -> Result<()> {
        let mut body = Map::new();
        // As Feast's client: no list of views is all of them.
        let views = (!order.feature_views.is_empty()).then_some(order.feature_views);
        body.insert("feature_views".to_owned(), serde_json::json!(views));
        if let Some(version) = order.version {
            body.insert("version".to_owned(), version.into());
        }
        let route = match order.window {
            Window::Until(end) => {
                body.insert("end_ts".to_owned(), end.to_rfc3339().into());
                "materialize-incremental"
            }
            Window::Between(start, end) => {
                body.insert("start_ts".to_owned(), start.to_rfc3339().into());
                body.insert("end_ts".to_owned(), end.to_rfc3339().into());
                "materialize"
            }
            Window::Everything => {
                body.insert("disable_event_timestamp".to_owned(), true.into());
                "materialize"
            }
        };
        let query = match order.wait {
            Wait::UntilDone => "",
            Wait::UntilAccepted { force: false } => "?async=true",
            Wait::UntilAccepted { force: true } => "?async=true&force=true",
        };
        // Once, and as long as it takes: a server that goes on working must not be told again.
        let body = Bytes::from(Value::Object(body).to_string());
        let done = self.send_once(Method::POST, &format!("{route}{query}"), body).await;
        done.map(drop).map_err(|failure| failure.error)
    }
}

impl RemoteStore {
    fn client(&self) -> Result<HttpClient> {
        let current = self.client.get_or_make(|| {
            let mut connector = HttpConnector::new();
            connector.enforce_http(false);
            connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
            connector.set_nodelay(true);
            // A server that loads is silent for long.
            connector.set_keepalive(Some(KEEP_ALIVE));
            let tls = TlsOptions { verify: Verify::Host, authorities: self.certificates.clone(), identity: None };
            // Certificates are read where they are needed.
            let connector = match self.config.path.starts_with("https") {
                true => HttpsConnectorBuilder::new().with_tls_config(tls.client_config()?).https_only(),
                false => {
                    let tls = TlsOptions { verify: Verify::Nothing, authorities: None, identity: None };
                    HttpsConnectorBuilder::new().with_tls_config(tls.client_config()?).https_or_http()
                }
            }
            .enable_http1()
            .wrap_connector(connector);
            let idle = Some(self.config.connection_idle_timeout).filter(|seconds| *seconds > 0);
            Ok::<_, Error>(
                Client::builder(TokioExecutor::new())
                    .pool_timer(TokioTimer::new())
                    .pool_idle_timeout(idle.map(Duration::from_secs))
                    .pool_max_idle_per_host(self.config.connection_pool_size)
                    .build(connector),
            )
        })?;
        Ok(current.1.clone())
    }

    /// Sends a request, again where that can help: the same rows may be read and written twice.
    async fn send(&self, method: Method, route: &str, body: Option<&Value>) -> Result<Bytes> {
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let attempts = Attempts::at_most(self.config.connection_retries.saturating_add(1), CALL_TIMEOUT);
        attempts.call(self, || self.send_once(method.clone(), route, body.clone())).await
    }

    async fn send_once(&self, method: Method, route: &str, body: Bytes) -> Result<Bytes, Failure> {
        let uri = format!("{}/{route}", self.config.path.trim_end_matches('/'));
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().map_err(|error: hyper::http::uri::InvalidUri| {
            Error::invalid_configuration("`online_store.path` is not an address").with_source(error)
        })?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let unreachable = |error: String| Failure {
            error: Error::unavailable("could not reach the feature server")
                .with_context("online store", self)
                .with_source(error)
                .with_hint("check `online_store.path`, and that the server runs"),
            transient: true,
        };
        let response = self.client()?.request(request).await.map_err(|error| unreachable(with_causes(&error)))?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), MOST_ANSWER_BYTES).collect().await;
        let answer = answer.map_err(|error| unreachable(error.to_string()))?.to_bytes();
        if status.is_success() { Ok(answer) } else { Err(self.refused(status, &answer)) }
    }

    /// What the server says when it does not do what it was asked for.
    fn refused(&self, status: StatusCode, answer: &[u8]) -> Failure {
        let text = String::from_utf8_lossy(answer).into_owned();
        // Feast sends a JSON text, which may be JSON again.
        let text = serde_json::from_str::<String>(&text).unwrap_or(text);
        let object: Option<Map<String, Value>> = serde_json::from_str(&text).ok();
        let member = |name: &str| object.as_ref().and_then(|object| object.get(name)).and_then(Value::as_str);
        let class = member("class").unwrap_or_default().to_owned();
        let said = member("message").or_else(|| member("error")).map(str::to_owned);
        let text: String = said.unwrap_or(text).chars().take(300).collect();
        let transient =
            matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT);
        let code = match status {
            StatusCode::NOT_FOUND if class.is_empty() => ErrorCode::InvalidConfiguration,
            StatusCode::NOT_FOUND => ErrorCode::FeatureViewNotFound,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorCode::PermissionDenied,
            StatusCode::CONFLICT => ErrorCode::Conflict,
            status if status.is_client_error() => ErrorCode::InvalidRequest,
            _ => ErrorCode::Unavailable,
        };
        let hint = match code {
            ErrorCode::FeatureViewNotFound => "run `feast apply` where the feature server gets its definitions from",
            ErrorCode::InvalidConfiguration => "check that `online_store.path` is a feature server",
            ErrorCode::PermissionDenied => "ask whoever runs the feature server",
            ErrorCode::Conflict => {
                "wait until the server is done, or say `run_async=True, force=True` when it is known to be"
            }
            _ => "see the log of the feature server",
        };
        let error = Error::new(code, format!("the feature server answered {}", status.as_u16()))
            .with_context("online store", self)
            .with_source(text)
            .with_hint(hint);
        Failure { error, transient }
    }

    fn misunderstood(&self) -> Error {
        Error::unavailable("the answer of the feature server is not understood")
            .with_context("online store", self)
            .with_hint("check that `online_store.path` is a feature server")
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

/// A time as Feast's client sends it: UTC, without saying so.
fn naive(micros: i64) -> Value {
    let time = DateTime::from_timestamp_micros(micros).map(|time| time.naive_utc());
    time.map_or(Value::Null, |time| time.format("%Y-%m-%dT%H:%M:%S%.6f").to_string().into())
}

/// The values of a column, as servers take them.
fn json_values(field: &Field, column: &ArrayRef) -> Result<Vec<Value>> {
    if field.value_type == ValueType::ScalarMap {
        return Err(Error::unsupported(format!(
            "feature `{}` is a SCALAR_MAP, which cannot be sent to a feature server",
            field.name
        )));
    }
    let cells = encode_column(column, field.value_type).map_err(|error| error.with_context("column", &field.name))?;
    let values = cells.iter().map(|cell| {
        let value = value_to_json(cell.unwrap_or_default())?;
        Ok(match field.value_type {
            // As texts, because Feast makes a data frame of it.
            ValueType::Map | ValueType::Struct if !value.is_null() => value.to_string().into(),
            _ => value,
        })
    });
    values.collect()
}

/// How the keys of several reads become the rows of one request.
struct Layout {
    entities: Map<String, Value>,
    /// The first row of each read.
    starts: Vec<usize>,
}

/// Rows in which lists of keys stand side by side.
struct Band {
    start: usize,
    length: usize,
    columns: Vec<(String, Vec<Value>)>,
}

impl Layout {
    fn of(reads: &[OnlineRead<'_>]) -> Result<Self> {
        let mut bands: Vec<Band> = Vec::new();
        let mut starts = Vec::with_capacity(reads.len());
        // Which read already has the same keys.
        let mut placed: Vec<(&OnlineRead<'_>, usize)> = Vec::new();
        for read in reads {
            let same = placed.iter().find(|(other, _)| other.keys.encoded == read.keys.encoded);
            if let Some((_, band)) = same {
                starts.push(*band);
                continue;
            }
            let mut columns = Vec::new();
            for (field, column) in read.keys.columns.schema_ref().fields().iter().zip(read.keys.columns.columns()) {
                let declared = read.wanted.table.join_keys.iter().find(|key| key.name == *field.name());
                let value_type = declared.map_or(ValueType::String, |key| key.value_type);
                columns.push((field.name().clone(), json_values(&Field::new(field.name(), value_type), column)?));
            }
            let is_free =
                |band: &Band| !band.columns.iter().any(|(name, _)| columns.iter().any(|(other, _)| other == name));
            let position = bands.iter().position(is_free).unwrap_or(bands.len());
            if position == bands.len() {
                bands.push(Band { start: 0, length: 0, columns: Vec::new() });
            }
            bands[position].length = bands[position].length.max(read.keys.len());
            bands[position].columns.extend(columns);
            placed.push((read, position));
            starts.push(position);
        }
        let mut length = 0;
        for band in &mut bands {
            band.start = length;
            length += band.length;
        }
        let starts = starts.into_iter().map(|band| bands[band].start).collect();
        let mut entities = Map::new();
        for (name, values) in bands.iter().flat_map(|band| &band.columns) {
            // Gaps need a value: any one that is a key.
            if let (Some(any), false) = (values.first(), entities.contains_key(name)) {
                entities.insert(name.clone(), Value::Array(vec![any.clone(); length]));
            }
        }
        for band in &bands {
            for (name, values) in &band.columns {
                let Some(column) = entities.get_mut(name).and_then(Value::as_array_mut) else { continue };
                column[band.start..band.start + values.len()].clone_from_slice(values);
            }
        }
        Ok(Self { entities, starts })
    }
}

/// The answer of `get-online-features`, columns by columns.
#[derive(Default, Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    results: Vec<AnswerColumn<'a>>,
    #[serde(default)]
    metadata: AnswerMetadata,
}

#[derive(Default, Deserialize)]
struct AnswerMetadata {
    #[serde(default)]
    feature_names: Vec<String>,
}

#[derive(Deserialize)]
struct AnswerColumn<'a> {
    #[serde(borrow)]
    values: &'a RawValue,
    #[serde(default)]
    statuses: Vec<String>,
    #[serde(default)]
    event_timestamps: Vec<String>,
}

impl Answer<'_> {
    /// The rows of one read, which start at `start`.
    fn rows(&self, read: &OnlineRead<'_>, start: usize) -> Result<OnlineRows> {
        let n_keys = read.keys.len();
        let fields = read.wanted.fields();
        let mut columns = Vec::with_capacity(fields.len());
        let mut times: Vec<Option<i64>> = vec![None; n_keys];
        for field in fields.clone() {
            if n_keys == 0 {
                columns.push(arrow::array::new_empty_array(&field.value_type.arrow_type()));
                continue;
            }
            let wrong = || {
                Error::unavailable(format!(
                    "the feature server did not answer `{}:{}` for every row",
                    read.wanted.table.view, field.name
                ))
                .with_hint("see whether its definitions are the same as here")
            };
            let name = format!("{}__{}", read.wanted.table.view, field.name);
            let position = self.metadata.feature_names.iter().position(|known| *known == name).ok_or_else(wrong)?;
            let column = self.results.get(position).ok_or_else(wrong)?;
            let statuses = column.statuses.get(start..start + n_keys).ok_or_else(wrong)?;
            columns.push(column.array(field, start, n_keys)?.ok_or_else(wrong)?);
            let mut last = ("", 0);
            for (row, _) in statuses.iter().enumerate().filter(|(_, status)| *status != "NOT_FOUND") {
                let time = column.event_timestamps.get(start + row).map_or("", String::as_str);
                if time != last.0 {
                    last = (time, DateTime::parse_from_rfc3339(time).map_or(0, |time| time.timestamp_micros()));
                }
                times[row] = times[row].max(Some(last.1));
            }
        }
        let event_timestamps = TimestampMicrosecondArray::from(times).with_timezone("UTC");
        Ok(OnlineRows { values: record_batch(fields, columns, n_keys)?, event_timestamps })
    }
}

impl AnswerColumn<'_> {
    /// Some of the values as a column of the declared type; `None` when there are too few.
    fn array(&self, field: &Field, start: usize, length: usize) -> Result<Option<ArrayRef>> {
        let others = || {
            Error::unavailable(format!("the feature server answered something else than values of `{}`", field.name))
        };
        let malformed = |error: serde_json::Error| others().with_source(error);
        if field.value_type.is_opaque() {
            let values: Vec<Value> = serde_json::from_str(self.values.get()).map_err(malformed)?;
            let Some(values) = values.get(start..start + length) else { return Ok(None) };
            let mut cells = BinaryBuilder::new();
            for value in values {
                let cell = json_to_value(value, field.value_type)
                    .map_err(|error| error.with_context("feature", &field.name))?;
                cells.append_option((!cell.is_empty()).then_some(cell));
            }
            return Ok(Some(Arc::new(cells.finish())));
        }
        let mut values: Vec<EntityValue> = serde_json::from_str(self.values.get()).map_err(malformed)?;
        if values.len() < start + length {
            return Ok(None);
        }
        values.truncate(start + length);
        values.drain(..start);
        for value in &mut values {
            from_transport(value, field.value_type.item().unwrap_or(field.value_type));
        }
        let rows = EntityRows::from_json(vec![(field.name.clone(), EntityColumn::Values(values))])?;
        rows.column(0, field.value_type).map(Some).map_err(|error| others().with_source(error))
    }
}

/// Undoes what JSON cannot say: numbers that are none are texts.
fn from_transport(value: &mut EntityValue, value_type: ValueType) {
    if let EntityValue::List(items) = value {
        for item in items {
            from_transport(item, value_type);
        }
        return;
    }
    let EntityValue::String(text) = &*value else { return };
    let changed = match (value_type, text.as_str()) {
        (ValueType::Float | ValueType::Double, "NaN") => EntityValue::Float(f64::NAN),
        (ValueType::Float | ValueType::Double, "Infinity") => EntityValue::Float(f64::INFINITY),
        (ValueType::Float | ValueType::Double, "-Infinity") => EntityValue::Float(f64::NEG_INFINITY),
        _ => return,
    };
    *value = changed;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::array::{Int64Array, RecordBatch, StringArray};
    use feast_core::{EntityKeyEncoder, EntityKeys, OnlineTable};
    use serde_json::json;

    use super::*;

    fn keys(columns: &[(&str, ArrayRef)]) -> (Vec<Field>, EntityKeys) {
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, column)| Field::new(*name, ValueType::from_arrow(column.data_type()).unwrap()))
            .collect();
        let batch = RecordBatch::try_from_iter(columns.iter().map(|(name, column)| (*name, Arc::clone(column))));
        let keys = EntityKeyEncoder::new(&fields, 3).unwrap().encode(batch.unwrap()).unwrap();
        (fields, keys)
    }

    fn ids(ids: &[i64]) -> ArrayRef {
        Arc::new(Int64Array::from(ids.to_vec()))
    }

    fn texts(texts: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(texts.to_vec()))
    }

    #[test]
    fn keys_of_several_tables_share_the_rows_of_one_request() {
        let lists = [
            keys(&[("driver", ids(&[1, 2, 3]))]),
            keys(&[("shop", texts(&["a"]))]),
            keys(&[("driver", ids(&[1, 2, 3]))]),
            keys(&[("driver", ids(&[7])), ("shop", texts(&["b"]))]),
            keys(&[("day", ids(&[5, 6]))]),
        ];
        let table = |join_keys: &[Field]| OnlineTable {
            project: "p".to_owned(),
            view: "v".to_owned(),
            join_keys: join_keys.to_vec(),
            columns: Vec::new(),
            tags: feast_core::Tags::new(),
        };
        let tables: Vec<_> = lists.iter().map(|(join_keys, _)| table(join_keys).wanted([])).collect();
        let reads: Vec<OnlineRead<'_>> =
            lists.iter().zip(&tables).map(|((_, keys), wanted)| OnlineRead { wanted, keys }).collect();
        let layout = Layout::of(&reads).unwrap();
        assert_eq!(layout.starts, [0, 0, 0, 3, 0]);
        assert_eq!(
            Value::Object(layout.entities),
            json!({"driver": [1, 2, 3, 7], "shop": ["a", "a", "a", "b"], "day": [5, 6, 5, 5]})
        );
    }

    #[test]
    fn options_are_those_of_feast() {
        let config = RemoteConfig::parse(&Value::Null).unwrap();
        assert_eq!((config.path.as_str(), config.connection_pool_size), ("http://localhost:6566", 50));
        let error = RemoteConfig::parse(&json!({"paht": "x"})).unwrap_err();
        assert_eq!(error.message(), "`online_store.paht` is not a key of online store `remote`");
        for path in ["localhost:6566", "ftp://host", "", "http://"] {
            assert!(RemoteConfig::parse(&json!({ "path": path })).is_err(), "{path}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_said() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let options = json!({"path": format!("http://{free}"), "connection_retries": 1});
        let store = RemoteStore::connect(&options, Path::new("/")).unwrap();
        let error = store.check().await.unwrap_err();
        assert_eq!((error.code(), error.message()), (ErrorCode::Unavailable, "could not reach the feature server"));
        assert!(error.to_string().contains("onnection refused"), "{error}");
    }
}
