//! The promises of [`OnlineStore`], one function each. Run them all with
//! [`online_store_conformance!`](crate::online_store_conformance).

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, ListArray,
    RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::take;
use arrow::datatypes::{Field as ArrowField, Int64Type, Schema};
use feast_core::{
    EntityKeyEncoder, EntityKeys, Field, Memo, NewestValue, OnlineRead, OnlineRows, OnlineStore, OnlineTable,
    OnlineWrite, SerializedRows, SerializedWrite, TableChange, Tags, ValueType,
};

/// What a store cannot promise, because the layout that it shares with Feast cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Tables do not exist apart from their rows: one that nobody created reads as one without rows.
    NoTables,
    /// Created times are not stored: of rows with equal event times in two writes the later write wins.
    NoCreatedTimes,
    /// A column that comes back has the values of before in rows written meanwhile.
    LostColumnsComeBack,
    /// Tables have names of letters, digits, `_`, `-` and `.` only; others are refused when they are to be made.
    PlainTableNames,
    /// Values travel as JSON: `SCALAR_MAP` is refused, and of a `ZONED_TIMESTAMP` the name of the zone is lost.
    JsonValues,
}

/// A store to test, and what has to stay alive meanwhile, such as its folder.
pub struct StartedStore {
    store: Arc<dyn OnlineStore>,
    limits: &'static [Limit],
    _guard: Box<dyn Any + Send>,
}

impl StartedStore {
    /// A store that needs nothing else.
    pub fn new(store: Arc<dyn OnlineStore>) -> Self {
        Self::with_guard(store, ())
    }

    /// A store, and what is dropped after the test.
    pub fn with_guard(store: Arc<dyn OnlineStore>, guard: impl Any + Send) -> Self {
        Self { store, limits: &[], _guard: Box::new(guard) }
    }

    /// The same store, which cannot promise everything.
    #[must_use]
    pub fn limited(self, limits: &'static [Limit]) -> Self {
        Self { limits, ..self }
    }

    /// The store.
    pub fn store(&self) -> &dyn OnlineStore {
        self.store.as_ref()
    }

    fn has(&self, limit: Limit) -> bool {
        self.limits.contains(&limit)
    }
}

impl fmt::Debug for StartedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartedStore").field("store", &self.store).finish_non_exhaustive()
    }
}

/// Makes a test of every promise. `$start` is an async function that returns a [`StartedStore`] with an empty store.
#[macro_export]
macro_rules! online_store_conformance {
    ($start:path) => {
        mod conformance {
            $crate::online_store_conformance!(@limited $start:
                missing_tables_say_what_to_do,
                equal_events_go_by_created_time,
                a_column_that_comes_back_is_null_in_newer_rows,
                random_writes_follow_the_plain_rule,
                dropping_removes_the_rows,
                unusual_names_work,
                every_type_survives,
            );
            $crate::online_store_conformance!(@each $start:
                rows_come_in_key_order,
                columns_come_in_the_wanted_order,
                the_newest_event_wins,
                the_newest_event_wins_within_a_batch,
                parts_of_seconds_count,
                without_created_times_the_later_write_wins,
                rewriting_changes_nothing,
                rows_are_replaced_whole,
                nulls_are_kept,
                one_call_reads_several_tables,
                tables_do_not_mix,
                keys_of_every_type_identify_rows,
                nothing_is_read_and_written_without_fuss,
                changing_tables_is_repeatable,
                a_new_column_is_null_in_old_rows,
                writers_at_the_same_time_agree,
                large_batches_arrive,
                the_newest_event_time_is_told_or_not_known,
                a_store_in_use_is_reachable,
            );
        }
    };
    (@limited $start:path: $($promise:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $promise() {
                $crate::online_suite::$promise(&$start().await).await;
            }
        )*
    };
    (@each $start:path: $($promise:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $promise() {
                $crate::online_suite::$promise($start().await.store()).await;
            }
        )*
    };
}

const SECOND: i64 = 1_000_000;
const NOON: i64 = 1_795_176_000 * SECOND;

fn table(view: &str, columns: &[(&str, ValueType)]) -> OnlineTable {
    OnlineTable {
        project: "shop".to_owned(),
        view: view.to_owned(),
        join_keys: vec![Field::new("driver_id", ValueType::Int64)],
        columns: columns.iter().map(|(name, value_type)| Field::new(*name, *value_type)).collect(),
        tags: Tags::new(),
    }
}

fn numbers(view: &str) -> OnlineTable {
    table(view, &[("a", ValueType::Int64), ("b", ValueType::Int64)])
}

fn keys(ids: &[i64]) -> EntityKeys {
    let fields = [Field::new("driver_id", ValueType::Int64)];
    keys_of(&fields, vec![Arc::new(Int64Array::from(ids.to_vec()))])
}

fn keys_of(fields: &[Field], columns: Vec<ArrayRef>) -> EntityKeys {
    let names = fields.iter().map(|field| field.name.as_str());
    let batch = RecordBatch::try_from_iter(names.zip(columns)).expect("key columns of one length");
    EntityKeyEncoder::new(fields, 3).and_then(|encoder| encoder.encode(batch)).expect("valid keys")
}

fn batch(table: &OnlineTable, columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    let fields: Vec<_> = table.columns.iter().map(|column| column.value_type.arrow_field(&column.name)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).expect("columns of the table")
}

fn times(micros: &[Option<i64>]) -> TimestampMicrosecondArray {
    TimestampMicrosecondArray::from(micros.to_vec()).with_timezone("UTC")
}

/// A row of a table with the columns `a` and `b`.
#[derive(Clone, Copy)]
struct Row {
    id: i64,
    event: i64,
    created: Option<i64>,
    a: Option<i64>,
    b: Option<i64>,
}

fn row(id: i64, event: i64, a: i64) -> Row {
    Row { id, event, created: None, a: Some(a), b: Some(-a) }
}

async fn write(store: &dyn OnlineStore, table: &OnlineTable, rows: &[Row]) {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.a).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.b).collect::<Int64Array>()),
    ];
    let created = times(&rows.iter().map(|row| row.created).collect::<Vec<_>>());
    store
        .write(OnlineWrite {
            table,
            keys: &keys(&rows.iter().map(|row| row.id).collect::<Vec<_>>()),
            rows: &batch(table, columns, rows.len()),
            event_timestamps: &times(&rows.iter().map(|row| Some(row.event)).collect::<Vec<_>>()),
            created_timestamps: rows.iter().any(|row| row.created.is_some()).then_some(&created),
        })
        .await
        .expect("the rows are written");
}

/// [`write`] of rows that are serialized, where the store takes such.
async fn write_serialized(store: &dyn OnlineStore, table: &OnlineTable, memo: &Memo, rows: &[Row]) {
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let keys = keys(&ids);
    let mut serialized = SerializedRows::with_capacity(2, rows.len());
    for (number, row) in rows.iter().enumerate() {
        let put = |column: Option<usize>, out: &mut Vec<u8>| {
            match column {
                None => out.extend_from_slice(keys.encoded.value(number)),
                Some(column) => put_int64(out, [row.a, row.b][column]),
            }
            Some(())
        };
        serialized.push(row.event, row.created, put).expect("it is never given up");
    }
    match store.write_serialized(SerializedWrite { table, rows: &serialized, memo }) {
        Some(writing) => writing.await.expect("the rows are written"),
        None => write(store, table, rows).await,
    }
}

/// The `Value` message of an `INT64`; null is zero bytes.
fn put_int64(out: &mut Vec<u8>, number: Option<i64>) {
    let Some(number) = number else { return };
    out.push((ValueType::Int64 as u8) << 3);
    let mut rest = number as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

async fn ensure(store: &dyn OnlineStore, tables: &[&OnlineTable]) {
    let changes: Vec<TableChange> = tables.iter().map(|table| TableChange::Ensure((*table).clone())).collect();
    store.update(&changes).await.expect("the tables are created");
}

async fn read(store: &dyn OnlineStore, table: &OnlineTable, keys: &EntityKeys, columns: &[usize]) -> OnlineRows {
    let wanted = table.clone().wanted(columns.iter().copied());
    let read = OnlineRead { wanted: &wanted, keys };
    let mut answers = store.read(&[read]).await.expect("the rows are read");
    assert_eq!(answers.len(), 1, "one answer per read");
    let answer = answers.remove(0);
    assert_eq!(answer.event_timestamps.len(), keys.len(), "one row per key");
    assert_eq!(answer.values.num_rows(), keys.len(), "one row per key");
    for (position, column) in columns.iter().zip(answer.values.columns()) {
        assert_eq!(column.data_type(), &table.columns[*position].value_type.arrow_type(), "the declared type");
    }
    answer
}

/// Event time, `a` and `b` of some rows of a table with these columns.
async fn rows(
    store: &dyn OnlineStore,
    table: &OnlineTable,
    ids: &[i64],
) -> Vec<(Option<i64>, Option<i64>, Option<i64>)> {
    let answer = read(store, table, &keys(ids), &[0, 1]).await;
    let number = |column: usize, row: usize| {
        let column = answer.values.column(column).as_primitive::<Int64Type>();
        column.is_valid(row).then(|| column.value(row))
    };
    let time = |row: usize| answer.event_timestamps.is_valid(row).then(|| answer.event_timestamps.value(row));
    (0..ids.len()).map(|row| (time(row), number(0, row), number(1, row))).collect()
}

/// The value of `a` for one entity.
async fn value(store: &dyn OnlineStore, table: &OnlineTable, id: i64) -> Option<i64> {
    rows(store, table, &[id]).await[0].1
}

/// Reading or writing a table that does not exist is an error that says to run `feast apply`; without tables there is
/// nothing to read, and no error.
pub async fn missing_tables_say_what_to_do(started: &StartedStore) {
    let store = started.store();
    let (missing, there) = (numbers("missing"), numbers("there"));
    if started.has(Limit::NoTables) {
        assert_eq!(rows(store, &missing, &[1]).await, [(None, None, None)]);
        return;
    }
    let keys = keys(&[1]);
    for _ in 0..2 {
        let read = OnlineRead { wanted: &missing.clone().wanted([0]), keys: &keys };
        let error = store.read(&[read]).await.expect_err("there is no table");
        assert!(error.hint().is_some_and(|hint| hint.contains("feast apply")), "{error:?}");
        let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1])), Arc::new(Int64Array::from(vec![1]))];
        let rows = batch(&missing, columns, 1);
        let write = OnlineWrite {
            table: &missing,
            keys: &keys,
            rows: &rows,
            event_timestamps: &times(&[Some(NOON)]),
            created_timestamps: None,
        };
        let error = store.write(write).await.expect_err("there is no table");
        assert!(error.hint().is_some_and(|hint| hint.contains("feast apply")), "{error:?}");
        // The same beside a table that exists.
        ensure(store, &[&there]).await;
    }
}

/// One row per key, in the order of the keys; absent ones have neither values nor a time.
pub async fn rows_come_in_key_order(store: &dyn OnlineStore) {
    let table = numbers("order");
    ensure(store, &[&table]).await;
    write(store, &table, &[row(1, NOON, 10), row(2, NOON + SECOND, 20), row(3, NOON, 30)]).await;
    assert_eq!(
        rows(store, &table, &[3, 9, 2, 1, -1]).await,
        [
            (Some(NOON), Some(30), Some(-30)),
            (None, None, None),
            (Some(NOON + SECOND), Some(20), Some(-20)),
            (Some(NOON), Some(10), Some(-10)),
            (None, None, None),
        ]
    );
}

/// The wanted columns, in the wanted order.
pub async fn columns_come_in_the_wanted_order(store: &dyn OnlineStore) {
    let table = numbers("columns");
    ensure(store, &[&table]).await;
    write(store, &table, &[row(1, NOON, 10)]).await;
    let keys = keys(&[1, 2]);
    for (columns, expected) in [(vec![1, 0], vec![-10, 10]), (vec![1], vec![-10]), (vec![0], vec![10])] {
        let answer = read(store, &table, &keys, &columns).await;
        let values = answer.values.columns().iter().map(|column| column.as_primitive::<Int64Type>().value(0));
        assert_eq!(values.collect::<Vec<_>>(), expected);
        assert_eq!((answer.event_timestamps.is_valid(0), answer.event_timestamps.is_valid(1)), (true, false));
    }
}

/// The newest event time wins against the store, whatever the order of writes.
pub async fn the_newest_event_wins(store: &dyn OnlineStore) {
    let table = numbers("newest");
    ensure(store, &[&table]).await;
    write(store, &table, &[row(1, NOON, 1)]).await;
    write(store, &table, &[row(1, NOON + SECOND, 2)]).await;
    write(store, &table, &[row(1, NOON - SECOND, 3), row(2, NOON - SECOND, 4)]).await;
    assert_eq!(rows(store, &table, &[1]).await, [(Some(NOON + SECOND), Some(2), Some(-2))]);
    assert_eq!(value(store, &table, 2).await, Some(4));
    write(store, &table, &[row(3, -5 * SECOND, 5)]).await;
    write(store, &table, &[row(3, -6 * SECOND, 6)]).await;
    assert_eq!(rows(store, &table, &[3]).await, [(Some(-5 * SECOND), Some(5), Some(-5))]);
}

/// A key may occur several times in a batch; its newest row counts.
pub async fn the_newest_event_wins_within_a_batch(store: &dyn OnlineStore) {
    let table = numbers("batch");
    ensure(store, &[&table]).await;
    write(store, &table, &[row(1, NOON + SECOND, 1), row(2, NOON, 2), row(1, NOON, 3), row(2, NOON, 4)]).await;
    assert_eq!(value(store, &table, 1).await, Some(1));
    assert_eq!(value(store, &table, 2).await, Some(4), "the later of equals");
}

/// Two events in one second keep their order, and times come back as they were.
pub async fn parts_of_seconds_count(store: &dyn OnlineStore) {
    let table = numbers("fractions");
    ensure(store, &[&table]).await;
    write(store, &table, &[row(1, NOON + 700_000, 1), row(2, NOON + 700_000, 1), row(3, -300_000, 1)]).await;
    write(store, &table, &[row(1, NOON + 699_999, 2), row(2, NOON + 700_001, 2), row(3, -300_001, 2)]).await;
    assert_eq!(
        rows(store, &table, &[1, 2, 3]).await,
        [
            (Some(NOON + 700_000), Some(1), Some(-1)),
            (Some(NOON + 700_001), Some(2), Some(-2)),
            (Some(-300_000), Some(1), Some(-1)),
        ]
    );
}

/// At equal event times the greater created time wins; among equal ones the later write.
pub async fn equal_events_go_by_created_time(started: &StartedStore) {
    let store = started.store();
    let table = numbers("created");
    ensure(store, &[&table]).await;
    let at = |created: i64, a: i64| Row { created: Some(created), ..row(1, NOON, a) };
    write(store, &table, &[at(NOON + SECOND, 1)]).await;
    write(store, &table, &[at(NOON, 2)]).await;
    let expected = if started.has(Limit::NoCreatedTimes) { 2 } else { 1 };
    assert_eq!(value(store, &table, 1).await, Some(expected), "the smaller created time loses where it is known");
    write(store, &table, &[at(NOON + SECOND, 3)]).await;
    assert_eq!(value(store, &table, 1).await, Some(3), "the later write of equals wins");
    write(store, &table, &[at(NOON + SECOND + 5, 5), at(NOON + SECOND + 4, 4)]).await;
    assert_eq!(value(store, &table, 1).await, Some(5), "also within a batch and a second");
    write(store, &table, &[Row { created: Some(0), ..row(1, NOON + 1, 6) }]).await;
    assert_eq!(value(store, &table, 1).await, Some(6), "the event time comes first");
}

/// Without created times the later write of equal events wins, so that a correction lands.
pub async fn without_created_times_the_later_write_wins(store: &dyn OnlineStore) {
    let table = numbers("later");
    ensure(store, &[&table]).await;
    write(store, &table, &[row(1, NOON, 1)]).await;
    write(store, &table, &[row(1, NOON, 2)]).await;
    assert_eq!(value(store, &table, 1).await, Some(2));
    write(store, &table, &[Row { created: Some(NOON), ..row(1, NOON, 3) }]).await;
    assert_eq!(value(store, &table, 1).await, Some(3), "a created time is more than none");
}

/// Writing a batch twice changes nothing.
pub async fn rewriting_changes_nothing(store: &dyn OnlineStore) {
    let table = numbers("again");
    ensure(store, &[&table]).await;
    let batch = [row(1, NOON, 1), row(2, NOON, 2), row(1, NOON + SECOND, 3)];
    write(store, &table, &batch).await;
    let before = rows(store, &table, &[1, 2, 3]).await;
    write(store, &table, &batch).await;
    assert_eq!(rows(store, &table, &[1, 2, 3]).await, before);
}

/// A newer row replaces all values, also by nulls; an older one none.
pub async fn rows_are_replaced_whole(store: &dyn OnlineStore) {
    let table = numbers("whole");
    ensure(store, &[&table]).await;
    write(store, &table, &[row(1, NOON, 1)]).await;
    write(store, &table, &[Row { b: None, ..row(1, NOON + SECOND, 2) }]).await;
    write(store, &table, &[row(1, NOON, 3)]).await;
    assert_eq!(rows(store, &table, &[1]).await, [(Some(NOON + SECOND), Some(2), None)]);
}

/// A row of nulls is there all the same.
pub async fn nulls_are_kept(store: &dyn OnlineStore) {
    let table = numbers("nulls");
    ensure(store, &[&table]).await;
    write(store, &table, &[Row { a: None, b: None, ..row(1, NOON, 0) }]).await;
    assert_eq!(rows(store, &table, &[1, 2]).await, [(Some(NOON), None, None), (None, None, None)]);
}

/// One call reads several tables, one answer each, in order; also one table twice.
pub async fn one_call_reads_several_tables(store: &dyn OnlineStore) {
    let (first, second) = (numbers("first"), numbers("second"));
    ensure(store, &[&first, &second]).await;
    write(store, &first, &[row(1, NOON, 1)]).await;
    write(store, &second, &[row(1, NOON, 2), row(2, NOON, 3)]).await;
    let (one, two) = (keys(&[1]), keys(&[2, 1]));
    let reads = [
        OnlineRead { wanted: &second.clone().wanted([0]), keys: &two },
        OnlineRead { wanted: &first.clone().wanted([1, 0]), keys: &one },
        OnlineRead { wanted: &second.clone().wanted([1]), keys: &one },
    ];
    let answers = store.read(&reads).await.expect("the rows are read");
    let values: Vec<Vec<i64>> = answers
        .iter()
        .map(|answer| {
            answer.values.columns().iter().flat_map(|c| c.as_primitive::<Int64Type>().values().to_vec()).collect()
        })
        .collect();
    assert_eq!(values, [vec![3, 2], vec![-1, 1], vec![-2]]);
}

/// The same key in another view or project is another row.
pub async fn tables_do_not_mix(store: &dyn OnlineStore) {
    let (one, other) = (numbers("view"), numbers("other"));
    let foreign = OnlineTable { project: "my_shop".to_owned(), ..one.clone() };
    ensure(store, &[&one, &other, &foreign]).await;
    write(store, &one, &[row(1, NOON, 1)]).await;
    write(store, &foreign, &[row(1, NOON, 2)]).await;
    assert_eq!(value(store, &other, 1).await, None);
    store.update(&[TableChange::Drop(one.clone())]).await.expect("the table is dropped");
    assert_eq!(value(store, &foreign, 1).await, Some(2));
}

/// Values of every type come back as they were.
pub async fn every_type_survives(started: &StartedStore) {
    let store = started.store();
    let is_kept = |value_type: &ValueType| match value_type {
        ValueType::Invalid | ValueType::Null => false,
        ValueType::ScalarMap | ValueType::ZonedTimestamp => !started.has(Limit::JsonValues),
        _ => true,
    };
    let types: Vec<ValueType> = ValueType::ALL.iter().copied().filter(is_kept).collect();
    let columns: Vec<(&str, ValueType)> = types.iter().map(|value_type| (value_type.name(), *value_type)).collect();
    let table = table("types", &columns);
    ensure(store, &[&table]).await;
    let values: Vec<ArrayRef> = types.iter().map(|value_type| sample(*value_type)).collect();
    let written = batch(&table, values, 3);
    let keys = keys(&[1, 2, 3]);
    let write = OnlineWrite {
        table: &table,
        keys: &keys,
        rows: &written,
        event_timestamps: &times(&[Some(NOON); 3]),
        created_timestamps: None,
    };
    store.write(write).await.expect("the rows are written");
    let all: Vec<usize> = (0..types.len()).collect();
    let answer = read(store, &table, &keys, &all).await;
    for ((value_type, before), after) in types.iter().zip(written.columns()).zip(answer.values.columns()) {
        assert_eq!(after, before, "{value_type}");
    }
    if started.has(Limit::JsonValues) {
        let table = self::table("maps", &[("m", ValueType::ScalarMap)]);
        ensure(store, &[&table]).await;
        let rows = batch(&table, vec![sample(ValueType::ScalarMap)], 3);
        let event_timestamps = &times(&[Some(NOON); 3]);
        let write = OnlineWrite { table: &table, keys: &keys, rows: &rows, event_timestamps, created_timestamps: None };
        let error = store.write(write).await.expect_err("such values cannot be sent");
        assert!(error.message().contains("SCALAR_MAP"), "{error:?}");
    }
}

/// Three values of a type, the last one null.
fn sample(value_type: ValueType) -> ArrayRef {
    use ValueType as T;
    match value_type {
        T::Bytes => Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), Some(b""), None])),
        T::String => Arc::new(StringArray::from(vec![Some("é'\"\0"), Some(""), None])),
        T::Json => Arc::new(StringArray::from(vec![Some(r#"{"a": [1]}"#), Some("null"), None])),
        T::Uuid | T::TimeUuid => {
            let uuids = ["12345678-1234-5678-1234-567812345678", "00000000-0000-0000-0000-000000000001"];
            Arc::new(StringArray::from(vec![Some(uuids[0]), Some(uuids[1]), None]))
        }
        T::Decimal => Arc::new(StringArray::from(vec![Some("12.50"), Some("-1E+3"), None])),
        T::Int32 => Arc::new(Int32Array::from(vec![Some(i32::MIN), Some(0), None])),
        T::Int64 => Arc::new(Int64Array::from(vec![Some(i64::MAX), Some(i64::MIN), None])),
        T::Double => Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(-0.0), None])),
        T::Float => Arc::new(Float32Array::from(vec![Some(0.3), Some(f32::INFINITY), None])),
        T::Bool => Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
        T::UnixTimestamp => Arc::new(times(&[Some(NOON), Some(-SECOND), None])),
        _ => match (value_type.item(), opaque(value_type)) {
            // Two values, none, and null.
            (Some(item), _) => {
                let items = take(&sample(item), &UInt32Array::from(vec![0, 1]), None).expect("two of three rows");
                let field = Arc::new(ArrowField::new("item", items.data_type().clone(), true));
                let nulls = NullBuffer::from(vec![true, true, false]);
                Arc::new(ListArray::new(field, OffsetBuffer::from_lengths([2, 0, 0]), items, Some(nulls)))
            }
            (None, [first, second]) => Arc::new(BinaryArray::from(vec![Some(first), Some(second), None])),
        },
    }
}

/// Two serialized values of a type that has no Arrow type of its own.
fn opaque(value_type: ValueType) -> [&'static [u8]; 2] {
    match value_type {
        ValueType::Map => [b"\xa2\x01\x09\x0a\x07\x0a\x01a\x12\x02\x20\x01", b"\xa2\x01\x00"],
        ValueType::MapList => [b"\xaa\x01\x0b\x0a\x09\x0a\x07\x0a\x01a\x12\x02\x20\x01", b"\xaa\x01\x00"],
        ValueType::Struct => [b"\x92\x02\x09\x0a\x07\x0a\x01a\x12\x02\x20\x01", b"\x92\x02\x00"],
        ValueType::StructList => [b"\x9a\x02\x0b\x0a\x09\x0a\x07\x0a\x01a\x12\x02\x20\x01", b"\x9a\x02\x00"],
        ValueType::ValueList => [b"\xd2\x02\x07\x0a\x05\x72\x03\x0a\x01\x03", b"\xd2\x02\x00"],
        ValueType::ValueSet => [b"\xda\x02\x07\x0a\x05\x72\x03\x0a\x01\x03", b"\xda\x02\x00"],
        ValueType::ScalarMap => [b"\xfa\x02\x0b\x0a\x09\x0a\x02\x10\x01\x12\x03\x12\x01a", b"\xfa\x02\x00"],
        _ => [b"\x82\x03\x07\x08\x05\x12\x03UTC", b"\x82\x03\x00"],
    }
}

/// Keys of every type, and of several columns, identify rows; the type is part of the key.
pub async fn keys_of_every_type_identify_rows(store: &dyn OnlineStore) {
    let key_columns: Vec<(&str, ValueType, ArrayRef)> = vec![
        ("bytes", ValueType::Bytes, Arc::new(BinaryArray::from(vec![&b"\x00"[..], b"\x00\x00"]))),
        ("text", ValueType::String, Arc::new(StringArray::from(vec!["", "é"]))),
        ("short", ValueType::Int32, Arc::new(Int32Array::from(vec![-1, 1]))),
        ("long", ValueType::Int64, Arc::new(Int64Array::from(vec![i64::MIN, 1]))),
        ("time", ValueType::UnixTimestamp, Arc::new(times(&[Some(NOON), Some(0)]))),
    ];
    let of = |columns: &[(&str, ValueType, ArrayRef)]| {
        let fields: Vec<Field> = columns.iter().map(|(name, value_type, _)| Field::new(*name, *value_type)).collect();
        let arrays = columns.iter().map(|(_, _, array)| Arc::clone(array)).collect();
        (fields.clone(), keys_of(&fields, arrays))
    };
    let single = key_columns.iter().map(|column| of(std::slice::from_ref(column)));
    for (position, (fields, keys)) in single.chain([of(&key_columns)]).enumerate() {
        let table = OnlineTable { join_keys: fields, ..numbers(&format!("keys_{position}")) };
        ensure(store, &[&table]).await;
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(vec![1, 2])), Arc::new(Int64Array::from(vec![3, 4]))];
        let write = OnlineWrite {
            table: &table,
            keys: &keys,
            rows: &batch(&table, columns, 2),
            event_timestamps: &times(&[Some(NOON); 2]),
            created_timestamps: None,
        };
        store.write(write).await.expect("the rows are written");
        let answer = read(store, &table, &keys, &[0, 1]).await;
        assert_eq!(answer.values.column(0).as_primitive::<Int64Type>().values(), &[1, 2]);
    }
}

/// No reads, no keys, no rows and no changes are fine.
pub async fn nothing_is_read_and_written_without_fuss(store: &dyn OnlineStore) {
    let table = numbers("nothing");
    store.update(&[]).await.expect("nothing is changed");
    ensure(store, &[&table]).await;
    write(store, &table, &[]).await;
    assert!(rows(store, &table, &[]).await.is_empty());
    assert!(store.read(&[]).await.expect("nothing is read").is_empty());
}

/// Creating a table again keeps its rows; dropping one again, or one that never was, is fine.
pub async fn changing_tables_is_repeatable(store: &dyn OnlineStore) {
    let table = numbers("repeat");
    store.update(&[TableChange::Drop(table.clone())]).await.expect("there is nothing to drop");
    ensure(store, &[&table, &table]).await;
    write(store, &table, &[row(1, NOON, 1)]).await;
    ensure(store, &[&table]).await;
    assert_eq!(value(store, &table, 1).await, Some(1));
    let drop = TableChange::Drop(table);
    store.update(&[drop.clone(), drop]).await.expect("dropping twice is fine");
}

/// A column that was added later is null in the rows from before, and an unwanted one is gone.
pub async fn a_new_column_is_null_in_old_rows(store: &dyn OnlineStore) {
    let before = numbers("grown");
    ensure(store, &[&before]).await;
    write(store, &before, &[row(1, NOON, 1)]).await;
    let after = table("grown", &[("c", ValueType::String), ("a", ValueType::Int64)]);
    ensure(store, &[&after]).await;
    let answer = read(store, &after, &keys(&[1]), &[1, 0]).await;
    assert_eq!(answer.values.column(0).as_primitive::<Int64Type>().value(0), 1);
    assert!(answer.values.column(1).is_null(0));
    assert!(answer.event_timestamps.is_valid(0));
}

/// A column that was removed and comes back has no value of before in rows that were written meanwhile.
pub async fn a_column_that_comes_back_is_null_in_newer_rows(started: &StartedStore) {
    let store = started.store();
    let (both, narrow) = (numbers("back"), table("back", &[("a", ValueType::Int64)]));
    ensure(store, &[&both]).await;
    write(store, &both, &[row(1, NOON, 1), row(2, NOON, 2)]).await;
    ensure(store, &[&narrow]).await;
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![3]))];
    let newer = OnlineWrite {
        table: &narrow,
        keys: &keys(&[1]),
        rows: &batch(&narrow, columns, 1),
        event_timestamps: &times(&[Some(NOON + SECOND)]),
        created_timestamps: None,
    };
    store.write(newer).await.expect("the row is written");
    ensure(store, &[&both]).await;
    let b = started.has(Limit::LostColumnsComeBack).then_some(-1);
    assert_eq!(rows(store, &both, &[1]).await, [(Some(NOON + SECOND), Some(3), b)]);
}

/// Any sequence of writes leaves what the rule says: the greatest event time, then created time, then the last write.
pub async fn random_writes_follow_the_plain_rule(started: &StartedStore) {
    let store = started.store();
    let (table, memo) = (numbers("random"), Memo::default());
    ensure(store, &[&table]).await;
    // A small generator of its own, so that every run is the same.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut any = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as usize % below
    };
    let offsets = [-SECOND, -1, 0, 1, SECOND - 1, SECOND];
    let ids = [0, 1, 2, 3, 4];
    let mut kept = [None; 5];
    for number in 0..80 {
        let batch: Vec<Row> = (0..=any(5))
            .map(|n| {
                let created = (any(3) > 0).then(|| NOON + offsets[any(6)]);
                Row { created, ..row(ids[any(5)], NOON + offsets[any(6)], 10 * number + n as i64) }
            })
            .collect();
        if started.has(Limit::NoCreatedTimes) {
            kept.iter_mut().flatten().for_each(|row: &mut Row| row.created = None);
        }
        for row in &batch {
            let slot: &mut Option<Row> = &mut kept[row.id as usize];
            if slot.is_none_or(|old| (row.event, row.created) >= (old.event, old.created)) {
                *slot = Some(*row);
            }
        }
        match number % 2 {
            0 => write(store, &table, &batch).await,
            _ => write_serialized(store, &table, &memo, &batch).await,
        }
        let expected = kept.map(|row| (row.map(|row| row.event), row.and_then(|row| row.a), row.and_then(|row| row.b)));
        assert_eq!(rows(store, &table, &ids).await, expected, "after write {number}");
    }
}

/// Dropping a table removes its rows for good.
pub async fn dropping_removes_the_rows(started: &StartedStore) {
    let store = started.store();
    let table = numbers("dropped");
    ensure(store, &[&table]).await;
    write(store, &table, &[row(1, NOON, 1)]).await;
    assert_eq!(value(store, &table, 1).await, Some(1));
    store.update(&[TableChange::Drop(table.clone())]).await.expect("the table is dropped");
    if !started.has(Limit::NoTables) {
        let keys = keys(&[1]);
        let read = OnlineRead { wanted: &table.clone().wanted([0]), keys: &keys };
        assert!(store.read(&[read]).await.is_err(), "the table is gone");
    }
    ensure(store, &[&table]).await;
    assert_eq!(value(store, &table, 1).await, None);
}

/// Names with quotes, dashes, spaces and beyond ASCII.
pub async fn unusual_names_work(started: &StartedStore) {
    let store = started.store();
    let plain = [numbers("a-b"), numbers("select")];
    let odd = [numbers("a b"), numbers("a\"b"), numbers("a'b;--"), numbers("ключ")];
    let mut tables = plain.to_vec();
    if started.has(Limit::PlainTableNames) {
        for table in odd {
            let name = table.view.clone();
            let error = store.update(&[TableChange::Ensure(table)]).await.expect_err("there are no such names");
            assert!(error.message().contains(&name) && error.hint().is_some(), "{error:?}");
        }
    } else {
        tables.extend(odd);
    }
    ensure(store, &tables.iter().collect::<Vec<_>>()).await;
    for (number, table) in tables.iter().enumerate() {
        write(store, table, &[row(1, NOON, number as i64)]).await;
    }
    for (number, table) in tables.iter().enumerate() {
        assert_eq!(value(store, table, 1).await, Some(number as i64), "{}", table.view);
    }
    let odd = table("columns", &[("it's \"a\"", ValueType::Int64), ("b", ValueType::Int64)]);
    ensure(store, &[&odd]).await;
    write(store, &odd, &[row(1, NOON, 7)]).await;
    assert_eq!(value(store, &odd, 1).await, Some(7));
}

/// Writers at the same time: in the end the newest row of each key is there, whole.
pub async fn writers_at_the_same_time_agree(store: &dyn OnlineStore) {
    let table = numbers("race");
    ensure(store, &[&table]).await;
    let table = &table;
    let writes = (0..16i64).map(|writer| async move {
        let rows: Vec<Row> = (0..20).map(|id| row(id, NOON + (writer * 7 % 16) * SECOND, writer * 7 % 16)).collect();
        write(store, table, &rows).await;
    });
    futures::future::join_all(writes).await;
    let ids: Vec<i64> = (0..20).collect();
    assert_eq!(rows(store, table, &ids).await, vec![(Some(NOON + 15 * SECOND), Some(15), Some(-15)); 20]);
}

/// A batch of the preferred size and a bit arrives complete.
pub async fn large_batches_arrive(store: &dyn OnlineStore) {
    let table = numbers("large");
    ensure(store, &[&table]).await;
    let count = (store.preferred_batch_rows() as i64).min(20_000) + 1;
    let batch: Vec<Row> = (0..count).map(|id| row(id, NOON, id)).collect();
    write(store, &table, &batch).await;
    let ids: Vec<i64> = (0..count).rev().collect();
    let found = rows(store, &table, &ids).await;
    assert!(found.iter().zip(&ids).all(|(row, id)| *row == (Some(NOON), Some(*id), Some(-id))));
}

/// A store that tells how fresh a table is tells the truth: the greatest event time, to the part of a second.
pub async fn the_newest_event_time_is_told_or_not_known(store: &dyn OnlineStore) {
    let (table, other) = (numbers("fresh"), numbers("other"));
    ensure(store, &[&table, &other]).await;
    let told = store.newest(&table).await.expect("the table is there");
    if told == NewestValue::NotTold {
        return;
    }
    assert_eq!(told, NewestValue::Empty);
    write(store, &other, &[row(9, NOON + 9 * SECOND, 9)]).await;
    write(store, &table, &[row(1, NOON + 250_000, 1), row(2, NOON, 2), row(3, NOON - SECOND, 3)]).await;
    assert_eq!(store.newest(&table).await.expect("the table is there"), NewestValue::of_micros(Some(NOON + 250_000)));
    write(store, &table, &[row(2, NOON + 2 * SECOND, 4), row(1, NOON - SECOND, 5)]).await;
    let newest = NewestValue::of_micros(Some(NOON + 2 * SECOND));
    assert_eq!(store.newest(&table).await.expect("the table is there"), newest);
}

/// A store with tables is reachable.
pub async fn a_store_in_use_is_reachable(store: &dyn OnlineStore) {
    ensure(store, &[&numbers("there")]).await;
    store.check().await.expect("the store is there");
    assert!(store.preferred_batch_rows() > 0);
    assert!(!store.to_string().is_empty());
}
