//! What the command makes of its arguments.

use crate::support::{Repository, assert_told, feast, told};

#[test]
fn help_names_every_command() {
    assert_told!(told(&mut feast(&["--help"])), @"");
}

#[test]
fn the_version_is_told_as_scripts_expect() {
    let told = told(&mut feast(&["version"])).replace(env!("CARGO_PKG_VERSION"), "[version]");
    assert_told!(told, @"");
}

#[test]
fn an_unknown_command_is_wrong_usage() {
    assert_told!(told(&mut feast(&["appply"])), @"");
}

#[test]
fn a_time_that_is_none_is_wrong_usage() {
    assert_told!(told(&mut feast(&["materialize-incremental", "tomorrow"])), @"");
}

#[test]
fn materialize_needs_both_times_or_none() {
    assert_told!(told(&mut feast(&["materialize", "2026-11-20"])), @"");
}

#[test]
fn commands_of_later_versions_say_so() {
    assert_told!(told(&mut feast(&["ui", "--port", "8888"])), @"");
    assert_told!(told(&mut feast(&["serve", "-t", "grpc"])), @"");
}

#[test]
fn a_folder_without_configuration_is_told() {
    let folder = tempfile::TempDir::new().unwrap();
    let told = told(feast(&["plan"]).current_dir(folder.path()));
    assert_told!(told.replace(&folder.path().canonicalize().unwrap().display().to_string(), "[folder]"), @"");
}

#[test]
fn a_folder_that_does_not_exist_is_told() {
    assert_told!(told(&mut feast(&["-c", "/nowhere", "plan"])), @"");
}

#[test]
fn the_repository_can_be_somewhere_else() {
    let repository = Repository::applied();
    let elsewhere = tempfile::TempDir::new().unwrap();
    let path = repository.path().display().to_string();
    let mut by_flag = feast(&["-c", &path, "entities", "list"]);
    let mut by_variable = feast(&["entities", "list"]);
    by_variable.env("FEATURE_REPO_DIR_ENV_VAR", &path);
    let told_by_flag = told(by_flag.current_dir(elsewhere.path()));
    assert_eq!(told_by_flag, told(by_variable.current_dir(elsewhere.path())));
    assert!(told_by_flag.contains("driver"), "{told_by_flag}");
}

#[test]
fn another_configuration_keeps_the_folder() {
    let repository = Repository::applied();
    let elsewhere = tempfile::TempDir::new().unwrap();
    let file = elsewhere.path().join("production.yaml");
    std::fs::write(&file, "project: rides\nregistry: data/registry.db\n").unwrap();
    let told = repository.run(&["-f", &file.display().to_string(), "entities", "list"]);
    assert!(told.starts_with("exit code: 0") && told.contains("driver"), "{told}");
}

#[test]
fn completions_are_scripts() {
    for shell in ["bash", "zsh", "fish"] {
        let told = told(&mut feast(&["completion", shell]));
        assert!(told.starts_with("exit code: 0") && told.contains("materialize-incremental"), "{shell}");
    }
}

#[test]
fn output_into_a_pipe_has_no_escape_codes() {
    let repository = Repository::new();
    assert!(!repository.run(&["apply"]).contains('\x1b'));
    assert!(repository.run(&["--color", "always", "feature-views", "describe", "nope"]).contains('\x1b'));
}

#[test]
fn help_is_quick() {
    let quickest = (0..3)
        .map(|_| {
            let started = std::time::Instant::now();
            assert!(feast(&["--help"]).output().unwrap().status.success());
            started.elapsed()
        })
        .min()
        .unwrap();
    // The promise is 50 ms for a release build on an idle machine; this one is neither.
    assert!(quickest.as_millis() < 500, "{quickest:?}");
}
