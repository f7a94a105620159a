//! Errors as Feast's registry clients read them: a JSON text in the message of the status.

use feast_core::{Error, ErrorCode, ErrorKind};
use serde_json::json;
use tonic::{Code, Status};

use crate::error::{feast_class, feast_module};

/// Longest message: clients refuse headers of more than 8 KiB.
const MOST_BYTES: usize = 2048;

/// The status that says the same as an error. Python's own exceptions would lose their message on the way, so that
/// those become `FeastError`.
pub(super) fn status(error: &Error) -> Status {
    let class = match (error.code(), feast_module(error.code())) {
        (ErrorCode::FeatureNotFound, _) => "FeastObjectNotFoundException",
        (code, "feast.errors") => feast_class(code),
        _ => "FeastError",
    };
    let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    let mut message = format!("{error}{hint}");
    if message.len() > MOST_BYTES {
        message.truncate(message.floor_char_boundary(MOST_BYTES));
        message.push('…');
    }
    let detail = json!({"module": "feast.errors", "class": class, "message": message});
    Status::new(code(error), detail.to_string())
}

fn code(error: &Error) -> Code {
    match (error.code(), error.kind()) {
        (ErrorCode::CorruptRegistry, _) => Code::DataLoss,
        (_, ErrorKind::InvalidRequest | ErrorKind::InvalidDefinition) => Code::InvalidArgument,
        (_, ErrorKind::NotFound) => Code::NotFound,
        (_, ErrorKind::AlreadyExists) => Code::AlreadyExists,
        (_, ErrorKind::Conflict) => Code::Aborted,
        (_, ErrorKind::PermissionDenied) => Code::PermissionDenied,
        (_, ErrorKind::Unsupported) => Code::Unimplemented,
        (_, ErrorKind::Unavailable) => Code::Unavailable,
        (_, ErrorKind::Timeout) => Code::DeadlineExceeded,
        (_, ErrorKind::Internal) => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use feast_core::{ObjectKind, ObjectRef};

    use super::*;

    #[test]
    fn feasts_classes_are_named_and_pythons_are_not() {
        let absent = status(&ObjectRef::new(ObjectKind::Entity, "driver").not_found("rides"));
        assert_eq!(absent.code(), Code::NotFound);
        assert!(absent.message().contains(r#""class":"EntityNotFoundException""#), "{absent}");
        let wrong = status(&Error::invalid_request("é".repeat(4000)));
        assert!(wrong.message().contains(r#""class":"FeastError""#) && wrong.message().len() < 3000, "{wrong}");
    }
}
