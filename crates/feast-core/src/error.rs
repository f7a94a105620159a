//! The one error of the workspace.

use std::borrow::Cow;
use std::fmt;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can decide to do about an error.
///
/// Transports (HTTP, gRPC, Python) map kinds and codes in one table each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is malformed; sending it again unchanged is useless.
    InvalidRequest,
    /// A definition or a configuration is wrong.
    InvalidDefinition,
    /// The named object does not exist.
    NotFound,
    /// The object exists already.
    AlreadyExists,
    /// Somebody else changed what this call is based on.
    Conflict,
    /// The caller may not do this.
    PermissionDenied,
    /// The product or the chosen backend cannot do this.
    Unsupported,
    /// A store or service could not be reached; trying again may help.
    Unavailable,
    /// The deadline passed.
    Timeout,
    /// A defect of the product.
    Internal,
}

/// The precise cause, as fine as the exceptions that users of Feast catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is named after what is wrong")]
pub enum ErrorCode {
    // not found
    ProjectNotFound,
    EntityNotFound,
    DataSourceNotFound,
    FeatureViewNotFound,
    OnDemandFeatureViewNotFound,
    FeatureViewVersionNotFound,
    FeatureServiceNotFound,
    SavedDatasetNotFound,
    ValidationReferenceNotFound,
    PermissionNotFound,
    PushSourceNotFound,
    FeatureNotFound,
    RegistryNotFound,
    RequestDataNotFoundInEntityFrame,
    RequestDataNotFoundInEntityRows,
    FileNotFound,
    // requests
    InvalidRequest,
    InvalidFeatureReference,
    FeatureNameCollision,
    MissingJoinKey,
    MissingColumns,
    InvalidEventTimestamp,
    // definitions and configuration
    InvalidDefinition,
    InvalidConfiguration,
    RegistryNotSet,
    UnknownOnlineStore,
    UnknownOfflineStore,
    UnknownRegistryType,
    InferenceFailure,
    ConflictingFeatureViewNames,
    FeatureViewPinConflict,
    CorruptRegistry,
    // the rest
    AlreadyExists,
    SavedDatasetLocationExists,
    Conflict,
    PermissionDenied,
    ReadOnlyRegistry,
    TransformationFailed,
    Unsupported,
    Unavailable,
    Timeout,
    Internal,
}

impl ErrorCode {
    /// The decision that belongs to this cause.
    pub fn kind(self) -> ErrorKind {
        use ErrorCode as C;
        match self {
            C::ProjectNotFound
            | C::EntityNotFound
            | C::DataSourceNotFound
            | C::FeatureViewNotFound
            | C::OnDemandFeatureViewNotFound
            | C::FeatureViewVersionNotFound
            | C::FeatureServiceNotFound
            | C::SavedDatasetNotFound
            | C::ValidationReferenceNotFound
            | C::PermissionNotFound
            | C::PushSourceNotFound
            | C::FeatureNotFound
            | C::RegistryNotFound
            | C::FileNotFound => ErrorKind::NotFound,
            C::RequestDataNotFoundInEntityFrame
            | C::RequestDataNotFoundInEntityRows
            | C::InvalidRequest
            | C::InvalidFeatureReference
            | C::FeatureNameCollision
            | C::MissingJoinKey
            | C::MissingColumns
            | C::InvalidEventTimestamp => ErrorKind::InvalidRequest,
            C::InvalidDefinition
            | C::InvalidConfiguration
            | C::RegistryNotSet
            | C::UnknownOnlineStore
            | C::UnknownOfflineStore
            | C::UnknownRegistryType
            | C::InferenceFailure
            | C::ConflictingFeatureViewNames
            | C::FeatureViewPinConflict
            | C::CorruptRegistry
            | C::TransformationFailed => ErrorKind::InvalidDefinition,
            C::AlreadyExists | C::SavedDatasetLocationExists => ErrorKind::AlreadyExists,
            C::Conflict => ErrorKind::Conflict,
            C::PermissionDenied | C::ReadOnlyRegistry => ErrorKind::PermissionDenied,
            C::Unsupported => ErrorKind::Unsupported,
            C::Unavailable => ErrorKind::Unavailable,
            C::Timeout => ErrorKind::Timeout,
            C::Internal => ErrorKind::Internal,
        }
    }
}

/// An error: what we were doing to which object, what was found, what was expected, and what to do next.
///
/// The message is lower case, has names in backticks, no final period and no secrets. `Display` is one line for
/// logs; [`Error::hint`] is printed on a line of its own.
pub struct Error(Box<Inner>);

struct Inner {
    code: ErrorCode,
    message: Cow<'static, str>,
    hint: Option<String>,
    context: Vec<(&'static str, String)>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error with a cause and a message.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { code, message: message.into(), hint: None, context: Vec::new(), source: None }))
    }

    /// The request is malformed.
    pub fn invalid_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }

    /// A definition is wrong.
    pub fn invalid_definition(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::InvalidDefinition, message)
    }

    /// The configuration is wrong.
    pub fn invalid_configuration(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::InvalidConfiguration, message)
    }

    /// This product, or the chosen backend, cannot do this.
    pub fn unsupported(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::Unsupported, message)
    }

    /// A store or service could not be reached.
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::Unavailable, message)
    }

    /// A defect of the product.
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::Internal, message)
    }

    /// Adds what the reader can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds a hint where there is one.
    #[must_use]
    pub fn with_hint_opt(mut self, hint: Option<String>) -> Self {
        self.0.hint = hint.or(self.0.hint);
        self
    }

    /// Adds a fact, such as the file that was read.
    #[must_use]
    pub fn with_context(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        let value = value.to_string();
        // Two layers may name the same object.
        if !self.0.context.iter().any(|(known, told)| *known == name && *told == value) {
            self.0.context.push((name, value));
        }
        self
    }

    /// Adds the error of the layer below.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The precise cause.
    pub fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// What a caller can decide to do.
    pub fn kind(&self) -> ErrorKind {
        self.0.code.kind()
    }

    /// The message without context and hint.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for (name, value) in &self.0.context {
            write!(f, " ({name}: {value})")?;
        }
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.code)?;
        match &self.0.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::internal("arrow could not process a column").with_source(error)
    }
}
