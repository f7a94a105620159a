//! Writes of a few rows into the same table at the same time, by callers on one thread: one of them writes the rows of all,
//! because a call of the script costs more than what it does to one row.

use std::sync::{Arc, Mutex};

use feast_core::SerializedRows;
use hashbrown::HashMap;
use tokio::runtime::{self, Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use super::node::lock;
use super::writing::FieldNames;

/// Rows of one write that may go with others, and of all that go together.
const FEW_ROWS: usize = 16;
const MOST_ROWS: usize = 64;

/// A table that a thread writes: its names are remembered where the table is, so that they are the same for the same table.
type Place = (runtime::Id, usize);

/// Who waits, by thread and table.
#[derive(Default)]
pub(super) struct Together(Mutex<HashMap<Place, Waiting>>);

/// Rows after those of whoever came first, and whom to tell that they are written.
#[derive(Default)]
struct Waiting {
    later: Option<SerializedRows>,
    others: Vec<oneshot::Sender<()>>,
}

/// What a caller does.
pub(super) enum Joined<'t> {
    /// Writes its rows.
    Alone,
    /// Writes its rows and those of who joins until it takes them.
    First(Turn<'t>),
    /// Waits for whoever writes its rows; an error means that nobody does any more.
    After(oneshot::Receiver<()>),
}

/// Whoever came first. When it is dropped before it took the rows of others, they write them themselves.
pub(super) struct Turn<'t> {
    together: &'t Together,
    place: Place,
}

impl Together {
    pub(super) fn join(&self, names: &Arc<FieldNames>, rows: &SerializedRows) -> Joined<'_> {
        let thread = Handle::try_current().ok().filter(|it| it.runtime_flavor() == RuntimeFlavor::CurrentThread);
        let Some(thread) = thread.filter(|_| rows.len() <= FEW_ROWS) else { return Joined::Alone };
        let place = (thread.id(), Arc::as_ptr(names) as usize);
        let mut all = lock(&self.0);
        let Some(waiting) = all.get_mut(&place) else {
            all.insert(place, Waiting::default());
            return Joined::First(Turn { together: self, place });
        };
        match &mut waiting.later {
            None => waiting.later = Some(rows.clone()),
            Some(later) if later.len() + rows.len() <= MOST_ROWS => later.append(rows),
            Some(_) => return Joined::Alone,
        }
        let (tell, told) = oneshot::channel();
        waiting.others.push(tell);
        Joined::After(told)
    }
}

impl Turn<'_> {
    /// The rows of others, if there are any, and whom to tell when they are written.
    pub(super) fn take(self) -> Option<(SerializedRows, Vec<oneshot::Sender<()>>)> {
        let Waiting { later, others } = lock(&self.together.0).remove(&self.place)?;
        Some((later?, others))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Nothing is there any more once the rows were taken: nobody else begins a turn meanwhile.
        drop(lock(&self.together.0).remove(&self.place));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use feast_core::{EntityKeyEncoder, Field, Memo, OnlineStore, OnlineTable, SerializedWrite, Tags, ValueType};
    use feast_testing::services::redis::RedisServer;
    use serde_json::json;

    use super::super::RedisStore;
    use super::*;

    fn table() -> OnlineTable {
        OnlineTable {
            project: "p".to_owned(),
            view: "v".to_owned(),
            join_keys: vec![Field::new("id", ValueType::Int64)],
            columns: vec![Field::new("a", ValueType::Int64)],
            tags: Tags::new(),
        }
    }

    /// A row of one small number.
    fn rows(id: i64, event: i64, number: u8) -> SerializedRows {
        let encoder = EntityKeyEncoder::new(&table().join_keys, 3).unwrap();
        let mut rows = SerializedRows::with_capacity(1, 1);
        let put = |column: Option<usize>, out: &mut Vec<u8>| match column {
            None => encoder.put_key(out, |_| Some(feast_core::Scalar::Integer(id))),
            Some(_) => {
                out.extend_from_slice(&[0x20, number]);
                Some(())
            }
        };
        rows.push(event, None, put).unwrap();
        rows
    }

    #[tokio::test]
    async fn writes_at_the_same_time_go_together() {
        let redis = RedisServer::start();
        let store = RedisStore::connect(&json!({"connection_string": redis.address()})).unwrap();
        let (table, memo) = (table(), Memo::default());
        let write = async |rows: SerializedRows| {
            store.write_serialized(SerializedWrite { table: &table, rows: &rows, memo: &memo }).unwrap().await
        };
        // It opens the connection and loads the script.
        write(rows(0, 1, 0)).await.unwrap();
        drop(redis.command(&["CONFIG", "RESETSTAT"]));
        // Forty entities three times each: the newest time wins, then the later write.
        let all =
            (0..120).map(|at| write(rows(at % 40, if at < 40 { 2_000_000 } else { 1_000_000 + at / 80 }, at as u8)));
        let written = futures::future::join_all(all).await;
        assert!(written.into_iter().all(|written| written.is_ok()));
        let calls = redis.command(&["INFO", "commandstats"]);
        let calls = calls.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap().to_owned();
        let calls: usize = calls.split(',').next().unwrap().parse().unwrap();
        assert!(calls < 80, "{calls}");
        let wanted = table.clone().wanted([0]);
        let keys = arrow::array::RecordBatch::try_from_iter([(
            "id",
            Arc::new((0..40i64).collect::<arrow::array::Int64Array>()) as arrow::array::ArrayRef,
        )]);
        let keys = EntityKeyEncoder::new(&table.join_keys, 3).unwrap().encode(keys.unwrap()).unwrap();
        let read = store.read(&[feast_core::OnlineRead { wanted: &wanted, keys: &keys }]).await.unwrap().remove(0);
        let expected: arrow::array::Int64Array = (0..40i64).collect();
        assert_eq!(read.values.column(0).as_ref(), &expected as &dyn arrow::array::Array);
    }

    #[tokio::test]
    async fn whoever_waits_for_one_who_is_called_off_is_told() {
        let (together, table) = (Together::default(), table());
        let names = Arc::new(FieldNames::of(&table));
        let first = together.join(&names, &rows(1, 1, 1));
        let Joined::After(told) = together.join(&names, &rows(2, 1, 2)) else { panic!("nobody came before") };
        assert!(matches!(together.join(&Arc::new(FieldNames::of(&table)), &rows(3, 1, 3)), Joined::First(_)));
        drop(first);
        assert!(told.await.is_err());
        let Joined::First(turn) = together.join(&names, &rows(2, 1, 2)) else { panic!("the place is taken") };
        let Joined::After(_) = together.join(&names, &rows(4, 1, 4)) else { panic!("nobody came before") };
        let (later, others) = turn.take().unwrap();
        assert_eq!((later.len(), others.len()), (1, 1));
        assert!(matches!(together.join(&names, &rows(5, 1, 5)), Joined::First(_)));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn on_threads_that_share_work_each_writes_alone() {
        let (together, names) = (Together::default(), Arc::new(FieldNames::of(&table())));
        assert!(matches!(together.join(&names, &rows(1, 1, 1)), Joined::Alone));
    }
}
