//! `feast init`: a new repository from a template.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use chrono::{DurationRound, TimeDelta, TimeZone, Utc};
use clap::{Args, ValueEnum};
use feast::CONFIG_FILE;
use feast_core::{Error, ErrorCode, Result, Timestamp, timestamp_type};
use parquet::arrow::ArrowWriter;

use crate::exit::{Exit, Outcome};
use crate::session::Session;

/// Make a new feature repository
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Directory to make; its name becomes the name of the project
    #[arg(value_name = "PROJECT_DIRECTORY")]
    directory: Option<PathBuf>,
    /// Only the configuration, without definitions and data
    #[arg(short, long, conflicts_with = "template")]
    minimal: bool,
    /// What to start from: drivers with made-up statistics, or flights that left New York in December 2013
    #[arg(short, long, value_enum, ignore_case = true, default_value_t = Template::Local)]
    template: Template,
    /// Make the repository in this directory instead of one named like the project
    #[arg(long, value_name = "DIR")]
    repo_path: Option<PathBuf>,
}

/// What a repository can start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Template {
    Local,
    Flights,
    // Those of Feast that start from stores which are not here.
    #[value(hide = true)]
    Gcp,
    #[value(hide = true)]
    Aws,
    #[value(hide = true)]
    Snowflake,
    #[value(hide = true)]
    Spark,
    #[value(hide = true)]
    Postgres,
    #[value(hide = true)]
    Hbase,
    #[value(hide = true)]
    Cassandra,
    #[value(hide = true)]
    Hazelcast,
    #[value(hide = true)]
    Couchbase,
    #[value(hide = true)]
    Milvus,
    #[value(hide = true)]
    Ray,
    #[value(hide = true, name = "ray_rag")]
    RayRag,
    #[value(hide = true)]
    Rag,
    #[value(hide = true, name = "pytorch_nlp")]
    PytorchNlp,
}

/// Stands for the name of the project in templates.
const PROJECT: &str = "__PROJECT__";
/// Where the files of a repository go, below its directory.
const REPOSITORY: &str = "feature_repo";

const GITIGNORE: &str = include_str!("../../templates/gitignore");

macro_rules! template {
    ($($path:literal),*) => {
        &[$(($path, include_bytes!(concat!("../../templates/", $path)).as_slice())),*]
    };
}

/// Path below `templates/` and content of every file.
type Files = &'static [(&'static str, &'static [u8])];

const MINIMAL: Files = template!["minimal/feature_repo/feature_store.yaml"];
const LOCAL: Files = template![
    "local/README.md",
    "local/feature_repo/__init__.py",
    "local/feature_repo/feature_store.yaml",
    "local/feature_repo/feature_definitions.py",
    "local/feature_repo/test_workflow.py"
];
const FLIGHTS: Files = template![
    "flights/README.md",
    "flights/feature_repo/feature_store.yaml",
    "flights/feature_repo/feature_definitions.py",
    "flights/feature_repo/data/weather.parquet",
    "flights/feature_repo/data/carrier_delays.parquet",
    "flights/feature_repo/data/timetable.parquet"
];

impl Init {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let (root, project) = self.place(session.repo_path())?;
        let (files, with_drivers) = match (self.minimal, self.template) {
            (true, _) => (MINIMAL, false),
            (false, Template::Local) => (LOCAL, true),
            (false, Template::Flights) => (FLIGHTS, false),
            (false, other) => {
                let name = other.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
                return Err(Error::unsupported(format!("the template `{name}` is not available yet"))
                    .with_hint("start from `local`, and name the stores in its feature_store.yaml (CONFIGURATION.md)")
                    .into());
            }
        };
        let mut contents: Vec<(PathBuf, Vec<u8>)> = vec![(root.join(".gitignore"), GITIGNORE.into())];
        for (path, content) in files {
            // The first part names the template.
            let path = Path::new(path).components().skip(1).collect::<PathBuf>();
            contents.push((root.join(path), filled(content, &project)));
        }
        if with_drivers {
            contents.push((root.join(REPOSITORY).join("data/driver_stats.parquet"), driver_stats(Utc::now())?));
        }
        if let Some((taken, _)) = contents.iter().find(|(path, _)| path.exists()) {
            return Err(Error::new(ErrorCode::AlreadyExists, format!("`{}` exists already", taken.display()))
                .with_hint("choose another directory; nothing was written")
                .into());
        }
        // `apply` there would read the definitions of both.
        if let Some(repository) = root.ancestors().find(|folder| folder.join(CONFIG_FILE).exists()) {
            let repository_is = format!("`{}` is a feature repository already", repository.display());
            let what = match repository == root {
                true => format!("{repository_is}: it has a `{CONFIG_FILE}`"),
                false => format!("{repository_is}, and `feast apply` there would read the new one, too"),
            };
            return Err(Error::new(ErrorCode::AlreadyExists, what)
                .with_hint("choose another directory; nothing was written")
                .into());
        }
        write(&root.join(REPOSITORY).join("data"), &contents)?;
        let terminal = session.terminal();
        terminal.print(format_args!("Created feature repository {project} in {}", root.display()));
        if !self.minimal {
            let shown = root.strip_prefix(session.repo_path()).unwrap_or(&root).join(REPOSITORY);
            terminal.say(format_args!("next: cd {} && feast apply", shown.display()));
        }
        Ok(Exit::Done)
    }

    /// The directory of the repository and the name of the project.
    fn place(&self, base: &Path) -> Result<(PathBuf, String)> {
        let named = self.directory.clone().unwrap_or_else(|| free_name(base).into());
        let root = base.join(self.repo_path.as_ref().unwrap_or(&named));
        let project = named.file_name().or_else(|| root.file_name()).map(|name| name.to_string_lossy().into_owned());
        let project = project.unwrap_or_default();
        let valid = project.starts_with(|c: char| c.is_ascii_alphanumeric())
            && project.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if !valid {
            return Err(Error::invalid_request(format!("`{project}` cannot be the name of a project"))
                .with_hint("use letters, digits, `_` and `-`, starting with a letter or digit"));
        }
        Ok((root, project))
    }
}

/// The first of `feature_store`, `feature_store_2`, ... that does not exist.
fn free_name(base: &Path) -> String {
    let names = (1..).map(|n| if n == 1 { "feature_store".to_owned() } else { format!("feature_store_{n}") });
    let mut free = names.skip_while(|name| base.join(name).exists());
    free.next().unwrap_or_default()
}

/// A file of a template with the name of the project filled in.
fn filled(content: &[u8], project: &str) -> Vec<u8> {
    match std::str::from_utf8(content) {
        Ok(text) => text.replace(PROJECT, project).into_bytes(),
        Err(_) => content.to_vec(),
    }
}

fn write(data: &Path, contents: &[(PathBuf, Vec<u8>)]) -> Result<()> {
    let failed = |path: &Path, error: std::io::Error| {
        Error::invalid_request(format!("`{}` cannot be written", path.display()))
            .with_source(error)
            .with_hint("choose a directory that this user may write to")
    };
    fs::create_dir_all(data).map_err(|error| failed(data, error))?;
    for (path, content) in contents {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        }
        fs::write(path, content).map_err(|error| failed(path, error))?;
    }
    Ok(())
}

const DRIVERS: std::ops::RangeInclusive<i64> = 1001..=1005;
const HOURS: i64 = 15 * 24;

/// Made-up statistics of five drivers: every hour of the fifteen days before `now`, and one morning of 2021 that the
/// examples in Feast's documentation ask for. The same hour always gets the same values.
fn driver_stats(now: Timestamp) -> Result<Vec<u8>> {
    let internal = |what: &'static str| move || Error::internal(what);
    let end = now.duration_trunc(TimeDelta::hours(1)).map_err(|_| Error::internal("the clock is out of range"))?;
    let documented =
        Utc.with_ymd_and_hms(2021, 4, 12, 7, 0, 0).single().ok_or_else(internal("a constant is no time"))?;
    let times: Vec<Timestamp> =
        std::iter::once(documented).chain((1..=HOURS).map(|hour| end - TimeDelta::hours(HOURS - hour))).collect();
    let rows: Vec<(i64, Timestamp)> =
        times.iter().flat_map(|time| DRIVERS.map(move |driver| (driver, *time))).collect();
    let share =
        |salt: u64| rows.iter().map(move |(driver, time)| unit(*driver, *time, salt) as f32).collect::<Float32Array>();
    let event_timestamps = rows.iter().map(|(_, time)| time.timestamp_micros());
    let columns: [(&str, DataType, ArrayRef); 6] = [
        (
            "event_timestamp",
            timestamp_type(),
            Arc::new(TimestampMicrosecondArray::from_iter_values(event_timestamps).with_timezone("UTC")),
        ),
        ("driver_id", DataType::Int64, Arc::new(rows.iter().map(|(driver, _)| *driver).collect::<Int64Array>())),
        ("conv_rate", DataType::Float32, Arc::new(share(1))),
        ("acc_rate", DataType::Float32, Arc::new(share(2))),
        (
            "avg_daily_trips",
            DataType::Int64,
            Arc::new(
                rows.iter().map(|(driver, time)| (unit(*driver, *time, 3) * 1000.0) as i64).collect::<Int64Array>(),
            ),
        ),
        (
            "created",
            timestamp_type(),
            Arc::new(
                TimestampMicrosecondArray::from_iter_values(rows.iter().map(|_| end.timestamp_micros()))
                    .with_timezone("UTC"),
            ),
        ),
    ];
    let fields: Vec<Field> = columns.iter().map(|(name, of, _)| Field::new(*name, of.clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let arrays = columns.into_iter().map(|(_, _, array)| array).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
    let failed = |error| Error::internal("the made-up data cannot be written").with_source(error);
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, schema, None).map_err(failed)?;
    writer.write(&batch).map_err(failed)?;
    writer.close().map_err(failed)?;
    Ok(file)
}

/// A number from 0 to 1 that depends on the arguments only (SplitMix64).
fn unit(driver: i64, time: Timestamp, salt: u64) -> f64 {
    let mut state = (driver as u64) << 40 ^ (time.timestamp() as u64) << 3 ^ salt;
    state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((state ^ (state >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn made_up_data_are_the_same_for_the_same_hour() {
        let now = Utc.with_ymd_and_hms(2026, 11, 23, 12, 34, 56).unwrap();
        let first = driver_stats(now).unwrap();
        assert_eq!(first, driver_stats(now + TimeDelta::minutes(5)).unwrap());
        assert_ne!(first, driver_stats(now + TimeDelta::hours(1)).unwrap());
    }

    #[test]
    fn numbers_fill_the_unit_interval() {
        let now = Utc.with_ymd_and_hms(2026, 11, 23, 12, 0, 0).unwrap();
        let numbers: Vec<f64> = (0..1000).map(|hour| unit(1001, now + TimeDelta::hours(hour), 1)).collect();
        let mean = numbers.iter().sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
    }

    #[test]
    fn the_project_is_filled_in() {
        assert_eq!(filled(b"name: __PROJECT__\n", "rides"), b"name: rides\n");
        assert_eq!(filled(&[0xff, 0x00], "rides"), [0xff, 0x00]);
    }
}
