//! Whether the online store is as the registry says.

use std::fs;

use feast_core::ProjectContents;
use serde_json::{Value, json};

use crate::support::Repository;

fn check(repository: &Repository) -> (i32, Value, String) {
    let output = repository.output(&["online-store", "check", "-n", "3", "--output", "json"]);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().unwrap(), report, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_store_is_as_the_registry_says() {
    let repository = Repository::applied();
    let (code, report, stderr) = check(&repository);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let folder = repository.path().canonicalize().unwrap();
    let store = report["online_store"].as_str().unwrap();
    assert!(store.starts_with("sqlite at `") && store.contains(folder.file_name().unwrap().to_str().unwrap()));
    assert_eq!(report["round_trip_ms"]["count"], 3);
    assert!(report["round_trip_ms"]["min"].as_f64() <= report["round_trip_ms"]["median"].as_f64());
    let ok = json!({
        "table": "rides_driver_hourly_stats", "feature_view": "driver_hourly_stats", "state": "ok", "what_to_do": null,
    });
    assert!(report["tables"].as_array().unwrap().contains(&ok), "{report}");
    let text = String::from_utf8(repository.output(&["online-store", "check"]).stdout).unwrap();
    assert!(text.contains("round trip: ") && text.contains("in the median of 20"), "{text}");
}

#[test]
fn lost_tables_are_named_with_what_to_do() {
    let repository = Repository::applied();
    fs::remove_file(repository.path().join("data/online.db")).unwrap();
    let (code, report, stderr) = check(&repository);
    assert_eq!(code, 1);
    assert!(stderr.contains("of the online store need attention"), "{stderr}");
    let missing = json!({
        "table": "rides_driver_hourly_stats", "feature_view": "driver_hourly_stats", "state": "missing",
        "what_to_do": "run `feast apply`, then materialize",
    });
    assert!(report["tables"].as_array().unwrap().contains(&missing), "{report}");
    assert!(repository.output(&["apply"]).status.success());
    assert_eq!(check(&repository).0, 0);
}

#[test]
fn tables_that_no_registry_names_are_told() {
    let repository = Repository::applied();
    repository.write("feature_store.yaml", "project: rides\nregistry: data/another.db\n");
    let mut nothing = ProjectContents::default();
    nothing.project.name = "rides".to_owned();
    repository.define(nothing);
    assert!(repository.output(&["apply"]).status.success());
    let (code, report, _) = check(&repository);
    assert_eq!(code, 1);
    let unknown = json!({
        "table": "rides_driver_hourly_stats", "feature_view": null, "state": "unknown to the registry",
        "what_to_do": "drop it, when no other registry names it",
    });
    assert!(report["tables"].as_array().unwrap().contains(&unknown), "{report}");
}

#[test]
fn a_store_that_is_not_there_is_said() {
    let repository = Repository::applied();
    let yaml = "project: rides\nregistry: data/registry.db\nonline_store: {type: postgres, host: 127.0.0.1, port: 1, \
                database: d, user: u, password: secret}\n";
    repository.write("feature_store.yaml", yaml);
    let (code, report, stderr) = check(&repository);
    assert_eq!((code, report), (1, Value::Null));
    assert!(stderr.contains("could not connect to the online store") && stderr.contains("hint: "), "{stderr}");
    assert!(!stderr.contains("secret"), "{stderr}");
}
