//! On-demand feature views in the program that is not Python: with a Python beside it, and without.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;

use feast_core::{
    FeatureView, FeatureViewKind, FeatureViewProjection, Field, OnDemandFeatures, OnDemandSource, ProjectContents,
    RegistryObject, Transformation, UserDefinedFunction, ValueType,
};

use serde_json::Value;

use crate::support::{Repository, assert_told, make_executable, rides, told};

/// The rides with a view that makes percents of rates.
fn repository() -> Repository {
    let repository = Repository::new();
    repository.define(with_percents(vec![Field::new("percent", ValueType::Int64)]));
    assert!(repository.output(&["apply", "--skip-feature-view-validation"]).status.success());
    assert!(repository.output(&["materialize", "2026-11-20", "2026-11-21"]).status.success());
    repository
}

/// The rides, and the view with this schema.
fn with_percents(schema: Vec<Field>) -> ProjectContents {
    let source = FeatureViewProjection {
        feature_view_name: "driver_hourly_stats".to_owned(),
        features: vec![Field::new("conv_rate", ValueType::Float)],
        ..FeatureViewProjection::default()
    };
    let function = UserDefinedFunction {
        name: "percents".to_owned(),
        body_text:
            "def percents(inputs):\n    return {'percent': [None if one is None else round(100 * one) for one in \
                    inputs['conv_rate']]}\n"
                .to_owned(),
        mode: "python".to_owned(),
        ..UserDefinedFunction::default()
    };
    let on_demand = OnDemandFeatures {
        sources: [("driver_hourly_stats".to_owned(), OnDemandSource::Projection(source))].into(),
        transformation: Some(Transformation::UserDefinedFunction(function)),
        mode: "python".to_owned(),
        ..OnDemandFeatures::default()
    };
    let mut view = FeatureView::new("percents", FeatureViewKind::OnDemand(on_demand));
    view.features = schema;
    let mut contents = rides();
    contents.put(RegistryObject::FeatureView(Arc::new(view)));
    contents
}

const READ: [&str; 7] =
    ["get-online-features", "-e", "driver_id=1001,1002", "-f", "percents:percent", "--output", "table"];

#[test]
fn a_python_beside_the_program_computes_them() {
    let repository = repository();
    let python = std::env::var("FEAST_PYTHON").expect("FEAST_PYTHON names a Python that has the module `feast`");
    assert_told!(told(repository.command(&READ).env("FEAST_PYTHON", python)), @r"
    exit code: 0
    ----- stdout -----
    driver_id   percent
    1001        30
    1002
    ----- stderr -----
    ");
}

#[test]
fn without_python_one_sentence_says_which_view_and_why() {
    let repository = repository();
    assert_told!(told(repository.command(&READ).env("FEAST_PYTHON", "/no/python")), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: on-demand feature view `percents` cannot be computed: `/no/python` cannot be started: No such file or directory (os error 2)
    hint: install feast-rs in that Python, name an interpreter that has it in FEAST_PYTHON, or a transformation server in `feature_server.transformation_service_endpoint`
    ");
    // What is stored needs no Python.
    let stored = ["get-online-features", "-e", "driver_id=1001", "-f", "driver_hourly_stats:conv_rate"];
    assert!(repository.command(&stored).env("FEAST_PYTHON", "/no/python").output().unwrap().status.success());
}

/// A running program that logs as JSON; it is killed when this is dropped.
struct Running {
    process: Child,
    log: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Running {
    fn start(command: &mut std::process::Command) -> Self {
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(process.stderr.take().unwrap()).lines();
        Self { process, log }
    }

    /// What the next line says that has this key.
    fn told(&mut self, key: &str) -> Value {
        let line = self.log.find_map(|line| {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap_or_default();
            line.get(key).is_some().then_some(line)
        });
        line.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn python() -> String {
    std::env::var("FEAST_PYTHON").expect("FEAST_PYTHON names a Python that has the module `feast`")
}

fn with_endpoint(repository: &Repository, endpoint: &str) {
    let text = format!(
        "project: rides\nregistry: data/registry.db\nfeature_server: {{type: local, transformation_service_endpoint: \"{endpoint}\"}}\n"
    );
    repository.write("feature_store.yaml", &text);
}

#[test]
fn a_transformation_server_computes_them_for_a_program_without_python() {
    let repository = repository();
    let mut serve = repository.command(&["serve_transformations", "--port", "0"]);
    let mut server = Running::start(serve.env("FEAST_PYTHON", python()));
    let listens = server.told("address")["address"].as_str().unwrap().to_owned();
    // On all addresses, as Feast's server.
    let (host, port) = listens.rsplit_once(':').unwrap();
    assert!(["[::]", "0.0.0.0"].contains(&host), "{listens}");
    let address = format!("127.0.0.1:{port}");
    with_endpoint(&repository, &address);
    let without_python = || {
        let mut command = repository.command(&READ);
        command.env_remove("FEAST_PYTHON").env("PATH", "/nowhere");
        command
    };
    assert_told!(told(&mut without_python()), @r"
    exit code: 0
    ----- stdout -----
    driver_id   percent
    1001        30
    1002
    ----- stderr -----
    ");
    drop(server);
    let told = told(&mut without_python()).replace(&address, "[address]");
    assert_told!(told, @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: on-demand feature view `percents` was not computed by the transformation server at `[address]`: Connection refused (os error 111)
    hint: start `feast serve_transformations` there, or name a Python that has feast-rs in FEAST_PYTHON
    ");
}

#[test]
fn an_endpoint_that_is_none_is_told() {
    let repository = repository();
    with_endpoint(&repository, "https://models.example");
    assert_told!(told(repository.command(&READ).env_remove("FEAST_PYTHON")), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: `feature_server.transformation_service_endpoint` is `https://models.example`, expected a host and a port
    hint: write it as `localhost:6569`
    ");
}

#[test]
fn a_server_without_python_says_at_its_start_which_views_it_cannot_serve() {
    let repository = repository();
    let mut serve = repository.command(&["serve", "--port", "0", "--no-access-log"]);
    let mut server = Running::start(serve.env("FEAST_PYTHON", "/no/python"));
    let line = server.told("views");
    assert_eq!(line["views"], "percents");
    let reason = line["reason"].as_str().unwrap();
    assert!(reason.contains("`/no/python` cannot be started"), "{reason}");
    assert!(line["hint"].as_str().unwrap().contains("transformation_service_endpoint"), "{line}");
}

#[test]
fn what_is_applied_is_tried_by_python_even_where_a_transformation_server_computes() {
    let repository = Repository::new();
    repository.define(with_percents(Vec::new()));
    with_endpoint(&repository, "127.0.0.1:9");
    std::fs::create_dir(repository.path().join("bin")).unwrap();
    let answer = repository.path().join("definitions.json");
    let script = |worker: &str| {
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *feast._repository*) /bin/cat '{}';; *) {worker};; esac\n",
            answer.display()
        );
        repository.write("bin/python3", &script);
        make_executable(&repository.path().join("bin/python3"));
    };
    let run = |arguments: &[&str]| {
        let mut command = repository.command(arguments);
        told(command.env_remove("FEAST_PYTHON").env("PATH", repository.path().join("bin")))
    };
    script("exit 3");
    for command in ["plan", "apply"] {
        let told = run(&[command]);
        assert!(told.starts_with("exit code: 1") && told.contains("`percents`"), "{told}");
        assert!(told.contains("name an interpreter that has it in FEAST_PYTHON"), "{told}");
    }
    script(&format!("exec '{}' \"$@\"", python()));
    assert!(run(&["apply"]).starts_with("exit code: 0"));
    let described = run(&["on-demand-feature-views", "describe", "percents"]);
    assert!(described.contains("percent") && described.contains("INT64"), "{described}");
}

#[test]
fn a_server_of_functions_that_should_ask_who_calls_does_not_start() {
    let repository = repository();
    let text = "project: rides\nregistry: data/registry.db\nauth: {type: oidc, auth_discovery_url: \"http://127.0.0.1:9\", client_id: feast}\n";
    repository.write("feature_store.yaml", text);
    let told = repository.run(&["serve_transformations", "--port", "0"]);
    assert!(told.starts_with("exit code: 1"), "{told}");
    assert!(
        told.contains("asks for `auth` of type `oidc`, which this server cannot enforce yet, so it does not start"),
        "{told}"
    );
}
