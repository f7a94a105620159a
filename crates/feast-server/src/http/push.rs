//! `POST /push`

use std::str::FromStr as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use axum::response::IntoResponse as _;
use feast::PushTarget;

use super::body::{Members, Received};
use super::frame::{Frame, frame, record_batch};
use super::frame_body::{self, FrameBody};
use crate::error::Answer;
use crate::options::ServeOptions;
use crate::state::Server;

/// Fresh rows for every view that a push source feeds.
pub(crate) async fn push(State(server): State<Arc<Server>>, received: Received) -> Answer<Response<Body>> {
    server.admit(received.deadline, answer(&server, &received)).await
}

async fn answer(server: &Server, received: &Received) -> Answer<Response<Body>> {
    let Pushed { push_source, frame, to, transform_on_write } = Pushed::parse(received, &server.options)?;
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
    frame: Frame,
    to: String,
    transform_on_write: bool,
}

impl Pushed {
    fn parse(received: &Received, options: &ServeOptions) -> Answer<Self> {
        let body = frame_body::parse(received.json_text()?, options.request_limit_values);
        body.and_then(Self::of).map_or_else(|| received.json(options, Self::take), Ok)
    }

    fn of(body: FrameBody<'_>) -> Option<Self> {
        body.flag_or("allow_registry_cache", true)?;
        Some(Self {
            push_source: body.text("push_source_name")?.to_owned(),
            to: body.text_or("to", "online")?.to_owned(),
            transform_on_write: body.flag_or("transform_on_write", true)?,
            frame: body.frame,
        })
    }

    fn take(members: &mut Members<'_>) -> Self {
        Self {
            push_source: members.text("push_source_name"),
            frame: frame(members.columns("df")),
            to: {
                members.flag("allow_registry_cache", true);
                members.text_or("to", "online")
            },
            transform_on_write: members.flag("transform_on_write", true),
        }
    }
}
