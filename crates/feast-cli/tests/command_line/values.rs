//! Materializing and reading values.

use crate::support::{Repository, assert_told};

#[test]
fn values_are_materialized_and_read() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["materialize", "2026-11-20T00:00:00", "2026-11-20 01:00:00+00:00"]), @"");
    assert_told!(
        repository.run(&[
            "get-online-features", "-e", "driver_id=1001", "-e", "driver_id=1002,9999",
            "-f", "driver_hourly_stats:conv_rate,driver_hourly_stats:avg_daily_trips",
        ]),
        @""
    );
    assert_told!(
        repository.run(&[
            "get-online-features", "-e", "driver_id=1001", "--feature-service", "driver_activity",
            "--full-feature-names", "--output", "table",
        ]),
        @""
    );
}

#[test]
fn an_incremental_run_goes_on_where_the_last_one_ended() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["materialize-incremental", "2026-11-20T00:30:00Z"]), @"");
    assert_told!(repository.run(&["materialize-incremental", "2026-11-20T02:00:00Z", "-v", "driver_hourly_stats"]), @"");
    assert_told!(repository.run(&["materialize-incremental", "2026-11-20T01:00:00Z", "--output", "json"]), @"");
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
    assert_told!(repository.run(&["materialize", "2026-11-21", "2026-11-20"]), @"");
    assert_told!(repository.run(&["materialize-incremental", "2026-11-21", "-v", "driver_stats"]), @"");
    let read = |entity: &str, feature: &str| repository.run(&["get-online-features", "-e", entity, "-f", feature]);
    assert_told!(read("driver_id=x", "driver_hourly_stats:conv_rate"), @"");
    assert_told!(read("driver", "driver_hourly_stats:conv_rate"), @"");
    assert_told!(read("driver_id=1001", "driver_hourly_stats:conv_rat"), @"");
    assert_told!(read("driver_id=1001", "conv_rate"), @"");
}

#[test]
fn history_is_joined_to_given_rows() {
    let repository = Repository::applied();
    let rows = r#"[{"driver_id": 1001, "event_timestamp": "2026-11-20T00:30:00"},
                   {"driver_id": 1002, "event_timestamp": "2026-11-20T03:00:00+01:00"},
                   {"driver_id": 1001, "event_timestamp": "2026-11-19"}]"#;
    let feature = "driver_hourly_stats:avg_daily_trips";
    assert_told!(repository.run(&["get-historical-features", "-d", rows, "-f", feature]), @"");
    repository.write("rows.csv", "driver_id,event_timestamp\n1001,2026-11-20T00:30:00Z\n");
    assert_told!(
        repository.run(&["get-historical-features", "-d", "@rows.csv", "-f", feature, "--output", "table"]),
        @""
    );
    assert_told!(repository.run(&["get-historical-features", "-d", "1001", "-f", feature]), @"");
}

#[test]
fn history_is_read_between_two_times() {
    let repository = Repository::applied();
    assert_told!(
        repository.run(&[
            "get-historical-features", "-s", "2026-11-20 00:00:00", "-e", "2026-11-20 00:30:00",
            "--feature-service", "driver_activity",
        ]),
        @""
    );
}
