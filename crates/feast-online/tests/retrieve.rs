//! Requests against a store in memory: order, statuses, names, ages, on-demand views and errors.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Float64Type, Int64Type};
use arrow::util::display::array_value_to_string;
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta};
use feast_core::{
    BatchFeatures, DataSource, DataSourceOptions, Entity, EntityKeyEncoder, Error, ErrorCode, FeatureSelection,
    FeatureService, FeatureView, FeatureViewKind, FeatureViewProjection, Field, OnDemandFeatures, OnDemandSource,
    OnlineRead, OnlineRows, OnlineStore, OnlineTable, OnlineWrite, Project, ProjectContents, RegistryObject, Result,
    RetrievalPlan, TableChange, Transformer, ValueType,
};
use feast_online::stores::memory::MemoryStore;
use feast_online::{
    EntityRows, Fallback, FieldStatus, OnlineFeatures, RetrieveOptions, TtlPolicy, online_rows, retrieve,
};

const NOON: i64 = 1_795_176_000_000_000;

fn view(name: &str, entity: Option<&str>, features: &[(&str, ValueType)]) -> FeatureView {
    let mut view = FeatureView::new(name, FeatureViewKind::Batch(BatchFeatures::default()));
    view.entities = vec![entity.unwrap_or("__dummy").to_owned()];
    view.entity_columns =
        entity.into_iter().map(|entity| Field::new(format!("{entity}_id"), ValueType::Int64)).collect();
    view.features = features.iter().map(|(name, value_type)| Field::new(*name, *value_type)).collect();
    view
}

/// Two views of drivers, one without entities, and one that is computed.
fn contents() -> ProjectContents {
    let mut contents = ProjectContents { project: Project::new("p"), ..ProjectContents::default() };
    contents.put(RegistryObject::Entity(Arc::new(Entity::new("driver", "driver_id", ValueType::Int64))));
    let mut stats = view("stats", Some("driver"), &[("rate", ValueType::Double), ("city", ValueType::String)]);
    stats.ttl = Some(TimeDelta::hours(1));
    let trips = view("trips", Some("driver"), &[("trips", ValueType::Int64)]);
    let weather = view("weather", None, &[("rain", ValueType::Double)]);
    let request = DataSource {
        name: "request".to_owned(),
        options: DataSourceOptions::Request { schema: vec![Field::new("val", ValueType::Int64)] },
        ..DataSource::default()
    };
    let source = FeatureViewProjection {
        feature_view_name: "stats".to_owned(),
        features: vec![Field::new("rate", ValueType::Double)],
        ..FeatureViewProjection::default()
    };
    let on_demand = OnDemandFeatures {
        sources: [
            ("request".to_owned(), OnDemandSource::Request(request)),
            ("stats".to_owned(), OnDemandSource::Projection(source)),
        ]
        .into(),
        ..OnDemandFeatures::default()
    };
    let mut plus = FeatureView::new("plus", FeatureViewKind::OnDemand(on_demand));
    plus.features = vec![Field::new("rate_plus", ValueType::Double)];
    for view in [stats, trips, weather, plus] {
        contents.put(RegistryObject::FeatureView(Arc::new(view)));
    }
    contents
}

fn plan(references: &[&str]) -> RetrievalPlan {
    let selection = FeatureSelection::References(references.iter().map(|text| (*text).to_owned()).collect());
    RetrievalPlan::resolve(&contents(), &selection, false).unwrap()
}

/// A store in memory that counts how often it is read.
#[derive(Debug, Default)]
struct Counting {
    store: MemoryStore,
    reads: AtomicUsize,
    /// Whether it forgets the last row.
    forgets: bool,
    /// A table that cannot be read.
    broken: Option<&'static str>,
    /// Whether it answers at all.
    stalls: bool,
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl OnlineStore for Counting {
    async fn read(&self, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if self.stalls {
            std::future::pending::<()>().await;
        }
        if reads.iter().any(|read| Some(read.wanted.table.view.as_str()) == self.broken) {
            return Err(Error::new(ErrorCode::FeatureViewNotFound, "the table is gone"));
        }
        let mut answers = self.store.read(reads).await?;
        for answer in answers.iter_mut().filter(|_| self.forgets) {
            answer.values = answer.values.slice(0, answer.values.num_rows() - 1);
            answer.event_timestamps = answer.event_timestamps.slice(0, answer.values.num_rows());
        }
        Ok(answers)
    }
    async fn write(&self, write: OnlineWrite<'_>) -> Result<()> {
        self.store.write(write).await
    }
    async fn update(&self, changes: &[TableChange]) -> Result<()> {
        self.store.update(changes).await
    }
    async fn check(&self) -> Result<()> {
        self.store.check().await
    }
    fn preferred_batch_rows(&self) -> usize {
        self.store.preferred_batch_rows()
    }
}

/// Drivers 1001 and 1002 (without a city), and rain.
async fn store() -> Counting {
    let store = Counting::default();
    let contents = contents();
    let driver: ArrayRef = Arc::new(Int64Array::from(vec![1001, 1002]));
    let at: ArrayRef = Arc::new(StringArray::from(vec!["2026-11-20T12:00:00Z", "2026-11-20T10:00:00.5Z"]));
    let batches = [
        (
            "stats",
            vec![
                ("driver_id", Arc::clone(&driver)),
                ("at", Arc::clone(&at)),
                ("rate", Arc::new(Float64Array::from(vec![0.3, 0.4])) as ArrayRef),
                ("city", Arc::new(StringArray::from(vec![Some("c"), None]))),
            ],
        ),
        (
            "trips",
            vec![("driver_id", driver), ("at", Arc::clone(&at)), ("trips", Arc::new(Int64Array::from(vec![30, 40])))],
        ),
        ("weather", vec![("at", at.slice(0, 1)), ("rain", Arc::new(Float64Array::from(vec![2.5])))]),
    ];
    for (view, columns) in batches {
        let table = OnlineTable::of("p", contents.feature_view(view).unwrap());
        store.update(&[TableChange::Ensure(table.clone())]).await.unwrap();
        let encoder = EntityKeyEncoder::new(&table.join_keys, 3).unwrap();
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let rows = online_rows(&table, &encoder, &batch, "at", None).unwrap();
        store.write(rows.as_write(&table)).await.unwrap();
    }
    store
}

async fn ask(plan: &RetrievalPlan, rows: &str, options: &RetrieveOptions) -> Result<OnlineFeatures> {
    let store = store().await;
    let rows: EntityRows = serde_json::from_str(rows).unwrap();
    let answer = retrieve(plan, &rows, &store, Some(&Plus), options).await;
    assert!(store.reads.load(Ordering::Relaxed) <= 1, "one read per request");
    answer
}

/// `name value value` per column, with a question mark where the status is not `PRESENT`.
async fn answer(plan: &RetrievalPlan, rows: &str) -> Vec<String> {
    show(&ask(plan, rows, &RetrieveOptions::default()).await.unwrap())
}

fn show(answer: &OnlineFeatures) -> Vec<String> {
    let column = |column: &feast_online::OnlineColumn| {
        assert_eq!(column.values.data_type(), &column.value_type.arrow_type());
        let values = (0..answer.n_rows).map(|row| {
            let text = match column.values.is_null(row) {
                true => "null".to_owned(),
                false => array_value_to_string(&column.values, row).unwrap(),
            };
            if column.statuses[row] == FieldStatus::Present { text } else { format!("{text}?") }
        });
        format!("{} {}", column.name, values.collect::<Vec<_>>().join(" "))
    };
    answer.columns.iter().map(column).collect()
}

/// Adds the request's `val` to the rate.
#[derive(Debug)]
struct Plus;

#[async_trait]
impl Transformer for Plus {
    async fn apply(&self, _: &FeatureView, input: RecordBatch) -> Result<RecordBatch> {
        let names: Vec<&str> = input.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["stats__rate", "rate", "val", "driver_id"]);
        let rate = input.column(1).as_primitive::<Float64Type>();
        let val = input.column(2).as_primitive::<Int64Type>();
        let sums: Float64Array = rate.iter().zip(val).map(|(rate, val)| Some(rate? + val? as f64)).collect();
        Ok(RecordBatch::try_from_iter([("rate_plus", Arc::new(sums) as ArrayRef)])?)
    }

    async fn infer(&self, view: &FeatureView, _: RecordBatch) -> Result<Vec<Field>> {
        Ok(view.features.clone())
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn rows_come_in_request_order() {
    let plan = plan(&["stats:city", "trips:trips", "stats:rate"]);
    let rows = r#"{"driver_id": ["1002", 9999, 1001.0, 1002], "other": [1, 2, 3, 4]}"#;
    assert_eq!(
        answer(&plan, rows).await,
        ["driver_id 1002 9999 1001 1002", "city null null? c null", "rate 0.4 null? 0.3 0.4", "trips 40 null? 30 40",]
    );
    let answer = ask(&plan, rows, &RetrieveOptions::default()).await.unwrap();
    let times =
        |column: usize| (0..4).map(|row| answer.columns[column].event_timestamp_micros(row)).collect::<Vec<_>>();
    let earlier = NOON - 7_199_500_000;
    assert_eq!(times(0), [0; 4], "entity columns have no time");
    assert_eq!(times(1), [earlier, 0, NOON, earlier]);
    assert_eq!(answer.columns[1].statuses[1], FieldStatus::NotFound);
    assert!(Arc::ptr_eq(&answer.columns[1].statuses, &answer.columns[2].statuses), "one view, one set of statuses");
}

#[tokio::test]
async fn the_entity_may_be_called_by_its_name() {
    let plan = plan(&["trips:trips"]);
    assert_eq!(answer(&plan, r#"{"driver": [1001]}"#).await, ["driver_id 1001", "trips 30"]);
    assert_eq!(answer(&plan, r#"{"driver_id": []}"#).await, ["driver_id ", "trips "]);
}

#[tokio::test]
async fn one_view_under_two_names() {
    let projection = |alias: &str, column: &str| FeatureViewProjection {
        feature_view_name: "trips".to_owned(),
        alias: alias.to_owned(),
        join_key_map: [("driver_id".to_owned(), column.to_owned())].into(),
        ..FeatureViewProjection::default()
    };
    let service = FeatureService {
        name: "s".to_owned(),
        projections: vec![projection("from", "from_id"), projection("to", "to_id")],
        ..FeatureService::default()
    };
    let plan = RetrievalPlan::resolve(&contents(), &FeatureSelection::Service(Arc::new(service)), true).unwrap();
    assert_eq!(
        answer(&plan, r#"{"to_id": [1002, 1001], "from_id": [1001, 7]}"#).await,
        ["to_id 1002 1001", "from_id 1001 7", "from__trips 30 null?", "to__trips 40 30"]
    );
}

#[tokio::test]
async fn views_without_entities() {
    assert_eq!(answer(&plan(&["weather:rain"]), "{}").await, ["rain 2.5"]);
    let with_key = answer(&plan(&["weather:rain"]), r#"{"driver_id": [1, 2]}"#).await;
    assert_eq!(with_key, ["driver_id 1 2", "rain 2.5 2.5"]);
    let both = plan(&["weather:rain", "trips:trips"]);
    assert_eq!(
        answer(&both, r#"{"driver_id": [1001, 7]}"#).await,
        ["driver_id 1001 7", "rain 2.5 2.5", "trips 30 null?"]
    );
}

#[tokio::test]
async fn old_values_follow_the_policy() {
    let plan = plan(&["stats:rate", "trips:trips"]);
    let rows = r#"{"driver_id": [1001, 1002, 1001]}"#;
    let with = async |ttl_policy: TtlPolicy| {
        let now = DateTime::from_timestamp_micros(NOON).unwrap();
        show(&ask(&plan, rows, &RetrieveOptions { now, ttl_policy, ..RetrieveOptions::default() }).await.unwrap())
    };
    let trips = "trips 30 40 30";
    assert_eq!(with(TtlPolicy::Ignore).await[1..], ["rate 0.3 0.4 0.3", trips]);
    assert_eq!(with(TtlPolicy::Status).await[1..], ["rate 0.3 0.4? 0.3", trips]);
    assert_eq!(with(TtlPolicy::Hide).await[1..], ["rate 0.3 null? 0.3", trips]);
}

#[tokio::test]
async fn what_a_plan_remembers_is_of_one_version_of_keys() {
    let plan = plan(&["trips:trips"]);
    let with = async |key_version: u8| {
        let options = RetrieveOptions { key_version, ..RetrieveOptions::default() };
        show(&ask(&plan, r#"{"driver_id": [1001]}"#, &options).await.unwrap()).remove(1)
    };
    // The rows were written with keys of version 3.
    assert_eq!([with(3).await, with(2).await, with(3).await], ["trips 30", "trips null?", "trips 30"]);
}

#[tokio::test]
async fn on_demand_views_are_computed() {
    let plan = plan(&["trips:trips", "plus:rate_plus"]);
    assert_eq!(
        answer(&plan, r#"{"driver_id": [1001, 7], "val": ["5", 1]}"#).await,
        ["driver_id 1001 7", "trips 30 null?", "rate_plus 5.3 null"]
    );
    let rows = serde_json::from_str(r#"{"driver_id": [1001], "val": [5]}"#).unwrap();
    let error = retrieve(&plan, &rows, &store().await, None, &RetrieveOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unsupported);
    assert_eq!(error.message(), "the on-demand views `plus` cannot be computed here, without Python");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_named() {
    let plan_of = plan;
    let plan = plan_of(&["trips:trips", "plus:rate_plus"]);
    let error = async |plan: &RetrievalPlan, rows: &str| {
        let error = ask(plan, rows, &RetrieveOptions::default()).await.unwrap_err();
        (error.code(), error.message().to_owned())
    };
    assert_eq!(
        error(&plan, r#"{"drivr_id": [1], "val": [1]}"#).await,
        (
            ErrorCode::MissingJoinKey,
            "the entity rows lack the join keys `driver_id`, the columns given are `drivr_id` and `val`".to_owned()
        )
    );
    assert_eq!(
        error(&plan, r#"{"driver_id": [1, null], "val": [1, 2]}"#).await,
        (ErrorCode::MissingJoinKey, "join key `driver_id` is null in row 1".to_owned())
    );
    assert_eq!(
        error(&plan, r#"{"driver_id": ["abc"], "val": [1]}"#).await,
        (
            ErrorCode::InvalidRequest,
            "column `driver_id` has `abc` in row 0, which is not a value of type INT64".to_owned()
        )
    );
    assert_eq!(
        error(&plan, r#"{"driver_id": [1]}"#).await,
        (
            ErrorCode::RequestDataNotFoundInEntityRows,
            "the entity rows lack the request data `val`, the columns given are `driver_id`".to_owned()
        )
    );
    let mut older = plan_of(&["trips:trips"]);
    older.views[0].is_stored = false;
    let (code, message) = error(&older, r#"{"driver_id": [1]}"#).await;
    assert_eq!(code, ErrorCode::InvalidRequest);
    assert!(message.contains("a version that is not the current one"), "{message}");
}

#[tokio::test]
async fn a_store_that_answers_too_little_is_found_out() {
    let store = Counting { forgets: true, ..store().await };
    let rows: EntityRows = serde_json::from_str(r#"{"driver_id": [1001, 1002]}"#).unwrap();
    let answer = retrieve(&plan(&["stats:rate"]), &rows, &store, None, &RetrieveOptions::default()).await;
    assert_eq!(answer.unwrap_err().code(), ErrorCode::Internal);
}

#[tokio::test]
async fn a_view_that_fails_becomes_null_only_where_that_is_wanted() {
    let store = Counting { broken: Some("trips"), ..store().await };
    let rows: EntityRows = serde_json::from_str(r#"{"driver_id": [1001, 1002]}"#).unwrap();
    let plan = plan(&["stats:rate", "trips:trips"]);
    let with = async |fallback: Fallback| {
        retrieve(&plan, &rows, &store, None, &RetrieveOptions { fallback, ..RetrieveOptions::default() }).await
    };
    assert_eq!(with(Fallback::None).await.unwrap_err().code(), ErrorCode::FeatureViewNotFound);
    let other = Fallback::Views(["stats".to_owned()].into());
    assert_eq!(with(other).await.unwrap_err().code(), ErrorCode::FeatureViewNotFound);
    for fallback in [Fallback::All, Fallback::Views(["trips".to_owned()].into())] {
        let answer = with(fallback).await.unwrap();
        assert_eq!(show(&answer)[1..], ["rate 0.3 0.4", "trips null? null?"]);
        assert_eq!(answer.columns[2].statuses[..], [FieldStatus::Invalid; 2]);
        assert_eq!((answer.failures.len(), answer.failures[0].view.as_str()), (1, "trips"));
        assert_eq!(answer.failures[0].message, "the table is gone");
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_left_at_the_deadline() {
    let store = Counting { stalls: true, ..store().await };
    let rows: EntityRows = serde_json::from_str(r#"{"driver_id": [1001]}"#).unwrap();
    let plan = plan(&["stats:rate", "trips:trips"]);
    let with = async |fallback: Fallback| {
        let deadline = Some(Instant::now() + Duration::from_millis(50));
        retrieve(&plan, &rows, &store, None, &RetrieveOptions { fallback, deadline, ..RetrieveOptions::default() })
            .await
    };
    assert_eq!(with(Fallback::None).await.unwrap_err().code(), ErrorCode::Timeout);
    assert_eq!(with(Fallback::Views(["stats".to_owned()].into())).await.unwrap_err().code(), ErrorCode::Timeout);
    let reads = store.reads.load(Ordering::Relaxed);
    let answer = with(Fallback::All).await.unwrap();
    assert_eq!(show(&answer)[1..], ["rate null?", "trips null?"]);
    assert_eq!(store.reads.load(Ordering::Relaxed), reads + 1, "a store that stalls is not asked again");
}
