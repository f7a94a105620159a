//! `plan`, `apply`, `delete` and `teardown`.

use std::sync::Arc;

use feast_core::{Field, ProjectContents, RegistryObject, ValueType};
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
    assert_told!(repository.run(&["plan", "--exit-code"]), @"");
    assert_told!(repository.run(&["apply"]), @"");
}

#[test]
fn applying_again_changes_nothing() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["plan", "--exit-code"]), @"");
    assert_told!(repository.run(&["apply", "--no-progress"]), @"");
}

#[test]
fn changes_are_told_field_by_field() {
    let repository = Repository::applied();
    repository.define(changed());
    assert_told!(repository.run(&["plan", "--skip-source-validation", "--skip-feature-view-validation"]), @"");
    assert_told!(repository.run(&["apply", "--skip-feature-view-validation"]), @"");
}

#[test]
fn what_is_not_defined_is_deleted_only_when_asked() {
    let repository = Repository::applied();
    let mut contents = rides();
    contents.feature_services.clear();
    contents.feature_views.clear();
    repository.define(contents);
    assert_told!(repository.run(&["plan", "--prune"]), @"");
    assert_told!(repository.run(&["apply", "--prune"]), @"");
}

#[test]
fn a_plan_is_also_for_programs() {
    let repository = Repository::applied();
    repository.define(changed());
    assert_told!(repository.run(&["plan", "--skip-feature-view-validation", "--output", "yaml"]), @"");
}

#[test]
fn all_problems_are_told_at_once() {
    let repository = Repository::new();
    let mut contents = rides();
    let mut view = driver_hourly_stats();
    view.entities = vec!["drivr".to_owned()];
    contents.put(RegistryObject::FeatureView(Arc::new(view)));
    repository.define(contents);
    assert_told!(repository.run(&["apply"]), @"");
    assert_told!(repository.run(&["entities", "list"]), @"");
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
    assert_told!(repository.run(&["plan"]), @"");
}

#[test]
fn a_missing_python_is_told() {
    let repository = Repository::new();
    let mut command = repository.command(&["plan"]);
    assert_told!(crate::support::told(command.env("FEAST_PYTHON", "/nowhere/python3")), @"");
}

#[test]
fn a_python_without_the_module_is_told() {
    let repository = Repository::new();
    repository.write("python", "#!/bin/sh\necho 'python: No module named feast' >&2\nexit 1\n");
    assert_told!(repository.run(&["plan"]), @"");
}

#[test]
fn what_the_repository_prints_goes_to_stderr() {
    let repository = Repository::applied();
    let script = "#!/bin/sh\necho 'a warning of the repository' >&2\ncat definitions.json\n";
    repository.write("python", script);
    assert_told!(repository.run(&["plan"]), @"");
}

#[test]
fn objects_in_use_are_not_deleted() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["delete", "driver_hourly_stats"]), @"");
    assert_told!(repository.run(&["delete", "driver_activity"]), @"");
    assert_told!(repository.run(&["feature-views", "delete", "driver_hourly_stats"]), @"");
    assert_told!(repository.run(&["delete", "driver_activity"]), @"");
}

#[test]
fn teardown_leaves_nothing_and_can_be_repeated() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["teardown"]), @"");
    assert_told!(repository.run(&["teardown"]), @"");
    assert!(!repository.path().join("data/registry.db").exists());
    assert_told!(repository.run(&["entities", "list"]), @"");
}
