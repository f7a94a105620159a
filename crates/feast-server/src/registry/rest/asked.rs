//! What a request asks for in its address, and how it is told that it cannot have it.

use std::fmt::Display;
use std::str::FromStr;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use feast_core::{Error, ErrorKind, Tags};
use feast_proto::registry::{PaginationParams, SortingParams};
use serde_json::{Value, json};

use super::super::read::Listing;
use crate::error::json_response;

/// Largest page.
const MOST_ITEMS: i32 = 100;

/// The pairs behind the `?`.
#[derive(Debug)]
pub(super) struct Asked(Vec<(String, String)>);

/// A request that is not answered: status, kind and sentence, in Feast's words.
#[derive(Debug)]
pub(super) struct Refusal(StatusCode, &'static str, String);

/// What a handler gives.
pub(super) type Answer<T = axum::Json<Value>> = Result<T, Refusal>;

impl Refusal {
    /// Something in the request that is not as it must be.
    pub(super) fn invalid(sentence: impl Display) -> Self {
        Self(StatusCode::UNPROCESSABLE_ENTITY, "RequestValidationError", sentence.to_string())
    }

    /// A value that is none of those there are.
    pub(super) fn bad(sentence: impl Display) -> Self {
        Self(StatusCode::BAD_REQUEST, "HTTPException", sentence.to_string())
    }

    /// Something that this server is not told to do.
    pub(super) fn unavailable(sentence: impl Display) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, "HTTPException", sentence.to_string())
    }

    /// Something that this server cannot do.
    pub(super) fn not_there(sentence: impl Display) -> Self {
        Self(StatusCode::NOT_IMPLEMENTED, "HTTPException", sentence.to_string())
    }

    pub(super) fn no_such_route() -> Self {
        Self(StatusCode::NOT_FOUND, "HTTPException", "Not Found".to_owned())
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        use StatusCode as S;
        let (status, kind) = match error.kind() {
            ErrorKind::NotFound => (S::NOT_FOUND, "FeastObjectNotFoundException"),
            ErrorKind::PermissionDenied => (S::FORBIDDEN, "FeastPermissionError"),
            ErrorKind::InvalidRequest | ErrorKind::InvalidDefinition => (S::UNPROCESSABLE_ENTITY, "ValueError"),
            ErrorKind::AlreadyExists | ErrorKind::Conflict => (S::CONFLICT, "HTTPException"),
            ErrorKind::Unsupported => (S::NOT_IMPLEMENTED, "HTTPException"),
            ErrorKind::Unavailable => (S::SERVICE_UNAVAILABLE, "HTTPException"),
            ErrorKind::Timeout => (S::GATEWAY_TIMEOUT, "HTTPException"),
            ErrorKind::Internal => (S::INTERNAL_SERVER_ERROR, "InternalServerError"),
        };
        if status.is_server_error() && status != S::NOT_IMPLEMENTED {
            tracing::error!(%error, "a registry request failed");
        }
        let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        Self(status, kind, format!("{error}{hint}"))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        let Self(status, kind, detail) = self;
        json_response(status, &json!({"status_code": status.as_u16(), "detail": detail, "error_type": kind}))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        pairs.map(|pairs| Self(pairs.0)).map_err(|error| Refusal::invalid(error.body_text()))
    }
}

impl Asked {
    /// The last value of a key.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// All values of a key that say something.
    pub(super) fn texts(&self, key: &str) -> Vec<&str> {
        let values = self.0.iter().filter(|(name, value)| name == key && !value.trim().is_empty());
        values.map(|(_, value)| value.as_str()).collect()
    }

    /// The last value of a key, or nothing.
    pub(super) fn or_empty(&self, key: &str) -> String {
        self.text(key).unwrap_or_default().to_owned()
    }

    /// A value that must be there.
    pub(super) fn required(&self, key: &str) -> Answer<String> {
        self.text(key).map(str::to_owned).ok_or_else(|| Refusal::invalid(format!("`{key}` is missing in the address")))
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Answer<bool> {
        match self.text(key).map(str::to_lowercase).as_deref() {
            None => Ok(default),
            Some("true" | "1" | "yes" | "on" | "t" | "y") => Ok(true),
            Some("false" | "0" | "no" | "off" | "f" | "n") => Ok(false),
            Some(other) => Err(Refusal::invalid(format!("`{key}` is `{other}`, expected true or false"))),
        }
    }

    pub(super) fn number<T: FromStr>(&self, key: &str) -> Answer<Option<T>> {
        let read = |text: &str| {
            text.parse().map_err(|_| Refusal::invalid(format!("`{key}` is `{text}`, expected a whole number")))
        };
        self.text(key).map(read).transpose()
    }

    pub(super) fn allow_cache(&self) -> Answer<bool> {
        self.flag("allow_cache", true)
    }

    pub(super) fn with_relations(&self) -> Answer<bool> {
        self.flag("include_relationships", false)
    }

    /// `?tags=key:value`, as often as wanted.
    pub(super) fn tags(&self) -> Tags {
        let pairs = self.0.iter().filter(|(name, _)| name == "tags").filter_map(|(_, tag)| tag.split_once(':'));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// Number and size of the page; zero where the request does not say.
    pub(super) fn pagination(&self) -> Answer<PaginationParams> {
        let page = self.number::<i32>("page")?.unwrap_or_default();
        let limit = self.number::<i32>("limit")?.unwrap_or_default();
        if page < 1 && self.text("page").is_some() {
            return Err(Refusal::invalid(format!("`page` is {page}, expected 1 or more")));
        }
        if !(1..=MOST_ITEMS).contains(&limit) && self.text("limit").is_some() {
            return Err(Refusal::invalid(format!("`limit` is {limit}, expected 1 to {MOST_ITEMS}")));
        }
        Ok(PaginationParams { page, limit })
    }

    pub(super) fn sorting(&self) -> Answer<SortingParams> {
        let sort_order = self.text("sort_order").unwrap_or("asc").to_owned();
        if sort_order != "asc" && sort_order != "desc" {
            return Err(Refusal::invalid(format!("`sort_order` is `{sort_order}`, expected asc or desc")));
        }
        Ok(SortingParams { sort_by: self.or_empty("sort_by"), sort_order })
    }

    /// A list of the objects of a project.
    pub(super) fn listing(&self, project: String) -> Answer<Listing> {
        Ok(Listing {
            project,
            allow_cache: self.allow_cache()?,
            tags: self.tags(),
            pagination: Some(self.pagination()?),
            sorting: Some(self.sorting()?),
        })
    }
}

/// Puts JSON objects in order by a member and takes the page; tells where the page stands, as Feast does for lists of
/// all projects.
pub(super) fn page_of(mut items: Vec<Value>, page: i32, limit: i32, sorting: &SortingParams) -> (Vec<Value>, Value) {
    if !sorting.sort_by.is_empty() {
        let number = |item: &Value| item.get(&sorting.sort_by).and_then(Value::as_f64).unwrap_or(f64::NEG_INFINITY);
        let text = |item: &Value| item.get(&sorting.sort_by).and_then(Value::as_str).unwrap_or_default().to_owned();
        items.sort_by(|a, b| {
            let (a, b) = if sorting.sort_order == "desc" { (b, a) } else { (a, b) };
            number(a).total_cmp(&number(b)).then_with(|| text(a).cmp(&text(b)))
        });
    }
    let total = items.len();
    let (page, limit) = (page.max(1) as usize, limit.max(1) as usize);
    let start = (page - 1).saturating_mul(limit);
    let mut pagination = json!({"page": page, "limit": limit});
    if total > 0 {
        pagination["totalCount"] = total.into();
        pagination["totalPages"] = total.div_ceil(limit).into();
    }
    if start.saturating_add(limit) < total {
        pagination["hasNext"] = true.into();
    }
    if start > 0 {
        pagination["hasPrevious"] = true.into();
    }
    (items.into_iter().skip(start).take(limit).collect(), pagination)
}
