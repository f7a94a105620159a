//! The types of registries that a configuration can name.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use feast_core::{Error, ErrorCode, RegistryStore, Result, did_you_mean};
use serde_json::{Map, Value};

pub(crate) mod bucket;
pub(crate) mod document;
pub(crate) mod file;
mod history;
pub(crate) mod keys;
pub(crate) mod remote;
pub(crate) mod sql;
mod whole;

/// What the configuration says about a registry. It may hold passwords.
#[derive(Clone, Copy)]
pub struct RegistrySettings<'a> {
    /// Path, URL or `host:port`, as the type wants it.
    pub path: &'a str,
    /// The other keys below `registry`.
    pub options: &'a Map<String, Value>,
    /// The folder that relative paths start in.
    pub repo_path: &'a Path,
    /// Who commits, for the history.
    pub author: &'a str,
}

impl fmt::Debug for RegistrySettings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrySettings").field("repo_path", &self.repo_path).finish_non_exhaustive()
    }
}

/// Connects a registry.
pub type ConnectRegistry = fn(&RegistrySettings<'_>) -> Result<Arc<dyn RegistryStore>>;

/// One line of the table of registry types.
#[derive(Clone, Copy)]
pub struct KnownRegistry {
    /// Value of `registry_type`.
    pub name: &'static str,
    /// Connects from the configuration; `None` for types of Feast that come later.
    pub connect: Option<ConnectRegistry>,
}

impl fmt::Debug for KnownRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownRegistry")
            .field("name", &self.name)
            .field("supported", &self.connect.is_some())
            .finish_non_exhaustive()
    }
}

/// All registry types. A new one is one line here and one file beside this one.
pub const KNOWN_REGISTRIES: &[KnownRegistry] = &[
    KnownRegistry { name: "file", connect: Some(file::connect) },
    KnownRegistry { name: "sql", connect: Some(sql::connect) },
    KnownRegistry { name: "remote", connect: Some(remote::connect) },
    KnownRegistry { name: "snowflake.registry", connect: None },
];

/// Connects the registry that a configuration names. Nothing is read or written yet.
///
/// # Errors
/// `UnknownRegistryType`, or `Unsupported` for types that come later.
pub fn connect(registry_type: &str, settings: &RegistrySettings<'_>) -> Result<Arc<dyn RegistryStore>> {
    let names = || KNOWN_REGISTRIES.iter().map(|known| known.name);
    match KNOWN_REGISTRIES.iter().find(|known| known.name == registry_type) {
        Some(KnownRegistry { connect: Some(connect), .. }) => connect(settings),
        Some(_) => Err(Error::unsupported(format!("registries of type `{registry_type}` come later"))
            .with_hint("use `registry_type: file`, `sql` or `remote`")),
        None => {
            Err(Error::new(ErrorCode::UnknownRegistryType, format!("there is no registry of type `{registry_type}`"))
                .with_hint_opt(did_you_mean(registry_type, names())))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn connected(registry_type: &str, path: &str) -> Result<Arc<dyn RegistryStore>> {
        let options = Map::new();
        connect(registry_type, &RegistrySettings { path, options: &options, repo_path: Path::new("/repo"), author: "" })
    }

    #[test]
    fn relative_paths_are_based_on_the_repository() {
        let of = |path| connected("file", path).unwrap().to_string();
        assert_eq!(of("data/registry.db"), "registry file `/repo/data/registry.db`");
        assert_eq!(of("/data/registry.db"), "registry file `/data/registry.db`");
        assert_eq!(of("file:///data/registry.db"), "registry file `/data/registry.db`");
        assert_eq!(connected("sql", "sqlite:///r.db").unwrap().to_string(), "SQL registry `sqlite:////repo/r.db`");
    }

    #[test]
    fn other_types_are_refused_in_one_sentence() {
        let code = |registry_type, path| connected(registry_type, path).unwrap_err().code();
        assert_eq!(code("remote", "localhost"), ErrorCode::InvalidConfiguration);
        assert_eq!(code("sql", "oracle://localhost/feast"), ErrorCode::Unsupported);
        assert_eq!(code("file", "hdfs://host/registry.db"), ErrorCode::Unsupported);
        assert_eq!(code("fil", "registry.db"), ErrorCode::UnknownRegistryType);
    }
}
