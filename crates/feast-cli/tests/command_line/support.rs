//! A feature repository in a temporary folder, and running the command in it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use arrow::array::{Float32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field as ArrowField, Schema};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use feast_core::{
    BatchFeatures, DataSource, Entity, FeatureService, FeatureView, FeatureViewKind, FeatureViewProjection, Field,
    Project, ProjectContents, RegistryObject, RegistrySnapshot, ValueType,
};
use parquet::arrow::ArrowWriter;
use prost::Message;
use serde_json::json;
use tempfile::TempDir;

/// 2026-11-20T00:00:00Z
const MIDNIGHT: i64 = 1_795_132_800_000_000;
const HOUR: i64 = 3_600_000_000;

/// A feature repository whose definitions are given in Rust. A shell script stands for the Python that would load them.
pub(crate) struct Repository {
    folder: TempDir,
}

impl Repository {
    /// A repository with a configuration and data, but without definitions.
    pub(crate) fn new() -> Self {
        let repository = Self { folder: TempDir::new().unwrap() };
        repository.write("feature_store.yaml", "project: rides\nregistry: data/registry.db\n");
        fs::create_dir(repository.path().join("data")).unwrap();
        fs::write(repository.path().join("data/driver_stats.parquet"), driver_stats()).unwrap();
        let answer = repository.path().join("definitions.json");
        repository.write("python", &format!("#!/bin/sh\ncat '{}'\n", answer.display()));
        make_executable(&repository.path().join("python"));
        repository.define(rides());
        repository
    }

    /// A repository whose definitions are applied.
    pub(crate) fn applied() -> Self {
        let repository = Self::new();
        assert!(repository.output(&["apply"]).status.success());
        repository
    }

    /// A repository whose newest values can be read.
    pub(crate) fn materialized() -> Self {
        let repository = Self::applied();
        assert!(repository.output(&["materialize", "2026-11-20", "2026-11-21"]).status.success());
        repository
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    /// Replaces the definitions.
    pub(crate) fn define(&self, contents: ProjectContents) {
        let mut snapshot = RegistrySnapshot::default();
        snapshot.projects.insert(contents.project.name.clone(), Arc::new(contents));
        let message = feast_proto::registry_from_snapshot(&snapshot, None).encode_to_vec();
        let locations = json!({"feature_view/driver_hourly_stats": "features.py:12"});
        self.answer(&json!({"contents": BASE64.encode(message), "locations": locations, "problems": []}));
    }

    /// Replaces what the loader answers.
    pub(crate) fn answer(&self, answer: &serde_json::Value) {
        self.write("definitions.json", &answer.to_string());
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = feast(arguments);
        command.current_dir(self.path()).env("FEAST_PYTHON", self.path().join("python"));
        command
    }

    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the command and tells how it ended and what it said.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        told(&mut self.command(arguments)).replace(&self.path().display().to_string(), "[repository]")
    }
}

/// The command with nothing from the environment that could change what it does.
pub(crate) fn feast(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_feast"));
    command.args(arguments);
    for variable in [
        "FEATURE_REPO_DIR_ENV_VAR",
        "FEAST_FS_YAML_FILE_PATH",
        "FEAST_OUTPUT",
        "FEAST_PYTHON",
        "RUST_LOG",
        "RUST_BACKTRACE",
        "NO_COLOR",
        "COLUMNS",
    ] {
        command.env_remove(variable);
    }
    command.env("FEAST_AUTHOR", "ada@example");
    command
}

/// Exit code, stdout and stderr in one text.
pub(crate) fn told(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| -> String {
        String::from_utf8(bytes.to_vec()).unwrap().lines().map(|line| format!("{}\n", line.trim_end())).collect()
    };
    format!(
        "exit code: {}\n----- stdout -----\n{}----- stderr -----\n{}",
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr)
    )
}

/// Compares with a snapshot in which times, durations, ids and versions are left out.
macro_rules! assert_told {
    ($told:expr, @$snapshot:literal) => {
        insta::with_settings!({filters => vec![
            (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\.\d{3,9}(Z|\+00:00)", "[time]"),
            (r"in \d+\.\d s\b", "in [duration]"),
            (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "[uuid]"),
        ]}, {
            insta::assert_snapshot!($told, @$snapshot);
        });
    };
}
pub(crate) use assert_told;

/// Driver statistics: an entity, a file, a view and a service.
pub(crate) fn rides() -> ProjectContents {
    let mut contents = ProjectContents {
        project: Project { description: "Rides of a fleet".to_owned(), ..Project::new("rides") },
        ..ProjectContents::default()
    };
    let driver = Entity {
        description: "A driver".to_owned(),
        tags: [("team".to_owned(), "fleet".to_owned())].into(),
        ..Entity::new("driver", "driver_id", ValueType::Int64)
    };
    let mut source = DataSource::file("driver_stats", "data/driver_stats.parquet", "event_timestamp");
    source.created_timestamp_column = "created".to_owned();
    contents.put(RegistryObject::Entity(Arc::new(driver)));
    contents.put(RegistryObject::DataSource(Arc::new(source)));
    contents.put(RegistryObject::FeatureView(Arc::new(driver_hourly_stats())));
    let projection = FeatureViewProjection {
        feature_view_name: "driver_hourly_stats".to_owned(),
        features: vec![Field::new("conv_rate", ValueType::Float)],
        ..FeatureViewProjection::default()
    };
    contents.put(RegistryObject::FeatureService(Arc::new(FeatureService {
        name: "driver_activity".to_owned(),
        projections: vec![projection],
        ..FeatureService::default()
    })));
    contents
}

/// The view of [`rides`].
pub(crate) fn driver_hourly_stats() -> FeatureView {
    let mut source = DataSource::file("driver_stats", "data/driver_stats.parquet", "event_timestamp");
    source.created_timestamp_column = "created".to_owned();
    let batch = BatchFeatures { batch_source: Some(source), ..BatchFeatures::default() };
    let mut view = FeatureView::new("driver_hourly_stats", FeatureViewKind::Batch(batch));
    view.entities = vec!["driver".to_owned()];
    view.features = vec![Field::new("conv_rate", ValueType::Float), Field::new("avg_daily_trips", ValueType::Int64)];
    view.ttl = Some(chrono::TimeDelta::days(1));
    view
}

/// Two drivers, two hours each.
fn driver_stats() -> Vec<u8> {
    let times = [MIDNIGHT, MIDNIGHT, MIDNIGHT + HOUR, MIDNIGHT + HOUR];
    let time = || Arc::new(TimestampMicrosecondArray::from(times.to_vec()).with_timezone("UTC"));
    let of_time = || feast_core::timestamp_type();
    let schema = Arc::new(Schema::new(vec![
        ArrowField::new("event_timestamp", of_time(), true),
        ArrowField::new("driver_id", DataType::Int64, true),
        ArrowField::new("conv_rate", DataType::Float32, true),
        ArrowField::new("avg_daily_trips", DataType::Int64, true),
        ArrowField::new("created", of_time(), true),
    ]));
    let batch = RecordBatch::try_new(
        Arc::clone(&schema),
        vec![
            time(),
            Arc::new(Int64Array::from(vec![1001, 1002, 1001, 1002])),
            Arc::new(Float32Array::from(vec![Some(0.1), Some(0.2), Some(0.3), None])),
            Arc::new(Int64Array::from(vec![10, 20, 30, 40])),
            time(),
        ],
    )
    .unwrap();
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    file
}

#[cfg(unix)]
pub(crate) fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[cfg(not(unix))]
pub(crate) fn make_executable(_: &Path) {}
