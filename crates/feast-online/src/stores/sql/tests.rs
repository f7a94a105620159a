//! What the tests of these stores share, and what all of them promise beyond the promises of every store: what happens
//! when several processes write, each with connections of its own.

#![allow(clippy::unwrap_used, reason = "tests")]

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::Int64Type;
use feast_core::{EntityKeyEncoder, EntityKeys, Field, ValueType};
use tokio::task::JoinHandle;

use super::*;
use crate::write::record_batch;

pub(in super::super) fn table(columns: &[(&str, ValueType)]) -> OnlineTable {
    OnlineTable {
        project: "p".to_owned(),
        view: "v".to_owned(),
        join_keys: vec![Field::new("id", ValueType::Int64)],
        columns: columns.iter().map(|(name, value_type)| Field::new(*name, *value_type)).collect(),
        tags: feast_core::Tags::new(),
    }
}

fn keys(ids: &[i64]) -> EntityKeys {
    let encoder = EntityKeyEncoder::new(&[Field::new("id", ValueType::Int64)], 3).unwrap();
    let ids = Arc::new(Int64Array::from(ids.to_vec())) as ArrayRef;
    encoder.encode(RecordBatch::try_from_iter([("id", ids)]).unwrap()).unwrap()
}

pub(in super::super) fn int(value: i64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![value]))
}

/// Writes the same row for some entities.
pub(in super::super) async fn write(
    store: &dyn OnlineStore,
    table: &OnlineTable,
    ids: &[i64],
    event: i64,
    row: &[ArrayRef],
) -> Result<()> {
    let positions = UInt32Array::from(vec![0; ids.len()]);
    let repeated = row.iter().map(|cell| take(cell, &positions, None).unwrap());
    let write = OnlineWrite {
        table,
        keys: &keys(ids),
        rows: &record_batch(&table.columns, repeated.collect(), ids.len()).unwrap(),
        event_timestamps: &TimestampMicrosecondArray::from(vec![event; ids.len()]),
        created_timestamps: None,
    };
    store.write(write).await
}

pub(in super::super) async fn ensure(store: &dyn OnlineStore, table: &OnlineTable) {
    store.update(&[TableChange::Ensure(table.clone())]).await.unwrap();
}

/// Event time and numbers of one entity.
pub(in super::super) async fn read(
    store: &dyn OnlineStore,
    table: &OnlineTable,
    id: i64,
) -> Result<(Option<i64>, Vec<Option<i64>>)> {
    let wanted = table.clone().wanted(0..table.columns.len());
    let mut answers = store.read(&[OnlineRead { wanted: &wanted, keys: &keys(&[id]) }]).await?;
    let answer = answers.remove(0);
    let number = |column: &ArrayRef| column.is_valid(0).then(|| column.as_primitive::<Int64Type>().value(0));
    let time = answer.event_timestamps.is_valid(0).then(|| answer.event_timestamps.value(0));
    Ok((time, answer.values.columns().iter().map(number).collect()))
}

pub(in super::super) async fn all_features_of_a_row_decide_together<D: Dialect>(store: SqlStore<D>) {
    let narrow = table(&[("b", ValueType::Int64)]);
    let wide = table(&[("a", ValueType::Int64), ("b", ValueType::Int64)]);
    ensure(&store, &narrow).await;
    write(&store, &narrow, &[1], 10, &[int(1)]).await.unwrap();
    // An older row must not give a value to the feature that is new.
    write(&store, &wide, &[1, 2], 9, &[int(2), int(2)]).await.unwrap();
    assert_eq!(read(&store, &wide, 1).await.unwrap(), (Some(10), vec![None, Some(1)]));
    assert_eq!(read(&store, &wide, 2).await.unwrap(), (Some(9), vec![Some(2), Some(2)]));
    write(&store, &wide, &[1], 10, &[int(3), int(3)]).await.unwrap();
    assert_eq!(read(&store, &wide, 1).await.unwrap(), (Some(10), vec![Some(3), Some(3)]));
}

/// Writers that share nothing but the server, as processes do, write equally old and older rows of the same few
/// entities; whoever reads meanwhile sees each row whole and never going back in time.
pub(in super::super) async fn rows_are_never_torn<D: Dialect>(connect: impl Fn() -> SqlStore<D>) {
    let names: Vec<String> = (0..8).map(|n| format!("f{n}")).collect();
    let table = table(&names.iter().map(|name| (name.as_str(), ValueType::Int64)).collect::<Vec<_>>());
    ensure(&connect(), &table).await;
    let writer = |number: i64| {
        let (store, table) = (connect(), table.clone());
        async move {
            for round in 0..20 {
                // Half of the events are shared by all writers, so that ties are frequent.
                let event = round / 2 * 2;
                let mut ids = if number % 2 == 0 { vec![1, 2, 3] } else { vec![3, 1] };
                ids.push(100 + round);
                let row: Vec<ArrayRef> = table.columns.iter().map(|_| int(round * 10 + number)).collect();
                write(&store, &table, &ids, event, &row).await.unwrap();
            }
        }
    };
    let writers: Vec<_> = (0..6).map(|number| tokio::spawn(writer(number))).collect();
    let reader = connect();
    let (mut newest, mut seen) = (None, 0);
    while seen < 20 || !writers.iter().all(JoinHandle::is_finished) {
        let (time, values) = read(&reader, &table, 1).await.unwrap();
        assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "torn: {values:?}");
        assert!(time >= newest, "{time:?} after {newest:?}");
        assert!(values[0].is_none_or(|value| time == Some(value / 10 / 2 * 2)), "{time:?} with {values:?}");
        newest = time;
        seen += 1;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(read(&reader, &table, 1).await.unwrap().0, Some(18));
}

pub(in super::super) async fn tables_may_be_made_by_many_at_once<D: Dialect>(connect: impl Fn() -> SqlStore<D>) {
    let table = table(&[("n", ValueType::Int64)]);
    let update = || async {
        let store = connect();
        for _ in 0..3 {
            ensure(&store, &table).await;
        }
    };
    futures::future::join_all((0..6).map(|_| update())).await;
    let store = connect();
    write(&store, &table, &[1], 1, &[int(5)]).await.unwrap();
    assert_eq!(read(&store, &table, 1).await.unwrap(), (Some(1), vec![Some(5)]));
}
