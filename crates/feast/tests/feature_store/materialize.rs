//! Materialization by processes that are killed, that work at the same time, and that share the work: what is served in
//! the end is what one run without trouble would serve.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use chrono::{DateTime, Utc};
use feast::{
    ApplyOptions, Definitions, Event, FeatureStore, MaterializeReport, MaterializeRequest, Observer, OnlineRequest,
    RepoConfig, Window,
};
use feast_core::{
    BatchFeatures, DataSource, Entity, FeatureSelection, FeatureView, FeatureViewKind, FeatureViewMeta, Field,
    Interval, Project, ProjectContents, RegistryObject, Shard, ValueType,
};
use feast_offline::{BatchStream, WriteOptions};
use feast_online::{EntityColumn, EntityRows, EntityValue};
use feast_testing::services::redis::RedisServer;
use serde_json::{Value, json};

const DRIVERS: i64 = 1_500;
const VIEWS: [&str; 2] = ["stats", "more_stats"];

/// What a child process is to do, in its working directory.
const TASK: &str = "task.json";

/// The configuration of a repository, in its folder.
const CONFIGURATION: &str = "configuration.yaml";

/// Small chunks, so that there are many moments to be killed at.
const SMALL_CHUNKS: i64 = 60;

fn configuration(online_store: &str, chunk: i64) -> String {
    format!(
        "project: proj\nregistry: data/registry.db\nonline_store:\n{online_store}\
         materialization:\n  online_write_batch_size: {chunk}\n"
    )
}

fn on_sqlite() -> String {
    configuration("  type: sqlite\n", SMALL_CHUNKS)
}

/// A generator of numbers below a bound; the seed is part of every message.
struct Random(u64);

impl Random {
    fn new() -> Self {
        use std::hash::{BuildHasher, Hasher};
        Self(std::hash::RandomState::new().build_hasher().finish() | 1)
    }

    fn below(&mut self, bound: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as i64 % bound
    }
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn definitions() -> Definitions {
    let mut contents = ProjectContents { project: Project::new("proj"), ..ProjectContents::default() };
    contents.put(RegistryObject::Entity(Arc::new(Entity::new("driver", "driver_id", ValueType::Int64))));
    let source = DataSource::file("rows", "rows.parquet", "event_timestamp");
    contents.put(RegistryObject::DataSource(Arc::new(source.clone())));
    for name in VIEWS {
        let kind = BatchFeatures { batch_source: Some(source.clone()), ..BatchFeatures::default() };
        let mut view = FeatureView::new(name, FeatureViewKind::Batch(kind));
        view.entities = vec!["driver".to_owned()];
        view.features = ["one", "two"].map(|name| Field::new(name, ValueType::Int64)).to_vec();
        contents.put(RegistryObject::FeatureView(Arc::new(view)));
    }
    Definitions { contents, ..Definitions::default() }
}

fn open(folder: &Path) -> FeatureStore {
    let text = std::fs::read_to_string(folder.join(CONFIGURATION)).unwrap();
    FeatureStore::open(RepoConfig::parse_with(&text, folder, &|_| None).unwrap()).unwrap()
}

/// The rows of the source: driver, time in seconds, value.
#[derive(Default)]
struct Rows(Vec<(i64, i64, i64)>);

impl Rows {
    /// Adds about one row per driver with a time in a span.
    fn add(&mut self, random: &mut Random, after: i64, until: i64) {
        for _ in 0..DRIVERS {
            let row = (random.below(DRIVERS), after + 1 + random.below(until - after), random.below(1 << 30));
            // Two rows of a driver at the same time would tie: the file decides, and the map below does not.
            if !self.0.iter().rev().take(2 * DRIVERS as usize).any(|known| (known.0, known.1) == (row.0, row.1)) {
                self.0.push(row);
            }
        }
    }

    async fn save(&self, store: &FeatureStore) {
        let column = |pick: fn(&(i64, i64, i64)) -> i64| -> Vec<i64> { self.0.iter().map(pick).collect() };
        let int64 = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
        let times = column(|row| row.1 * 1_000_000);
        let batch = RecordBatch::try_from_iter([
            ("driver_id", int64(column(|row| row.0))),
            ("event_timestamp", Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")) as ArrayRef),
            ("one", int64(column(|row| row.2))),
            ("two", int64(column(|row| -row.2))),
        ])
        .unwrap();
        let stream = BatchStream::from_batches(batch.schema(), vec![batch]);
        let options = WriteOptions { overwrite: true, ..WriteOptions::default() };
        store.offline_store().write_dataset("rows.parquet", stream, options).await.unwrap();
    }

    /// Time and value of the newest row of each driver in a span: the rule, said naively.
    fn newest(&self, start: i64, end: i64) -> BTreeMap<i64, (i64, i64)> {
        let mut newest = BTreeMap::new();
        for (driver, time, value) in self.0.iter().filter(|row| (start..=end).contains(&row.1)) {
            let known = newest.entry(*driver).or_insert((*time, *value));
            *known = (*known).max((*time, *value));
        }
        newest
    }
}

/// What is served of each driver; both features of a row belong together.
async fn served(store: &FeatureStore, view: &str) -> BTreeMap<i64, i64> {
    let drivers = EntityColumn::Values((0..DRIVERS).map(EntityValue::Int).collect());
    let request = OnlineRequest {
        selection: FeatureSelection::References(vec![format!("{view}:one"), format!("{view}:two")]),
        entity_rows: EntityRows::new(vec![("driver_id".to_owned(), drivers)]).unwrap(),
        full_feature_names: false,
    };
    let answer = store.get_online_features(request).await.unwrap();
    let column = |index: usize| answer.columns[index].values.as_primitive::<Int64Type>().clone();
    let (one, two) = (column(1), column(2));
    let pairs = (0..DRIVERS).zip(one.iter().zip(two.iter()));
    pairs
        .filter_map(|(driver, (one, two))| {
            assert_eq!(one.map(|one| -one), two, "a torn row of driver {driver}");
            Some((driver, one?))
        })
        .collect()
}

async fn meta(store: &FeatureStore, view: &str) -> FeatureViewMeta {
    store.contents(true).await.unwrap().feature_view(view).unwrap().meta.clone()
}

/// Compares what is served with the rule and returns the number of rows.
async fn compare(store: &FeatureStore, view: &str, rows: &Rows, start: i64, end: i64) -> usize {
    let expected = rows.newest(start, end);
    let found = served(store, view).await;
    assert_eq!(found.len(), expected.len(), "rows of {view}");
    for (driver, (time, value)) in &expected {
        assert_eq!(found.get(driver), Some(value), "driver {driver} of {view}, whose newest row is of {time}");
    }
    expected.len()
}

async fn materialize(store: &FeatureStore, window: Window, view: &str, shard: Shard) -> MaterializeReport {
    let feature_views = vec![view.to_owned()];
    store.materialize(MaterializeRequest { window, feature_views, shard, version: None }).await.unwrap()
}

/// Says when a chunk is written.
#[derive(Debug)]
struct Tell;

impl Observer for Tell {
    fn on(&self, event: &Event) {
        if let Event::RowsWritten { rows, .. } = event {
            std::io::stdout().write_all(format!("rows {rows}\n").as_bytes()).unwrap();
        }
    }
}

/// The other processes: one task each.
#[tokio::test]
async fn work_on_a_task() {
    let Ok(task) = std::fs::read(std::env::current_dir().unwrap().join(TASK)) else { return };
    let task: Value = serde_json::from_slice(&task).unwrap();
    let store = open(Path::new(task["folder"].as_str().unwrap())).observed_by(Arc::new(Tell));
    let end = at(task["end"].as_i64().unwrap());
    let window = task["start"].as_i64().map_or(Window::Until(end), |start| Window::Between(at(start), end));
    let shard = task["shard"].as_str().unwrap().parse().unwrap();
    materialize(&store, window, task["view"].as_str().unwrap(), shard).await;
    std::io::stdout().write_all(b"done\n").unwrap();
}

/// A process that materializes.
struct Worker {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Worker {
    fn start(folder: &Path, view: &str, window: Window, shard: Shard) -> Self {
        let own = tempfile::tempdir().unwrap();
        let (start, end) = match window {
            Window::Between(start, end) => (Some(start.timestamp()), end.timestamp()),
            Window::Until(end) => (None, end.timestamp()),
            Window::Everything => unreachable!("no test asks for it"),
        };
        let task = json!({"folder": folder, "view": view, "start": start, "end": end, "shard": shard.to_string()});
        std::fs::write(own.path().join(TASK), task.to_string()).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "materialize::work_on_a_task", "--nocapture"])
            .current_dir(own.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, _folder: own }
    }

    /// Kills the process after it has told a number of chunks, or lets it end when it tells fewer. Returns whether it
    /// was killed.
    fn kill_after(mut self, chunks: usize) -> bool {
        let told = BufReader::new(self.child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let ended = told.filter(|line| line.starts_with("rows ") || line == "done").take(chunks).any(|l| l == "done");
        if !ended {
            self.child.kill().unwrap();
        }
        self.child.wait().unwrap();
        !ended
    }

    /// Kills the process after some time, wherever it is then, unless it ends before. Returns whether it was killed.
    fn kill_within(mut self, time: Duration) -> bool {
        let (ended, end) = mpsc::channel();
        let told = BufReader::new(self.child.stdout.take().unwrap()).lines();
        let reader = thread::spawn(move || {
            if told.map_while(Result::ok).any(|line| line == "done") {
                ended.send(()).unwrap();
            }
        });
        // A process that ends without that word hangs up, which is an end, too.
        let is_killed = end.recv_timeout(time) == Err(mpsc::RecvTimeoutError::Timeout);
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        reader.join().unwrap();
        is_killed
    }

    fn finish(mut self) {
        let told = BufReader::new(self.child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(told.filter(|line| line == "done").count() == 1, "a process failed");
        assert!(self.child.wait().unwrap().success());
    }
}

async fn repository(rows: &Rows, configuration: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(CONFIGURATION), configuration).unwrap();
    let store = open(folder.path());
    rows.save(&store).await;
    store.apply(&definitions(), &ApplyOptions::default()).await.unwrap();
    folder
}

/// Every row up to the recorded end is served, or a newer one.
async fn assert_recorded_is_served(store: &FeatureStore, rows: &Rows, seed: u64) {
    let recorded = meta(store, "stats").await.materialization_intervals;
    assert!(recorded.len() <= 1, "seed {seed}: {recorded:?}");
    let Some(interval) = recorded.first() else { return };
    let found = served(store, "stats").await;
    let all = rows.newest(0, i64::MAX);
    for (driver, (time, value)) in rows.newest(0, interval.end.timestamp()) {
        let known = found.get(&driver);
        let is_served =
            known == Some(&value) || rows.0.iter().any(|row| row.0 == driver && row.1 > time && known == Some(&row.2));
        assert!(is_served, "seed {seed}: driver {driver}, {interval:?}, newest {:?}", all.get(&driver));
    }
}

/// Materializes round by round by processes that are killed, and compares what is served after each round.
async fn kill_again_and_again(configuration: &str) {
    let mut random = Random::new();
    let seed = random.0;
    let mut rows = Rows::default();
    rows.add(&mut random, 0, 1000);
    let folder = repository(&rows, configuration).await;
    let store = open(folder.path());
    let (mut n_killed, mut n_compared) = (0, 0);
    // What a whole run takes, once that is known.
    let mut whole: Option<Duration> = None;
    for round in 1..=6 {
        let end = round * 1000;
        if round > 1 {
            rows.add(&mut random, end - 1000, end);
            rows.save(&store).await;
        }
        let window = Window::Until(at(end));
        // Odd rounds by one process, even ones by three at the same time.
        let count = if round % 2 == 1 { 1 } else { 3 };
        let shards: Vec<Shard> = (1..=count).map(|number| Shard::new(number, count).unwrap()).collect();
        for number in 0..8 {
            let workers: Vec<Worker> =
                shards.iter().map(|shard| Worker::start(folder.path(), "stats", window, *shard)).collect();
            for worker in workers {
                // At the end of a chunk, or anywhere.
                n_killed += usize::from(match whole.filter(|_| number % 2 == 1) {
                    None => worker.kill_after(random.below(24 / i64::from(count)) as usize),
                    Some(whole) => {
                        worker.kill_within(Duration::from_micros(random.below(whole.as_micros() as i64) as u64))
                    }
                });
            }
            assert_recorded_is_served(&store, &rows, seed).await;
        }
        let started = Instant::now();
        for shard in &shards {
            Worker::start(folder.path(), "stats", window, *shard).finish();
        }
        whole = Some(started.elapsed() / count);
        let meta = meta(&store, "stats").await;
        assert_eq!(meta.materialization_intervals, [Interval { start: at(0), end: at(end) }], "seed {seed}");
        assert_eq!(meta.shard_progress, [], "seed {seed}");
        n_compared += compare(&store, "stats", &rows, 0, end).await;
    }
    assert!(n_killed > 5, "seed {seed}: {n_killed}");
    println!("{n_killed} processes were killed, {n_compared} rows compared with the rule, in\n{configuration}");
}

#[tokio::test]
async fn runs_that_are_killed_again_and_again_are_continued_exactly() {
    kill_again_and_again(&on_sqlite()).await;
}

#[tokio::test]
async fn runs_into_redis_that_are_killed_are_continued_exactly() {
    let server = RedisServer::start();
    let online_store = format!("  type: redis\n  connection_string: {}\n", server.address());
    kill_again_and_again(&configuration(&online_store, SMALL_CHUNKS)).await;
}

/// Of so many rows, those with new keys are written in another way.
#[tokio::test]
async fn runs_into_redis_in_large_chunks_that_are_killed_are_continued_exactly() {
    let server = RedisServer::start();
    let online_store = format!("  type: redis\n  connection_string: {}\n", server.address());
    kill_again_and_again(&configuration(&online_store, DRIVERS)).await;
}

#[tokio::test]
async fn processes_load_the_same_and_different_views_at_once() {
    let mut random = Random::new();
    let mut rows = Rows::default();
    rows.add(&mut random, 0, 4000);
    let folder = repository(&rows, &on_sqlite()).await;
    let mut workers = Vec::new();
    for start in [0, 1000, 2000, 3000] {
        let window = Window::Between(at(start), at(start + 1000));
        for view in VIEWS {
            workers.push(Worker::start(folder.path(), view, window, Shard::WHOLE));
        }
        workers.push(Worker::start(folder.path(), "stats", window, Shard::WHOLE));
    }
    workers.into_iter().for_each(Worker::finish);
    let store = open(folder.path());
    for view in VIEWS {
        let recorded = meta(&store, view).await.materialization_intervals;
        assert_eq!(recorded, [Interval { start: at(0), end: at(4000) }], "seed {}", random.0);
        compare(&store, view, &rows, 0, 4000).await;
    }
}

#[tokio::test]
async fn shards_at_once_equal_one_run() {
    let mut random = Random::new();
    let mut rows = Rows::default();
    rows.add(&mut random, 0, 1000);
    let folder = repository(&rows, &on_sqlite()).await;
    let store = open(folder.path());
    let window = Window::Between(at(100), at(900));
    let shard = |number| Shard::new(number, 5).unwrap();
    // All but one: nothing is recorded, and an incremental run still begins at the beginning.
    let workers: Vec<Worker> =
        [1, 2, 4, 5].map(|number| Worker::start(folder.path(), "stats", window, shard(number))).into();
    workers.into_iter().for_each(Worker::finish);
    let before = meta(&store, "stats").await;
    assert_eq!(before.materialization_intervals, []);
    assert_eq!(before.shard_progress.len(), 4);
    let n_before = served(&store, "stats").await.len();
    // Applying the unchanged definitions changes nothing about it.
    assert!(store.plan(&definitions(), &ApplyOptions::default()).await.unwrap().is_empty());
    store.apply(&definitions(), &ApplyOptions::default()).await.unwrap();
    let again = materialize(&store, window, "stats", shard(2)).await;
    assert_eq!(again.feature_views[0].missing_shards, ["3/5"]);
    let last = materialize(&store, window, "stats", shard(3)).await;
    assert!(last.feature_views[0].missing_shards.is_empty());
    assert_eq!(n_before as u64 + last.feature_views[0].rows, rows.newest(100, 900).len() as u64);
    let after = meta(&store, "stats").await;
    assert_eq!(after.materialization_intervals, [Interval { start: at(100), end: at(900) }]);
    assert_eq!(after.shard_progress, []);
    compare(&store, "stats", &rows, 100, 900).await;
}

/// Remembers whether it was known how many rows there would be.
#[derive(Debug, Default)]
struct Totals(Mutex<Vec<Option<u64>>>);

impl Observer for Totals {
    fn on(&self, event: &Event) {
        if let Event::RowsWritten { total, .. } = event {
            self.0.lock().unwrap().push(*total);
        }
    }
}

#[tokio::test]
async fn a_memory_limit_takes_several_passes_over_the_source() {
    let mut random = Random::new();
    let mut rows = Rows::default();
    // A pass has a thousand keys at least.
    [0, 250, 500, 750].into_iter().for_each(|start| rows.add(&mut random, start, start + 250));
    let folder = repository(&rows, &on_sqlite()).await;
    for (limit, is_known) in [("1GiB", true), ("16KiB", false)] {
        let totals = Arc::new(Totals::default());
        let store = open(folder.path()).with_memory_limit(limit).unwrap().observed_by(Arc::clone(&totals) as _);
        materialize(&store, Window::Between(at(0), at(1000)), "stats", Shard::WHOLE).await;
        // Before the last of several passes, nobody knows how many rows there will be.
        let totals = totals.0.lock().unwrap().clone();
        assert!(totals.len() > 1 && totals.iter().all(|total| total.is_some() == is_known), "{limit}: {totals:?}");
        compare(&store, "stats", &rows, 0, 1000).await;
    }
}
