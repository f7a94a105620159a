//! DynamoDB's protocol: one signed `POST` per operation, JSON in and out; again where that can help.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use feast_core::{Error, ErrorCode, Result};
use feast_net::{AwsSigner, TlsOptions, Verify};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use tokio::time::timeout;

use super::config::DynamoConfig;
use crate::stores::retry::{Attempts, Failure};

/// The longest answer that is taken; DynamoDB ends its own at 16 MB, before base64 and JSON.
const MOST_ANSWER_BYTES: usize = 64 << 20;

/// How often a throttled write is sent at most: with doubling pauses that is a quarter of a minute.
const WRITE_ATTEMPTS: u32 = 9;

/// What DynamoDB says when it is asked for less.
const THROTTLED: &[&str] = &[
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "RequestLimitExceeded",
    "LimitExceededException",
    "TransactionConflictException",
];

/// What it says when credentials are not or no longer good.
const DENIED: &[&str] = &[
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "UnrecognizedClientException",
];

/// The connections of one process.
pub(super) struct Client {
    http: HttpClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    signer: AwsSigner,
    endpoint: String,
    attempts: u32,
    attempt_timeout: Duration,
    call_timeout: Duration,
}

/// An answer that is no success and will not become one.
#[derive(Debug)]
pub(super) struct Refusal {
    operation: &'static str,
    /// The name of the exception, such as `ResourceNotFoundException`.
    pub(super) kind: String,
    message: String,
    pub(super) body: Bytes,
}

impl Refusal {
    /// Whether the table is not there.
    pub(super) fn is_missing_table(&self) -> bool {
        self.kind == "ResourceNotFoundException"
    }

    /// Whether the credentials are good for something else.
    pub(super) fn is_denied(&self) -> bool {
        self.kind == "AccessDeniedException"
    }

    /// The refusal as an error.
    pub(super) fn into_error(self, store: &dyn fmt::Display) -> Error {
        let code = match self.kind.as_str() {
            kind if DENIED.contains(&kind) => ErrorCode::PermissionDenied,
            "ValidationException" | "ItemCollectionSizeLimitExceededException" => ErrorCode::InvalidRequest,
            "ResourceInUseException" => ErrorCode::Conflict,
            _ => ErrorCode::Unavailable,
        };
        let hint = match code {
            ErrorCode::PermissionDenied => {
                format!("check the AWS credentials, and that they allow `dynamodb:{}`", self.operation)
            }
            ErrorCode::InvalidRequest => "DynamoDB takes items up to 400 KB; see its message".to_owned(),
            _ => "see the state of the table in AWS, and try again".to_owned(),
        };
        Error::new(code, format!("DynamoDB refused `{}`: {}", self.operation, self.kind))
            .with_context("online store", store)
            .with_source(self.message)
            .with_hint(hint)
    }
}

impl Client {
    pub(super) fn new(config: &DynamoConfig, signer: AwsSigner) -> Result<Self> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(config.connect_timeout()));
        connector.set_nodelay(true);
        let endpoint = config.endpoint();
        let verify = if endpoint.starts_with("https:") { Verify::Host } else { Verify::Nothing };
        let tls = TlsOptions { verify, authorities: None, identity: None }.client_config()?;
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(connector);
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(config.keepalive_timeout())
            .pool_max_idle_per_host(config.max_pool_connections)
            .build(connector);
        Ok(Self {
            http,
            signer,
            endpoint,
            attempts: config.total_max_retry_attempts,
            attempt_timeout: config.attempt_timeout(),
            call_timeout: config.call_timeout(),
        })
    }

    /// Asks for an operation, again where that can help.
    ///
    /// # Errors
    /// `Unavailable` and `Timeout` where DynamoDB does not answer in time; what it refuses is an answer.
    pub(super) async fn call(
        &self,
        store: &(dyn fmt::Display + Sync),
        operation: &'static str,
        body: impl Into<Bytes>,
    ) -> Result<Result<Bytes, Refusal>> {
        self.call_with(store, operation, body.into(), self.attempts).await
    }

    /// The same for a row of a batch, which is worth more patience than a request.
    pub(super) async fn write(
        &self,
        store: &(dyn fmt::Display + Sync),
        operation: &'static str,
        body: impl Into<Bytes>,
    ) -> Result<Result<Bytes, Refusal>> {
        self.call_with(store, operation, body.into(), self.attempts.max(WRITE_ATTEMPTS)).await
    }

    async fn call_with(
        &self,
        store: &(dyn fmt::Display + Sync),
        operation: &'static str,
        body: Bytes,
        attempts: u32,
    ) -> Result<Result<Bytes, Refusal>> {
        let send = || self.send(store, operation, body.clone());
        Attempts::at_most(attempts, self.call_timeout).call(store, send).await
    }

    async fn send(
        &self,
        store: &(dyn fmt::Display + Sync),
        operation: &'static str,
        body: Bytes,
    ) -> Result<Result<Bytes, Refusal>, Failure> {
        let unreachable = |error: String| Failure {
            error: Error::unavailable("could not reach DynamoDB")
                .with_context("online store", store)
                .with_source(error)
                .with_hint("check `online_store.region` and `online_store.endpoint_url`, and the network"),
            transient: true,
        };
        let request = self.request(operation, body).await.map_err(|error| error.with_context("online store", store))?;
        let exchange = async {
            let response = self.http.request(request).await.map_err(|error| unreachable(causes(&error)))?;
            let status = response.status();
            let answer = Limited::new(response.into_body(), MOST_ANSWER_BYTES).collect().await;
            Ok::<_, Failure>((status, answer.map_err(|error| unreachable(error.to_string()))?.to_bytes()))
        };
        let answered = timeout(self.attempt_timeout, exchange).await;
        let (status, body) = answered.map_err(|_| Failure {
            error: Error::new(ErrorCode::Timeout, format!("DynamoDB did not answer within {:?}", self.attempt_timeout))
                .with_context("online store", store)
                .with_hint("see whether the network is slow, or raise `online_store.read_timeout`"),
            transient: true,
        })??;
        if status.is_success() {
            return Ok(Ok(body));
        }
        let said: Said<'_> = serde_json::from_slice(&body).unwrap_or_default();
        let kind = said.kind.rsplit('#').next().unwrap_or_default().to_owned();
        let expired = kind == "ExpiredTokenException";
        if expired {
            self.signer.forget();
        }
        let refusal =
            Refusal { operation, kind, message: said.message.chars().take(300).collect(), body: body.clone() };
        if expired || status.is_server_error() || THROTTLED.contains(&refusal.kind.as_str()) {
            return Err(Failure { error: refusal.into_error(store), transient: true });
        }
        Ok(Err(refusal))
    }

    async fn request(&self, operation: &str, body: Bytes) -> Result<Request<Full<Bytes>>> {
        let not_an_address = |error: hyper::http::Error| {
            Error::invalid_configuration("`online_store.endpoint_url` is not an address").with_source(error)
        };
        let mut request = Request::post(format!("{}/", self.endpoint))
            .header("x-amz-target", format!("DynamoDB_20120810.{operation}"))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.0"))
            .body(body)
            .map_err(not_an_address)?;
        // It is signed, so it has to be what the connection would send.
        let authority = request.uri().authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
        let host = HeaderValue::try_from(authority).map_err(|error| not_an_address(error.into()))?;
        request.headers_mut().insert(HOST, host);
        self.signer.sign(&mut request).await?;
        Ok(request.map(Full::new))
    }
}

/// How DynamoDB says what is wrong.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said<'a> {
    #[serde(rename = "__type", borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(alias = "Message", borrow)]
    message: std::borrow::Cow<'a, str>,
}

/// An error and what it came from, as one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
