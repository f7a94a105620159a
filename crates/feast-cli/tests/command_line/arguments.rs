//! What the command makes of its arguments.

use crate::support::{Repository, assert_told, feast, told};

#[test]
fn help_names_every_command() {
    assert_told!(told(&mut feast(&["--help"])), @r"
    exit code: 0
    ----- stdout -----
    Define features once, train on their past, serve their present

    Usage: feast [OPTIONS] <COMMAND>

    Commands:
      init                     Make a new feature repository
      plan                     Show what `apply` would change, and change nothing
      apply                    Make the registry and the online store like the definitions
      materialize              Load the newest values of a span of time into the online store
      materialize-incremental  Load the newest values since the last run into the online store
      get-online-features      Read the newest values of features from the online store
      get-historical-features  Join features to rows as they were known at the time of each row
      serve                    Serve online features over HTTP
      serve_transformations    Run the functions of on-demand feature views for other servers, over gRPC
      serve_registry           Serve the registry to other machines, over gRPC and REST
      explain                  Say how an answer comes about
      freshness                Show how old the newest value of each feature view is, online and offline
      teardown                 Remove the project with its online tables and its registry entries
      projects                 Show projects
      entities                 Show and delete entities
      data-sources             Show and delete data sources
      feature-views            Show and change feature views of all kinds but label views
      on-demand-feature-views  Show and delete on-demand feature views
      stream-feature-views     Show and delete stream feature views
      label-views              Show and delete label views
      feature-services         Show and delete feature services
      features                 Show features
      saved-datasets           Show and delete saved datasets
      validation-references    Show and delete validation references
      permissions              Show and delete permissions
      online-store             Look after the online store
      delete                   Delete one object, of whatever kind, and the online table of a view
      registry                 Look at the history of the registry, go back in it, create its tables
      registry-dump            Print everything the registry holds of this project
      doctor                   Examine the configuration and the registry, and change nothing
      configuration            Show the configuration with defaults filled in and secrets masked
      endpoint                 Show the address of the deployed feature server
      version                  Show the version
      completion               Print the completion script of a shell
      help                     Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Global options:
      -c, --chdir <DIR>                Work in this feature repository instead of the current directory
                                       [env: FEATURE_REPO_DIR_ENV_VAR]
      -f, --feature-store-yaml <FILE>  Read this configuration instead of the repository's
                                       `feature_store.yaml`; definitions and relative paths stay those
                                       of the repository [env: FEAST_FS_YAML_FILE_PATH]
          --log-level <LEVEL>          Least important messages to log [possible values: debug, info,
                                       warning, error, critical]
          --output <FORMAT>            How to print data; the default depends on the command [env:
                                       FEAST_OUTPUT] [possible values: table, json, yaml]
          --color <WHEN>               When to use colours [default: auto] [possible values: auto,
                                       always, never]
    ----- stderr -----
    ");
}

#[test]
fn the_version_is_told_as_scripts_expect() {
    let told = told(&mut feast(&["version"])).replace(env!("CARGO_PKG_VERSION"), "[version]");
    assert_told!(told, @r#"
    exit code: 0
    ----- stdout -----
    Feast SDK Version: "[version]"
    ----- stderr -----
    "#);
}

#[test]
fn an_unknown_command_is_wrong_usage() {
    assert_told!(told(&mut feast(&["appply"])), @r"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: unrecognized subcommand 'appply'

      tip: a similar subcommand exists: 'apply'

    Usage: feast [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
}

#[test]
fn a_time_that_is_none_is_wrong_usage() {
    assert_told!(told(&mut feast(&["materialize-incremental", "tomorrow"])), @r"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: invalid value 'tomorrow' for '<END_TS>': not a time; write `2026-11-23`, `2026-11-23T12:30:00` or `2026-11-23T12:30:00+01:00`; without an offset it is UTC

    For more information, try '--help'.
    ");
}

#[test]
fn materialize_needs_both_times_or_none() {
    assert_told!(told(&mut feast(&["materialize", "2026-11-20"])), @r"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: START_TS and END_TS are required, unless --disable-event-timestamp is given

    Usage: feast materialize [OPTIONS] [START_TS] [END_TS]

    For more information, try '--help'.
    ");
}

#[test]
fn commands_of_later_versions_say_so() {
    assert_told!(told(&mut feast(&["ui", "--port", "8888"])), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: `feast ui` is not available yet
    ");
    assert_told!(told(&mut feast(&["serve", "-t", "grpc"])), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: the server does not speak gRPC yet
    hint: leave out `--type grpc` to serve over HTTP
    ");
}

#[test]
fn a_folder_without_configuration_is_told() {
    let folder = tempfile::TempDir::new().unwrap();
    let told = told(feast(&["plan"]).current_dir(folder.path()));
    assert_told!(told.replace(&folder.path().canonicalize().unwrap().display().to_string(), "[folder]"), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: there is no configuration file `[folder]/feature_store.yaml`
    hint: run `feast` inside a feature repository, name one with `--chdir`, or make one with `feast init`
    ");
}

#[test]
fn a_folder_that_does_not_exist_is_told() {
    assert_told!(told(&mut feast(&["-c", "/nowhere", "plan"])), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: there is no directory `/nowhere`
    hint: name a feature repository with `--chdir`
    ");
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

#[test]
fn options_that_stand_before_the_command_are_told_where_they_stand() {
    let repository = Repository::new();
    assert_told!(repository.run(&["plan", "-f", "production.yaml"]), @r"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: unexpected argument '-f' found

      tip: `-f` stands before the command: `feast -f … COMMAND`

    Usage: feast plan [OPTIONS]

    For more information, try '--help'.
    ");
    assert_told!(repository.run(&["apply", "--chdir", "elsewhere"]), @r"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: unexpected argument '--chdir' found

      tip: `--chdir` stands before the command: `feast --chdir … COMMAND`

    Usage: feast apply [OPTIONS]

    For more information, try '--help'.
    ");
}

#[test]
fn a_folder_is_no_configuration() {
    assert_told!(Repository::new().run(&["-f", "data", "plan"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: `[repository]/data` is a folder, not a configuration file
    hint: name the file in it; to work in another folder, name that with `--chdir`
    ");
}
