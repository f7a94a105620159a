//! Datastore's gRPC calls: a token, a deadline, and again where that can help.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use feast_core::{Error, ErrorCode, Result};
use feast_net::{GcpTokens, system_authorities};
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::stores::retry::{Attempts, Failure};

const SCOPES: &[&str] = &["https://www.googleapis.com/auth/datastore"];
const HOST: &str = "https://datastore.googleapis.com";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer that is taken; a thousand entities of 1 MB each would be longer, and come in several answers.
const MOST_ANSWER_BYTES: usize = 64 << 20;

/// The connection of one process. HTTP/2 carries all calls over it.
pub(super) struct Client {
    channel: Channel,
    /// The emulator wants none.
    tokens: Option<GcpTokens>,
    pub(super) project: String,
    pub(super) database: String,
}

impl Client {
    /// A connection to the service, or to the emulator at `host:port`.
    pub(super) async fn connect(emulator: Option<&str>, project: Option<&str>, database: &str) -> Result<Self> {
        let wrong = |error: tonic::transport::Error| {
            Error::invalid_configuration("Datastore's address is not one that can be connected to")
                .with_source(error)
                .with_hint(
                    "`DATASTORE_EMULATOR_HOST` is `host:port`, such as `localhost:8081`; without it, none is needed",
                )
        };
        let tokens = emulator.is_none().then(|| GcpTokens::new(SCOPES));
        let address = emulator.map_or_else(|| HOST.to_owned(), |host| format!("http://{host}"));
        let mut endpoint = Endpoint::from_shared(address).map_err(wrong)?.connect_timeout(CONNECT_TIMEOUT);
        if tokens.is_some() {
            let pem = |certificate: Vec<u8>| {
                let text = STANDARD.encode(certificate);
                Certificate::from_pem(format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n"))
            };
            let tls = ClientTlsConfig::new().ca_certificates(system_authorities().into_iter().map(pem));
            endpoint = endpoint.tls_config(tls).map_err(wrong)?;
        }
        let project = match (project, &tokens) {
            (Some(project), _) => project.to_owned(),
            (None, Some(tokens)) => tokens.project().await?,
            (None, None) => {
                return Err(Error::invalid_configuration("no project of Google Cloud is named")
                    .with_hint("set `online_store.project_id`"));
            }
        };
        Ok(Self { channel: endpoint.connect_lazy(), tokens, project, database: database.to_owned() })
    }

    /// Makes a call of a transaction, again where that can help. One that lost against others is for its caller to begin
    /// anew.
    pub(super) async fn call<M, A>(
        &self,
        store: &(dyn fmt::Display + Sync),
        method: &'static str,
        message: &M,
    ) -> Result<A>
    where
        M: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.repeated(store, method, message, false).await
    }

    /// Makes a call that stands alone, again where that can help, also when it lost against others.
    pub(super) async fn call_alone<M, A>(
        &self,
        store: &(dyn fmt::Display + Sync),
        method: &'static str,
        message: &M,
    ) -> Result<A>
    where
        M: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.repeated(store, method, message, true).await
    }

    async fn repeated<M, A>(
        &self,
        store: &(dyn fmt::Display + Sync),
        method: &'static str,
        message: &M,
        is_alone: bool,
    ) -> Result<A>
    where
        M: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let attempt = || async {
            self.once(method, message.clone()).await.map_err(|failed| match failed {
                Failed::Before(error) => error.with_context("online store", store).into(),
                Failed::Status(status) => Failure {
                    transient: matches!(
                        status.code(),
                        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Internal
                    ) || is_alone && status.code() == Code::Aborted,
                    error: refused(store, method, &status),
                },
            })
        };
        Attempts::within(CALL_TIMEOUT).call(store, attempt).await
    }

    async fn once<M, A>(&self, method: &str, message: M) -> Result<A, Failed>
    where
        M: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut request = Request::new(message);
        request.set_timeout(ATTEMPT_TIMEOUT);
        // Whoever routes the call does not read the message.
        let mut entries =
            vec![("x-goog-request-params", format!("project_id={}&database_id={}", self.project, self.database))];
        if let Some(tokens) = &self.tokens {
            entries.push(("authorization", format!("Bearer {}", tokens.token().await.map_err(Failed::Before)?)));
        }
        for (name, value) in entries {
            let value = value.parse().map_err(|_| {
                Failed::Before(Error::invalid_configuration("the names of the project and database are none"))
            })?;
            request.metadata_mut().insert(name, value);
        }
        let path = format!("/google.datastore.v1.Datastore/{method}");
        let path = PathAndQuery::try_from(path).map_err(|_| Failed::Before(Error::internal("a method has no name")))?;
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MOST_ANSWER_BYTES);
        grpc.ready().await.map_err(|error| Failed::Status(Status::from_error(error.into())))?;
        let answered = tokio::time::timeout(ATTEMPT_TIMEOUT, grpc.unary(request, path, ProstCodec::<M, A>::default()));
        let answered = answered.await.map_err(|_| Failed::Status(Status::deadline_exceeded("no answer in 10 s")))?;
        answered.map(tonic::Response::into_inner).map_err(Failed::Status)
    }
}

enum Failed {
    Before(Error),
    Status(Status),
}

fn refused(store: &(dyn fmt::Display + Sync), method: &str, status: &Status) -> Error {
    let (code, hint) = match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => {
            (ErrorCode::PermissionDenied, "ask for the role `roles/datastore.user` in the project")
        }
        Code::NotFound => (
            ErrorCode::InvalidConfiguration,
            "check `online_store.project_id` and `online_store.database`, which must be in Datastore mode",
        ),
        Code::InvalidArgument | Code::FailedPrecondition => (ErrorCode::InvalidRequest, "see the message of Datastore"),
        Code::Aborted => (ErrorCode::Conflict, "others write the same rows; write them again"),
        Code::DeadlineExceeded => (ErrorCode::Timeout, "see whether Datastore is overloaded, or the network slow"),
        _ => (ErrorCode::Unavailable, "see whether Datastore can be reached"),
    };
    let mut text = status.message().to_owned();
    let mut next = std::error::Error::source(status);
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    Error::new(code, format!("Datastore refused `{method}`: {:?}", status.code()))
        .with_context("online store", store)
        .with_source(text)
        .with_hint(hint)
}
