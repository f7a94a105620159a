//! The objects that a repository defines, and how its problems are told.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use feast_core::{Error, ErrorCode, ObjectRef, Problem, ProjectContents, Result};

/// What a repository defines.
#[derive(Debug, Clone, Default)]
pub struct Definitions {
    /// The objects.
    pub contents: ProjectContents,
    /// `file:line` by [`ObjectRef::key`].
    pub locations: BTreeMap<String, String>,
    /// What was wrong while the repository was loaded: where, what, how to fix it.
    pub load_problems: Vec<LoadProblem>,
}

/// Something that was wrong while a repository was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadProblem {
    /// The object or file, as it is to be named.
    pub object: String,
    /// `file:line`, when known.
    pub location: Option<String>,
    /// What is wrong.
    pub message: String,
    /// How to fix it.
    pub hint: Option<String>,
}

impl Definitions {
    /// From the serialized `feast.core.Registry` message that holds the desired objects.
    ///
    /// # Errors
    /// When the bytes are no such message, or name another project.
    pub fn from_message(bytes: &[u8], project: &str) -> Result<Self> {
        let registry = feast_proto::decode_registry(bytes)?;
        Ok(Self { contents: feast_proto::contents_from_registry(registry, project)?, ..Self::default() })
    }

    /// Where an object was defined.
    pub fn location(&self, object: &ObjectRef) -> Option<&String> {
        self.locations.get(&object.key())
    }
}

/// One error that tells all problems, each with place, object, what is wrong and how to fix it. Its code is theirs where
/// they have the same.
pub fn problems_error(definitions: &Definitions, problems: &[Problem]) -> Error {
    let mut entries: Vec<(Option<String>, String, Option<String>)> = definitions
        .load_problems
        .iter()
        .map(|p| (p.location.clone(), format!("{} {}", p.object, p.message), p.hint.clone()))
        .collect();
    entries.extend(problems.iter().map(|problem| {
        let location = problem.location.clone().or_else(|| definitions.location(&problem.object).cloned());
        (location, format!("{} {}", problem.object, problem.message), problem.hint.clone())
    }));
    let mut text = match entries.len() {
        1 => "the definitions have one problem".to_owned(),
        many => format!("the definitions have {many} problems"),
    };
    for (location, what, hint) in entries {
        let place = location.map(|location| format!("{location}: ")).unwrap_or_default();
        let _written = write!(text, "\n  {place}{what}");
        if let Some(hint) = hint {
            let _written = write!(text, "\n    hint: {hint}");
        }
    }
    let code = match problems {
        [first, rest @ ..] if definitions.load_problems.is_empty() && rest.iter().all(|p| p.code == first.code) => {
            first.code
        }
        _ => ErrorCode::InvalidDefinition,
    };
    Error::new(code, text)
}
