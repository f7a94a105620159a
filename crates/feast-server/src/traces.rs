//! OpenTelemetry traces: one span per request and one per part of an online request, sent in the background.
//!
//! Spans are made when a request is over, from the times that are measured anyway, so that a request pays for them with
//! one message to a queue. The queue is bounded: a collector that is slow or gone loses spans, never requests.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, StatusCode};
use feast_core::{Error, Result};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::metrics::PhaseTimes;

/// Requests whose spans wait to be sent; more are dropped.
const MOST_WAITING: usize = 2048;

/// Requests whose spans are sent together.
const MOST_TOGETHER: usize = 256;

/// How long spans wait for company.
const DELAY: Duration = Duration::from_secs(1);

/// Where traces go and how many, as OpenTelemetry's environment variables say it.
#[derive(Clone, PartialEq)]
pub struct TraceOptions {
    /// URL that takes traces as protobuf over HTTP, such as `http://localhost:4318/v1/traces`.
    pub endpoint: String,
    /// Headers of each message; they may hold secrets.
    pub headers: Vec<(String, String)>,
    /// Longest time for one message.
    pub timeout: Duration,
    /// Attributes of this server, such as `service.name`.
    pub resource: Vec<(String, String)>,
    /// Which part of the requests without a caller's decision is traced, from 0 to 1.
    pub ratio: f64,
    /// Whether the caller's decision counts.
    pub parent_based: bool,
}

/// Headers may be secrets: only their number is shown.
impl std::fmt::Debug for TraceOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TraceOptions")
            .field("endpoint", &self.endpoint)
            .field("headers", &self.headers.len())
            .field("timeout", &self.timeout)
            .field("resource", &self.resource)
            .field("ratio", &self.ratio)
            .field("parent_based", &self.parent_based)
            .finish()
    }
}

/// The parts of an online request, on their way from its handler to its span.
#[derive(Debug, Clone)]
pub(crate) struct OnlineParts {
    pub(crate) started: Instant,
    pub(crate) times: PhaseTimes,
    pub(crate) service: Option<String>,
    pub(crate) entity_rows: usize,
}

/// Sends traces.
#[derive(Debug)]
pub(crate) struct Traces {
    options: TraceOptions,
    queue: mpsc::Sender<Vec<Span>>,
}

impl Traces {
    /// Checks the address and starts to send; the task ends when all senders are gone and everything is sent.
    ///
    /// # Errors
    /// `InvalidConfiguration` for an address that is no plain HTTP URL.
    pub(crate) fn start(options: &TraceOptions) -> Result<(Self, JoinHandle<()>)> {
        let collector = Collector::new(options)?;
        let (queue, waiting) = mpsc::channel(MOST_WAITING);
        let task = tokio::spawn(send_all(collector, waiting));
        Ok((Self { options: options.clone(), queue }, task))
    }

    /// Decides whether a request is traced, from what its caller says.
    pub(crate) fn begin(&self, headers: &HeaderMap) -> Option<Traced> {
        let caller = headers.get("traceparent").and_then(|value| value.to_str().ok()).and_then(Caller::parse);
        let trace_id = caller.as_ref().map_or_else(|| Uuid::new_v4().into_bytes(), |caller| caller.trace_id);
        let sampled = match &caller {
            Some(caller) if self.options.parent_based => caller.sampled,
            _ => {
                // As other services decide: by the number of the trace, so that all keep the same ones.
                let tail = trace_id[8..].iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
                (tail >> 1) as f64 <= self.options.ratio * (u64::MAX >> 1) as f64 && self.options.ratio > 0.0
            }
        };
        sampled.then(|| Traced { trace_id, parent: caller.map(|caller| caller.span_id), started: SystemTime::now() })
    }

    /// A traced request is over.
    pub(crate) fn end(&self, traced: &Traced, request: &Finished<'_>) {
        let end = traced.started + request.started.elapsed();
        let parent_span_id = traced.parent.map(|id| id.to_vec()).unwrap_or_default();
        let mut server = traced.span(&format!("{} {}", request.method, request.route), parent_span_id);
        server.kind = SPAN_KIND_SERVER;
        (server.start_time_unix_nano, server.end_time_unix_nano) = (nanos(traced.started), nanos(end));
        server.attributes = vec![
            text("http.request.method", request.method.as_str()),
            text("http.route", request.route),
            number("http.response.status_code", i64::from(request.status.as_u16())),
        ];
        if request.status.is_server_error() {
            server.status = Some(Status { code: STATUS_CODE_ERROR });
        }
        let mut spans = Vec::with_capacity(6);
        if let Some(parts) = request.parts {
            if let Some(service) = &parts.service {
                server.attributes.push(text("feast.feature_service", service));
            }
            server.attributes.push(number("feast.entity_rows", i64::try_from(parts.entity_rows).unwrap_or(i64::MAX)));
            let mut at = traced.started + parts.started.saturating_duration_since(request.started);
            for (phase, time) in parts.times.each() {
                let mut span = traced.span(phase, server.span_id.clone());
                (span.start_time_unix_nano, span.end_time_unix_nano) = (nanos(at), nanos(at + time));
                at += time;
                spans.push(span);
            }
        }
        spans.push(server);
        if self.queue.try_send(spans).is_err() {
            tracing::debug!("spans are dropped: the collector is too slow");
        }
    }
}

/// A request that is traced.
#[derive(Debug)]
pub(crate) struct Traced {
    trace_id: [u8; 16],
    parent: Option<[u8; 8]>,
    started: SystemTime,
}

/// A request that is over.
pub(crate) struct Finished<'a> {
    pub(crate) started: Instant,
    pub(crate) method: &'a Method,
    pub(crate) route: &'a str,
    pub(crate) status: StatusCode,
    pub(crate) parts: Option<&'a OnlineParts>,
}

impl Traced {
    fn span(&self, name: &str, parent_span_id: Vec<u8>) -> Span {
        Span {
            trace_id: self.trace_id.to_vec(),
            span_id: Uuid::new_v4().as_bytes()[8..].to_vec(),
            parent_span_id,
            name: name.to_owned(),
            kind: SPAN_KIND_INTERNAL,
            ..Span::default()
        }
    }
}

/// Who asks, as the header `traceparent` of W3C's Trace Context says it.
struct Caller {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    sampled: bool,
}

impl Caller {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace_id, span_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let [version] = bytes::<1>(version)?;
        let (trace_id, span_id, [flags]) = (bytes::<16>(trace_id)?, bytes::<8>(span_id)?, bytes::<1>(flags)?);
        let known = version != 0xff && (version != 0 || parts.next().is_none());
        (known && trace_id != [0; 16] && span_id != [0; 8]).then_some(Self {
            trace_id,
            span_id,
            sampled: flags & 1 == 1,
        })
    }
}

fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digits = hex.as_bytes();
    if digits.len() != 2 * N || !digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

fn nanos(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

async fn send_all(collector: Collector, mut waiting: mpsc::Receiver<Vec<Span>>) {
    let mut together = Vec::with_capacity(MOST_TOGETHER);
    let mut was_well = true;
    while waiting.recv_many(&mut together, 1).await > 0 {
        let full = async {
            while together.len() < MOST_TOGETHER {
                let room = MOST_TOGETHER - together.len();
                if waiting.recv_many(&mut together, room).await == 0 {
                    return;
                }
            }
        };
        // Whether it is full or old enough, it goes.
        let _ = tokio::time::timeout(DELAY, full).await;
        let spans: Vec<Span> = together.drain(..).flatten().collect();
        let is_well = match collector.send(spans).await {
            Ok(()) => true,
            Err(error) => {
                if was_well {
                    tracing::warn!(%error, "traces cannot be sent; they are dropped until the collector is back");
                }
                false
            }
        };
        was_well = is_well;
    }
}

/// Who takes the traces.
#[derive(Debug)]
struct Collector {
    uri: Uri,
    /// `host:port`.
    address: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
    resource: Resource,
}

impl Collector {
    fn new(options: &TraceOptions) -> Result<Self> {
        let wrong = |what: &str| {
            Error::invalid_configuration(format!("the endpoint for traces `{}` {what}", options.endpoint))
                .with_hint("set OTEL_EXPORTER_OTLP_ENDPOINT to the http:// address of a collector near by")
        };
        let uri: Uri = options.endpoint.parse().map_err(|_| wrong("is not a URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("does not start with `http://`"));
        }
        let host = uri.host().ok_or_else(|| wrong("names no host"))?;
        let address = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        let header = |(name, value): &(String, String)| {
            let mut value = HeaderValue::from_str(value).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
        };
        let headers: Option<Vec<_>> = options.headers.iter().map(header).collect();
        let headers = headers.ok_or_else(|| {
            Error::invalid_configuration("a header for traces is not a valid HTTP header")
                .with_hint("write OTEL_EXPORTER_OTLP_HEADERS as `name=value,name=value`")
        })?;
        let attributes = options.resource.iter().map(|(name, value)| text(name, value)).collect();
        Ok(Self { uri, address, headers, timeout: options.timeout, resource: Resource { attributes } })
    }

    async fn send(&self, spans: Vec<Span>) -> Result<()> {
        let failed = || Error::unavailable(format!("the collector at `{}` does not take traces", self.address));
        let scope = Scope { name: "feast-server".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
        let resource_spans = vec![ResourceSpans { resource: Some(self.resource.clone()), scope_spans }];
        let body = Export { resource_spans }.encode_to_vec();
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|error| failed().with_source(error))?;
        let host = HeaderValue::from_str(&self.address).map_err(|error| failed().with_source(error))?;
        request.headers_mut().insert(HOST, host);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        for (name, value) in &self.headers {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        let exchange = async {
            let stream = TcpStream::connect(&self.address).await.map_err(|error| failed().with_source(error))?;
            let connected = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
            let (mut sender, connection) = connected.map_err(|error| failed().with_source(error))?;
            let driving = AbortOnDrop(tokio::spawn(connection));
            let answer = sender.send_request(request).await.map_err(|error| failed().with_source(error))?;
            let status = answer.status();
            // Read to its end, so that the collector is not cut off.
            let _ = answer.into_body().collect().await;
            drop(driving);
            if status.is_success() { Ok(()) } else { Err(failed().with_context("status", status)) }
        };
        tokio::time::timeout(self.timeout, exchange).await.map_err(|_| failed().with_context("limit", "timeout"))?
    }
}

/// A task that ends with whoever started it.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::Text(value.to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, any_value::Value::Integer(value))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

// What is used of the messages of `opentelemetry.proto`.

const SPAN_KIND_INTERNAL: i32 = 1;
const SPAN_KIND_SERVER: i32 = 2;
const STATUS_CODE_ERROR: i32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(oneof = "any_value::Value", tags = "1, 3")]
    value: Option<any_value::Value>,
}

mod any_value {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Value {
        #[prost(string, tag = "1")]
        Text(String),
        #[prost(int64, tag = "3")]
        Integer(i64),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn callers_are_understood() {
        let caller = Caller::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        assert!(caller.sampled && caller.trace_id[0] == 0x0a && caller.span_id[7] == 0x31);
        assert!(!Caller::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00").unwrap().sampled);
        // Later versions may say more.
        assert!(Caller::parse("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more").is_some());
        for wrong in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-é7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert!(Caller::parse(wrong).is_none(), "{wrong}");
        }
    }
}
