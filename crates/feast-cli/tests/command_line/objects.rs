//! Listing and describing what the registry holds.

use crate::support::{Repository, assert_told};

#[test]
fn every_kind_is_listed() {
    let repository = Repository::applied();
    let lists = [
        "projects",
        "entities",
        "data-sources",
        "feature-views",
        "on-demand-feature-views",
        "stream-feature-views",
        "label-views",
        "feature-services",
        "saved-datasets",
        "validation-references",
        "permissions",
        "features",
    ];
    let told: String = lists.iter().map(|kind| format!("{kind}\n{}", repository.run(&[kind, "list"]))).collect();
    assert_told!(told, @"");
}

#[test]
fn lists_are_also_for_programs() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["feature-views", "list", "--output", "json"]), @"");
    assert_told!(repository.run(&["features", "list", "--output", "json"]), @"");
}

#[test]
fn lists_are_filtered_by_tags() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["entities", "list", "--tags", "team:fleet"]), @"");
    assert_told!(repository.run(&["entities", "list", "--tags", "team:fleet,stage:test"]), @"");
    assert_told!(repository.run(&["entities", "list", "--tags", "team"]), @"");
}

#[test]
fn objects_are_described_in_yaml() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["entities", "describe", "driver"]), @"");
    assert_told!(repository.run(&["feature-views", "describe", "driver_hourly_stats"]), @"");
    assert_told!(repository.run(&["projects", "current_project"]), @"");
    assert_told!(repository.run(&["features", "describe", "conv_rate"]), @"");
}

#[test]
fn a_wrong_name_is_told_with_the_right_one() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["entities", "describe", "drver"]), @"");
    assert_told!(repository.run(&["features", "describe", "conv_rat"]), @"");
    assert_told!(repository.run(&["projects", "describe", "ridse"]), @"");
}

#[test]
fn views_are_disabled_and_enabled() {
    let repository = Repository::materialized();
    let view = "driver_hourly_stats";
    assert_told!(repository.run(&["feature-views", "disable", view]), @"");
    assert_told!(repository.run(&["feature-views", "list"]), @"");
    let values = ["get-online-features", "-e", "driver_id=1001", "-f", "driver_hourly_stats:conv_rate"];
    assert_told!(repository.run(&values), @"");
    assert_told!(repository.run(&["feature-views", "enable", view]), @"");
    assert_told!(repository.run(&["feature-views", "enable", view]), @"");
    assert!(repository.output(&values).status.success());
}

#[test]
fn states_follow_each_other() {
    let repository = Repository::materialized();
    let view = "driver_hourly_stats";
    assert_told!(repository.run(&["feature-views", "set-state", view, "GENERATED"]), @"");
    assert_told!(repository.run(&["feature-views", "set-state", view, "materializing"]), @"");
    assert_told!(repository.run(&["feature-views", "set-state", view, "READY"]), @"");
}

#[test]
fn versions_are_listed() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["feature-views", "list-versions", "driver_hourly_stats"]), @"");
}

#[test]
fn the_registry_is_dumped_as_json() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["registry-dump"]), @"");
}

#[test]
fn the_configuration_is_shown_without_secrets() {
    let repository = Repository::new();
    repository.write(
        "feature_store.yaml",
        "project: rides\nregistry:\n  path: postgresql://feast:hunter2@db/feast\n  registry_type: sql\n\
         online_store:\n  type: redis\n  connection_string: redis:6379,password=hunter2\n",
    );
    assert_told!(repository.run(&["configuration"]), @"");
}
