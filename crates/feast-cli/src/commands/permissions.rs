//! `feast permissions`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use feast_core::{Error, ObjectKind};
use serde_json::json;

use super::{later, objects};
use crate::exit::{Exit, Outcome};
use crate::session::Session;
use crate::table::Table;

/// What can be done with permissions.
#[derive(Debug, Subcommand)]
pub(crate) enum Permissions {
    List(ListPermissions),
    Describe(objects::Describe),
    Delete(objects::Delete),
    ListRoles(ListRoles),
    #[command(hide = true)]
    Check(later::Later),
}

/// List them
#[derive(Debug, Args)]
pub(crate) struct ListPermissions {
    #[command(flatten)]
    list: objects::List,
    /// Known to Feast: also show the objects that each covers
    #[arg(short, long, hide = true)]
    verbose: bool,
}

/// List the roles that permissions name
#[derive(Debug, Args)]
pub(crate) struct ListRoles {
    /// Also show the permissions of each role
    #[arg(short, long)]
    verbose: bool,
}

impl Permissions {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let kind = ObjectKind::Permission;
        match self {
            Self::List(ListPermissions { verbose: true, .. }) => {
                Err(Error::unsupported("`feast permissions list --verbose` is not available yet")
                    .with_hint("without `--verbose`, it shows which types, names and tags each permission covers")
                    .into())
            }
            Self::List(command) => objects::Objects::List(command.list).run(session, kind),
            Self::Describe(command) => command.run(session, &[kind]),
            Self::Delete(command) => command.run(session, &[kind]),
            Self::ListRoles(command) => command.run(session),
            Self::Check(command) => command.run("permissions check"),
        }
    }
}

impl ListRoles {
    fn run(self, session: &Session) -> Outcome {
        let store = session.store()?;
        let contents = session.wait(async { store.contents(true).await })?;
        let mut roles: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for permission in contents.permissions.values() {
            for role in objects::roles(permission) {
                roles.entry(role).or_default().push(&permission.name);
            }
        }
        let mut table = Table::new(if self.verbose { vec!["ROLE NAME", "PERMISSIONS"] } else { vec!["ROLE NAME"] });
        for (role, permissions) in &roles {
            let mut cells = vec![json!(role)];
            cells.extend(self.verbose.then(|| json!(permissions)));
            table.row(cells);
        }
        table.print(session.terminal());
        Ok(Exit::Done)
    }
}
