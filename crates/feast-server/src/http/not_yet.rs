//! Routes of Feast's server that are not served yet. They say so, instead of looking like a wrong address.

use axum::extract::MatchedPath;
use axum::http::StatusCode;

use crate::error::Rejection;

/// The routes.
pub(crate) const PATHS: [&str; 7] = [
    "/retrieve-online-documents",
    "/search",
    "/v1/vector_stores",
    "/v1/vector_stores/{vector_store_id}",
    "/v1/vector_stores/{vector_store_id}/search",
    "/chat",
    "/ws/chat",
];

/// 501 with one sentence.
pub(crate) async fn not_yet(path: MatchedPath) -> Rejection {
    let sentence = format!("`{}` is not served by this version of the feature server", path.as_str());
    Rejection::Refused(StatusCode::NOT_IMPLEMENTED, sentence)
}
