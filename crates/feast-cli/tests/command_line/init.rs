//! New repositories.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::support::{assert_told, feast, told};

fn init(folder: &Path, arguments: &[&str]) -> String {
    let mut command = feast(&["init"]);
    command.args(arguments).current_dir(folder);
    told(&mut command).replace(&folder.canonicalize().unwrap().display().to_string(), "[folder]")
}

fn files(folder: &Path) -> String {
    fn collect(root: &Path, folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(root, &path, found);
            } else {
                found.push(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    let mut found = Vec::new();
    collect(folder, folder, &mut found);
    found.sort();
    found.join("\n")
}

#[test]
fn the_local_template_is_what_users_of_feast_know() {
    let folder = TempDir::new().unwrap();
    assert_told!(init(folder.path(), &["rides"]), @r"
    exit code: 0
    ----- stdout -----
    Created feature repository rides in [folder]/rides
    ----- stderr -----
    next: cd rides/feature_repo && feast apply
    ");
    assert_told!(files(folder.path()), @r"
    rides/.gitignore
    rides/README.md
    rides/feature_repo/__init__.py
    rides/feature_repo/data/driver_stats.parquet
    rides/feature_repo/feature_definitions.py
    rides/feature_repo/feature_store.yaml
    rides/feature_repo/test_workflow.py
    ");
    let repository = folder.path().join("rides/feature_repo");
    assert_told!(fs::read_to_string(repository.join("feature_store.yaml")).unwrap(), @r"
    project: rides
    # Where the definitions are kept once they are applied: a file, next to the data.
    registry: data/registry.db
    provider: local
    # Where the newest values are kept for serving.
    online_store:
      type: sqlite
      path: data/online_store.db
    entity_key_serialization_version: 3
    auth:
      type: no_auth
    ");
    let definitions = fs::read_to_string(repository.join("feature_definitions.py")).unwrap();
    assert!(definitions.contains("Project(name=\"rides\""), "{definitions}");
    assert!(told(feast(&["configuration"]).current_dir(&repository)).starts_with("exit code: 0"));
}

#[test]
fn the_flights_template_brings_its_data() {
    let folder = TempDir::new().unwrap();
    assert!(init(folder.path(), &["-t", "flights", "delays"]).starts_with("exit code: 0"));
    assert_told!(files(folder.path()), @r"
    delays/.gitignore
    delays/README.md
    delays/feature_repo/data/carrier_delays.parquet
    delays/feature_repo/data/timetable.parquet
    delays/feature_repo/data/weather.parquet
    delays/feature_repo/feature_definitions.py
    delays/feature_repo/feature_store.yaml
    ");
}

#[test]
fn a_minimal_repository_is_a_configuration() {
    let folder = TempDir::new().unwrap();
    assert!(init(folder.path(), &["-m", "small", "--repo-path", "somewhere"]).starts_with("exit code: 0"));
    assert_told!(files(folder.path()), @r"
    somewhere/.gitignore
    somewhere/feature_repo/feature_store.yaml
    ");
    let configuration = fs::read_to_string(folder.path().join("somewhere/feature_repo/feature_store.yaml")).unwrap();
    assert!(configuration.starts_with("project: small\n"), "{configuration}");
}

#[test]
fn nothing_is_overwritten() {
    let folder = TempDir::new().unwrap();
    assert!(init(folder.path(), &[]).starts_with("exit code: 0"));
    assert_told!(init(folder.path(), &["feature_store"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: `[folder]/feature_store/.gitignore` exists already
    hint: choose another directory; nothing was written
    ");
    assert!(init(folder.path(), &[]).contains("Created feature repository feature_store_2"));
}

#[test]
fn wrong_names_are_told() {
    let folder = TempDir::new().unwrap();
    assert_told!(init(folder.path(), &["my project"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: `my project` cannot be the name of a project
    hint: use letters, digits, `_` and `-`, starting with a letter or digit
    ");
    assert_told!(init(folder.path(), &["-t", "nope"]), @r"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: invalid value 'nope' for '--template <TEMPLATE>'
      [possible values: local, flights]

    For more information, try '--help'.
    ");
    assert_eq!(files(folder.path()), "");
}

#[test]
fn no_repository_is_made_inside_another() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("rides")).unwrap();
    fs::write(folder.path().join("rides/feature_store.yaml"), "project: old\n").unwrap();
    assert_told!(init(folder.path(), &["rides"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: `[folder]/rides` is a feature repository already: it has a `feature_store.yaml`
    hint: choose another directory; nothing was written
    ");
    assert_told!(init(folder.path(), &["rides/inner/most"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: `[folder]/rides` is a feature repository already, and `feast apply` there would read the new one, too
    hint: choose another directory; nothing was written
    ");
    assert_eq!(files(folder.path()), "rides/feature_store.yaml");
}

#[test]
fn templates_of_feast_that_are_not_here_are_named() {
    let folder = TempDir::new().unwrap();
    assert_told!(init(folder.path(), &["-t", "GCP", "rides"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: the template `gcp` is not available yet
    hint: start from `local`, and name the stores in its feature_store.yaml (CONFIGURATION.md)
    ");
    assert_eq!(files(folder.path()), "");
}
