//! Rows added to files by several processes, some of which are killed: nothing is lost, doubled or torn.
//!
//! Runs without the test harness, because the program starts itself again as the processes that add rows: with
//! `--add <folder> <path> <first> <batches>` it adds that many batches of [`BATCH`] rows and says each number it added.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use feast_core::DataSource;
use feast_offline::OfflineStore;
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

/// Rows that appear at once.
const BATCH: usize = 50;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == "--add") {
        let (first, batches): (i64, i64) = (arguments[4].parse().unwrap(), arguments[5].parse().unwrap());
        return add(&arguments[2], &arguments[3], first..first + batches, |number| println!("{number}"));
    }
    let wanted = arguments.get(1).filter(|argument| !argument.starts_with('-'));
    let tests: [(&str, fn()); 6] = [
        ("processes_take_turns", processes_take_turns),
        ("killed_processes_leave_whole_batches", killed_processes_leave_whole_batches),
        ("batches_that_wait_do_not_share_errors", batches_that_wait_do_not_share_errors),
        ("small_files_become_few", small_files_become_few),
        ("what_a_killed_merge_leaves_is_read_once", what_a_killed_merge_leaves_is_read_once),
        ("a_single_file_keeps_what_it_holds", a_single_file_keeps_what_it_holds),
    ];
    for (name, test) in tests.iter().filter(|(name, _)| wanted.is_none_or(|wanted| name.contains(wanted.as_str()))) {
        test();
        println!("test {name} ... ok");
    }
}

/// Rows of one batch: its number, and a text that takes some room.
fn batch(number: i64) -> RecordBatch {
    let times = TimestampMicrosecondArray::from_iter_values(0..BATCH as i64).with_timezone("UTC");
    let text = (0..BATCH).map(|row| format!("{number}-{row}"));
    RecordBatch::try_from_iter([
        ("number", Arc::new(Int64Array::from(vec![number; BATCH])) as ArrayRef),
        ("event_timestamp", Arc::new(times)),
        ("text", Arc::new(StringArray::from_iter_values(text))),
    ])
    .unwrap()
}

fn store(folder: &Path) -> OfflineStore {
    OfflineStore::connect(&serde_json::Value::Null, folder).unwrap()
}

fn source(path: &str) -> DataSource {
    DataSource::file("numbers", path, "event_timestamp")
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(1).build().unwrap().block_on(future)
}

fn add(folder: &str, path: &str, numbers: Range<i64>, added: fn(i64)) {
    run(async {
        for number in numbers {
            store(Path::new(folder)).append(&source(path), batch(number)).await.unwrap();
            added(number);
        }
    });
}

fn add_here(folder: &Path, path: &str, numbers: Range<i64>) {
    add(&folder.to_string_lossy(), path, numbers, |_| {});
}

fn start_adding(folder: &Path, path: &str, first: i64, batches: i64) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("--add").arg(folder).args([path, &first.to_string(), &batches.to_string()]);
    command.stdout(Stdio::piped()).spawn().unwrap()
}

/// Numbers of the batches that are there. Panics unless each is there once and whole.
fn numbers(folder: &Path, path: &str) -> BTreeSet<i64> {
    let mut counts = std::collections::BTreeMap::new();
    run(async {
        let mut rows = store(folder).read_dataset(path).await.unwrap();
        while let Some(rows) = rows.next().await {
            for number in rows.unwrap().column(0).as_primitive::<Int64Type>().values() {
                *counts.entry(*number).or_insert(0usize) += 1;
            }
        }
    });
    assert!(counts.values().all(|count| *count == BATCH), "{path}: {counts:?}");
    counts.into_keys().collect()
}

/// A place with one batch, number 0.
fn begin(folder: &Path, path: &str) {
    let first = if path.ends_with(".parquet") && !path.contains('*') {
        folder.join(path)
    } else {
        folder.join(path.trim_end_matches("/part-*.parquet")).join("part-0.parquet")
    };
    fs::create_dir_all(first.parent().unwrap()).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(first).unwrap(), batch(0).schema(), None).unwrap();
    writer.write(&batch(0)).unwrap();
    writer.close().unwrap();
}

const PLACES: [&str; 3] = ["one.parquet", "folder", "glob/part-*.parquet"];

/// Tasks of one process add at the same time; some batches are not those of the source.
fn batches_that_wait_do_not_share_errors() {
    for path in &PLACES[..2] {
        let folder = tempfile::tempdir().unwrap();
        begin(folder.path(), path);
        let store = store(folder.path());
        let is_wrong = |number: i64| number % 10 == 7;
        run(async {
            let add = |number: i64| {
                let store = store.clone();
                tokio::spawn(async move {
                    let rows = batch(number);
                    let rows = if is_wrong(number) { rows.project(&[0, 1]).unwrap() } else { rows };
                    (number, store.append(&source(path), rows).await)
                })
            };
            for (number, added) in futures::future::join_all((1..=60).map(add)).await.into_iter().map(Result::unwrap) {
                match is_wrong(number) {
                    true => assert!(added.unwrap_err().message().contains("missing `text`")),
                    false => assert_eq!(added.unwrap(), BATCH as u64),
                }
            }
        });
        let expected: BTreeSet<i64> = (0..=60).filter(|number| !is_wrong(*number)).collect();
        assert_eq!(numbers(folder.path(), path), expected);
    }
}

fn processes_take_turns() {
    for path in PLACES {
        let folder = tempfile::tempdir().unwrap();
        begin(folder.path(), path);
        let children: Vec<Child> = (0..4).map(|child| start_adding(folder.path(), path, 1 + child * 20, 20)).collect();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Somebody reads all the while, and sees more and more.
            let reader = scope.spawn(|| {
                let mut seen = 0;
                while !done.load(Ordering::Relaxed) {
                    let now = numbers(folder.path(), path).len();
                    assert!(now >= seen, "{path}: {seen} batches, then {now}");
                    seen = now;
                }
            });
            for mut child in children {
                assert!(child.wait().unwrap().success());
            }
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap();
        });
        assert_eq!(numbers(folder.path(), path), (0..=80).collect(), "{path}");
    }
}

fn killed_processes_leave_whole_batches() {
    for path in PLACES {
        let folder = tempfile::tempdir().unwrap();
        begin(folder.path(), path);
        let mut confirmed = BTreeSet::from([0]);
        let mut next = 1;
        for round in 0..20 {
            let mut child = start_adding(folder.path(), path, next, 100_000);
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            // Killed somewhere in the batch after the one that was confirmed.
            for _ in 0..1 + round % 4 {
                confirmed.insert(lines.next().unwrap().unwrap().parse().unwrap());
            }
            std::thread::sleep(std::time::Duration::from_micros(700 * (round as u64 % 7)));
            child.kill().unwrap();
            child.wait().unwrap();
            confirmed.extend(lines.map_while(Result::ok).filter_map(|line| line.parse::<i64>().ok()));
            let found = numbers(folder.path(), path);
            assert!(confirmed.is_subset(&found), "{path}, round {round}: {confirmed:?}, found {found:?}");
            // One batch may be there without having been confirmed.
            assert!(found.len() <= confirmed.len() + 1, "{path}, round {round}: {confirmed:?}, found {found:?}");
            confirmed = found;
            next = confirmed.last().unwrap() + 1;
        }
        add_here(folder.path(), path, next..next + 1);
        let directory = if path == "one.parquet" { folder.path().to_path_buf() } else { folder.path().join(path) };
        let directory = if path.contains('*') { directory.parent().unwrap() } else { &directory };
        let hidden = fs::read_dir(directory)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
        assert_eq!(hidden.count(), 0, "{path}: the next process removes what killed ones left");
    }
}

fn small_files_become_few() {
    for path in &PLACES[1..] {
        let folder = tempfile::tempdir().unwrap();
        begin(folder.path(), path);
        add_here(folder.path(), path, 1..101);
        assert_eq!(numbers(folder.path(), path), (0..=100).collect());
        let directory = folder.path().join(path.trim_end_matches("/part-*.parquet"));
        let names: BTreeSet<String> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(names.len() < 12, "{names:?}");
        assert!(names.contains("part-0.parquet"), "files of others stay: {names:?}");
        // The order of rows is that in which they were added: later rows win ties.
        let order = run(async {
            let rows = store(folder.path()).read_dataset(path).await.unwrap();
            let rows: Vec<RecordBatch> = rows.map(Result::unwrap).collect().await;
            rows.iter()
                .flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec())
                .collect::<Vec<_>>()
        });
        assert!(order.is_sorted());
    }
}

fn what_a_killed_merge_leaves_is_read_once() {
    let folder = tempfile::tempdir().unwrap();
    begin(folder.path(), "folder");
    add_here(folder.path(), "folder", 1..8);
    // As if the process had been killed between making the merged file visible and removing those it stands for.
    let parts = || -> BTreeSet<std::path::PathBuf> {
        fs::read_dir(folder.path().join("folder")).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let before = parts();
    let copies: Vec<_> = before.iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    add_here(folder.path(), "folder", 8..9);
    let after = parts();
    assert_eq!(after.len(), 2, "{after:?}");
    for (path, bytes) in copies.iter().filter(|(path, _)| !after.contains(path)) {
        fs::write(path, bytes).unwrap();
    }
    assert_eq!(numbers(folder.path(), "folder"), (0..=8).collect());
    add_here(folder.path(), "folder", 9..10);
    assert_eq!(parts().len(), 3, "the next process removes them");
    assert_eq!(numbers(folder.path(), "folder"), (0..=9).collect());
}

fn a_single_file_keeps_what_it_holds() {
    for page_index in [true, false] {
        what_a_file_holds_stays(page_index);
    }
}

/// As Rust writes files, and as Arrow's other writers do: without an index of pages.
fn what_a_file_holds_stays(page_index: bool) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.parquet");
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(1000))
        .set_bloom_filter_enabled(true)
        .set_offset_index_disabled(!page_index)
        .set_statistics_enabled(if page_index { EnabledStatistics::Page } else { EnabledStatistics::Chunk })
        .set_key_value_metadata(Some(vec![KeyValue::new("pandas".to_owned(), "{}".to_owned())]))
        .build();
    let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch(0).schema(), Some(properties)).unwrap();
    for _ in 0..60 {
        writer.write(&batch(0)).unwrap();
    }
    writer.close().unwrap();
    let open = || ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
    let old = open();
    let old = old.metadata();
    assert_eq!(old.num_row_groups(), 3);
    add_here(folder.path(), "one.parquet", 1..6);
    let metadata = Arc::clone(open().metadata());
    // Large row groups are as they were, byte for byte.
    for index in 0..3 {
        for (old, new) in old.row_group(index).columns().iter().zip(metadata.row_group(index).columns()) {
            assert_eq!(old.compressed_size(), new.compressed_size());
            assert_eq!(old.statistics(), new.statistics());
            assert!(new.bloom_filter_offset().is_some());
            assert_eq!(new.offset_index_offset().is_some(), page_index);
        }
    }
    // Many small ones become few.
    add_here(folder.path(), "one.parquet", 6..101);
    let new = open();
    let metadata = Arc::clone(new.metadata());
    assert!((4..12).contains(&metadata.num_row_groups()), "{}", metadata.num_row_groups());
    let pairs = metadata.file_metadata().key_value_metadata().unwrap();
    assert_eq!(pairs.iter().filter(|pair| pair.key == "pandas").count(), 1);
    assert_eq!(pairs.iter().filter(|pair| pair.key == "ARROW:schema").count(), 1);
    let rows: Vec<RecordBatch> = new.build().unwrap().map(Result::unwrap).collect();
    let all: Vec<i64> =
        rows.iter().flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
    assert_eq!(all.len(), 3000 + 100 * BATCH);
    assert!(all.is_sorted());
    assert_eq!(rows.iter().map(|rows| rows.column(2).as_string::<i32>().null_count()).sum::<usize>(), 0);
}
