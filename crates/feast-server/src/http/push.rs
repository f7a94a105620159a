//! `POST /push`

use std::str::FromStr as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse as _;
use feast::PushTarget;
use feast_core::{FeatureView, PushPlan};
use feast_online::PlainRows;
use tokio::runtime::Handle;

use super::body::{Members, Received};
use super::frame::{Frame, frame, record_batch};
use super::frame_body::{self, FrameBody};
use crate::error::Answer;
use crate::options::ServeOptions;
use crate::state::Server;
use crate::threads::Elsewhere;

/// Fresh rows for every view that a push source feeds.
pub(crate) async fn push(State(server): State<Arc<Server>>, received: Received) -> Answer<Response<Body>> {
    server.admit(received.deadline, answer(&server, &received, None)).await
}

/// Pushes of more than so many values, which take more than a millisecond, are worked on elsewhere.
const MANY_VALUES: usize = 4_000;

pub(super) async fn answer(
    server: &Arc<Server>,
    received: &Received,
    elsewhere: Option<&Handle>,
) -> Answer<Response<Body>> {
    let Pushed { push_source, rows, to, transform_on_write } = Pushed::parse(received, &server.options)?;
    let target = PushTarget::from_str(&to)?;
    let plan = server.store.push_plan(&push_source).await?;
    let takes_long = target != PushTarget::Online || rows.n_values() > MANY_VALUES || plan.computes;
    let frame = match rows {
        Rows::Plain(rows) => {
            if !takes_long && server.store.push_plain(&plan, &rows).await? {
                server.metrics.pushed(&push_source, &to);
                return Ok(().into_response());
            }
            rows.into_columns()
        }
        Rows::Any(frame) => frame,
    };
    let (pushing, to_push) = (Arc::clone(server), push_source.clone());
    let write = async move { write(&pushing, &plan, &to_push, frame, target, transform_on_write).await };
    match elsewhere {
        Some(runtime) if takes_long => Elsewhere::run(runtime, write).await?,
        // As a rule there is no need for it, and room for it would be moved with each request.
        _ => Box::pin(write).await?,
    }
    server.metrics.pushed(&push_source, &to);
    let is_left = target != PushTarget::Online && server.offline_batches.is_some();
    Ok(if is_left { StatusCode::ACCEPTED.into_response() } else { ().into_response() })
}

async fn write(
    server: &Server,
    plan: &PushPlan,
    push_source: &str,
    frame: Frame,
    target: PushTarget,
    transform_on_write: bool,
) -> Answer<()> {
    let views: Vec<Arc<FeatureView>> = plan.views.iter().map(|pushed| Arc::clone(&pushed.view)).collect();
    let Some(rows) = record_batch(frame, &views)? else { return Ok(()) };
    match &server.offline_batches {
        Some(batches) if target != PushTarget::Online => {
            let room = batches.room_for(&rows).await?;
            server.store.push_before_history(push_source, &rows, target, transform_on_write).await?;
            batches.add(push_source, rows, room)?;
        }
        _ => server.store.push_rows(push_source, &rows, target, transform_on_write).await?,
    }
    Ok(())
}

struct Pushed<'a> {
    push_source: String,
    rows: Rows<'a>,
    to: String,
    transform_on_write: bool,
}

enum Rows<'a> {
    Plain(PlainRows<'a>),
    Any(Frame),
}

impl Rows<'_> {
    fn n_values(&self) -> usize {
        match self {
            Self::Plain(rows) => rows.n_values(),
            Self::Any(frame) => frame.iter().map(|(_, column)| column.len()).sum(),
        }
    }
}

impl<'a> Pushed<'a> {
    fn parse(received: &'a Received, options: &ServeOptions) -> Answer<Self> {
        let body = frame_body::parse(received.json_text()?, options.request_limit_values);
        body.and_then(Self::of).map_or_else(|| received.json(options, Self::take), Ok)
    }

    fn of(body: FrameBody<'a>) -> Option<Self> {
        body.flag_or("allow_registry_cache", true)?;
        Some(Self {
            push_source: body.text("push_source_name")?.to_owned(),
            to: body.text_or("to", "online")?.to_owned(),
            transform_on_write: body.flag_or("transform_on_write", true)?,
            rows: Rows::Plain(body.frame),
        })
    }

    fn take(members: &mut Members<'_>) -> Self {
        Self {
            push_source: members.text("push_source_name"),
            rows: Rows::Any(frame(members.columns("df"))),
            to: {
                members.flag("allow_registry_cache", true);
                members.text_or("to", "online")
            },
            transform_on_write: members.flag("transform_on_write", true),
        }
    }
}
