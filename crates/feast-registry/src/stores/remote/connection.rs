//! Calls to a registry server: each has a deadline, and those that change nothing are made again when it was not there.

use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use feast_core::{Error, ErrorCode, Result};
use hyper_util::rt::TokioIo;
use prost::Message;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::client::Grpc;
use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::options::RemoteOptions;
use crate::handle::pause;

/// Largest message in either direction.
const MOST_BYTES: usize = 256 << 20;
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often a call is made at most.
const ATTEMPTS: u32 = 3;

/// Whether a call may be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It changes nothing.
    Yes,
    /// It may have been done although no answer came.
    No,
}

/// A server. Nothing is connected before the first call; each process has a connection of its own.
#[derive(Debug)]
pub(super) struct Connection {
    options: RemoteOptions,
    channel: Mutex<Option<(u32, Channel)>>,
}

impl Connection {
    pub(super) fn new(options: RemoteOptions) -> Self {
        Self { options, channel: Mutex::default() }
    }

    pub(super) fn path(&self) -> &str {
        &self.options.path
    }

    /// One call of a method.
    ///
    /// # Errors
    /// What the server says; `Unavailable` and `Timeout` when it says nothing.
    pub(super) async fn call<Q, A>(&self, service: &str, method: &str, request: &Q, repeat: Repeat) -> Result<A>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let mut attempt = 1;
        loop {
            match self.once(service, method, request).await? {
                Err(status) if repeat == Repeat::Yes && status.code() == Code::Unavailable && attempt < ATTEMPTS => {
                    tracing::debug!(server = self.path(), method, attempt, %status, "asking again");
                    pause(attempt * attempt * 10).await;
                    attempt += 1;
                }
                Err(status) => return Err(self.error(method, &status)),
                Ok(answer) => return Ok(answer),
            }
        }
    }

    async fn once<Q, A>(&self, service: &str, method: &str, request: &Q) -> Result<std::result::Result<A, Status>>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc =
            Grpc::new(self.channel()?).max_decoding_message_size(MOST_BYTES).max_encoding_message_size(MOST_BYTES);
        let path = PathAndQuery::from_maybe_shared(format!("/{service}/{method}"))
            .map_err(|error| Error::internal("a method has no path").with_source(error))?;
        if let Err(error) = grpc.ready().await {
            return Ok(Err(Status::unavailable(root(&error))));
        }
        let answer = grpc.unary(Request::new(request.clone()), path, ProstCodec::<Q, A>::default()).await;
        Ok(answer.map(tonic::Response::into_inner))
    }

    /// The connection of this process. What a forked process has inherited is neither used nor closed.
    fn channel(&self) -> Result<Channel> {
        let process = std::process::id();
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((owner, known)) = &*channel
            && *owner == process
        {
            return Ok(known.clone());
        }
        let made = self.connect()?;
        if let Some(inherited) = channel.replace((process, made.clone())) {
            std::mem::forget(inherited);
        }
        Ok(made)
    }

    fn connect(&self) -> Result<Channel> {
        let options = &self.options;
        let wrong = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::invalid_configuration(format!("the registry server `{}` cannot be asked", options.path))
                .with_source(error)
                .with_hint("write `path` and `authority` as `host:port`")
        };
        let uri = |authority: &str| format!("http://{authority}").parse::<Uri>().map_err(|error| wrong(error.into()));
        let mut endpoint = Endpoint::from(uri(&options.path)?)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .initial_stream_window_size(Some(4 << 20))
            .initial_connection_window_size(Some(8 << 20));
        if let Some(authority) = &options.authority {
            endpoint = endpoint.origin(uri(authority)?);
        }
        let Some(tls) = &options.tls else { return Ok(endpoint.connect_lazy()) };
        let mut client = tls.client_config()?;
        client.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(client));
        let name = ServerName::try_from(options.server_name().to_owned()).map_err(|error| wrong(error.into()))?;
        let (host, port) = options.target();
        let host = host.to_owned();
        let connect = tower::service_fn(move |_: Uri| {
            let (connector, name, host) = (connector.clone(), name.clone(), host.clone());
            async move {
                let stream = TcpStream::connect((host.as_str(), port)).await?;
                stream.set_nodelay(true)?;
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
            }
        });
        Ok(endpoint.connect_with_connector_lazy(connect))
    }

    /// The error that a status tells.
    fn error(&self, method: &str, status: &Status) -> Error {
        let server = self.path();
        let told: Option<Value> = serde_json::from_str(status.message()).ok();
        let part = |name: &str| told.as_ref().and_then(|told| told.get(name)?.as_str()).unwrap_or_default();
        let code = code_of_class(part("class")).unwrap_or_else(|| code_of_status(status.code()));
        let message = match (part("message"), status.source()) {
            ("", Some(source)) => root(source),
            ("", None) => status.message().to_owned(),
            (message, _) => message.to_owned(),
        };
        let error = Error::new(code, message.trim_end_matches('.').to_owned());
        match code {
            ErrorCode::Unavailable => Error::new(
                code,
                format!("the registry server `{server}` did not answer `{method}`"),
            )
            .with_source(error)
            .with_hint(
                "see whether it runs (`feast serve_registry`), and whether `path`, `cert` and `is_tls` are those of it",
            ),
            ErrorCode::Timeout => {
                let seconds = TIMEOUT.as_secs();
                Error::new(code, format!("the registry server `{server}` took more than {seconds} s for `{method}`"))
                    .with_hint("see whether it is overloaded, or the network slow")
            }
            ErrorCode::PermissionDenied => error
                .with_context("registry server", server)
                .with_hint("ask for the permission, or use the registry for reading only"),
            ErrorCode::ReadOnlyRegistry => error
                .with_context("registry server", server)
                .with_hint("the registry behind the server can only be read: change it where it can be written"),
            _ => error.with_context("registry server", server),
        }
    }
}

fn code_of_class(class: &str) -> Option<ErrorCode> {
    use ErrorCode as C;
    Some(match class {
        "ProjectObjectNotFoundException" | "ProjectNotFoundException" => C::ProjectNotFound,
        "EntityNotFoundException" => C::EntityNotFound,
        "DataSourceObjectNotFoundException" => C::DataSourceNotFound,
        "FeatureViewNotFoundException" => C::FeatureViewNotFound,
        "OnDemandFeatureViewNotFoundException" => C::OnDemandFeatureViewNotFound,
        "FeatureServiceNotFoundException" => C::FeatureServiceNotFound,
        "SavedDatasetNotFound" => C::SavedDatasetNotFound,
        "ValidationReferenceNotFound" => C::ValidationReferenceNotFound,
        "PermissionObjectNotFoundException" | "PermissionNotFoundException" => C::PermissionNotFound,
        "ConflictingFeatureViewNames" => C::ConflictingFeatureViewNames,
        "FeatureViewPinConflict" => C::FeatureViewPinConflict,
        "FeastPermissionError" => C::PermissionDenied,
        "ReadOnlyRegistryException" => C::ReadOnlyRegistry,
        _ => return None,
    })
}

fn code_of_status(code: Code) -> ErrorCode {
    match code {
        Code::Aborted => ErrorCode::Conflict,
        Code::AlreadyExists => ErrorCode::AlreadyExists,
        Code::DataLoss => ErrorCode::CorruptRegistry,
        Code::DeadlineExceeded | Code::Cancelled => ErrorCode::Timeout,
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => ErrorCode::InvalidRequest,
        Code::NotFound => ErrorCode::RegistryNotFound,
        Code::PermissionDenied | Code::Unauthenticated => ErrorCode::PermissionDenied,
        Code::Unimplemented => ErrorCode::Unsupported,
        _ => ErrorCode::Unavailable,
    }
}

/// What is at the bottom of an error: those above it repeat each other.
fn root(error: &dyn std::error::Error) -> String {
    let mut root = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    root.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;

    use serde_json::Map;

    use super::*;

    #[test]
    fn what_a_server_says_is_told_with_its_name() {
        let options = RemoteOptions::parse("registry:6570", &Map::new(), Path::new("/")).unwrap();
        let connection = Connection::new(options);
        let told = |code, message: &str| connection.error("ApplyEntity", &Status::new(code, message));
        let detail = r#"{"module": "feast.errors", "class": "ReadOnlyRegistryException", "message": "read only."}"#;
        let error = told(Code::Internal, detail);
        assert_eq!(error.code(), ErrorCode::ReadOnlyRegistry);
        assert_eq!(error.to_string(), "read only (registry server: registry:6570)");
        assert!(error.hint().is_some());
        assert_eq!(told(Code::Aborted, "{}").code(), ErrorCode::Conflict);
        assert_eq!(told(Code::Unimplemented, "Method not found!").code(), ErrorCode::Unsupported);
        assert_eq!(told(Code::Unauthenticated, "who are you?").code(), ErrorCode::PermissionDenied);
        let error = told(Code::Unavailable, "refused");
        assert_eq!(error.to_string(), "the registry server `registry:6570` did not answer `ApplyEntity`: refused");
    }
}
