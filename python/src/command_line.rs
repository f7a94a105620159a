//! The `feast` command inside Python.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use feast::{FeatureStore, LoadProblem, RepoConfig};
use feast_cli::{DefinitionLoader, LoadedRepository};
use feast_core::{Error, Result, Transformer};
use pyo3::prelude::*;

use crate::adapters;
use crate::transform::InProcessPython;

/// Runs a command line, program name first, and returns the exit code.
#[pyfunction]
pub(crate) fn cli_main(py: Python<'_>, argv: Vec<OsString>) -> i32 {
    let code = py.detach(|| feast_cli::run(argv, Arc::new(InProcess)));
    if let Err(error) = give_back_signals(py) {
        // Only the main thread may, and only there it matters.
        tracing::debug!(%error, "signal handlers stay");
    }
    code
}

/// A command that waits for signals leaves its handlers behind: a process that calls on would not end when told to, nor
/// would its forks. Handlers of Python's own need nothing, since ours call them.
fn give_back_signals(py: Python<'_>) -> PyResult<()> {
    let signal = py.import("signal")?;
    let default = signal.getattr("SIG_DFL")?;
    for name in ["SIGINT", "SIGTERM"] {
        let number = signal.getattr(name)?;
        if signal.call_method1("getsignal", (&number,))?.eq(&default)? {
            signal.call_method1("signal", (number, &default))?;
        }
    }
    Ok(())
}

/// The program of this interpreter.
pub(crate) fn interpreter() -> OsString {
    let program = |py: Python<'_>| py.import("sys")?.getattr("executable")?.extract::<Option<OsString>>();
    Python::attach(program).ok().flatten().filter(|path| !path.is_empty()).unwrap_or_else(|| "python3".into())
}

/// Loads definitions in this interpreter.
#[derive(Debug)]
struct InProcess;

impl DefinitionLoader for InProcess {
    fn python(&self) -> OsString {
        interpreter()
    }

    fn has_python(&self) -> bool {
        true
    }

    fn transformer(&self) -> Option<Arc<dyn Transformer>> {
        Some(Arc::new(InProcessPython::default()))
    }

    fn load(&self, repo_path: &Path, project: &str) -> Result<LoadedRepository> {
        Python::attach(|py| load(py, repo_path, project)).map_err(|error| {
            Error::internal("the definitions of the repository could not be loaded").with_source(error.to_string())
        })
    }

    fn open(&self, config: RepoConfig) -> Result<FeatureStore> {
        adapters::open(config)
    }
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Loaded {
    contents: Vec<u8>,
    locations: std::collections::BTreeMap<String, String>,
    problems: Vec<Problem>,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Problem {
    object: String,
    location: Option<String>,
    message: String,
    hint: Option<String>,
}

fn load(py: Python<'_>, repo_path: &Path, project: &str) -> PyResult<LoadedRepository> {
    let loaded: Loaded = py.import("feast._repository")?.call_method1("load", (repo_path, project))?.extract()?;
    let problems = loaded.problems.into_iter().map(|problem| LoadProblem {
        object: problem.object,
        location: problem.location,
        message: problem.message,
        hint: problem.hint,
    });
    Ok(LoadedRepository { contents: loaded.contents, locations: loaded.locations, problems: problems.collect() })
}
