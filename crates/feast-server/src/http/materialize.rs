//! `POST /materialize` and `POST /materialize-incremental`

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{Response, StatusCode};
use chrono::Utc;
use feast::{MaterializeReport, MaterializeRequest, Window};
use feast_core::{Error, FeatureView, FeatureViewState, Result, Shard};
use serde_json::{Value, json};

use super::body::{Members, Received, parse_flag, problem};
use super::json_bytes;
use crate::error::{Answer, Rejection, json_response};
use crate::state::{Run, Server};
use crate::timestamp::parse_timestamp;

/// Loads the newest rows of a span of time into the online store.
pub(crate) async fn materialize(
    State(server): State<Arc<Server>>,
    RawQuery(query): RawQuery,
    received: Received,
) -> Answer<Response<Body>> {
    let how = How::parse(query.as_deref())?;
    let asked = received.json(&server.options, |members| {
        let (start, end) = (members.optional_text("start_ts"), members.optional_text("end_ts"));
        let common = Common::take(members);
        (start, end, members.flag("disable_event_timestamp", false), common)
    })?;
    let (start, end, everything, common) = asked;
    let window = match (everything, start, end) {
        (true, _, _) => Window::Everything,
        (false, Some(start), Some(end)) => {
            Window::Between(parse_timestamp("start_ts", &start)?, parse_timestamp("end_ts", &end)?)
        }
        (false, ..) => {
            let error = Error::invalid_request("`start_ts` and `end_ts` are required");
            return Err(error.with_hint("give both, or set `disable_event_timestamp`").into());
        }
    };
    run(&server, how, window, common).await
}

/// Loads what is new since the last time.
pub(crate) async fn materialize_incremental(
    State(server): State<Arc<Server>>,
    RawQuery(query): RawQuery,
    received: Received,
) -> Answer<Response<Body>> {
    let how = How::parse(query.as_deref())?;
    let (end, common) = received.json(&server.options, |members| (members.text("end_ts"), Common::take(members)))?;
    run(&server, how, Window::Until(parse_timestamp("end_ts", &end)?), common).await
}

/// What the query string says.
#[derive(Clone, Copy, Default)]
struct How {
    /// Answers at once and works in the background.
    in_background: bool,
    /// Starts even where a run is under way.
    force: bool,
}

impl How {
    fn parse(query: Option<&str>) -> Answer<Self> {
        let mut how = Self::default();
        for pair in query.unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let flag = match name {
                "async" => &mut how.in_background,
                "force" => &mut how.force,
                _ => continue,
            };
            *flag = parse_flag(value).ok_or_else(|| {
                let message = "Input should be a valid boolean, unable to interpret input";
                let shown: String = value.chars().take(80).collect();
                Rejection::Invalid(vec![problem("bool_parsing", &["query".into(), name.into()], message, shown.into())])
            })?;
        }
        Ok(how)
    }
}

/// What both routes take.
struct Common {
    feature_views: Vec<String>,
    version: Option<String>,
}

impl Common {
    fn take(members: &mut Members<'_>) -> Self {
        let common = Self {
            feature_views: members.texts("feature_views", true).unwrap_or_default(),
            version: members.optional_text("version"),
        };
        members.flag("full_feature_names", false);
        common
    }
}

async fn run(server: &Arc<Server>, how: How, window: Window, common: Common) -> Answer<Response<Body>> {
    if let Window::Between(start, end) = window
        && start > end
    {
        let error = Error::invalid_request(format!("`start_ts` {start} lies after `end_ts` {end}"));
        return Err(error.with_hint("give a start before the end").into());
    }
    let views = server.store.views_to_materialize(&common.feature_views).await?;
    let names: Vec<String> = views.iter().map(|view| view.name.clone()).collect();
    if how.in_background && !how.force {
        refuse_materializing(views.iter().map(AsRef::as_ref))?;
    }
    let run = server.materializing.start(&names, how.in_background && !how.force).map_err(|busy| conflict(&busy))?;
    let Common { feature_views, version } = common;
    let request = MaterializeRequest { window, feature_views, shard: Shard::WHOLE, version };
    // A task of its own: a client that goes away does not leave the work half done.
    let task = tokio::spawn(work(Arc::clone(server), request, names.clone(), run));
    if how.in_background {
        let body = json!({"status": "accepted", "feature_views": names});
        return Ok(json_response(StatusCode::ACCEPTED, &body));
    }
    task.await.map_err(|error| Error::internal("the materialization was cut off").with_source(error))??;
    Ok(json_bytes(b"null".to_vec()))
}

async fn work(
    server: Arc<Server>,
    request: MaterializeRequest,
    names: Vec<String>,
    _run: Run,
) -> Result<MaterializeReport> {
    let started = Utc::now();
    let result = server.store.materialize(request).await;
    match &result {
        Ok(report) => {
            server.metrics.materialized(&report.feature_views);
            let rows: u64 = report.feature_views.iter().map(|view| view.rows).sum();
            let seconds = (Utc::now() - started).as_seconds_f64();
            tracing::info!(feature_views = names.len(), rows, seconds, "materialized");
        }
        Err(error) => {
            server.metrics.materialization_failed(&names);
            tracing::warn!(%error, "a materialization failed");
        }
    }
    result
}

/// Another process, such as Feast's own server, may have left a mark that it is working on a view.
fn refuse_materializing<'a>(views: impl Iterator<Item = &'a FeatureView>) -> Answer<()> {
    let busy: Vec<String> =
        views.filter(|view| view.meta.state == FeatureViewState::Materializing).map(|view| view.name.clone()).collect();
    if busy.is_empty() { Ok(()) } else { Err(conflict(&busy)) }
}

fn conflict(busy: &[String]) -> Rejection {
    let names = feast_core::list_names(busy.iter().map(String::as_str));
    Rejection::Told(
        StatusCode::CONFLICT,
        json!({
            "error": format!("{names} is being materialized already; wait for it, or add `force=true` to the query"),
            "feature_views": busy.iter().map(|name| Value::from(name.as_str())).collect::<Vec<_>>(),
        }),
    )
}
