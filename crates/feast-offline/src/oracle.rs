//! A naive twin of the point-in-time rule, and random cases that both ways of reading must answer as it does.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::thread;

use arrow::array::{
    ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    TimestampMillisecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{
    DataType, Field as ArrowField, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMillisecondType,
};
use chrono::TimeDelta;
use feast_core::{
    BatchFeatures, DataSource, FeatureSelection, FeatureView, FeatureViewKind, Field, Project, ProjectContents,
    RegistryObject, RetrievalPlan, TimeToLive, ValueType,
};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::runtime::Runtime;

use crate::LatestRequest;
use crate::entity_rows::EntityRowsBuilder;
use crate::historical::{JoinOptions, OpenPlan};
use crate::latest::Latest;
use crate::parallel;
use crate::point_in_time::{FeatureRows, PointInTimeJoin, Rule};
use crate::sources::SourceTable;
use crate::timelines::Timelines;
use crate::timestamps::instant;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// A memory limit that nothing fits.
const TINY: usize = 1;

type Key = (Option<i64>, Option<&'static str>);

#[derive(Debug, Clone)]
struct FeatureRow {
    key: Key,
    event: Option<i64>,
    created: Option<i64>,
}

#[derive(Debug, Clone)]
struct Case {
    features: Vec<FeatureRow>,
    entities: Vec<(Key, Option<i64>)>,
    ttl: Option<i64>,
    has_created: bool,
    known_at_entity_time: bool,
    known_until: Option<i64>,
    rows_per_group: usize,
    n_files: usize,
    /// First and last event time of a materialization.
    window: (i64, i64),
}

/// The rule in its plainest form: the position of the chosen feature row.
fn chosen(case: &Case, same_key: impl Fn(&Key) -> bool, ttl: Option<i64>, time: Option<i64>) -> Option<i64> {
    let time = time?;
    let created = |row: &FeatureRow| if case.has_created { row.created } else { None };
    (0..)
        .zip(&case.features)
        .filter(|(_, row)| same_key(&row.key))
        .filter_map(|(position, row)| Some((row.event?, created(row), position)))
        .filter(|(event, _, _)| *event <= time && ttl.is_none_or(|ttl| *event >= time - ttl))
        .filter(|(_, created, _)| {
            !case.known_at_entity_time || !case.has_created || created.is_some_and(|created| created <= time)
        })
        .filter(|(event, created, _)| {
            case.known_until.is_none_or(|until| {
                *event <= until && (!case.has_created || created.is_some_and(|created| created <= until))
            })
        })
        .max()
        .map(|(_, _, position)| position)
}

fn expected(case: &Case) -> [Vec<Option<i64>>; 3] {
    let rows = |view: usize| {
        let answer = |((id, city), time): &(Key, Option<i64>)| match view {
            0 => chosen(case, |key| key.0 == *id && key.1 == *city && id.is_some() && city.is_some(), case.ttl, *time),
            1 => chosen(case, |key| key.0 == *id && id.is_some(), None, *time),
            _ => chosen(case, |_| true, case.ttl, *time),
        };
        case.entities.iter().map(answer).collect()
    };
    [rows(0), rows(1), rows(2)]
}

/// How large a case may be.
#[derive(Clone, Copy)]
struct Size {
    features: usize,
    entities: usize,
    ids: i64,
    rows_per_group: usize,
    n_files: usize,
}

/// Most defects show in a handful of rows, and those are read quickly.
const SMALL: Size = Size { features: 12, entities: 8, ids: 2, rows_per_group: 8, n_files: 2 };
/// Enough rows for several row groups in several files.
const LARGE: Size = Size { features: 120, entities: 60, ids: 6, rows_per_group: 40, n_files: 3 };

fn case(size: Size) -> impl Strategy<Value = Case> {
    let key = move || {
        let id = prop_oneof![8 => (0..size.ids).prop_map(Some), 1 => Just(None)];
        let city = prop_oneof![8 => prop_oneof![Just("a"), Just("bb")].prop_map(Some), 1 => Just(None)];
        (id, city)
    };
    let time = |range: std::ops::Range<i64>| prop_oneof![9 => range.prop_map(Some), 1 => Just(None)];
    let feature =
        (key(), time(0..12), time(0..12)).prop_map(|(key, event, created)| FeatureRow { key, event, created });
    (
        prop::collection::vec(feature, 0..=size.features),
        prop::collection::vec((key(), time(-2..16)), 0..=size.entities),
        prop::option::of(1..6i64),
        any::<bool>(),
        any::<bool>(),
        size.rows_per_group / 8..=size.rows_per_group,
        1..=size.n_files,
        (0..8i64, 0..8i64),
        prop_oneof![3 => Just(None), 1 => (0..14i64).prop_map(Some)],
    )
        .prop_map(
            |(features, entities, ttl, has_created, known_at_entity_time, rows_per_group, n_files, window, until)| {
                Case {
                    features,
                    entities,
                    ttl,
                    has_created,
                    known_at_entity_time,
                    known_until: until,
                    rows_per_group,
                    n_files,
                    window: (window.0, window.0 + window.1),
                }
            },
        )
}

fn millis(times: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(times.map(|time| time.map(|time| time * 1000)).collect::<TimestampMillisecondArray>())
}

/// The feature rows as one Parquet file, or several in a directory, in small row groups.
fn write_features(case: &Case, folder: &Path) -> DataSource {
    let schema = Arc::new(Schema::new(vec![
        ArrowField::new("id", DataType::Int32, true),
        ArrowField::new("city", DataType::Utf8, true),
        ArrowField::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        ArrowField::new("written", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        ArrowField::new("position", DataType::Int32, true),
    ]));
    let rows = &case.features;
    let batch = RecordBatch::try_new(
        Arc::clone(&schema),
        vec![
            Arc::new(rows.iter().map(|row| row.key.0.map(|id| id as i32)).collect::<Int32Array>()),
            Arc::new(rows.iter().map(|row| row.key.1).collect::<StringArray>()),
            millis(rows.iter().map(|row| row.event)),
            millis(rows.iter().map(|row| row.created)),
            Arc::new(Int32Array::from_iter_values(0..rows.len() as i32)),
        ],
    )
    .unwrap();
    // Cases share a folder: files are written over, and directories told apart by how many files they have.
    let rows_folder = format!("rows-{}", case.n_files);
    fs::create_dir_all(folder.join(&rows_folder)).unwrap();
    let per_file = rows.len().div_ceil(case.n_files).max(1);
    for file in 0..case.n_files {
        let start = (file * per_file).min(rows.len());
        let part = batch.slice(start, per_file.min(rows.len() - start));
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(case.rows_per_group)).build();
        let path = folder.join(&rows_folder).join(format!("part-{file}.parquet"));
        let mut writer =
            ArrowWriter::try_new(File::create(path).unwrap(), Arc::clone(&schema), Some(properties)).unwrap();
        writer.write(&part).unwrap();
        writer.close().unwrap();
    }
    let path = if case.n_files == 1 { "rows-1/part-0.parquet" } else { rows_folder.as_str() };
    let mut source = DataSource::file("rows", path, "at");
    if case.has_created {
        "written".clone_into(&mut source.created_timestamp_column);
    }
    source
}

fn view(name: &str, source: &DataSource, keys: &[(&str, ValueType)], ttl: Option<i64>) -> Arc<FeatureView> {
    let batch = BatchFeatures { batch_source: Some(source.clone()), ..BatchFeatures::default() };
    let mut view = FeatureView::new(name, FeatureViewKind::Batch(batch));
    view.ttl = ttl.map(TimeDelta::seconds);
    view.entities = keys.iter().map(|(key, _)| (*key).to_owned()).collect();
    view.entity_columns = keys.iter().map(|(key, value_type)| Field::new(*key, *value_type)).collect();
    view.features = vec![Field::new("position", ValueType::Int64)];
    Arc::new(view)
}

const ID: (&str, ValueType) = ("id", ValueType::Int64);
const CITY: (&str, ValueType) = ("city", ValueType::String);

fn plan(case: &Case, source: &DataSource) -> RetrievalPlan {
    let mut contents = ProjectContents { project: Project::new("p"), ..ProjectContents::default() };
    contents.put(RegistryObject::FeatureView(view("both", source, &[ID, CITY], case.ttl)));
    contents.put(RegistryObject::FeatureView(view("one", source, &[ID], None)));
    contents.put(RegistryObject::FeatureView(view("none", source, &[], case.ttl)));
    let references = ["both:position", "one:position", "none:position"].map(str::to_owned).to_vec();
    RetrievalPlan::resolve(&contents, &FeatureSelection::References(references), true).unwrap()
}

fn entity_rows(case: &Case) -> (SchemaRef, Vec<RecordBatch>) {
    let schema = Arc::new(Schema::new(vec![
        ArrowField::new("city", DataType::LargeUtf8, true),
        ArrowField::new("id", DataType::Int64, true),
        ArrowField::new("event_timestamp", DataType::Timestamp(TimeUnit::Millisecond, Some("+02:00".into())), true),
        ArrowField::new("row", DataType::Int64, true),
    ]));
    let rows = &case.entities;
    let times = millis(rows.iter().map(|(_, time)| *time));
    let batch = RecordBatch::try_new(
        Arc::clone(&schema),
        vec![
            Arc::new(rows.iter().map(|((_, city), _)| *city).collect::<arrow::array::LargeStringArray>()),
            Arc::new(rows.iter().map(|((id, _), _)| *id).collect::<Int64Array>()),
            Arc::new(times.as_primitive::<TimestampMillisecondType>().clone().with_timezone("+02:00")),
            Arc::new(Int64Array::from_iter_values(0..rows.len() as i64)),
        ],
    )
    .unwrap();
    let middle = rows.len() / 2;
    (schema, vec![batch.slice(0, middle), batch.slice(middle, rows.len() - middle)])
}

fn historical(case: &Case, source: &DataSource, folder: &Path, streamed: bool, memory: usize) -> [Vec<Option<i64>>; 3] {
    let mut open = OpenPlan::new(Arc::new(plan(case, source)), folder, None).unwrap();
    if streamed {
        open = open.streamed();
    }
    let (schema, batches) = entity_rows(case);
    let mut entity = EntityRowsBuilder::new(Arc::clone(&schema), memory).unwrap();
    batches.iter().for_each(|batch| entity.push(batch.clone()).unwrap());
    let options = JoinOptions {
        known_at_entity_time: case.known_at_entity_time,
        known_until: case.known_until.map(|until| until * 1_000_000),
        memory,
    };
    let answer = RUNTIME.block_on(async {
        let stream = open.with_entity_rows(entity.finish().unwrap(), options).unwrap().start();
        let schema = Arc::clone(stream.batches.schema());
        concat_batches(&schema, &stream.batches.collect().await.unwrap()).unwrap()
    });
    let given = concat_batches(&schema, &batches).unwrap();
    assert_eq!(answer.columns()[..4], given.columns()[..], "entity columns pass through");
    [4, 5, 6].map(|column| answer.column(column).as_primitive::<Int64Type>().iter().collect())
}

type LatestRows = BTreeMap<Key, i64>;

fn latest(case: &Case, source: &DataSource, folder: &Path, streamed: bool, memory: usize) -> LatestRows {
    let request = LatestRequest {
        view: view("both", source, &[ID, CITY], None),
        start: instant(case.window.0 * 1_000_000).unwrap(),
        end: instant(case.window.1 * 1_000_000).unwrap(),
    };
    let open = || SourceTable::open(source, folder).map(|table| if streamed { table.streamed() } else { table });
    let batches =
        RUNTIME.block_on(async { Latest::new(request, memory, open).unwrap().start().collect().await }).unwrap();
    let mut rows = LatestRows::new();
    for batch in &batches {
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let positions = batch.column(2).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let city = if batch.column(1).as_string::<i32>().value(row) == "a" { "a" } else { "bb" };
            assert_eq!(rows.insert((Some(ids.value(row)), Some(city)), positions.value(row)), None, "a key came twice");
        }
    }
    rows
}

fn expected_latest(case: &Case) -> LatestRows {
    let (start, end) = case.window;
    let mut best: BTreeMap<Key, (i64, Option<i64>, i64)> = BTreeMap::new();
    for (position, row) in (0..).zip(&case.features) {
        let Some(event) = row.event.filter(|event| (start..=end).contains(event)) else { continue };
        if row.key.0.is_some() && row.key.1.is_some() {
            let offer = (event, row.created.filter(|_| case.has_created), position);
            let slot = best.entry(row.key).or_insert(offer);
            *slot = (*slot).max(offer);
        }
    }
    best.into_iter().map(|(key, (_, _, position))| (key, position)).collect()
}

/// Checks random cases on two threads: a case waits for files much of its time.
fn check_cases(size: Size, cases: u32, check: impl Fn(&Case, &Path) -> Result<(), TestCaseError> + Sync) {
    let check = &check;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(move || {
                let folder = tempfile::tempdir().unwrap();
                let config =
                    ProptestConfig { cases: cases / 2, source_file: Some(file!()), ..ProptestConfig::default() };
                TestRunner::new(config).run(&case(size), |case| check(&case, folder.path())).unwrap();
            });
        }
    });
}

fn check_files(case: &Case, folder: &Path) -> Result<(), TestCaseError> {
    let source = write_features(case, folder);
    let answer = expected(case);
    for memory in [usize::MAX, TINY] {
        prop_assert_eq!(&historical(case, &source, folder, false, memory), &answer, "two passes, {} bytes", memory);
        prop_assert_eq!(&historical(case, &source, folder, true, memory), &answer, "one pass, {} bytes", memory);
    }
    let answer = expected_latest(case);
    for memory in [usize::MAX, TINY] {
        prop_assert_eq!(&latest(case, &source, folder, false, memory), &answer, "latest, two passes, {} bytes", memory);
        prop_assert_eq!(&latest(case, &source, folder, true, memory), &answer, "latest, one pass, {} bytes", memory);
    }
    Ok(())
}

#[test]
fn both_ways_of_reading_agree_with_the_plain_rule() {
    check_cases(SMALL, 1200, check_files);
}

#[test]
fn both_ways_of_reading_agree_over_row_groups_and_files() {
    check_cases(LARGE, 200, check_files);
}

/// The join alone, its feature rows offered from the last to the first, by several threads at once.
fn joined_backwards(case: &Case, threads: usize) -> Vec<Option<i64>> {
    let columns = |keys: &[Key]| -> Vec<ArrayRef> {
        let ids: Int64Array = keys.iter().map(|key| key.0).collect();
        let cities: StringArray = keys.iter().map(|key| key.1).collect();
        vec![Arc::new(ids), Arc::new(cities)]
    };
    let micros = |times: Vec<Option<i64>>| -> TimestampMicrosecondArray {
        times.into_iter().map(|time| time.map(|time| time * 1_000_000)).collect()
    };
    let entity_keys: Vec<Key> = case.entities.iter().map(|(key, _)| *key).collect();
    let entity_times = micros(case.entities.iter().map(|(_, time)| *time).collect());
    let types = [DataType::Int64, DataType::Utf8];
    let batches = [(entity_keys.len(), columns(&entity_keys))];
    let timelines = Arc::new(Timelines::new(&types, &batches, &[entity_times]).unwrap());
    let ttl = TimeToLive::new(case.ttl.map(TimeDelta::seconds));
    let rule = Rule {
        ttl,
        known_at_entity_time: case.known_at_entity_time,
        known_until: case.known_until.map(|until| until * 1_000_000),
    };
    let join = PointInTimeJoin::new(timelines, rule, case.has_created);
    let chunks: Vec<(usize, &[FeatureRow])> = case.features.chunks(case.rows_per_group).enumerate().rev().collect();
    parallel::for_each(threads, chunks.len(), &|chunk| {
        let (chunk, rows) = chunks[chunk];
        let keys: Vec<Key> = rows.iter().map(|row| row.key).collect();
        let event = micros(rows.iter().map(|row| row.event).collect());
        let created = micros(rows.iter().map(|row| row.created).collect());
        let first_row = (chunk * case.rows_per_group) as u64;
        let rows = FeatureRows { first_row, event: &event, created: case.has_created.then_some(&created) };
        join.offer(&columns(&keys), rows)
    })
    .unwrap();
    let chosen = join.finish(threads).unwrap();
    let mut rows = vec![None; chosen.n_entity_rows()];
    chosen.iter().for_each(|(entity, row)| rows[entity as usize] = Some(row as i64));
    rows
}

#[test]
fn the_order_of_offers_does_not_matter() {
    check_cases(LARGE, 4000, |case, _| {
        let [both, ..] = expected(case);
        prop_assert_eq!(joined_backwards(case, 2), both);
        Ok(())
    });
}

#[test]
fn threads_that_offer_at_once_lose_nothing() {
    // One key with few slots and with many, offers that beat each other in every order, many of them equal but for their
    // position.
    let key = (Some(1), Some("a"));
    let feature = |row: i64| FeatureRow { key, event: Some(row * 7919 % 997), created: Some(row * 104_729 % 13) };
    let case = |n_features: i64, n_entities: i64| Case {
        features: (0..n_features).map(feature).collect(),
        entities: (0..n_entities).map(|row| (key, Some(row * 997 / n_entities))).collect(),
        ttl: None,
        has_created: true,
        known_at_entity_time: false,
        known_until: None,
        rows_per_group: 1000,
        n_files: 1,
        window: (0, 0),
    };
    for case in [case(100_000, 10), case(5000, 2000)] {
        let [both, ..] = expected(&case);
        for _ in 0..10 {
            assert_eq!(joined_backwards(&case, 8), both);
        }
    }
}

#[test]
fn rows_that_lost_are_dropped_while_a_source_streams_by() {
    // More rows than are kept, all of one key, each later than the one before.
    let features: Vec<FeatureRow> =
        (0..200_000).map(|at| FeatureRow { key: (Some(1), Some("a")), event: Some(at), created: None }).collect();
    let case = Case {
        entities: vec![((Some(1), Some("a")), Some(500_000)), ((Some(1), Some("a")), Some(1000))],
        features,
        ttl: None,
        has_created: false,
        known_at_entity_time: false,
        known_until: None,
        rows_per_group: 50_000,
        n_files: 1,
        window: (0, 1_000_000),
    };
    let folder = tempfile::tempdir().unwrap();
    let source = write_features(&case, folder.path());
    let answer = vec![Some(199_999), Some(1000)];
    let found = historical(&case, &source, folder.path(), true, usize::MAX);
    assert_eq!(found, [answer.clone(), answer.clone(), answer]);
    let rows = latest(&case, &source, folder.path(), true, usize::MAX);
    assert_eq!(rows, LatestRows::from([((Some(1), Some("a")), 199_999)]));
}
