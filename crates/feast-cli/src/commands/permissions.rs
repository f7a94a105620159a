//! `feast permissions`.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::{Args, Subcommand};
use feast_core::{DUMMY_ENTITY, ObjectKind, PermissionAction as Action, ProjectContents, RegistryObject};
use serde_json::json;

use super::objects;
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
    Check(Check),
}

/// List them
#[derive(Debug, Args)]
pub(crate) struct ListPermissions {
    #[command(flatten)]
    list: objects::List,
    /// Show the objects that each covers
    #[arg(short, long)]
    verbose: bool,
}

/// List the objects that no permission covers, and those with actions that none allows to anybody
#[derive(Debug, Args)]
pub(crate) struct Check {}

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
            Self::List(command) if command.verbose => command.list_covered(session),
            Self::List(command) => objects::Objects::List(command.list).run(session, kind),
            Self::Describe(command) => command.run(session, &[kind]),
            Self::Delete(command) => command.run(session, &[kind]),
            Self::ListRoles(command) => command.run(session),
            Self::Check(Check {}) => check(session),
        }
    }
}

impl ListPermissions {
    fn list_covered(&self, session: &Session) -> Outcome {
        let store = session.store()?;
        let contents = session.wait(async { store.contents(true).await })?;
        let objects = objects_of(&contents);
        let mut table = Table::new(["NAME", "TYPE", "OBJECTS"]);
        for permission in contents.permissions.values() {
            if !self.list.wants(&RegistryObject::Permission(Arc::clone(permission))) {
                continue;
            }
            for kind in &permission.types {
                let mut covered = Vec::new();
                for object in objects.iter().filter(|object| kind.includes(object)) {
                    if permission.covers(object)? {
                        covered.push(object.name());
                    }
                }
                table.row([json!(permission.name), json!(format!("{kind:?}")), json!(covered)]);
            }
        }
        table.print(session.terminal());
        Ok(Exit::Done)
    }
}

/// All objects that permissions can cover, but for the entity that stands for "no entity".
fn objects_of(contents: &ProjectContents) -> Vec<RegistryObject> {
    let project = RegistryObject::Project(Arc::new(contents.project.clone()));
    let others = contents.objects().filter(|object| object.name() != DUMMY_ENTITY);
    std::iter::once(project).chain(others).collect()
}

fn check(session: &Session) -> Outcome {
    let store = session.store()?;
    let contents = session.wait(async { store.contents(true).await })?;
    let mut table = Table::new(["NAME", "TYPE", "COVERED", "UNSECURED ACTIONS"]);
    for object in objects_of(&contents) {
        let mut is_covered = false;
        let mut left = Action::ALL.to_vec();
        for permission in contents.permissions.values() {
            if permission.covers(&object)? {
                is_covered = true;
                left.retain(|action| !permission.actions.contains(action));
            }
        }
        if !left.is_empty() {
            let left: Vec<String> = left.iter().map(|action| objects::shout(&format!("{action:?}"))).collect();
            let covered = if is_covered { "Yes" } else { "No" };
            table.row([json!(object.name()), json!(object.kind().to_string()), json!(covered), json!(left)]);
        }
    }
    table.print(session.terminal());
    Ok(Exit::Done)
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
