//! Datasets that are made where the registry is served, each by a job in the background, and the first rows of those that
//! are there.
//!
//! The jobs are known to this process only, as in Feast: after a restart nobody knows how they went. What they made is in
//! the registry.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::json::WriterBuilder;
use arrow::json::writer::JsonArray;
use chrono::{SecondsFormat, Utc};
use feast::{DatasetFromHistory, DatasetRows};
use feast_core::{Error, ErrorCode, FeatureSelection, Result, SavedDataset, SavedDatasetStorage, Timestamp};
use feast_proto::registry as wire;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::Registry;
use super::rest::storage_of;
use crate::timestamp::parse_timestamp;

/// How many jobs run at the same time, and how many are remembered.
const RUNNING: usize = 2;
const REMEMBERED: usize = 1000;

/// How many rows are shown where a request does not say.
const ROWS: usize = 10;

/// The jobs of this process.
#[derive(Debug, Clone)]
pub(super) struct DatasetJobs {
    jobs: Arc<Mutex<VecDeque<Job>>>,
    running: Arc<Semaphore>,
}

impl Default for DatasetJobs {
    fn default() -> Self {
        Self { jobs: Arc::default(), running: Arc::new(Semaphore::new(RUNNING)) }
    }
}

#[derive(Debug, Clone)]
struct Job {
    id: String,
    dataset: String,
    project: String,
    status: &'static str,
    created: Timestamp,
    completed: Option<Timestamp>,
    error: String,
}

impl Job {
    fn message(&self) -> wire::GetDatasetJobStatusResponse {
        let text = |time: Timestamp| time.to_rfc3339_opts(SecondsFormat::Micros, false);
        wire::GetDatasetJobStatusResponse {
            job_id: self.id.clone(),
            dataset_name: self.dataset.clone(),
            project: self.project.clone(),
            status: self.status.to_owned(),
            created_at: text(self.created),
            completed_at: self.completed.map(text).unwrap_or_default(),
            error: self.error.clone(),
        }
    }
}

impl DatasetJobs {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, dataset: &str, project: &str) -> String {
        let id = Uuid::new_v4().to_string();
        let mut jobs = self.lock();
        if jobs.len() >= REMEMBERED {
            jobs.pop_back();
        }
        jobs.push_front(Job {
            id: id.clone(),
            dataset: dataset.to_owned(),
            project: project.to_owned(),
            status: "pending",
            created: Utc::now(),
            completed: None,
            error: String::new(),
        });
        id
    }

    fn update(&self, id: &str, change: impl FnOnce(&mut Job)) {
        if let Some(job) = self.lock().iter_mut().find(|job| job.id == id) {
            change(job);
        }
    }

    /// The jobs of a project, or of all, with a status, or with any; the newest first.
    pub(super) fn list(&self, project: &str, status: &str) -> Vec<wire::GetDatasetJobStatusResponse> {
        let chosen = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        let jobs = self.lock();
        let jobs = jobs.iter().filter(|job| chosen(project, &job.project) && chosen(status, job.status));
        jobs.map(Job::message).collect()
    }

    pub(super) fn get(&self, id: &str) -> Result<wire::GetDatasetJobStatusResponse> {
        let found = self.lock().iter().find(|job| job.id == id).map(Job::message);
        found.ok_or_else(|| {
            Error::new(ErrorCode::SavedDatasetNotFound, format!("there is no dataset job `{id}` in this server"))
                .with_hint("jobs are forgotten when the server is started again")
        })
    }
}

impl Registry {
    /// Starts to make a dataset.
    ///
    /// # Errors
    /// What is wrong with the request; what goes wrong later is told by the job.
    pub(super) fn create_dataset(
        &self,
        asked: wire::CreateDatasetFromRetrievalRequest,
    ) -> Result<wire::CreateDatasetFromRetrievalResponse> {
        let (name, project) = (asked.name.trim().to_owned(), asked.project.trim().to_owned());
        for (what, text) in [("name", &name), ("project", &project), ("storage_path", &asked.storage_path)] {
            if text.trim().is_empty() {
                return Err(Error::invalid_request(format!("`{what}` is empty, which a dataset needs")));
            }
        }
        let rows = match asked.entity_source_type.as_str() {
            "" | "inline" => DatasetRows::Given(inline_rows(
                &asked.entity_keys,
                &asked.entity_values,
                &asked.start_date,
                &asked.end_date,
            )?),
            _ if asked.entity_source_path.is_empty() => {
                return Err(Error::invalid_request("`entity_source_path` is empty, which entity rows in a file need"));
            }
            _ => DatasetRows::File(asked.entity_source_path),
        };
        let selection = match (asked.feature_service_name.is_empty(), asked.features.is_empty()) {
            (false, _) => FeatureSelection::ServiceName(asked.feature_service_name),
            (true, false) => FeatureSelection::References(asked.features),
            (true, true) => {
                return Err(Error::invalid_request(
                    "neither `feature_service_name` nor `features` says which features",
                ));
            }
        };
        let request = DatasetFromHistory {
            dataset: SavedDataset {
                name: name.clone(),
                storage: SavedDatasetStorage(storage_of(&asked.storage_type, asked.storage_path.trim(), None)?),
                tags: asked.tags,
                ..SavedDataset::default()
            },
            selection,
            rows,
            constants: constants(&asked.extra_columns),
            allow_overwrite: asked.allow_overwrite,
        };
        let job_id = self.datasets.add(&name, &project);
        let (jobs, id, store) = (self.datasets.clone(), job_id.clone(), self.store.of_project(&project));
        tokio::spawn(async move {
            // Nobody closes the semaphore.
            let _running = jobs.running.acquire().await;
            jobs.update(&id, |job| job.status = "running");
            let made = Box::pin(store.create_dataset_from_history(request)).await;
            if let Err(error) = &made {
                tracing::warn!(dataset = name, project, %error, "a dataset could not be made");
            }
            jobs.update(&id, |job| {
                job.status = if made.is_ok() { "completed" } else { "failed" };
                job.completed = Some(Utc::now());
                job.error = made.err().map(|error| error.to_string()).unwrap_or_default();
            });
        });
        Ok(wire::CreateDatasetFromRetrievalResponse { job_id, status: "pending".to_owned() })
    }

    /// The first rows of a dataset, cell by cell as JSON.
    pub(super) async fn dataset_data(
        &self,
        asked: wire::GetDatasetDataRequest,
    ) -> Result<wire::GetDatasetDataResponse> {
        let store = match asked.project.as_str() {
            "" => self.store.clone(),
            project => self.store.of_project(project),
        };
        let limit = usize::try_from(asked.limit).ok().filter(|limit| *limit > 0).unwrap_or(ROWS);
        let head = Box::pin(store.head_of_dataset(&asked.name, limit)).await?;
        let n_rows: usize = head.iter().map(RecordBatch::num_rows).sum();
        if n_rows == 0 {
            return Ok(wire::GetDatasetDataResponse::default());
        }
        let columns: Vec<String> = head
            .iter()
            .take(1)
            .flat_map(|batch| batch.schema().fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>())
            .collect();
        let row = |mut row: Map<String, Value>| wire::TabularRow {
            values: columns.iter().map(|name| row.remove(name).unwrap_or_default().to_string()).collect(),
        };
        let rows = json_rows(&head)?.into_iter().map(row).collect();
        let n_rows = i32::try_from(n_rows).unwrap_or(i32::MAX);
        Ok(wire::GetDatasetDataResponse { rows, columns, total_rows: n_rows, sample_size: n_rows })
    }
}

fn json_rows(batches: &[RecordBatch]) -> Result<Vec<Map<String, Value>>> {
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
    writer.write_batches(&batches.iter().collect::<Vec<_>>())?;
    writer.finish()?;
    serde_json::from_slice(&writer.into_inner())
        .map_err(|error| Error::internal("the rows of a dataset are no JSON").with_source(error))
}

/// Entity rows as a form has them: values of one key separated by commas or lines, or one line per row with a value of
/// each key. Their times are spread evenly from the start to the end.
fn inline_rows(keys: &[String], values: &str, start: &str, end: &str) -> Result<RecordBatch> {
    let parts = |text: &str| text.split(',').map(|part| part.trim().to_owned()).collect::<Vec<_>>();
    let lines = values.lines().map(str::trim).filter(|line| !line.is_empty());
    let rows: Vec<Vec<String>> = match keys {
        [] => Vec::new(),
        [_] => lines.flat_map(parts).filter(|value| !value.is_empty()).map(|value| vec![value]).collect(),
        _ => lines.map(parts).collect(),
    };
    if rows.is_empty() {
        return Err(Error::invalid_request("`entity_keys` and `entity_values` make no entity row")
            .with_hint("name the keys, and give their values separated by commas, one line per row"));
    }
    let mut columns: Vec<(&str, ArrayRef)> = keys
        .iter()
        .enumerate()
        .map(|(at, key)| {
            (key.as_str(), typed(&rows.iter().map(|row| row.get(at).map(String::as_str)).collect::<Vec<_>>()))
        })
        .collect();
    columns.push(("event_timestamp", times(rows.len(), start, end)?));
    Ok(RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))?)
}

/// Whole numbers, numbers or texts, whichever all values are.
fn typed(values: &[Option<&str>]) -> ArrayRef {
    fn all<T: std::str::FromStr>(values: &[Option<&str>]) -> Option<Vec<Option<T>>> {
        values.iter().map(|value| value.map(str::parse).transpose().ok()).collect()
    }
    if let Some(values) = all::<i64>(values) {
        return Arc::new(Int64Array::from(values));
    }
    match all::<f64>(values) {
        Some(values) => Arc::new(Float64Array::from(values)),
        None => Arc::new(StringArray::from(values.to_vec())),
    }
}

fn times(n_rows: usize, start: &str, end: &str) -> Result<ArrayRef> {
    let micros = |field: &str, text: &str| parse_timestamp(field, text).map(|time| time.timestamp_micros());
    let end_micros = match end {
        "" => Utc::now().timestamp_micros(),
        end => micros("end_date", end)?,
    };
    let start_micros = match (start, end) {
        ("", _) | (_, "") => end_micros,
        (start, _) => micros("start_date", start)?,
    };
    let span = i128::from(end_micros) - i128::from(start_micros);
    let steps = n_rows.saturating_sub(1) as i128;
    let at = |row: usize| match steps {
        0 => end_micros,
        steps => start_micros.saturating_add((span * row as i128 / steps) as i64),
    };
    Ok(Arc::new(TimestampMicrosecondArray::from_iter_values((0..n_rows).map(at)).with_timezone("UTC")))
}

/// Lines of `name=value`.
fn constants(text: &str) -> Vec<(String, ArrayRef)> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let pairs = pairs.map(|(name, value)| (name.trim(), value.trim())).filter(|(name, _)| !name.is_empty());
    pairs.map(|(name, value)| (name.to_owned(), typed(&[Some(value)]))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn told(keys: &[&str], values: &str, start: &str, end: &str) -> Vec<String> {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let rows = json_rows(&[inline_rows(&keys, values, start, end).unwrap()]).unwrap();
        rows.into_iter().map(|row| Value::from(row).to_string()).collect()
    }

    #[test]
    fn rows_of_forms_are_typed_and_spread_over_the_time() {
        assert_eq!(
            told(&["id"], "1, 2\n3", "2026-01-01", "2026-01-03"),
            [
                r#"{"id":1,"event_timestamp":"2026-01-01T00:00:00Z"}"#,
                r#"{"id":2,"event_timestamp":"2026-01-02T00:00:00Z"}"#,
                r#"{"id":3,"event_timestamp":"2026-01-03T00:00:00Z"}"#,
            ]
        );
        assert_eq!(
            told(&["id", "zip"], "1.5,a\n2", "", "2026-01-03"),
            [
                r#"{"id":1.5,"zip":"a","event_timestamp":"2026-01-03T00:00:00Z"}"#,
                r#"{"id":2.0,"zip":null,"event_timestamp":"2026-01-03T00:00:00Z"}"#,
            ]
        );
        assert_eq!(constants("a = 1\nnonsense\n=2\nb=x=y").len(), 2);
        for (keys, values) in [(&[][..], "1"), (&["id".to_owned()][..], " ,\n")] {
            assert!(inline_rows(keys, values, "", "").is_err());
        }
        assert!(inline_rows(&["id".to_owned()], "1", "yesterday", "2026-01-01").is_err());
    }
}
