//! `feast projects`.

use std::sync::Arc;

use clap::{Args, Subcommand};
use feast_core::{Error, ObjectKind, ProjectContents, RegistryObject};

use super::objects;
use crate::exit::{Exit, Outcome};
use crate::session::Session;

/// What can be done with projects.
#[derive(Debug, Subcommand)]
pub(crate) enum Projects {
    List(objects::List),
    Describe(Describe),
    /// Show the project of this repository
    #[command(name = "current_project", alias = "current-project")]
    CurrentProject,
    Delete(Delete),
}

/// Show everything about one of them
#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// Its name
    name: String,
}

/// Delete one of them with everything in it
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Its name
    name: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Projects {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let store = session.store()?;
        let snapshot = session.wait(async { store.snapshot(true).await })?;
        let describe = |name: &str| -> Outcome {
            let project = RegistryObject::Project(Arc::new(snapshot.project(name)?.project.clone()));
            objects::print_description(session, &objects::description(&project, name)?);
            Ok(Exit::Done)
        };
        match self {
            Self::List(command) => {
                let all = snapshot.projects.values().map(|of| RegistryObject::Project(Arc::new(of.project.clone())));
                let wanted = all.filter(|project| command.wants(project));
                objects::table(ObjectKind::Project, wanted, &ProjectContents::default()).print(session.terminal());
                Ok(Exit::Done)
            }
            Self::Describe(command) => describe(&command.name),
            Self::CurrentProject => describe(store.project()),
            Self::Delete(command) => {
                let name = command.name;
                snapshot.project(&name)?;
                let question = format!("delete project `{name}` with everything in it?");
                if !command.yes && session.terminal().can_ask() && !session.terminal().confirm(&question) {
                    return Err(Error::invalid_request("nothing was deleted").into());
                }
                session.wait(async { store.delete_project(&name).await })?;
                session.terminal().done(format_args!("Deleted project {name}"));
                Ok(Exit::Done)
            }
        }
    }
}
