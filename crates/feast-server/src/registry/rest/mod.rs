//! The registry over HTTP, with the routes and bodies of Feast's REST registry server: below `/api/v1`, and without it.
//!
//! Lists of one project are paged when the request says so, lists of all projects always are. What Feast adds to
//! single objects as Python code (`featureDefinition`) is not here: their definitions are in a repository.

mod apply;
mod asked;
mod datasets;
mod engines;
mod graph;
mod objects;
mod search;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::Response;
use axum::http::header::{HeaderName, HeaderValue};
use axum::middleware::map_response;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, any, get, post};
use axum::{Json, body::Body};
use feast_core::Error;
use serde_json::json;
use tower_http::catch_panic::CatchPanicLayer;

pub(super) use self::apply::storage_of;
use self::asked::{Answer, Asked, Refusal};
use self::objects::{FEATURE_VIEWS, RESOURCES, Resource};
use super::Registry;
use crate::http::without_slash;

/// The routes.
pub(super) fn router(registry: &Registry) -> Router {
    let mut routes: Vec<(String, MethodRouter<Registry>)> = vec![
        ("/version".to_owned(), get(version)),
        ("/health".to_owned(), get(|| async { Json(json!({"status": "ok"})) })),
        ("/registry/refresh".to_owned(), post(refresh)),
        ("/projects".to_owned(), get(objects::projects)),
        ("/projects/{name}".to_owned(), get(objects::project)),
        ("/features/{feature_view}/{name}".to_owned(), get(objects::feature)),
        ("/lineage/registry".to_owned(), get(graph::registry)),
        ("/lineage/registry/all".to_owned(), get(graph::registry_of_all)),
        ("/lineage/objects/{object_type}/{object_name}".to_owned(), get(graph::object)),
        ("/lineage/complete".to_owned(), get(graph::complete)),
        ("/lineage/complete/all".to_owned(), get(graph::complete_of_all)),
        ("/saved_datasets/create".to_owned(), post(datasets::create)),
        ("/saved_datasets/data/{name}".to_owned(), get(datasets::data)),
        ("/saved_datasets/jobs".to_owned(), get(datasets::jobs)),
        ("/saved_datasets/jobs/{job_id}".to_owned(), get(datasets::job)),
        ("/compute_engines".to_owned(), get(engines::of_project)),
        ("/compute_engines/all".to_owned(), get(engines::of_all)),
        ("/materialization_jobs".to_owned(), get(engines::materializations)),
        ("/search".to_owned(), get(search::search)),
        ("/metrics/resource_counts".to_owned(), get(search::resource_counts)),
        ("/metrics/popular_tags".to_owned(), get(search::popular_tags)),
        ("/metrics/recently_visited".to_owned(), get(search::recently_visited)),
    ];
    for (path, kind) in [("features", "feature"), ("labels", "label")] {
        let list = get(move |State(registry): State<Registry>, asked: Asked| objects::features(kind, registry, asked));
        let all =
            get(move |State(registry): State<Registry>, asked: Asked| objects::features_of_all(kind, registry, asked));
        routes.extend([(format!("/{path}"), list), (format!("/{path}/all"), all)]);
    }
    routes.extend(engines::monitoring());
    routes.extend(RESOURCES.into_iter().chain([FEATURE_VIEWS]).flat_map(resource_routes));
    let versioned = routes.iter().map(|(path, method)| (format!("/api/v1{path}"), method.clone()));
    let router = versioned.chain(routes.clone()).fold(Router::new(), |router, (path, method)| {
        router.route(&path, method).route(&format!("{path}/"), any(without_slash))
    });
    router
        .fallback(|| async { Refusal::no_such_route() })
        .layer(map_response(guarded))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(registry.clone())
}

/// An error that is found before a route is.
pub(super) fn refused(error: Error) -> Response<Body> {
    Refusal::from(error).into_response()
}

/// A panic is our bug; its text is not for the client.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response<Body> {
    tracing::error!("a route of the registry server panicked");
    refused(Error::internal("the server has a defect; its log says more"))
}

/// The list, the list of all projects, one object, and how it is made and deleted.
fn resource_routes(resource: Resource) -> Vec<(String, MethodRouter<Registry>)> {
    let path = resource.path;
    let mut list = get(move |State(registry): State<Registry>, asked: Asked| objects::list(resource, registry, asked));
    list = match path {
        "entities" => list.post(apply::entity),
        "data_sources" => list.post(apply::data_source),
        "feature_views" => list.post(apply::feature_view),
        "feature_services" => list.post(apply::feature_service),
        "permissions" => list.post(apply::permission),
        "saved_datasets" => list.post(apply::saved_dataset),
        _ => list,
    };
    let one = get(move |State(registry): State<Registry>, Path(name): Path<String>, asked: Asked| {
        objects::get(resource, registry, name, asked)
    });
    let one = match path {
        "label_views" => one,
        _ => one.delete(move |State(registry): State<Registry>, Path(name): Path<String>, asked: Asked| {
            objects::delete(resource, registry, name, asked)
        }),
    };
    let mut routes = vec![(format!("/{path}"), list), (format!("/{path}/{{name}}"), one)];
    if path != "permissions" {
        let all =
            get(move |State(registry): State<Registry>, asked: Asked| objects::list_all(resource, registry, asked));
        routes.push((format!("/{path}/all"), all));
    }
    routes
}

/// What browsers are told not to do.
async fn guarded(mut response: Response<Body>) -> Response<Body> {
    let headers =
        [("x-content-type-options", "nosniff"), ("x-xss-protection", "1; mode=block"), ("x-frame-options", "DENY")];
    for (name, value) in headers {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// `GET /version`
async fn version() -> Json<serde_json::Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

/// `POST /registry/refresh`
async fn refresh(State(registry): State<Registry>) -> Answer<()> {
    registry.snapshot(false).await?;
    Ok(())
}
