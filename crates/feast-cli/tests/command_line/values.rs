//! Materializing and reading values.

use crate::support::{Repository, assert_told};

#[test]
fn values_are_materialized_and_read() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["materialize", "2026-11-20T00:00:00", "2026-11-20 01:00:00+00:00"]), @r"
    exit code: 0
    ----- stdout -----
    Materializing feature views from 2026-11-20 00:00:00+00:00 to 2026-11-20 01:00:00+00:00 into the sqlite online store
    driver_hourly_stats from 2026-11-20 00:00:00+00:00 to 2026-11-20 01:00:00+00:00: 2 rows in [duration]
    1 feature view, 2 rows in [duration]
    ----- stderr -----
    ");
    assert_told!(
        repository.run(&[
            "get-online-features", "-e", "driver_id=1001", "-e", "driver_id=1002,9999",
            "-f", "driver_hourly_stats:conv_rate,driver_hourly_stats:avg_daily_trips",
        ]),
        @r#"
    exit code: 0
    ----- stdout -----
    {
      "driver_id": [
        1001,
        1002,
        9999
      ],
      "conv_rate": [
        0.3,
        null,
        null
      ],
      "avg_daily_trips": [
        30,
        40,
        null
      ]
    }
    ----- stderr -----
    "#
    );
    assert_told!(
        repository.run(&[
            "get-online-features", "-e", "driver_id=1001", "--feature-service", "driver_activity",
            "--full-feature-names", "--output", "table",
        ]),
        @r"
    exit code: 0
    ----- stdout -----
    driver_id   driver_hourly_stats__conv_rate
    1001        0.3
    ----- stderr -----
    "
    );
}

#[test]
fn an_incremental_run_goes_on_where_the_last_one_ended() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["materialize-incremental", "2026-11-20T00:30:00Z"]), @r"
    exit code: 0
    ----- stdout -----
    Materializing feature views to 2026-11-20 00:30:00+00:00 into the sqlite online store
    driver_hourly_stats from 2026-11-19 00:30:00+00:00 to 2026-11-20 00:30:00+00:00: 2 rows in [duration]
    1 feature view, 2 rows in [duration]
    ----- stderr -----
    ");
    assert_told!(repository.run(&["materialize-incremental", "2026-11-20T02:00:00Z", "-v", "driver_hourly_stats"]), @r"
    exit code: 0
    ----- stdout -----
    Materializing feature views to 2026-11-20 02:00:00+00:00 into the sqlite online store
    driver_hourly_stats from 2026-11-20 00:30:00+00:00 to 2026-11-20 02:00:00+00:00: 2 rows in [duration]
    1 feature view, 2 rows in [duration]
    ----- stderr -----
    ");
    assert_told!(repository.run(&["materialize-incremental", "2026-11-20T01:00:00Z", "--output", "json"]), @r#"
    exit code: 0
    ----- stdout -----
    {
      "feature_views": [
        {
          "name": "driver_hourly_stats",
          "interval": null,
          "rows": 0
        }
      ]
    }
    ----- stderr -----
    "#);
}

#[test]
fn shards_together_are_one_run() {
    let repository = Repository::applied();
    let span = ["materialize", "2026-11-20T00:00:00", "2026-11-20T01:00:00"];
    let run = |shard: &str| repository.run(&[span.as_slice(), &["--shard", shard]].concat());
    let rows = |told: &str| -> u64 {
        let summary = told.lines().find(|line| line.starts_with("1 feature view, ")).unwrap();
        summary.split(' ').nth(3).unwrap().parse().unwrap()
    };
    let told = ["3/3", "1/3"].map(run);
    assert!(told[0].contains("recorded when these shards have loaded it too: `1/3` and `2/3`"), "{}", told[0]);
    assert!(told[1].contains("recorded when these shards have loaded it too: `2/3`"), "{}", told[1]);
    let view = ["feature-views", "describe", "driver_hourly_stats"];
    let described = repository.run(&view);
    assert!(!described.contains("2026-11-20"), "{described}");
    let last = run("2/3");
    assert!(!last.contains("recorded when"), "{last}");
    assert_eq!(told.iter().chain([&last]).map(|told| rows(told)).sum::<u64>(), 2);
    let described = repository.run(&view);
    assert!(described.contains("2026-11-20"), "{described}");
    assert_told!(repository.run(&["materialize-incremental", "2026-11-21", "--shard", "4/3"]), @r"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: invalid value '4/3' for '--shard <NUMBER/COUNT>': there is no shard 4/3

    For more information, try '--help'.
    ");
}

#[test]
fn all_rows_can_be_materialized_without_times() {
    let repository = Repository::applied();
    let told = repository.run(&["materialize", "--disable-event-timestamp"]);
    assert!(told.contains("1 feature view, 2 rows"), "{told}");
}

#[test]
fn wrong_requests_are_told() {
    let repository = Repository::materialized();
    assert_told!(repository.run(&["materialize", "2026-11-21", "2026-11-20"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: the start 2026-11-21 00:00:00 UTC lies after the end 2026-11-20 00:00:00 UTC
    hint: give a start before the end
    ");
    assert_told!(repository.run(&["materialize-incremental", "2026-11-21", "-v", "driver_stats"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: feature view `driver_stats` does not exist in project `rides`
    hint: valid names are `driver_hourly_stats`
    ");
    let read = |entity: &str, feature: &str| repository.run(&["get-online-features", "-e", entity, "-f", feature]);
    assert_told!(read("driver_id=x", "driver_hourly_stats:conv_rate"), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: column `driver_id` has `x` in row 0, which is not a value of type INT64
    hint: give a value that INT64 can hold
    ");
    assert_told!(read("driver", "driver_hourly_stats:conv_rate"), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: `driver` names no entity
    hint: write it as `driver_id=1001`
    ");
    assert_told!(read("driver_id=1001", "driver_hourly_stats:conv_rat"), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: feature view `driver_hourly_stats` has no feature `conv_rat`
    hint: did you mean `conv_rate`?
    ");
    assert_told!(read("driver_id=1001", "conv_rate"), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: invalid feature reference `conv_rate`
    hint: write `<feature_view>:<feature>` or `<feature_view>@<version>:<feature>`
    ");
}

#[test]
fn history_is_joined_to_given_rows() {
    let repository = Repository::applied();
    let rows = r#"[{"driver_id": 1001, "event_timestamp": "2026-11-20T00:30:00"},
                   {"driver_id": 1002, "event_timestamp": "2026-11-20T03:00:00+01:00"},
                   {"driver_id": 1001, "event_timestamp": "2026-11-19"}]"#;
    let feature = "driver_hourly_stats:avg_daily_trips";
    assert_told!(repository.run(&["get-historical-features", "-d", rows, "-f", feature]), @r#"
    exit code: 0
    ----- stdout -----
    [
        {"driver_id":1001,"event_timestamp":"2026-11-20T00:30:00Z","avg_daily_trips":10},
        {"driver_id":1002,"event_timestamp":"2026-11-20T02:00:00Z","avg_daily_trips":40},
        {"driver_id":1001,"event_timestamp":"2026-11-19T00:00:00Z","avg_daily_trips":null}
    ]
    ----- stderr -----
    "#);
    repository.write("rows.csv", "driver_id,event_timestamp\n1001,2026-11-20T00:30:00Z\n");
    assert_told!(
        repository.run(&["get-historical-features", "-d", "@rows.csv", "-f", feature, "--output", "table"]),
        @r"
    exit code: 0
    ----- stdout -----
    driver_id   event_timestamp        avg_daily_trips
    1001        2026-11-20T00:30:00Z   10
    ----- stderr -----
    "
    );
    assert_told!(repository.run(&["get-historical-features", "-d", "1001", "-f", feature]), @r#"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: the rows of `--dataframe` are neither JSON nor CSV
    hint: write `[{"driver_id": 1001, "event_timestamp": "2026-11-23T12:00:00"}]`, or name a file with `@FILE`
    "#);
}

#[test]
fn a_request_for_history_is_explained_and_checked_for_leaks() {
    let repository = Repository::applied();
    let rows = r#"[{"driver_id": 1001, "event_timestamp": "2026-11-20T00:30:00"}]"#;
    let request = ["get-historical-features", "-d", rows, "-f", "driver_hourly_stats:avg_daily_trips"];
    let told = repository.run(&[&request[..], &["--explain", "--memory-limit", "64 MiB"]].concat());
    // How many bytes a row takes depends on how it was read.
    let words = |line: &str| line.split_whitespace().take(6).collect::<Vec<_>>().join(" ");
    let told: Vec<String> = told.lines().map(words).filter(|line| !line.is_empty()).collect();
    assert_eq!(
        told[..4],
        ["exit code: 0", "----- stdout -----", "step rows bytes time", "entity rows with their features 1"]
    );
    assert!(told.iter().any(|line| line.starts_with("scan of `driver_stats`")), "{told:?}");
    assert_told!(repository.run(&[&request[..], &["--leak-report", "--as-of", "2026-11-19"]].concat()), @r"
    exit code: 0
    ----- stdout -----
    feature_view          feature           has_created_timestamp   changed   not_yet_known
    driver_hourly_stats   avg_daily_trips   true                    1         1
    ----- stderr -----
    ");
    assert_told!(repository.run(&[&request[..], &["--memory-limit", "lots"]].concat()), @r#"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: `memory_limit` of the offline store is "lots", but should be a size such as `512MiB`
    hint: correct it, or leave it out
    "#);
    let told = repository.run(&["materialize", "2026-11-20", "2026-11-21", "--memory-limit", "1 MiB"]);
    assert!(told.starts_with("exit code: 0"), "{told}");
}

#[test]
fn history_is_written_to_files() {
    let repository = Repository::applied();
    let rows = r#"[{"driver_id": 1001, "event_timestamp": "2026-11-20T00:30:00"}]"#;
    let request = ["get-historical-features", "-d", rows, "-f", "driver_hourly_stats:avg_daily_trips"];
    let place = repository.path().join("kept.parquet").display().to_string();
    let save = |more: &[&str]| repository.run(&[&request[..], &["--save", &place], more].concat());
    assert!(save(&[]).contains("kept.parquet\n"));
    // What was written can be asked about again, so its columns are there.
    let kept = format!("@{place}");
    let again = ["get-historical-features", "-d", &kept, "-f", "driver_hourly_stats:conv_rate"];
    assert_told!(repository.run(&[&again[..], &["--output", "yaml"]].concat()), @r"
    exit code: 0
    ----- stdout -----
    - driver_id: 1001
      event_timestamp: '2026-11-20T00:30:00Z'
      avg_daily_trips: 10
      conv_rate: 0.1
    ----- stderr -----
    ");
    let told = save(&[]);
    assert!(told.starts_with("exit code: 1") && told.contains("there is something at"), "{told}");
    assert!(save(&["--explain"]).starts_with("exit code: 2"));
}

#[test]
fn history_is_read_between_two_times() {
    let repository = Repository::applied();
    assert_told!(
        repository.run(&[
            "get-historical-features", "-s", "2026-11-20 00:00:00", "-e", "2026-11-20 00:30:00",
            "--feature-service", "driver_activity",
        ]),
        @r#"
    exit code: 0
    ----- stdout -----
    [
        {"event_timestamp":"2026-11-20T00:00:00Z","driver_id":1001,"conv_rate":0.1},
        {"event_timestamp":"2026-11-20T00:00:00Z","driver_id":1002,"conv_rate":0.2}
    ]
    ----- stderr -----
    "#
    );
}

#[cfg(unix)]
#[test]
fn a_server_says_where_it_listens_and_stops_when_asked() {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::process::Stdio;

    let repository = Repository::materialized();
    let mut server = repository.command(&["serve", "-p", "0"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(server.stderr.take().unwrap());
    let address = loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "the server ended");
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        if let Some(address) = event["address"].as_str() {
            break address.to_owned();
        }
    };
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    let body = r#"{"features": ["driver_hourly_stats:avg_daily_trips"], "entities": {"driver_id": [1001]}}"#;
    let length = body.len();
    let head = format!(
        "POST /get-online-features HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("30"), "{answer}");

    let asked = std::process::Command::new("kill").arg(server.id().to_string()).status().unwrap();
    assert!(asked.success());
    assert_eq!(server.wait().unwrap().code(), Some(0));
}
