//! `plan`, `apply`, `delete` and `teardown`.

use std::sync::Arc;

use feast_core::{Entity, Field, ProjectContents, RegistryObject, ValueType};
use serde_json::json;

use crate::support::{Repository, assert_told, driver_hourly_stats, rides};

/// The definitions of [`rides`] with a changed view and without the service.
fn changed() -> ProjectContents {
    let mut contents = rides();
    let mut view = driver_hourly_stats();
    view.ttl = Some(chrono::TimeDelta::days(2));
    view.description = "What drivers do".to_owned();
    view.features[0].value_type = ValueType::Double;
    view.features.push(Field::new("rating", ValueType::Float));
    contents.put(RegistryObject::FeatureView(Arc::new(view)));
    contents.feature_services.clear();
    contents
}

#[test]
fn everything_is_new_at_first() {
    let repository = Repository::new();
    assert_told!(repository.run(&["plan", "--exit-code"]), @r"
    exit code: 2
    ----- stdout -----
    + project rides
    + entity driver
    + data source driver_stats
    + feature view driver_hourly_stats
    + feature service driver_activity
    + sqlite table rides_driver_hourly_stats

    Plan: 5 to create, 0 to update, 0 to delete; 1 table to create
    ----- stderr -----
    ");
    assert_told!(repository.run(&["apply"]), @r"
    exit code: 0
    ----- stdout -----
    Applying changes for project rides
    Created project rides
    Created entity driver
    Created data source driver_stats
    Created feature view driver_hourly_stats
    Created feature service driver_activity

    Created sqlite table rides_driver_hourly_stats
    ----- stderr -----
    ");
}

#[test]
fn applying_again_changes_nothing() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["plan", "--exit-code"]), @r"
    exit code: 0
    ----- stdout -----
    No changes to registry
    No changes to infrastructure
    ----- stderr -----
    ");
    assert_told!(repository.run(&["apply", "--no-progress"]), @r"
    exit code: 0
    ----- stdout -----
    Applying changes for project rides
    No changes to registry
    No changes to infrastructure
    ----- stderr -----
    ");
}

#[test]
fn a_table_that_the_store_has_lost_is_told_and_comes_back() {
    let repository = Repository::materialized();
    std::fs::remove_file(repository.path().join("data/online.db")).unwrap();
    assert_told!(repository.run(&["plan", "--exit-code", "--out", "plan.json"]), @r"
    exit code: 2
    ----- stdout -----
    No changes to registry
    + sqlite table rides_driver_hourly_stats

    Plan: 0 to create, 0 to update, 0 to delete; 1 table to create
    ----- stderr -----
    ");
    assert_told!(repository.run(&["apply"]), @r"
    exit code: 0
    ----- stdout -----
    Applying changes for project rides
    No changes to registry
    Created sqlite table rides_driver_hourly_stats
    ----- stderr -----
    ");
    assert_told!(repository.run(&["plan", "--exit-code"]), @r"
    exit code: 0
    ----- stdout -----
    No changes to registry
    No changes to infrastructure
    ----- stderr -----
    ");
    // What was approved is done, whether the table is there meanwhile or not.
    assert_told!(repository.run(&["apply", "--plan", "plan.json"]), @r"
    exit code: 0
    ----- stdout -----
    Applying changes for project rides
    No changes to registry
    No changes to infrastructure
    ----- stderr -----
    ");
}

#[test]
fn a_plan_is_made_without_the_online_store() {
    let repository = Repository::applied();
    std::fs::write(repository.path().join("data/online.db"), "not a database, but long enough to be read").unwrap();
    assert_told!(repository.run(&["plan", "--exit-code"]), @r"
    exit code: 0
    ----- stdout -----
    No changes to registry
    No changes to infrastructure
    ----- stderr -----
    warning: the online store does not tell which tables it has, so those that are missing are not listed: could not open the online store (file: [repository]/data/online.db): file is not a database
    ");
}

#[test]
fn changes_are_told_field_by_field() {
    let repository = Repository::applied();
    repository.define(changed());
    assert_told!(repository.run(&["plan", "--skip-source-validation", "--skip-feature-view-validation"]), @r"
    exit code: 0
    ----- stdout -----
    ~ feature view driver_hourly_stats
        description: (empty) -> What drivers do
        features.conv_rate.value_type: FLOAT -> DOUBLE
        features.rating: (none) -> {name: rating, value_type: FLOAT}
        ttl: 86400s -> 172800s
        breaking, used by feature service driver_activity
    ~ sqlite table rides_driver_hourly_stats

    Plan: 0 to create, 1 to update, 0 to delete; 1 table to update

    Not defined here, stays in the registry: feature service driver_activity
    Use `feast apply --prune` to delete what is not defined.
    ----- stderr -----
    ");
    assert_told!(repository.run(&["apply", "--skip-feature-view-validation"]), @r"
    exit code: 0
    ----- stdout -----
    Applying changes for project rides
    Updated feature view driver_hourly_stats
    	description: (empty) -> What drivers do
    	features.conv_rate.value_type: FLOAT -> DOUBLE
    	features.rating: (none) -> {name: rating, value_type: FLOAT}
    	ttl: 86400s -> 172800s

    Updated sqlite table rides_driver_hourly_stats

    Not defined here, stays in the registry: feature service driver_activity
    Use `feast apply --prune` to delete what is not defined.
    ----- stderr -----
    ");
}

#[test]
fn of_what_many_others_define_some_is_named() {
    let repository = Repository::new();
    let mut contents = rides();
    for number in 10..40 {
        let entity = Entity::new(format!("entity_{number}"), "id", ValueType::Int64);
        contents.put(RegistryObject::Entity(Arc::new(entity)));
    }
    repository.define(contents);
    repository.run(&["apply"]);
    repository.define(rides());
    let told = repository.run(&["apply"]);
    assert!(told.contains("stays in the registry: entity entity_29\nand 10 more, which"), "{told}");
    assert!(!told.contains("entity_30"), "{told}");
}

#[test]
fn what_is_not_defined_is_deleted_only_when_asked() {
    let repository = Repository::applied();
    let mut contents = rides();
    contents.feature_services.clear();
    contents.feature_views.clear();
    repository.define(contents);
    assert_told!(repository.run(&["plan", "--prune"]), @r"
    exit code: 0
    ----- stdout -----
    - feature view driver_hourly_stats
        breaking, used by feature service driver_activity
    - feature service driver_activity
        breaking
    - sqlite table rides_driver_hourly_stats

    Plan: 0 to create, 0 to update, 2 to delete; 1 table to drop
    ----- stderr -----
    ");
    assert_told!(repository.run(&["apply", "--prune"]), @r"
    exit code: 0
    ----- stdout -----
    Applying changes for project rides
    Deleted feature view driver_hourly_stats
    Deleted feature service driver_activity

    Deleted sqlite table rides_driver_hourly_stats
    ----- stderr -----
    ");
}

#[test]
fn a_plan_is_also_for_programs() {
    let repository = Repository::applied();
    repository.define(changed());
    assert_told!(repository.run(&["plan", "--skip-feature-view-validation", "--output", "yaml"]), @r"
    exit code: 0
    ----- stdout -----
    project: rides
    changes:
    - action: update
      kind: feature_view
      name: driver_hourly_stats
      fields:
      - field: description
        before: ''
        after: What drivers do
      - field: features.conv_rate.value_type
        before: FLOAT
        after: DOUBLE
      - field: features.rating
        before: null
        after:
          name: rating
          value_type: FLOAT
          tags: {}
          description: ''
          vector_index: false
          vector_search_metric: ''
          vector_length: 0
      - field: ttl
        before: 86400s
        after: 172800s
      class: breaking
      affects:
      - kind: feature_service
        name: driver_activity
    undefined:
    - kind: feature_service
      name: driver_activity
    tables:
    - action: update
      feature_view: driver_hourly_stats
      table: rides_driver_hourly_stats
    warnings: []
    ----- stderr -----
    ");
}

#[test]
fn all_problems_are_told_at_once() {
    let repository = Repository::new();
    let mut contents = rides();
    let mut view = driver_hourly_stats();
    view.entities = vec!["drivr".to_owned()];
    contents.put(RegistryObject::FeatureView(Arc::new(view)));
    repository.define(contents);
    assert_told!(repository.run(&["apply"]), @r"
    exit code: 1
    ----- stdout -----
    Applying changes for project rides
    ----- stderr -----
    error: the definitions have one problem
      features.py:12: feature view `driver_hourly_stats` refers to entity `drivr`, which does not exist
        hint: did you mean `driver`?
    ");
    assert_told!(repository.run(&["entities", "list"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: project `rides` does not exist
    hint: run `feast apply` in the feature repository first
    ");
}

#[test]
fn problems_of_files_are_told_with_their_place() {
    let repository = Repository::new();
    repository.answer(&json!({
        "contents": "",
        "locations": {},
        "problems": [{
            "object": "file `features.py`", "location": "features.py:3",
            "message": "there is no module `pandsa`", "hint": "install `pandsa` where `feast` runs, or correct the import",
        }],
    }));
    assert_told!(repository.run(&["plan"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: the definitions have one problem
      features.py:3: file `features.py` there is no module `pandsa`
        hint: install `pandsa` where `feast` runs, or correct the import
    ");
}

#[test]
fn a_missing_python_is_told() {
    let repository = Repository::new();
    let mut command = repository.command(&["plan"]);
    assert_told!(crate::support::told(command.env("FEAST_PYTHON", "/nowhere/python3")), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: the definitions are Python, and `/nowhere/python3` cannot be started to load them: No such file or directory (os error 2)
    hint: install Python 3 and the wheel of feast-rs, or name an interpreter that has it in FEAST_PYTHON
    ");
}

#[test]
fn a_python_without_the_module_is_told() {
    let repository = Repository::new();
    repository.write("python", "#!/bin/sh\necho 'python: No module named feast' >&2\nexit 1\n");
    assert_told!(repository.run(&["plan"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: the definitions are Python, and `[repository]/python` has no module `feast._repository` to load them
    hint: install the wheel of feast-rs for `[repository]/python`, or name an interpreter that has it in FEAST_PYTHON
    ");
}

#[test]
fn what_the_repository_prints_goes_to_stderr() {
    let repository = Repository::applied();
    let script = "#!/bin/sh\necho 'a warning of the repository' >&2\ncat definitions.json\n";
    repository.write("python", script);
    assert_told!(repository.run(&["plan"]), @r"
    exit code: 0
    ----- stdout -----
    No changes to registry
    No changes to infrastructure
    ----- stderr -----
    a warning of the repository
    ");
}

#[test]
fn objects_in_use_are_not_deleted() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["delete", "driver_hourly_stats"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: feature view `driver_hourly_stats` is still used by feature service `driver_activity`
    hint: delete or change feature service `driver_activity` first
    ");
    assert_told!(repository.run(&["delete", "driver_activity"]), @r"
    exit code: 0
    ----- stdout -----
    Deleted feature service driver_activity
    ----- stderr -----
    ");
    assert_told!(repository.run(&["feature-views", "delete", "driver_hourly_stats"]), @r"
    exit code: 0
    ----- stdout -----
    Deleted feature view driver_hourly_stats
    ----- stderr -----
    ");
    assert_told!(repository.run(&["delete", "driver_activity"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: project `rides` has no object `driver_activity`
    hint: valid names are `driver` and `driver_stats`
    ");
}

#[test]
fn teardown_leaves_nothing_and_can_be_repeated() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["teardown"]), @r"
    exit code: 0
    ----- stdout -----
    Removed project rides
    ----- stderr -----
    ");
    assert_told!(repository.run(&["teardown"]), @r"
    exit code: 0
    ----- stdout -----
    Removed project rides
    ----- stderr -----
    ");
    assert!(!repository.path().join("data/registry.db").exists());
    assert_told!(repository.run(&["entities", "list"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: project `rides` does not exist
    hint: run `feast apply` in the feature repository first
    ");
}

#[test]
fn a_new_version_can_be_recorded_beside_the_current_one() {
    let repository = Repository::materialized();
    let mut contents = rides();
    let mut view = driver_hourly_stats();
    view.features.truncate(1);
    contents.put(RegistryObject::FeatureView(Arc::new(view)));
    repository.define(contents);
    assert_told!(repository.run(&["apply", "--no-promote"]), @r"
    exit code: 0
    ----- stdout -----
    Applying changes for project rides
    Recorded version v1 of feature view driver_hourly_stats; v0 stays the current one

    No changes to infrastructure
    ----- stderr -----
    ");
    assert_told!(repository.run(&["apply", "--no-promote"]), @r"
    exit code: 0
    ----- stdout -----
    Applying changes for project rides
    No changes to registry
    No changes to infrastructure
    ----- stderr -----
    ");
    assert_told!(repository.run(&["get-online-features", "-e", "driver_id=1001", "-f", "driver_hourly_stats:avg_daily_trips", "--output", "table"]), @r"
    exit code: 0
    ----- stdout -----
    driver_id   avg_daily_trips
    1001        30
    ----- stderr -----
    ");
    assert_told!(repository.run(&["plan"]), @r"
    exit code: 0
    ----- stdout -----
    ~ feature view driver_hourly_stats
        features.avg_daily_trips: {name: avg_daily_trips, value_type: INT64} -> (none)
        breaking, used by feature service driver_activity
    ~ sqlite table rides_driver_hourly_stats

    Plan: 0 to create, 1 to update, 0 to delete; 1 table to update
    ----- stderr -----
    ");
}
