//! How hashes are read: together, field by field or whole.

use futures::future::join_all;

use super::*;

#[tokio::test]
async fn one_request_asks_once_per_entity() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({}));
    let tables = [drivers("proj", "one"), drivers("proj", "two"), drivers("proj", "three")];
    for table in &tables {
        write(&store, table, &[(1, T0, 10), (2, T0, 20)]).await;
    }
    let keys = keys(&[1, 2, 3]);
    let wanted = tables.map(|table| table.wanted([1]));
    let reads = wanted.each_ref().map(|wanted| OnlineRead { wanted, keys: &keys });
    let answers = store.read(&reads).await.unwrap();
    let values = answers.iter().map(|answer: &OnlineRows| answer.values.column(0).as_primitive::<Int64Type>().value(1));
    assert_eq!((values.collect::<Vec<i64>>(), calls(&server, "hmget")), (vec![20, 20, 20], 3));
}

#[tokio::test]
async fn commands_of_many_callers_go_out_together() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({}));
    let table = drivers("proj", "driver_stats");
    write(&store, &table, &[(1, T0, 10)]).await;
    let packets = || -> u64 {
        let told = server.command(&["INFO", "stats"]);
        let line = told.lines().find_map(|line| line.strip_prefix("total_reads_processed:")).unwrap();
        line.trim().parse().unwrap()
    };
    // All connections are open afterwards.
    join_all((0..4).map(|_| trips(&store, &table, &[1]))).await;
    let before = packets();
    join_all((0..64).map(|_| trips(&store, &table, &[1]))).await;
    let sent = packets() - before;
    assert!(sent < 10, "{sent} packets for 64 commands");
}

#[tokio::test]
async fn whole_hashes_are_read_where_that_is_less_work() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({}));
    let columns: Vec<Field> = (0..20).map(|number| Field::new(format!("f{number}"), ValueType::Int64)).collect();
    let (table, other) = (OnlineTable { columns, ..drivers("proj", "wide") }, drivers("proj", "other"));
    // Hashes of different fields in different orders.
    write(&store, &other, &[(3, T0, 10)]).await;
    let ids = keys(&[1, 2, 3]);
    let number = |row: i64, column: i64| 100 * row + column;
    let arrays =
        (0..20).map(|column| Arc::new(Int64Array::from_iter_values((1..4).map(|row| number(row, column)))) as ArrayRef);
    let rows = record_batch(&table.columns, arrays.collect(), 3).unwrap();
    let times = TimestampMicrosecondArray::from(vec![T0; 3]);
    let wide =
        OnlineWrite { table: &table, keys: &ids, rows: &rows, event_timestamps: &times, created_timestamps: None };
    store.write(wide).await.unwrap();
    write(&store, &other, &[(1, T0, 20)]).await;

    let asked = keys(&[3, 9, 1, 2]);
    let (backwards, some): (Vec<usize>, Vec<usize>) = ((0..20).rev().collect(), (5..14).collect());
    let trips = async |columns: &[usize]| {
        let reads = [
            OnlineRead { wanted: &table.clone().wanted(columns.iter().copied()), keys: &asked },
            OnlineRead { wanted: &other.clone().wanted([1]), keys: &asked },
            OnlineRead { wanted: &table.clone().wanted([7, 0]), keys: &asked },
        ];
        let answers = store.read(&reads).await.unwrap();
        let of = |answer: &OnlineRows, column: usize| {
            answer.values.column(column).as_primitive::<Int64Type>().iter().collect::<Vec<_>>()
        };
        for (position, column) in columns.iter().enumerate() {
            let value = |row: i64| Some(number(row, *column as i64));
            assert_eq!(of(&answers[0], position), [value(3), None, value(1), value(2)]);
        }
        assert_eq!(of(&answers[1], 0), [Some(10), None, Some(20), None]);
        assert_eq!(of(&answers[2], 0), [Some(307), None, Some(107), Some(207)]);
        let there = |answer: &OnlineRows| answer.event_timestamps.iter().map(|time| time.is_some()).collect::<Vec<_>>();
        assert_eq!(
            (there(&answers[0]), there(&answers[1])),
            (vec![true, false, true, true], vec![true, false, true, false])
        );
        (calls(&server, "hmget"), calls(&server, "hgetall"))
    };
    assert_eq!(trips(&backwards).await, (4, 0), "nothing is known of the hashes");
    assert_eq!(trips(&backwards).await, (4, 4), "most of each hash is wanted");
    assert_eq!(trips(&some[..1]).await, (8, 4), "few fields are wanted");
    assert_eq!(trips(&some).await, (8, 8), "at least half");
    assert_eq!(trips(&some[..6]).await, (12, 8), "less than half");
}

#[tokio::test]
async fn large_first_reads_wait_until_it_is_known_how_hashes_are_kept() {
    const KEYS: usize = 500;
    let server = RedisServer::start();
    let columns: Vec<Field> = (0..20).map(|number| Field::new(format!("f{number}"), ValueType::Int64)).collect();
    let table = OnlineTable { columns, ..drivers("proj", "wide") };
    let ids = keys(&(0..KEYS as i64).collect::<Vec<_>>());
    let numbers = Arc::new((0..KEYS as i64).collect::<Int64Array>()) as ArrayRef;
    let rows = record_batch(&table.columns, vec![numbers; 20], KEYS).unwrap();
    let times = TimestampMicrosecondArray::from(vec![T0; KEYS]);
    let write =
        OnlineWrite { table: &table, keys: &ids, rows: &rows, event_timestamps: &times, created_timestamps: None };
    store(&server.address(), json!({})).write(write).await.unwrap();
    // What is known of hashes is kept with what is wanted.
    let wanted = || table.clone().wanted(0..20);
    let asked = || {
        let commands = ["hlen", "object|encoding", "hmget", "hgetall"];
        let asked = commands.map(|command| calls(&server, command));
        server.command(&["CONFIG", "RESETSTAT"]);
        asked
    };
    asked();

    // Many that come at the same time to a store that has just started.
    let (first, first_wanted) = (store(&server.address(), json!({})), wanted());
    let reads = join_all((0..8).map(async |_| {
        let rows = first.read(&[OnlineRead { wanted: &first_wanted, keys: &ids }]).await.unwrap().remove(0);
        rows.values.column(19).as_primitive::<Int64Type>().values().to_vec()
    }));
    for values in reads.await {
        assert!(values.into_iter().eq(0..KEYS as i64));
    }
    let [lengths, encodings, one_by_one, whole] = asked();
    assert_eq!((one_by_one, whole), (0, 8 * KEYS as i64), "nobody reads in the wrong way before the answer is there");
    assert!((1..=8).contains(&lengths) && encodings == lengths, "{lengths} and {encodings} questions");

    // It is not asked again.
    first.read(&[OnlineRead { wanted: &first_wanted, keys: &ids }]).await.unwrap();
    assert_eq!(asked(), [0, 0, 0, KEYS as i64]);

    // A small read does not wait: it asks beside what it reads.
    let (second, few) = (store(&server.address(), json!({})), keys(&[1, 2]));
    second.read(&[OnlineRead { wanted: &wanted(), keys: &few }]).await.unwrap();
    assert_eq!(asked(), [1, 1, 2, 0]);

    // One of entities that are not there learns nothing, and is answered all the same.
    let (third, absent) = (store(&server.address(), json!({})), keys(&(1000..1500).collect::<Vec<_>>()));
    let rows = third.read(&[OnlineRead { wanted: &wanted(), keys: &absent }]).await.unwrap().remove(0);
    assert_eq!(rows.event_timestamps.null_count(), KEYS);
    assert_eq!(asked()[2..], [KEYS as i64, 0]);
}

/// Hashes with twelve fields of `view` behind those of 16 other views.
async fn layered(store: &RedisStore, ids: &[i64]) -> (OnlineTable, OnlineTable) {
    let columns: Vec<Field> = (0..11).map(|number| Field::new(format!("f{number}"), ValueType::Int64)).collect();
    let tables =
        (0..16).map(|number| OnlineTable { columns: columns.clone(), ..drivers("proj", &format!("v{number}")) });
    let tables: Vec<OnlineTable> = tables.collect();
    let keys = keys(ids);
    let times = TimestampMicrosecondArray::from(vec![T0; ids.len()]);
    for table in &tables {
        let arrays =
            (0..11).map(|column| Arc::new(ids.iter().map(|id| id + column).collect::<Int64Array>()) as ArrayRef);
        let rows = record_batch(&table.columns, arrays.collect(), ids.len()).unwrap();
        let write = OnlineWrite { table, keys: &keys, rows: &rows, event_timestamps: &times, created_timestamps: None };
        store.write(write).await.unwrap();
    }
    (tables[0].clone(), tables[15].clone())
}

#[tokio::test]
async fn where_the_fields_lie_decides_how_they_are_read() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({}));
    let (first, last) = layered(&store, &[1, 2]).await;
    let keys = keys(&[2, 1]);
    for (table, ways) in [(first, [(2, 0), (2, 2), (4, 2)]), (last, [(0, 2), (0, 4), (0, 6)])] {
        server.command(&["CONFIG", "RESETSTAT"]);
        // As a feature service does that names a view under three names.
        let wanted = [0, 1, 2].map(|_| table.clone().wanted(0..11));
        for way in ways {
            let reads = wanted.each_ref().map(|wanted| OnlineRead { wanted, keys: &keys });
            for answer in store.read(&reads).await.unwrap() {
                let column = |at: usize| answer.values.column(at).as_primitive::<Int64Type>().values().to_vec();
                assert_eq!((column(0), column(10)), (vec![2, 1], vec![12, 11]));
            }
            assert_eq!((calls(&server, "hmget"), calls(&server, "hgetall")), way, "{}", table.view);
        }
    }
}

#[tokio::test]
async fn more_whole_hashes_than_may_be_on_their_way_are_read_in_turn() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({}));
    let ids: Vec<i64> = (0..100).collect();
    let (_, table) = layered(&store, &ids).await;
    let keys = keys(&ids);
    let wanted = [0, 1, 2].map(|_| table.clone().wanted(0..11));
    let read = async || {
        let reads = wanted.each_ref().map(|wanted| OnlineRead { wanted, keys: &keys });
        for answer in store.read(&reads).await.unwrap() {
            let numbers = answer.values.column(3).as_primitive::<Int64Type>();
            assert_eq!(numbers.values().to_vec(), ids.iter().map(|id| id + 3).collect::<Vec<_>>());
        }
    };
    read().await;
    // Of 192 fields each: ten times as many as a connection asks for at once.
    join_all((0..32).map(|_| read())).await;
    assert!(calls(&server, "hgetall") >= 3200);
}

#[tokio::test]
async fn tables_are_not_read_whole_for_some_fields() {
    let server = RedisServer::start();
    server.command(&["CONFIG", "SET", "hash-max-listpack-entries", "4"]);
    let store = store(&server.address(), json!({}));
    let (table, _) = layered(&store, &[1]).await;
    let keys = keys(&[1]);
    for _ in 0..3 {
        let wanted = [0, 1, 2].map(|_| table.clone().wanted(0..11));
        store.read(&wanted.each_ref().map(|wanted| OnlineRead { wanted, keys: &keys })).await.unwrap();
    }
    assert_eq!((calls(&server, "hmget"), calls(&server, "hgetall")), (3, 0));
}

#[tokio::test]
async fn an_account_that_may_not_ask_for_shapes_reads_all_the_same() {
    let server = RedisServer::start();
    let admin = store(&server.address(), json!({}));
    let (table, _) = layered(&admin, &[1]).await;
    server.command(&["ACL", "SETUSER", "reader", "on", ">secret", "~*", "+ping", "+hmget", "+hgetall"]);
    let reader = store(&format!("{},username=reader,password=secret", server.address()), json!({}));
    let wanted = table.wanted(0..11);
    for _ in 0..3 {
        let answer = reader.read(&[OnlineRead { wanted: &wanted, keys: &keys(&[1]) }]).await.unwrap().remove(0);
        assert_eq!(answer.values.column(10).as_primitive::<Int64Type>().value(0), 11);
    }
}

#[tokio::test]
async fn a_hash_of_very_many_fields_is_not_taken_whole() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({}));
    let (_, table) = layered(&store, &[1, 2]).await;
    let wanted = [0, 1, 2].map(|_| table.clone().wanted(0..11));
    let read = async |ids: &[i64]| {
        let keys = keys(ids);
        let reads = wanted.each_ref().map(|wanted| OnlineRead { wanted, keys: &keys });
        let answers = store.read(&reads).await.unwrap();
        answers[2].values.column(10).as_primitive::<Int64Type>().values().to_vec()
    };
    for _ in 0..2 {
        assert_eq!(read(&[1, 2]).await, [11, 12]);
    }
    assert_eq!(calls(&server, "hgetall"), 2, "these are read whole");
    let widen = "local key = redis.call('KEYS', '*')[1] \
                 for at = 1, 100000 do redis.call('HSET', key, 'field' .. at, 'something of a length') end";
    server.command(&["EVAL", widen, "0"]);
    // Other calls of the connection that brought it go on.
    let others = join_all((0..8).map(|_| read(&[2, 1]))).await;
    assert!(others.iter().all(|values| *values == [12, 11]), "{others:?}");
    let whole = calls(&server, "hgetall");
    assert_eq!(read(&[1, 2]).await, [11, 12]);
    assert_eq!(calls(&server, "hgetall"), whole, "never again");
}
