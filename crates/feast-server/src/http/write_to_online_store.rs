//! `POST /write-to-online-store`

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;

use super::body::{Members, Received};
use super::frame::{Frame, frame, record_batch};
use super::frame_body::{self, FrameBody};
use super::json_bytes;
use crate::error::Answer;
use crate::state::Server;

/// Rows for one view, into the online store only.
pub(crate) async fn write_to_online_store(
    State(server): State<Arc<Server>>,
    received: Received,
) -> Answer<Response<Body>> {
    server.admit(received.deadline, answer(&server, &received)).await
}

async fn answer(server: &Server, received: &Received) -> Answer<Response<Body>> {
    let body = frame_body::parse(received.json_text()?, server.options.request_limit_values);
    let (feature_view, frame, transform_on_write) =
        body.and_then(of).map_or_else(|| received.json(&server.options, take), Ok)?;
    let contents = server.store.contents(false).await?;
    let view = Arc::clone(contents.feature_view(&feature_view)?);
    if let Some(rows) = record_batch(frame, &[view])? {
        server.store.write_to_online_store(&feature_view, &rows, transform_on_write).await?;
    }
    Ok(json_bytes(b"null".to_vec()))
}

fn of(body: FrameBody<'_>) -> Option<(String, Frame, bool)> {
    body.flag_or("allow_registry_cache", true)?;
    let transform_on_write = body.flag_or("transform_on_write", true)?;
    let feature_view = body.text("feature_view_name")?.to_owned();
    Some((feature_view, body.frame.into_columns(), transform_on_write))
}

fn take(members: &mut Members<'_>) -> (String, Frame, bool) {
    let (feature_view, frame) = (members.text("feature_view_name"), frame(members.columns("df")));
    members.flag("allow_registry_cache", true);
    (feature_view, frame, members.flag("transform_on_write", true))
}
