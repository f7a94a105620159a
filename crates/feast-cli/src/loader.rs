//! Getting the definitions of a repository, which are Python.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use feast::{Definitions, FeatureStore, LoadProblem, RepoConfig};
use feast_core::{Error, ErrorCode, Result, Transformer};
use serde::Deserialize;

/// Names the Python interpreter that loads definitions when the command runs outside of Python.
const PYTHON_VARIABLE: &str = "FEAST_PYTHON";

/// What needs Python: importing the files of a repository and collecting what they define, and running what is in them.
pub trait DefinitionLoader: fmt::Debug + Send + Sync {
    /// Loads the repository at `repo_path`, which belongs to `project`.
    ///
    /// What is wrong inside the repository is part of the answer; an error means that nothing could be loaded at all.
    fn load(&self, repo_path: &Path, project: &str) -> Result<LoadedRepository>;

    /// The interpreter that runs users' functions in processes of its own.
    fn python(&self) -> OsString;

    /// Whether somebody has said which interpreter that is.
    fn has_python(&self) -> bool;

    /// What runs users' functions in this process, where this process is Python; a server does not use it.
    fn transformer(&self) -> Option<Arc<dyn Transformer>> {
        None
    }

    /// Opens a feature store, with the parts of it that are written in Python where there is Python.
    fn open(&self, config: RepoConfig) -> Result<FeatureStore>;
}

/// What a repository defines, as Python hands it over.
#[derive(Debug, Clone, Default)]
pub struct LoadedRepository {
    /// A serialized `feast.core.Registry` with the desired objects.
    pub contents: Vec<u8>,
    /// `file.py:12` by `kind/name`.
    pub locations: BTreeMap<String, String>,
    /// What was wrong with the files.
    pub problems: Vec<LoadProblem>,
}

impl LoadedRepository {
    /// Parses what `python -m feast._repository` prints.
    ///
    /// # Errors
    /// `Internal` when the text is no such answer.
    pub fn from_json(text: &[u8]) -> Result<Self> {
        let answer: Answer = serde_json::from_slice(text)
            .map_err(|error| Error::internal("the loaded definitions are not understood").with_source(error))?;
        let contents = BASE64
            .decode(answer.contents)
            .map_err(|error| Error::internal("the loaded definitions are not understood").with_source(error))?;
        let problems = answer.problems.into_iter().map(LoadProblem::from).collect();
        Ok(Self { contents, locations: answer.locations, problems })
    }

    pub(crate) fn into_definitions(self, project: &str) -> Result<Definitions> {
        let mut definitions = Definitions::from_message(&self.contents, project)?;
        definitions.locations = self.locations;
        definitions.load_problems = self.problems;
        for problem in &mut definitions.load_problems {
            problem.location = problem.location.take().filter(|location| !location.is_empty());
        }
        Ok(definitions)
    }
}

#[derive(Deserialize)]
struct Answer {
    contents: String,
    #[serde(default)]
    locations: BTreeMap<String, String>,
    #[serde(default)]
    problems: Vec<AnsweredProblem>,
}

#[derive(Deserialize)]
struct AnsweredProblem {
    object: String,
    #[serde(default)]
    location: Option<String>,
    message: String,
    #[serde(default)]
    hint: Option<String>,
}

impl From<AnsweredProblem> for LoadProblem {
    fn from(problem: AnsweredProblem) -> Self {
        Self { object: problem.object, location: problem.location, message: problem.message, hint: problem.hint }
    }
}

/// Loads definitions in a Python process of its own: `python3`, or what `FEAST_PYTHON` names.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChildPython;

impl DefinitionLoader for ChildPython {
    fn python(&self) -> OsString {
        let python = std::env::var_os(PYTHON_VARIABLE).filter(|name| !name.is_empty());
        python.unwrap_or_else(|| if cfg!(windows) { "python" } else { "python3" }.into())
    }

    fn has_python(&self) -> bool {
        std::env::var_os(PYTHON_VARIABLE).is_some_and(|name| !name.is_empty())
    }

    fn load(&self, repo_path: &Path, project: &str) -> Result<LoadedRepository> {
        let python = self.python();
        let shown = python.display().to_string();
        let mut child = Command::new(&python)
            .args(["-m", "feast._repository"])
            .arg(repo_path)
            .arg(project)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                Error::new(
                    ErrorCode::Unavailable,
                    format!("the definitions are Python, and `{shown}` cannot be started to load them"),
                )
                .with_hint(format!(
                    "install Python 3 and the wheel of feast-rs, or name an interpreter that has it in {PYTHON_VARIABLE}"
                ))
                .with_source(error)
            })?;
        let stderr = child.stderr.take();
        let messages = std::thread::spawn(move || pass_through(stderr));
        let mut answer = Vec::new();
        if let Some(mut stdout) = child.stdout.take() {
            stdout.read_to_end(&mut answer).map_err(|error| lost(&shown).with_source(error))?;
        }
        let status = child.wait().map_err(|error| lost(&shown).with_source(error))?;
        let without_module = messages.join().unwrap_or(false);
        if status.success() {
            LoadedRepository::from_json(&answer)
        } else if without_module {
            Err(Error::new(
                ErrorCode::Unavailable,
                format!("the definitions are Python, and `{shown}` has no module `feast._repository` to load them"),
            )
            .with_hint(format!(
                "install the wheel of feast-rs for `{shown}`, or name an interpreter that has it in {PYTHON_VARIABLE}"
            )))
        } else {
            Err(lost(&shown).with_context("exit", status))
        }
    }

    fn open(&self, config: RepoConfig) -> Result<FeatureStore> {
        FeatureStore::open(config)
    }
}

fn lost(python: &str) -> Error {
    Error::new(ErrorCode::Unavailable, format!("`{python}` ended before the definitions were loaded"))
        .with_hint(format!("run `{python} -m feast._repository . <project>` in the repository to see why"))
}

/// Passes on what the repository's files print, line by line. Returns whether Python said that it lacks the module;
/// that line is left out, because an error will say it better.
fn pass_through(stderr: Option<impl Read>) -> bool {
    let mut without_module = false;
    let Some(stderr) = stderr else { return without_module };
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line);
        let lacks = text.contains("No module named feast") || text.contains("No module named 'feast'");
        if lacks {
            without_module = true;
        } else {
            // Nobody is left to tell when this fails.
            let _ = std::io::stderr().write_all(&line);
        }
        line.clear();
    }
    without_module
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let text = br#"{"contents": "AQI=", "locations": {"entity/driver": "a.py:3"},
            "problems": [{"object": "file `b.py`", "location": "", "message": "is empty", "hint": null}]}"#;
        let loaded = LoadedRepository::from_json(text).unwrap();
        assert_eq!(loaded.contents, [1, 2]);
        assert_eq!(loaded.locations["entity/driver"], "a.py:3");
        assert_eq!(loaded.problems[0].message, "is empty");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "hello", "{}", r#"{"contents": "%"}"#] {
            assert!(LoadedRepository::from_json(text.as_bytes()).is_err(), "{text}");
        }
    }
}
