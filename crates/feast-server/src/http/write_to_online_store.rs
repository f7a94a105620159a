//! `POST /write-to-online-store`

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;

use super::body::{Columns, Members, read_json};
use super::frame::record_batch;
use super::json_bytes;
use crate::error::Answer;
use crate::state::Server;

/// Rows for one view, into the online store only.
pub(crate) async fn write_to_online_store(
    State(server): State<Arc<Server>>,
    request: Request,
) -> Answer<Response<Body>> {
    let (feature_view, frame, transform_on_write) = read_json(request, &server.options, take).await?;
    let contents = server.store.contents(false).await?;
    let view = Arc::clone(contents.feature_view(&feature_view)?);
    if let Some(rows) = record_batch(frame, &[view])? {
        server.store.write_to_online_store(&feature_view, &rows, transform_on_write).await?;
    }
    Ok(json_bytes(b"null".to_vec()))
}

fn take(members: &mut Members<'_>) -> (String, Columns, bool) {
    let (feature_view, frame) = (members.text("feature_view_name"), members.columns("df"));
    members.flag("allow_registry_cache", true);
    (feature_view, frame, members.flag("transform_on_write", true))
}
