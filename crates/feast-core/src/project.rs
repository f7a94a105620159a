//! The namespace of all other objects.

use serde::Serialize;

use crate::{Meta, Tags};

/// The tag whose value `true` protects a project, as in Feast.
const PROTECTED: &str = "feast.dev/protected-project";

/// A namespace: names are unique per project and kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Project {
    /// Letters, digits, `_` and `-`, starting with a letter or digit.
    pub name: String,
    /// For people.
    pub description: String,
    /// Free labels.
    pub tags: Tags,
    /// Who answers for it, usually an e-mail address.
    pub owner: String,
    /// When it was created and changed.
    #[serde(skip)]
    pub meta: Meta,
}

impl Project {
    /// A project with a name only.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Whether it may not be deleted, and is not shown in lists of projects: somebody else takes care of it.
    pub fn is_protected(&self) -> bool {
        self.tags.get(PROTECTED).is_some_and(|value| value == "true")
    }
}
