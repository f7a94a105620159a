//! `feast delete`.

use clap::Args;

use crate::exit::{Exit, Outcome};
use crate::session::Session;

/// Delete one object, of whatever kind, and the online table of a view
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Name of the object
    #[arg(value_name = "OBJECT_ID")]
    name: String,
}

impl Delete {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let store = session.store()?;
        session.wait(async {
            let object = store.find(&self.name).await?;
            store.delete(&object).await?;
            session.terminal().done(format_args!("Deleted {} {}", object.kind, object.name));
            Ok(Exit::Done)
        })
    }
}
