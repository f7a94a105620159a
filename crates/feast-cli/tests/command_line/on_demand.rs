//! On-demand feature views in the program that is not Python: with a Python beside it, and without.

use std::sync::Arc;

use feast_core::{
    FeatureView, FeatureViewKind, FeatureViewProjection, Field, OnDemandFeatures, OnDemandSource, RegistryObject,
    Transformation, UserDefinedFunction, ValueType,
};

use crate::support::{Repository, assert_told, rides, told};

/// The rides with a view that makes percents of rates.
fn repository() -> Repository {
    let repository = Repository::new();
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
    view.features = vec![Field::new("percent", ValueType::Int64)];
    let mut contents = rides();
    contents.put(RegistryObject::FeatureView(Arc::new(view)));
    repository.define(contents);
    assert!(repository.output(&["apply", "--skip-feature-view-validation"]).status.success());
    assert!(repository.output(&["materialize", "2026-11-20", "2026-11-21"]).status.success());
    repository
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
    hint: install feast-rs in that Python, or name an interpreter that has it in FEAST_PYTHON
    ");
    // What is stored needs no Python.
    let stored = ["get-online-features", "-e", "driver_id=1001", "-f", "driver_hourly_stats:conv_rate"];
    assert!(repository.command(&stored).env("FEAST_PYTHON", "/no/python").output().unwrap().status.success());
}
