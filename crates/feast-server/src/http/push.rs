//! `POST /push`

use std::str::FromStr as _;
use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use axum::response::IntoResponse as _;
use feast::{FeatureStore, PushTarget};
use feast_core::FeatureView;
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

/// The same, for who has a request that went through no router.
pub(super) async fn respond<B>(
    server: &Arc<Server>,
    elsewhere: Option<&Handle>,
    headers: HeaderMap,
    body: B,
) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let answer = async {
        let received = Received::read(headers, body, server).await?;
        server.admit(received.deadline, answer(server, &received, elsewhere)).await
    };
    answer.await.into_response()
}

/// Pushes of more than so many values, which take more than a millisecond, are worked on elsewhere.
const MANY_VALUES: usize = 4_000;

async fn answer(server: &Arc<Server>, received: &Received, elsewhere: Option<&Handle>) -> Answer<Response<Body>> {
    let pushed = Pushed::parse(received, &server.options)?;
    let target = PushTarget::from_str(&pushed.to)?;
    let contents = server.store.contents(false).await?;
    let views = contents.views_of_push_source(&pushed.push_source)?;
    let takes_long = || {
        target != PushTarget::Online
            || pushed.n_values() > MANY_VALUES
            || FeatureStore::computes_on_push(&contents, &views)
    };
    match elsewhere {
        Some(runtime) if takes_long() => {
            let server = Arc::clone(server);
            Elsewhere::run(runtime, async move { pushed.write(&server, &views, target).await }).await
        }
        _ => pushed.write(server, &views, target).await,
    }
}

struct Pushed {
    push_source: String,
    frame: Frame,
    to: String,
    transform_on_write: bool,
}

impl Pushed {
    fn n_values(&self) -> usize {
        self.frame.iter().map(|(_, column)| column.len()).sum()
    }

    async fn write(self, server: &Server, views: &[Arc<FeatureView>], target: PushTarget) -> Answer<Response<Body>> {
        if let Some(rows) = record_batch(self.frame, views)? {
            server.store.push_rows(&self.push_source, &rows, target, self.transform_on_write).await?;
        }
        server.metrics.pushed(&self.push_source, &self.to);
        Ok(().into_response())
    }

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
