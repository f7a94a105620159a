//! `POST /push`

use std::str::FromStr as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::response::IntoResponse as _;
use feast::PushTarget;

use super::body::{Columns, Members, read_json};
use super::frame::record_batch;
use crate::error::Answer;
use crate::state::Server;

/// Fresh rows for every view that a push source feeds.
pub(crate) async fn push(State(server): State<Arc<Server>>, request: Request) -> Answer<Response<Body>> {
    let Pushed { push_source, frame, to, transform_on_write } =
        read_json(request, &server.options, Pushed::take).await?;
    let target = PushTarget::from_str(&to)?;
    let contents = server.store.contents(false).await?;
    let views = contents.views_of_push_source(&push_source)?;
    if let Some(rows) = record_batch(frame, &views)? {
        server.store.push_rows(&push_source, &rows, target, transform_on_write).await?;
    }
    server.metrics.pushed(&push_source, &to);
    Ok(().into_response())
}

struct Pushed {
    push_source: String,
    frame: Columns,
    to: String,
    transform_on_write: bool,
}

impl Pushed {
    fn take(members: &mut Members<'_>) -> Self {
        Self {
            push_source: members.text("push_source_name"),
            frame: members.columns("df"),
            to: {
                members.flag("allow_registry_cache", true);
                members.text_or("to", "online")
            },
            transform_on_write: members.flag("transform_on_write", true),
        }
    }
}
