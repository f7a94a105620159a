//! Servers that are guarded, away, paused, elsewhere, or no Redis at all.

use std::time::{Duration, Instant};

use feast_testing::services::redis::{Certificates, free_port, wait_for};

use super::*;

#[tokio::test]
async fn passwords_and_users_are_used_and_never_shown() {
    let server = RedisServer::start_with(&["--requirepass", "s3cret"]);
    server.command(&["ACL", "SETUSER", "feast", "on", ">pa=ss", "~*", "+@all"]);
    server.command(&["ACL", "SETUSER", "reader", "on", ">r3ader", "~*", "+@read", "+@connection"]);
    let table = drivers("proj", "stats");
    for login in ["password=s3cret", "username=feast,password=pa=ss", "username=default,password=\"s3cret\""] {
        let store = store(&format!("{},{login}", server.address()), json!({}));
        write(&store, &table, &[(1, T0, 10)]).await;
        assert_eq!(trips(&store, &table, &[1]).await, [Some(10)]);
        let shown = format!("{store} {store:?}");
        assert!(!shown.contains("s3cret") && !shown.contains("pa=ss"), "{shown}");
    }
    for (login, code) in
        [("", "NOAUTH"), (",password=wr0ng", "WRONGPASS"), (",username=nobody,password=wr0ng", "WRONGPASS")]
    {
        let store = store(&format!("{}{login}", server.address()), json!({}));
        let error = try_trips(&store, &table, &[1]).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::PermissionDenied);
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(code) && shown.contains("`password`") && !shown.contains("wr0ng"), "{shown}");
        assert_eq!(store.check().await.unwrap_err().code(), ErrorCode::PermissionDenied);
    }
    let reader = store(&format!("{},username=reader,password=r3ader", server.address()), json!({}));
    assert_eq!(trips(&reader, &table, &[1]).await, [Some(10)]);
    let error = try_write(&reader, &table, &[(1, T0, 10)]).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::PermissionDenied);
    assert!(error.hint().unwrap().contains("+@scripting"), "{error:?}");
}

fn encrypted_server(names: &[&str]) -> (RedisServer, [String; 3], Certificates) {
    let certificates = Certificates::make(names);
    let files = [certificates.authority(), certificates.certificate(), certificates.key()];
    let [authority, certificate, key] = files.map(|file| file.display().to_string());
    let port = free_port().to_string();
    let mut arguments = vec!["--port", "0", "--tls-port", &port, "--tls-auth-clients", "optional"];
    arguments.extend(["--tls-ca-cert-file", &authority, "--tls-cert-file", &certificate, "--tls-key-file", &key]);
    let server = RedisServer::start_with(&arguments);
    (server, [authority, certificate, key], certificates)
}

#[tokio::test]
async fn connections_are_encrypted_and_certificates_checked() {
    let (server, [authority, certificate, key], _certificates) = encrypted_server(&["localhost", "127.0.0.1"]);
    let table = drivers("proj", "stats");
    let with = |settings: &str| store(&format!("{},ssl=true,{settings}", server.address()), json!({}));
    let trusted = format!("ssl_ca_certs={authority}");
    let ours = format!("{trusted},ssl_certfile={certificate},ssl_keyfile={key}");
    for settings in [trusted.as_str(), &ours, "ssl_cert_reqs=none"] {
        let store = with(settings);
        write(&store, &table, &[(1, T0, 10)]).await;
        let many: Vec<(i64, i64, i64)> = (0..3000).map(|id| (id, T0, 20)).collect();
        write(&store, &table, &many).await;
        assert_eq!(trips(&store, &table, &[1, 2999]).await, [Some(20), Some(20)], "{settings}");
    }
    let error = try_trips(&with(""), &table, &[1]).await.unwrap_err();
    assert!(error.hint().unwrap().contains("ssl_ca_certs"), "{error:?}");
    let plain = store(&server.address(), json!({}));
    let error = try_trips(&plain, &table, &[1]).await.unwrap_err();
    assert!(error.hint().unwrap().contains("ssl=true"), "{error:?}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_unless_told_otherwise() {
    let (server, [authority, ..], _certificates) = encrypted_server(&["redis.example.com"]);
    let table = drivers("proj", "stats");
    let with =
        |settings: &str| store(&format!("{},ssl=true,ssl_ca_certs={authority}{settings}", server.address()), json!({}));
    let error = try_trips(&with(""), &table, &[1]).await.unwrap_err();
    assert!(error.to_string().contains("redis.example.com"), "{error}");
    assert_eq!(trips(&with(",ssl_check_hostname=false"), &table, &[1]).await, [None]);
    // Another authority is refused all the same.
    let others = Certificates::make(&[]);
    let other = others.authority().display().to_string();
    let store =
        store(&format!("{},ssl=true,ssl_ca_certs={other},ssl_check_hostname=false", server.address()), json!({}));
    assert!(try_trips(&store, &table, &[1]).await.is_err());
}

/// Runs a call that has to fail, and how long it took.
async fn failure(store: &RedisStore, table: &OnlineTable) -> (feast_core::Error, Duration) {
    let start = Instant::now();
    (try_trips(store, table, &[1]).await.unwrap_err(), start.elapsed())
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_quickly() {
    let address = format!("127.0.0.1:{}", free_port());
    let store = store(&address, json!({}));
    let (error, took) = failure(&store, &drivers("proj", "stats")).await;
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert!(error.to_string().contains(&address) && took < Duration::from_secs(2), "{error} {took:?}");
    assert_eq!(store.check().await.unwrap_err().code(), ErrorCode::Unavailable);
}

#[tokio::test]
async fn a_restarted_server_is_used_again() {
    let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = store(&server.address(), json!({}));
    let table = drivers("proj", "stats");
    write(&store, &table, &[(1, T0, 10)]).await;
    server.kill();
    assert_eq!(failure(&store, &table).await.0.code(), ErrorCode::Unavailable);
    server.start_again();
    assert_eq!(trips(&store, &table, &[1]).await, [Some(10)]);
    // Scripts are gone with the process.
    write(&store, &table, &[(1, T0 + 1, 20)]).await;
    assert_eq!(trips(&store, &table, &[1]).await, [Some(20)]);
}

#[tokio::test]
async fn a_write_outlasts_a_restart() {
    let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = Arc::new(store(&server.address(), json!({})));
    let table = drivers("proj", "stats");
    write(&*store, &table, &[(1, T0, 10)]).await;
    server.kill();
    let writing = tokio::spawn({
        let (store, table) = (Arc::clone(&store), table.clone());
        async move { try_write(&*store, &table, &[(1, T0, 20)]).await }
    });
    let starting = tokio::task::spawn_blocking(move || {
        server.start_again();
        server
    });
    let server = starting.await.unwrap();
    writing.await.unwrap().unwrap();
    assert_eq!(trips(&*store, &table, &[1]).await, [Some(20)]);
    drop(server);
}

#[tokio::test]
async fn a_paused_server_costs_bounded_time_and_is_used_again() {
    let server = RedisServer::start();
    let store = store(&format!("{},socket_timeout=0.4,socket_connect_timeout=0.3", server.address()), json!({}));
    let table = drivers("proj", "stats");
    write(&store, &table, &[(1, T0, 10)]).await;
    server.pause();
    // On the open connection, then on attempts to open another.
    for _ in 0..3 {
        let (error, took) = failure(&store, &table).await;
        assert_eq!(error.code(), ErrorCode::Timeout, "{error}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    let start = Instant::now();
    let many = futures::future::join_all((0..200).map(|_| try_trips(&store, &table, &[1]))).await;
    assert!(many.iter().all(Result::is_err) && start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(try_write(&store, &table, &[(1, T0, 20)]).await.unwrap_err().code(), ErrorCode::Timeout);
    server.resume();
    wait_until_read(&store, &table, &[1]).await;
}

/// Waits until reads succeed again.
async fn wait_until_read(store: &RedisStore, table: &OnlineTable, ids: &[i64]) -> Vec<Option<i64>> {
    let start = Instant::now();
    loop {
        match try_trips(store, table, ids).await {
            Ok(found) => return found,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(30), "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_connections_under_load_give_no_wrong_value() {
    let server = RedisServer::start();
    let store = Arc::new(store(&server.address(), json!({})));
    let table = Arc::new(drivers("proj", "stats"));
    let rows: Vec<(i64, i64, i64)> = (0..1000).map(|id| (id, T0, id)).collect();
    write(&*store, &table, &rows).await;
    let readers: Vec<_> = (0..16i64)
        .map(|reader| {
            let (store, table) = (Arc::clone(&store), Arc::clone(&table));
            tokio::spawn(async move {
                let mut failures = 0;
                for round in 0..200 {
                    let ids: Vec<i64> = (0..20).map(|n| (reader * 61 + round * 17 + n * 7) % 1000).collect();
                    match try_trips(&*store, &table, &ids).await {
                        Ok(found) => assert_eq!(found, ids.iter().copied().map(Some).collect::<Vec<_>>()),
                        Err(error) => {
                            assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
                            failures += 1;
                        }
                    }
                }
                failures
            })
        })
        .collect();
    let killer = tokio::task::spawn_blocking(move || {
        for _ in 0..20 {
            server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        }
        server
    });
    let mut failures = 0;
    for reader in readers {
        failures += reader.await.unwrap();
    }
    // Calls are tried again; rarely one loses its connection every time.
    assert!(failures < 100, "{failures} of 3200 reads failed");
    let server = killer.await.unwrap();
    assert_eq!(wait_until_read(&store, &table, &[7]).await, [Some(7)]);
    drop(server);
}

#[tokio::test]
async fn what_is_no_redis_is_told() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::AsyncWriteExt;
            drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
        }
    });
    let (error, _) = failure(&store(&address, json!({})), &drivers("proj", "stats")).await;
    assert!(error.to_string().contains("does not speak the protocol of Redis"), "{error}");
}

#[tokio::test]
async fn a_foreign_value_under_our_key_is_told() {
    let server = RedisServer::start();
    let store = store(&server.address(), json!({}));
    let table = drivers("proj", "stats");
    let set = "redis.call('SET', ARGV[1]:gsub('..', function(h) return string.char(tonumber(h, 16)) end), 'x')";
    server.command(&["EVAL", set, "0", &key_of(1, "proj")]);
    let (error, _) = failure(&store, &table).await;
    assert!(error.message().contains("WRONGTYPE") && error.hint().unwrap().contains("another program"), "{error:?}");
    assert!(try_write(&store, &table, &[(1, T0, 10)]).await.unwrap_err().message().contains("WRONGTYPE"));
}

#[tokio::test]
async fn a_failover_is_followed() {
    let mut servers = RedisSentinel::start();
    let store = of_sentinel(&servers);
    let table = drivers("proj", "stats");
    write(&store, &table, &[(1, T0, 10)]).await;
    assert_eq!(servers.master.command(&["WAIT", "1", "10000"]), "1");
    servers.master.kill();
    let found = wait_until_read(&store, &table, &[1]).await;
    assert_eq!(found, [Some(10)]);
    write(&store, &table, &[(1, T0 + 1, 20)]).await;
    assert_eq!(trips(&store, &table, &[1]).await, [Some(20)]);
    assert!(servers.replica.command(&["ROLE"]).starts_with("master"));
}

/// The old master lives on as a replica, which would answer reads, of old rows.
#[tokio::test]
async fn a_master_that_became_a_replica_is_left() {
    let servers = RedisSentinel::start();
    let options = json!({"redis_type": "redis_sentinel", "sentinel_master": RedisSentinel::MASTER});
    let store = store(&format!("{},client_name=feast", servers.sentinel.address()), options);
    let table = drivers("proj", "stats");
    write(&store, &table, &[(1, T0, 10)]).await;
    assert_eq!(servers.master.command(&["WAIT", "1", "10000"]), "1");
    // The sentinel needs a moment to find the replica good.
    wait_for(|| (servers.sentinel.command(&["SENTINEL", "FAILOVER", RedisSentinel::MASTER]) == "OK").then_some(()));
    wait_for(|| {
        let is = |server: &RedisServer, role| server.command(&["ROLE"]).starts_with(role);
        (is(&servers.replica, "master") && is(&servers.master, "slave")).then_some(())
    });
    wait_for(|| (!servers.master.command(&["CLIENT", "LIST"]).contains("name=feast")).then_some(()));
    assert_eq!(wait_until_read(&store, &table, &[1]).await, [Some(10)]);
    assert!(servers.replica.command(&["CLIENT", "LIST"]).contains("name=feast"));
    assert!(!servers.master.command(&["CLIENT", "LIST"]).contains("name=feast"));
    write(&store, &table, &[(1, T0 + 1, 20)]).await;
    assert_eq!(trips(&store, &table, &[1]).await, [Some(20)]);
}

#[tokio::test]
async fn a_sentinel_that_knows_no_such_master_is_told() {
    let servers = RedisSentinel::shared();
    let options = json!({"redis_type": "redis_sentinel", "sentinel_master": "other"});
    let (error, _) = failure(&store(&servers.sentinel.address(), options), &drivers("proj", "stats")).await;
    assert!(error.to_string().contains("names no master"), "{error}");
}

#[tokio::test]
async fn moved_slots_are_followed() {
    let cluster = RedisCluster::start();
    let store = store(&cluster.servers[0].address(), json!({"redis_type": "redis_cluster"}));
    let table = drivers("proj", "stats");
    let rows: Vec<(i64, i64, i64)> = (0..500).map(|id| (id, T0, id)).collect();
    let ids: Vec<i64> = (0..500).collect();
    let all: Vec<Option<i64>> = ids.iter().copied().map(Some).collect();
    write(&store, &table, &rows).await;
    assert_eq!(trips(&store, &table, &ids).await, all);
    // Slot by slot, some keys are moved while they are asked for; half way there keys are at both nodes.
    let [from, to] = [&cluster.servers[0], &cluster.servers[1]];
    let (from_id, to_id) = (from.command(&["CLUSTER", "MYID"]), to.command(&["CLUSTER", "MYID"]));
    for id in 0..40 {
        let key = [keys(&[id]).encoded.value(0), b"proj"].concat();
        let slot = commands::hash_slot(&key).to_string();
        if from.command(&["CLUSTER", "COUNTKEYSINSLOT", &slot]) == "0" {
            continue;
        }
        to.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
        from.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
        let migrate = "for _, key in ipairs(redis.call('CLUSTER', 'GETKEYSINSLOT', ARGV[1], '100')) do \
            redis.call('MIGRATE', '127.0.0.1', ARGV[2], key, '0', '5000') end";
        let done = from.command(&["EVAL", migrate, "0", &slot, &to.port().to_string()]);
        assert_eq!(done, "", "{done}");
        assert_eq!(trips(&store, &table, &ids).await, all, "asking");
        write(&store, &table, &[(id, T0 + 1, id)]).await;
        for server in &cluster.servers {
            server.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
        }
        assert_eq!(trips(&store, &table, &ids).await, all, "moved");
        write(&store, &table, &[(id, T0 + 2, id)]).await;
    }
    store.update(&[TableChange::Drop(table.clone())]).await.unwrap();
    assert!(cluster.servers.iter().all(|server| server.command(&["DBSIZE"]) == "0"));
}

#[tokio::test]
async fn a_lone_server_is_no_cluster() {
    let server = RedisServer::start();
    let (error, _) =
        failure(&store(&server.address(), json!({"redis_type": "redis_cluster"})), &drivers("proj", "stats")).await;
    assert_eq!(error.code(), ErrorCode::InvalidConfiguration);
    assert!(error.hint().unwrap().contains("`redis_type: redis`"), "{error:?}");
}
