//! One table: from the cause of an error to Feast's exception class and the status of the answer.

use std::fmt;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use feast_core::{Error, ErrorCode, ErrorKind};
use serde_json::{Value, json};

/// Status and exception class of each cause. The status of client errors is 4xx even where Feast answers 500.
fn row(code: ErrorCode) -> (StatusCode, &'static str) {
    use ErrorCode as C;
    use StatusCode as S;
    match code {
        C::ProjectNotFound => (S::NOT_FOUND, "ProjectObjectNotFoundException"),
        C::EntityNotFound => (S::NOT_FOUND, "EntityNotFoundException"),
        C::DataSourceNotFound => (S::NOT_FOUND, "DataSourceObjectNotFoundException"),
        C::FeatureViewNotFound => (S::NOT_FOUND, "FeatureViewNotFoundException"),
        C::OnDemandFeatureViewNotFound => (S::NOT_FOUND, "OnDemandFeatureViewNotFoundException"),
        C::FeatureViewVersionNotFound => (S::NOT_FOUND, "FeatureViewVersionNotFound"),
        C::FeatureServiceNotFound => (S::NOT_FOUND, "FeatureServiceNotFoundException"),
        C::SavedDatasetNotFound => (S::NOT_FOUND, "SavedDatasetNotFound"),
        C::ValidationReferenceNotFound => (S::NOT_FOUND, "ValidationReferenceNotFound"),
        C::PermissionNotFound => (S::NOT_FOUND, "PermissionObjectNotFoundException"),
        C::RequestDataNotFoundInEntityFrame => (S::NOT_FOUND, "RequestDataNotFoundInEntityDfException"),
        C::RequestDataNotFoundInEntityRows => (S::NOT_FOUND, "RequestDataNotFoundInEntityRowsException"),
        C::PushSourceNotFound => (S::UNPROCESSABLE_ENTITY, "PushSourceNotFoundException"),
        C::FeatureNotFound => (S::NOT_FOUND, "KeyError"),
        // The operator's to mend: a server whose registry or source files are gone is not ready.
        C::RegistryNotFound | C::FileNotFound => (S::SERVICE_UNAVAILABLE, "FileNotFoundError"),
        C::InvalidRequest | C::InvalidFeatureReference => (S::BAD_REQUEST, "ValueError"),
        C::FeatureNameCollision => (S::BAD_REQUEST, "FeatureNameCollisionError"),
        C::MissingJoinKey => (S::BAD_REQUEST, "KeyError"),
        C::MissingColumns => (S::BAD_REQUEST, "FeastEntityDFMissingColumnsError"),
        C::InvalidEventTimestamp => (S::BAD_REQUEST, "EntityDFNotDateTime"),
        C::InvalidDefinition => (S::INTERNAL_SERVER_ERROR, "ValueError"),
        C::InvalidConfiguration => (S::INTERNAL_SERVER_ERROR, "FeastConfigError"),
        C::RegistryNotSet => (S::INTERNAL_SERVER_ERROR, "FeastRegistryNotSetError"),
        C::UnknownOnlineStore => (S::INTERNAL_SERVER_ERROR, "FeastOnlineStoreInvalidName"),
        C::UnknownOfflineStore => (S::INTERNAL_SERVER_ERROR, "FeastOfflineStoreInvalidName"),
        C::UnknownRegistryType => (S::INTERNAL_SERVER_ERROR, "FeastRegistryTypeInvalidError"),
        C::InferenceFailure => (S::INTERNAL_SERVER_ERROR, "RegistryInferenceFailure"),
        C::ConflictingFeatureViewNames => (S::CONFLICT, "ConflictingFeatureViewNames"),
        C::FeatureViewPinConflict => (S::CONFLICT, "FeatureViewPinConflict"),
        C::CorruptRegistry => (S::INTERNAL_SERVER_ERROR, "FeastError"),
        C::AlreadyExists => (S::CONFLICT, "ValueError"),
        C::SavedDatasetLocationExists => (S::CONFLICT, "SavedDatasetLocationAlreadyExists"),
        C::Conflict => (S::CONFLICT, "FeastError"),
        C::PermissionDenied => (S::FORBIDDEN, "FeastPermissionError"),
        C::ReadOnlyRegistry => (S::FORBIDDEN, "ReadOnlyRegistryException"),
        // The user's code, not the caller's request.
        C::TransformationFailed => (S::INTERNAL_SERVER_ERROR, "RuntimeError"),
        C::Unsupported => (S::NOT_IMPLEMENTED, "NotImplementedError"),
        C::Unavailable => (S::SERVICE_UNAVAILABLE, "FeastError"),
        C::Timeout => (S::GATEWAY_TIMEOUT, "TimeoutError"),
        C::Internal => (S::INTERNAL_SERVER_ERROR, "FeastError"),
    }
}

/// Name of the exception that Feast's users catch for this cause: a class of `feast.errors`, or one of Python's own
/// where Feast raises that.
pub fn feast_class(code: ErrorCode) -> &'static str {
    row(code).1
}

/// Module of [`feast_class`].
pub fn feast_module(code: ErrorCode) -> &'static str {
    match feast_class(code) {
        "FeastConfigError" => "feast.repo_config",
        "ValueError" | "KeyError" | "FileNotFoundError" | "NotImplementedError" | "RuntimeError" | "TimeoutError" => {
            "builtins"
        }
        _ => "feast.errors",
    }
}

/// Status of an HTTP answer that reports this cause.
pub fn http_status(code: ErrorCode) -> u16 {
    row(code).0.as_u16()
}

/// Why a request was not answered as it asked.
#[derive(Debug)]
pub(crate) enum Rejection {
    /// The feature store refused or failed.
    Failed(Error),
    /// The body is not what the route takes: one entry per problem, as FastAPI words them.
    Invalid(Vec<Value>),
    /// Anything else, with a sentence.
    Refused(StatusCode, String),
    /// Anything else, with a body of its own.
    Told(StatusCode, Value),
    /// Too many requests at once.
    Busy,
}

/// The result of handling a request.
pub(crate) type Answer<T> = Result<T, Rejection>;

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "{error}"),
            Self::Invalid(details) => write!(f, "the body has {} problems", details.len()),
            Self::Refused(_, sentence) => f.write_str(sentence),
            Self::Told(status, _) => write!(f, "{status}"),
            Self::Busy => f.write_str("too many requests are waiting"),
        }
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response<Body> {
        match self {
            Self::Failed(error) => failed(&error),
            Self::Invalid(details) => json_response(StatusCode::UNPROCESSABLE_ENTITY, &json!({"detail": details})),
            Self::Refused(status, sentence) => json_response(status, &json!({"detail": sentence})),
            Self::Told(status, body) => json_response(status, &body),
            Self::Busy => {
                let body = json!({"detail": "the server is busy; try again in a moment"});
                let mut response = json_response(StatusCode::SERVICE_UNAVAILABLE, &body);
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                response
            }
        }
    }
}

/// Feast's clients find the class of an error in a JSON text inside the JSON body. Python's own exceptions are told as
/// the bare sentence.
fn failed(error: &Error) -> Response<Body> {
    let (status, class) = row(error.code());
    if status.is_server_error() && error.kind() != ErrorKind::Unsupported {
        tracing::error!(%status, error = %error, "a request failed");
    }
    let mut message = error.to_string();
    if let Some(hint) = error.hint() {
        message = format!("{message}; {hint}");
    }
    let body = match feast_module(error.code()) {
        "builtins" => Value::String(message),
        module => Value::String(json!({"module": module, "class": class, "message": message}).to_string()),
    };
    let mut response = json_response(status, &body);
    if error.kind() == ErrorKind::Unavailable {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// A JSON answer with a status.
pub(crate) fn json_response(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_errors_are_never_server_errors() {
        for code in [ErrorCode::InvalidRequest, ErrorCode::FeatureNotFound, ErrorCode::MissingJoinKey] {
            assert!((400..500).contains(&http_status(code)), "{code:?}");
        }
        assert_eq!(http_status(ErrorCode::PushSourceNotFound), 422);
        assert_eq!(http_status(ErrorCode::PermissionDenied), 403);
        assert_eq!(feast_class(ErrorCode::FeatureViewNotFound), "FeatureViewNotFoundException");
        assert_eq!(feast_module(ErrorCode::InvalidConfiguration), "feast.repo_config");
    }
}
