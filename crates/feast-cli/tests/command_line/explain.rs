//! Where time and nulls come from.

use serde_json::{Value, json};

use crate::support::Repository;

fn explained(repository: &Repository, arguments: &[&str]) -> Value {
    let output = repository.output(&[&["explain", "online", "--output", "json"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Row, features and cause of each entry.
fn causes(explanation: &Value) -> Vec<Value> {
    let entries = explanation["values"].as_array().unwrap().iter();
    entries.map(|entry| json!([entry["row"], entry["features"], entry["cause"]])).collect()
}

const BOTH: &str = "driver_hourly_stats:conv_rate,driver_hourly_stats:avg_daily_trips";

#[test]
fn every_null_has_a_cause() {
    let repository = Repository::applied();
    let explanation = explained(&repository, &["driver_activity", "--entity", "driver_id=1001"]);
    assert_eq!(causes(&explanation), [json!([0, ["conv_rate"], "never_materialized"])]);
    assert_eq!(explanation["views"][0]["materialized_until"], Value::Null);

    let repository = Repository::materialized();
    let explanation = explained(&repository, &[BOTH, "--entity", "driver_id=1001,1002,9999"]);
    assert_eq!(
        causes(&explanation),
        [
            json!([0, ["conv_rate", "avg_daily_trips"], "served_too_old"]),
            json!([1, ["conv_rate"], "value_null"]),
            json!([1, ["avg_daily_trips"], "served_too_old"]),
            json!([2, ["conv_rate", "avg_daily_trips"], "entity_missing"]),
        ]
    );
    let view = &explanation["views"][0];
    assert_eq!((&view["rows_found"], &view["ttl_seconds"]), (&json!(2), &json!(86400.0)));
    assert_eq!(view["materialized_until"], "2026-11-21T00:00:00Z");
    let phases: Vec<&str> =
        explanation["phases"].as_array().unwrap().iter().map(|phase| phase["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["registry", "plan", "keys", "store", "transform"]);
    let store = &explanation["phases"][3];
    assert!(store["first_ms"].as_f64().unwrap() > 0.0 && store["again_ms"].as_f64().unwrap() > 0.0);

    let hiding = "project: rides\nregistry: data/registry.db\nonline_serving: {ttl_policy: hide}\n";
    repository.write("feature_store.yaml", hiding);
    let explanation = explained(&repository, &[BOTH, "--entity", "driver_id=1001"]);
    assert_eq!(causes(&explanation), [json!([0, ["conv_rate", "avg_daily_trips"], "too_old"])]);
}

#[test]
fn people_get_tables() {
    let repository = Repository::materialized();
    let told = repository.run(&["explain", "online", BOTH, "-e", "driver_id=1002,9999", "--full-feature-names"]);
    for expected in [
        "exit code: 0",
        "PHASE       FIRST",
        "driver_hourly_stats   driver_id   2          1 of 2       1 d   2026-11-21 00:00:00 UTC",
        "0     driver_hourly_stats   driver_hourly_stats__conv_rate                                         value null",
        "there is no row for this entity; materialized until 2026-11-21 00:00:00 UTC",
    ] {
        assert!(told.contains(expected), "{expected} in {told}");
    }
    let told = repository.run(&["explain", "online", "driver_hourly_stats:nope", "-e", "driver_id=1"]);
    assert!(told.contains("error: feature view `driver_hourly_stats` has no feature `nope`"), "{told}");
}
