//! `registry`, saved plans and `doctor`.

use std::fs;
use std::process::Command;

use feast_core::{Entity, Project, ProjectContents, RegistryObject, ValueType};
use serde_json::Value;

use crate::support::{Repository, driver_hourly_stats, rides};

fn json(repository: &Repository, arguments: &[&str]) -> Value {
    let output = repository.output(&[arguments, &["--output", "json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Defines the view with another description.
fn describe(repository: &Repository, description: &str) {
    let mut contents = rides();
    let mut view = driver_hourly_stats();
    view.description = description.to_owned();
    contents.put(RegistryObject::FeatureView(view.into()));
    repository.define(contents);
}

fn description(repository: &Repository) -> String {
    json(repository, &["feature-views", "describe", "driver_hourly_stats"])["spec"]["description"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn apply(repository: &Repository, description: &str) {
    describe(repository, description);
    let output = repository.output(&["apply"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A file and a SQL registry behave alike.
fn repositories() -> [Repository; 2] {
    let sql = Repository::new();
    let config = "project: rides\nregistry:\n  registry_type: sql\n  path: sqlite:///data/registry.sqlite\n";
    sql.write("feature_store.yaml", config);
    [Repository::new(), sql]
}

#[test]
fn the_history_is_shown_compared_and_gone_back_in() {
    for repository in repositories() {
        apply(&repository, "one");
        apply(&repository, "two");
        assert!(repository.output(&["materialize", "2026-11-20", "2026-11-21"]).status.success());
        apply(&repository, "three");
        let log = json(&repository, &["registry", "log"]);
        let numbers: Vec<u64> =
            log.as_array().unwrap().iter().map(|commit| commit["number"].as_u64().unwrap()).collect();
        assert_eq!(numbers, [4, 3, 2, 1]);
        assert_eq!(log[0]["author"], "ada@example");
        let field = |commit: &Value| commit["changes"][0]["fields"][0]["field"].clone();
        assert_eq!([field(&log[0]), field(&log[1])], ["description", "materialized"]);
        assert_eq!(json(&repository, &["registry", "log", "-n", "1"]).as_array().unwrap().len(), 1);
        let text = repository.run(&["registry", "log"]);
        assert!(text.contains("~ feature view driver_hourly_stats"), "{text}");
        assert!(text.contains("description: two -> three"), "{text}");

        let diff = json(&repository, &["registry", "diff", "1", "4"]);
        let fields: Vec<&str> =
            diff[0]["fields"].as_array().unwrap().iter().map(|field| field["field"].as_str().unwrap()).collect();
        assert_eq!(fields, ["description", "materialized", "state"]);
        assert_eq!(diff[0]["fields"][0]["before"], "one");

        let back = repository.run(&["registry", "rollback", "1", "--yes"]);
        assert!(back.contains("Updated feature view") && !back.contains("Not defined here"), "{back}");
        assert_eq!(description(&repository), "one");
        let values = json(&repository, &["registry", "log"]);
        assert_eq!(values[0]["number"], 5);
        // What was materialized is still there, and the way forward is a rollback, too.
        assert_eq!(json(&repository, &["registry", "diff", "3", "5"])[0]["fields"][0]["after"], "one");
        assert!(repository.output(&["registry", "rollback", "4", "--yes"]).status.success());
        assert_eq!(description(&repository), "three");
        let nowhere = repository.output(&["registry", "rollback", "99", "--yes"]);
        assert!(!nowhere.status.success());
        assert!(String::from_utf8_lossy(&nowhere.stderr).contains("the commits 1 to 6, not 99"));
    }
}

#[test]
fn what_was_added_since_is_removed_by_going_back() {
    for repository in repositories() {
        let mut fewer = rides();
        fewer.feature_services.clear();
        repository.define(fewer);
        assert!(repository.output(&["apply"]).status.success());
        repository.define(rides());
        assert!(repository.output(&["apply"]).status.success());
        let services =
            |repository: &Repository| json(repository, &["feature-services", "list"]).as_array().unwrap().len();
        assert_eq!(services(&repository), 1);
        assert!(repository.output(&["registry", "rollback", "1", "--yes"]).status.success());
        assert_eq!(services(&repository), 0);
        assert!(repository.output(&["registry", "rollback", "2", "--yes"]).status.success());
        assert_eq!(services(&repository), 1);
    }
}

#[test]
fn a_saved_plan_is_applied_exactly_or_not_at_all() {
    for repository in repositories() {
        apply(&repository, "one");
        describe(&repository, "two");
        assert!(repository.output(&["plan", "--out", "the.plan"]).status.success());
        // The repository may look different where it is applied: the plan is what counts.
        describe(&repository, "not looked at");
        // A materialization in between does not matter.
        assert!(repository.output(&["materialize", "2026-11-20", "2026-11-21"]).status.success());
        let applied = repository.output(&["apply", "--plan", "the.plan"]);
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        assert_eq!(description(&repository), "two");
        // Once applied, it would do something else.
        let again = repository.output(&["apply", "--plan", "the.plan"]);
        assert!(!again.status.success());
        assert!(String::from_utf8_lossy(&again.stderr).contains("the registry has changed since the plan was made"));

        describe(&repository, "three");
        assert!(repository.output(&["plan", "--out", "the.plan"]).status.success());
        apply(&repository, "in between");
        assert!(!repository.output(&["apply", "--plan", "the.plan"]).status.success());
        assert_eq!(description(&repository), "in between");
        fs::write(repository.path().join("the.plan"), "no plan").unwrap();
        let wrong = repository.output(&["apply", "--plan", "the.plan"]);
        assert!(String::from_utf8_lossy(&wrong.stderr).contains("is not a saved plan"));
    }
}

#[test]
fn twenty_applies_at_the_same_time_lose_nothing() {
    for repository in repositories() {
        let mut children = Vec::new();
        let mut folders = Vec::new();
        for number in 0..20 {
            // Twenty repositories of one project with one registry.
            let other = Repository::new();
            let config = fs::read_to_string(repository.path().join("feature_store.yaml")).unwrap();
            let data = repository.path().join("data");
            let config = config.replace("data/", &format!("{}/", data.display()));
            let online = data.join("online.db");
            other.write(
                "feature_store.yaml",
                &format!("{config}online_store:\n  type: sqlite\n  path: {}\n", online.display()),
            );
            let mut contents = ProjectContents { project: Project::new("rides"), ..ProjectContents::default() };
            let name = format!("entity_{number}");
            contents.put(RegistryObject::Entity(Entity::new(&name, &name, ValueType::Int64).into()));
            other.define(contents);
            let mut command: Command = other.command(&["apply"]);
            children.push(
                command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap(),
            );
            folders.push(other);
        }
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        assert_eq!(json(&repository, &["entities", "list"]).as_array().unwrap().len(), 20);
        assert_eq!(json(&repository, &["registry", "log", "-n", "100"]).as_array().unwrap().len(), 20);
    }
}

#[test]
fn the_doctor_tells_what_is_wrong_without_secrets() {
    let repository = Repository::applied();
    let healthy = json(&repository, &["doctor"]);
    assert!(healthy.as_array().unwrap().iter().all(|finding| finding["severity"] == "note"), "{healthy}");
    assert!(repository.output(&["doctor", "--exit-code"]).status.success());
    repository.write(
        "feature_store.yaml",
        "project: rides\nregistry: data/registry.db\noffline_store:\n  type: file\nauth:\n  type: no_auth\n  password: hush-hush\n",
    );
    fs::remove_file(repository.path().join("data/driver_stats.parquet")).unwrap();
    fs::remove_file(repository.path().join("data/online.db")).unwrap();
    let found = repository.output(&["doctor", "--exit-code"]);
    assert_eq!(found.status.code(), Some(2), "{}", String::from_utf8_lossy(&found.stderr));
    let text = String::from_utf8_lossy(&found.stdout);
    assert!(text.contains("error [secret] feature_store.yaml, line 7"), "{text}");
    assert!(text.contains("error [source] data source `driver_stats`"), "{text}");
    assert!(text.contains("error [online table] online table `rides_driver_hourly_stats` of feature view"), "{text}");
    assert!(text.contains("note [lost rows] feature view `driver_hourly_stats`"), "{text}");
    assert!(!text.contains("hush"), "{text}");
}

#[test]
fn a_sql_registry_can_be_prepared_for_others() {
    let [_, repository] = repositories();
    let config = fs::read_to_string(repository.path().join("feature_store.yaml")).unwrap();
    repository.write("feature_store.yaml", &format!("{config}  schema_mode: verify\n"));
    let missing = repository.output(&["apply"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("feast registry create-schema"));
    assert!(repository.output(&["registry", "create-schema"]).status.success());
    assert!(repository.output(&["apply"]).status.success());
}
