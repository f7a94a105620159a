//! `/saved_datasets/…`: datasets that are made here, and the first rows of those that are there.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use feast_core::Tags;
use feast_proto::registry as wire;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::Registry;
use super::apply::form;
use super::asked::{Answer, Asked, Refusal};

/// Most rows of a dataset that are shown.
const MOST_ROWS: i32 = 100;

#[derive(Debug, Deserialize)]
struct CreateForm {
    name: String,
    project: String,
    feature_service_name: Option<String>,
    features: Option<Vec<String>>,
    entity_source_type: Option<String>,
    entity_source_path: Option<String>,
    entity_keys: Option<Vec<String>>,
    entity_values: Option<String>,
    start_date: Option<String>,
    end_date: Option<String>,
    extra_columns: Option<String>,
    storage_type: Option<String>,
    #[serde(default)]
    storage_path: String,
    tags: Option<Tags>,
    #[serde(default)]
    allow_overwrite: bool,
}

/// `POST /saved_datasets/create`: starts to make a dataset, and says by which job.
pub(super) async fn create(State(registry): State<Registry>, body: Bytes) -> Answer {
    let form: CreateForm = form(&body)?;
    let asked = wire::CreateDatasetFromRetrievalRequest {
        name: form.name,
        project: form.project,
        feature_service_name: form.feature_service_name.unwrap_or_default(),
        features: form.features.unwrap_or_default(),
        entity_source_type: form.entity_source_type.unwrap_or_default(),
        entity_source_path: form.entity_source_path.unwrap_or_default(),
        entity_keys: form.entity_keys.unwrap_or_default(),
        entity_values: form.entity_values.unwrap_or_default(),
        start_date: form.start_date.unwrap_or_default(),
        end_date: form.end_date.unwrap_or_default(),
        extra_columns: form.extra_columns.unwrap_or_default(),
        storage_type: form.storage_type.unwrap_or_default(),
        storage_path: form.storage_path,
        tags: form.tags.unwrap_or_default(),
        allow_overwrite: form.allow_overwrite,
    };
    let started = registry.create_dataset(asked).map_err(|error| Refusal::bad(error.to_string()))?;
    Ok(Json(json!({"job_id": started.job_id, "status": started.status})))
}

/// `GET /saved_datasets/data/{name}`: the first rows.
pub(super) async fn data(State(registry): State<Registry>, Path(name): Path<String>, asked: Asked) -> Answer {
    let project = asked.required("project")?;
    let limit = asked.number::<i32>("limit")?.unwrap_or_default();
    if asked.text("limit").is_some() && !(1..=MOST_ROWS).contains(&limit) {
        return Err(Refusal::invalid(format!("`limit` is {limit}, expected 1 to {MOST_ROWS}")));
    }
    let data = registry.dataset_data(wire::GetDatasetDataRequest { name, project, limit }).await?;
    let cell = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
    let row = |row: wire::TabularRow| {
        let cells = data.columns.iter().cloned().zip(row.values.into_iter().map(cell));
        Value::Object(cells.collect::<Map<_, _>>())
    };
    let rows: Vec<Value> = data.rows.into_iter().map(row).collect();
    Ok(Json(json!({
        "columns": data.columns, "rows": rows, "total_rows": data.total_rows, "sample_size": data.sample_size,
    })))
}

/// `GET /saved_datasets/jobs`
pub(super) async fn jobs(State(registry): State<Registry>, asked: Asked) -> Answer {
    let jobs = registry.datasets.list(&asked.or_empty("project"), &asked.or_empty("status"));
    Ok(Json(json!({"jobs": jobs.iter().map(job_json).collect::<Vec<_>>()})))
}

/// `GET /saved_datasets/jobs/{job_id}`
pub(super) async fn job(State(registry): State<Registry>, Path(id): Path<String>) -> Answer {
    Ok(Json(job_json(&registry.datasets.get(&id)?)))
}

fn job_json(job: &wire::GetDatasetJobStatusResponse) -> Value {
    json!({
        "job_id": job.job_id, "dataset_name": job.dataset_name, "project": job.project, "status": job.status,
        "created_at": job.created_at, "completed_at": job.completed_at, "error": job.error,
    })
}
