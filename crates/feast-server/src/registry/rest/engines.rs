//! `/compute_engines`, `/materialization_jobs` and `/monitoring/…`: what works on the features of a project.

use axum::Json;
use axum::extract::State;
use axum::routing::{MethodRouter, get, post};
use feast_core::{ObjectKind, RegistryObject};
use serde_json::{Value, json};

use super::super::Registry;
use super::super::read::Listing;
use super::asked::{Answer, Asked, Refusal};
use super::objects::object_json;

/// Which of Feast's classes an engine is.
const CLASSES: &[(&str, &str)] = &[
    ("local", "LocalComputeEngine"),
    ("snowflake.engine", "SnowflakeComputeEngine"),
    ("lambda", "LambdaComputeEngine"),
    ("k8s", "KubernetesComputeEngine"),
    ("spark.engine", "SparkComputeEngine"),
    ("ray.engine", "RayComputeEngine"),
    ("flink.engine", "FlinkComputeEngine"),
    ("spark_application", "SparkApplicationComputeEngine"),
    ("trino.engine", "TrinoComputeEngine"),
    ("trino", "TrinoComputeEngine"),
];

/// Items of a page where a request does not say.
const ITEMS: usize = 50;

/// What computes materializations, as the configuration of this server says; its options stay here, since they may hold
/// secrets.
fn engine_json(registry: &Registry) -> Value {
    let (name, _) = &registry.store.config().batch_engine;
    let known = CLASSES.iter().find(|(known, _)| known == name).map(|(_, class)| *class);
    let class = known.unwrap_or_else(|| name.rsplit('.').next().unwrap_or(name));
    json!({"engineType": name, "engineClass": class, "config": {"type": name}})
}

async fn views(registry: &Registry, project: &str, kind: ObjectKind, allow_cache: bool) -> Answer<Vec<Value>> {
    let listing = Listing { project: project.to_owned(), allow_cache, ..Listing::default() };
    let (views, _) = registry.list(kind, &listing, |_: &RegistryObject| true).await?;
    Ok(views.iter().map(object_json).collect::<feast_core::Result<_>>()?)
}

/// `GET /compute_engines`: the engine, and the views of a project that it computes.
pub(super) async fn of_project(State(registry): State<Registry>, asked: Asked) -> Answer {
    let (project, allow_cache) = (asked.required("project")?, asked.allow_cache()?);
    let mut infos = Vec::new();
    for (kind, name) in [(ObjectKind::FeatureView, "Batch"), (ObjectKind::StreamFeatureView, "Stream")] {
        for view in views(&registry, &project, kind, allow_cache).await? {
            let spec = &view["spec"];
            let own = spec.get("batchEngine").cloned().unwrap_or_default();
            let intervals = view["meta"].get("materializationIntervals").cloned().unwrap_or_else(|| json!([]));
            let last = intervals.as_array().and_then(|all| all.last()).map(|last| last["endTime"].clone());
            infos.push(json!({
                "name": spec["name"], "type": name, "online": spec["online"] == Value::Bool(true),
                "lastMaterialized": last, "hasOverride": !own.is_null(), "overrides": own,
                "materializationIntervals": intervals,
            }));
        }
    }
    let mut engine = engine_json(&registry);
    engine["featureViewCount"] = infos.len().into();
    engine["project"] = project.into();
    Ok(Json(json!({"engine": engine, "featureViews": infos})))
}

/// `GET /compute_engines/all`
pub(super) async fn of_all(State(registry): State<Registry>, asked: Asked) -> Answer {
    let allow_cache = asked.allow_cache()?;
    let (projects, _) = registry.projects(&Listing { allow_cache, ..Listing::default() }).await?;
    let mut engines = Vec::new();
    for project in projects.iter().map(RegistryObject::name) {
        let mut engine = engine_json(&registry);
        engine["project"] = project.into();
        engine["featureViewCount"] =
            views(&registry, project, ObjectKind::FeatureView, allow_cache).await?.len().into();
        engines.push(engine);
    }
    let (engines, pagination) = page(engines, &asked)?;
    Ok(Json(json!({"engines": engines, "pagination": pagination})))
}

/// `GET /materialization_jobs`: the recorded intervals of batch views, the newest first.
pub(super) async fn materializations(State(registry): State<Registry>, asked: Asked) -> Answer {
    let (project, allow_cache) = (asked.required("project")?, asked.allow_cache()?);
    let (status, of_view) = (asked.or_empty("status").to_uppercase(), asked.or_empty("feature_view"));
    let chosen = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
    let mut jobs = Vec::new();
    for view in views(&registry, &project, ObjectKind::FeatureView, allow_cache).await? {
        let name = view["spec"]["name"].as_str().unwrap_or_default();
        // What failed is not recorded.
        if !chosen(&of_view, name) || !chosen(&status, "SUCCEEDED") {
            continue;
        }
        let intervals = view["meta"]["materializationIntervals"].as_array();
        for (number, interval) in intervals.into_iter().flatten().enumerate() {
            jobs.push(json!({
                "id": format!("{name}-{number}"), "featureView": name, "status": "SUCCEEDED",
                "startTime": interval["startTime"], "endTime": interval["endTime"],
            }));
        }
    }
    let start = |job: &Value| job["startTime"].as_str().unwrap_or_default().to_owned();
    jobs.sort_by_key(|job| std::cmp::Reverse(start(job)));
    let (jobs, pagination) = page(jobs, &asked)?;
    Ok(Json(json!({"jobs": jobs, "pagination": pagination})))
}

fn page(items: Vec<Value>, asked: &Asked) -> Answer<(Vec<Value>, Value)> {
    let wanted = asked.pagination()?;
    let number = |wanted: i32, default: usize| usize::try_from(wanted).ok().filter(|n| *n > 0).unwrap_or(default);
    let (page, limit) = (number(wanted.page, 1), number(wanted.limit, ITEMS));
    let pagination = json!({"page": page, "limit": limit, "total": items.len()});
    Ok((items.into_iter().skip((page - 1).saturating_mul(limit)).take(limit).collect(), pagination))
}

/// `/monitoring/…`: known and refused, as by a server of Feast's that is not told to monitor.
pub(super) fn monitoring() -> Vec<(String, MethodRouter<Registry>)> {
    let asked = ["metrics/features", "metrics/feature_views", "metrics/feature_services", "metrics/baseline"];
    let asked = asked.into_iter().chain(["metrics/timeseries", "jobs/{job_id}"]);
    let computed = ["compute", "auto_compute", "compute/log", "auto_compute/log", "compute/transient"];
    let route = |path: &str| format!("/monitoring/{path}");
    let asked = asked.map(|path| (route(path), get(not_monitored)));
    asked.chain(computed.into_iter().map(|path| (route(path), post(not_monitored)))).collect()
}

async fn not_monitored(State(registry): State<Registry>) -> Answer {
    match registry.store.config().effective.get("data_quality_monitoring") {
        None | Some(Value::Null) => Err(Refusal::unavailable(
            "the quality of data is not monitored: feature_store.yaml has no section `data_quality_monitoring`",
        )),
        Some(_) => Err(Refusal::not_there("this registry server does not monitor the quality of data yet")),
    }
}
